"""The page of a curation: everything that it should show, and text of strangers that is only text."""

import re

import pytest

from ernie_vil2.curation import page
from tests.curation.conftest import encoded, smooth_image, write_tar
from tests.curation.test_duplicates import CAPTION

HOSTILE = '<script>alert("x")</script> a picture & <img src=x onerror=alert(1)>'


@pytest.fixture
def shown(tmp_path, curated):
    rows = [(encoded(smooth_image(number, 96)), f"{CAPTION} {number}") for number in range(8)]
    rows += [(encoded(smooth_image(number, 64)), f"{CAPTION} {number} again") for number in range(3)]
    rows += [(encoded(smooth_image(50)), HOSTILE), (b"broken", "<b>broken</b>")]
    test = write_tar(tmp_path / "test.tar", [(encoded(smooth_image(7, 96)), "a scored photograph, whatever it shows")])
    (tmp_path / "en.txt").write_text("picture\nnumber\n")
    curated(
        [write_tar(tmp_path / "crawl.tar", rows)],
        f"text_rules: {{}}\nimage_rules: {{short_side: 32}}\nleaks: {{benchmarks: [{test}], likeness: 0.9}}\n"
        f"near_duplicates: {{likeness: 0.9}}\nbalance: {{words: {{en: {tmp_path}/en.txt}}, most: {{en: 2}}}}",
    )
    return (tmp_path / "curated" / page.FILE).read_text(encoding="utf-8")


def test_the_page_shows_funnel_histograms_sheets_groups_leaks_and_words(shown):
    headings = re.findall(r"<h2>(.*?)</h2>", shown)
    assert headings == [
        "From all to kept",
        "What could not be read",
        "Measures, and their thresholds",
        "markup: 1 by text_rules",
        "image of a benchmark: 1 by leaks",
        "near-duplicate image: 3 by near_duplicates",
        "The largest groups of duplicates",
        "Leaks: what is in a benchmark",
        "Words most cut by balance, and the most frequent that it left alone",
    ]
    assert "12 left" in shown and "7 left" in shown
    assert shown.count('class="line s1"') >= 5 and "threshold 32" in shown
    assert shown.count("nearest that stayed") == 2
    assert shown.count("data:image/jpeg;base64,") > 10


def test_captions_of_strangers_are_only_text(shown):
    assert "<script" not in shown and "onerror=alert(1)>" not in shown and "<b>broken" not in shown
    assert "&lt;script&gt;" in shown
