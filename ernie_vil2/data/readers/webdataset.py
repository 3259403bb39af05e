"""Samples whose files share a name: in tar shards of the WebDataset layout, or side by side in a folder."""

import os
import tarfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from ernie_vil2.data.readers.layout import SPLITS, Layout, Precedence, canonical_split
from ernie_vil2.data.readers.locations import Location, to_location
from ernie_vil2.data.readers.remote import PipeOutput
from ernie_vil2.data.readers.source import Index, IndexedFile, pack_names, unpack_name
from ernie_vil2.data.samples import (
    MAX_BYTES,
    MAX_TEXT_BYTES,
    BadSample,
    Reason,
    Sample,
    check_text,
    is_blank,
    is_id,
    parse_object,
)
from ernie_vil2.data.source_files import BYTE_ORDER_MARK, IMAGE_SUFFIXES, decode_path, read_file

# Files of a sample that are read. The index leaves out all others: names such as "img 3.5.jpg", whose suffix begins at
# the first dot, could give a shard as many suffixes as members, and each takes as much memory as the longest.
READ_SUFFIXES = IMAGE_SUFFIXES | {"json", "txt"}
IMAGE_ID = "image_id"  # JSON field that names the image, if several samples share one; otherwise its file name does

# ---- Samples ----


def split_file_name(name: str) -> tuple[str, str]:
    """Return the name of the sample that a file belongs to, and the file's suffix: all after the first dot."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def find_image_suffix(suffixes: Collection[str]) -> str | None:
    """Return the suffix of the image among the files of a sample; None if there is no image."""
    return next((suffix for suffix in suffixes if suffix in IMAGE_SUFFIXES), None)


def assemble_sample(
    name: str, suffixes: Collection[str], read: Callable[[str, int], bytes], text_id: str | None
) -> Sample:
    """Make a sample from an image file and the `.json` (captions, tags, fields) and `.txt` (a caption) next to it.

    Args:
        name: name that the files share.
        suffixes: suffixes of the files that exist.
        read: returns the content of a file, given its suffix and the largest size in bytes that it may have.
        text_id: as for `TarSource`.

    Raises:
        BadSample: there is no image, or the texts cannot be used.
    """
    image_suffix = find_image_suffix(suffixes)
    if image_suffix is None:
        raise BadSample(Reason.NO_IMAGE_MEMBER, name)

    # The JSON object comes first: its `caption` counts even if the .txt file has another one.
    fields = parse_object(read("json", MAX_TEXT_BYTES), name) if "json" in suffixes else {}
    captions, tags = parse_texts(fields, name)
    if "txt" in suffixes:
        try:
            text = read("txt", MAX_TEXT_BYTES).removeprefix(BYTE_ORDER_MARK).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadSample(Reason.CAPTION_NOT_UTF8, name) from error
        check_text(text, name)
        # The caption without a language. The end of the last line is none of its letters: with it, the text would not
        # be equal to the same one in another file.
        captions.setdefault("", text.rstrip("\r\n"))

    image_name = fields.get(IMAGE_ID)
    if image_name is None:
        image_name = name
    if not is_id(image_name):
        raise BadSample(Reason.MALFORMED_IMAGE_ID, name)
    text_name = choose_text_name(captions, fields, text_id, name)
    # The image is read last: it is not needed if something else is wrong.
    image = read(image_suffix, MAX_BYTES)
    return Sample(str(image_name), text_name, image, captions, tags, fields)


def parse_texts(fields: Mapping, name: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return captions and tags by language from fields such as `caption`, `caption_zh` and `tags_en`.

    A field that is null is left out.

    Raises:
        BadSample: a caption is not a text, or tags are not a list of texts.
    """
    captions, tags = {}, {}
    for key, value in fields.items():
        kind, _, language = key.partition("_")
        if value is None:
            continue
        if kind == "caption":
            if not isinstance(value, str):
                raise BadSample(Reason.MALFORMED_CAPTION, name)
            check_text(value, name)
            captions[language] = value
        elif kind == "tags":
            if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
                raise BadSample(Reason.MALFORMED_TAGS, name)
            check_text("".join(value), name)
            tags[language] = tuple(tag for tag in value if not is_blank(tag))
    return captions, tags


def choose_text_name(captions: Mapping[str, str], fields: Mapping, text_id: str | None, name: str) -> str:
    """Return the name of a sample's text: the value of a field, or the captions themselves.

    Args:
        captions: captions by language.
        fields: fields of the sample.
        text_id: field that names the text; None: the captions do.
        name: name of the sample, for errors.

    Raises:
        BadSample: there is no caption, or the field is missing or blank.
    """
    if not captions:
        raise BadSample(Reason.NO_CAPTION, name)
    if text_id is None:
        return "\n".join(captions.values())
    value = fields.get(text_id)
    text_name = str(value)
    # NaN, by which pandas marks what is missing, is unequal to itself. All rows without an id would share one text.
    if value is None or value != value or not text_name.strip():
        raise BadSample(Reason.NO_FIELD, f"{name}, {text_id}")
    check_text(text_name, name)
    return text_name


# ---- Tar shards ----

# Why a row of the index is not a sample. The index holds positions in this tuple, so their order must not change
# unless `INDEX_VERSION` does.
PROBLEMS = (
    None, Reason.CUT_SHARD, Reason.EMPTY_SHARD, Reason.LINK, Reason.DEVICE, Reason.OUTSIDE_SHARD, Reason.SPARSE_MEMBER,
    Reason.NAME_NOT_UTF8, Reason.DATA_BEHIND,
)  # fmt: skip
MAX_HEADER_BYTES = 2**20  # a header takes 512 bytes, or more with a long name; a damaged one may claim gigabytes
# Bytes after the end mark that are searched for more data. `tar` itself pads a shard with some thousand zeros.
MAX_PADDING_BYTES = 2**24
PADDING_CHUNK = 2**20  # bytes of it that are read at once
# First bytes of compressed files, which may have any name.
COMPRESSION_BY_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
ARCHIVE_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


class TarSource(IndexedFile):
    """Samples of a tar shard: members that share their name up to the first dot.

    A sample has an image (`.jpg`, `.png`, `.webp`, ...) and texts from `.json` (`caption`, `tags`, or with a language
    `caption_zh`, `tags_en`, ...) or from `.txt` (the caption). A member whose name repeats begins a new sample. Folders
    and names that begin with a dot are skipped.

    Nothing is ever unpacked. A sample with a link, a device, or a name that leads out of the shard is a bad sample. If
    a shard is cut off, its samples before the cut are read, and one more row is a bad sample that reports the cut. It
    is the same with data after the end mark, as in two shards that were joined by `cat`.

    Args:
        location: the shard. If its number of samples is known, it is not scanned before a sample is read.
        text_id: JSON field that names the text (`Data.text_id`); None: the captions do.

    Raises:
        ValueError: the file is no tar file, or it is compressed.
    """

    kind = "tar"

    def __init__(self, location: str | Path | Location, text_id: str | None = None):
        self._text_id = text_id
        location = to_location(location)
        super().__init__(location, location.num_samples)

    def _scan(self) -> Index:
        try:
            return self._scan_members()
        except ValueError:
            # Otherwise the error page that a command has printed would be read again once the server answers.
            if isinstance(self.location, PipeOutput):
                self.location.forget()
            raise

    def _scan_members(self) -> Index:
        builder = _TarIndexBuilder()
        with self.location.open() as file:
            self._check_uncompressed(file)
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            try:
                end = builder.add_members(file, size)
            except (tarfile.TarError, ValueError, RecursionError) as error:
                raise ValueError(f"{self.name}: not a tar shard ({error}); is it whole?") from error

            # The members should be followed by zeros only; the first block of zeros is the end mark.
            end = min(end, size)  # a damaged header may point anywhere
            file.seek(end)
            place = f"{self.name} at byte {end} of {size}"
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                builder.add_row(place, Reason.CUT_SHARD)
            elif _has_data(file):
                builder.add_row(place, Reason.DATA_BEHIND)
        if not builder.names:
            builder.add_row(self.name, Reason.EMPTY_SHARD)
        return builder.make_index()

    def _check_uncompressed(self, file: BinaryIO) -> None:
        magic = file.read(8)
        for beginning, compression in COMPRESSION_BY_MAGIC.items():
            if magic.startswith(beginning):
                raise ValueError(
                    f"{self.name}: compressed with {compression}; samples are read at random, so unpack it first "
                    "(compression does not make images smaller)"
                )

    def _count_rows(self, index: Index) -> int:
        return len(index["name_ends"])

    def __getitem__(self, row: int) -> Sample:
        index = self.index
        name = unpack_name(index, row)
        problem = PROBLEMS[index["problems"][row]]
        if problem:
            raise BadSample(problem, name)
        first, last = np.searchsorted(index["member_rows"], [row, row + 1])
        positions: dict[str, tuple[int, int]] = {}
        for suffix_number, offset, size in index["members"][first:last].tolist():
            suffix = index["suffixes"][suffix_number].item()
            positions[suffix] = offset, size

        def read_member(suffix: str, max_bytes: int) -> bytes:
            return self._read_bytes(*positions[suffix], name, max_bytes)

        return assemble_sample(name, positions, read_member, self._text_id)


class _HeaderReader:
    """File that refuses to read more than a header; `tarfile` reads nothing else, unless a header is damaged."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell = file.seek, file.tell
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


class _TarIndexBuilder:
    """Collects the rows of a tar shard's index in the order of the members."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.problems: list[Reason | None] = []
        self._members: list[tuple[int, int, int, int]] = []  # row, number of the suffix, offset, size
        self._suffixes: dict[str, int] = {}
        self._rows_by_name: dict[str, int] = {}
        self._suffixes_of_rows: set[tuple[int, str]] = set()

    def add_members(self, file: BinaryIO, size: int) -> int:
        """Add the members of a tar file of this size; return the byte at which they end or are cut off."""
        headers: Any = _HeaderReader(file)  # has all the methods that tarfile calls
        with tarfile.open(fileobj=headers, mode="r:") as archive:
            try:
                while (member := archive.next()) is not None:
                    # With a negative size, tarfile would go back and read in a circle.
                    goes_back = member.size < 0 or archive.offset <= member.offset
                    is_cut_off = member.isfile() and member.offset_data + member.size > size
                    if goes_back or is_cut_off:
                        return member.offset
                    self._add_member(member)
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them in memory
            except (tarfile.ReadError, ValueError, RecursionError):  # damaged headers cause the latter two
                # The members before the damage are used. A file without any is no tar file.
                if not self.names:
                    raise
            return archive.offset

    def add_row(self, name: str, problem: Reason | None = None) -> None:
        """Add a row, which is a bad sample if there is a problem."""
        self.names.append(name)
        self.problems.append(problem)

    def _add_member(self, member: tarfile.TarInfo) -> None:
        path = PurePosixPath(member.name)
        if member.isdir() or path.name.startswith("."):
            return
        # A member that cannot be used still belongs to a sample, which is a bad one then.
        name, suffix = split_file_name(member.name)
        row = self._find_row(name, suffix)
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
        elif suffix in READ_SUFFIXES:
            suffix_number = self._suffixes.setdefault(suffix, len(self._suffixes))
            self._members.append((row, suffix_number, member.offset_data, member.size))

    def _find_row(self, name: str, suffix: str) -> int:
        """Return the row of a member; a new one if the sample of this name already has a file with this suffix."""
        row = self._rows_by_name.get(name)
        if row is None or (row, suffix) in self._suffixes_of_rows:
            row = len(self.names)
            self._rows_by_name[name] = row
            self.add_row(name)
        self._suffixes_of_rows.add((row, suffix))
        return row

    def make_index(self) -> Index:
        """Return the index as arrays, the members sorted by row."""
        # The members of a sample need not be next to each other in the shard.
        members = np.array(sorted(self._members, key=lambda member: member[0]), np.int64).reshape(-1, 4)
        return {
            **pack_names(self.names),
            "problems": np.array(list(map(PROBLEMS.index, self.problems)), np.int8),
            "member_rows": members[:, 0].copy(),  # contiguous, so that a search reads no other column
            "members": members[:, 1:].copy(),
            "suffixes": np.array(list(self._suffixes), np.str_),
        }


def _has_data(file: BinaryIO) -> bool:
    """Return whether the next MAX_PADDING_BYTES contain anything but zeros."""
    for _ in range(MAX_PADDING_BYTES // PADDING_CHUNK):
        if file.read(PADDING_CHUNK).strip(b"\0"):
            return True
    return False


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _find_tars(folder: Path) -> dict[str, list[Path]]:
    """Return the shards in a folder; if there are none, those in its folders of splits, as `prepare --parts` writes."""
    paths = sorted(folder.glob("[!.]*.tar"))
    if paths:
        return {"": paths}
    names = [entry.name for entry in folder.iterdir() if canonical_split(entry.name) in SPLITS]
    names.sort(key=lambda name: (SPLITS.index(canonical_split(name)), name))
    splits: dict[str, list[Path]] = {}
    for name in names:
        paths = sorted((folder / name).glob("[!.]*.tar"))
        if paths:
            splits[name] = paths
    return splits


TAR = Layout(
    name="tar",
    file_description=".tar shards, or folders of them for train, val and test",
    find=_find_tars,
    # Compressed archives are accepted so that the source can say how to unpack them.
    accepts=lambda location: isinstance(location, PipeOutput) or location.name.endswith(ARCHIVE_SUFFIXES),
    open=lambda location, data: TarSource(location, data.text_id),
    precedence=Precedence.SHARDS,
)


# ---- Files in a folder ----


class FilesSource:
    """Samples in one folder: files that share their name up to the first dot, such as `000000001.jpg`, `.txt`, `.json`.

    Samples are sorted by name, and have the same files as in a tar shard. Names that begin with a dot are skipped.
    img2dataset writes such folders with `output_format=files`.

    Args:
        folder: the folder itself; sub-folders are ignored.
        text_id: JSON field that names the text; None: the captions do.

    Raises:
        ValueError: the folder has no file.
    """

    def __init__(self, folder: str | Path, text_id: str | None = None):
        self.name = str(folder)
        self.files = [Path(folder)]  # the folder stands for its files, which are listed when a sample is read
        self._text_id = text_id
        self._index: Index | None = None
        self._size = len(self.index["name_ends"])
        if not self._size:
            raise ValueError(f"{folder}: no files in this folder")
        self.release()  # the lists of a source of thousands of folders would fill the memory

    @property
    def index(self) -> Index:
        """Names of the files of each sample, joined by slashes; samples and files are sorted by name."""
        if self._index is None:
            file_names: dict[str, list[str]] = {}
            with os.scandir(self.name) as entries:
                for entry in entries:
                    if entry.is_file() and not entry.name.startswith("."):
                        name, _ = split_file_name(entry.name)
                        file_names.setdefault(name, []).append(entry.name)
            self._index = pack_names(["/".join(sorted(file_names[name])) for name in sorted(file_names)])
        return self._index

    def release(self) -> None:
        """Free the list of files; reading the next sample lists the folder again."""
        self._index = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Sample:
        if len(self.index["name_ends"]) != self._size:
            raise OSError(f"{self.name} has changed while in use")
        file_names = unpack_name(self.index, index).split("/")
        name, _ = split_file_name(file_names[0])
        paths = {split_file_name(file_name)[1]: Path(self.name, file_name) for file_name in file_names}

        def read_with_suffix(suffix: str, max_bytes: int) -> bytes:
            try:
                return read_file(paths[suffix], max_bytes)
            except FileNotFoundError as error:
                raise BadSample(Reason.MISSING_FILE, str(paths[suffix])) from error

        sample = assemble_sample(decode_path(name), paths, read_with_suffix, self._text_id)
        image_suffix = find_image_suffix(paths)
        assert image_suffix is not None  # `assemble_sample` has found it  # noqa: S101
        return replace(sample, image_file=str(paths[image_suffix]))


def _holds_samples(folder: Path) -> bool:
    """Return whether an image in a folder has a text of the same name.

    A folder that may not be listed, such as `lost+found`, counts as one without samples.
    """
    # Many file systems list files in the order in which they were made, which may be all images before all texts. So
    # the search ends only with the first pair, or with the last file.
    images: set[str] = set()
    texts: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, suffix = split_file_name(entry.name)
                if suffix in IMAGE_SUFFIXES:
                    images.add(name)
                elif suffix in ("txt", "json"):
                    texts.add(name)
                if name in images and name in texts:
                    return True
    except PermissionError:
        pass
    return False


def _find_folders(folder: Path) -> dict[str, list[Path]]:
    subfolders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    folders = [candidate for candidate in (folder, *subfolders) if _holds_samples(candidate)]
    return {"": folders} if folders else {}


FILES = Layout(
    name="files",
    file_description="images with a .txt or .json of their name",
    find=_find_folders,
    open=lambda location, data: FilesSource(location.name, data.text_id),
    precedence=Precedence.FILES,
)
