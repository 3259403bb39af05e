"""benchmarks/curate_truth.py counts fates as computed by hand."""

from benchmarks.curate_truth import Fate, Outcome

KEPT_FATE = Fate(True, "", "")
REMOVED_FATE = Fate(False, "near_duplicates", "near copy of an image")
ROWS = [
    ("1", "good", "", "", KEPT_FATE),  # the row that stays of a family of three
    ("2", "grey", "", "1", REMOVED_FATE),
    ("3", "resized", "", "1", REMOVED_FATE),
    ("4", "good", "", "", REMOVED_FATE),  # its copy stays instead: nothing is lost
    ("5", "bordered", "5 pixels", "4", KEPT_FATE),
    ("6", "good", "", "", KEPT_FATE),  # both stay: the copy was not found
    ("7", "bordered", "6 pixels", "6", KEPT_FATE),
    ("8", "good", "", "", REMOVED_FATE),  # lost; its copy is removed as well, as it should be
    ("9", "grey", "", "8", Fate(False, "text_rules", "URL")),
    ("10", "good", "", "", REMOVED_FATE),  # lost because it resembles another
    ("11", "leak", "grey", "1f600_twemoji", Fate(False, "leaks", "test image")),
    ("12", "leak", "as it is", "1f601_twemoji", KEPT_FATE),
    ("13", "url", "", "", Fate(False, "text_rules", "URL")),
    ("14", "good", "", "", Fate(False, "text_rules", "URL")),
]


def test_copies_are_counted_by_families_of_good_rows():
    truth = {row[0]: dict(zip(("key", "kind", "detail", "of"), row, strict=False)) | {"like": ""} for row in ROWS}
    truth["10"]["like"] = "1"
    outcome = Outcome(truth, {key: fate for key, *_, fate in ROWS})
    kinds = {row[0]: row[1:] for row in outcome.by_kind()}
    # 10 resembles 1, so that both are lookalikes
    assert kinds["good, lost"] == ["4", "2", "50.0", "near copy of an image 1, URL 1"]
    assert kinds["good, lookalikes, lost"] == ["2", "1", "50.0", "near copy of an image 1"]
    assert kinds["bordered"][:3] == ["2", "1", "50.0"]
    assert kinds["grey"] == ["2", "2", "100.0", "near copy of an image 1, URL 1"]
    assert kinds["leak, grey"][:3] == ["1", "1", "100.0"] and kinds["leak, as it is"][:3] == ["1", "0", "0.0"]
    steps = {row[0]: row[1:] for row in outcome.by_step()}
    # Of five rows removed as copies, two were lost, one of them a lookalike; the other three are copies, or their copy
    # stays instead.
    assert steps["near_duplicates"] == ["5", "60.0", "80.0", "60.0", "2", "1"]
    assert steps["text_rules"] == ["3", "66.7", "66.7", "33.3", "1", "0"]
    assert steps["leaks"] == ["1", "100.0", "100.0", "100.0", "0", "0"]
