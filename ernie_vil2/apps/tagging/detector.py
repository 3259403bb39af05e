"""A detector in the export layout of PaddleDetection, its preprocessing, and phrases for the objects that it finds.

Objects are named as in "red car" (paper, section 3.1, where a BUTD detector finds them).
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
from ernie_vil2.apps.tagging.taggers import clean_tags
from ernie_vil2.config import read_yaml
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample, Reason, Sample
from ernie_vil2.data.tags import Tags
from ernie_vil2.device import runtime
from ernie_vil2.io.files import sha256
from ernie_vil2.section import resolve_switch_words

CONFIG = "infer_cfg.yml"
# Paddle 3 exports .json, Paddle 2 .pdmodel, and PaddleDetection names them `model` or `inference`. The first existing
# one is loaded.
PROGRAMS = ("model.json", "inference.json", "model.pdmodel", "inference.pdmodel")
TRIAL_SIDE = 16  # pixels of the image on which a preprocessing is tried; smaller than any size that steps pad to
# Largest side in pixels, or stride, in a preprocessing, which may be a stranger's: an image of this size takes 800 MB.
# Detectors have sides of up to some 2,000 pixels.
MAX_SIDE = 8192
GPU_POOL_MB = 256  # first size of Paddle's memory pool on the GPU, which grows as needed


class DetectorInput(NamedTuple):
    """Inputs of the detector for an image, by their names in the program.

    image: `[H, W, 3]` RGB, and `[3, H, W]` after the step `Permute`; uint8 until a step makes it float32.
    im_shape: `[height, width]` float32, size of the resized image without padding.
    scale_factor: `[vertical, horizontal]` float32, resized size over original size.
    """

    image: np.ndarray
    im_shape: np.ndarray
    scale_factor: np.ndarray


# The steps below have the names, options and defaults of PaddleDetection's `deploy/python/preprocess.py`.


def _resize(
    inputs: DetectorInput, target_size: int | Sequence[int], keep_ratio: bool = True, interp: int = cv2.INTER_LINEAR
) -> DetectorInput:
    """Resize to `target_size` [height, width], or as far as its numbers allow for both sides if `keep_ratio`."""
    height, width = inputs.image.shape[:2]
    target = (target_size,) * 2 if isinstance(target_size, int) else tuple(target_size)
    if keep_ratio:
        # The short side gets the smaller target, unless the long side would then exceed the larger one.
        vertical = min(target) / min(height, width)
        if round(vertical * max(height, width)) > max(target):
            vertical = max(target) / max(height, width)
        horizontal = vertical
    else:
        vertical, horizontal = target[0] / height, target[1] / width
    # By factors and not by a size, because OpenCV computes the positions of the pixels from whichever it gets, and
    # PaddleDetection gives it the factors.
    image = cv2.resize(inputs.image, None, fx=horizontal, fy=vertical, interpolation=interp)
    return DetectorInput(image, np.array(image.shape[:2], np.float32), np.array([vertical, horizontal], np.float32))


def _pad(inputs: DetectorInput, size: Sequence[int], fill_value: Sequence[float] = (114.0,) * 3) -> DetectorInput:
    """Pad below and to the right with a colour, to `size` [height, width]; ValueError if the image is larger."""
    height, width = inputs.image.shape[:2]
    if height > size[0] or width > size[1]:
        raise ValueError(f"Pad: the image has {height} x {width} pixels, more than the size {list(size)}")
    padded = np.full((*size, 3), fill_value, np.float32)
    padded[:height, :width] = inputs.image
    return inputs._replace(image=padded)


def _normalize_image(
    inputs: DetectorInput,
    mean: Sequence[float],
    std: Sequence[float],
    is_scale: bool = True,
    norm_type: str = "mean_std",
) -> DetectorInput:
    """Divide by 255 if `is_scale`, then subtract `mean` and divide by `std` if `norm_type` is mean_std."""
    image: np.ndarray = inputs.image.astype(np.float32)
    if is_scale:
        image /= 255.0
    if norm_type == "mean_std":
        image = (image - np.array(mean, np.float32)) / np.array(std, np.float32)
    return inputs._replace(image=image)


def _permute(inputs: DetectorInput) -> DetectorInput:
    """Put the channels first."""
    return inputs._replace(image=inputs.image.transpose(2, 0, 1))


def _pad_stride(inputs: DetectorInput, stride: int = 0) -> DetectorInput:
    """Pad with zeros below and to the right, to multiples of `stride`; the channels are first."""
    if stride <= 0:
        return inputs
    height, width = inputs.image.shape[1:]
    return inputs._replace(image=np.pad(inputs.image, [(0, 0), (0, -height % stride), (0, -width % stride)]))


STEPS: dict[str, Callable[..., DetectorInput]] = {
    "Resize": _resize,
    "Pad": _pad,
    "NormalizeImage": _normalize_image,
    "Permute": _permute,
    "PadStride": _pad_stride,
}


class DetectorPreprocessing:
    """Preprocessing of images by the steps of a `Preprocess` list, as in PaddleDetection's deployment.

    Args:
        steps: mappings with the `type` of a step and its options.
        file: name of the file with the list, for the error.

    Raises:
        ValueError: a step or an option of it is unknown here, or has a value with which no image can be preprocessed.
    """

    def __init__(self, steps: Sequence[Any], file: str):
        self._file = file
        self._steps: list[partial[DetectorInput]] = []
        for step in steps:
            if not isinstance(step, dict):
                raise ValueError(f"{file}: a step of Preprocess is {{type: ...}}, not {step!r:.200}")
            options = dict(step)
            kind = options.pop("type", None)
            if not isinstance(kind, str) or kind not in STEPS:
                raise ValueError(f"{file}: preprocessing {kind} is unknown here; known: {', '.join(STEPS)}")
            # Check the options now: otherwise a wrong one would fail at the first image.
            try:
                signature(STEPS[kind]).bind(None, **options)
            except TypeError as error:
                raise ValueError(f"{file}: preprocessing {kind}: {error}") from error
            self._steps.append(partial(STEPS[kind], **options))

        # A value of a wrong type or range would otherwise fail at the first image, or spoil every image.
        try:
            for step in self._steps:
                for name in ("target_size", "size", "stride"):
                    if np.max(step.keywords.get(name, 0)) > MAX_SIDE:
                        raise ValueError(f"{name} is more than {MAX_SIDE:,}")
            with np.errstate(all="ignore"):
                trial = self._preprocess(np.zeros((TRIAL_SIDE, TRIAL_SIDE, 3), np.uint8))
        except (TypeError, ValueError, IndexError, cv2.error) as error:
            raise ValueError(f"{file}: Preprocess has a value that cannot be used: {error}") from error
        if not np.isfinite(trial.image).all():
            raise ValueError(f"{file}: Preprocess makes numbers that are not finite; look at mean and std")

    def __call__(self, image: np.ndarray, name: str) -> DetectorInput:
        """Preprocess an image.

        Args:
            image: `[H, W, 3]` uint8 RGB.
            name: name of the image, for the error.

        Raises:
            BadSample: a side of the image would have no pixel left.
            ValueError: the image is larger than the size that a step pads to.
        """
        # OpenCV refuses to resize to a side of no pixels.
        try:
            return self._preprocess(image)
        except cv2.error as error:
            raise BadSample(Reason.TOO_NARROW, name) from error
        except ValueError as error:
            raise ValueError(f"{self._file}: {name}: {error}") from error

    def _preprocess(self, image: np.ndarray) -> DetectorInput:
        inputs = DetectorInput(image, np.array(image.shape[:2], np.float32), np.ones(2, np.float32))
        for step in self._steps:
            inputs = step(inputs)
        return inputs._replace(image=np.ascontiguousarray(inputs.image, np.float32))


class Detections(NamedTuple):
    """N objects that a detector found in an image, in the detector's order.

    classes: `[N]` int64, numbers of classes.
    scores: `[N]` float32, 0 to 1.
    boxes: `[N, 4]` float32, left, top, right and bottom, in pixels of the original image.
    attributes: `[N, A]` float32, a score for each attribute; `[N, 0]` for a detector without attributes.
    """

    classes: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    attributes: np.ndarray


class Detector:
    """A detector exported for Paddle Inference.

    Its folder holds `infer_cfg.yml`, and program and weights named `model` or `inference`. The program is `.json` or
    `.pdmodel`, the weights are `.pdiparams`.

    The inputs are any of `image` `[B, 3, H, W]`, `im_shape` `[B, 2]` and `scale_factor` `[B, 2]`. The first output has
    a row `class, score, left, top, right, bottom` for each object, image after image, after suppression of overlaps; a
    class below 0 means no object. The second output is the number of rows of each image. PaddleDetection has no
    attributes of objects; here a third output, `[rows, A]`, holds for each row the scores of A attributes, 0 to 1.

    Args:
        folder: the exported model.
        device: auto, cpu, gpu, gpu:0, ...
        attributes: A; 0: a third output is ignored.

    Attributes:
        label_list: names of the classes in `infer_cfg.yml`, possibly none.
        files: program, weights and configuration.
        preprocess: preprocessing of an image for the detector.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the detector has other inputs or outputs, or a preprocessing that is unknown here.
    """

    def __init__(self, folder: str | Path, device: str = "auto", attributes: int = 0):
        self._folder = Path(folder)
        candidates = map(self._folder.joinpath, PROGRAMS)
        program = next(filter(Path.is_file, candidates), None)
        if program is None:
            raise FileNotFoundError(f"{folder}: no {', '.join(PROGRAMS)}; export the detector for Paddle Inference")
        weights, config_path = program.with_suffix(".pdiparams"), self._folder / CONFIG
        self.files = (program, weights, config_path)
        for path in self.files:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing; the export of a detector includes it")

        config = read_yaml(config_path, keep_switch_words=True, is_untrusted=True)  # a class may be called "no"
        if not isinstance(config, dict) or not isinstance(config.get("Preprocess"), list):
            raise ValueError(f"{config_path}: no Preprocess list; is the file PaddleDetection's?")
        labels = config.get("label_list") or []
        if not isinstance(labels, list):
            raise ValueError(f"{config_path}: label_list is a list of names, not {labels!r:.200}")
        self.label_list: list[str] = [str(name) for name in labels]
        self.preprocess = DetectorPreprocessing(resolve_switch_words(config["Preprocess"]), str(config_path))

        self._num_attributes = attributes
        self._predictor = _create_predictor(program, weights, device)
        self._input_names = self._predictor.get_input_names()
        unknown_inputs = set(self._input_names) - set(DetectorInput._fields)
        if unknown_inputs:
            raise ValueError(
                f"{folder}: the detector needs {', '.join(sorted(unknown_inputs))}; known inputs: "
                f"{', '.join(DetectorInput._fields)}"
            )
        num_needed = 3 if attributes else 2
        output_names = self._predictor.get_output_names()
        if len(output_names) < num_needed:
            needed = "rows of boxes, their number" + (" and scores of attributes" if attributes else "")
            raise ValueError(
                f"{folder}: the detector has {len(output_names)} outputs; {needed} are needed (docs/tags.md)"
            )
        self._output_names = output_names[:num_needed]

    def __call__(self, images: Sequence[DetectorInput]) -> list[Detections]:
        """Return the objects in preprocessed images.

        Images of the same size are detected together. Others are not padded to a common size, because then the objects
        in an image would depend on the other images.

        Args:
            images: images from `preprocess`.

        Raises:
            ValueError: the outputs have other shapes than described in `Detector`.
        """
        rows_by_shape: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(images):
            rows_by_shape.setdefault(image.image.shape, []).append(row)
        detections: dict[int, Detections] = {}
        for rows in rows_by_shape.values():
            group = self._detect([images[row] for row in rows])
            detections.update(zip(rows, group, strict=True))
        return [detections[row] for row in range(len(images))]

    def _detect(self, images: Sequence[DetectorInput]) -> list[Detections]:
        """Return the objects in images of the same size."""
        for name in self._input_names:
            values = np.stack([getattr(image, name) for image in images])
            self._predictor.get_input_handle(name).copy_from_cpu(values)
        self._predictor.run()
        outputs = [self._predictor.get_output_handle(name).copy_to_cpu() for name in self._output_names]
        objects, counts = outputs[0], outputs[1].reshape(-1)
        attributes = outputs[2] if self._num_attributes else np.zeros((len(objects), 0), np.float32)
        self._check_outputs(objects, counts, attributes, len(images))

        # The rows of all images follow one another; a class below 0 stands for no object.
        ends = np.cumsum(counts)[:-1]
        detections = []
        for rows, scores in zip(np.split(objects, ends), np.split(attributes, ends), strict=True):
            is_object = rows[:, 0] >= 0
            rows = rows[is_object]
            detections.append(Detections(rows[:, 0].astype(np.int64), rows[:, 1], rows[:, 2:], scores[is_object]))
        return detections

    def _check_outputs(self, objects: np.ndarray, counts: np.ndarray, attributes: np.ndarray, num_images: int) -> None:
        if objects.ndim != 2 or objects.shape[1] != 6:
            raise ValueError(
                f"{self._folder}: the first output has shape {list(objects.shape)}, not [N, 6]; export with "
                "suppression of overlaps, and without masks or rotated boxes"
            )
        if len(counts) != num_images or counts.sum() != len(objects):
            raise ValueError(
                f"{self._folder}: the second output counts {counts.tolist()}, for {num_images} images and "
                f"{len(objects)} rows"
            )
        if attributes.shape != (len(objects), self._num_attributes):
            raise ValueError(
                f"{self._folder}: the third output has shape {list(attributes.shape)}, not {len(objects)} rows of "
                f"{self._num_attributes} attributes; is the list of attributes that of the detector?"
            )


def _create_predictor(program: Path, weights: Path, device: str) -> Any:
    import paddle
    from paddle import inference

    runtime.set_device(device)
    config = inference.Config(str(program), str(weights))
    config.disable_glog_info()
    kind, _, number = paddle.get_device().partition(":")
    if kind == "gpu":
        config.enable_use_gpu(GPU_POOL_MB, int(number))
    else:
        config.disable_gpu()
        # Kernels of oneDNN lack what some exported programs need: "ConvertPirAttribute2RuntimeAttribute not support"
        # (Paddle 3.3.1, docs/tags.md).
        config.disable_onednn()
        config.set_cpu_math_library_num_threads(runtime.num_usable_cores())
    try:
        return inference.create_predictor(config)
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        raise ValueError(f"{program.parent}: Paddle cannot load {program.name} and {weights.name} ({error})") from error


LANGUAGES_WITHOUT_SPACES = ("zh", "ja")


@dataclass(frozen=True)
class Phrases:
    """Names of objects, with their attributes.

    Args:
        classes: by language, a name for each class of the detector; an empty name gives no tag.
        attributes: by language, a name for each attribute; in other languages objects have no attributes.
        threshold: least score of an object.
        attribute_threshold: least score of an attribute; an object has at most its best one.

    Raises:
        ValueError: lists of names differ in length, or attributes are in a language without classes.
    """

    classes: Mapping[str, Sequence[str]]
    attributes: Mapping[str, Sequence[str]]
    threshold: float = 0.5
    attribute_threshold: float = 0.5

    def __post_init__(self) -> None:
        for kind, names_by_language in (("classes", self.classes), ("attributes", self.attributes)):
            lengths = {language: len(names) for language, names in names_by_language.items()}
            if len(set(lengths.values())) > 1 or 0 in lengths.values():
                raise ValueError(
                    f"numbers of {kind} by language: {lengths}; every language needs a line for each of them"
                )
        languages_without_classes = set(self.attributes) - set(self.classes)
        if languages_without_classes:
            raise ValueError(f"names of attributes in {', '.join(languages_without_classes)}, but none of classes")

    def __call__(self, detections: Detections) -> Tags:
        """Return different phrases for the objects of an image, by language, the object with the best score first.

        Raises:
            ValueError: a class has no name.
        """
        num_classes = len(next(iter(self.classes.values())))
        if len(detections.classes) and detections.classes.max() >= num_classes:
            raise ValueError(
                f"the detector found class {detections.classes.max()}, but {num_classes} classes have names; is the "
                "list of classes that of the detector?"
            )
        # A stable order keeps objects of equal score in the detector's order.
        best_first = np.argsort(-detections.scores, kind="stable").tolist()
        objects = [row for row in best_first if detections.scores[row] >= self.threshold]
        phrases = {}
        for language in self.classes:
            phrases[language] = [self._name_object(detections, row, language) for row in objects]
        return clean_tags(phrases)

    def _name_object(self, detections: Detections, row: int, language: str) -> str:
        class_name = self.classes[language][detections.classes[row]]
        attribute = ""
        attribute_names = self.attributes.get(language)
        if attribute_names:
            best = int(detections.attributes[row].argmax())
            if detections.attributes[row, best] >= self.attribute_threshold:
                attribute = attribute_names[best]
        # An empty name gives no tag, and an empty attribute leaves the object alone.
        if not class_name or not attribute:
            return class_name
        space = "" if language in LANGUAGES_WITHOUT_SPACES else " "
        return f"{attribute}{space}{class_name}"


class DetectorTagger(Tagger):
    """Tags images with phrases for the objects that a detector finds."""

    def __init__(self, detector: Detector, phrases: Phrases):
        self._detector, self._phrases = detector, phrases

    def describe(self) -> dict:
        """Return checksums of the detector's files, the names and the thresholds."""
        phrases = self._phrases
        return {
            "detector": {path.name: sha256(path) for path in self._detector.files},
            "classes": {language: list(names) for language, names in phrases.classes.items()},
            "attributes": {language: list(names) for language, names in phrases.attributes.items()},
            "threshold": phrases.threshold,
            "attribute_threshold": phrases.attribute_threshold,
        }

    def prepare(self, sample: Sample, name: str) -> DetectorInput:
        """Return the preprocessed image; BadSample if it cannot be decoded."""
        return self._detector.preprocess(decode_image(sample.image, sample.image_name), sample.image_name)

    def tag(self, prepared: Sequence[DetectorInput]) -> list[Tags]:
        return [self._phrases(detections) for detections in self._detector(prepared)]
