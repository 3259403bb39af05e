"""Run folders: one owner at a time, no other files, and the names RUN, RUN@best and RUN@newest."""

import os
import socket
import subprocess
import sys

import pytest

from ernie_vil2.config import ConfigError
from ernie_vil2.io.run_folder import find_run_folder, list_checkpoints, lock_run_folder, resolve_checkpoint
from tests.support.processes import start_process
from tests.support.published_files import write_files

IMPORT = "import os, pathlib, sys; from ernie_vil2.io.run_folder import lock_run_folder"


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def start_owner(run, body):
    """Start a process that owns the run folder, prints that it does, and runs more lines of code."""
    code = f"{IMPORT}\nwith lock_run_folder(pathlib.Path(sys.argv[1])):\n    print('mine', flush=True)\n    {body}"
    command = [sys.executable, "-c", code, str(run)]
    process = start_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    return process


def test_folder_has_one_owner_and_the_error_names_it(run):
    # A child that outlives the owner, such as a loader, must not keep the folder.
    body = "if os.fork(): sys.stdin.read(); os._exit(0)\n    print('child', flush=True)\n    os.read(0, 1)"
    with start_owner(run, body) as process:
        assert process.stdout.readline() == "child\n"
        holder = f"{run} is in use: process {process.pid} on {socket.gethostname()} "
        with pytest.raises(ConfigError, match=holder), lock_run_folder(run):
            pass
        process.kill()
        process.wait()
        with lock_run_folder(run), pytest.raises(ConfigError, match=f"process {os.getpid()} on "), lock_run_folder(run):
            pass
    with lock_run_folder(run):
        pass


def test_file_system_without_locks_gives_a_warning(run, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock_run_folder(run):
        assert "run.lock cannot be locked (Function not implemented)" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["log.jsonl", "notes.txt"], ["checkpoints/step_keep/model"]])
def test_folder_with_other_files_is_refused_and_unchanged(run, names):
    write_files(run, dict.fromkeys(names, "mine"))
    paths = sorted(run.rglob("*"))
    with pytest.raises(ConfigError, match=f"{run} is not a run .*{names[0].split('/')[0]}"), lock_run_folder(run):
        pass
    assert sorted(run.rglob("*")) == paths
    path = run / names[0]
    with pytest.raises(ConfigError, match=f"{path} is a file"), lock_run_folder(path):
        pass


@pytest.mark.parametrize("name", ["dry_run/config.yaml", "run.lock", "checkpoints/step_00000005/state.json"])
def test_folder_of_a_run_is_locked(run, name):
    (run / name).parent.mkdir(parents=True)
    (run / name).touch()
    with lock_run_folder(run):
        assert (run / "run.lock").exists()


@pytest.fixture
def checkpoints(run):
    folder = run / "checkpoints"
    for name in ("step_00000020", "step_00000100", "step_123456789", "step_keep", "step_00000020_copy", "step_20"):
        (folder / name).mkdir(parents=True)
    (folder / "step_00000300").write_text("a file")
    return folder


def test_checkpoints_are_resolved_by_name(run, checkpoints):
    assert [path.name for path in list_checkpoints(run)] == ["step_00000020", "step_00000100", "step_123456789"]
    newest = checkpoints / "step_123456789"
    assert resolve_checkpoint(run) == resolve_checkpoint(f"{run}@newest") == newest
    with pytest.raises(FileNotFoundError, match=f"{run}@newest"):
        resolve_checkpoint(f"{run}@best")
    (checkpoints / "best").symlink_to("step_00000100")
    assert resolve_checkpoint(f"{run}@best") == checkpoints / "step_00000100"
    assert find_run_folder(checkpoints / "best") == find_run_folder(newest) == run and find_run_folder(run) is None
    for name in (run / "checkpoints", f"{run}@500", f"{run}@", "ernie-vil-2.0-base-zh", "a@b.c"):
        assert resolve_checkpoint(name) is None


def test_at_sign_in_the_name_of_a_folder_is_part_of_the_name(tmp_path):
    (tmp_path / "a@best" / "checkpoints" / "step_00000001").mkdir(parents=True)
    assert resolve_checkpoint(tmp_path / "a@best").name == "step_00000001"
    assert resolve_checkpoint(tmp_path / "a@best@newest").name == "step_00000001"
