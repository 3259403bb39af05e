"""Find leaks of benchmarks: pairs with an image of a benchmark, altered or not, or with a benchmark's caption."""

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

from ernie_vil2.apps.curation.guesses import Comparison
from ernie_vil2.apps.curation.image_pairs import find_matches
from ernie_vil2.apps.curation.joins import BATCH, Joins
from ernie_vil2.apps.curation.likeness import COLUMNS, make_columns, make_thumbnails
from ernie_vil2.apps.curation.measures import VERSION
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.apps.curation.steps.near_texts import NUM_BANDS, compute_bands, compute_sketch, read_hashes
from ernie_vil2.apps.curation.thumbnails import Thumbnails, find_alive, pack_thumbnails, read_thumbnails
from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.readers import open_benchmarks
from ernie_vil2.data.samples import BadSample
from ernie_vil2.io.files import atomic_write
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.section import Count, Fraction


class Settings(Comparison):
    """Settings of the step `leaks`."""

    benchmarks: list[str] = Field(
        default=[],
        description="folders or files of benchmarks, as for `eval_retrieval --data`; the split that is scored counts",
    )
    mirrored: bool = Field(True, description="also find images that are mirrored or turned by quarters")
    texts: Literal["report", "remove"] = Field(
        "report", description="what to do with pairs that have a caption of a benchmark, or nearly so"
    )
    text_likeness: Fraction = Field(
        0.8, description="least share of common pieces of two captions, as in near_texts; case and marks do not count"
    )
    text_characters: Count = Field(
        20, description="least length of a caption that is compared; shorter ones are alike by chance"
    )


class Leaks(Step[Settings]):
    """Compares every pair with the images and captions of benchmarks, by the tests for near-duplicates."""

    name = "leaks"
    cost = 4
    Settings = Settings
    columns = COLUMNS | {"long_sketches": "list<binary>"}

    def check(self) -> None:
        if not self.settings.benchmarks:
            raise ValueError(
                "leaks needs benchmarks to compare with: -o 'leaks.benchmarks=[FOLDER]', or leave the step out: "
                "-o leaks=null"
            )
        self._benchmarks = {path: _open_benchmarks(path) for path in self.settings.benchmarks}

    def measure_dependencies(self) -> Any:
        return self.settings.text_characters

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Return the columns of the thumbnails, and the sketches of the captions that are long enough."""
        return make_columns(pair.thumbnails) | {"long_sketches": self._compute_sketches(pair.captions.values())}

    def _compute_sketches(self, texts: Iterable[str]) -> list[bytes]:
        sketches = []
        for text in texts:
            sketch = compute_sketch(text) if len(text) >= self.settings.text_characters else None
            if sketch is not None:
                sketches.append(sketch)
        return sketches

    def decide(self, joins: Joins) -> None:
        """Remove pairs with images of benchmarks, and report or remove pairs with their captions."""
        images = read_thumbnails(joins)
        # Pairs that are removed below stay among these, so that a pair can be reported for several benchmarks.
        is_alive = find_alive(joins, images)
        leaks: list[dict[str, Any]] = []
        for path, benchmarks in self._benchmarks.items():
            thumbnails, image_names = _load_thumbnails(joins.folder, path, benchmarks)
            name = f"pairs-{blake2b(path.encode(), digest_size=6).hexdigest()}"
            matches = self._match_images(joins, images, is_alive, thumbnails, image_names, name)
            with joins.register_tables(leaking=pa.table({"sample": pa.array(matches, pa.int64())})):
                joins.remove("image of a benchmark", "select sample, null from leaking")
            for sample, (likeness, name) in sorted(matches.items()):
                leaks.append({"sample": sample, "benchmark": path, "image": name, "likeness": round(likeness, 4)})

            benchmark_sketches: list[bytes] = []
            for benchmark in benchmarks:
                benchmark_sketches += self._compute_sketches(text.text for text in benchmark.texts)
            samples = self._match_captions(joins, benchmark_sketches)
            query = "select sample, null from alive semi join leaking using (sample)"
            with joins.register_tables(leaking=pa.table({"sample": pa.array(samples, pa.int64())})):
                # Pairs that leak by their image as well have been removed already, and are not counted again.
                num_captions = joins.fetch_all(f"select count(*) from ({query})")[0][0]  # noqa: S608  -- no text of the data is in it
                if self.settings.texts == "remove":
                    joins.remove("caption of a benchmark", query)

            verb = "has" if len(matches) == 1 else "have"
            fact = (
                f"{path}: {pluralize(len(matches), 'pair')} {verb} one of its {len(set(image_names)):,} images, "
                f"{num_captions:,} more have one of its captions, or nearly so"
            )
            if self.settings.texts == "report":
                fact += " (these stay)"
            joins.facts.setdefault(self.name, []).append(fact)
        joins.figures[self.name] = leaks

    def explain(self, joins: Joins, reason: str, samples: Sequence[int]) -> dict[int, str]:
        explanations = {}
        for leak in joins.figures[self.name]:
            explanations[leak["sample"]] = f"likeness {leak['likeness']:.3f} with {leak['image']}"
        return explanations

    def _match_images(
        self,
        joins: Joins,
        images: Thumbnails,
        is_alive: np.ndarray,
        thumbnails: Thumbnails,
        image_names: Sequence[str],
        name: str,
    ) -> dict[int, tuple[float, str]]:
        """Return, for each pair whose image is like one of a benchmark, the greatest likeness and the image's name."""
        matches: dict[int, tuple[float, str]] = {}
        # An image may match by several thumbnails; the greatest likeness is reported. An image that differs in a spot
        # is no leak, because it may be another one of a series.
        # Thousands of equal images on both sides, such as a stand-in for missing ones, would have millions of pairs.
        for block in find_matches(
            images,
            joins.folder,
            self.settings,
            thumbnails,
            with_turns=self.settings.mirrored,
            is_alive=is_alive,
            name=name,
            unique_queries=True,
        ):
            whole = block.select(~block.is_local)
            samples = images.samples[whole.rows].tolist()
            for query, sample, likeness in zip(whole.queries, samples, whole.likeness.tolist(), strict=True):
                match = (likeness, image_names[query])
                matches[sample] = max(matches.get(sample, (0.0, "")), match)
        return matches

    def _match_captions(self, joins: Joins, benchmark_sketches: Sequence[bytes]) -> set[int]:
        """Return the samples of the pairs that have one of these captions, or nearly so."""
        if not benchmark_sketches:
            return set()
        samples = set[int]()
        # Equal captions are compared once, because thousands of them on both sides have millions of pairs.
        benchmark_sketches = list(dict.fromkeys(benchmark_sketches))
        benchmark_hashes = read_hashes(benchmark_sketches)
        benchmark_bands = _make_band_table(benchmark_sketches)
        # Only captions that share a band are compared hash by hash, as in near_texts.
        query = (
            "select distinct bands.row, benchmark_bands.row as benchmark_row "
            "from bands join benchmark_bands using (band)"
        )
        for batch in joins.read_batches("select sample, unnest(long_sketches) as sketch from alive"):
            sketches = batch["sketch"].unique().to_pylist()
            hashes = read_hashes(sketches)
            leaking_sketches = set[bytes]()
            with joins.register_tables(bands=_make_band_table(sketches), benchmark_bands=benchmark_bands):
                # A cursor, as of `read_batches`, would not see the registered tables.
                for candidates in joins.database.sql(query).to_arrow_reader(BATCH):
                    rows = candidates["row"].to_numpy()
                    is_same_hash = hashes[rows] == benchmark_hashes[candidates["benchmark_row"].to_numpy()]
                    is_alike = is_same_hash.mean(axis=1) >= self.settings.text_likeness  # of [candidates, hashes]
                    leaking_sketches.update(sketches[row] for row in np.unique(rows[is_alike]).tolist())
            for sample, sketch in zip(batch["sample"].to_pylist(), batch["sketch"].to_pylist(), strict=True):
                if sketch in leaking_sketches:
                    samples.add(sample)
        return samples


def _load_thumbnails(folder: Path, path: str, benchmarks: Sequence[Benchmark]) -> tuple[Thumbnails, list[str]]:
    """Return the thumbnails of a benchmark's images, and the name of the image of each thumbnail.

    They are stored in the folder of the joins, and computed again if an image of the benchmark has changed.
    """
    images_by_id: dict[str, BenchmarkImage] = {}
    for benchmark in benchmarks:
        images_by_id |= {image.id: image for image in benchmark.images}
    images = list(images_by_id.values())
    # Reading all images takes a small part of the time of their thumbnails. The annotations say nothing of files that
    # were missing, or have been replaced.
    digests = [blake2b(_read_image(image), digest_size=8).hexdigest() for image in images]
    dependencies = json.dumps([VERSION, Thumbnails._fields, digests]).encode()
    cache_path = folder / f"benchmark-{blake2b(dependencies, digest_size=8).hexdigest()}.npz"

    cached = _read_cached_thumbnails(cache_path)
    if cached is None:
        thumbnails_by_image = []
        for image in images:
            try:
                thumbnails_by_image.append(make_thumbnails(decode_image(_read_image(image), image.id)))
            except BadSample:
                thumbnails_by_image.append([])  # an image that cannot be decoded cannot be scored either
        cached = pack_thumbnails(thumbnails_by_image)
        with atomic_write(cache_path) as aside, aside.open("wb") as file:
            np.savez(file, **cached._asdict())
    return cached, [images[row].id for row in cached.samples.tolist()]


def _read_image(image: BenchmarkImage) -> bytes:
    """Return the file of an image, empty if it cannot be read."""
    try:
        return image.read()
    except (BadSample, OSError):
        return b""


def _read_cached_thumbnails(path: Path) -> Thumbnails | None:
    """Read the thumbnails of an earlier run; None if there are none, or the file is damaged."""
    try:
        return Thumbnails(**np.load(path))
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def _make_band_table(sketches: Sequence[bytes]) -> pa.Table:
    """Return a table with a row per sketch and band: number of the sketch, and key of the band."""
    rows = np.arange(len(sketches)).repeat(NUM_BANDS)
    return pa.table({"row": rows, "band": compute_bands(sketches).ravel()})


def _open_benchmarks(path: str) -> list[Benchmark]:
    try:
        return list(open_benchmarks(path).values())
    except (OSError, ValueError) as error:
        raise ValueError(f"leaks: the benchmark {path} cannot be read: {error}") from error
