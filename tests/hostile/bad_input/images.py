"""Cases of images that are damaged or unusual, and of files that are no images."""

import struct
import zlib
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
from PIL import Image

from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import MAX_BYTES, Reason
from tests.hostile.bad_input.case import CAPTION, GOOD, Case, dump_json, shard_writer
from tests.support.image_formats import encode_image, make_smooth_image

PIXELS = make_smooth_image()
COLOUR = Image.fromarray(PIXELS)
JPEG = encode_image(COLOUR, "JPEG", quality=95, subsampling=0)
QUARTER_TURN = Image.Exif()
QUARTER_TURN[0x0112] = 6  # orientation: the image is stored turned a quarter to the left


def check_pixels(expected, tolerance, samples):
    """Check that every image has the expected pixels, up to a tolerance in levels."""
    for sample in samples:
        pixels = decode_image(sample.image, sample.image_name)
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(np.int16) - expected).max() <= tolerance


def used_case(input, data, expected=PIXELS, tolerance=0, note="", suffix="jpg"):
    check = partial(check_pixels, expected, tolerance)
    return Case(input, shard_writer((data, CAPTION, suffix)), num_used=1, note=note, check=check)


def skipped_case(input, data, reason, suffix="jpg"):
    return Case(input, shard_writer((data, CAPTION, suffix)), skips={reason: 1})


def encode_with_exif(content):
    return encode_image(COLOUR, "JPEG", quality=95, subsampling=0, exif=content)


def encode_animation(kind, **options):
    images = [Image.new("RGB", (64, 48), colour) for colour in ("red", "lime", "blue")]
    return encode_image(images[0], kind, save_all=True, append_images=images[1:], **options)


def make_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def make_png_of_zeros(height, width):
    """Return a PNG of one bit a pixel, which is small as a file and large in memory."""
    compressor = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))  # the filter, then eight pixels a byte
    content = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    start = make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + make_chunk(b"IDAT", content) + make_chunk(b"IEND", b"")


def make_png_with_text(size):
    """Return a PNG with a compressed comment of so many bytes."""
    comment = make_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(size)))
    return GOOD[:33] + comment + GOOD[33:]  # behind the signature and the header


def make_jpeg_of_size(height, width):
    position = JPEG.index(b"\xff\xc0") + 5  # behind marker, length and depth
    return JPEG[:position] + struct.pack(">HH", height, width) + JPEG[position + 4 :]


def damage(data, position, count):
    return data[:position] + bytes(byte ^ 0x55 for byte in data[position : position + count]) + data[position + count :]


def write_large_image(folder):
    (folder / "large.jpg").touch()
    with (folder / "large.jpg").open("r+b") as file:
        file.truncate(MAX_BYTES + 1)  # a hole, which takes no room on the disk
    (folder / "a.jsonl").write_bytes(dump_json(image="large.jpg", text=CAPTION))
    return folder / "a.jsonl"


PIXELS_OF_16_BITS = np.random.default_rng(0).integers(0, 2**16, [48, 64], dtype=np.uint16)
JPEG_2000_OF_16_BITS = cv2.imencode(".jp2", np.dstack([PIXELS_OF_16_BITS] * 3))[1].tobytes()
IS_INSIDE = np.hypot(*(np.mgrid[:48, :64] - np.array([24, 32]).reshape(2, 1, 1))) < 20  # a disc in the middle
TRANSPARENT = Image.fromarray(np.dstack([PIXELS, np.where(IS_INSIDE, 255, 0).astype(np.uint8)]))
ON_WHITE = np.where(IS_INSIDE[..., None], PIXELS, 255)
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n0 0 moveto\n%%EOF\n"
CYAN = Image.new("CMYK", (64, 48), (255, 0, 0, 0))

CASES = [
    skipped_case("JPEG, cut off", JPEG[: len(JPEG) // 2], Reason.TRUNCATED_IMAGE),
    skipped_case("JPEG with a damaged header", damage(JPEG, 2, 200), Reason.BROKEN_IMAGE),
    Case(
        "JPEG with damaged pixels",
        shard_writer((damage(JPEG, len(JPEG) // 2, 3), CAPTION)),
        num_used=1,
        note="as the decoder makes them out",
    ),
    used_case("JPEG with other bytes behind its end", JPEG + HTML, decode_image(JPEG, "")),
    skipped_case("PNG, cut off", GOOD[: len(GOOD) // 2], Reason.BROKEN_IMAGE, "png"),
    used_case("PNG with a wrong checksum", damage(GOOD, len(GOOD) - 16, 4), suffix="png"),
    skipped_case("image of zero bytes", b"", Reason.BROKEN_IMAGE),
    skipped_case("HTML page saved as .jpg", HTML, Reason.BROKEN_IMAGE),
    skipped_case("EPS, which Pillow would have Ghostscript run", EPS, Reason.BROKEN_IMAGE),
    skipped_case(
        "PNG bomb: 60 KB, 20,000 x 20,000 pixels", make_png_of_zeros(20_000, 20_000), Reason.TOO_MANY_PIXELS, "png"
    ),
    skipped_case("PNG whose comment unpacks to 100 MB", make_png_with_text(100_000_000), Reason.BROKEN_IMAGE, "png"),
    skipped_case("JPEG that claims 65,000 x 65,000 pixels", make_jpeg_of_size(65_000, 65_000), Reason.TOO_MANY_PIXELS),
    Case("image file of more than 256 MiB", write_large_image, skips={Reason.TOO_LARGE: 1}),
    used_case("PNG saved as .jpg", GOOD, note="the content says what it is"),
    used_case(
        "CMYK JPEG", encode_image(CYAN, "JPEG"), np.broadcast_to((0, 255, 255), (48, 64, 3)), 8, "converted to RGB"
    ),
    used_case(
        "grey PNG of 16 bits",
        encode_image(PIXELS_OF_16_BITS),
        np.repeat((PIXELS_OF_16_BITS >> 8)[..., None], 3, 2),
        0,
        "the upper 8 bits",
    ),
    skipped_case("JPEG 2000 of 16 bits a colour", JPEG_2000_OF_16_BITS, Reason.WIDE_JPEG_2000),
    skipped_case(
        "TIFF of 32-bit floats", encode_image(PIXELS_OF_16_BITS.astype(np.float32), "TIFF"), Reason.WIDE_PIXELS, "tif"
    ),
    used_case("black and white PNG", encode_image(COLOUR.convert("1")), np.asarray(COLOUR.convert("1").convert("RGB"))),
    used_case("PNG with transparency", encode_image(TRANSPARENT), ON_WHITE, 1, "on Model.image.background", "png"),
    used_case(
        "animated GIF", encode_animation("GIF"), np.broadcast_to((255, 0, 0), (48, 64, 3)), 4, "the first image", "gif"
    ),
    used_case(
        "image that EXIF turns",
        encode_image(np.rot90(PIXELS).copy(), exif=QUARTER_TURN),
        note="turned upright",
        suffix="png",
    ),
    used_case(
        "EXIF orientation 9",
        encode_with_exif(b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0"),
        decode_image(JPEG, ""),
        note="as it is stored",
    ),
    replace(
        used_case(
            "malformed EXIF",
            encode_with_exif(b"Exif\0\0II*\0\xff\xff\xff\xff"),
            decode_image(JPEG, ""),
            note="as it is stored",
        ),
        remark="Corrupt EXIF data.  Expecting to read n bytes but only got n.",
    ),
    replace(
        used_case(
            "damaged colour profile", encode_image(COLOUR, icc_profile=b"no profile"), note="profiles are not applied"
        ),
        remark="damaged colour profile",
    ),
    used_case("image of 1 x 1 pixel", encode_image(np.full([1, 1, 3], 7, np.uint8)), np.full([1, 1, 3], 7, np.uint8)),
    used_case(
        "image of 30,000 x 160 pixels", encode_image(make_smooth_image(160, 30_000)), make_smooth_image(160, 30_000)
    ),
    skipped_case("image of 30,000 x 20 pixels", encode_image(make_smooth_image(20, 30_000)), Reason.TOO_NARROW),
]
