"""The process switches: set by the environment, and with their effects on memory, threads and denormals."""

import json
import os
import platform
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.device import runtime
from tests.support.limits import PATIENCE, limit_examples
from tests.support.paths import ROOT
from tests.support.processes import run_process

SWITCH_VARIABLES = ("ERNIE_VIL2_", "MKL_", "OMP_", "MALLOC_", "GLIBC_TUNABLES", "PADDLE_")


def run_code(code, **variables):
    """Run code in a process whose environment has no switches but `variables`; return its JSON output and stderr."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SWITCH_VARIABLES)}
    environment |= {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-W", "ignore", "-c", code]
    child = run_process(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1]), child.stderr


@pytest.fixture
def machine(monkeypatch):
    """Return a function that pretends to be on another machine; at first it has 8 cores of AMD."""

    def pretend(vendor="AuthenticAMD", flags=("avx2",), cores=8):
        monkeypatch.setattr(runtime, "_states", {})
        monkeypatch.setattr(runtime, "read_processor", lambda: (vendor, set(flags)))
        monkeypatch.setattr(runtime, "num_usable_cores", lambda: cores)
        monkeypatch.setitem(sys.modules, "paddle", None)
        monkeypatch.delitem(sys.modules, "paddle")

    pretend()
    return pretend


def test_import_of_the_package_does_not_change_the_process():
    code = """
import json, os, resource, signal, sys, warnings
def state():
    return [dict(os.environ), repr(warnings.filters), sys.path, [str(signal.getsignal(n)) for n in range(1, 32)]]
state_before = state()
import ernie_vil2
dir(ernie_vil2)
is_unchanged = state_before == state()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    b"x" * (40 << 20)  # more than glibc, left alone, ever takes from its heap
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
print(json.dumps([is_unchanged, ernie_vil2.device.runtime.switch_states(), faults]))
"""
    (is_unchanged, states, faults), _ = run_code(code)
    assert is_unchanged and states == {}
    if platform.libc_ver()[0] == "glibc":
        assert faults > 0.9 * 5 * (40 << 20) // os.sysconf("SC_PAGE_SIZE")


def configure_copy(environment):
    """Return a copy of the environment after `configure`."""
    # A variable of malloc that the user has set turns off the switch of malloc, which would change this process.
    environment = {"MALLOC_TOP_PAD_": "131072", **environment}
    runtime.configure(environment)
    return environment


@pytest.mark.parametrize(("vendor", "flags", "value"), [
    ("AuthenticAMD", ["avx2"], "5"), ("GenuineIntel", ["avx2"], None), ("AuthenticAMD", ["sse4_2"], None)
])  # fmt: skip
def test_only_amd_with_avx2_gets_the_mkl_switch(machine, vendor, flags, value):
    machine(vendor, flags)
    assert configure_copy({}).get("MKL_DEBUG_CPU_TYPE") == value


def test_variables_of_the_user_are_kept(machine):
    user_variables = {"MKL_DEBUG_CPU_TYPE": "4", "MKL_NUM_THREADS": "3"}
    environment = configure_copy(user_variables)
    assert {name: environment[name] for name in user_variables} == user_variables
    assert all(text.startswith("kept") for text in runtime.switch_states().values())
    assert "MKL_NUM_THREADS" not in configure_copy({"OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(("ranks", "threads"), [(1, "8"), (2, "4"), (3, "2"), (16, "1")])
def test_local_ranks_share_the_cores(machine, ranks, threads):
    # The launcher has imported Paddle, which writes OMP_NUM_THREADS=1.
    environment = {"PADDLE_LOCAL_SIZE": str(ranks), "PADDLE_TRAINERS_NUM": "64", "OMP_NUM_THREADS": "1"}
    assert configure_copy(environment)["MKL_NUM_THREADS"] == threads
    # A rank replaces the number of threads that its launcher has set.
    environment_of_rank = configure_copy({}) | {"OMP_NUM_THREADS": "1", "PADDLE_LOCAL_SIZE": str(ranks)}
    assert configure_copy(environment_of_rank)["MKL_NUM_THREADS"] == threads


def test_configure_after_paddle_reports_that_it_is_too_late(machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "paddle", object())
    assert "MKL_DEBUG_CPU_TYPE" not in configure_copy({})
    assert all("configure()" in runtime.switch_states()[name] for name in ("mkl", "threads"))


@limit_examples(25)
@given(tenths=st.integers(1, 10_000))
def test_quota_of_a_container_limits_the_cores(tmp_path_factory, tenths):
    cpu_max = tmp_path_factory.mktemp("cgroup") / "cpu.max"
    available = len(os.sched_getaffinity(0))
    cpu_max.write_text("max 100000\n")
    assert runtime.num_usable_cores(cpu_max) == available
    cpu_max.write_text(f"{tenths * 10_000} 100000\n")
    cores = runtime.num_usable_cores(cpu_max)
    assert 1 <= cores <= available
    assert cores <= tenths / 10 < cores + 1 or cores in (1, available)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are glibc's")
def test_freed_memory_is_used_again_without_page_faults():
    code = """
import json, resource, ernie_vil2
ernie_vil2.runtime.configure()
size = 12 << 20
bytes(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    b"x" * size  # written, unlike zeroed pages
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps((faults, ernie_vil2.device.runtime.switch_states())))
"""
    pages = 20 * (12 << 20) // os.sysconf("SC_PAGE_SIZE")
    (faults_with_switch, states), _ = run_code(code)
    (faults_without, states_without), _ = run_code(code, MALLOC_MMAP_THRESHOLD_="131072")
    assert faults_with_switch < 0.15 * pages < 0.9 * pages < faults_without
    assert states["malloc"].startswith("M_MMAP_MAX=0")
    assert states_without["malloc"] == "kept MALLOC_MMAP_THRESHOLD_=131072"


# Prints what Paddle does in a process: the threads of MKL, whether transposes are copied, and the switch that does it.
PRINT_EFFECTS = """
import ctypes, json, os, ernie_vil2
ernie_vil2.runtime.configure()
import paddle
mkl = ctypes.CDLL(os.path.join(os.path.dirname(paddle.__file__), "libs", "libmklml_intel.so"))
threads = mkl.MKL_Get_Max_Threads()
ernie_vil2.device.runtime.set_device("cpu")
copied = paddle.ones([2, 3]).t().is_contiguous()
print(json.dumps([threads, copied, ernie_vil2.device.runtime.switch_states()["strides"]]))
"""


def test_threads_and_transposes_follow_the_switches():
    effects, warnings = run_code(PRINT_EFFECTS)
    assert effects == [runtime.num_usable_cores(), True, "FLAGS_use_stride_kernel=0"] and warnings == ""
    effects, _ = run_code(PRINT_EFFECTS, ERNIE_VIL2_RUNTIME="0")
    assert effects[:2] == [1, False]


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not platform.libc_ver()[0].startswith("glibc"), reason="x86-64 with glibc alone"
)
def test_denormals_are_zero_only_inside_the_block(monkeypatch):
    def multiply():
        """Return a product that is denormal, and one of a denormal number."""
        return float(np.float32(1e-30) * np.float32(1e-10)), float(np.float32(1e-40) * np.float32(2))

    assert all(multiply())
    with pytest.raises(KeyError), runtime.flush_denormals():  # noqa: PT012  -- the block is tested before its error
        assert multiply() == (0, 0) and float(np.float32(1e-30) * np.float32(1e-7)) > 0
        raise KeyError
    assert all(multiply())
    monkeypatch.setenv("ERNIE_VIL2_RUNTIME", "-denormals")
    with runtime.flush_denormals():
        assert all(multiply())


def test_switches_are_turned_off_one_by_one_or_all_at_once(machine):
    environment = {"ERNIE_VIL2_RUNTIME": "-mkl, -malloc,-layers"}
    runtime.configure(environment)
    assert "MKL_DEBUG_CPU_TYPE" not in environment and environment["MKL_NUM_THREADS"] == "8"
    switches_off = {name for name in runtime.SWITCHES if not runtime.is_enabled(name, environment)}
    assert switches_off == {"mkl", "malloc", "layers"}
    assert runtime.switch_states()["malloc"].startswith("off (ERNIE_VIL2_RUNTIME=-mkl")

    environment = {"ERNIE_VIL2_RUNTIME": "0"}
    runtime.configure(environment)
    assert environment == {"ERNIE_VIL2_RUNTIME": "0"}
    assert runtime.switch_states() == dict.fromkeys(runtime.SWITCHES, "off (ERNIE_VIL2_RUNTIME=0)")


@pytest.mark.parametrize("value", ["1", "-malloc,-maloc"])
def test_error_names_a_mistyped_switch(machine, value):
    with pytest.raises(ValueError, match=f"ERNIE_VIL2_RUNTIME='{value}'"):
        runtime.configure({"ERNIE_VIL2_RUNTIME": value})
