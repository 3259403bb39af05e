"""Several ranks on this machine without Paddle's launcher: their output is the terminal's, Ctrl-C is theirs.

One Paddle process uses one core for most of its work, so that N processes on N cores train faster than one with N
threads. Only the standard library is imported. Several machines, and GPUs: `python -m paddle.distributed.launch`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence


def rank_environments(ranks: int) -> list[dict[str, str]]:
    """For each rank the environment variables by which Paddle's ranks find each other over gloo."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(ranks)]
    endpoints = [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    common = {
        "PADDLE_TRAINERS_NUM": str(ranks),
        "PADDLE_LOCAL_SIZE": str(ranks),
        "PADDLE_DISTRI_BACKEND": "gloo",
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "GLOG_minloglevel": os.environ.get("GLOG_minloglevel", "2"),
    }
    return [
        {**common, "PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": endpoint}
        for rank, endpoint in enumerate(endpoints)
    ]


def run_ranks(command: Sequence[str], ranks: int, grace: float = 60.0) -> int:
    """Runs a command once for each rank and waits for all.

    A rank that fails ends the others: they are asked with SIGTERM, and killed after `grace` seconds. SIGINT and
    SIGTERM to this process reach the ranks, which decide themselves how to end.

    Returns:
        The exit code of the first rank that failed, or 0.
    """
    processes = [
        subprocess.Popen(command, env={**os.environ, **environment}) for environment in rank_environments(ranks)
    ]

    def forward(number, _):
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    failed, deadline = 0, None
    try:
        while any(process.poll() is None for process in processes):
            codes = [process.poll() for process in processes]
            if not failed and any(codes):
                failed = next(code for code in codes if code)
                deadline = time.monotonic() + grace
                forward(signal.SIGTERM, None)
            if deadline and time.monotonic() > deadline:
                for process in processes:
                    process.kill()
            time.sleep(0.1)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    code = failed or next((process.returncode for process in processes if process.returncode), 0)
    return 128 - code if code < 0 else code
