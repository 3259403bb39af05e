"""The scripts of docs/examples and the notebook, executed on small data with an untrained model."""

import contextlib
import io
import json
import runpy
import shutil
import sys
import threading
import time

import pytest
import uvicorn

import ernie_vil2
from ernie_vil2.search import open_index
from ernie_vil2.search.fill import add_images, build, images_in
from ernie_vil2.search.service import build_app
from tests.support.checkpoints import untrained_checkpoint
from tests.support.limits import PATIENCE
from tests.support.page_commands import ROOT
from tests.support.published_folders import SMALL, TOKENS, own
from tests.support.stand_ins import shorten

EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    untrained_checkpoint(tmp_path / "MODEL", TOKENS)
    own(tmp_path / "my-images")
    return tmp_path


def printed_by(monkeypatch, name, *arguments):
    """What an example prints; it may end by its exit code 0."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(str(ROOT / "docs" / "examples" / name), run_name="__main__")
        except SystemExit as end:
            assert not end.code, printed.getvalue()  # noqa: PT017  -- there may be no error
    return printed.getvalue()


def test_classes_are_named_in_chinese(folder, monkeypatch):
    image = next((folder / "my-images").glob("*.png"))
    found = printed_by(monkeypatch, "zero_shot_chinese.py", "MODEL", image, "gone.png", "--classes", "红色", "蓝色")
    (line,) = found.splitlines()  # what is missing is skipped
    assert line.startswith(f"{image}: ") and line.split(": ")[1].startswith(("红色", "蓝色"))


def test_models_are_compared(folder, monkeypatch):
    shutil.copytree("MODEL", "OTHER")
    models = ["MODEL", "OTHER", "--data", "my-images"]
    found = printed_by(monkeypatch, "compare_models.py", *models, "--resamples", 50)
    assert "not distinguishable" in found.splitlines()[-1]
    assert len([line for line in found.splitlines() if "R@1" in line]) == 4  # two models, both directions


def test_a_model_is_fine_tuned_on_products(folder, monkeypatch):
    names = [f"{split}{number}.png" for split, rows in SMALL.items() for number, row in enumerate(rows)]
    images = [row[1] for rows in SMALL.values() for row in rows]
    lines = ["image,title"]
    for number in range(40):
        name = f"{number}-{names[number % len(names)]}"
        (folder / name).write_bytes(images[number % len(images)])
        lines.append(f"{name},红色 {number}")
    (folder / "products.csv").write_text("\n".join(lines), encoding="utf-8")
    short = ["-o", "Training.epochs=1", "-o", "Training.global_batch=8", "-o", "Training.micro_batch=null"]
    printed_by(monkeypatch, "finetune_products.py", "MODEL", "products.csv", "--output", "runs/p", *short)
    assert (folder / "runs" / "p" / "report.html").is_file()


def test_pairs_become_shards_and_a_run(folder, monkeypatch):
    small = {"name": "ViT", "image_size": 32, "patch_size": 16, "width": 32, "depth": 1, "heads": 1}
    words = {"name": "ernie", "width": 32, "depth": 1, "heads": 1, "max_positions": 16}
    shorten(folder / "configs/pretrain/vit_b16_ernie_base_zh.yaml", Model={"image": small, "text": words},
            Data={"max_length": 16}, Schedule={"warmup_steps": 1},
            Training={"steps": 2, "global_batch": 4, "checkpoint_every": 2})  # fmt: skip
    printed = printed_by(monkeypatch, "pretrain_shards.py", "my-images/train.csv", "--val", "my-images/val.jsonl",
                         "--output", "runs/mine")  # fmt: skip
    assert "training: ernie-vil2 train -c" in printed and (folder / "runs/mine-shards/index.json").is_file()
    assert (folder / "runs/mine/checkpoints/step_00000002").is_dir()


def test_a_server_is_asked(folder, monkeypatch, shapes):
    model = ernie_vil2.load_model("MODEL")
    with open_index(folder / "index", model, writable=True) as index:
        add_images(index, images_in([str(shapes["val"])]))
        build(index, "images", None, 0.98, lambda line: None)
    with open_index(folder / "index", model) as index:
        server = uvicorn.Server(uvicorn.Config(build_app(index), port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        deadline = time.monotonic() + PATIENCE
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.02)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        image = next((folder / "my-images").glob("*.png"))
        try:
            found = printed_by(monkeypatch, "search_client.py", "red disc", "--image", image, "--address", address,
                               "--count", 3)  # fmt: skip
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
    assert [line.startswith("  ") for line in found.splitlines()] == [False, True, True, True] * 2


def test_the_notebook_runs_and_is_small(folder):
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in cells:
            text = "".join(cell["source"])
            names |= {"MODEL": "MODEL", "DATA": "my-images"} if names else {}
            exec(compile(text, NOTEBOOK.name, "exec"), names)  # noqa: S102  -- code of our own pages
            if text.startswith("MODEL"):
                names |= {"MODEL": "MODEL", "DATA": "my-images"}
    assert "not distinguishable" in printed.getvalue()
    assert NOTEBOOK.stat().st_size < 20_000


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_fits_forty_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
