"""What the trainer knows of what it trains: a task is a file next to this one, and a name below."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import paddle
from paddle import nn

from ernie_vil2.config import Config, ConfigError, TrainingConfig, TuningConfig
from ernie_vil2.data.loader import Batch, SampleRows
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.data.tokenizer_files import open_tokenizer
from ernie_vil2.models import DualEncoder, has_weight_decay
from ernie_vil2.models.dual_encoder import compute_rate_factors, match_parameters
from ernie_vil2.models.heads import HEAD_PREFIX
from ernie_vil2.models.lora import add_lora
from ernie_vil2.models.weights.initial import load_initial_weights
from ernie_vil2.parallel.norms import find_batch_norms, find_frozen_norms
from ernie_vil2.registry import Registry, UnknownName
from ernie_vil2.tasks.contrastive_step import DirectStep


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are updated alike.

    Attributes:
        names: in the model.
        decay: whether weight decay applies to them.
        factor: of the learning rate.
    """

    names: Sequence[str]
    decay: bool
    factor: float = 1.0


def decay_groups(model: nn.Layer, factors: Mapping[str, float] | None = None) -> list[ParameterGroup]:
    """What is trained of a model: norms, biases, temperature and embeddings of position do not decay.

    Args:
        factors: factor of the learning rate by parameter, see `compute_rate_factors`; 1 if a parameter has none.
    """
    groups: dict[tuple[bool, float], list[str]] = {}
    for name, value in model.named_parameters():
        if not value.stop_gradient:
            groups.setdefault((has_weight_decay(name, value), (factors or {}).get(name, 1.0)), []).append(name)
    return [ParameterGroup(names, decay, factor) for (decay, factor), names in groups.items()]


class Task(Protocol):
    """A model, the rows that it learns from, and the losses of a step.

    A step is `forward`, which changes nothing, and `backward`; both are collectives. What the losses are is the task's
    affair, but for "loss", their weighted sum.

    Attributes:
        config: the run's.
        model: what is trained and saved, from `build` on.
        tokenizer: of its texts.
        evaluators: names of the scorers that score it, unless `Evaluation.evaluators` names others.
        labels: that its model gives to statements, which `data.samples.Statement`s have; empty without any.
        embeds: whether its model gives embeddings of images and of texts, which retrieval scores (`Data.test`).
        planned: whether `planning` knows what a step of it needs.
    """

    config: Config
    model: DualEncoder
    tokenizer: TextTokenizer
    evaluators: Sequence[str]
    labels: tuple[str, ...] = ()
    embeds: bool = False
    planned: bool = False
    _step: DirectStep

    def __init__(self, config: Config):
        self.config = config
        text = config.Model.text
        self.tokenizer = open_tokenizer(text.vocabulary, config.Data.max_length, text.tokenizer)

    @property
    def least_rows(self) -> int:
        """Rows that a rank needs for a step, from `prepare` on: one for each micro batch."""
        return self._step.parts

    def rows(self) -> SampleRows:
        """The stream of samples, and how the rows of a batch are made of them.

        Raises:
            OSError, ValueError: data that cannot be read.
        """

    def build(self, initialize: bool) -> list[str]:
        """Makes `model`; says what a person should know of it.

        Args:
            initialize: whether initial weights are loaded; a resumed run has its own.
        """

    def _set_up(self, initialize: bool) -> list[str]:
        """Does to `model` what the configuration asks for: initial weights, fused attention, `Tuning`."""
        model, config, remarks = self.model, self.config, list[str]()
        if initialize:
            remarks += [f"initial weights\n{report}" for report in load_initial_weights(model, config.Model)]
        remarks += prepare_attention(model, config.Training)
        return remarks + tune(model, config.Tuning, resumed=not initialize)

    def prepare(self, parallel: nn.Layer, scaler: paddle.amp.GradScaler) -> None:
        """Takes what the trainer has made of the model for several ranks, before the first step."""

    def forward(self, batch: Batch, step: int) -> dict[str, paddle.Tensor]:
        """This rank's shares of the losses, scalars whose sums over the ranks are those of the global batch.

        Args:
            step: number of the optimiser step, from 0.
        """

    def backward(self) -> None:
        """Adds the gradients of "loss" to the parameters."""
        self._step.backward()

    def after_update(self) -> None:
        """What follows every update, as keeping a parameter within bounds."""
        return

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters that are trained, at the rates that `Tuning` gives the layer groups."""
        return decay_groups(self.model, compute_rate_factors(self.model, self.config.Tuning))

    def logged(self) -> dict[str, float]:
        """Numbers of the model for the log."""
        return {}


TASKS: Registry[Callable[[Config], Task]] = Registry(
    "task",
    {
        "multi_view": "ernie_vil2.tasks.multi_view:MultiViewTask",
        "new_language": "ernie_vil2.tasks.new_language:NewLanguageTask",
        "entailment": "ernie_vil2.tasks.entailment:EntailmentTask",
        "nlvr2": "ernie_vil2.tasks.entailment:Nlvr2Task",
    },
    ("rows", "build", "forward", "backward"),
)
"""By `Training.task`."""


def build_task(config: Config) -> Task:
    """The task that `Training.task` names; its model is not built yet.

    Raises:
        ConfigError: there is no such task.
    """
    try:
        task = TASKS.find(config.Training.task)
    except UnknownName as error:
        raise ConfigError(f"Training.task: {error}") from None
    return task(config)


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
        frozen = match_parameters(model, tuning.freeze)
    except ValueError as error:
        raise ConfigError(f"Tuning.freeze: {error}") from None
    norms = find_batch_norms(model) if tuning.freeze_norms else {}
    if tuning.freeze_norms and not norms:
        raise ConfigError("Tuning.freeze_norms: this model has no batch norms; leave it out")
    for name, norm in norms.items():
        norm._use_global_stats = True
        frozen |= {f"{name}.{part}" for part, _ in norm.named_parameters()}
    if tuning.freeze or norms:
        remarks.append(_freeze(model, frozen, [*tuning.freeze, *[f"{len(norms)} batch norms"] * bool(norms)]))
    return remarks + _keep_statistics(find_frozen_norms(model, before))


def _freeze(model: DualEncoder, frozen: Set[str], named: Sequence[str]) -> str:
    trained = {name: value for name, value in model.named_parameters() if not value.stop_gradient}
    for name in frozen & trained.keys():
        trained[name].stop_gradient = True
    left = {name: value.size for name, value in trained.items() if not value.stop_gradient}
    if not any(name.startswith(("image", "text", HEAD_PREFIX)) for name in left):
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
