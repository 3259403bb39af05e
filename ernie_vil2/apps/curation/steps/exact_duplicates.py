"""Images that are equal pixel by pixel, whatever their files and names."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, ClassVar, Literal

from pydantic import Field

from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.apps.curation.steps.text_rules import text_key
from ernie_vil2.section import Section


class Settings(Section):
    of: Literal["image", "pair"] = Field(
        "image", description="image: one pair of an image stays, the better one; pair: equal captions as well"
    )


class ExactDuplicates(Step[Settings]):
    """Keeps one of the pairs whose decoded images are equal."""

    name = "exact_duplicates"
    cost = 3
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {"content": "binary", "text_key": "uint64"}

    def measure(self, pair: Pair) -> dict[str, Any]:
        """A digest of the decoded pixels, and the key of the captions."""
        pixels = pair.pixels
        content = blake2b(pixels.data, digest_size=16, person=b"%d" % pixels.shape[1]).digest()
        return {"content": content, "text_key": text_key(pair.captions.values())}

    def decide(self, joins: Joins) -> None:
        """Keeps the better one, see `Joins.better`."""
        equal = "content" if self.settings.of == "image" else "content, text_key"
        joins.remove(
            "copy of an image" if self.settings.of == "image" else "copy of a pair",
            "select sample, first_value(sample) over same as nearest from alive "  # noqa: S608  -- no text of the data is in it
            f"window same as (partition by {equal} order by {joins.better}) "
            "qualify sample != first_value(sample) over same",
        )
