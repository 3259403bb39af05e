"""Shards of image-text pairs as a crawl leaves them, distinct images for them, and curations of them."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from ernie_vil2.apps.curation import curate, load_steps
from ernie_vil2.data.readers import open_sources
from tests.support import shapes


def make_distinct_image(seed, size=64):
    """Return a smooth image that resembles no image of another seed, `[size, size, 3]` uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def write_pair_shard(path, rows, extra_fields=None):
    """Write a shard of rows (image file, caption or captions by language), perhaps with extra fields for each row."""
    members = []
    for number, (image, caption) in enumerate(rows):
        captions = {"": caption} if isinstance(caption, str) else caption
        fields = {f"caption_{language}" if language else "caption": text for language, text in captions.items()}
        if extra_fields:
            fields |= extra_fields[number]
        name = f"{path.stem}-{number:05}"
        members += [(f"{name}.png", image), (f"{name}.json", json.dumps(fields).encode())]
    return shapes.write_tar(path, members)


@pytest.fixture(name="steps")
def steps_of_text(tmp_path):
    """Return a function that loads the steps of a YAML text: `steps(text, *overrides)`."""

    def load(text, *overrides):
        (tmp_path / "curate.yaml").write_text(text, encoding="utf-8")
        return load_steps(tmp_path / "curate.yaml", overrides)

    return load


@pytest.fixture(name="curated")
def curated_table(tmp_path, steps):
    """Return a function that curates shards by the steps of a YAML text: `curated(paths, text)`.

    It returns the rows of the table, as dictionaries by key, in the order of the source.
    """

    def curate_shards(paths, text, output="curated", **options):
        source = open_sources([str(path) for path in paths])
        curate(source, steps(text), tmp_path / output, **options)
        rows = {}
        for path in sorted((tmp_path / output / "table").iterdir()):
            for row in parquet.read_table(path).to_pylist():
                rows[row["key"]] = row
        return rows

    return curate_shards


def table_digests(folder):
    """Return the digest of each file of a curation's table."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "table").iterdir())}
