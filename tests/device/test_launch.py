"""Ranks that a command starts: their environments, how they end, and the report on a rank that fails."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from ernie_vil2.device import launch
from ernie_vil2.device.launch import exit_when_parent_dies, run_ranks, start_ranks
from tests.support.limits import PATIENCE
from tests.support.processes import start_process

PARENT = "import sys; from ernie_vil2.device.launch import run_ranks; sys.exit(run_ranks(sys.argv[1:], 2))"
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent death signal is Linux's")


def make_command(body):
    """Return the command of a rank that runs these lines."""
    head = "import os, signal, sys, time; rank = os.environ['PADDLE_TRAINER_ID']\n"
    return [sys.executable, "-c", head + textwrap.dedent(body)]


def start_parent(body):
    """Start a process that runs two ranks, and wait until both are ready."""
    process = start_process([sys.executable, "-c", PARENT, *make_command(body)], stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere rank 0 makes the socket itself")
def test_port_is_reserved_until_rank_0_listens(capfd):
    # Otherwise another program could take the port while the ranks start, and they would wait for its answer.
    body = """
        import socket
        host, port = os.environ['PADDLE_TRAINER_ENDPOINTS'].split(',')[0].split(':')
        if rank == '0':
            time.sleep(0.5)
            socket.socket(fileno=int(os.environ['ERNIE_VIL2_STORE'])).accept()[0].sendall(b'rank 0')
        else:
            os.write(1, socket.create_connection((host, int(port))).recv(6))
    """
    assert run_ranks(make_command(body), 2) == 0
    assert capfd.readouterr().out == "rank 0"


def test_failing_rank_ends_the_others_and_is_quoted(capfd):
    body = """
        if rank == '1':
            print('no such file: x.tar', file=sys.stderr)
            sys.exit(7)
        time.sleep(600)
    """
    assert run_ranks(make_command(body), 2) == 7
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "no such file: x.tar"  # printed at once, as by a single process
    assert "rank 1 of 2 ended with code 7" in lines[-2] and lines[-1] == "  no such file: x.tar"


def test_killed_rank_is_named_with_its_last_lines(capfd):
    body = """
        for line in range(30):
            print(f'line {line} of {rank}', file=sys.stderr)
        if rank == '2':
            os.kill(os.getpid(), 9)
        time.sleep(60)
    """
    assert run_ranks(make_command(body), 3) == 137
    output, _, report = capfd.readouterr().err.partition("rank 2 of 3 ended with code -9 (SIGKILL)")
    assert "rank" not in output  # the other ranks are not reported
    assert report.splitlines()[1:] == [f"  line {line} of 2" for line in range(10, 30)]


def test_child_that_outlives_its_rank_is_not_waited_for(capfd):
    body = """
        import subprocess
        subprocess.Popen(['sleep', '150'])
        sys.exit(4)
    """
    start = time.monotonic()
    assert run_ranks(make_command(body), 1) == 4
    assert time.monotonic() - start < 100  # the child sleeps for 150 seconds
    assert "rank 0 of 1 ended with code 4" in capfd.readouterr().err


@only_linux
def test_ranks_end_when_their_parent_is_killed():
    body = """
        os.write(1, b'ready\\n')  # in one write, as two ranks share the pipe
        time.sleep(600)
    """
    start = time.monotonic()
    with start_parent(body) as process:
        process.kill()
        # The ranks have the pipe open: it ends when the last of them does.
        assert process.stdout.read() == ""
    assert time.monotonic() - start < 200  # the ranks would sleep for 600 seconds


def test_interrupt_reaches_the_ranks_and_their_code_is_returned():
    body = """
        signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
        os.write(1, b'ready\\n')
        time.sleep(60)
    """
    with start_parent(body) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 130


def test_rank_that_ignores_sigterm_is_killed():
    body = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1)
        sys.exit(3) if rank == '0' else time.sleep(60)
    """
    assert run_ranks(make_command(body), 2, grace=0.5) == 3


def test_ranks_that_have_agreed_to_stop_are_waited_for(capfd):
    body = """
        if rank == '0':
            time.sleep(1)
            print('rank 0 has finished', flush=True)
        sys.exit(75)
    """
    assert run_ranks(make_command(body), 2) == 75
    output, error = capfd.readouterr()
    assert "rank 0 has finished" in output and "ended with code" not in error


@only_linux
def test_process_whose_parent_is_already_gone_ends():
    read_end, write_end = os.pipe()
    middle = os.fork()
    if not middle:
        # The middle process ends at once; its child calls exit_when_parent_dies when that has happened.
        parent = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == parent:
            time.sleep(0.01)
        exit_when_parent_dies(parent)
        os.write(write_end, b"lives on")
        os._exit(0)
    os.close(write_end)
    os.waitpid(middle, 0)
    assert os.read(read_end, 100) == b""
    os.close(read_end)


@pytest.mark.parametrize(("device", "is_gpu_build", "gpus", "is_refused"), [
    ("gpu:0", False, 0, True),
    ("auto", True, 1, True),
    ("auto", True, 0, False),  # a GPU build on a machine without one
    ("auto", False, 0, False),
    ("cpu", True, 1, False),
    ("CPU", True, 1, False),
])  # fmt: skip
def test_ranks_on_cpu_are_not_started_for_a_gpu(monkeypatch, device, is_gpu_build, gpus, is_refused):
    import paddle

    monkeypatch.setattr("importlib.metadata.distributions", lambda name: [name] if is_gpu_build else [])
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(launch, "run_ranks", lambda command, ranks: ranks)
    monkeypatch.delenv("PADDLE_TRAINER_ID", raising=False)
    if is_refused:
        with pytest.raises(ValueError, match=f"device {device} is .*fleetrun .* --device cpu"):
            start_ranks(2, device, "--device cpu")
    else:
        assert start_ranks(2, device, "--device cpu") == 2
        monkeypatch.setenv("PADDLE_TRAINER_ID", "0")
        assert start_ranks(2, device, "--device cpu") is None, "a rank starts no others"
