"""The page of a curation: its sections, and that captions with HTML are shown as text."""

import html
import re

import duckdb
import numpy as np
import pytest

from ernie_vil2.apps.curation import page
from ernie_vil2.apps.curation.step import UNREADABLE, Histogram
from ernie_vil2.data.samples import BadSampleReport
from tests.support.crawled_pairs import make_distinct_image, write_pair_shard
from tests.support.image_formats import encode_image

HOSTILE = '<script>alert("x")</script> a picture & <img src=x onerror=alert(1)>'


def test_page_shows_reasons_and_escapes_captions(tmp_path, curated):
    rows = [
        (encode_image(make_distinct_image(number, 96)), f"a picture of something, number {number}")
        for number in range(8)
    ]
    rows += [
        (encode_image(make_distinct_image(number, 64)), f"a picture of something, number {number} again")
        for number in range(3)
    ]
    rows.append((encode_image(make_distinct_image(60)), "a picture of another number https://example.com/boat"))
    rows += [(encode_image(make_distinct_image(50)), HOSTILE), (b"broken", "<b>broken</b>")]
    test = write_pair_shard(
        tmp_path / "test.tar", [(encode_image(make_distinct_image(7, 96)), "a scored photograph, whatever it shows")]
    )
    (tmp_path / "en.txt").write_text("picture\nnumber\n")
    curated(
        [write_pair_shard(tmp_path / "crawl.tar", rows)],
        f"text_rules: {{}}\nimage_rules: {{short_side: 32}}\nleaks: {{benchmarks: [{test}], likeness: 0.9}}\n"
        f"near_duplicates: {{likeness: 0.9}}\nbalance: {{words: {{en: {tmp_path}/en.txt}}, most: {{en: 2}}}}",
    )
    text = (tmp_path / "curated" / page.FILE).read_text(encoding="utf-8")
    headings = "".join(re.findall(r"<h2>(.*?)</h2>", text))
    for heading in ("markup: 1 by", "image of a benchmark: 1 by", "near-duplicate image: 3 by", "Words most cut"):
        assert heading in headings
    assert "was: a picture of another number https://example.com/boat" in text
    assert "13 left" in text and "8 left" in text and "threshold 32" in text
    assert "nearest that stayed" not in text and text.count("data:image/jpeg;base64,") > 10
    assert "&lt;script&gt;" in text
    assert "<script" not in text and "onerror=alert(1)>" not in text and "<b>broken" not in text


def draw_histogram(monkeypatch, readable, histogram):
    """Return the points of a histogram of the rows of a query."""

    class Database:
        def has_column(self, column):
            return True

        def fetch_all(self, query):
            return duckdb.execute(f"with readable as ({readable}) {query}").fetchall()

    drawn = []
    monkeypatch.setattr(page, "make_line_chart", lambda title, note, series, *args, **options: drawn.extend(series))
    with pytest.raises(AttributeError):  # nothing is drawn
        page._draw_histogram(Database(), histogram)
    return drawn[0].points


def test_histograms_of_counts_have_whole_bins(monkeypatch):
    readable = "select (1 + range % 7)::int as words from range(70)"
    points = draw_histogram(monkeypatch, readable, Histogram("words", "words", (3,)))
    assert dict(points) == dict.fromkeys(map(float, range(1, 8)), 10.0)


def test_histograms_leave_out_what_is_no_number(monkeypatch):
    scores = "case range % 5 when 0 then 'nan' when 1 then 'inf' when 2 then '-inf' else (range % 5 - 3)::text end"
    readable = f"select ({scores})::float as score from range(50)"  # noqa: S608  -- all text is above
    points = draw_histogram(monkeypatch, readable, Histogram("score", "score"))
    assert sum(count for _, count in points) == 20


def test_page_says_what_decided(tmp_path, curated):
    original = make_distinct_image(1, 96)
    lit = np.clip(0.8 * original, 0, 255).astype(np.uint8)
    rows = [
        (encode_image(original), "a picture of a boat in the old harbour"),
        (encode_image(lit), "fishermen repair their nets"),
        (encode_image(make_distinct_image(2, 40)), "a small picture of a lighthouse"),
        (encode_image(make_distinct_image(3, 96)), "<%= a red hat on the table %>"),
        (encode_image(make_distinct_image(4, 96)), "x"),
        (encode_image(make_distinct_image(5, 96)), "a picture of two boats in the old harbour"),
        (encode_image(make_distinct_image(6, 96)), "a picture of two boats in the old harbour!"),
    ]
    curated(
        [write_pair_shard(tmp_path / "crawl.tar", rows)],
        "text_rules: {}\nimage_rules: {short_side: 64}\nnear_duplicates: {likeness: 0.9}\nnear_texts: {most: 1}",
    )
    page_text = (tmp_path / "curated" / page.FILE).read_text(encoding="utf-8")
    decided = []
    for content in re.findall(r'<div class="decided">(.*?)</div>', page_text, re.DOTALL):
        decided.append(html.unescape(re.sub(r"<[^>]*>", "", content)).strip())
    assert {"short side 40 < 64", "letters 1 < 3", "likeness of captions 1.00"} <= set(decided)
    assert any(text.startswith("“<%") for text in decided)
    assert re.search(r"stayed: (is|has|shows) ", page_text)
    assert any(re.fullmatch(r"likeness (0\.9\d\d|1\.000) >= 0\.9", text) for text in decided)


def read_notes(folder):
    """Return the notes above the captions of a page, as text."""
    page_text = (folder / page.FILE).read_text(encoding="utf-8")
    return [html.unescape(note) for note in re.findall(r'<div class="note">(.*?)</div>', page_text)]


def test_page_says_which_staying_pair_a_later_step_removed(tmp_path, curated):
    rows = [
        (encode_image(make_distinct_image(1, 96)), "a picture of two boats in the old harbour"),
        (encode_image(make_distinct_image(1, 96)), "the old harbour"),
        (encode_image(make_distinct_image(2, 128)), "a picture of two boats in the old harbour!"),
        (encode_image(make_distinct_image(3, 96)), "a picture of a lighthouse"),
        (encode_image(make_distinct_image(3, 96)), "a lighthouse"),
    ]
    table = curated(
        [write_pair_shard(tmp_path / "crawl.tar", rows)],
        "text_rules: {}\nimage_rules: {short_side: 32}\nexact_duplicates: {}\nnear_texts: {most: 1}",
    )
    assert [row["is_kept"] for row in table.values()] == [False, False, True, True, False]
    notes = read_notes(tmp_path / "curated")
    removed_later = "removed later: near-duplicate caption"
    assert notes.count(f"stayed at first: has a longer caption; {removed_later}") == 1  # as an example
    assert notes.count(f"stayed at first; {removed_later}") == 1  # at the head of its group
    assert notes.count("stayed: has a longer caption") == 1
    assert notes.count("stayed") == 2 and notes.count("stayed: is larger") == 1


@pytest.mark.parametrize(
    ("removals", "part"),
    [
        ([("text_rules", "markup", 2), ("image_rules", "collage", 2)], "2 of the 4 others"),
        ([("text_rules", "markup", 1)], "the other one"),
        ([(UNREADABLE, "broken image", 3)], "could not be read: broken image"),
    ],
)
def test_summary_counts_the_most_frequent_reason(removals, part):
    num_removed = sum(count for _, _, count in removals)
    counts = [page.RemovalCount(*removal) for removal in removals]
    curation = page.Curation(8, counts, 8 - num_removed, 8.0 - num_removed, BadSampleReport(), {})
    assert part in page._summarize(curation)


def test_folders_of_the_data_are_those_that_were_named():
    names = ["https://host/crawl/0.tar?key=a/b", "https://host/crawl/1.tar", "memory://0.tar", "/data/0.tar"]
    names.append("pipe:curl https://host/crawl/2.tar")
    folders = "https://host/crawl, memory://, /data, pipe:curl https://host/crawl/2.tar"
    assert page._list_folders(names) == folders


def test_many_folders_of_the_data_are_counted():
    names = [f"/data/day={day}/part.parquet" for day in range(1000)]
    text = page._list_folders(names)
    assert "day=0," in text and text.endswith(f"and {1000 - page.NUM_FOLDERS} more")


def test_cut_at_the_end_of_a_long_caption_is_shown(tmp_path, curated):
    sentence = "a picture of a boat in the old harbour, where fishermen repair their nets in the evening sun, "
    caption = f"{sentence}and {sentence}and the dog that sleeps beside them https://example.com/boat"
    shard = write_pair_shard(tmp_path / "crawl.tar", [(encode_image(make_distinct_image(1, 96)), caption)])
    curated([shard], "text_rules: {}")
    (note,) = read_notes(tmp_path / "curated")
    assert note.startswith("was: ...") and note.endswith("beside them https://example.com/boat")
    page_text = (tmp_path / "curated" / page.FILE).read_text(encoding="utf-8")
    assert re.search(r'<div class="caption" title="\.\.\.[^"]*beside them">', page_text)
