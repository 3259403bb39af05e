"""Whole models on disk: an official file, a PaddleNLP folder, a folder of ours, or that of another family.

official      model.pdparams, vocab.txt (`token<TAB>id` lines), ernie_config.json (the text tower's settings)
paddlenlp     model_state.pdparams or model.safetensors, or an index.json of its shards, config.json, vocab.txt (`token`
              lines), and the JSON files of its tokenizer and image processor, as `from_pretrained` of ErnieViLModel
              and ErnieViLProcessor read them
ernie_vil2    model.safetensors, config.yaml, vocab.txt; a training checkpoint is such a folder

What other families of dual encoders keep, `families` describes.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ernie_vil2.config import Config, dump_config, load_config
from ernie_vil2.data.text_tokenizer import TextTokenizer
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, open_tokenizer
from ernie_vil2.data.tokenizer_files import LibraryTokenizer, vocabulary_file
from ernie_vil2.io import hub
from ernie_vil2.io.export_folder import ABOUT, WORD_RULES
from ernie_vil2.io.files import atomic_folder, write_text
from ernie_vil2.io.run_folder import (
    CONFIG,
    MODEL,
    TOKENIZER,
    VOCABULARY,
    named_checkpoint,
)
from ernie_vil2.models.dual_encoder import DualEncoder, build_dual_encoder, fewest_parameters, with_sizes
from ernie_vil2.models.heads import HEAD
from ernie_vil2.models.lora import PARTS, merged
from ernie_vil2.models.weights.families import Family, FamilyModel, check_type, find_family
from ernie_vil2.models.weights.files import (
    INDEX,
    WeightFormat,
    WeightMismatch,
    WeightReport,
    check_finite,
    detect_format,
    read_weights,
    set_weights,
    write_weights,
)
from ernie_vil2.models.weights.integrity import check_conventions, check_model_files, write_model_integrity
from ernie_vil2.models.weights.releases import (
    HEAD_WIDTH,
    OFFICIAL_LENGTH,
    TEXT_EPSILON,
    WORDS,
    from_ours,
    official_files,
    paddlenlp_files,
    read_official,
    read_paddlenlp,
    to_ours,
    write_files,
)
from ernie_vil2.towers.text import text_variant
from ernie_vil2.towers.vit import PublishedVit

OFFICIAL_WEIGHTS = "model.pdparams"
PADDLENLP_WEIGHTS = "model_state.pdparams"
ERNIE_ROWS = 40_000  # rows of the word embedding of ERNIE 3.0; its vocabulary, packaged here, has 39,980 tokens
MOST_BUILT = 10  # parameters that a configuration may ask for, as a multiple of those that the weights next to it hold


@dataclass(frozen=True)
class StoredModel:
    """A model as it was found on disk.

    Attributes:
        arrays: its weights by our names, unchanged; what our model has no counterpart for keeps its name.
        config: its architecture, preprocessing and text length; for a run of ours the run's whole configuration.
    """

    layout: str  # the format it was in, one of `WeightFormat` or the name of a family
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

    def tokenizer(self, max_length: int) -> TextTokenizer:
        """Its tokenizer, for texts of so many tokens; there must be a vocabulary."""
        if self.library is not None:
            return self.library.of_length(max_length)
        return open_tokenizer(self.tokens, max_length, self.config.Model.text.tokenizer)

    def build(self, allow: Sequence[str] = ()) -> tuple[DualEncoder, WeightReport]:
        """The two towers with these weights, all finite, without a head; `allow` and errors as of `set_weights`."""
        loss = self.config.Loss
        bias = loss.bias if loss.kind == "sigmoid" or "logit_bias" in self.arrays else None
        # Nothing is drawn for weights that come from the file, which would take longer than reading it.
        late = self.family is not None and paddle.get_device() == "cpu"
        with paddle.LazyGuard() if late else nullcontext():
            model = build_dual_encoder(self.config.Model, self.vocab_size, bias=bias)
        arrays = self.arrays if self.family else {k: v for k, v in self.arrays.items() if not k.startswith(HEAD)}
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


def find_model(source: str | os.PathLike) -> Path:
    """The file or folder that a source means: itself, of a run's folder its newest checkpoint, or that of `RUN@best` or
    `RUN@newest`; or what is known by a name of `hub.MODELS`, or as OWNER/NAME, see `hub.fetch_from_hub`.
    FileNotFoundError if there is nothing there, or it cannot be fetched.
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
    """The weight file of the model that a source means, or the index of its shards; of an export its `export.json`.

    Raises:
        FileNotFoundError: as `find_model`, or there is no model in the folder.
        ValueError: the folder is of a model that is not known here.
    """
    path = find_model(source)
    if path.is_file():
        return path
    if (path / ABOUT).is_file():
        return path / ABOUT
    if not (path / CONFIG).is_file() and (found := find_family(path)):
        return found[1]
    names = [PADDLENLP_WEIGHTS, f"{PADDLENLP_WEIGHTS}{INDEX}", OFFICIAL_WEIGHTS]
    if (path / "config.json").is_file() or (path / CONFIG).is_file():
        names += [MODEL, f"{MODEL}{INDEX}"]
    for name in names:
        if (path / name).is_file():
            return path / name
    check_type(path)
    raise FileNotFoundError(
        f"{path}: no model here; give an official .pdparams file, a PaddleNLP folder with config.json, a run or "
        "checkpoint folder with config.yaml, or the folder of another dual encoder with its config.json"
    )


def changed_ways(config: Config, layout: WeightFormat) -> list[str]:
    """What a model does otherwise once it is in a release's format, which fixes it; one sentence each."""
    if layout == "ernie_vil2":
        return []
    model, longest = with_sizes(config.Model), config.Data.max_length
    image, text = model.image, model.text
    changes = []
    if text.epsilon != TEXT_EPSILON[layout]:
        changes.append(f"the {layout} code computes the text tower's LayerNorms with epsilon {TEXT_EPSILON[layout]:g}, "
                       f"this model has {text.epsilon:g}: embeddings change slightly")  # fmt: skip
    if image.preprocessing != layout:
        changes.append(f"the {layout} code prepares images in its own way, this model's is {image.preprocessing}: "
                       "pixels change slightly")  # fmt: skip
    if image.preprocessing == "ernie_vil2":
        changes.append(f"the {layout} code drops transparency, under which this model sees {image.background}")
    if text.tokenizer != layout:
        changes.append(f"the {layout} code splits texts by its own rules, this model's are {text.tokenizer}: ids "
                       "change for symbols such as © and for special tokens within a text")  # fmt: skip
    if layout == "paddlenlp":
        changes.append(f"this model cuts texts at {longest} tokens; PaddleNLP's tokenizer does when it is called with "
                       "truncation=True")  # fmt: skip
        return changes
    if longest != min(OFFICIAL_LENGTH, text.max_positions):
        changes.append(f"the official configuration cuts texts at {OFFICIAL_LENGTH} tokens, this model at {longest}")
    if image.image_size % image.sizes["patch_size"]:
        changes.append("the official file knows the size of images by their whole patches, this model's have "
                       f"{image.image_size} pixels a side: pixels change slightly")  # fmt: skip
    if (image.mean, image.std) != (PublishedVit().mean, PublishedVit().std):
        changes.append("the official code normalises images by ImageNet's mean and deviation, this model by "
                       f"{image.mean} and {image.std}: embeddings change")  # fmt: skip
    if image.sizes["heads"] * HEAD_WIDTH != image.sizes["width"]:
        changes.append(f"the official code fixes the image tower's attention heads at its width / {HEAD_WIDTH}, this "
                       f"model has {image.sizes['heads']} for {image.sizes['width']}: embeddings change")  # fmt: skip
    return changes


def vocabulary_of(path: Path, words: np.ndarray | None) -> Path | None:
    """The vocabulary of a weight file: `vocab.txt` or `tokenizer.json` next to it, else for 40,000 rows of words that
    of ERNIE 3.0."""
    for name in (VOCABULARY, TOKENIZER):
        if path.with_name(name).is_file():
            return path.with_name(name)
    return ERNIE_VOCABULARY if words is not None and len(words) == ERNIE_ROWS else None


def read_model(
    source: str | os.PathLike,
    vocabulary: str | os.PathLike | None = None,
    heads: tuple[int, int] | None = None,
    dialect: Mapping[str, str] | None = None,
) -> StoredModel:
    """A model in any of these formats.

    Args:
        source: as `find_model` takes it.
        vocabulary, heads: as for `load_model`; a configuration of ours is not overruled.
        dialect: of another family, the ways that are not the default, see `Family.dialects`.

    Raises:
        FileNotFoundError: as `weights_path`.
        ValueError: its files are damaged, do not belong together, or describe a model of another kind.
    """
    path = weights_path(source)
    if path.with_name(ABOUT).is_file():
        raise ValueError(f"{path.parent} is an export, which has graphs instead of weights; name the checkpoint "
                         "that it was made of")  # fmt: skip
    check_model_files(path)
    others = any(path.with_name(name).is_file() for name in ("config.json", "open_clip_config.json"))
    if others or not path.with_name(CONFIG).is_file():
        if found := find_family(path):
            return _of_family(*found, vocabulary, dialect)
        if path.suffix != ".pdparams":
            check_type(path.parent)
    if dialect:
        raise ValueError(f"{path}: an ERNIE-ViL 2.0 has no dialects ({', '.join(dialect)})")
    arrays = read_weights(path)
    try:
        if any(name.endswith(PARTS) for name in arrays):
            arrays = merged(arrays)
        layout = detect_format(arrays)
        ours = arrays if layout == "ernie_vil2" else to_ours(arrays, layout)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    own = None
    if layout == "ernie_vil2":
        config = load_config(path.parent / CONFIG, is_strangers=True)
        own = config.Model.text.vocabulary or (ERNIE_VOCABULARY if config.Model.text.tokenizer in WORD_RULES else None)
    else:
        config = _RELEASES[layout](path, ours, heads)
    words = ours.get(WORDS)
    count = sum(array.size for array in ours.values())
    _check_built(path, config, 0 if words is None else len(words), count)
    check_conventions(path.parent, config)
    vocabulary = vocabulary or vocabulary_of(path, words) or own
    tokens, library = None, None
    if vocabulary:
        tokenizer = open_tokenizer(Path(vocabulary), config.Data.max_length, config.Model.text.tokenizer)
        tokens, library = tokenizer.tokens, tokenizer if isinstance(tokenizer, LibraryTokenizer) else None
    if tokens and words is not None and len(tokens) > len(words):
        raise ValueError(f"{path}: {len(words)} rows of words, but {vocabulary} has {len(tokens)} tokens")
    return StoredModel(layout, ours, config, tokens, Path(vocabulary) if vocabulary else None, library=library)


def _of_family(
    family: Family, weights: Path, vocabulary: str | os.PathLike | None, dialect: Mapping[str, str] | None
) -> StoredModel:
    model = family.read(weights, dialect)
    if not dialect:  # which departs from the folder's conventions on purpose
        check_conventions(weights.parent, model.config)
    config, words, where = model.config, len(model.arrays[WORDS]), Path(vocabulary or weights.parent)
    _check_built(weights, config, words, model.count)
    rules, tokenizer, found = config.Model.text.tokenizer, None, None
    try:
        found = vocabulary_file(where, rules)
        tokenizer = open_tokenizer(found, config.Data.max_length, rules, weights.parent)
        if found.parent != weights.parent and not vocabulary and words != tokenizer.vocab_size:
            tokenizer = found = None  # CLIP's byte pairs belong to no other model
    except FileNotFoundError:
        if vocabulary:
            raise
    tokens = tokenizer.tokens if tokenizer else None
    if tokens and len(tokens) > words:
        raise ValueError(f"{weights}: {words} rows of words, but {found} has {len(tokens)} tokens")
    if tokenizer:
        _check_token_ids(weights, config, tokenizer)
    library = tokenizer if isinstance(tokenizer, LibraryTokenizer) else None
    return StoredModel(family.title, model.arrays, config, tokens, found, model, library)


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


def _check_built(path: Path, config: Config, words: int, count: int) -> None:
    """ValueError if a configuration asks for many more parameters than the weights next to it hold."""
    least = fewest_parameters(config.Model, words)
    if least > MOST_BUILT * count:
        raise ValueError(
            f"{path.parent}: its configuration describes a model of at least {least:,} parameters, but "
            f"{path.name} has {count:,}"
        )


def write_model(
    model: StoredModel, folder: str | Path, layout: WeightFormat, golden: Mapping[str, Any] | None = None
) -> None:
    """Writes the files of a format into a new folder, with their integrity file and what `compute_golden` gave.

    Raises:
        FileExistsError: the folder holds files already.
        OSError: the disk is full, or the folder cannot be made.
        ValueError: the format cannot hold this model, or the model has no vocabulary.
    """
    folder = Path(folder)
    if model.tokens is None:
        raise ValueError("the model has no vocabulary next to it: name its vocabulary file")
    if layout != "ernie_vil2" and text_variant(model.config.Model.text) is not None:
        raise ValueError(f"the {layout} format holds the towers of ERNIE-ViL 2.0, not those of another dual encoder")
    if layout != "ernie_vil2" and model.config.Model.text.pooling != "cls":
        raise ValueError(f"the {layout} format pools texts by their [CLS] state, this model by their mean")
    arrays = from_ours(model.arrays, layout)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already; name another folder")
    config = model.config.model_copy(update={"Model": with_sizes(model.config.Model)})
    if layout != "ernie_vil2" and model.library is not None:
        raise ValueError(f"the {layout} format holds the words of a vocab.txt, this model has a {TOKENIZER}")
    lines = model.tokens if layout != "official" else [f"{token}\t{i}" for i, token in enumerate(model.tokens)]
    files = model.library.files() if model.library else {VOCABULARY: "\n".join(lines) + "\n"}
    with atomic_folder(folder) as aside:
        for name, text in files.items():
            write_text(aside / name, text)
        if layout == "official":
            write_weights(aside / OFFICIAL_WEIGHTS, arrays)
            write_files(aside, official_files(config, model.vocab_size))
        elif layout == "paddlenlp":
            write_weights(aside / PADDLENLP_WEIGHTS, arrays)
            write_files(aside, paddlenlp_files(config, model.vocab_size))
        else:
            write_weights(aside / MODEL, arrays)
            write_text(aside / CONFIG, dump_config(model.config))
        if layout != "ernie_vil2":
            names = {"official": OFFICIAL_WEIGHTS, "paddlenlp": PADDLENLP_WEIGHTS}
            config = _RELEASES[layout](aside / names[layout], model.arrays, None)
        write_model_integrity(aside, config, sorted(path.name for path in aside.iterdir()), golden)


_RELEASES = {"official": read_official, "paddlenlp": read_paddlenlp}
