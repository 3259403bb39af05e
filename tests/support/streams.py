"""Streams of small shards whose samples are named by their numbers, and a record of the files that are opened."""

from pathlib import Path

from ernie_vil2.config import load_config
from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.stream import SampleStream
from tests.support.shapes import write_tsv


def write_shard(path, samples, prefix=""):
    """Write a shard of samples whose names and captions are their numbers."""
    return write_tsv(path, [(f"{prefix}{number}", f"{prefix}{number}", b"-") for number in samples])


def open_stream(data, *overrides):
    return SampleStream(load_config(None, [f"Data.train={data}", *overrides]))


def read_names(stream, positions):
    """Return the source and the name of the image at every position."""
    return [(source, sample.image_name) for source, sample in map(stream.__getitem__, positions)]


def record_opened_files(monkeypatch):
    """Return a set to which the names of local files are added when they are opened."""
    names = set()
    open_file = LocalFile.open

    def open_and_record(self):
        names.add(Path(self.name).name)
        return open_file(self)

    monkeypatch.setattr(LocalFile, "open", open_and_record)
    return names
