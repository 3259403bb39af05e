"""Samples as files in a folder, such as img2dataset writes with `output_format=files`."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from ernie_vil2.data.readers.indexed_file import Index, pack_names, unpack_name
from ernie_vil2.data.readers.layout import Layout, Precedence
from ernie_vil2.data.readers.tar import assemble, image_suffix, split_name
from ernie_vil2.data.samples import BadSample, Reason, Sample
from ernie_vil2.data.source_files import IMAGE_SUFFIXES, read_file, readable

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
        sample = assemble(readable(name), paths, partial(_read, paths), self._text_id)
        suffix = image_suffix(paths)
        return replace(sample, image_file=str(paths[suffix]) if suffix else "")


def _read(paths: dict[str, Path], suffix: str, most: int) -> bytes:
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


def _find(folder: Path) -> dict[str, list[Path]]:
    folders = [folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")]
    folders = [one for one in folders if _holds_samples(one)]
    return {"": folders} if folders else {}


FILES = Layout(
    name="files",
    files="images with a .txt or .json of their name",
    find=_find,
    open=lambda location, data: FilesSource(location.name, data.text_id),
    precedence=Precedence.FILES,
)
