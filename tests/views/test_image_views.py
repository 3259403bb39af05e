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
from tests.support.limits import limit_examples
from tests.support.shapes import encode_png

PLAIN = {"resize": 32, "flip": 0.0, "jitter": 0.0, "blur": 0.0, "grayscale": 0.0}
LUMA = np.array([0.299, 0.587, 0.114])


def views(**changes):
    return ViewsConfig(**(PLAIN | changes))


def image(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [height, width, 3], dtype=np.uint8)


def jpeg(pixels):
    return cv2.imencode(".jpg", pixels[..., ::-1])[1].tobytes()


def view(pixels, size, config, rng):
    return draw_image_views(encode_png(pixels), "a", 1, size, config, rng)[0]


def photographs(width, height):
    return [cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA) for photo in load_sample_images().images]


SIDE = st.integers(1, 200)


@limit_examples(30)
@given(SIDE, SIDE, st.integers(0, 2**31), st.booleans(), st.sampled_from([encode_png, jpeg]))
def test_any_image_becomes_views_of_the_input_size(height, width, seed, cropped, encode):
    config = ViewsConfig(resize=32, crop_area=[0.2, 1.0] if cropped else None)
    for made in draw_image_views(encode(image(height, width)), "a", 2, 24, config, np.random.default_rng(seed)):
        assert made.shape == (24, 24, 3) and made.dtype == np.uint8 and made.flags.c_contiguous
    assert make_evaluation_view(image(height, width), 24).shape == (24, 24, 3)


@pytest.mark.parametrize("crop_area", [None, [0.5, 1.0]])
def test_transparent_pixels_are_seen_on_the_background(crop_area):
    empty = np.zeros((40, 60, 4), np.uint8)  # as cut-outs are: black where nothing is
    data = cv2.imencode(".png", empty)[1].tobytes()
    config = views(crop_area=crop_area)
    for options, colour in (({}, 255), ({"background": [1, 2, 3]}, np.array([1, 2, 3]))):
        for made in draw_image_views(data, "a", 2, 24, config, np.random.default_rng(0), **options):
            np.testing.assert_array_equal(made, np.broadcast_to(colour, made.shape))


def test_without_strengths_a_view_is_a_window_of_the_image():
    pixels = image(32, 48)  # the short side is 32 already: no resize
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (20, 20), (0, 1)).transpose(0, 1, 3, 4, 2)
    for made in draw_image_views(encode_png(pixels), "a", 3, 20, views(), np.random.default_rng(3)):
        assert (windows == made).all(axis=(2, 3, 4)).sum() == 1


def test_crops_reach_every_position_evenly():
    pixels = np.zeros([32, 32, 3], np.uint8)
    pixels[..., 0] = np.arange(32)[:, None]
    pixels[..., 1] = np.arange(32)[None, :]
    corners = [
        made[0, 0, :2]
        for made in draw_image_views(encode_png(pixels), "a", 2000, 24, views(), np.random.default_rng(0))
    ]
    assert np.min(corners) == 0 and np.max(corners) == 8
    assert np.abs(np.mean(corners, axis=0) - 4).max() < 0.2


def test_crop_area_covers_the_share_that_it_names():
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (256, 1, 3))
    made = draw_image_views(encode_png(ramp), "a", 400, 64, views(crop_area=[0.25, 0.25]), np.random.default_rng(0))
    spans = [(one[32, -1, 0].astype(int) - one[32, 0, 0]) / 255 for one in made]
    # A quarter of the area at an aspect of 3/4 to 4/3 is 0.43 to 0.58 of the width.
    assert min(spans) > 0.41 and max(spans) < 0.59 and abs(np.mean(spans) - 0.5) < 0.02


@pytest.mark.parametrize(("factor", "crop_area"), [(2, None), (8, None), (4, [0.3, 1.0])])
def test_decoding_at_a_smaller_scale_moves_nothing(crop_area, factor):
    height, width = 48 * factor, 64 * factor
    ramps = np.zeros([height, width, 3], np.uint8)
    ramps[..., 0] = np.linspace(20, 235, height)[:, None]
    ramps[..., 1] = np.linspace(20, 235, width)[None, :]
    data, config = jpeg(ramps), views(crop_area=crop_area)
    small = draw_image_views(data, "a", 200, 24, config, np.random.default_rng(1))
    whole = draw_image_views(
        encode_png(decoding.decode_image(data, "a")), "a", 200, 24, config, np.random.default_rng(1)
    )
    pixel = 215 / 32 if crop_area is None else 215 / 40  # steps of brightness in a view, about
    shifts = np.subtract(small, whole, dtype=float).mean(axis=(1, 2)) / pixel
    for shift in shifts[:, :2].T:
        # Corners of crops are rounded to the pixels that there are.
        assert np.abs(shift).max() < (0.1 if crop_area is None else 1.0) and abs(shift.mean()) < 0.1


@pytest.mark.parametrize("size", [(375, 500), (900, 1200), (100, 2000)])
def test_resized_images_are_close_to_the_mean_over_the_area(size):
    for photo in photographs(*size[::-1]):
        made = make_evaluation_view(photo, 96)
        scale = 96 / min(size)
        area = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = ((side - 96) // 2 for side in area.shape[:2])
        area = area[top : top + 96, left : left + 96]
        difference = made.astype(int) - area
        assert abs(difference.mean()) < 0.5 and np.abs(difference).mean() < 0.1 * photo.std()


def test_flip_mirrors_with_its_probability():
    ramp = np.tile(np.arange(32, dtype=np.uint8)[None, :, None], (32, 1, 3))
    made = draw_image_views(encode_png(ramp), "a", 2000, 32, views(flip=0.25), np.random.default_rng(0))
    assert abs(np.mean([one[0, 0, 0] == 31 for one in made]) - 0.25) < 0.03
    assert (view(ramp, 32, views(flip=1.0), np.random.default_rng(0)) == ramp[:, ::-1]).all()


def jitter_one_after_the_other(pixels, brightness, contrast, saturation, turn):
    """In float, step by step, from the definitions."""
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
def test_one_matrix_does_what_the_four_do_one_after_the_other(brightness, contrast, saturation, turn, seed):
    pixels = image(16, 16, seed)
    expected = jitter_one_after_the_other(pixels, brightness, contrast, saturation, turn)
    made = jitter_colours(pixels, brightness, contrast, saturation, turn)
    assert np.abs(made - expected.clip(0, 255)).max() <= 1


@limit_examples(30)
@given(STRENGTH, STRENGTH, STRENGTH, st.floats(-0.1, 0.1))
def test_jitter_of_the_grey_is_the_grey_of_the_jitter(brightness, contrast, saturation, turn):
    pixels = image(16, 16).clip(90, 110)  # far from black and white
    before = jitter_colours(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), brightness, contrast, saturation, turn)
    after = jitter_colours(pixels, brightness, contrast, saturation, turn) @ LUMA
    assert np.abs(before - after).max() <= 2.2  # the grey was rounded before it was stretched


def test_strengths_of_colours_are_drawn_from_their_ranges():
    pixels = image(32, 32).clip(100, 150)
    luma = pixels.astype(float) @ LUMA
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    for name, target in (
        ("brightness", np.zeros([32, 32, 3])),
        ("contrast", np.full([32, 32, 3], luma.mean())),
        ("saturation", np.repeat(luma[..., None], 3, axis=2)),
    ):
        config = views(jitter=1.0, **(none | {name: 0.3}))
        difference = pixels - target
        factors = []
        for made in draw_image_views(encode_png(pixels), "a", 300, 32, config, np.random.default_rng(0)):
            # Least squares for the factor of `target + factor * (pixels - target)`.
            factor = ((made - target) * difference).sum() / (difference**2).sum()
            assert np.abs(made - (target + factor * difference)).max() <= 1, name
            factors.append(factor)
        assert 0.69 < min(factors) < 0.71 and 1.29 < max(factors) < 1.31, name
        assert abs(np.mean(factors) - 1) < 0.03 and abs(np.std(factors) - 0.6 / 12**0.5) < 0.015, name


def gaussian_by_hand(pixels, sigma):
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
    pixels = image(32, 32)
    assert np.abs(gaussian_blur(pixels, sigma) - gaussian_by_hand(pixels, sigma)).max() < 2.5
    np.testing.assert_array_equal(gaussian_blur(pixels[..., 0].copy(), sigma), gaussian_blur(pixels, sigma)[..., 0])


def test_grayscale_drops_the_colour_alone():
    pixels = image(32, 32)
    gray = view(pixels, 32, views(grayscale=1.0), np.random.default_rng(0))
    assert (gray[..., 0] == gray[..., 1]).all() and (gray[..., 1] == gray[..., 2]).all()
    assert np.abs(gray[..., 0] - pixels @ LUMA).max() < 1


def measured(made):
    """Return what is compared of each of some views `[N, S, S, 3]`."""
    luma = made @ LUMA
    chroma = np.ptp(made, axis=3).mean(axis=(1, 2))
    return {
        "red": made[..., 0].mean(axis=(1, 2)),
        "blue": made[..., 2].mean(axis=(1, 2)),
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
def test_views_are_distributed_as_those_of_pillow(photo, hue, tolerance, crop_area):
    """Over 1,000 views each; beyond chance, the resize without a filter and the other hue may add a little."""
    config = ViewsConfig(resize=64, crop_area=crop_area, hue=hue)
    data = jpeg(photographs(85, 64)[photo])
    ours = measured(np.asarray(draw_image_views(data, "a", 1000, 56, config, np.random.default_rng(1)), float))
    theirs = measured(np.asarray(pillow_views(data, 1000, 56, config, np.random.default_rng(2)), float))
    for name, reference in theirs.items():
        chance = 4 * np.hypot(ours[name].std(), reference.std()) / 1000**0.5
        assert abs(ours[name].mean() - reference.mean()) < chance + tolerance * abs(reference.mean()), name
        if name != "grey":  # a share, of which the mean says all
            assert ours[name].std() == pytest.approx(reference.std(), rel=0.1 + tolerance), name


def test_the_seed_decides_and_two_seeds_differ():
    data, config = jpeg(image()), ViewsConfig(resize=32)
    first, again, other = (
        draw_image_views(data, "a", 2, 24, config, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other) and not np.array_equal(first[0], first[1])


@pytest.mark.parametrize(("photo", "crop_area"), [(0, None), (1, [0.5, 1.0])])
def test_the_decoder_decides_edges_of_colours_alone(photo, crop_area, monkeypatch):
    data, config = jpeg(photographs(500, 375)[photo]), views(resize=256, crop_area=crop_area)
    fast = draw_image_views(data, "a", 2, 224, config, np.random.default_rng(1))
    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", None)  # as if it could not read the file: Pillow does
    exact = draw_image_views(data, "a", 2, 224, config, np.random.default_rng(1))
    for ours, theirs in zip(fast, exact, strict=True):
        grey = [cv2.cvtColor(made, cv2.COLOR_RGB2GRAY).astype(int) for made in (ours, theirs)]
        difference = np.abs(ours.astype(int) - theirs)
        assert np.abs(grey[0] - grey[1]).mean() < 0.5 and 0 < difference.mean() < 1.5
        np.testing.assert_allclose(ours.mean(axis=(0, 1)), theirs.mean(axis=(0, 1)), atol=0.2)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_normalisation_in_one_pass(dtype, tolerance):
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape([2, 8, 16, 3])
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    found = ImageNormalization(mean, std, dtype)(paddle.to_tensor(pixels))
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    plain = normalize_images(paddle.to_tensor(pixels), mean, std)
    np.testing.assert_allclose(plain.numpy(), expected, atol=1e-6)
    assert found.dtype == getattr(paddle, dtype) and found.stop_gradient
    np.testing.assert_allclose(found.numpy(), expected, atol=tolerance)
