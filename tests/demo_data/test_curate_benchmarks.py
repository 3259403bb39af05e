"""curate_truth.py counts fates as computed by hand, and curate.py knows the measures of all rules."""

import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks import curate
from benchmarks.caption_rules import read_captions
from benchmarks.curate_truth import Fate, Outcome, read_fates
from benchmarks.likeness import cut_photos
from tests.support.crawled_pairs import make_distinct_image
from tests.support.image_formats import encode_image

KEPT_FATE = Fate(True, "", "")
REMOVED_FATE = Fate(False, "near_duplicates", "near copy of an image")
ROWS = [
    ("1", "good", "good", "", "", KEPT_FATE),  # the row that stays of a family of three
    ("2", "copy", "grey", "", "1", REMOVED_FATE),
    ("3", "copy", "resized", "", "1", REMOVED_FATE),
    ("4", "good", "good", "", "", REMOVED_FATE),  # its copy stays instead: nothing is lost
    ("5", "copy", "bordered", "5 pixels", "4", KEPT_FATE),
    ("6", "good", "good", "", "", KEPT_FATE),  # both stay: the copy was not found
    ("7", "copy", "bordered", "6 pixels", "6", KEPT_FATE),
    ("8", "good", "good", "", "", REMOVED_FATE),  # lost; its copy is removed as well, as it should be
    ("9", "copy", "grey", "", "8", Fate(False, "text_rules", "URL")),
    ("10", "good", "good", "", "", REMOVED_FATE),  # lost because it resembles another
    ("11", "leak", "leak", "grey", "1f600_twemoji", Fate(False, "leaks", "test image")),
    ("12", "leak", "leak", "as it is", "1f601_twemoji", KEPT_FATE),
    ("13", "text", "url", "", "", Fate(False, "text_rules", "URL")),
    ("14", "good", "good", "", "", Fate(False, "text_rules", "URL")),
]


def test_copies_are_counted_by_families_of_good_rows():
    truth = {
        row[0]: dict(zip(("key", "group", "kind", "detail", "of"), row, strict=False)) | {"like": ""} for row in ROWS
    }
    truth["10"]["like"] = "1"
    outcome = Outcome(truth, {key: fate for key, *_, fate in ROWS})
    kinds = {row[0]: row[1:] for row in outcome.by_kind()}
    # 10 resembles 1, so that both are lookalikes
    assert kinds["good, lost"] == ["4", "2", "50.0", "", "", "near copy of an image 1, URL 1"]
    assert kinds["good, lookalikes, lost"] == ["2", "1", "50.0", "", "", "near copy of an image 1"]
    assert kinds["bordered"][:3] == ["2", "1", "50.0"]
    assert kinds["grey"] == ["2", "2", "100.0", "", "", "near copy of an image 1, URL 1"]
    assert kinds["leak, grey"][:3] == ["1", "1", "100.0"] and kinds["leak, as it is"][:3] == ["1", "0", "0.0"]
    steps = {row[0]: row[1:] for row in outcome.by_step()}
    # Of five rows removed as copies, two were lost, one of them a lookalike; the other three are copies, or their copy
    # stays instead.
    assert steps["near_duplicates"] == ["5", "60.0", "80.0", "60.0", "2", "1"]
    assert steps["text_rules"] == ["3", "66.7", "66.7", "33.3", "1", "0"]
    assert steps["leaks"] == ["1", "100.0", "100.0", "100.0", "0", "0"]


def make_truth(**rows):
    """Return truth rows by key, each made of pairs of a column and its text."""
    columns = ("group", "kind", "of", "like", "keep", "detail", "clean")
    return {key: {"key": key, **dict.fromkeys(columns, "")} | row for key, row in rows.items()}


def test_local_changes_are_copies_where_captions_are_the_same():
    truth = make_truth(
        a={"group": "good", "kind": "plain"},
        b={"group": "local", "kind": "sticker", "of": "a", "detail": "captions same"},
        c={"group": "good", "kind": "plain"},
        d={"group": "local", "kind": "sticker", "of": "c", "detail": "captions differ"},
    )
    outcome = Outcome(truth, {"a": REMOVED_FATE, "b": KEPT_FATE, "c": KEPT_FATE, "d": REMOVED_FATE})
    groups = {row[0]: row[1:] for row in outcome.by_group()}
    assert groups["good, lost"] == ["2", "0", "0.0", ""]  # of the first family the changed image stays
    assert groups["local, captions the same"] == ["1", "1", "100.0", ""]
    assert groups["local, captions differ, lost"] == ["1", "1", "100.0", "sticker 100"]


def test_editors_choice_is_compared_where_one_of_two_stays():
    truth = make_truth(
        a={"group": "good", "kind": "plain", "keep": "a"},
        b={"group": "copy", "kind": "framed", "of": "a", "keep": "a"},
        c={"group": "good", "kind": "plain"},
        d={"group": "copy", "kind": "framed", "of": "c", "keep": "c"},
        e={"group": "good", "kind": "plain"},
        f={"group": "copy", "kind": "framed", "of": "e", "keep": "e"},
    )
    fates = dict.fromkeys("adef", KEPT_FATE) | dict.fromkeys("bc", REMOVED_FATE)
    outcome = Outcome(truth, fates)
    kinds = {row[0]: row[1:] for row in outcome.by_kind()}
    assert kinds["framed"] == ["3", "2", "66.7", "50.0", "", "near copy of an image 1"]
    groups = {row[0]: row[1:] for row in outcome.by_group()}
    assert groups["copy"] == ["3", "2", "66.7", "framed 67"]


def test_cuts_are_compared_with_clean_captions():
    truth = make_truth(
        a={"group": "good", "kind": "good_with_address", "clean": "a cup"},
        b={"group": "good", "kind": "good_with_address", "clean": "a red cup"},
    )
    fates = {"a": KEPT_FATE._replace(captions=["a cup"]), "b": KEPT_FATE._replace(captions=["a red"])}
    kinds = {row[0]: row[1:] for row in Outcome(truth, fates).by_kind()}
    assert kinds["good_with_address"] == ["2", "0", "0.0", "", "50.0", ""]


def test_step_that_is_for_no_group_has_no_share_of_one():
    truth = make_truth(a={"group": "good", "kind": "plain"}, b={"group": "good", "kind": "plain"})
    fates = {"a": KEPT_FATE, "b": Fate(False, "near_texts", "near-duplicate caption")}
    assert Outcome(truth, fates).by_step() == [["near_texts", "1", "0.0", "0.0", "", "1", "0"]]


def test_rows_of_other_data_in_the_table_are_left_out(tmp_path):
    (tmp_path / "table").mkdir()
    columns = {"key": ["a.png", "b.png"], "is_kept": [True, False], "step": [None, "text_rules"]}
    parquet.write_table(pa.table(columns | {"reason": [None, "URL"]}), tmp_path / "table" / "00000.parquet")
    truth = make_truth(a={"group": "good", "kind": "plain"})
    assert Outcome(truth, read_fates(tmp_path, truth)).by_step() == []


def test_joins_of_synthetic_measures_are_timed():
    assert "CPU s" in " ".join(curate.measure_joins(2000))


def test_missing_imagehash_is_named_before_any_measurement(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    monkeypatch.setattr(sys, "argv", ["curate.py", "--data", "nowhere"])
    with pytest.raises(SystemExit):
        curate.main()
    assert "pip install imagehash" in capsys.readouterr().err


def test_photographs_end_in_jpg_or_jpeg_in_any_case(tmp_path):
    for seed, name in enumerate(("a.jpg", "b.JPEG", "c.jpeg", "d.JPG", "e.txt")):
        (tmp_path / name).write_bytes(encode_image(make_distinct_image(seed, 310), "JPEG"))
    assert [len(cut_photos(tmp_path, half)) for half in ("develop", "report")] == [2, 2]


def test_captions_are_cut_at_ends_of_lines_alone(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_bytes("a red fox\u2028in the snow\r\n一\x85二\tx\n".encode())
    assert read_captions(path, None) == ["a red fox\u2028in the snow", "一\x85二\tx"]
    assert read_captions(path, "0")[1] == "一\x85二"
