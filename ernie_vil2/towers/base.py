"""The registries of towers, and what configurations of several kinds have in common.

Nothing here imports Paddle: a configuration is read without it, and `build` imports the layers.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ernie_vil2.device.extras import installed
from ernie_vil2.io.export_folder import Interpolation, LibraryRules, PreprocessingKind, Resize, WordRules
from ernie_vil2.io.terminal import print_once
from ernie_vil2.registry import Registry, unknown_name
from ernie_vil2.section import Epsilon, Fraction, Probability, Section, Size

if TYPE_CHECKING:
    from paddle import nn

SUITE = ("paddleclas:", "paddlenlp:")  # prefixes of the names of towers that PaddleClas or PaddleNLP builds
OWN, BACKBONE = "module:Class", "paddleclas:NAME"  # in the registries: the user's own towers, PaddleClas's backbones
Pooling = Literal["cls", "mean", "first", "end", "largest", "last"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
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
        BACKBONE: "ernie_vil2.towers.convolution:Backbone",
        OWN: "ernie_vil2.towers.own:OwnImageTower",
    },
)
"""Configurations, or layers of the user's own, by name."""
TEXT_TOWERS: Registry[Any] = Registry(
    "text tower",
    {
        **dict.fromkeys(_PUBLISHED_TEXTS, "ernie_vil2.towers.transformer:PublishedEncoder"),
        **dict.fromkeys(("ernie", "bert"), "ernie_vil2.towers.transformer:Encoder"),
        "transformer": "ernie_vil2.towers.transformer:Transformer",
        OWN: "ernie_vil2.towers.own:OwnTextTower",
    },
)
"""Likewise."""


class ImageVariant(Section):
    """What the ViTs of different families do differently; the defaults are the released models'."""

    hidden: Size | None = Field(None, description="width of the MLPs; null: four times that of the tokens")
    activation: Activation = Field("quick_gelu", description="of the MLPs: gelu (exact), gelu_tanh or quick_gelu")
    epsilon: Epsilon = Field(1e-6, description="of the LayerNorms")
    patches: Literal["convolution", "linear"] = Field(
        "convolution", description="what embeds a patch; linear: over (row, column, channel)"
    )
    patch_bias: bool = Field(False, description="whether that layer has a bias")
    class_token: bool = Field(True, description="whether a learned token goes before the patches")
    input_norm: bool = Field(True, description="whether a LayerNorm comes before the first block")
    pooling: Literal["class", "mean", "attention"] = Field(
        "class", description="features: the class token's, the patches' mean, or what a learned query attends to"
    )


class TextVariant(Section):
    """What the text transformers of different families do differently."""

    norm: Literal["before", "after"] = Field(
        "before", description="LayerNorms before the parts of a block and once at the end (CLIP), or after them (BERT)"
    )
    hidden: Size | None = Field(None, description="width of the MLPs; null: four times that of the states")
    activation: Activation = Field("gelu", description="of the MLPs: gelu (exact), gelu_tanh or quick_gelu")
    token_types: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="norm after: rows of the embedding of token types, of which the first is added to all"
    )
    first_position: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="row of the position embedding that belongs to the first token (RoBERTa: 2)"
    )
    mask: Literal["padding", "causal", "none"] = Field(
        "causal", description="what attention does not see: padding, what comes after a token (causal), or nothing"
    )
    padding: TokenId = Field(0, description="id of the padding token")
    end: TokenId | None = Field(None, description="id of the token whose first state pooling: end takes")
    head: Size | None = Field(None, description="width of a linear layer behind the pooling; null: there is none")
    head_norm: bool = Field(False, description="whether a LayerNorm comes before that layer (AltCLIP)")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.head_norm and self.head is None:
            raise ValueError("head_norm needs head, the width of the layer that it comes before")
        return self


def without_suite(name: str) -> str:
    """Return the name of a tower without who builds it: `ernie-base` for `paddlenlp:ernie-base`."""
    return name.partition(":")[2] if name.startswith(SUITE) else name


def check_divides(name: str, size: int, divisor: str, by: int) -> None:
    """Raise ValueError if a size of a tower is not divisible by another one."""
    if size % by:
        raise ValueError(f"{name} ({size}) must be divisible by {divisor} ({by})")


class TowerConfig(Section):
    """Configuration of a tower: a kind of tower adds fields of its own, and what `build` makes of them."""

    kind_field: ClassVar[str] = "name"
    registry: ClassVar[Registry[Any]]
    suite: ClassVar[str | None] = None
    """The library that builds the tower as well, or instead, where its name begins with it."""
    is_own: ClassVar[bool] = False  # whether it is a class of the user's

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
        """Return the configuration that the tower of a name has; UnknownName if there is none."""
        library, colon, bare = name.rpartition(":")
        if colon and not name.startswith(SUITE):
            return cls.registry.find(OWN)
        kind = cls.registry.find(bare) if bare in cls.registry else None
        if kind is not None and not (isinstance(kind, type) and issubclass(kind, cls)):
            kind = cls.registry.find(OWN)  # a Layer without a configuration of its own
        if kind is not None and library in ("", kind.suite):
            return kind
        if BACKBONE not in cls.registry:
            raise unknown_name(cls.registry.kind, name, cls._registered_names())
        return cls.registry.find(BACKBONE)

    @classmethod
    def read(cls, settings: Any) -> Any:
        """Return what a section says as the configuration of the kind of tower that it names.

        Raises:
            ValueError: there is no such tower, it has not a field that is set, or sizes are missing.
        """
        if not isinstance(settings, Mapping):
            return settings  # a configuration already, or nothing that could be one, which pydantic says
        name = settings.get("name", cls.model_fields["name"].default)
        if not isinstance(name, str):
            return cls.model_validate({"name": name})
        kind = cls.find_kind(name)
        missing = [size for size in kind.required_fields() if settings.get(size) is None]
        if missing:
            raise ValueError(f"{name!r} leaves its size open: set {', '.join(missing)}")

        # Null and zero say nothing: a file may give the fields of all kinds, as configs/default.yaml does.
        foreign = settings.keys() - kind.model_fields.keys()
        if foreign:  # otherwise nothing of the other kinds is imported
            fields_of_kinds: set[str] = set()
            for registered in cls.kinds():
                fields_of_kinds.update(registered.model_fields)
            foreign &= fields_of_kinds
        wrong = [key for key in settings if key in foreign and settings[key]]
        if wrong:
            # A name without a library may be a backbone of PaddleClas; with sizes, it is rather a misspelt tower.
            names = cls._registered_names()
            if name not in cls.registry and difflib.get_close_matches(name, names, n=1):
                raise unknown_name(cls.registry.kind, name, names)
            holders = [holder for holder in cls.registry if {*wrong} <= cls.find_kind(holder).model_fields.keys()]
            raise ValueError(f"{name!r} has no {', '.join(wrong)}: remove that, or name one of {', '.join(holders)}")
        return kind.model_validate({key: value for key, value in settings.items() if key not in foreign})

    @property
    def sizes(self) -> dict[str, Any]:
        """Sizes by field: those given, or those that the name means."""
        return {size: getattr(self, size) for size in self.required_fields()}

    @property
    def lacks_suite(self) -> bool:
        """Whether the library that should build the tower is missing, and this package can build it instead."""
        library, colon, bare = self.name.partition(":")
        return bool(colon) and library == self.suite and bare in self.registry and not installed(library)

    def with_sizes(self) -> TowerConfig:
        """Return the same tower with the sizes spelt out that a name such as ViT-B/16 means."""
        return self

    def native(self) -> Self:
        """Return the same tower under the name that says nothing of who builds it."""
        return self.model_copy(update={"name": without_suite(self.name)})

    def built_by(self, builder: Literal["native", "suite"]) -> Self:
        """Return the same tower under the name that says who builds it; the same if that one builds none."""
        native = self.native()
        if builder == "suite" and self.suite:
            return self.model_copy(update={"name": f"{self.suite}:{native.name}"})
        return native if builder == "native" and native.name in self.registry else self

    def as_installed(self) -> Self:
        """Return the native tower instead of one whose library is missing, which is reported; others as they are."""
        if not self.lacks_suite:
            return self
        native = self.native()
        print_once(
            f"{self.suite} is not installed: this package's own {native.name} replaces {self.name}, with the same "
            "parameters and, to rounding, numbers"
        )
        return native


class ImageTowerConfig(TowerConfig):
    """What the configurations of all image towers have in common: what an image becomes before it is encoded."""

    registry = IMAGE_TOWERS
    shared_fields: ClassVar[tuple[str, ...]] = ("image_size", "mean", "std", "preprocessing", "background")

    name: str = Field(
        "ViT-B/16",
        description="CLIP's ViT or ResNet, RepVGG, NaFlex; paddleclas:NAME; or a Layer of your own as module:Class",
    )
    image_size: Annotated[int, Field(ge=1, le=4096)] = Field(224, description="side of the square input in pixels")
    preprocessing: PreprocessingKind = Field(
        "ernie_vil2",
        description="how an image that is scored becomes the input: ours, a release's, or another family's",
    )
    resize: Resize = Field(
        "shortest",
        description="transformers, open_clip: to the short side and cut, to both, or to the long one with black",
    )
    interpolation: Interpolation = Field("bicubic", description="of that resize, by Pillow; also of naflex")
    resized: Size | None = Field(None, description="shortest: side before the crop; null: image_size")
    most_patches: Size | None = Field(None, description="naflex: patches of an image; null: by FG-CLIP 2's rule")
    mean: list[Probability] = Field(
        default=[0.485, 0.456, 0.406],
        min_length=3,
        max_length=3,
        description="of the input's normalisation, [red, green, blue], pixels from 0 to 1",
    )
    std: list[Fraction] = Field(
        default=[0.229, 0.224, 0.225], min_length=3, max_length=3, description="its standard deviation"
    )
    background: list[Annotated[int, Field(ge=0, le=255)]] = Field(
        default=[255, 255, 255],
        min_length=3,
        max_length=3,
        description="[red, green, blue] behind transparent pixels, where preprocessing is ernie_vil2",
    )
    weights: str | None = Field(
        None, description="initial: paddleclas, a PaddleClas file, or an ERNIE-ViL 2.0 model; null: random"
    )

    def build(self) -> nn.Layer:
        """Return the tower, `[B, 3, H, W]` images to `[B, width]` features, randomly initialised.

        Raises:
            MissingPackage: PaddleClas builds it and is not installed.
            ValueError: there is no such tower, or its sizes do not fit each other.
        """
        raise NotImplementedError

    def fewest_parameters(self) -> int:
        """Return how many parameters the tower has at least, before it is built; 0 where only its layers know."""
        return 0


class TextTowerConfig(TowerConfig):
    """What the configurations of all text towers have in common: how a text is split, and how long it may be."""

    registry = TEXT_TOWERS
    shared_fields: ClassVar[tuple[str, ...]] = (
        "max_positions",
        "vocabulary",
        "tokenizer",
        "dropout",
        "attention_dropout",
    )

    name: str = Field(
        "ernie-base", description="ERNIE, BERT or transformer; paddlenlp:NAME; or a Layer of your own as module:Class"
    )
    max_positions: Size = Field(
        512, description="rows of the position embedding, to which initial weights are stretched"
    )
    pooling: Pooling = Field(
        "cls",
        description="features: as released (cls), the mean of the states, or, of a transformer, the state of a token",
    )
    dropout: Probability = Field(0.1, description="hidden dropout; it is what makes the two text views differ")
    attention_dropout: Probability = Field(0.1, description="dropout of the attention weights")
    epsilon: Epsilon = Field(1e-5, description="ernie, transformer: of the LayerNorms; 1e-12 in PaddleNLP")
    vocabulary: str | None = Field(
        None, description="a vocab.txt, tokenizer.json or sentencepiece .model; null: ERNIE 3.0 (open_clip: CLIP)"
    )
    tokenizer: Literal[WordRules, LibraryRules] = Field(
        "official", description="how a text becomes tokens: as a release, or as another family (docs/models.md)"
    )
    weights: str | None = Field(
        None, description="initial: of PaddleNLP, by name, folder or file, or an ERNIE-ViL 2.0 model; null: random"
    )

    @property
    def first_position(self) -> int:
        """Row of the position embedding that belongs to the first token."""
        return 0

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return self.max_positions - self.first_position

    @property
    def family(self) -> str:
        """The kind of encoder that the name begins with, such as ernie or bert."""
        return without_suite(self.name).partition("-")[0]

    def build(self, vocab_size: int) -> nn.Layer:
        """Return the tower, `[B, L]` ids of `vocab_size` tokens to `[B, width]` features; see the image towers'."""
        raise NotImplementedError

    def fewest_parameters(self, vocab_size: int) -> int:
        """Return how many parameters the tower has at least, before it is built; 0 where only its layers know."""
        return 0
