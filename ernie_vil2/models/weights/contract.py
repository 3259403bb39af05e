"""The contract card, `contract.json`: what a folder of a model computes, by which a change of it is noticed.

    version     of the card
    model       the conventions: what `Model`, `Data.max_length` and `Loss.widths` say, without what is as by default
    files       bytes, and a digest of a sample of them, of each file that the numbers depend on
    golden      a few texts and images with their token ids and embeddings, and the device that computed them; null
                where none were computed

Loading compares conventions and files, in milliseconds. The golden embeddings, for which the model has to compute, are
compared where that is asked for.
"""

import base64
import io
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ernie_vil2.config import Config, differences
from ernie_vil2.io.files import load_json, write_json
from ernie_vil2.io.terminal import printable
from ernie_vil2.models.dual_encoder import with_sizes

CONTRACT = "contract.json"
VERSION = 1
MOST, MOST_PIXELS = 64, 2**20  # golden inputs that are computed, and pixels of an image
CLOSE = {"cpu": 2e-5}
"""How far golden embeddings in float32 may be off, by device; the smallest change that matters moves one by 2e-5."""
ELSEWHERE = 1e-3
_BLOCK, _BLOCKS = 4096, 64
_TEXTS = ["一只猫在看书。", "A photo of two dogs & a red car, 1999!", "ＦＵＬＬ　width, naïve “quotes”"]
OF_TRAINING: dict[str, Any] = {
    **dict.fromkeys(("like", "weights", "dialect", "allow"), True),
    "image": {"weights", "drop_path"},
    "text": {"weights", "vocabulary", "dropout", "attention_dropout"},
}
"""Of `Model`, where a model is from, and what it does in training alone."""


class Broken(ValueError):  # noqa: N818  -- named by what has happened
    """A folder is not what its contract card says; the message says in what it differs."""


class NoGolden(Broken):
    """A folder has no golden embeddings."""


def conventions(config: Config) -> dict[str, Any]:
    """What determines a model's embeddings besides its weights."""
    model = with_sizes(config.Model)
    widths = {"widths": config.Loss.widths} if config.Loss.widths else {}
    return {
        **model.model_dump(exclude=OF_TRAINING, exclude_defaults=True),
        "max_length": config.Data.max_length,
        **widths,
    }


def golden(encoder: Any) -> dict[str, Any]:
    """A few inputs and what a model, an `ErnieViL2`, makes of them; ValueError if that is not finite."""
    image = _image()
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    found = {"text_embeddings": encoder.encode_texts(_TEXTS), "image_embeddings": encoder.encode_images([image])}
    if bad := [kind for kind, embeddings in found.items() if not np.isfinite(embeddings).all()]:
        raise ValueError(f"the model's {bad[0].replace('_', ' ')} are NaN or infinite")
    return {
        "texts": _TEXTS,
        "images": [base64.b64encode(content.getvalue()).decode()],
        "ids": encoder.tokenizer(_TEXTS).tolist(),
        **{kind: _rounded(embeddings) for kind, embeddings in found.items()},
        "device": encoder.device,
    }


def write_contract(folder: Path, config: Config, names: Iterable[str], made: Mapping[str, Any] | None = None) -> None:
    """Writes the card of a folder, of whose files the model's numbers depend on `names`, with what `golden` made."""
    files = {name: _sample(folder / name) for name in names}
    card = {"version": VERSION, "model": conventions(config), "files": files, "golden": made}
    write_json(folder / CONTRACT, card)


def add_golden(folder: Path, encoder: Any) -> None:
    """Adds golden embeddings to the card of a folder, of the model that loading the folder gave."""
    write_json(folder / CONTRACT, _read(folder) | {"golden": golden(encoder)})


def check_contract(weights: Path, config: Config) -> None:
    """Compares configuration and files of a folder with the card next to its weights, if there is one; Broken if they
    differ, or the card is damaged."""
    folder = weights.parent
    if not (folder / CONTRACT).is_file():
        return
    card = _read(folder)
    if weights.name not in card["files"]:
        raise Broken(f"{folder / CONTRACT}: not written for {weights.name}: delete the one that does not belong here")
    found = conventions(config)
    for key, (agreed, own) in differences(card["model"], found, prefix="Model."):
        before, now = (printable(repr(value), longest=60) for value in (agreed, own))
        raise Broken(
            f"{folder / CONTRACT}: the model was written with {key} {before}, the other files say {now}: put "
            "back what was changed, or delete the card if that is meant"
        )
    for name, expected in card["files"].items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise Broken(f"{folder / CONTRACT}: {printable(name, longest=100)} is missing")
        if _sample(path) != expected:
            raise Broken(
                f"{path} is not the file that {CONTRACT} was written for: put back that one, or delete the card if the "
                "change is meant"
            )


def has_golden(folder: Path) -> bool:
    """Whether a folder has a card with golden embeddings."""
    return (folder / CONTRACT).is_file() and _read(folder)["golden"] is not None


def check_golden(folder: Path, encoder: Any) -> float:
    """Computes the golden inputs of a folder's card; returns the largest difference of an embedding's coordinate, or
    raises Broken: ids or embeddings are others, or the card has none."""
    if not has_golden(folder):
        raise NoGolden(f"{folder}: there are no golden embeddings in a {CONTRACT} here; ernie-vil2 convert writes them")
    made = _read(folder)["golden"]
    try:
        images = [_decoded(one) for one in made["images"][:MOST]]
        texts = [str(text) for text in made["texts"][:MOST]]
        expected = [np.array(made[f"{kind}_embeddings"], np.float64) for kind in ("text", "image")]
        ids = [list(row) for row in made["ids"]]
        if not texts or not images or [len(texts), len(texts), len(images)] != [len(ids), *map(len, expected)]:
            raise ValueError
    except (ValueError, KeyError, TypeError, OSError, Image.DecompressionBombError) as error:
        raise Broken(f"{folder / CONTRACT}: its golden inputs are damaged ({type(error).__name__})") from None
    for text, old, new in zip(texts, ids, encoder.tokenizer(texts).tolist(), strict=True):
        if old != new:
            raise Broken(f"{folder}: the text {printable(text, longest=60)!r} has other token ids than {CONTRACT} says")
    found = encoder.encode_texts(texts), encoder.encode_images(images)
    devices = encoder.device, str(made.get("device", "cpu"))
    most = max(CLOSE.get(each, ELSEWHERE) for each in devices) if encoder.precision == "float32" else 10 * ELSEWHERE
    worst = 0.0
    for kind, stored, now in zip(("text", "image"), expected, found, strict=True):
        if stored.shape != now.shape:
            raise Broken(f"{folder}: {kind} embeddings are {list(now.shape)}, {CONTRACT} says {list(stored.shape)}")
        difference = float(np.abs(stored - now).max())
        if not difference <= most:
            raise Broken(
                f"{folder}: golden {kind} embeddings are up to {difference:.1e} from those in {CONTRACT}; at "
                f"most {most:.0e} is rounding"
            )
        worst = max(worst, difference)
    return worst


def _read(folder: Path) -> dict[str, Any]:
    try:
        card = load_json(folder / CONTRACT)
        version = card["version"]
        whole = all(isinstance(card[key], dict) for key in ("model", "files")) and "golden" in card
    except (ValueError, KeyError, TypeError):
        raise Broken(f"{folder / CONTRACT}: not a contract card") from None
    if version != VERSION:
        raise Broken(f"{folder / CONTRACT}: version {printable(repr(version), longest=20)}; {VERSION} is read here")
    if not whole:
        raise Broken(f"{folder / CONTRACT}: not a whole contract card")
    return card


def _sample(path: Path) -> dict[str, Any]:
    """Bytes of a file, and the digest of all of them, or of blocks all over a large one."""
    size = path.stat().st_size
    digest = blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        if size <= _BLOCK * _BLOCKS:
            digest.update(file.read())
        else:
            for start in np.linspace(0, size - _BLOCK, _BLOCKS).astype(np.int64).tolist():
                file.seek(start)
                digest.update(file.read(_BLOCK))
    return {"bytes": size, "sample": digest.hexdigest()}


def _image() -> np.ndarray:
    """`[61, 83, 3]` uint8: neither square nor of a size that a tower takes, with edges and slopes of every channel."""
    y, x = np.mgrid[:61, :83]
    channels = 3 * x + y, 255 * ((x // 9 + y // 7) % 2), (x - 40) ** 2 // 8 + 2 * y
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


def _decoded(content: str) -> np.ndarray:
    """ValueError if it is far from the size of `_image`, before it takes memory."""
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    if image.width * image.height > MOST_PIXELS:
        raise ValueError
    return np.asarray(image.convert("RGB"))


def _rounded(embeddings: np.ndarray) -> list[list[float]]:
    return [[round(float(number), 8) for number in row] for row in embeddings]
