"""Captions that would make patterns slow, folders that look like columns, and damaged measures of a curation."""

import signal
from contextlib import contextmanager

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ernie_vil2.apps.curation import curate
from ernie_vil2.apps.curation.caption_pairs import name_opposite_directions
from ernie_vil2.apps.curation.caption_rules import load_rules
from ernie_vil2.apps.curation.languages import detect_language
from ernie_vil2.apps.curation.measures import COLUMNS
from ernie_vil2.apps.curation.step import STEPS
from ernie_vil2.apps.curation.steps.near_texts import compute_sketch
from ernie_vil2.apps.curation.steps.score import Embedder
from ernie_vil2.apps.curation.steps.text_rules import fold_text
from ernie_vil2.data.readers import open_sources
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.crawled_pairs import (  # noqa: F401
    curated_table,
    make_distinct_image,
    steps_of_text,
    table_digests,
    write_pair_shard,
)
from tests.support.image_formats import encode_image
from tests.support.paths import ROOT

# Prefix, repeated piece and suffix of texts that nearly match a rule, so that a pattern has to try them in many ways.
NEAR_MATCHES = [
    ("图片", "\n", "加载中(1)"), ("", ".", "a b"), ("", "-", "!a"), (" ", ".jpg", " a"), ("img1", "-", "!a"),
    ("图片", "1", "a"), ("", "1", "!a"), ("1", "-", "!a"),
    ("", "a1-", "!a"), ("a", "-11", "a"), ("", "a_22x3", " b"), ("deadbeef", "-ab", "g"), ("", "x ", "a"),
    ("", "a-", ":"), ("", "a.", ":"), ("é", "-a", ".co"), ("", ".com", ".a b"), ("", "www.", " "),
    ("", "<a ", ""), ("<a ", "/", ""), ("", "[b ", ""), ("", "[a](", ""), ("", "![a", ""), ("", "{{", ""),
    ("class", " ", "x"), ("", "tel", ""), ("tel1", " ", ""), ("", "1 ", "a"), ("", "+1", ""), ("+", "1", ""),
    ("lorem ipsum", "-", "\na"), ("no", " ", "a"), ("placeholder", " ", "a"), ("加载中", " ", "a"),
    ("", "?", ",\\"), ("a", "\u0300\u0323", ""), ("が", "ﾞ\u0300", ""),
]  # fmt: skip


PIECES = [
    *'a1 -_.,#@([<{&"%?\\/:=包图第Ã锟，免|°\n\u3000',
    *("www.", "http://", "a.com", "photo by A ", "1/2 ", "f/2 ", "加微信", "iso 1 ", "第1张", "a:b;", "a=b&", "1.123 "),
]


@pytest.fixture(scope="module")
def caption_rules():
    return load_rules([ROOT / "configs" / "curate" / "rules" / "text.yaml"])


@contextmanager
def bounded_computation():
    """Fail after a minute of the processor, fifty times what rules of linear time need for 300,000 characters."""

    def stop(*_):
        pytest.fail("the rules are slow")

    previous_handler = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous_handler)


def judge(caption_rules, caption):
    with bounded_computation():
        cut_captions = caption_rules.cut([caption])
        caption_rules.find_faults(cut_captions)
        detect_language(cut_captions[0])
        compute_sketch(cut_captions[0])
        plain_caption = fold_text(cut_captions[0])
        name_opposite_directions(plain_caption, plain_caption)


@pytest.mark.parametrize(
    ("prefix", "piece", "suffix"), NEAR_MATCHES, ids=[str(number) for number in range(len(NEAR_MATCHES))]
)
def test_time_of_rules_is_linear_in_the_length(caption_rules, prefix, piece, suffix):
    judge(caption_rules, prefix + piece * (300_000 // len(piece)) + suffix)


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), st.lists(st.sampled_from(PIECES), max_size=2))
@settings(max_examples=30, deadline=None)
def test_no_mixture_of_pieces_makes_the_rules_slow(caption_rules, pieces, end):
    piece = "".join(pieces)
    judge(caption_rules, piece * (300_000 // len(piece)) + "".join(end))


def overwrite_values(path):
    """Write zeros over the values of a Parquet file; its footer stays as it was."""
    content = bytearray(path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer] = bytes(len(content) - footer - 4)
    path.write_bytes(content)


def turn_numbers_into_texts(path):
    measures = parquet.read_table(path)
    parquet.write_table(measures.set_column(0, "row", measures["row"].cast("string")), path)


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "zeros": overwrite_values,
    "of other columns": lambda path: parquet.write_table(pa.table({"row": [0, 1, 2]}), path),
    "of fewer rows": lambda path: parquet.write_table(parquet.read_table(path).slice(1), path),
    "of other types": turn_numbers_into_texts,
}


RULES = "text_rules: {}\nimage_rules: {short_side: 32}\nexact_duplicates: {}\nnear_duplicates: {likeness: 0.9}\n"


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_measures_are_named_and_measured_again(tmp_path, steps, damage):
    rows = [(encode_image(make_distinct_image(number)), f"a picture of {number} boats") for number in range(3)]
    source = open_sources([str(write_pair_shard(tmp_path / "crawl.tar", rows))])
    curate(source, steps(RULES), tmp_path / "curated")
    expected = table_digests(tmp_path / "curated")
    path = max((tmp_path / "curated" / ".curate" / "measures").glob("*.parquet"))
    DAMAGE[damage](path)

    with pytest.raises(ValueError, match=path.name):
        curate(source, steps(RULES), tmp_path / "curated")

    path.unlink()  # as the message advises
    curate(source, steps(RULES), tmp_path / "curated")
    assert table_digests(tmp_path / "curated") == expected


def test_output_folder_named_like_a_partition_changes_no_row(tmp_path, curated):
    # Some readers take a folder `words=3` above a Parquet file for a partition, and 3 for the column of every row.
    columns = {"sample", "shard", "filename", "weight", "score", *COLUMNS, *Embedder([], tags=True).schema.names}
    for name in list(STEPS):
        columns |= STEPS.find(name).columns.keys()
    rows = [
        (encode_image(make_distinct_image(number)), {"en": f"a red disc {number}", "zh": "红色圆"})
        for number in range(4)
    ]
    pairs = write_pair_shard(tmp_path / "crawl.tar", rows)
    model = write_untrained_checkpoint(tmp_path / "model")
    text = "text_rules: {han: 1, words: 1}\nimage_rules: {short_side: 32}\nexact_duplicates: {}\nnear_texts: {}\n"
    text += f"near_duplicates: {{embedding: 0.5}}\nscore: {{model: {model}, by: quantile, keep: 0.5, device: cpu}}"

    expected = curated([pairs], text, "plain")
    folders = [f"{column}=3" for column in sorted(columns)]

    assert {"words", "row", "id", "cosine_zh", "concepts"} <= columns
    assert curated([pairs], text, "/".join(folders)) == expected
