"""From a crawl to a training set: every removal with its reason, in a table that training takes as `Data.select`.

Steps measure the pairs of a shard in one pass (maps, in `measures.py`), and decide by joins over all of them
(`joins.py`, in DuckDB). `docs/curate.md` is the guide.
"""

from ernie_vil2.apps.curation.run import curate
from ernie_vil2.apps.curation.step import STEPS, Pair, Step, load_steps

__all__ = ["STEPS", "Pair", "Step", "curate", "load_steps"]
