"""Images that nothing else resembles, shards of pairs as a crawl leaves them, and curations of them."""

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
    """A smooth image that nothing else resembles, `[size, size, 3]` uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def write_pair_shard(path, rows, others=None):
    """A shard of rows (image file, caption or captions by language), with other fields of each."""
    members = []
    for number, (image, caption) in enumerate(rows):
        captions = {"": caption} if isinstance(caption, str) else caption
        fields = {f"caption_{language}" if language else "caption": text for language, text in captions.items()}
        fields |= others[number] if others else {}
        name = f"{path.stem}-{number:05}"
        members += [(f"{name}.png", image), (f"{name}.json", json.dumps(fields).encode())]
    return shapes.write_tar(path, members)


@pytest.fixture(name="steps")
def steps_of_text(tmp_path):
    """`steps(text)`: those of a YAML text."""

    def steps(text, *overrides):
        (tmp_path / "curate.yaml").write_text(text, encoding="utf-8")
        return load_steps(tmp_path / "curate.yaml", overrides)

    return steps


@pytest.fixture(name="curated")
def curated_table(tmp_path, steps):
    """`curated(paths, text)`: the rows of the table, as dictionaries by key, in the order of the source."""

    def curated(paths, text, output="curated", **options):
        source = open_sources([str(path) for path in paths])
        curate(source, steps(text), tmp_path / output, **options)
        tables = [parquet.read_table(path) for path in sorted((tmp_path / output / "table").iterdir())]
        return {row["key"]: row for table in tables for row in table.to_pylist()}

    return curated


def table_digests(folder):
    """Return the digest of each file of a curation's table."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "table").iterdir())}
