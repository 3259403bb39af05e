"""The words of a lexicon that lie nearest to an image, by a model's image-to-text search."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Protocol

import numpy as np
from tqdm import tqdm

from ernie_vil2.data.samples import Sample
from ernie_vil2.data.tags import Tags
from ernie_vil2.evaluation.ranking import top_matches
from ernie_vil2.tagging.text import clean_list

WORD = "{}"
"""Where the word stands in a template."""

WORDS_AT_ONCE = 1024


class LexiconModel(Protocol):
    """What tagging needs of a model; `ErnieViL2` has it."""

    fingerprint: str

    def preprocess(self, image: bytes, name: str) -> np.ndarray:
        """An encoded image as `[S, S, 3]` uint8; BadSample if it is none. Called from several threads."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, S, S, 3]` uint8 to `[N, D]` float32, L2-normalised."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts to `[N, D]` float32, L2-normalised."""


class LexiconTagger:
    """A `Tagger` that gives an image its nearest words, the nearest first.

    A word is encoded in each of the templates of its language; its embedding is their normalised mean. The search
    is exact.

    Args:
        model: encodes images and texts.
        words: by language; each counts once.
        templates: by language, texts with `{}` in the place of the word; a language without any has the word alone.
        top: words of a language that an image gets at most.
        threshold: least cosine of image and word, -1 to 1.
        device: where the search is computed, "cpu" or a device of Paddle's.

    Raises:
        ValueError: there are no words, a template has no `{}` or is in a language without words, or `top` is below 1.
    """

    def __init__(
        self,
        model: LexiconModel,
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
            language: sha256("\n".join(of).encode("utf-8", "backslashreplace")).hexdigest()
            for language, of in self._words.items()
        }
        templates = {language: list(of) for language, of in self._templates.items()}
        limits = {"top": self._top, "threshold": self._threshold}
        return {"model": self._model.fingerprint, "words": words, "templates": templates, **limits}

    def prepare(self, sample: Sample, name: str) -> np.ndarray:
        """The image as the model takes it; BadSample if it cannot be decoded."""
        return self._model.preprocess(sample.image, sample.image_name)

    def tag(self, prepared: Sequence[np.ndarray]) -> list[Tags]:
        """The nearest words of a batch of images."""
        images = self._model.encode_pixels(np.stack(prepared))
        tags: list[dict[str, tuple[str, ...]]] = [{} for _ in prepared]
        for language, words in self._words.items():
            embeddings = self._embedded(language)
            rows, scores = top_matches(images, embeddings, min(self._top, len(words)), device=self._device)
            for found, nearest, cosines in zip(tags, rows, scores, strict=True):
                if named := tuple(words[row] for row in nearest[cosines >= self._threshold]):
                    found[language] = named
        return tags

    def remarks(self, ids: np.ndarray) -> list[str]:
        """Nothing."""
        return []

    def _embedded(self, language: str) -> np.ndarray:
        """Embeddings of a language's words, `[words, D]`; made when they are first asked for."""
        if language not in self._embeddings:
            words, blocks = self._words[language], []
            with tqdm(total=len(words), desc=f"words {language}".strip(), unit="word", delay=2, leave=False,
                      file=sys.stdout) as bar:  # fmt: skip
                for start in range(0, len(words), WORDS_AT_ONCE):
                    some = words[start : start + WORDS_AT_ONCE]
                    sums = sum(
                        self._model.encode_texts([template.replace(WORD, word) for word in some])
                        for template in self._templates[language]
                    )
                    blocks.append(sums / np.linalg.norm(sums, axis=1, keepdims=True))
                    bar.update(len(some))
            self._embeddings[language] = np.concatenate(blocks)
        return self._embeddings[language]
