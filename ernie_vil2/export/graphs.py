"""The towers as static graphs, for Paddle Inference and as the source of everything else.

`image.json`, `image.pdiparams`: `pixels` `[B, S, S, 3]` uint8 RGB to `image_embeddings` `[B, D]` float32, normalised to
length 1; the normalisation of the pixels is part of the graph. `text.json`, `text.pdiparams`: `token_ids` `[B, L]`
int64, padded with 0, to `text_embeddings` likewise.
"""

from __future__ import annotations

import errno
import os
import resource
import warnings
from pathlib import Path

import paddle
from paddle import nn
from paddle.static import InputSpec

from ernie_vil2.backends import Eager
from ernie_vil2.data.preprocessing import Preprocessing, normalize_images
from ernie_vil2.io.export_folder import INPUTS
from ernie_vil2.io.terminal import silenced
from ernie_vil2.models import DualEncoder


class NotExportable(ValueError):
    """A tower that cannot become a graph; the message says why."""


def save_graphs(engine: Eager, preprocessing: Preprocessing, folder: Path) -> None:
    """Writes both towers into `folder`.

    Raises:
        NotExportable: a tower's code cannot be traced.
    """
    model, size = engine.model, preprocessing.size
    graphs = {
        "image": (_Image(model, preprocessing), InputSpec([None, size, size, 3], "uint8", INPUTS["image"])),
        "text": (_Text(model), InputSpec([None, None], "int64", INPUTS["text"])),
    }
    was_training = model.training
    for tower, (layer, spec) in graphs.items():
        layer.eval()
        try:
            with silenced(), warnings.catch_warnings(action="ignore"):
                static = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True)
                paddle.jit.save(static, str(folder / tower))
        except OSError:
            raise
        except Exception as error:  # tracing runs the tower's own code, which may raise anything
            raise NotExportable(f"the {tower} tower cannot be traced into a graph: {reason(error)}") from error
        finally:
            model.train() if was_training else model.eval()
        _check_written(folder / f"{tower}.json", folder / f"{tower}.pdiparams")


def _check_written(*files: Path) -> None:
    """OSError if the disk is full or a file has reached the limit of its size: Paddle writes what fits, silently."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    for file in files:
        if limit != resource.RLIM_INFINITY and file.stat().st_size >= limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(file))
    probe = files[0].with_name("probe")
    probe.write_bytes(bytes(resource.getpagesize()))  # had one of them been cut off, there would be no page left
    probe.unlink()


def reason(error: Exception | str) -> str:
    """The line of a library's long message that says what is wrong: the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class _Image(nn.Layer):
    def __init__(self, model: DualEncoder, preprocessing: Preprocessing):
        super().__init__()
        self.model, self.mean, self.std = model, preprocessing.mean, preprocessing.std

    def forward(self, pixels: paddle.Tensor) -> paddle.Tensor:
        return self.model.encode_image(normalize_images(pixels, self.mean, self.std))


class _Text(nn.Layer):
    def __init__(self, model: DualEncoder):
        super().__init__()
        self.model = model

    def forward(self, token_ids: paddle.Tensor) -> paddle.Tensor:
        return self.model.encode_text(token_ids)
