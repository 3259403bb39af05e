"""An image in every format that the package reads, and patches that keep OpenCV or simplejpeg from decoding."""

import base64
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from ernie_vil2.data import decoding


def make_smooth_image(height=48, width=64, channels=3):
    """Return smooth colours, no two corners alike, `[height, width, channels]` uint8 RGB."""
    coarse = np.random.default_rng(0).integers(0, 256, [3, 4, channels], dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)


def encode_image(image, kind="PNG", **options):
    """Return the bytes of a file of a Pillow image or of pixels."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


COLOUR, TRANSPARENT = Image.fromarray(make_smooth_image(48, 64)), Image.fromarray(make_smooth_image(48, 64, 4))
WIDE = Image.fromarray(make_smooth_image(48, 64)[..., 0].astype(np.uint16) * 257)
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
FILES = {
    **{kind: encode_image(COLOUR, kind) for kind in FORMATS},
    **{f"{kind}, grey": encode_image(COLOUR.convert("L"), kind) for kind in FORMATS},
    **{f"{kind}, transparent": encode_image(TRANSPARENT, kind) for kind in FORMATS if kind not in ("JPEG", "PPM")},
    **{f"{kind}, 16 bits": encode_image(WIDE, kind) for kind in ("JPEG2000", "PNG", "PPM", "TIFF")},
    **{f"{kind}, CMYK": encode_image(COLOUR.convert("CMYK"), kind) for kind in ("JPEG", "TIFF")},
    "JPEG, progressive": encode_image(COLOUR, "JPEG", progressive=True),
    "TIFF, JPEG within": encode_image(COLOUR, "TIFF", compression="jpeg"),
    "TIFF, LZW": encode_image(COLOUR, "TIFF", compression="tiff_lzw"),
    "WEBP, lossless": encode_image(COLOUR, "WEBP", lossless=True),
}


def encode_data_url(file, media_type="image/png"):
    """Return the data: URL of an image file."""
    return f"data:{media_type};base64,{base64.b64encode(file).decode()}"


def disable_simplejpeg(monkeypatch):
    """Make Pillow decode every JPEG."""
    # Calling None raises, as simplejpeg does for a file that it cannot read.
    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", None)


def forbid_opencv(monkeypatch):
    """Fail the test if OpenCV decodes an image: the libraries that it brings have known holes."""
    readers = {name for name in dir(cv2) if name.startswith(("imdecode", "imread", "imcount"))}
    assert {"imdecode", "imread"} <= readers
    for name in readers:
        monkeypatch.setattr(cv2, name, lambda *_: pytest.fail("OpenCV was asked to decode"))
