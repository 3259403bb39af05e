"""Untrained checkpoints of tiny models."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.support.shapes import TOKENS

SMALLEST_MODEL = [
    "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 1, heads: 1}",
    "Model.text={name: ernie, width: 32, depth: 1, heads: 1, max_positions: 16}",
    "Data.max_length=16",
]
"""Settings of the smallest model."""


def write_untrained_checkpoint(folder, tokens=TOKENS, task="multi_view"):
    """Write an untrained model of ViT 32/16 and ERNIE, one block each, with these tokens, as a checkpoint."""
    shutil.copytree(_write_cached_checkpoint(tuple(tokens), task), folder, dirs_exist_ok=True)
    return folder


def write_checkpoint_with_widths(folder):
    """Write the same checkpoint as if it had been trained with Loss.widths of 8, 16 and 32."""
    config = write_untrained_checkpoint(folder) / "config.yaml"
    text = config.read_text()
    assert "  widths: []\n" in text
    config.write_text(text.replace("  widths: []\n", "  widths: [8, 16, 32]\n"))
    return folder


@cache
def _write_cached_checkpoint(tokens, task):
    """Write the checkpoint to a temporary folder, once a process: building a model takes longer than copying it."""
    import paddle  # here, as most modules of tests that import this one do without Paddle

    from ernie_vil2.config import dump_config, load_config
    from ernie_vil2.models import save_weights
    from ernie_vil2.tasks import build_task

    folder = Path(tempfile.mkdtemp(prefix="untrained-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    settings = [*SMALLEST_MODEL, f"Training.task={task}"]
    paddle.seed(0)
    vocabulary = json.dumps(str(folder / "vocab.txt"))
    built_task = build_task(load_config(None, [*settings, f"Model.text.vocabulary={vocabulary}"]))
    built_task.build(initialize=False)
    save_weights(built_task.model, folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump_config(load_config(None, settings)), encoding="utf-8")
    return folder
