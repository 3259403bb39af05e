import base64
import json
import os
import pickle

import lmdb
import pytest

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.chinese_clip import ChineseClipLmdb, ChineseClipSource
from ernie_vil2.data.samples import BadSample

IMAGES = {"7": b"\xfb\xff seven", "8": b"eight", "9": b"nine"}
TEXTS = [("1", "猫", ["7", "8"]), ("2", "狗", ["9"]), ("3", "猫", ["9"])]
PAIRS = [("7", "猫"), ("8", "猫"), ("9", "狗"), ("9", "猫")]


def write_files(folder, split="train", images=IMAGES, texts=TEXTS, keys=("text_id", "text", "image_ids"), end="texts"):
    folder.mkdir(exist_ok=True)
    rows = "".join(f"{name}\t{base64.urlsafe_b64encode(data).decode()}\n" for name, data in images.items())
    (folder / f"{split}_imgs.tsv").write_text(rows)
    lines = "".join(json.dumps(dict(zip(keys, text, strict=True))) + "\n" for text in texts)
    (folder / f"{split}_{end}.jsonl").write_text(lines)
    return folder / f"{split}_imgs.tsv"


def write_lmdb(folder, pairs, images=IMAGES, count=True):
    """As Chinese-CLIP's build_lmdb_dataset.py does: pickled tuples by number, base64 images by id, and the counts."""
    for part, items in (("pairs", dict(enumerate(pairs))), ("imgs", images)):
        with lmdb.open(str(folder / part), map_size=1 << 24) as database, database.begin(write=True) as writing:
            for key, value in items.items():
                value = base64.urlsafe_b64encode(value) if part == "imgs" else value
                writing.put(str(key).encode(), value)
            if count:
                writing.put(b"num_samples" if part == "pairs" else b"num_images", str(len(items)).encode())
    return folder


def pickled(pairs):
    return [pickle.dumps((image_id, text_id, text)) for text_id, text, ids in pairs for image_id in ids]


@pytest.fixture(params=["files", "muge", "lmdb"])
def source(request, tmp_path):
    if request.param == "lmdb":
        (tmp_path / "lmdb" / "train").mkdir(parents=True)
        write_lmdb(tmp_path / "lmdb" / "train", pickled(TEXTS))
        return open_sources([str(tmp_path / "lmdb")])
    muge = {"keys": ("query_id", "query_text", "item_ids"), "end": "queries", "split": "MR_train"}
    write_files(tmp_path / "data", **(muge if request.param == "muge" else {}))
    return open_sources([str(tmp_path / "data")])


def test_every_image_of_a_text_is_a_pair(source):
    samples = [source[row] for row in range(len(source))]
    assert [(sample.image_name, sample.caption("zh")) for sample in samples] == PAIRS
    assert [sample.image for sample in samples] == [IMAGES[image_id] for image_id, _ in PAIRS]
    assert samples[0].text_name == samples[3].text_name == "猫"


def test_texts_may_be_distinguished_by_id(tmp_path):
    source = ChineseClipSource(write_files(tmp_path / "data"), "text_id")
    assert [source[row].text_name for row in range(4)] == ["1", "1", "2", "3"]


def test_rows_that_are_not_a_pair_are_reported_by_reason(tmp_path):
    texts = [("1", "a", ["no"]), ("2", "b", []), ("3", None, ["7"]), ("4", "d", ["7"])]
    images = write_files(tmp_path / "data", texts=texts)
    with (tmp_path / "data" / "train_texts.jsonl").open("a") as file:
        file.write("\n{\n")
    with images.open("a") as file:
        file.write("10\t!!!\n7\tAAAA\n")
    source = ChineseClipSource(images)
    reasons = []
    for row in range(len(source)):
        try:
            assert source[row].image == IMAGES["7"]
        except BadSample as bad:
            reasons.append((bad.reason, bad.name))
    assert reasons == [
        ("unmatched image id", "train_texts.jsonl:1, no"),
        ("text without image", "train_texts.jsonl:2"),
        ("malformed row", "train_texts.jsonl:3"),
        ("malformed JSON", "train_texts.jsonl:6"),
    ]


def test_texts_that_are_missing_are_named(tmp_path):
    (tmp_path / "train_imgs.tsv").write_text("1\tAAAA\n")
    with pytest.raises(FileNotFoundError, match="train_imgs.tsv: the texts are missing; put .*train_texts.jsonl"):
        open_sources([str(tmp_path / "train_imgs.tsv")])


def test_several_splits_are_distinguished(tmp_path):
    write_files(tmp_path, "train")
    write_files(tmp_path, "valid")
    assert len(open_sources([str(tmp_path)])) == len(open_sources([str(tmp_path)], split="val")) == 4
    assert open_sources([str(tmp_path)]).shards[0].name.endswith("train_imgs.tsv")
    assert len(open_sources([str(tmp_path / "{train,valid}_imgs.tsv")])) == 8


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_an_lmdb_runs(tmp_path):
    rows = [
        pickle.dumps(Harm(tmp_path / "harm")),
        b"",
        b"\x80\x04N.",
        pickle.dumps(("8", "1", "x")),
        pickle.dumps(("0", "1", "x")),
    ]
    source = ChineseClipLmdb(write_lmdb(tmp_path, rows))
    for row, reason in ((0, "malformed row"), (1, "malformed row"), (2, "malformed row"), (4, "unmatched image id")):
        with pytest.raises(BadSample) as caught:
            source[row]
        assert caught.value.reason == reason
    assert source[3].image == b"eight" and not (tmp_path / "harm").exists()


def test_an_lmdb_that_is_not_whole_is_reported(tmp_path):
    write_lmdb(tmp_path, [], count=False)
    with pytest.raises(ValueError, match="does not say its num_samples"):
        ChineseClipLmdb(tmp_path)
    (tmp_path / "pairs" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(OSError, match="pairs: not an LMDB that can be read"):
        ChineseClipLmdb(tmp_path)


def test_several_sources_read_one_lmdb(tmp_path):
    write_lmdb(tmp_path, pickled(TEXTS))
    first, second = ChineseClipLmdb(tmp_path), ChineseClipLmdb(tmp_path)
    assert first[1].image == second[1].image == b"eight"
    first.release()
    assert first[1].image == second[1].image == b"eight"


def test_an_lmdb_that_is_open_can_be_read_after_a_fork_and_sent_to_another_process(tmp_path):
    source = ChineseClipLmdb(write_lmdb(tmp_path, pickled(TEXTS)))
    assert source[1].image == pickle.loads(pickle.dumps(source))[1].image == b"eight"  # noqa: S301  -- its own pickle
    other = ChineseClipLmdb(tmp_path)
    assert source[1].image == other[1].image == b"eight"
    child = os.fork()
    if child == 0:
        os._exit(0 if source[1].image == other[1].image == b"eight" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert source[0].image == IMAGES["7"]
