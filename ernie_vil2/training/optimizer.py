"""AdamW with decay where it belongs, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import paddle

from ernie_vil2.config import Config, OptimizerConfig
from ernie_vil2.models import decays


def learning_rate(step: int, config: Config) -> float:
    """Learning rate of optimiser step `step` (0 is the first).

    Linear from 0 over the warm-up, reaching the peak at its last step; then half a cosine down to the
    floor, reached at the last step (paper, section 4.1).
    """
    peak, floor = config.Optimizer.learning_rate, config.Schedule.floor
    warmup, steps = config.Schedule.warmup_steps, config.Training.steps
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step + 1 - warmup) / (steps - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def build_optimizer(model: paddle.nn.Layer, config: OptimizerConfig) -> paddle.optimizer.AdamW:
    """AdamW over all parameters that train; norms, biases, temperature and embeddings of position do not decay."""
    decayed = {parameter.name for name, parameter in model.named_parameters() if decays(name, parameter)}
    return paddle.optimizer.AdamW(
        learning_rate=config.learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        epsilon=config.epsilon,
        weight_decay=config.weight_decay,
        apply_decay_param_fun=decayed.__contains__,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(config.clip_norm) if config.clip_norm else None,
        parameters=[parameter for parameter in model.parameters() if not parameter.stop_gradient],
    )
