"""An exported model: one folder that can be used alone.

    export.json     facts: backend, precision, sizes, preprocessing, tokenizer, scale, inputs and outputs
    image.*, text.* the two graphs
    vocab.txt       the tokens in the order of their ids, one per line; other people's models have tokenizer.json
    config.yaml     the configuration of the model
    parity.json     how far its embeddings are from those of the checkpoint, on real inputs
    integrity.json  size and SHA-256 of the other files, see `io.files.Integrity`

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
EXPORT_INFO, CONFIG, PARITY = "export.json", "config.yaml", "parity.json"
# Values of `Model.image.preprocessing`.
PreprocessingKind = Literal["ernie_vil2", "official", "paddlenlp", "transformers", "open_clip", "naflex"]
Resize = Literal["shortest", "squash", "longest"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
# Values of `Model.text.tokenizer` whose vocabulary is a `vocab.txt`.
WordRules = Literal["official", "paddlenlp", "cn_clip"]
# Those whose vocabulary is a `tokenizer.json`.
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
    "open_clip_without_sep",
]
KINDS, RESIZES, INTERPOLATIONS = get_args(PreprocessingKind), get_args(Resize), get_args(Interpolation)
WORD_RULES, LIBRARY_RULES = get_args(WordRules), get_args(LibraryRules)
# Files of the graphs by backend.
GRAPHS = {
    "paddle_inference": ("image.json", "image.pdiparams", "text.json", "text.pdiparams"),
    "onnx": ("image.onnx", "text.onnx"),
}
PRECISIONS = {"paddle_inference": ("float32", "bfloat16"), "onnx": ("float32", "int8")}
INPUTS = {"image": "pixels", "text": "token_ids"}
OUTPUTS = {"image": "image_embeddings", "text": "text_embeddings"}
EXPORT_AGAIN = "export the checkpoint again (ernie-vil2 export), or put back a copy"
# Bounds of the sizes in `export.json`, as in the configuration.
_WIDTHS = {"minimum": 1, "maximum": 65_536}
_SIDES = {"minimum": 1, "maximum": 4096}


class BadExport(ValueError):  # noqa: N818  -- named by what has happened
    """An exported folder cannot be used; the message says which, why and what to do."""


def read_export(folder: str | Path) -> dict[str, Any]:
    """Compare all files of an export with their checksums, and return the content of its `export.json`.

    Raises:
        OSError: a file cannot be read.
        BadExport: the export has another version, a file is missing or has changed, or a value in `export.json` is
            missing or impossible; the message names it.
    """
    folder = Path(folder)
    try:
        integrity = read_integrity(folder)
        integrity.check_files(
            folder, {*integrity.files, EXPORT_INFO, CONFIG, *resolve_vocabulary(folder, [VOCABULARY])}
        )
        info = _load_object(folder / EXPORT_INFO)
        version = info.get("version")
        check_version(version, VERSION, folder / EXPORT_INFO, "export the checkpoint again with this release")
        invalid_keys = _find_invalid_keys(info)
        if invalid_keys:
            raise DamagedFile(f"{EXPORT_INFO} does not describe an export ({', '.join(invalid_keys)})")
        integrity.check_files(folder, GRAPHS[info["backend"]])
    except OtherVersion as error:
        raise BadExport(str(error)) from None
    except DamagedFile as error:
        raise BadExport(f"{folder}: {error}: it is damaged; {EXPORT_AGAIN}") from None
    return info


def _load_object(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_text(path))
    except ValueError as error:
        raise DamagedFile(f"{path.name} cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise DamagedFile(f"{path.name} is not a JSON object")
    return content


def _find_invalid_keys(info: dict[str, Any]) -> list[str]:
    """Return the keys of `export.json` whose value is missing or impossible."""

    def get(section: str, key: str, default: Any = None) -> Any:
        content = info.get(section)
        return content.get(key, default) if isinstance(content, dict) else None

    def is_triple(key: str, is_valid: Callable[..., bool], minimum: float, maximum: float) -> bool:
        numbers = get("preprocessing", key)
        if not isinstance(numbers, list) or len(numbers) != 3:
            return False
        return all(is_valid(number, minimum, maximum) for number in numbers)

    backend = info.get("backend")
    allowed_precisions = PRECISIONS.get(backend, ()) if isinstance(backend, str) else ()
    are_valid = {
        "backend": bool(allowed_precisions),
        "precision": info.get("precision") in allowed_precisions,
        "weights": isinstance(info.get("weights"), str),
        "image_weights": isinstance(info.get("image_weights"), str),
        "embed_dim": is_count(info.get("embed_dim"), **_WIDTHS),
        "scalars.logit_scale": is_number(get("scalars", "logit_scale"), 1e-9, 1e9),
        "scalars.logit_bias": is_number(get("scalars", "logit_bias", 0), -1e9, 1e9),
        "preprocessing.kind": get("preprocessing", "kind") in KINDS,
        "preprocessing.resize": get("preprocessing", "resize", "shortest") in RESIZES,
        "preprocessing.interpolation": get("preprocessing", "interpolation", "bicubic") in INTERPOLATIONS,
        "preprocessing.size": is_count(get("preprocessing", "size"), **_SIDES),
        "preprocessing.mean": is_triple("mean", is_number, 0, 1),
        "preprocessing.std": is_triple("std", is_number, 1e-9, 1),
        "preprocessing.background": is_triple("background", is_count, 0, 255),
        "tokenizer.rules": get("tokenizer", "rules") in (*WORD_RULES, *LIBRARY_RULES),
        "tokenizer.max_length": is_count(get("tokenizer", "max_length"), 3, _WIDTHS["maximum"]),
    }
    resized, most_patches = get("preprocessing", "resized"), get("preprocessing", "most_patches")
    are_valid["preprocessing.resized"] = resized is None or is_count(resized, **_SIDES)
    are_valid["preprocessing.most_patches"] = most_patches is None or is_count(most_patches, **_WIDTHS)
    patch_size = get("preprocessing", "patch_size")
    are_valid["preprocessing.patch_size"] = patch_size is None or is_count(patch_size, **_SIDES)
    # NaFlex enlarges an image to as many patches as it may have: together no more than the largest square.
    has_sizes = are_valid["preprocessing.patch_size"] and are_valid["preprocessing.most_patches"]
    if has_sizes and get("preprocessing", "kind") == "naflex":
        num_pixels = (most_patches or 1024) * (patch_size or 16) ** 2  # by default as FG-CLIP 2
        are_valid["preprocessing.patch_size"] = num_pixels <= _SIDES["maximum"] ** 2
    num_entries = get("tokenizer", "entries")
    are_valid["tokenizer.entries"] = num_entries is None or is_count(num_entries)
    return [key for key, is_valid in are_valid.items() if not is_valid]


def vocabulary_file(rules: str) -> str:
    """Return the name of the file of an export that its tokenizer is read from."""
    return VOCABULARY if rules in WORD_RULES else TOKENIZER


@contextmanager
def utf8_path(folder: Path) -> Iterator[Path]:
    """Yield the folder, or a link to it if its path is not UTF-8, which libraries in C++ need."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as link_folder:
            link = Path(link_folder, "folder")
            link.symlink_to(folder.absolute())
            yield link
    else:
        yield folder
