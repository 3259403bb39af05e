"""Samples whose files share a name: in tar shards of the WebDataset layout, or in a folder."""

import os
import tarfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from ernie_vil2.data.readers.layout import SPLITS, Layout, Precedence, family
from ernie_vil2.data.readers.locations import Location, as_location
from ernie_vil2.data.readers.remote import PipeOutput
from ernie_vil2.data.readers.source import Index, IndexedFile, pack_names, unpack_name
from ernie_vil2.data.samples import (
    MAX_BYTES,
    MAX_TEXT_BYTES,
    BadSample,
    Reason,
    Sample,
    as_object,
    check_text,
    is_blank,
    is_id,
)
from ernie_vil2.data.source_files import BYTE_ORDER_MARK, IMAGE_SUFFIXES, read_file, readable

IMAGE_ID = "image_id"  # field that names the image, where several samples share one; otherwise its file does
# Why a row of the index is not a sample; the index holds the position, 0 of a sample.
PROBLEMS = (
    None, Reason.CUT_SHARD, Reason.EMPTY_SHARD, Reason.LINK, Reason.DEVICE, Reason.OUTSIDE_SHARD, Reason.SPARSE_MEMBER,
    Reason.NAME_NOT_UTF8, Reason.DATA_BEHIND,
)  # fmt: skip
MAX_HEADER = 2**20  # bytes that a header may take, with a long name in it
MAX_PADDING = 2**24  # bytes behind the end mark that are looked through: tar pads with some thousand zeros
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class TarSource(IndexedFile):
    """Samples of one tar shard: members that share their name up to the first dot.

    An image member (`.jpg`, `.png`, `.webp`, ...) and texts from `.json` (`caption`, `tags`, or with a
    language: `caption_zh`, `tags_en`, ...) or from `.txt` (the caption). A member whose name repeats begins a new
    sample; folders and names that begin with a dot are skipped.

    Nothing is ever unpacked. A sample with a link, a device, or a name that leads out of the shard is a bad sample.
    Of a shard that is cut, the samples before the cut are read, and one more row is the cut; so it is where
    data follows the end mark, as in two shards that were joined by `cat`.

    Args:
        location: the shard; one whose number of samples is known is not read before its first sample is.
        text_id: JSON field that names the text (`Data.text_id`); None: the captions name it.

    Raises:
        ValueError: the file is not a tar file, or it is compressed.
    """

    kind = "tar"

    def __init__(self, location: str | Path | Location, text_id: str | None = None):
        self._text_id = text_id
        location = as_location(location)
        super().__init__(location, location.samples)

    def _scan(self) -> Index:
        scan = _Scan()
        with self.location.open() as file:
            start = file.read(8)
            for magic, packer in COMPRESSED.items():
                if start.startswith(magic):
                    raise ValueError(
                        f"{self.name}: compressed with {packer}; samples are read at random, so unpack it first "
                        "(images do not become smaller by it)"
                    )
            size = file.seek(0, 2)
            file.seek(0)
            try:
                end = scan.members(file, size)
            except (tarfile.TarError, ValueError, RecursionError) as error:
                raise ValueError(f"{self.name}: not a tar shard ({error}); is it whole?") from error
            end = min(end, size)  # a damaged header may point anywhere
            file.seek(end)
            where = f"{self.name} at byte {end} of {size}"
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                scan.add(where, Reason.CUT_SHARD)
            elif any(file.read(2**20).strip(b"\0") for _ in range(MAX_PADDING >> 20)):
                scan.add(where, Reason.DATA_BEHIND)
        if not scan.names:
            scan.add(self.name, Reason.EMPTY_SHARD)
        return scan.index()

    def _rows(self, index: Index) -> int:
        return len(index["name_ends"])

    def __getitem__(self, index: int) -> Sample:
        found = self.index
        name = unpack_name(found, index)
        if problem := PROBLEMS[found["problems"][index]]:
            raise BadSample(problem, name)
        first, last = np.searchsorted(found["member_rows"], [index, index + 1])
        members = {
            found["suffixes"][suffix].item(): (offset, size)
            for suffix, offset, size in found["members"][first:last].tolist()
        }
        return assemble(name, members, lambda suffix, most: self._bytes(*members[suffix], name, most), self._text_id)


class _Headers:
    """A file as `tarfile` is to see it, which reads headers only: one that is damaged may ask for gigabytes."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell, self._file = file.seek, file.tell, file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


class _Scan:
    """The rows of an index, as they are found."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.problems: list[Reason | None] = []
        self._members: list[tuple[int, int, int, int]] = []
        self._suffixes: dict[str, int] = {}
        self._row_of: dict[str, int] = {}
        self._seen: set[tuple[int, str]] = set()

    def members(self, file: BinaryIO, size: int) -> int:
        """Takes the members of a tar file up to its end or a cut; returns the byte where that is."""
        headers: Any = _Headers(file)  # all that tarfile asks of a file that it reads
        with tarfile.open(fileobj=headers, mode="r:") as archive:
            try:
                while (member := archive.next()) is not None:
                    # A size below zero leads back, and round in a circle.
                    leads_back = member.size < 0 or archive.offset <= member.offset
                    if leads_back or (member.isfile() and member.offset_data + member.size > size):
                        return member.offset
                    self._take(member)
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every one
            except (tarfile.ReadError, ValueError, RecursionError):  # the latter two of damaged headers
                if not self.names:
                    raise
            return archive.offset

    def add(self, name: str, problem: Reason | None = None) -> None:
        """A row; it is not a sample if there is a problem."""
        self.names.append(name)
        self.problems.append(problem)

    def _take(self, member: tarfile.TarInfo) -> None:
        path = PurePosixPath(member.name)
        if member.isdir() or path.name.startswith("."):
            return
        name, suffix = split_name(member.name)
        row = self._row(name, suffix)
        if member.issym() or member.islnk():
            self.problems[row] = Reason.LINK
        elif not member.isfile():
            self.problems[row] = Reason.DEVICE
        elif path.is_absolute() or ".." in path.parts:
            self.problems[row] = Reason.OUTSIDE_SHARD
        elif member.issparse():
            self.problems[row] = Reason.SPARSE_MEMBER
        elif not _is_unicode(member.name):
            self.problems[row] = Reason.NAME_NOT_UTF8
        else:
            code = self._suffixes.setdefault(suffix, len(self._suffixes))
            self._members.append((row, code, member.offset_data, member.size))

    def _row(self, name: str, suffix: str) -> int:
        row = self._row_of.get(name)
        if row is None or (row, suffix) in self._seen:
            row = self._row_of[name] = len(self.names)
            self.add(name)
        self._seen.add((row, suffix))
        return row

    def index(self) -> Index:
        members = np.array(sorted(self._members, key=lambda member: member[0]), np.int64).reshape(-1, 4)
        return {
            **pack_names(self.names),
            "problems": np.array(list(map(PROBLEMS.index, self.problems)), np.int8),
            "member_rows": members[:, 0].copy(),
            "members": members[:, 1:].copy(),
            "suffixes": np.array(list(self._suffixes) or [""]),
        }


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def split_name(name: str) -> tuple[str, str]:
    """The name of the sample that a file belongs to, and the file's suffix: what follows the first dot of its name."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def assemble(name: str, suffixes: Collection[str], read: Callable[[str, int], bytes], text_id: str | None) -> Sample:
    """The sample of an image file, and of `.json` (captions, tags, fields) and `.txt` (a caption) next to it. BadSample
    if there is no image, or the texts cannot be used.

    Args:
        suffixes: of the files that there are.
        read: gives the content of the one with a suffix, of so many bytes at most.
        text_id: as of `TarSource`.
    """
    image = image_suffix(suffixes)
    if image is None:
        raise BadSample(Reason.NO_IMAGE_MEMBER, name)
    fields = as_object(read("json", MAX_TEXT_BYTES), name) if "json" in suffixes else {}
    captions, tags = texts_of(fields, name)
    if "txt" in suffixes:
        try:
            text = read("txt", MAX_TEXT_BYTES).removeprefix(BYTE_ORDER_MARK).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadSample(Reason.CAPTION_NOT_UTF8, name) from error
        check_text(text, name)
        captions.setdefault("", text)
    image_name = fields.get(IMAGE_ID, name)
    if not is_id(image_name):
        raise BadSample(Reason.MALFORMED_IMAGE_ID, name)
    text = text_name(captions, fields, text_id, name)
    return Sample(str(image_name), text, read(image, MAX_BYTES), captions, tags, fields)


def image_suffix(suffixes: Collection[str]) -> str | None:
    """Of the suffixes of a sample's files the one of its image; None: it has none."""
    return next((suffix for suffix in suffixes if suffix in IMAGE_SUFFIXES), None)


def texts_of(fields: Mapping, name: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Captions and tags by language of fields such as `caption`, `caption_zh`, `tags_en`; null means none. BadSample if
    a caption is not a text, or tags are not a list of texts."""
    captions, tags = {}, {}
    for key, value in fields.items():
        kind, _, language = key.partition("_")
        if kind not in ("caption", "tags") or value is None:
            continue
        if kind == "caption":
            if not isinstance(value, str):
                raise BadSample(Reason.MALFORMED_CAPTION, name)
            check_text(value, name)
            captions[language] = value
        else:
            if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
                raise BadSample(Reason.MALFORMED_TAGS, name)
            check_text("".join(value), name)
            tags[language] = tuple(tag for tag in value if not is_blank(tag))
    return captions, tags


def text_name(captions: Mapping[str, str], fields: Mapping, text_id: str | None, name: str) -> str:
    """What names the text: a field, or the captions themselves. BadSample if there is no caption, or no such field."""
    if not captions:
        raise BadSample(Reason.NO_CAPTION, name)
    if text_id is None:
        return "\n".join(captions.values())
    if fields.get(text_id) is None:
        raise BadSample(Reason.NO_FIELD, f"{name}, {text_id}")
    value = str(fields[text_id])
    check_text(value, name)
    return value


ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def _find_tars(folder: Path) -> dict[str, list[Path]]:
    """Shards, or those of folders that are called as splits, as `prepare --parts` writes them."""
    if paths := sorted(folder.glob("[!.]*.tar")):
        return {"": paths}
    splits = {one.name: sorted(one.glob("[!.]*.tar")) for one in folder.iterdir() if family(one.name) in SPLITS}
    order = sorted(splits, key=lambda name: (SPLITS.index(family(name)), name))
    return {name: splits[name] for name in order if splits[name]}


TAR = Layout(
    name="tar",
    files=".tar shards, or folders of them for train, val and test",
    find=_find_tars,
    fits=lambda location: isinstance(location, PipeOutput) or location.name.endswith(ARCHIVES),
    open=lambda location, data: TarSource(location, data.text_id),
    precedence=Precedence.SHARDS,
)


LOOKED_AT = 1000  # files of a folder, by which it is recognised


class FilesSource:
    """Files of one folder that share their name up to the first dot: `000000001.jpg`, `.txt`, `.json`; by name.

    What they hold is as in a tar shard. Names that begin with a dot are skipped.

    Args:
        folder: the folder itself; sub-folders are not looked into.
        text_id: JSON field that names the text; None: the captions name it.

    Raises:
        ValueError: there is no file in it.
    """

    def __init__(self, folder: str | Path, text_id: str | None = None):
        self.name, self.files = str(folder), [Path(folder)]
        self._text_id = text_id
        self._index: Index | None = None
        self._size = len(self.index["name_ends"])
        if not self._size:
            raise ValueError(f"{folder}: no files in this folder")
        self.release()

    @property
    def index(self) -> Index:
        """Names and suffixes, each sample's as one text."""
        if self._index is None:
            samples: dict[str, list[str]] = {}
            for entry in os.scandir(self.name):
                if entry.is_file() and not entry.name.startswith("."):
                    name, _ = split_name(entry.name)
                    samples.setdefault(name, []).append(entry.name)
            self._index = pack_names(["/".join(sorted(samples[name])) for name in sorted(samples)])
        return self._index

    def release(self) -> None:
        """Gives the list of files back; the next sample reads the folder again."""
        self._index = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Sample:
        if len(self.index["name_ends"]) != self._size:
            raise OSError(f"{self.name} has changed while in use")
        files = unpack_name(self.index, index).split("/")
        name, _ = split_name(files[0])
        paths = {split_name(file)[1]: Path(self.name, file) for file in files}
        sample = assemble(readable(name), paths, partial(_read_member, paths), self._text_id)
        suffix = image_suffix(paths)
        return replace(sample, image_file=str(paths[suffix]) if suffix else "")


def _read_member(paths: dict[str, Path], suffix: str, most: int) -> bytes:
    try:
        return read_file(paths[suffix], most)
    except FileNotFoundError as error:
        raise BadSample(Reason.MISSING_FILE, str(paths[suffix])) from error


def _holds_samples(folder: Path) -> bool:
    """Whether an image has a text of its name, among the first files of a folder."""
    suffixes: dict[str, set[str]] = {}
    for entry, _ in zip(os.scandir(folder), range(LOOKED_AT), strict=False):
        name, suffix = split_name(entry.name)
        suffixes.setdefault(name, set()).add(suffix)
    return any(found & IMAGE_SUFFIXES and found & {"txt", "json"} for found in suffixes.values())


def _find_folders(folder: Path) -> dict[str, list[Path]]:
    folders = [folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")]
    folders = [one for one in folders if _holds_samples(one)]
    return {"": folders} if folders else {}


FILES = Layout(
    name="files",
    files="images with a .txt or .json of their name",
    find=_find_folders,
    open=lambda location, data: FilesSource(location.name, data.text_id),
    precedence=Precedence.FILES,
)
