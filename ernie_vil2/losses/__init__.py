"""Contrastive losses on embeddings: InfoNCE, plain and in tiles, and its weighted sum over view pairs."""

from .info_nce import DUPLICATES, info_nce, same_sample
from .multi_view import PAIRS, MultiViewLoss
from .tiled import tiled_both_ways, tiled_info_nce

__all__ = ["DUPLICATES", "PAIRS", "MultiViewLoss", "info_nce", "same_sample", "tiled_both_ways", "tiled_info_nce"]
