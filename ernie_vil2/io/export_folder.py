"""An exported model: one folder that needs nothing else.

    export.json     what it is: backend, precision, sizes, preprocessing, tokeniser, scale, inputs and outputs
    image.*, text.* the two graphs
    vocab.txt       the tokens in the order of their ids, one per line; of other people's models tokenizer.json
    config.yaml     the configuration of the model
    parity.json     how far its embeddings are from those of the checkpoint, on real inputs
    integrity.json  bytes and SHA-256 of the others, see `io.files.Integrity`

Only the standard library is imported.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from ernie_vil2.io.files import (
    DamagedFile,
    OtherVersion,
    check_version,
    is_count,
    is_number,
    parse_json,
    read_integrity,
    read_text,
)
from ernie_vil2.io.run_folder import TOKENIZER, VOCABULARY, resolve_vocabulary

VERSION = 1
ABOUT, CONFIG, PARITY = "export.json", "config.yaml", "parity.json"
PreprocessingKind = Literal["ernie_vil2", "official", "paddlenlp", "transformers", "open_clip", "naflex"]
"""Values of `Model.image.preprocessing`."""
Resize = Literal["shortest", "squash", "longest"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
WordRules = Literal["official", "paddlenlp", "cn_clip"]
"""Of `Model.text.tokenizer`: those whose vocabulary is a `vocab.txt`."""
LibraryRules = Literal[
    "bert",
    "clip",
    "xlm_roberta",
    "siglip",
    "siglip2",
    "open_clip",
    "open_clip_hf",
    "open_clip_lower",
    "open_clip_canonical",
]
"""Those whose vocabulary is a `tokenizer.json`."""
KINDS, RESIZES, INTERPOLATIONS = get_args(PreprocessingKind), get_args(Resize), get_args(Interpolation)
WORD_RULES, LIBRARY_RULES = get_args(WordRules), get_args(LibraryRules)
GRAPHS = {
    "paddle_inference": ("image.json", "image.pdiparams", "text.json", "text.pdiparams"),
    "onnx": ("image.onnx", "text.onnx"),
}
"""Files of the graphs by backend."""
PRECISIONS = {"paddle_inference": ("float32", "bfloat16"), "onnx": ("float32", "int8")}
INPUTS = {"image": "pixels", "text": "token_ids"}
OUTPUTS = {"image": "image_embeddings", "text": "text_embeddings"}
AGAIN = "export the checkpoint again (ernie-vil2 export), or put back a copy"
WIDTHS = {"minimum": 1, "maximum": 65_536}
SIDES = {"minimum": 1, "maximum": 4096}  # bounds of sizes, as the configuration has them


class BadExport(ValueError):  # noqa: N818  -- named by what has happened
    """An exported folder that cannot be used; the message says which, why and what to do."""


def read_export(folder: str | Path) -> dict[str, Any]:
    """What `export.json` says, once all files have been compared with their checksums.

    Raises:
        OSError: a file cannot be read.
        BadExport: it is of another version, a file is missing or is not the one that was written, or a value in
            `export.json` is missing or cannot be; the message names it.
    """
    folder = Path(folder)
    try:
        integrity = read_integrity(folder)
        integrity.check_files(folder, {*integrity.files, ABOUT, CONFIG, *resolve_vocabulary(folder, [VOCABULARY])})
        about = _object(folder / ABOUT)
        check_version(about.get("version"), VERSION, folder / ABOUT, "export the checkpoint again with this release")
        if wrong := [key for key, right in _checked(about).items() if not right]:
            raise DamagedFile(f"{ABOUT} does not describe an export ({', '.join(wrong)})")
        integrity.check_files(folder, GRAPHS[about["backend"]])
    except OtherVersion as error:
        raise BadExport(str(error)) from None
    except DamagedFile as error:
        raise BadExport(f"{folder}: {error}: it is damaged; {AGAIN}") from None
    return about


def _object(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_text(path))
    except ValueError as error:
        raise DamagedFile(f"{path.name} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise DamagedFile(f"{path.name} is not a JSON object")
    return found


def _checked(about: dict[str, Any]) -> dict[str, bool]:
    """For each value of `export.json` that is read whether it is there and can be."""

    def value(section: str, key: str, default: Any = None) -> Any:
        within = about.get(section)
        return within.get(key, default) if isinstance(within, dict) else None

    def three(key: str, check: Callable[..., bool], *bounds: float) -> bool:
        numbers = value("preprocessing", key)
        return isinstance(numbers, list) and len(numbers) == 3 and all(check(one, *bounds) for one in numbers)

    backend = about.get("backend")
    return {
        "backend": backend in tuple(GRAPHS),
        "precision": any(about.get("precision") in of for name, of in PRECISIONS.items() if name == backend),
        "weights": isinstance(about.get("weights"), str),
        "image_weights": isinstance(about.get("image_weights"), str),
        "embed_dim": is_count(about.get("embed_dim"), **WIDTHS),
        "scalars.logit_scale": is_number(value("scalars", "logit_scale"), 1e-9, 1e9),
        "scalars.logit_bias": is_number(value("scalars", "logit_bias", 0), -1e9, 1e9),
        "preprocessing.kind": value("preprocessing", "kind") in KINDS,
        "preprocessing.resize": value("preprocessing", "resize", "shortest") in RESIZES,
        "preprocessing.interpolation": value("preprocessing", "interpolation", "bicubic") in INTERPOLATIONS,
        **{
            f"preprocessing.{key}": (given := value("preprocessing", key)) is None or is_count(given, **WIDTHS)
            for key in ("resized", "patch_size", "most_patches")
        },
        "preprocessing.size": is_count(value("preprocessing", "size"), **SIDES),
        "preprocessing.mean": three("mean", is_number, 0, 1),
        "preprocessing.std": three("std", is_number, 1e-9, 1),
        "preprocessing.background": three("background", is_count, 0, 255),
        "tokenizer.rules": value("tokenizer", "rules") in (*WORD_RULES, *LIBRARY_RULES),
        "tokenizer.entries": (entries := value("tokenizer", "entries")) is None or is_count(entries),
        "tokenizer.max_length": is_count(value("tokenizer", "max_length"), 3, WIDTHS["maximum"]),
    }


def vocabulary_name(rules: str) -> str:
    """The file of an export that its tokenizer is opened from."""
    return VOCABULARY if rules in WORD_RULES else TOKENIZER


@contextmanager
def named_in_utf8(folder: Path) -> Iterator[Path]:
    """The folder, or a link to it for as long as the block where its name is not UTF-8, which libraries in C++ need."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder_of_link:
            link = Path(folder_of_link, "folder")
            link.symlink_to(folder.absolute())
            yield link
    else:
        yield folder
