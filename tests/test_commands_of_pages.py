"""Every command of the pages is run as it is there: here, on small data under the names that the page uses; by a
test of its own page; or it is named in `NOT_RUN` with a reason. The Chinese pages have the same commands
(`test_chinese_docs.py`).

`-m slow` runs the pages that train, search and export, some minutes each.
"""

import os
import signal
import socket
import time
import urllib.request

import pytest

import ernie_vil2
from tests.support.page_commands import PAGES, ROOT, blocks, environment, parts, run_command, shell_commands
from tests.support.processes import start_process
from tests.support.stand_ins import LAYOUTS, checkout

NOT_RUN = {
    "make test": "these tests",
    "python -m pytest": "tests, which are run as such",
    "make test-gpu": "needs GPUs",
    "python3.11 -m venv": "installs from the network",
    "python3.12 -m venv": "installs from the network",
    ".venv-3.12/bin/python": "is what that has installed",
    "pip install": "installs from the network",
    "python benchmarks/": "measures for minutes, some of it next to PyTorch; its page has what it printed",
    "python demo_data/icons.py": "fetches 100 MB",
    "python tools/search.py build --index indexes/icons": "needs these icons",
    "python demo_data/icon_study.py": "needs these icons",
    "python demo_data/icon_tower.py": "needs these icons",
    "-c configs/demo/icon_tower.yaml": "needs these icons",
    "python tools/study.py": "trains for hours on these icons; tests/experiments trains a small one",
    "python -m experiments.widths": "scores what that study has trained; tests/experiments scores small ones",
    "python demo_data/stamps.py": "fetches 80 MB",
    "--data demo_data/stamps": "needs these stamps",
    'load_model("OFA-Sys/': "fetches from a hub; tests/test_model_hubs.py loads such a name from a server here",
    'load_model("ernie-vil-2.0-base-zh")': "fetches 800 MB; docs/examples are run with MODEL",
    "Model.weights=ernie-vil-2.0-base-zh": "fetches 800 MB; tests/test_finetuning.py runs it with MODEL",
    "Model.text.weights=ernie-3.0-base-zh": "fetches weights; tests/models/test_weight_files.py loads such files",
    "--index http://milvus": "needs a cluster; tests/search runs the commands with milvus-lite",
    "--master 10.0.0.1": "needs two machines; tests/training/test_two_nodes.py starts them as network namespaces",
    "rsync -a --delete 10.0.0.1": "needs two machines",
    "sbatch": "needs Slurm",
    "exports/own": "needs the run of docs/own_data.md; tests/test_own_data.py runs it",
    "--index indexes/own": "needs the same run",
    "timeout --preserve-status": "ends by the clock; tests/training/test_stopping.py stops runs at a step",
    'open("found.jsonl"': "needs the demo trained to its end: after a few steps no word is near a drawing",
    "--protocol NAME": "FOLDER and NAME are those that follow on the page",
}
"""Commands and blocks of Python that hold one of these, and why they are not run."""
OTHER_TESTS = {
    "walkthrough.md": "tests/test_walkthrough.py",
    "curate_walkthrough.md": "tests/test_curate_walkthrough.py",
    "finetuning.md": "tests/test_finetuning.py",
    "new_language.md": "tests/test_new_language_page.py",
    "own_data.md": "tests/test_own_data.py",
    "classification.md": "tests/test_classification_page.py",
    "extending.md": "tests/test_extending.py",
    "serving.md": "tests/search/test_api.py",
}
"""Pages whose commands have a test of their own."""
EXIT_CODES = {"coco-cn-test --check": 1, "data/nlvr2 --check": 1, "Loss.tempreture": 2}
"""Of commands that hold these: a folder so small has other counts than the published one; an error is what is shown."""
PRINTED = {
    "plan.md": "paddleclas:ViT-B/16 and paddlenlp:ernie-base, 112",
    "data.md": "7,373 samples in 4 shards",
    "guide.md": "error: configs/demo/emoji.yaml",
    "tags.md": "2 of 1,058 ids have tags",
}
"""By page, how an output begins that does not depend on training: the page's commands print it."""
QUICK = ("bad_input.md", "benchmarks.md", "cxc.md", "data.md", "weights.md")
SERVERS = ("make search", "python tools/search.py serve")
ADDRESS = "http://127.0.0.1:8000"


def reason(command):
    return next((why for part, why in NOT_RUN.items() if part in command), None)


def to_run(page):
    """The commands and the Python of a page that no other test runs."""
    return [] if page in OTHER_TESTS else [
        (kind, text) for kind, text in parts(PAGES[page])
        if kind in ("shell", "python") and reason(text) is None
    ]  # fmt: skip


def serve(command):
    """Starts a server, waits for its page, and stops it."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("port 8000 is in use here")
    server = start_process(["bash", "-c", f"exec {command}"], env=environment(), start_new_session=True)
    try:
        for _ in range(1200):
            assert server.poll() is None, f"{command} has ended by itself"
            try:
                return urllib.request.urlopen(ADDRESS).read().decode()
            except OSError:
                time.sleep(0.5)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def run_page(page, folder, monkeypatch):
    """Runs a page from its first block to its last, in a checkout with small data."""
    checkout(folder)
    monkeypatch.chdir(folder)
    LAYOUTS.get(page, lambda _: None)(folder)
    names, printed, run = {"ernie_vil2": ernie_vil2}, "", to_run(page)
    for kind, text in parts(PAGES[page]):
        if (kind, text) not in run:
            if text.startswith(PRINTED.get(page, "\0")):
                assert all(line in printed for line in text.splitlines()), printed
        elif kind == "python":
            exec(compile(text, page, "exec"), names)  # noqa: S102  -- code of our own pages
        elif text.startswith(SERVERS):
            assert "<html" in serve(text)
        else:
            code, shown_text = run_command(text)
            expected = next((other for part, other in EXIT_CODES.items() if part in text), 0)
            assert code == expected, f"{text}\n{shown_text}"
            printed += shown_text


@pytest.mark.parametrize("page", QUICK)
def test_a_page_does_what_it_says(page, tmp_path, monkeypatch):
    run_page(page, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page not in QUICK and to_run(page)])
def test_a_page_that_trains_or_searches_does_what_it_says(page, tmp_path, monkeypatch):
    run_page(page, tmp_path, monkeypatch)


def test_what_is_not_run_is_still_on_a_page():
    shown = [text for page in PAGES.values() for kind, text in parts(page) if kind in ("shell", "python")]
    assert [part for part in NOT_RUN if not any(part in text for text in shown)] == []
    assert len(shown) > 150


def test_pages_with_a_test_of_their_own_have_it():
    for page, test in OTHER_TESTS.items():
        assert page in (ROOT / test).read_text(encoding="utf-8")
        in_bash = {command for language, text in blocks(PAGES[page]) if language == "bash"
                   for command in shell_commands(text)}  # fmt: skip
        others = {text for kind, text in parts(PAGES[page]) if kind == "shell"} - in_bash
        assert not [text for text in others if reason(text) is None]
