"""Entry points of `paddle.hub.load(REPOSITORY, NAME, source="local")`, where REPOSITORY is a checkout."""

import ernie_vil2

dependencies = ["paddle", "numpy", "cv2", "pydantic"]


def load_model(weights, **options):
    """Return a dual encoder from a file, a folder or the name of a published model; see `ernie_vil2.load_model`.

    The argument is not called source, because `paddle.hub.load` has an argument of that name.
    """
    return ernie_vil2.load_model(weights, **options)


def ernie_vil_2_0_base_zh(**options):
    """Return the released Chinese model ViT-B/16 with ERNIE base; its weights are fetched once (800 MB)."""
    return ernie_vil2.load_model("ernie-vil-2.0-base-zh", **options)
