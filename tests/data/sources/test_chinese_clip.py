"""The files and LMDBs of Chinese-CLIP: every image of a text is a pair, and nothing that is pickled runs."""

import os
import pickle

import pytest

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.chinese_clip import ChineseClipLmdb, ChineseClipSource
from tests.support.published_files import CLIP_IMAGES, CLIP_TEXTS, pickle_pairs, read_all, write_clip_files, write_lmdb

PAIRS = [("7", "猫"), ("8", "猫"), ("9", "狗"), ("9", "猫")]


@pytest.fixture(params=["files", "muge", "lmdb"])
def source(request, tmp_path):
    if request.param == "lmdb":
        (tmp_path / "lmdb" / "train").mkdir(parents=True)
        write_lmdb(tmp_path / "lmdb" / "train", pickle_pairs(CLIP_TEXTS))
        return open_sources([str(tmp_path / "lmdb")])
    options = {}
    if request.param == "muge":
        options = {"keys": ("query_id", "query_text", "item_ids"), "suffix": "queries", "split": "MR_train"}
    write_clip_files(tmp_path / "data", **options)
    return open_sources([str(tmp_path / "data")])


def test_every_image_of_a_text_is_a_pair(source):
    samples = read_all(source)
    assert [(sample.image_name, sample.caption("zh")) for sample in samples] == PAIRS
    assert [sample.image for sample in samples] == [CLIP_IMAGES[image_id] for image_id, _ in PAIRS]
    assert samples[0].text_name == samples[3].text_name == "猫"


def test_text_id_distinguishes_equal_texts(tmp_path):
    source = ChineseClipSource(write_clip_files(tmp_path / "data"), "text_id")
    assert [source[row].text_name for row in range(4)] == ["1", "1", "2", "3"]


def test_splits_in_one_folder_are_distinguished(tmp_path):
    write_clip_files(tmp_path, "train")
    write_clip_files(tmp_path, "valid")
    assert len(open_sources([str(tmp_path)])) == len(open_sources([str(tmp_path)], split="val")) == 4
    assert open_sources([str(tmp_path)]).shards[0].name.endswith("train_imgs.tsv")
    assert len(open_sources([str(tmp_path / "{train,valid}_imgs.tsv")])) == 8


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_code_in_an_lmdb_does_not_run(tmp_path):
    good, unmatched = pickle.dumps(("8", "1", "x")), pickle.dumps(("0", "1", "x"))
    rows = [pickle.dumps(Harm(tmp_path / "harm")), b"", b"\x80\x04N.", good, unmatched]
    *problems, sample, last_problem = read_all(ChineseClipLmdb(write_lmdb(tmp_path, rows)))
    assert all(problem.endswith("malformed row") for problem in problems)
    assert last_problem.endswith("unmatched image id")
    assert sample.image == b"eight" and not (tmp_path / "harm").exists()


@pytest.mark.parametrize("database", ["pairs", "imgs"])
def test_lmdb_without_its_last_page_is_refused(tmp_path, database):
    write_lmdb(tmp_path, pickle_pairs(CLIP_TEXTS))
    path = tmp_path / database / "data.mdb"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(OSError, match=f"{database}: this LMDB is cut off"):
        ChineseClipLmdb(tmp_path)[0]


def test_open_lmdb_is_readable_after_a_fork_or_pickling(tmp_path):
    source = ChineseClipLmdb(write_lmdb(tmp_path, pickle_pairs(CLIP_TEXTS)))
    assert source[1].image == pickle.loads(pickle.dumps(source))[1].image == b"eight"  # noqa: S301  -- pickled here
    second_source = ChineseClipLmdb(tmp_path)
    source.release()
    assert source[1].image == second_source[1].image == b"eight"
    child = os.fork()
    if child == 0:
        os._exit(0 if source[1].image == second_source[1].image == b"eight" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert source[0].image == CLIP_IMAGES["7"]
