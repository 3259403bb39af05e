"""Ids of samples, and the report of bad samples that can stop a run."""

import json
import re

import pytest

from ernie_vil2.data.samples import BadSample, BadSampleReport, Sample, TooManyBadSamples, format_names, hash_id


def test_ids_are_distinct_and_fit_into_int64():
    ids = {hash_id(str(number)) for number in range(10_000)}
    assert len(ids) == 10_000 and min(ids) >= 0 and max(ids) < 2**63


def test_captions_are_cut_only_at_the_line_ends_of_files():
    assert Sample("i", "t", b"", {"": "a\x85 b\u2028c\x0bd\x0ce"}).has_several_lines is False
    sample = Sample("i", "t", b"", {"": "a\x85 b\r\nc\r \n\nd\u2028e"})
    assert sample.caption_lines("") == ["a\x85 b", "c", "d\u2028e"] and sample.has_several_lines


@pytest.mark.parametrize("blank", ["", " ", "\u3000\n", "\u200b"])
def test_blank_caption_gives_way_to_the_one_without_language(blank):
    captions = {"zh": blank, "": "a dog ", "long_zh": blank, "long": " a black dog"}
    sample = Sample("i", "t", b"", captions)
    assert sample.caption("zh") == "a dog" and sample.long_caption("long", "zh") == "a black dog"
    with pytest.raises(BadSample, match="empty caption"):
        Sample("i", "t", b"", {"zh": blank, "en": "a dog"}).caption("zh")


def test_report_counts_reasons_and_names_the_first_samples():
    report = BadSampleReport()
    report.add(30, [("broken image", f"i{i}") for i in range(12)] + [("empty caption", "t")])
    assert report.as_dict()["reasons"]["broken image"] == {"count": 12, "names": [f"i{i}" for i in range(10)]}
    assert "13 of 30 samples" in str(report) and re.search(r"broken image: 12 \(i0, .*i9, \.\.\.\)", str(report))
    merged = BadSampleReport()
    merged.merge(json.loads(json.dumps(report.as_dict())))
    assert merged.as_dict() == report.as_dict()
    merged.merge({"num_read": 5, "num_bad": 1, "reasons": {"empty caption": {"count": 1, "names": ["u"]}}})
    assert merged.num_read == 35 and merged.as_dict()["reasons"]["empty caption"] == {"count": 2, "names": ["t", "u"]}


def test_report_of_many_epochs_suggests_no_more_names():
    report = BadSampleReport()
    for _ in range(12):
        report.add(30, [("broken image", "i")])
    assert "broken image: 12 (i)" in str(report)


def test_names_of_a_report_stay_short_and_on_their_line():
    report = BadSampleReport()
    with report.attempt([("odd", "a\x1b[2J\n9 of 9 samples"), ("odd", "\ud800" + "b" * 5000)]):
        pass
    assert len(str(report).splitlines()) == 3 and str(report).isascii() and "\x1b" not in str(report)
    assert len(str(report)) < 2 * BadSample.MAX_NAME
    names = format_names(3, ["a\r\nerror: b", "c" * 5000])
    assert names.isprintable() and len(names) < 2 * BadSample.MAX_NAME and names.startswith("3 (a")


def test_too_many_bad_samples_stop_the_run():
    report = BadSampleReport(max_share=0.1)
    report.add(99, [("broken image", str(i)) for i in range(50)])
    with pytest.raises(TooManyBadSamples, match=r"50 of 100.*max_bad_share = 0\.1"):
        report.add(1, [])
