"""Files that change while they are read give samples or bad samples."""

import base64
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.samples import BadSample
from tests.hostile.bad_input.case import CAPTION, GOOD, dump_json, make_member

ROWS = 30


def make_content(kind, folder):
    """Return the content of a file of many samples."""
    if kind == "parquet":
        rows = [{"jpg": GOOD, "caption": CAPTION, "key": str(row)} for row in range(ROWS)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=5, compression="none")
        return (folder / "a.parquet").read_bytes()
    if kind == "tsv":
        return ROWS * f"{CAPTION}\t7\t{base64.b64encode(GOOD).decode()}\n".encode()
    if kind == "jsonl":
        return ROWS * (dump_json(image="0.png", caption=CAPTION) + b"\n")
    members = []
    for row in range(ROWS):
        members += [make_member(f"{row}.png", GOOD), make_member(f"{row}.txt", CAPTION.encode())]
    return b"".join(members) + bytes(1024)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path):
    """Overwrite a file in place with characters that mean something in tables and JSON."""
    characters = np.frombuffer(b'\n"\t,{}\xffa', np.uint8)
    content = np.random.default_rng(0).choice(characters, path.stat().st_size)
    with path.open("r+b") as file:
        file.write(content.tobytes())


def replace(path):
    path.with_name("new").write_bytes(path.read_bytes()[:-7])
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [cut, overwrite, replace, Path.unlink])
@pytest.mark.parametrize("kind", ["tar", "tsv", "jsonl", "parquet"])
def test_changing_file_gives_samples_or_bad_samples(kind, change, tmp_path):
    (tmp_path / "0.png").write_bytes(GOOD)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(make_content(kind, tmp_path))
    source = open_sources([str(path)])
    assert source[0].image == GOOD
    change(path)
    num_bad = 0
    for _ in range(2):  # with the open file, and after it was closed and opened again
        for row in range(len(source)):
            try:
                source[row]
            except BadSample:
                num_bad += 1
        for shard in source.shards:
            shard.release()
    assert num_bad > 0
