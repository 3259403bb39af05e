"""benchmarks/curate_truth.py on fates whose figures a reader can work out."""

from benchmarks.curate_truth import Fate, Outcome

STAYS = Fate(True, "", "")
GONE = Fate(False, "near_duplicates", "near copy of an image")
ROWS = [
    ("1", "good", "", "", STAYS),  # of a family of three, one stays: it
    ("2", "grey", "", "1", GONE),
    ("3", "resized", "", "1", GONE),
    ("4", "good", "", "", GONE),  # its copy stays instead: nothing is lost
    ("5", "bordered", "5 pixels", "4", STAYS),
    ("6", "good", "", "", STAYS),  # both stay: the copy was not found
    ("7", "bordered", "6 pixels", "6", STAYS),
    ("8", "good", "", "", GONE),  # lost, and so is its copy, which should have gone
    ("9", "grey", "", "8", Fate(False, "text_rules", "URL")),
    ("10", "good", "", "", GONE),  # lost, for one that it resembles
    ("11", "leak", "grey", "1f600_twemoji", Fate(False, "leaks", "test image")),
    ("12", "leak", "as it is", "1f601_twemoji", STAYS),
    ("13", "url", "", "", Fate(False, "text_rules", "URL")),
    ("14", "good", "", "", Fate(False, "text_rules", "URL")),
]


def test_copies_count_by_families_and_good_rows_with_theirs():
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
    # of five that went for a copy two were lost, one of them a lookalike; three are copies, or are kept instead of one
    assert steps["near_duplicates"] == ["5", "60.0", "80.0", "60.0", "2", "1"]
    assert steps["text_rules"] == ["3", "66.7", "66.7", "33.3", "1", "0"]
    assert steps["leaks"] == ["1", "100.0", "100.0", "100.0", "0", "0"]
