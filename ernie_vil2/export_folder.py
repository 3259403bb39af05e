"""An exported model: one folder that stands alone.

    export.json     what it is: engine, precision, sizes, preprocessing, tokeniser, scale, inputs and outputs
    image.*, text.* the two graphs (`export.graphs`, `export.onnx_graphs`)
    vocab.txt       the tokens in the order of their ids, one per line
    config.yaml     the configuration of the model
    parity.json     how far its embeddings are from those of the checkpoint, on real inputs
    checksums.json  bytes and SHA-256 of the others

Only the standard library is imported.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ernie_vil2.checksums import CHECKSUMS, DamagedFile, check_files
from ernie_vil2.files import load_json

VERSION = 1
ABOUT, VOCABULARY, CONFIG, PARITY = "export.json", "vocab.txt", "config.yaml", "parity.json"
GRAPHS = {
    "paddle_inference": ("image.json", "image.pdiparams", "text.json", "text.pdiparams"),
    "onnx": ("image.onnx", "text.onnx"),
}
"""Files of the graphs by engine."""
PRECISIONS = {"paddle_inference": ("float32", "bfloat16"), "onnx": ("float32", "int8")}
INPUTS = {"image": "pixels", "text": "token_ids"}
OUTPUTS = {"image": "image_embeddings", "text": "text_embeddings"}
_KEYS = {"engine": str, "precision": str, "weights": str, "embed_dim": int, "scalars": dict, "preprocessing": dict,
         "tokenizer": dict}  # fmt: skip


class BadExport(ValueError):
    """An exported folder that cannot be used; the message says which, why and what to do."""


def is_export(folder: str | Path) -> bool:
    """Whether a folder holds an exported model, whole or not."""
    return (Path(folder) / ABOUT).is_file()


def read_export(folder: str | Path) -> dict[str, Any]:
    """What `export.json` says, once all files have been compared with their checksums.

    Raises:
        BadExport: it is of another version, or a file is missing or is not the one that was written.
    """
    folder, again = Path(folder), "export the checkpoint again (tools/export.py), or put back a copy"
    try:
        sums = load_json(folder / CHECKSUMS) if (folder / CHECKSUMS).is_file() else {}
        check_files(folder, sums.keys() | {ABOUT, VOCABULARY, CONFIG})
        about = load_json(folder / ABOUT)
        version = about.get("version")
        if version != VERSION:
            raise BadExport(f"{folder} is an export of version {version}, this is version {VERSION}: export the "
                            "checkpoint again with this version of the package")  # fmt: skip
        if not all(isinstance(about.get(key), kind) for key, kind in _KEYS.items()) or about["engine"] not in GRAPHS:
            raise DamagedFile(f"{ABOUT} does not describe an export")
        check_files(folder, GRAPHS[about["engine"]])
    except BadExport:
        raise
    except (ValueError, AttributeError) as error:
        raise BadExport(f"{folder}: {_reason(error)}: it is damaged; {again}") from None
    return about


@contextmanager
def named_in_utf8(folder: Path) -> Iterator[Path]:
    """The folder, or a link to it for as long as the block where its name is not UTF-8, which libraries in C++ need."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as place:
            link = Path(place, "folder")
            link.symlink_to(folder.absolute())
            yield link
    else:
        yield folder


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DamagedFile) else f"{ABOUT} or {CHECKSUMS} cannot be read"
