"""The scripts of docs/examples and the notebook run on small data with an untrained model."""

import contextlib
import io
import itertools
import json
import runpy
import shlex
import shutil
import sys

import pytest

import ernie_vil2
from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.add_items import add_images, list_images, optimize_collection
from ernie_vil2.apps.search.service import build_app
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.paths import ROOT
from tests.support.published_folders import ROWS_BY_SPLIT, TOKENS, write_tables
from tests.support.sockets import RunningServer
from tests.support.stand_ins import shorten_pretraining

NOTEBOOKS = ROOT / "docs" / "notebooks"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    write_untrained_checkpoint(tmp_path / "MODEL", TOKENS)
    write_tables(tmp_path / "my-images")
    return tmp_path


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs an example and returns what it prints; its exit code must be 0."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        printed, code = io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            try:
                runpy.run_path(str(ROOT / "docs" / "examples" / name), run_name="__main__")
            except SystemExit as exit_of_example:
                code = exit_of_example.code
        assert not code, printed.getvalue()
        return printed.getvalue()

    return run


def test_classes_are_named_in_chinese(folder, run, capsys):
    image = next((folder / "my-images").glob("*.png"))
    (line,) = run("zero_shot_chinese.py", "MODEL", image, "gone.png", "--classes", "红色", "蓝色").splitlines()
    assert line.startswith((f"{image}: 红色", f"{image}: 蓝色"))
    assert "skipped: gone.png" in capsys.readouterr().err


def test_example_without_a_model_ends_in_one_line(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["zero_shot_chinese.py", "no-model", "a.png", "--classes", "红色"])
    with pytest.raises(SystemExit, match=r"^error: no-model: .*\Z"):
        runpy.run_path(str(ROOT / "docs" / "examples" / "zero_shot_chinese.py"), run_name="__main__")


def test_models_are_compared(folder, run):
    shutil.copytree("MODEL", "OTHER")
    lines = run("compare_models.py", "MODEL", "OTHER", "--data", "my-images", "--resamples", 50).splitlines()
    assert "not distinguishable" in lines[-1]
    assert len([line for line in lines if "R@1" in line]) == 4  # two models, both directions


def write_products(folder, header="image,title", num_rows=40, encoding="utf-8"):
    folder.mkdir(exist_ok=True)
    images = [row.image for row in itertools.chain(*ROWS_BY_SPLIT.values())]
    lines = [header]
    for number in range(num_rows):
        (folder / f"{number}.png").write_bytes(images[number % len(images)])
        lines.append(f"{number}.png,红色 {number}")
    (folder / "products.csv").write_text("\r\n".join(lines), encoding=encoding)
    return folder / "products.csv"


def test_model_is_fine_tuned_on_products(folder, run):
    products = write_products(folder / "shop, new [1] #2: o'clock")
    short = ["-o", "Training.epochs=1", "-o", "Training.global_batch=8", "-o", "Training.micro_batch=null"]
    run("finetune_products.py", "MODEL", products, "--output", "runs/p, #1", *short)
    assert (folder / "runs" / "p, #1" / "report.html").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"header": "image,name"}, "products.csv has no column 'title'"),
        ({"num_rows": 3}, "products.csv: of 3 rows none is in test"),
        ({"encoding": "gb18030"}, "products.csv is not UTF-8"),
    ],
)
def test_unusable_products_are_named(folder, monkeypatch, changes, message):
    products = write_products(folder / "shop", **changes)
    monkeypatch.setattr(sys, "argv", ["finetune_products.py", "MODEL", str(products)])
    with pytest.raises(SystemExit, match=message):
        runpy.run_path(str(ROOT / "docs" / "examples" / "finetune_products.py"), run_name="__main__")


def test_pairs_become_shards_and_a_run(folder, run):
    shorten_pretraining(folder)
    sources = ["my-images/train.csv", "--val", "my-images/val.jsonl"]
    for _ in range(2):  # the same command resumes
        printed = run("pretrain_shards.py", *sources, "--output", "runs/mine, #1")
    (command,) = (line for line in printed.splitlines() if line.startswith("training: "))
    assert 'Data.train=["runs/mine, #1-shards"]' in shlex.split(command)
    assert (folder / "runs/mine, #1-shards/index.json").is_file()
    assert (folder / "runs/mine, #1/checkpoints/step_00000004").is_dir()


def test_client_prints_the_answers_of_a_server(folder, run, shapes, monkeypatch):
    model = ernie_vil2.load_model("MODEL")
    with open_index(folder / "index", model, writable=True) as index:
        add_images(index, list_images([str(shapes["val"])]))
        optimize_collection(index, "images", None, 0.98, lambda line: None)
    image = next((folder / "my-images").glob("*.png"))
    with open_index(folder / "index", model) as index, RunningServer(build_app(index)) as running:
        address = "http://{}:{}".format(*running.address)
        printed = run("search_client.py", "red disc", "--image", image, "--address", f"{address}/", "--count", 3)
        monkeypatch.setattr(sys, "argv", ["search_client.py", "red disc", "--address", address, "--count", "0"])
        with pytest.raises(SystemExit, match=r"/v1/search/batch: 4\d\d: .*count"):
            runpy.run_path(str(ROOT / "docs" / "examples" / "search_client.py"), run_name="__main__")
    assert [line.startswith("  ") for line in printed.splitlines()] == [False, True, True, True] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart", "quickstart.zh"])
def test_notebook_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    for folder in ("configs", "demo_data", "docs", "ernie_vil2", "tools"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = NOTEBOOKS / f"{name}.ipynb"
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]

    names = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), notebook.name, "exec"), names)  # noqa: S102 - code of our own pages

    assert (tmp_path / "runs" / "notebook_own" / "report.html").is_file()
    with open_index("indexes/notebook_own") as index:
        assert len(index.collection("images")) == 600


@pytest.mark.parametrize("name", ["quickstart", "quickstart.zh"])
def test_notebook_says_which_python_it_needs(name, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    first = next(cell for cell in cells if cell["cell_type"] == "code")
    with pytest.raises(RuntimeError, match="3.11"):
        exec("".join(first["source"]), {})  # noqa: S102 - code of our own pages
