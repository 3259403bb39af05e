"""Curation of a crawl: a table of every pair, whether it stays and why not, for training by `Data.select`.

Steps measure the pairs of a shard in one pass (`measures.py`), and decide by joins over all measures in DuckDB
(`joins.py`). `docs/curate.md` is the guide.
"""

from ernie_vil2.apps.curation.run import curate
from ernie_vil2.apps.curation.step import STEPS, Pair, Step, load_steps

__all__ = ["STEPS", "Pair", "Step", "curate", "load_steps"]
