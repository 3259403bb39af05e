"""How one image-caption-tags sample becomes the views of the paper (section 3)."""

from ernie_vil2.geometry import evaluation_view
from ernie_vil2.views.image_views import ImageNormalization, normalize_images, training_views
from ernie_vil2.views.preprocessing import Preprocessing
from ernie_vil2.views.text_views import draw_text, tags_text

__all__ = [
    "ImageNormalization",
    "Preprocessing",
    "draw_text",
    "evaluation_view",
    "normalize_images",
    "tags_text",
    "training_views",
]
