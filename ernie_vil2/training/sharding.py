"""What the ranks of a run divide among them, by fleet's own stages (ZeRO, Rajbhandari et al. 2020, arXiv 1910.02054).

Each parameter has an owner among the ranks: stage1 keeps its optimiser state there only, stage2 its gradient as well.
Gradients are averaged over the ranks as data parallel averages them, and owners send out what they have updated, so
that a step changes the weights as it does without sharding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import _C_ops
from paddle.distributed import fleet

from ernie_vil2.config import ConfigError
from ernie_vil2.parallel import collectives


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
    held = {key: (value.shape, str(value.dtype).removeprefix("paddle.")) for key, value in own.items()}
    for owner, keys in enumerate(collectives.all_gather_object(held)):
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
