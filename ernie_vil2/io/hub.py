"""Published models: known ones with their addresses and a local cache, and models of a hub by OWNER/NAME."""

import hashlib
import importlib.util
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from ernie_vil2.io.files import cache_folder
from ernie_vil2.io.locks import lock_exclusive
from ernie_vil2.io.progress import progress_bar

_PADDLENLP = "https://paddlenlp.bj.bcebos.com/models/community/PaddlePaddle/ernie_vil-2.0-base-zh"

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
        "model_state.pdparams": (f"{_PADDLENLP}/model_state.pdparams", "38d8c8e01f74ba881e87d9a3f669e5ae"),
        "config.json": (f"{_PADDLENLP}/config.json", "caf929b450d5638e8df2a95c936519e7"),
        "vocab.txt": (f"{_PADDLENLP}/vocab.txt", "1c1c1f4fd93c5bed3b4eebec4de976a8"),
        "preprocessor_config.json": (f"{_PADDLENLP}/preprocessor_config.json", "9a2e8da9f41896fedb86756b79355ee2"),
        "special_tokens_map.json": (f"{_PADDLENLP}/special_tokens_map.json", "8b3fb1023167bb4ab9d70708eb05f6ec"),
        "tokenizer_config.json": (f"{_PADDLENLP}/tokenizer_config.json", "da5385c23c8f522d33fc3aac829e4375"),
    },
}
"""Address and MD5 sum of each file of the known models, by model and file; None: the publisher gives no sum."""

# Names of the files of a model in a repository of a hub: settings and tokenizers of transformers and open_clip.
SETTINGS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "open_clip_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
# Files of a model's weights in order of preference: safetensors before pickles, transformers' names before open_clip's.
# The first one that a repository has is fetched. Each may be split into shards.
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# OWNER/NAME of the characters and lengths that the hubs allow.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# Bytes between two updates of the progress bar; it bounds the memory that a download takes.
_BLOCK_SIZE = 1 << 20
# Seconds without a byte after which a download is given up; a second run continues it.
_TIMEOUT = 30
# Characters of another library's error, or of a server's answer in it, that a message quotes.
_MAX_REASON_LENGTH = 200


class DownloadError(FileNotFoundError):
    """A file is not in the cache and could not be downloaded."""


def is_hub_name(source: str) -> bool:
    """Return whether a source that does not exist can be OWNER/NAME on a hub.

    It cannot if OWNER is a folder here, or if NAME ends like a file (`.tar`): then the source is the path of a file
    with a mistake in it.
    """
    has_file_suffix = Path(source).suffix[1:].isalpha()
    return bool(_HUB_NAME.fullmatch(source)) and not has_file_suffix and not Path(source).parent.exists()


def fetch_from_hub(name: str) -> Path:
    """Return the folder of a model that the Hugging Face Hub or ModelScope has as OWNER/NAME.

    Files that a person has put into the cache are taken first. Otherwise `huggingface_hub` or `modelscope` downloads
    the model, whichever is installed and can reach its hub or has a copy.

    Raises:
        DownloadError: the model cannot be fetched; the message gives the reasons, and says which files belong where.
    """
    folder = cache_folder() / name
    if folder.is_dir() and _has_weights(folder):
        return folder

    reasons = []
    downloads = {"huggingface_hub": _download_from_hugging_face, "modelscope": _download_from_modelscope}
    for library, download_model in downloads.items():
        if importlib.util.find_spec(library) is None:
            reasons.append(f"{library} is not installed")
            continue
        try:
            return download_model(name)
        except Exception as error:  # the libraries raise many types of their own, and those of the libraries below
            text = str(error).strip()
            reason = text.splitlines()[0][:_MAX_REASON_LENGTH] if text else repr(error)
            reasons.append(f"{library}: {reason}")
    raise DownloadError(
        f"{name}: no such file or folder, and it cannot be fetched ({'; '.join(reasons)}). Download its settings "
        f"({', '.join(SETTINGS)}, as far as there are any), the files of its tokenizer ({', '.join(TOKENIZERS)}) and "
        f"its weights (one of {', '.join(WEIGHTS)}) on another machine, from https://huggingface.co/{name} or "
        f"https://modelscope.cn/models/{name}, and put them into {folder}"
    )


def select_files(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Select the files of a repository that a model needs.

    Args:
        names: paths of all files of the repository.

    Returns:
        Names of the small files (settings, tokenizer, model card, licence), and names of the weights: the file of
        `WEIGHTS` that comes first there, or its shards and their index. Without any of these, all `.pt` files, as
        Chinese-CLIP, EVA-CLIP and PE-Core have.
    """
    top_level_names = [name for name in names if "/" not in name]
    small_files = [name for name in top_level_names if name in (*SETTINGS, *TOKENIZERS, "README.md", "LICENSE")]
    for weights in WEIGHTS:
        if weights in top_level_names:
            return small_files, [weights]
        stem, suffix = Path(weights).stem, Path(weights).suffix
        shard_name = re.compile(rf"{re.escape(stem)}-\d+-of-\d+{re.escape(suffix)}")
        shards = [name for name in top_level_names if shard_name.fullmatch(name)]
        index = f"{weights}.index.json"
        if shards and index in top_level_names:
            return small_files, [index, *shards]
    return small_files, [name for name in top_level_names if name.endswith(".pt")]


def _has_weights(folder: Path) -> bool:
    _, weights = select_files(path.name for path in folder.iterdir())
    return bool(weights)


def _download_from_hugging_face(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        names = HfApi().list_repo_files(name)
    except Exception as error:
        # Usually there is no connection: then the library's own cache is used if it has the model.
        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except Exception:
            raise error from None
        if not _has_weights(folder):
            raise
        return folder
    return Path(snapshot_download(name, allow_patterns=_select_download(names)))


def _download_from_modelscope(name: str) -> Path:
    from modelscope import HubApi, snapshot_download

    names = [file["Path"] for file in HubApi().get_model_files(name)]
    return Path(snapshot_download(name, allow_patterns=_select_download(names)))


def _select_download(names: Iterable[str]) -> list[str]:
    small_files, weights = select_files(names)
    if not weights:
        raise ValueError(f"the repository has no weights that are read ({', '.join(WEIGHTS)})")
    return [*small_files, *weights]


def fetch_known_model(name: str) -> Path:
    """Return a known model in the cache, downloading what is missing there.

    Args:
        name: a name of `MODELS`.

    Returns:
        The file of a model with one file; otherwise the folder of its files.

    Raises:
        DownloadError: a file cannot be downloaded; the message says which file belongs where.
    """
    folder = cache_folder() / name
    for file, (url, md5) in MODELS[name].items():
        path = folder / file
        if path.is_file():
            continue
        try:
            download(url, path, md5)
        except (OSError, ValueError) as error:
            raise DownloadError(
                f"{name}: {file} cannot be downloaded ({error}). Run again to continue where it stopped, or download "
                f"{url} on another machine and put it at {path}"
            ) from None  # the message has what the libraries say
    return folder if len(MODELS[name]) > 1 else path


def download(url: str, path: str | Path, md5: str | None = None) -> None:
    """Download a file with a progress bar; it appears at `path` only when it is complete.

    An interrupted download is continued if the server still has the same version of the file. If several processes
    download the same file, one does and the others wait for it.

    Args:
        url: address of the file.
        path: where to put it.
        md5: MD5 sum of the file. None: only its size is checked, against the one that the server announces.

    Raises:
        OSError: the server cannot be reached, refuses, or breaks off.
        ValueError: the file that arrived is not the announced one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(urllib.request.Request(url, method="HEAD")) as response:  # noqa: S310  -- https alone, and a mirror that the user has named
        length, version = response.headers.get("Content-Length"), response.headers.get("ETag")
    if length is None or not length.isdecimal():
        raise ValueError(f"{url}: the server does not say how large the file is")
    size = int(length)

    # The name of the partial file depends on the version, so that bytes of two versions are never mixed.
    tag = hashlib.md5(f"{url} {version} {size}".encode()).hexdigest()[:8]  # noqa: S324  -- a number, not a secret
    partial_path = path.with_name(f".{path.name}.{tag}.partial")
    with _open_locked(partial_path) as file:
        if path.is_file():  # another process has completed it meanwhile
            partial_path.unlink(missing_ok=True)
            return
        if file.tell() < size:
            _append_remaining(url, file, size, path.name)
        if file.tell() > size:
            partial_path.unlink()  # nothing could complete it
            raise ValueError(f"{url}: the server sends more than the {size} bytes that it announces")
        if file.tell() < size:
            raise OSError(f"{url}: broke off after {file.tell()} of {size} bytes")
        if md5 and _md5(partial_path) != md5:
            partial_path.unlink()
            raise ValueError(f"{url}: the MD5 sum of what arrived is not {md5}")
        partial_path.replace(path)


@contextmanager
def _open_locked(path: Path) -> Iterator[BinaryIO]:
    """Open a partial file at its end, for this process alone, once no other process downloads it."""
    while True:
        with path.open("ab") as file:
            lock_exclusive(file, wait=True)
            # The process that held the lock may have removed the file because of its sum, or have written to it.
            if os.fstat(file.fileno()).st_nlink == 0:
                continue
            file.seek(0, os.SEEK_END)
            yield file
            return


def _append_remaining(url: str, file: BinaryIO, size: int, name: str) -> None:
    start = file.tell()
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  -- https alone, and a mirror that the user has named
    with _open(request) as response:
        # Any status but 206 (Partial Content) means that the whole file comes, whether it was asked for or not.
        if response.status != 206:
            file.seek(0)  # the progress bar starts at the position
            file.truncate()
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ValueError(f"{url}: the server sends another part of the file than the one asked for")
        with progress_bar(
            description=name, unit="B", total=size, initial=file.tell(), unit_scale=True, unit_divisor=1024
        ) as bar:
            try:
                while file.tell() < size and (block := response.read(_BLOCK_SIZE)):
                    file.write(block)
                    bar.update(len(block))
            except HTTPException as error:  # not an OSError, as that of an answer in chunks which breaks off
                raise OSError(f"{url}: broke off after {file.tell()} of {size} bytes ({error})") from None
    file.flush()


def _open(request: urllib.request.Request) -> HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310  -- https alone, and a mirror that the user has named
    except urllib.error.HTTPError as error:
        raise OSError(f"{request.full_url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise OSError(f"{request.full_url}: no connection ({error.reason})") from None
    except HTTPException as error:
        reason = repr(error)[:_MAX_REASON_LENGTH]
        raise OSError(f"{request.full_url}: the server's answer is not HTTP ({reason})") from None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
