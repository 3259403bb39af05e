"""Preprocessing of images for evaluation, compared with the official geometry, PaddleNLP and OpenCV."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ernie_vil2.data.preprocessing import Preprocessing, make_evaluation_view
from ernie_vil2.data.samples import BadSample
from tests.support.image_formats import encode_image, make_smooth_image
from tests.support.limits import limit_examples
from tests.support.towers import make_image_config

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
KINDS = ["ernie_vil2", "official", "paddlenlp"]


def make_preprocessing(kind, size=24):
    return Preprocessing(kind, size, MEAN, STD)


@pytest.fixture(scope="module")
def processor():
    """Return PaddleNLP's processor without its normalisation; it gives pixels as uint8 `[S, S, 3]`."""
    from paddlenlp.transformers import ErnieViLImageProcessor

    paddlenlp_processor = ErnieViLImageProcessor(size=24, crop_size=24, do_rescale=False, do_normalize=False)
    return lambda image: paddlenlp_processor(image)["pixel_values"][0].transpose(1, 2, 0)


def test_preprocessing_follows_the_configuration():
    config = make_image_config(image_size=32, preprocessing="paddlenlp", mean=list(MEAN), std=list(STD))
    assert Preprocessing.from_config(config) == make_preprocessing("paddlenlp", 32)
    default = Preprocessing.from_config(make_image_config())
    assert (default.kind, default.size, default.mean) == ("ernie_vil2", 224, (0.485, 0.456, 0.406))
    assert default.background == (255, 255, 255)
    assert Preprocessing.from_config(make_image_config(background=[1, 2, 3])).background == (1, 2, 3)


@pytest.mark.parametrize(
    ("height", "width", "resized", "top", "left"),
    [
        (300, 400, (299, 224), 0, 38),  # int(224 / 300 * 400) + 1 = 299; ceil(75 / 2) = 38
        (500, 333, (224, 337), 57, 0),  # int(224 / 333 * 500) + 1 = 337; ceil(113 / 2) = 57
        (448, 448, (225, 224), 0, 1),  # a square becomes wider
        (224, 301, (301, 224), 0, 39),  # the short side is 224 already, so that nothing is resized
    ],
)
def test_official_geometry_equals_its_computation_by_hand(height, width, resized, top, left):
    image = make_smooth_image(height, width)
    expected = image
    if (width, height) != resized:
        expected = cv2.resize(image, resized, interpolation=cv2.INTER_LINEAR)
    view = make_preprocessing("official", 224).make_view(image)
    np.testing.assert_array_equal(view, expected[top : top + 224, left : left + 224])


@pytest.mark.thorough
@limit_examples(30)
@given(height=st.integers(4, 90), width=st.integers(4, 90))
def test_pixels_equal_paddlenlps(processor, height, width):
    # PaddleNLP takes 1 or 3 rows for channels: no such images.
    image = make_smooth_image(height, width)
    np.testing.assert_array_equal(make_preprocessing("paddlenlp").make_view(image), processor(Image.fromarray(image)))


@limit_examples(30)
@given(height=st.integers(1, 200), width=st.integers(1, 200), kind=st.sampled_from(KINDS))
def test_view_of_any_image_has_the_input_size(height, width, kind):
    view = make_preprocessing(kind)(make_smooth_image(height, width), "a")
    assert view.shape == (24, 24, 3) and view.dtype == np.uint8
    if kind == "ernie_vil2":
        np.testing.assert_array_equal(view, make_evaluation_view(make_smooth_image(height, width), 24))


COLOUR = Image.fromarray(make_smooth_image(40, 60))
MODES = {
    "colour": COLOUR,
    "grey": COLOUR.convert("L"),
    "black and white": COLOUR.convert("1"),
    "palette": COLOUR.quantize(32),
    "transparent": Image.fromarray(make_smooth_image(40, 60, 4)),
    "grey, transparent": COLOUR.convert("LA"),
    "palette, transparent": Image.fromarray(make_smooth_image(40, 60, 4)).quantize(32),
    "16 bits": Image.fromarray(make_smooth_image(40, 60)[..., 0].astype(np.uint16) * 257),
}


@pytest.mark.parametrize("name", MODES)
def test_files_of_every_mode_are_read_as_the_references_do(name, processor):
    data = encode_image(MODES[name])
    np.testing.assert_array_equal(make_preprocessing("paddlenlp")(data, "a"), processor(Image.open(io.BytesIO(data))))
    # The official code decodes with OpenCV: transparency and all but the upper 8 bits are dropped.
    opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(make_preprocessing("official").decode(data, "a"), opencv)
    if name != "16 bits":  # which Pillow clips at 255
        np.testing.assert_array_equal(make_preprocessing("paddlenlp").decode(data, "a"), opencv)


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("kind", ["ernie_vil2", "official"])
def test_image_of_pillow_gives_the_view_of_its_file(kind, name):
    data = encode_image(MODES[name])
    preprocessing = make_preprocessing(kind)
    np.testing.assert_array_equal(preprocessing(Image.open(io.BytesIO(data)), "a"), preprocessing(data, "a"))


@pytest.mark.parametrize("kind", [*KINDS, "transformers", "open_clip", "naflex"])
@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_crop_without_pixels_is_refused(kind, size):
    with pytest.raises(BadSample, match=rf"a \({size[0]} x {size[1]} pixels\)"):
        make_preprocessing(kind)(COLOUR.crop((3, 3, 3 + size[0], 3 + size[1])), "a")


@pytest.mark.parametrize("values", [np.ones([40, 60], np.int32), np.ones([40, 60], np.float32)], ids=["int", "float"])
def test_image_of_32_bits_is_refused(values):
    with pytest.raises(BadSample, match="a: pixels of 32 bits"):
        make_preprocessing("ernie_vil2")(Image.fromarray(values), "a")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_ernie_vil2_shows_the_background_of_transparent_pixels(mode):
    rgba = Image.fromarray(make_smooth_image(40, 60, 4))
    image = rgba.quantize(32) if mode == "P" else rgba.convert(mode)
    sources = [image]
    if mode != "PA":  # which PNG cannot hold
        sources += [encode_image(image), Image.open(io.BytesIO(encode_image(image)))]
    for colour in ((255, 255, 255), (9, 200, 30)):
        background = Image.new("RGBA", image.size, (*colour, 255))
        expected = np.asarray(Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")).astype(int)
        preprocessing = Preprocessing("ernie_vil2", 24, MEAN, STD, colour)
        for source in sources:
            assert np.abs(preprocessing.decode(source, "a") - expected).max() <= 1


def test_cmyk_is_decoded_like_the_references(processor):
    data = encode_image(COLOUR.convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(make_preprocessing("paddlenlp")(data, "a"), processor(Image.open(io.BytesIO(data))))
    assert np.abs(make_preprocessing("official").decode(data, "a").astype(int) - make_smooth_image(40, 60)).mean() < 12


def test_only_opencv_applies_the_orientation_of_exif(processor):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    data = encode_image(COLOUR, "JPEG", exif=exif, quality=100)
    assert make_preprocessing("official").decode(data, "a").shape == (60, 40, 3)
    assert make_preprocessing("paddlenlp").decode(data, "a").shape == (40, 60, 3)
    for kind in KINDS:  # an image of Pillow gives the view of its file
        view = make_preprocessing(kind)(Image.open(io.BytesIO(data)), "a")
        np.testing.assert_allclose(view.astype(int), make_preprocessing(kind)(data, "a"), atol=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode_image(COLOUR)[:60], "broken image"),
        (np.zeros([4, 4], np.uint8), "array"),
        (np.zeros([4, 4, 3]), "array"),
        (np.zeros([0, 4, 3], np.uint8), "array"),
    ],
    ids=range(4),
)
def test_error_names_what_is_not_an_image(kind, data, reason):
    with pytest.raises(BadSample, match=f"cat.png.*: {reason}"):
        make_preprocessing(kind)(data, "cat.png")
