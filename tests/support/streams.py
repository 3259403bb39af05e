"""Streams of small shards whose samples are named by their numbers."""

from ernie_vil2.config import load_config
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
