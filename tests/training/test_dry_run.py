"""A dry run: what it shows is what training sees, and what it leaves disturbs nothing."""

import hashlib
import json
import re
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.training.dry_run import dry_run
from ernie_vil2.training.optimizer import learning_rate
from tests.support.commands import call
from tests.support.entailment_data import entailment_folder, nlvr2_folder
from tests.support.html_pages import Page, lines_of
from tests.support.shapes import draw, png, write_tsv
from tests.support.trainings import as_arguments, fit, losses


def contents(folder):
    """Return digests of the files of a run, without those of its dry run."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "dry_run" not in path.parts
    }


@pytest.fixture
def mixture(config, shapes, tmp_path):
    """The tiny run with a second source, of which half cannot be used."""
    image = png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    rows = [("a <b>disc</b>", str(number), image if number % 2 else b"\xff\xd8") for number in range(16)]
    discs = write_tsv(tmp_path / "discs.tsv", rows)
    sources = f"[{{data: [{shapes['train']}], weight: 1}}, {{data: [{discs}], weight: 1, text_id: null}}]"
    return config(f"Data.train={sources}", "Data.max_bad_share=0.3", "Data.text_id=null")


def test_the_page_shows_the_views_the_plan_and_the_schedule(mixture):
    found = dry_run(mixture)
    html = (found.folder / "dry_run.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.all("script") == page.all("link") == [] and "http" not in html and "url(" not in html
    text = " ".join(page.text)
    for expected in ("most at one time", "schedule", "a <b>disc</b>", "50.00% of the stream", "broken image", "[CLS]"):
        assert expected in text, expected
    images = page.all("img")
    assert len(images) == (16 + 8) * 2  # of the sources, of the second one half the samples; views
    assert "10 more samples" in text and "2 more samples" in text
    assert re.search(r"8 steps of 16 take about (1 [a-z]+[^s]|(?!1 )[\d,]+ [a-z]+s)", text)

    assert load_config(found.folder / "config.yaml") == mixture
    (line,) = lines_of(html, "Learning rate")
    heights = np.array([y for _, y in line])
    rates = np.array([learning_rate(step, mixture) for step in range(mixture.Training.steps)])
    assert len(line) == 8 and np.corrcoef(heights, rates)[0, 1] < -0.9999  # y points down


def test_bad_samples_are_found_before_they_end_a_run(mixture, config, tmp_path):
    found = dry_run(mixture)
    report = json.loads((found.folder / "bad_samples.json").read_text())
    assert report["read"] == 32 and report["reasons"]["broken image"]["count"] == 8  # the TSV's 16 rows, once each
    assert not found.would_stop
    few = mixture.model_copy(update={"Data": mixture.Data.model_copy(update={"max_bad_share": 0.2})})
    again = dry_run(few)
    assert again.would_stop and "Data.max_bad_share = 0.2" in again.text

    broken = write_tsv(tmp_path / "broken.tsv", [(f"text {number}", str(number), b"GIF89a") for number in range(20)])
    useless = dry_run(config(f"Data.train=[{broken}]", "Data.text_id=null"))
    assert useless.would_stop
    assert "16 of 16 samples read" in (useless.folder / "dry_run.html").read_text(encoding="utf-8")


def test_a_run_is_the_same_with_a_dry_run_before_and_after(config, tmp_path):
    plain = fit(config("Training.steps=2", f"Training.output={tmp_path / 'plain'}"))
    settings = config("Training.steps=2")
    found = dry_run(settings)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["dry_run"]
    assert losses(fit(settings)) == losses(plain)

    before = contents(tmp_path / "run")
    dry_run(settings)
    assert contents(tmp_path / "run") == before
    page = (found.folder / "dry_run.html").read_text(encoding="utf-8")
    assert "holds step_00000002: continue with --resume" in page


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("NVIDIA A100-SXM4-80GB", "ViT and ernie, 2 x a100-80g, float32"),
        ("NVIDIA L4", "no plan: NVIDIA L4 with 79 GiB"),
    ],
)
def test_the_plan_is_for_the_device_at_hand(config, monkeypatch, name, plan):
    device = SimpleNamespace(name=name, total_memory=79 * 2**30)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle.device.cuda, "get_device_properties", lambda asked: device)
    found = dry_run(config(), ranks=2)
    for name in ("dry_run.html", "plan.txt"):
        assert plan in (found.folder / name).read_text(encoding="utf-8")
    (line,) = [line for line in found.text.splitlines() if "plan" in line]
    assert line.startswith("plan: fits, ") or plan in line
    with pytest.raises(ConfigError, match="3 ranks"):
        dry_run(config(), ranks=3)


@pytest.mark.parametrize("task", ["entailment", "nlvr2"])
def test_another_task_shows_what_its_rows_hold(config, tmp_path, task):
    """By its own rows: of one image or two, with statement and label."""
    folder = {"entailment": entailment_folder, "nlvr2": nlvr2_folder}[task](tmp_path)
    found = dry_run(config(f"Training.task={task}", f"Data.train=[{folder}]", f"Data.val=[{folder}]"))
    html = (found.folder / "dry_run.html").read_text(encoding="utf-8")
    page, text = Page(html), " ".join(Page(html).text)
    assert len(page.all("img")) % (2 if task == "nlvr2" else 1) == 0 < len(page.all("img"))
    for expected in ("statement", "label", "[CLS]", "no plan: ", "statements, ", "of them cut at 24"):
        assert expected in text, expected
    assert not found.would_stop and "no plan: " in found.text


def test_the_command_trains_nothing(overrides, tmp_path):
    result = call("train", *as_arguments([*overrides, "Data.workers=1"]), "--dry-run", "--processes", 2)
    assert result.returncode == 0, result.stderr
    for expected in ("plan: fits, ", "all 8 samples read could be used", "nothing was trained"):
        assert expected in result.stdout, expected
    left = {path.name for path in (tmp_path / "run" / "dry_run").iterdir()}
    assert left == {"dry_run.html", "plan.txt", "config.yaml", "bad_samples.json", "bad_samples.txt"}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["dry_run"]
