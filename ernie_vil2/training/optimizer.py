"""AdamW over the parameter groups of a task, its schedule, its state on several ranks, and the average of the weights.

Ranks divide the state by fleet's own stages (ZeRO, Rajbhandari et al. 2020, arXiv 1910.02054). Each parameter has an
owner among them: with stage1 only the owner keeps its optimiser state, with stage2 also its gradient. Gradients are
averaged over the ranks as by data parallel, and owners send out what they have updated, so that a step changes the
weights as it does without sharding.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import _C_ops
from paddle.distributed import fleet

from ernie_vil2.config import Config, ConfigError, OptimizerConfig, validate_config
from ernie_vil2.device.transfers import copy_to_host
from ernie_vil2.models.lora import LORA_A
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.norms import get_running_statistics
from ernie_vil2.tasks import ParameterGroup

# A warm-up that the user could not fit to the number of steps is cut to one step in ten, see `resolve_steps`.
WARMUP_DIVISOR = 10


def resolve_steps(config: Config, samples_per_epoch: int) -> Config:
    """Return the configuration with the steps that `Training.epochs` means, and a warm-up that fits into them.

    A user who sets epochs does not know the number of steps, so a longer warm-up is cut to a tenth of them. The same
    happens if a run is not longer than its warm-up, such as a short try of a recipe (`-o Training.steps=50`).

    Args:
        config: the configuration.
        samples_per_epoch: number of samples of the data.

    Raises:
        ConfigError: the configuration is invalid with these steps.
    """
    epochs, warmup, steps = config.Training.epochs, config.Schedule.warmup_steps, config.Training.steps
    if epochs is not None:
        # Exactly with the decimal that the user wrote: 1.1 * 50_000 is above 55,000, which would be a step more.
        num_samples = Fraction(repr(epochs)) * samples_per_epoch
        steps = max(1, math.ceil(num_samples / config.Training.global_batch))
        origin = f"Training.epochs={epochs:g}"
    elif warmup < steps:
        return config
    else:
        origin = f"Training.steps={steps}"
    tree = config.model_dump()
    tree["Training"] |= {"steps": steps, "epochs": None}
    tree["Schedule"]["warmup_steps"] = min(warmup, steps // WARMUP_DIVISOR)
    return validate_config(tree, origin)


def compute_learning_rate(step: int, config: Config) -> float:
    """Return the learning rate of an optimiser step (0 is the first).

    Linear from 0 over the warm-up, reaching the peak at its last step. Then half a cosine down to the floor (paper,
    section 4.1), or the peak up to the cooldown and a line down to the floor. Both reach the floor at the last step.
    `Tuning.base_batch` scales peak and floor. A floor above the peak is taken as the peak: the rate is then constant.
    """
    scale = config.Training.global_batch / (config.Tuning.base_batch or config.Training.global_batch)
    peak = config.Optimizer.learning_rate * scale
    floor = min(config.Schedule.floor * scale, peak)  # a small rate may be below the default floor
    warmup, steps = config.Schedule.warmup_steps, config.Training.steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.Schedule.kind == "constant":
        cooldown_start = compute_cooldown_start(config)
        if step < cooldown_start:
            return peak
        return peak + (floor - peak) * (step + 1 - cooldown_start) / (steps - cooldown_start)
    progress = (step + 1 - warmup) / (steps - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def compute_cooldown_start(config: Config) -> int:
    """Return the number of steps before the cooldown, at least the warm-up; without a cooldown, that of all steps."""
    steps = config.Training.steps
    return max(config.Schedule.warmup_steps, steps - round(config.Schedule.cooldown * steps))


@paddle.no_grad()
def set_learning_rate(optimizer: paddle.optimizer.AdamW, rate: float, factor: paddle.Tensor | None = None) -> None:
    """Set the learning rate of the next step.

    Args:
        optimizer: the optimiser.
        rate: the learning rate.
        factor: scalar on the device. The rate is multiplied by it there, so that the host need not wait for its value.
    """
    optimizer.set_lr(rate)
    if factor is not None:
        # These methods are private in Paddle 3.3.1, which offers no other way to change the rate on the device. The
        # first creates the tensor of the rate, which does not exist before the first step.
        optimizer._create_global_learning_rate()
        optimizer._global_learning_rate().multiply_(factor)


def build_optimizer(
    model: paddle.nn.Layer, groups: Sequence[ParameterGroup], config: OptimizerConfig
) -> paddle.optimizer.AdamW:
    """Build AdamW over the parameters of the groups, in the order of the model's parameters.

    Raises:
        ValueError: two groups name the same parameter, or the model does not have it.
    """
    parameters = dict(model.named_parameters())
    trained_names = set[str]()
    decayed_names = set[str]()  # Paddle's own names of the parameters
    for group in groups:
        for name in group.names:
            if name not in parameters or name in trained_names:
                raise ValueError(f"parameter groups: {name} is in two groups, or the model has no such parameter")
            trained_names.add(name)
            # Paddle multiplies the learning rate of the optimiser by this attribute.
            parameters[name].optimize_attr["learning_rate"] = group.rate_factor
            if group.has_decay:
                decayed_names.add(parameters[name].name)
    return paddle.optimizer.AdamW(
        learning_rate=config.learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        epsilon=config.epsilon,
        weight_decay=config.weight_decay,
        apply_decay_param_fun=decayed_names.__contains__,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(config.clip_norm) if config.clip_norm else None,
        parameters=[parameter for name, parameter in parameters.items() if name in trained_names],
    )


# In a checkpoint whose model is the average, the trained weights themselves are stored with the optimiser's state, as
# `<parameter>/raw`.
RAW_WEIGHTS = "raw"


class WeightAverage:
    """Exponential average of a model's trained parameters and running statistics.

    After each step it moves by `1 - decay` of the way to the weights. At first it moves faster, so that it does not
    remain where training began: the decay of step t, from 1, is at most (1 + t) / (10 + t).

    With a share of the initial weights, each step averages a mixture of the weights and the initial weights. The result
    equals the mixture of the average and the initial weights. Of the two factors of LoRA only the one that begins at
    zero is mixed, because that mixes their product.

    Args:
        model: the same on every rank, with its initial weights.
        decay: `Tuning.ema`; 0: no average over steps, only the mixture with the initial weights.
        share: share of the initial weights, `Tuning.initial_share`.
    """

    def __init__(self, model: paddle.nn.Layer, decay: float, share: float = 0.0):
        self.decay, self.share = decay, share
        statistics = {id(value) for value in get_running_statistics(model)}
        self._weights = {}
        self._initial = {}
        for name, value in model.state_dict().items():
            if value.stop_gradient and id(value) not in statistics:
                continue
            self._weights[name] = value
            if share and not name.endswith(f".{LORA_A}"):
                self._initial[name] = value.clone()
        self.restart()

    @paddle.no_grad()
    def restart(self) -> None:
        """Set the average to the current weights, without a share of the initial ones."""
        self._averages = {name: value.clone() for name, value in self._weights.items()}

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after a step; the first step is 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self._weights.items():
            average = self._averages[name]
            if name in self._initial:
                value = value + (self._initial[name] - value) * self.share
            average.set_value(average + (value - average) * (1 - decay))

    @contextmanager
    def use_averages(self) -> Iterator[None]:
        """Exchange the model's weights and the average in the block; changing the weights there changes the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def get_raw_weights(self) -> dict[str, np.ndarray]:
        """Return the weights themselves, as a checkpoint stores them with the optimiser's state."""
        return {f"{name}/{RAW_WEIGHTS}": copy_to_host(value) for name, value in self._weights.items()}

    @paddle.no_grad()
    def _swap(self) -> None:
        for name, value in self._weights.items():
            average = self._averages[name].clone()
            self._averages[name].set_value(value)
            value.set_value(average)


def check_sharding(sharding: str, ranks: int, is_cpu: bool) -> None:
    """Check that a run can divide its state as `Training.sharding` says.

    Args:
        sharding: the setting.
        ranks: number of ranks of the run.
        is_cpu: whether the run is on CPUs.

    Raises:
        ConfigError: there is nothing to divide among the ranks, or the device cannot do it.
    """
    if sharding == "stage2" and is_cpu:
        raise ConfigError("Training.sharding=stage2 needs GPUs, Paddle has none of it on CPU; use stage1 or none")
    if sharding != "none" and ranks == 1:
        raise ConfigError(
            f"Training.sharding={sharding} divides among ranks, and this is a single process; start several "
            "(--processes on CPU, fleetrun on GPUs), or set -o Training.sharding=none"
        )


def distribute(
    model: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, scaler: paddle.amp.GradScaler, sharding: str
) -> tuple[paddle.nn.Layer, Any, paddle.amp.GradScaler]:
    """Wrap model, optimiser and loss scaler for training on several ranks. A collective.

    Args:
        model: the model.
        optimizer: its optimiser.
        scaler: its loss scaler.
        sharding: `Training.sharding`; for stage1, `join_ranks` must have been told.

    Returns:
        Model, optimiser and loss scaler, wrapped, or unchanged in a single process.
    """
    if dist.get_world_size() == 1:
        return model, optimizer, scaler
    if sharding == "stage2":
        return dist.sharding.group_sharded_parallel(model, optimizer, "os_g", scaler=scaler)
    parallel = fleet.distributed_model(model)
    if sharding == "stage1":
        # fleet warns that gloo has no average; it sums and divides instead.
        with warnings.catch_warnings(action="ignore"):
            optimizer, scaler = fleet.distributed_optimizer(optimizer), fleet.distributed_scaler(scaler)
        # `compute_squared_gradient_norms` has averaged the gradients; the step must not do it again (Paddle 3.3.1).
        optimizer._sharding_enable = False
        # Private (Paddle 3.3.1), as is what it reads: the step calls this method at its end. Paddle's own sends each
        # parameter by itself.
        sharded_optimizer = optimizer._inner_opt
        sharded_optimizer._sharding_sync_parameters = lambda: collectives.broadcast_from_owners(
            sharded_optimizer._rank2params
        )
    return parallel, optimizer, scaler


def get_local_parameters(optimizer: Any, parameters: Sequence[paddle.Tensor], sharding: str) -> list[paddle.Tensor]:
    """Return the parameters whose optimiser state this rank holds: all, unless `Training.sharding` divides it.

    Args:
        optimizer: the optimiser that `distribute` returned.
        parameters: trained parameters.
        sharding: `Training.sharding`.
    """
    if dist.get_world_size() == 1 or sharding == "none":
        return list(parameters)
    if sharding == "stage1":
        return optimizer.filter_parameters(parameters, fleet.get_hybrid_communicate_group())
    rank = dist.get_rank()
    return [parameter for parameter in parameters if optimizer.param2rank[parameter.name] == rank]


@paddle.no_grad()
def compute_squared_gradient_norms(
    optimizer: Any, parameters: Sequence[paddle.Tensor], sharding: str
) -> tuple[list[paddle.Tensor], paddle.Tensor]:
    """Return this rank's share of the gradient's squared norm; the shares of all ranks add up to it. A collective.

    To be called before the optimiser's step. With stage1 it also averages the gradients over the ranks, which backward
    has not done.

    Args:
        optimizer: the optimiser that `distribute` returned.
        parameters: trained parameters.
        sharding: `Training.sharding`.

    Returns:
        The P parameters with a gradient whose state this rank holds, and `[P]`, the share of each.
    """
    ranks = dist.get_world_size()
    # Without sharding every rank has all gradients, so each takes one part in `ranks` of their squares.
    divisor = ranks
    if ranks > 1 and sharding == "stage1":
        _average_gradients_on_owners(optimizer)
        divisor = 1  # each gradient is on its owner alone
    elif ranks > 1 and sharding == "stage2":
        divisor = ranks**2  # gradients are sums over the ranks here; the optimiser's step divides them
    parameters_with_gradient, squares = [], []
    for parameter in get_local_parameters(optimizer, parameters, sharding):
        if parameter.grad is not None:
            parameters_with_gradient.append(parameter)
            # This is private in Paddle 3.3.1, but public norms are 30 times slower on CPU, and 7 % off over 30 million
            # elements.
            squares.append(_C_ops.squared_l2_norm(parameter.grad))  # [1]
    if not squares:
        return [], paddle.zeros([0])
    return parameters_with_gradient, paddle.concat(squares) / divisor


def _average_gradients_on_owners(optimizer: Any) -> None:
    """Average the gradients of a stage 1 optimiser over the ranks, each on the rank that owns its parameter.

    This replaces fleet's `reduce_gradients` (Paddle 3.3.1), which sends each gradient by itself; `_rank2params` is
    fleet's, and private. A collective.
    """
    gradients = {}
    for owner, parameters in optimizer._rank2params.items():
        for parameter in parameters:
            if parameter.grad is None:  # all ranks must send the same tensors
                parameter.grad = paddle.zeros_like(parameter)
        gradients[owner] = [parameter.grad for parameter in parameters]
    collectives.average_on_owners(gradients)


def gather_optimizer_state(optimizer: Any, model: paddle.nn.Layer) -> dict[str, np.ndarray]:
    """Return the state of all ranks on rank 0, by `<parameter's name in the model>/<kind>`. A collective.

    Other ranks get an empty dictionary.

    Args:
        optimizer: the optimiser that `distribute` returned.
        model: the model before it was wrapped.

    Raises:
        RuntimeError: a state belongs to no parameter of the model.
    """
    rank = dist.get_rank()
    local_state = _get_local_state(optimizer, model)
    local_shapes = {}
    for key, value in local_state.items():
        local_shapes[key] = value.shape, str(value.dtype).removeprefix("paddle.")
    # All ranks find the same sender of a state: the first rank that has it.
    senders: dict[str, tuple[int, list[int], Any]] = {}
    for sender, shapes in enumerate(collectives.all_gather_object(local_shapes)):
        for key, (shape, dtype) in shapes.items():
            senders.setdefault(key, (sender, shape, dtype))

    # Rank 0 takes its own state; all ranks take part in sending the state of another one.
    arrays = {}
    for key, (sender, shape, dtype) in senders.items():
        if sender == 0:
            if rank == 0:
                arrays[key] = copy_to_host(local_state[key])
            continue
        if sender == rank:
            # The copy goes by way of the host: Paddle keeps some of Adam's scalars there, where NCCL cannot read them.
            value = paddle.to_tensor(copy_to_host(local_state[key]))
        else:
            value = paddle.empty(shape, dtype)
        dist.broadcast(value, sender)
        if rank == 0:
            arrays[key] = value.numpy()
    return arrays


def _get_local_state(optimizer: Any, model: paddle.nn.Layer) -> dict[str, paddle.Tensor]:
    """Return the state of this rank by the parameters' names in the model.

    Paddle's own names of parameters depend on what was built before, so that another process may have others.
    """
    state = {key: value for key, value in optimizer.state_dict().items() if isinstance(value, paddle.Tensor)}
    local_state = {}
    for name, parameter in model.named_parameters():
        prefix = parameter.name + "_"
        keys = [key for key in state if key.startswith(prefix)]
        for key in keys:
            local_state[f"{name}/{key.removeprefix(prefix)}"] = state.pop(key)
    if state:
        raise RuntimeError(f"optimiser state that belongs to no parameter: {', '.join(state)}")
    return local_state


def get_scaler_state(scaler: paddle.amp.GradScaler) -> dict[str, Any]:
    """Return a loss scaler's state for JSON: its scale, an array `[1]`, as a list, which it can load as well."""
    state = {}
    for key, value in scaler.state_dict().items():
        state[key] = value.tolist() if isinstance(value, np.ndarray | paddle.Tensor) else value
    return state
