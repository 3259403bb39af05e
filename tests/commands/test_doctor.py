"""The doctor finds what is broken, names the fix, and continues after a check that raises."""

import subprocess
from collections import namedtuple

import paddle
import pytest
from packaging.requirements import Requirement

from ernie_vil2 import cli as commands
from ernie_vil2.cli import doctor
from ernie_vil2.cli.doctor import Result
from ernie_vil2.device import runtime


@pytest.fixture
def require(monkeypatch):
    """Return a function that sets the requirements {line: extra} and the installed versions."""

    def require(lines, installed):
        requirements = [(Requirement(line), extra) for line, extra in lines.items()]
        monkeypatch.setattr(doctor, "requirements", lambda: requirements)
        monkeypatch.setattr(doctor, "_version", installed.get)

    return require


def test_check_that_raises_fails_and_all_others_run():
    def raise_error():
        raise RuntimeError("no\nsuch library")

    results = []
    checks = [("first", raise_error), ("second", lambda: [Result("ok", "a", ""), Result("warn", "b", "")])]
    assert doctor.diagnose(checks, results.append) == 1
    assert [(result.status, result.name) for result in results] == [("FAIL", "first"), ("ok", "a"), ("warn", "b")]
    assert doctor.diagnose(checks[1:], results.append) == 0


@pytest.mark.parametrize(("minor", "status"), [(11, "ok"), (13, "ok"), (10, "FAIL"), (14, "FAIL")])
def test_python_is_3_11_to_3_13(minor, status):
    assert doctor.check_python((3, minor, 7)).status == status


@pytest.mark.parametrize(
    ("requirement", "installed", "status", "fact"),
    [
        ("datasets==3.2.0", {"datasets": "3.2.0"}, "ok", "3.2.0"),
        ("datasets==3.2.0", {}, "FAIL", "not installed"),
        ("paddlepaddle==3.3.1", {"paddlepaddle-gpu": "2.6.2"}, "FAIL", "2.6.2, but ==3.3.1"),
        ("paddlepaddle==3.3.1", dict.fromkeys(("paddlepaddle", "paddlepaddle-gpu"), "3.3.1"), "FAIL", "both installed"),
        ("opencv-python>=4.8.1.78", {"opencv-python-headless": "5.0.0.93"}, "ok", "5.0.0.93"),
    ],
)
def test_packages_are_compared_with_the_pins(require, requirement, installed, status, fact):
    require({requirement: ""}, installed)
    (result,) = doctor.check_packages()
    assert result.status == status and fact in result.fact
    assert bool(result.fix) == (status == "FAIL")


@pytest.mark.parametrize(
    ("package", "status"), [("datasets 3.2.0 requires dill", "FAIL"), ("ernie_vil2 0.1.0 requires opencv-python", "ok")]
)
def test_conflicts_are_reported_as_by_pip(require, monkeypatch, package, status):
    require({"opencv-python>=4.8.1.78": ""}, {"opencv-python-headless": "5.0.0.93"})
    output = f"{package}, which is not installed.\n"
    monkeypatch.setattr(doctor, "_run_python", lambda *_, timeout: subprocess.CompletedProcess([], 1, output, ""))
    result = doctor.check_conflicts()
    assert result.status == status and (status == "ok" or result.fact == output.strip())


def test_environment_without_pip_is_no_conflict(monkeypatch):
    child = subprocess.CompletedProcess([], 1, "", "/venv/bin/python: No module named pip\n")
    monkeypatch.setattr(doctor, "_run_python", lambda *_, timeout: child)
    result = doctor.check_conflicts()
    assert result.status == "warn" and "ensurepip" in result.fix


@pytest.mark.parametrize(
    ("vendor", "variables", "status"),
    [
        ("AuthenticAMD", {"MKL_DEBUG_CPU_TYPE": "5", "MKL_NUM_THREADS": "8"}, "ok"),
        ("AuthenticAMD", {"MKL_NUM_THREADS": "8"}, "warn"),
        ("GenuineIntel", {"MKL_NUM_THREADS": "1"}, "warn"),
        ("GenuineIntel", {"OMP_NUM_THREADS": "8,1"}, "ok"),
        ("GenuineIntel", {"OMP_NUM_THREADS": "all"}, "warn"),
    ],
)
def test_slow_settings_are_warned_about(monkeypatch, vendor, variables, status):
    monkeypatch.setattr(runtime, "read_processor", lambda: (vendor, {"avx2"}))
    monkeypatch.setattr(runtime, "num_usable_cores", lambda: 8)
    for name in ("MKL_DEBUG_CPU_TYPE", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert doctor.check_runtime().status == status


def test_gpus_need_enough_shared_memory(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage(64 << 20))
    monkeypatch.setattr(runtime, "is_surely_cpu", lambda device: False)
    assert doctor.check_shared_memory(tmp_path, needed_bytes=64 << 20).status == "ok"
    for folder in (tmp_path, tmp_path / "missing"):
        result = doctor.check_shared_memory(folder)
        assert result.status == "warn" and "NCCL" in result.fact
    monkeypatch.setattr(runtime, "is_surely_cpu", lambda device: True)
    assert doctor.check_shared_memory(tmp_path / "missing").status == "ok"


@pytest.mark.parametrize(("version", "status"), [("3.2.2", "FAIL"), ("3.3.1", "ok"), ("0.0.0", "ok")])
def test_paddle_before_3_3_fails_on_gpus(monkeypatch, version, status):
    monkeypatch.setattr(paddle, "__version__", version)
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(paddle.device.cuda, "get_device_name", lambda number: "A100")
    result = doctor.check_devices()
    assert result.status == status and ("attention" in result.fact) == (status == "FAIL")


@pytest.mark.slow
def test_collectives_add_up_over_two_processes():
    assert doctor.check_collectives().status == "ok"


@pytest.mark.parametrize(
    ("code", "timeout", "fact"),
    [("raise OSError('no network here')", 300, "OSError: no network here"), ("import time; time.sleep(100)", 1, "1 s")],
)
def test_failing_or_hanging_collectives_are_stopped(monkeypatch, code, timeout, fact):
    monkeypatch.setattr(doctor, "_ALL_REDUCE", code)
    result = doctor.check_collectives(timeout=timeout)
    assert result.status == "FAIL" and fact in result.fact


def test_tiny_training_learns():
    result = doctor.check_training(seconds=0)
    assert result.status == "ok", result.fact


@pytest.mark.parametrize("last_loss", [9.0, float("nan")])
def test_training_that_does_not_learn_fails(monkeypatch, last_loss):
    monkeypatch.setattr(doctor, "tiny_training", lambda seconds: (10.0, last_loss, 100.0))
    assert doctor.check_training().status == "FAIL"


def test_length_of_the_training_does_not_go_with_a_model(tmp_path, capsys):
    assert commands.run("doctor", [str(tmp_path), "--seconds", "1"]) == 2
    assert "--seconds" in capsys.readouterr().err
