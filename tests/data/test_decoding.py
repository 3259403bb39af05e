"""Decoding, next to Pillow and OpenCV as they come, and with either of the two JPEG decoders of ours."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from ernie_vil2.data import decoding
from ernie_vil2.data.decoding import EncodedImage, collect_remarks, decode_image
from ernie_vil2.data.samples import BadSample
from tests.support import image_formats
from tests.support.image_formats import smooth_image
from tests.support.limits import examples

COLOUR = Image.fromarray(smooth_image(75, 101))
TRANSPARENT = smooth_image(75, 101, 4)
WIDE = np.random.default_rng(0).integers(0, 2**16, [40, 60], dtype=np.uint16)


def encoded(image=COLOUR, kind="JPEG", **options):
    return image_formats.encoded(image, kind, **options)


def without_simplejpeg(monkeypatch):
    """As if simplejpeg could read no file."""
    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", None)  # whose call raises


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request, monkeypatch):
    """Runs a test with either decoder of JPEG."""
    if request.param == "Pillow":
        without_simplejpeg(monkeypatch)


JPEGS = [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1, "quality": 30}]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("image", [COLOUR, COLOUR.convert("L"), COLOUR.convert("CMYK")], ids=["colour", "grey", "CMYK"])
def test_both_decoders_give_the_pixels_of_pillow_at_every_scale(image, options, monkeypatch):
    data = encoded(image, **options)
    fast = [EncodedImage(data, "a").decode(shrink) for shrink in (1, 2, 4, 8)]
    without_simplejpeg(monkeypatch)
    rounding = 1 if image.mode == "CMYK" else 0  # in its way to RGB
    for shrink, pixels in zip((1, 2, 4, 8), fast, strict=True):
        np.testing.assert_allclose(EncodedImage(data, "a").decode(shrink).astype(int), pixels, rtol=0, atol=rounding)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    np.testing.assert_allclose(fast[0], expected, rtol=0, atol=rounding)


@pytest.mark.parametrize(("shrink", "factor"), [(0.2, 1), (1.99, 1), (2, 2), (3.9, 2), (4, 4), (50, 8)])
def test_jpeg_comes_as_small_as_the_caller_shrinks_it(decoder, shrink, factor):
    whole = smooth_image(80, 104)
    image = EncodedImage(encoded(Image.fromarray(whole), quality=95, subsampling=0), "a")
    assert (image.height, image.width) == (80, 104)
    means = whole.reshape(80 // factor, factor, 104 // factor, factor, 3).mean(axis=(1, 3))
    assert np.abs(image.decode(shrink) - means).mean() < 3


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"a comment"}])
def test_the_size_of_a_plain_jpeg_is_read_without_pillow(options, monkeypatch):
    data = encoded(**options)
    monkeypatch.setattr(decoding, "open_header", lambda data, name: pytest.fail("Pillow was asked"))
    image = EncodedImage(data, "a")
    assert (image.height, image.width) == (75, 101)


def png(colour, bits, values, *chunks):
    """A PNG written by hand: `values` `[H, W * channels]`, in the type of colour and bits of the specification."""
    width = values.shape[1] // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", width, len(values), bits, colour, 0, 0, 0)
    rows = b"".join(b"\0" + packed(row, bits) for row in values.tolist())
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def packed(values, bits):
    text = "".join(f"{value:0{bits}b}" for value in values)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


PNG_KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16),
             (6, 8), (6, 16)]  # fmt: skip


@examples(80)
@given(kind=st.sampled_from(PNG_KINDS), keyed=st.booleans(), seed=st.integers(0, 99), background=st.sampled_from(
    [(255, 255, 255), (0, 0, 0), (10, 200, 90)]))  # fmt: skip
def test_transparency_of_every_kind_of_png_shows_the_background(kind, keyed, seed, background):
    """Against the colours and the alpha that the PNG specification gives them."""
    (colour, bits), rng = kind, np.random.default_rng(seed)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    values = rng.integers(0, 2**bits, [5, 6, channels])
    values[0] = values[0, :1]  # more than one pixel of the transparent colour
    alpha, chunks = np.ones([5, 6, 1]), []
    if colour == 3:
        palette = rng.integers(0, 256, [2**bits, 3], dtype=np.uint8)
        chunks.append((b"PLTE", palette.tobytes()))
        shown = palette[values[..., 0]]
        if keyed:
            opacity = rng.integers(0, 256, 2**bits, dtype=np.uint8)
            chunks.append((b"tRNS", opacity.tobytes()))
            alpha = opacity[values] / 255
    else:
        # Of 16 bits the upper 8, fewer are stretched.
        levels = values >> 8 if bits == 16 else values * 255 // (2**bits - 1)
        shown = levels[..., : 1 if colour in (0, 4) else 3]
        if colour >= 4:
            alpha = levels[..., -1:] / 255
        elif keyed:
            key = values[0, 0]
            chunks.append((b"tRNS", struct.pack(f">{channels}H", *key)))
            # The upper 8 bits are all that is looked at in colours of 16 bits.
            same = levels == levels[0, 0] if (colour, bits) == (2, 16) else values == key
            alpha = 1.0 - same.all(axis=-1, keepdims=True)
    data = png(colour, bits, values.reshape(5, -1), *chunks)
    expected = shown * alpha + np.array(background) * (1 - alpha)
    assert np.abs(decode_image(data, "a", background) - expected).max() <= 1
    # Without a background the colours are those that are stored, as OpenCV gives them.
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decode_image(data, "a", None), stored)


@pytest.mark.parametrize(("kind", "options"), [
    ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {}), ("JPEG2000", {"irreversible": False}),
])  # fmt: skip
def test_transparency_of_other_files_shows_the_background(kind, options):
    data = encoded(Image.fromarray(TRANSPARENT), kind, **options)
    alpha = TRANSPARENT[..., 3:] / 255
    expected = TRANSPARENT[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(decode_image(data, "a") - expected).max() <= 1
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decode_image(data, "a", None), stored)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_what_is_odd_about_an_image_is_a_remark(capfd, monkeypatch):
    """libpng would print a line on each of these files but the one with the good profile."""
    good = encoded(kind="PNG", icc_profile=SRGB)
    for data, expected in (
        (encoded(kind="PNG", icc_profile=b"no profile"), ["damaged colour profile"]),
        (encoded(COLOUR.convert("L"), "PNG", icc_profile=SRGB), ["colour profile of other colours than the image's"]),
        (good, []),
    ):
        with collect_remarks() as heard:
            assert decode_image(data, "a").shape == (75, 101, 3)
        assert heard == expected
    monkeypatch.setattr(decoding, "_WRONG_PROFILES", (zlib.crc32(SRGB),))
    with collect_remarks() as heard:
        decode_image(good, "a")
    assert heard == ["known incorrect sRGB profile"]
    with pytest.raises(BadSample):
        decode_image(good[: len(good) // 2], "a")
    assert capfd.readouterr() == ("", "")


OPAQUE = Image.fromarray(np.dstack([TRANSPARENT[..., :3], np.full((75, 101), 255, np.uint8)]))


GREY = COLOUR.convert("L")
TURNED = [("JPEG", COLOUR), ("PNG", OPAQUE), ("TIFF", COLOUR), ("TIFF", GREY), ("TIFF", Image.fromarray(WIDE))]


@pytest.mark.parametrize(("kind", "image"), TURNED)
def test_files_are_turned_as_exif_says(decoder, kind, image):
    visible = OPAQUE.convert("RGB") if image is OPAQUE else image
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
        expected = cv2.imdecode(np.frombuffer(encoded(visible, kind, **options), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        data = EncodedImage(encoded(image, kind, **options), "a")
        assert (data.height, data.width) == expected.shape[:2]
        np.testing.assert_array_equal(data.decode(), expected)
        smaller = data.decode(2)  # as is done for JPEG alone
        if kind == "JPEG":
            assert smaller.shape == (-(-expected.shape[0] // 2), -(-expected.shape[1] // 2), 3)
        else:
            np.testing.assert_array_equal(smaller, expected)


@pytest.mark.parametrize(("kind", "options"), [
    ("PNG", {}), ("PPM", {}), ("JPEG2000", {}), ("TIFF", {"compression": "zstd"}), ("TIFF", {"big_tiff": True}),
])  # fmt: skip
def test_the_upper_8_of_16_bits_count(kind, options):
    pixels = decode_image(encoded(Image.fromarray(WIDE), kind, **options), "a")
    np.testing.assert_array_equal(pixels, np.repeat((WIDE >> 8)[..., None], 3, axis=2))


def tiff(width, height, colours, bits, channels, content, order="<", alpha=None):
    """A TIFF written by hand, in one strip: `colours` is 0 where 0 is white, 1 where it is black."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, colours), (273, 200), (277, channels),
            (278, height), (279, len(content)), *([] if alpha is None else [(338, alpha)])]  # fmt: skip
    fields = b"".join(
        # Both of two values fit into a field.
        struct.pack(f"{order}HHIHH", tag, 3, *((2, bits, bits) if tag == 258 and channels == 2 else (1, value, 0)))
        for tag, value in tags
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}IH", 8, len(tags)) + fields + struct.pack(f"{order}I", 0)
    return head.ljust(200, b"\0") + content


def test_grey_tiff_of_12_bits_with_0_as_white_or_with_alpha():
    twelve = b"".join(packed(row, 12) for row in (WIDE >> 4).tolist())
    for data, expected in (
        (tiff(60, 40, 1, 12, 1, twelve), WIDE >> 8),
        (tiff(60, 40, 0, 16, 1, WIDE.tobytes()), 255 - (WIDE >> 8)),
        (tiff(60, 40, 1, 16, 1, WIDE.astype(">u2").tobytes(), ">"), WIDE >> 8),
    ):
        np.testing.assert_array_equal(decode_image(data, "a"), np.repeat(expected[..., None], 3, axis=2))
    alpha, grey = WIDE >> 8, WIDE & 0xFF
    multiplied = np.stack([grey * alpha // 255, alpha], axis=-1).astype(np.uint8).tobytes()
    pixels = decode_image(tiff(60, 40, 1, 8, 2, multiplied, alpha=1), "a")
    assert np.abs(pixels - (grey * (alpha / 255) + 255 - alpha)[..., None]).max() <= 2


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_jpeg_that_was_cut_off_is_named(decoder, progressive, share):
    data = encoded(progressive=progressive, quality=95)
    with pytest.raises(BadSample, match="a: truncated image"):
        decode_image(data[: int(len(data) * share)], "a")


def test_a_thumbnail_does_not_make_a_cut_jpeg_whole(decoder):
    thumbnail = encoded(COLOUR.resize((16, 16)))
    header = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Exif\0\0" + thumbnail
    data = header + encoded()[2:]
    assert decode_image(data + b"what some cameras add", "a").shape == (75, 101, 3)
    with pytest.raises(BadSample, match="a: truncated image"):
        decode_image(data[:-400], "a")


def test_a_forgotten_file_is_no_remark_on_an_image(tmp_path):
    with collect_remarks() as heard:
        (tmp_path / "rows.csv").open("w")  # collected at once, with a warning of Python's
    assert heard == []
