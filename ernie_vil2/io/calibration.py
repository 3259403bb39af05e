"""What a checkpoint's scores mean: a temperature for its probabilities, and the cosine below which nothing matches.

Both are found on a validation set by `tools/calibrate.py` and kept next to the checkpoint as `calibration.json`, with
the fingerprint of the model, so that they are never taken for another's. `load_model` reads them.
"""

import time
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from ernie_vil2.io.files import OtherVersion, check_version, is_number, load_json, write_json

FILE = "calibration.json"
VERSION = 1  # of the file
DIRECTIONS = ("image_to_text", "text_to_image")


@dataclass(frozen=True)
class Threshold:
    """The least cosine of an answer in one direction, and shares in percent."""

    cosine: float  # answers below it are none
    precision: float  # of the answers given, those that are right
    recall: float  # of the queries that have a right answer, those that get it
    refused: float  # of the queries without a right answer, those that get none


@dataclass(frozen=True)
class Calibration:
    """Found on one validation set."""

    fingerprint: str  # of the model, see `ErnieViL2.fingerprint`
    data: str  # the validation set, for people
    logit_scale: float  # factor of the cosines with which the softmax over an image's texts is most likely right
    thresholds: dict[str, Threshold]  # by direction

    def described(self, direction: str) -> str:
        """The threshold of a direction and what to expect of it, for people."""
        one = self.thresholds[direction]
        return (
            f"nothing below a cosine of {one.cosine:.3f} is an answer: precision {one.precision:.1f} %, recall "
            f"{one.recall:.1f} % on {self.data}"
        )


def write_calibration(calibration: Calibration, folder: Path) -> Path:
    """Writes it next to the weights in `folder`; returns the file."""
    path = folder / FILE
    record = {"version": VERSION, **asdict(calibration), "date": time.strftime("%Y-%m-%d")}
    write_json(path, record)
    return path


def read_calibration(folder: Path, fingerprint: str) -> Calibration | None:
    """The calibration next to the weights in `folder`; None if it is of another model than that of the fingerprint.

    Raises:
        OSError: there is none, or the file cannot be read.
        ValueError: it is of another version, it is damaged, or a value in it cannot be.
    """
    path = folder / FILE
    try:
        record = load_json(path)
        if not isinstance(record, dict):
            raise ValueError("not a JSON object")
        check_version(record.get("version"), VERSION, path, "calibrate again")
        thresholds = {way: Threshold(**record["thresholds"][way]) for way in DIRECTIONS}
        found = Calibration(record["fingerprint"], record["data"], record["logit_scale"], thresholds)
        if not (isinstance(found.fingerprint, str) and isinstance(found.data, str) and _possible(found)):
            raise ValueError
    except OtherVersion:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: remove it and calibrate again") from error
    return found if found.fingerprint == fingerprint else None


def _possible(found: Calibration) -> bool:
    return is_number(found.logit_scale, 1e-9, 1e9) and all(
        is_number(one.cosine, -1.1, 1.1) and all(is_number(share, 0, 100) for share in astuple(one)[1:])
        for one in found.thresholds.values()
    )
