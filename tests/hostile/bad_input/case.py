"""What a case of bad input is, and pieces that the cases are made of."""

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
    """One bad input, and what becomes of it.

    Args:
        input: what is wrong, as docs/bad_input.md says it.
        make: writes it into a folder; returns what `Data.train` names.
        used: samples of it that are trained with.
        skipped: how many are not, by reason.
        stopped: what the error says that ends the run before it begins; then nothing is used or skipped.
        note: what is made of it, for the page.
        remark: what is counted about it although it is used.
        check: looks at the samples that are used.
        spoil: what happens to the folder between the scan and the first read.
        within: in which the input is read.
        opened: opens what `make` returned, if that is not for `Data.train`.
    """

    input: str
    make: Callable[[Path], Path | str]
    used: int = 0
    skipped: Mapping[Reason, int] = field(default_factory=dict)
    stopped: str = ""
    note: str = ""
    remark: str = ""
    check: Callable[[Sequence[Sample]], None] = lambda samples: None
    spoil: Callable[[Path], None] = lambda folder: None
    within: Callable[[], AbstractContextManager] = nullcontext
    opened: Callable[[str], object] = lambda position: open_sources([position])

    @property
    def result(self) -> str:
        """For the page."""
        if self.stopped:
            return "stopped"
        return " / ".join(["used"] * bool(self.used) + ["skipped"] * bool(self.skipped))


class Endless(BaseException):
    """An input took too long; nothing that is read may catch this."""


@contextmanager
def bounded_time(seconds):
    """Ends what takes longer."""

    def stop(*_):
        raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def without_privileges():
    """Reads as a user who does not own the files, and not as root, who may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


GOOD = encode_image(make_smooth_image())


def shard(*samples):
    """`make` of a tar shard of samples as (image, caption), or (image, caption, suffix of the image)."""

    def make(folder):
        members = []
        for number, (image, caption, *suffix) in enumerate(samples):
            members += [(f"{number}.{suffix[0] if suffix else 'jpg'}", image), (f"{number}.txt", as_bytes(caption))]
        return write_tar(folder / "a.tar", members)

    return make


def members(*named):
    """`make` of a tar shard of members as (name, content)."""
    return lambda folder: write_tar(folder / "a.tar", [(name, as_bytes(content)) for name, content in named])


def file(name, content):
    """`make` of one file."""

    def make(folder):
        (folder / name).write_bytes(as_bytes(content))
        return folder / name

    return make


def as_bytes(content):
    return content if isinstance(content, bytes) else content.encode()


def as_json(**fields):
    return json.dumps(fields, ensure_ascii=False).encode()


def header(name, size=0, **fields):
    """The header of a tar member, as bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name, content=b"", **fields):
    """A tar member, as bytes."""
    return header(name, len(content), **fields) + content + bytes(-len(content) % 512)
