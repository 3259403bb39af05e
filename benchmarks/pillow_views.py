"""Training views made with Pillow, as in most trainers, for comparison in the benchmark and the tests."""

import io
import math

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

BILINEAR, FLIP = Image.Resampling.BILINEAR, Image.Transpose.FLIP_LEFT_RIGHT


def pillow_views(data, count, size, views, rng, shared_resize=False):
    """Make views like `ernie_vil2.data.augment`, except that the hue is that of HSV here.

    Args:
        data: content of an image file.
        count: number of views.
        size: side of a view in pixels.
        views: options, a `ViewsConfig`.
        rng: NumPy's random generator.
        shared_resize: resize once for all views; trainers commonly apply the whole transform to the image for each.

    Returns:
        `count` arrays `[size, size, 3]` uint8 RGB.
    """
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if views.crop_area is not None:
        windows = [crop_area(image, size, views.crop_area, rng) for _ in range(count)]
    elif shared_resize:
        resized = resize(image, views.resize)
        windows = [crop_window(resized, size, rng) for _ in range(count)]
    else:
        windows = [crop_window(resize(image, views.resize), size, rng) for _ in range(count)]
    return [np.asarray(augment(window, views, rng)) for window in windows]


def resize(image, short_side):
    """Resize an image to a short side in pixels."""
    scale = short_side / min(image.size)
    return image.resize([max(short_side, round(side * scale)) for side in image.size], BILINEAR)


def crop_window(image, size, rng):
    """Cut a random square."""
    left = int(rng.integers(image.width - size + 1))
    top = int(rng.integers(image.height - size + 1))
    return image.crop((left, top, left + size, top + size))


def crop_area(image, size, area, rng):
    """Cut a random rectangle, a share of the image within `area` with an aspect of 3:4 to 4:3, and make it square."""
    share = rng.uniform(*area)
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    num_pixels = image.width * image.height * share
    width = min(image.width, max(1, round(math.sqrt(num_pixels * aspect))))
    height = min(image.height, max(1, round(math.sqrt(num_pixels / aspect))))
    left = int(rng.integers(image.width - width + 1))
    top = int(rng.integers(image.height - height + 1))
    return image.resize((size, size), BILINEAR, box=(left, top, left + width, top + height))


def augment(image, views, rng):
    """Flip an image and change colour and sharpness, each with its probability."""
    if rng.random() < views.flip:
        image = image.transpose(FLIP)
    if rng.random() < views.jitter:
        for enhancer, strength in (
            (ImageEnhance.Brightness, views.brightness),
            (ImageEnhance.Contrast, views.contrast),
            (ImageEnhance.Color, views.saturation),
        ):
            image = enhancer(image).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
        image = turn_hue(image, rng.uniform(-views.hue, views.hue))
    if rng.random() < views.blur:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*views.blur_sigma)))
    if rng.random() < views.grayscale:
        image = image.convert("L").convert("RGB")
    return image


def turn_hue(image, turn):
    """Rotate the hues of an image by a share of the whole circle."""
    hue, saturation, value = image.convert("HSV").split()
    levels = np.asarray(hue).astype(np.int16) + round(256 * turn)
    # The conversion to uint8 wraps around, as hues do.
    return Image.merge("HSV", (Image.fromarray(levels.astype(np.uint8)), saturation, value)).convert("RGB")


def normalize(view, mean, std):
    """Convert a view `[size, size, 3]` uint8 to `[3, size, size]` float32, as a trainer that normalises on the CPU."""
    # In torchvision's order, channels first and then in place; on `[size, size, 3]` it would take eight times as long.
    pixels = np.ascontiguousarray(view.transpose(2, 0, 1)).astype(np.float32)
    pixels /= 255
    pixels -= np.reshape(mean, (3, 1, 1)).astype(np.float32)
    pixels /= np.reshape(std, (3, 1, 1)).astype(np.float32)
    return pixels
