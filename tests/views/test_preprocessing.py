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


def preprocessing(kind, size=24):
    return Preprocessing(kind, size, MEAN, STD)


@pytest.fixture(scope="module")
def processor():
    """PaddleNLP's own, up to the crop: its pixels as uint8 `[S, S, 3]`."""
    from paddlenlp.transformers import ErnieViLImageProcessor

    own = ErnieViLImageProcessor(size=24, crop_size=24, do_rescale=False, do_normalize=False)
    return lambda image: own(image)["pixel_values"][0].transpose(1, 2, 0)


def test_the_configuration_decides():
    config = make_image_config(image_size=32, preprocessing="paddlenlp", mean=list(MEAN), std=list(STD))
    assert Preprocessing.from_config(config) == preprocessing("paddlenlp", 32)
    plain = Preprocessing.from_config(make_image_config())
    assert (plain.kind, plain.size, plain.mean) == ("ernie_vil2", 224, (0.485, 0.456, 0.406))
    assert plain.background == (255, 255, 255)
    assert Preprocessing.from_config(make_image_config(background=[1, 2, 3])).background == (1, 2, 3)


@pytest.mark.parametrize(
    ("height", "width", "resized", "top", "left"),
    [
        (300, 400, (299, 224), 0, 38),  # int(224 / 300 * 400) + 1 = 299; ceil(75 / 2) = 38
        (500, 333, (224, 337), 57, 0),  # int(224 / 333 * 500) + 1 = 337; ceil(113 / 2) = 57
        (448, 448, (225, 224), 0, 1),  # a square becomes wider
        (224, 301, (301, 224), 0, 39),  # the short side is 224 already: no resize
    ],
)
def test_official_geometry_by_hand(height, width, resized, top, left):
    image = make_smooth_image(height, width)
    expected = image if (width, height) == resized else cv2.resize(image, resized, interpolation=cv2.INTER_LINEAR)
    view = preprocessing("official", 224).view(image)
    np.testing.assert_array_equal(view, expected[top : top + 224, left : left + 224])


@pytest.mark.thorough
@limit_examples(30)
@given(height=st.integers(4, 90), width=st.integers(4, 90))
def test_pixels_are_those_of_paddlenlp(processor, height, width):
    # Its processor takes 1 or 3 rows for channels; such images are left out here.
    image = make_smooth_image(height, width)
    np.testing.assert_array_equal(preprocessing("paddlenlp").view(image), processor(Image.fromarray(image)))


@limit_examples(30)
@given(height=st.integers(1, 200), width=st.integers(1, 200), kind=st.sampled_from(KINDS))
def test_any_image_becomes_a_view_of_the_input_size(height, width, kind):
    view = preprocessing(kind)(make_smooth_image(height, width), "a")
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
def test_every_kind_of_file_is_read_as_the_reference_reads_it(name, processor):
    data = encode_image(MODES[name])
    np.testing.assert_array_equal(preprocessing("paddlenlp")(data, "a"), processor(Image.open(io.BytesIO(data))))
    # The official code decodes with OpenCV: transparency and all but the upper 8 bits are dropped.
    opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(preprocessing("official").decode(data, "a"), opencv)
    if name != "16 bits":  # which Pillow cuts off at 255
        np.testing.assert_array_equal(preprocessing("paddlenlp").decode(data, "a"), opencv)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_own_kind_puts_transparent_pixels_on_the_background(mode):
    """A file, and what Pillow reads of it, as Pillow composes both."""
    whole = Image.fromarray(make_smooth_image(40, 60, 4))
    image = whole.quantize(32) if mode == "P" else whole.convert(mode)
    for colour in ((255, 255, 255), (9, 200, 30)):
        own = Preprocessing("ernie_vil2", 24, MEAN, STD, colour)
        below = Image.new("RGBA", image.size, (*colour, 255))
        expected = np.asarray(Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")).astype(int)
        sources = [image] if mode == "PA" else [image, encode_image(image), Image.open(io.BytesIO(encode_image(image)))]
        for source in sources:
            assert np.abs(own.decode(source, "a") - expected).max() <= 1


def test_cmyk_is_read(processor):
    data = encode_image(COLOUR.convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(preprocessing("paddlenlp")(data, "a"), processor(Image.open(io.BytesIO(data))))
    assert np.abs(preprocessing("official").decode(data, "a").astype(int) - make_smooth_image(40, 60)).mean() < 12


def test_the_exif_orientation_counts_for_opencv_alone(processor):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    data = encode_image(COLOUR, "JPEG", exif=exif, quality=100)
    assert preprocessing("official").decode(data, "a").shape == (60, 40, 3)
    assert preprocessing("paddlenlp").decode(data, "a").shape == (40, 60, 3)
    for kind in KINDS:  # a Pillow image is seen as its file is
        view = preprocessing(kind)(Image.open(io.BytesIO(data)), "a")
        np.testing.assert_allclose(view.astype(int), preprocessing(kind)(data, "a"), atol=2)


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
def test_what_is_not_an_image_is_named(kind, data, reason):
    with pytest.raises(BadSample, match=f"cat.png.*: {reason}"):
        preprocessing(kind)(data, "cat.png")
