"""Attribute-object phrases, as "red car": all objects that a detector finds (paper, section 3.1; BUTD there)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import Sample
from ernie_vil2.data.tags import Tags
from ernie_vil2.io.files import sha256
from ernie_vil2.tagging.detector import Detections, Detector
from ernie_vil2.tagging.detector_input import DetectorInput
from ernie_vil2.tagging.text import clean_tags

WITHOUT_SPACE = ("zh", "ja")
"""Languages that write attribute and object together."""


@dataclass(frozen=True)
class Phrases:
    """How objects are named.

    Args:
        classes: by language, a name for each class of the detector; an empty one for a class that gives no tag.
        attributes: by language, a name for each attribute; a language without any has objects alone.
        threshold: objects that score less are left out.
        attribute_threshold: an object has its best attribute if that scores at least as much.

    Raises:
        ValueError: lists of names differ in length, or attributes are in a language without classes.
    """

    classes: Mapping[str, Sequence[str]]
    attributes: Mapping[str, Sequence[str]]
    threshold: float = 0.5
    attribute_threshold: float = 0.5

    def __post_init__(self):
        for kind, names in (("classes", self.classes), ("attributes", self.attributes)):
            lengths = {language: len(of) for language, of in names.items()}
            if len(set(lengths.values())) > 1 or 0 in lengths.values():
                raise ValueError(f"names of {kind} by language: {lengths}; one line for each, in every language")
        if extra := set(self.attributes) - set(self.classes):
            raise ValueError(f"names of attributes in {', '.join(extra)}, but none of classes")

    def __call__(self, found: Detections) -> Tags:
        """The phrases of an image by language, the surest object first; equal ones once.

        Raises:
            ValueError: a class has no name.
        """
        classes = len(next(iter(self.classes.values())))
        if len(found.classes) and found.classes.max() >= classes:
            raise ValueError(f"the detector found class {found.classes.max()}, but {classes} classes have names; "
                             "is the list of classes the detector's?")  # fmt: skip
        order = np.argsort(-found.scores, kind="stable")
        objects = [row for row in order.tolist() if found.scores[row] >= self.threshold]
        return clean_tags(
            {language: [self._phrase(found, row, language) for row in objects] for language in self.classes}
        )

    def _phrase(self, found: Detections, row: int, language: str) -> str:
        name, attribute = self.classes[language][found.classes[row]], ""
        if names := self.attributes.get(language):
            best = int(found.attributes[row].argmax())
            if found.attributes[row, best] >= self.attribute_threshold:
                attribute = names[best]
        if not name or not attribute:
            return name
        return attribute + ("" if language in WITHOUT_SPACE else " ") + name


class DetectorTagger:
    """A `Tagger` by a detector."""

    def __init__(self, detector: Detector, phrases: Phrases):
        self._detector, self._phrases = detector, phrases

    def describe(self) -> dict:
        """Checksums of the detector's files, names and thresholds."""
        files = {path.name: sha256(path) for path in self._detector.files}
        phrases = self._phrases
        names = [
            {language: list(of) for language, of in kind.items()} for kind in (phrases.classes, phrases.attributes)
        ]
        return {"detector": files, "names": names, "thresholds": [phrases.threshold, phrases.attribute_threshold]}

    def prepare(self, sample: Sample, name: str) -> DetectorInput:
        """What the detector takes; BadSample if the image cannot be decoded."""
        return self._detector.preprocess(decode_image(sample.image, sample.image_name), sample.image_name)

    def tag(self, prepared: Sequence[DetectorInput]) -> list[Tags]:
        """The phrases of a batch of images."""
        return [self._phrases(found) for found in self._detector(prepared)]

    def remarks(self, ids: np.ndarray) -> list[str]:
        """Nothing."""
        return []
