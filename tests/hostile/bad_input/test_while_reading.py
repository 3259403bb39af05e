"""Files that change under a reader: what it has open, and what it opens next."""

import base64
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.samples import BadSample
from tests.hostile.bad_input.case import CAPTION, GOOD, as_json, member

ROWS = 30


def whole(kind, folder):
    """A file of many samples."""
    if kind == "parquet":
        rows = [{"jpg": GOOD, "caption": CAPTION, "key": str(row)} for row in range(ROWS)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=5, compression="none")
        return (folder / "a.parquet").read_bytes()
    return {
        "tar": b"".join(member(f"{row}.png", GOOD) + member(f"{row}.txt", CAPTION.encode()) for row in range(ROWS))
        + bytes(1024),
        "tsv": ROWS * f"{CAPTION}\t7\t{base64.b64encode(GOOD).decode()}\n".encode(),
        "jsonl": ROWS * (as_json(image="0.png", caption=CAPTION) + b"\n"),
    }[kind]


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path):
    """Other bytes in the same file, with line ends and quotation marks where there were none."""
    characters = np.frombuffer(b'\n"\t,{}\xffa', np.uint8)
    content = np.random.default_rng(0).choice(characters, path.stat().st_size)
    with path.open("r+b") as file:
        file.write(content.tobytes())


def replace(path):
    path.with_name("new").write_bytes(path.read_bytes()[:-7])
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [cut, overwrite, replace, Path.unlink])
@pytest.mark.parametrize("kind", ["tar", "tsv", "jsonl", "parquet"])
def test_a_file_that_changes_gives_samples_or_bad_samples(kind, change, tmp_path):
    (tmp_path / "0.png").write_bytes(GOOD)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(whole(kind, tmp_path))
    source = open_sources([str(path)])
    assert source[0].image == GOOD
    change(path)
    bad = 0
    for _ in range(2):
        for row in range(len(source)):
            try:
                source[row]
            except BadSample:
                bad += 1
        for shard in source.shards:
            shard.release()
    assert bad
