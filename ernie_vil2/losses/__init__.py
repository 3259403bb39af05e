"""The multi-view loss: a weighted sum of InfoNCE over view pairs (arXiv 2209.15270, equations 1 and 2).

`multi_view` is equation 2, `info_nce` equation 1, `tiled` the same without ever holding all logits; `sigmoid` is
SigLIP's loss in place of equation 1.
"""

from .duplicates import DUPLICATES, NoNegatives, refuse_without_negatives, same_sample
from .info_nce import InfoNCE, info_nce
from .multi_view import PAIR_LOSSES, MultiViewLoss, build_loss
from .sigmoid import SigmoidLoss
from .tiled import tiled_both_ways, tiled_info_nce

__all__ = [
    "DUPLICATES",
    "PAIR_LOSSES",
    "InfoNCE",
    "MultiViewLoss",
    "NoNegatives",
    "SigmoidLoss",
    "build_loss",
    "info_nce",
    "refuse_without_negatives",
    "same_sample",
    "tiled_both_ways",
    "tiled_info_nce",
]
