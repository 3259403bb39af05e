"""Read and write whole models on disk, in any format.

ernie_vil2    formats/run.py: model.safetensors, config.yaml, vocab.txt; the checkpoints of a training are such folders
official      formats/official.py: model.pdparams, vocab.txt (lines `token<TAB>id`), ernie_config.json
paddlenlp     formats/paddlenlp.py: what `from_pretrained` of ErnieViLModel and ErnieViLProcessor reads
others        families/*.py: other families of dual encoders

A new format is one file and one line in `FORMATS`. Every format has a layout: the arrangement of the files in a folder,
as `ernie-vil2 convert --to` names it. The formats of several families share one layout.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle

from ernie_vil2.config import Config
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, LibraryTokenizer, TextTokenizer, open_tokenizer
from ernie_vil2.io import hub
from ernie_vil2.io.export_folder import EXPORT_INFO
from ernie_vil2.io.files import atomic_folder, load_json
from ernie_vil2.io.model_address import is_address
from ernie_vil2.io.run_folder import CONFIG, TOKENIZER, VOCABULARY, resolve_checkpoint
from ernie_vil2.io.terminal import make_printable
from ernie_vil2.models.dual_encoder import DualEncoder, build_dual_encoder, count_min_parameters
from ernie_vil2.models.heads import HEAD_PREFIX
from ernie_vil2.models.weights.files import (
    WeightMismatch,
    WeightReport,
    check_finite,
    detect_format,
    get_folder,
    read_weights,
    set_weights,
)
from ernie_vil2.models.weights.integrity import check_conventions, check_model_files
from ernie_vil2.models.weights.settings import MAX_CHARACTERS
from ernie_vil2.registry import Registry
from ernie_vil2.towers.base import ImageTowerConfig
from ernie_vil2.towers.transformer import get_image_variant, get_text_variant

WORD_EMBEDDING = "text.network.embeddings.word_embeddings.weight"
"""Name of the word embedding, `[rows, width]`; it may have more rows than the vocabulary has tokens."""
ERNIE_ROWS = 40_000  # rows of the word embedding of ERNIE 3.0; its vocabulary, which is packaged, has 39,980 tokens
# A configuration may ask for this many times the parameters that the weights next to it hold. Without a bound, a small
# file from elsewhere could make this process allocate all memory.
MAX_PARAMETER_RATIO = 10
GoldenEmbeddings = Mapping[str, Any] | None  # embeddings of a few inputs, from `compute_golden`
ERNIE_VIL_LAYOUTS = ("paddlenlp", "official", "ernie_vil2")
"""Layouts of ERNIE-ViL 2.0; all their files are written from a model alone."""
ERNIE_VIL_TYPE = "ernie_vil"  # `model_type` in the config.json of PaddleNLP's folders


class ModelFiles:
    """Folder, or file of weights in a folder, that may hold a model; its arrays are read once.

    Attributes:
        path: the folder or the file.
        folder: the folder.
        weights: file of the weights, or index of their shards, once a format has recognised it; `path` before that.
    """

    def __init__(self, path: Path):
        self.path = self.weights = path
        self.folder = get_folder(path)
        self._cache: tuple[Path, dict[str, np.ndarray]] | None = None

    def read(self, weights: Path) -> dict[str, np.ndarray]:
        """Return the arrays of a file; the last file is cached, because a large `.pdparams` takes a second."""
        if self._cache is None or self._cache[0] != weights:
            self._cache = weights, read_weights(weights)
        return self._cache[1]


class Format(Protocol):
    """Format of models on disk.

    Attributes:
        title: name for people.
        layout: name for `ernie-vil2 convert --to`; several families share one.
        settings_file: name of the file that describes a model; empty if the weights do.
        dialects: choices that the weights leave open, such as "tokenizer", with the names of their alternatives; the
            default is first.
    """

    title: str
    layout: str
    settings_file: str
    dialects: Mapping[str, tuple[str, ...]]

    def recognise(self, files: ModelFiles) -> Path | None:
        """Return the file of the weights, or the index of their shards; None if the model is in another format.

        Raises:
            NoWeights: the folder is in this format, but its weights are missing.
            ValueError: a file that is needed to decide is damaged.
        """

    def read(self, files: ModelFiles, options: "ReadOptions") -> "StoredModel":
        """Read a model that `recognise` has accepted."""

    def write(self, model: "StoredModel", folder: Path, origin: Path | None, golden: GoldenEmbeddings) -> list[str]:
        """Write a model and its integrity file into an empty folder.

        Args:
            model: the model to write.
            folder: an empty folder.
            origin: folder or file in this format; settings and tokenizer are copied from it. None: they are written
                from the model alone.
            golden: result of `compute_golden` for the model; it is left out if the format changes the embeddings.

        Returns:
            Notes for the user, a line each.
        """


@dataclass(frozen=True)
class ReadOptions:
    """Options of `read_model` that add to the files of a model or overrule them."""

    vocabulary: str | os.PathLike | None = None  # file to use instead of the one next to the weights
    heads: tuple[int, int] | None = None  # attention heads of the image and of the text tower
    dialect: Mapping[str, str] | None = None  # see `Format.dialects`


@dataclass(frozen=True)
class FamilyModel:
    """Model as read from a folder of another family."""

    format: Any  # a `families.family.Family`
    config: Config  # towers, text length, loss of its training, and views of its image size
    arrays: Mapping[str, np.ndarray]  # by our names, computed at each access; unknown arrays keep their names
    array_names: tuple[str, ...]  # by the authors' names, all arrays of the file
    num_weights: int  # in all arrays of the file
    unused: dict[str, str]  # authors' name of an array -> why it is not part of the model
    dialect: dict[str, str]  # the chosen alternative of each dialect, or its default
    licence: str | None  # as the folder's model card names it

    def __str__(self) -> str:
        """Return a line with all that decides the embeddings."""
        image, text = self.config.Model.image, self.config.Model.text
        image_options, text_options = get_image_variant(image), get_text_variant(text)
        if text_options is None:
            raise ValueError(f"{text.name}: the text tower of another family must be one of its text transformers")
        # Two image towers are no transformers and have no variant, ConvNeXt and ResNet; theirs are always these.
        image_activation, image_pooling = ("gelu", "mean") if image.name == "ConvNeXt" else ("relu", "attention")
        if image_options is not None:
            image_activation, image_pooling = image_options.activation, image_options.pooling
        phrases = [
            self.format.title,
            f"tokenizer {text.tokenizer}",
            f"preprocessing {_describe_preprocessing(image)}",
            f"activation {image_activation} (images), {text_options.activation} (texts)",
            f"pooling {image_pooling} (images), {text.pooling} (texts)",
        ]
        for key, choice in self.dialect.items():
            alternatives = [name for name in self.format.dialects[key] if name != choice]
            phrases.append(f"dialect {key}={choice} (or {', '.join(alternatives)})")
        phrases.append(f"licence {make_printable(self.licence, max_length=60)}" if self.licence else "no licence named")

        names_by_reason: dict[str, list[str]] = {}
        for name, reason in self.unused.items():
            names_by_reason.setdefault(reason, []).append(name)
        for reason, names in names_by_reason.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            phrases.append(f"unused {make_printable(names[0], max_length=100)}{more}: {reason}")
        return "; ".join(phrases)


def _describe_preprocessing(image: ImageTowerConfig) -> str:
    size: str = image.resize
    if image.preprocessing == "naflex":
        size = "128 to 1,024 patches, depending on the image"
        if image.most_patches:
            size = f"at most {image.most_patches} patches"
    return f"{image.preprocessing} ({size}, {image.interpolation})"


@dataclass(frozen=True)
class StoredModel:
    """Model as read from disk.

    Attributes:
        layout: name of the layout; for another family its title.
        arrays: weights by our names, unchanged; arrays without a counterpart in our model keep their names.
        config: architecture, preprocessing and text length; for a run of this package its whole configuration.
        tokens: vocabulary in the order of the ids; None: the model has no vocabulary.
        vocabulary_path: file of the vocabulary.
        family: facts about a model of another family; None: it is an ERNIE-ViL 2.0.
        library_tokenizer: tokenizer of the tokenizers library; None: the tokens are word pieces.
    """

    layout: str
    arrays: Mapping[str, np.ndarray]
    config: Config
    tokens: list[str] | None
    vocabulary_path: Path | None = None
    family: FamilyModel | None = None
    library_tokenizer: LibraryTokenizer | None = None

    @property
    def vocab_size(self) -> int:
        """Number of token ids that the text tower accepts; ValueError if the weights have no word embedding."""
        # A user-defined tower may name its word embedding differently, so its tokens are counted.
        if self.config.Model.text.is_user_defined and self.tokens is not None:
            return len(self.tokens)
        if WORD_EMBEDDING not in self.arrays:
            raise ValueError(f"the weights are not whole: {WORD_EMBEDDING} is missing")
        return len(self.arrays[WORD_EMBEDDING])

    def render_vocabulary(self) -> dict[str, str]:
        """Return the content of the vocabulary's files, by name; raise ValueError if the model has no vocabulary."""
        if self.library_tokenizer is not None:
            return self.library_tokenizer.files()
        if self.tokens is None:
            raise ValueError("the model has no vocabulary next to it: name its vocabulary file")
        return {VOCABULARY: "\n".join(self.tokens) + "\n"}

    def build_tokenizer(self, max_length: int) -> TextTokenizer:
        """Return a tokenizer that cuts texts at `max_length` tokens; the model must have a vocabulary."""
        if self.library_tokenizer is not None:
            return self.library_tokenizer.with_length(max_length)
        return open_tokenizer(self.tokens, max_length, self.config.Model.text.tokenizer)

    def build(self, allow: Sequence[str] = ()) -> tuple[DualEncoder, WeightReport]:
        """Build the dual encoder, without a classification head, and set its weights.

        Args:
            allow: see `set_weights`.

        Raises:
            WeightMismatch: see `set_weights`.
            ValueError: a weight is not finite.
        """
        loss = self.config.Loss
        # The model has a bias if its loss wants one, or if its weights have one. A classifier does not learn by that
        # loss and has none, whatever model it began with.
        is_classifier = any(name.startswith(HEAD_PREFIX) for name in self.arrays)
        wants_bias = loss.kind == "sigmoid" and not is_classifier
        bias = loss.bias if wants_bias or "logit_bias" in self.arrays else None
        # On a CPU the parameters get their memory in set_weights: drawing random numbers that are overwritten at once
        # takes longer than reading the file.
        is_lazy = self.family is not None and paddle.get_device() == "cpu"
        with paddle.LazyGuard() if is_lazy else nullcontext():
            model = build_dual_encoder(self.config.Model, self.vocab_size, bias=bias)
        # Only runs of this package have a classification head. Callers that need it call `set_weights` with all arrays.
        arrays = self.arrays
        if self.family is None:
            arrays = {name: array for name, array in arrays.items() if not name.startswith(HEAD_PREFIX)}
        try:
            report = set_weights(model, arrays, allow)
        except WeightMismatch as error:
            if self.family is None:
                raise
            settings = self.family.format.settings_file or "their own shapes"
            raise WeightMismatch(f"{error}; the weights are not those that {settings} describes") from None
        # Parameters without an array, which `allow` may permit, are initialised after all.
        if is_lazy:
            for name in model.state_dict().keys() - report.matched:
                model.state_dict()[name].initialize()
        check_finite(model)
        return model, report


_FAMILIES = "ernie_vil2.models.weights.families"
_FORMATS = "ernie_vil2.models.weights.formats"
FORMATS: Registry[Format] = Registry(
    "format of models",
    {
        "ernie_vil2": f"{_FORMATS}.run:RUN",
        "clip": f"{_FAMILIES}.clip:CLIP",
        "altclip": f"{_FAMILIES}.bert:ALTCLIP",
        "chinese_clip": f"{_FAMILIES}.bert:CHINESE_CLIP",
        "fgclip2": f"{_FAMILIES}.siglip:FGCLIP_2",
        "metaclip_2": f"{_FAMILIES}.clip:METACLIP_2",
        "siglip": f"{_FAMILIES}.siglip:SIGLIP",
        "siglip2": f"{_FAMILIES}.siglip:SIGLIP_2",
        "vision-text-dual-encoder": f"{_FAMILIES}.vision_text_dual:VISION_TEXT_DUAL",
        "open_clip": f"{_FAMILIES}.open_clip:OPEN_CLIP",
        "paddlenlp": f"{_FORMATS}.paddlenlp:PADDLENLP",
        "official": f"{_FORMATS}.official:OFFICIAL",
        "pe_core": f"{_FAMILIES}.pe_core:PE_CORE",
        "eva_clip": f"{_FAMILIES}.eva_clip:EVA_CLIP",
        "cn_clip": f"{_FAMILIES}.cn_clip:CN_CLIP",
    },
    ("title", "layout", "settings_file", "dialects", "recognise", "read", "write"),
)
"""Formats in the order in which they are tried: a folder for both transformers and OpenCLIP is read as the former.

The last three are known by a `.pt` file alone, which may lie in the folder of any other model, too.

Formats of transformers have the name that `model_type` has in their config.json.
"""


class NoWeights(FileNotFoundError):  # noqa: N818  -- named by what has happened
    """A folder is in a known format, but its weights are missing."""


def find_model(source: str | os.PathLike) -> Path:
    """Return the file or folder of a model, fetching it if necessary.

    Args:
        source: a file or folder; the folder of a run, for its newest checkpoint, `RUN@best` or `RUN@newest`; a name of
            `hub.MODELS`; or OWNER/NAME, see `hub.fetch_from_hub`.

    Raises:
        FileNotFoundError: there is no such model, or it cannot be fetched.
    """
    # What exists on disk goes before a published model of the same name.
    checkpoint = resolve_checkpoint(source)
    if checkpoint is not None:
        return checkpoint
    if os.path.exists(source):  # noqa: PTH110  -- Path raises for some names where this returns False
        return Path(source)
    name = str(source)
    if name in hub.MODELS:
        return hub.fetch_known_model(name)
    if hub.is_hub_name(name):
        return hub.fetch_from_hub(name)
    if is_address(name):
        raise FileNotFoundError(
            f"{source}: the weights are needed here; embed, compare --embeddings, score.model and "
            "Tuning.teacher.embeddings take a model on a server"
        )
    raise FileNotFoundError(f"{source}: no such file or folder, and no known name ({', '.join(hub.MODELS)})")


def find_weights(source: str | os.PathLike) -> Path:
    """Return the weights of a model, or the index of their shards; for an exported model its `export.json`.

    Args:
        source: see `find_model`.

    Raises:
        FileNotFoundError: see `find_model`; or the folder holds no model.
        ValueError: the model in the folder is of an unknown kind.
    """
    path = find_model(source)
    if path.is_file():
        return path
    if (path / EXPORT_INFO).is_file():  # an export, which has graphs instead of weights
        return path / EXPORT_INFO
    return recognise_model(path)[1].weights


def recognise_model(path: Path) -> tuple[Format, ModelFiles]:
    """Return the format of a folder, or of a file of weights, and its files.

    Raises:
        FileNotFoundError: the folder holds no model, or a model without weights.
        ValueError: the model in the folder is of an unknown kind, or a file that is needed to decide is damaged.
    """
    # A folder may fit several formats; the first one in the registry is taken.
    files = ModelFiles(path)
    missing: NoWeights | None = None
    for name in FORMATS:
        candidate = FORMATS.find(name)
        try:
            weights = candidate.recognise(files)
        except NoWeights as error:
            missing = missing or error  # a later format may still find weights
            continue
        if weights is not None:
            files.weights = weights
            return candidate, files
    if missing is not None:
        raise missing

    # Nothing fits: say why.
    kind = read_model_type(files.folder)
    if kind not in (None, ERNIE_VIL_TYPE):
        known_types = ", ".join((*FORMATS, ERNIE_VIL_TYPE))
        raise ValueError(
            f"{files.folder / 'config.json'}: model_type is {make_printable(kind, max_length=60)}; known are "
            f"{known_types}"
        )
    if path.is_file():
        try:
            detect_format(files.read(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        raise FileNotFoundError(f"{path}: there is no {CONFIG} next to it, which says what model the weights are of")
    raise FileNotFoundError(
        f"{path}: no model here; give an official .pdparams file, a PaddleNLP folder with config.json, a run or "
        "checkpoint folder with config.yaml, or the folder of another dual encoder with its config.json"
    )


def read_model_type(folder: Path) -> str | None:
    """Return the `model_type` in the config.json of a folder; None if there is none."""
    if not (folder / "config.json").is_file():
        return None
    settings = load_json(folder / "config.json", MAX_CHARACTERS)
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    return None if kind is None else str(kind)


def find_first_file(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of these files that exists in a folder; None if none does."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    return None


def read_model(
    source: str | os.PathLike,
    vocabulary: str | os.PathLike | None = None,
    heads: tuple[int, int] | None = None,
    dialect: Mapping[str, str] | None = None,
) -> StoredModel:
    """Read a model in any of the formats.

    Args:
        source: see `find_model`.
        vocabulary: see `load_model`.
        heads: see `load_model`; ignored for a model of this package, whose configuration has the number of heads. Those
            of another family must be these.
        dialect: for another family, alternatives to use instead of the defaults, see `Format.dialects`.

    Raises:
        FileNotFoundError: see `find_weights`.
        ValueError: files are damaged, do not belong together, or describe a model of another kind.
    """
    path = find_model(source)
    folder = get_folder(path)
    if (folder / EXPORT_INFO).is_file():
        raise ValueError(
            f"{folder} is an export, which has graphs instead of weights; name the checkpoint that it was made of"
        )
    check_model_files(path)  # first, so that a damaged file gives no misleading error
    model_format, files = recognise_model(path)
    model = model_format.read(files, ReadOptions(vocabulary, heads, dialect))
    _check_parameter_count(files.weights, model)
    if not dialect:  # a dialect departs from the folder's conventions on purpose
        check_conventions(files.weights, model.config)
    return model


def _check_parameter_count(weights: Path, model: StoredModel) -> None:
    """Raise ValueError if a configuration describes a far larger model than the weights next to it."""
    vocab_size = len(model.arrays[WORD_EMBEDDING]) if WORD_EMBEDDING in model.arrays else 0
    if model.family:
        count = model.family.num_weights
    else:
        count = sum(array.size for array in model.arrays.values())
    min_count = count_min_parameters(model.config.Model, vocab_size)
    if min_count > MAX_PARAMETER_RATIO * count:
        raise ValueError(
            f"{weights.parent}: its configuration describes a model of at least {min_count:,} parameters, but "
            f"{weights.name} has {count:,}"
        )


def find_vocabulary(weights: Path, word_embedding: np.ndarray | None) -> Path | None:
    """Return the vocabulary next to a file of weights.

    If there is none, and the word embedding has the size of ERNIE 3.0's, return the packaged vocabulary of ERNIE 3.0.
    """
    vocabulary = find_first_file(weights.parent, (VOCABULARY, TOKENIZER))
    if vocabulary is None and word_embedding is not None and word_embedding.shape[:1] == (ERNIE_ROWS,):
        return ERNIE_VOCABULARY
    return vocabulary


def make_stored_model(
    layout: str,
    arrays: Mapping[str, np.ndarray],
    config: Config,
    weights: Path,
    vocabulary: str | os.PathLike | None,
    default: str | os.PathLike | None = None,
) -> StoredModel:
    """Return an ERNIE-ViL 2.0 together with its vocabulary.

    Args:
        layout: name of its layout.
        arrays: weights by our names.
        config: its configuration.
        weights: file of the weights.
        vocabulary: vocabulary that the user named; None: the one next to the weights.
        default: vocabulary to use if there is none next to the weights.

    Raises:
        ValueError: the vocabulary is damaged, or has more tokens than the word embedding has rows; or the word
            embedding has none.
    """
    word_embedding = arrays.get(WORD_EMBEDDING)
    if word_embedding is not None and not word_embedding.ndim:
        raise ValueError(f"{weights}: {WORD_EMBEDDING} is a single number; a row for each word is expected")
    vocabulary = vocabulary or find_vocabulary(weights, word_embedding) or default
    if not vocabulary:
        return StoredModel(layout, arrays, config, None)
    tokenizer = open_tokenizer(Path(vocabulary), config.Data.max_length, config.Model.text.tokenizer)
    if word_embedding is not None and len(tokenizer.tokens) > len(word_embedding):
        raise ValueError(
            f"{weights}: {len(word_embedding)} rows of words, but {vocabulary} has {len(tokenizer.tokens)} tokens"
        )
    library_tokenizer = tokenizer if isinstance(tokenizer, LibraryTokenizer) else None
    return StoredModel(layout, arrays, config, tokenizer.tokens, Path(vocabulary), library_tokenizer=library_tokenizer)


def check_no_dialect(weights: Path, options: ReadOptions) -> None:
    """Raise ValueError if a dialect is asked of an ERNIE-ViL 2.0, which has none."""
    if options.dialect:
        raise ValueError(f"{weights}: an ERNIE-ViL 2.0 has no dialects ({', '.join(options.dialect)})")


def write_model(
    model: StoredModel,
    folder: str | Path,
    layout: str,
    golden: GoldenEmbeddings = None,
    origin: Path | None = None,
) -> list[str]:
    """Write a model into a new folder, with an integrity file.

    Args:
        model: the model to write.
        folder: folder to make.
        layout: see `Format.layout`.
        golden: result of `compute_golden` for the model.
        origin: for layouts of other families, the folder or file that the model came from, or one with the same
            architecture.

    Returns:
        Notes for the user, a line each.

    Raises:
        FileExistsError: the folder holds files already.
        OSError: the disk is full, or the folder cannot be made.
        ValueError: the format cannot hold this model, or model and origin do not go together.
    """
    folder = Path(folder)
    target, origin = _choose_format(layout, origin)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already; name another folder")
    # The folder appears when it is whole, or not at all.
    with atomic_folder(folder) as temporary_folder:
        return target.write(model, temporary_folder, origin, golden)


def _choose_format(layout: str, origin: Path | None) -> tuple[Format, Path | None]:
    """Return the format to write, and the origin if its files are to be copied."""
    if layout in ERNIE_VIL_LAYOUTS:
        return FORMATS.find(layout), None
    if origin is None:
        raise ValueError(
            f"to write a model in the layout {layout}, settings and tokenizer are copied from a folder of that layout; "
            "name one with --origin"
        )
    source, _ = recognise_model(origin)
    if source.layout == layout:
        return source, origin
    # Chinese-CLIP has two layouts, its authors' and the one of transformers. Both hold the same information, so the
    # files of either are written from the model alone.
    twin_format = getattr(source, "twin_format", None)
    if twin_format and FORMATS.find(twin_format).layout == layout:
        return FORMATS.find(twin_format), None
    if source.layout in ERNIE_VIL_LAYOUTS:
        problem = "not the folder of another family"
    else:
        problem = f"of the layout {source.layout}"
    raise ValueError(
        f"{origin} is {problem}: settings and tokenizer of {layout} are taken from a folder of that layout with a "
        "model of this architecture; name one with --origin"
    )
