"""Cases of bad input, and functions from which their files are made."""

import json
import os
import signal
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.samples import Reason, Sample
from tests.support.image_formats import encode_image, make_smooth_image
from tests.support.shapes import write_tar

CAPTION = "a red disc"


@dataclass(frozen=True)
class Case:
    """A bad input and its expected result.

    Args:
        input: description of the input in docs/notes/bad_input_cases.md.
        make: writes the input into a folder and returns its location for `Data.train`.
        num_used: number of its samples that are used for training.
        skips: number of its samples that are skipped, by reason.
        error: part of the message of the error that ends the run at the start; no sample is then used or skipped.
        note: remark in docs/notes/bad_input_cases.md on how the input is used.
        remark: remark that is counted although the samples are used.
        check: checks the samples that are used.
        spoil: changes the folder between the scan and the first read.
        context: context in which the input is read.
        open: opens the location if it is not one for `Data.train`.
    """

    input: str
    make: Callable[[Path], Path | str]
    num_used: int = 0
    skips: Mapping[Reason, int] = field(default_factory=dict)
    error: str = ""
    note: str = ""
    remark: str = ""
    check: Callable[[Sequence[Sample]], None] = lambda samples: None
    spoil: Callable[[Path], None] = lambda folder: None
    context: Callable[[], AbstractContextManager] = nullcontext
    open: Callable[[str], object] = lambda position: open_sources([position])

    @property
    def result(self) -> str:
        """Result in docs/notes/bad_input_cases.md."""
        if self.error:
            return "stopped"
        results = []
        if self.num_used:
            results.append("used")
        if self.skips:
            results.append("skipped")
        return " / ".join(results)


class Endless(BaseException):
    """Error of an input that takes too long; no code that catches Exception catches it."""


@contextmanager
def bounded_time(seconds):
    """Raise Endless if the block takes longer."""

    def stop(*_):
        raise Endless

    previous_handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous_handler)


@contextmanager
def without_privileges():
    """Run the block as a user who does not own the files, because root may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


GOOD = encode_image(make_smooth_image())


def shard_writer(*samples):
    """Return `make` of a tar shard of samples (image, caption) or (image, caption, suffix of the image)."""

    def make(folder):
        members = []
        for number, (image, caption, *suffix) in enumerate(samples):
            members += [(f"{number}.{suffix[0] if suffix else 'jpg'}", image), (f"{number}.txt", to_bytes(caption))]
        return write_tar(folder / "a.tar", members)

    return make


def members_writer(*members):
    """Return `make` of a tar shard of members (name, content)."""
    return lambda folder: write_tar(folder / "a.tar", [(name, to_bytes(content)) for name, content in members])


def file_writer(name, content):
    """Return `make` of a file."""

    def make(folder):
        (folder / name).write_bytes(to_bytes(content))
        return folder / name

    return make


def to_bytes(content):
    return content if isinstance(content, bytes) else content.encode()


def dump_json(**fields):
    return json.dumps(fields, ensure_ascii=False).encode()


def make_header(name, size=0, **fields):
    """Return the header of a tar member, as bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def make_member(name, content=b"", **fields):
    """Return a tar member, as bytes."""
    return make_header(name, len(content), **fields) + content + bytes(-len(content) % 512)
