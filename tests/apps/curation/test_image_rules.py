"""Rules of images: pages of text, collages, gradients, QR codes and unfinished images, each made here."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ernie_vil2.apps.curation.caption_measures import names_several_pictures, names_text
from ernie_vil2.apps.curation.image_measures import (
    compute_percentile,
    measure_blocks,
    measure_noise,
    measure_relief,
    measure_seams,
    measure_sharpness,
    measure_unfinished,
    shrink_luminance,
)
from ernie_vil2.apps.curation.qr_codes import measure_qr_code
from ernie_vil2.apps.curation.text_rows import measure_text
from tests.support.crawled_pairs import make_distinct_image, write_pair_shard
from tests.support.image_formats import encode_image


def get_luminance(pixels):
    return shrink_luminance(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


def make_gradient(size=240):
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    return np.stack([250 * x, 200 - 90 * y, 40 + 100 * x * y], axis=2).astype(np.uint8)


def draw_text(image, text, place, size=22, ink=(20, 20, 20)):
    canvas = Image.fromarray(image)
    # Pillow's font, because OpenCV's is another one from version 5 on.
    ImageDraw.Draw(canvas).text(place, text, ink, ImageFont.load_default(size))
    return np.array(canvas)


def make_page(size=480, num_lines=10):
    page = np.full((size, size, 3), 245, np.uint8)
    for line in range(num_lines):
        page = draw_text(page, f"Returns within {line} days", (20, 20 + 40 * line))
    return page


def make_menu():
    """Return a title and five rows with a picture, a name and a price."""
    menu = draw_text(np.full((480, 360, 3), 250, np.uint8), "Lucky Cat Kitchen", (60, 20), size=28)
    for line in range(5):
        top = 90 + 76 * line
        menu[top : top + 56, 20:76] = cv2.resize(make_scene(line), (56, 56))
        menu = draw_text(menu, f"bowl of noodles {line}", (96, top + 16))
        menu = draw_text(menu, f"{20 + line}", (310, top + 16))
    return menu


def make_chart():
    """Return bars with years below and numbers beside them."""
    chart = draw_text(np.full((400, 480, 3), 255, np.uint8), "Harvest in tons", (150, 10), size=20)
    for place in range(8):
        height = 60 + 37 * place % 220
        chart[340 - height : 340, 60 + 50 * place : 95 + 50 * place] = (70, 120, 200)
        chart = draw_text(chart, str(2010 + place), (60 + 50 * place, 350), size=14)
        chart = draw_text(chart, str(25 * place), (15, 330 - 36 * place), size=14)
    return chart


def make_skyline():
    """Return houses at night with rows of lit windows."""
    rng = np.random.default_rng(0)
    skyline = np.full((400, 600, 3), (20, 24, 50), np.uint8)
    for left in range(0, 600, 75):
        top = int(rng.integers(60, 200))
        skyline[top:, left : left + 68] = (12, 12, 20)
        for y in range(top + 10, 390, 16):
            for x in range(left + 8, left + 60, 10):
                if rng.random() < 0.7:
                    skyline[y : y + 8, x : x + 5] = (240, 210, 120)
    return skyline


def make_set():
    """Return three equal things on an even ground."""
    picture = np.full((400, 400, 3), 250, np.uint8)
    thing = cv2.resize(make_scene(4), (80, 80))
    for top, left in ((60, 160), (240, 60), (240, 260)):
        picture[top : top + 80, left : left + 80] = thing
    return picture


def make_stripes():
    x, y = np.meshgrid(np.arange(400), np.arange(400))
    stripes = np.where((x + 2 * y) // 30 % 2, 120, 200).astype(np.uint8)
    return cv2.cvtColor(cv2.circle(stripes, (200, 200), 90, 20, -1), cv2.COLOR_GRAY2RGB)


def make_pale_thing():
    picture = np.full((400, 400, 3), (240, 244, 250), np.uint8)
    return cv2.circle(picture, (250, 160), 40, (250, 240, 190), -1)


def make_scene(number):
    """Return a smooth image with the grain of a camera."""
    grain = np.random.default_rng(number).normal(0, 3, (240, 240, 1))
    return np.clip(make_distinct_image(number, 240) + grain, 0, 255).astype(np.uint8)


def make_drawing():
    """Return a drawing on an even ground with a word below it."""
    drawing = np.full((400, 400, 3), (250, 240, 220), np.uint8)
    cv2.circle(drawing, (200, 170), 120, (200, 40, 40), -1)
    cv2.circle(drawing, (160, 140), 15, (20, 20, 20), -1)
    cv2.circle(drawing, (240, 140), 15, (20, 20, 20), -1)
    cv2.ellipse(drawing, (200, 190), (60, 40), 0, 0, 180, (20, 20, 20), 6)
    return draw_text(drawing, "a red ball", (140, 340), size=28)


def make_collage(gap=4, size=200):
    collage = np.full((2 * size + gap, 2 * size + gap, 3), 255, np.uint8)
    for number, (top, left) in enumerate([(0, 0), (0, size + gap), (size + gap, 0), (size + gap, size + gap)]):
        collage[top : top + size, left : left + size] = make_distinct_image(number, size) // 2
    return collage


def make_contact_sheet(num_pictures=5, size=90, gap=8):
    """Return rows and columns of pictures with white lines between them."""
    side = num_pictures * (size + gap) + gap
    sheet = np.full((side, side, 3), 255, np.uint8)
    for number in range(num_pictures**2):
        top, left = (gap + place * (size + gap) for place in divmod(number, num_pictures))
        sheet[top : top + size, left : left + size] = make_distinct_image(number, size)
    return sheet


def make_code(angle=0):
    """Return a picture with a QR code of level L, made by OpenCV's encoder, turned by some degrees."""
    code = cv2.QRCodeEncoder.create().encode("https://example.com/follow-us")
    code = cv2.copyMakeBorder(code, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=255)
    code = cv2.resize(code, (240, 240), interpolation=cv2.INTER_NEAREST)
    image = np.full((400, 400), 255, np.uint8)
    image[80:320, 80:320] = code
    matrix = cv2.getRotationMatrix2D((200, 200), angle, 1)
    image = cv2.warpAffine(image, matrix, (400, 400), borderValue=255)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def make_unfinished():
    image = make_distinct_image(5, 200).copy()
    image[120:] = 128
    return image


MADE = {
    "gradient": make_gradient, "page of text": make_page, "collage": make_collage,
    "QR code": make_code, "unfinished image": make_unfinished,
}  # fmt: skip


def test_images_without_a_scene_are_removed(tmp_path, curated):
    drawings = [
        make_drawing(),
        make_set(),
        make_stripes(),
        make_chart(),
        make_skyline(),
        make_pale_thing(),
    ]
    good_images = [*drawings, *(make_scene(number) for number in range(20))]
    images = [*(make() for make in MADE.values()), *good_images]
    rows = [(encode_image(image), f"a picture of something, number {number}") for number, image in enumerate(images)]
    table = curated([write_pair_shard(tmp_path / "crawl.tar", rows)], "image_rules: {}").values()
    assert [row["reason"] for row in table] == [*MADE, *[None] * len(good_images)]


def test_a_collage_stays_if_its_caption_is_about_all_of_it(tmp_path, curated):
    captions = [
        "A red chair, seen from the window",
        "A red chair, a lamp and a rug",  # three things may be in one picture
        "The chair from four sides",
        "A cup, a plate, a fork and a knife",
    ]
    images = [make_collage(size=200 + 8 * number) for number in range(len(captions))]
    rows = [(encode_image(image), caption) for image, caption in zip(images, captions, strict=True)]
    table = curated([write_pair_shard(tmp_path / "crawl.tar", rows)], "image_rules: {}").values()
    assert [row["reason"] for row in table] == ["collage", "collage", None, None]


def test_a_page_of_text_stays_if_its_caption_names_something_written(tmp_path, curated):
    captions = ["Linen shirt, blue", "The menu of a noodle shop", "蓝色亚麻衬衫", "售后公告"]
    images = [make_page(size=480 + 8 * number) for number in range(len(captions))]
    images, captions = [*images, make_menu()], [*captions, "Menu of Lucky Cat Kitchen"]
    rows = [(encode_image(image), caption) for image, caption in zip(images, captions, strict=True)]
    table = curated([write_pair_shard(tmp_path / "crawl.tar", rows)], "image_rules: {}").values()
    assert [row["reason"] for row in table] == ["page of text", None, "page of text", None, None]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Floor plan of the flat in Cardiff", True),
        ("A sign that says “no fishing”", True),
        ("my neighbour: 'we are moving' \"for good\"", True),
        ("Share of solar power, 12.5 % of all", True),
        ("Linen shirt, blue, size M", False),
        ("A bowl of noodles, 300 g", False),
        ("小店的价目表", True),
        ("1985年至1991年的水稻", True),
        ("橙色的数字挂钟", False),
        ("一碗牛肉面", False),
    ],
)
def test_captions_of_text_name_what_is_written_or_its_figures(caption, expected):
    assert names_text(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Me choosing tea instead of coffee (meme)", True),
        ("bookcase, three pictures", True),
        ("Found: a lamp, a rug, two old chairs and a mirror in the attic", True),
        ("A house with a garden, built by a carpenter who came from far away, and a pond", False),
        ("Linen shirt, blue, size M", False),
        ("沙发四个角度", True),
        ("New strip! A koala gives a cow a cactus", True),
        ("第104话，企鹅偷吃炸虾", True),
        ("买了杯子、盘子和叉子，还有小刀", False),
        ("买了杯子、盘子、叉子和小刀", True),
        ("一只猫和一只狗", False),
    ],
)
def test_captions_of_several_pictures_speak_of_them_or_list_four_things(caption, expected):
    assert names_several_pictures(caption) == expected


def test_even_lines_between_few_pictures_are_those_of_a_collage():
    assert measure_seams(get_luminance(make_contact_sheet())) == pytest.approx(1, abs=0.25)
    assert measure_seams(get_luminance(make_contact_sheet(num_pictures=8, size=60))) == 0  # a wall of tiles
    # A frame and a single line, such as that between two pages, are no grid.
    framed = cv2.copyMakeBorder(make_scene(1), 12, 12, 12, 12, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    assert measure_seams(get_luminance(framed)) == 0
    assert measure_seams(get_luminance(np.hstack([framed, framed]))) == 0


@pytest.mark.parametrize("angle", [0, 7, 90])
def test_share_of_a_qr_code_is_that_of_its_square(angle):
    rows, _ = np.nonzero(get_luminance(make_code()) < 128)
    side = rows.max() + 1 - rows.min()
    assert measure_qr_code(get_luminance(make_code(angle))) == pytest.approx((side / 400) ** 2, rel=0.1)


def test_code_in_uneven_light_is_found():
    # The light ground above is darker than the ink below, so that no single level parts them.
    shade = np.linspace(0.15, 1, 400)[:, None, None]
    code = ((make_code() * 0.55 + 110) * shade).astype(np.uint8)
    assert code[100].max() < code[80:320].min(axis=(1, 2)).max()
    assert measure_qr_code(get_luminance(code)) == pytest.approx(measure_qr_code(get_luminance(make_code())), rel=0.02)


def make_windows():
    """Return rows of windows, dark in a light frame on a dark wall, like the corners of QR codes."""
    wall = np.full((400, 400), 40, np.uint8)
    for top in range(20, 400, 80):
        for left in range(20, 400, 80):
            wall[top : top + 25, left : left + 25] = 230
            wall[top + 5 : top + 20, left + 5 : left + 20] = 20
    return cv2.cvtColor(wall, cv2.COLOR_GRAY2RGB)


def make_board():
    """Return a board of Go with some stones."""
    board = np.full((400, 400), 170, np.uint8)
    for place in range(20, 400, 20):
        cv2.line(board, (20, place), (380, place), 30)
        cv2.line(board, (place, 20), (place, 380), 30)
    rng = np.random.default_rng(0)
    for x, y in rng.integers(1, 19, (60, 2)).tolist():
        cv2.circle(board, (20 * x, 20 * y), 9, (x + y) % 2 * 250, -1)
    return cv2.cvtColor(board, cv2.COLOR_GRAY2RGB)


def make_characters():
    """Return small squares within squares, as in some Chinese characters, on a rough ground."""
    page = 255 * np.random.default_rng(0).integers(0, 2, (100, 100), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    for top, left in ((20, 20), (20, 340), (340, 20)):
        page[top - 4 : top + 18, left - 4 : left + 18] = 0
        page[top : top + 14, left : left + 14] = 255
        page[top + 4 : top + 10, left + 4 : left + 10] = 0
    return cv2.cvtColor(page, cv2.COLOR_GRAY2RGB)


def make_flower_bed():
    spots = np.random.default_rng(0).integers(0, 2, (80, 80), dtype=np.uint8).repeat(5, axis=0).repeat(5, axis=1)
    return cv2.cvtColor(255 * spots, cv2.COLOR_GRAY2RGB)


def test_code_needs_no_margin_around_the_squares_at_its_corners():
    code = cv2.cvtColor(make_code(), cv2.COLOR_RGB2GRAY)
    dark = np.flatnonzero((code < 128).any(axis=0))
    module = 240 // (len(cv2.QRCodeEncoder.create().encode("https://example.com/follow-us")) + 8)
    first, end = dark[0] + 7 * module, dark[-1] + 1 - 7 * module
    code[first : first + module, dark[0] : dark[0] + 7 * module] = 0
    code[end - module : end, dark[0] : dark[0] + 7 * module] = 0
    assert measure_qr_code(code) == pytest.approx(measure_qr_code(cv2.cvtColor(make_code(), cv2.COLOR_RGB2GRAY)))


def test_characters_beside_a_code_are_not_its_fourth_square():
    poster = cv2.cvtColor(make_code(), cv2.COLOR_RGB2GRAY)
    share = measure_qr_code(poster)
    poster[:80] = poster[300:] = poster[:, :80] = poster[:, 320:] = 40
    for left in (165, 193, 221):  # light on the dark ground, as in 回
        poster[303:318, left : left + 15] = 255
        poster[306:315, left + 3 : left + 12] = 40
    assert measure_qr_code(poster) == pytest.approx(share)


@pytest.mark.parametrize("make", [make_windows, make_board, make_characters, make_flower_bed])
def test_patterns_are_no_qr_code(make):
    assert measure_qr_code(get_luminance(make())) == 0


@pytest.mark.parametrize("is_dark", [False, True])
def test_rows_of_text_are_counted_on_any_ground(is_dark):
    page = make_page(num_lines=8)
    page[:] = 255 - page if is_dark else page
    shading = np.linspace(0, 40, len(page))[:, None, None]  # another ground on every line
    page = np.clip(page - shading if not is_dark else page + shading, 0, 255).astype(np.uint8)
    # Eight letters of each row count.
    assert measure_text(get_luminance(page)).letters == pytest.approx(8 * 8)
    page[200:320, 200:320] = 90  # a picture, which breaks three rows
    assert 8 * 8 > measure_text(get_luminance(page)).letters >= 5 * 8


def test_share_of_text_is_low_beside_pictures():
    page = make_page()
    assert measure_text(get_luminance(page)).share == pytest.approx(1)
    page[300:420, 300:460] = make_scene(3)[:120, :160]
    # The picture breaks some of ten rows that are 270 pixels long.
    height = cv2.boundingRect((get_luminance(make_page(num_lines=1)) < 200).astype(np.uint8))[3]
    expected = 10 * height * 270 / (10 * height * 270 + 120 * 160)
    assert measure_text(get_luminance(page)).share == pytest.approx(expected, abs=0.1)
    for make in (make_menu, make_chart, make_skyline, make_drawing):
        text = measure_text(get_luminance(make()))
        assert text.letters < 24 or text.share < 0.75


def test_noise_is_told_from_the_details_of_a_scene():
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(cv2.cvtColor(make_scene(3), cv2.COLOR_RGB2GRAY), (0, 0), 2)  # its texture is noise, too
    assert measure_noise(scene) < 1
    # Halving an image halves the deviation of its noise, of which 0.6 is taken for the scene's.
    noisy = np.clip(scene + rng.normal(0, 16, scene.shape), 0, 255).astype(np.uint8)
    assert measure_noise(noisy) == pytest.approx(16 * (1 - 0.6 / 2), rel=0.15)
    assert measure_noise(np.zeros((3, 900), np.uint8)) == 0


def test_relief_is_zero_for_a_quadratic_and_the_noise_otherwise():
    rng = np.random.default_rng(0)
    noise = np.kron(rng.normal(0, 5, (32, 32, 3)), np.ones((4, 4, 1)))
    gradient = cv2.resize(make_gradient(), (128, 128))
    assert measure_relief(gradient) < 0.5
    noisy = np.clip(gradient.astype(float) + noise, 0, 255).astype(np.uint8)
    assert measure_relief(noisy) == pytest.approx(5, rel=0.2)


def test_seams_cross_both_ways_and_rough_images_have_none():
    assert measure_seams(get_luminance(make_collage())) > 0.8
    pair = make_collage()[:200]  # side by side
    assert measure_seams(get_luminance(pair)) < 0.5
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert measure_seams(get_luminance(noise)) < 0.2


def make_flag():
    """Return a cross whose arms cross the flag both ways."""
    flag = np.full((300, 480, 3), (0, 90, 160), np.uint8)
    flag[100:150], flag[:, 160:240] = (250, 200, 0), (250, 200, 0)
    return flag


def make_small_charts():
    """Return nine charts with frames, side by side."""
    charts = np.full((480, 480, 3), 255, np.uint8)
    for place in range(9):
        left, top = 160 * (place % 3), 160 * (place // 3)
        cv2.rectangle(charts, (left, top), (left + 159, top + 159), (90, 90, 90), 2)
        heights = np.random.default_rng(place).integers(30, 130, 6)
        points = np.stack([np.linspace(left + 20, left + 140, 6), top + heights], axis=1).astype(np.int32)
        cv2.polylines(charts, [points], False, (200, 40, 40), 3)
    return charts


def make_cloth():
    """Return a woven cloth with wide stripes both ways."""
    y, x = np.mgrid[:480, :480]
    weave = 20 * np.sin(x / 3) * np.sin(y / 3)
    stripes = 60.0 * (x // 120 % 2) + 60 * (y // 120 % 2)
    return cv2.cvtColor((80 + weave + stripes).astype(np.uint8), cv2.COLOR_GRAY2RGB)


def make_knitting():
    colours = np.array([(40, 90, 140), (230, 220, 190)], np.uint8)
    stitches = colours[np.random.default_rng(0).integers(0, 2, (30, 30))].repeat(16, axis=0).repeat(16, axis=1)
    stitches[::16] //= 2
    stitches[:, ::16] //= 2
    return add_noise(stitches)


def add_noise(pixels):
    noise = np.random.default_rng(0).normal(0, 3, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("make", [make_flag, make_small_charts, make_cloth, make_knitting])
def test_flags_charts_and_patterns_are_no_collage(make):
    assert measure_seams(get_luminance(make())) == 0
    assert measure_seams(get_luminance(add_noise(make_collage()))) > 0.8


def test_small_thing_on_a_gradient_is_no_gradient():
    sky = cv2.resize(make_gradient(), (600, 400))
    assert measure_relief(cv2.resize(sky, (128, 85), interpolation=cv2.INTER_AREA)) < 0.5
    cv2.polylines(sky, [np.array([(300, 200), (314, 194), (328, 200)])], False, (30, 20, 30), 3)
    assert measure_relief(cv2.resize(sky, (128, 85), interpolation=cv2.INTER_AREA)) > 1.2


def test_unfinished_share_is_that_of_the_grey_rows():
    assert measure_unfinished(make_unfinished()) == pytest.approx(0.4)
    assert measure_unfinished(make_distinct_image(5, 200)) == 0
    assert measure_unfinished(np.full((10, 10, 3), 128, np.uint8)) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (3, 7), (31, 33), (64, 64), (2000, 3)])
def test_measures_take_images_of_any_shape(shape):
    for level in (0, 128, 255):
        pixels = np.full((*shape, 3), level, np.uint8)
        luminance = get_luminance(pixels)
        assert measure_text(luminance) == (0, 0)
        assert measure_seams(luminance) == 0 and measure_qr_code(luminance) == 0
        assert measure_relief(pixels) == pytest.approx(0)
        measure_unfinished(pixels)


def test_relief_is_the_deviation_from_the_best_surface():
    pixels = make_scene(3)
    levels = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(float)
    y, x = np.indices((32, 32)).reshape(2, -1)
    surfaces = np.stack([x**i * y**j for i in range(3) for j in range(3 - i)], axis=1)
    expected = (levels - surfaces @ np.linalg.lstsq(surfaces, levels, rcond=None)[0]).std(axis=0).max()
    assert measure_relief(pixels) == pytest.approx(expected)


@pytest.mark.parametrize("length", [1, 2, 99, 400])
def test_percentile_is_that_of_numpy(length):
    values = np.random.default_rng(length).random(length, dtype=np.float32)
    for percent in (0, 50, 98, 100):
        assert compute_percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_sharpness_is_that_of_the_details_and_not_of_the_size():
    luminance = np.where(make_distinct_image(3, 256)[..., 1] > 128, 200, 50).astype(np.uint8)
    sharpness = measure_sharpness(luminance)
    small = cv2.resize(luminance, (128, 128), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, (512, 512), interpolation=cv2.INTER_CUBIC)
    assert measure_sharpness(small) < 0.7 * sharpness
    assert measure_sharpness(enlarged) < 0.9 * sharpness
    assert measure_sharpness(cv2.GaussianBlur(luminance, (0, 0), 2)) < 0.7 * sharpness
    darker = (0.6 * luminance).astype(np.uint8)
    assert measure_sharpness(darker) == pytest.approx(sharpness, rel=0.1)


def test_blocks_of_compression_are_seen():
    pixels = make_gradient()
    blocks = []
    for quality in (95, 30, 8):
        _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        blocks.append(measure_blocks(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)))
    assert blocks == sorted(blocks) and blocks[0] < 0.5 < blocks[2]
    assert measure_blocks(cv2.cvtColor(make_distinct_image(3, 256), cv2.COLOR_RGB2GRAY)) < 0.3
    assert measure_blocks(np.zeros((1, 30), np.uint8)) == measure_sharpness(np.zeros((1, 30), np.uint8)) == 0


def test_histograms_show_what_rules_compare(steps):
    (step,) = steps("image_rules: {}")
    conditions = [rule.condition for rule in step.rules()]
    for histogram in step.histograms():
        (bound,) = histogram.bounds
        assert {f"{histogram.column} {sign} {bound!r}" for sign in "<>"} & set(conditions)
