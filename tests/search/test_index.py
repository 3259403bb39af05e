"""An index from files to answers, and what becomes of bad files, killed builds and other models."""

import io
import json
import re
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

import ernie_vil2
from ernie_vil2 import cli as commands
from ernie_vil2.search import BusyIndex, DamagedIndex, OtherModel, fill, open_index
from ernie_vil2.search.collection import Item
from ernie_vil2.search.fill import add_images, add_texts, build, images_in
from ernie_vil2.search.store import FolderStore
from tests.search.conftest import TOKENS, unit
from tests.support.checkpoints import untrained_checkpoint
from tests.support.commands import call, small_disk
from tests.support.processes import run_process
from tests.support.shapes import draw, png, shape_members, write_tar

WORDS = ["red disc", "green square", "blue bar", "yellow cross", "红色的圆", "", "red disc"]


@pytest.fixture
def folder(tmp_path, model, shapes):
    """A built index of 16 images and 5 texts."""
    with open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, images_in([str(shapes["val"])]))
        add_texts(index, WORDS)
        for kind in ("images", "texts"):
            build(index, kind, None, 0.98, lambda line: None)
    return tmp_path / "index"


def test_three_lines(folder, checkpoint, monkeypatch, model):
    monkeypatch.setattr("ernie_vil2.search.index.load_model", lambda source, **_: model)
    with ernie_vil2.open_index(folder, checkpoint) as index:
        hits = index.search(texts=["red disc", "蓝色"], count=3)
    assert [len(line) for line in hits] == [3, 3]


def test_answers_are_those_of_a_product(folder, model, shapes):
    found = images_in([str(shapes["val"])])
    names, contents, fields = zip(*(image.read()[:3] for image in found), strict=True)
    embeddings = model.encode_images(list(contents)).astype(np.float16).astype(np.float32)  # as the index keeps them
    with open_index(folder, model) as index:
        (by_text,) = index.search(texts=["red disc"], count=16)
        scores = embeddings @ model.encode_texts(["red disc"])[0]
        assert [hit.id for hit in by_text] == [names[row] for row in np.argsort(-scores)]
        np.testing.assert_allclose([hit.score for hit in by_text], np.sort(scores)[::-1], atol=2e-3)
        assert by_text[0].fields["caption_en"] in {field["caption_en"] for field in fields}

        (by_image,) = index.search(images=[contents[3]], count=1)
        assert by_image[0].id == names[3] and by_image[0].score == pytest.approx(1, abs=2e-3)
        assert names[3] not in [hit.id for hit in index.similar(names[3], count=16)]
        (words,) = index.search(images=[contents[3]], count=2, among="texts")
        assert len(words) == 2 and {hit.id for hit in words} <= set(WORDS)
        assert index.search(images=[contents[3]], among="texts", threshold=1.0) == [[]]

        vector = embeddings[3] + model.encode_texts(["red"])[0] - model.encode_texts(["bar"])[0]
        combined = index.combined([(1, contents[3]), (1, "red"), (-1, "bar")], count=16)
        expected = embeddings @ (vector / np.linalg.norm(vector))
        assert [hit.id for hit in combined] == [names[row] for row in np.argsort(-expected)]
        with pytest.raises(KeyError):
            index.similar("not there")


def test_bad_images_are_counted_and_the_rest_is_indexed(tmp_path, model):
    rng = np.random.default_rng(0)
    bomb = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d49484452000100000001000008020000")
    for name, content in {
        "a.png": png(draw((200, 30, 30), "disc", rng)),
        "b.jpg": b"<html>not found</html>",
        "c.png": bomb,
        "sub/d.png": png(draw((30, 30, 200), "bar", rng)),
        "notes.txt": b"no image",
        ".hidden/e.png": png(draw((30, 30, 200), "bar", rng)),
    }.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with open_index(tmp_path / "index", model, writable=True) as index:
        filled = add_images(index, images_in([str(tmp_path / "photos")]))
        assert (filled.added, filled.unchanged, filled.bad.counts.total(), filled.bad.read) == (2, 0, 2, 4)
        assert "broken image: 2" in str(filled) or "too many pixels" in str(filled)
        assert {hit.id for hit in index.search(texts=["red"])[0]} == {"a.png", "sub/d.png"}
        (tmp_path / "photos" / "a.png").write_bytes(png(draw((30, 200, 30), "cross", rng)))
        again = add_images(index, images_in([str(tmp_path / "photos")]))
        assert (again.added, again.unchanged) == (1, 1)
        assert len(index.collection("images")) == 2


def test_thumbnails_are_small_images(tmp_path, model):
    """A PNG that is small enough is its own."""
    rng = np.random.default_rng(0)
    small, wide = png(draw((200, 30, 30), "disc", rng)), png(rng.integers(0, 255, (100, 400, 3), np.uint8))
    (tmp_path / "photos").mkdir()
    for name, content in {"small.png": small, "wide.png": wide}.items():
        (tmp_path / "photos" / name).write_bytes(content)
    with open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, images_in([str(tmp_path / "photos")]))
        assert index.collection("images").get("small.png").thumbnail == small
        thumbnail = index.collection("images").get("wide.png").thumbnail
    assert thumbnail.startswith(b"RIFF") and Image.open(io.BytesIO(thumbnail)).size == (160, 40)


def test_a_build_that_was_killed_goes_on(tmp_path, model, shapes, monkeypatch):
    monkeypatch.setattr(fill, "CHUNK", 32)
    found = images_in([str(shapes["train"])])
    assert len(found) == 128
    encode = type(model).encode_pixels
    calls = []

    def killed(self, pixels, *arguments):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, pixels, *arguments)

    monkeypatch.setattr(type(model), "encode_pixels", killed)
    with pytest.raises(KeyboardInterrupt), open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, found)
    with (tmp_path / "index" / "images" / "rows.f16").open("ab") as file:
        file.write(b"rows that were written and not committed")
    with open_index(tmp_path / "index", model, writable=True) as index:
        assert len(index.collection("images")) == 64
        filled = add_images(index, found)
        assert (filled.added, filled.unchanged) == (64, 64)
        names = [image.read()[0] for image in found]
        own = [index.similar(name, count=1, among="images")[0].id != name for name in names[:5]]
        assert all(own) and len(index.collection("images")) == 128
        np.testing.assert_allclose(
            index.collection("images").embedding(names[100]), model.encode_images([found[100].read()[1]])[0], atol=2e-3
        )


def test_an_index_of_another_model_is_refused_with_both_names(folder, tmp_path):
    other = ernie_vil2.load_model(untrained_checkpoint(tmp_path, [*TOKENS, "猫"]))
    positions = other.backend.model.image.pos_embed
    positions.set_value(positions + 1)  # with its images alike it would be a model of another text tower
    with pytest.raises(OtherModel, match=r"is an index of the model given \(\w+\), not of the model given"):
        open_index(folder, other)


def test_one_writer_and_any_number_of_readers(folder, model):
    writer = open_index(folder, model, writable=True)
    with pytest.raises(BusyIndex, match=r"is being changed by process \d+ on "):
        open_index(folder, model, writable=True)
    with open_index(folder, model) as reader:
        before = len(reader.collection("images"))
        writer.collection("images").remove([reader.search(texts=["red"])[0][0].id])
        assert len(reader.collection("images")) == before - 1
        build(writer, "images", "ivf", 0.9, lambda line: None)
        assert reader.collection("images").index_type["name"] == "ivf"
        assert len(reader.search(texts=["red"], count=50)[0]) == before - 1
    writer.close()
    open_index(folder, model, writable=True).close()


def test_while_an_index_type_is_built_and_after_it_was_killed_the_one_before_answers(folder, model):
    def killed_while_tuning(line):
        if "breadth" in line:
            with open_index(folder, model) as reader:
                answered.append(
                    (reader.collection("images").index_type["name"], len(reader.search(texts=["red"], count=5)[0]))
                )
            raise KeyboardInterrupt

    answered = []
    with open_index(folder, model, writable=True) as writer:
        build(writer, "images", "exact", 0.9, lambda line: None)
        with pytest.raises(KeyboardInterrupt):
            build(writer, "images", "ivf", 0.9, killed_while_tuning)
    with open_index(folder, model) as reader:
        answered.append((reader.collection("images").index_type["name"], len(reader.search(texts=["red"], count=5)[0])))
    assert answered == [("exact", 5)] * 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "images/rows.f16").write_bytes(b"12"), r"rows.f16 holds 0 of 16 rows"),
        (lambda f: (f / "images/rows.f16").unlink(), r"rows.f16 holds 0 of 16 rows"),
        (lambda f: (f / "images/items.sqlite").unlink(), r"items.sqlite is missing"),
        (lambda f: [p.unlink() for p in (f / "images").glob("items.sqlite-*")]
         + [(f / "images/items.sqlite").write_bytes(b"x" * 4096)], r"items.sqlite cannot be read"),
        (lambda f: (f / "index.json").write_text("{"), r"index.json cannot be read"),
        (lambda f: (f / "index.json").write_text("[]"), r"index.json cannot be read"),
        (lambda f: (f / "index.json").write_text('{"version": 9, "model": "", "fingerprint": "", "width": 3}'),
         r"index.json names version 9"),
        (lambda f: (f / "images/index_type/index_type.json").write_text('{"rows": 16, "name": "ivf"}'), r"index_type"),
        (lambda f: (f / "images/index_type/index_type.json").write_text("nonsense"), r"index_type cannot be read"),
    ],
)  # fmt: skip
def test_damage_is_named_with_what_to_do(folder, model, shapes, damage, message):
    damage(folder)
    with pytest.raises(DamagedIndex, match=message) as raised, open_index(folder, model) as index:
        index.search(texts=["red"])
    advice = re.search("(?:remove (.+) and )?build the index again$", str(raised.value))
    if advice[1]:
        shutil.rmtree(advice[1])
    with open_index(folder, model, writable=True) as index:
        add_images(index, images_in([str(shapes["val"])]))
        assert len(index.search(texts=["red"], count=20)[0]) == 16


def test_items_that_were_cut_off_are_named_wherever_it_shows(folder, model):
    """SQLite may find out when it opens the file, or when it looks for an item."""
    with open_index(folder, model, writable=True) as index:
        items = [Item(f"{row}", b"", {"caption": "x" * 500}) for row in range(500)]
        index.collection("images").add(items, unit(np.random.default_rng(0), 500, model.embed_dim))
    path = folder / "images" / "items.sqlite"
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DamagedIndex, match="items.sqlite cannot be read"), open_index(folder, model) as index:
            index.search(texts=["red"], count=516)


def test_an_index_that_is_built_again_beneath_a_reader(folder, model, shapes, tmp_path):
    """It is gone for a while, then there are fewer images, then it is of another model."""
    other = ernie_vil2.load_model(untrained_checkpoint(tmp_path, [*TOKENS, "猫"]))
    with open_index(folder, model) as reader:
        assert len(reader.search(texts=["red"], count=50)[0]) == 16
        shutil.rmtree(folder)
        assert len(reader.search(texts=["red"], count=50)[0]) == 16  # of what was opened nothing is lost
        for maker, expected in ((model, 5), (other, None)):
            shutil.rmtree(folder, ignore_errors=True)
            with open_index(folder, maker, writable=True) as index:
                add_images(index, images_in([str(shapes["val"])])[:5])
            if expected:
                assert len(reader.search(texts=["red"], count=50)[0]) == expected
            else:
                for _ in range(2):
                    with pytest.raises(OtherModel, match="is an index of"):
                        reader.search(texts=["red"], count=50)


def test_questions_that_cannot_be_answered(folder, model, tmp_path):
    with open_index(folder, model) as index:
        with pytest.raises(ValueError, match="a query of 100,000 characters; at most 10,000"):
            index.search(texts=["红" * 100_000])
        with pytest.raises(ValueError, match="0 answers"):
            index.search(texts=["red"], count=0)
        with pytest.raises(ValueError, match="this index has no sounds"):
            index.search(texts=["red"], among="sounds")
        assert len(index.search(texts=["red"], count=10_000)[0]) == 16
        assert index.search() == []
        for where, message in (
            ({'a"b': 1}, "no field is called"),
            ({"kind": 2**70}, "whole numbers of 64 bits"),
            ({"kind": list(range(2000))}, "a filter of 2,000 values"),
            ({"kind": None}, "takes a text, a number"),
        ):
            with pytest.raises(ValueError, match=message):
                index.search(texts=["red"], where=where)
    with pytest.raises(FileNotFoundError, match="no index here; build one"):
        open_index(tmp_path / "nothing", model)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match=r"is not an index and holds other files \(mine.txt\)"):
        open_index(tmp_path / "letters", model, writable=True)


def test_a_disk_that_fills_up_loses_nothing_that_was_committed(tmp_path, model):
    """In a file system of 1 MiB; needs root."""
    with small_disk(tmp_path / "small", "1m") as mount:
        tar = write_tar(tmp_path / "a.tar", shape_members(1, seed=5))
        with open_index(mount / "index", model, writable=True) as index:
            add_images(index, images_in([str(tar)]))
            with (mount / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):  # noqa: PT012  -- what comes before the error belongs to it
                while True:
                    filler.write(bytes(4096))
            more = write_tar(tmp_path / "b.tar", shape_members(20, seed=6))
            with pytest.raises(OSError, match="space|full"):
                add_images(index, images_in([str(more)]))
        (mount / "filler").unlink()
        with open_index(mount / "index", model, writable=True) as index:
            assert len(index.collection("images")) == 16 and len(index.search(texts=["red"], count=30)[0]) == 16


def test_an_index_on_a_disk_that_cannot_be_written_is_read(tmp_path, folder, model):
    """As a volume of a container is; needs root."""
    with small_disk(tmp_path / "volume", "8m") as mount:
        shutil.copytree(folder, mount / "index")
        (mount / "index/texts/items.sqlite-wal").write_bytes(b"x" * 100)
        run_process(["mount", "-o", "remount,ro", str(mount)], check=True)
        with open_index(folder, model) as there, open_index(mount / "index", model) as index:
            assert index.search(texts=["red"], where={"kind": "disc"}) == there.search(
                texts=["red"], where={"kind": "disc"}
            )
            with pytest.raises(DamagedIndex, match="holds changes that were not finished"):
                index.search(texts=["red"], among="texts")
        with pytest.raises(OSError, match="[Rr]ead-only"):
            open_index(mount / "index", model, writable=True)


def test_a_disk_that_fills_up_while_an_index_type_is_written_leaves_the_one_before(tmp_path, model):
    """In a file system of 2 MiB; needs root."""
    with small_disk(tmp_path / "small", "2m") as mount:
        rng = np.random.default_rng(0)
        with open_index(mount / "index", model, writable=True) as index:
            vectors = unit(rng, 2000, model.embed_dim)
            index.collection("images").add([Item(f"{row}", b"", {}) for row in range(2000)], vectors)
            build(index, "images", "ivf", 0.9, lambda line: None)
            with (mount / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):  # noqa: PT012  -- what comes before the error belongs to it
                while True:
                    filler.write(bytes(4096))
            with pytest.raises(OSError, match="disk full|space"):
                build(index, "images", "ivf", 0.9, lambda line: None)
        (mount / "filler").unlink()
        with open_index(mount / "index", model) as index:
            images = index.collection("images")
            assert images.index_type["name"] == "ivf" and images.search(vectors[7:8], 1)[0][0].id == "7"
        assert [file.suffix for file in (mount / "index/images/index_type").iterdir()].count(".faiss") == 1


def test_queries_of_a_file_are_encoded_in_batches(folder, checkpoint, model, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("ernie_vil2.search.index.load_model", lambda source, **_: model)
    monkeypatch.setattr("ernie_vil2.cli.search.BATCH", 4)
    encode, sizes = type(model).encode_texts, []

    def counted(self, texts, *arguments, **options):
        sizes.append(len(texts))
        return encode(self, texts, *arguments, **options)

    monkeypatch.setattr(type(model), "encode_texts", counted)
    lines = ["red disc", "红色的圆", "blue", "a bar", "a cross"]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    arguments = ["--index", str(folder), "--checkpoint", str(checkpoint), "--json", "--minus", "green"]
    assert commands.run("search", ["query", *arguments, "--file", str(tmp_path / "lines.txt")]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["query"] for answer in answers] == [f"{line} - green" for line in lines]
    assert sizes == [1, 4, 1]  # what is taken away, and five lines
    with open_index(folder, model) as index:
        for line, answer in zip(lines, answers, strict=True):
            expected = index.combined([(1, line), (-1, "green")])
            np.testing.assert_allclose(
                [hit["score"] for hit in answer["hits"]], [hit.score for hit in expected], atol=1e-4
            )


def test_the_command_line_from_build_to_query(tmp_path, checkpoint, shapes):
    (tmp_path / "tags.txt").write_text("red\ngreen\nblue\n", encoding="utf-8")
    tool, index = partial(call, "search"), tmp_path / "index"
    built = tool("build", "--index", index, "--checkpoint", checkpoint, "--data", shapes["val"],
                 "--texts", tmp_path / "tags.txt")  # fmt: skip
    assert built.returncode == 0 and "16 added, 0 unchanged" in built.stdout, built.stderr
    asked = tool("query", "--index", index, "a red disc", "--minus", "bar", "--where", "kind=disc", "--json",
                 "--count", 3)  # fmt: skip
    answer = json.loads(asked.stdout.splitlines()[-1])
    assert answer["query"] == "a red disc - bar" and {hit["fields"]["kind"] for hit in answer["hits"]} == {"disc"}
    gone = tool("remove", "--index", index, answer["hits"][0]["id"], "nobody")
    assert gone.returncode == 1 and "1 of 2 removed" in gone.stdout
    asked = tool("query", "--index", index, "--plus", "red", "--plus", "disc", "--json")
    assert json.loads(asked.stdout.splitlines()[-1])["query"] == "+ red + disc"
    with open_index(index, writable=True):
        busy = tool("build", "--index", index, "--data", shapes["val"])
        assert busy.returncode == 2 and "is being changed by process" in busy.stderr
        assert len(busy.stderr.splitlines()) == 1
    for arguments, message in (
        (["query", "--index", index], "ask something"),
        (["query", "--index", tmp_path / "none", "x"], "no index here"),
        (["build", "--index", tmp_path / "new"], "name its model"),
        (["query", "--index", index, "x", "--where", "kind"], "FIELD=VALUE"),
    ):
        failed = tool(*arguments)
        assert failed.returncode == 2 and message in failed.stderr and len(failed.stderr.splitlines()) == 1


def command(capsys, *arguments):
    code = commands.run("search", [str(one) for one in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_filters_of_the_command_line_match_texts_and_numbers(tmp_path, checkpoint, model, monkeypatch, capsys):
    monkeypatch.setattr("ernie_vil2.search.index.load_model", lambda source, **_: model)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png(draw((200, 30, 30), "disc", rng)))
    (tmp_path / "table.csv").write_text("image,caption,price,sku,size\na.png,red,3,00123,3.50\nb.png,blue,4,00124,4\n")
    index = ["--index", tmp_path / "index"]
    assert command(capsys, "build", *index, "--checkpoint", checkpoint, "--data", tmp_path / "table.csv")[0] == 0
    for condition in ("price=3", "price=3.0", "sku=00123", "size=3.50"):
        code, out, _ = command(capsys, "query", *index, "red", "--json", "--where", condition)
        assert code == 0 and [hit["id"] for hit in json.loads(out)["hits"]] == ["a.png"], condition
    assert json.loads(out)["hits"][0]["fields"] == {"caption": "red", "price": 3, "sku": "00123", "size": "3.50"}
    for condition in ("price=5", f"price={'9' * 40}", f"sku={'[' * 900}", "price=null", "sku=NaN"):
        code, out, _ = command(capsys, "query", *index, "red", "--where", condition)
        assert code == 0 and "nothing that is close enough" in out, condition
    code, _, error = command(capsys, "query", *index, "red", "--where", f"sku={'[' * 100_000}")
    assert code == 2 and "more than 1,000 characters; name a shorter value" in error
    code, _, err = command(capsys, "query", *index, "red", "--where", "prise=3")
    assert code == 2 and "no item has a field prise; fields: caption, price, size, sku" in err
    (tmp_path / "texts.txt").write_text("a red disc\n")
    assert command(capsys, "add", *index, "--texts", tmp_path / "texts.txt")[0] == 0
    code, _, err = command(capsys, "query", *index, "red", "--among", "texts", "--where", "price=3")
    assert code == 2 and "no item has a field price" in err
    assert command(capsys, "remove", *index, "a.png", "b.png")[0] == 0
    code, _, err = command(capsys, "query", *index, "red")
    assert code == 2 and "there are no images in this index; add some" in err


def test_a_build_of_nothing_that_can_be_used_ends_with_1_and_leaves_nothing(
    tmp_path, checkpoint, model, shapes, monkeypatch, capsys
):
    monkeypatch.setattr("ernie_vil2.search.index.load_model", lambda source, **_: model)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    (tmp_path / "blank.txt").write_text("\n \n")
    new = ["--index", tmp_path / "index", "--checkpoint", checkpoint]
    for data in (["--data", tmp_path / "bad"], ["--texts", tmp_path / "blank.txt"]):
        for action in ("build", "add"):
            code, _, err = command(capsys, action, *new, *data)
            assert code == 1 and "could be used" in err and not (tmp_path / "index").exists()
    assert command(capsys, "build", *new, "--data", tmp_path / "nowhere")[0] == 2 and not (tmp_path / "index").exists()
    (tmp_path / "index").mkdir()
    assert command(capsys, "build", *new, "--data", tmp_path / "bad")[0] == 1
    assert not list((tmp_path / "index").iterdir())  # a folder of somebody's own stays
    assert command(capsys, "build", *new, "--data", shapes["val"])[0] == 0
    assert command(capsys, "add", *new, "--data", tmp_path / "bad")[0] == 1
    with open_index(tmp_path / "index", model) as index:
        assert len(index.collection("images")) == 16


@pytest.mark.parametrize(
    "bounds", [{}, {"=": 3}, {"<": "cheap"}, {"<": True}, {"<": None}, {"<": [1]}, {">": float("inf")}, {">": "99-1-1"}]
)
def test_bounds_that_are_none_are_refused(folder, model, bounds):
    with open_index(folder, model) as index, pytest.raises(ValueError, match="bound"):
        index.search(texts=["red"], where={"price": bounds})


def test_bounds_of_the_command(folder, checkpoint, capsys):
    def ask(*where):
        options = [option for one in where for option in ("--where", one)]
        return commands.run(
            "search", ["query", "--index", str(folder), "--checkpoint", str(checkpoint), "--json", "red", *options]
        )

    assert ask("kind=disc") == 0 and len(json.loads(capsys.readouterr().out)["hits"])
    for where, wrong in ((["kind>=disc"], "give a number, or a date"), (["kind"], "write FIELD=VALUE or FIELD<VALUE"),
                         (["<3"], "write FIELD=VALUE"), (["kind=a", "kind<3"], "values and bounds")):  # fmt: skip
        assert ask(*where) == 2 and wrong in capsys.readouterr().err
    assert ask("kind<3", "kind>=2025-01-01") == 0
    assert json.loads(capsys.readouterr().out)["hits"] == []


def test_an_index_whose_model_is_gone_says_which_option_replaces_it(folder, tmp_path):
    store = FolderStore(folder, writable=True)
    store.describe(store.about | {"model": str(tmp_path / "gone")})
    store.close()
    with pytest.raises(FileNotFoundError, match=rf"names its model {tmp_path}/gone, which is not there any more"):
        open_index(folder)
    with pytest.raises(FileNotFoundError, match="name where it is now: --checkpoint MODEL"):
        open_index(folder)
    with pytest.raises(FileNotFoundError, match="^(?!.*names its model)"):
        open_index(folder, str(tmp_path / "elsewhere"))
