"""Contrastive losses on embeddings: InfoNCE and its weighted sum over view pairs."""

from .info_nce import DUPLICATES, info_nce, same_sample
from .multi_view import PAIRS, MultiViewLoss

__all__ = ["DUPLICATES", "PAIRS", "MultiViewLoss", "info_nce", "same_sample"]
