"""Known models: where they were published, and their copy in a local cache; and models of a hub by their names."""

import hashlib
import importlib.util
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from http.client import HTTPResponse
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from ernie_vil2.io.files import cache_folder
from ernie_vil2.io.locks import lock_exclusive

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
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Forms of a model's weights, the first that a repository has; each may be in shards."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_BLOCK = 1 << 20
_TIMEOUT = 30  # seconds without a byte


class DownloadError(FileNotFoundError):
    """A file is not in the cache and could not be fetched."""


def is_hub_name(source: str) -> bool:
    """Whether a source that does not exist can be OWNER/NAME of a hub: not where OWNER is a folder here, which is
    another file's path with an error in it."""
    return (
        bool(_HUB_NAME.fullmatch(source)) and not Path(source).suffix[1:].isalpha() and not Path(source).parent.exists()
    )


def fetch_from_hub(name: str) -> Path:
    """The folder of a model that the Hugging Face Hub or ModelScope has as OWNER/NAME: where a person has put its
    files, else through `huggingface_hub` or `modelscope`, whichever is installed and can reach it or has a copy; else a
    DownloadError, which says why, and which files belong where."""
    folder = cache_folder() / name
    if folder.is_dir() and wanted(path.name for path in folder.iterdir())[1]:
        return folder
    reasons = []
    for library, download in (("huggingface_hub", _from_hugging_face), ("modelscope", _from_modelscope)):
        if importlib.util.find_spec(library) is None:
            reasons.append(f"{library} is not installed")
            continue
        try:
            return download(name)
        except Exception as error:  # the libraries have many kinds of their own, and of those below them
            reasons.append(f"{library}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else error!r}")
    raise DownloadError(
        f"{name}: no such file or folder, and it cannot be fetched ({'; '.join(reasons)}). Fetch its settings "
        f"({', '.join(SETTINGS)}, as far as there are any), the files of its tokenizer ({', '.join(TOKENIZERS)}) and "
        f"its weights (one of {', '.join(WEIGHTS)}) elsewhere, from https://huggingface.co/{name} or "
        f"https://modelscope.cn/models/{name}, and put them into {folder}"
    )


def wanted(files: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of a repository's files the small ones that a model needs, and those of its weights in the best of the forms."""
    names = [name for name in files if "/" not in name]
    small = [name for name in names if name in (*SETTINGS, *TOKENIZERS, "README.md", "LICENSE")]
    for weights in WEIGHTS:
        suffix = Path(weights).suffix
        stem = weights.removesuffix(suffix)
        parts = [name for name in names if re.fullmatch(rf"{re.escape(stem)}-\d+-of-\d+{re.escape(suffix)}", name)]
        if weights in names:
            return small, [weights]
        if f"{weights}.index.json" in names and parts:
            return small, [f"{weights}.index.json", *parts]
    return small, [name for name in names if name.endswith(".pt")]


def _from_hugging_face(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        small, weights = wanted(HfApi().list_repo_files(name))
    except Exception as error:  # no connection, as a rule: what its cache has is used then
        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except Exception:
            raise error from None
        if not wanted(path.name for path in folder.iterdir())[1]:
            raise
        return folder
    return Path(snapshot_download(name, allow_patterns=[*small, *_some(weights)]))


def _from_modelscope(name: str) -> Path:
    from modelscope import HubApi, snapshot_download

    small, weights = wanted(file["Path"] for file in HubApi().get_model_files(name))
    return Path(snapshot_download(name, allow_patterns=[*small, *_some(weights)]))


def _some(weights: list[str]) -> list[str]:
    if not weights:
        raise ValueError(f"the repository has no weights that are read ({', '.join(WEIGHTS)})")
    return weights


def fetch(name: str) -> Path:
    """A known model in the cache, its file or the folder of its files; what is missing there is downloaded, or a
    DownloadError, which says what belongs where."""
    folder = cache_folder() / name
    for file, (url, md5) in MODELS[name].items():
        path = folder / file
        if not path.is_file():
            try:
                download(url, path, md5)
            except (OSError, ValueError) as error:
                raise DownloadError(
                    f"{name}: {file} cannot be downloaded ({error}). Run again to continue where it stopped, or fetch "
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
    with _open(urllib.request.Request(url, method="HEAD")) as answer:  # noqa: S310  -- https alone, and a mirror that the user has named
        length, version = answer.headers.get("Content-Length"), answer.headers.get("ETag")
    if length is None:
        raise ValueError(f"{url}: the server does not say how large the file is")
    size = int(length)
    # Bytes of two versions of a file are never mixed: the name of the part distinguishes them.
    tag = hashlib.md5(f"{url} {version} {size}".encode()).hexdigest()[:8]  # noqa: S324  -- a number, not a secret
    part = path.with_name(f".{path.name}.{tag}.partial")
    with part.open("ab") as file:
        lock_exclusive(file, wait=True)
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
        part.replace(path)


def _append(url: str, file: BinaryIO, size: int, name: str) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={file.tell()}-"} if file.tell() else {})  # noqa: S310  -- https alone, and a mirror that the user has named
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
        return urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310  -- https alone, and a mirror that the user has named
    except urllib.error.HTTPError as error:
        raise OSError(f"{request.full_url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise OSError(f"{request.full_url}: no connection ({error.reason})") from None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
