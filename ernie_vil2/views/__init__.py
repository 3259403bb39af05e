"""How one image-caption-tags sample becomes the views of the paper (section 3)."""

from ernie_vil2.geometry import evaluation_view
from ernie_vil2.views.preprocessing import Preprocessing
from ernie_vil2.views.training_views import ImageNormalization, draw_text, normalize_images, tags_text, training_views

__all__ = [
    "ImageNormalization",
    "Preprocessing",
    "draw_text",
    "evaluation_view",
    "normalize_images",
    "tags_text",
    "training_views",
]
