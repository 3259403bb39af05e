"""The configuration of a run: its sections. `configs/default.yaml` explains what each field says in a line here."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from ernie_vil2.config.data import DataConfig, ViewsConfig
from ernie_vil2.config.model import HeadConfig, ModelConfig
from ernie_vil2.section import Count, Fraction, Name, Positive, Precision, Probability, Section, Size, Strength


class PairWeights(Section):
    image_image: Strength = Field(1.0, description="two augmentations of the image")
    text_text: Strength = Field(1.0, description="the text under two dropout masks")
    image_text: Strength = Field(1.0, description="image against all texts")
    text_image: Strength = Field(1.0, description="text against all images")


class LossConfig(Section):
    lasting: ClassVar[tuple[str, ...]] = ("weights", "max_logit_scale", "duplicates", "tile")

    kind: str = Field(
        "info_nce",
        description="of a view pair: equation 1 (info_nce), SigLIP's (sigmoid), or a class of your own as module:Class",
    )
    weights: PairWeights = Field(
        PairWeights(), description="lambda of equation 2 by view pair; 0: off, and its encodings are not computed"
    )
    temperature: Positive = Field(0.07, description="initial temperature tau of equation 1")
    bias: float = Field(-10.0, description="sigmoid: initial bias of the logits, learned (SigLIP: -10)")
    max_logit_scale: Annotated[float, Field(ge=1)] = Field(100.0, description="1 / tau is kept between 1 and this")
    duplicates: Literal["ignored", "masked", "positives"] = Field(
        "masked",
        description="what rows of the batch with the same image or text are; ignored: negatives, as in the paper",
    )
    tile: Count | None = Field(
        1024, description="rows and columns of the tiles of the logits (docs/loss.md); null: all at once"
    )
    widths: list[Size] = Field(
        default=[],
        description="prefixes of the embeddings, the losses of which are added (docs/loss.md); []: whole ones alone",
    )
    options: dict[str, Any] = Field(default={}, description="further arguments of a class of your own, by name")

    @field_validator("widths")
    @classmethod
    def _ascend(cls, widths: list[int]) -> list[int]:
        if any(one >= other for one, other in pairwise(widths)):
            raise ValueError(f"{widths} do not ascend; write the narrowest first, each once")
        return widths


class OptimizerConfig(Section):
    learning_rate: Positive = Field(1e-4, description="peak learning rate (paper: 1e-4)")
    beta1: Fraction = Field(0.9, description="decay of the first moment")
    beta2: Fraction = Field(0.999, description="decay of the second moment")
    epsilon: Positive = Field(1e-8, description="added to the denominator")
    weight_decay: Strength = Field(0.01, description="decoupled; never on norms, biases and temperature (paper: 0)")
    clip_norm: Positive | None = Field(1.0, description="largest global gradient norm; null: no clipping")


class ScheduleConfig(Section):
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        2000, description="steps of linear warm-up (paper: 2,000); in a run that is not longer, a tenth of its steps"
    )
    floor: Strength = Field(1e-6, description="learning rate at the end of the cosine (paper: 1e-6)")


class TrainingConfig(Section):
    task: str = Field(
        "multi_view",
        description="multi_view, new_language, entailment or nlvr2 (docs/finetuning.md, docs/entailment.md)",
    )
    output: Name = Field("runs/default", description="run folder")
    steps: Count = Field(100_000, description="optimiser steps")
    epochs: Positive | None = Field(
        None, description="how often each sample is seen, instead of steps; null: as many steps as are given"
    )
    global_batch: Annotated[int, Field(ge=2)] = Field(
        7168, description="pairs in a step over all ranks, which divide it (paper: 7,168 to 23,200)"
    )
    micro_batch: Count | None = Field(
        None, description="rows of a rank that are encoded at once, twice (docs/memory.md); null: all rows"
    )
    recompute: bool = Field(False, description="the blocks of both towers run a second time in backward")
    dropout: Literal["counter", "native"] = Field(
        "counter",
        description="masks that depend on a row's position alone (counter), or Paddle's (native; docs/memory.md)",
    )
    fused_attention: Literal["auto", "on", "off"] = Field(
        "auto", description="as one kernel: of a ViT and, with dropout: native, of texts; auto: on GPUs"
    )
    sharding: Literal["none", "stage1", "stage2"] = Field(
        "none", description="what the ranks divide: the optimiser state (stage1), and the gradients (docs/memory.md)"
    )
    sync_norms: bool = Field(True, description="batch norms see the rows of all ranks, where they can")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="every random draw follows from it")
    precision: Precision = Field(
        "float32", description="of the towers; the loss is float32. An error where the device does not have it"
    )
    nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="a step whose loss or gradient is not finite ends the run, or is left out (docs/runs.md)"
    )
    max_skipped_share: Probability = Field(
        0.25, description="nonfinite: skip: a run stops when a larger share of its steps was left out"
    )
    device: Name = Field("auto", description="auto, cpu, gpu, gpu:0, ...; auto: GPU where Paddle has one")
    log_every: Count = Field(10, description="steps between two log records")
    checkpoint_every: Count = Field(1000, description="steps between two checkpoints")
    keep_checkpoints: Count = Field(2, description="newest checkpoints that are kept, besides the best evaluated one")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dropout == "native" and (self.micro_batch or self.recompute):
            # Rows are encoded twice, and the second time must draw the masks of the first.
            raise ValueError("dropout: native does not go with micro_batch or recompute; use dropout: counter")
        if self.sharding == "stage2" and self.micro_batch:
            # It sends gradients away during backward, and the cached step has one backward for every micro batch.
            raise ValueError("sharding: stage2 does not go with micro_batch; use stage1, or micro_batch: null")
        return self


class ClassesConfig(Section):
    data: list[str] = Field(min_length=1, description="a folder of classes, tables, or other sources")
    label: Name = Field("label", description="column or field of the classes")
    names: dict[str, str] = Field(default={}, description="files of the classes' names by language")
    templates: dict[str, str] = Field(default={}, description="files of prompt templates by language")
    split: Name | None = Field(None, description="null: val, else what is scored")
    images: Name | None = Field(None, description="folder of a table's image files; null: next to it")


NamedPart = Annotated[
    Annotated[str, Tag("name")] | Annotated[dict[str, dict[str, Any]], Tag("options")],
    Discriminator(lambda value: "options" if isinstance(value, dict) else "name"),
]
"""A name, or a mapping of names to options."""


class EvaluationConfig(Section):
    every: Annotated[int, Field(ge=0)] = Field(1000, description="steps between two evaluations; 0: none")
    at_start: bool = Field(False, description="also before the first step, for comparison")
    evaluators: list[NamedPart] | None = Field(
        None, description="what scores the model, by name or as {name: {option: value}}; null: what the task names"
    )
    protocol: Name = Field("pairs", description="how Data.val is scored; docs/protocols.md defines each")
    classes: ClassesConfig | None = Field(
        None, description="images that the evaluator classification scores (docs/classification.md)"
    )
    batch_size: Count = Field(256, description="rows encoded at once")
    block: Count = Field(1024, description="rows of either side that are scored at once")

    @property
    def options(self) -> dict[str, dict[str, Any]] | None:
        """Those of the evaluators, by their names; None: what the task names scores the model."""
        if self.evaluators is None:
            return None
        return {k: v for one in self.evaluators for k, v in ({one: {}} if isinstance(one, str) else one).items()}


class LoraConfig(Section):
    rank: Annotated[int, Field(ge=1, le=1024)] = Field(8, description="of the change to a weight")
    alpha: Positive = Field(16.0, description="the change counts alpha / rank times")
    layers: list[str] = Field(
        default=["image.blocks.*", "text.network.encoder.layers.*"],
        min_length=1,
        description="linear layers and convolutions, by name or glob pattern",
    )


class TeacherConfig(Section):
    embeddings: str = Field(description="of the training data by any model, as ernie-vil2 embed writes them")
    weight: Positive = Field(1.0, description="of its term, as those of Loss.weights")
    logit_scale: Positive = Field(100.0, description="1 / temperature of the teacher's distributions over a batch")
    distance: Strength = Field(
        0.0, description="weight of the mean squared distance to the teacher's embeddings, then as wide as ours"
    )


class TuningConfig(Section):
    freeze: list[str] = Field(
        default=[],
        description="what is not trained: layer groups, parameters, or glob patterns of either (docs/finetuning.md)",
    )
    freeze_norms: bool = Field(False, description="batch norms keep their weights and their running statistics")
    layer_decay: Fraction = Field(
        1.0, description="factor of the learning rate from a layer group to the one before it"
    )
    image_rate: Positive = Field(1.0, description="factor of the image tower's learning rate")
    text_rate: Positive = Field(1.0, description="factor of the text tower's learning rate")
    base_batch: Count | None = Field(
        None, description="the rate is multiplied by Training.global_batch / this; null: it is not"
    )
    by_size: bool = Field(
        False,
        description="what is not set of rate and batches follows the model that Model.like names (docs/own_data.md)",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="decay of the average of the weights that is scored and saved; null: there is none"
    )
    initial_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="of the initial weights in what is scored and saved (WiSE-FT)"
    )
    patience: Count | None = Field(None, description="evaluations without a better one that end the run; null: none do")
    lora: LoraConfig | None = Field(
        None, description="only a change of low rank to some weights is trained; null: the weights themselves"
    )
    teacher: TeacherConfig | None = Field(
        None, description="a term of how far the model is from a teacher's embeddings; null: there is none"
    )
    known_language: str = Field("en", description="new_language: of the parallel texts that the teacher encodes")


class Config(Section):
    """The whole configuration of a run."""

    Model: ModelConfig = Field(ModelConfig(), description="the two towers and the joint space")
    Views: ViewsConfig = Field(ViewsConfig(), description="how a sample becomes its views (paper, section 3)")
    Loss: LossConfig = Field(LossConfig(), description="multi-view contrastive loss (paper, equations 1 and 2)")
    Data: DataConfig = Field(DataConfig(), description="where samples come from")
    Optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW")
    Schedule: ScheduleConfig = Field(ScheduleConfig(), description="learning rate over the steps")
    Tuning: TuningConfig = Field(TuningConfig(), description="how much of a trained model changes, and how fast")
    Head: HeadConfig = Field(HeadConfig(), description="entailment, nlvr2: what classifies embeddings")
    Training: TrainingConfig = Field(TrainingConfig(), description="the run itself")
    Evaluation: EvaluationConfig = Field(EvaluationConfig(), description="scores in the course of training")

    @property
    def names(self) -> list[str]:
        """Names of parts, which may be import paths of the user's own: towers, loss, task, evaluators, layouts."""
        entries = [*self.Data.train, *self.Data.val, *self.Data.test]
        layouts = [entry.layout for entry in entries if not isinstance(entry, str) and entry.layout]
        towers = [tower.name for tower in (self.Model.image, self.Model.text) if tower.is_own]
        return [*towers, self.Loss.kind, self.Training.task, *(self.Evaluation.options or {}), *layouts]

    def narrowed(self, width: int, whole: int) -> Config:
        """That of the model whose embeddings of `whole` numbers are cut to one of `Loss.widths`, or ValueError."""
        widths = self.Loss.widths or [whole]
        if width not in widths:
            why = f"its widths are {', '.join(map(str, widths))}" if self.Loss.widths else "it has no Loss.widths"
            raise ValueError(f"embeddings of this model have {whole} numbers and cannot be cut to {width}: {why}")
        loss = self.Loss.model_copy(update={"widths": [one for one in self.Loss.widths if one <= width]})
        model = self.Model.model_copy(update={"embed_dim": width})
        return self.model_copy(update={"Model": model, "Loss": loss})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.Model.like is None:
            self._check_model()
        for source in self.Data.sources:
            source.views(self.Views)
        if self.Training.global_batch % self.Data.groups:
            raise ValueError(
                f"Data.groups ({self.Data.groups}) does not divide Training.global_batch ({self.Training.global_batch})"
            )
        if self.Tuning.teacher and not (self.Loss.weights.image_text or self.Loss.weights.text_image):
            raise ValueError("Tuning.teacher compares images with texts: give Loss.weights.image_text a weight")
        if self.Views.long_caption and not (self.Loss.weights.text_text or self.Views.long_first):
            raise ValueError(
                "Views.long_caption: the long caption is the second text of Loss.weights.text_text, whose weight is 0: "
                "give it one, or contrast images with the long caption (Views.long_first)"
            )
        if self.Tuning.patience and not self.Evaluation.every:
            raise ValueError("Tuning.patience counts evaluations, and Evaluation.every is 0: there are none")
        return self

    def _check_model(self) -> None:
        if self.Views.crop_area is None and self.Views.resize < self.Model.image.image_size:
            raise ValueError(
                f"Views.resize ({self.Views.resize}) is smaller than the crop, Model.image.image_size "
                f"({self.Model.image.image_size})"
            )
        text, widths = self.Model.text, self.Loss.widths
        width = self.Model.embed_dim or text.sizes.get("width")
        if widths and width and widths[-1] != width:
            raise ValueError(f"Loss.widths ends with {widths[-1]}; its last is the width of the embeddings, {width}")
        if self.Data.max_length > self.Model.text.longest:
            needed = self.Data.max_length + self.Model.text.first_position
            raise ValueError(
                f"Data.max_length ({self.Data.max_length}) exceeds Model.text.max_positions "
                f"({self.Model.text.longest}): shorten the texts, or set Model.text.max_positions={needed}, to which "
                "positions of initial weights are stretched"
            )
