"""The dual encoder, its towers, and weights in and out."""

from ernie_vil2.models.dual_encoder import DualEncoder, build_dual_encoder, has_weight_decay
from ernie_vil2.models.weights.files import WeightReport, load_weights, save_weights, set_weights

__all__ = [
    "DualEncoder",
    "WeightReport",
    "build_dual_encoder",
    "has_weight_decay",
    "load_weights",
    "save_weights",
    "set_weights",
]
