"""Small data sets that the tests make themselves."""

import atexit
import base64
import ctypes
import gc
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from ernie_vil2 import cli as commands
from ernie_vil2.device import runtime
from ernie_vil2.device.extras import LAST_PYTHON

runtime.configure()  # before anything imports Paddle, as the command lines do

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("untimed"), max_examples=15)
settings.load_profile("untimed")

WHOLE_COMMANDS = {"experiments", "export", "planning", "tools", "training"}
"""Folders of tests that run commands and trainings, as do the tests of pages next to them."""
STARTS_A_PROCESS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
"""Python's audit events."""
GROWTH = 50 << 20
"""Bytes of memory by which a process grows before its garbage is collected."""
NOT_PUBLISHED = {module for module, last in LAST_PYTHON.items() if sys.version_info[:2] > last}
"""Packages that this Python has no release of."""
PATIENCE = 600
"""Seconds that a test waits for what another process does: ten times what a busy machine needs."""
COLOURS = {
    "red": ((200, 30, 30), "红色"),
    "green": ((30, 180, 40), "绿色"),
    "blue": ((40, 60, 210), "蓝色"),
    "yellow": ((230, 220, 40), "黄色"),
}
SHAPES = {"disc": "圆", "square": "方块", "bar": "条", "cross": "十字"}
SPECIAL_TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
TOKENS = [*SPECIAL_TOKENS, "a", *COLOURS, *SHAPES]


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="leave out whole commands, and what starts a process")


def pytest_ignore_collect(collection_path, config):
    """With --fast, the parts alone are tested: losses, readers, towers, metrics, the index, the configuration."""
    whole = collection_path.name in WHOLE_COMMANDS or collection_path.match("tests/test_*.py")
    return True if whole and config.getoption("fast") else None


class WithoutProcesses:
    """With --fast, a test is skipped when it starts a process, so that no list of such tests has to be kept."""

    def __init__(self):
        self._in_a_test = False
        sys.addaudithook(self._watch)

    def _watch(self, event, _):
        if self._in_a_test and event in STARTS_A_PROCESS:
            pytest.skip("starts a process")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self):
        self._in_a_test = True
        try:
            return (yield)
        finally:
            self._in_a_test = False


@contextmanager
def skipped_without_its_package():
    """A test of PaddleNLP, PaddleClas or paddle2onnx is skipped with the reason where Python is too new for them."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in NOT_PUBLISHED:
            raise
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup():
    with skipped_without_its_package():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    with skipped_without_its_package():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    """Names a test that failed at once: a run that is stopped prints no summary."""
    if report.failed and os.environ.get("PYTEST_XDIST_WORKER") is None:
        print(f"\n{report.nodeid}: {getattr(report.longrepr, 'reprcrash', None) or 'failed'}", flush=True)


def examples(count):
    """Settings of a test of so many examples, and of at most those of the profile "fast" with --fast."""
    fast = settings.get_profile("fast").max_examples
    return settings(max_examples=min(count, fast) if settings.default.max_examples == fast else count)


def pytest_configure(config):
    if config.getoption("fast"):
        settings.load_profile("fast")
        config.pluginmanager.register(WithoutProcesses())
    if processes := config.getoption("numprocesses", None):
        share_cores(processes)


def share_cores(processes):
    """Gives each of the processes that are about to be started, and theirs, its part of the cores.

    Threads of MKL and OpenBLAS wait for each other busily: with more of them than cores the same trainings took
    1.4 to 1.8 times the CPU time.
    """
    if os.environ.get("MKL_NUM_THREADS") == os.environ.get(runtime.INHERITED_THREADS):  # not the user's choice
        share = str(max(1, runtime.usable_cores() // processes))
        os.environ |= {"MKL_NUM_THREADS": share, "OPENBLAS_NUM_THREADS": share}


def pytest_collection_modifyitems(config, items):
    if config.getoption("fast"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("thorough")])
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


def pytest_collection_finish():
    """What is imported lives as long as the process: no collection of garbage has to look through it again."""
    give_back_memory()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def resident_memory():
    """The process's resident memory after the last collection, in bytes, in a list of its own."""
    return [0]


@pytest.fixture(autouse=True)
def collected(resident_memory):
    """Trainers and towers lie in cycles, for which Python looks too seldom: hundreds of megabytes would pile up."""
    yield
    if sys.platform == "linux" and _resident() > resident_memory[0] + GROWTH:
        give_back_memory()
        resident_memory[0] = _resident()


def give_back_memory():
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # glibc would keep what is free


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def draw(colour, shape, rng, size=32):
    """A filled shape of jittered position and size on white, `[size, size, 3]` uint8 RGB."""
    image = np.full([size, size, 3], 255, np.uint8)
    x, y = rng.integers(size // 2 - 3, size // 2 + 4, 2).tolist()
    r = int(rng.integers(size // 4, size // 3))
    if shape == "disc":
        cv2.circle(image, (x, y), r, colour, -1)
    elif shape == "square":
        cv2.rectangle(image, (x - r, y - r), (x + r, y + r), colour, -1)
    elif shape == "bar":
        cv2.rectangle(image, (x - r // 3, 0), (x + r // 3, size), colour, -1)
    else:
        cv2.line(image, (x - r, y - r), (x + r, y + r), colour, 3)
        cv2.line(image, (x + r, y - r), (x - r, y + r), colour, 3)
    return image


def png(image):
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@contextmanager
def small_disk(folder, size):
    """A file system of its own, made at a folder; skips the test where that is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # its files may still be mapped


def write_tsv(path, rows):
    """rows of (text, id, image bytes)"""
    lines = [f"{text}\t{name}\t{base64.b64encode(image).decode()}\n" for text, name, image in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def shape_members(copies, seed):
    rng = np.random.default_rng(seed)
    for copy in range(copies):
        for colour, (rgb, colour_zh) in COLOURS.items():
            for shape, shape_zh in SHAPES.items():
                name = f"{colour}-{shape}-{seed}-{copy}"
                fields = {
                    "id": f"{colour}-{shape}",
                    "kind": shape,
                    "caption_en": f"a {colour} {shape}",
                    "caption_zh": f"{colour_zh}的{shape_zh}",
                    "tags_en": [colour, shape],
                    "tags_zh": [colour_zh, shape_zh],
                }
                yield f"{name}.png", png(draw(rgb, shape, rng))
                yield f"{name}.json", json.dumps(fields, ensure_ascii=False).encode()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Coloured shapes, 16 concepts in Chinese and English: a training shard of 128 and a validation shard of 16."""
    folder = tmp_path_factory.mktemp("shapes")
    return {
        "train": write_tar(folder / "train.tar", shape_members(8, seed=1)),
        "val": write_tar(folder / "val.tar", shape_members(1, seed=2)),
    }


def call(command, *arguments):
    """Runs a command in this process; the result is that of `subprocess.run` with text."""
    output, error = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(error):
        try:
            code = commands.run(command, list(map(str, arguments)))
        except SystemExit as ended:  # as of --help
            code = ended.code
    return subprocess.CompletedProcess([command, *arguments], code, output.getvalue(), error.getvalue())


def untrained_checkpoint(folder, tokens=TOKENS, task="multi_view"):
    """An untrained model of ViT 32/16 and ERNIE, one block each, with these tokens, as a checkpoint in `folder`."""
    shutil.copytree(_untrained(tuple(tokens), task), folder, dirs_exist_ok=True)
    return folder


@cache
def _untrained(tokens, task):
    """The checkpoint, made once a process."""
    import paddle

    from ernie_vil2.config import dump_config, load_config
    from ernie_vil2.models import save_weights
    from ernie_vil2.tasks import build_task

    folder = Path(tempfile.mkdtemp(prefix="untrained-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    settings = [
        "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 1, heads: 1}",
        "Model.text={name: ernie, width: 32, depth: 1, heads: 1, max_positions: 16}",
        "Data.max_length=16",
        f"Training.task={task}",
    ]
    paddle.seed(0)
    made = build_task(load_config(None, [*settings, f"Model.text.vocabulary={json.dumps(str(folder / 'vocab.txt'))}"]))
    made.build(initialize=False)
    save_weights(made.model, folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump_config(load_config(None, settings)), encoding="utf-8")
    return folder
