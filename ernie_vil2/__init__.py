"""ERNIE-ViL 2.0: multi-view contrastive image-text pretraining, retrieval and search on PaddlePaddle.

model = ernie_vil2.load_model("ernie-vil-2.0-base-zh")
scores, probabilities = model.rank(["cat.jpg"], ["一只猫", "一只狗"])
"""

from . import runtime

__all__ = ["ErnieViL2", "__version__", "load_model", "open_index"]
__version__ = "0.1.0"

# Before anything imports Paddle: its libraries read these switches once, when they load.
runtime.prepare()


def __getattr__(name: str):
    # Imported when asked for: they bring Paddle with them, which takes seconds.
    if name == "load_model":
        from .pretrained import load_model

        return load_model
    if name == "open_index":
        from .search import open_index

        return open_index
    if name == "ErnieViL2":
        from .encoder import ErnieViL2

        return ErnieViL2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
