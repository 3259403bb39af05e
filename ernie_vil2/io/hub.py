"""Known models: where they were published, and their copy in a local cache."""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.error
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from ernie_vil2.io.files import cache_folder
from ernie_vil2.io.locks import lock

PADDLENLP = "https://paddlenlp.bj.bcebos.com/models/community/PaddlePaddle/ernie_vil-2.0-base-zh"

MODELS: dict[str, dict[str, tuple[str, str | None]]] = {
    # The release of the paper's authors (README of PaddlePaddle/ERNIE, Research/ERNIE-ViL2), without a checksum.
    "ernie-vil-2.0-base-zh": {
        "OPEN_ERNIE_VIL2_BASE_ViT.pdparams": (
            "https://bj.bcebos.com/wenxin-models/OPEN_ERNIE_VIL2_BASE_ViT.pdparams",
            None,
        )
    },
    # PaddleNLP's, with the MD5 sums that its Taskflow "feature_extraction" lists.
    "PaddlePaddle/ernie_vil-2.0-base-zh": {
        "model_state.pdparams": (f"{PADDLENLP}/model_state.pdparams", "38d8c8e01f74ba881e87d9a3f669e5ae"),
        "config.json": (f"{PADDLENLP}/config.json", "caf929b450d5638e8df2a95c936519e7"),
        "vocab.txt": (f"{PADDLENLP}/vocab.txt", "1c1c1f4fd93c5bed3b4eebec4de976a8"),
        "preprocessor_config.json": (f"{PADDLENLP}/preprocessor_config.json", "9a2e8da9f41896fedb86756b79355ee2"),
        "special_tokens_map.json": (f"{PADDLENLP}/special_tokens_map.json", "8b3fb1023167bb4ab9d70708eb05f6ec"),
        "tokenizer_config.json": (f"{PADDLENLP}/tokenizer_config.json", "da5385c23c8f522d33fc3aac829e4375"),
    },
}
"""Known name -> its files -> address and MD5 sum, None where its publisher gives none."""

_BLOCK = 1 << 20
_TIMEOUT = 30  # seconds without a byte


class DownloadError(FileNotFoundError):
    """A file is not in the cache and could not be fetched."""


def fetch(name: str) -> Path:
    """A known model in the cache, its file or the folder of its files; what is missing there is downloaded.

    Raises:
        DownloadError: a file is missing and cannot be fetched; the message says which one belongs where.
    """
    folder = cache_folder() / name
    for file, (url, md5) in MODELS[name].items():
        path = folder / file
        if not path.is_file():
            try:
                download(url, path, md5)
            except (OSError, ValueError) as error:
                raise DownloadError(
                    f"{name}: {file} cannot be downloaded ({error}). Run again to go on where it stopped, or fetch "
                    f"{url} elsewhere and put it at {path}"
                ) from None  # what the libraries say below is in the message
    return folder if len(MODELS[name]) > 1 else path


def download(url: str, path: str | Path, md5: str | None = None) -> None:
    """Fetches a file with a progress bar; it appears at `path` only when it is whole.

    What an interrupted download has left next to `path` is continued, if the server still has the same version of
    the file. Processes that fetch the same file wait for the first of them.

    Args:
        md5: the file's MD5 sum. None: only its size is checked, against what the server announces.

    Raises:
        OSError: the server cannot be reached, refuses, or breaks off.
        ValueError: the file that arrived is not the one that was announced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(urllib.request.Request(url, method="HEAD")) as answer:
        length, version = answer.headers.get("Content-Length"), answer.headers.get("ETag")
    if length is None:
        raise ValueError(f"{url}: the server does not say how large the file is")
    size = int(length)
    # Bytes of two versions of a file never meet: the name of the part distinguishes them.
    tag = hashlib.md5(f"{url} {version} {size}".encode()).hexdigest()[:8]
    part = path.with_name(f".{path.name}.{tag}.partial")
    with part.open("ab") as file:
        lock(file, wait=True)
        if path.is_file():  # another process has been faster
            part.unlink(missing_ok=True)
            return
        if file.tell() < size:
            _append(url, file, size, path.name)
        if file.tell() != size:
            raise OSError(f"{url}: broke off after {file.tell()} of {size} bytes")
        if md5 and _md5(part) != md5:
            part.unlink()
            raise ValueError(f"{url}: the MD5 sum of what arrived is not {md5}")
        os.replace(part, path)


def _append(url: str, file: BinaryIO, size: int, name: str) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={file.tell()}-"} if file.tell() else {})
    with _open(request) as answer:
        if answer.status != 206:  # the whole file, asked for or not
            file.truncate(0)
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {file.tell()}-"):
            raise ValueError(f"{url}: the server sends another part of the file than the one asked for")
        with tqdm(
            total=size, initial=file.tell(), desc=name, unit="B", unit_scale=True, unit_divisor=1024, file=sys.stdout
        ) as bar:
            while file.tell() < size and (block := answer.read(_BLOCK)):
                file.write(block)
                bar.update(len(block))
    file.flush()


def _open(request: urllib.request.Request) -> HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        raise OSError(f"{request.full_url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise OSError(f"{request.full_url}: no connection ({error.reason})") from None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
