"""Several ranks on this machine without Paddle's launcher: their output is the terminal's, Ctrl-C is theirs.

One Paddle process uses one core for most of its work, so that N processes on N cores train faster than one with N
threads. Several machines, and GPUs: `python -m paddle.distributed.launch`.
"""

import contextlib
import ctypes
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ernie_vil2.device.runtime import surely_cpu

LAST_LINES = 20
LOOPBACK = "127.0.0.1"
STORE = "ERNIE_VIL2_STORE"
"""Environment variable of rank 0: the descriptor of the socket at which the others look for the store of all ranks."""
APART = 1.0
"""Seconds between two presses of Ctrl-C. What follows sooner is one, sent by the terminal and by who forwards it."""
STOPPED = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGHUP: 75}
"""Exit code of a run that a signal has stopped and that can go on from its checkpoint.

75 is EX_TEMPFAIL of <sysexits.h>, which asks for another try; a process that SIGTERM kills has another code, 143.
"""


def launched_rank() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks that a launcher started; 0 and 1 without a launcher."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0")), int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def start_ranks(processes: int, device: str, cpu: str) -> int | None:
    """Runs this process's command once for each of `--processes`, unless it is a rank itself; then its exit code.

    ValueError, which names the option for the CPU, if the device, as `Training.device` names it, is a GPU.
    """
    if "PADDLE_TRAINER_ID" in os.environ:
        return None
    gpu = not surely_cpu(device)
    if gpu and device == "auto":
        import paddle  # which takes seconds

        gpu = paddle.device.cuda.device_count() > 0
    if gpu:
        raise ValueError(
            f"--processes starts ranks on CPU, and here is a GPU: start the ranks by fleetrun {sys.argv[0]} ..., "
            f"or choose the CPU, {cpu}"
        )
    return run_ranks([sys.executable, *sys.argv], processes)


def rank_environments(ranks: int, store: socket.socket | None = None) -> list[dict[str, str]]:
    """For each rank the environment variables by which Paddle's ranks find each other over gloo; `store` listens for
    them until rank 0 does, which inherits it: without it, its port may be taken until then."""
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(ranks - bool(store))]
    endpoints = [f"{LOOPBACK}:{server.getsockname()[1]}" for server in [*filter(None, [store]), *sockets]]
    for server in sockets:
        server.close()
    common = {
        "PADDLE_TRAINERS_NUM": str(ranks),
        "PADDLE_LOCAL_SIZE": str(ranks),
        "PADDLE_DISTRI_BACKEND": "gloo",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "GLOG_minloglevel": os.environ.get("GLOG_minloglevel", "2"),  # noqa: SIM112  -- its name
    }
    return [
        {**common, "PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": endpoint}
        for rank, endpoint in enumerate(endpoints)
    ]


def run_ranks(command: Sequence[str], ranks: int, grace: float = 15.0) -> int:
    """Runs a command once for each rank and waits for all.

    A rank that fails ends the others: they are asked with SIGTERM, and killed after `grace` seconds. Then its number,
    its exit code or signal, and the last lines of its standard error are repeated on standard error. The signals of
    `STOPPED` reach the ranks, which decide themselves how to end: a rank with a code of `STOPPED` has agreed with the
    others, which get those seconds to end as well. A second Ctrl-C kills them. When this process is killed, they get
    SIGTERM (on Linux). Returns the exit code of the first rank that failed, or 0.
    """
    with socket.create_server((LOOPBACK, 0)) as store:
        environments = rank_environments(ranks, store)
        if sys.platform == "linux":  # where rank 0 can put it instead of Paddle's own
            environments[0][STORE] = str(store.fileno())
        members = [_Rank(command, environment) for environment in environments]
    ended: queue.Queue[int] = queue.Queue()  # the ranks in the order in which they end
    for number, member in enumerate(members):
        member.start_watching(number, ended)
    interrupted, hurried, second_ctrl_c = False, False, SecondCtrlC()

    def signal_all(number: int) -> None:
        for member in members:
            member.signal(number)

    def forward(number: int, _: object) -> None:
        nonlocal interrupted, hurried
        interrupted = True
        hurried = hurried or second_ctrl_c.is_this(number)
        if number == signal.SIGHUP:
            leave_closed_terminal()
        signal_all(signal.SIGKILL if hurried else number)

    previous = {number: signal.signal(number, forward) for number in heard()}
    failed: int | None = None
    report, deadline = False, None
    try:
        for _ in members:
            while (rank := _next(ended, deadline)) is None:
                signal_all(signal.SIGKILL)
                deadline = None
            if failed is None and members[rank].code:
                failed = rank
                deadline = time.monotonic() + grace
                if members[rank].code not in STOPPED.values():
                    report = not interrupted
                    signal_all(signal.SIGTERM)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if failed is None:
        return 0
    if report:
        print(members[failed].failure_report(f"rank {failed} of {ranks}"), file=sys.stderr, flush=True)
    code = STOPPED[signal.SIGINT] if hurried else members[failed].code
    return 128 - code if code < 0 else code


def heard() -> list[signal.Signals]:
    """The signals of `STOPPED`, without a SIGHUP that is ignored, as under `nohup`."""
    return [number for number in STOPPED if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


class SecondCtrlC:
    """Recognises the second Ctrl-C, of a user who will not wait any longer."""

    def __init__(self) -> None:
        self._first: float | None = None

    def is_this(self, number: int) -> bool:
        """Takes a signal that has come."""
        if number != signal.SIGINT:
            return False
        now = time.monotonic()
        self._first = self._first or now
        return now - self._first > APART


def leave_closed_terminal() -> None:
    """Lets standard output and error lead nowhere if nobody reads them any more: writing to them would be an error."""
    watched = select.poll()
    for descriptor in (1, 2):
        watched.register(descriptor, 0)  # errors alone
    for descriptor, _ in watched.poll(0):
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), descriptor)


def end_with_parent(parent: int | None = None, number: signal.Signals = signal.SIGTERM) -> None:
    """Lets the kernel send a signal to this process when its parent ends; elsewhere than on Linux, nothing.

    `parent` is the parent's process id, where it is known: it may have been killed before this was called.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), number)


class _Rank:
    """The process of one rank; its standard error passes through, and the end of it is kept."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]):
        self._process = subprocess.Popen(  # noqa: S603  -- this process's own command
            command,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            pass_fds=[int(environment[STORE])] if STORE in environment else [],
            preexec_fn=partial(end_with_parent, os.getpid()),
        )
        self._tail = b""
        self._reader = threading.Thread(target=self._pass_on, daemon=True)

    @property
    def code(self) -> int:
        return self._process.returncode

    def start_watching(self, rank: int, ended: queue.Queue[int]) -> None:
        """Passes its standard error on from now, and puts `rank` into the queue when it ends."""

        def wait() -> None:
            self._process.wait()
            ended.put(rank)

        self._reader.start()
        threading.Thread(target=wait, daemon=True).start()

    def signal(self, number: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def failure_report(self, name: str) -> str:
        # Not for ever: a loader process that outlives its rank may hold the pipe open.
        self._reader.join(timeout=2)
        end = f"{name} ended with code {self.code}"
        if self.code < 0:
            end += f" ({signal.Signals(-self.code).name})"
        if self.code == -signal.SIGKILL:
            end += ", as when the machine's memory runs out"
        lines = self._tail.decode(errors="replace").splitlines()[-LAST_LINES:]
        return "\n  ".join([f"{end}; its last lines:", *lines]) if lines else f"{end} and left no message"

    def _pass_on(self) -> None:
        stream = self._process.stderr
        if stream is None:  # never: it is a pipe
            return
        # Not line by line: a progress bar has none.
        while chunk := os.read(stream.fileno(), 1 << 16):
            with contextlib.suppress(OSError):  # a terminal that is closed must not stop the rank, which waits for us
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()
            self._tail = (self._tail + chunk)[-(1 << 14) :]


def _next(ended: queue.Queue[int], deadline: float | None) -> int | None:
    """The next rank that ends; None when none does before the deadline."""
    try:
        return ended.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        return None
