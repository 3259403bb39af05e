import numpy as np
import paddle
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.tasks import decay_groups
from ernie_vil2.training.optimizer import build_optimizer, learning_rate


def test_schedule_by_hand():
    config = load_config(
        None, ["Optimizer.learning_rate=1.0", "Schedule={warmup_steps: 4, floor: 0.2}", "Training.steps=8"]
    )
    rates = [learning_rate(step, config) for step in range(8)]
    half = (1 - 0.2) / 2
    cosine = [0.2 + half * (1 + c) for c in (np.sqrt(0.5), 0.0, -np.sqrt(0.5), -1.0)]
    assert np.allclose(rates, [0.25, 0.5, 0.75, 1.0, *cosine])


def test_the_rate_is_scaled_by_the_batch_where_asked():
    settings = ["Optimizer.learning_rate=1.0", "Schedule={warmup_steps: 4, floor: 0.2}", "Training.steps=8"]
    plain = load_config(None, [*settings, "Training.global_batch=1024"])
    scaled = load_config(None, [*settings, "Training.global_batch=1024", "Tuning.base_batch=256"])
    assert [learning_rate(step, scaled) for step in range(8)] == [4 * learning_rate(step, plain) for step in range(8)]


def test_without_warmup_the_cosine_starts_at_once():
    config = load_config(None, ["Schedule={warmup_steps: 0, floor: 0.0}", "Training.steps=2"])
    assert learning_rate(0, config) == pytest.approx(0.5e-4) and learning_rate(1, config) == pytest.approx(0)


def test_only_matrices_decay(config):
    """With all gradients zero, Adam itself changes nothing: what shrinks is what decays."""
    model = build_dual_encoder(config().Model, 100)
    settings = config("Optimizer.weight_decay=0.1", "Optimizer.learning_rate=1.0").Optimizer
    optimizer = build_optimizer(model, decay_groups(model), settings)
    for parameter in model.parameters():
        parameter.set_value(paddle.ones_like(parameter))
        parameter.grad = paddle.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and not any(word in name for word in ("pos", "cls_token"))
        assert np.allclose(parameter.numpy(), 0.9 if decays else 1.0), name


def test_one_adam_step_and_clipping_by_hand():
    config = load_config(None, ["Optimizer={learning_rate: 0.1, weight_decay: 0.0, clip_norm: 1.0, epsilon: 1e-3}"])
    layer = paddle.nn.Linear(2, 1, bias_attr=False)
    layer.weight.set_value(np.zeros([2, 1], np.float32))
    optimizer = build_optimizer(layer, decay_groups(layer), config.Optimizer)
    (layer.weight * paddle.to_tensor([[3.0], [4.0]])).sum().backward()  # norm 5, clipped to [0.6, 0.8]
    optimizer.step()
    gradient = np.array([0.6, 0.8])
    assert np.allclose(layer.weight.numpy().ravel(), -0.1 * gradient / (gradient + 1e-3), rtol=1e-4)
