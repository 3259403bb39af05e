"""Communication between ranks: collectives, gathered rows with gradient, and batch norms over all ranks."""

from ernie_vil2.parallel.gather import gather_ids, gather_rows, gather_views
from ernie_vil2.parallel.norms import average_statistics

__all__ = ["average_statistics", "gather_ids", "gather_rows", "gather_views"]
