"""The interface between the trainer and what it trains; a task is a file next to this one, and a name in `TASKS`."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import paddle
from paddle import nn

from ernie_vil2.config import Config, ConfigError, TrainingConfig, TuningConfig
from ernie_vil2.data.loader import Batch, SampleRows
from ernie_vil2.data.tokenizer import TextTokenizer, open_tokenizer
from ernie_vil2.models import DualEncoder, has_weight_decay
from ernie_vil2.models.dual_encoder import compute_rate_factors, match_parameters
from ernie_vil2.models.heads import HEAD_PREFIX
from ernie_vil2.models.lora import add_lora
from ernie_vil2.models.weights.families.family import find_token_conflict
from ernie_vil2.models.weights.initial import load_initial_weights
from ernie_vil2.parallel.norms import find_batch_norms, find_frozen_norms
from ernie_vil2.registry import Registry, UnknownName
from ernie_vil2.tasks.contrastive_step import DirectStep


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that the optimiser updates in the same way.

    Attributes:
        names: names of the parameters in the model.
        has_decay: whether weight decay applies to them.
        rate_factor: factor of the learning rate.
    """

    names: Sequence[str]
    has_decay: bool
    rate_factor: float = 1.0


def decay_groups(model: nn.Layer, rate_factors: Mapping[str, float] | None = None) -> list[ParameterGroup]:
    """Group the trained parameters of a model; norms, biases, temperature and position embeddings do not decay.

    Args:
        model: the model.
        rate_factors: factor of the learning rate by parameter, see `compute_rate_factors`; 1 if a parameter has none.
    """
    rate_factors = rate_factors or {}
    groups: dict[tuple[bool, float], list[str]] = {}
    for name, value in model.named_parameters():
        if not value.stop_gradient:
            settings = has_weight_decay(name, value), rate_factors.get(name, 1.0)
            groups.setdefault(settings, []).append(name)
    return [ParameterGroup(names, has_decay, factor) for (has_decay, factor), names in groups.items()]


class Task(Protocol):
    """A model, the rows that it learns from, and the losses of a step.

    A step is `forward`, which changes nothing, and `backward`; both are collectives. A task may have any losses; one of
    them is "loss", their weighted sum.

    Attributes:
        config: configuration of the run.
        model: the model that is trained and saved; set by `build`.
        tokenizer: tokenizer of the model's texts.
        evaluators: names of the scorers that evaluate it, unless `Evaluation.evaluators` names others.
        labels: labels that its model gives to a `data.samples.Statement`; empty if it gives none.
        has_embeddings: whether its model embeds images and texts, so that `Data.test` can be scored by retrieval.
        has_plan: whether `planning` can compute what a step of it needs.
    """

    config: Config
    model: DualEncoder
    tokenizer: TextTokenizer
    evaluators: Sequence[str]
    labels: tuple[str, ...] = ()
    has_embeddings: bool = False
    has_plan: bool = False
    _step: DirectStep

    def __init__(self, config: Config):
        self.config = config
        text = config.Model.text
        self.tokenizer = open_tokenizer(text.vocabulary, config.Data.max_length, text.tokenizer)
        conflict = find_token_conflict(text, self.tokenizer)
        if conflict:
            raise ConfigError(f"Model.text.variant: {conflict}")

    @property
    def min_rows(self) -> int:
        """Rows that a rank needs for a step, one for each micro batch; available after `prepare`."""
        return self._step.num_micro_batches

    def open_rows(self) -> SampleRows:
        """Open the stream of samples, and return what makes the rows of a batch from them.

        Raises:
            OSError: data that cannot be read.
            ValueError: data that cannot be used.
        """

    def build(self, initialize: bool) -> list[str]:
        """Build `model`; return lines for the user.

        Args:
            initialize: whether to load initial weights; a resumed run has its own.
        """

    def _set_up(self, initialize: bool) -> list[str]:
        """Apply the configuration to `model`: initial weights, fused attention, `Tuning`; return lines for the user."""
        model, config, lines = self.model, self.config, list[str]()
        if initialize:
            for report in load_initial_weights(model, config.Model):
                lines.append(f"initial weights\n{report}")
        lines += prepare_attention(model, config.Training)
        lines += apply_tuning(model, config.Tuning, is_resumed=not initialize)
        return lines

    def prepare(self, parallel: nn.Layer, scaler: paddle.amp.GradScaler) -> None:
        """Get ready for the first step.

        Args:
            parallel: the model as the trainer has wrapped it for several ranks.
            scaler: the loss scaler.
        """

    def forward(self, batch: Batch, step: int) -> dict[str, paddle.Tensor]:
        """Return this rank's shares of the losses; summed over the ranks, these scalars are the global batch's losses.

        Args:
            batch: the rows of this rank.
            step: number of the optimiser step, from 0.
        """

    def backward(self) -> None:
        """Add the gradients of "loss" to the parameters."""
        self._step.backward()

    def after_update(self) -> None:
        """Adjust the model after every update, for example keep a parameter within bounds."""
        return

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return all trained parameters, with the rates that `Tuning` gives the layer groups."""
        return decay_groups(self.model, compute_rate_factors(self.model, self.config.Tuning))

    def get_log_values(self) -> dict[str, float]:
        """Return numbers of the model for the log."""
        return {}


# Tasks by `Training.task`.
TASKS: Registry[type[Task]] = Registry(
    "task",
    {
        "multi_view": "ernie_vil2.tasks.multi_view:MultiViewTask",
        "new_language": "ernie_vil2.tasks.new_language:NewLanguageTask",
        "entailment": "ernie_vil2.tasks.entailment:EntailmentTask",
        "nlvr2": "ernie_vil2.tasks.entailment:Nlvr2Task",
    },
    ("open_rows", "build", "forward", "backward"),
)


def find_task(name: str) -> type[Task]:
    """Return the class of the task that `Training.task` names.

    Raises:
        ConfigError: there is no such task.
    """
    try:
        return TASKS.find(name)
    except UnknownName as error:
        raise ConfigError(f"Training.task: {error}") from None


def build_task(config: Config) -> Task:
    """Return the task that `Training.task` names; its model is not built yet.

    Raises:
        ConfigError: there is no such task.
    """
    return find_task(config.Training.task)(config)


def apply_tuning(model: DualEncoder, tuning: TuningConfig, is_resumed: bool = False) -> list[str]:
    """Apply `Tuning.lora`, `Tuning.freeze` and `Tuning.freeze_norms` to a model, in place.

    A batch norm whose weights are all frozen normalises by its running statistics from then on, as in evaluation.

    Args:
        model: the model.
        tuning: section `Tuning` of the configuration.
        is_resumed: whether the run continues from a checkpoint.

    Returns:
        Lines for the user.

    Raises:
        ConfigError: a pattern matches nothing, nothing is left to train, a batch norm is frozen in part, or LoRA's rank
            is above a layer's width.
    """
    trained = {name for name, value in model.named_parameters() if not value.stop_gradient}
    lines = []
    if tuning.lora:
        try:
            lines.append(add_lora(model, tuning.lora, is_resumed))
        except ValueError as error:
            raise ConfigError(f"Tuning.lora.layers: {error}") from None

    try:
        frozen_names = match_parameters(model, tuning.freeze)
    except ValueError as error:
        raise ConfigError(f"Tuning.freeze: {error}") from None
    descriptions = list(tuning.freeze)
    if tuning.freeze_norms:
        norms = find_batch_norms(model)
        if not norms:
            raise ConfigError("Tuning.freeze_norms: this model has no batch norms; leave it out")
        for name, norm in norms.items():
            # This switch, private in Paddle 3.3.1, makes a batch norm use its running statistics in training.
            norm._use_global_stats = True
            frozen_names |= {f"{name}.{parameter}" for parameter, _ in norm.named_parameters()}
        descriptions.append(f"{len(norms)} batch norms")
    if descriptions:
        lines.append(_freeze(model, frozen_names, descriptions))
        _check_norms(model, trained)

    # The steps above have frozen the weights of these norms, by name or with the layers around them.
    moving_norms = [norm for norm in find_frozen_norms(model, trained).values() if not norm._use_global_stats]
    for norm in moving_norms:
        norm._use_global_stats = True
    if moving_norms:
        lines.append(f"{len(moving_norms)} frozen batch norms normalise by their running statistics, which stay")
    return lines


def _freeze(model: DualEncoder, frozen_names: Set[str], descriptions: Sequence[str]) -> str:
    """Freeze parameters in place; return a line for the user."""
    parameters = {name: value for name, value in model.named_parameters() if not value.stop_gradient}
    for name in frozen_names & parameters.keys():
        parameters[name].stop_gradient = True
    trained_sizes = {name: value.size for name, value in parameters.items() if not value.stop_gradient}
    if not any(name.startswith(("image", "text", HEAD_PREFIX)) for name in trained_sizes):
        raise ConfigError("Tuning.freeze leaves nothing of the towers to train")
    num_trained, num_all = sum(trained_sizes.values()), sum(value.size for value in parameters.values())
    return f"frozen: {', '.join(descriptions)}; {num_trained:,} of {num_all:,} weights are trained"


def _check_norms(model: DualEncoder, trained: Set[str]) -> None:
    """Raise ConfigError if a batch norm has been frozen in part; `trained` were trained before."""
    for norm_name, norm in find_batch_norms(model).items():
        parameters = {f"{norm_name}.{name}": value for name, value in norm.named_parameters()}
        frozen_names = [name for name in parameters if name in trained and parameters[name].stop_gradient]
        trained_names = [name for name in parameters if name in trained and not parameters[name].stop_gradient]
        if frozen_names and trained_names:
            # Paddle's kernel (3.3.1) leaves out both gradients if one of them is not requested.
            raise ConfigError(
                f"Tuning.freeze leaves {trained_names[0]} to train, but Paddle cannot train it with "
                f"{frozen_names[0]} frozen: freeze both or neither"
            )


def prepare_attention(model: DualEncoder, training: TrainingConfig) -> list[str]:
    """Fuse the attention of the towers as `Training.fused_attention` says, in place: `on`, `off` or `auto`.

    `auto` fuses it on GPUs. The text tower's attention has dropout, and is fused only with Paddle's own dropout
    (`Training.dropout=native`): a kernel cannot draw masks that depend on a row's position in the global batch.

    Returns:
        Lines for the user about attention and dropout.

    Raises:
        ConfigError: it is `on`, and no tower's attention can be fused.
    """
    has_native_dropout, setting = training.dropout == "native", training.fused_attention
    lines = []
    if has_native_dropout:
        lines.append("dropout: Paddle's own; another number of ranks draws other masks")
    switchable = [name for name in ("image", "text") if hasattr(getattr(model, name), "fuse_attention")]
    fusable = [name for name in switchable if name == "image" or has_native_dropout]
    if setting == "on" and not fusable:
        raise ConfigError("Training.fused_attention=on is for image towers named ViT..., and with dropout=native for "
                          "text towers; set auto or off")  # fmt: skip
    if setting == "off":
        for name in switchable:
            getattr(model, name).fuse_attention(False)
    if setting == "off" or not fusable:
        return lines
    on_cpu = paddle.get_device() == "cpu"
    if setting == "auto" and on_cpu:
        return [*lines, "fused attention: off, Paddle has no such kernel for CPUs"]
    for name in fusable:
        getattr(model, name).fuse_attention()
    kernel = ", by Paddle's plain formula, as CPUs have no such kernel" if on_cpu else ""
    return [*lines, f"fused attention: on in the {' and the '.join(fusable)} tower{kernel}"]
