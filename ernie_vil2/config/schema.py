"""The configuration's sections and fields. `configs/default.yaml` shows every field with its default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Depth = Annotated[int, Field(ge=1, le=1024)]

# What names a size of its own, and the fields that give it.
IMAGE_SIZES = {"ViT": ("patch_size", "width", "depth", "heads"), "RepVGG": ("width", "depth")}
TEXT_TOWERS = ("ernie-base", "ernie-large", "ernie", "bert-base", "bert-large", "bert")
TEXT_SIZES = dict.fromkeys(("ernie", "bert"), ("width", "depth", "heads"))


class Section(BaseModel):
    """A part of the configuration: unknown keys and wrong types are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _check_sizes(tower: Section, sizes: dict[str, tuple[str, ...]]) -> None:
    if ":" in tower.name:
        return  # a tower of the user's own takes what it likes
    needed = sizes.get(tower.name, ())
    if any(getattr(tower, size) is None for size in needed):
        raise ValueError(f"{tower.name!r} leaves its size open: set {', '.join(needed)}")
    every = dict.fromkeys(size for names in sizes.values() for size in names)
    wrong = [size for size in every if size not in needed and getattr(tower, size) is not None]
    if wrong and needed:
        raise ValueError(f"{tower.name!r} has no {', '.join(wrong)}")
    if wrong:
        raise ValueError(
            f"{tower.name!r} has fixed sizes: remove {', '.join(wrong)} (they are given for {', '.join(sizes)})"
        )


class ImageTowerConfig(Section):
    name: str = Field(
        "ViT-B/16",
        description="ViT-B/16, ViT-L/14, ViT or RepVGG (any size, given below), EfficientNetB0 to B7, "
        "EfficientNetL2, the name of any PaddleClas backbone (ResNet50, PPLCNet_x1_0, ...), or a Layer of your own as "
        "module:Class (docs/extending.md)",
    )
    image_size: Annotated[int, Field(ge=1, le=4096)] = Field(224, description="side of the square input in pixels")
    preprocessing: Literal["ernie_vil2", "official", "paddlenlp"] = Field(
        "ernie_vil2",
        description="how an image that is scored becomes the input: as training resizes (ernie_vil2), or as one of "
        "the two releases does (official, paddlenlp)",
    )
    mean: list[float] = Field(
        default=[0.485, 0.456, 0.406],
        min_length=3,
        max_length=3,
        description="mean [red, green, blue] of the input's normalisation, pixels from 0 to 1 (default: ImageNet's)",
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        default=[0.229, 0.224, 0.225], min_length=3, max_length=3, description="its standard deviation"
    )
    background: list[Annotated[int, Field(ge=0, le=255)]] = Field(
        default=[255, 255, 255],
        min_length=3,
        max_length=3,
        description="[red, green, blue] behind transparent pixels, 0 to 255, in training and where preprocessing is "
        "ernie_vil2 (the releases drop transparency, so that whatever colour a file has there shows)",
    )
    patch_size: Size | None = Field(None, description="ViT only: side of a patch in pixels")
    width: Size | None = Field(
        None, description="ViT: width of the tokens; RepVGG: channels of its first stage, doubled in each of three more"
    )
    depth: Depth | None = Field(None, description="ViT: number of blocks; RepVGG: blocks of each stage")
    heads: Size | None = Field(None, description="ViT only: attention heads; they divide the width")
    drop_path: Probability = Field(0.0, description="ViT only: stochastic depth of the last block")
    weights: str | None = Field(
        None,
        description="initial weights: paddleclas (those that PaddleClas publishes for this backbone), a PaddleClas "
        "file, or an ERNIE-ViL 2.0 model; null: random",
    )

    @model_validator(mode="after")
    def _check(self):
        _check_sizes(self, IMAGE_SIZES)
        return self


class TextTowerConfig(Section):
    name: str = Field(
        "ernie-base",
        description="ernie-base, ernie-large, bert-base, bert-large, ernie or bert (of the size given below), or a "
        "Layer of your own as module:Class",
    )
    width: Size | None = Field(None, description="ernie, bert: hidden width")
    depth: Depth | None = Field(None, description="ernie, bert: number of layers")
    heads: Size | None = Field(None, description="ernie, bert: attention heads; they divide the width")
    max_positions: Size = Field(512, description="longest text that the position embedding holds, in tokens")
    pooling: Literal["cls", "mean"] = Field(
        "cls",
        description="features: tanh of a linear map of the [CLS] state, as released (cls), or the mean of the states "
        "of all tokens (mean), with which a small tower learns from the first step on",
    )
    dropout: Probability = Field(0.1, description="hidden dropout; it is what makes the two text views differ")
    attention_dropout: Probability = Field(0.1, description="dropout of the attention weights")
    epsilon: Annotated[float, Field(gt=0)] = Field(
        1e-5, description="ernie: of its LayerNorms; 1e-5 in the official release, 1e-12 in PaddleNLP"
    )
    vocabulary: str | None = Field(
        None, description="vocabulary file, token or token<TAB>id lines; null: the packaged ERNIE 3.0 vocabulary"
    )
    tokenizer: Literal["official", "paddlenlp"] = Field(
        "official",
        description="how a text is split before its words are looked up: as the official code does, or as PaddleNLP, "
        "where symbols also stand alone and special tokens in a text count as such",
    )
    weights: str | None = Field(
        None,
        description="initial weights: an ERNIE or BERT by its PaddleNLP name, folder or file, or an ERNIE-ViL 2.0 "
        "model; null: random",
    )

    @model_validator(mode="after")
    def _check(self):
        if self.name not in TEXT_TOWERS and ":" not in self.name:
            raise ValueError(f"no text tower is called {self.name!r}; known: {', '.join(TEXT_TOWERS)}")
        _check_sizes(self, TEXT_SIZES)
        return self


class ModelConfig(Section):
    image: ImageTowerConfig = Field(default_factory=ImageTowerConfig, description="image tower")
    text: TextTowerConfig = Field(default_factory=TextTowerConfig, description="text tower")
    embed_dim: Size | None = Field(
        None,
        description="width of the joint space; null: the text tower's width. "
        "A tower of another width gets a linear projection, a tower of this width none",
    )
    like: str | None = Field(
        None,
        description="a model, named as in weights (the word weights: that one), from which towers, joint space, "
        "vocabulary, rules of the tokeniser, preprocessing and Data.max_length are taken where the configuration does "
        "not set them; the run's config.yaml then holds them",
    )
    weights: str | None = Field(
        None,
        description="initial weights of the whole model: an official file, a PaddleNLP folder, a run or checkpoint of "
        "this package, or a known name (ernie-vil-2.0-base-zh); a tower's own weights come after it",
    )
    allow: list[str] = Field(
        default=[],
        description="names, glob patterns among them, in which initial weights may differ from the model: what they "
        "lack stays random, what they have beyond it is left out",
    )


class ViewsConfig(Section):
    resize: Size = Field(256, description="the short side is resized to this many pixels before the crop")
    crop_area: list[Fraction] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="[least, most] share of the image's area that a crop of random size covers; "
        "null: a crop of the input size from the resized image, as in the paper",
    )
    flip: Probability = Field(0.5, description="probability of a horizontal flip")
    jitter: Probability = Field(0.8, description="probability of colour jitter")
    brightness: Strength = Field(0.4, description="jitter: factor drawn from 1 +- this")
    contrast: Strength = Field(0.4, description="jitter: factor drawn from 1 +- this")
    saturation: Strength = Field(0.2, description="jitter: factor drawn from 1 +- this")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.1, description="jitter: rotation drawn from +- this share of the colour circle"
    )
    blur: Probability = Field(0.5, description="probability of a Gaussian blur")
    blur_sigma: list[Annotated[float, Field(gt=0)]] = Field(
        default=[0.1, 2.0], min_length=2, max_length=2, description="[least, most] standard deviation in pixels"
    )
    grayscale: Probability = Field(0.2, description="probability of dropping the colour")
    tag_probability: Probability = Field(0.5, description="probability that the tags, not the caption, are the text")
    caption_lines: bool = Field(
        False,
        description="each line of a caption is a caption of its own, of which one is drawn (CLIP_benchmark's shards); "
        "otherwise it is one text, whatever lines it has",
    )
    languages: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={"zh": 1.0}, min_length=1, description="languages of the texts and the weight with which each is drawn"
    )
    prompts: dict[str, str] = Field(
        default={"zh": "图片中包含", "en": "The picture contains "},
        description="what stands before the tags, by language",
    )
    separators: dict[str, str] = Field(
        default={"zh": "、", "en": ", "}, description="what stands between two tags, by language"
    )
    shuffle_tags: bool = Field(True, description="draw the order of the tags anew for every view")

    @model_validator(mode="after")
    def _check(self):
        for name in ("crop_area", "blur_sigma"):
            bounds = getattr(self, name)
            if bounds is not None and bounds[0] > bounds[1]:
                raise ValueError(f"{name} runs from the least to the most, got {bounds}")
        for language in self.languages:
            if language not in self.prompts or language not in self.separators:
                raise ValueError(f"language {language!r} needs an entry in prompts and in separators")
        return self


class PairWeights(Section):
    image_image: Strength = Field(1.0, description="two augmentations of the image")
    text_text: Strength = Field(1.0, description="the text under two dropout masks")
    image_text: Strength = Field(1.0, description="image against all texts")
    text_image: Strength = Field(1.0, description="text against all images")


class LossConfig(Section):
    kind: Literal["info_nce", "sigmoid"] = Field(
        "info_nce",
        description="loss of a view pair: equation 1 of the paper (info_nce), or a binary classification of every "
        "image and text as in SigLIP (sigmoid), which starts from a temperature of 0.1",
    )
    weights: PairWeights = Field(
        default_factory=PairWeights,
        description="lambda of equation 2 by view pair; a pair of weight 0 is off and its encodings are not computed",
    )
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="initial temperature tau of equation 1")
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

    @property
    def initial_bias(self) -> float | None:
        """Of the logits of a new model; None where the loss has no bias."""
        return self.bias if self.kind == "sigmoid" else None


class PlaceConfig(Section):
    """Where data lies."""

    data: list[str] = Field(default=[], description="as plain entries of Data.train")
    split: str | None = Field(
        None, description="of a benchmark or of tables; null: train in Data.train, in Data.val val or else test"
    )
    images: str | None = Field(None, description="folder of the image files; null: looked for with the data")
    text_id: str | None = Field(None, description="null: Data.text_id")
    caption_lines: bool | None = Field(None, description="null: as in Views")


class ScoredConfig(PlaceConfig):
    """Data that are scored; without `data` of their own those of the first source of `Data.train`."""

    protocol: str | None = Field(None, description="how they are scored; null: Evaluation.protocol")


class SourceConfig(PlaceConfig):
    """One source of a mixture; what it leaves open is as in `Data` and `Views`."""

    data: list[str] = Field(min_length=1, description="as plain entries of Data.train")
    weight: Annotated[float, Field(gt=0)] | None = Field(
        None, description="share in the mixture, relative to the other sources; null in all of them: their sizes"
    )
    tag_probability: Probability | None = Field(None, description="null: as in Views")
    languages: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None, min_length=1, description="null: as in Views"
    )
    prompts: dict[str, str] = Field(default={}, description="by language; the others are as in Views")
    separators: dict[str, str] = Field(default={}, description="by language; the others are as in Views")

    @property
    def name(self) -> str:
        """For people: what it reads."""
        return ", ".join(self.data)

    def views(self, views: ViewsConfig) -> ViewsConfig:
        """The views of this source's samples; ValueError if a language lacks a prompt or a separator."""
        own = self.model_dump(include={"tag_probability", "languages", "caption_lines"}, exclude_none=True)
        own["prompts"] = views.prompts | self.prompts
        own["separators"] = views.separators | self.separators
        return ViewsConfig(**views.model_dump() | own)


def _kind_of_source(entry: Any) -> str:
    return "pattern" if isinstance(entry, str) else "source"


ScoredData = list[
    Annotated[Annotated[str, Tag("pattern")] | Annotated[ScoredConfig, Tag("source")], Discriminator(_kind_of_source)]
]


class DataConfig(Section):
    train: list[
        Annotated[
            Annotated[str, Tag("pattern")] | Annotated[SourceConfig, Tag("source")], Discriminator(_kind_of_source)
        ]
    ] = Field(
        default=[],
        description="tar shards, the folder of a benchmark or another source of docs/data.md, by paths, patterns, "
        "addresses or commands. Plain entries together are one source; a mapping {data: [...], split: ..., weight: "
        "..., ...} is one of its own (docs/streaming.md)",
    )
    val: ScoredData = Field(
        default=[],
        description="scored during training: the same, by plain entries or one mapping {data: [...], split: ..., "
        "images: ..., protocol: ...}; without data that of the first source of train",
    )
    test: ScoredData = Field(
        default=[],
        description="scored before the first step, and after the last with the best checkpoint, for the report: as val",
    )
    text_id: str | None = Field(
        None, description="JSON field of a tar sample that names its text; null: the caption itself is its name"
    )
    unit: Literal["pair", "image"] = Field(
        "pair",
        description="what stands once in an epoch: each pair, so that an image with five texts stands there five "
        "times, or each image, with one of its texts drawn",
    )
    shuffle_buffer: Count = Field(
        100_000, description="samples that are shuffled together, behind shards in a random order; over all groups"
    )
    groups: Count = Field(
        1,
        description="parts into which the shards of an epoch are dealt, each for an equal share of the rows of every "
        "batch: machines whose number divides it read their own parts only (docs/streaming.md)",
    )
    max_length: Annotated[int, Field(ge=3)] = Field(
        48, description="tokens of a text with [CLS] and [SEP]; longer ones are cut"
    )
    workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        2, description="loader processes on each rank; 0: the training process loads"
    )
    patience: Annotated[float, Field(gt=0)] = Field(
        600,
        description="seconds that a loader process may take over one sample; it is then skipped and counted, and "
        "another process goes on. With 0 workers nothing watches",
    )
    max_bad_share: Probability = Field(
        0.01, description="a run stops when more than this share of the samples read could not be used"
    )

    @property
    def sources(self) -> list[SourceConfig]:
        """`train` as sources: plain entries together are the first."""
        plain = [entry for entry in self.train if isinstance(entry, str)]
        own = [entry for entry in self.train if not isinstance(entry, str)]
        return [SourceConfig(data=plain), *own] if plain else own

    @property
    def validation(self) -> ScoredConfig | None:
        """`val` as one place; None: there is none."""
        return self._scored(self.val)

    @property
    def tested(self) -> ScoredConfig | None:
        """Likewise `test`."""
        return self._scored(self.test)

    def _scored(self, entries: list) -> ScoredConfig | None:
        if not entries:
            return None
        place = ScoredConfig(data=entries) if isinstance(entries[0], str) else entries[0]
        if place.data:
            return place
        if not self.sources:
            raise ValueError("data that are scored without a place of their own are those of Data.train: set it")
        of_training = self.sources[0]
        return place.model_copy(update={"data": of_training.data, "images": place.images or of_training.images})

    @model_validator(mode="after")
    def _check(self):
        for name in ("val", "test"):
            entries = getattr(self, name)
            if len(entries) > 1 and not all(isinstance(entry, str) for entry in entries):
                raise ValueError(f"{name}: write plain entries, or one mapping {{data: [...], split: ...}}")
        weighted = [source.weight is not None for source in self.sources]
        if any(weighted) and not all(weighted):
            left = self.sources[weighted.index(False)]
            raise ValueError(
                f"train: {left.name} has no weight, other sources have one; write {{data: [...], weight: ...}} for each"
            )
        return self


class OptimizerConfig(Section):
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="peak learning rate (paper: 1e-4)")
    beta1: Fraction = Field(0.9, description="decay of the first moment")
    beta2: Fraction = Field(0.999, description="decay of the second moment")
    epsilon: Annotated[float, Field(gt=0)] = Field(1e-8, description="added to the denominator")
    weight_decay: Strength = Field(
        0.01, description="decoupled decay; never on norms, biases and temperature (paper: plain Adam, 0)"
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        1.0, description="largest global gradient norm; null: no clipping"
    )


class ScheduleConfig(Section):
    warmup_steps: Annotated[int, Field(ge=0)] = Field(2000, description="steps of linear warm-up (paper: 2,000)")
    floor: Strength = Field(1e-6, description="learning rate at the end of the cosine (paper: 1e-6)")


class TrainingConfig(Section):
    task: str = Field(
        "multi_view",
        description="what is trained: multi-view contrastive pretraining (multi_view), or to label statements about an "
        "image (entailment: SNLI-VE) or about two (image_pair: NLVR2), docs/transfer.md",
    )
    output: str = Field("runs/default", description="run folder")
    steps: Count = Field(100_000, description="optimiser steps")
    epochs: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="how often each sample is seen, in place of steps; the warm-up is then at most a tenth of the "
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
        description="attention of a ViT image tower as one kernel without its matrix of weights, equal to rounding; "
        "auto: on GPUs",
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
    precision: Literal["float32", "bfloat16", "float16"] = Field(
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
    def _check(self):
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
    images: str | None = Field(None, description="folder of a table's image files; null: beside it")


class EvaluationConfig(Section):
    every: Annotated[int, Field(ge=0)] = Field(1000, description="steps between two evaluations; 0: none")
    at_start: bool = Field(
        False, description="also before the first step, for comparison: initial weights are never the best checkpoint"
    )
    evaluators: list[str] | None = Field(
        None,
        description="what scores the model (docs/extending.md); the first that chooses chooses the best checkpoint. "
        "null: what the task names, retrieval on Data.val for multi_view",
    )
    protocol: str = Field("pairs", description="how Data.val is scored; docs/protocols.md defines each")
    classes: ClassesConfig | None = Field(
        None,
        description="{data: [folder], label: label, names: {zh: FILE}, templates: {zh: FILE}, split: val, images: "
        "FOLDER}, or data alone: pictures that the evaluator classification scores (docs/classification.md)",
    )
    batch_size: Count = Field(256, description="rows encoded at once")
    block: Count = Field(1024, description="rows of either side that are scored at once")


class LoraConfig(Section):
    rank: Annotated[int, Field(ge=1, le=1024)] = Field(8, description="of the change to a weight")
    alpha: Annotated[float, Field(gt=0)] = Field(16.0, description="the change counts alpha / rank times")
    layers: list[str] = Field(
        default=["image.blocks.*", "text.network.encoder.layers.*"],
        min_length=1,
        description="linear layers and convolutions that have one, by name or glob pattern",
    )


class TeacherConfig(Section):
    embeddings: str = Field(
        description="folder with the teacher's embeddings of the training images and texts, as "
        "tools/extract_embeddings.py writes them; any model may have made them"
    )
    weight: Annotated[float, Field(gt=0)] = Field(1.0, description="of its term beside those of Loss.weights")
    logit_scale: Annotated[float, Field(gt=0)] = Field(
        100.0, description="1 / temperature of the teacher's distributions over a batch"
    )


class TuningConfig(Section):
    freeze: list[str] = Field(
        default=[],
        description="what is not trained: layer groups (image.embeddings, image.blocks.0, ..., image.head, text....), "
        "parameters by name, or glob patterns of either, as text.* (docs/finetuning.md)",
    )
    freeze_norms: bool = Field(
        False, description="batch norms keep their running statistics, and normalise by them, and their weights"
    )
    layer_decay: Fraction = Field(
        1.0,
        description="factor of the learning rate from a layer group to the one before it: the head of a tower has the "
        "full rate, its last block this share of it, its embeddings the least",
    )
    image_rate: Annotated[float, Field(gt=0)] = Field(1.0, description="factor of the image tower's learning rate")
    text_rate: Annotated[float, Field(gt=0)] = Field(1.0, description="factor of the text tower's learning rate")
    base_batch: Count | None = Field(
        None,
        description="the global batch that Optimizer.learning_rate is meant for; the rate is multiplied by "
        "Training.global_batch / base_batch. null: it is taken as it is",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="decay of an exponential moving average of the weights, which then is what is scored and saved; "
        "in the first steps the decay is at most (1 + step) / (10 + step). null: there is none",
    )
    patience: Count | None = Field(
        None, description="evaluations without a better one after which the run ends; null: it goes on"
    )
    lora: LoraConfig | None = Field(
        None,
        description="{rank: 8, alpha: 16, layers: [patterns]}: only a change of low rank to the weights of these "
        "layers is trained (LoRA); whoever reads the checkpoint gets it merged. null: the weights themselves are",
    )
    teacher: TeacherConfig | None = Field(
        None,
        description="{embeddings: folder, weight: 1, logit_scale: 100}: the loss has one more term, how far the "
        "model's distributions over a batch are from a teacher's, whose embeddings lie in the folder",
    )


class HeadConfig(Section):
    kind: Literal["concatenation", "interaction"] = Field(
        "concatenation",
        description="an MLP on the embeddings of images and text side by side, as in the paper (concatenation), or "
        "with the absolute difference and the product of every two of them beside (interaction)",
    )
    width: Size | None = Field(None, description="of its hidden layer; null: twice that of the joint space")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="behind its hidden layer")
    rate: Annotated[float, Field(gt=0)] = Field(10.0, description="factor of its learning rate")


class Config(Section):
    """The whole configuration of a run."""

    Model: ModelConfig = Field(default_factory=ModelConfig, description="the two towers and the joint space")
    Views: ViewsConfig = Field(
        default_factory=ViewsConfig, description="how a sample becomes its views (paper, section 3)"
    )
    Loss: LossConfig = Field(
        default_factory=LossConfig, description="multi-view contrastive loss (paper, equations 1 and 2)"
    )
    Data: DataConfig = Field(default_factory=DataConfig, description="where samples come from")
    Optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="AdamW")
    Schedule: ScheduleConfig = Field(default_factory=ScheduleConfig, description="learning rate over the steps")
    Tuning: TuningConfig = Field(
        default_factory=TuningConfig, description="fine-tuning: how much of a trained model changes, and how fast"
    )
    Head: HeadConfig = Field(
        default_factory=HeadConfig, description="entailment, image_pair: what classifies embeddings (docs/transfer.md)"
    )
    Training: TrainingConfig = Field(default_factory=TrainingConfig, description="the run itself")
    Evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="scores in the course of training"
    )

    @model_validator(mode="after")
    def _check(self):
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
        if self.Data.max_length > self.Model.text.max_positions:
            raise ValueError(
                f"Data.max_length ({self.Data.max_length}) exceeds Model.text.max_positions "
                f"({self.Model.text.max_positions})"
            )
