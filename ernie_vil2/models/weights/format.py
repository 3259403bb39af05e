"""Whole models on disk: formats are recognised, read and written.

ernie_vil2    formats/run.py: model.safetensors, config.yaml, vocab.txt; a training checkpoint is such a folder
official      formats/official.py: model.pdparams, vocab.txt (`token<TAB>id` lines), ernie_config.json
paddlenlp     formats/paddlenlp.py: as `from_pretrained` of ErnieViLModel and ErnieViLProcessor read it
others        families/*.py: other families of dual encoders

A format is one file and one line in `FORMATS`.
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
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, TextTokenizer
from ernie_vil2.data.tokenizer_files import LibraryTokenizer, open_tokenizer
from ernie_vil2.io import hub
from ernie_vil2.io.export_folder import ABOUT
from ernie_vil2.io.files import atomic_folder, load_json
from ernie_vil2.io.run_folder import CONFIG, TOKENIZER, VOCABULARY, named_checkpoint
from ernie_vil2.io.terminal import printable
from ernie_vil2.models.dual_encoder import DualEncoder, build_dual_encoder, count_min_parameters
from ernie_vil2.models.heads import HEAD_PREFIX
from ernie_vil2.models.weights.files import (
    WeightMismatch,
    WeightReport,
    check_finite,
    detect_format,
    read_weights,
    set_weights,
)
from ernie_vil2.models.weights.integrity import check_conventions, check_model_files
from ernie_vil2.models.weights.settings import MAX_CHARACTERS
from ernie_vil2.registry import Registry
from ernie_vil2.towers.base import ImageTowerConfig
from ernie_vil2.towers.transformer import image_variant, text_variant

WORDS = "text.network.embeddings.word_embeddings.weight"
"""Name of the word embedding, `[rows, width]`; it may have more rows than the vocabulary has tokens."""
ERNIE_ROWS = 40_000  # rows of the word embedding of ERNIE 3.0; its vocabulary, packaged here, has 39,980 tokens
MOST_BUILT = 10  # parameters that a configuration may ask for, as a multiple of those that the weights next to it hold
Golden = Mapping[str, Any] | None  # what `compute_golden` gave for a model
OWN_LAYOUTS = ("paddlenlp", "official", "ernie_vil2")  # of ERNIE-ViL 2.0, written from the model alone
OWN_TYPE = "ernie_vil"  # `model_type` in the config.json of PaddleNLP's folders


class ModelFiles:
    """A folder, or a file of weights in one, that may hold a model; its arrays are read once.

    Attributes:
        path: the folder or the file.
        weights: the weights, or the index of their shards, once a format has recognised them; before that `path`.
    """

    def __init__(self, path: Path):
        self.path = self.weights = path
        self.folder = path if path.is_dir() else path.parent
        self._arrays: tuple[Path, dict[str, np.ndarray]] | None = None

    def read(self, weights: Path) -> dict[str, np.ndarray]:
        """Return the arrays of a file, which takes a second for a large `.pdparams`."""
        if self._arrays is None or self._arrays[0] != weights:
            self._arrays = weights, read_weights(weights)
        return self._arrays[1]


class Format(Protocol):
    """A format of models on disk.

    Attributes:
        title: for people.
        layout: as `ernie-vil2 convert --to` names it; several families share one.
        settings: file that describes a model; empty if the weights do.
        dialects: what is done in more than one way with the same weights: names of the ways, the default first.
    """

    title: str
    layout: str
    settings: str
    dialects: Mapping[str, tuple[str, ...]]

    def recognise(self, files: ModelFiles) -> Path | None:
        """Return the weights of a model in this format, or the index of their shards; None for another format.

        Raises:
            NoWeights: the folder is in this format, but its weights are missing.
            ValueError: a file that is needed to decide is damaged.
        """

    def read(self, files: ModelFiles, options: "ReadOptions") -> "StoredModel":
        """Read a model that has been recognised."""

    def write(self, model: "StoredModel", folder: Path, origin: Path | None, golden: Golden) -> list[str]:
        """Write a model and its integrity file into an empty folder.

        Args:
            origin: folder or file in this format from which the settings and the tokenizer are taken, where the model
                does not say all; None: they are written from the model.
            golden: what `compute_golden` gave for the model; left out where the format changes what it computes.

        Returns:
            What a person should know of the result, a line each.
        """


@dataclass(frozen=True)
class ReadOptions:
    """Options of `read_model`: what a caller says of a model besides its files."""

    vocabulary: str | os.PathLike | None = None
    heads: tuple[int, int] | None = None
    dialect: Mapping[str, str] | None = None


@dataclass(frozen=True)
class FamilyModel:
    """A model as it was found in a folder of another family."""

    family: Any  # the format, `families.family.Family`
    config: Config  # its towers and text length, the loss that it was trained by, and the views of its size
    arrays: Mapping[str, np.ndarray]  # by our names, each made when asked for; unknown ones keep their names
    names: tuple[str, ...]  # those of the file
    count: int  # of the file's numbers
    unused: dict[str, str]  # why arrays of the file are not part of the model, by the authors' names
    dialect: dict[str, str]  # the ways that were chosen, or are the default
    licence: str | None  # what the folder's model card says

    def __str__(self) -> str:
        """Return on one line what decides the embeddings."""
        image, text = self.config.Model.image, self.config.Model.text
        of_images, of_texts = image_variant(image), text_variant(text)
        if of_texts is None:
            raise ValueError(f"{text.name}: the text tower of a family has a variant")
        parts = [
            self.family.title,
            f"tokenizer {text.tokenizer}",
            f"preprocessing {_describe_preprocessing(image)}",
            f"activation {of_images.activation if of_images else 'relu'} (images), {of_texts.activation} (texts)",
            f"pooling {of_images.pooling if of_images else 'attention'} (images), {text.pooling} (texts)",
        ]
        for key, way in self.dialect.items():
            alternatives = [name for name in self.family.dialects[key] if name != way]
            parts.append(f"dialect {key}={way} (or {', '.join(alternatives)})")
        parts.append(f"licence {printable(self.licence, longest=60)}" if self.licence else "no licence named")
        for reason in dict.fromkeys(self.unused.values()):
            names = [name for name, why in self.unused.items() if why == reason]
            shown = printable(names[0], longest=100) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            parts.append(f"unused {shown}: {reason}")
        return "; ".join(parts)


def _describe_preprocessing(image: ImageTowerConfig) -> str:
    if image.preprocessing == "naflex":
        way = f"at most {image.most_patches} patches" if image.most_patches else "128 to 1,024 patches by the image"
    else:
        way = image.resize
    return f"{image.preprocessing} ({way}, {image.interpolation})"


@dataclass(frozen=True)
class StoredModel:
    """A model as it was found on disk.

    Attributes:
        arrays: its weights by our names, unchanged; what our model has no counterpart for keeps its name.
        config: its architecture, preprocessing and text length; for a run of ours the run's whole configuration.
    """

    layout: str  # the layout it was in, of another family its title
    arrays: Mapping[str, np.ndarray]
    config: Config
    tokens: list[str] | None  # its vocabulary in the order of the ids; None: none was found
    vocabulary: Path | None = None  # the file that they are from
    family: FamilyModel | None = None  # what a family's folder says besides; None: it is an ERNIE-ViL 2.0
    library: LibraryTokenizer | None = None  # its tokenizer where that is not of word pieces

    @property
    def vocab_size(self) -> int:
        """Rows of the word embedding, to build the model with: at least the number of tokens.

        ValueError: the weights have none.
        """
        if self.config.Model.text.is_own and self.tokens is not None:
            return len(self.tokens)  # a tower of the user's own names its weights as it likes
        if WORDS not in self.arrays:
            raise ValueError(f"the weights are not whole: {WORDS} is missing")
        return len(self.arrays[WORDS])

    def vocabulary_files(self) -> dict[str, str]:
        """Return the files of its vocabulary, by name.

        Raises:
            ValueError: it has no vocabulary.
        """
        if self.library is not None:
            return self.library.files()
        if self.tokens is None:
            raise ValueError("the model has no vocabulary next to it: name its vocabulary file")
        return {VOCABULARY: "\n".join(self.tokens) + "\n"}

    def tokenizer(self, max_length: int) -> TextTokenizer:
        """Return its tokenizer for texts of so many tokens; there must be a vocabulary."""
        if self.library is not None:
            return self.library.of_length(max_length)
        return open_tokenizer(self.tokens, max_length, self.config.Model.text.tokenizer)

    def build(self, allow: Sequence[str] = ()) -> tuple[DualEncoder, WeightReport]:
        """Build the towers with these weights, all finite, without a head; `allow` and errors as of `set_weights`."""
        loss = self.config.Loss
        bias = loss.bias if loss.kind == "sigmoid" or "logit_bias" in self.arrays else None
        # Nothing is drawn for weights that come from the file, which would take longer than reading it.
        late = self.family is not None and paddle.get_device() == "cpu"
        with paddle.LazyGuard() if late else nullcontext():
            model = build_dual_encoder(self.config.Model, self.vocab_size, bias=bias)
        arrays = self.arrays if self.family else {k: v for k, v in self.arrays.items() if not k.startswith(HEAD_PREFIX)}
        try:
            report = set_weights(model, arrays, allow)
        except WeightMismatch as error:
            if self.family is None:
                raise
            settings = self.family.family.settings or "their own shapes"
            raise WeightMismatch(f"{error}; the weights are not those that {settings} describes") from None
        for name in model.state_dict().keys() - report.matched if late else ():
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
        "open_clip": f"{_FAMILIES}.open_clip:OPEN_CLIP",
        "cn_clip": f"{_FAMILIES}.cn_clip:CN_CLIP",
        "paddlenlp": f"{_FORMATS}.paddlenlp:PADDLENLP",
        "official": f"{_FORMATS}.official:OFFICIAL",
    },
    ("title", "layout", "settings", "dialects", "recognise", "read", "write"),
)
"""Formats in the order in which they are asked: a folder for transformers and for OpenCLIP is read as the former.

Those of transformers are named by the `model_type` of their config.json.
"""


class NoWeights(FileNotFoundError):  # noqa: N818  -- named by what has happened
    """A folder is in a format, but its weights are missing."""


def find_model(source: str | os.PathLike) -> Path:
    """Return the file or folder that a source means.

    Args:
        source: a file or folder; a run's folder, which means its newest checkpoint, `RUN@best` or `RUN@newest`; a name
            of `hub.MODELS`; or OWNER/NAME, see `hub.fetch_from_hub`.

    Raises:
        FileNotFoundError: there is nothing there, or it cannot be fetched.
    """
    checkpoint = named_checkpoint(source)
    if checkpoint is not None or os.path.exists(source):  # noqa: PTH110  -- Path raises where this says no
        return checkpoint or Path(source)
    if str(source) in hub.MODELS:
        return hub.fetch(str(source))
    if hub.is_hub_name(str(source)):
        return hub.fetch_from_hub(str(source))
    raise FileNotFoundError(f"{source}: no such file or folder, and no known name ({', '.join(hub.MODELS)})")


def weights_path(source: str | os.PathLike) -> Path:
    """Return the weights of the model that a source means, or the index of their shards; of an export `export.json`.

    Raises:
        FileNotFoundError: as `find_model`, or there is no model in the folder.
        ValueError: the folder is of a model that is not known here.
    """
    path = find_model(source)
    if path.is_file():
        return path
    if (path / ABOUT).is_file():
        return path / ABOUT
    return recognise(path)[1].weights


def recognise(path: Path) -> tuple[Format, ModelFiles]:
    """Return the format of a folder, or of a file of weights, and its files.

    Raises:
        FileNotFoundError: the folder holds no model, or a model without weights.
        ValueError: the folder is of a model that is not known here, or a file that is needed to decide is damaged.
    """
    files = ModelFiles(path)
    missing: NoWeights | None = None
    for name in FORMATS:
        candidate = FORMATS.find(name)
        try:
            weights = candidate.recognise(files)
        except NoWeights as error:
            missing = missing or error
            continue
        if weights is not None:
            files.weights = weights
            return candidate, files
    if missing is not None:
        raise missing

    kind = model_type(files.folder)
    if kind not in (None, OWN_TYPE):
        names = ", ".join((*FORMATS, OWN_TYPE))
        raise ValueError(
            f"{files.folder / 'config.json'}: model_type is {printable(kind, longest=60)}; known are {names}"
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


def model_type(folder: Path) -> str | None:
    """Return the type of model that the config.json of a folder names; None if there is none, or it names none."""
    if not (folder / "config.json").is_file():
        return None
    settings = load_json(folder / "config.json", MAX_CHARACTERS)
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    return None if kind is None else str(kind)


def first_file(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of these files that a folder has; None if it has none of them."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_model(
    source: str | os.PathLike,
    vocabulary: str | os.PathLike | None = None,
    heads: tuple[int, int] | None = None,
    dialect: Mapping[str, str] | None = None,
) -> StoredModel:
    """Read a model in any of these formats.

    Args:
        source: as `find_model` takes it.
        vocabulary, heads: as for `load_model`; a configuration of ours is not overruled.
        dialect: of another family, the ways that are not the default, see `Format.dialects`.

    Raises:
        FileNotFoundError: as `weights_path`.
        ValueError: its files are damaged, do not belong together, or describe a model of another kind.
    """
    path = find_model(source)
    folder = path if path.is_dir() else path.parent
    if (folder / ABOUT).is_file():
        raise ValueError(f"{folder} is an export, which has graphs instead of weights; name the checkpoint "
                         "that it was made of")  # fmt: skip
    check_model_files(path)  # before anything of a damaged file is read
    layout, files = recognise(path)
    model = layout.read(files, ReadOptions(vocabulary, heads, dialect))
    _check_built(files.weights, model)
    if not dialect:  # which departs from the folder's conventions on purpose
        check_conventions(files.weights, model.config)
    return model


def _check_built(weights: Path, model: StoredModel) -> None:
    """Raise ValueError if a configuration asks for many more parameters than the weights next to it hold."""
    words = len(model.arrays[WORDS]) if WORDS in model.arrays else 0
    count = model.family.count if model.family else sum(array.size for array in model.arrays.values())
    least = count_min_parameters(model.config.Model, words)
    if least > MOST_BUILT * count:
        raise ValueError(
            f"{weights.parent}: its configuration describes a model of at least {least:,} parameters, but "
            f"{weights.name} has {count:,}"
        )


def vocabulary_of(path: Path, words: np.ndarray | None) -> Path | None:
    """Return the vocabulary next to a file of weights; else that of ERNIE 3.0, if it has 40,000 rows of words."""
    vocabulary = first_file(path.parent, (VOCABULARY, TOKENIZER))
    if vocabulary is None and words is not None and len(words) == ERNIE_ROWS:
        return ERNIE_VOCABULARY
    return vocabulary


def with_vocabulary(
    layout: str,
    arrays: Mapping[str, np.ndarray],
    config: Config,
    weights: Path,
    vocabulary: str | os.PathLike | None,
    default: str | os.PathLike | None = None,
) -> StoredModel:
    """Return an ERNIE-ViL 2.0 with its vocabulary: the one that is named, the one next to the weights, or the default.

    Raises:
        ValueError: the vocabulary is damaged, or has more tokens than the weights have rows.
    """
    words = arrays.get(WORDS)
    vocabulary = vocabulary or vocabulary_of(weights, words) or default
    if not vocabulary:
        return StoredModel(layout, arrays, config, None)
    tokenizer = open_tokenizer(Path(vocabulary), config.Data.max_length, config.Model.text.tokenizer)
    tokens = tokenizer.tokens
    if words is not None and len(tokens) > len(words):
        raise ValueError(f"{weights}: {len(words)} rows of words, but {vocabulary} has {len(tokens)} tokens")
    library = tokenizer if isinstance(tokenizer, LibraryTokenizer) else None
    return StoredModel(layout, arrays, config, tokens, Path(vocabulary), library=library)


def refuse_dialect(weights: Path, options: ReadOptions) -> None:
    """Raise ValueError for a dialect of an ERNIE-ViL 2.0, which has none."""
    if options.dialect:
        raise ValueError(f"{weights}: an ERNIE-ViL 2.0 has no dialects ({', '.join(options.dialect)})")


def write_model(
    model: StoredModel,
    folder: str | Path,
    layout: str,
    golden: Golden = None,
    origin: Path | None = None,
) -> list[str]:
    """Write a model into a new folder of a layout, with its integrity file.

    Args:
        golden: what `compute_golden` gave for the model.
        origin: for layouts of other families, the folder or file that the model came from, or one alike.

    Returns:
        What a person should know of the result, a line each.

    Raises:
        FileExistsError: the folder holds files already.
        OSError: the disk is full, or the folder cannot be made.
        ValueError: the format cannot hold this model, or model and origin do not go together.
    """
    folder = Path(folder)
    target, origin = _format_to_write(layout, origin)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already; name another folder")
    with atomic_folder(folder) as aside:
        return target.write(model, aside, origin, golden)


def _format_to_write(layout: str, origin: Path | None) -> tuple[Format, Path | None]:
    """Return the format in which a model is written, and the origin if its files are taken from there."""
    if layout in OWN_LAYOUTS:
        return FORMATS.find(layout), None
    if origin is None:
        raise ValueError(f"a model of {layout} is written into a copy of a folder of that layout; name one")
    source, _ = recognise(origin)
    if source.layout == layout:
        return source, origin
    # Chinese-CLIP has a layout of its authors and one of transformers, each of which says all that the other does.
    sister = getattr(source, "sister", None)
    if sister and FORMATS.find(sister).layout == layout:
        return FORMATS.find(sister), None
    what = "not the folder of another family" if source.layout in OWN_LAYOUTS else f"of the layout {source.layout}"
    raise ValueError(
        f"{origin} is {what}: settings and tokenizer of {layout} are taken from a folder of that "
        "layout with a model of this architecture; name one with --origin"
    )
