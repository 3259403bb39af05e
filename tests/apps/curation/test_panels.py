"""Pictures within pages, bars and fillings: where they are found, and that they are copies of the picture."""

import cv2
import numpy as np
import pytest

from ernie_vil2.apps.curation.guesses import chain_transforms, map_boxes
from ernie_vil2.apps.curation.panels import find_panel
from tests.support.crawled_pairs import make_distinct_image, write_pair_shard
from tests.support.image_formats import encode_image

PICTURE = (60, 90)  # height and width


def make_picture(number):
    """Return a rough picture, `[60, 90, 3]` uint8, that resembles no picture of another number."""
    smooth = cv2.resize(make_distinct_image(number, 96), PICTURE[::-1], interpolation=cv2.INTER_AREA)
    grain = np.random.default_rng(number).integers(-12, 13, smooth.shape)
    return np.clip(smooth.astype(int) + grain, 0, 255).astype(np.uint8)


def write_letters(pixels, rows, left):
    """Write strokes of two pixels, as letters are."""
    for column in range(left, pixels.shape[1] - 12, 6):
        pixels[rows, column : column + 2] = 20


def lay_on_page(picture):
    page = np.full((150, 110, 3), 238, np.uint8)
    write_letters(page, slice(8, 16), 20)
    write_letters(page, slice(120, 126), 10)
    page[30:90, 10:100] = picture
    return page, (slice(30, 90), slice(10, 100))


def add_bar(picture):
    bar = np.full((14, 90, 3), (30, 40, 90), np.uint8)
    bar[4:10, 10:60:5] = 250
    return np.concatenate([picture, bar]), (slice(0, 60), slice(0, 90))


def fill_sides(picture):
    filling = cv2.GaussianBlur(cv2.resize(picture, (160, 106)), (0, 0), 12)[23:83]
    filled = np.concatenate([filling[:, :35], picture, filling[:, 125:]], axis=1)
    return filled, (slice(0, 60), slice(35, 125))


@pytest.mark.parametrize("surround", [lay_on_page, add_bar, fill_sides])
def test_panel_is_the_picture_within_strips(surround):
    hits = 0
    for number in range(8):
        pixels, expected = surround(make_picture(number))
        panel = find_panel(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
        if panel is None:
            continue
        bounds = [(span.start, span.stop) for span in panel]
        np.testing.assert_allclose(bounds, [(span.start, span.stop) for span in expected], atol=2)
        hits += 1
    assert hits >= 7


def test_picture_without_strips_has_no_panel():
    for number in range(8):
        assert find_panel(cv2.cvtColor(make_picture(number), cv2.COLOR_RGB2GRAY)) is None
    assert find_panel(np.full((80, 80), 200, np.uint8)) is None
    assert find_panel(np.zeros((20, 300), np.uint8)) is None


@pytest.mark.parametrize("surround", [lay_on_page, add_bar, fill_sides])
def test_picture_stays_instead_of_what_shows_it(tmp_path, curated, surround):
    rows = []
    for number in range(4):
        picture = make_picture(number)
        rows.append((encode_image(surround(picture)[0]), f"a screen in room {number}"))
        rows.append((encode_image(picture), f"hills and lakes of country {number}"))
    table = curated([write_pair_shard(tmp_path / "crawl.tar", rows)], "near_duplicates: {}").values()
    assert [row["is_kept"] for row in table] == [False, True] * 4


def test_maps_of_boxes_go_by_way_of_the_image():
    rng = np.random.default_rng(0)
    corners, sizes = rng.uniform(0, 0.4, (2, 5, 2)), rng.uniform(0.2, 0.6, (2, 5, 2))
    boxes, other_boxes = np.concatenate([corners, corners + sizes], axis=2).astype(np.float32)
    maps = map_boxes(boxes, other_boxes)
    samples = rng.uniform(0, 63, (5, 2))
    places = boxes[:, :2] + (samples + 0.5) / 64 * (boxes[:, 2:] - boxes[:, :2])
    expected = (places - other_boxes[:, :2]) / (other_boxes[:, 2:] - other_boxes[:, :2]) * 64 - 0.5
    mapped = (maps @ np.append(samples, np.ones((5, 1)), axis=1)[..., None])[..., 0]
    np.testing.assert_allclose(mapped, expected, rtol=1e-4, atol=1e-3)
    there_and_back = chain_transforms(map_boxes(other_boxes, boxes), maps)
    np.testing.assert_allclose(there_and_back, np.broadcast_to(np.eye(2, 3), (5, 2, 3)), atol=1e-3)


@pytest.mark.parametrize("width", range(2, 24))
def test_strip_as_wide_as_the_rest_leaves_no_narrow_panel(width):
    pixels = np.repeat(np.linspace(0, 230, 40).astype(np.uint8)[:, None], 20 + width, axis=1)
    pixels[:, :20] = 250
    panel = find_panel(pixels)
    assert panel is None or pixels[panel].shape[1] == width
