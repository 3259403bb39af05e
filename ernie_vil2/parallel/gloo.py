"""What gloo alone needs, and no other backend: one group, barriers that wait, and the name of a rank that is lost.

gloo gives a rank up that comes to a collective 30 seconds after the first, in C++, and fails to connect more than one
group of three ranks and more.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import paddle.distributed as dist

from ernie_vil2.io.terminal import LostRank
from ernie_vil2.parallel.store import wait_for_all_ranks


@contextlib.contextmanager
def one_group_of_all_ranks() -> Iterator[None]:
    """Over gloo, groups of all ranks that are asked for within the block are the one that there is.

    fleet asks for more of them, and from three ranks on gloo often fails to connect the second ("Connection refused").
    """
    new_group = dist.new_group

    def shared(ranks: list[int] | None = None, *arguments: Any, **options: Any) -> Any:
        if dist.get_backend() == "GLOO" and (ranks is None or len(ranks) == dist.get_world_size()):
            return dist.get_group(0)
        return new_group(ranks, *arguments, **options)

    dist.new_group = shared
    try:
        yield
    finally:
        dist.new_group = new_group


def barrier() -> None:
    """Waits until every rank has come here as often as this one; a collective of its own.

    Before a collective of gloo: it gives a rank up that comes 30 seconds after the first, as one does that has written
    a checkpoint or scored a validation set for all. Other backends wait by themselves.

    Raises:
        LostRank: as `wait_for_all_ranks`.
    """
    if dist.get_world_size() > 1 and dist.get_backend() == "GLOO":
        wait_for_all_ranks("barrier")


@contextlib.contextmanager
def lost_ranks_named(find: Callable[[], None], wait: float) -> Iterator[None]:
    """Within the block, that gloo has lost a rank is a LostRank that says which.

    Args:
        find: ends this process, for where gloo fails in C++.
        wait: seconds before the error, so that a launcher finds the rank that has died before this one, and names it.
    """
    try:
        with _before_abort(find):
            yield
    except RuntimeError as error:
        # What gloo calls a time-out can also be a connection that the other side has closed.
        if "gloo/transport" not in str(error):
            raise
        time.sleep(wait)
        raise LostRank(
            f"{_peer(str(error))} has died, or did not answer rank {dist.get_rank()} for 30 seconds; look into its log"
        ) from error


@contextlib.contextmanager
def _before_abort(action: Callable[[], None]) -> Iterator[None]:
    """Within the block, `action` runs before C++ ends the process for an exception that nobody catches.

    So Paddle ends where gloo fails while data parallel averages gradients. Where there is no GNU C++ library, nothing.
    """
    try:
        set_terminate = ctypes.CDLL("libstdc++.so.6")["_ZSt13set_terminatePFvvE"]
    except (OSError, AttributeError):
        yield
        return
    handler = ctypes.CFUNCTYPE(None)(action)
    set_terminate.restype = ctypes.c_void_p
    before = set_terminate(handler)
    try:
        yield
    finally:
        set_terminate(ctypes.c_void_p(before))


def _peer(message: str) -> str:
    """The rank that gloo complains of; it does not always say which."""
    named = re.search(r"pair_rank = (\d+)", message)
    if named:
        return f"rank {named[1]}"
    return f"rank {1 - dist.get_rank()}" if dist.get_world_size() == 2 else "another rank"
