"""Local features of thumbnails: OpenCV's SIFT, from which a crop, a turn or a bar at an edge is guessed.

One feature that two images share says where one lies in the other: keypoints have a place, a size and an angle.
Features are compared by their principal components, whitened, because most of SIFT's bins are alike in all images.
"""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from ernie_vil2.apps.curation.image_measures import compute_percentile
from ernie_vil2.apps.curation.registration import SIDE

MAX_FEATURES = 24  # of an image, the largest ones, which survive noise and compression
MIN_FEATURES = 5  # of an image that is compared by them: a plain disc has fewer, and is a crop of many things
# Samples of a side that features are found in: in 64 there are more, and the largest 24 find as many copies, in nearly
# twice the time.
_DETECTOR_SIDE = 48
COMPONENTS = 48  # of a descriptor of 128 numbers
FEATURE = np.dtype([("keypoint", np.float32, 4), ("descriptor", np.uint8, 128)])
"""A feature: x, y, size and angle in radians, and SIFT's numbers."""
LEARN_FROM = 100_000  # descriptors that principal components are learnt from
MIN_SCALE = 0.43  # of a crop to 60 % of a side, whose keypoints have sizes that are off by a quarter
MAX_LEAN = 14.0  # degrees from the nearest quarter turn: 3, and what the angles of keypoints are off by
# The mirrored descriptor has the 4 x 4 cells in the opposite order of rows, and the 8 directions the other way round.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


def describe_features(luminance: np.ndarray) -> bytes:
    """Return the features of a thumbnail, `[64, 64]` uint8, as records of the type `FEATURE`."""
    coarse = cv2.resize(luminance, (_DETECTOR_SIDE, _DETECTOR_SIDE), interpolation=cv2.INTER_AREA)
    points, descriptors = _create_detector().detectAndCompute(_stretch_contrast(coarse), None)
    if len(points) < MIN_FEATURES:
        return b""
    keypoints = np.array([(*point.pt, point.size, np.deg2rad(point.angle)) for point in points], np.float32)
    scale = SIDE / _DETECTOR_SIDE
    # OpenCV enlarges the image twice, and says where keypoints are a quarter of a sample too far right and down.
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
    levels = luminance.ravel()
    low, high = compute_percentile(levels, 2), compute_percentile(levels, 98)
    return cv2.multiply(cv2.subtract(luminance, low), 255 / max(high - low, 20))  # both saturate


def normalise_descriptors(descriptors: np.ndarray, is_mirrored: bool = False) -> np.ndarray:
    """Return the descriptors that are compared, `[F, 128]` float32, of SIFT's; or those of the mirrored images.

    Square roots of shares compare better than SIFT's numbers (Arandjelovic and Zisserman 2012).
    """
    values = descriptors.astype(np.float32)
    roots = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1))
    return roots[:, _MIRRORED] if is_mirrored else roots


def mirror_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """Return the keypoints of the mirrored images."""
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
    """Return the projection that whitens these descriptors."""
    sample = descriptors[:: max(1, len(descriptors) // LEARN_FROM)]
    mean = sample.mean(axis=0)
    centred = sample - mean
    variances, components = np.linalg.eigh(centred.T @ centred / max(1, len(sample)))
    # Half of the mean variance is noise: without it, components of few descriptors would be blown up.
    scales = np.sqrt(variances + 0.5 * variances.mean() + 1e-9)
    return Projection(mean, (components / scales)[:, : -COMPONENTS - 1 : -1].astype(np.float32))


def guess_transforms(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return maps from the images of some keypoints to those of others, and which of them a copy could have.

    Args:
        first: keypoints, `[P, 4]`.
        second: keypoints of the other images.

    Returns:
        Similarities, `[P, 2, 3]` float32, and `[P]` bool: the turn is near a quarter, the scale is that of a crop, and
        the smaller image lies within the larger one, nearly.
    """
    scales = second[:, 2] / first[:, 2]
    angles = second[:, 3] - first[:, 3]
    cosines, sines = scales * np.cos(angles), scales * np.sin(angles)
    transforms = np.empty((len(first), 2, 3), np.float32)
    transforms[:, 0, 0] = transforms[:, 1, 1] = cosines
    transforms[:, 0, 1], transforms[:, 1, 0] = -sines, sines
    transforms[:, 0, 2] = second[:, 0] - cosines * first[:, 0] + sines * first[:, 1]
    transforms[:, 1, 2] = second[:, 1] - sines * first[:, 0] - cosines * first[:, 1]

    lean = np.abs((angles / (np.pi / 2) + 0.5) % 1 - 0.5) * 90
    centre = (SIDE - 1) / 2
    moves = np.abs(transforms @ np.array([centre, centre, 1], np.float32) - centre).max(axis=1)
    # A crop may touch the edge; three tenths of the smaller image beyond it are what a guess may be off by.
    room = np.abs(scales - 1) * SIDE / 2 + 0.3 * np.minimum(scales, 1) * SIDE
    return transforms, (lean < MAX_LEAN) & (np.abs(np.log(scales)) < -np.log(MIN_SCALE)) & (moves < room)
