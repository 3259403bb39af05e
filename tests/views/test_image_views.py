import colorsys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_vil2.config import ViewsConfig
from ernie_vil2.views import augmented_view, evaluation_view, normalize_images

PLAIN = {"resize": 32, "flip": 0.0, "jitter": 0.0, "blur": 0.0, "grayscale": 0.0}


def views(**changes):
    return ViewsConfig(**(PLAIN | changes))


def image(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [height, width, 3], dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 2**31), cropped=st.booleans())
def test_any_image_becomes_a_view_of_the_input_size(height, width, seed, cropped):
    config = ViewsConfig(resize=32, crop_area=[0.2, 1.0] if cropped else None)
    view = augmented_view(image(height, width), 24, config, np.random.default_rng(seed))
    assert view.shape == (24, 24, 3) and view.dtype == np.uint8 and view.flags.c_contiguous
    assert evaluation_view(image(height, width), 24).shape == (24, 24, 3)


def test_without_strengths_the_view_is_a_window_of_the_resized_image():
    picture = image(32, 48)  # the short side is 32 already: no resize
    view = augmented_view(picture, 20, views(), np.random.default_rng(3))
    windows = np.lib.stride_tricks.sliding_window_view(picture, (20, 20), (0, 1)).transpose(0, 1, 3, 4, 2)
    assert (windows == view).all(axis=(2, 3, 4)).sum() == 1


def test_crops_reach_every_place_evenly():
    picture = np.zeros([32, 32, 3], np.uint8)
    picture[..., 0] = np.arange(32)[:, None]
    picture[..., 1] = np.arange(32)[None, :]
    rng = np.random.default_rng(0)
    corners = np.array([augmented_view(picture, 24, views(), rng)[0, 0, :2] for _ in range(3000)])
    assert corners.min() == 0 and corners.max() == 8
    assert np.abs(corners.mean(axis=0) - 4).max() < 0.2


def test_crop_area_covers_the_share_that_it_names():
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (256, 1, 3))
    rng = np.random.default_rng(0)
    spans = []
    for _ in range(400):
        row = augmented_view(ramp, 64, views(crop_area=[0.25, 0.25]), rng)[32, :, 0].astype(int)
        spans.append((row[-1] - row[0]) / 255)
    # A quarter of the area at an aspect of 3/4 to 4/3 is 0.43 to 0.58 of the width.
    assert 0.41 < min(spans) and max(spans) < 0.59 and abs(np.mean(spans) - 0.5) < 0.02


def test_flip_mirrors_with_its_probability():
    ramp = np.tile(np.arange(32, dtype=np.uint8)[None, :, None], (32, 1, 3))
    rng = np.random.default_rng(0)
    flipped = [augmented_view(ramp, 32, views(flip=0.25), rng)[0, 0, 0] == 31 for _ in range(2000)]
    assert abs(np.mean(flipped) - 0.25) < 0.03
    assert (augmented_view(ramp, 32, views(flip=1.0), rng) == ramp[:, ::-1]).all()


def jittered(picture, seed=0, **strengths):
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    config = views(jitter=1.0, **(none | strengths))
    return augmented_view(picture, picture.shape[0], config, np.random.default_rng(seed)).astype(float)


def test_brightness_scales_contrast_and_saturation_blend():
    picture = image(32, 32).clip(60, 180)
    luma = picture.astype(float) @ [0.299, 0.587, 0.114]
    for name, target in (
        ("brightness", np.zeros([32, 32, 3])),
        ("contrast", np.full([32, 32, 3], luma.mean())),
        ("saturation", np.repeat(luma[..., None], 3, axis=2)),
    ):
        factors = []
        for seed in range(100):
            changed = jittered(picture, seed, **{name: 0.3})
            # Least squares for the factor of `target + factor * (picture - target)`.
            difference = picture - target
            factor = ((changed - target) * difference).sum() / (difference**2).sum()
            inside = (target + factor * difference).round().clip(0, 255)
            assert np.abs(changed - inside).max() <= 1, name
            factors.append(factor)
        assert 0.69 < min(factors) < 0.75 and 1.25 < max(factors) < 1.31, name


def test_hue_turns_the_colour_circle():
    picture = np.full([8, 8, 3], (200, 60, 60), np.uint8)
    hue, *rest = colorsys.rgb_to_hsv(200 / 255, 60 / 255, 60 / 255)
    for seed in range(30):
        pixel = jittered(picture, seed, hue=0.5)[0, 0] / 255
        turned = colorsys.rgb_to_hsv(*pixel)
        assert np.allclose(turned[1:], rest, atol=0.01)
    assert np.allclose(jittered(picture, hue=0.0), picture)


def test_grayscale_and_blur():
    picture = image(32, 32)
    gray = augmented_view(picture, 32, views(grayscale=1.0), np.random.default_rng(0))
    assert (gray[..., 0] == gray[..., 1]).all() and (gray[..., 1] == gray[..., 2]).all()
    assert np.abs(gray[..., 0] - picture @ [0.299, 0.587, 0.114]).max() < 1
    blurred = augmented_view(picture, 32, views(blur=1.0, blur_sigma=[1.0, 1.0]), np.random.default_rng(0))
    assert (blurred == cv2.GaussianBlur(picture, (0, 0), 1.0)).all() and blurred.std() < picture.std() / 2


def test_the_seed_decides_and_two_seeds_differ():
    picture, config = image(), ViewsConfig(resize=32)
    first, again, other = (augmented_view(picture, 24, config, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_evaluation_view_is_the_centre():
    picture = np.zeros([20, 60, 3], np.uint8)
    picture[:, 20:40] = 255
    assert (evaluation_view(picture, 20) == 255).all()


def test_normalisation_by_hand():
    paddle = pytest.importorskip("paddle")
    pixels = np.array([[[[255, 0, 128]]]], np.uint8)
    values = normalize_images(paddle.to_tensor(pixels), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).numpy()
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    assert values.shape == (1, 3, 1, 1) and np.allclose(values.ravel(), expected, atol=1e-6)
