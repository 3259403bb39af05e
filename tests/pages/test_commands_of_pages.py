"""Every command of the pages is run as it is there: here, on small data under the names that the page uses; by a
test of its own page; or it is named in `NOT_RUN` with a reason. The Chinese pages have the same commands
(`test_pages_of_docs.py`).

`-m slow` runs the pages that train, search and export, some minutes each.
"""

import pytest

import ernie_vil2
from tests.support.page_commands import PAGES, SERVERS, run_command, serve, split_page
from tests.support.stand_ins import LAYOUTS, make_checkout

NOT_RUN = {
    **dict.fromkeys(["make test", "make test-gpu", "python -m pytest"], "these tests, some of which need GPUs"),
    **dict.fromkeys(["python3.11 -m venv", "python3.12 -m venv", ".venv-3.12/bin/python", "pip install"],
                    "installs from the network"),
    "python benchmarks/": "measures for minutes, some of it next to PyTorch; its page has what it printed",
    **dict.fromkeys(["python demo_data/icons.py", "python tools/search.py build --index indexes/icons",
                     "python demo_data/icon_study.py", "python demo_data/icon_tower.py",
                     "-c configs/demo/icon_tower.yaml"], "fetches 100 MB of icons, or needs them"),
    "python tools/study.py": "trains for hours on these icons; tests/experiments trains a small one",
    "python -m experiments.widths": "scores what that study has trained; tests/experiments scores small ones",
    **dict.fromkeys(["python demo_data/stamps.py", "--data demo_data/stamps"], "fetches 80 MB, or needs them"),
    'load_model("OFA-Sys/': "fetches from a hub; tests/io/test_model_hubs.py loads such a name from a server here",
    'load_model("ernie-vil-2.0-base-zh")': "fetches 800 MB; docs/examples are run with MODEL",
    "Model.weights=ernie-vil-2.0-base-zh": "fetches 800 MB; finetuning.md is run with MODEL",
    "Model.text.weights=ernie-3.0-base-zh": "fetches weights; tests/models/test_weight_files.py loads such files",
    "--index http://milvus": "needs a cluster; tests/apps/search runs the commands with milvus-lite",
    "--master 10.0.0.1": "needs two machines; tests/training/test_two_nodes.py starts them as network namespaces",
    "rsync -a --delete 10.0.0.1": "needs two machines",
    "sbatch": "needs Slurm",
    **dict.fromkeys(["exports/own", "--index indexes/own"], "needs the run of docs/own_data.md"),
    "timeout --preserve-status": "ends by the clock; tests/training/test_stopping.py stops runs at a step",
    'open("found.jsonl"': "needs the demo trained to its end: after a few steps no word is near a drawing",
    "--protocol NAME": "FOLDER and NAME are those that follow on the page",
}  # fmt: skip
"""Commands and blocks of Python that hold one of these, and why they are not run."""
OTHER_TESTS = {
    "walkthrough.md": "pages/test_walkthroughs.py",
    "curate_walkthrough.md": "pages/test_walkthroughs.py",
    "new_language.md": "pages/test_small_pages.py",
    "own_data.md": "pages/test_own_data.py",
    "classification.md": "pages/test_small_pages.py",
    "extending.md": "pages/test_extending.py",
    "serving.md": "apps/search/test_api.py",
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
QUICK = ("bad_input.md", "benchmarks.md", "weights.md")


def reason(command):
    """Return why a command is not run, or None."""
    return next((why for text, why in NOT_RUN.items() if text in command), None)


def to_run(page):
    """Return the commands and the Python of a page that no other test runs."""
    if page in OTHER_TESTS:
        return []
    return [(kind, text) for kind, text in split_page(PAGES[page]) if kind in ("shell", "python") and not reason(text)]


def run_page(page, folder, monkeypatch):
    """Run a page from its first block to its last, in a checkout with small data."""
    make_checkout(folder)
    monkeypatch.chdir(folder)
    for lay_out in LAYOUTS.get(page, ()):
        lay_out(folder)
    names, printed, run = {"ernie_vil2": ernie_vil2}, "", to_run(page)
    for kind, text in split_page(PAGES[page]):
        if (kind, text) not in run:
            if text.startswith(PRINTED.get(page, "\0")):
                assert all(line in printed for line in text.splitlines()), printed
        elif kind == "python":
            exec(compile(text, page, "exec"), names)  # noqa: S102 - the page is ours
        elif text.startswith(SERVERS):
            assert "<html" in serve(text)
        else:
            code, output = run_command(text)
            expected = next((status for words, status in EXIT_CODES.items() if words in text), 0)
            assert code == expected, f"{text}\n{output}"
            printed += output


PAGES_TO_RUN = [pytest.param(page, marks=() if page in QUICK else pytest.mark.slow) for page in PAGES if to_run(page)]


@pytest.mark.parametrize("page", PAGES_TO_RUN)
def test_a_page_does_what_it_says(page, tmp_path, monkeypatch):
    run_page(page, tmp_path, monkeypatch)


def test_what_is_not_run_is_still_on_a_page():
    shown = [text for page in PAGES.values() for kind, text in split_page(page) if kind in ("shell", "python")]
    assert [words for words in NOT_RUN if not any(words in text for text in shown)] == []
    assert len(shown) > 150
