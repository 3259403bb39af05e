"""What a family of dual encoders is: how its folders are read, by a table of names and conventions.

A family is a `Family` in one of the files of this folder, and a line in `format.FORMATS`. It says which
configuration of our towers its settings mean, and which of its arrays is which of ours; there is no model class for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ernie_vil2.config import Config, DataConfig, ModelConfig, ViewsConfig
from ernie_vil2.config.load import describe_problems
from ernie_vil2.config.sections import LossConfig
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.data.tokenizer_files import LibraryTokenizer, open_tokenizer, vocabulary_file
from ernie_vil2.data.tokenizer_settings import FILE as TOKENIZER_SETTINGS
from ernie_vil2.io.export_folder import RESIZES
from ernie_vil2.models.weights.files import INDEX_SUFFIX, read_weights
from ernie_vil2.models.weights.format import (
    FORMATS,
    WORD_EMBEDDING,
    FamilyModel,
    Golden,
    ModelFiles,
    NoWeights,
    ReadOptions,
    StoredModel,
    find_first_file,
    read_model_type,
)
from ernie_vil2.models.weights.name_table import LazyArrays, NameTable, Row, select_arrays
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.models.weights.write_back import write_back, write_new
from ernie_vil2.towers.base import ImageTowerConfig
from ernie_vil2.towers.transformer import image_variant, text_variant

_WEIGHT_FILES = (
    "model.safetensors",
    f"model.safetensors{INDEX_SUFFIX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX_SUFFIX}",
)
TORCH_SUFFIXES = (".pt", ".pth")
_SUFFIXES = (".safetensors", ".bin", ".json", *TORCH_SUFFIXES)
SHORT_TEXT = 64  # tokens of a short text in FG-CLIP 2
STORED = "stored"  # the way of a dialect that is the folder's own
ACTIVATION = {"activation": (STORED, "gelu", "gelu_tanh", "quick_gelu")}
"""The dialect of families whose weights are in use with more than one activation: the folder's, or one for both."""
OF_ARRAYS = ("text",)  # dialects whose ways take different arrays of a file
PREPROCESSING: Mapping[str, Mapping[str, Any]] = {
    "clip": {"preprocessing": "transformers", "resize": "shortest", "interpolation": "bicubic"},
    "square": {"preprocessing": "transformers", "resize": "squash", "interpolation": "bicubic"},
    "naflex": {"preprocessing": "naflex", "interpolation": "bilinear", "most_patches": 256},
    "fgclip2": {"preprocessing": "naflex", "interpolation": "bilinear"},
    "open_clip": {"preprocessing": "open_clip", "resize": "shortest", "interpolation": "bicubic"},
    "cn_clip": {"preprocessing": "open_clip", "resize": "squash", "interpolation": "bicubic"},
}
"""What a family does with images where a folder says nothing, by `Family.preprocessing`."""
_WORD_EMBEDDINGS = ("token_embedding.weight", "word_embeddings.weight")
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_LICENCE = re.compile(r"^license:[ \t]*['\"]?([\w .+-]{1,60})", re.MULTILINE)


@dataclass(frozen=True)
class Folder:
    """A family's folder, or file, as its reader sees it."""

    weights: Path  # of the arrays, or the index of their shards
    settings: Settings  # of the file that describes the model
    arrays: Mapping[str, np.ndarray]  # by the authors' names
    dialect: Mapping[str, str]  # see `Family.dialects`


def word_count(folder: Folder) -> int | None:
    """Return the rows of the word embedding of a folder; None if it has none, which is reported where it is read."""
    for name in folder.arrays:
        if name.endswith(_WORD_EMBEDDINGS):
            shape = folder.arrays[name].shape
            return shape[0] if shape else None
    return None


@dataclass(frozen=True)
class Family:
    """A family of dual encoders.

    Attributes:
        configure: the towers that a folder describes, and the longest text in tokens; ValueError names the culprit.
        rows: the table of names for a model, a dialect, and the names of a file, where a family is spelt in more than
            one way; see `weights.name_table`.
        unused: reasons why arrays are not part of the model, by glob patterns of the authors' names.
        dialects: what is done in more than one way with the same weights: the names of the ways, the default first.
        describes: whether a folder, or a file of weights in it, is of this family; None: its config.json says it.
        new_settings: JSON files by name that describe a model; ValueError if the layout cannot hold it. None: settings
            are taken from another folder.
        new_weights: name of the weights' file next to them.
        sister: name of the format of the same models in another layout.
    """

    title: str  # for people
    configure: Callable[[Folder], tuple[ModelConfig, int]]
    rows: Callable[[ModelConfig, Mapping[str, str], Collection[str]], Sequence[Row]]
    tokenizer: str | Callable[[Folder], str]  # see `Model.text.tokenizer`
    preprocessing: str  # a name of `PREPROCESSING`
    unused: Mapping[str, str] = field(default_factory=dict)
    dialects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: str = "config.json"  # describes the model; empty: the weights do
    weights: Callable[[Path], Path | None] = lambda folder: find_first_file(folder, _WEIGHT_FILES)
    layout: str = "hf"  # for `ernie-vil2 convert --to`
    gives_length: bool = False  # whether the authors' code says how long texts are, whatever their tokenizer says
    describes: Callable[[Path], bool] | None = None
    new_settings: Callable[[StoredModel], dict[str, Any]] | None = None
    new_weights: str = "model.safetensors"
    sister: str | None = None

    def recognise(self, files: ModelFiles) -> Path | None:
        path = files.path
        if path.is_file() and path.suffix not in _SUFFIXES:
            return None
        describes = self.describes or self._describes
        if not describes(path):
            return None
        weights = path if path.is_file() else self.weights(path)
        if weights is None:
            raise NoWeights(
                f"{path}: the folder of a {self.title}, but its weights are not there, or more than one file could be "
                "them: name the file"
            )
        return weights

    def _describes(self, path: Path) -> bool:
        """Return whether a config.json of this family lies in a folder, or next to a file of weights."""
        if path.is_file() and (path.suffix in TORCH_SUFFIXES or path.name.startswith("open_clip")):
            return False
        kind = read_model_type(path if path.is_dir() else path.parent)
        return kind is not None and kind in FORMATS and FORMATS.find(kind) is self

    def make_name_table(self, model: ModelConfig, dialect: Mapping[str, str], has: Collection[str] = ()) -> NameTable:
        """Return the table of names for a model."""
        sizes = model.image.sizes
        blocks = {f"image.layer{stage}.": range(depth) for stage, depth in enumerate(sizes.get("layers", ()), 1)}
        blocks["image.blocks."] = range(sizes.get("depth", 0))
        blocks["text.network.encoder.layers."] = range(model.text.sizes["depth"])
        return NameTable(self.rows(model, dialect, has), blocks)

    def read(self, files: ModelFiles, options: ReadOptions) -> StoredModel:
        weights, vocabulary = files.weights, options.vocabulary
        model = self.read_towers(weights, options.dialect)
        config, words = model.config, len(model.arrays[WORD_EMBEDDING])
        rules = config.Model.text.tokenizer
        tokenizer: TextTokenizer | None = None
        path: Path | None = None
        try:
            path = vocabulary_file(Path(vocabulary or weights.parent), rules)
            tokenizer = open_tokenizer(path, config.Data.max_length, rules, weights.parent)
        except FileNotFoundError:
            if vocabulary:
                raise
        is_packaged = path is not None and path.parent != weights.parent and not vocabulary
        if tokenizer is None or (is_packaged and words != tokenizer.vocab_size):
            # CLIP's byte pairs, which are packaged, belong to no other model.
            return StoredModel(self.title, model.arrays, config, None, family=model)

        if len(tokenizer.tokens) > words:
            raise ValueError(f"{weights}: {words} rows of words, but {path} has {len(tokenizer.tokens)} tokens")
        _check_token_ids(weights, config, tokenizer)
        library = tokenizer if isinstance(tokenizer, LibraryTokenizer) else None
        return StoredModel(self.title, model.arrays, config, tokenizer.tokens, path, model, library)

    def write(self, model: StoredModel, folder: Path, origin: Path | None, golden: Golden) -> list[str]:
        if origin is not None:
            weights = self.recognise(ModelFiles(origin)) or origin
            before = self._read_alike(weights, model.config.Model)
            return write_back(model, before, weights, origin, folder, golden)
        if self.new_settings is None:
            raise ValueError(f"a model of {self.layout} is written into a copy of a folder of that layout; name one")
        names, settings = self.make_name_table(model.config.Model, {}), self.new_settings(model)
        return write_new(model, names, self.new_weights, settings, folder, golden)

    def _read_alike(self, weights: Path, model: ModelConfig) -> FamilyModel:
        """Read a model, its texts in the way of another model where there is more than one way (FG-CLIP 2).

        Of ways of computing with the same arrays the model keeps its own.
        """
        ways = {}
        for key, known in self.dialects.items():
            if key in OF_ARRAYS:
                ways[key] = (model.dialect.get(key, known[0]), *known)
        for chosen in product(*ways.values()):
            candidate = self.read_towers(weights, dict(zip(ways, chosen, strict=True)))
            if candidate.config.Model.text.max_positions == model.text.max_positions:
                return candidate
        return self.read_towers(weights, {key: known[0] for key, known in ways.items()})

    def read_towers(self, weights: Path, dialect: Mapping[str, str] | None = None) -> FamilyModel:
        """Read towers and arrays of a model.

        Args:
            weights: file that `recognise` gave.
            dialect: the ways that are not the default.

        Raises:
            FileNotFoundError: a file of it is missing.
            ValueError: a file is damaged, or they do not belong together; or there is no such dialect.
        """
        settings = self._settings(weights)
        chosen = {key: ways[0] for key, ways in self.dialects.items()} | dict(dialect or {})
        for key, way in chosen.items():
            if way not in self.dialects.get(key, ()):
                known = (
                    "; ".join(f"{key}: {', '.join(ways)}" for key, ways in self.dialects.items()) or "there are none"
                )
                raise ValueError(f"{weights.parent}: {self.title} has no dialect {key}={way}; {known}")
        folder = Folder(weights, settings, read_weights(weights), chosen)
        try:
            model, longest = self.configure(folder)
        except ValidationError as error:
            raise ValueError(
                str(describe_problems(error, f"{settings.path} describes a tower that is not built"))
            ) from None
        model = _activated(model, chosen.get("activation"))
        image = with_preprocessing(model.image, self.preprocessing, weights.parent, settings)
        if (way := chosen.get("preprocessing", STORED)) != STORED:
            image = image.model_copy(update={"preprocessing": way})
        rules = self.tokenizer if isinstance(self.tokenizer, str) else self.tokenizer(folder)
        rules = rules if chosen.get("tokenizer", STORED) == STORED else chosen["tokenizer"]
        longest = self._text_length(folder, rules, longest)
        text = model.text.model_copy(update={"tokenizer": rules})
        others = {key: way for key, way in chosen.items() if way != self.dialects[key][0]}
        model = model.model_copy(update={"image": image, "text": text, "dialect": others})
        names = self.make_name_table(model, chosen, folder.arrays.keys())
        try:
            ours = names.to_ours(folder.arrays)
        except ValueError as error:
            raise ValueError(f"{weights}: {error}, which {settings.path.name} asks for") from None
        _check_words(settings, len(ours[WORD_EMBEDDING]))
        unused = {
            name: next((reason for pattern, reason in self.unused.items() if fnmatchcase(name, pattern)), None)
            for name in names.find_unused(folder.arrays)
        }
        unknown = select_arrays(folder.arrays, [name for name, reason in unused.items() if reason is None])
        loss = LossConfig(kind="sigmoid") if "logit_bias" in ours else LossConfig()
        return FamilyModel(
            format=self,
            config=Config(
                Model=model,
                Loss=loss,
                Views=ViewsConfig(resize=max(model.image.image_size, ViewsConfig().resize)),
                Data=DataConfig(max_length=longest),
            ),
            arrays=LazyArrays({**ours.makers, **unknown.makers}),
            array_names=tuple(folder.arrays),
            num_weights=sum(array.size for array in folder.arrays.values()),
            unused={name: reason for name, reason in unused.items() if reason is not None},
            dialect=chosen,
            licence=licence_of(weights.parent),
        )

    def _text_length(self, folder: Folder, rules: str, longest: int) -> int:
        """Return the tokens at which a text is cut: those of the model, or fewer where its tokenizer says so."""
        path = folder.weights.with_name(TOKENIZER_SETTINGS)
        # The other rules are of code that gives the length itself, whatever the tokenizer says.
        if rules not in ("bert", "clip", "xlm_roberta", "siglip", "siglip2") or not path.is_file():
            return longest
        settings = Settings.from_file(path)
        limit = settings.values.get("model_max_length")
        if limit is None:
            return longest
        if type(limit) not in (int, float) or limit < 3:  # two special tokens and one of the text
            raise settings.make_error("model_max_length", "a number of at least 3 is expected")
        if self.gives_length:
            if limit < min(longest, SHORT_TEXT):
                raise settings.make_error("model_max_length", f"the authors' code reads {SHORT_TEXT} tokens or more")
            return longest
        return int(min(limit, longest))

    def _settings(self, weights: Path) -> Settings:
        if not self.settings:
            return Settings(weights, {})
        path = weights.with_name(self.settings)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; {weights.name} alone does not say which model it is of")
        return Settings.from_file(path)


def _check_words(settings: Settings, rows: int) -> None:
    """Raise ValueError if a description of the text tower has another vocabulary than the weights."""
    for path in (("text_config",), ("model_cfg", "text_cfg")):
        values: Any = settings.values
        for key in path:
            values = values.get(key) if isinstance(values, Mapping) else None
        stated = values.get("vocab_size") if isinstance(values, Mapping) else None
        if stated is not None and stated != rows:
            raise Settings(settings.path, values, ".".join((*path, ""))).make_error(
                "vocab_size", f"its weights say {rows}"
            )


def _check_token_ids(weights: Path, config: Config, tokenizer: TextTokenizer) -> None:
    """Raise ValueError if a text tower looks for other special tokens than those that its tokenizer writes."""
    text = config.Model.text
    variant = text_variant(text)
    if variant is None:
        return
    end = tokenizer.encode("")[-1:]
    if text.pooling == "end" and [variant.end] != end:
        raise ValueError(
            f"{weights.parent}: the text tower takes the state of the token {variant.end} (eos_token_id), but its "
            f"tokenizer ends texts with {end[0] if end else 'none'}"
        )
    if variant.mask == "padding" and variant.padding != tokenizer.pad_id:
        raise ValueError(
            f"{weights.parent}: attention masks the token {variant.padding} (pad_token_id), but its tokenizer "
            f"pads texts with {tokenizer.pad_id}"
        )


def licence_of(folder: Path) -> str | None:
    """Return the licence that a model card, README.md, names at its beginning."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    with card.open("rb") as file:
        head = file.read(4096).decode(errors="replace")
    found = _LICENCE.search(head) if head.startswith("---") else None
    return found[1].strip() if found else None


def _activated(model: ModelConfig, activation: str | None) -> ModelConfig:
    if activation in (None, STORED):
        return model
    towers = {}
    variants = image_variant(model.image), text_variant(model.text)
    for side, tower, variant in zip(("image", "text"), (model.image, model.text), variants, strict=True):
        if variant is None:
            raise ValueError(f"{tower.name}: a tower without a variant has no activation to choose")
        towers[side] = tower.model_copy(update={"variant": variant.model_copy(update={"activation": activation})})
    return model.model_copy(update=towers)


def with_preprocessing(image: ImageTowerConfig, kind: str, folder: Path, described: Settings) -> ImageTowerConfig:
    """An image tower with the preprocessing of its folder: `preprocessor_config.json` of transformers 4,
    `processor_config.json` of transformers 5, or `preprocess_cfg` of OpenCLIP.

    Args:
        image: its size is that of the weights, its mean and deviation those of the family.
        kind: a name of `PREPROCESSING`.
        described: what describes the model, which of OpenCLIP has a section for images.

    Raises:
        ValueError: the settings ask for what is not done here, or for another size than the model's.
    """
    values = dict(PREPROCESSING[kind])
    if kind == "open_clip":
        values |= _of_open_clip(described.open_optional_section("preprocess_cfg"), image)
    elif kind != "cn_clip":
        for name, section in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
            if (folder / name).is_file():
                found = Settings.from_file(folder / name)
                values |= _of_transformers(found.open_optional_section(section) if section else found, image, values)
                break
    return image.model_copy(update=values)


def _of_open_clip(settings: Settings, image: ImageTowerConfig) -> dict[str, Any]:
    settings.check_values(fill_color=0, mode="RGB")
    size = settings.values.get("size", image.image_size)
    if size not in (image.image_size, [image.image_size] * 2):
        raise settings.make_error("size", f"the model takes {image.image_size} pixels")
    return {
        "resize": settings.read_choice("resize_mode", "shortest", {one: one for one in RESIZES}),
        "interpolation": settings.read_choice(
            "interpolation", "bicubic", {one: one for one in ("bicubic", "bilinear")}
        ),
        "mean": settings.read_colour("mean", image.mean),
        "std": settings.read_colour("std", image.std, is_positive=True),
    }


def _of_transformers(settings: Settings, image: ImageTowerConfig, usual: Mapping[str, Any]) -> dict[str, Any]:
    settings.check_values(do_resize=True, do_rescale=True, do_normalize=True)
    if settings.values.get("do_pad"):
        raise settings.make_error("do_pad", "images are not padded here")
    normalisation = settings.read_normalisation(image.mean, image.std)
    resample = settings.values.get("resample")
    if resample is not None and (type(resample) is not int or resample not in _FILTERS):
        raise settings.make_error("resample", f"known are {', '.join(map(str, _FILTERS))}")
    values = normalisation | {"interpolation": usual["interpolation"] if resample is None else _FILTERS[resample]}
    if usual["preprocessing"] == "naflex":
        patch_size = image.sizes["patch_size"]
        if settings.values.get("patch_size", patch_size) != patch_size:
            raise settings.make_error("patch_size", f"the model has patches of {patch_size} pixels")
        most = usual.get("most_patches")
        return values | {"most_patches": most and settings.read_count("max_num_patches", most)}
    return values | _sides(settings, image.image_size, usual["resize"])


def _sides(settings: Settings, side: int, usual: str) -> dict[str, Any]:
    """The resize, and the side before a crop where that is not the model's."""
    size, is_short_side = settings.values.get("size", side), usual == "shortest"
    settings.check_values(default_to_square=not is_short_side)
    if type(settings.values.get("do_center_crop", is_short_side)) not in (bool, type(None)):
        raise settings.make_error("do_center_crop", "true or false is expected")
    if type(size) is int:  # before 2023, as the family has it
        size = {"shortest_edge": size} if usual == "shortest" else {"height": size, "width": size}
    crop = settings.values.get("crop_size", side)
    crop = {"height": crop, "width": crop} if type(crop) is int else crop
    square, cropped = {"height": side, "width": side}, settings.values.get("do_center_crop", usual == "shortest")
    if cropped and crop != square:
        raise settings.make_error("crop_size", f"the model takes {side} pixels")
    if size == square:
        return {"resize": "squash"}
    short = size.get("shortest_edge") if isinstance(size, dict) and len(size) == 1 else None
    if not cropped or type(short) is not int or not side <= short <= 4096:
        raise settings.make_error("size", f"the model takes {side} pixels")
    return {"resize": "shortest", "resized": short if short != side else None}
