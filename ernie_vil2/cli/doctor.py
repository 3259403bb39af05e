"""Check this installation, one line a check, with the command that fixes what is wrong; or check the folder of a model.

    python tools/doctor.py
    python tools/doctor.py runs/emoji/checkpoints/best

The exit code is 1 when anything FAILs. It takes about half a minute, the last ten seconds a tiny training. Of a model
the files, the conventions and the golden embeddings are compared with its integrity.json.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_vil2.cli import rewrite_commands
from ernie_vil2.cli.arguments import amount, model
from ernie_vil2.device import runtime
from ernie_vil2.device.extras import EXTRAS, PYTHON, ROOT, install_command, installed
from ernie_vil2.device.launch import rank_environments
from ernie_vil2.io.terminal import pluralize

if TYPE_CHECKING:
    from packaging.requirements import Requirement

INSTALL = install_command()
PYTHONS = ((3, 11), (3, 12), (3, 13))
SWAPS = {"paddlepaddle": "paddlepaddle-gpu", "opencv-python": "opencv-python-headless"}
"""Distributions that may be there instead of others; both of a pair unpack into one folder."""
MODULES = {
    "paddlepaddle": "paddle",
    "paddlenlp": "paddlenlp",
    "paddleclas": "paddleclas",
    "numpy": "numpy",
    "opencv-python": "cv2",
}
"""Distribution -> module, for those whose import is worth a try: they break when the pins do not hold."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=model, nargs="?", metavar="MODEL", help="a model's file or folder, to check "
                        "instead of the installation")  # fmt: skip
    parser.add_argument("--seconds", type=amount, default=10, help="time of the tiny training (default 10)")


def run(args: argparse.Namespace) -> int:
    checks = [("model", lambda: check_model(args.model))] if args.model else all_checks(args.seconds)
    return diagnose(checks, lambda result: print(rewrite_commands(str(result), args.prog)))


def check_model(source: str) -> list[Result]:
    """Check that a model loads, and computes what its integrity file says."""
    from ernie_vil2.encoder import load_model
    from ernie_vil2.io.files import INTEGRITY
    from ernie_vil2.models.weights.format import find_weights
    from ernie_vil2.models.weights.integrity import MissingGoldenError, check_golden, has_integrity

    loaded, folder = load_model(source), find_weights(source).parent
    results = [Result("ok", "model", _one_line(loaded))]
    if not has_integrity(folder):
        why = f"no {INTEGRITY}: nothing says what it should compute"
        return [*results, Result("none", "integrity", why, "ernie-vil2 convert writes one")]
    results.append(Result("ok", "integrity", "conventions and files are as written"))
    try:
        results.append(Result("ok", "golden", f"embeddings differ by at most {check_golden(folder, loaded):.1e}"))
    except MissingGoldenError as error:
        results.append(Result("none", "golden", _one_line(error)))
    return results


@dataclass
class Result:
    """What one check found.

    Attributes:
        status: "ok"; "none", an extra that is not installed; "warn", it works but slower or not everywhere; "FAIL",
            something will not work.
    """

    status: str
    name: str  # what was checked
    fact: str  # what was found, on one line
    fix: str = ""  # the command that fixes it, or what to do; empty when nothing is wrong

    def __str__(self) -> str:
        line = f"{self.status:<5}{self.name:<16}{self.fact}"
        return f"{line}\n     -> {self.fix}" if self.fix else line


Check = Callable[[], Result | list[Result]]


def diagnose(checks: Iterable[tuple[str, Check]], show: Callable[[Result], object] = print) -> int:
    """Run named checks in turn and show each result at once; 1 if any failed, as one that raises does, otherwise 0."""
    failed = False
    for name, check in checks:
        try:
            results = check()
        except Exception as error:  # a broken installation can raise anything, and the rest must still run
            results = Result("FAIL", name, f"{type(error).__name__}: {_one_line(error)}")
        for result in results if isinstance(results, list) else [results]:
            show(result)
            failed = failed or result.status == "FAIL"
    return int(failed)


def all_checks(seconds: float = 10) -> list[tuple[str, Check]]:
    """The checks of `tools/doctor.py` in order; `seconds` is the time of the tiny training."""
    checks: list[tuple[str, Check]] = [
        ("Python", check_python),
        ("packages", check_packages),
        ("conflicts", check_conflicts),
        ("CPU switches", check_runtime),
        ("shared memory", check_shared_memory),
    ]
    if installed("paddle"):
        checks += [
            ("devices", check_devices),
            ("collectives", check_collectives),
            ("training", lambda: check_training(seconds)),
        ]
    return checks


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Result:
    """Those for which all wheels were tried; the Paddle suite is published for the first of them alone."""
    text = ".".join(map(str, version))
    if version[:2] in PYTHONS:
        return Result("ok", "Python", f"{text}, {sys.executable}")
    fact = f"{text}; Paddle and this package are for 3.11, 3.12 and 3.13"
    return Result("FAIL", "Python", fact, "install one of these, then: rm -rf .venv && make setup")


def requirements() -> list[tuple[Requirement, str]]:
    """What the installed package requires on this Python, as pairs of a requirement and its extra ("" for the base).

    A requirement of several extras is named with the first. Of a checkout that is not installed: requirements.txt.
    """
    from packaging.requirements import Requirement

    file = ROOT / "requirements.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        lines = importlib.metadata.requires("ernie_vil2") or []
    found: dict[tuple[str, str], tuple[Requirement, str]] = {}
    wanted = [Requirement(line) for line in (line.split("#")[0].strip() for line in lines) if line]
    for extra in ("", *dict.fromkeys(EXTRAS.values())):
        for requirement in wanted:
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                found.setdefault((requirement.name, str(requirement.specifier)), (requirement, extra))
    return list(found.values())


def check_packages() -> list[Result]:
    """Every requirement: installed, in its range; those of `MODULES` are imported too, in a new process.

    What is not there of an extra is one line for the extra.
    """
    results, missing = [], dict[str, list[str]]()
    for requirement, extra in requirements():
        if extra and not _found(requirement.name):
            missing.setdefault(extra, []).append(requirement.name)
        else:
            results.append(_check_package(requirement))
    return results + [
        Result("none", f"[{extra}]", f"not installed: {', '.join(names)}", install_command(extra))
        for extra, names in missing.items()
    ]


def _found(name: str) -> dict[str, str]:
    """The version of a distribution, or of its substitute, by the name of the installed one."""
    versions = {dist: _version(dist) for dist in (name, SWAPS.get(name, name))}
    return {dist: version for dist, version in versions.items() if version}


def _check_package(requirement: Requirement) -> Result:
    name = requirement.name
    found = _found(name)
    if not found:
        return Result("FAIL", name, "is not installed", INSTALL)
    if len(found) > 1:
        fact = f"and {SWAPS[name]} are both installed, and share one folder"
        return Result("FAIL", name, fact, f"{PYTHON} -m pip uninstall -y {' '.join(found)}, then install one of them")
    dist, version = found.popitem()
    if not requirement.specifier.contains(version.split("+")[0], prereleases=True):
        return Result("FAIL", dist, f"{version}, but {requirement.specifier} is needed", INSTALL)
    if name not in MODULES:
        return Result("ok", dist, version)
    start = time.perf_counter()
    child = _python("-c", f"import ernie_vil2, {MODULES[name]}", timeout=120)
    if child.returncode:
        again = f"{PYTHON} -m pip install --force-reinstall --no-deps {dist}=={version}"
        fact = f"{version}, but its import fails: {_last_line(child)}"
        return Result("FAIL", dist, fact, f"fix the other packages first, then: {again}")
    return Result("ok", dist, f"{version}, imports in {time.perf_counter() - start:.1f} s")


def check_conflicts() -> Result:
    """What pip itself finds wrong among the installed packages."""
    child = _python("-m", "pip", "check", timeout=60)
    if child.returncode == 0:
        return Result("ok", "conflicts", "none (pip check)")
    lines = (child.stdout or child.stderr).strip().splitlines()
    meant = [line for line in lines if _is_meant(line)]
    lines = [line for line in lines if line not in meant]
    if not lines:
        return Result("ok", "conflicts", f"none but those that were asked for: {'; '.join(meant[:3])}")
    return Result("FAIL", "conflicts", "; ".join(lines[:3]) + (" ..." if len(lines) > 3 else ""), INSTALL)


def _is_meant(conflict: str) -> bool:
    """Whether pip finds a swap of OpenCV, or paddleclas without its requirements where they cannot be installed."""
    swapped = "requires opencv-python, which is not installed" in conflict and _version(SWAPS["opencv-python"])
    return bool(swapped) or (conflict.startswith("paddleclas ") and sys.version_info[:2] > PYTHONS[0])


def check_runtime() -> Result:
    """The switches of `ernie_vil2.device.runtime`, and whether one that is missing costs speed here."""
    vendor, flags = runtime.processor()
    facts = "; ".join(runtime.applied().values())
    mkl_type = os.environ.get("MKL_DEBUG_CPU_TYPE")
    cores = runtime.usable_cores()
    threads = os.environ.get("MKL_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "1"
    if vendor == "AuthenticAMD" and "avx2" in flags and mkl_type != "5":
        facts = f"{vendor} is slow without MKL_DEBUG_CPU_TYPE=5; {facts}"
        return Result("warn", "CPU switches", facts, f"unset MKL_DEBUG_CPU_TYPE {runtime.SWITCH}")
    if int(threads.split(",")[0]) < cores:
        facts = f"{threads} of {cores} usable cores; {facts}"
        return Result("warn", "CPU switches", facts, f"unset MKL_NUM_THREADS OMP_NUM_THREADS {runtime.SWITCH}")
    return Result("ok", "CPU switches", facts)


def check_shared_memory(folder: str | os.PathLike = "/dev/shm", need: int = 1 << 30) -> Result:  # noqa: S108  -- a name alone, nothing is written there
    """Room for the batches that loader workers hand over; `need` in bytes."""
    name, without = "shared memory", "or load in the training process: -o Data.workers=0"
    if not Path(folder).is_dir():
        return Result("FAIL", name, f"{folder} is missing", f"mount -t tmpfs -o size=8G tmpfs {folder}, {without}")
    try:
        with tempfile.TemporaryFile(dir=str(folder)) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        return Result("FAIL", name, f"{folder} cannot be written: {error.strerror}", f"chmod 1777 {folder}, {without}")
    free = shutil.disk_usage(folder).free
    fact = f"{folder} has {free / 2**30:.1f} GiB free"
    if free < need:
        fix = f"mount -o remount,size=8G {folder} (Docker: --shm-size=8g), {without}"
        return Result("warn", name, f"{fact}; loader workers may run out of it", fix)
    return Result("ok", name, fact)


def check_devices() -> Result:
    """Processors and GPUs, and whether the installed Paddle can use the latter."""
    import paddle

    cores = pluralize(runtime.usable_cores(), "CPU core")
    if paddle.is_compiled_with_cuda():
        count = paddle.device.cuda.device_count()
        if count:
            gpus = f"{pluralize(count, 'GPU')} ({paddle.device.cuda.get_device_name(0)})"
            return Result("ok", "devices", f"{cores}, {gpus}")
        fix = "nvidia-smi (is the driver there?), and check CUDA_VISIBLE_DEVICES"
        return Result("warn", "devices", f"{cores}, a GPU build of Paddle that sees no GPU", fix)
    if Path("/dev/nvidiactl").exists():
        gpu_build = f"paddlepaddle-gpu {_version('paddlepaddle')} with the command on Paddle's install page"
        fix = f"{PYTHON} -m pip uninstall -y paddlepaddle, then install {gpu_build}"
        return Result("warn", "devices", f"{cores}, and an NVIDIA GPU that a CPU build of Paddle cannot use", fix)
    return Result("ok", "devices", f"{cores}, no GPU (CPU build of Paddle)")


_ALL_REDUCE = """
import ernie_vil2, paddle, paddle.distributed as dist
from ernie_vil2.io.terminal import pluralize
paddle.set_device("cpu")
dist.init_parallel_env()
total = paddle.to_tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
assert total.item() == 3.0, f"1 + 2 gave {total.item()} on rank {dist.get_rank()}"
"""


def check_collectives(timeout: float = 60) -> Result:
    """Two local processes add their numbers over gloo; `timeout` in seconds for both together."""
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        ranks = [
            pool.submit(_python, "-c", _ALL_REDUCE, timeout=timeout, **environment)
            for environment in rank_environments(2)
        ]
        try:
            children = [rank.result() for rank in ranks]
        except subprocess.TimeoutExpired:
            fact = f"two local processes did not connect within {timeout} s"
            return Result("FAIL", "collectives", fact, "let local ports through (firewall, proxy variables)")
    for child in children:
        if child.returncode:
            fix = "fix what is wrong above, then rerun; else see if a firewall blocks local ports"
            return Result("FAIL", "collectives", _last_line(child), fix)
    return Result("ok", "collectives", f"two processes, gloo all_reduce, {time.perf_counter() - start:.1f} s")


LEAST_STEPS = 50  # of the tiny training, after which its loss has halved on a machine of any speed


def check_training(seconds: float = 10) -> Result:
    """The tiny training: its loss must fall."""
    first, last, rate = tiny_training(seconds)
    fact = f"loss {first:.3f} -> {last:.3f}, {rate:.0f} steps/s"
    if last < 0.5 * first:  # false for nan too
        return Result("ok", "training", fact)
    fix = f"git -C {shlex.quote(str(ROOT))} status (did a change break the loss?), else: {INSTALL}"
    return Result("FAIL", "training", f"{fact}; it should have halved", fix)


def tiny_training(seconds: float) -> tuple[float, float, float]:
    """Train two small towers on noisy views of hidden concepts with the multi-view loss, for `LEAST_STEPS` at least.

    Returns:
        Loss of the first step, mean loss of the last ten, and steps a second.
    """
    import paddle
    from paddle import nn

    from ernie_vil2.config.sections import PAIRS, VIEWS
    from ernie_vil2.losses import MultiViewLoss

    paddle.seed(0)
    rows, width, hidden = 64, 32, 128
    towers = {
        kind: nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) for kind in ("image", "text")
    }
    # How a concept looks, and how it reads: two fixed maps that the towers have to undo.
    senses = {kind: paddle.randn([width, width]) / width**0.5 for kind in towers}
    loss = MultiViewLoss(dict.fromkeys(PAIRS, 1.0))
    parameters = [parameter for tower in towers.values() for parameter in tower.parameters()]
    optimizer = paddle.optimizer.AdamW(2e-3, parameters=parameters)
    losses, start = list[float](), time.perf_counter()
    while len(losses) < LEAST_STEPS or time.perf_counter() - start < seconds:
        concepts = paddle.randn([rows, width])
        views = {}
        for view in VIEWS:
            kind = view.split("_")[0]
            seen = concepts @ senses[kind] + 0.1 * paddle.randn([rows, width])
            views[view] = nn.functional.normalize(towers[kind](seen))  # [rows, width]
        total, _ = loss(views, views, {"logit_scale": paddle.to_tensor(10.0)})
        total.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(total))
    recent = losses[-10:]
    return losses[0], sum(recent) / len(recent), len(losses) / (time.perf_counter() - start)


def _version(dist: str) -> str | None:
    try:
        return importlib.metadata.version(dist)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python(*arguments: str, timeout: float, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with the package on its path and more environment variables; output as text."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(  # noqa: S603  -- this Python, with arguments of ours
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def _last_line(child: subprocess.CompletedProcess[str]) -> str:
    return _one_line((child.stderr.strip() or child.stdout.strip() or "no message").splitlines()[-1])


def _one_line(message: object, limit: int = 160) -> str:
    text = " ".join(str(message).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
