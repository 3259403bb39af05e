"""Augmented views of images: geometry, colours, blur, and normalisation, compared with definitions and Pillow."""

import cv2
import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images

from benchmarks.pillow_views import pillow_views
from ernie_vil2.config import ViewsConfig
from ernie_vil2.data import decoding
from ernie_vil2.data.augment import ImageNormalization, draw_image_views, gaussian_blur, jitter_colours
from ernie_vil2.data.preprocessing import make_evaluation_view, normalize_images
from tests.support.image_formats import disable_simplejpeg
from tests.support.limits import limit_examples
from tests.support.shapes import encode_png

# Only crops: without flips and changes of colour.
CROPS_ONLY = {"resize": 32, "flip": 0.0, "jitter": 0.0, "blur": 0.0, "grayscale": 0.0}
LUMA = np.array([0.299, 0.587, 0.114])  # brightness of red, green and blue


def make_config(**changes):
    return ViewsConfig(**(CROPS_ONLY | changes))


def make_noise(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [height, width, 3], dtype=np.uint8)


def encode_jpeg(pixels):
    return cv2.imencode(".jpg", pixels[..., ::-1])[1].tobytes()


def draw_views(data, count, size, config, seed=0, **options):
    """Draw views of the bytes of a file, or of pixels."""
    if isinstance(data, np.ndarray):
        data = encode_png(data)
    return draw_image_views(data, "a", count, size, config, np.random.default_rng(seed), **options)


def load_photographs(width, height):
    return [cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA) for photo in load_sample_images().images]


SIDE = st.integers(1, 200)


@limit_examples(30)
@given(SIDE, SIDE, st.integers(0, 2**31), st.booleans(), st.sampled_from([encode_png, encode_jpeg]))
def test_views_of_any_image_have_the_input_size(height, width, seed, has_crop_area, encode):
    config = ViewsConfig(resize=32, crop_area=[0.2, 1.0] if has_crop_area else None)
    for view in draw_views(encode(make_noise(height, width)), 2, 24, config, seed):
        assert view.shape == (24, 24, 3) and view.dtype == np.uint8 and view.flags.c_contiguous
    assert make_evaluation_view(make_noise(height, width), 24).shape == (24, 24, 3)


@pytest.mark.parametrize("crop_area", [None, [0.5, 1.0]])
def test_transparent_pixels_show_the_background(crop_area):
    transparent = np.zeros((40, 60, 4), np.uint8)  # the colour below is black, as in cut-outs
    data = cv2.imencode(".png", transparent)[1].tobytes()
    config = make_config(crop_area=crop_area)
    for options, colour in (({}, 255), ({"background": [1, 2, 3]}, np.array([1, 2, 3]))):
        for view in draw_views(data, 2, 24, config, **options):
            np.testing.assert_array_equal(view, np.broadcast_to(colour, view.shape))


def test_view_without_changes_of_colour_is_a_window_of_the_image():
    pixels = make_noise(32, 48)  # the short side is 32 already, so that nothing is resized
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (20, 20), (0, 1))
    windows = windows.transpose(0, 1, 3, 4, 2)  # [top, left, 20, 20, 3]
    for view in draw_views(pixels, 3, 20, make_config(), seed=3):
        assert (windows == view).all(axis=(2, 3, 4)).sum() == 1


def test_crops_are_uniform_over_all_positions():
    pixels = np.zeros([32, 32, 3], np.uint8)
    pixels[..., 0] = np.arange(32)[:, None]
    pixels[..., 1] = np.arange(32)[None, :]
    # The corner of a crop of 24 pixels in 32 lies between 0 and 8 in both directions: mean 4.
    corners = [view[0, 0, :2] for view in draw_views(pixels, 2000, 24, make_config())]
    assert np.min(corners) == 0 and np.max(corners) == 8
    assert np.abs(np.mean(corners, axis=0) - 4).max() < 0.2


def test_crop_covers_the_configured_share_of_the_area():
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (256, 1, 3))
    views = draw_views(ramp, 400, 64, make_config(crop_area=[0.25, 0.25]))
    spans = [(view[32, -1, 0].astype(int) - view[32, 0, 0]) / 255 for view in views]  # shares of the width
    # A quarter of the area with an aspect ratio of 3/4 to 4/3 is 0.43 to 0.58 of the width.
    assert min(spans) > 0.41 and max(spans) < 0.59 and abs(np.mean(spans) - 0.5) < 0.02


@pytest.mark.parametrize(("factor", "crop_area"), [(2, None), (8, None), (4, [0.3, 1.0])])
def test_decoding_at_a_smaller_scale_does_not_shift_views(crop_area, factor):
    height, width = 48 * factor, 64 * factor
    ramps = np.zeros([height, width, 3], np.uint8)
    ramps[..., 0] = np.linspace(20, 235, height)[:, None]
    ramps[..., 1] = np.linspace(20, 235, width)[None, :]
    data, config = encode_jpeg(ramps), make_config(crop_area=crop_area)
    small = draw_views(data, 200, 24, config, seed=1)  # decoded at a smaller scale, as it is a JPEG
    full_scale = draw_views(decoding.decode_image(data, "a"), 200, 24, config, seed=1)
    # About the step of brightness from a pixel of a view to the next one, so that shifts are in pixels.
    step = 215 / 32 if crop_area is None else 215 / 40
    shifts = np.subtract(small, full_scale, dtype=float).mean(axis=(1, 2)) / step
    # The corners of crops of areas are rounded to whole pixels of the decoded image.
    tolerance = 0.1 if crop_area is None else 1.0
    for shift in shifts[:, :2].T:
        assert np.abs(shift).max() < tolerance and abs(shift.mean()) < 0.1


@pytest.mark.parametrize("size", [(375, 500), (900, 1200), (100, 2000)])
def test_resized_image_is_close_to_the_means_of_areas(size):
    for photo in load_photographs(*size[::-1]):
        view = make_evaluation_view(photo, 96)
        scale = 96 / min(size)
        area = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = (area.shape[0] - 96) // 2, (area.shape[1] - 96) // 2
        difference = view.astype(int) - area[top : top + 96, left : left + 96]
        assert abs(difference.mean()) < 0.5 and np.abs(difference).mean() < 0.1 * photo.std()


def test_flip_mirrors_with_its_probability():
    ramp = np.tile(np.arange(32, dtype=np.uint8)[None, :, None], (32, 1, 3))
    views = draw_views(ramp, 2000, 32, make_config(flip=0.25))
    # The standard deviation of the share is 0.01.
    assert abs(np.mean([view[0, 0, 0] == 31 for view in views]) - 0.25) < 0.03
    assert (draw_views(ramp, 1, 32, make_config(flip=1.0))[0] == ramp[:, ::-1]).all()


def jitter_step_by_step(pixels, brightness, contrast, saturation, turn):
    """Change brightness, contrast, saturation and hue by their definitions, in floating point."""
    pixels = brightness * pixels.astype(float)
    mean = (pixels @ LUMA).mean()
    pixels = mean + contrast * (pixels - mean)
    luma = (pixels @ LUMA)[..., None]
    pixels = luma + saturation * (pixels - luma)
    to_yiq = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    luma, in_phase, quadrature = np.moveaxis(pixels @ to_yiq.T, -1, 0)
    turned = (in_phase + 1j * quadrature) * np.exp(2j * np.pi * turn)
    return np.stack([luma, turned.real, turned.imag], axis=-1) @ np.linalg.inv(to_yiq).T


STRENGTH = st.floats(0.5, 1.5)


@limit_examples(30)
@given(STRENGTH, STRENGTH, STRENGTH, st.floats(-0.5, 0.5), st.integers(0, 9))
def test_jitter_by_one_matrix_equals_the_four_changes_in_turn(brightness, contrast, saturation, turn, seed):
    pixels = make_noise(16, 16, seed)
    expected = jitter_step_by_step(pixels, brightness, contrast, saturation, turn)
    jittered = jitter_colours(pixels, brightness, contrast, saturation, turn)
    assert np.abs(jittered - expected.clip(0, 255)).max() <= 1


@limit_examples(30)
@given(STRENGTH, STRENGTH, STRENGTH, st.floats(-0.1, 0.1))
def test_jitter_and_conversion_to_grey_commute(brightness, contrast, saturation, turn):
    pixels = make_noise(16, 16).clip(90, 110)  # so that no jittered colour is clipped at black or white
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    grey_first = jitter_colours(grey, brightness, contrast, saturation, turn)
    grey_last = jitter_colours(pixels, brightness, contrast, saturation, turn) @ LUMA
    assert np.abs(grey_first - grey_last).max() <= 2.2  # the grey is rounded before it is stretched


def test_strengths_of_jitter_are_drawn_from_their_ranges():
    pixels = make_noise(32, 32).clip(100, 150)
    luma = pixels.astype(float) @ LUMA
    no_changes = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    # Each change moves colours towards a target or away from it: black, the mean brightness, or the grey of the pixel.
    for name, target in (
        ("brightness", np.zeros([32, 32, 3])),
        ("contrast", np.full([32, 32, 3], luma.mean())),
        ("saturation", np.repeat(luma[..., None], 3, axis=2)),
    ):
        config = make_config(jitter=1.0, **(no_changes | {name: 0.3}))
        difference = pixels - target
        factors = []
        for view in draw_views(pixels, 300, 32, config):
            # Least squares for the factor of `target + factor * (pixels - target)`.
            factor = ((view - target) * difference).sum() / (difference**2).sum()
            assert np.abs(view - (target + factor * difference)).max() <= 1, name
            factors.append(factor)
        # Uniform from 0.7 to 1.3: mean 1, standard deviation 0.6 / sqrt(12).
        assert 0.69 < min(factors) < 0.71 and 1.29 < max(factors) < 1.31, name
        assert abs(np.mean(factors) - 1) < 0.03 and abs(np.std(factors) - 0.6 / 12**0.5) < 0.015, name


def blur_by_definition(pixels, sigma):
    reach = int(np.ceil(3 * sigma))
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    height, width = pixels.shape[:2]
    padded = np.pad(pixels.astype(float), [(reach, reach), (reach, reach), (0, 0)], mode="reflect")
    rows = sum(weight * padded[i : i + height] for i, weight in enumerate(kernel))
    return sum(weight * rows[:, i : i + width] for i, weight in enumerate(kernel))


@pytest.mark.parametrize("sigma", [0.1, 1.0, 2.0])
def test_blur_is_gaussian(sigma):
    pixels = make_noise(32, 32)
    assert np.abs(gaussian_blur(pixels, sigma) - blur_by_definition(pixels, sigma)).max() < 2.5
    np.testing.assert_array_equal(gaussian_blur(pixels[..., 0].copy(), sigma), gaussian_blur(pixels, sigma)[..., 0])


def test_grayscale_keeps_the_brightness():
    pixels = make_noise(32, 32)
    grey = draw_views(pixels, 1, 32, make_config(grayscale=1.0))[0]
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 1] == grey[..., 2]).all()
    assert np.abs(grey[..., 0] - pixels @ LUMA).max() < 1


def measure_views(views):
    """Return properties of views `[N, S, S, 3]`, each `[N]`."""
    luma = views @ LUMA
    chroma = np.ptp(views, axis=3).mean(axis=(1, 2))
    return {
        "red": views[..., 0].mean(axis=(1, 2)),
        "blue": views[..., 2].mean(axis=(1, 2)),
        "contrast": luma.std(axis=(1, 2)),
        "chroma": chroma,
        "left less right": luma[:, :, :20].mean(axis=(1, 2)) - luma[:, :, -20:].mean(axis=(1, 2)),
        "top less bottom": luma[:, :20].mean(axis=(1, 2)) - luma[:, -20:].mean(axis=(1, 2)),
        "detail": np.abs(np.diff(luma, axis=2)).mean(axis=(1, 2)),
        "grey": chroma == 0,
    }


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("photo", "hue", "tolerance", "crop_area"),
    [(0, 0.0, 0.03, [0.2, 1.0]), pytest.param(1, 0.1, 0.07, None, marks=pytest.mark.slow)],
)
def test_views_are_distributed_like_those_of_pillow(photo, hue, tolerance, crop_area):
    config = ViewsConfig(resize=64, crop_area=crop_area, hue=hue)
    data = encode_jpeg(load_photographs(85, 64)[photo])
    properties = measure_views(np.asarray(draw_views(data, 1000, 56, config, seed=1), float))
    pillow_properties = measure_views(np.asarray(pillow_views(data, 1000, 56, config, np.random.default_rng(2)), float))
    for name, expected in pillow_properties.items():
        values = properties[name]
        # Four standard deviations of the difference of two means of 1,000 views. The tolerance allows for our resize
        # without a filter and for the other definition of hue.
        chance = 4 * np.hypot(values.std(), expected.std()) / 1000**0.5
        assert abs(values.mean() - expected.mean()) < chance + tolerance * abs(expected.mean()), name
        if name != "grey":  # a share, which its mean describes completely
            assert values.std() == pytest.approx(expected.std(), rel=0.1 + tolerance), name


def test_equal_seeds_draw_equal_views_and_other_seeds_differ():
    data, config = encode_jpeg(make_noise()), ViewsConfig(resize=32)
    first = draw_views(data, 2, 24, config, seed=1)
    assert np.array_equal(first, draw_views(data, 2, 24, config, seed=1))
    assert not np.array_equal(first, draw_views(data, 2, 24, config, seed=2))
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize(("photo", "crop_area"), [(0, None), (1, [0.5, 1.0])])
def test_decoders_differ_only_at_edges_of_colours(photo, crop_area, monkeypatch):
    data, config = encode_jpeg(load_photographs(500, 375)[photo]), make_config(resize=256, crop_area=crop_area)
    fast_views = draw_views(data, 2, 224, config, seed=1)
    disable_simplejpeg(monkeypatch)
    exact_views = draw_views(data, 2, 224, config, seed=1)
    for fast, exact in zip(fast_views, exact_views, strict=True):
        fast_grey = cv2.cvtColor(fast, cv2.COLOR_RGB2GRAY).astype(int)
        exact_grey = cv2.cvtColor(exact, cv2.COLOR_RGB2GRAY).astype(int)
        difference = np.abs(fast.astype(int) - exact)
        assert np.abs(fast_grey - exact_grey).mean() < 0.5 and 0 < difference.mean() < 1.5
        np.testing.assert_allclose(fast.mean(axis=(0, 1)), exact.mean(axis=(0, 1)), atol=0.2)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_normalisation_in_one_pass_equals_the_formula(dtype, tolerance):
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape([2, 8, 16, 3])
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    normalized = ImageNormalization(mean, std, dtype)(paddle.to_tensor(pixels))
    assert normalized.dtype == getattr(paddle, dtype) and normalized.stop_gradient
    np.testing.assert_allclose(normalized.numpy(), expected, atol=tolerance)
    for_evaluation = normalize_images(paddle.to_tensor(pixels), mean, std)
    np.testing.assert_allclose(for_evaluation.numpy(), expected, atol=1e-6)
