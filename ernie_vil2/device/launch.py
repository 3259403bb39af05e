"""Ranks on this machine without Paddle's launcher; they share the terminal and its Ctrl-C.

One Paddle process keeps one core busy for most of its work, so that N processes on N cores train faster than one with N
threads. For several machines, and for GPUs, use `python -m paddle.distributed.launch`.
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

from ernie_vil2.device.runtime import is_surely_cpu

# Lines and bytes of a rank's standard error that are repeated if it fails: a whole traceback of usual length.
LAST_LINES = 20
_TAIL_BYTES = 1 << 14
# Seconds for which the last output of a failed rank is waited for.
_TAIL_PATIENCE = 2
LOOPBACK = "127.0.0.1"
# Environment variable of rank 0: descriptor of the socket where the other ranks look for the store of all ranks.
STORE_VARIABLE = "ERNIE_VIL2_STORE"
# Seconds between two presses of Ctrl-C. A signal that follows sooner is the same press, which the terminal sends and a
# parent process forwards.
CTRL_C_INTERVAL = 1.0
# Exit codes of a run that a signal has stopped and that can continue from its checkpoint. 75 is EX_TEMPFAIL of
# <sysexits.h>, which asks for another try; a process that SIGTERM kills has another code, 143.
STOP_EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGHUP: 75}


def launched_rank() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks that a launcher started; 0 and 1 without a launcher."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0")), int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def start_ranks(num_processes: int, device: str, cpu_option: str) -> int | None:
    """Run the command of this process once for each of `--processes`, unless this process is a rank itself.

    Args:
        num_processes: number of ranks.
        device: device as `Training.device` names it.
        cpu_option: option that chooses the CPU, for the message.

    Returns:
        Exit code for this process; None if it is a rank and has to do the work.

    Raises:
        ValueError: the device is a GPU.
    """
    if "PADDLE_TRAINER_ID" in os.environ:
        return None
    has_gpu = not is_surely_cpu(device)
    if has_gpu and device.lower() == "auto":
        import paddle  # takes seconds

        has_gpu = paddle.device.cuda.device_count() > 0
    if has_gpu:
        raise ValueError(
            f"--processes starts ranks on CPU, and device {device} is a GPU: start the ranks by fleetrun {sys.argv[0]} "
            f"..., or choose the CPU, {cpu_option}"
        )
    return run_ranks([sys.executable, *sys.argv], num_processes)


def rank_environments(num_ranks: int, store: socket.socket | None = None) -> list[dict[str, str]]:
    """Return for each rank the environment variables with which Paddle's ranks find each other over gloo.

    Args:
        num_ranks: number of ranks.
        store: listening socket that rank 0 inherits, so that nobody else takes its port before. None: rank 0 opens a
            free port itself, which another process may take first.
    """
    # The system chooses free ports. All sockets stay open until each has one, so that no port is chosen twice.
    num_sockets = num_ranks - 1 if store else num_ranks
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(num_sockets)]
    servers = [store, *sockets] if store else sockets
    endpoints = [f"{LOOPBACK}:{server.getsockname()[1]}" for server in servers]
    for server in sockets:
        server.close()

    common = {
        "PADDLE_TRAINERS_NUM": str(num_ranks),
        "PADDLE_LOCAL_SIZE": str(num_ranks),
        "PADDLE_DISTRI_BACKEND": "gloo",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "GLOG_minloglevel": os.environ.get("GLOG_minloglevel", "2"),  # noqa: SIM112  -- its name
    }
    environments = []
    for rank, endpoint in enumerate(endpoints):
        environments.append({**common, "PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": endpoint})
    return environments


def run_ranks(command: Sequence[str], num_ranks: int, grace: float = 15.0) -> int:
    """Run a command once for each rank and wait for all of them.

    If a rank fails, the others get SIGTERM, and are killed after `grace` seconds. Then the rank's number, its exit code
    or signal, and the last lines of its standard error are printed on standard error.

    Signals of `STOP_EXIT_CODES` are forwarded to the ranks, which decide themselves how to end. A rank that ends with
    one of these codes has agreed with the others, which have `grace` seconds to end as well. A second Ctrl-C kills all
    ranks. If this process is killed, they get SIGTERM (on Linux).

    Args:
        command: command line of every rank.
        num_ranks: number of ranks.
        grace: seconds in which the other ranks have to end after the first one has failed.

    Returns:
        Exit code of the first rank that failed; 0 if none did.
    """
    with socket.create_server((LOOPBACK, 0)) as store:
        environments = rank_environments(num_ranks, store)
        if sys.platform == "linux":  # only there can rank 0 replace Paddle's own socket
            environments[0][STORE_VARIABLE] = str(store.fileno())
        ranks = [_RankProcess(command, environment) for environment in environments]
    ended_ranks: queue.Queue[int] = queue.Queue()  # numbers of the ranks, in the order in which they end
    for index, rank in enumerate(ranks):
        rank.start_watching(index, ended_ranks)

    is_interrupted, should_kill, ctrl_c_detector = False, False, CtrlCDetector()

    def signal_all(signal_number: int) -> None:
        for rank in ranks:
            rank.send_signal(signal_number)

    def forward(signal_number: int, _: object) -> None:
        nonlocal is_interrupted, should_kill
        is_interrupted = True
        if ctrl_c_detector.detect_second(signal_number):
            should_kill = True
        if signal_number == signal.SIGHUP:
            leave_closed_terminal()
        signal_all(signal.SIGKILL if should_kill else signal_number)

    previous_handlers = {stop_signal: signal.signal(stop_signal, forward) for stop_signal in find_stop_signals()}
    failed_rank: int | None = None
    should_report, deadline = False, None
    try:
        for _ in ranks:
            # Ranks that have not ended at the deadline are killed, and then waited for without a limit.
            while (ended_rank := _wait_for_end(ended_ranks, deadline)) is None:
                signal_all(signal.SIGKILL)
                deadline = None
            # The first failure is the one to report; the other ranks then end because they are asked to.
            if failed_rank is None and ranks[ended_rank].code:
                failed_rank = ended_rank
                deadline = time.monotonic() + grace
                if ranks[ended_rank].code not in STOP_EXIT_CODES.values():
                    should_report = not is_interrupted
                    signal_all(signal.SIGTERM)
    finally:
        for stop_signal, handler in previous_handlers.items():
            signal.signal(stop_signal, handler)

    if failed_rank is None:
        return 0
    if should_report:
        report = ranks[failed_rank].describe_failure(f"rank {failed_rank} of {num_ranks}")
        print(report, file=sys.stderr, flush=True)
    code = STOP_EXIT_CODES[signal.SIGINT] if should_kill else ranks[failed_rank].code
    # Popen gives the number of a signal as a negative code; shells add it to 128.
    return 128 - code if code < 0 else code


def find_stop_signals() -> list[signal.Signals]:
    """Return the signals of `STOP_EXIT_CODES`; without SIGHUP if it is ignored, as under `nohup`."""
    signals = list(STOP_EXIT_CODES)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signals.remove(signal.SIGHUP)
    return signals


class CtrlCDetector:
    """Detects the second Ctrl-C: the user does not want to wait any longer."""

    def __init__(self) -> None:
        self._first_time: float | None = None

    def detect_second(self, number: int) -> bool:
        """Take note of a signal, and return whether it is Ctrl-C for the second time."""
        if number != signal.SIGINT:
            return False
        now = time.monotonic()
        if self._first_time is None:
            self._first_time = now
        return now - self._first_time > CTRL_C_INTERVAL


def leave_closed_terminal() -> None:
    """Redirect standard output and error to nowhere if their reader is gone: writing to them would be an error."""
    watched = select.poll()
    for descriptor in (1, 2):
        watched.register(descriptor, 0)  # errors only
    for descriptor, _ in watched.poll(0):
        with Path(os.devnull).open("wb") as devnull:
            os.dup2(devnull.fileno(), descriptor)


def exit_when_parent_dies(parent_pid: int | None = None, number: signal.Signals = signal.SIGTERM) -> None:
    """Let the kernel send a signal to this process when its parent ends; this has no effect on systems but Linux.

    Args:
        parent_pid: process id of the parent, which may have ended before this call: then the signal is sent at once.
            None: that is not checked.
        number: the signal.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)
        if parent_pid is not None and os.getppid() != parent_pid:
            os.kill(os.getpid(), number)


class _RankProcess:
    """Process of one rank; its standard error is passed on, and its last bytes are kept."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]):
        inherited = [int(environment[STORE_VARIABLE])] if STORE_VARIABLE in environment else []
        self._process = subprocess.Popen(  # noqa: S603  -- this process's own command
            command,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            pass_fds=inherited,
            preexec_fn=partial(exit_when_parent_dies, os.getpid()),
        )
        self._tail = b""
        self._reader = threading.Thread(target=self._pass_on, daemon=True)

    @property
    def code(self) -> int:
        return self._process.returncode

    def start_watching(self, rank: int, ended_ranks: queue.Queue[int]) -> None:
        """Pass standard error on from now on, and put `rank` into the queue when the process ends."""

        def wait() -> None:
            self._process.wait()
            ended_ranks.put(rank)

        self._reader.start()
        threading.Thread(target=wait, daemon=True).start()

    def send_signal(self, number: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def describe_failure(self, name: str) -> str:
        # With a time limit, because a loader process that outlives its rank may keep the pipe open.
        self._reader.join(timeout=_TAIL_PATIENCE)
        summary = f"{name} ended with code {self.code}"
        if self.code < 0:
            summary += f" ({signal.Signals(-self.code).name})"
        if self.code == -signal.SIGKILL:
            summary += ", as when the machine's memory runs out"
        lines = self._tail.decode(errors="replace").splitlines()[-LAST_LINES:]
        if not lines:
            return f"{summary} and left no message"
        return "\n  ".join([f"{summary}; its last lines:", *lines])

    def _pass_on(self) -> None:
        stream = self._process.stderr
        if stream is None:  # never, because it is a pipe
            return
        # Not line by line, because a progress bar has no line ends.
        while chunk := os.read(stream.fileno(), 1 << 16):
            # A closed terminal must not stop the rank, which waits for its output to be read.
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]


def _wait_for_end(ended_ranks: queue.Queue[int], deadline: float | None) -> int | None:
    """Return the number of the next rank that ends; None if none ends before the deadline."""
    timeout = None
    if deadline is not None:
        timeout = max(0.0, deadline - time.monotonic())
    try:
        return ended_ranks.get(timeout=timeout)
    except queue.Empty:
        return None
