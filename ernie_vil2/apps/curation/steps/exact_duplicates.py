"""Remove copies: images that are equal pixel by pixel, whatever their files and names."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, ClassVar, Literal

from pydantic import Field

from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.apps.curation.steps.text_rules import compute_text_key
from ernie_vil2.section import Section


class Settings(Section):
    """Settings of the step `exact_duplicates`."""

    of: Literal["image", "pair"] = Field(
        "image",
        description="image: the best pair of each image stays; pair: the best pair of each image and caption stays",
    )


class ExactDuplicates(Step[Settings]):
    """Keeps one of the pairs whose decoded images are equal, the first by `Joins.preference`."""

    name = "exact_duplicates"
    cost = 3
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {"content": "binary", "text_key": "uint64"}

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Return a digest of the decoded image, and the key of the captions."""
        # The luminance of every pixel, and the colours in small, tell images apart in half the time of all bytes. The
        # width goes into the digest, because images of different shapes may have the same bytes.
        digest = blake2b(pair.luminance.data, digest_size=16, person=b"%d" % pair.luminance.shape[1])
        digest.update(pair.small_pixels.data)
        return {"content": digest.digest(), "text_key": compute_text_key(pair.captions.values())}

    def decide(self, joins: Joins) -> None:
        if self.settings.of == "image":
            reason, columns = "copy of an image", "content"
        else:
            reason, columns = "copy of a pair", "content, text_key"
        joins.remove(
            reason,
            "select sample, first_value(sample) over copies as nearest from alive "  # noqa: S608  -- no text of the data is in it
            f"window copies as (partition by {columns} order by {joins.preference}) "
            "qualify sample != first_value(sample) over copies",
        )
