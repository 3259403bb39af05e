"""Pairs whose image, altered or not, is one of a benchmark, and those that have a benchmark's caption."""

import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.likeness import BYTES, COLUMNS, Thumbnail, columns_of, thumbnails_of, vectors
from ernie_vil2.apps.curation.measures import VERSION
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.apps.curation.steps.near_texts import BANDS, bands_of, hashes_of, sketch
from ernie_vil2.apps.curation.thumbnails import Comparison, Thumbnails, alike, alive_thumbnails
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.readers import open_benchmarks
from ernie_vil2.data.samples import BadSample
from ernie_vil2.io.files import atomic_write
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.section import Count, Fraction


class Settings(Comparison):
    benchmarks: list[str] = Field(
        default=[],
        description="folders or files of benchmarks, as `eval_retrieval --data` takes them; the split that is scored",
    )
    mirrored: bool = Field(True, description="also find mirrored images")
    texts: Literal["report", "remove"] = Field(
        "report", description="what becomes of pairs that have a caption of a benchmark, or nearly so"
    )
    text_likeness: Fraction = Field(0.8, description="as likeness of near_texts; case and marks do not count")
    text_characters: Count = Field(20, description="captions that are shorter are alike by chance, and do not count")


class Leaks(Step[Settings]):
    """Every pair is compared with every image and caption of the benchmarks, by the tests of near-duplicates."""

    name = "leaks"
    cost = 4
    Settings = Settings
    columns = COLUMNS | {"long_sketches": "list<binary>"}

    def check(self) -> None:
        if not self.settings.benchmarks:
            raise ValueError(
                "leaks compares with benchmarks, and none is named: -o 'leaks.benchmarks=[FOLDER]', or leave the step "
                "out: -o leaks=null"
            )
        self._opened = {path: _open(path) for path in self.settings.benchmarks}

    def measured_by(self) -> Any:
        """How long a caption has to be."""
        return self.settings.text_characters

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Its thumbnails, and what its captions are compared by."""
        return columns_of(pair.thumbnails) | {"long_sketches": self._sketches(pair.captions.values())}

    def _sketches(self, texts: Iterable[str]) -> list[bytes]:
        long = (sketch(text) for text in texts if len(text) >= self.settings.text_characters)
        return [one for one in long if one is not None]

    def decide(self, joins: Joins) -> None:
        """Removes what is in a benchmark; reports captions that are."""
        own = self.settings
        images = alive_thumbnails(joins)
        leaks: list[dict[str, Any]] = []
        for path, benchmarks in self._opened.items():
            known, names = self._images(joins.folder, path, benchmarks)
            found: dict[int, tuple[float, str]] = {}
            for mirror in (False, True)[: 1 + own.mirrored]:
                for pairs in alike(images, joins.folder, own, known, mirror):
                    for query, row, value in zip(pairs.queries, pairs.rows, pairs.likeness, strict=True):
                        sample = int(images.samples[row])
                        found[sample] = max(found.get(sample, (0.0, "")), (float(value), names[query]))
            with joins.given(found=pa.table({"sample": pa.array(found, pa.int64())})):
                joins.remove("image of a benchmark", "select sample, null from found")
            leaks += [
                {"sample": sample, "benchmark": path, "image": name, "likeness": round(value, 4)}
                for sample, (value, name) in sorted(found.items())
            ]
            texts = self._with_texts(joins, self._sketches(text.text for one in benchmarks for text in one.texts))
            query = "select sample, null from alive semi join known using (sample)"
            with joins.given(known=pa.table({"sample": pa.array(texts, pa.int64())})):
                captions = joins.all(f"select count(*) from ({query})")[0][0]  # noqa: S608  -- no text of the data is in it
                if own.texts == "remove":
                    joins.remove("caption of a benchmark", query)
            joins.facts.setdefault(self.name, []).append(
                f"{path}: {pluralize(len(found), 'pair')} {'have' if len(found) != 1 else 'has'} one of its "
                f"{len(set(names)):,} images, {captions:,} more one of its captions, or nearly so"
                + ("" if own.texts == "remove" else " (which stay)")
            )
        joins.figures[self.name] = leaks

    def _with_texts(self, joins: Joins, known: Sequence[bytes]) -> set[int]:
        """The samples of pairs that have one of these texts, or nearly so."""
        if not known:
            return set()
        found, hashes = set[int](), hashes_of(known)
        known_bands = _bands(known)
        for batch in joins.rows("select sample, unnest(long_sketches) as sketch from alive"):
            own = batch["sketch"].to_pylist()
            with joins.given(bands=_bands(own), known_bands=known_bands):
                query = "select distinct b.row, k.row as number from bands b join known_bands k using (band)"
                row, number = joins.database.execute(query).fetchnumpy().values()
            alike = (hashes_of(own)[row] == hashes[number]).mean(axis=1) >= self.settings.text_likeness
            found.update(batch["sample"].to_numpy()[row[alike]].tolist())
        return found

    def _images(self, folder: Path, path: str, benchmarks: list[Benchmark]) -> tuple[Thumbnails, list[str]]:
        """The thumbnails of a benchmark's images, of an earlier run if it is as it was, and what each is of."""
        images = list({image.id: image for one in benchmarks for image in one.images}.values())
        state = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for one in benchmarks for file in one.files]
        about = json.dumps([VERSION, Thumbnails._fields, path, len(images), state]).encode()
        cache = folder / f"benchmark-{blake2b(about, digest_size=8).hexdigest()}.npz"
        known = _read_thumbnails(cache)
        if known is None:
            made: list[Thumbnail] = []
            read: list[int] = []
            for row, image in enumerate(images):
                try:
                    own = thumbnails_of(decode_image(image.read(), image.id))
                except (BadSample, OSError):  # what cannot be read cannot be scored either
                    continue
                made += own
                read += [row] * len(own)
            thumbnails = np.frombuffer(b"".join(one.content for one in made), np.uint8).reshape(len(made), BYTES)
            shapes, extents = (
                np.array([getattr(one, name) for one in made], np.float32) for name in ("shape", "extent")
            )
            rows, near = np.array(read, np.int64), vectors(thumbnails).astype(np.float16)
            known = Thumbnails(rows, thumbnails, near, shapes, extents)
            with atomic_write(cache) as aside, aside.open("wb") as file:
                np.savez(file, **known._asdict())
        return known, [images[row].id for row in known.samples.tolist()]


def _read_thumbnails(path: Path) -> Thumbnails | None:
    """Return the thumbnails in a file of an earlier run; None if there is none, or it is damaged."""
    try:
        return Thumbnails(**np.load(path))
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def _bands(sketches: Sequence[bytes]) -> pa.Table:
    return pa.table({"row": np.arange(len(sketches)).repeat(BANDS), "band": bands_of(sketches).ravel()})


def _open(path: str) -> list[Benchmark]:
    try:
        return list(open_benchmarks(path).values())
    except (OSError, ValueError) as error:
        raise ValueError(f"leaks: the benchmark {path} cannot be read: {error}") from error
