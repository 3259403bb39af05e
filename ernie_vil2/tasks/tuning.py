"""What `Tuning` does to a dual encoder before its first step: which parameters are trained, and at which rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from paddle import nn

from ernie_vil2.config import ConfigError, TuningConfig
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.heads import HEAD
from ernie_vil2.models.layer_groups import chosen_parameters
from ernie_vil2.models.lora import add_lora
from ernie_vil2.parallel.norms import batch_norms, frozen_norms


def tune(model: DualEncoder, tuning: TuningConfig, resumed: bool = False) -> list[str]:
    """Does what `Tuning.lora`, `Tuning.freeze` and `Tuning.freeze_norms` ask, in place; says what that was.

    A batch norm of which no weight is trained any more is one of a model in evaluation from then on.

    Args:
        resumed: whether the run has begun already.

    Raises:
        ConfigError: a pattern names nothing, nothing is left to train, or LoRA's rank is above a layer's width.
    """
    before = {name for name, value in model.named_parameters() if not value.stop_gradient}
    try:
        remarks = [add_lora(model, tuning.lora, resumed)] if tuning.lora else []
    except ValueError as error:
        raise ConfigError(f"Tuning.lora.layers: {error}") from None
    try:
        frozen = chosen_parameters(model, tuning.freeze)
    except ValueError as error:
        raise ConfigError(f"Tuning.freeze: {error}") from None
    norms = batch_norms(model) if tuning.freeze_norms else {}
    if tuning.freeze_norms and not norms:
        raise ConfigError("Tuning.freeze_norms: this model has no batch norms; leave it out")
    for name, norm in norms.items():
        norm._use_global_stats = True
        frozen |= {f"{name}.{part}" for part, _ in norm.named_parameters()}
    if tuning.freeze or norms:
        remarks.append(_freeze(model, frozen, [*tuning.freeze, *[f"{len(norms)} batch norms"] * bool(norms)]))
    return remarks + _keep_statistics(frozen_norms(model, before), tuning.moving_statistics)


def _freeze(model: DualEncoder, frozen: Set[str], named: Sequence[str]) -> str:
    trained = {name: value for name, value in model.named_parameters() if not value.stop_gradient}
    for name in frozen & trained.keys():
        trained[name].stop_gradient = True
    left = {name: value.size for name, value in trained.items() if not value.stop_gradient}
    if not any(name.startswith(("image", "text", HEAD)) for name in left):
        raise ConfigError("Tuning.freeze leaves nothing of the towers to train")
    every = sum(value.size for value in trained.values())
    return f"frozen: {', '.join(named)}; {sum(left.values()):,} of {every:,} weights are trained"


def _keep_statistics(frozen: Mapping[str, nn.Layer], moving: bool) -> list[str]:
    norms = [norm for norm in frozen.values() if not norm._use_global_stats]
    if not norms:
        return []
    if moving:
        return [f"the statistics of {len(norms)} frozen batch norms follow the batches (Tuning.moving_statistics)"]
    for norm in norms:
        norm._use_global_stats = True
    return [f"{len(norms)} frozen batch norms normalise by their running statistics, which stay"]
