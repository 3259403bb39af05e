"""The training views written with Pillow, as most trainers have them: what the benchmark and the tests compare with."""

import io
import math

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

BILINEAR, FLIP = Image.Resampling.BILINEAR, Image.Transpose.FLIP_LEFT_RIGHT


def pillow_views(data, count, size, views, rng, shared_resize=False):
    """Make views like `ernie_vil2.data.augment`, except that the hue is that of HSV here.

    Args:
        shared_resize: resize once for all views; trainers commonly apply the whole transform to the image for each.

    Returns:
        `count` arrays `[size, size, 3]` uint8 RGB.
    """
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if views.crop_area is None:
        resized = [resize(image, views.resize) for _ in range(1 if shared_resize else count)]
        windows = [window(resized[number % len(resized)], size, rng) for number in range(count)]
    else:
        windows = [crop(image, size, views.crop_area, rng) for _ in range(count)]
    return [np.asarray(augmented(view, views, rng)) for view in windows]


def resize(image, short_side):
    scale = short_side / min(image.size)
    return image.resize([max(short_side, round(side * scale)) for side in image.size], BILINEAR)


def window(image, size, rng):
    left, top = (int(rng.integers(side - size + 1)) for side in image.size)
    return image.crop((left, top, left + size, top + size))


def crop(image, size, area, rng):
    share = rng.uniform(*area)
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    pixels = image.width * image.height * share
    width = min(image.width, max(1, round(math.sqrt(pixels * aspect))))
    height = min(image.height, max(1, round(math.sqrt(pixels / aspect))))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.resize((size, size), BILINEAR, box=(left, top, left + width, top + height))


def augmented(image, views, rng):
    if rng.random() < views.flip:
        image = image.transpose(FLIP)
    if rng.random() < views.jitter:
        for enhance, strength in (
            (ImageEnhance.Brightness, views.brightness),
            (ImageEnhance.Contrast, views.contrast),
            (ImageEnhance.Color, views.saturation),
        ):
            image = enhance(image).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
        image = turn_hue(image, rng.uniform(-views.hue, views.hue))
    if rng.random() < views.blur:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*views.blur_sigma)))
    if rng.random() < views.grayscale:
        image = image.convert("L").convert("RGB")
    return image


def turn_hue(image, turn):
    hue, saturation, value = image.convert("HSV").split()
    hue = Image.fromarray((np.asarray(hue).astype(np.int16) + round(256 * turn)).astype(np.uint8))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def normalized(view, mean, std):
    """`[size, size, 3]` uint8 to `[3, size, size]` float32, what a trainer that normalises on the CPU hands on."""
    # In torchvision's order, channels first and then in place; on `[size, size, 3]` it would take eight times as long.
    pixels = np.ascontiguousarray(view.transpose(2, 0, 1)).astype(np.float32)
    pixels /= 255
    pixels -= np.reshape(mean, (3, 1, 1)).astype(np.float32)
    pixels /= np.reshape(std, (3, 1, 1)).astype(np.float32)
    return pixels
