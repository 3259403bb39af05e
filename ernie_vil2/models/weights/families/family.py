"""Read and write families of dual encoders that other projects have published.

A family is a `Family` in one of the files of this folder, and a line in `format.FORMATS`. It turns the settings of a
folder into a configuration of our towers, and the names of its arrays into ours. There is no model class for a family.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from ernie_vil2.config import Config, DataConfig, ModelConfig, ViewsConfig
from ernie_vil2.config.load import describe_problems
from ernie_vil2.config.sections import LossConfig
from ernie_vil2.data.tokenizer import LibraryTokenizer, TextTokenizer, open_tokenizer
from ernie_vil2.data.tokenizer_files import find_vocabulary_file
from ernie_vil2.data.tokenizer_settings import TOKENIZER_SETTINGS
from ernie_vil2.io.export_folder import RESIZES
from ernie_vil2.io.terminal import make_printable
from ernie_vil2.models.weights.files import INDEX_SUFFIX, get_folder, read_weights
from ernie_vil2.models.weights.format import (
    FORMATS,
    WORD_EMBEDDING,
    FamilyModel,
    GoldenEmbeddings,
    ModelFiles,
    NoWeights,
    ReadOptions,
    StoredModel,
    find_first_file,
    read_model_type,
)
from ernie_vil2.models.weights.name_table import LazyArrays, NameTable, Row, select_arrays
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.models.weights.torch_files import TORCH_SUFFIXES
from ernie_vil2.models.weights.write_back import write_back, write_new
from ernie_vil2.towers.base import ImageTowerConfig, ImageVariant, TextTowerConfig
from ernie_vil2.towers.transformer import get_image_variant, get_text_variant

# In order of preference, if a folder has several.
_WEIGHT_FILES = (
    "model.safetensors",
    f"model.safetensors{INDEX_SUFFIX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX_SUFFIX}",
)
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".json", *TORCH_SUFFIXES)
MIN_TEXT_LENGTH = 3  # tokens of the longest text: two special ones and one of the text
SHORT_TEXT_LENGTH = 64  # tokens at which FG-CLIP 2's code cuts short texts; its tokenizer must not cut them earlier
MAX_RESIZED = 4096  # pixels of the short side before a crop; more would only waste memory
MAX_PATCHES = 4096  # of an image; published models take up to 1,024, and the memory of attention grows with the square
CARD_BYTES = 4096  # of a model card that are searched for its licence; the metadata are at its beginning

STORED = "stored"  # alternative in a dialect: as the folder says
ACTIVATION = {"activation": (STORED, "gelu", "gelu_tanh", "quick_gelu")}
"""Dialects of families whose weights are used with several activations: the folder's, or one for both towers."""
TEXT_DIALECT = "text"  # key of the dialect that chooses among arrays of a file
PREPROCESSING: Mapping[str, Mapping[str, Any]] = {
    "clip": {"preprocessing": "transformers", "resize": "shortest", "interpolation": "bicubic"},
    "vit": {"preprocessing": "transformers", "resize": "squash", "interpolation": "bilinear"},
    "square": {"preprocessing": "transformers", "resize": "squash", "interpolation": "bicubic"},
    "naflex": {"preprocessing": "naflex", "interpolation": "bilinear", "most_patches": 256},
    "fgclip2": {"preprocessing": "naflex", "interpolation": "bilinear"},
    "open_clip": {"preprocessing": "open_clip", "resize": "shortest", "interpolation": "bicubic"},
    "cn_clip": {"preprocessing": "open_clip", "resize": "squash", "interpolation": "bicubic"},
    "pe_core": {"preprocessing": "open_clip", "resize": "squash", "interpolation": "bilinear"},
    "eva_clip": {"preprocessing": "open_clip", "resize": "shortest", "interpolation": "bicubic"},
}
"""Preprocessing of images, by `Family.preprocessing`, where a folder does not say otherwise."""
_FIXED_PREPROCESSING = ("cn_clip", "pe_core", "eva_clip")  # the authors' code reads no settings of it
_WORD_EMBEDDINGS = ("token_embedding.weight", "word_embeddings.weight")
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # numbers of Pillow's filters
_METADATA = re.compile(r"---\r?\n(.*?)(?:^---|\Z)", re.DOTALL | re.MULTILINE)  # of a model card, in YAML
# One name, or the first of a list.
_LICENCE = re.compile(r"^license:[ \t]*(?:\r?\n[ \t]*-[ \t]+|\[[ \t]*)?['\"]?([\w .+-]{1,60})", re.MULTILINE)
# Rules of tokenizers that cut texts at `model_max_length` of the folder's tokenizer settings. With other rules the
# authors' code ignores it.
_RULES_WITH_LENGTH = ("bert", "clip", "xlm_roberta", "siglip", "siglip2")


Dialect = Mapping[str, str]
"""Chosen alternatives by the keys of `Family.dialects`, such as {"tokenizer": "clip"}."""


class Towers(NamedTuple):
    """Towers that a folder describes.

    Attributes:
        model: configuration of the towers.
        text_length: longest text in tokens.
    """

    model: ModelConfig
    text_length: int


@dataclass(frozen=True)
class Folder:
    """Contents of a family's folder, or of a single file, as `Family.configure` gets them."""

    weights: Path  # file of the arrays, or index of their shards
    settings: Settings  # from the file that describes the model
    arrays: Mapping[str, np.ndarray]  # by the authors' names
    dialect: Dialect


def count_words(folder: Folder) -> int | None:
    """Return the number of rows of a folder's word embedding; None if it has none, which is an error later."""
    for name, array in folder.arrays.items():
        if name.endswith(_WORD_EMBEDDINGS):
            return array.shape[0] if array.ndim else None
    return None


@dataclass(frozen=True)
class Family:
    """Family of dual encoders.

    Attributes:
        title: name for people.
        configure: function that returns the towers that a folder describes; its ValueError names the culprit.
        rows: function that returns the table of names (see `name_table`) for a model, a dialect, and the names of the
            arrays in a file, because some families have several spellings.
        tokenizer: value of `Model.text.tokenizer`, or a function that finds it for a folder.
        preprocessing: a key of `PREPROCESSING`, or a function that finds it for a folder.
        unused: reasons why arrays are not part of the model, by glob patterns of the authors' names.
        dialects: choices that the weights leave open, such as "tokenizer", with the names of their alternatives; the
            default is first.
        settings_file: name of the file that describes the model; empty if the weights do.
        find_weights: function that returns the weights in a folder, or None.
        layout: name for `ernie-vil2 convert --to`.
        has_fixed_length: whether the authors' code cuts texts at a fixed length, whatever `model_max_length` says.
        is_family: function that returns whether a folder, or a file of weights in it, is of this family; None: the
            folder's config.json says so.
        make_settings: function that returns the JSON files that describe a model, by name; ValueError if the layout
            cannot hold it. None: settings are copied from another folder.
        weights_name: name of the weight file next to those settings.
        count_first_rows: for a table with a row of the form `spliced`: function that returns how many rows come from
            the first of the two arrays.
        explain_obstacle: function that returns why the authors' code could not load a model with another vocabulary
            or more positions if it were written back like its origin; None if it could. Its arguments are the towers
            of the origin, those of the model, and whether the vocabulary was trimmed.
        twin_format: name of the format that has the same models in another layout.
    """

    title: str
    configure: Callable[[Folder], Towers]
    rows: Callable[[ModelConfig, Dialect, Collection[str]], Sequence[Row]]
    tokenizer: str | Callable[[Folder], str]
    preprocessing: str | Callable[[Folder], str]
    unused: Mapping[str, str] = field(default_factory=dict)
    dialects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings_file: str = "config.json"
    find_weights: Callable[[Path], Path | None] = lambda folder: find_first_file(folder, _WEIGHT_FILES)
    layout: str = "hf"
    has_fixed_length: bool = False
    is_family: Callable[[Path], bool] | None = None
    make_settings: Callable[[StoredModel], dict[str, Any]] | None = None
    weights_name: str = "model.safetensors"
    count_first_rows: Callable[[Settings], int] | None = None
    explain_obstacle: Callable[[ModelConfig, ModelConfig, bool], str | None] = lambda old, new, is_trimmed: None
    twin_format: str | None = None

    def recognise(self, files: ModelFiles) -> Path | None:
        path = files.path
        if path.is_file() and path.suffix not in _WEIGHT_SUFFIXES:
            return None
        is_family = self.is_family or self._has_model_type
        if not is_family(path):
            return None
        weights = path if path.is_file() else self.find_weights(path)
        if weights is None:
            raise NoWeights(
                f"{path}: the folder of a {self.title}, but its weights are not there, or more than one file could be "
                "them: name the file"
            )
        return weights

    def _has_model_type(self, path: Path) -> bool:
        """Return whether the config.json in a folder, or next to a file of weights, names this family."""
        # Files of these names belong to the layouts of Chinese-CLIP and OpenCLIP.
        if path.is_file() and (path.suffix in TORCH_SUFFIXES or path.name.startswith("open_clip")):
            return False
        kind = read_model_type(get_folder(path))
        return kind is not None and kind in FORMATS and FORMATS.find(kind) is self

    def make_name_table(
        self,
        model: ModelConfig,
        dialect: Dialect,
        array_names: Collection[str] = (),
        num_first_rows: int = 0,
    ) -> NameTable:
        """Return the table of names for a model.

        Args:
            model: its towers.
            dialect: its dialect.
            array_names: names of the arrays in its file; empty for a file that is yet to be written.
            num_first_rows: see `NameTable`; it does not matter for writing.
        """
        # A ResNet has four stages of blocks, a ViT one.
        sizes = model.image.sizes
        blocks = {f"image.layer{stage}.": range(depth) for stage, depth in enumerate(sizes.get("layers", ()), 1)}
        blocks["image.blocks."] = range(sizes.get("depth", 0))
        blocks["text.network.encoder.layers."] = range(model.text.sizes["depth"])
        return NameTable(self.rows(model, dialect, array_names), blocks, num_first_rows)

    def read(self, files: ModelFiles, options: ReadOptions) -> StoredModel:
        weights, vocabulary = files.weights, options.vocabulary
        model = self.read_towers(weights, options.dialect)
        config = model.config
        heads = config.Model.image.sizes.get("heads"), config.Model.text.sizes["heads"]
        if options.heads is not None and tuple(options.heads) != heads:
            raise ValueError(
                f"{weights}: {tuple(options.heads)} attention heads of image and text tower were given, but this "
                f"{self.title} has {heads}"
            )

        # A model without a vocabulary still has weights to start from, so only one that the user names must exist.
        rules = config.Model.text.tokenizer
        tokenizer: TextTokenizer | None = None
        path: Path | None = None
        try:
            path = find_vocabulary_file(Path(vocabulary or weights.parent), rules)
            tokenizer = open_tokenizer(path, config.Data.max_length, rules, weights.parent)
        except FileNotFoundError:
            if vocabulary:
                raise
        # CLIP's byte pairs, which are packaged, fit only a model with as many words.
        is_packaged = path is not None and path.parent != weights.parent and not vocabulary
        num_words = len(model.arrays[WORD_EMBEDDING])
        if tokenizer is None or (is_packaged and num_words != tokenizer.vocab_size):
            return StoredModel(self.title, model.arrays, config, tokens=None, family=model)

        if len(tokenizer.tokens) > num_words:
            raise ValueError(f"{weights}: {num_words} rows of words, but {path} has {len(tokenizer.tokens)} tokens")
        conflict = find_token_conflict(config.Model.text, tokenizer)
        if conflict:
            raise ValueError(f"{weights.parent}: {conflict}")
        return StoredModel(
            self.title,
            model.arrays,
            config,
            tokenizer.tokens,
            vocabulary_path=path,
            family=model,
            library_tokenizer=tokenizer if isinstance(tokenizer, LibraryTokenizer) else None,
        )

    def write(self, model: StoredModel, folder: Path, origin: Path | None, golden: GoldenEmbeddings) -> list[str]:
        if origin is not None:
            weights = self.recognise(ModelFiles(origin)) or origin
            original = self._read_origin(weights, model.config.Model)
            return write_back(model, original, weights, origin, folder, golden)
        if self.make_settings is None:
            raise ValueError(
                f"to write a model in the layout {self.layout}, settings and tokenizer are copied from a folder of "
                "that layout; name one with --origin"
            )
        table, settings = self.make_name_table(model.config.Model, {}), self.make_settings(model)
        return write_new(model, table, self.weights_name, settings, folder, golden)

    def _read_origin(self, weights: Path, model: ModelConfig) -> FamilyModel:
        """Read the origin of a model with the alternative of the text dialect that has the model's number of positions.

        All other dialects keep their defaults, because they do not change the arrays.
        """
        alternatives = self.dialects.get(TEXT_DIALECT)
        if alternatives is None:
            return self.read_towers(weights)
        # Several alternatives may have the number; the model's own one goes first.
        for choice in (model.dialect.get(TEXT_DIALECT, alternatives[0]), *alternatives):
            origin = self.read_towers(weights, {TEXT_DIALECT: choice})
            if origin.config.Model.text.max_positions == model.text.max_positions:
                return origin
        return self.read_towers(weights)

    def read_towers(self, weights: Path, dialect: Dialect | None = None) -> FamilyModel:
        """Read the towers and the arrays of a model.

        Args:
            weights: file that `recognise` returned.
            dialect: choices that differ from the defaults.

        Raises:
            FileNotFoundError: one of its files is missing.
            ValueError: a file is damaged, the files do not belong together, or there is no such dialect.
        """
        settings = self._read_settings(weights)
        dialect = self._complete_dialect(weights, dialect or {})
        folder = Folder(weights, settings, read_weights(weights), dialect)

        # Towers as the folder describes them, then as the dialect wants them.
        try:
            model, text_length = self.configure(folder)
        except ValidationError as error:
            raise ValueError(
                str(describe_problems(error, f"{settings.path} describes a tower that is not built"))
            ) from None
        model = _with_activation(model, dialect.get("activation"))
        kind = self.preprocessing if isinstance(self.preprocessing, str) else self.preprocessing(folder)
        image = with_preprocessing(model.image, kind, weights.parent, settings)
        if dialect.get("preprocessing", STORED) != STORED:
            image = image.model_copy(update={"preprocessing": dialect["preprocessing"]})
        rules = self.tokenizer if isinstance(self.tokenizer, str) else self.tokenizer(folder)
        if dialect.get("tokenizer", STORED) != STORED:
            rules = dialect["tokenizer"]
        text = model.text.model_copy(update={"tokenizer": rules})
        if text_length < MIN_TEXT_LENGTH:
            raise ValueError(f"{settings.path}: texts have {text_length} tokens, fewer than {MIN_TEXT_LENGTH}")
        text_length = self._read_text_length(folder, rules, text_length)
        changed_dialect = {key: choice for key, choice in dialect.items() if choice != self.dialects[key][0]}
        model = model.model_copy(update={"image": image, "text": text, "dialect": changed_dialect})

        # Arrays by our names. Those in no row are unused for a known reason, or unexpected.
        num_first_rows = self.count_first_rows(settings) if self.count_first_rows else 0
        table = self.make_name_table(model, dialect, folder.arrays.keys(), num_first_rows)
        try:
            arrays = table.to_ours(folder.arrays)
        except ValueError as error:
            raise ValueError(f"{weights}: {error}, which {settings.path.name} asks for") from None
        word_shape = arrays[WORD_EMBEDDING].shape
        if len(word_shape) != 2:
            (name,) = table.translate(WORD_EMBEDDING)
            raise ValueError(f"{weights}: {name} has the shape {list(word_shape)}; 2 axes are expected")
        _check_vocab_size(settings, word_shape[0])
        unused, unexpected = {}, []
        for name in table.find_unused(folder.arrays):
            reasons = [reason for pattern, reason in self.unused.items() if fnmatchcase(name, pattern)]
            if reasons:
                unused[name] = reasons[0]
            elif name in arrays:  # it would take the place of an array that the table makes
                raise ValueError(
                    f"{weights}: {make_printable(name, max_length=100)} is a name of this package's own files, not of "
                    f"a {self.title}"
                )
            else:
                unexpected.append(name)

        return FamilyModel(
            format=self,
            config=Config(
                Model=model,
                Loss=LossConfig(kind="sigmoid") if "logit_bias" in arrays else LossConfig(),
                Views=ViewsConfig(resize=max(model.image.image_size, ViewsConfig().resize)),
                Data=DataConfig(max_length=text_length),
            ),
            arrays=LazyArrays({**arrays.makers, **select_arrays(folder.arrays, unexpected).makers}),
            array_names=tuple(folder.arrays),
            num_weights=sum(array.size for array in folder.arrays.values()),
            unused=unused,
            dialect=dialect,
            licence=read_licence(weights.parent),
        )

    def _read_settings(self, weights: Path) -> Settings:
        if not self.settings_file:
            return Settings(weights, {})
        path = weights.with_name(self.settings_file)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; {weights.name} alone does not say which model it is of")
        return Settings.from_file(path)

    def _complete_dialect(self, weights: Path, dialect: Dialect) -> dict[str, str]:
        """Return a dialect with the defaults of its missing choices; ValueError if the family lacks an alternative."""
        for key, choice in dialect.items():
            if choice not in self.dialects.get(key, ()):
                dialects = [f"{name}: {', '.join(alternatives)}" for name, alternatives in self.dialects.items()]
                raise ValueError(
                    f"{weights.parent}: {self.title} has no dialect {key}={choice}; "
                    f"{'; '.join(dialects) or 'there are none'}"
                )
        defaults = {key: alternatives[0] for key, alternatives in self.dialects.items()}
        return {**defaults, **dialect}

    def _read_text_length(self, folder: Folder, rules: str, text_length: int) -> int:
        """Return the number of tokens at which texts are cut: the model's, or fewer if its tokenizer says so."""
        path = folder.weights.with_name(TOKENIZER_SETTINGS)
        if rules not in _RULES_WITH_LENGTH or not path.is_file():
            return text_length
        settings = Settings.from_file(path)
        limit = settings.values.get("model_max_length")
        if limit is None:
            return text_length
        if type(limit) not in (int, float) or not limit >= MIN_TEXT_LENGTH:  # NaN is refused, too
            raise settings.make_error("model_max_length", f"a number of at least {MIN_TEXT_LENGTH} is expected")
        if self.has_fixed_length:
            if limit < min(text_length, SHORT_TEXT_LENGTH):
                raise settings.make_error(
                    "model_max_length", f"the authors' code reads {SHORT_TEXT_LENGTH} tokens or more"
                )
            return text_length
        return int(min(limit, text_length))


def _check_vocab_size(settings: Settings, num_words: int) -> None:
    """Raise ValueError if the settings of the text tower state another vocabulary size than the weights have."""
    # As in transformers, the older text_config_dict goes before text_config, which may then hold defaults.
    transformers_key = "text_config_dict" if settings.values.get("text_config_dict") else "text_config"
    for path in ((transformers_key,), ("model_cfg", "text_cfg")):
        section: Any = settings.values
        for key in path:
            section = section.get(key) if isinstance(section, Mapping) else None
        if not isinstance(section, Mapping):
            continue
        vocab_size = section.get("vocab_size")
        if vocab_size is not None and vocab_size != num_words:
            prefix = ".".join((*path, ""))
            raise Settings(settings.path, section, prefix).make_error("vocab_size", f"its weights say {num_words}")


def find_token_conflict(text: TextTowerConfig, tokenizer: TextTokenizer) -> str | None:
    """Return a clause on a special token in which a text tower and a tokenizer differ; None if they agree."""
    variant = get_text_variant(text)
    if variant is None:
        return None
    special_ids = tokenizer.encode("")  # of an empty text, which has no other tokens
    end = special_ids[-1] if special_ids else "none"
    if text.pooling == "end" and variant.end != end:
        return (
            f"the text tower takes the state of the token {variant.end} (end; eos_token_id), but its tokenizer ends "
            f"texts with {end}"
        )
    if variant.mask == "padding" and variant.padding != tokenizer.pad_id:
        return (
            f"attention masks the token {variant.padding} (padding; pad_token_id), but its tokenizer pads "
            f"texts with {tokenizer.pad_id}"
        )
    return None


def read_licence(folder: Path) -> str | None:
    """Return the licence in the metadata of a folder's model card, README.md; None if it names none."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    with card.open("rb") as file:
        beginning = file.read(CARD_BYTES).decode("utf-8-sig", errors="replace")
    metadata = _METADATA.match(beginning)
    match = _LICENCE.search(metadata[1]) if metadata else None
    return match[1].strip() if match else None


def _with_activation(model: ModelConfig, activation: str | None) -> ModelConfig:
    """Return the model with an activation in the MLPs of both towers; None and `STORED` keep theirs."""
    if activation in (None, STORED):
        return model
    towers = {}
    for kind, tower, variant in (
        ("image", model.image, get_image_variant(model.image)),
        ("text", model.text, get_text_variant(model.text)),
    ):
        if variant is None:
            raise ValueError(f"{tower.name}: a tower without a variant has no activation to choose")
        if isinstance(variant, ImageVariant) and variant.mlp == "swiglu":
            continue  # SiLU is part of SwiGLU: no library computes it otherwise
        if variant.activation == "relu":
            continue  # part of NLLB, too
        towers[kind] = tower.model_copy(update={"variant": variant.model_copy(update={"activation": activation})})
    return model.model_copy(update=towers)


def with_preprocessing(image: ImageTowerConfig, kind: str, folder: Path, description: Settings) -> ImageTowerConfig:
    """Return an image tower with the preprocessing that its folder describes.

    It is read from `preprocessor_config.json` of transformers 4, `processor_config.json` of transformers 5, or the
    section `preprocess_cfg` of OpenCLIP.

    Args:
        image: tower with the image size of the weights and the mean and standard deviation of the family.
        kind: a key of `PREPROCESSING`.
        folder: the folder.
        description: settings of the model; those of OpenCLIP have a section for images.

    Raises:
        ValueError: the settings ask for something that is not implemented, or for another size than the model's.
    """
    values = dict(PREPROCESSING[kind])
    if kind == "open_clip":
        values |= _read_open_clip(description.open_optional_section("preprocess_cfg"), image)
    elif kind not in _FIXED_PREPROCESSING:
        old_path, new_path = folder / "preprocessor_config.json", folder / "processor_config.json"
        if old_path.is_file():
            values |= _read_transformers(Settings.from_file(old_path), image, values)
        elif new_path.is_file():
            processor = Settings.from_file(new_path).open_optional_section("image_processor")
            values |= _read_transformers(processor, image, values)
    return image.model_copy(update=values)


def _read_open_clip(settings: Settings, image: ImageTowerConfig) -> dict[str, Any]:
    settings.check_values(fill_color=0, mode="RGB")
    size = settings.values.get("size", image.image_size)
    if size not in (image.image_size, [image.image_size] * 2):
        raise settings.make_error("size", f"the model takes {image.image_size} pixels")
    filters = {"bicubic": "bicubic", "bilinear": "bilinear"}
    return {
        "resize": settings.read_choice("resize_mode", "shortest", {mode: mode for mode in RESIZES}),
        "interpolation": settings.read_choice("interpolation", "bicubic", filters),
        "mean": settings.read_colour("mean", image.mean),
        "std": settings.read_colour("std", image.std, is_positive=True),
    }


def _read_transformers(settings: Settings, image: ImageTowerConfig, defaults: Mapping[str, Any]) -> dict[str, Any]:
    settings.check_values(do_resize=True, do_rescale=True, do_normalize=True)
    if settings.values.get("do_pad"):
        raise settings.make_error("do_pad", "images are not padded here")
    values: dict[str, Any] = settings.read_normalisation(image.mean, image.std)

    values["interpolation"] = defaults["interpolation"]
    resample = settings.values.get("resample")
    if resample is not None:
        if type(resample) is not int or resample not in _FILTERS:
            raise settings.make_error("resample", f"known are {', '.join(map(str, _FILTERS))}")
        values["interpolation"] = _FILTERS[resample]

    if defaults["preprocessing"] != "naflex":
        return values | _read_resize(settings, image.image_size, defaults["resize"])
    patch_size = image.sizes["patch_size"]
    if settings.values.get("patch_size", patch_size) != patch_size:
        raise settings.make_error("patch_size", f"the model has patches of {patch_size} pixels")
    max_patches: int | None = None
    if "most_patches" in defaults:  # otherwise the size of an image decides, as in FG-CLIP 2
        max_patches = settings.read_int("max_num_patches", int(defaults["most_patches"]))
        if max_patches > MAX_PATCHES:
            raise settings.make_error("max_num_patches", f"at most {MAX_PATCHES:,} are supported")
    return values | {"most_patches": max_patches}


def _read_resize(settings: Settings, side: int, default: str) -> dict[str, Any]:
    """Read how images are brought to the size of a tower.

    Args:
        settings: settings of an image processor.
        side: side of the tower's images in pixels.
        default: "shortest" (resize the short side, then crop) or "squash"; used if the settings do not say which.

    Returns:
        `resize` of the tower; for "shortest" also `resized`, the short side before the crop, None if it is `side`.
    """
    is_short_side = default == "shortest"
    settings.check_values(default_to_square=not is_short_side)
    has_crop = settings.values.get("do_center_crop", is_short_side)
    if type(has_crop) not in (bool, type(None)):
        raise settings.make_error("do_center_crop", "true or false is expected")

    # Before 2023 a size was a single number; its meaning depends on the family.
    square = {"height": side, "width": side}
    size = settings.values.get("size", side)
    if type(size) is int:
        size = {"shortest_edge": size} if is_short_side else {"height": size, "width": size}
    crop = settings.values.get("crop_size", side)
    if type(crop) is int:
        crop = {"height": crop, "width": crop}

    if has_crop and crop != square:
        raise settings.make_error("crop_size", f"the model takes {side} pixels")
    if size == square:
        return {"resize": "squash"}
    short_side = size.get("shortest_edge") if isinstance(size, dict) and len(size) == 1 else None
    if not has_crop or type(short_side) is not int or not side <= short_side <= MAX_RESIZED:
        raise settings.make_error("size", f"the model takes {side} pixels")
    return {"resize": "shortest", "resized": short_side if short_side != side else None}
