"""Every command of the documentation's pages runs as it is written.

It runs here, on small data under the names that the page uses, or in the test of its page; `NOT_RUN` names all other
commands with a reason. The Chinese pages have the same commands (`test_pages_of_docs.py`).

`-m slow` runs the pages that train, search and export, some minutes each.
"""

import pytest

import ernie_vil2
from tests.support.page_commands import PAGES, SERVERS, run_command, serve, split_page
from tests.support.stand_ins import LAYOUTS, make_checkout

NOT_RUN = {
    **dict.fromkeys(["make test", "make gpu-day"], "these tests, some of which need GPUs"),
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
    'from_pretrained("ernie-vil-2.0-base-zh")': "fetches 800 MB; tests/encoder calls these on a small model",
    "--checkpoint ernie-vil-2.0-base-zh": "fetches 800 MB; benchmarks.md is run with MODEL",
    "export.py ernie-vil-2.0-base-zh": "fetches 800 MB; tests/export exports a small model for Immich",
    "fleetrun tools/train.py -c configs/pretrain": "trains for days on GPUs; tests/config plans these configurations",
    "Model.weights=ernie-vil-2.0-base-zh": "fetches 800 MB; finetuning.md is run with MODEL",
    "Model.text.weights=ernie-3.0-base-zh": "fetches weights; tests/models/test_weight_files.py loads such files",
    "--index http://milvus": "needs a cluster; tests/apps/search runs the commands with milvus-lite",
    "--master 10.0.0.1": "needs two machines; tests/training/test_two_nodes.py starts them as network namespaces",
    "rsync -a --delete 10.0.0.1": "needs two machines",
    "sbatch": "needs Slurm",
    **dict.fromkeys(["docker build", "docker run"], "needs an engine for containers"),
    **dict.fromkeys(["exports/own", "--index indexes/own"], "needs the run of docs/own_data.md"),
    "--protocol PROTOCOL": "FOLDER and PROTOCOL are those that follow on the page",
}  # fmt: skip
"""Parts of commands and of blocks of Python -> why these are not run."""
OTHER_TESTS = {
    "walkthrough.md": "pages/test_walkthroughs.py",
    "curate_walkthrough.md": "pages/test_walkthroughs.py",
    "curation.md": "apps/curation/test_score.py",
    "new_language.md": "pages/test_small_pages.py",
    "own_data.md": "pages/test_own_data.py",
    "classification.md": "pages/test_small_pages.py",
    "extending.md": "pages/test_extending.py",
    "serving.md": "apps/search/test_api.py",
    "model_server.md": "apps/serving/test_page.py",
}
"""Pages that another file tests."""
EXIT_CODES = {"coco-cn-test --check": 1, "data/nlvr2 --check": 1, "Loss.tempreture": 2}
"""Parts of commands -> their exit code: small data lack the published counts, and a page shows an error."""
PRINTED = {
    "plan.md": "paddleclas:ViT-B/16 and paddlenlp:ernie-base, 112",
    "data.md": "7,373 samples in 4 shards",
    "guide.md": "error: configs/demo/emoji.yaml",
    "tags.md": "2 of 1,058 ids have tags",
}
"""Page -> how the output begins that its commands must print; it does not depend on training."""
QUICK = ("bad_input.md", "benchmarks.md", "weights.md")


def is_excluded(command):
    return any(text in command for text in NOT_RUN)


def list_blocks_to_run(page):
    """Return the commands and the Python of a page that no other test runs."""
    if page in OTHER_TESTS:
        return []
    blocks = [(kind, text) for kind, text in split_page(PAGES[page]) if kind in ("shell", "python")]
    return [(kind, text) for kind, text in blocks if not is_excluded(text)]


def run_page(page, folder, monkeypatch):
    """Run a page from its first block to its last, in a checkout with small data."""
    make_checkout(folder)
    monkeypatch.chdir(folder)
    for lay_out in LAYOUTS.get(page, ()):
        lay_out(folder)
    names, printed, blocks_to_run = {"ernie_vil2": ernie_vil2}, "", list_blocks_to_run(page)
    for kind, text in split_page(PAGES[page]):
        if (kind, text) not in blocks_to_run:
            if page in PRINTED and text.startswith(PRINTED[page]):
                assert all(line in printed for line in text.splitlines()), printed
        elif kind == "python":
            exec(compile(text, page, "exec"), names)  # noqa: S102 - the page is ours
        elif text.startswith(SERVERS):
            assert "<html" in serve(text)
        else:
            code, output = run_command(text)
            expected = [status for words, status in EXIT_CODES.items() if words in text] or [0]
            assert code == expected[0], f"{text}\n{output}"
            printed += output


PAGES_TO_RUN = [page for page in PAGES if list_blocks_to_run(page)]


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=() if page in QUICK else pytest.mark.slow) for page in PAGES_TO_RUN]
)
def test_commands_and_python_of_a_page_run(page, tmp_path, monkeypatch):
    run_page(page, tmp_path, monkeypatch)


def test_excluded_commands_are_still_on_a_page():
    blocks = []
    for page in PAGES.values():
        blocks += [text for kind, text in split_page(page) if kind in ("shell", "python")]
    all_blocks = "\0".join(blocks)
    assert [words for words in NOT_RUN if words not in all_blocks] == []
    assert len(blocks) > 150
