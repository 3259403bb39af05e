"""`search.py sync` makes an index equal to its sources, also after interrupted runs."""

import shutil
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from ernie_vil2.apps.search import add_items, open_index
from ernie_vil2.apps.search.add_items import (
    DryRun,
    add_images,
    add_texts,
    list_images,
    optimize_collection,
    rebuild_if_needed,
    sync_images,
    sync_texts,
)
from ernie_vil2.apps.search.checking import check_index
from ernie_vil2.apps.search.collection import DamagedIndex, Item
from ernie_vil2.apps.search.store import FolderStore
from ernie_vil2.apps.serving.text_length import MAX_TEXT_LENGTH
from ernie_vil2.data.samples import Reason
from ernie_vil2.data.spec import DataSpec
from tests.hostile.bad_input.case import bounded_time
from tests.support.commands import call
from tests.support.shapes import draw, encode_png, write_tar
from tests.support.small_index import draw_unit_rows, interrupt_call


def make_image(number):
    return encode_png(draw((20 * number % 256, 50, 200), "disc", np.random.default_rng(number)))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number in range(6):
        (folder / ("sub" if number > 3 else "") / f"{number}.png").write_bytes(make_image(number))
    return folder


@pytest.fixture
def index(tmp_path, model, folder):
    with open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, list_images([str(folder)]))
        yield index


def read_ids(index):
    return set(read_digests(index))


def read_digests(index):
    return {item.id: item.digest for item in index.collection("images").iterate_items()}


def change_folder(folder):
    """Add an image, replace one and remove one."""
    (folder / "new.png").write_bytes(make_image(20))
    (folder / "0.png").write_bytes(make_image(21))
    (folder / "sub" / "5.png").unlink()


def test_sync_adds_replaces_and_removes_images(index, folder):
    before_sync = read_digests(index)
    result = sync_images(index, [str(folder)])
    assert (result.num_removed, result.num_added, result.num_unchanged) == (0, 0, 6)
    assert read_digests(index) == before_sync
    change_folder(folder)
    for dry_run in (True, False):
        result = sync_images(index, [str(folder)], is_dry_run=dry_run)
        assert (result.num_removed, result.num_added, result.num_replaced, result.num_unchanged) == (1, 2, 1, 4)
        if dry_run:
            assert read_digests(index) == before_sync
    synced = read_digests(index)
    assert set(synced) == {"0.png", "1.png", "2.png", "3.png", "sub/4.png", "new.png"}
    assert synced["0.png"] != before_sync["0.png"] and synced["1.png"] == before_sync["1.png"]
    (closest,) = index.search(images=[make_image(21)], count=1)
    assert closest[0].id == "0.png"


def find_summary(output):
    """Return the line of a command's output with the counts of changes."""
    (summary,) = (line for line in output.splitlines() if " removed " in line)
    return summary


def test_dry_run_of_the_command_prints_the_same_counts(tmp_path, checkpoint, folder):
    arguments = ["--index", tmp_path / "index", "--checkpoint", checkpoint, "--data", folder]
    assert call("search", "build", *arguments).returncode == 0
    change_folder(folder)
    planned = find_summary(call("search", "sync", *arguments, "--dry-run").stdout)
    summary = find_summary(call("search", "sync", *arguments).stdout)
    assert planned == summary and "1 removed" in summary and "2 added" in summary


class EmptyCollection:
    def find_by_name(self, names):
        return {name: [] for name in names}


def test_dry_run_finds_new_items_as_a_collection_does():
    rng = np.random.default_rng(0)
    ids = {"".join(rng.choice([" (", "a", "b", ")"], 4)).strip() for _ in range(300)}
    dry_run = DryRun(EmptyCollection())
    for version in (b"old", b"new"):
        dry_run.update([Item(item_id, version) for item_id in ids])
    names = {item_id[:3] for item_id in ids} | ids
    for name, items in dry_run.find_by_name(names).items():
        expected_ids = [item_id for item_id in ids if item_id == name or item_id.startswith(f"{name} (")]
        assert [item.id for item in items] == sorted(expected_ids)
        assert all(item.digest == b"new" for item in items)


def test_dry_run_of_many_new_images_takes_seconds():
    ids = [f"{number}.jpg" for number in range(100_000)]
    dry_run = DryRun(EmptyCollection())
    dry_run.add([Item(item_id, b"") for item_id in ids], np.empty([0, 0]))
    with bounded_time(10):
        items_of_names = dry_run.find_by_name(ids[::10])
    assert sum(map(len, items_of_names.values())) == 10_000


def test_dry_run_counts_a_replaced_item_once(tmp_path, model):
    caption = b'{"caption_en": "red disc", "image_id": "cat"}'
    shard = tmp_path / "cats.tar"
    write_tar(shard, [("a.png", make_image(1)), ("a.json", caption), ("b.png", make_image(2)), ("b.json", caption)])
    with open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, list_images([str(shard)]))
        assert len(read_ids(index)) == 2  # of one name
        write_tar(shard, [("a.png", make_image(3)), ("a.json", caption)])
        for is_dry_run in (True, False):
            result = sync_images(index, [str(shard)], is_dry_run=is_dry_run)
            assert (result.num_added, result.num_replaced, result.num_removed) == (1, 2, 0)


def test_sync_keeps_items_of_other_sources_and_of_the_api(index, folder, tmp_path, model):
    other_source = tmp_path / "others"
    other_source.mkdir()
    (other_source / "other.png").write_bytes(make_image(30))
    (other_source / "same.png").write_bytes(make_image(1))
    add_images(index, list_images([str(other_source)]))
    index.collection("images").add(
        [Item("by the API", b"", {})], draw_unit_rows(np.random.default_rng(0), 1, model.embed_dim)
    )
    (folder / "1.png").unlink()
    (folder / "2.png").unlink()
    assert sync_images(index, [str(folder)]).num_removed == 2
    assert read_ids(index) == {"0.png", "3.png", "sub/4.png", "sub/5.png", "other.png", "same.png", "by the API"}
    # An empty folder is likely one that is not mounted: its items stay.
    shutil.rmtree(other_source)
    other_source.mkdir()
    with pytest.raises((ValueError, FileNotFoundError)):
        sync_images(index, [str(other_source)])
    assert "other.png" in read_ids(index)


def test_sync_keeps_an_image_that_cannot_be_read(index, folder):
    (folder / "3.png").write_bytes(b"")
    result = sync_images(index, [str(folder)])
    assert result.num_removed == 0 and "3.png" in read_ids(index) and result.bad_samples.counts


def test_sync_keeps_an_image_of_a_table_that_cannot_be_read(tmp_path, model, folder):
    table = tmp_path / "table.csv"
    table.write_text("image,caption\n" + "".join(f"{number}.png,red disc\n" for number in range(4)))
    spec = DataSpec([str(table)], images=folder)
    with open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, list_images(spec))
        for number in (1, 2):
            (folder / f"{number}.png").unlink()
        (folder / "1.png").mkdir()  # cannot be read as a file
        assert sync_images(index, spec).num_removed == 1
        assert read_ids(index) == {"0.png", "1.png", "3.png"}


def test_sync_follows_samples_of_shards(tmp_path, model, shapes):
    data = tmp_path / "shards"
    data.mkdir()
    for name in ("a", "b"):
        shutil.copy(shapes["val"], data / f"{name}.tar")
    with open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, list_images([str(data / "*.tar")]))
        assert len(read_ids(index)) == 16
        (data / "b.tar").unlink()
        assert sync_images(index, [str(data / "*.tar")]).num_removed == 0  # its samples are in a.tar as well
        item = next(index.collection("images").iterate_items())
        assert len(item.location) == 1 and "a.tar" in item.location[0][0]
        shutil.copy(shapes["train"], data / "a.tar")
        result = sync_images(index, [str(data / "*.tar")])
        assert len(read_ids(index)) == result.num_added + result.num_unchanged
        assert result.num_removed + result.num_replaced


def test_sync_keeps_shards_that_a_wildcard_does_not_match(tmp_path, model, shapes):
    (tmp_path / "sub").mkdir()
    shutil.copy(shapes["val"], tmp_path / "sub" / "b.tar")
    write_tar(tmp_path / "a.tar", [("new.png", make_image(30)), ("new.json", b'{"caption_en": "red disc"}')])
    with open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, list_images([str(tmp_path / "sub" / "*.tar")]))
        result = sync_images(index, [str(tmp_path / "*.tar")])
        assert (result.num_added, result.num_removed) == (1, 0)


def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path, model):
    folders = [tmp_path / "album[1]", tmp_path / "album1"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / f"{number}.png").write_bytes(make_image(number))
    with open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, list_images(folders))
        assert sync_images(index, [folders[0]]).num_removed == 0
        assert read_ids(index) == {"0.png", "1.png"}


@pytest.mark.parametrize("source", ["{a,b}.tar", "[ab].tar", "shards.txt"])
def test_sync_removes_samples_of_shards_named_by_a_pattern(tmp_path, model, source):
    members = [("1.png", make_image(1)), ("1.json", b'{"caption_en": "red disc"}')]
    new_members = [("2.png", make_image(2)), ("2.json", b'{"caption_en": "blue disc"}')]
    write_tar(tmp_path / "a.tar", members)
    write_tar(tmp_path / "b.tar", [*members, *new_members])
    (tmp_path / "shards.txt").write_text("a.tar\nb.tar\n")
    with open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, list_images([str(tmp_path / source)]))
        write_tar(tmp_path / "b.tar", members)
        assert sync_images(index, [str(tmp_path / source)]).num_removed == 1
        assert read_ids(index) == {"1"}


def test_sync_makes_texts_equal_to_the_files(index, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("red disc\ngreen square\n")
    assert sync_texts(index, [str(words)]).num_added == 2
    words.write_text("green square\nblue bar\nblue bar\n")
    for dry_run in (True, False):
        result = sync_texts(index, [str(words)], dry_run)
        assert (result.num_removed, result.num_added) == (1, 1)
    assert {item.id for item in index.collection("texts").iterate_items()} == {"green square", "blue bar"}


def test_texts_of_a_file_end_at_line_ends_only(tmp_path):
    file = tmp_path / "words.txt"
    file.write_bytes("red\u2028disc\r\nblue\x85bar\x0c\n".encode())
    assert [text.strip() for text in add_items.read_texts(str(file))] == ["red\u2028disc", "blue\x85bar", ""]


def test_long_text_is_counted_and_the_others_are_added(index):
    result = add_texts(index, ["red disc", "a" * (MAX_TEXT_LENGTH + 1), "a" * MAX_TEXT_LENGTH])
    assert result.num_added == 2 and result.bad_samples.counts == {Reason.TEXT_TOO_LONG: 1}


def test_long_caption_does_not_stop_the_tuning(index):
    collection = index.collection("images")
    items = [replace(item, fields={"caption_en": "a" * 2 * MAX_TEXT_LENGTH}) for item in collection.iterate_items()]
    collection.update(items)
    optimize_collection(index, "images", "ivf", recall=0.5)
    assert collection.index_type["name"] == "ivf"


def test_interrupted_sync_is_finished_by_the_next_one(index, folder, monkeypatch):
    monkeypatch.setattr(add_items, "CHUNK_SIZE", 2)
    for number in range(7, 12):
        (folder / f"{number}.png").write_bytes(make_image(number))
    change_folder(folder)
    collection = index.collection("images")
    monkeypatch.setattr(collection, "add", interrupt_call(collection.add, 2))
    with pytest.raises(KeyboardInterrupt):
        sync_images(index, [str(folder)])
    monkeypatch.undo()
    sync_images(index, [str(folder)])
    expected = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    assert read_ids(index) == expected and sync_images(index, [str(folder)]).num_unchanged == len(expected)


def make_items(numbers):
    return [Item(f"{n}", b"d%d" % n, {"caption": f"text {n}"}, [["a.tar", f"{n}", n]], b"\x89PNG") for n in numbers]


@pytest.mark.thorough
def test_removed_or_uncovered_rows_lead_to_a_new_build(tmp_path, model):
    rows, lines, path = draw_unit_rows(np.random.default_rng(0), 1000, model.embed_dim), [], tmp_path / "index"

    def rebuild():
        return rebuild_if_needed(index, "images", 0.1, lines.append)

    with open_index(path, model, writable=True) as index, open_index(path, model) as reader:
        index.collection("images").add(make_items(range(1000)), rows)
        optimize_collection(index, "images", "ivf", 0.9, lambda line: None)
        assert not rebuild() and not lines
        former_collection = reader.collection("images")
        index.collection("images").remove([f"{number}" for number in range(90)])
        assert not rebuild()
        size = (path / "images" / "rows.f16").stat().st_size
        index.collection("images").remove([f"{number}" for number in range(90, 500)])
        assert index.collection("images").removed_share() == 0.5
        expected = {item.id: item for item in index.collection("images").iterate_items()}
        assert rebuild() and any("50.0 % of the rows" in line for line in lines)
        # A collection that was opened before reads the former files on; the index opens the new ones for a query.
        assert former_collection.search(rows[700:701], 1)[0][0].id == "700"
        assert reader.search_embeddings(rows[700:701], 3)[0][0].id == "700" and len(reader.collection("images")) == 500
        images = index.collection("images")
        assert {item.id: item for item in images.iterate_items()} == expected and images.removed_share() == 0
        assert (images.index_type["name"], images.index_type["rows"]) == ("ivf", 500)
        assert images.get("700").thumbnail == b"\x89PNG" and np.allclose(
            images.get_embedding("700"), rows[700], atol=1e-3
        )
        (folder,) = path.glob("images*")
        assert (folder / "rows.f16").stat().st_size == size // 2
        for first, last, is_rebuilt in ((0, 50, False), (50, 90, True)):
            images.add(make_items(range(first, last)), rows[first:last])
            assert rebuild() is is_rebuilt
        assert any("9.1 % of the rows are not covered" in line for line in lines)
        images = index.collection("images")
        assert images.uncovered_share() == 0 and images.index_type["rows"] == 590
    assert check_index(path).faults == []
    with open_index(path, model) as index:
        assert len(index.collection("images")) == 590 and index.search_embeddings(rows[1:2], 1)[0][0].id == "1"


@pytest.fixture
def compacted_folder(tmp_path, model):
    """Return the folder of an index of nine images that was compacted."""
    with open_index(tmp_path / "index", model, writable=True) as index:
        images = index.collection("images")
        images.add(make_items(range(10)), draw_unit_rows(np.random.default_rng(0), 10, model.embed_dim))
        images.remove(["9"])
        with index.compact("images"):
            pass
    return tmp_path / "index"


def test_new_index_that_was_compacted_is_kept(compacted_folder, model):
    with open_index(compacted_folder, model) as index:
        assert len(index.collection("images")) == 9


def test_missing_compacted_collection_is_damage(compacted_folder, model):
    (collection_folder,) = compacted_folder.glob("images-*")
    shutil.rmtree(collection_folder)
    (fault,) = check_index(compacted_folder).faults
    assert collection_folder.name in fault
    for writable in (False, True):
        with open_index(compacted_folder, model, writable) as index, pytest.raises(DamagedIndex, match="images-"):
            index.collection("images")


def test_check_follows_a_compaction_meanwhile(compacted_folder, model, monkeypatch):
    open_store = FolderStore.__init__

    def open_and_compact(store, folder, writable):
        open_store(store, folder, writable)
        if not writable:
            with monkeypatch.context() as patched:
                patched.setattr(FolderStore, "__init__", open_store)
                with open_index(folder, model, writable=True) as index, index.compact("images"):
                    pass

    monkeypatch.setattr(FolderStore, "__init__", open_and_compact)
    result = check_index(compacted_folder)
    assert result.faults == [] and "9 items" in result.summary[0]


def test_interrupted_compaction_leaves_the_index_as_it_was(tmp_path, model, monkeypatch):
    rows = draw_unit_rows(np.random.default_rng(0), 100, model.embed_dim)
    with open_index(tmp_path / "index", model, writable=True) as index:
        images = index.collection("images")
        images.add(make_items(range(100)), rows)
        images.remove([f"{number}" for number in range(50)])
        with monkeypatch.context() as patched:
            patched.setattr(FolderStore, "write_metadata", Mock(side_effect=KeyboardInterrupt))
            patched.setattr(FolderStore, "_remove_unused_folders", lambda _: None)  # a killed process removes nothing
            with pytest.raises(KeyboardInterrupt):
                optimize_collection(index, "images", None, 0.9, print)
        assert len(list((tmp_path / "index").glob("images-*"))) == 1
    with open_index(tmp_path / "index", model) as index:
        assert len(index.collection("images")) == 50 and index.search_embeddings(rows[60:61], 1)[0][0].id == "60"
    with open_index(tmp_path / "index", model, writable=True) as index:
        assert not list((tmp_path / "index").glob("images-*")) and len(index.collection("images")) == 50
