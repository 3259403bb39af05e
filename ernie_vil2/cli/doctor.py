"""Check this installation, one line for each check, with the command that fixes what is wrong; or check a model.

    python tools/doctor.py
    python tools/doctor.py runs/emoji/checkpoints/best

The exit code is 1 if a check FAILs. Checking the installation takes about half a minute; the last ten seconds are a
tiny training. For a model, its files, conventions and golden embeddings are compared with its integrity.json.
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
from ernie_vil2.cli.arguments import add_import_option, model, positive_number
from ernie_vil2.device import runtime
from ernie_vil2.device.extras import EXTRAS, PYTHON, ROOT, install_command, is_installed
from ernie_vil2.device.launch import rank_environments
from ernie_vil2.io.terminal import pluralize

if TYPE_CHECKING:
    from packaging.requirements import Requirement

INSTALL = install_command()
PYTHONS = ((3, 11), (3, 12), (3, 13))  # versions that were tested; the Paddle suite is published for the first only
# Distribution -> one that may be installed in its place; both unpack into the same folder.
SUBSTITUTES = {"paddlepaddle": "paddlepaddle-gpu", "opencv-python": "opencv-python-headless"}
# Distribution -> module, for those that are also imported: they break when versions do not match.
IMPORTED_MODULES = {
    "paddlepaddle": "paddle",
    "paddlenlp": "paddlenlp",
    "paddleclas": "paddleclas",
    "numpy": "numpy",
    "opencv-python": "cv2",
}
DEFAULT_SECONDS = 10  # length of the tiny training
MIN_STEPS = 50  # of the tiny training; after so many its loss has halved, however slow the machine is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 doctor`."""
    parser.add_argument("model", type=model, nargs="?", metavar="MODEL",
                        help="file or folder of a model to check instead of the installation")  # fmt: skip
    parser.add_argument("--seconds", type=positive_number,
                        help=f"length of the tiny training (default {DEFAULT_SECONDS})")  # fmt: skip
    add_import_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 doctor` and return its exit code."""
    if args.model and args.seconds:
        raise ValueError("--seconds is the length of the tiny training, which checks no MODEL; leave it out")
    if args.model:
        checks: list[tuple[str, Check]] = [("model", lambda: check_model(args.model))]
    else:
        checks = all_checks(args.seconds or DEFAULT_SECONDS)
    return diagnose(checks, lambda result: print(rewrite_commands(str(result), args.prog)))


def check_model(source: str) -> list[Result]:
    """Check that a model loads and gives the embeddings of its integrity file."""
    from ernie_vil2.encoder import load_model
    from ernie_vil2.io.export_folder import EXPORT_INFO, PARITY
    from ernie_vil2.io.files import INTEGRITY
    from ernie_vil2.models.weights.format import find_weights
    from ernie_vil2.models.weights.integrity import MissingGoldenError, check_golden, has_integrity

    encoder, folder = load_model(source), find_weights(source).parent
    results = [Result("ok", "model", _one_line(encoder))]
    if not has_integrity(folder):
        fact = f"no {INTEGRITY}: the embeddings that it should give are unknown"
        results.append(Result("none", "integrity", fact, "ernie-vil2 convert writes one"))
        return results
    results.append(Result("ok", "integrity", "conventions and files are unchanged"))
    if (folder / EXPORT_INFO).is_file():
        fact = f"exports have none; {PARITY} compares this one with the model that it was made of"
        results.append(Result("none", "golden", fact))
        return results
    try:
        results.append(Result("ok", "golden", f"embeddings differ by at most {check_golden(folder, encoder):.1e}"))
    except MissingGoldenError as error:
        results.append(Result("none", "golden", _one_line(error)))
    return results


@dataclass
class Result:
    """Result of a check.

    Attributes:
        status: "ok"; "none": an extra that is not installed; "warn": it works, but slower or not everywhere; "FAIL":
            something will not work.
        name: name of the check.
        fact: finding, on one line.
        fix: command or advice that fixes it; empty if nothing is wrong.
    """

    status: str
    name: str
    fact: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.status:<5}{self.name:<16}{self.fact}"
        return f"{line}\n     -> {self.fix}" if self.fix else line


Check = Callable[[], Result | list[Result]]


def diagnose(checks: Iterable[tuple[str, Check]], show: Callable[[Result], object] = print) -> int:
    """Run named checks one after the other and show each result at once.

    Returns:
        1 if a check failed or raised an exception, otherwise 0.
    """
    has_failed = False
    for name, check in checks:
        try:
            results = check()
        except Exception as error:  # a broken installation can raise anything, and the other checks must still run
            results = Result("FAIL", name, f"{type(error).__name__}: {_one_line(error)}")
        for result in results if isinstance(results, list) else [results]:
            show(result)
            has_failed = has_failed or result.status == "FAIL"
    return int(has_failed)


def all_checks(seconds: float = DEFAULT_SECONDS) -> list[tuple[str, Check]]:
    """Return the checks of the installation in order; `seconds` is the length of the tiny training."""
    checks: list[tuple[str, Check]] = [
        ("Python", check_python),
        ("packages", check_packages),
        ("conflicts", check_conflicts),
        ("CPU switches", check_runtime),
        ("shared memory", check_shared_memory),
    ]
    # Without Paddle the package check has failed, and these would only repeat it.
    if is_installed("paddle"):
        checks += [
            ("devices", check_devices),
            ("collectives", check_collectives),
            ("training", lambda: check_training(seconds)),
        ]
    return checks


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Result:
    """Check the version of Python."""
    text = ".".join(map(str, version))
    if version[:2] in PYTHONS:
        return Result("ok", "Python", f"{text}, {sys.executable}")
    fact = f"{text}; Paddle and this package are for 3.11, 3.12 and 3.13"
    return Result("FAIL", "Python", fact, "install one of these, then: rm -rf .venv && make setup")


def requirements() -> list[tuple[Requirement, str]]:
    """Return what the installed package requires on this Python: requirements with their extra ("": no extra).

    A requirement of several extras has the first of them. In a checkout that is not installed, requirements.txt counts.
    """
    from packaging.requirements import Requirement

    file = ROOT / "requirements.txt"
    lines = []
    if file.exists():
        lines = file.read_text().splitlines()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        lines = importlib.metadata.requires("ernie_vil2") or []
    lines = [line.split("#")[0].strip() for line in lines]
    candidates = [Requirement(line) for line in lines if line]

    # The base comes first: a requirement that it shares with an extra belongs to the base.
    extras_by_requirement: dict[tuple[str, str], tuple[Requirement, str]] = {}
    for extra in ("", *dict.fromkeys(EXTRAS.values())):
        for requirement in candidates:
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                key = (requirement.name, str(requirement.specifier))
                extras_by_requirement.setdefault(key, (requirement, extra))
    return list(extras_by_requirement.values())


def check_packages() -> list[Result]:
    """Check that each requirement is installed in its range, and that those of `IMPORTED_MODULES` can be imported.

    The missing packages of an extra are one result.
    """
    results, missing = [], dict[str, list[str]]()
    for requirement, extra in requirements():
        if extra and not _installed_versions(requirement.name):
            missing.setdefault(extra, []).append(requirement.name)
        else:
            results.append(_check_package(requirement))
    for extra, names in missing.items():
        fact = f"not installed: {', '.join(names)}"
        results.append(Result("none", f"[{extra}]", fact, install_command(extra)))
    return results


def _installed_versions(name: str) -> dict[str, str]:
    """Return the versions of a distribution and of its substitute, by their names, as far as they are installed."""
    versions = {}
    for distribution in (name, SUBSTITUTES.get(name, name)):
        version = _version(distribution)
        if version:
            versions[distribution] = version
    return versions


def _check_package(requirement: Requirement) -> Result:
    name = requirement.name
    versions = _installed_versions(name)
    if not versions:
        return Result("FAIL", name, "is not installed", INSTALL)
    if len(versions) > 1:
        fact = f"and {SUBSTITUTES[name]} are both installed, and share one folder"
        fix = f"{PYTHON} -m pip uninstall -y {' '.join(versions)}, then install one of them"
        return Result("FAIL", name, fact, fix)
    distribution, version = versions.popitem()
    # A build such as 3.3.1+cu126 satisfies a pin of 3.3.1.
    if not requirement.specifier.contains(version.split("+")[0], prereleases=True):
        return Result("FAIL", distribution, f"{version}, but {requirement.specifier} is needed", INSTALL)
    if name not in IMPORTED_MODULES:
        return Result("ok", distribution, version)

    # Imported in a new process: a broken package can end it, and the time of an import should not depend on others.
    start = time.perf_counter()
    child = _run_python("-c", f"import ernie_vil2, {IMPORTED_MODULES[name]}", timeout=120)
    if child.returncode:
        reinstall = f"{PYTHON} -m pip install --force-reinstall --no-deps {distribution}=={version}"
        fact = f"{version}, but its import fails: {_last_line(child)}"
        return Result("FAIL", distribution, fact, f"fix the other packages first, then: {reinstall}")
    return Result("ok", distribution, f"{version}, imports in {time.perf_counter() - start:.1f} s")


def check_conflicts() -> Result:
    """Report the conflicts that pip finds among the installed packages."""
    child = _run_python("-m", "pip", "check", timeout=60)
    if child.returncode == 0:
        return Result("ok", "conflicts", "none (pip check)")
    # Environments of uv have no pip. The packages may be fine, but the commands that fix one need it.
    if "No module named pip" in child.stderr:
        return Result("warn", "conflicts", "unknown, because pip is not installed", f"{PYTHON} -m ensurepip")
    lines = (child.stdout or child.stderr).strip().splitlines()
    intended = [line for line in lines if _is_intended(line)]
    conflicts = [line for line in lines if line not in intended]
    if not conflicts:
        return Result("ok", "conflicts", f"only intended ones: {'; '.join(intended[:3])}")
    fact = "; ".join(conflicts[:3])
    if len(conflicts) > 3:
        fact += " ..."
    return Result("FAIL", "conflicts", fact, INSTALL)


def _is_intended(conflict: str) -> bool:
    """Return whether a conflict is a substitute of OpenCV, or paddleclas where its requirements cannot be installed."""
    if "requires opencv-python, which is not installed" in conflict and _version(SUBSTITUTES["opencv-python"]):
        return True
    return conflict.startswith("paddleclas ") and sys.version_info[:2] > PYTHONS[0]


def check_runtime() -> Result:
    """Check the CPU switches of `ernie_vil2.device.runtime`: without them Paddle can be slow on this processor."""
    # On AMD processors the MKL in Paddle uses its fast code only if MKL_DEBUG_CPU_TYPE=5 is set. Paddle's default is
    # one thread.
    vendor, flags = runtime.read_processor()
    facts = "; ".join(runtime.switch_states().values())
    mkl_type = os.environ.get("MKL_DEBUG_CPU_TYPE")
    cores = runtime.num_usable_cores()
    threads = os.environ.get("MKL_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "1"
    if vendor == "AuthenticAMD" and "avx2" in flags and mkl_type != "5":
        facts = f"{vendor} is slow without MKL_DEBUG_CPU_TYPE=5; {facts}"
        return Result("warn", "CPU switches", facts, f"unset MKL_DEBUG_CPU_TYPE {runtime.SWITCH_VARIABLE}")
    # OpenMP takes a number for each level of nested regions, of which the first one counts.
    num_threads = threads.split(",")[0].strip()
    if not num_threads.isdecimal():
        facts = f"MKL_NUM_THREADS or OMP_NUM_THREADS is {_one_line(threads)!r}, which is no number; {facts}"
        return Result("warn", "CPU switches", facts, "unset MKL_NUM_THREADS OMP_NUM_THREADS")
    if int(num_threads) < cores:
        facts = f"{threads} of {cores} usable cores; {facts}"
        return Result("warn", "CPU switches", facts, f"unset MKL_NUM_THREADS OMP_NUM_THREADS {runtime.SWITCH_VARIABLE}")
    return Result("ok", "CPU switches", facts)


def check_shared_memory(folder: str | os.PathLike = "/dev/shm", needed_bytes: int = 1 << 30) -> Result:  # noqa: S108  -- a name alone, nothing is written there
    """Check that there is shared memory for NCCL, by which the GPUs of a machine exchange data.

    Nothing else needs it: the workers of the loader use anonymous memory.

    Args:
        folder: file system of the shared memory.
        needed_bytes: bytes that should be free. Containers have 64 MB by default; NCCL's documentation recommends 1 GB.
    """
    name = "shared memory"
    if runtime.is_surely_cpu(None):
        return Result("ok", name, "not needed without GPUs")
    reason = "NCCL needs it for several GPUs"
    if not Path(folder).is_dir():
        return Result("warn", name, f"{folder} is missing; {reason}", f"mount -t tmpfs -o size=16G tmpfs {folder}")
    try:
        with tempfile.TemporaryFile(dir=str(folder)) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        fact = f"{folder} cannot be written: {error.strerror}; {reason}"
        return Result("warn", name, fact, f"chmod 1777 {folder}")
    free_bytes = shutil.disk_usage(folder).free
    fact = f"{folder} has {free_bytes / 2**30:.1f} GiB free"
    if free_bytes < needed_bytes:
        fix = f"mount -o remount,size=16G {folder} (Docker: --shm-size=16g; Kubernetes: an emptyDir in memory)"
        return Result("warn", name, f"{fact}; {reason}", fix)
    return Result("ok", name, fact)


def check_devices() -> Result:
    """Check that the installed Paddle can use the GPUs of this machine."""
    import paddle

    cores = pluralize(runtime.num_usable_cores(), "CPU core")
    if paddle.is_compiled_with_cuda():
        if objection := runtime.find_objection_to_gpus(paddle.__version__):
            return Result("FAIL", "devices", objection, runtime.GPU_PADDLE_ADVICE)
        num_gpus = paddle.device.cuda.device_count()
        if num_gpus:
            gpus = f"{pluralize(num_gpus, 'GPU')} ({paddle.device.cuda.get_device_name(0)})"
            return Result("ok", "devices", f"{cores}, {gpus}")
        fix = "nvidia-smi (is the driver there?), and check CUDA_VISIBLE_DEVICES"
        return Result("warn", "devices", f"{cores}, a GPU build of Paddle that sees no GPU", fix)
    # The driver's device file exists even if Paddle was built for CPUs.
    if Path("/dev/nvidiactl").exists():
        gpu_build = f"paddlepaddle-gpu {_version('paddlepaddle')} with the command on Paddle's install page"
        fix = f"{PYTHON} -m pip uninstall -y paddlepaddle, then install {gpu_build}"
        return Result("warn", "devices", f"{cores}, and an NVIDIA GPU that a CPU build of Paddle cannot use", fix)
    return Result("ok", "devices", f"{cores}, no GPU (CPU build of Paddle)")


# The program of each of two ranks.
_ALL_REDUCE = """
import ernie_vil2, paddle, paddle.distributed as dist
paddle.set_device("cpu")
dist.init_parallel_env()
total = paddle.to_tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
assert total.item() == 3.0, f"1 + 2 gave {total.item()} on rank {dist.get_rank()}"
"""


def check_collectives(timeout: float = 60) -> Result:
    """Check that two local processes can add their numbers over gloo; `timeout` in seconds for both together."""
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        ranks = []
        for environment in rank_environments(2):
            ranks.append(pool.submit(_run_python, "-c", _ALL_REDUCE, timeout=timeout, **environment))
        try:
            children = [rank.result() for rank in ranks]
        except subprocess.TimeoutExpired:
            fact = f"two local processes did not connect within {timeout} s"
            return Result("FAIL", "collectives", fact, "let local ports through (firewall, proxy variables)")
    for child in children:
        if child.returncode:
            fix = "fix what is wrong above, then run this again; otherwise check if a firewall blocks local ports"
            return Result("FAIL", "collectives", _last_line(child), fix)
    return Result("ok", "collectives", f"two processes, gloo all_reduce, {time.perf_counter() - start:.1f} s")


def check_training(seconds: float = DEFAULT_SECONDS) -> Result:
    """Check that the loss of a tiny training falls."""
    first_loss, last_loss, steps_per_second = tiny_training(seconds)
    fact = f"loss {first_loss:.3f} -> {last_loss:.3f}, {steps_per_second:.0f} steps/s"
    if last_loss < 0.5 * first_loss:  # also false for NaN
        return Result("ok", "training", fact)
    fix = f"git -C {shlex.quote(str(ROOT))} status (did a change break the loss?), else: {INSTALL}"
    return Result("FAIL", "training", f"{fact}; it should have halved", fix)


def tiny_training(seconds: float) -> tuple[float, float, float]:
    """Train two small towers on noisy views of hidden concepts with the multi-view loss, for at least `MIN_STEPS`.

    Returns:
        Loss of the first step, mean loss of the last ten steps, and steps per second.
    """
    import paddle
    from paddle import nn

    from ernie_vil2.config.sections import PAIRS, VIEWS
    from ernie_vil2.losses import MultiViewLoss

    paddle.seed(0)
    num_rows, width, hidden_width = 64, 32, 128
    towers = {}
    for kind in ("image", "text"):
        towers[kind] = nn.Sequential(nn.Linear(width, hidden_width), nn.GELU(), nn.Linear(hidden_width, width))
    # How a concept looks and how it reads: a fixed map for each tower, which the tower has to invert.
    senses = {kind: paddle.randn([width, width]) / width**0.5 for kind in towers}
    loss_function = MultiViewLoss(dict.fromkeys(PAIRS, 1.0))
    parameters = [*towers["image"].parameters(), *towers["text"].parameters()]
    optimizer = paddle.optimizer.AdamW(2e-3, parameters=parameters)

    losses, start = list[float](), time.perf_counter()
    while len(losses) < MIN_STEPS or time.perf_counter() - start < seconds:
        concepts = paddle.randn([num_rows, width])
        embeddings = {}
        for view in VIEWS:
            kind = view.split("_")[0]
            observations = concepts @ senses[kind] + 0.1 * paddle.randn([num_rows, width])
            embeddings[view] = nn.functional.normalize(towers[kind](observations))  # [num_rows, width]
        loss, _ = loss_function(embeddings, embeddings, {"logit_scale": paddle.to_tensor(10.0)})
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
    last_losses = losses[-10:]
    steps_per_second = len(losses) / (time.perf_counter() - start)
    return losses[0], sum(last_losses) / len(last_losses), steps_per_second


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _run_python(*arguments: str, timeout: float, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with the package on its path and further environment variables; capture the output as text."""
    path = str(ROOT)
    if os.environ.get("PYTHONPATH"):
        path = os.pathsep.join([path, os.environ["PYTHONPATH"]])
    return subprocess.run(  # noqa: S603  -- this Python, with arguments of ours
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def _last_line(child: subprocess.CompletedProcess[str]) -> str:
    output = child.stderr.strip() or child.stdout.strip() or "no message"
    return _one_line(output.splitlines()[-1])


def _one_line(message: object, max_length: int = 160) -> str:
    text = " ".join(str(message).split())
    return text if len(text) <= max_length else text[: max_length - 3] + "..."
