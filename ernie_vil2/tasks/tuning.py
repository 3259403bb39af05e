"""What `Tuning` does to a dual encoder before its first step: which parameters are trained, and at which rates."""

from __future__ import annotations

from ernie_vil2.config import ConfigError, TuningConfig
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.heads import HEAD
from ernie_vil2.models.layer_groups import chosen_parameters
from ernie_vil2.models.lora import add_lora
from ernie_vil2.parallel.norms import batch_norms


def tune(model: DualEncoder, tuning: TuningConfig, resumed: bool = False) -> list[str]:
    """Does what `Tuning.lora`, `Tuning.freeze` and `Tuning.freeze_norms` ask, in place; says what that was.

    Args:
        resumed: whether the run has begun already.

    Raises:
        ConfigError: a pattern names nothing, nothing is left to train, or LoRA's rank is above a layer's width.
    """
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
    if not tuning.freeze and not norms:
        return remarks
    trained = {name: value for name, value in model.named_parameters() if not value.stop_gradient}
    for name in frozen & trained.keys():
        trained[name].stop_gradient = True
    left = {name: value.size for name, value in trained.items() if not value.stop_gradient}
    if not any(name.startswith(("image", "text", HEAD)) for name in left):
        raise ConfigError("Tuning.freeze leaves nothing of the towers to train")
    every = sum(value.size for value in trained.values())
    named = [*tuning.freeze, *[f"{len(norms)} batch norms"] * bool(norms)]
    return [*remarks, f"frozen: {', '.join(named)}; {sum(left.values()):,} of {every:,} weights are trained"]
