import signal
import subprocess
import sys
import textwrap
import time

from ernie_vil2.launch import rank_environments, run_ranks


def test_every_rank_knows_itself_and_all():
    environments = rank_environments(3)
    endpoints = environments[0]["PADDLE_TRAINER_ENDPOINTS"].split(",")
    assert len(set(endpoints)) == 3
    for rank, environment in enumerate(environments):
        assert environment["PADDLE_TRAINER_ID"] == str(rank) and environment["PADDLE_TRAINERS_NUM"] == "3"
        assert environment["PADDLE_CURRENT_ENDPOINT"] == endpoints[rank]


def script(body):
    return [
        sys.executable,
        "-c",
        "import os, sys, time; rank = os.environ['PADDLE_TRAINER_ID']\n" + textwrap.dedent(body),
    ]


def test_all_ranks_run_to_their_end(tmp_path):
    assert run_ranks(script(f"open(f'{tmp_path}/{{rank}}', 'w')"), 3) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_a_failing_rank_ends_the_others_and_gives_its_code():
    start = time.monotonic()
    assert run_ranks(script("sys.exit(7) if rank == '1' else time.sleep(60)"), 2) == 7
    assert time.monotonic() - start < 20


def test_a_rank_that_does_not_listen_is_killed():
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    assert (
        run_ranks(script(ignoring + "time.sleep(1)\nsys.exit(3) if rank == '0' else time.sleep(60)"), 2, grace=0.5) == 3
    )


def test_ctrl_c_reaches_the_ranks_which_end_in_their_own_way():
    body = """
        import signal
        signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
        os.write(1, b'ready\\n')  # one write a line: two ranks share the pipe
        time.sleep(60)
    """
    parent = "import sys; from ernie_vil2.launch import run_ranks; sys.exit(run_ranks(sys.argv[1:], 2))"
    with subprocess.Popen([sys.executable, "-c", parent, *script(body)], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(2):
            assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
