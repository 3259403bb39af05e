"""Images that are damaged, unusual, or none."""

import struct
import zlib
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
from PIL import Image

from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import MAX_BYTES, Reason
from tests.hostile.bad_input.case import CAPTION, GOOD, Case, as_json, shard
from tests.support.image_formats import encode_image, make_smooth_image

PIXELS = make_smooth_image()
COLOUR = Image.fromarray(PIXELS)
JPEG = encode_image(COLOUR, "JPEG", quality=95, subsampling=0)
TURNED = Image.Exif()
TURNED[0x0112] = 6  # the orientation: stored a quarter turn to the left


def looks_like(expected, tolerance, samples):
    """Every sample's image has the pixels, up to a tolerance in levels."""
    for sample in samples:
        pixels = decode_image(sample.image, sample.image_name)
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(np.int16) - expected).max() <= tolerance


def used(input, data, expected=PIXELS, tolerance=0, note="", suffix="jpg"):
    check = partial(looks_like, expected, tolerance)
    return Case(input, shard((data, CAPTION, suffix)), used=1, note=note, check=check)


def skipped(input, data, reason, suffix="jpg"):
    return Case(input, shard((data, CAPTION, suffix)), skipped={reason: 1})


def with_exif(content):
    return encode_image(COLOUR, "JPEG", quality=95, subsampling=0, exif=content)


def animated(kind, **options):
    first, *rest = (Image.new("RGB", (64, 48), colour) for colour in ("red", "lime", "blue"))
    return encode_image(first, kind, save_all=True, append_images=rest, **options)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_zeros(height, width):
    """A PNG of one bit a pixel: small as a file, large in memory."""
    packed = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))
    content = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def png_with_text(size):
    """A PNG whose comment unpacks to so many bytes."""
    comment = chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(size)))
    return GOOD[:33] + comment + GOOD[33:]


def jpeg_that_asks_for(height, width):
    position = JPEG.index(b"\xff\xc0") + 5  # behind marker, length and depth
    return JPEG[:position] + struct.pack(">HH", height, width) + JPEG[position + 4 :]


def damaged(data, position, count):
    return data[:position] + bytes(byte ^ 0x55 for byte in data[position : position + count]) + data[position + count :]


def in_folder(folder):
    (folder / "large.jpg").touch()
    with (folder / "large.jpg").open("r+b") as file:
        file.truncate(MAX_BYTES + 1)  # takes no room on the disk
    (folder / "a.jsonl").write_bytes(as_json(image="large.jpg", text=CAPTION))
    return folder / "a.jsonl"


SIXTEEN = np.random.default_rng(0).integers(0, 2**16, [48, 64], dtype=np.uint16)
JPEG_2000_OF_16_BITS = cv2.imencode(".jp2", np.dstack([SIXTEEN] * 3))[1].tobytes()
INSIDE = np.hypot(*(np.mgrid[:48, :64] - np.array([24, 32]).reshape(2, 1, 1))) < 20
CUT_OUT = Image.fromarray(np.dstack([PIXELS, np.where(INSIDE, 255, 0).astype(np.uint8)]))
ON_WHITE = np.where(INSIDE[..., None], PIXELS, 255)
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n0 0 moveto\n%%EOF\n"
CYAN = Image.new("CMYK", (64, 48), (255, 0, 0, 0))

CASES = [
    skipped("JPEG, cut off", JPEG[: len(JPEG) // 2], Reason.TRUNCATED_IMAGE),
    skipped("JPEG with a damaged header", damaged(JPEG, 2, 200), Reason.BROKEN_IMAGE),
    Case(
        "JPEG with damaged pixels",
        shard((damaged(JPEG, len(JPEG) // 2, 3), CAPTION)),
        used=1,
        note="as the decoder makes them out",
    ),
    used("JPEG with other bytes behind its end", JPEG + HTML, decode_image(JPEG, "")),
    skipped("PNG, cut off", GOOD[: len(GOOD) // 2], Reason.BROKEN_IMAGE, "png"),
    used("PNG with a wrong checksum", damaged(GOOD, len(GOOD) - 16, 4), suffix="png"),
    skipped("image of zero bytes", b"", Reason.BROKEN_IMAGE),
    skipped("HTML page saved as .jpg", HTML, Reason.BROKEN_IMAGE),
    skipped("EPS, which Pillow would have Ghostscript run", EPS, Reason.BROKEN_IMAGE),
    skipped("PNG bomb: 60 KB, 20,000 x 20,000 pixels", png_of_zeros(20_000, 20_000), Reason.TOO_MANY_PIXELS, "png"),
    skipped("PNG whose comment unpacks to 100 MB", png_with_text(100_000_000), Reason.BROKEN_IMAGE, "png"),
    skipped("JPEG that claims 65,000 x 65,000 pixels", jpeg_that_asks_for(65_000, 65_000), Reason.TOO_MANY_PIXELS),
    Case("image file of more than 256 MiB", in_folder, skipped={Reason.TOO_LARGE: 1}),
    used("PNG saved as .jpg", GOOD, note="the content says what it is"),
    used("CMYK JPEG", encode_image(CYAN, "JPEG"), np.broadcast_to((0, 255, 255), (48, 64, 3)), 8, "converted to RGB"),
    used(
        "grey PNG of 16 bits", encode_image(SIXTEEN), np.repeat((SIXTEEN >> 8)[..., None], 3, 2), 0, "the upper 8 bits"
    ),
    skipped("JPEG 2000 of 16 bits a colour", JPEG_2000_OF_16_BITS, Reason.WIDE_JPEG_2000),
    skipped("TIFF of 32-bit floats", encode_image(SIXTEEN.astype(np.float32), "TIFF"), Reason.WIDE_PIXELS, "tif"),
    used("black and white PNG", encode_image(COLOUR.convert("1")), np.asarray(COLOUR.convert("1").convert("RGB"))),
    used("PNG with transparency", encode_image(CUT_OUT), ON_WHITE, 1, "on Model.image.background", "png"),
    used("animated GIF", animated("GIF"), np.broadcast_to((255, 0, 0), (48, 64, 3)), 4, "the first image", "gif"),
    used(
        "image that EXIF turns", encode_image(np.rot90(PIXELS).copy(), exif=TURNED), note="turned upright", suffix="png"
    ),
    used(
        "EXIF orientation 9",
        with_exif(b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0"),
        decode_image(JPEG, ""),
        note="as it is stored",
    ),
    replace(
        used(
            "malformed EXIF",
            with_exif(b"Exif\0\0II*\0\xff\xff\xff\xff"),
            decode_image(JPEG, ""),
            note="as it is stored",
        ),
        remark="Corrupt EXIF data.  Expecting to read n bytes but only got n.",
    ),
    replace(
        used(
            "damaged colour profile", encode_image(COLOUR, icc_profile=b"no profile"), note="profiles are not applied"
        ),
        remark="damaged colour profile",
    ),
    used("image of 1 x 1 pixel", encode_image(np.full([1, 1, 3], 7, np.uint8)), np.full([1, 1, 3], 7, np.uint8)),
    used("image of 30,000 x 160 pixels", encode_image(make_smooth_image(160, 30_000)), make_smooth_image(160, 30_000)),
    skipped("image of 30,000 x 20 pixels", encode_image(make_smooth_image(20, 30_000)), Reason.TOO_NARROW),
]
