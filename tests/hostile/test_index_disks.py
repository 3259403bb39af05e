"""Indexes on disks that are full or cannot be written. Needs root, to mount small file systems."""

import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from ernie_vil2.apps.search import DamagedIndex, open_index
from ernie_vil2.apps.search.add_items import add_images, list_images, optimize_collection
from ernie_vil2.apps.search.collection import Item
from tests.support.commands import mount_small_disk
from tests.support.processes import run_process
from tests.support.shapes import draw_shape_members, write_tar
from tests.support.small_index import TEXTS, draw_unit_rows, fill_index


@contextmanager
def fill_disk(mount):
    """Leave no byte free in the block, which must raise an error that says so."""
    filler = mount / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):  # noqa: PT012  -- the last write raises
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match="space|full"):
        yield
    filler.unlink()


def test_full_disk_keeps_committed_items(tmp_path, model, shapes):
    with mount_small_disk(tmp_path / "small", "1m") as mount:
        fill_index(mount / "index", model, shapes["val"])
        new_images = write_tar(tmp_path / "more.tar", draw_shape_members(20, seed=6))
        with fill_disk(mount), open_index(mount / "index", model, writable=True) as index:
            add_images(index, list_images([str(new_images)]))
        with open_index(mount / "index", model, writable=True) as index:
            assert len(index.collection("images")) == 16 and len(index.search(texts=["red"], count=30)[0]) == 16


def test_full_disk_keeps_the_former_index_type(tmp_path, model):
    rows = draw_unit_rows(np.random.default_rng(0), 1000, model.embed_dim)
    with mount_small_disk(tmp_path / "small", "2m") as mount:
        with open_index(mount / "index", model, writable=True) as index:
            index.collection("images").add([Item(f"{row}", b"", {}) for row in range(1000)], rows)
            optimize_collection(index, "images", "ivf", 0.9, lambda line: None)
            with fill_disk(mount):
                optimize_collection(index, "images", "ivf", 0.9, lambda line: None)
        with open_index(mount / "index", model) as index:
            images = index.collection("images")
            assert images.index_type["name"] == "ivf" and images.search(rows[7:8], 1)[0][0].id == "7"
        assert len(list((mount / "index/images/index_type").glob("*.faiss"))) == 1


def test_index_on_a_read_only_volume_is_searched(tmp_path, model, shapes):
    folder = fill_index(tmp_path / "index", model, shapes["val"], TEXTS)
    query = {"texts": ["red disc"], "where": {"kind": "disc"}}
    with mount_small_disk(tmp_path / "volume", "8m") as mount:
        shutil.copytree(folder, mount / "index")
        # Changes that were not merged into the database, which nobody can do on a read-only volume.
        (mount / "index/texts/items.sqlite-wal").write_bytes(b"x" * 100)
        run_process(["mount", "-o", "remount,ro", str(mount)], check=True)
        with open_index(folder, model) as original, open_index(mount / "index", model) as index:
            assert index.search(**query) == original.search(**query)
            with pytest.raises(DamagedIndex, match="texts"):
                index.search(texts=["red"], among="texts")
        with pytest.raises(OSError, match="[Rr]ead-only"):
            open_index(mount / "index", model, writable=True)
