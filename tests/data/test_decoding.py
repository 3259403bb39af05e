"""Decoding of images, compared with Pillow and OpenCV, with simplejpeg and with Pillow as the decoder of JPEG."""

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
from tests.support.image_formats import disable_simplejpeg, make_smooth_image
from tests.support.limits import limit_examples

COLOUR = Image.fromarray(make_smooth_image(75, 101))
TRANSPARENT = make_smooth_image(75, 101, 4)
WIDE = np.random.default_rng(0).integers(0, 2**16, [40, 60], dtype=np.uint16)  # grey of 16 bits


def encode_image(image=COLOUR, kind="JPEG", **options):
    return image_formats.encode_image(image, kind, **options)


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request, monkeypatch):
    """Run a test once with each decoder of JPEG."""
    if request.param == "Pillow":
        disable_simplejpeg(monkeypatch)


JPEGS = [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1, "quality": 30}]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("image", [COLOUR, COLOUR.convert("L"), COLOUR.convert("CMYK")], ids=["colour", "grey", "CMYK"])
def test_both_decoders_give_pillows_pixels_at_every_scale(image, options, monkeypatch):
    data = encode_image(image, **options)
    fast = [EncodedImage(data, "a").decode(shrink) for shrink in (1, 2, 4, 8)]
    disable_simplejpeg(monkeypatch)
    rounding = 1 if image.mode == "CMYK" else 0  # each decoder rounds when it converts to RGB
    for shrink, pixels in zip((1, 2, 4, 8), fast, strict=True):
        np.testing.assert_allclose(EncodedImage(data, "a").decode(shrink).astype(int), pixels, rtol=0, atol=rounding)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    np.testing.assert_allclose(fast[0], expected, rtol=0, atol=rounding)


@pytest.mark.parametrize(("shrink", "factor"), [(0.2, 1), (1.99, 1), (2, 2), (3.9, 2), (4, 4), (50, 8)])
def test_jpeg_is_decoded_at_the_scale_of_the_caller(decoder, shrink, factor):
    pixels = make_smooth_image(80, 104)
    image = EncodedImage(encode_image(Image.fromarray(pixels), quality=95, subsampling=0), "a")
    assert (image.height, image.width) == (80, 104)
    # A pixel of the smaller image is about the mean of a block of the whole one.
    block_means = pixels.reshape(80 // factor, factor, 104 // factor, factor, 3).mean(axis=(1, 3))
    assert np.abs(image.decode(shrink) - block_means).mean() < 3


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"a comment"}])
def test_size_of_a_plain_jpeg_is_read_without_pillow(options, monkeypatch):
    data = encode_image(**options)
    monkeypatch.setattr(decoding, "open_header", lambda data, name: pytest.fail("Pillow was asked"))
    image = EncodedImage(data, "a")
    assert (image.height, image.width) == (75, 101)


PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # type of colour in the PNG specification -> values of a pixel


def make_png(colour, bits, values, *chunks):
    """Return a PNG that is written without a library, with more chunks before its pixels.

    Args:
        colour: type of colour of the specification.
        values: `[H, W * channels]`.
    """
    width = values.shape[1] // PNG_CHANNELS[colour]
    header = struct.pack(">IIBBBBB", width, len(values), bits, colour, 0, 0, 0)
    rows = b"".join(b"\0" + pack_bits(row, bits) for row in values.tolist())  # 0: a row without a filter
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]:
        checksum = zlib.crc32(name + content)
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
    return data


def pack_bits(values, bits):
    """Return values of so many bits each as bytes; zeros fill the last one."""
    text = "".join(f"{value:0{bits}b}" for value in values)
    num_bytes = -(-len(text) // 8)
    return int(text.ljust(8 * num_bytes, "0"), 2).to_bytes(num_bytes, "big")


PNG_KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16),
             (6, 8), (6, 16)]  # fmt: skip


@limit_examples(80)
@given(kind=st.sampled_from(PNG_KINDS), has_key=st.booleans(), seed=st.integers(0, 99), background=st.sampled_from(
    [(255, 255, 255), (0, 0, 0), (10, 200, 90)]))  # fmt: skip
def test_transparency_of_every_kind_of_png_shows_the_background(kind, has_key, seed, background):
    colour, bits = kind
    rng = np.random.default_rng(seed)
    channels = PNG_CHANNELS[colour]
    values = rng.integers(0, 2**bits, [5, 6, channels])
    values[0] = values[0, :1]  # more than one pixel of the transparent colour

    # Colours and opacity of the pixels by the PNG specification.
    alpha, chunks = np.ones([5, 6, 1]), []
    if colour == 3:
        palette = rng.integers(0, 256, [2**bits, 3], dtype=np.uint8)
        chunks.append((b"PLTE", palette.tobytes()))
        colours = palette[values[..., 0]]
        if has_key:
            opacity = rng.integers(0, 256, 2**bits, dtype=np.uint8)
            chunks.append((b"tRNS", opacity.tobytes()))
            alpha = opacity[values] / 255
    else:
        # The upper 8 of 16 bits count; fewer than 8 bits are stretched to 8.
        levels = values >> 8 if bits == 16 else values * 255 // (2**bits - 1)
        colours = levels[..., : 1 if colour in (0, 4) else 3]
        if colour >= 4:
            alpha = levels[..., -1:] / 255
        elif has_key:
            key = values[0, 0]
            chunks.append((b"tRNS", struct.pack(f">{channels}H", *key)))
            # In colours of 16 bits only the upper 8 bits are compared with the transparent colour.
            is_key = levels == levels[0, 0] if (colour, bits) == (2, 16) else values == key
            alpha = 1.0 - is_key.all(axis=-1, keepdims=True)

    data = make_png(colour, bits, values.reshape(5, -1), *chunks)
    expected = colours * alpha + np.array(background) * (1 - alpha)
    assert np.abs(decode_image(data, "a", background) - expected).max() <= 1
    # Without a background the stored colours are returned, as OpenCV returns them.
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decode_image(data, "a", None), stored)


@pytest.mark.parametrize(("kind", "options"), [
    ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {}), ("JPEG2000", {"irreversible": False}),
])  # fmt: skip
def test_transparency_of_webp_tiff_and_jpeg2000_shows_the_background(kind, options):
    data = encode_image(Image.fromarray(TRANSPARENT), kind, **options)
    alpha = TRANSPARENT[..., 3:] / 255
    expected = TRANSPARENT[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(decode_image(data, "a") - expected).max() <= 1
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decode_image(data, "a", None), stored)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_wrong_colour_profiles_are_remarks_and_not_printed(capfd, monkeypatch):
    good = encode_image(kind="PNG", icc_profile=SRGB)
    damaged = encode_image(kind="PNG", icc_profile=b"no profile")
    grey = encode_image(COLOUR.convert("L"), "PNG", icc_profile=SRGB)
    for data, expected in (
        (damaged, ["damaged colour profile"]),
        (grey, ["colour profile of other colours than the image's"]),
        (good, []),
    ):
        with collect_remarks() as remarks:
            assert decode_image(data, "a").shape == (75, 101, 3)
        assert remarks == expected
    monkeypatch.setattr(decoding, "_WRONG_PROFILES", (zlib.crc32(SRGB),))
    with collect_remarks() as remarks:
        decode_image(good, "a")
    assert remarks == ["known incorrect sRGB profile"]
    with pytest.raises(BadSample):
        decode_image(good[: len(good) // 2], "a")
    # libpng prints a line on every wrong profile and on the file that was cut, unless it is kept from doing so.
    assert capfd.readouterr() == ("", "")


OPAQUE = Image.fromarray(np.dstack([TRANSPARENT[..., :3], np.full((75, 101), 255, np.uint8)]))
GREY = COLOUR.convert("L")
IMAGES_TO_TURN = [("JPEG", COLOUR), ("PNG", OPAQUE), ("TIFF", COLOUR), ("TIFF", GREY), ("TIFF", Image.fromarray(WIDE))]
ORIENTATION = 0x0112  # tag of EXIF and TIFF: 1 to 8, a turn and a mirroring


@pytest.mark.parametrize(("kind", "image"), IMAGES_TO_TURN)
def test_images_are_turned_by_the_orientation_of_exif(decoder, kind, image):
    without_alpha = OPAQUE.convert("RGB") if image is OPAQUE else image  # the same pixels
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options = {"tiffinfo": {ORIENTATION: orientation}} if kind == "TIFF" else {"exif": exif}
        opencv_input = np.frombuffer(encode_image(without_alpha, kind, **options), np.uint8)
        expected = cv2.imdecode(opencv_input, cv2.IMREAD_COLOR)[..., ::-1]
        turned = EncodedImage(encode_image(image, kind, **options), "a")
        assert (turned.height, turned.width) == expected.shape[:2]
        np.testing.assert_array_equal(turned.decode(), expected)
        smaller = turned.decode(2)
        if kind == "JPEG":  # the only format that is decoded at a smaller scale
            assert smaller.shape == (-(-expected.shape[0] // 2), -(-expected.shape[1] // 2), 3)
        else:
            np.testing.assert_array_equal(smaller, expected)


@pytest.mark.parametrize(("kind", "options"), [
    ("PNG", {}), ("PPM", {}), ("JPEG2000", {}), ("TIFF", {"compression": "zstd"}), ("TIFF", {"big_tiff": True}),
])  # fmt: skip
def test_upper_8_of_16_bits_are_decoded(kind, options):
    pixels = decode_image(encode_image(Image.fromarray(WIDE), kind, **options), "a")
    np.testing.assert_array_equal(pixels, np.repeat((WIDE >> 8)[..., None], 3, axis=2))


def make_tiff(width, height, zero_is_black, bits, channels, content, order="<", alpha=None):
    """Return a grey TIFF of one strip that is written without a library; `alpha` is its tag ExtraSamples."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, zero_is_black), (273, 200), (277, channels),
            (278, height), (279, len(content))]  # fmt: skip
    if alpha is not None:
        tags.append((338, alpha))
    fields = b""
    for tag, value in tags:
        # A field holds up to two short numbers: the bits of both channels, or one number and a zero.
        count_and_values = (2, bits, bits) if tag == 258 and channels == 2 else (1, value, 0)
        fields += struct.pack(f"{order}HHIHH", tag, 3, *count_and_values)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}IH", 8, len(tags)) + fields + struct.pack(f"{order}I", 0)
    return head.ljust(200, b"\0") + content


def test_rare_kinds_of_grey_tiff_are_decoded():
    twelve_bits = b"".join(pack_bits(row, 12) for row in (WIDE >> 4).tolist())
    for data, expected in (
        (make_tiff(60, 40, 1, 12, 1, twelve_bits), WIDE >> 8),
        (make_tiff(60, 40, 0, 16, 1, WIDE.tobytes()), 255 - (WIDE >> 8)),
        (make_tiff(60, 40, 1, 16, 1, WIDE.astype(">u2").tobytes(), ">"), WIDE >> 8),
    ):
        np.testing.assert_array_equal(decode_image(data, "a"), np.repeat(expected[..., None], 3, axis=2))

    # ExtraSamples 1: the grey is stored multiplied by alpha, rounded down; it is seen on white.
    alpha, grey = WIDE >> 8, WIDE & 0xFF
    multiplied = np.stack([grey * alpha // 255, alpha], axis=-1).astype(np.uint8).tobytes()
    pixels = decode_image(make_tiff(60, 40, 1, 8, 2, multiplied, alpha=1), "a")
    expected = grey * (alpha / 255) + 255 - alpha
    assert np.abs(pixels - expected[..., None]).max() <= 2  # the stored and the composed grey are both rounded


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_error_names_a_truncated_jpeg(decoder, progressive, share):
    data = encode_image(progressive=progressive, quality=95)
    with pytest.raises(BadSample, match="a: truncated image"):
        decode_image(data[: int(len(data) * share)], "a")


def test_truncated_jpeg_with_a_thumbnail_is_noticed(decoder):
    # The thumbnail holds an end marker of its own.
    thumbnail = encode_image(COLOUR.resize((16, 16)))
    header = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Exif\0\0" + thumbnail
    data = header + encode_image()[2:]
    assert decode_image(data + b"what some cameras add", "a").shape == (75, 101, 3)
    with pytest.raises(BadSample, match="a: truncated image"):
        decode_image(data[:-400], "a")


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\xe1\x00\x02", b"\xff" * 999 + b"\xfe\x00\x02"])
def test_jpeg_with_an_endless_header_is_a_bad_sample(filling):
    def fill(count):
        data = encode_image()
        return data[:2] + filling * count + data[2:]

    assert decode_image(fill(2), "a").shape == (75, 101, 3)
    endless = fill(4_000_000 // len(filling))
    with pytest.raises(BadSample, match="a: broken image"):
        decode_image(endless, "a")
    with pytest.raises(BadSample, match="a: broken image"):
        decoding.plan_decoding(endless, "a", lambda width, height: (1, 1))


def test_jpeg_2000_that_is_cut_within_its_header_is_a_bad_sample():
    data = encode_image(COLOUR, "JPEG2000")
    end_of_sizes = data.index(b"\xff\x4f\xff\x51") + 50
    for size in range(2, end_of_sizes):
        with pytest.raises(BadSample, match="a: broken image"):
            decode_image(data[:size], "a")


def test_warning_of_an_unclosed_file_is_not_a_remark(tmp_path):
    with collect_remarks() as remarks:
        (tmp_path / "rows.csv").open("w")  # Python collects it at once and warns
    assert remarks == []
