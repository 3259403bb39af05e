"""Losses and gradients of a training step of tiny towers, and the errors between two of them."""

from contextlib import contextmanager

import numpy as np
import paddle

from ernie_vil2.config import load_config
from ernie_vil2.losses import build_loss, get_initial_bias
from ernie_vil2.models import build_dual_encoder

# Relative errors of two orders of the same operations: rounding of each precision, with room for a few layers.
TOLERANCES = [("float32", 1e-6), ("float64", 1e-10)]
ROWS = 10
RANK_ROWS = (np.array([0, 1, 2, 4]), np.arange(5, ROWS))
"""Rows of two ranks; row 3 of the first one is a bad sample."""
VIT = "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 2, heads: 2, drop_path: 0.4}"
EVA_02 = VIT.removesuffix("}") + (
    ", variant: {mlp: swiglu, hidden: 40, activation: silu, rotary: {first_half: rows, grid: 16}, key_bias: false, "
    "attention_norm: true, patch_bias: true, input_norm: false, head: 24}}"
)
SIGMOID = ["Loss.kind=sigmoid", "Loss.bias=-2", "Loss.tile=3"]
WIDTHS = ["Loss.widths=[4, 16, 32]", "Loss.tile=3"]


@contextmanager
def use_default_dtype(dtype):
    previous_dtype = paddle.get_default_dtype()
    paddle.set_default_dtype(dtype)
    try:
        yield
    finally:
        paddle.set_default_dtype(previous_dtype)


def make_config(*changes):
    """Return a configuration of two small towers with dropout."""
    text = "{name: ernie, width: 32, depth: 2, heads: 2, max_positions: 8, dropout: 0.3, attention_dropout: 0.3}"
    return load_config(
        None,
        ["Views.resize=32", "Data.max_length=8", f"Model.text={text}", "Loss.weights={image_text: 0.5}",
         "Loss.duplicates=positives", "Schedule.warmup_steps=0", f"Training.global_batch={ROWS}", *changes],
    )  # fmt: skip


def list_loss_settings(run):
    """Return the settings of the loss, with which the name of a run on two ranks ends."""
    if run.endswith("Sigmoid"):
        return SIGMOID
    if run.endswith("Widths"):
        return WIDTHS
    return []


def build_model_and_loss(config):
    paddle.seed(0)
    model = build_dual_encoder(config.Model, 50, config.Loss.temperature, get_initial_bias(config.Loss))
    model.train()
    return model, build_loss(config.Loss)


def make_batch(dtype="float32", rows=range(ROWS)):
    """Return views, ids and positions of some rows of the global batch."""
    rng = np.random.default_rng(0)
    rows = np.array(rows)
    texts = rng.integers(1, 50, size=[ROWS, 8])
    texts[:, 5:] *= rng.integers(0, 2, size=[ROWS, 1])  # some texts are shorter: 0 is padding
    images = rng.normal(size=[2, ROWS, 3, 32, 32]).astype(dtype)
    views = {name: paddle.to_tensor(view[rows]) for name, view in zip(("image_1", "image_2"), images, strict=True)}
    views |= {name: paddle.to_tensor(texts[rows]) for name in ("text_1", "text_2")}
    return views, rng.integers(0, 8, size=[ROWS, 2])[rows], rows


def compute_step(step, rows, number=3):
    """Return the losses of a step, and the gradients of the parameters, which are then cleared."""
    total, pairs = step.forward(*rows, number)
    step.backward()
    return to_numbers(total, pairs), take_gradients(step.model)


def to_numbers(total, pairs):
    return {"total": float(total), **{pair: float(loss) for pair, loss in pairs.items()}}


def take_gradients(model):
    """Return the gradients of the parameters by name, in float64, and clear them."""
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:  # means and variances of some batch norms are parameters without gradients
            gradients[name] = parameter.grad.numpy().astype("float64")
            parameter.clear_gradient(set_to_zero=False)
    return gradients


def measure_errors(actual, expected):
    """Return the largest relative error of the losses, and of the gradients of the parameters by their norm.

    Args:
        actual: (losses by name, gradients by name), as `compute_step` returns them.
        expected: the same.
    """
    actual_losses, actual_gradients = actual
    expected_losses, expected_gradients = expected
    assert actual_gradients.keys() == expected_gradients.keys() and actual_losses.keys() == expected_losses.keys()
    loss_errors = [abs(actual_losses[name] / value - 1) for name, value in expected_losses.items()]

    # The gradient of a bias before a softmax or a batch norm is only rounding, and so is its relative error: a small
    # gradient is therefore divided by a thousandth of the largest norm.
    largest_norm = max(map(np.linalg.norm, expected_gradients.values()))
    gradient_errors = []
    for name, value in expected_gradients.items():
        difference = np.linalg.norm(actual_gradients[name] - value)
        gradient_errors.append(difference / max(np.linalg.norm(value), 1e-3 * largest_norm))
    return max(loss_errors), max(gradient_errors)


def make_keys_on_device(dropout, step, views, positions):
    return {view: paddle.to_tensor(keys) for view, keys in dropout.make_keys(step, views, positions).items()}
