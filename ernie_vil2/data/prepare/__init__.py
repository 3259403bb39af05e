"""Any source made into tar shards; tools/prepare_data.py is the command line, docs/data.md the guide."""

from ernie_vil2.data.prepare.index import PreparedIndex
from ernie_vil2.data.prepare.run import PrepareError, check, prepare
from ernie_vil2.data.prepare.shards import Settings

__all__ = ["PrepareError", "PreparedIndex", "Settings", "check", "prepare"]
