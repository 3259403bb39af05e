"""Images that are equal pixel by pixel, whatever their files and names."""

from hashlib import blake2b
from typing import Any, Literal

from pydantic import Field

from ernie_vil2.config.section import Section
from ernie_vil2.curation.joins import Joins
from ernie_vil2.curation.step import Pair, Step


class Settings(Section):
    of: Literal["image", "pair"] = Field(
        "image", description="image: one pair of an image stays, the better one; pair: equal captions as well"
    )


class ExactDuplicates(Step[Settings]):
    """Keeps one of the pairs whose decoded images are equal."""

    name = "exact_duplicates"
    cost = 3
    Settings = Settings
    columns = {"content": "binary"}

    def measure(self, pair: Pair) -> dict[str, Any]:
        """A digest of the decoded pixels."""
        pixels = pair.pixels
        return {"content": blake2b(pixels.data, digest_size=16, person=b"%d" % pixels.shape[1]).digest()}

    def decide(self, joins: Joins) -> None:
        """Keeps the better one, see `Joins.better`."""
        equal = "content" if self.settings.of == "image" or not joins.has("text_key") else "content, text_key"
        joins.remove(
            "copy of an image" if self.settings.of == "image" else "copy of a pair",
            "select sample, first_value(sample) over same as nearest from alive "
            f"window same as (partition by {equal} order by {joins.better}) "
            "qualify sample != first_value(sample) over same",
        )
