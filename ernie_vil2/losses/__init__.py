"""The multi-view loss: a weighted sum of InfoNCE over view pairs (arXiv 2209.15270, equations 1 and 2).

`multi_view` has both equations and the term of a teacher, `tiles` equation 1 without ever holding all logits; `sigmoid`
is SigLIP's loss, which replaces equation 1.
"""

from .multi_view import (
    PAIR_LOSSES,
    InfoNCE,
    MultiViewLoss,
    NoNegatives,
    PairLoss,
    build_loss,
    info_nce,
    initial_bias,
    refuse_without_negatives,
)
from .sigmoid import SigmoidLoss
from .tiles import DUPLICATES, same_sample, tiled_both_ways, tiled_info_nce

__all__ = [
    "DUPLICATES",
    "PAIR_LOSSES",
    "InfoNCE",
    "MultiViewLoss",
    "NoNegatives",
    "PairLoss",
    "SigmoidLoss",
    "build_loss",
    "info_nce",
    "initial_bias",
    "refuse_without_negatives",
    "same_sample",
    "tiled_both_ways",
    "tiled_info_nce",
]
