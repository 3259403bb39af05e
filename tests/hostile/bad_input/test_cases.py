"""Training and `prepare` treat every bad input as its case says: used, skipped for a reason, or refused."""

import re
from collections import Counter
from itertools import chain
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
from tests.hostile.bad_input.page import PAGE, SECTIONS, update_tables
from tests.support.limits import PATIENCE

CASES = list(chain.from_iterable(SECTIONS.values()))
LARGE = re.compile(r"\d,\d{3}|million|MiB")  # in the names of inputs that take a second


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(max_length=24)


@pytest.fixture
def folder():
    """Return a folder that other users may read, unlike those of pytest; some cases are read as another user."""
    with TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


def make_parameter(case):
    marks = [pytest.mark.thorough] if LARGE.search(case.input) else []
    return pytest.param(case, id=case.input, marks=marks)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", [make_parameter(case) for case in CASES])
def test_training_and_prepare_agree_on_the_result(case, folder, tokenizer):
    location = str(case.make(folder))
    with case.context(), bounded_time(PATIENCE):
        if case.error:
            check_error(case, location)
        else:
            check_samples(case, folder, location, tokenizer)


def check_error(case, location):
    with pytest.raises((ValueError, OSError), match=re.escape(case.error)) as error:
        case.open(location)
    assert location.rpartition("/")[2] in str(error.value) and len(str(error.value)) < 2000


def check_samples(case, folder, location, tokenizer):
    source = case.open(location)
    config = load_config(None, [
        f"Data.train=['{location}']", f"Training.global_batch={2 * len(source)}", "Views.languages={en: 1.0}",
        "Model.image.image_size=32", "Data.workers=0",
    ])  # fmt: skip
    stream = SampleStream(config)
    case.spoil(folder)
    # A batch is two epochs, because it needs two rows, and some sources have a single one. So all counts are doubled.
    batch = next(load_batches(MultiViewRows(stream, config, tokenizer, {"image_1", "text_1"}), config))
    assert len(batch["names"]) == 2 * case.num_used
    assert Counter(reason for reason, _ in batch["bad"]) == {reason: 2 * n for reason, n in case.skips.items()}
    assert all(name for _, name in batch["bad"])
    remarks = {case.remark: 2 * case.num_used} if case.remark else {}
    assert Counter(remark for remark, _ in batch["remarks"]) == remarks

    entry = make_shard(ShardWork(source, Settings()), 0, None)
    assert entry["samples"] == case.num_used
    reasons = entry["bad_samples"]["reasons"]
    assert {reason: reasons[reason]["count"] for reason in reasons} == case.skips
    assert entry["bad_samples"].get("remarks", {}).keys() == {case.remark} - {""}
    case.check(list(read_samples(source)))


def read_samples(source):
    for row in range(len(source)):
        try:
            yield source[row]
        except BadSample:
            continue


def test_page_lists_the_cases():
    assert len({case.input for case in CASES}) == len(CASES)
    text = PAGE.read_text(encoding="utf-8")
    assert text == update_tables(text), "run: python -m tests.hostile.bad_input.page"
