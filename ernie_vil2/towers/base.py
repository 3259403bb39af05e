"""Registries of towers, and the base classes of their configurations.

Nothing here imports Paddle, so that configurations are read without it; `build` imports the layers.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ernie_vil2.device.extras import is_installed
from ernie_vil2.io.export_folder import Interpolation, LibraryRules, PreprocessingKind, Resize, WordRules
from ernie_vil2.io.terminal import print_once
from ernie_vil2.registry import Registry, unknown_name
from ernie_vil2.section import Epsilon, Fraction, Probability, Section, Size

if TYPE_CHECKING:
    from paddle import nn

SUITE_PREFIXES = ("paddleclas:", "paddlenlp:")  # of the names of towers that PaddleClas or PaddleNLP builds
# Two names that stand for many: the user's own towers, and the backbones of PaddleClas.
OWN, BACKBONE = "module:Class", "paddleclas:NAME"
Pooling = Literal["cls", "mean", "first", "end", "largest_id", "last"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]

_PUBLISHED_TEXTS = ("ernie-base", "ernie-large", "bert-base", "bert-large")
IMAGE_TOWERS: Registry[Any] = Registry(
    "image tower",
    {
        **dict.fromkeys(("ViT-B/16", "ViT-L/14"), "ernie_vil2.towers.transformer:PublishedVit"),
        "ViT": "ernie_vil2.towers.transformer:Vit",
        "NaFlex": "ernie_vil2.towers.transformer:NaFlex",
        "RepVGG": "ernie_vil2.towers.convolution:RepVgg",
        "ModifiedResNet": "ernie_vil2.towers.convolution:ModifiedResNet",
        "ConvNeXt": "ernie_vil2.towers.convolution:ConvNeXt",
        BACKBONE: "ernie_vil2.towers.convolution:Backbone",
        OWN: "ernie_vil2.towers.own:OwnImageTower",
    },
)
"""Configurations by name; users register layers of their own."""
TEXT_TOWERS: Registry[Any] = Registry(
    "text tower",
    {
        **dict.fromkeys(_PUBLISHED_TEXTS, "ernie_vil2.towers.transformer:PublishedEncoder"),
        **dict.fromkeys(("ernie", "bert"), "ernie_vil2.towers.transformer:Encoder"),
        "transformer": "ernie_vil2.towers.transformer:Transformer",
        OWN: "ernie_vil2.towers.own:OwnTextTower",
    },
)
"""Configurations by name; users register layers of their own."""


class Rotary(Section):
    """Rotary positions in two dimensions (RoPE): attention rotates queries and keys by the place of their patch."""

    first_half: Literal["columns", "rows"] = Field(
        description="what rotates the first half of a head: the column of a patch (PE-Core) or its row (EVA-02); the "
        "other one rotates the second half"
    )
    start: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="number of the first row and column (PE-Core with a class token: 1)"
    )
    grid: Size | None = Field(
        None,
        description="number of rows and columns to which the positions of any image are stretched or shrunk (EVA-02: "
        "16); null: positions count the patches",
    )


class ImageVariant(Section):
    """Differences of the ViTs of other families; the defaults are the released models'."""

    hidden: Size | None = Field(None, description="width of the MLPs; null: four times that of the tokens")
    activation: Activation = Field(
        "quick_gelu", description="activation of the MLPs: gelu (exact), gelu_tanh, quick_gelu, silu or relu"
    )
    mlp: Literal["plain", "swiglu"] = Field(
        "plain",
        description="MLPs: two linear layers with the activation in between (plain), or two side by side, one of them "
        "with the activation, whose product goes through a LayerNorm and a third (swiglu, with activation: silu)",
    )
    epsilon: Epsilon = Field(1e-6, description="epsilon of the LayerNorms")
    rotary: Rotary | None = Field(
        None, description="rotary positions in attention, besides the learned ones; null: none"
    )
    key_bias: bool = Field(True, description="whether the layer that makes the keys of attention has a bias")
    attention_norm: bool = Field(False, description="whether a LayerNorm comes before the last layer of attention")
    patches: Literal["convolution", "linear"] = Field(
        "convolution", description="layer that embeds a patch; linear: of pixels by (row, column, channel)"
    )
    patch_bias: bool = Field(False, description="whether that layer has a bias")
    class_token: bool = Field(True, description="whether a learned token goes before the patches")
    input_norm: bool = Field(True, description="whether a LayerNorm comes before the first block")
    pooling: Literal["class", "tanh", "mean", "attention"] = Field(
        "class",
        description="features: class token (class), class token through a linear layer and tanh (tanh), mean of the "
        "patches (mean), or a learned query's (attention)",
    )
    norm_after_mean: bool = Field(
        False, description="pooling: mean: whether the last LayerNorm comes after the mean, not before it (CLIPA)"
    )
    pooling_heads: Size | None = Field(
        None, description="pooling: attention: heads of the pooling; null: as many as those of a block"
    )
    pooling_hidden: Size | None = Field(
        None, description="pooling: attention: width of the MLP of the pooling; null: that of the MLPs of the blocks"
    )
    head: Size | None = Field(
        None, description="width of a linear layer with a bias after the pooling; null: no such layer"
    )

    @model_validator(mode="after")
    def _check_pooling(self) -> Self:
        if self.pooling in ("class", "tanh") and not self.class_token:
            raise ValueError(f"pooling: {self.pooling} needs class_token: true; without one, use mean or attention")
        return self


class TextVariant(Section):
    """Differences of the text transformers of other families; the defaults are CLIP's."""

    norm: Literal["before", "after"] = Field(
        "before", description="LayerNorms before attention and MLP and once at the end (CLIP), or after each (BERT)"
    )
    hidden: Size | None = Field(None, description="width of the MLPs; null: four times that of the states")
    activation: Activation = Field(
        "gelu", description="activation of the MLPs: gelu (exact), gelu_tanh, quick_gelu, silu or relu"
    )
    token_types: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="norm: after: rows of the token type embedding; the first is added to all tokens"
    )
    positions: Literal["learned", "sinusoids"] = Field(
        "learned", description="position embedding: learned, or sinusoids, which no file of weights holds (NLLB)"
    )
    scaled_words: bool = Field(
        False, description="whether word embeddings are multiplied by the square root of their width (NLLB)"
    )
    first_position: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="row of the position embedding that belongs to the first token (RoBERTa: 2)"
    )
    mask: Literal["padding", "causal", "none"] = Field(
        "causal", description="tokens hidden from attention: padding, later tokens (causal), or none"
    )
    padding: TokenId = Field(0, description="id of the padding token")
    end: TokenId | None = Field(None, description="id of the token whose first state pooling: end takes")
    head: Size | None = Field(None, description="width of a linear layer after the pooling; null: no such layer")
    head_norm: bool = Field(False, description="whether a LayerNorm comes before that layer (AltCLIP)")
    head_bias: bool = Field(True, description="whether that layer has a bias")
    head_activation: Activation | None = Field(
        None, description="activation after that layer, which makes an MLP of it and the projection; null: none"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.head is None and (self.head_norm or self.head_activation):
            name = "head_norm" if self.head_norm else "head_activation"
            raise ValueError(f"{name} needs head, the width of the layer that it belongs to")
        return self


def strip_suite_prefix(name: str) -> str:
    """Return the name of a tower without the suite that builds it: `ernie-base` for `paddlenlp:ernie-base`."""
    return name.partition(":")[2] if name.startswith(SUITE_PREFIXES) else name


def check_divides(name: str, size: int, divisor: str, by: int) -> None:
    """Raise ValueError if a size of a tower is not divisible by another one."""
    if size % by:
        raise ValueError(f"{name} ({size}) must be divisible by {divisor} ({by})")


class TowerConfig(Section):
    """Base class of the configurations of towers; each kind of tower adds its fields and `build`.

    Attributes:
        registry: towers by name.
        suite: library that can build the tower, too, if the tower's name begins with that of the library, such as
            `paddlenlp:ernie-base`; None: only this package can.
        is_user_defined: the tower is a class that the user has written.
    """

    kind_field: ClassVar[str] = "name"
    registry: ClassVar[Registry[Any]]
    suite: ClassVar[str | None] = None
    is_user_defined: ClassVar[bool] = False

    name: str

    @classmethod
    def kinds(cls) -> list[type[Section]]:
        registered = dict.fromkeys(cls.registry.find(name) for name in cls.registry)
        return [kind for kind in registered if isinstance(kind, type) and issubclass(kind, cls)]

    @classmethod
    def _registered_names(cls) -> list[str]:
        return [name for name in cls.registry if name != OWN]

    @classmethod
    def find_kind(cls, name: str) -> type[Self]:
        """Return the configuration class of the tower of a name; UnknownName if there is none."""
        library, colon, bare = name.rpartition(":")
        if colon and not name.startswith(SUITE_PREFIXES):
            return cls.registry.find(OWN)
        kind = cls.registry.find(bare) if bare in cls.registry else None
        if kind is not None and not (isinstance(kind, type) and issubclass(kind, cls)):
            kind = cls.registry.find(OWN)  # a Layer that the user registered
        if kind is not None and library in ("", kind.suite):
            return kind
        if BACKBONE not in cls.registry:
            raise unknown_name(cls.registry.kind, name, cls._registered_names())
        return cls.registry.find(BACKBONE)

    @classmethod
    def read(cls, settings: Any) -> Any:
        """Return the settings of a section as the configuration of the tower that they name.

        Raises:
            ValueError: there is no such tower, it lacks a field that is set, or sizes are missing.
        """
        if not isinstance(settings, Mapping):
            return settings  # a configuration already, or something that pydantic refuses
        name = settings.get("name", cls.model_fields["name"].default)
        if not isinstance(name, str):
            return cls.model_validate({"name": name})
        kind = cls.find_kind(name)
        missing = [size for size in kind.required_fields() if settings.get(size) is None]
        if missing:
            raise ValueError(f"{name!r} leaves its size open: set {', '.join(missing)}")

        # Null, zero and defaults mean "not set": a file may list the fields of all kinds, as configs/default.yaml does.
        foreign = settings.keys() - kind.model_fields.keys()
        defaults: dict[str, list[Any]] = {}
        if foreign:  # listing the fields of all kinds imports their modules
            for registered in cls.kinds():
                for field_name, field in registered.model_fields.items():
                    defaults.setdefault(field_name, []).append(field.default)
            foreign &= defaults.keys()
        wrong = [key for key in settings if key in foreign and settings[key] and settings[key] not in defaults[key]]
        if wrong:
            # Any name may be a backbone of PaddleClas; but with sizes, it is more likely a misspelt tower.
            names = cls._registered_names()
            is_backbone = BACKBONE in cls.registry and kind is cls.registry.find(BACKBONE)
            if is_backbone and difflib.get_close_matches(name, names, n=1):
                raise unknown_name(cls.registry.kind, name, names)
            holders = [holder for holder in cls.registry if {*wrong} <= cls.find_kind(holder).model_fields.keys()]
            advice = f", or name one of {', '.join(holders)}" if holders else ""
            raise ValueError(f"{name!r} has no {', '.join(wrong)}: remove that{advice}")
        return kind.model_validate({key: value for key, value in settings.items() if key not in foreign})

    @property
    def sizes(self) -> dict[str, Any]:
        """Sizes by field: as configured, or as the name says."""
        return {size: getattr(self, size) for size in self.required_fields()}

    @property
    def lacks_suite(self) -> bool:
        """Whether the library that should build the tower is missing and this package can build it instead."""
        library, colon, bare = self.name.partition(":")
        return bool(colon) and library == self.suite and bare in self.registry and not is_installed(library)

    def with_sizes(self) -> TowerConfig:
        """Return the same tower with explicit sizes in place of a name such as ViT-B/16."""
        return self

    def native(self) -> Self:
        """Return the same tower, built by this package."""
        return self.model_copy(update={"name": strip_suite_prefix(self.name)})

    def built_by(self, builder: Literal["native", "suite"]) -> Self:
        """Return the same tower, built by this package or by the suite; unchanged if the builder cannot build it."""
        native = self.native()
        if builder == "suite" and self.suite:
            return self.model_copy(update={"name": f"{self.suite}:{native.name}"})
        return native if builder == "native" and native.name in self.registry else self

    def find_installed(self) -> Self:
        """Return the native tower if the library of this one is missing, and report that; else the tower itself."""
        if not self.lacks_suite:
            return self
        native = self.native()
        print_once(
            f"{self.suite} is not installed: this package's own {native.name} replaces {self.name}, with the same "
            "parameters and, to rounding, numbers"
        )
        return native


class ImageTowerConfig(TowerConfig):
    """Base class of the configurations of image towers, with the preprocessing of images."""

    registry = IMAGE_TOWERS
    shared_fields: ClassVar[tuple[str, ...]] = ("image_size", "mean", "std", "preprocessing", "background")

    name: str = Field(
        "ViT-B/16",
        description="CLIP's ViT or ResNet, ConvNeXt, RepVGG, NaFlex; paddleclas:NAME; your own Layer as module:Class",
    )
    image_size: Annotated[int, Field(ge=1, le=4096)] = Field(224, description="side of the square input in pixels")
    preprocessing: PreprocessingKind = Field(
        "ernie_vil2",
        description="preprocessing outside of training: ours (ernie_vil2), a release's, or another family's",
    )
    resize: Resize = Field(
        "shortest",
        description="transformers, open_clip: resize the short side and crop (shortest), both (squash), or "
        "the long side "
        "and pad (longest)",
    )
    interpolation: Interpolation = Field(
        "bicubic", description="interpolation of that resize, by Pillow; also of naflex"
    )
    resized: Size | None = Field(
        None, description="resize: shortest: length of the short side before the crop; null: image_size"
    )
    most_patches: Size | None = Field(
        None, description="naflex: largest number of patches of an image; null: by FG-CLIP 2's rule"
    )
    mean: list[Probability] = Field(
        default=[0.485, 0.456, 0.406],
        min_length=3,
        max_length=3,
        description="mean of the pixels, [red, green, blue] from 0 to 1, which normalisation subtracts",
    )
    std: list[Fraction] = Field(
        default=[0.229, 0.224, 0.225],
        min_length=3,
        max_length=3,
        description="standard deviation of the pixels, by which normalisation divides",
    )
    background: list[Annotated[int, Field(ge=0, le=255)]] = Field(
        default=[255, 255, 255],
        min_length=3,
        max_length=3,
        description="colour behind transparent pixels, [red, green, blue]; preprocessing: ernie_vil2 only",
    )
    weights: str | None = Field(
        None, description="initial weights: paddleclas, a file of PaddleClas, or an ERNIE-ViL 2.0 model; null: random"
    )

    def build(self) -> nn.Layer:
        """Build the tower, `[B, 3, H, W]` images to `[B, width]` features, randomly initialised.

        Raises:
            MissingPackage: PaddleClas builds the tower and is not installed.
            ValueError: there is no such tower, or its sizes do not fit each other.
        """
        raise NotImplementedError

    def fewest_parameters(self) -> int:
        """Return a lower bound of the number of parameters, before the tower is built; 0 if it is unknown."""
        return 0


class TextTowerConfig(TowerConfig):
    """Base class of the configurations of text towers, with tokenizer and length of texts."""

    registry = TEXT_TOWERS
    shared_fields: ClassVar[tuple[str, ...]] = (
        "max_positions",
        "vocabulary",
        "tokenizer",
        "dropout",
        "attention_dropout",
    )

    name: str = Field(
        "ernie-base", description="ERNIE, BERT or transformer; paddlenlp:NAME; or your own Layer as module:Class"
    )
    max_positions: Size = Field(
        512, description="rows of the position embedding; those of initial weights are stretched to this number"
    )
    pooling: Pooling = Field(
        "cls",
        description="features: first state through a linear layer and tanh (cls), mean of the states (mean), or, of a "
        "transformer, the state of one token",
    )
    dropout: Probability = Field(0.1, description="dropout of the states; it makes the two text views differ")
    attention_dropout: Probability = Field(0.1, description="dropout of the attention weights")
    epsilon: Epsilon = Field(1e-5, description="ernie, transformer: epsilon of the LayerNorms; 1e-12 in PaddleNLP")
    vocabulary: str | None = Field(
        None,
        description="vocab.txt, tokenizer.json or sentencepiece .model; null: ERNIE 3.0 (tokenizer: open_clip: CLIP)",
    )
    tokenizer: Literal[WordRules, LibraryRules] = Field(
        "official",
        description="rules by which a text becomes tokens: a release's, or another family's (docs/models.md)",
    )
    weights: str | None = Field(
        None,
        description="initial weights: a name, folder or file of PaddleNLP, or an ERNIE-ViL 2.0 model; null: random",
    )

    @property
    def first_position(self) -> int:
        """Row of the position embedding that belongs to the first token."""
        return 0

    @property
    def max_tokens(self) -> int:
        """Number of tokens of the longest text."""
        return self.max_positions - self.first_position

    @property
    def family(self) -> str:
        """First word of the name: ernie, bert, ..."""
        return strip_suite_prefix(self.name).partition("-")[0]

    def build(self, vocab_size: int) -> nn.Layer:
        """Build the tower, `[B, L]` ids of `vocab_size` tokens to `[B, width]` features; errors as in image towers."""
        raise NotImplementedError

    def fewest_parameters(self, vocab_size: int) -> int:
        """Return a lower bound of the number of parameters, before the tower is built; 0 if it is unknown."""
        return 0
