"""What the configuration does to a dual encoder before its first step.

`Tuning` says which parameters are trained and at which rates, `Training.fused_attention` where attention is one kernel,
and `Training.recompute` that blocks keep only their inputs for backward and run a second time there.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from contextvars import copy_context
from typing import Any

import paddle
from paddle import nn
from paddle.distributed.fleet.utils import recompute

from ernie_vil2.config import Config, ConfigError, TrainingConfig, TuningConfig
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.dual_encoder import chosen_parameters
from ernie_vil2.models.heads import HEAD
from ernie_vil2.models.lora import add_lora
from ernie_vil2.parallel.norms import batch_norms, frozen_norms
from ernie_vil2.tasks.dropout import CounterBasedDropout


def check_text_pair(config: Config) -> None:
    """ConfigError if the text-text pair has a weight, and neither dropout nor tags nor long captions.

    CLIP's and SigLIP's text towers are trained without dropout. Whether a tower of the user's own has any is not known.
    """
    text = config.Model.text
    tags = any(source.views(config.Views).tag_probability for source in config.Data.sources)
    long = config.Views.long_caption
    varied = text.dropout or text.attention_dropout or tags or long or text.is_own
    if config.Loss.weights.text_text and not varied:
        raise ConfigError(
            "Loss.weights.text_text: without dropout and without tags both encodings of a caption are "
            "equal, and nothing is learnt from them: set Model.text.dropout (0.1 in the paper), or "
            "Loss.weights.text_text=0"
        )


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
    return remarks + _keep_statistics(frozen_norms(model, before))


def _freeze(model: DualEncoder, frozen: Set[str], named: Sequence[str]) -> str:
    trained = {name: value for name, value in model.named_parameters() if not value.stop_gradient}
    for name in frozen & trained.keys():
        trained[name].stop_gradient = True
    left = {name: value.size for name, value in trained.items() if not value.stop_gradient}
    if not any(name.startswith(("image", "text", HEAD)) for name in left):
        raise ConfigError("Tuning.freeze leaves nothing of the towers to train")
    every = sum(value.size for value in trained.values())
    return f"frozen: {', '.join(named)}; {sum(left.values()):,} of {every:,} weights are trained"


def _keep_statistics(frozen: Mapping[str, nn.Layer]) -> list[str]:
    norms = [norm for norm in frozen.values() if not norm._use_global_stats]
    if not norms:
        return []
    for norm in norms:
        norm._use_global_stats = True
    return [f"{len(norms)} frozen batch norms normalise by their running statistics, which stay"]


def prepare_attention(model: DualEncoder, training: TrainingConfig) -> list[str]:
    """Does what `Training.fused_attention` says, in place: `on`, `off`, or `auto`, which is on with a GPU.

    The text tower's attention has dropout. It is fused where that is Paddle's own (`Training.dropout=native`): masks
    that follow from a row's position in the global batch could not be had from within a kernel.

    Returns:
        Lines for people, of that and of the dropout.

    Raises:
        ConfigError: `on`, and there is no tower whose attention can be fused.
    """
    native, setting = training.dropout == "native", training.fused_attention
    lines = ["dropout: Paddle's own; another number of ranks draws other masks"] if native else []
    fusing = [name for name in ("image", "text") if hasattr(getattr(model, name), "fuse_attention")]
    towers = [name for name in fusing if name == "image" or native]
    if setting == "on" and not towers:
        raise ConfigError("Training.fused_attention=on is for image towers named ViT..., and with dropout=native for "
                          "text towers; set auto or off")  # fmt: skip
    if setting == "off":
        for name in fusing:
            getattr(model, name).fuse_attention(False)
    if setting == "off" or not towers:
        return lines
    on_cpu = paddle.get_device() == "cpu"
    if setting == "auto" and on_cpu:
        return [*lines, "fused attention: off, Paddle has no such kernel for CPUs"]
    for name in towers:
        getattr(model, name).fuse_attention()
    where = f"in the {' and the '.join(towers)} tower"
    kernel = ", by Paddle's plain formula, as CPUs have no such kernel" if on_cpu else ""
    return [*lines, f"fused attention: on {where}{kernel}"]


def recompute_blocks(model: DualEncoder, dropout: CounterBasedDropout) -> None:
    """Makes the blocks of a dual encoder's towers recompute themselves in backward, in place.

    Blocks are a transformer's layers, or the repeated parts of a convolutional network; see the towers' `blocks`.
    The second run draws the same dropout. In evaluation, and without gradient, nothing changes.

    Args:
        dropout: what the model draws from.
    """
    for tower in (model.image, model.text):
        for block in tower.blocks:
            # Past `__setattr__`: PaddleNLP puts a wrapper of its own around a forward that is set on its layers.
            block.__dict__["forward"] = _recomputing(block, block.forward, dropout)


def _recomputing(block: nn.Layer, forward: Callable, dropout: CounterBasedDropout) -> Callable:
    def recomputing(*args: Any, **kwargs: Any) -> Any:
        if not (block.training and paddle.is_grad_enabled()):
            return forward(*args, **kwargs)
        # The second run is in backward, where what was set for the first is over: what of the texts is padding, too.
        state, context, again = dropout.state, copy_context(), False

        def run(*inputs: Any, **options: Any) -> Any:
            nonlocal again
            if not again:
                again = True
                return forward(*inputs, **options)
            with dropout.replay(state):
                return context.run(forward, *inputs, **options)

        # By hooks, not re-entrant: a first block's images need no gradient, its parameters do.
        return recompute(run, *args, preserve_rng_state=False, use_reentrant=False, **kwargs)

    return recomputing
