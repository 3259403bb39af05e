"""Meaning of a checkpoint's scores: a temperature for probabilities, and the cosine below which nothing matches.

`tools/calibrate.py` finds both on a validation set and writes them to `calibration.json` next to the checkpoint, with
the fingerprint of the model, so that they are never applied to another model. `load_model` reads them.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ernie_vil2.io.files import OtherVersion, check_version, is_number, load_json, write_json

CALIBRATION = "calibration.json"
VERSION = 1  # of the file
DIRECTIONS = ("image_to_text", "text_to_image")
# A cosine is within -1 and 1; a threshold may be slightly beyond, because float32 rounds, or to reject everything.
_MAX_COSINE = 1.1
# Bounds of a factor that keeps logits finite and distinct.
_MIN_LOGIT_SCALE, _MAX_LOGIT_SCALE = 1e-9, 1e9


@dataclass(frozen=True)
class Threshold:
    """The smallest cosine of an answer in one direction, and its quality on the validation set in percent."""

    cosine: float  # results with a smaller cosine are no answers
    precision: float  # share of the answers that are right
    recall: float  # of the queries with a right answer, the share that gets it
    rejection: float  # of the queries without a right answer, the share that gets no answer

    def has_valid_values(self) -> bool:
        """Return whether the values are numbers within their bounds, as those of a file may not be."""
        shares = (self.precision, self.recall, self.rejection)
        are_percentages = all(is_number(share, 0, 100) for share in shares)
        return are_percentages and is_number(self.cosine, -_MAX_COSINE, _MAX_COSINE)


@dataclass(frozen=True)
class Calibration:
    """Temperature and thresholds that were found on one validation set."""

    fingerprint: str  # of the model, see `ErnieViL2.fingerprint`
    data: str  # the validation set, in words
    logit_scale: float  # factor of the cosines with which the softmax over an image's texts is most likely right
    thresholds: dict[str, Threshold]  # by direction

    def describe(self, direction: str) -> str:
        """Return the threshold of a direction and what to expect of it, as a sentence."""
        threshold = self.thresholds[direction]
        return (
            f"nothing below a cosine of {threshold.cosine:.3f} is an answer: precision {threshold.precision:.1f} %, "
            f"recall {threshold.recall:.1f} % on {self.data}"
        )

    def has_valid_values(self) -> bool:
        """Return whether the values have the right types and are within their bounds, as those of a file may not be."""
        has_texts = isinstance(self.fingerprint, str) and isinstance(self.data, str)
        has_scale = is_number(self.logit_scale, _MIN_LOGIT_SCALE, _MAX_LOGIT_SCALE)
        return has_texts and has_scale and all(threshold.has_valid_values() for threshold in self.thresholds.values())


def write_calibration(calibration: Calibration, folder: Path) -> Path:
    """Write a calibration next to the weights in `folder` and return its file."""
    path = folder / CALIBRATION
    record = {"version": VERSION, **asdict(calibration), "date": time.strftime("%Y-%m-%d")}
    write_json(path, record)
    return path


def read_calibration(folder: Path, fingerprint: str) -> Calibration | None:
    """Read the calibration next to the weights in `folder`.

    Args:
        folder: folder of the weights.
        fingerprint: fingerprint of the model.

    Returns:
        The calibration; None if it belongs to another model.

    Raises:
        OSError: there is no calibration, or the file cannot be read.
        ValueError: the file has another version, is damaged, or holds an impossible value.
    """
    path = folder / CALIBRATION
    try:
        record = load_json(path)
        if not isinstance(record, dict):
            raise ValueError("not a JSON object")
        check_version(record.get("version"), VERSION, path, "calibrate again")
        thresholds = {direction: Threshold(**record["thresholds"][direction]) for direction in DIRECTIONS}
        calibration = Calibration(record["fingerprint"], record["data"], record["logit_scale"], thresholds)
        if not calibration.has_valid_values():
            raise ValueError("a value is out of bounds")
    except OtherVersion:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: remove it and calibrate again") from error
    return calibration if calibration.fingerprint == fingerprint else None
