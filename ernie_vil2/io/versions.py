"""The version that each format of this package names, and the sentence for a file of another one."""

import os
import reprlib
from typing import Any

_BRIEF = reprlib.Repr()  # a stranger's file may hold anything in place of a number
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 40


class OtherVersion(ValueError):  # noqa: N818  -- named by what has happened
    """A file names another version of its format than the one that is read, or none."""


def check_version(found: Any, expected: int, path: str | os.PathLike, remedy: str) -> None:
    """Raise OtherVersion unless a file names the version that is read.

    Args:
        found: what the file says under `version`; None if it says nothing.
        path: of the file, for the message.
        remedy: what to do with a file of another version.
    """
    if isinstance(found, int) and not isinstance(found, bool) and found == expected:
        return
    named = "no version" if found is None else f"version {_BRIEF.repr(found)}"
    raise OtherVersion(f"{path} names {named} of its format, and version {expected} is read here; {remedy}")
