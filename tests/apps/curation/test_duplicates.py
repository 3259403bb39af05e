"""Duplicates and leaks: images alter_image as others put them up, and a benchmark that hides in the training set."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from ernie_vil2.apps.curation.likeness import EVEN, likeness, thumbnails_of, trimmed, vectors, windows
from ernie_vil2.apps.curation.steps.near_texts import compute_sketch
from ernie_vil2.apps.curation.thumbnails import neighbours
from tests.support.crawled_pairs import make_distinct_image, write_pair_shard
from tests.support.image_formats import encode_image

SIZE = 128
CAPTION = "a picture of something, number"
RULES = "near_duplicates: {likeness: 0.93}"


def alter_image(pixels, kind):
    image = Image.fromarray(pixels)
    if kind == "resized":
        return encode_image(np.asarray(image.resize((96, 96), Image.Resampling.BICUBIC)))
    if kind == "recompressed":
        return encode_image(pixels, "JPEG", quality=30)
    if kind == "bordered":
        framed = Image.new("RGB", (SIZE + 16, SIZE + 16), (250, 240, 20))
        framed.paste(image, (8, 8))
        return encode_image(np.asarray(framed))
    if kind == "cropped":
        return encode_image(pixels[6:-6, 3:-9])
    if kind == "grey":
        return encode_image(np.asarray(image.convert("L").convert("RGB")))
    return encode_image(pixels[:, ::-1])


KINDS = ("resized", "recompressed", "bordered", "cropped", "grey", "mirrored")


@pytest.fixture
def crawl(tmp_path):
    """Twelve images, and behind them an alter_image copy of each, two of each kind."""
    originals = [make_distinct_image(number, SIZE) for number in range(12)]
    rows = [(encode_image(pixels), f"{CAPTION} {number}") for number, pixels in enumerate(originals)]
    rows += [
        (alter_image(pixels, KINDS[number % 6]), f"{CAPTION} {number} again") for number, pixels in enumerate(originals)
    ]
    return write_pair_shard(tmp_path / "crawl.tar", rows)


def test_altered_copies_are_dropped_and_the_largest_stays(crawl, curated):
    table = list(curated([crawl], RULES + "\nimage_rules: {short_side: 8}").values())
    nearest_of_dropped = {row["sample"]: row["nearest"] for row in table if not row["is_kept"]}
    families = {frozenset(pair) for pair in nearest_of_dropped.items()}
    assert families == {frozenset((number, number + 12)) for number in range(12)}
    # What was put into a frame is larger than what it was made of; what was cropped or made smaller is not.
    assert {row["sample"] for row in table if row["is_kept"]} == {0, 1, 14, 3, 4, 5, 6, 7, 20, 9, 10, 11}
    reasons = {row["sample"] % 6: row["reason"] for row in table if not row["is_kept"]}
    assert reasons == {number: "mirrored image" if number == 5 else "near-duplicate image" for number in range(6)}


def test_mirrored_images_stay_if_captions_name_a_side(tmp_path, curated):
    captions = ["a hand that points left", "a hand, pointing", "clock at 3:00", "at nine o’clock", "an old church",
                "教堂照片", "向左箭头", "一个箭头", "leftover cake on a table", "a bright cake", "the left bank",
                "the left bank"]  # fmt: skip
    images = []
    for number in range(6):
        pixels = make_distinct_image(number, SIZE)
        images += [encode_image(pixels), encode_image(pixels[:, ::-1])]
    path = write_pair_shard(tmp_path / "crawl.tar", list(zip(images, captions, strict=True)))
    rows = curated([path], RULES).values()
    assert [row["nearest"] for row in rows if not row["is_kept"]] == [4, 8, 10]


@pytest.mark.thorough
def test_chain_of_small_differences_is_cut(tmp_path, curated):
    # Each image resembles the next one, the first does not resemble the last: a dropped image has to resemble the one
    # that stays, not only another dropped one.
    start, end = make_distinct_image(1, SIZE).astype(float), make_distinct_image(2, SIZE).astype(float)
    blends = [(start * (1 - share) + end * share).astype(np.uint8) for share in np.linspace(0, 1, 41)]
    path = write_pair_shard(
        tmp_path / "chain.tar", [(encode_image(pixels), f"{CAPTION} {number}") for number, pixels in enumerate(blends)]
    )
    rows = list(curated([path], "near_duplicates: {likeness: 0.9, crops: false, mirrored: false}").values())
    kept_samples = {row["sample"] for row in rows if row["is_kept"]}
    assert 2 <= len(kept_samples) < 41
    assert all(row["is_kept"] or row["nearest"] in kept_samples for row in rows)
    assert rows[40]["nearest"] != 0


def test_altered_images_of_a_benchmark_are_dropped(tmp_path, crawl, curated):
    hidden = [make_distinct_image(number, SIZE) for number in (0, 1, 30)]
    test = write_pair_shard(
        tmp_path / "test.tar", [(encode_image(pixels), f"scored {row}") for row, pixels in enumerate(hidden)]
    )
    rows = list(curated([crawl], f"leaks: {{benchmarks: [{test}], likeness: 0.93}}").values())
    leaks = {row["sample"]: row["reason"] for row in rows if not row["is_kept"]}
    assert leaks == dict.fromkeys((0, 12, 1, 13), "image of a benchmark")


def test_truncated_thumbnails_are_computed_again(tmp_path, crawl, curated):
    test = write_pair_shard(tmp_path / "test.tar", [(encode_image(make_distinct_image(30, SIZE)), "scored")])
    text = f"leaks: {{benchmarks: [{test}], likeness: 0.93}}"
    expected = curated([crawl], text)
    [cache] = (tmp_path / "curated" / ".curate").glob("benchmark-*.npz")
    content = cache.read_bytes()
    cache.write_bytes(content[:2000])

    assert curated([crawl], text) == expected
    assert len(cache.read_bytes()) == len(content)


def test_captions_of_a_benchmark_are_reported_or_removed(tmp_path, curated):
    caption = "A brown dog runs through the shallow water of a river, with a stick in its mouth."
    captions = ["a brown dog runs through the shallow water of a river with a stick in its mouth",
                "brown dog runs through the shallow water of a river, a stick in its mouth",
                "a brown dog sleeps by the river", "two children build a castle of sand", "a brown dog"]  # fmt: skip
    pairs = [{"en": caption, "zh": f"第{number}张图片"} for number, caption in enumerate(captions)]
    crawl = write_pair_shard(
        tmp_path / "crawl.tar", [(encode_image(make_distinct_image(n)), pair) for n, pair in enumerate(pairs)]
    )
    test = write_pair_shard(
        tmp_path / "test.tar",
        [(encode_image(make_distinct_image(77)), caption), (encode_image(make_distinct_image(78)), "a brown dog")],
    )
    reported = curated([crawl], f"leaks: {{benchmarks: [{test}]}}", "reported")
    assert all(row["is_kept"] for row in reported.values())
    [fact] = json.loads((tmp_path / "reported" / "curation.json").read_text())["facts"]["leaks"]
    assert "2 more" in fact
    for threshold, dropped in ((0.8, {0, 1}), (1.0, {0})):
        text = f"leaks: {{benchmarks: [{test}], texts: remove, text_likeness: {threshold}}}"
        rows = curated([crawl], text, f"removed {threshold}").values()
        assert {row["sample"] for row in rows if row["reason"] == "caption of a benchmark"} == dropped
        assert sum(row["is_kept"] for row in rows) == 5 - len(dropped)


def test_unreadable_benchmark_is_named_before_any_work(tmp_path, crawl, curated):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="leaks: .*empty"):
        curated([crawl], f"leaks: {{benchmarks: [{tmp_path}/empty]}}")
    with pytest.raises(ValueError, match="leaks.benchmarks"):
        curated([crawl], "leaks: {}")
    assert not (tmp_path / "curated" / "table").exists()


def make_last_thumbnails(originals):
    thumbnails = [thumbnails_of(np.ascontiguousarray(pixels))[-1] for pixels in originals]
    contents = np.stack([np.frombuffer(thumbnail.content, np.uint8) for thumbnail in thumbnails])
    return contents, np.log([thumbnail.shape for thumbnail in thumbnails])


def test_crops_of_a_tenth_are_alike_and_stretched_images_are_not():
    rng = np.random.default_rng(0)
    originals = [make_distinct_image(number, 200) for number in range(40)]
    corners = rng.integers(0, 21, (40, 2))
    crops = [pixels[top : top + 180, left : left + 180] for pixels, (top, left) in zip(originals, corners, strict=True)]
    (first, shapes), (second, crop_shapes) = make_last_thumbnails(originals), make_last_thumbnails(crops)
    near = np.einsum("nwd,nd->nw", windows(first), vectors(second)).max(axis=1)
    assert near.min() > 0.85  # so that they are candidates
    for values in (likeness(first, second, crop_shapes - shapes), likeness(second, first, shapes - crop_shapes)):
        assert (values > 0.94).mean() > 0.9
    assert (likeness(first, second, crops=False) < 0.94).all()
    rows = [pixels[20:] for pixels in originals]  # a tenth of one side alone
    third, shapes_of_rows = make_last_thumbnails(rows)
    assert (likeness(first, third, shapes_of_rows - shapes) > 0.94).mean() > 0.9
    stretched = likeness(first, third)  # as if both had one aspect ratio
    assert np.median(stretched) < 0.98 < 0.999 < np.median(likeness(first, third, shapes_of_rows - shapes))


def test_moved_clock_hand_distinguishes_and_a_shift_by_a_pixel_not():
    """Clocks whose hand points elsewhere are two images; a clock that lies a pixel lower is the same."""

    def draw_clock(angle, down=0):
        pixels = np.full((128, 128, 3), 255, np.uint8)
        cv2.circle(pixels, (64, 64 + down), 56, (40, 120, 200), 8)
        end = 64 + round(40 * np.cos(angle)), 64 + down + round(40 * np.sin(angle))
        cv2.line(pixels, (64, 64 + down), end, (30, 30, 30), 6)
        return pixels

    [clock, lower_clock, later_clock], _ = make_last_thumbnails(
        [draw_clock(0.2), draw_clock(0.2, down=1), draw_clock(0.8)]
    )
    assert likeness(clock[None], lower_clock[None])[0] > 0.97 and likeness(clock[None], later_clock[None])[0] < 0.9


def test_ground_of_a_cropped_sign_has_a_separate_thumbnail():
    sign = np.full((120, 120, 3), 255, np.uint8)
    cv2.rectangle(sign, (8, 0), (111, 119), (200, 40, 40), -1)
    cv2.rectangle(sign, (0, 8), (119, 111), (200, 40, 40), -1)  # its corners are white
    cv2.putText(sign, "B", (38, 82), cv2.FONT_HERSHEY_SIMPLEX, 2, (255, 255, 255), 8)
    [sign_thumbnail] = thumbnails_of(sign)
    crop = thumbnails_of(np.ascontiguousarray(sign[12:, 12:]))
    assert len(crop) == 2 and crop[0].extent > crop[1].extent

    def compare(thumbnail):
        contents = [np.frombuffer(view.content, np.uint8)[None] for view in (sign_thumbnail, thumbnail)]
        return likeness(*contents, np.log([thumbnail.shape / sign_thumbnail.shape]))[0]

    assert compare(crop[0]) > 0.95 > compare(crop[1])


def test_borders_are_trimmed_as_by_a_plain_loop():
    def count_even_lines(image, level):
        lines = 0
        while lines < len(image) and (np.abs(image[lines].astype(int) - level) > EVEN).mean() <= 0.02:
            lines += 1
        return lines

    rng = np.random.default_rng(0)
    for number in range(30):
        inner = make_distinct_image(number, 60)[..., 0]
        top, bottom, left, right = rng.integers(0, 20, 4).tolist()
        framed = np.full((60 + top + bottom, 60 + left + right), rng.integers(0, 256), np.uint8)
        framed[top : top + 60, left : left + 60] = inner
        framed = np.clip(framed + rng.integers(-9, 10, framed.shape), 0, 255).astype(np.uint8)
        rows, columns = slice(0, len(framed)), slice(0, framed.shape[1])
        while True:
            image = framed[rows, columns]
            sides = (image, image[::-1], image.T, image.T[::-1])  # from the top, the bottom, the left and the right
            lines = [count_even_lines(side, int(np.median(side[0]))) for side in sides]
            if not any(lines):
                break
            rows = slice(rows.start + lines[0], rows.stop - lines[1])
            columns = slice(columns.start + lines[2], columns.stop - lines[3])
        assert trimmed(framed)[-1] == (rows, columns)


def test_colours_distinguish_unless_an_image_is_grey():
    red, blue = np.full((64, 64, 3), 255, np.uint8), np.full((64, 64, 3), 255, np.uint8)
    red[16:48, 20:50], blue[16:48, 20:50] = (200, 30, 30), (40, 60, 210)
    grey = np.repeat(np.asarray(Image.fromarray(red).convert("L"))[..., None], 3, axis=2)
    thumbnails = [np.frombuffer(thumbnails_of(pixels)[-1][0], np.uint8)[None] for pixels in (red, blue, grey)]
    assert likeness(thumbnails[0], thumbnails[1])[0] < 0.9 < 0.97 < likeness(thumbnails[0], thumbnails[2])[0]


@pytest.mark.thorough
def test_neighbours_of_many_vectors_are_those_of_all_products(monkeypatch):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 16))
    vectors = (np.repeat(centres, 40, axis=0) + 0.25 * rng.normal(size=(2400, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    products = np.triu(vectors @ vectors.T, 1)
    expected = set(map(tuple, np.argwhere(products >= 0.95).tolist()))
    assert len(expected) > 1000
    for exact, queries in ((20_000, None), (100, None), (20_000, vectors), (100, vectors)):
        monkeypatch.setattr("ernie_vil2.apps.curation.thumbnails.EXACT", exact)
        monkeypatch.setattr("ernie_vil2.apps.curation.thumbnails.QUERIES", 1000)
        actual = set()
        for pairs in neighbours(vectors, 0.95, queries):
            actual |= {(min(pair), max(pair)) for pair in zip(pairs.queries.tolist(), pairs.rows.tolist(), strict=True)}
        actual -= {(row, row) for row in range(2400)}  # a vector that is a query as well is its own neighbour
        recall = 1.0 if exact > 2400 else 0.98
        assert actual <= expected and len(actual) >= recall * len(expected)


def test_only_the_best_captions_of_a_template_stay(tmp_path, curated):
    captions = [f"buy the new wallpaper of mountains in high resolution, no. {number}" for number in range(6)]
    captions += ["a white cat on a sofa", "a black dog in the snow", "ok", "ok"]
    sizes = [40, 64, 48, 96, 56, 50, 40, 40, 40, 40]
    rows = [(encode_image(make_distinct_image(number, size)), caption)
            for number, (size, caption) in enumerate(zip(sizes, captions, strict=True))]  # fmt: skip
    path = write_pair_shard(tmp_path / "crawl.tar", rows)
    table = curated([path], "near_texts: {most: 2, likeness: 0.7}\nimage_rules: {short_side: 8}").values()
    assert {row["sample"] for row in table if not row["is_kept"]} == {0, 2, 4, 5}
    assert {(row["reason"], row["nearest"]) for row in table if not row["is_kept"]} == {("near-duplicate caption", 3)}


def test_sketches_agree_in_the_share_of_common_pieces():
    texts = [f"{'abcdefghij' * 3}{number:04}{'klmnopqrst'[number % 10] * (number % 7)}" for number in range(60)]
    pieces = []
    for text in texts:
        pieces.append({text[start : start + 3] for start in range(len(text) - 2)})
    sketches = [np.frombuffer(compute_sketch(text), np.uint32) for text in texts]
    shares, agreements = [], []
    for first in range(60):
        for second in range(first):
            shares.append(len(pieces[first] & pieces[second]) / len(pieces[first] | pieces[second]))
            agreements.append((sketches[first] == sketches[second]).mean())
    assert np.mean(agreements) == pytest.approx(np.mean(shares), abs=0.08)
    assert compute_sketch("ok then") is None


def test_copies_of_a_pair_are_found_without_steps_that_read_captions(tmp_path, curated):

    pixels = encode_image(make_distinct_image(1))
    path = write_pair_shard(tmp_path / "a.tar", [(pixels, "a cat"), (pixels, "a dog"), (pixels, "A cat!")])
    rows = curated([path], "exact_duplicates: {of: pair}").values()
    assert [row["reason"] for row in rows] == [None, None, "copy of a pair"]
