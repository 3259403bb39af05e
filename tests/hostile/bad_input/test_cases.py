"""Every bad input has its result: used, skipped under a reason, or stopped with a clear error."""

import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ernie_vil2.config import load_config
from ernie_vil2.data.loader import load_batches
from ernie_vil2.data.prepare import Settings, ShardWork, make_shard
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import WordPieceTokenizer
from ernie_vil2.tasks.multi_view import MultiViewRows
from tests.hostile.bad_input.case import bounded_time
from tests.hostile.bad_input.page import PAGE, SECTIONS, with_tables
from tests.support.limits import PATIENCE

CASES = [case for cases in SECTIONS.values() for case in cases]
LARGE = re.compile(r"\d,\d{3}|million|MiB")
"""In the names of inputs that take a second."""


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(max_length=24)


@pytest.fixture
def folder():
    """One that other users may read, as those of pytest are not."""
    with TemporaryDirectory() as path:
        Path(path).chmod(0o755)  # for other users, whom a test reads as
        yield Path(path)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", [
    pytest.param(case, id=case.input, marks=[pytest.mark.thorough] * bool(LARGE.search(case.input))) for case in CASES
])  # fmt: skip
def test_training_and_preparing_agree_on_the_result(case, folder, tokenizer):
    location = str(case.make(folder))
    with case.within(), bounded_time(PATIENCE):
        look_at(case, folder, location, tokenizer)


def look_at(case, folder, location, tokenizer):
    if case.stopped:
        with pytest.raises((ValueError, OSError), match=re.escape(case.stopped)) as caught:
            case.opened(location)
        assert location.rpartition("/")[2] in str(caught.value) and len(str(caught.value)) < 2000
        return
    source = case.opened(location)
    config = load_config(None, [
        f"Data.train=['{location}']", f"Training.global_batch={2 * len(source)}", "Views.languages={en: 1.0}",
        "Model.image.image_size=32", "Data.workers=0",
    ])  # fmt: skip
    stream = SampleStream(config)
    case.spoil(folder)
    # Two epochs: a batch has at least two rows.
    batch = next(load_batches(MultiViewRows(stream, config, tokenizer, {"image_1", "text_1"}), config))
    assert len(batch["names"]) == 2 * case.used
    assert Counter(reason for reason, _ in batch["bad"]) == {reason: 2 * n for reason, n in case.skipped.items()}
    assert all(name for _, name in batch["bad"])
    assert Counter(remark for remark, _ in batch["remarks"]) == ({case.remark: 2 * case.used} if case.remark else {})

    entry = make_shard(ShardWork(source, Settings()), 0, None)
    assert entry["samples"] == case.used
    assert {reason: found["count"] for reason, found in entry["bad_samples"]["reasons"].items()} == case.skipped
    assert entry["bad_samples"].get("remarks", {}).keys() == {case.remark} - {""}
    case.check(list(used_samples(source)))


def used_samples(source):
    for row in range(len(source)):
        try:
            yield source[row]
        except BadSample:
            continue


def test_the_page_lists_the_cases():
    assert len({case.input for case in CASES}) == len(CASES)
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_tables(text), "run: python -m tests.hostile.bad_input.page"
