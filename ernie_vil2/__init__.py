"""ERNIE-ViL 2.0: multi-view contrastive image-text pretraining, retrieval and search on PaddlePaddle."""

from . import runtime

__version__ = "0.1.0"

# Before anything imports Paddle: its libraries read these switches once, when they load.
runtime.prepare()
