"""Remove captions that are nearly the same, for example made from a template, except some of each group."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import pyarrow as pa
from pydantic import Field

from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.languages import HAN, split_units
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.apps.curation.steps.text_rules import fold_text
from ernie_vil2.section import Count, Fraction, Section

# Captions become candidates if all hashes of a band agree. With 8 bands of 4 hashes, captions that share 80 % of their
# pieces become candidates with probability 0.985, captions that share 40 % with 0.19. More bands find more candidates,
# and more hashes in a band drop more of the unlike ones.
NUM_HASHES, NUM_BANDS = 32, 8
PIECE_LENGTH = 3  # characters of a piece of text; a changed character changes so many pieces
MIN_PIECES = 6  # captions with fewer pieces are alike by chance
# Captions are compared exactly if their sketches agree nearly as much as they should: of 32 hashes, the share that
# agrees differs by 0.07 (one standard deviation) from the share of common pieces.
SKETCH_ERROR = 0.15

# Hash functions are the upper half of factor * piece + term modulo 2^64. The factors are odd and above 2^63, so that
# the product, even of a small piece, wraps around. A fixed seed makes sketches comparable between runs.
_RNG = np.random.default_rng(0)
_FACTORS = _RNG.integers(2**63, 2**64, NUM_HASHES, dtype=np.uint64) | np.uint64(1)
_TERMS = _RNG.integers(0, 2**64, NUM_HASHES, dtype=np.uint64)


class Settings(Section):
    """Settings of the step `near_texts`."""

    likeness: Fraction = Field(
        0.8,
        description="least share of pieces of three characters, and of words or pairs of Chinese characters, that two "
        "captions have in common",
    )
    most: Count = Field(20, description="number of pairs of a group that stay, the best ones")


class NearTexts(Step[Settings]):
    """Keeps only the best pairs of each group of similar captions, which are found by MinHash (Broder 1997).

    Captions that differ in a word are not similar, however long what they have in common is (`have_other_words`).
    """

    name = "near_texts"
    cost = 6
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {"caption": "string", "sketch": "binary"}

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Return the captions, and their sketch, or null if they are short."""
        caption = "\n".join(pair.captions.values())
        return {"caption": caption, "sketch": compute_sketch(caption)}

    def decide(self, joins: Joins) -> None:
        database = joins.database
        database.execute("create table bands (sample bigint, band ubigint)")
        for batch in joins.read_batches("select sample, sketch from alive where sketch is not null"):
            samples = batch["sample"].to_numpy().repeat(NUM_BANDS)
            bands = compute_bands(batch["sketch"].to_pylist()).ravel()
            with joins.register_tables(batch_bands=pa.table({"sample": samples, "band": bands})):
                database.execute("insert into bands select * from batch_bands")

        # Compare each caption with the first one of each of its bands, and not with all others, whose number grows
        # quadratically in a large group.
        query = (
            "with firsts as (select band, min(sample) as first from bands group by band having count(*) > 1), "
            "near as (select distinct sample, first from bands join firsts using (band) where sample != first) "
            "select near.sample, near.first, a.sketch, b.sketch as first_sketch, a.caption, b.caption as first_caption "
            "from near "
            "join alive a on a.sample = near.sample join alive b on b.sample = near.first order by 1, 2"
        )
        groups: dict[int, int] = {}  # sample to the first sample of its group
        for batch in joins.read_batches(query):
            hashes = read_hashes(batch["sketch"].to_pylist())
            first_hashes = read_hashes(batch["first_sketch"].to_pylist())
            is_candidate = (hashes == first_hashes).mean(axis=1) >= self.settings.likeness - SKETCH_ERROR
            candidates = batch.filter(pa.array(is_candidate)).to_pylist()
            # Rows come in ascending order of their samples, so the group of `first` is already known if it has one.
            for row in candidates:
                caption, first_caption = row["caption"], row["first_caption"]
                is_alike = compute_likeness(caption, first_caption) >= self.settings.likeness
                if is_alike and not have_other_words(caption, first_caption):
                    groups.setdefault(row["sample"], groups.get(row["first"], row["first"]))
        database.execute("drop table bands")

        # The first sample of a group is a member, too.
        members = groups | {first: first for first in groups.values()}
        columns = {"sample": pa.array(members, pa.int64()), "text_group": pa.array(members.values(), pa.int64())}
        window = f"(partition by text_group order by {joins.preference})"
        with joins.register_tables(members=pa.table(columns)):
            joins.remove(
                "near-duplicate caption",
                f"select sample, first_value(sample) over {window} from alive join members using (sample) "  # noqa: S608  -- no text of the data is in it
                f"qualify row_number() over {window} > {self.settings.most}",
            )

    def explain(self, joins: Joins, reason: str, samples: Sequence[int]) -> dict[int, str]:
        listed = ", ".join(map(str, samples))
        rows = joins.fetch_all(
            "select sample, a.caption, b.caption from removals join pairs a using (sample) "  # noqa: S608  -- no text of the data is in it
            f"join (select sample as nearest, caption from pairs) b using (nearest) where sample in ({listed})"
        )
        explanations = {}
        for sample, caption, nearest_caption in rows:
            explanations[sample] = f"likeness of captions {compute_likeness(caption, nearest_caption):.2f}"
        return explanations


def compute_likeness(left: str, right: str) -> float:
    """Return the share of the pieces of two captions, or of their words if it is smaller, that both have.

    A short caption from a template has most pieces in common with the others, but not its words.
    """
    left, right = fold_text(left), fold_text(right)
    shares = []
    for find in (_find_pieces, _find_words):
        left_items, right_items = find(left), find(right)
        shares.append(len(left_items & right_items) / max(1, len(left_items | right_items)))
    return min(shares)


def have_other_words(left: str, right: str) -> bool:
    """Return whether each of two captions has a word, or a Chinese character, that the other lacks.

    In a template that names another animal in each caption, one word of twenty says what the image shows. Captions of
    the same words, with other numbers or with more words, show the same or nothing.
    """
    left_words, right_words = _find_distinct_units(left), _find_distinct_units(right)
    return bool(left_words - right_words) and bool(right_words - left_words)


def _find_distinct_units(text: str) -> set[str]:
    """Return the different words and Chinese characters of a text without numbers."""
    return {unit for unit in split_units(fold_text(text)) if not unit[0].isdecimal()}


def _find_pieces(text: str) -> set[str]:
    return {text[start : start + PIECE_LENGTH] for start in range(len(text) - PIECE_LENGTH + 1)}


def _find_words(text: str) -> set[str]:
    """Return the words of a plain text; a Chinese character counts with the next one."""
    units = split_units(text)
    words = set()
    for unit, following in zip(units, [*units[1:], ""], strict=True):
        words.add(unit + following if HAN.match(unit) and HAN.match(following) else unit)
    return words


def compute_sketch(text: str) -> bytes | None:
    """Return the smallest hash of a text's pieces under each of 32 hash functions, or None for a short text.

    The expected share of hashes in which two texts agree is the number of their common pieces over the number of all
    pieces of both (Jaccard index).
    """
    text = fold_text(text)
    pieces = {crc32(piece.encode()) for piece in _find_pieces(text)}
    if len(pieces) < MIN_PIECES:
        return None
    numbers = np.fromiter(pieces, np.uint64, len(pieces))
    hashes = (numbers[:, None] * _FACTORS + _TERMS) >> np.uint64(32)  # [pieces, NUM_HASHES]
    return hashes.astype(np.uint32).min(axis=0).tobytes()


def read_hashes(sketches: Sequence[bytes]) -> np.ndarray:
    """Return the hashes of sketches, `[N, NUM_HASHES]` uint32."""
    return np.frombuffer(b"".join(sketches), np.uint32).reshape(len(sketches), NUM_HASHES)


def compute_bands(sketches: Sequence[bytes]) -> np.ndarray:
    """Return keys of the bands, `[N, NUM_BANDS]` uint64, equal for sketches that agree in all hashes of a band."""
    hashes = read_hashes(sketches).reshape(len(sketches), NUM_BANDS, -1).astype(np.uint64)
    # Keys begin with the number of the band, so that equal hashes in different bands have different keys.
    keys = np.broadcast_to(np.arange(NUM_BANDS, dtype=np.uint64), hashes.shape[:2]).copy()
    with np.errstate(over="ignore"):
        for column in range(hashes.shape[2]):
            # Multiply by 2^64 over the golden ratio, whose bits are well mixed, and fold the upper bits down.
            keys = (keys ^ hashes[:, :, column]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
    return keys
