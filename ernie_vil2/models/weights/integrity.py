"""Integrity of a model's folder: is it still what was written, and does it compute the same embeddings?

`integrity.json` (`io.files.Integrity`) holds three things. Loading a model compares the checksums of its files and its
conventions: the settings that differ from their defaults in `Model`, `Data.max_length` and `Loss.widths`. Golden
embeddings, of a few texts and images, are compared only on request, because the model has to compute them.
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
from ernie_vil2.io.run_folder import CONFIG, MODEL_FILES, OPTIMIZER, STATE, resolve_vocabulary
from ernie_vil2.io.terminal import make_printable
from ernie_vil2.models.dual_encoder import with_sizes
from ernie_vil2.models.weights.files import get_folder

# Bounds of what an integrity file from elsewhere can make this process compute.
MAX_GOLDEN_INPUTS = 64
MAX_GOLDEN_PIXELS = 2**20  # of an image

# Largest difference of a coordinate that passes as rounding in float32, if both sides computed on this device. The
# smallest change of a model that matters moves a coordinate by 2e-5.
TOLERANCES = {"cpu": 2e-5}
OTHER_TOLERANCE = 1e-3  # on other devices, whose matrix products may use fewer bits; ten times this in half precision

# What damaged golden inputs raise. SyntaxError is Pillow's for a broken PNG, OverflowError NumPy's for a number beyond
# float64.
_GOLDEN_ERRORS = (
    ValueError,
    KeyError,
    TypeError,
    OSError,
    OverflowError,
    SyntaxError,
    Image.DecompressionBombError,
)

# Whitespace, case, full-width letters, accents and curly quotes: what tokenizers treat in different ways.
_TEXTS = ["一只猫在看书。", "A photo of two dogs & a red car, 1999!", "ＦＵＬＬ　width, naïve “quotes”"]

TRAINING_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("like", "weights", "dialect", "allow"), True),
    "image": {"weights", "drop_path", "keep_tokens"},
    "text": {"weights", "vocabulary", "dropout", "attention_dropout"},
}
"""Fields of `Model` that do not change embeddings: where a model comes from, and what it does in training alone."""


class IntegrityError(ValueError):
    """A folder is not what its integrity file says; the message says where they differ."""


class MissingGoldenError(IntegrityError):
    """A folder has no golden embeddings."""


def collect_conventions(config: Config) -> dict[str, Any]:
    """Return the settings that decide a model's embeddings besides its weights."""
    model = with_sizes(config.Model)
    conventions = model.model_dump(exclude=TRAINING_FIELDS, exclude_defaults=True)
    conventions["max_length"] = config.Data.max_length
    if config.Loss.widths:
        conventions["widths"] = config.Loss.widths
    return conventions


def compute_golden(encoder: Any) -> dict[str, Any]:
    """Return a few inputs and their embeddings by an `ErnieViL2`, for JSON; raise ValueError if they are not finite."""
    image = _draw_image()
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    golden = {
        "texts": _TEXTS,
        "images": [base64.b64encode(png.getvalue()).decode()],
        "ids": encoder.tokenizer(_TEXTS).tolist(),
    }
    outputs = {"text_embeddings": encoder.encode_texts(_TEXTS), "image_embeddings": encoder.encode_images([image])}
    for key, embeddings in outputs.items():
        if not np.isfinite(embeddings).all():
            raise ValueError(f"the model's {key.replace('_', ' ')} are NaN or infinite")
        golden[key] = [[round(number, 8) for number in row] for row in embeddings.tolist()]
    golden["device"] = encoder.device
    return golden


def write_model_integrity(
    folder: Path, config: Config, names: Iterable[str], golden: Mapping[str, Any] | None = None
) -> None:
    """Write the integrity file of a model's folder.

    Args:
        folder: the folder, with all its files.
        config: configuration of the model, as loading the folder gives it.
        names: files to compare when the model is loaded.
        golden: result of `compute_golden` for the model.
    """
    write_integrity(folder, names, collect_conventions(config), golden)


def add_golden(folder: Path, encoder: Any) -> None:
    """Compute golden embeddings with the model that was loaded from a folder, and add them to its integrity file."""
    integrity = _read_integrity(folder)
    write_integrity(folder, integrity.files, integrity.conventions, compute_golden(encoder))


def has_integrity(folder: Path) -> bool:
    """Return whether a folder has an integrity file; folders of other projects have none."""
    return (folder / INTEGRITY).exists()


def check_model_files(path: Path) -> None:
    """Compare the files of a model with the checksums in its folder, if it has an integrity file.

    Args:
        path: the model's folder, or the file of its weights.

    Raises:
        IntegrityError: a file is missing or has changed, or the integrity file is damaged.
    """
    folder = get_folder(path)
    if not has_integrity(folder):
        return
    integrity = _read_integrity(folder)
    # The state of the optimiser is twice as large as the weights; it is compared when a run resumes from it.
    names = integrity.files.keys() - {OPTIMIZER, STATE}
    # A file that is not listed but would be loaded is an error, too.
    if path != folder:
        names |= {path.name}
    if (folder / CONFIG).is_file():
        names |= set(resolve_vocabulary(folder, MODEL_FILES))
    try:
        integrity.check_files(folder, sorted(names))
    except DamagedFile as error:
        raise IntegrityError(
            f"{folder}: {error}: it is damaged; put back a copy, name another checkpoint, or delete {INTEGRITY} if you "
            "meant to change it"
        ) from None


def check_conventions(weights: Path, config: Config) -> None:
    """Compare the configuration of a model with the integrity file next to its weights, if there is one.

    Raises:
        IntegrityError: the configuration differs, or the integrity file does not list the weights.
    """
    folder = weights.parent
    if not has_integrity(folder):
        return
    integrity = _read_integrity(folder)
    if weights.name not in integrity.files:
        raise IntegrityError(
            f"{folder}: {INTEGRITY} does not list {weights.name}: delete the one that does not belong here"
        )
    # The first difference is enough for a message.
    expected = integrity.conventions or {}
    for key, (stored, actual) in differences(expected, collect_conventions(config), prefix="Model."):
        stored, actual = make_printable(repr(stored), max_length=60), make_printable(repr(actual), max_length=60)
        raise IntegrityError(
            f"{folder / INTEGRITY}: the model was written with {key} {stored}, the other files say {actual}: undo the "
            f"change, or delete {INTEGRITY} if you meant it"
        )


def has_golden(folder: Path) -> bool:
    """Return whether a folder has golden embeddings."""
    return has_integrity(folder) and _read_integrity(folder).golden is not None


def check_golden(folder: Path, encoder: Any) -> float:
    """Compute the embeddings of a folder's golden inputs, and compare them with its golden embeddings.

    Returns:
        The largest difference of a coordinate.

    Raises:
        IntegrityError: token ids or embeddings differ, or the golden inputs are damaged.
        MissingGoldenError: the folder has none.
    """
    golden = _read_integrity(folder).golden if has_integrity(folder) else None
    if golden is None:
        raise MissingGoldenError(
            f"{folder} has no golden embeddings: a run computes them only where it evaluates and where it ends "
            f"(RUN@best, the last step); ernie-vil2 convert writes an {INTEGRITY} with them"
        )

    try:
        images = [_decode_image(image) for image in golden["images"][:MAX_GOLDEN_INPUTS]]
        texts = [str(text) for text in golden["texts"][:MAX_GOLDEN_INPUTS]]
        expected_texts = np.array(golden["text_embeddings"], np.float64)
        expected_images = np.array(golden["image_embeddings"], np.float64)
        expected_ids = [list(row) for row in golden["ids"]]
        if not texts or not len(texts) == len(expected_ids) == len(expected_texts):
            raise ValueError
        if not images or len(images) != len(expected_images):
            raise ValueError
    except _GOLDEN_ERRORS as error:
        raise IntegrityError(f"{folder / INTEGRITY}: its golden inputs are damaged ({type(error).__name__})") from None

    # Other ids explain other embeddings, so they are compared first.
    for text, stored_ids, ids in zip(texts, expected_ids, encoder.tokenizer(texts).tolist(), strict=True):
        if stored_ids != ids:
            raise IntegrityError(
                f"{folder}: the text {make_printable(text, max_length=60)!r} has other token ids than {INTEGRITY} says"
            )

    tolerance = 10 * OTHER_TOLERANCE
    if encoder.precision == "float32":
        devices = encoder.device, str(golden.get("device", "cpu"))
        tolerance = max(TOLERANCES.get(device, OTHER_TOLERANCE) for device in devices)
    largest = 0.0
    for kind, expected, actual in (
        ("text", expected_texts, encoder.encode_texts(texts)),
        ("image", expected_images, encoder.encode_images(images)),
    ):
        if expected.shape != actual.shape:
            raise IntegrityError(
                f"{folder}: {kind} embeddings are {list(actual.shape)}, {INTEGRITY} says {list(expected.shape)}"
            )
        difference = float(np.abs(expected - actual).max())
        if not difference <= tolerance:  # written so that NaN fails, too
            raise IntegrityError(
                f"{folder}: golden {kind} embeddings are up to {difference:.1e} from those in {INTEGRITY}; at "
                f"most {tolerance:.0e} is rounding"
            )
        largest = max(largest, difference)
    return largest


def _read_integrity(folder: Path) -> Integrity:
    try:
        return read_integrity(folder)
    except OtherVersion as error:
        raise IntegrityError(str(error)) from None
    except DamagedFile as error:
        raise IntegrityError(f"{folder}: {error}: it is damaged; put back a copy, or delete {INTEGRITY}") from None


def _draw_image() -> np.ndarray:
    """Return a test image, `[61, 83, 3]` uint8, with edges and slopes in every channel.

    It is not square and has no size that a tower takes, so that resizing and cropping are tested, too.
    """
    y, x = np.mgrid[:61, :83]
    red, green, blue = 3 * x + y, 255 * ((x // 9 + y // 7) % 2), (x - 40) ** 2 // 8 + 2 * y
    return (np.stack([red, green, blue], axis=-1) % 256).astype(np.uint8)


def _decode_image(content: str) -> np.ndarray:
    """Return the pixels of a golden image, `[height, width, 3]`; raise ValueError if there are too many to decode."""
    # compute_golden writes PNG. For other formats Pillow may start a program, such as Ghostscript for EPS.
    image = Image.open(io.BytesIO(base64.b64decode(content)), formats=["PNG"])
    if image.width * image.height > MAX_GOLDEN_PIXELS:
        raise ValueError
    return np.asarray(image.convert("RGB"))
