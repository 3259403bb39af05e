"""A small model in training, for tests that damage its checkpoints or write them to disks that are too small."""

import os

import paddle
import pytest

from ernie_vil2.config import apply_overrides, load_config
from ernie_vil2.data.tokenizer import WordPieceTokenizer
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.tasks import decay_groups
from ernie_vil2.training.checkpoint import Checkpoint, save_checkpoint
from ernie_vil2.training.optimizer import build_optimizer, gather_optimizer_state

VOCABULARY = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"token{number}" for number in range(16))]


class SmallRun:
    """Model in training with a folder for its checkpoints."""

    def __init__(self, folder):
        self.folder = folder
        self.config = load_config(None, [
            "Model.image={name: ViT, image_size: 16, patch_size: 8, width: 16, depth: 1, heads: 2}",
            "Model.text={name: bert, width: 16, depth: 1, heads: 2, max_positions: 16}",
            "Data.max_length=9",
        ])  # fmt: skip
        self.model = build_dual_encoder(self.config.Model, len(VOCABULARY))
        self.optimizer = build_optimizer(self.model, decay_groups(self.model), self.config.Optimizer)

    def train(self):
        for parameter in self.model.parameters():
            parameter.grad = paddle.randn(parameter.shape)
        self.optimizer.step()

    def save(self, step, keep=2, best=None):
        state = {"step": step, "seed": 0, "best": best and {"step": best}}
        arrays = gather_optimizer_state(self.optimizer, self.model)
        weights = {name: value.numpy() for name, value in self.model.state_dict().items()}
        config = apply_overrides(self.config, [f"Training.keep_checkpoints={keep}"])
        return save_checkpoint(self.folder, Checkpoint(state, weights, arrays, config, WordPieceTokenizer(VOCABULARY)))

    def arrays(self):
        state = {**self.model.state_dict(), **self.optimizer.state_dict()}
        return [value.numpy() for value in state.values() if isinstance(value, paddle.Tensor)]

    def names(self):
        return sorted(path.name for path in (self.folder / "checkpoints").iterdir())


@pytest.fixture(name="run")
def small_run(tmp_path):
    return SmallRun(tmp_path / "run")


def truncate_file(path):
    os.truncate(path, path.stat().st_size - 1)


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove_file(path):
    path.unlink()
