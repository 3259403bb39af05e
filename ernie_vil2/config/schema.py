"""The configuration of a run: its sections. `configs/default.yaml` shows every field with its default."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ernie_vil2.config.data import DataConfig, ViewsConfig
from ernie_vil2.config.model import HeadConfig, ModelConfig, of_own_module
from ernie_vil2.config.section import Count, Fraction, Positive, Precision, Section, Size, Strength


class PairWeights(Section):
    image_image: Strength = Field(1.0, description="two augmentations of the image")
    text_text: Strength = Field(1.0, description="the text under two dropout masks")
    image_text: Strength = Field(1.0, description="image against all texts")
    text_image: Strength = Field(1.0, description="text against all images")


class LossConfig(Section):
    kind: str = Field(
        "info_nce",
        description="loss of a view pair: equation 1 of the paper (info_nce), a binary classification of every image "
        "and text as in SigLIP (sigmoid), which starts from a temperature of 0.1, or a class of your own as "
        "module:Class (docs/extending.md)",
    )
    weights: PairWeights = Field(
        PairWeights(),
        description="lambda of equation 2 by view pair; a pair of weight 0 is off and its encodings are not computed",
    )
    temperature: Positive = Field(0.07, description="initial temperature tau of equation 1")
    bias: float = Field(-10.0, description="sigmoid: initial bias of the logits, learned (SigLIP: -10)")
    max_logit_scale: Annotated[float, Field(ge=1)] = Field(
        100.0, description="1 / tau is kept between 1 and this after every step"
    )
    duplicates: Literal["ignored", "masked", "positives"] = Field(
        "masked",
        description="other rows of the batch that hold the same image or text are: ordinary negatives as in the "
        "paper (ignored), left out (masked), or further positives (positives)",
    )
    tile: Count | None = Field(
        1024,
        description="rows and columns of the tiles in which the logits are computed, so that memory does not grow "
        "with their product (docs/loss.md); null: all at once",
    )
    widths: list[Size] = Field(
        default=[],
        description="[32, 64, 128, 256]: the loss is the sum of those of the first 32, 64, ... numbers of the "
        "embeddings, so that such prefixes can be used alone (docs/loss.md); the last is Model.embed_dim. "
        "[]: whole embeddings alone",
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
    weight_decay: Strength = Field(
        0.01, description="decoupled decay; never on norms, biases and temperature (paper: plain Adam, 0)"
    )
    clip_norm: Positive | None = Field(1.0, description="largest global gradient norm; null: no clipping")


class ScheduleConfig(Section):
    warmup_steps: Annotated[int, Field(ge=0)] = Field(2000, description="steps of linear warm-up (paper: 2,000)")
    floor: Strength = Field(1e-6, description="learning rate at the end of the cosine (paper: 1e-6)")


class TrainingConfig(Section):
    task: str = Field(
        "multi_view",
        description="what is trained: multi-view contrastive pretraining (multi_view), the text tower alone, from "
        "parallel texts, so that a finished model knows one more language (new_language, docs/finetuning.md), or to "
        "label statements about an image (entailment: SNLI-VE) or about two (image_pair: NLVR2), docs/transfer.md",
    )
    output: str = Field("runs/default", description="run folder")
    steps: Count = Field(100_000, description="optimiser steps")
    epochs: Positive | None = Field(
        None,
        description="how often each sample is seen, instead of steps; the warm-up is then at most a tenth of the "
        "run, whose config.yaml holds the steps. null: as many steps as are given",
    )
    global_batch: Annotated[int, Field(ge=2)] = Field(
        7168, description="pairs in a step over all ranks (paper: 7,168 to 23,200); the ranks divide it"
    )
    micro_batch: Count | None = Field(
        None,
        description="rows of a rank that are encoded at once, which is what memory grows with; the gradient remains "
        "that of the global batch, and every row is encoded twice (docs/memory.md). null: all rows of the rank",
    )
    recompute: bool = Field(
        False, description="the blocks of both towers keep only their inputs for backward and run a second time there"
    )
    dropout: Literal["counter", "native"] = Field(
        "counter",
        description="dropout of pretraining: masks that follow from a row's position in the global batch, however it "
        "is cut (counter), or Paddle's own in one kernel, other masks on another number of ranks (native; without "
        "micro_batch and recompute; docs/memory.md)",
    )
    fused_attention: Literal["auto", "on", "off"] = Field(
        "auto",
        description="attention as one kernel without its matrix of weights, of a ViT image tower, equal to rounding, "
        "and with dropout: native of the text tower; auto: on GPUs",
    )
    sharding: Literal["none", "stage1", "stage2"] = Field(
        "none",
        description="what the ranks divide among them: nothing, the optimiser state (stage1), or that and the "
        "gradients (stage2: GPUs only, without micro_batch); the step is the same (docs/memory.md)",
    )
    sync_norms: bool = Field(
        True,
        description="batch norms see the rows of all ranks, not only of their own, where they are of a kind that can",
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="every random draw follows from it")
    precision: Precision = Field(
        "float32",
        description="of the towers; the loss is float32. An error where the device has another one only, as CPUs have",
    )
    nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="a step whose loss or gradient is not finite ends the run before it changes a weight (stop), or is "
        "left out, unless it is the tenth in a row (skip; docs/runs.md)",
    )
    device: str = Field("auto", description="auto, cpu, gpu, gpu:0, ...; auto: GPU where Paddle has one")
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
    label: str = Field("label", description="column or field of the classes")
    names: dict[str, str] = Field(default={}, description="files of the classes' names by language")
    templates: dict[str, str] = Field(default={}, description="files of prompt templates by language")
    split: str | None = Field(None, description="null: val, else what is scored")
    images: str | None = Field(None, description="folder of a table's image files; null: next to it")


class EvaluationConfig(Section):
    every: Annotated[int, Field(ge=0)] = Field(1000, description="steps between two evaluations; 0: none")
    at_start: bool = Field(
        False, description="also before the first step, for comparison: initial weights are never the best checkpoint"
    )
    evaluators: list[str | dict[str, dict[str, Any]]] | None = Field(
        None,
        description="what scores the model (docs/extending.md), by name or as {name: {option: value}}; the first that "
        "chooses chooses the best checkpoint. null: what the task names, retrieval on Data.val for multi_view",
    )
    protocol: str = Field("pairs", description="how Data.val is scored; docs/protocols.md defines each")
    classes: ClassesConfig | None = Field(
        None,
        description="{data: [folder], label: label, names: {zh: FILE}, templates: {zh: FILE}, split: val, images: "
        "FOLDER}, or data alone: images that the evaluator classification scores (docs/classification.md)",
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
        description="linear layers and convolutions that have one, by name or glob pattern",
    )


class TeacherConfig(Section):
    embeddings: str = Field(
        description="folder with the teacher's embeddings of the training images and texts, as "
        "ernie-vil2 embed writes them; any model may have made them"
    )
    weight: Positive = Field(1.0, description="of its term, as those of Loss.weights")
    logit_scale: Positive = Field(100.0, description="1 / temperature of the teacher's distributions over a batch")
    distance: Strength = Field(
        0.0,
        description="weight of a second term, the mean squared distance to the teacher's embeddings, which then are as "
        "wide as the model's",
    )


class TuningConfig(Section):
    freeze: list[str] = Field(
        default=[],
        description="what is not trained: layer groups (image.embeddings, image.blocks.0, ..., image.head, text....), "
        "parameters by name, or glob patterns of either, as text.* (docs/finetuning.md)",
    )
    freeze_norms: bool = Field(
        False,
        description="all batch norms keep their running statistics, and normalise by them, and their weights",
    )
    moving_statistics: bool = Field(
        False,
        description="batch norms whose own weights are frozen follow the batches all the same, as in runs that were "
        "begun with version 2 of the configuration, which keep to it; false: they do as with freeze_norms",
    )
    layer_decay: Fraction = Field(
        1.0,
        description="factor of the learning rate from a layer group to the one before it: the head of a tower has the "
        "full rate, its last block this share of it, its embeddings the least",
    )
    image_rate: Positive = Field(1.0, description="factor of the image tower's learning rate")
    text_rate: Positive = Field(1.0, description="factor of the text tower's learning rate")
    base_batch: Count | None = Field(
        None,
        description="the global batch that Optimizer.learning_rate is meant for; the rate is multiplied by "
        "Training.global_batch / base_batch. null: it is taken as it is",
    )
    by_size: bool = Field(
        False,
        description="rate, batches, initial_share and freeze_norms that the configuration does not set follow the "
        "model that Model.like names (docs/own_data.md)",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="decay of an exponential moving average of the weights, which then is what is scored and saved; "
        "in the first steps the decay is at most (1 + step) / (10 + step). null: there is none",
    )
    initial_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="share of the weights that training starts from in what is scored and saved (WiSE-FT), which keeps "
        "more of what the model could do before (docs/finetuning.md)",
    )
    patience: Count | None = Field(
        None, description="evaluations without a better one after which the run ends; null: it continues"
    )
    lora: LoraConfig | None = Field(
        None,
        description="{rank: 8, alpha: 16, layers: [patterns]}: only a change of low rank to the weights of these "
        "layers is trained (LoRA); whoever reads the checkpoint gets it merged. null: the weights themselves are",
    )
    teacher: TeacherConfig | None = Field(
        None,
        description="{embeddings: folder, weight: 1, logit_scale: 100, distance: 0}: the loss has one more term, how "
        "far the model's distributions over a batch are from a teacher's, whose embeddings lie in the folder, and with "
        "a distance above 0 how far its embeddings are",
    )
    known_language: str = Field(
        "en",
        description="new_language: the language of the parallel texts that the teacher, the text tower of "
        "Model.weights, encodes",
    )


class Config(Section):
    """The whole configuration of a run."""

    Model: ModelConfig = Field(ModelConfig(), description="the two towers and the joint space")
    Views: ViewsConfig = Field(ViewsConfig(), description="how a sample becomes its views (paper, section 3)")
    Loss: LossConfig = Field(LossConfig(), description="multi-view contrastive loss (paper, equations 1 and 2)")
    Data: DataConfig = Field(DataConfig(), description="where samples come from")
    Optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW")
    Schedule: ScheduleConfig = Field(ScheduleConfig(), description="learning rate over the steps")
    Tuning: TuningConfig = Field(
        TuningConfig(), description="fine-tuning: how much of a trained model changes, and how fast"
    )
    Head: HeadConfig = Field(
        HeadConfig(), description="entailment, image_pair: what classifies embeddings (docs/transfer.md)"
    )
    Training: TrainingConfig = Field(TrainingConfig(), description="the run itself")
    Evaluation: EvaluationConfig = Field(EvaluationConfig(), description="scores in the course of training")

    @property
    def names(self) -> list[str]:
        """Names of parts, which may be import paths of the user's own: towers, loss, task, evaluators, layouts."""
        entries = [*self.Data.train, *self.Data.val, *self.Data.test]
        layouts = [entry.layout for entry in entries if not isinstance(entry, str) and entry.layout]
        towers = [name for name in (self.Model.image.name, self.Model.text.name) if of_own_module(name)]
        return [*towers, self.Loss.kind, self.Training.task, *(self.Evaluation.options or {}), *layouts]

    def narrowed(self, width: int, whole: int) -> Config:
        """That of the model whose embeddings of `whole` numbers are cut to one of `Loss.widths`.

        Raises:
            ValueError: it is not one of them.
        """
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
        if self.Training.epochs is None and self.Schedule.warmup_steps >= self.Training.steps:
            raise ValueError(
                f"Schedule.warmup_steps ({self.Schedule.warmup_steps}) leaves nothing of Training.steps "
                f"({self.Training.steps})"
            )
        return self

    def _check_model(self) -> None:
        if self.Views.crop_area is None and self.Views.resize < self.Model.image.image_size:
            raise ValueError(
                f"Views.resize ({self.Views.resize}) is smaller than the crop, Model.image.image_size "
                f"({self.Model.image.image_size})"
            )
        text, widths = self.Model.text, self.Loss.widths
        width = self.Model.embed_dim or (None if of_own_module(text.name) else text.sizes["width"])
        if widths and width and widths[-1] != width:
            raise ValueError(f"Loss.widths ends with {widths[-1]}; its last is the width of the embeddings, {width}")
        if self.Data.max_length > self.Model.text.longest:
            needed = self.Data.max_length + self.Model.text.first_position
            raise ValueError(
                f"Data.max_length ({self.Data.max_length}) exceeds Model.text.max_positions "
                f"({self.Model.text.longest}): shorten the texts, or set Model.text.max_positions={needed}, to which "
                "positions of initial weights are stretched"
            )
