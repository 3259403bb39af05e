"""Two taggers, and the cleaning of tags: one looks tags up in a file, one finds the words nearest to an image."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ernie_vil2.apps.tagging.extract import Tagger
from ernie_vil2.data.samples import BadSampleReport, Sample, format_names
from ernie_vil2.data.tags import Tags, TagsFile
from ernie_vil2.evaluation.classification import compute_class_embeddings
from ernie_vil2.evaluation.ranking import Blocks, top_matches
from ernie_vil2.io.files import read_text, sha256
from ernie_vil2.io.progress import progress_bar

if TYPE_CHECKING:
    from ernie_vil2.encoder import ErnieViL2


def clean_tag(tag: str) -> str:
    """Return a tag in Unicode's composed form, with single spaces between words and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", tag).split())


def clean_list(tags: Iterable[str]) -> tuple[str, ...]:
    """Return cleaned tags in the order of their first occurrence, without repeated and empty ones."""
    cleaned = map(clean_tag, tags)
    return tuple(dict.fromkeys(tag for tag in cleaned if tag))


def clean_tags(tags: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Return cleaned tags by language, without languages that have none."""
    cleaned = {}
    for language, texts in tags.items():
        cleaned_texts = clean_list(texts)
        if cleaned_texts:
            cleaned[language] = cleaned_texts
    return cleaned


def read_names(path: str | Path) -> list[str]:
    """Return the cleaned lines of a UTF-8 text file.

    Empty lines stay, except at the end, because the number of a line may be that of a class.

    Raises:
        OSError: the file cannot be read, or it is not an ordinary file.
        ValueError: the file is not UTF-8, is too long, or holds no name.
    """
    names = [clean_tag(line) for line in read_text(path).rstrip().split("\n")]
    if not any(names):
        raise ValueError(f"{path}: no names in this file")
    return names


def read_name_lists(paths: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names in the file of each language; errors as in `read_names`."""
    return {language: read_names(path) for language, path in paths.items()}


class FileTagger(Tagger):
    """Looks tags up by id in a file, and cleans them.

    Rows of the file that cannot be used, or that repeat an id, are counted and skipped.

    Args:
        path: a `.jsonl`, `.tsv` or `.csv` file, see `TagsFile`.

    Raises:
        ValueError: the file has another form, or none of its rows can be used.
    """

    def __init__(self, path: str | Path):
        # Refuse a file without usable rows now, and not after reading the whole source.
        self._bad_rows = BadSampleReport()
        self._file = TagsFile(path, self._bad_rows)
        if not len(self._file):
            raise ValueError(f"{path}: no row has an id and tags\n{self._bad_rows}")

    def describe(self) -> dict:
        """Return the name and the checksum of the file."""
        return {"file": self._file.name, "sha256": sha256(Path(self._file.name))}

    def prepare(self, sample: Sample, name: str) -> str:
        """Return the id, with which the tags are looked up; the image is not decoded."""
        return name

    def tag(self, prepared: Sequence[str]) -> list[Tags]:
        return [clean_tags(self._file[name]) for name in prepared]

    def make_remarks(self, id_hashes: np.ndarray) -> list[str]:
        """Return lines on the rows that could not be used, and on the ids of the file that no sample has."""
        lines = []
        if self._bad_rows.counts:
            lines.append(f"rows of {self._file.name} that were skipped:")
            for reason, count in self._bad_rows.counts.most_common():
                lines.append(f"  {reason}: {format_names(count, self._bad_rows.names[reason])}")
        is_used = np.isin(self._file.id_hashes, id_hashes)
        unused_rows = np.sort(self._file.usable_rows[~is_used])
        if len(unused_rows):
            names = [self._file.id_at(row) for row in unused_rows[: BadSampleReport.MAX_NAMES].tolist()]
            lines.append(f"tags whose id no sample has: {format_names(len(unused_rows), names)}")
        return lines


PLACEHOLDER = "{}"  # where the word goes in a template
# Words encoded between two steps of the progress bar. Bounds memory: each of them is encoded once for every template.
WORDS_PER_BLOCK = 1024


class LexiconTagger(Tagger):
    """Tags an image with its nearest words, the nearest first.

    A word is put into each template of its language. Its embedding is the normalised mean of the embeddings of these
    texts. The search is exact.

    Args:
        model: encodes images and texts.
        words: words by language; repeated ones count once.
        templates: by language, texts with `{}` in place of the word; without templates the word alone is encoded.
        top: largest number of words that an image gets in each language.
        threshold: smallest cosine of an image and its words, -1 to 1.
        device: device of the search, "cpu" or a Paddle device.

    Raises:
        ValueError: a language has no words, a template has no `{}` or no words in its language, or `top` is below 1.
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
        # Everything is checked before the model encodes anything.
        templates = templates or {}
        self._model, self._top, self._threshold, self._device = model, top, threshold, device
        self._words = {language: clean_list(names) for language, names in words.items()}
        if not self._words or not all(self._words.values()):
            raise ValueError("a lexicon needs at least one word in each of its languages")

        languages_without_words = templates.keys() - words.keys()
        if languages_without_words:
            raise ValueError(f"templates in {', '.join(sorted(languages_without_words))}, but no words")
        self._templates: dict[str, tuple[str, ...]] = {}
        for language in words:
            self._templates[language] = clean_list(templates.get(language, ())) or (PLACEHOLDER,)
            for template in self._templates[language]:
                if PLACEHOLDER not in template:
                    raise ValueError(f"template {template!r}: put {PLACEHOLDER} in place of the word")
        if top < 1:
            raise ValueError(f"an image gets at least 1 word, not {top}")
        self._word_embeddings: dict[str, np.ndarray] = {}  # by language, `[words, D]`

    def describe(self) -> dict:
        """Return the model's fingerprint, a digest of each language's words, the templates and the limits."""
        word_digests = {}
        for language, words in self._words.items():
            # Words of a Python caller may hold half of a surrogate pair, which UTF-8 cannot encode.
            content = "\n".join(words).encode("utf-8", "backslashreplace")
            word_digests[language] = hashlib.sha256(content).hexdigest()
        return {
            "model": self._model.fingerprint,
            "words": word_digests,
            "templates": {language: list(templates) for language, templates in self._templates.items()},
            "top": self._top,
            "threshold": self._threshold,
        }

    def prepare(self, sample: Sample, name: str) -> np.ndarray:
        """Return the pixels for the model; BadSample if the image cannot be decoded."""
        return self._model.preprocess(sample.image, sample.image_name)

    def tag(self, prepared: Sequence[np.ndarray]) -> list[Tags]:
        images = self._model.encode_pixels(np.stack(prepared))
        tags_of_images: list[Tags] = [{} for _ in prepared]
        # Each language is searched separately: otherwise the words of one could displace those of another.
        for language, words in self._words.items():
            embeddings = self._embed_words(language)
            num_words = min(self._top, len(words))
            rows, cosines = top_matches(images, embeddings, num_words, Blocks(device=self._device))  # [images, words]
            for tags, image_rows, image_cosines in zip(tags_of_images, rows, cosines, strict=True):
                near_rows = image_rows[image_cosines >= self._threshold]
                if len(near_rows):
                    tags[language] = tuple(words[row] for row in near_rows)
        return tags_of_images

    def _embed_words(self, language: str) -> np.ndarray:
        """Return the embeddings of a language's words, `[words, D]`; they are computed at the first call."""
        if language not in self._word_embeddings:
            words, templates = self._words[language], self._templates[language]
            blocks = []  # [n, D] each
            title = f"words {language}".strip()  # the language may be unnamed
            with progress_bar(description=title, unit="word", total=len(words), delay=2, leave=False) as bar:
                for start in range(0, len(words), WORDS_PER_BLOCK):
                    block_words = words[start : start + WORDS_PER_BLOCK]
                    texts = []
                    for word in block_words:
                        texts += [template.replace(PLACEHOLDER, word) for template in templates]
                    blocks.append(compute_class_embeddings(self._model.encode_texts(texts), len(templates)))
                    bar.update(len(block_words))
            self._word_embeddings[language] = np.concatenate(blocks)
        return self._word_embeddings[language]
