"""An image as a detector exported by PaddleDetection takes it: the `Preprocess` list of its `infer_cfg.yml`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from ernie_vil2.data.samples import BadSample, Reason


class DetectorInput(NamedTuple):
    """One image.

    image: `[H, W, 3]` RGB until `Permute`, then `[3, H, W]`; uint8 until a step makes it float32.
    im_shape: `[height, width]` float32, resized and without padding.
    scale_factor: `[vertical, horizontal]` float32, resized to original.
    """

    image: np.ndarray
    im_shape: np.ndarray
    scale_factor: np.ndarray


Step = Callable[[DetectorInput], DetectorInput]


@dataclass(frozen=True)
class Resize:
    """To `target_size` [height, width]; with `keep_ratio`, so that the sides are at most its two numbers."""

    target_size: int | Sequence[int]
    keep_ratio: bool = True
    interp: int = cv2.INTER_LINEAR

    def __call__(self, given: DetectorInput) -> DetectorInput:
        height, width = given.image.shape[:2]
        target = (self.target_size,) * 2 if isinstance(self.target_size, int) else tuple(self.target_size)
        if self.keep_ratio:
            vertical = min(target) / min(height, width)
            if round(vertical * max(height, width)) > max(target):
                vertical = max(target) / max(height, width)
            horizontal = vertical
        else:
            vertical, horizontal = target[0] / height, target[1] / width
        # By factors, not to a size: OpenCV takes the coordinates of the pixels from what it is given.
        image = cv2.resize(given.image, None, fx=horizontal, fy=vertical, interpolation=self.interp)
        return DetectorInput(image, np.array(image.shape[:2], np.float32), np.array([vertical, horizontal], np.float32))


@dataclass(frozen=True)
class Pad:
    """Below and to the right, with a colour, to `size` [height, width]."""

    size: Sequence[int]
    fill_value: Sequence[float] = (114.0, 114.0, 114.0)

    def __call__(self, given: DetectorInput) -> DetectorInput:
        height, width = given.image.shape[:2]
        padded = np.full((*self.size, 3), self.fill_value, np.float32)
        padded[:height, :width] = given.image
        return given._replace(image=padded)


@dataclass(frozen=True)
class NormalizeImage:
    """(image / 255 - mean) / std; without the division if not `is_scale`, without the rest if `norm_type` is none."""

    mean: Sequence[float]
    std: Sequence[float]
    is_scale: bool = True
    norm_type: str = "mean_std"

    def __call__(self, given: DetectorInput) -> DetectorInput:
        image = given.image.astype(np.float32)
        if self.is_scale:
            image /= 255.0
        if self.norm_type == "mean_std":
            image = (image - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return given._replace(image=image)


@dataclass(frozen=True)
class Permute:
    """Channels first."""

    def __call__(self, given: DetectorInput) -> DetectorInput:
        return given._replace(image=given.image.transpose(2, 0, 1))


@dataclass(frozen=True)
class PadStride:
    """Zeros below and to the right, to multiples of `stride`; after `Permute`."""

    stride: int = 0

    def __call__(self, given: DetectorInput) -> DetectorInput:
        if self.stride <= 0:
            return given
        height, width = given.image.shape[1:]
        more = [(0, 0), (0, -height % self.stride), (0, -width % self.stride)]
        return given._replace(image=np.pad(given.image, more))


STEPS = {step.__name__: step for step in (Resize, Pad, NormalizeImage, Permute, PadStride)}


class DetectorPreprocessing:
    """The steps of a `Preprocess` list, which are those of PaddleDetection's deployment.

    Args:
        steps: mappings with the step's `type` and its options.
        file: where they are listed, for the error.

    Raises:
        ValueError: a step or an option of it is not known here.
    """

    def __init__(self, steps: Sequence[dict], file: str):
        self._steps: list[Step] = []
        for options in steps:
            options = dict(options)
            kind = options.pop("type", None)
            if kind not in STEPS:
                raise ValueError(f"{file}: preprocessing {kind} is not known here; known: {', '.join(STEPS)}")
            try:
                self._steps.append(STEPS[kind](**options))
            except TypeError as error:
                raise ValueError(f"{file}: preprocessing {kind}: {error}") from error

    def __call__(self, image: np.ndarray, name: str) -> DetectorInput:
        """What the detector takes of an image `[H, W, 3]` uint8 RGB; BadSample if nothing is left of a side of it."""
        made = DetectorInput(image, np.array(image.shape[:2], np.float32), np.ones(2, np.float32))
        try:
            for step in self._steps:
                made = step(made)
        except cv2.error as error:
            raise BadSample(Reason.TOO_NARROW, name) from error
        return made._replace(image=np.ascontiguousarray(made.image, np.float32))
