"""A detector exported for Paddle Inference, in the layout of PaddleDetection, its input, and phrases for what it finds.

Objects are named as in "red car" (paper, section 3.1; BUTD there).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ernie_vil2.apps.tagging.extract import Tagger
from ernie_vil2.apps.tagging.sources import clean_tags
from ernie_vil2.config import read_yaml
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample, Reason, Sample
from ernie_vil2.data.tags import Tags
from ernie_vil2.device import runtime
from ernie_vil2.io.files import sha256

CONFIG = "infer_cfg.yml"
PROGRAMS = ("model.json", "inference.json", "model.pdmodel", "inference.pdmodel")
INPUTS = ("image", "im_shape", "scale_factor")


class DetectorInput(NamedTuple):
    """One image.

    image: `[H, W, 3]` RGB until `Permute`, then `[3, H, W]`; uint8 until a step makes it float32.
    im_shape: `[height, width]` float32, resized and without padding.
    scale_factor: `[vertical, horizontal]` float32, resized to original.
    """

    image: np.ndarray
    im_shape: np.ndarray
    scale_factor: np.ndarray


def _resize(
    given: DetectorInput, target_size: int | Sequence[int], keep_ratio: bool = True, interp: int = cv2.INTER_LINEAR
) -> DetectorInput:
    """To `target_size` [height, width]; with `keep_ratio`, so that the sides are at most its two numbers."""
    height, width = given.image.shape[:2]
    target = (target_size,) * 2 if isinstance(target_size, int) else tuple(target_size)
    if keep_ratio:
        vertical = min(target) / min(height, width)
        if round(vertical * max(height, width)) > max(target):
            vertical = max(target) / max(height, width)
        horizontal = vertical
    else:
        vertical, horizontal = target[0] / height, target[1] / width
    # By factors, not to a size: OpenCV takes the coordinates of the pixels from what it is given.
    image = cv2.resize(given.image, None, fx=horizontal, fy=vertical, interpolation=interp)
    return DetectorInput(image, np.array(image.shape[:2], np.float32), np.array([vertical, horizontal], np.float32))


def _pad(given: DetectorInput, size: Sequence[int], fill_value: Sequence[float] = (114.0,) * 3) -> DetectorInput:
    """Below and to the right, with a colour, to `size` [height, width]."""
    height, width = given.image.shape[:2]
    padded = np.full((*size, 3), fill_value, np.float32)
    padded[:height, :width] = given.image
    return given._replace(image=padded)


def _normalize_image(
    given: DetectorInput,
    mean: Sequence[float],
    std: Sequence[float],
    is_scale: bool = True,
    norm_type: str = "mean_std",
) -> DetectorInput:
    """(image / 255 - mean) / std; without the division if not `is_scale`, without the rest if `norm_type` is none."""
    image: np.ndarray = given.image.astype(np.float32)
    if is_scale:
        image /= 255.0
    if norm_type == "mean_std":
        image = (image - np.array(mean, np.float32)) / np.array(std, np.float32)
    return given._replace(image=image)


def _pad_stride(given: DetectorInput, stride: int = 0) -> DetectorInput:
    """Zeros below and to the right, to multiples of `stride`; after `Permute`."""
    if stride <= 0:
        return given
    height, width = given.image.shape[1:]
    return given._replace(image=np.pad(given.image, [(0, 0), (0, -height % stride), (0, -width % stride)]))


STEPS: dict[str, Callable[..., DetectorInput]] = {
    "Resize": _resize,
    "Pad": _pad,
    "NormalizeImage": _normalize_image,
    "Permute": lambda given: given._replace(image=given.image.transpose(2, 0, 1)),  # channels first
    "PadStride": _pad_stride,
}


class DetectorPreprocessing:
    """The steps of a `Preprocess` list, which are those of PaddleDetection's deployment.

    Args:
        steps: mappings with the step's `type` and its options.
        file: where they are listed, for the error.

    Raises:
        ValueError: a step or an option of it is not known here.
    """

    def __init__(self, steps: Sequence[dict], file: str):
        self._steps: list[Callable[[DetectorInput], DetectorInput]] = []
        for options in steps:
            options = dict(options)
            kind = options.pop("type", None)
            if kind not in STEPS:
                raise ValueError(f"{file}: preprocessing {kind} is not known here; known: {', '.join(STEPS)}")
            try:
                signature(STEPS[kind]).bind(None, **options)
            except TypeError as error:
                raise ValueError(f"{file}: preprocessing {kind}: {error}") from error
            self._steps.append(partial(STEPS[kind], **options))

    def __call__(self, image: np.ndarray, name: str) -> DetectorInput:
        """What the detector takes of an image `[H, W, 3]` uint8 RGB; BadSample if nothing is left of a side of it."""
        made = DetectorInput(image, np.array(image.shape[:2], np.float32), np.ones(2, np.float32))
        try:
            for step in self._steps:
                made = step(made)
        except cv2.error as error:
            raise BadSample(Reason.TOO_NARROW, name) from error
        return made._replace(image=np.ascontiguousarray(made.image, np.float32))


class Detections(NamedTuple):
    """What a detector found in an image, N objects in its own order.

    classes: `[N]` int64, numbers of classes.
    scores: `[N]` float32, 0 to 1.
    boxes: `[N, 4]` float32, left, top, right and bottom, in pixels of the original image.
    attributes: `[N, A]` float32, a score for each attribute; `[N, 0]` for a detector without.
    """

    classes: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    attributes: np.ndarray


class Detector:
    """A folder with `infer_cfg.yml`, and the program and its weights as `model` or `inference`.

    The program is `.json` or `.pdmodel`, the weights are `.pdiparams`. The inputs are any of `image` `[B, 3, H, W]`,
    `im_shape` `[B, 2]` and `scale_factor` `[B, 2]`. The first output has a row `class, score, left, top, right, bottom`
    for each object, image after image, after suppression of overlaps; a class below 0 means no object. The second
    output says how many rows each image has. PaddleDetection knows no attributes of objects; here a third output,
    `[rows, A]`, is a score from 0 to 1 for each of A attributes, in the same rows.

    Args:
        folder: the exported model.
        device: auto, cpu, gpu, gpu:0, ...
        attributes: A; 0: a third output is not looked at.

    Attributes:
        label_list: names of the classes, as `infer_cfg.yml` has them; possibly none.
        files: program, weights and configuration.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the detector has other inputs or outputs, or a preprocessing that is not known here.
    """

    def __init__(self, folder: str | Path, device: str = "auto", attributes: int = 0):
        self._folder = Path(folder)
        program = next((path for name in PROGRAMS if (path := self._folder / name).is_file()), None)
        if program is None:
            raise FileNotFoundError(f"{folder}: no {', '.join(PROGRAMS)}; export the detector for Paddle Inference")
        self.files = (program, program.with_suffix(".pdiparams"), self._folder / CONFIG)
        for path in self.files:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing; a detector is exported with it")
        config = read_yaml(self.files[2], is_strangers=True)
        if not isinstance(config, dict) or not isinstance(config.get("Preprocess"), list):
            raise ValueError(f"{self.files[2]}: no Preprocess list; is it PaddleDetection's?")
        self.label_list: list[str] = [str(name) for name in config.get("label_list") or ()]
        self.preprocess = DetectorPreprocessing(config["Preprocess"], str(self.files[2]))
        self._attributes = attributes
        self._predictor = _predictor(*self.files[:2], device)
        if unknown := set(self._predictor.get_input_names()) - set(INPUTS):
            raise ValueError(
                f"{folder}: the detector asks for {', '.join(sorted(unknown))}; known: {', '.join(INPUTS)}"
            )
        if len(self._predictor.get_output_names()) < 2 + bool(attributes):
            raise ValueError(
                f"{folder}: the detector has {len(self._predictor.get_output_names())} outputs; rows of boxes, their "
                "number" + (" and scores of attributes" if attributes else "") + " are needed (docs/tags.md)"
            )

    def __call__(self, images: Sequence[DetectorInput]) -> list[Detections]:
        """The objects of images that `preprocess` made.

        Images of one size go through the detector together, those of other sizes apart, so that what is found in one
        does not depend on the padding that another one would need.

        Raises:
            ValueError: the outputs have other shapes than the class says.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(images):
            groups.setdefault(image.image.shape, []).append(row)
        found: dict[int, Detections] = {}
        for rows in groups.values():
            found |= zip(rows, self._detect([images[row] for row in rows]), strict=True)
        return [found[row] for row in range(len(images))]

    def _detect(self, images: Sequence[DetectorInput]) -> list[Detections]:
        for name, values in zip(INPUTS, zip(*images, strict=True), strict=True):
            if name in self._predictor.get_input_names():
                self._predictor.get_input_handle(name).copy_from_cpu(np.stack(values))
        self._predictor.run()
        names = self._predictor.get_output_names()[: 2 + bool(self._attributes)]
        rows, counts, *others = (self._predictor.get_output_handle(name).copy_to_cpu() for name in names)
        attributes = others[0] if others else np.zeros((len(rows), 0), np.float32)
        counts = counts.reshape(-1)
        self._check(rows, counts, attributes, len(images))
        ends = np.cumsum(counts)[:-1]
        found = []
        for row, scores in zip(np.split(rows, ends), np.split(attributes, ends), strict=True):
            real = row[:, 0] >= 0
            row = row[real]
            found.append(Detections(row[:, 0].astype(np.int64), row[:, 1], row[:, 2:], scores[real]))
        return found

    def _check(self, rows: np.ndarray, counts: np.ndarray, attributes: np.ndarray, images: int) -> None:
        if rows.ndim != 2 or rows.shape[1] != 6:
            raise ValueError(
                f"{self._folder}: the first output has shape {list(rows.shape)}, not [N, 6]; export with suppression "
                "of overlaps, and without masks or rotated boxes"
            )
        if len(counts) != images or counts.sum() != len(rows):
            raise ValueError(f"{self._folder}: the second output counts {counts.tolist()}, for {images} images and "
                             f"{len(rows)} rows")  # fmt: skip
        if attributes.shape != (len(rows), self._attributes):
            raise ValueError(
                f"{self._folder}: the third output has shape {list(attributes.shape)}, not {len(rows)} rows of "
                f"{self._attributes} attributes; is the list of attributes the detector's?"
            )


def _predictor(program: Path, weights: Path, device: str) -> Any:
    import paddle
    from paddle import inference

    runtime.set_device(device)
    config = inference.Config(str(program), str(weights))
    config.disable_glog_info()
    kind, _, number = paddle.get_device().partition(":")
    if kind == "gpu":
        config.enable_use_gpu(256, int(number))
    else:
        config.disable_gpu()
        config.disable_onednn()  # its kernels lack what some exported programs ask for (Paddle 3.3)
        config.set_cpu_math_library_num_threads(runtime.num_usable_cores())
    try:
        return inference.create_predictor(config)
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        raise ValueError(f"{program.parent}: Paddle cannot load {program.name} and {weights.name} ({error})") from error


WITHOUT_SPACE = ("zh", "ja")  # languages that write attribute and object together


@dataclass(frozen=True)
class Phrases:
    """How objects are named.

    Args:
        classes: by language, a name for each class of the detector; an empty one for a class that gives no tag.
        attributes: by language, a name for each attribute; a language without any has objects alone.
        threshold: objects that score less are left out.
        attribute_threshold: an object has its best attribute if that scores at least as much.

    Raises:
        ValueError: lists of names differ in length, or attributes are in a language without classes.
    """

    classes: Mapping[str, Sequence[str]]
    attributes: Mapping[str, Sequence[str]]
    threshold: float = 0.5
    attribute_threshold: float = 0.5

    def __post_init__(self) -> None:
        for kind, names in (("classes", self.classes), ("attributes", self.attributes)):
            lengths = {language: len(of) for language, of in names.items()}
            if len(set(lengths.values())) > 1 or 0 in lengths.values():
                raise ValueError(f"names of {kind} by language: {lengths}; one line for each, in every language")
        if extra := set(self.attributes) - set(self.classes):
            raise ValueError(f"names of attributes in {', '.join(extra)}, but none of classes")

    def __call__(self, found: Detections) -> Tags:
        """The phrases of an image by language, the surest object first; equal ones once. ValueError if a class has no
        name."""
        classes = len(next(iter(self.classes.values())))
        if len(found.classes) and found.classes.max() >= classes:
            raise ValueError(f"the detector found class {found.classes.max()}, but {classes} classes have names; "
                             "is the list of classes the detector's?")  # fmt: skip
        order = np.argsort(-found.scores, kind="stable")
        objects = [row for row in order.tolist() if found.scores[row] >= self.threshold]
        return clean_tags(
            {language: [self._phrase(found, row, language) for row in objects] for language in self.classes}
        )

    def _phrase(self, found: Detections, row: int, language: str) -> str:
        name, attribute = self.classes[language][found.classes[row]], ""
        if names := self.attributes.get(language):
            best = int(found.attributes[row].argmax())
            if found.attributes[row, best] >= self.attribute_threshold:
                attribute = names[best]
        if not name or not attribute:
            return name
        return attribute + ("" if language in WITHOUT_SPACE else " ") + name


class DetectorTagger(Tagger):
    """Finds tags by a detector."""

    def __init__(self, detector: Detector, phrases: Phrases):
        self._detector, self._phrases = detector, phrases

    def describe(self) -> dict:
        """Checksums of the detector's files, names and thresholds."""
        files = {path.name: sha256(path) for path in self._detector.files}
        phrases = self._phrases
        names = [
            {language: list(of) for language, of in kind.items()} for kind in (phrases.classes, phrases.attributes)
        ]
        return {"detector": files, "names": names, "thresholds": [phrases.threshold, phrases.attribute_threshold]}

    def prepare(self, sample: Sample, name: str) -> DetectorInput:
        """What the detector takes; BadSample if the image cannot be decoded."""
        return self._detector.preprocess(decode_image(sample.image, sample.image_name), sample.image_name)

    def tag(self, prepared: Sequence[DetectorInput]) -> list[Tags]:
        return [self._phrases(found) for found in self._detector(prepared)]
