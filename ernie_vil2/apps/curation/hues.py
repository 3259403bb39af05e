"""Tell images of other hues by the 16 x 16 colours of their thumbnails, before they are compared closely.

Brightness, contrast, gamma, saturation and a slight tint change how strong colours are, but hardly their hues. So where
two copies lie on each other, their colours less the luminance point the same way. That is checked for many guesses
at once, in a hundredth of the time of a close comparison.
"""

import numpy as np

from ernie_vil2.apps.curation.registration import (
    COLOUR_SIDE,
    MAX_SAMPLES,
    SIDE,
    make_grid,
    remove_luminance,
    sample_images,
    scale_transform,
)

# Levels: root mean square of the colours, less their luminance. A tint of 15 % gives weaker colours another hue.
MIN_STRENGTH = 14.0
# Share of the compared samples that a sticker, with the samples at its edge, may cover. They are left out.
MAX_STICKER = 0.2
# Without the sticker, the rest must be coloured and agree, else the hues differ. A grey rest agrees with anything, so
# it proves nothing. More than 0.8 finds fewer stickers; 0.6 lets a tenth more of other pairs pass.
MIN_AGREEMENT_BESIDE, MIN_STRENGTH_BESIDE = 0.8, 4.0
PAIRS_PER_BLOCK = MAX_SAMPLES // COLOUR_SIDE**2


def have_other_hues(
    templates: np.ndarray, images: np.ndarray, transforms: np.ndarray, min_agreement: float
) -> np.ndarray:
    """Return which pairs of images are both coloured, and have other hues where they lie on each other, `[P]` bool.

    Args:
        templates: colours of the images that show less, `[P, 16, 16, 3]` float32.
        images: colours of the other images, `[P, 16, 16, 3]` float32.
        transforms: maps from the 64 x 64 samples of the templates to those of the images, `[P, 2, 3]`.
        min_agreement: least cosine of the colours of images of the same hues.
    """
    is_other = np.zeros(len(transforms), bool)
    for start in range(0, len(transforms), PAIRS_PER_BLOCK):
        block = slice(start, start + PAIRS_PER_BLOCK)
        is_other[block] = _compare_block(templates[block], images[block], transforms[block], min_agreement)
    return is_other


def _compare_block(
    templates: np.ndarray, images: np.ndarray, transforms: np.ndarray, min_agreement: float
) -> np.ndarray:
    num_pairs = len(transforms)
    stack = images.reshape(-1, COLOUR_SIDE, 3)
    scaled = scale_transform(transforms, COLOUR_SIDE / SIDE)
    warped, is_inside = sample_images(stack, np.arange(num_pairs), scaled, make_grid(COLOUR_SIDE, 1))
    # Outside of the image there is nothing to compare.
    first = remove_luminance(templates.reshape(num_pairs, -1, 3) * is_inside[..., None])
    second = remove_luminance(warped * is_inside[..., None])
    strengths, agreements = _measure_agreement(first, second, is_inside)
    is_other = (strengths >= MIN_STRENGTH) & (agreements < min_agreement)
    # A coloured sticker is no other hue, if what is beside it is coloured and agrees.
    numbers = np.flatnonzero(is_other)
    is_common = _find_common(first[numbers], second[numbers], is_inside[numbers])
    is_kept = is_common[..., None]
    strengths, agreements = _measure_agreement(first[numbers] * is_kept, second[numbers] * is_kept, is_common)
    is_other[numbers] = (strengths < MIN_STRENGTH_BESIDE) | (agreements < MIN_AGREEMENT_BESIDE)
    return is_other


def _measure_agreement(first: np.ndarray, second: np.ndarray, is_compared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the strength of the paler of two images, in levels, and the cosine of their colours, `[P]` each.

    Means stay in: the hue of an even ground counts.

    Args:
        first: colours less their luminance, `[P, N, 3]`, 0 where they are not compared.
        second: those of the other images.
        is_compared: where they are compared, `[P, N]` bool.
    """
    products = np.einsum("pnc,pnc->p", first, second)
    first_squares = np.einsum("pnc,pnc->p", first, first)
    second_squares = np.einsum("pnc,pnc->p", second, second)
    strengths = np.sqrt(np.minimum(first_squares, second_squares) / np.maximum(is_compared.sum(axis=1), 1))
    return strengths, products / np.maximum(np.sqrt(first_squares * second_squares), 1e-3)


def _find_common(first: np.ndarray, second: np.ndarray, is_inside: np.ndarray) -> np.ndarray:
    """Return where pairs of colours, `[P, N, 3]`, agree best: all but a share `MAX_STICKER` of what is inside."""
    # Of equal norm, so that saturation and contrast do not count. None is 0, because both images are coloured.
    first_norms = np.sqrt(np.einsum("pnc,pnc->p", first, first))[:, None, None]
    second_norms = np.sqrt(np.einsum("pnc,pnc->p", second, second))[:, None, None]
    errors = np.square(first / first_norms - second / second_norms).sum(axis=2)
    errors[~is_inside] = np.inf
    num_common = ((1 - MAX_STICKER) * is_inside.sum(axis=1)).astype(int)
    max_errors = np.sort(errors, axis=1)[np.arange(len(errors)), num_common - 1]
    return errors <= max_errors[:, None]
