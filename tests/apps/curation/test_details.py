"""Details by which images differ that thumbnails take for the same, and captions that name two things."""

import json

import cv2
import numpy as np
import pytest

from ernie_vil2.apps.curation.caption_pairs import (
    differ_in_numbers,
    is_variant,
    name_opposite_directions,
    name_other_colours,
    name_other_years,
    say_the_same,
)
from ernie_vil2.apps.curation.details import (
    compare_beside_sticker,
    compare_details,
    decode_detail,
    encode_detail,
)
from ernie_vil2.apps.curation.likeness import limit_size
from tests.support.crawled_pairs import write_pair_shard
from tests.support.image_formats import encode_image

HEIGHT, WIDTH = 300, 400


def draw_object(ground=(255, 255, 255), seed=0):
    """Return a round thing of many colours on a plain ground."""
    rng = np.random.default_rng(seed)
    pixels = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    cv2.circle(pixels, (200, 150), 90, (120, 90, 60), -1)
    for _ in range(12):
        place = tuple((np.array([200, 150]) + rng.integers(-55, 56, 2)).tolist())
        cv2.circle(pixels, place, int(rng.integers(8, 22)), tuple(rng.integers(30, 200, 3).tolist()), -1)
    return pixels


def draw_letter(pixels, letter, place=(185, 165)):
    written = pixels.copy()
    cv2.putText(written, letter, place, cv2.FONT_HERSHEY_SIMPLEX, 2, (20, 20, 90), 6)
    return written


def make_pictures(*images):
    details = [np.frombuffer(encode_detail(limit_size(pixels)), np.uint8) for pixels in images]
    return [decode_detail(detail, np.array([0, 0, 1, 1])) for detail in details]


def compare_images(*images, transform=None):
    """Compare two images; without a map between their thumbnails, they lie on each other as they are."""
    return compare_details(*make_pictures(*images), np.eye(2, 3) if transform is None else transform)


def differ(*images):
    return compare_images(*images).has_spot


def test_letters_and_buttons_are_spots():
    thing = draw_object()
    assert differ(draw_letter(thing, "A"), draw_letter(thing, "K"))
    buttons = []
    for colour in ((200, 40, 40), (40, 40, 200)):
        buttons.append(cv2.circle(thing.copy(), (200, 150), 6, colour, -1))
    assert differ(*buttons)


def draw_poster(line, place=(150, 272)):
    """Return a poster with a small line of text at its lower edge."""
    poster = draw_object((240, 235, 220))
    cv2.rectangle(poster, (0, 240), (WIDTH, HEIGHT), (90, 70, 40), -1)
    return cv2.putText(poster, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (240, 230, 210), 1, cv2.LINE_AA)


def have_other_object(*images):
    return compare_images(*images).has_object


def test_other_small_letters_at_an_edge_are_an_object():
    poster = draw_poster("7 Oct 18:45")
    assert have_other_object(poster, draw_poster("23 Mar 20:15"))
    assert have_other_object((poster * 0.8).astype(np.uint8), draw_poster("23 Mar 20:15"))
    assert not have_other_object(poster, draw_poster(""))  # a mark is in one image alone
    for change in ("darker", "gamma", "compressed", "smaller"):
        assert not have_other_object(poster, HARMLESS[change](poster))
    assert not have_other_object(poster, draw_thin_mark(poster))


def draw_thin_mark(pixels):
    """Return an image with a thin line of text in its corner: OpenCV 5 writes thick lines as bold, solid letters."""
    return cv2.putText(pixels.copy(), "shop", (330, 272), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1)


def draw_mug(word):
    """Return a mug with shading and a word in white."""
    mug = np.full((HEIGHT, WIDTH, 3), (230, 225, 215), np.uint8)
    shade = 0.2 + 0.8 * np.sin(np.linspace(0.2, np.pi - 0.1, 200))
    mug[40:270, 100:300] = (np.array([150, 95, 60]) * shade[:, None]).astype(np.uint8)
    return cv2.putText(mug, word, (125, 180), cv2.FONT_HERSHEY_SIMPLEX, 1, (250, 250, 250), 5, cv2.LINE_AA)


def test_other_words_on_a_shaded_ground_are_an_object():
    mug = draw_mug("PARIS")
    assert have_other_object(mug, draw_mug("MOUSE"))
    assert have_other_object(HARMLESS["compressed"](mug), draw_mug("MOUSE"))
    for change in (*LIGHT_AND_NOISE.values(), draw_thin_mark):
        assert not have_other_object(mug, change(mug))


def compress(pixels):
    content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


LIGHT_AND_NOISE = {
    "darker": lambda pixels: (pixels * 0.6).astype(np.uint8),
    "gamma": lambda pixels: (255 * (pixels / 255) ** 1.6).astype(np.uint8),
    "compressed": compress,
    "noisy": lambda pixels: np.clip(pixels + np.random.default_rng(0).normal(0, 12, pixels.shape), 0, 255).astype(
        np.uint8
    ),
    "blurred": lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 4),
    "smaller": lambda pixels: cv2.resize(pixels, (160, 120), interpolation=cv2.INTER_AREA),
}
HARMLESS = {**LIGHT_AND_NOISE, "marked": lambda pixels: draw_letter(pixels, "shop", (300, 290))}


@pytest.mark.parametrize("kind", HARMLESS)
def test_light_noise_and_marks_at_an_edge_are_no_spot(kind):
    for ground in ((255, 255, 255), (70, 90, 120)):
        thing = draw_object(ground)
        assert not differ(thing, HARMLESS[kind](thing))


def test_another_ground_makes_another_image():
    thing = draw_object()
    assert not differ(thing, draw_object())
    assert differ(thing, draw_object((225, 238, 252)))
    tinted = np.clip(thing * np.array([0.88, 0.93, 0.99]), 0, 255).astype(np.uint8)  # the thing as well
    assert not differ(thing, tinted)


def test_another_texture_makes_another_image():
    def draw_on_cloth(seed):
        cloth = np.random.default_rng(seed).normal(0, 40, (HEIGHT, WIDTH))
        return np.clip(draw_object((90, 120, 160)) + cv2.GaussianBlur(cloth, (0, 0), 4)[..., None] * 5, 0, 255).astype(
            np.uint8
        )

    assert differ(draw_on_cloth(0), draw_on_cloth(1))
    assert not differ(draw_on_cloth(0), compress(draw_on_cloth(0)))


PALE_TEAL, PALE_PURPLE, PALE_GREY = (120, 200, 205), (185, 165, 220), (175, 178, 176)


def draw_card(ground):
    """Return a card with a frame and a sign on it."""
    pixels = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    cv2.rectangle(pixels, (15, 15), (WIDTH - 15, HEIGHT - 15), (60, 60, 60), 2)
    return cv2.drawMarker(pixels, (200, 150), (60, 60, 60), cv2.MARKER_DIAMOND, 60, 2)


def draw_vase(colour):
    """Return a shaded thing of one colour before a black cloth."""
    pixels = np.random.default_rng(0).normal(25, 4, (HEIGHT, WIDTH, 3))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot((columns - 200) / 90, (rows - 150) / 120)
    shade = (1.1 - 0.5 * distance + 0.15 * np.sin(columns / 6))[..., None]
    pixels = np.where(distance[..., None] < 1, shade * colour, pixels)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def test_a_large_thing_of_another_colour_makes_another_image():
    vase = draw_vase((150, 40, 50))
    assert differ(vase, draw_vase((125, 80, 50)))  # as light, but brown
    grey = cv2.cvtColor(vase, cv2.COLOR_RGB2GRAY)[..., None]
    for saturation in (0, 0.5, 1.5):
        assert not differ(vase, np.clip(grey + saturation * (vase.astype(float) - grey), 0, 255).astype(np.uint8))


def test_pale_cards_of_another_hue_are_different():
    assert differ(draw_card(PALE_TEAL), draw_card(PALE_PURPLE))
    assert not differ(draw_card(PALE_TEAL), draw_card(PALE_GREY))


def test_the_outline_of_a_mark_tells_which_image_is_marked():
    texture = cv2.GaussianBlur(draw_object((90, 120, 160)), (0, 0), 3)
    for colour in ((240, 120, 20), (250, 250, 240)):
        marked = texture.copy()
        marked[180:240, 20:380] = colour  # plainer than what it covers
        smaller = cv2.resize(marked, (200, 150), interpolation=cv2.INTER_AREA)
        for image in (marked, smaller):
            assert compare_images(image, texture).worse == 1
            assert compare_images(texture, image).worse == -1
    assert compare_images(texture, (texture * 0.7).astype(np.uint8)).worse == 0


def draw_cup(pixels, place=(350, 250)):
    """Draw a small thing with a handle."""
    drawn = pixels.copy()
    cv2.circle(drawn, (place[0] + 16, place[1]), 12, (60, 120, 200), 6)
    cv2.rectangle(drawn, (place[0] - 20, place[1] - 20), (place[0] + 16, place[1] + 20), (60, 120, 200), -1)
    return drawn


def round_corners(pixels):
    height, width = pixels.shape[:2]
    inside = np.zeros((height, width, 3), np.uint8)
    cv2.rectangle(inside, (0, 50), (width, height - 50), (1, 1, 1), -1)
    cv2.rectangle(inside, (50, 0), (width - 50, height), (1, 1, 1), -1)
    for place in ((50, 50), (width - 50, 50), (50, height - 50), (width - 50, height - 50)):
        cv2.circle(inside, place, 50, (1, 1, 1), -1)
    return pixels * inside + 255 * (1 - inside)


MARKS = {
    "text": lambda pixels: cv2.putText(pixels.copy(), "photo.example", (230, 285), 0, 0.7, (250, 250, 240), 2),
    "strip": lambda pixels: cv2.rectangle(pixels.copy(), (0, 270), (400, 300), (200, 30, 30), -1),
    "frame": lambda pixels: cv2.rectangle(pixels.copy(), (0, 0), (399, 299), (20, 20, 20), 12),
    "corners": round_corners,
}


def test_things_at_an_edge_are_objects():
    scene = draw_object((90, 120, 160))
    for place in ((350, 250), (40, 150), (200, 40)):
        assert compare_images(scene, draw_cup(scene, place)).has_object
        assert compare_images(draw_cup(scene, place), scene).has_object
    assert not compare_images(scene, compress(scene)).has_object


@pytest.mark.parametrize("kind", MARKS)
def test_marks_at_an_edge_are_no_objects(kind):
    scene = draw_object((90, 120, 160))
    difference = compare_images(scene, MARKS[kind](scene))
    assert not difference.has_object
    assert not difference.has_spot


def test_a_thing_at_an_edge_stays_if_only_one_caption_names_it(tmp_path, curated):
    scenes = [draw_object((90, 120, 160), seed=number) for number in range(3)]
    changed = [draw_cup(scenes[0]), draw_cup(scenes[1]), MARKS["text"](scenes[2])]
    captions = ["a round toy on blue", "a ball for children", "something on blue"]
    captions_of_changed = ["a round toy on blue, with a cup", "a ball for children", "something on blue, seen today"]
    rows = []
    for number in range(3):
        rows.append((encode_image(scenes[number]), captions[number]))
        rows.append((encode_image(changed[number]), captions_of_changed[number]))
    path = write_pair_shard(tmp_path / "crawl.tar", rows)
    table = curated([path], "near_duplicates: {}").values()
    assert [row["sample"] for row in table if row["is_kept"]] == [0, 1, 2, 4]


def shift_and_scale(scale_x, scale_y, left, top):
    """Return the map from a thumbnail to one of an image whose shares it shows, from `left` and `top` on."""
    return np.array(
        [
            [scale_x, 0, 64 * left + 0.5 * scale_x - 0.5],
            [0, scale_y, 64 * top + 0.5 * scale_y - 0.5],
        ]
    )


def test_what_shows_less_of_a_thing_is_worse():
    for scene in (draw_object(), draw_object((90, 120, 160)), draw_object((225, 210, 180))):
        crop = scene[30:270, 40:360]
        into_scene = shift_and_scale(0.8, 0.8, 0.1, 0.1)
        assert compare_images(crop, scene, transform=into_scene).worse == 1
        assert compare_images(scene, crop, transform=invert(into_scene)).worse == -1


@pytest.mark.parametrize("filling", ["black", "blurred"])
def test_bars_and_blurred_fillings_are_worse(filling):
    tiles = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    scene = cv2.resize(tiles, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    filled = np.zeros((HEIGHT, 600, 3), np.uint8)
    if filling == "blurred":
        filled = cv2.GaussianBlur(cv2.resize(scene, (600, HEIGHT)), (0, 0), 12)
    filled[:, 100:500] = scene
    into_filled = shift_and_scale(400 / 600, 1, 100 / 600, 0)
    assert compare_images(scene, filled, transform=into_filled).worse == -1
    assert compare_images(filled, scene, transform=invert(into_filled)).worse == 1


def invert(transform):
    return np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a beer mug blue buttons", "a beer mug yellow buttons", True),
        ("81号小型飞机的插图", "5号小型飞机的插图", True),
        ("postcard series tram", "postcard series bus", True),
        ("card 2 pig 2", "card 3 pig 3", True),
        ("2号码头第3艘", "5号码头第7艘", True),
        ("a beer mug", "a beer mug on a table", False),  # says more, and nothing else
        ("a beer mug on a table", "my new mug for the office", False),
        ("red", "blue", False),
        ("a beer mug", "a beer mug", False),
    ],
)
def test_variants_name_something_else_in_one_place(first, second, expected):
    assert is_variant(first, second) == is_variant(second, first) == expected


def test_captions_that_differ_in_numbers():
    assert differ_in_numbers("ticket no. 926 to Rome", "ticket no. 925 to Rome")
    assert not differ_in_numbers("ticket no. 926 to Rome", "ticket no. 926 to Rome")
    assert not differ_in_numbers("ticket no. 926 to Rome", "ticket no. 925 to Bonn")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("the red door of a small old church by the river", "red door of the small old church by the river", True),
        ("教堂的红色的门前停着一辆自行车", "教堂红色的门前停着一辆自行车", True),
        ("the red door of a small old church by the river", "the blue door of a small old church by the river", False),
        ("the red door of a small old church by the river", "the red door of a church", False),
        ("two cups on the table in the kitchen", "two cups under the table in the kitchen", False),
        ("a clock at 3", "a clock at 4", False),
        ("a dog chases a cat", "a cat chases a dog", False),
        ("the", "a", False),
    ],
)
def test_captions_without_another_word_say_the_same(first, second, expected):
    assert say_the_same(first, second) == say_the_same(second, first) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a blue heart", "a grey heart love free clip art", True),
        ("a brown heart", "橙色爱心卡通素材", True),
        ("紫色的光盘", "a silver disc", True),
        ("a red and white flag", "the white and blue flag", True),
        ("a red and white flag", "the white flag", False),
        ("橙色兔子，绿色眼睛", "a grey rabbit with green eyes", True),
        ("red sofa", "酒红色沙发", True),
        ("gray stones", "灰色的石头", False),
        ("a heart", "a grey heart", False),
        ("red beads on a white background", "白底的佛珠 银饰", False),
        ("a scarred greenish pot", "a tangled blackened pot", False),  # parts of words
    ],
)
def test_other_colours_are_named_by_one_caption_alone(first, second, expected):
    assert name_other_colours(first, second) == name_other_colours(second, first) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("badge of the rally, 1985", "the 1986 patch of our rally", True),
        ("2019年徽章", "俱乐部徽章，2009年", True),
        ("badge of 1985", "1985 rally", False),
        ("badge of 1985", "a badge", False),
        ("engine no. 120055", "engine no. 201034", False),  # longer numbers are no years
    ],
)
def test_other_years_are_none_in_common(first, second, expected):
    assert name_other_years(first, second) == name_other_years(second, first) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a hand that points up", "thumbs down a drawing of thumb", True),
        ("上弦月", "下弦月的图片", True),
        ("upwards button", "a button", False),
        ("an up down arrow", "a down arrow", False),
        ("a tricolour of red white and grey", "灰白红竖条三色旗", True),
        ("a tricolour of red white and grey", "红白灰竖条三色旗", False),
        ("a black dog and a white cat", "a white cat and a black dog", False),  # any order will do
    ],
)
def test_opposite_directions(first, second, expected):
    assert name_opposite_directions(first, second) == name_opposite_directions(second, first) == expected


@pytest.mark.parametrize(
    ("captions", "stays"),
    [(("blue heart", "the heart that is grey, a drawing"), True), (("blue heart", "the heart that beats"), False)],
)
def test_grey_copy_stays_where_captions_name_other_colours(tmp_path, curated, captions, stays):
    thing = draw_object((60, 90, 220))
    grey = cv2.cvtColor(cv2.cvtColor(thing, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    rows = [(encode_image(image), caption) for image, caption in zip((thing, grey), captions, strict=True)]
    table = curated([write_pair_shard(tmp_path / "crawl.tar", rows)], "near_duplicates: {}").values()
    assert all(row["is_kept"] for row in table) == stays


def test_changed_copy_stays_where_captions_name_other_years(tmp_path, curated):
    thing = draw_object((90, 120, 160))
    darker = (thing * 0.8).astype(np.uint8)
    dotted = cv2.circle(darker.copy(), (200, 150), 4, (170, 170, 170), -1)
    cases = [
        (dotted, "our badge of the year 2004", True),
        (dotted, "our badge, year unknown", False),
        (darker, "our badge of the year 2004", False),  # one of the captions is wrong
    ]
    for number, (image, caption, stays) in enumerate(cases):
        rows = [(encode_image(thing), "club badge from 2003 with a pattern"), (encode_image(image), caption)]
        path = write_pair_shard(tmp_path / f"{number}.tar", rows)
        table = curated([path], "near_duplicates: {}", str(number)).values()
        assert all(row["is_kept"] for row in table) == stays


def test_one_other_word_keeps_an_image_with_a_trace_of_a_change(tmp_path, curated):
    things = [draw_object((90, 120, 160), seed=number) for number in range(4)]
    smaller = [cv2.resize(thing, (240, 180), interpolation=cv2.INTER_AREA) for thing in things]
    cv2.circle(smaller[0], (120, 90), 2, (170, 170, 170), -1)
    captions = [
        ("toy, red", "toy, blue"),
        ("a wooden toy, red", "a wooden toy, blue"),
        ("wooden toy 1 of 20", "wooden toy 2 of 20"),  # a digit may be too small to leave a trace
        ("round toy for children", "something on blue"),
    ]
    rows = []
    for number in range(4):
        rows += [(encode_image(things[number]), captions[number][0])]
        rows += [(encode_image(smaller[number]), captions[number][1])]
    path = write_pair_shard(tmp_path / "crawl.tar", rows)
    table = curated([path], "near_duplicates: {}").values()
    assert [row["sample"] for row in table if not row["is_kept"]] == [3, 7]
    similar = json.loads((tmp_path / "curated" / "curation.json").read_text())["figures"]["near_duplicates"]
    assert {(0, 1), (4, 5)} <= {(pair["sample"], pair["similar"]) for pair in similar}


@pytest.mark.parametrize("change", ["darker", "smaller", "noisy"])
def test_another_light_or_size_leaves_no_trace(change):
    thing = draw_object((90, 120, 160))
    assert not compare_images(thing, HARMLESS[change](thing)).has_trace


def test_small_and_large_changes_leave_a_trace():
    thing = draw_object((90, 120, 160))
    dotted = cv2.circle(thing.copy(), (200, 150), 4, (170, 170, 170), -1)
    assert compare_images(thing, dotted).has_trace
    close_view = shift_and_scale(0.6, 0.6, 0.2, 0.2)
    assert compare_images(thing[60:240, 80:320], thing, transform=close_view).has_trace


@pytest.mark.parametrize("level", [255, 90])
def test_faint_marks_all_over_are_no_spots(level):
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 256, (8, 10, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    covered = np.zeros((HEIGHT, WIDTH), np.uint8)
    for top in range(25, HEIGHT, 60):
        for left in range(-20, WIDTH, 110):
            cv2.putText(covered, "sample", (left, top), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 1)
    opacity = 0.35 * covered[..., None] / 255
    marked = ((1 - opacity) * scene + opacity * level).astype(np.uint8)
    assert not differ(scene, marked)
    assert not differ(marked, scene)


def test_a_sign_before_a_line_of_text_is_no_object():
    scene = draw_object((90, 120, 160))
    marked = cv2.putText(scene.copy(), "Studio", (270, 285), cv2.FONT_HERSHEY_SIMPLEX, 1, (255, 255, 255), 3)
    cv2.circle(marked, (240, 272), 14, (255, 255, 255), -1)
    assert not compare_images(scene, marked).has_object
    sign = cv2.circle(scene.copy(), (240, 272), 14, (255, 255, 255), -1)
    assert compare_images(scene, sign).has_object


def add_sticker(pixels, corner=(180, 60), size=(130, 110), colour=(250, 90, 20)):
    opposite = corner[0] + size[0], corner[1] + size[1]
    return cv2.rectangle(pixels.copy(), corner, opposite, colour, -1)


def test_images_that_differ_in_a_sticker_alone():
    thing = draw_object()
    verdict = compare_beside_sticker(*make_pictures(thing, add_sticker(thing)))
    assert verdict.is_local
    assert verdict.has_object
    assert verdict.worse == -1
    assert verdict.likeness > 0.99
    assert compare_beside_sticker(*make_pictures(add_sticker(thing), thing)).worse == 1
    assert compare_beside_sticker(*make_pictures(thing, compress(add_sticker(thing)))) is not None
    smaller = cv2.resize(add_sticker(thing), (280, 210), interpolation=cv2.INTER_AREA)
    assert compare_beside_sticker(*make_pictures(thing, smaller)) is not None


def test_what_is_more_than_a_sticker():
    thing = draw_object()
    for other in (
        thing,  # no sticker
        draw_object(seed=1),  # another thing on the same ground
        add_sticker(thing, size=(200, 200)),
        add_sticker(add_sticker(thing), (20, 200), (60, 60)),  # two stickers
        (add_sticker(thing) * 0.8).astype(np.uint8),  # other light
        cv2.resize(add_sticker(thing), (300, 300)),
    ):
        assert compare_beside_sticker(*make_pictures(thing, other)) is None
    dot = cv2.circle(np.full((HEIGHT, WIDTH, 3), 255, np.uint8), (200, 150), 40, (200, 40, 40), -1)
    assert compare_beside_sticker(*make_pictures(dot, add_sticker(dot, (150, 100), (100, 100)))) is None


def test_equal_captions_find_what_a_sticker_hides(tmp_path, curated):
    things = [draw_object(seed=number) for number in range(3)]
    captions = [("a toy", "a toy"), ("a ball", "a ball"), ("something round", "many colours")]
    rows = []
    for thing, (caption, other_caption) in zip(things, captions, strict=True):
        rows += [(encode_image(thing), caption), (encode_image(add_sticker(thing)), other_caption)]
    path = write_pair_shard(tmp_path / "crawl.tar", rows)
    table = curated([path], "near_duplicates: {}").values()
    assert [row["sample"] for row in table if row["is_kept"]] == [0, 2, 4, 5]
