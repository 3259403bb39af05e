"""Servers that refuse, fail or break off, and commands that nobody has allowed."""

import os
import shutil
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ernie_vil2.data.readers import remote, source
from ernie_vil2.data.samples import Reason
from tests.hostile.bad_input.case import CAPTION, GOOD, Case, member
from tests.support.misbehaving_server import MisbehavingServer

SHARD = member("0.png", GOOD) + member("0.txt", CAPTION.encode()) + bytes(1024)
AGAIN = "; attempts made: 3. Try again later"


@cache
def server():
    return MisbehavingServer().__enter__()  # it ends with this process


@contextmanager
def impatient():
    """With a cache of its own, no pauses, and a quarter of a second of silence for those that never answer."""
    # A fetch ahead may still write into the cache while it is removed.
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        patch.setenv("ERNIE_VIL2_CACHE", folder)
        patch.setattr(remote, "PAUSE", 0)
        patch.setattr(source, "DEADLINE", 0)
        yield patch


@contextmanager
def very_impatient():
    with impatient() as patch:
        patch.setattr(remote, "TIMEOUT", 0.25)
        patch.setattr(remote, "SLOWEST", 2**30)
        yield


def served(input, manner, used=0, stopped="", within=impatient, **result):
    """A shard at an address, of a server that behaves so."""

    def make(folder):
        server().files["a.tar"] = SHARD
        server().asked.clear()
        return f"{server().address}/{manner}/a.tar"

    return Case(input, make, used=used, stopped=stopped, within=within, **result)


def gone(folder):
    """The shard disappears from the server and from the cache."""
    server().files.pop("a.tar")
    shutil.rmtree(Path(os.environ["ERNIE_VIL2_CACHE"], "shards"))


CASES = [
    served("503 Service Unavailable", "503", stopped=f"the server answers 503 Service Unavailable{AGAIN}"),
    served("connection that is closed in the middle of the file", "half", stopped=f"the transfer broke off{AGAIN}"),
    Case("port on which no server runs", lambda folder: "http://127.0.0.1:1/a.tar", within=impatient,
         stopped=f"the connection is refused; check the address, and that the server runs{AGAIN}"),
    Case("name that no server has", lambda folder: "http://nowhere.invalid/a.tar", within=impatient,
         stopped=f"no server of this name is found; check the address and the network{AGAIN}"),
    served("server that accepts and says nothing", "silent", within=very_impatient,
           stopped="seconds, or hardly anything; attempts made: 3. Try again later"),
    served("file that the server has no more while a run goes on", "well", skipped={Reason.NOT_FETCHED: 1}, spoil=gone),
    Case("command in a configuration or list, without --allow-pipes", lambda folder: f"pipe:cat {folder}/a.tar",
         stopped="a command is run only with --allow-pipes; read it before you add that"),
]  # fmt: skip
