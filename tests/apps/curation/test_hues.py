"""Images of other hues are told from copies in other light, from stickers and from grey copies."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ernie_vil2.apps.curation.hues import have_other_hues
from ernie_vil2.apps.curation.registration import COLOUR_SIDE, SIDE

DRAWING_SIDE = 160
WHOLE = np.eye(2, 3, dtype=np.float32)
MIRRORED = np.array([[-1, 0, SIDE - 1], [0, 1, 0]], np.float32)


def draw(seed=0):
    """Return coloured shapes on a coloured ground, `[160, 160, 3]` uint8."""
    rng = np.random.default_rng(seed)
    pixels = np.full((DRAWING_SIDE, DRAWING_SIDE, 3), rng.integers(60, 200, 3), np.uint8)
    for _ in range(12):
        centre, colour = rng.integers(0, DRAWING_SIDE, 2).tolist(), rng.integers(40, 220, 3).tolist()
        cv2.circle(pixels, centre, int(rng.integers(12, 40)), colour, -1)
    return pixels


def enhance(enhancer, factor):
    return lambda pixels: np.asarray(enhancer(Image.fromarray(pixels)).enhance(factor))


def add_sticker(pixels):
    covered = pixels.copy()
    cv2.rectangle(covered, (20, 80), (80, 140), (255, 0, 200), -1)
    return covered


def turn_hues(pixels):
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + 60) % 180  # OpenCV counts hues in steps of 2 degrees
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def draw_product(colour):
    """Return a product on a grey ground that it does not cover much of."""
    pixels = np.full((DRAWING_SIDE, DRAWING_SIDE, 3), 200, np.uint8)
    cv2.circle(pixels, (80, 80), 38, colour, -1)
    return pixels


def shrink(pixels):
    """Return the colours of a thumbnail, `[16, 16, 3]` float32."""
    return cv2.resize(pixels, (COLOUR_SIDE, COLOUR_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def compare(first, second, transform=WHOLE):
    return bool(have_other_hues(shrink(first)[None], shrink(second)[None], transform[None], min_agreement=0.5)[0])


COPIES = {
    "darker": enhance(ImageEnhance.Brightness, 0.5),
    "brighter": enhance(ImageEnhance.Brightness, 1.5),
    "less contrast": enhance(ImageEnhance.Contrast, 0.6),
    "paler": enhance(ImageEnhance.Color, 0.4),
    "grey": enhance(ImageEnhance.Color, 0.0),
    "more colour": enhance(ImageEnhance.Color, 1.7),
    "tinted": lambda pixels: (pixels * np.array([0.93, 1.0, 0.86])).astype(np.uint8),
    "under a sticker": add_sticker,
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_have_the_same_hues(kind):
    for seed in range(5):
        pixels = draw(seed)
        assert not compare(pixels, COPIES[kind](pixels))
        assert not compare(COPIES[kind](pixels), pixels)


def test_another_hue_is_told():
    for seed in range(5):
        assert compare(draw(seed), turn_hues(draw(seed)))


def test_a_product_in_another_colour_on_grey_is_no_product_under_a_sticker():
    assert compare(draw_product((200, 40, 40)), draw_product((40, 70, 200)))
    assert not compare(draw_product((200, 40, 40)), draw_product((140, 30, 30)))


def test_colours_are_compared_where_the_map_lays_them():
    pixels = draw()
    mirrored = pixels[:, ::-1]
    assert not compare(pixels, mirrored, MIRRORED)
    assert compare(pixels, mirrored)


def test_pairs_are_judged_one_by_one():
    images = [shrink(draw(seed)) for seed in range(3)]
    turned = [shrink(turn_hues(draw(seed))) for seed in range(3)]
    first = np.stack([*images, *images] * 200)  # more pairs than are compared at once
    second = np.stack([*images, *turned] * 200)
    expected = [False] * 3 + [True] * 3
    are_other = have_other_hues(first, second, np.broadcast_to(WHOLE, (len(first), 2, 3)), min_agreement=0.5)
    assert are_other.tolist() == expected * 200
