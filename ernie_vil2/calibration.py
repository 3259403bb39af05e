"""What a checkpoint's scores mean: a temperature for its probabilities, and the cosine below which nothing matches.

Both are found on a validation set by `tools/calibrate.py` and kept beside the checkpoint as `calibration.json`, with
the fingerprint of the model, so that they are never taken for another's. `load_model` reads them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ernie_vil2.files import load_json, write_text

FILE = "calibration.json"
DIRECTIONS = ("image_to_text", "text_to_image")


@dataclass(frozen=True)
class Threshold:
    """The least cosine of an answer in one direction.

    Attributes:
        cosine: answers below it are none.
        precision: share, in percent, of the answers given that are right.
        recall: share, in percent, of the queries that have a right answer and get it.
        refused: share, in percent, of the queries without a right answer that get none.
    """

    cosine: float
    precision: float
    recall: float
    refused: float


@dataclass(frozen=True)
class Calibration:
    """Found on one validation set.

    Attributes:
        fingerprint: of the model, see `ErnieViL2.fingerprint`.
        data: the validation set, for people.
        logit_scale: factor of the cosines with which the softmax over an image's texts is most likely right.
        thresholds: by direction.
    """

    fingerprint: str
    data: str
    logit_scale: float
    thresholds: dict[str, Threshold]

    def described(self, direction: str) -> str:
        """The threshold of a direction and what to expect of it, for people."""
        one = self.thresholds[direction]
        return (
            f"nothing below a cosine of {one.cosine:.3f} is an answer: precision {one.precision:.1f} %, recall "
            f"{one.recall:.1f} % on {self.data}"
        )


def write_calibration(calibration: Calibration, folder: Path) -> Path:
    """Writes it beside the weights in `folder`; returns the file."""
    path = folder / FILE
    record = asdict(calibration) | {"date": time.strftime("%Y-%m-%d")}
    write_text(path, json.dumps(record, ensure_ascii=False, indent=1))
    return path


def read_calibration(folder: Path, fingerprint: Callable[[], str]) -> Calibration | None:
    """The calibration beside the weights in `folder`; None if there is none of this model.

    Args:
        fingerprint: of the model; asked for only where there is a calibration, as it reads all weights.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        record = load_json(path)
        thresholds = {way: Threshold(**values) for way, values in record["thresholds"].items()}
        found = Calibration(record["fingerprint"], record["data"], float(record["logit_scale"]), thresholds)
        bounds = [thresholds[way].cosine for way in DIRECTIONS]
        if not (0 < found.logit_scale < float("inf") and all(-1.1 <= bound <= 1.1 for bound in bounds)):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: remove it and calibrate again") from error
    return found if found.fingerprint == fingerprint() else None
