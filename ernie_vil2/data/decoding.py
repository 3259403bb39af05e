"""Decoding of image files to pixels, the same for training, evaluation and the tools.

simplejpeg decodes JPEG; Pillow decodes everything else, and the JPEG files that simplejpeg cannot read. OpenCV decodes
nothing: files come from strangers, and the image libraries in the OpenCV that PaddleClas requires have known holes
(CVE-2023-4863).
"""

import contextlib
import io
import math
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

# Pillow's own limit: an image whose header announces more pixels is treated as a decompression bomb.
MAX_PIXELS = 89_478_485

# Limit for a JPEG that is decoded at 1/2, 1/4 or 1/8 of its sides, high enough for phone cameras of 108 megapixels.
# Pillow refuses to open anything larger.
MAX_STORED_PIXELS = 2 * MAX_PIXELS

WHITE = (255, 255, 255)  # default background of transparent pixels: most cut-outs are made for white paper
BLACK = (0, 0, 0)

# Images with a longer side of more than 200 times the shorter are rulers and spacers. Resizing one by its short side
# would fill the memory.
MAX_ASPECT = 200

# The formats that Pillow may open. Left out are vector graphics, which Pillow hands to other programs, and scientific
# formats such as FITS.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# CRC-32 of two sRGB profiles of 1998 with a wrong white point, which are in many PNG files; libpng warns of them.
_WRONG_PROFILES = (0x182EA552, 0xF29E526D)

# Markers of JPEG files.
_JPEG, _SCAN, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_START_OF_SCAN = 0xDA
# A frame is the header of the pixels; its marker tells the kind of the JPEG.
_COMMON_FRAME_MARKERS = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive JPEG
_ALL_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # without two tables and a reserved one
_ONE_PASS_MARKERS = (0xC0, 0xC1, 0xC9)  # kinds that are decoded row by row if one scan has all colours
_SCALABLE_MARKERS = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # kinds that libjpeg can decode at a smaller scale
_TABLE_MARKERS = (0xC4, 0xDB, 0xDD, 0xE0, 0xFE)  # Huffman and quantisation tables, restarts, JFIF, comment
_FACTORS = (1, 2, 4, 8)  # numbers by which libjpeg can divide the sides

# Limits of a header, a hundred times what real files have. Pillow reads headers in Python, the fill bytes of a JPEG one
# by one: a file of 10 MB that is nothing but header would take it 6 seconds.
_MAX_HEADER_READS = 2**17
_MAX_SEGMENTS = 2**14  # segments and fill bytes of a JPEG

_PNG_BIT_DEPTH_OFFSET = 24  # place of the byte in a PNG that holds the bits of a value
_ORIENTATION = 0x0112  # EXIF tag
_TIFF_BITS, _TIFF_COLOURS, _TIFF_ALPHA = 258, 262, 338  # TIFF tags
_WHITE_IS_ZERO = 0  # value of the tag _TIFF_COLOURS
_JPEG_2000 = b"\xff\x4f\xff\x51"  # start of the codestream in a JPEG 2000
_JPEG_2000_BIT_DEPTH_OFFSET = 42  # place of the byte with the bits of a value, from _JPEG_2000 on

# Each 16 scans of a progressive JPEG count as one decoding. Encoders write 10 scans, and a thumbnail in the header adds
# some, so ordinary files count once. A file of hundreds of scans is meant to take up time, and counts many times.
_SCANS_PER_PASS = 16

# Pixels that are converted to RGB at a time. Converting a whole image takes 14 to 22 bytes a pixel for Pillow's
# intermediate images, 2.3 GB for one of 88 megapixels; smaller bands save no more memory and take longer.
_BAND_PIXELS = 2**20

# Most pixels of a JPEG 2000 that `plan_decoding` accepts; the search service calls it for the images of queries. Pillow
# decodes 10 megapixels a second and holds Python's lock meanwhile, and a file of 1.2 KB can hold 25 megapixels.
_MAX_JPEG_2000_PIXELS = 2**23

# Peak memory of decoding, in bytes a pixel, rounded up from what benchmarks/query_images.py measures: Pillow's image
# (4), the result (3) or Pillow's own conversion to RGB (4), and the buffers of the format's library.
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
    """Warning of a fault in an image that is used anyway, in one of a few phrases; only `collect_remarks` sees it."""


warnings.simplefilter("ignore", ImageRemark)
# Pillow's warning is off, because `check_image_size` enforces our own limit. A JPEG that is decoded at a smaller scale
# may exceed Pillow's.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@contextlib.contextmanager
def collect_remarks() -> Iterator[list[str]]:
    """Collect remarks on the images that are decoded in the block: our own, and warnings of the libraries.

    Numbers in them become n, so that equal remarks are counted together. The list is filled when the block ends. Like
    `warnings.catch_warnings`, this serves one thread at a time.
    """
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Python warns of an unclosed file whenever it collects one, which has nothing to do with the image.
        warnings.simplefilter("ignore", ResourceWarning)
        yield remarks
    messages = [re.sub(r"\d+", "n", str(warning.message)).strip() for warning in caught]
    remarks += dict.fromkeys(messages)


class EncodedImage:
    """An image file whose header has been read and whose pixels have not, so that they can be decoded smaller.

    Unusual files have a defined result: the image is turned as its EXIF orientation says; grey, palette and CMYK become
    RGB; values of 16 bits keep their upper 8 bits; transparent pixels show the background; an animation gives its first
    image.

    Args:
        data: bytes of the file.
        name: name of the image, for the error.
        background: [red, green, blue] behind transparent pixels, 0 to 255. None drops the transparency and shows
            whatever colour the file stores there (black in TIFF), like the official release and PaddleNLP.
        max_jpeg_pixels: limit of a JPEG's stored pixels; more than `MAX_PIXELS` if it is decoded at a smaller scale.

    Attributes:
        height, width: in pixels, after turning.

    Raises:
        BadSample: "broken image"; "truncated image" (a decoder would paint the missing rest grey); "too many pixels"
            (`MAX_PIXELS`); "too narrow an image" (`MAX_ASPECT`); "pixels of 32 bits" (integers or floats, for which
            black and white are not defined); or "JPEG 2000 of more than 8 bits a colour".
    """

    def __init__(
        self, data: bytes, name: str, background: Sequence[int] | None = WHITE, max_jpeg_pixels: int = MAX_PIXELS
    ):
        self._data, self._name, self._max_pixels = data, name, max_jpeg_pixels
        self._pixels: np.ndarray | None = None
        if not data.startswith(_JPEG):
            # Other formats cannot be decoded at a smaller scale, so there is nothing to wait for.
            self._pixels = decode_opened_image(open_header(data, name), name, background, data)
            self.height, self.width = self._pixels.shape[:2]
            return

        size, self._orientation = _read_jpeg_header(data, name, max_jpeg_pixels)
        if _is_cut_off(data):
            raise BadSample(Reason.TRUNCATED_IMAGE, name)
        if self._orientation >= 5:  # turned by 90 degrees
            self.height, self.width = size
        else:
            self.width, self.height = size

    def decode(self, shrink: float = 1.0, fast: bool = False) -> np.ndarray:
        """Decode the pixels, or fewer of them where that saves time.

        Args:
            shrink: number by which the caller will divide the sides. Those of a JPEG are divided in decoding already:
                by the largest of 1, 2, 4 and 8 that is not above `shrink`, rounded up. Other files are decoded whole.
            fast: let simplejpeg repeat colour values that are stored at half the resolution instead of interpolating
                them, which saves a fifth of the time.

        Returns:
            `[H, W, 3]` uint8 RGB.

        Raises:
            BadSample: "broken image".
        """
        if self._pixels is not None:
            return self._pixels
        factor = max(number for number in _FACTORS if number <= max(shrink, 1))
        pixels = _decode_jpeg(self._data, factor, self._name, fast, self._max_pixels)
        return _turn_upright(pixels, self._orientation)


@dataclass(frozen=True)
class DecodingPlan:
    """How an image will be decoded and what that costs, known before decoding.

    Attributes:
        factor: number that the sides are divided by: 1, 2, 4 or 8 for a JPEG, else 1.
        num_bytes: upper estimate of the peak memory, without the file.
        num_pixels: measure of the time: stored pixels, counted once for every `_SCANS_PER_PASS` scans.
    """

    factor: int
    num_bytes: int
    num_pixels: int


def plan_decoding(data: bytes, name: str, minimum_sides: Callable[[int, int], tuple[float, float]]) -> DecodingPlan:
    """Choose the smallest scale of an image that leaves enough pixels; only its header is read.

    Args:
        data: bytes of the file.
        name: name of the image, for the error.
        minimum_sides: function from the image's width and height to the shorter and the longer side that it must keep.

    Raises:
        BadSample: as `EncodedImage`, except that a JPEG may have `MAX_STORED_PIXELS` if it is decoded to at most
            `MAX_PIXELS`, and a JPEG 2000 may have `_MAX_JPEG_2000_PIXELS`.
    """
    if not data.startswith(_JPEG):
        header = open_header(data, name)
        num_pixels = header.width * header.height
        if header.format == "JPEG2000" and num_pixels > _MAX_JPEG_2000_PIXELS:
            raise BadSample(Reason.TOO_MANY_PIXELS, name)
        # For an image without a format, the estimate is that of the most expensive one.
        return DecodingPlan(1, num_pixels * _BYTES_PER_PIXEL[header.format or "JPEG2000"], num_pixels)

    frame = _read_jpeg_frame(data) or _frame_of_header(open_header(data, name, MAX_STORED_PIXELS))
    check_image_size(frame.width, frame.height, name, MAX_STORED_PIXELS)

    # Choose the scale.
    short, long = sorted((frame.width, frame.height))
    min_short, min_long = minimum_sides(frame.width, frame.height)
    factor = 1
    if frame.is_scalable:
        for candidate in _FACTORS:
            if short >= candidate * min_short and long >= candidate * min_long:
                factor = candidate
    width, height = -(-frame.width // factor), -(-frame.height // factor)
    check_image_size(width, height, name)

    # Estimate the costs.
    num_pixels = frame.width * frame.height
    num_bytes = width * height * _BYTES_PER_PIXEL["JPEG"]
    if frame.is_one_pass:
        return DecodingPlan(factor, num_bytes, num_pixels)
    # libjpeg holds the coefficients of the whole image, two bytes each, and goes over them for every scan.
    num_bytes += round(2 * frame.values_per_pixel * num_pixels)
    num_passes = max(1, -(-data.count(_SCAN) // _SCANS_PER_PASS))
    return DecodingPlan(factor, num_bytes, num_pixels * num_passes)


def decode_image(data: bytes, name: str, background: Sequence[int] | None = WHITE, factor: int = 1) -> np.ndarray:
    """Decode an image file to `[H, W, 3]` uint8 RGB, see `EncodedImage` for errors.

    Args:
        data: bytes of the file.
        name: name of the image, for the error.
        background: [red, green, blue] behind transparent pixels, 0 to 255; None drops the transparency.
        factor: number that the sides of a JPEG are divided by: 1, 2, 4 or 8, as `plan_decoding` chooses it.
    """
    return EncodedImage(data, name, background, _max_stored_pixels(factor)).decode(factor)


def _max_stored_pixels(factor: int) -> int:
    return MAX_PIXELS if factor == 1 else MAX_STORED_PIXELS


def open_with_pillow(data: bytes, name: str, factor: int = 1) -> Image.Image:
    """Decode an image with Pillow, in its stored mode and orientation; arguments as in `decode_image`."""
    image = open_header(data, name, _max_stored_pixels(factor))
    if factor > 1:
        image.draft(None, (image.width / factor, image.height / factor))  # type: ignore[arg-type]  # see `_decode_jpeg`
    if data.startswith(_JPEG) and _is_cut_off(data):
        raise BadSample(Reason.TRUNCATED_IMAGE, name)
    try:
        image.load()
    except Exception as error:  # Pillow's readers raise exceptions of any type
        raise BadSample(Reason.BROKEN_IMAGE, name) from error
    return image


def decode_as_stored(data: bytes, name: str, factor: int = 1) -> np.ndarray:
    """Decode an image as PaddleNLP does: by Pillow, without turning it, and dropping transparency."""
    image = open_with_pillow(data, name, factor)
    try:
        return convert_to_rgb(image, None)
    except Exception as error:  # Pillow's readers raise exceptions of any type
        raise BadSample(Reason.BROKEN_IMAGE, name) from error


def convert_to_rgb(image: Image.Image, background: Sequence[int] | None) -> np.ndarray:
    """Convert a Pillow image to `[H, W, 3]` uint8 RGB, not turned; `background` as in `EncodedImage`."""
    return _convert_in_bands(image, lambda band: _convert_band_to_rgb(band, background))


def _convert_in_bands(image: Image.Image, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """Convert an image to `[H, W, 3]` uint8 in bands of rows, to need little memory besides the result."""
    if image.width * image.height <= _BAND_PIXELS:
        return convert(image)
    pixels = np.empty([image.height, image.width, 3], np.uint8)
    num_rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, num_rows):
        bottom = min(top + num_rows, image.height)
        pixels[top:bottom] = convert(image.crop((0, top, image.width, bottom)))
    return pixels


def _convert_band_to_rgb(image: Image.Image, background: Sequence[int] | None) -> np.ndarray:
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    # Pillow converts La (premultiplied) to RGBA only by way of LA.
    foreground = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    if background is None:
        return np.asarray(foreground.convert("RGB"))
    canvas = Image.new("RGB", image.size, tuple(background))
    canvas.paste(foreground, mask=foreground)
    return np.asarray(canvas)


def to_rgb_array(image: np.ndarray | Image.Image) -> np.ndarray:
    """Return an image of either type as `[H, W, 3]` uint8 RGB, for display."""
    if isinstance(image, Image.Image):
        return convert_to_rgb(image, WHITE)
    return image


def encode_thumbnail(image: np.ndarray, side: int, suffix: str, flags: Sequence[int] = ()) -> bytes:
    """Encode an image, reduced so that its longer side is at most `side` pixels.

    Args:
        image: `[H, W, 3]` uint8 RGB.
        side: limit of the longer side, in pixels.
        suffix: file suffix that names the format, as `cv2.imencode` takes it.
        flags: settings of the format, as `cv2.imencode` takes them.
    """
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(suffix, cv2.cvtColor(small, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def open_header(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image with Pillow, which reads format, size and metadata but not the pixels.

    Raises:
        BadSample: "broken image", "too many pixels" or "too narrow an image".
    """
    reader = _HeaderReader(data)
    try:
        header = Image.open(reader, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadSample(Reason.TOO_MANY_PIXELS, name) from error
    except Exception as error:  # Pillow's readers raise exceptions of any type
        raise BadSample(Reason.BROKEN_IMAGE, name) from error
    reader.num_reads_left = math.inf
    check_image_size(*header.size, name, max_pixels)
    return header


class _HeaderReader(io.BytesIO):
    """Bytes of a file, of which Pillow may make only so many reads until the header has been read."""

    num_reads_left: float = _MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.num_reads_left -= 1
        if self.num_reads_left < 0:
            raise OSError("the header has no end")
        return super().read(size)


def check_image_size(width: int, height: int, name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Raise BadSample, "too many pixels" or "too narrow an image", if an image would take too much memory."""
    if width * height > max_pixels:
        raise BadSample(Reason.TOO_MANY_PIXELS, name)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadSample(Reason.TOO_NARROW, name)


class _JpegFrame(NamedTuple):
    """The header of a JPEG's pixels.

    values_per_pixel: stored values of all colours together: 3, or 1.5 if the chroma channels have half the sides.
    is_one_pass: whether libjpeg holds only some rows at a time.
    is_scalable: whether libjpeg can decode at a smaller scale.
    """

    width: int
    height: int
    values_per_pixel: float
    is_one_pass: bool
    is_scalable: bool


def _read_jpeg_frame(data: bytes) -> _JpegFrame | None:
    """Read the frame and the first scan of a JPEG; None if anything is unusual, which libjpeg may read differently."""
    position = len(_JPEG)
    frame: tuple[int, int, int, list[int]] | None = None
    marker = 0
    for _ in range(_MAX_SEGMENTS):
        if position + 10 > len(data) or data[position] != 0xFF:
            break
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            break
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            return None  # a marker without a length
        if marker in _ALL_FRAME_MARKERS:
            bits, height, width, num_colours = struct.unpack_from(">BHHB", data, position + 4)
            # The components begin at position + 10 with 3 bytes each, the second of which is the sampling.
            samplings = data[position + 11 : position + 10 + 3 * num_colours : 3]
            areas = [(sampling >> 4) * (sampling & 15) for sampling in samplings]  # horizontal times vertical factor
            if frame is not None or bits != 8 or len(areas) != num_colours or not all(areas):
                return None
            frame = marker, width, height, areas
        position += 2 + length
    if frame is None or marker != _START_OF_SCAN:
        return None

    kind, width, height, areas = frame
    if not (width and height and areas):
        return None
    colours_in_scan = data[position + 4]
    is_one_pass = kind in _ONE_PASS_MARKERS and colours_in_scan == len(areas)
    return _JpegFrame(width, height, sum(areas) / max(areas), is_one_pass, kind in _SCALABLE_MARKERS)


def _frame_of_header(header: Image.Image) -> _JpegFrame:
    """Return a frame of the size that Pillow reads, with the highest costs."""
    return _JpegFrame(header.width, header.height, len(header.getbands()), is_one_pass=False, is_scalable=False)


def _read_jpeg_header(data: bytes, name: str, max_pixels: int) -> tuple[tuple[int, int], int]:
    """Return the stored width and height, and the EXIF orientation."""
    size = _read_plain_jpeg_size(data)
    if size is None:
        header = open_header(data, name, max_pixels)
        return header.size, _read_orientation(header)
    check_image_size(*size, name, max_pixels)
    return size, 1


def _read_plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a JPEG whose header holds nothing but tables.

    None if a segment may hold EXIF data or anything is unusual; then Pillow reads the header, which takes longer.
    """
    position = len(_JPEG)
    for _ in range(_MAX_SEGMENTS):
        if position + 9 >= len(data) or data[position] != 0xFF:
            break
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _COMMON_FRAME_MARKERS:
            bits, height, width, num_colours = struct.unpack_from(">BHHB", data, position + 4)
            if bits == 8 and num_colours in (1, 3) and width and height:
                return width, height
            return None
        if marker not in _TABLE_MARKERS:
            return None
        position += 2 + length
    return None


def _is_cut_off(data: bytes) -> bool:
    # An end marker must follow the last scan; the end marker of a thumbnail in the header comes before it. Compressed
    # pixels never contain a marker.
    return not data.endswith(_END) and data.rfind(_END) < data.rfind(_SCAN)


def _decode_jpeg(data: bytes, factor: int, name: str, fast: bool, max_pixels: int) -> np.ndarray:
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
        minimum = {}
        if factor > 1:
            # simplejpeg chooses the smallest scale with at least these sides, which is 1/factor.
            minimum = {"min_height": -(-height // factor), "min_width": -(-width // factor)}
        # Not strict: many files have stray bytes between markers, which do no harm.
        return simplejpeg.decode_jpeg(data, strict=False, fastupsample=fast, **minimum)
    except Exception:  # rare chroma subsampling, or damage: let Pillow try
        image = open_header(data, name, max_pixels)
    try:
        # The sides are not rounded: Pillow divides by the whole part of width / requested width, and rounds up itself.
        image.draft(None, (image.width / factor, image.height / factor))  # type: ignore[arg-type]  # typed as int
        return convert_to_rgb(image, None)
    except Exception as error:  # Pillow's readers raise exceptions of any type
        raise BadSample(Reason.BROKEN_IMAGE, name) from error


def decode_opened_image(
    image: Image.Image, name: str, background: Sequence[int] | None, data: bytes | None = None
) -> np.ndarray:
    """Convert an image that Pillow has opened to `[H, W, 3]` uint8 RGB, turned as its EXIF orientation says.

    Args:
        image: the image.
        name: its name, for the error.
        background: as in `EncodedImage`.
        data: bytes of its file; None if they are not known. Then colours of other than 8 bits are not recognised where
            Pillow does not tell them: in JPEG 2000, and as the transparent colour of a PNG.

    Raises:
        BadSample: as `EncodedImage`.
    """
    # Pillow's mode I is 32 bits, except in PPM files, whose values have at most 16.
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise BadSample(Reason.WIDE_PIXELS, name)
    # Pillow makes white black in a JPEG 2000 of more than 8 bits; it gets only grey images (modes L and I;16) right.
    if data and image.format == "JPEG2000" and image.mode not in ("L", "I;16") and _read_jpeg_2000_bits(data) > 8:
        raise BadSample(Reason.WIDE_JPEG_2000, name)
    try:
        image.load()  # this also turns a TIFF upright
        has_tiff_alpha = image.mode in ("RGBA", "RGBa") and _TIFF_ALPHA in getattr(image, "tag_v2", ())
        if background is None and has_tiff_alpha:
            background = BLACK  # as OpenCV, by which the official release decodes
        if image.format == "PNG":
            _remark_on_profile(image)
        return _turn_upright(_decode_pixels(image, data, background), _read_orientation(image))
    except Exception as error:  # Pillow's readers raise exceptions of any type
        raise BadSample(Reason.BROKEN_IMAGE, name) from error


def _decode_pixels(image: Image.Image, data: bytes | None, background: Sequence[int] | None) -> np.ndarray:
    """Convert a Pillow image to RGB like `convert_to_rgb`, and correct two cases that Pillow gets wrong.

    Pillow's conversion of 16-bit grey loses the lighter values and the transparency. And a file gives its transparent
    colour in its own number of bits, but Pillow reads it as a colour of 8 bits.
    """
    transparent_colour = image.info.get("transparency")
    if image.mode.startswith("I"):
        bits, is_inverted = 16, False
        if image.format == "TIFF":
            tags: Any = getattr(image, "tag_v2", {})
            bits = tags[_TIFF_BITS][0]  # 12 or 16
            is_inverted = tags[_TIFF_COLOURS] == _WHITE_IS_ZERO

        def convert(band: Image.Image) -> np.ndarray:
            grey = np.asarray(band)
            if is_inverted:
                grey = 2**bits - 1 - grey
            pixels = cv2.cvtColor((grey >> (bits - 8)).astype(np.uint8), cv2.COLOR_GRAY2RGB)
            if background is not None and transparent_colour is not None:
                pixels[grey == transparent_colour] = background
            return pixels

        return _convert_in_bands(image, convert)

    if data and image.format == "PNG":
        bits = data[_PNG_BIT_DEPTH_OFFSET]
        if image.mode == "L" and isinstance(transparent_colour, int):
            image.info["transparency"] = transparent_colour * 255 // (2**bits - 1)
        if image.mode == "RGB" and transparent_colour and bits == 16:
            image.info["transparency"] = tuple(value >> 8 for value in transparent_colour)
    return convert_to_rgb(image, background)


def _read_jpeg_2000_bits(data: bytes) -> int:
    position = data.find(_JPEG_2000) + _JPEG_2000_BIT_DEPTH_OFFSET
    # A file that ends before this byte counts as one of 1 bit; it is broken, which shows when its pixels are read.
    size_and_sign = int.from_bytes(data[position : position + 1], "big")
    return 1 + (size_and_sign & 0x7F)  # the highest bit says whether values are signed


def _remark_on_profile(header: Image.Image) -> None:
    """Remark on a faulty colour profile, where libpng would print a warning; profiles are not applied here."""
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


def _read_orientation(header: Image.Image) -> int:
    if "exif" not in header.info:
        return 1
    try:
        orientation = header.getexif().get(_ORIENTATION, 1)
    except Exception:  # malformed EXIF data is no reason to refuse the pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and flip pixels from how they are stored, one of EXIF's eight orientations, to how they are shown."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    # cv2.flip takes 1 for left-right, 0 for up-down and -1 for both; orientations 1 and 5 need no flip.
    flip_code = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip_code is None else cv2.flip(pixels, flip_code)


def resize_pixels(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an image `[H, W, 3]` uint8: means of blocks of 1, 2, 4, ... pixels, then bilinear.

    After the means, less than a factor of two is left. For such a factor, bilinear interpolation reads as many pixels
    as a mean over the exact area would, in an eighth of the time.
    """
    # The largest powers of two that are not above the factors, or 1.
    row_factor, column_factor = image.shape[0] // height, image.shape[1] // width
    block_height = 1 << max(0, row_factor.bit_length() - 1)
    block_width = 1 << max(0, column_factor.bit_length() - 1)
    if block_height * block_width > 1:
        num_rows, num_columns = image.shape[0] // block_height, image.shape[1] // block_width
        # OpenCV is fast if blocks cover the image exactly, so the rest is cut off, half of it on either side.
        top, left = image.shape[0] % block_height // 2, image.shape[1] % block_width // 2
        image = image[top : top + num_rows * block_height, left : left + num_columns * block_width]
        image = cv2.resize(image, (num_columns, num_rows), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def scale_to_short_side(height: int, width: int, side: int) -> tuple[int, int]:
    """Return height and width scaled so that the smaller of them is `side`."""
    scale = side / min(height, width)
    return max(side, round(height * scale)), max(side, round(width * scale))
