"""The views of a sample and the view pairs that the loss contrasts, by name (paper, section 3)."""

IMAGE_VIEWS = ("image_1", "image_2")
TEXT_VIEWS = ("text_1", "text_2")
VIEWS_OF = {"image": IMAGE_VIEWS, "text": TEXT_VIEWS}
"""The views that each tower encodes."""
VIEWS = (*IMAGE_VIEWS, *TEXT_VIEWS)

PAIRS = {
    "image_image": ("image_1", "image_2"),
    "text_text": ("text_1", "text_2"),
    "image_text": ("image_1", "text_1"),
    "text_image": ("text_1", "image_1"),
}
"""The view pairs: the view of the rows and the view of the columns."""
