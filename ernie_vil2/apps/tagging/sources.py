"""Tags as texts, and where they come from: a file that has them by id, or the words of a lexicon near an image."""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from ernie_vil2.apps.tagging.extract import Tagger
from ernie_vil2.data.samples import BadSampleReport, Sample, format_names
from ernie_vil2.data.tags import Tags, TagsFile
from ernie_vil2.evaluation.classification import compute_class_embeddings
from ernie_vil2.evaluation.ranking import Blocks, top_matches
from ernie_vil2.io.files import read_text, sha256

if TYPE_CHECKING:
    from ernie_vil2.encoder import ErnieViL2


def clean(tag: str) -> str:
    """A tag in Unicode's composed form, with one space where there was white space, and none at its ends."""
    return " ".join(unicodedata.normalize("NFC", tag).split())


def clean_list(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags cleaned, each once, in the order of their first occurrence; empty ones are dropped."""
    return tuple(dict.fromkeys(filter(None, map(clean, tags))))


def clean_tags(tags: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Tags by language, cleaned; languages without any are dropped."""
    cleaned = {language: clean_list(found) for language, found in tags.items()}
    return {language: found for language, found in cleaned.items() if found}


def read_names(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, cleaned; empty lines between others count.

    Raises:
        OSError: the file cannot be read, or it is not an ordinary file.
        ValueError: it is not UTF-8, or too long, or there is no name in it.
    """
    names = [clean(line) for line in read_text(path).rstrip("\n").split("\n")]
    if not any(names):
        raise ValueError(f"{path}: no names in this file")
    return names


class FileTagger(Tagger):
    """Looks tags up by id, as `clean_tags` leaves them.

    Rows of the file that cannot be used, or that repeat an id, are counted and skipped.

    Args:
        path: a `.jsonl`, `.tsv` or `.csv` file, see `TagsFile`.

    Raises:
        ValueError: the file is not such a file, or none of its rows can be used.
    """

    def __init__(self, path: str | Path):
        self._bad_rows = BadSampleReport()
        self._file = TagsFile(path, self._bad_rows)
        if not len(self._file):
            raise ValueError(f"{path}: no row has an id and tags\n{self._bad_rows}")

    def describe(self) -> dict:
        """The file and its checksum."""
        return {"file": self._file.name, "sha256": sha256(Path(self._file.name))}

    def prepare(self, sample: Sample, name: str) -> str:
        """The id; images are not decoded."""
        return name

    def tag(self, prepared: Sequence[str]) -> list[Tags]:
        return [clean_tags(self._file[name]) for name in prepared]

    def remarks(self, ids: np.ndarray) -> list[str]:
        """Rows that could not be used, and rows whose id no sample has."""
        lines = []
        if self._bad_rows.counts:
            lines.append(f"rows of {self._file.name} that were skipped:")
            for reason, count in self._bad_rows.counts.most_common():
                lines.append(f"  {reason}: {format_names(count, self._bad_rows.names[reason])}")
        unused = np.sort(self._file.usable_rows[~np.isin(self._file.ids, ids)])
        if len(unused):
            names = [self._file.id_at(row) for row in unused[: BadSampleReport.MAX_NAMES].tolist()]
            lines.append(f"tags whose id no sample has: {format_names(len(unused), names)}")
        return lines


WORD = "{}"  # where the word goes in a template

WORDS_AT_ONCE = 1024


class LexiconTagger(Tagger):
    """Gives an image its nearest words, the nearest first.

    A word is encoded in each of the templates of its language; its embedding is their normalised mean. The search
    is exact.

    Args:
        model: encodes images and texts.
        words: by language; each counts once.
        templates: by language, texts with `{}` where the word belongs; a language without any has the word alone.
        top: words of a language that an image gets at most.
        threshold: least cosine of image and word, -1 to 1.
        device: where the search is computed, "cpu" or a device of Paddle's.

    Raises:
        ValueError: there are no words, a template has no `{}` or is in a language without words, or `top` is below 1.
    """

    def __init__(
        self,
        model: ErnieViL2,
        words: Mapping[str, Sequence[str]],
        templates: Mapping[str, Sequence[str]] | None = None,
        top: int = 5,
        threshold: float = -1.0,
        device: str = "cpu",
    ):
        templates = templates or {}
        self._model, self._top, self._threshold, self._device = model, top, threshold, device
        self._words = {language: clean_list(of) for language, of in words.items()}
        self._templates = {language: clean_list(templates.get(language, ())) or (WORD,) for language in words}
        if not self._words or not all(self._words.values()):
            raise ValueError("a lexicon needs at least one word in each of its languages")
        if extra := set(templates) - set(words):
            raise ValueError(f"templates in {', '.join(extra)}, but no words")
        for template in (template for of in self._templates.values() for template in of if WORD not in template):
            raise ValueError(f"template {template!r}: put {WORD} where the word belongs")
        if top < 1:
            raise ValueError(f"an image gets at least 1 word, not {top}")
        self._embeddings: dict[str, np.ndarray] = {}

    def describe(self) -> dict:
        """The model's fingerprint, a digest of the words, templates and limits."""
        words = {
            language: hashlib.sha256("\n".join(of).encode("utf-8", "backslashreplace")).hexdigest()
            for language, of in self._words.items()
        }
        templates = {language: list(of) for language, of in self._templates.items()}
        limits = {"top": self._top, "threshold": self._threshold}
        return {"model": self._model.fingerprint, "words": words, "templates": templates, **limits}

    def prepare(self, sample: Sample, name: str) -> np.ndarray:
        """The image as the model takes it; BadSample if it cannot be decoded."""
        return self._model.preprocess(sample.image, sample.image_name)

    def tag(self, prepared: Sequence[np.ndarray]) -> list[Tags]:
        images = self._model.encode_pixels(np.stack(prepared))
        tags: list[dict[str, tuple[str, ...]]] = [{} for _ in prepared]
        for language, words in self._words.items():
            embeddings = self._embedded(language)
            rows, scores = top_matches(images, embeddings, min(self._top, len(words)), Blocks(device=self._device))
            for found, nearest, cosines in zip(tags, rows, scores, strict=True):
                if named := tuple(words[row] for row in nearest[cosines >= self._threshold]):
                    found[language] = named
        return tags

    def _embedded(self, language: str) -> np.ndarray:
        """Embeddings of a language's words, `[words, D]`; made when they are first asked for."""
        if language not in self._embeddings:
            words, templates, blocks = self._words[language], self._templates[language], []
            with tqdm(total=len(words), desc=f"words {language}".strip(), unit="word", delay=2, leave=False,
                      file=sys.stdout) as bar:  # fmt: skip
                for start in range(0, len(words), WORDS_AT_ONCE):
                    some = words[start : start + WORDS_AT_ONCE]
                    texts = [template.replace(WORD, word) for word in some for template in templates]
                    blocks.append(compute_class_embeddings(self._model.encode_texts(texts), len(templates)))
                    bar.update(len(some))
            self._embeddings[language] = np.concatenate(blocks)
        return self._embeddings[language]
