"""Integrity of a model's folder: its conventions and its golden embeddings, which `integrity.json` keeps.

`io.files.Integrity` says what the file holds. Loading compares the files and the conventions: what `Model`,
`Data.max_length` and `Loss.widths` say, without what is as by default. The golden embeddings, for which the model has
to compute, are compared where that is asked for.
"""

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ernie_vil2.config import Config, differences
from ernie_vil2.io.files import INTEGRITY, DamagedFile, Integrity, OtherVersion, read_integrity, write_integrity
from ernie_vil2.io.run_folder import CONFIG, MODEL_FILES, OPTIMIZER, STATE, with_its_vocabulary
from ernie_vil2.io.terminal import printable
from ernie_vil2.models.dual_encoder import with_sizes

MOST, MOST_PIXELS = 64, 2**20  # golden inputs that are computed, and pixels of an image
CLOSE = {"cpu": 2e-5}
"""How far golden embeddings in float32 may be off, by device; the smallest change that matters moves one by 2e-5."""
ELSEWHERE = 1e-3
_TEXTS = ["一只猫在看书。", "A photo of two dogs & a red car, 1999!", "ＦＵＬＬ　width, naïve “quotes”"]
OF_TRAINING: dict[str, Any] = {
    **dict.fromkeys(("like", "weights", "dialect", "allow"), True),
    "image": {"weights", "drop_path"},
    "text": {"weights", "vocabulary", "dropout", "attention_dropout"},
}
"""Of `Model`, where a model is from, and what it does in training alone."""


class Broken(ValueError):  # noqa: N818  -- named by what has happened
    """A folder is not what its integrity file says; the message says in what it differs."""


class NoGolden(Broken):
    """A folder has no golden embeddings."""


def conventions(config: Config) -> dict[str, Any]:
    """Return the settings that decide a model's embeddings besides its weights."""
    model = with_sizes(config.Model)
    widths = {"widths": config.Loss.widths} if config.Loss.widths else {}
    return {
        **model.model_dump(exclude=OF_TRAINING, exclude_defaults=True),
        "max_length": config.Data.max_length,
        **widths,
    }


def compute_golden(encoder: Any) -> dict[str, Any]:
    """Compute the embeddings of a few inputs by an `ErnieViL2`; raise ValueError if they are not finite."""
    image = _image()
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    outputs = {"text_embeddings": encoder.encode_texts(_TEXTS), "image_embeddings": encoder.encode_images([image])}
    for kind, embeddings in outputs.items():
        if not np.isfinite(embeddings).all():
            raise ValueError(f"the model's {kind.replace('_', ' ')} are NaN or infinite")
    return {
        "texts": _TEXTS,
        "images": [base64.b64encode(content.getvalue()).decode()],
        "ids": encoder.tokenizer(_TEXTS).tolist(),
        **{kind: _rounded(embeddings) for kind, embeddings in outputs.items()},
        "device": encoder.device,
    }


def write_model_integrity(
    folder: Path, config: Config, names: Iterable[str], golden: Mapping[str, Any] | None = None
) -> None:
    """Write the integrity file of a model's folder.

    Args:
        config: of the model, as loading the folder gives it.
        names: the files to compare when it is loaded.
        golden: what `compute_golden` gave for the model.
    """
    write_integrity(folder, names, conventions(config), golden)


def add_golden(folder: Path, encoder: Any) -> None:
    """Add golden embeddings to the integrity file of a folder, computed by the model that loading it gave."""
    integrity = _read(folder)
    write_integrity(folder, integrity.files, integrity.conventions, compute_golden(encoder))


def has_integrity(folder: Path) -> bool:
    """Return whether a folder has an integrity file; those of other people have none."""
    return (folder / INTEGRITY).exists()


def check_model_files(path: Path) -> None:
    """Compare the files of a model with their integrity file, if there is one.

    Args:
        path: the model's folder, or the file of its weights.

    Raises:
        Broken: a file is missing or another one than was written, or the integrity file is damaged.
    """
    folder = path if path.is_dir() else path.parent
    if not has_integrity(folder):
        return
    integrity = _read(folder)
    # The state of the optimiser, twice as large as the weights, is compared where a run continues from it.
    names = integrity.files.keys() - {OPTIMIZER, STATE}
    if path != folder:
        names |= {path.name}
    if (folder / CONFIG).is_file():
        names |= set(with_its_vocabulary(folder, MODEL_FILES))
    try:
        integrity.check_files(folder, sorted(names))
    except DamagedFile as error:
        raise Broken(
            f"{folder}: {error}: it is damaged; put back a copy, name another checkpoint, or delete {INTEGRITY} if the "
            "change is meant"
        ) from None


def check_conventions(weights: Path, config: Config) -> None:
    """Compare the configuration of a model with the integrity file next to its weights, if there is one.

    Raises:
        Broken: it differs, or the weights are not those that were written.
    """
    folder = weights.parent
    if not has_integrity(folder):
        return
    integrity = _read(folder)
    if weights.name not in integrity.files:
        raise Broken(f"{folder}: {INTEGRITY} does not list {weights.name}: delete the one that does not belong here")
    for key, (before, now) in differences(integrity.conventions or {}, conventions(config), prefix="Model."):
        before, now = printable(repr(before), longest=60), printable(repr(now), longest=60)
        raise Broken(
            f"{folder / INTEGRITY}: the model was written with {key} {before}, the other files say {now}: put back "
            f"what was changed, or delete {INTEGRITY} if that is meant"
        )


def has_golden(folder: Path) -> bool:
    """Return whether a folder has golden embeddings."""
    return has_integrity(folder) and _read(folder).golden is not None


def check_golden(folder: Path, encoder: Any) -> float:
    """Compute the golden inputs of a folder, and compare their embeddings.

    Returns:
        The largest difference of a coordinate.

    Raises:
        Broken: token ids or embeddings differ.
        NoGolden: the folder has none.
    """
    golden = _read(folder).golden if has_integrity(folder) else None
    if golden is None:
        raise NoGolden(f"{folder}: no golden embeddings in an {INTEGRITY} here; ernie-vil2 convert writes them")
    try:
        images = [_decoded(image) for image in golden["images"][:MOST]]
        texts = [str(text) for text in golden["texts"][:MOST]]
        expected = [np.array(golden[f"{kind}_embeddings"], np.float64) for kind in ("text", "image")]
        ids = [list(row) for row in golden["ids"]]
        if not texts or not images or [len(texts), len(texts), len(images)] != [len(ids), *map(len, expected)]:
            raise ValueError
    except (ValueError, KeyError, TypeError, OSError, Image.DecompressionBombError) as error:
        raise Broken(f"{folder / INTEGRITY}: its golden inputs are damaged ({type(error).__name__})") from None
    for text, old, new in zip(texts, ids, encoder.tokenizer(texts).tolist(), strict=True):
        if old != new:
            raise Broken(
                f"{folder}: the text {printable(text, longest=60)!r} has other token ids than {INTEGRITY} says"
            )
    outputs = encoder.encode_texts(texts), encoder.encode_images(images)
    devices = encoder.device, str(golden.get("device", "cpu"))
    most = 10 * ELSEWHERE
    if encoder.precision == "float32":
        most = max(CLOSE.get(device, ELSEWHERE) for device in devices)
    worst = 0.0
    for kind, stored, computed in zip(("text", "image"), expected, outputs, strict=True):
        if stored.shape != computed.shape:
            shapes = list(computed.shape), list(stored.shape)
            raise Broken(f"{folder}: {kind} embeddings are {shapes[0]}, {INTEGRITY} says {shapes[1]}")
        difference = float(np.abs(stored - computed).max())
        if not difference <= most:
            raise Broken(
                f"{folder}: golden {kind} embeddings are up to {difference:.1e} from those in {INTEGRITY}; at "
                f"most {most:.0e} is rounding"
            )
        worst = max(worst, difference)
    return worst


def _read(folder: Path) -> Integrity:
    try:
        return read_integrity(folder)
    except OtherVersion as error:
        raise Broken(str(error)) from None
    except DamagedFile as error:
        raise Broken(f"{folder}: {error}: it is damaged; put back a copy, or delete {INTEGRITY}") from None


def _image() -> np.ndarray:
    """`[61, 83, 3]` uint8: neither square nor of a size that a tower takes, with edges and slopes of every channel."""
    y, x = np.mgrid[:61, :83]
    channels = 3 * x + y, 255 * ((x // 9 + y // 7) % 2), (x - 40) ** 2 // 8 + 2 * y
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


def _decoded(content: str) -> np.ndarray:
    """Return the pixels of a golden image; raise ValueError before one that is far too large takes memory."""
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    if image.width * image.height > MOST_PIXELS:
        raise ValueError
    return np.asarray(image.convert("RGB"))


def _rounded(embeddings: np.ndarray) -> list[list[float]]:
    return [[round(float(number), 8) for number in row] for row in embeddings]
