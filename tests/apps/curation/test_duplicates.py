"""Duplicates and leaks: images altered as others put them up, and a benchmark that hides in the training set."""

import json
import tracemalloc
from contextlib import closing

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from ernie_vil2.apps.curation.details import compare_details, complete_verdict, decode_detail
from ernie_vil2.apps.curation.guesses import Comparison
from ernie_vil2.apps.curation.image_pairs import find_matches
from ernie_vil2.apps.curation.joins import Joins, MeasuresFile
from ernie_vil2.apps.curation.likeness import (
    MAX_BORDER_DEVIATION,
    find_content,
    make_orientation_transform,
    make_thumbnails,
    make_vectors,
    orient,
    split_thumbnail,
    turn_vectors,
)
from ernie_vil2.apps.curation.local_features import (
    FEATURE,
    describe_features,
    mirror_keypoints,
    normalise_descriptors,
)
from ernie_vil2.apps.curation.neighbours import neighbours
from ernie_vil2.apps.curation.registration import (
    FINE_LEVEL,
    LEVELS,
    compare,
    is_plausible,
    make_pyramid,
    make_view,
    register,
)
from ernie_vil2.apps.curation.steps import near_duplicates
from ernie_vil2.apps.curation.steps.leaks import Leaks, Settings
from ernie_vil2.apps.curation.steps.near_texts import compute_sketch
from ernie_vil2.apps.curation.thumbnails import pack_thumbnails
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
    """Twelve images, and behind them an altered copy of each, two of each kind."""
    originals = [make_distinct_image(number, SIZE) for number in range(12)]
    rows = [(encode_image(pixels), f"{CAPTION} {number}") for number, pixels in enumerate(originals)]
    rows += [
        (alter_image(pixels, KINDS[number % 6]), f"{CAPTION} {number} again") for number, pixels in enumerate(originals)
    ]
    return write_pair_shard(tmp_path / "crawl.tar", rows)


def test_altered_copies_are_dropped_and_originals_stay(crawl, curated):
    table = list(curated([crawl], RULES + "\nimage_rules: {short_side: 8}").values())
    nearest_of_dropped = {row["sample"]: row["nearest"] for row in table if not row["is_kept"]}
    families = {frozenset(pair) for pair in nearest_of_dropped.items()}
    assert families == {frozenset((number, number + 12)) for number in range(12)}
    # What was put into a frame is larger than what it was made of, but for its frame.
    assert {row["sample"] for row in table if row["is_kept"]} == set(range(12))
    reasons = {row["sample"] % 6: row["reason"] for row in table if not row["is_kept"]}
    assert reasons == {
        number: "mirrored or turned image" if number == 5 else "near-duplicate image" for number in range(6)
    }


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
    path = write_pair_shard(tmp_path / "chain.tar", [(encode_image(pixels), CAPTION) for pixels in blends])
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


def test_replaced_image_of_a_benchmark_is_compared(tmp_path, crawl, curated):
    (tmp_path / "test.csv").write_text("image,caption\nscored.png,a scored picture\n")
    for number, num_leaks in ((77, 0), (0, 2)):
        (tmp_path / "scored.png").write_bytes(encode_image(make_distinct_image(number, SIZE)))
        rows = curated([crawl], f"leaks: {{benchmarks: [{tmp_path}/test.csv], likeness: 0.93}}").values()
        assert sum(not row["is_kept"] for row in rows) == num_leaks


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


def test_equal_captions_are_compared_with_a_benchmark_once(tmp_path):
    sketch = compute_sketch("one or more people standing outdoors")
    columns = {"row": pa.array(range(3000), pa.int32()), "error": pa.nulls(3000, pa.string())}
    columns["long_sketches"] = pa.array([[sketch]] * 3000, pa.list_(pa.binary()))
    parquet.write_table(pa.table(columns), tmp_path / "measures.parquet")
    with closing(Joins([MeasuresFile(tmp_path / "measures.parquet", 0)], tmp_path)) as joins:
        tracemalloc.start()
        samples = Leaks(Settings())._match_captions(joins, [sketch] * 1000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert samples == set(range(3000))
    assert peak < 5e7  # three million pairs of captions have 384 MB of hashes


def test_unreadable_benchmark_is_named_before_any_work(tmp_path, crawl, curated):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="leaks: .*empty"):
        curated([crawl], f"leaks: {{benchmarks: [{tmp_path}/empty]}}")
    with pytest.raises(ValueError, match="leaks.benchmarks"):
        curated([crawl], "leaks: {}")
    assert not (tmp_path / "curated" / "table").exists()


def compare_images(first, second, guess=None):
    """Return the verdict about two images, and None; the guess is that both have the same frame."""
    thumbnails = [make_thumbnails(np.ascontiguousarray(pixels))[0] for pixels in (first, second)]
    views = [make_view(*split_thumbnail(np.frombuffer(thumbnail.content, np.uint8))) for thumbnail in thumbnails]
    transform = np.eye(2, 3, dtype=np.float32) if guess is None else guess
    pyramids = [(*make_pyramid(view.fine), cv2.GaussianBlur(view.fine, (5, 5), 0)) for view in views]
    for level, template, image in zip((*LEVELS[1:], FINE_LEVEL), *pyramids, strict=True):
        transforms, _ = register(template[None], image[None], transform[None], level)
        transform = transforms[0]
    aspects = np.array([[thumbnail.shape for thumbnail in thumbnails]])
    verdict = compare(*views, transform, aspects[0]) if is_plausible(transform[None], aspects).item() else None
    if verdict is None:
        return None
    pictures = []
    for thumbnail in thumbnails:
        detail, box = np.frombuffer(thumbnail.detail, np.uint8), np.frombuffer(thumbnail.box, np.float32)
        pictures.append(decode_detail(detail, box))
    return complete_verdict(verdict, compare_details(*pictures, transform))


def draw_scene(seed=0):
    """Return balls of many colours on a plain ground."""
    rng = np.random.default_rng(seed)
    pixels = np.full((200, 240, 3), rng.integers(60, 180, 3), np.uint8)
    for _ in range(30):
        colour = tuple(map(int, rng.integers(30, 220) + rng.integers(-30, 31, 3)))  # pale, as of photographs
        centre, radius = tuple(map(int, rng.integers(0, 240, 2))), int(rng.integers(6, 30))
        cv2.circle(pixels, centre, radius, colour, -1)
    return pixels


def change_light(pixels, curve):
    return np.clip(curve(pixels.astype(np.float32)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "curve",
    [
        lambda levels: 0.5 * levels,
        lambda levels: 1.5 * levels,
        lambda levels: 0.6 * (levels - 120) + 120,
        lambda levels: 255 * (levels / 255) ** 2,
    ],
)
def test_light_does_not_distinguish(curve):
    scene = draw_scene()
    verdict = compare_images(scene, change_light(scene, curve))
    assert verdict.likeness > 0.96 and not verdict.is_local and not verdict.is_turned


def test_another_hue_and_another_scene_are_other_images():
    scene = draw_scene()
    painted = scene.copy()
    cv2.circle(painted, (120, 100), 70, (200, 40, 40), 20)
    assert compare_images(painted, painted[..., ::-1]) is None
    assert compare_images(scene, draw_scene(1)) is None
    grey = np.repeat(cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    assert compare_images(scene, grey) is not None


def make_pale_texture(seed=0):
    """Return clouds of light with pale colours, as photographs have them."""
    rng = np.random.default_rng(seed)
    light = cv2.GaussianBlur(rng.normal(size=(200, 240)).astype(np.float32), (0, 0), 4)
    colours = cv2.GaussianBlur(rng.normal(size=(200, 240, 3)).astype(np.float32), (0, 0), 16)
    pixels = 120 + 30 * light[..., None] / light.std() + 9 * colours / colours.std() + np.array([8, 0, -8])
    return np.clip(pixels, 0, 255).astype(np.uint8)


def test_turned_hue_of_pale_colours_is_another_image():
    pale = make_pale_texture()
    assert compare_images(pale, pale[..., [1, 2, 0]]) is None
    assert compare_images(pale, pale[..., ::-1]) is None
    tinted = np.clip(pale * np.array([1.06, 0.94, 0.94]), 0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(pale, cv2.COLOR_RGB2HSV)
    hsv[..., 1] //= 2
    for copy in (tinted, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)):
        assert not compare_images(pale, copy).is_local


def test_a_spot_is_local_and_a_mark_in_a_corner_is_not():
    scene = draw_scene()
    spotted, marked = scene.copy(), scene.copy()
    cv2.circle(spotted, (120, 100), 14, (250, 250, 20), -1)
    cv2.rectangle(marked, (190, 180), (236, 196), (250, 250, 20), -1)
    assert compare_images(scene, spotted).is_local
    assert not compare_images(scene, marked).is_local


def test_a_sticker_hides_no_image():
    guess = np.array([[1, 0, 1], [0, 1, -1]], np.float32)
    for seed in (2, 3, 6):  # scenes of many colours; on plain ones a sticker is most of what there is
        for left, top in [(20, 20), (90, 60), (140, 110)]:
            covered = draw_scene(seed)
            covered[top : top + 60, left : left + 70] = (40, 40, 160)
            verdict = compare_images(draw_scene(seed), covered, guess)
            assert verdict is not None and verdict.is_local


def test_plain_shapes_in_other_light_differ_locally():
    def draw_square(level):
        pixels = np.full((128, 128, 3), 255, np.uint8)
        pixels[48:80, 48:80] = level
        return pixels

    assert not compare_images(draw_square(60), draw_square(66)).is_local
    other = compare_images(draw_square(60), draw_square(130))
    assert other is None or other.is_local


def test_dimmed_plain_shapes_are_copies_unless_the_ground_stays():
    def draw_disc(ground, colour):
        pixels = np.full((128, 128, 3), ground, np.uint8)
        cv2.circle(pixels, (50, 60), 40, colour, -1)
        cv2.line(pixels, (0, 115), (127, 100), (120, 40, 40), 9)
        return pixels

    bright, dark = draw_disc((230, 220, 200), (60, 90, 160)), draw_disc((0, 0, 0), (60, 90, 160))
    assert not compare_images(bright, change_light(bright, lambda levels: 0.6 * levels)).is_local
    for disc, dimmed in (
        (bright, draw_disc((230, 220, 200), (30, 45, 80))),
        (dark, change_light(dark, lambda levels: 0.5 * levels)),
    ):
        other = compare_images(disc, dimmed)
        assert other is None or other.is_local


def draw_cards(seed):
    """Return three white cards with balls on a dark ground."""
    rng = np.random.default_rng(seed)
    pixels = np.full((128, 160, 3), rng.integers(60, 150, 3), np.uint8)
    for left in (10, 60, 110):
        top = int(rng.integers(5, 75))
        cv2.rectangle(pixels, (left, top), (left + 40, top + 46), (255, 255, 255), -1)
        for radius, max_level in ((18, 240), (7, 200)):
            colour = tuple(map(int, rng.integers(20, max_level, 3)))
            cv2.circle(pixels, (left + 20, top + 23), radius, colour, -1)
    return pixels


@pytest.mark.parametrize("seed", range(4))
def test_light_that_is_cut_off_at_white_does_not_distinguish(seed):
    cards = draw_cards(seed)
    verdict = compare_images(cards, change_light(cards, lambda levels: 1.5 * levels))
    assert verdict.likeness > 0.95 and not verdict.is_local


def test_another_ground_is_local_and_less_contrast_is_not():
    def draw_balls(ground):
        pixels = np.full((128, 160, 3), ground, np.uint8)
        for number, level in enumerate((100, 140, 170, 120)):
            cv2.circle(pixels, (30 + 33 * number, 40 + 16 * number), 18, (level, level, level), -1)
        return pixels

    balls = draw_balls(250)
    assert not compare_images(balls, change_light(balls, lambda levels: 0.6 * (levels - 200) + 200)).is_local
    other = compare_images(balls, draw_balls(220))
    assert other is None or other.is_local


def test_moved_clock_hand_is_no_duplicate_and_a_shift_is():
    """Clocks whose hand points elsewhere are two images; a clock that lies a pixel lower is the same."""

    def draw_clock(angle, down=0):
        pixels = np.full((128, 128, 3), 255, np.uint8)
        cv2.circle(pixels, (64, 64 + down), 56, (40, 120, 200), 8)
        end = 64 + round(40 * np.cos(angle)), 64 + down + round(40 * np.sin(angle))
        cv2.line(pixels, (64, 64 + down), end, (30, 30, 30), 6)
        return pixels

    clock = draw_clock(0.2)
    assert not compare_images(clock, draw_clock(0.2, down=1)).is_local
    later = compare_images(clock, draw_clock(0.8))
    assert later is None or later.is_local


@pytest.mark.parametrize("orientation", range(8))
def test_vectors_and_transforms_turn_as_pixels_do(orientation):
    luminance = cv2.cvtColor(cv2.resize(draw_scene(), (64, 64)), cv2.COLOR_RGB2GRAY)
    turned = np.ascontiguousarray(orient(luminance, orientation))
    np.testing.assert_allclose(
        turn_vectors(make_vectors(luminance[None]), orientation), make_vectors(turned[None]), atol=1e-5
    )
    warped = cv2.warpAffine(luminance, make_orientation_transform(orientation), (64, 64), flags=cv2.WARP_INVERSE_MAP)
    np.testing.assert_array_equal(warped, turned)


def test_mirrored_features_are_those_of_the_mirrored_image():
    luminance = cv2.cvtColor(cv2.resize(draw_scene(), (64, 64)), cv2.COLOR_RGB2GRAY)
    features = np.frombuffer(describe_features(luminance), FEATURE)
    expected = np.frombuffer(describe_features(np.ascontiguousarray(luminance[:, ::-1])), FEATURE)
    descriptors = normalise_descriptors(features["descriptor"], is_mirrored=True)
    cosines = descriptors @ normalise_descriptors(expected["descriptor"]).T
    assert np.median(cosines.max(axis=1)) > 0.99
    nearest = expected["keypoint"][cosines.argmax(axis=1)]
    assert np.median(np.abs(nearest[:, :2] - mirror_keypoints(features["keypoint"])[:, :2])) < 0.05


ALTERATIONS = {
    "crop to 70 %": lambda pixels: pixels[50:190, 60:228],
    "turn by 3 degrees": lambda pixels: cv2.warpAffine(
        pixels, cv2.getRotationMatrix2D((120, 100), 3, 1), (240, 200), borderValue=(255, 255, 255)
    ),
    "bar": lambda pixels: np.concatenate([np.tile(draw_scene(7)[:24, :8], (1, 30, 1)), pixels]),
    "stretch": lambda pixels: cv2.resize(pixels, (240, 150)),
    "quarter turn": lambda pixels: np.rot90(pixels),
    "mirror": lambda pixels: pixels[:, ::-1],
}


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_altered_photographs_are_found_among_others(tmp_path, kind):
    images = pack_images([draw_scene(seed) for seed in range(12)])
    queries = pack_images([ALTERATIONS[kind](draw_scene(seed)) for seed in range(6)])
    pairs = set()
    for matches in find_matches(images, tmp_path, Comparison(), queries):
        samples = queries.samples[matches.queries], images.samples[matches.rows]
        pairs |= set(zip(*(values.tolist() for values in samples), strict=True))
        assert matches.is_turned.all() == (kind in ("quarter turn", "mirror"))
    assert pairs <= {(number, number) for number in range(6)}
    assert len(pairs) >= 5


def test_equal_queries_have_the_pairs_of_the_first(tmp_path):
    images = pack_images([draw_scene(seed) for seed in (1, 2, 1)])
    queries = pack_images([draw_scene(seed) for seed in (3, 1, 1, 2, 1)])
    pairs = []
    for matches in find_matches(images, tmp_path, Comparison(), queries, unique_queries=True):
        pairs += zip(queries.samples[matches.queries].tolist(), images.samples[matches.rows].tolist(), strict=True)
    assert set(pairs) == {(1, 0), (1, 2), (3, 1)}


@pytest.mark.parametrize("kind", ["corner mark", "faint marks", "address bar", "crop"])
def test_the_image_without_marks_stays(tmp_path, curated, kind):
    rows = []
    for number in range(4):
        light = np.linspace(0.5, 1.2, 300)[None, :, None]
        scene = np.clip(cv2.resize(draw_scene(number), (300, 250)) * light, 0, 255).astype(np.uint8)
        worse = scene.copy()
        if kind == "corner mark":
            cv2.putText(worse, "PHOTO 12", (200, 240), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
        elif kind == "faint marks":
            marks = np.zeros((250, 300), np.uint8)
            for left, top in [(x, y) for x in (10, 160) for y in (40, 120, 200)]:
                cv2.putText(marks, "PHOTO 12", (left, top), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
            worse = np.where(marks[..., None], scene * 0.8 + 51, scene).astype(np.uint8)
        elif kind == "address bar":
            bar = np.full((30, 300, 3), 235, np.uint8)
            cv2.putText(bar, "www.example.com", (20, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1)
            worse = np.concatenate([bar, worse])
        else:
            worse = cv2.resize(worse[30:230, 30:270], (450, 375))
        rows += [(encode_image(worse), f"{CAPTION} {number}"), (encode_image(scene), f"{CAPTION} {number}")]
    path = write_pair_shard(tmp_path / "crawl.tar", rows)
    removed = {row["sample"] for row in curated([path], "near_duplicates: {}").values() if not row["is_kept"]}
    assert len(removed) == 4 and len(removed & {0, 2, 4, 6}) >= 3


ADVANTAGES = {
    "blurred": {"is sharper"},
    "enlarged": {"is sharper"},
    "compressed": {"is sharper", "is less compressed"},
    "noisy": {"has less noise"},
}


@pytest.mark.parametrize("kind", ADVANTAGES)
def test_the_sharper_image_stays_and_the_table_says_why(tmp_path, curated, kind):
    rows = []
    rng = np.random.default_rng(0)
    for number in range(4):
        light = np.linspace(0.5, 1.2, 240)[None, :, None]  # no edge is even, so that none is cut off
        scene = np.clip(draw_scene(number) * light, 0, 255).astype(np.uint8)
        worse = encode_image(scene, "JPEG", quality=25)
        if kind == "blurred":
            worse = encode_image(cv2.GaussianBlur(scene, (0, 0), 2))
        elif kind == "enlarged":
            small = cv2.resize(scene, (80, 67), interpolation=cv2.INTER_AREA)
            worse = encode_image(cv2.resize(small, (480, 400), interpolation=cv2.INTER_CUBIC))
        elif kind == "noisy":
            worse = encode_image(np.clip(scene + rng.normal(0, 16, scene.shape), 0, 255).astype(np.uint8))
        # The caption of the worse image is longer.
        rows += [(worse, f"{CAPTION} {number}, seen from above"), (encode_image(scene), f"{CAPTION} {number}")]
    path = write_pair_shard(tmp_path / "crawl.tar", rows)
    table = curated([path], "near_duplicates: {}").values()
    nearest_of_removed = {row["sample"]: row["nearest"] for row in table if not row["is_kept"]}
    assert nearest_of_removed == {number: number + 1 for number in (0, 2, 4, 6)}
    advantages = {row["advantage"] for row in table if not row["is_kept"]}
    assert advantages <= ADVANTAGES[kind]


def test_caption_with_fewer_faults_stays(tmp_path, curated):
    pixels = encode_image(make_distinct_image(1))
    captions = [f"{CAPTION} one, which is wonderful #wonderful", f"{CAPTION} one"]
    path = write_pair_shard(tmp_path / "a.tar", [(pixels, caption) for caption in captions])
    rows = list(curated([path], "{text_rules: {}, exact_duplicates: {}}").values())
    assert [row["is_kept"] for row in rows] == [False, True]
    assert rows[0]["advantage"] == "has a caption with fewer faults" and rows[1]["advantage"] is None


def test_few_of_many_equal_images_are_compared(tmp_path, curated, monkeypatch):
    """Without the step exact_duplicates, a crawl may show one placeholder in thousands of pairs."""
    compared = []
    monkeypatch.setattr(near_duplicates, "say_the_same", lambda first, second: compared.append((first, second)))
    monkeypatch.setattr(near_duplicates, "MAX_EQUAL_IMAGES", 4)
    placeholder, other = encode_image(make_distinct_image(1)), encode_image(make_distinct_image(2))
    rows = [(placeholder, f"a view of house {number % 60}") for number in range(90)] + [(other, "a view of a lake")]
    table = list(curated([write_pair_shard(tmp_path / "crawl.tar", rows)], "near_duplicates: {}").values())
    # Captions that differ in a number are of different images. A caption that is repeated goes.
    assert [row["nearest"] for row in table] == [None] * 4 + [0] * 56 + list(range(30)) + [None]
    assert len(compared) == 6


def pack_images(images):
    return pack_thumbnails([make_thumbnails(np.ascontiguousarray(pixels)) for pixels in images])


def test_spots_are_removed_only_if_captions_agree(tmp_path, curated):
    rows = []
    for number in range(4):
        scene = draw_scene(number)
        spotted = scene.copy()
        cv2.circle(spotted, (120, 100), 14, (250, 250, 20), -1)
        caption = f"balls of many colours on a table, seen from above in room {number}"
        rows.append((encode_image(scene), caption))
        rows.append((encode_image(spotted), caption if number < 2 else f"the sun rises over city {number}"))
    path = write_pair_shard(tmp_path / "crawl.tar", rows)
    table = curated([path], "near_duplicates: {}").values()
    removed = {frozenset((row["sample"], row["nearest"])) for row in table if not row["is_kept"]}
    assert removed == {frozenset((0, 1)), frozenset((2, 3))}
    similar = json.loads((tmp_path / "curated" / "curation.json").read_text())["figures"]["near_duplicates"]
    assert [(pair["sample"], pair["similar"]) for pair in similar] == [(4, 5), (6, 7)]


def draw_set_square(number):
    """Return a plain thing on an even ground, `[400, 400, 3]` uint8."""
    pixels = np.full((400, 400, 3), (222, 234, 250), np.uint8)
    corners = np.array([(80, 110), (80, 340), (290 - 12 * number, 340)])
    cv2.fillPoly(pixels, [corners], (120, 190, 200))
    cv2.fillPoly(pixels, [corners // 2 + (70, 132)], (250, 250, 245))
    for mark in range(5 + number):
        cv2.line(pixels, (84, 150 + 20 * mark), (104, 150 + 20 * mark), (40, 60, 90), 4)
    return pixels


def test_a_sticker_beside_a_thing_is_found_by_equal_captions(tmp_path, curated):
    """The thing fills its thumbnail, from which the even ground is cut off, but not the one with the sticker."""
    rows = []
    for number in range(4):
        goods = draw_set_square(number)
        stickered = goods.copy()
        cv2.circle(stickered, (310, 85), 34, (214, 30, 40), -1)
        caption = f"a set square in a box of {(10, 12, 50, 80)[number]}"
        rows.append((encode_image(goods), caption))
        rows.append((encode_image(stickered), caption if number < 2 else f"the sun rises over city {number}"))
    path = write_pair_shard(tmp_path / "crawl.tar", rows)
    table = curated([path], "near_duplicates: {}").values()
    removed = {row["sample"]: row["nearest"] for row in table if not row["is_kept"]}
    assert removed == {1: 0, 3: 2}


def test_borders_are_trimmed_as_by_a_plain_loop():
    def count_even_lines(image, level):
        lines = 0
        while lines < len(image) and (np.abs(image[lines].astype(int) - level) > MAX_BORDER_DEVIATION).mean() <= 0.02:
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
        assert find_content(framed)[-1] == (rows, columns)


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
        monkeypatch.setattr("ernie_vil2.apps.curation.neighbours.MAX_EXACT_VECTORS", exact)
        monkeypatch.setattr("ernie_vil2.apps.curation.neighbours.QUERIES_PER_PASS", 1000)
        actual = set()
        for pairs in neighbours(vectors, 0.95, queries):
            actual |= {(min(pair), max(pair)) for pair in zip(pairs.queries.tolist(), pairs.rows.tolist(), strict=True)}
        actual -= {(row, row) for row in range(2400)}  # a vector that is a query as well is its own neighbour
        recall = 1.0 if exact > 2400 else 0.98
        assert actual <= expected and len(actual) >= recall * len(expected)


@pytest.mark.parametrize("max_exact_vectors", [20_000, 100])
def test_equally_near_vectors_have_a_linear_number_of_pairs(monkeypatch, max_exact_vectors):
    """One picture with thousands of different margins has as many equal vectors."""
    monkeypatch.setattr("ernie_vil2.apps.curation.neighbours.MAX_EXACT_VECTORS", max_exact_vectors)
    monkeypatch.setattr("ernie_vil2.apps.curation.neighbours.MAX_TIES", 10)
    vectors = np.zeros((400, 16), np.float32)
    vectors[:, 0] = 1
    pairs = [np.stack([block.queries, block.rows]) for block in neighbours(vectors, 0.9, vectors, most=4)]
    queries, rows = np.concatenate(pairs, axis=1)
    np.testing.assert_array_equal(np.bincount(queries), 10)
    np.testing.assert_array_equal(np.bincount(rows), 10)


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


def test_captions_of_a_template_with_other_words_stay(tmp_path, curated):
    template = "watercolor illustration of a {} isolated on a white background, hand drawn clip art, no. {}"
    animals = ["cat", "dog", "fox", "owl", "cow"]
    captions = [template.format(animal, number) for number, animal in enumerate(animals)]
    captions += [
        "客厅里摆放着一张红色沙发，旁边有一盏落地灯和一盆绿植",
        "客厅里摆放着一张蓝色沙发，旁边有一盏落地灯和一盆绿植",
    ]
    rows = [(encode_image(make_distinct_image(number, 40)), caption) for number, caption in enumerate(captions)]
    table = curated([write_pair_shard(tmp_path / "crawl.tar", rows)], "near_texts: {most: 1, likeness: 0.6}").values()
    assert all(row["is_kept"] for row in table)


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
