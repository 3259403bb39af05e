"""Curation of a crawl: a table of every pair, whether it stays and why not, for training by `Data.select`.

Steps measure the pairs of a shard in one pass (`measures.py`), and decide by joins over all measures in DuckDB
(`joins.py`). `docs/curate.md` is the guide.
"""

from typing import TYPE_CHECKING, Any

from ernie_vil2.apps.curation.rules import Rule
from ernie_vil2.apps.curation.step import STEPS, Pair, Step, load_steps

if TYPE_CHECKING:
    from ernie_vil2.apps.curation.run import curate

__all__ = ["STEPS", "Pair", "Rule", "Step", "curate", "load_steps"]


def __getattr__(name: str) -> Any:
    # Imported at the first use: it imports DuckDB and Arrow, without which all other commands work.
    if name == "curate":
        from ernie_vil2.apps.curation.run import curate

        return curate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
