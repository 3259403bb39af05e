"""Addresses without a server, and commands that are not allowed; test_remote.py has servers that fail."""

from contextlib import contextmanager
from tempfile import TemporaryDirectory

import pytest

from ernie_vil2.data.readers import remote, source
from tests.hostile.bad_input.case import Case

ADVICE = "; attempts made: 3. Try again later"


@contextmanager
def disable_pauses():
    """Retry without pauses in the block, and with an empty cache."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setenv("ERNIE_VIL2_CACHE", folder)
        patch.setattr(remote, "RETRY_PAUSE", 0)
        patch.setattr(source, "RETRY_SECONDS", 0)
        yield


CASES = [
    Case("port on which no server runs", lambda folder: "http://127.0.0.1:1/a.tar", context=disable_pauses,
         error=f"the connection is refused; check the address, and that the server runs{ADVICE}"),
    Case("name that no server has", lambda folder: "http://nowhere.invalid/a.tar", context=disable_pauses,
         error=f"no server of this name is found; check the address and the network{ADVICE}"),
    Case("command in a configuration or list, without --allow-pipes", lambda folder: f"pipe:cat {folder}/a.tar",
         error="a command is run only with --allow-pipes; read it before you add that"),
]  # fmt: skip
