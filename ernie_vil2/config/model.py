"""Sections of the model: its towers and where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ernie_vil2.config.section import Depth, Probability, Section, Size
from ernie_vil2.registry import unknown

# What names a size of its own, and the fields that give it.
IMAGE_SIZES = {"ViT": ("patch_size", "width", "depth", "heads"), "RepVGG": ("width", "depth")}
TEXT_TOWERS = ("ernie-base", "ernie-large", "ernie", "bert-base", "bert-large", "bert")
TEXT_SIZES = dict.fromkeys(("ernie", "bert"), ("width", "depth", "heads"))


def _check_sizes(tower: ImageTowerConfig | TextTowerConfig, sizes: Mapping[str, tuple[str, ...]]) -> None:
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
    def _check(self) -> Self:
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
        "where symbols are also words of their own and special tokens in a text count as such",
    )
    weights: str | None = Field(
        None,
        description="initial weights: an ERNIE or BERT by its PaddleNLP name, folder or file, or an ERNIE-ViL 2.0 "
        "model; null: random",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name not in TEXT_TOWERS and ":" not in self.name:
            raise unknown("text tower", self.name, TEXT_TOWERS)
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


class HeadConfig(Section):
    kind: Literal["concatenation", "interaction"] = Field(
        "concatenation",
        description="an MLP on the embeddings of images and text side by side, as in the paper (concatenation), or "
        "with the absolute difference and the product of every two of them as well (interaction)",
    )
    width: Size | None = Field(None, description="of its hidden layer; null: twice that of the joint space")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="behind its hidden layer")
    rate: Annotated[float, Field(gt=0)] = Field(10.0, description="factor of its learning rate")
