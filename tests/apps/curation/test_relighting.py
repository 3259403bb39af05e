"""One change of light or colour is found in the pixels of two images, and no other one is taken for it."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ernie_vil2.apps.curation.relighting import relight

WHITE = (255, 255, 255)


def draw_disc(colour, ground=WHITE, stripe=None):
    pixels = np.full((120, 150, 3), ground, np.uint8)
    cv2.circle(pixels, (70, 60), 42, colour, -1)
    if stripe is not None:
        cv2.rectangle(pixels, (30, 50), (110, 70), stripe, -1)
    return pixels


TOY = draw_disc((200, 90, 40), (240, 240, 236), (60, 80, 150))


def relight_images(first, second):
    covered = np.ones(first.shape[:2], bool)
    return relight(first.astype(np.float32), second.astype(np.float32), covered)


def enhance(enhancer, factor):
    return lambda pixels: np.asarray(enhancer(Image.fromarray(pixels)).enhance(factor))


CHANGES = {
    "darker": enhance(ImageEnhance.Brightness, 0.6),
    "brighter": enhance(ImageEnhance.Brightness, 1.5),
    "less contrast": enhance(ImageEnhance.Contrast, 0.6),
    "more contrast": enhance(ImageEnhance.Contrast, 1.5),
    "paler": enhance(ImageEnhance.Color, 0.4),
    "grey": enhance(ImageEnhance.Color, 0.0),
    "more colour": enhance(ImageEnhance.Color, 1.7),
    "gamma": lambda pixels: (255 * (pixels / 255) ** 1.7).round().astype(np.uint8),
    "tinted": lambda pixels: (pixels * np.array([0.95, 1.0, 0.86])).astype(np.uint8),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_changes_of_light_are_found_and_undone(kind):
    changed = CHANGES[kind](TOY)
    for pair in ((TOY, changed), (changed, TOY)):
        relit = relight_images(*pair)
        assert relit is not None
        assert np.median(np.abs(relit[0] - relit[1])) < 3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (draw_disc((200, 40, 40)), draw_disc((40, 40, 200))),  # another hue
        (draw_disc((200, 30, 30)), draw_disc((227, 142, 142))),  # a paler one; the white ground is as it was
        (draw_disc((200, 30, 30)), draw_disc((100, 15, 15))),  # a darker one, on the same ground
        (draw_disc((120, 120, 120)), draw_disc((180, 180, 180))),  # any change explains one level
        (TOY, draw_disc((200, 90, 40), (240, 240, 236), (60, 150, 80))),  # one part has another hue
        (TOY, TOY.transpose(1, 0, 2)[:120, :120].repeat(2, 1)[:, :150]),  # something else
    ],
)
def test_other_colours_and_shapes_are_no_change_of_light(first, second):
    assert relight_images(first, second) is None
    assert relight_images(second, first) is None
