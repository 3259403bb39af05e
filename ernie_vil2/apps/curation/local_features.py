"""Local features of thumbnails: OpenCV's SIFT, from which a crop, a turn or a bar at an edge is guessed.

A feature is a keypoint, which has a place, a size and an angle, and a descriptor of what is around it. A single feature
that two images share says where one image lies in the other. Descriptors are compared by their principal components,
whitened, because most of SIFT's bins are alike in all images.
"""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from ernie_vil2.apps.curation.image_measures import compute_percentile
from ernie_vil2.apps.curation.registration import SIDE

MAX_FEATURES = 24  # of a thumbnail, the largest ones, which survive noise and compression
_MIN_FEATURES = 5  # of a thumbnail, else it has none: a plain disc has fewer, and is a crop of many things
# Pixels of a side in which features are detected. In 64 there are more features, but the largest 24 find no more
# copies, in nearly twice the time.
_DETECTOR_SIDE = 48
COMPONENTS = 48  # principal components of a descriptor of 128 numbers
FEATURE = np.dtype([("keypoint", np.float32, 4), ("descriptor", np.uint8, 128)])
"""A feature: x, y and size in pixels of the thumbnail, angle in radians, and SIFT's descriptor."""
LEARN_FROM = 100_000  # descriptors that principal components are learnt from
_MIN_SCALE = 0.43  # a crop to 60 % of a side has 0.6, and the sizes of keypoints are off by up to a quarter
_MAX_LEAN = 14.0  # degrees from the nearest quarter turn: 3 of the image, and 11 that angles of keypoints are off by
# Mirroring a descriptor reverses the rows of its 4 x 4 cells, and the order of its 8 directions.
_MIRROR_ORDER = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


def describe_features(luminance: np.ndarray) -> bytes:
    """Return the features of a thumbnail, `[64, 64]` uint8, as the bytes of an array of the type `FEATURE`."""
    coarse = cv2.resize(luminance, (_DETECTOR_SIDE, _DETECTOR_SIDE), interpolation=cv2.INTER_AREA)
    points, descriptors = _create_detector().detectAndCompute(_stretch_contrast(coarse), None)
    if len(points) < _MIN_FEATURES:
        return b""
    keypoints = np.array([(*point.pt, point.size, np.deg2rad(point.angle)) for point in points], np.float32)
    scale = SIDE / _DETECTOR_SIDE
    # A pixel's centre would be at + 0.5, but OpenCV doubles the image, and then its keypoints are a quarter of a pixel
    # too far right and down.
    keypoints[:, :2] = (keypoints[:, :2] + 0.25) * scale - 0.5
    keypoints[:, 2] *= scale
    largest = np.argsort(-keypoints[:, 2], kind="stable")[:MAX_FEATURES]
    features = np.empty(len(largest), FEATURE)
    features["keypoint"] = keypoints[largest]
    features["descriptor"] = descriptors[largest]  # OpenCV rounds them to bytes
    return features.tobytes()


@cache
def _create_detector() -> cv2.SIFT:
    # The contrast threshold is far below OpenCV's, because the contrast of blurred photographs is.
    return cv2.SIFT.create(0, contrastThreshold=0.005, edgeThreshold=20)


def _stretch_contrast(luminance: np.ndarray) -> np.ndarray:
    """Stretch the levels from the 2nd to the 98th percentile to 0 to 255; fewer than 20 levels are stretched less."""
    levels = luminance.ravel()
    low, high = compute_percentile(levels, 2), compute_percentile(levels, 98)
    from_low = np.rint(np.maximum(np.arange(256) - low, 0))
    stretched = np.rint(np.minimum(from_low * (255 / max(high - low, 20)), 255))
    return cv2.LUT(luminance, stretched.astype(np.uint8))


def normalise_descriptors(descriptors: np.ndarray, is_mirrored: bool = False) -> np.ndarray:
    """Return the square roots of each number's share of its descriptor, which compare better than SIFT's numbers.

    See Arandjelovic and Zisserman (2012), RootSIFT.

    Args:
        descriptors: SIFT's, `[F, 128]` uint8.
        is_mirrored: return those of the mirrored images instead.

    Returns:
        `[F, 128]` float32.
    """
    numbers = descriptors.astype(np.float32)
    roots = np.sqrt(numbers / np.maximum(numbers.sum(axis=1, keepdims=True), 1))
    return roots[:, _MIRROR_ORDER] if is_mirrored else roots


def mirror_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """Return the keypoints, `[F, 4]`, of the images mirrored from left to right."""
    mirrored = keypoints.copy()
    mirrored[:, 0] = SIDE - 1 - mirrored[:, 0]
    mirrored[:, 3] = np.pi - mirrored[:, 3]
    return mirrored


class Projection(NamedTuple):
    """Principal components of descriptors: mean `[128]`, and whitened components `[128, COMPONENTS]`."""

    mean: np.ndarray
    components: np.ndarray

    def apply(self, descriptors: np.ndarray) -> np.ndarray:
        """Return projected descriptors of length 1, `[F, COMPONENTS]` float16."""
        projected = (descriptors - self.mean) @ self.components
        projected /= np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-6)
        return projected.astype(np.float16)


def learn_projection(descriptors: np.ndarray) -> Projection:
    """Return the projection that whitens normalised descriptors, `[F, 128]` float32."""
    sample = descriptors[:: max(1, len(descriptors) // LEARN_FROM)]
    mean = sample.mean(axis=0)
    centred = sample - mean
    variances, components = np.linalg.eigh(centred.T @ centred / max(1, len(sample)))
    # Half of the mean variance is noise: without it, components of few descriptors would be blown up.
    scales = np.sqrt(variances + 0.5 * variances.mean() + 1e-9)
    # eigh returns the components in ascending order of their variances.
    largest_components = (components / scales)[:, : -COMPONENTS - 1 : -1]
    return Projection(mean, largest_components.astype(np.float32))


def guess_transforms(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the transform from the first to the second image of each pair of keypoints, and whether it is plausible.

    Args:
        first: keypoints of the first images, `[P, 4]`.
        second: the same keypoints in the second images, `[P, 4]`.

    Returns:
        Transforms of scale, rotation and translation, `[P, 2, 3]` float32; and `[P]` bool, true where the rotation is
        near quarter turns, the scale is that of a crop, and the smaller image lies nearly within the larger one.
    """
    scales = second[:, 2] / first[:, 2]
    angles = second[:, 3] - first[:, 3]
    cosines, sines = scales * np.cos(angles), scales * np.sin(angles)
    transforms = np.empty((len(first), 2, 3), np.float32)
    transforms[:, 0, 0] = transforms[:, 1, 1] = cosines
    transforms[:, 0, 1], transforms[:, 1, 0] = -sines, sines
    transforms[:, 0, 2] = second[:, 0] - cosines * first[:, 0] + sines * first[:, 1]
    transforms[:, 1, 2] = second[:, 1] - sines * first[:, 0] - cosines * first[:, 1]

    quarter_turns = angles / (np.pi / 2)
    leans = np.abs((quarter_turns + 0.5) % 1 - 0.5) * 90  # degrees from the nearest quarter turn
    centre = (SIDE - 1) / 2
    moves = np.abs(transforms @ np.array([centre, centre, 1], np.float32) - centre).max(axis=1)
    # A crop may touch the edge, and a guess may be off by three tenths of the smaller image.
    max_moves = np.abs(scales - 1) * SIDE / 2 + 0.3 * np.minimum(scales, 1) * SIDE
    is_plausible = (leans < _MAX_LEAN) & (moves < max_moves)
    is_plausible &= np.abs(np.log(scales)) < -np.log(_MIN_SCALE)
    return transforms, is_plausible
