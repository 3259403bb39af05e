"""AdamW over the parameter groups of a task, its schedule, its state over the ranks, and the average of the weights.

Ranks divide the state by fleet's own stages (ZeRO, Rajbhandari et al. 2020, arXiv 1910.02054). Each parameter has an
owner among them: stage1 keeps its optimiser state there only, stage2 its gradient as well. Gradients are averaged over
the ranks as data parallel averages them, and owners send out what they have updated, so that a step changes the weights
as it does without sharding.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import _C_ops
from paddle.distributed import fleet

from ernie_vil2.config import Config, ConfigError, OptimizerConfig, validate_config
from ernie_vil2.models.lora import LORA_A
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.norms import get_running_statistics
from ernie_vil2.tasks import ParameterGroup

WARMUP_SHARE = 10
"""One step in so many is warm-up, at most in a run that is given in epochs, and in one shorter than its warm-up."""


def with_steps(config: Config, samples: int) -> Config:
    """Return the configuration with the steps that `Training.epochs` means, and a warm-up that fits into them.

    Nobody who gives epochs knows the steps: the warm-up is then at most a tenth of them. So it is where the run is not
    longer than its warm-up, as a short try of a recipe is (`-o Training.steps=50`).

    Args:
        config: of a run.
        samples: of an epoch.
    """
    epochs, warmup, steps = config.Training.epochs, config.Schedule.warmup_steps, config.Training.steps
    if epochs is not None:
        steps = max(1, math.ceil(epochs * samples / config.Training.global_batch))
    elif warmup < steps:
        return config
    tree = config.model_dump()
    tree["Training"] |= {"steps": steps, "epochs": None}
    tree["Schedule"]["warmup_steps"] = min(warmup, steps // WARMUP_SHARE)
    return validate_config(tree, f"Training.steps={steps}" if epochs is None else f"Training.epochs={epochs:g}")


def learning_rate(step: int, config: Config) -> float:
    """Learning rate of optimiser step `step` (0 is the first).

    Linear from 0 over the warm-up, reaching the peak at its last step; then half a cosine down to the
    floor, reached at the last step (paper, section 4.1). `Tuning.base_batch` scales both.
    """
    scale = config.Training.global_batch / (config.Tuning.base_batch or config.Training.global_batch)
    peak, floor = (rate * scale for rate in (config.Optimizer.learning_rate, config.Schedule.floor))
    warmup, steps = config.Schedule.warmup_steps, config.Training.steps
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step + 1 - warmup) / (steps - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@paddle.no_grad()
def set_rate(optimizer: paddle.optimizer.AdamW, rate: float, factor: paddle.Tensor | None = None) -> None:
    """Sets the learning rate of the next step.

    Args:
        factor: a scalar on the device, by which it is multiplied there.
    """
    optimizer.set_lr(rate)
    if factor is not None:
        optimizer._create_global_learning_rate()  # before the first step there is no tensor of it
        optimizer._global_learning_rate().multiply_(factor)


def build_optimizer(
    model: paddle.nn.Layer, groups: Sequence[ParameterGroup], config: OptimizerConfig
) -> paddle.optimizer.AdamW:
    """AdamW over the groups, in the order of the model's parameters.

    Raises:
        ValueError: a group names a parameter that is in none or in another group, or that the model lacks.
    """
    named = dict(model.named_parameters())
    names = [name for group in groups for name in group.names]
    if len(set(names)) < len(names) or not set(names) <= named.keys():
        wrong = [name for name in names if names.count(name) > 1 or name not in named]
        raise ValueError(f"parameter groups: {wrong[0]} is in two groups, or the model has no such parameter")
    decayed = set()
    for group in groups:
        for name in group.names:
            named[name].optimize_attr["learning_rate"] = group.rate_factor
            if group.has_decay:
                decayed.add(named[name].name)
    return paddle.optimizer.AdamW(
        learning_rate=config.learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        epsilon=config.epsilon,
        weight_decay=config.weight_decay,
        apply_decay_param_fun=decayed.__contains__,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(config.clip_norm) if config.clip_norm else None,
        parameters=[parameter for name, parameter in named.items() if name in set(names)],
    )


RAW = "raw"
"""Kind of the weights themselves among the state of the optimiser, in a checkpoint whose model is the average."""


class WeightAverage:
    """The average of the parameters that are trained and of the running statistics of a model.

    After each step it moves by `1 - decay` of the way to the weights. At first it moves faster, so that it does not
    stay at where training began: the decay of step t, from 1, is at most (1 + t) / (10 + t). With a share of the
    initial weights it is the average of mixtures, which is the mixture of the average. Of LoRA's two factors only the
    one that begins at zero is mixed: so their product is.

    Args:
        model: on every rank the same, with its initial weights.
        decay: of `Tuning.ema`; 0: there are only mixtures.
        share: of the initial weights, `Tuning.initial_share`.
    """

    def __init__(self, model: paddle.nn.Layer, decay: float, share: float = 0.0):
        self.decay, self.share = decay, share
        statistics = {id(value) for value in get_running_statistics(model)}
        self._weights = {name: value for name, value in model.state_dict().items()
                         if not value.stop_gradient or id(value) in statistics}  # fmt: skip
        mixed = {name: value for name, value in self._weights.items() if share and not name.endswith(f".{LORA_A}")}
        self._initial = {name: value.clone() for name, value in mixed.items()}
        self.restart()

    @paddle.no_grad()
    def restart(self) -> None:
        """Takes the weights as they are for the average."""
        self._averages = {name: value.clone() for name, value in self._weights.items()}

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after a step into the average.

        Args:
            step: its number, from 1.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self._weights.items():
            average = self._averages[name]
            if name in self._initial:
                value = value + (self._initial[name] - value) * self.share
            average.set_value(average + (value - average) * (1 - decay))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the average for its weights; what becomes of them there stays in it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def raw(self) -> dict[str, np.ndarray]:
        """The weights themselves, as a checkpoint holds them among the optimiser's state."""
        return {f"{name}/{RAW}": value.numpy() for name, value in self._weights.items()}

    @paddle.no_grad()
    def _swap(self) -> None:
        for name, value in self._weights.items():
            other = self._averages[name].clone()
            self._averages[name].set_value(value)
            value.set_value(other)


def check_sharding(sharding: str, ranks: int) -> None:
    """Whether there is something to divide among the ranks, and the device can do it.

    Args:
        sharding: `Training.sharding`.

    Raises:
        ConfigError: there is not, or it cannot.
    """
    if sharding == "stage2" and paddle.get_device() == "cpu":
        raise ConfigError("Training.sharding=stage2 needs GPUs, Paddle has none of it on CPU; use stage1 or none")
    if sharding != "none" and ranks == 1:
        raise ConfigError(
            f"Training.sharding={sharding} divides among ranks, and this is a single process; start several "
            "(--processes on CPU, fleetrun on GPUs), or set -o Training.sharding=none"
        )


def distribute(
    model: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, scaler: paddle.amp.GradScaler, sharding: str
) -> tuple[paddle.nn.Layer, Any, paddle.amp.GradScaler]:
    """Model, optimiser and loss scaler for all ranks; a single process gets back its own. A collective.

    Args:
        sharding: `Training.sharding`, with which the ranks were joined.
    """
    if dist.get_world_size() == 1:
        return model, optimizer, scaler
    if sharding == "stage2":
        return dist.sharding.group_sharded_parallel(model, optimizer, "os_g", scaler=scaler)
    parallel = fleet.distributed_model(model)
    if sharding == "stage1":
        with warnings.catch_warnings(action="ignore"):  # that gloo has no average; it sums and divides
            optimizer, scaler = fleet.distributed_optimizer(optimizer), fleet.distributed_scaler(scaler)
        optimizer._sharding_enable = False  # its step averages no gradients, `squared_gradient_norms` has done it
    return parallel, optimizer, scaler


def own_parameters(optimizer: Any, parameters: Sequence[paddle.Tensor], sharding: str) -> list[paddle.Tensor]:
    """Those of the parameters whose optimiser state this rank holds: all, unless `Training.sharding` divides it."""
    if dist.get_world_size() > 1 and sharding == "stage1":
        return optimizer.filter_parameters(parameters, fleet.get_hybrid_communicate_group())
    if dist.get_world_size() > 1 and sharding == "stage2":
        return [each for each in parameters if optimizer.param2rank[each.name] == dist.get_rank()]
    return list(parameters)


@paddle.no_grad()
def squared_gradient_norms(
    optimizer: Any, parameters: Sequence[paddle.Tensor], sharding: str
) -> tuple[list[paddle.Tensor], paddle.Tensor]:
    """This rank's share of the gradient's squared norm: what all ranks have adds up to it. A collective.

    Gradients are averaged over the ranks here where backward has not done it. To be called before the optimiser's step.

    Returns:
        P parameters, and `[P]`, what each has of the share.
    """
    ranks, counted = dist.get_world_size(), dist.get_world_size()
    if ranks > 1 and sharding == "stage1":
        optimizer.reduce_gradients(parameters, fleet.get_hybrid_communicate_group())
        counted = 1
    elif ranks > 1 and sharding == "stage2":
        counted = ranks**2  # gradients are sums over the ranks, which the step divides
    counting = [each for each in own_parameters(optimizer, parameters, sharding) if each.grad is not None]
    # Paddle's public norms are 30 times slower on CPU, and 7 % off over 30 million elements.
    squares = [_C_ops.squared_l2_norm(each.grad) for each in counting if each.grad is not None]
    return counting, paddle.concat(squares) / counted if squares else paddle.zeros([0])


def optimizer_arrays(optimizer: Any, model: paddle.nn.Layer) -> dict[str, np.ndarray]:
    """State of all ranks as `<parameter's name in the model>/<kind>` on rank 0, elsewhere nothing. A collective.

    Raises:
        RuntimeError: a state that belongs to no parameter of the model.
    """
    rank, own = dist.get_rank(), _own_state(optimizer, model)
    owners: dict[str, tuple[int, list[int], Any]] = {}
    shapes = {key: (value.shape, str(value.dtype).removeprefix("paddle.")) for key, value in own.items()}
    for owner, keys in enumerate(collectives.all_gather_object(shapes)):
        for key, (shape, dtype) in keys.items():
            owners.setdefault(key, (owner, shape, dtype))
    arrays = {}
    for key, (owner, shape, dtype) in owners.items():
        if owner:
            # By way of the host: Paddle keeps some of Adam's scalars there, where NCCL would not find them.
            value = paddle.to_tensor(own[key].numpy()) if owner == rank else paddle.empty(shape, dtype)
            dist.broadcast(value, owner)
        elif rank == 0:
            value = own[key]
        if rank == 0:
            arrays[key] = value.numpy()
    return arrays


def _own_state(optimizer: Any, model: paddle.nn.Layer) -> dict[str, paddle.Tensor]:
    """What this rank holds. Paddle's own names of parameters depend on what was built before."""
    state = {key: value for key, value in optimizer.state_dict().items() if isinstance(value, paddle.Tensor)}
    own = {}
    for name, parameter in model.named_parameters():
        prefix = parameter.name + "_"
        for key in [key for key in state if key.startswith(prefix)]:
            own[f"{name}/{key.removeprefix(prefix)}"] = state.pop(key)
    if state:
        raise RuntimeError(f"optimiser state that belongs to no parameter: {', '.join(state)}")
    return own


def scaler_state(scaler: paddle.amp.GradScaler) -> dict[str, Any]:
    """A loss scaler's state for JSON; arrays become lists, as `GradScaler.load_state_dict` reads the first entry."""
    return {
        key: value.tolist() if isinstance(value, np.ndarray | paddle.Tensor) else value
        for key, value in scaler.state_dict().items()
    }
