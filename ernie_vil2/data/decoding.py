"""Encoded images to pixels: one definition for training, evaluation and the tools.

simplejpeg decodes JPEG; Pillow decodes what simplejpeg does not read, and all the rest. OpenCV decodes nothing: files
come from strangers, and the libraries in the OpenCV that PaddleClas asks for have known holes (CVE-2023-4863).
"""

import contextlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from ernie_vil2.data.samples import BadSample, Reason

MAX_PIXELS = 89_478_485  # a header that asks for more is taken for a decompression bomb, by Pillow too

# Stored pixels of a JPEG that is decoded to a half, a quarter or an eighth of its sides, which phones of 108 megapixels
# need. Pillow opens no larger file.
MAX_STORED_PIXELS = 2 * MAX_PIXELS

WHITE = (255, 255, 255)  # what is shown behind transparent pixels: the paper that images are cut out on

BLACK = (0, 0, 0)

# A side that is longer than this times the other is a ruler or a spacer; resized by the short one, it fills memory.
MAX_ASPECT = 200

# Of what Pillow can open: no vector graphics, which it has other programs draw, and no raster of measurements.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

_WRONG_PROFILES = (0x182EA552, 0xF29E526D)  # CRCs of two sRGB profiles of 1998 with a wrong white, in many PNG files

_JPEG, _SCAN, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of baseline, extended and progressive JPEG
_TABLES = (0xC4, 0xDB, 0xDD, 0xE0, 0xFE)  # Huffman and quantisation tables, restarts, JFIF, comment
_PNG_BITS = 24  # where a PNG says how many bits a value has
_ORIENTATION = 0x0112  # the EXIF tag
_TIFF_BITS, _TIFF_COLOURS, _TIFF_ALPHA, _WHITE_IS_ZERO = 258, 262, 338, 0  # tags, and a value of the second
_JPEG_2000, _JPEG_2000_BITS = b"\xff\x4f\xff\x51", 42  # how its pixels begin, and where their header has the bits
_REDUCED = (1, 2, 4, 8)  # the sides of a JPEG, divided by that
_ONE_PASS = (0xC0, 0xC1, 0xC9)  # frames whose rows are decoded one after the other, if one scan has all colours
_SCALABLE = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # frames of which libjpeg makes fewer pixels
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # tables and a reserved one lie between
_START_OF_SCAN = 0xDA
_USUAL_SCANS = 16
"""Scans of a progressive JPEG that take the time of one, with those of thumbnails in its header; encoders write 10."""

# Pixels that are converted to RGB at once. In one go, the intermediate images of Pillow take 14 to 22 bytes a pixel of
# the whole image, and 2.3 GB of one of 88 megapixels; smaller bands save nothing more, and take longer.
_BAND_PIXELS = 2**20

# Pixels of a JPEG 2000 in a query. Pillow decodes it while no other thread of Python runs, 0.1 s a megapixel, and a
# file of 1.2 KB can hold 25 megapixels.
_MAX_JPEG_2000_PIXELS = 2**23

# Bytes a pixel that decoding takes at its peak, rounded up from what benchmarks/query_images.py measures: Pillow's
# image of 4, the result of 3 or Pillow's own conversion to RGB of 4, and what the library of the format holds besides.
_BYTES_PER_PIXEL = {
    "JPEG": 13,
    "PNG": 9,
    "BMP": 9,
    "GIF": 9,
    "PPM": 9,
    "TIFF": 17,
    "WEBP": 17,
    "AVIF": 21,
    "JPEG2000": 26,
}


class ImageRemark(UserWarning):
    """What is odd about an image that is used, in a fixed phrase; seen within `remarks` alone."""


warnings.simplefilter("ignore", ImageRemark)
# `check_size` has the bound, which a JPEG that is decoded smaller may exceed.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@contextlib.contextmanager
def remarks() -> Iterator[list[str]]:
    """Collects what is odd about the images that are decoded within: our own remarks, and warnings of the libraries.

    For one thread, as `warnings.catch_warnings`. Numbers become n, so that equal remarks are counted together.

    The list is filled at the end.
    """
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Python warns of a forgotten file whenever it collects one, which says nothing about the image.
        warnings.simplefilter("ignore", ResourceWarning)
        yield found
    found += dict.fromkeys(re.sub(r"\d+", "n", str(warning.message)).strip() for warning in caught)


class EncodedImage:
    """An image file whose size is known before its pixels are made, so that they can be made smaller.

    What is unusual has a defined result. It is turned as its EXIF orientation says. Grey, palette and CMYK become
    RGB, of 16 bits the upper 8 count, what is transparent shows the background, of an animation the first image is
    taken.

    Args:
        data: the file's bytes.
        name: the image's, for the error.
        background: [red, green, blue] behind transparent pixels, 0 to 255; None: transparency is dropped, so that
            whatever colour is stored there shows, as the two releases have it (black in TIFF).
        max_jpeg_pixels: stored pixels of a JPEG; more than `MAX_PIXELS` for a caller that decodes fewer of them.

    Attributes:
        height, width: in pixels, as the image is to be shown.

    Raises:
        BadSample: "broken image", "truncated image" (a file that was cut off can look whole to a decoder, which
            paints the rest grey), "too many pixels" (`MAX_PIXELS`), "too narrow an image" (`MAX_ASPECT`),
            "pixels of 32 bits" (or with a sign: numbers without a defined black and white), or "JPEG 2000 of more than
            8 bits a colour".
    """

    def __init__(
        self, data: bytes, name: str, background: Sequence[int] | None = WHITE, max_jpeg_pixels: int = MAX_PIXELS
    ):
        self._data, self._name, self._max_pixels = data, name, max_jpeg_pixels
        self._pixels: np.ndarray | None = None
        if not data.startswith(_JPEG):
            # No decoder makes these smaller than they are.
            self._pixels = _decode_other(open_header(data, name), data, name, background)
            self.height, self.width = self._pixels.shape[:2]
            return
        size, self._orientation = _jpeg_header(data, name, max_jpeg_pixels)
        if _is_cut_off(data):
            raise BadSample(Reason.TRUNCATED_IMAGE, name)
        self.width, self.height = size if self._orientation < 5 else size[::-1]

    def decode(self, shrink: float = 1.0, fast: bool = False) -> np.ndarray:
        """The pixels, or fewer of them where that saves time.

        Args:
            shrink: by how much the caller is going to shrink the image. JPEG comes at the smallest of the scales
                1, 1/2, 1/4 and 1/8 that is not below 1/`shrink`; sides are rounded up. Other files come whole.
            fast: where JPEG has colour at half the resolution, each value may be repeated instead of interpolated, in a
                fifth less time; not in the JPEG that Pillow decodes.

        Returns:
            `[H, W, 3]` uint8 RGB; BadSample is "broken image".
        """
        if self._pixels is not None:
            return self._pixels
        factor = max(factor for factor in _REDUCED if factor <= max(shrink, 1))
        return _turned(_decode_jpeg(self._data, factor, self._name, fast, self._max_pixels), self._orientation)


@dataclass(frozen=True)
class DecodingPlan:
    """How an image is decoded, and what that costs, known before its pixels are made.

    Attributes:
        factor: 1, 2, 4 or 8, by which the sides are divided; 1 of what is no JPEG.
        num_bytes: memory at the peak, without the file; an upper estimate.
        num_pixels: stored pixels, counted again for each `_USUAL_SCANS` scans that go over them: a measure of the time.
    """

    factor: int
    num_bytes: int
    num_pixels: int


def plan_decoding(data: bytes, name: str, least_sides: Callable[[int, int], tuple[float, float]]) -> DecodingPlan:
    """Choose the smallest scale of an image that leaves enough pixels; only its header is read.

    Args:
        least_sides: of the image's width and height, the shorter and the longer side that it must have at least.

    Raises:
        BadSample: as `EncodedImage`, except that a JPEG may have `MAX_STORED_PIXELS` if it is decoded to at most
            `MAX_PIXELS`, and a JPEG 2000 at most `_MAX_JPEG_2000_PIXELS`.
    """
    if not data.startswith(_JPEG):
        header = open_header(data, name)
        num_pixels = header.width * header.height
        if header.format == "JPEG2000" and num_pixels > _MAX_JPEG_2000_PIXELS:
            raise BadSample(Reason.TOO_MANY_PIXELS, name)
        return DecodingPlan(1, num_pixels * _BYTES_PER_PIXEL[header.format or "JPEG2000"], num_pixels)

    frame = _jpeg_frame(data) or _unusual_frame(open_header(data, name, MAX_STORED_PIXELS))
    check_size(frame.width, frame.height, name, MAX_STORED_PIXELS)
    short, long = sorted((frame.width, frame.height))
    least_short, least_long = least_sides(frame.width, frame.height)
    factor = 1
    if frame.is_scalable:
        factor = max(
            (factor for factor in _REDUCED if short >= factor * least_short and long >= factor * least_long), default=1
        )
    width, height = -(-frame.width // factor), -(-frame.height // factor)
    check_size(width, height, name)

    num_pixels = frame.width * frame.height
    num_bytes = width * height * _BYTES_PER_PIXEL["JPEG"]
    if frame.is_one_pass:
        return DecodingPlan(factor, num_bytes, num_pixels)
    # libjpeg holds the coefficients of the whole image, two bytes each, and every scan goes over them.
    num_passes = -(-data.count(_SCAN) // _USUAL_SCANS)
    return DecodingPlan(factor, num_bytes + round(2 * frame.samples * num_pixels), num_pixels * max(1, num_passes))


def decode_image(data: bytes, name: str, background: Sequence[int] | None = WHITE, factor: int = 1) -> np.ndarray:
    """All pixels of an encoded image, `[H, W, 3]` uint8 RGB; arguments and errors as of `EncodedImage`.

    Args:
        factor: 1, 2, 4 or 8, by which the sides of a JPEG are divided, as `plan_decoding` chooses it.
    """
    return EncodedImage(data, name, background, _max_pixels(factor)).decode(factor)


def _max_pixels(factor: int) -> int:
    return MAX_PIXELS if factor == 1 else MAX_STORED_PIXELS


def opened(data: bytes, name: str, factor: int = 1) -> Image.Image:
    """The image as Pillow has it, in its own mode and not turned; errors as of `EncodedImage`, `factor` as above."""
    image = open_header(data, name, _max_pixels(factor))
    if factor > 1:
        image.draft(None, (image.width / factor, image.height / factor))  # type: ignore[arg-type]  # see `_decode_jpeg`
    if data.startswith(_JPEG) and _is_cut_off(data):
        raise BadSample(Reason.TRUNCATED_IMAGE, name)
    try:
        image.load()
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise BadSample(Reason.BROKEN_IMAGE, name) from error
    return image


def stored_pixels(data: bytes, name: str, factor: int = 1) -> np.ndarray:
    """As `decode_image`, by Pillow as it comes, which is PaddleNLP's way: not turned, and transparency is dropped."""
    image = opened(data, name, factor)
    try:
        return rgb_pixels(image, None)
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise BadSample(Reason.BROKEN_IMAGE, name) from error


def rgb_pixels(image: Image.Image, background: Sequence[int] | None) -> np.ndarray:
    """The pixels of a Pillow image as it is stored, `[H, W, 3]` uint8 RGB; `background` as in `EncodedImage`."""
    return _in_bands(image, lambda band: _convert_to_rgb(band, background))


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """Convert an image to `[H, W, 3]` uint8, a band of rows at a time, so that little is held besides the result."""
    if image.width * image.height <= _BAND_PIXELS:
        return convert(image)
    pixels = np.empty([image.height, image.width, 3], np.uint8)
    num_rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, num_rows):
        bottom = min(top + num_rows, image.height)
        pixels[top:bottom] = convert(image.crop((0, top, image.width, bottom)))
    return pixels


def _convert_to_rgb(image: Image.Image, background: Sequence[int] | None) -> np.ndarray:
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    above = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    if background is None:
        return np.asarray(above.convert("RGB"))
    canvas = Image.new("RGB", image.size, tuple(background))
    canvas.paste(above, mask=above)
    return np.asarray(canvas)


def as_rgb(image: np.ndarray | Image.Image) -> np.ndarray:
    """An image of either kind as `[H, W, 3]` uint8 RGB, to be shown."""
    return rgb_pixels(image, WHITE) if isinstance(image, Image.Image) else image


def small_file(image: np.ndarray, side: int, suffix: str, flags: Sequence[int] = ()) -> bytes:
    """`[H, W, 3]` RGB as a file, made smaller until its longer side is at most `side`.

    Args:
        suffix, flags: format and settings, as OpenCV takes them.
    """
    shrink = min(1.0, side / max(image.shape[:2]))
    size = [max(1, round(length * shrink)) for length in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(suffix, cv2.cvtColor(small, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def open_header(data: bytes, name: str, most: int = MAX_PIXELS) -> Image.Image:
    """The file as Pillow opens it: format, size and metadata are read, the pixels are not. BadSample is "broken image",
    "too many pixels" or "too narrow an image"."""
    try:
        header = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadSample(Reason.TOO_MANY_PIXELS, name) from error
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise BadSample(Reason.BROKEN_IMAGE, name) from error
    check_size(*header.size, name, most)
    return header


def check_size(width: int, height: int, name: str, most: int = MAX_PIXELS) -> None:
    """BadSample, "too many pixels" or "too narrow an image", if an image of this size takes too much memory."""
    if width * height > most:
        raise BadSample(Reason.TOO_MANY_PIXELS, name)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadSample(Reason.TOO_NARROW, name)


class _JpegFrame(NamedTuple):
    """What a JPEG says of its pixels.

    samples: values a pixel of all colours together, 1.5 where the two of the hue have half the sides.
    is_one_pass: whether libjpeg needs no more than some rows at a time.
    is_scalable: whether it can make fewer pixels.
    """

    width: int
    height: int
    samples: float
    is_one_pass: bool
    is_scalable: bool


def _jpeg_frame(data: bytes) -> _JpegFrame | None:
    """Read the frame and the first scan of a JPEG; None where anything is unusual, which libjpeg may read otherwise."""
    position = len(_JPEG)
    frame: tuple[int, int, int, list[int]] | None = None
    marker = 0
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            break
        if marker == 0xFF:  # a filler
            position += 1
            continue
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            return None  # without a length
        if marker in _FRAME_MARKERS:
            bits, height, width, num_colours = struct.unpack_from(">BHHB", data, position + 4)
            samplings = data[position + 11 : position + 10 + 3 * num_colours : 3]
            areas = [(byte >> 4) * (byte & 15) for byte in samplings]
            if frame is not None or bits != 8 or len(areas) != num_colours or not all(areas):
                return None
            frame = marker, width, height, areas
        position += 2 + length
    if frame is None or marker != _START_OF_SCAN:
        return None
    kind, width, height, areas = frame
    if not (width and height and areas):
        return None
    is_one_pass = kind in _ONE_PASS and data[position + 4] == len(areas)
    return _JpegFrame(width, height, sum(areas) / max(areas), is_one_pass, kind in _SCALABLE)


def _unusual_frame(header: Image.Image) -> _JpegFrame:
    """Return a frame with the size that Pillow reads, and the largest costs."""
    return _JpegFrame(header.width, header.height, len(header.getbands()), is_one_pass=False, is_scalable=False)


def _jpeg_header(data: bytes, name: str, most: int) -> tuple[tuple[int, int], int]:
    """Width and height as they are stored, and the orientation."""
    size = _plain_jpeg_size(data)
    if size is None:
        header = open_header(data, name, most)
        return header.size, _exif_orientation(header)
    check_size(*size, name, most)
    return size, 1


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG of whose header there is no more to say; None: Pillow has to look, which takes longer.

    That is so where a segment may hold EXIF data, and where anything is unusual.
    """
    position = len(_JPEG)
    while position + 9 < len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _FRAMES:
            bits, height, width, colours = struct.unpack_from(">BHHB", data, position + 4)
            return (width, height) if bits == 8 and colours in (1, 3) and width and height else None
        if marker not in _TABLES:
            return None
        position += 2 + length
    return None


def _is_cut_off(data: bytes) -> bool:
    # An end marker must follow the last scan; that of a thumbnail in the header comes before it. Coded pixels
    # never look like a marker.
    return not data.endswith(_END) and data.rfind(_END) < data.rfind(_SCAN)


def _decode_jpeg(data: bytes, factor: int, name: str, fast: bool, most: int) -> np.ndarray:
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
        # The smallest scale that leaves this many rows and columns is 1/factor; 0 asks for all.
        least = {} if factor == 1 else {"min_height": -(-height // factor), "min_width": -(-width // factor)}
        # Not strict: stray bytes between markers, which many files have, do no harm.
        return simplejpeg.decode_jpeg(data, strict=False, fastupsample=fast, **least)
    except Exception:  # rare samplings of the colour, which Pillow reads; damage, on which it has the last word
        image = open_header(data, name, most)
    try:
        # Divided exactly, as Pillow takes the largest whole number of times that these fit; its sides are rounded up.
        image.draft(None, (image.width / factor, image.height / factor))  # type: ignore[arg-type]  # whole numbers alone
        return rgb_pixels(image, None)
    except Exception as error:  # as above
        raise BadSample(Reason.BROKEN_IMAGE, name) from error


def _decode_other(header: Image.Image, data: bytes, name: str, background: Sequence[int] | None) -> np.ndarray:
    if header.mode == "F" or (header.mode == "I" and header.format != "PPM"):  # whose "I" are 16 bits
        raise BadSample(Reason.WIDE_PIXELS, name)
    if header.format == "JPEG2000" and header.mode not in ("L", "I;16") and _jpeg_2000_bits(data) > 8:
        raise BadSample(Reason.WIDE_JPEG_2000, name)  # Pillow makes its white black
    try:
        header.load()  # which turns a TIFF
        if background is None and header.mode in ("RGBA", "RGBa") and _TIFF_ALPHA in getattr(header, "tag_v2", ()):
            background = BLACK  # where OpenCV shows it, and the official release reads by OpenCV
        if header.format == "PNG":
            _remark_on_profile(header)
        return _turned(_pixels(header, data, background), _exif_orientation(header))
    except Exception as error:  # as above
        raise BadSample(Reason.BROKEN_IMAGE, name) from error


def _pixels(image: Image.Image, data: bytes, background: Sequence[int] | None) -> np.ndarray:
    """As `rgb_pixels`, and right where Pillow is not: grey of 16 bits, and the one colour that means transparency.

    That colour is given in the bits of the file, and grey of 16 bits as Pillow reads it has neither alpha nor a
    lighter half.
    """
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        bits, is_inverted = 16, False
        if image.format == "TIFF":
            tags: Any = getattr(image, "tag_v2", {})
            bits = tags[_TIFF_BITS][0]  # or 12
            is_inverted = tags[_TIFF_COLOURS] == _WHITE_IS_ZERO

        def convert(band: Image.Image) -> np.ndarray:
            grey = np.asarray(band)
            if is_inverted:
                grey = 2**bits - 1 - grey
            pixels = cv2.cvtColor((grey >> (bits - 8)).astype(np.uint8), cv2.COLOR_GRAY2RGB)
            if background is not None and key is not None:
                pixels[grey == key] = background
            return pixels

        return _in_bands(image, convert)
    if image.format == "PNG":
        bits = data[_PNG_BITS]
        if image.mode == "L" and isinstance(key, int):
            image.info["transparency"] = key * 255 // (2**bits - 1)
        if image.mode == "RGB" and key and bits == 16:
            image.info["transparency"] = tuple(value >> 8 for value in key)
    return rgb_pixels(image, background)


def _jpeg_2000_bits(data: bytes) -> int:
    return 1 + (data[data.find(_JPEG_2000) + _JPEG_2000_BITS] & 0x7F)  # the bit above says whether there is a sign


def _remark_on_profile(header: Image.Image) -> None:
    """What libpng would write to the terminal about a colour profile, which nobody here applies."""
    profile = header.info.get("icc_profile")
    if not profile:
        return
    colours = b"GRAY" if header.mode in ("1", "L", "LA", "I", "I;16") else b"RGB "
    if len(profile) < 128 or int.from_bytes(profile[:4], "big") != len(profile) or profile[36:40] != b"acsp":
        warnings.warn("damaged colour profile", ImageRemark, stacklevel=2)
    elif profile[16:20] != colours:
        warnings.warn("colour profile of other colours than the image's", ImageRemark, stacklevel=2)
    elif zlib.crc32(profile) in _WRONG_PROFILES:
        warnings.warn("known incorrect sRGB profile", ImageRemark, stacklevel=2)


def _exif_orientation(header: Image.Image) -> int:
    if "exif" not in header.info:
        return 1
    try:
        orientation = header.getexif().get(_ORIENTATION, 1)
    except Exception:  # malformed EXIF data does not make the pixels worse
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as they are to be shown; EXIF counts eight ways to store them."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip)


def resize_pixels(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Means of blocks of 1, 2, 4, ... pixels, then bilinear for the factor below two that is left.

    There, two neighbours in each direction are as many as the mean over the area would take, and it would take
    eight times as long.
    """
    # The largest powers of two that are not above the factors; 1 for less.
    factors = [image.shape[0] // height, image.shape[1] // width]
    rows, columns = (1 << max(0, factor.bit_length() - 1) for factor in factors)
    if rows * columns > 1:
        small = (image.shape[1] // columns, image.shape[0] // rows)
        # Means are quick where the blocks cover the image exactly: what is over is left out, half on either side.
        top, left = image.shape[0] % rows // 2, image.shape[1] % columns // 2
        image = image[top : top + small[1] * rows, left : left + small[0] * columns]
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def size_of_short_side(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of the same aspect whose smaller is `side`."""
    scale = side / min(height, width)
    return max(side, round(height * scale)), max(side, round(width * scale))
