"""Captions that are nearly the same, as those that a template has made: only some of each group stay."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import pyarrow as pa
from pydantic import Field

from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.apps.curation.steps.text_rules import plain
from ernie_vil2.section import Count, Fraction, Section

HASHES, BANDS = 32, 8
GRAM = 3  # characters of a piece of text
LEAST_PIECES = 6  # of a caption; shorter ones are alike by chance
_RNG = np.random.default_rng(0)
_FACTORS = _RNG.integers(2**63, 2**64, HASHES, dtype=np.uint64) | np.uint64(1)  # products have to wrap around
_TERMS = _RNG.integers(0, 2**64, HASHES, dtype=np.uint64)


class Settings(Section):
    likeness: Fraction = Field(0.8, description="share of pieces of three characters that two captions have in common")
    most: Count = Field(20, description="pairs of a group that stay, the best ones")


class NearTexts(Step[Settings]):
    """Groups by MinHash (Broder 1997): captions are compared that agree in one of 8 bands of 4 hashes."""

    name = "near_texts"
    cost = 6
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {"sketch": "binary"}

    def measure(self, pair: Pair) -> dict[str, Any]:
        """The sketch of its captions; null if they are short."""
        return {"sketch": sketch("\n".join(pair.captions.values()))}

    def decide(self, joins: Joins) -> None:
        """Keeps the best of each group."""
        db = joins.database
        db.execute("create table bands (sample bigint, band ubigint)")
        for batch in joins.rows("select sample, sketch from alive where sketch is not null"):
            samples, keys = batch["sample"].to_numpy(), bands_of(batch["sketch"].to_pylist())
            with joins.given(rows=pa.table({"sample": np.repeat(samples, BANDS), "band": keys.ravel()})):
                db.execute("insert into bands select * from rows")
        query = (
            "with firsts as (select band, min(sample) as first from bands group by band having count(*) > 1), "
            "near as (select distinct sample, first from bands join firsts using (band) where sample != first) "
            "select near.sample, near.first, a.sketch, b.sketch as other from near "
            "join alive a on a.sample = near.sample join alive b on b.sample = near.first order by 1, 2"
        )
        groups: dict[int, int] = {}
        for batch in joins.rows(query):
            one, other = (hashes_of(batch[column].to_pylist()) for column in ("sketch", "other"))
            alike = (one == other).mean(axis=1) >= self.settings.likeness
            samples, firsts = (batch[column].to_numpy()[alike].tolist() for column in ("sample", "first"))
            for sample, first in zip(samples, firsts, strict=True):
                groups.setdefault(sample, groups.get(first, first))
        db.execute("drop table bands")
        members = groups | {first: first for first in groups.values()}
        columns = {"sample": pa.array(members, pa.int64()), "text_group": pa.array(members.values(), pa.int64())}
        ordered = f"(partition by text_group order by {joins.better})"
        with joins.given(members=pa.table(columns)):
            joins.remove(
                "near-duplicate caption",
                f"select sample, first_value(sample) over {ordered} from alive join members using (sample) "  # noqa: S608  -- no text of the data is in it
                f"qualify row_number() over {ordered} > {self.settings.most}",
            )


def sketch(text: str) -> bytes | None:
    """The least hash of a text's pieces under each of 32 hash functions, as bytes; None of a short text.

    Two texts agree in as large a share of them as the pieces that they have in common are of all that they have.
    """
    text = plain(text)
    pieces = {crc32(text[start : start + GRAM].encode()) for start in range(len(text) - GRAM + 1)}
    if len(pieces) < LEAST_PIECES:
        return None
    numbers = np.fromiter(pieces, np.uint64, len(pieces))
    mixed = (numbers[:, None] * _FACTORS + _TERMS) >> np.uint64(32)
    return mixed.astype(np.uint32).min(axis=0).tobytes()


def hashes_of(sketches: Sequence[bytes]) -> np.ndarray:
    """`[N, HASHES]` uint32; two texts are as alike as the share of these in which they agree."""
    return np.frombuffer(b"".join(sketches), np.uint32).reshape(len(sketches), HASHES)


def bands_of(sketches: Sequence[bytes]) -> np.ndarray:
    """`[N, BANDS]` uint64, equal for sketches that agree in all hashes of a band."""
    parts = hashes_of(sketches).reshape(len(sketches), BANDS, -1).astype(np.uint64)
    keys = np.broadcast_to(np.arange(BANDS, dtype=np.uint64), parts.shape[:2]).copy()
    with np.errstate(over="ignore"):
        for column in range(parts.shape[2]):
            keys = (keys ^ parts[:, :, column]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
    return keys
