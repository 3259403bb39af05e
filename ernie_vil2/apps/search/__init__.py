"""Search: images and texts of one model, found by sentences and by images (paper, section 5)."""

from ernie_vil2.apps.search.collection import DamagedIndex, Hit
from ernie_vil2.apps.search.index import Index, OtherModel, open_index
from ernie_vil2.apps.search.store import BusyIndex

__all__ = ["BusyIndex", "DamagedIndex", "Hit", "Index", "OtherModel", "open_index"]
