"""A dry run shows the data, plan and schedule of a training, and its files do not disturb the training."""

import json
from statistics import fmean
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from ernie_vil2.config import ConfigError, apply_overrides, load_config
from ernie_vil2.data.loader import load_batches, read_batch
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import PAD_ID, WordPieceTokenizer
from ernie_vil2.planning.machine import Machine
from ernie_vil2.planning.plan import DEVICES, Plan
from ernie_vil2.planning.towers import Towers
from ernie_vil2.tasks.multi_view import MultiViewRows
from ernie_vil2.training.dry_run import MAX_PREVIEWS, dry_run, preview_source
from ernie_vil2.training.optimizer import compute_learning_rate
from tests.support.copies import count_copied_bytes
from tests.support.entailment_data import write_entailment_folder, write_nlvr2_folder
from tests.support.html_pages import Page, read_chart_lines
from tests.support.shapes import draw, encode_png, write_tsv
from tests.support.trainings import fit, read_losses


@pytest.fixture
def mixture(config, shapes, tmp_path):
    """Return the tiny run with a second source, half of whose samples are unusable."""
    image = encode_png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    rows = [("a <b>disc</b>", str(number), image if number % 2 else b"\xff\xd8") for number in range(16)]
    discs = write_tsv(tmp_path / "discs.tsv", rows)
    sources = f"[{{data: [{shapes['train']}], weight: 1}}, {{data: [{discs}], weight: 1, text_id: null}}]"
    return config(f"Data.train={sources}", "Data.max_bad_share=0.3", "Data.text_id=null")


def test_page_shows_views_plan_and_schedule(mixture):
    result = dry_run(mixture)
    html = (result.folder / "dry_run.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.find_all("script") == page.find_all("link") == [] and "http" not in html and "url(" not in html
    text = " ".join(page.text)
    assert "a <b>disc</b>" in text and "50.00% of the stream" in text and "8 steps of 16 take about " in text
    assert (
        len(page.find_all("img")) == (16 + 8) * 2
    )  # two views of 16 samples of the first source and of 8 usable ones of the second

    assert load_config(result.folder / "config.yaml") == mixture
    (line,) = read_chart_lines(html, "Learning rate")
    heights = np.array([y for _, y in line])
    rates = np.array([compute_learning_rate(step, mixture) for step in range(mixture.Training.steps)])
    assert len(line) == 8 and np.corrcoef(heights, rates)[0, 1] < -0.9999  # y points down


def test_schedule_of_a_dry_run_shows_where_it_cools_down(config):
    schedule = "Schedule={kind: constant, warmup_steps: 10, cooldown: 0.25, floor: 0.0}"
    result = dry_run(config("Training.steps=1001", schedule))
    (line,) = read_chart_lines((result.folder / "dry_run.html").read_text(encoding="utf-8"), "Learning rate")
    # Steps 1 to 1,001 as shares of the width. Step 10 is the first at the peak, and step 751 the last one.
    (left, _), (right, _) = line[0], line[-1]
    top = min(y for _, y in line)
    shares = [(x - left) / (right - left) for x, y in line if y == top]
    assert (shares[0], shares[-1]) == pytest.approx((0.009, 0.75), abs=5e-4)


def test_dry_run_shows_every_stage(config):
    stages = "Training.stages=[{until: 0.5, image_size: 16, learning_rate: 2e-3}, {until: 1}]"
    result = dry_run(config(stages, "Schedule={kind: constant, warmup_steps: 2}"))
    page = (result.folder / "dry_run.html").read_text(encoding="utf-8")
    # Steps 3 and 4 have twice the rate of steps 5 to 8; both lie above 0, the bottom of the axis.
    (line,) = read_chart_lines(page, "Learning rate")
    heights = [y for _, y in line]
    assert heights[2] == heights[3] < heights[4] and len(set(heights[4:])) == 1
    for number in (1, 2):
        assert f"stage {number}: a step of 16 samples takes " in result.text
    assert result.text.count("4 steps of 16 take about") == 2
    with pytest.raises(ConfigError, match="stage 2"):
        dry_run(config(stages.replace("{until: 1}", "{until: 1, image_size: 4}")))


def test_bad_samples_are_counted_before_a_run(mixture, config, tmp_path):
    result = dry_run(mixture)
    report = json.loads((result.folder / "bad_samples.json").read_text())
    assert report["num_read"] == 32 and report["reasons"]["broken image"]["count"] == 8  # the TSV's 16 rows, once each
    assert not result.would_stop
    strict_result = dry_run(apply_overrides(mixture, ["Data.max_bad_share=0.2"]))
    assert strict_result.would_stop and "Data.max_bad_share = 0.2" in strict_result.text

    broken = write_tsv(tmp_path / "broken.tsv", [(f"text {number}", str(number), b"GIF89a") for number in range(20)])
    unusable_result = dry_run(config(f"Data.train=[{broken}]", "Data.text_id=null"))
    assert unusable_result.would_stop and "16 of 16 samples read" in unusable_result.text


def test_dry_run_before_and_after_a_run_changes_nothing(config, tmp_path):
    plain = fit(config("Training.steps=1", f"Training.output={tmp_path / 'plain'}"))
    settings = config("Training.steps=1")
    dry_run(settings)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["dry_run"]
    assert read_losses(fit(settings)) == read_losses(plain)

    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and "dry_run" not in path.parts]
    contents = [path.read_bytes() for path in files]
    dry_run(settings)
    assert [path.read_bytes() for path in files] == contents


@pytest.mark.parametrize(("name", "plan"), [
    ("NVIDIA A100-SXM4-80GB", "ViT and ernie, 2 x a100-80g, float32"), ("NVIDIA L4", "no plan: NVIDIA L4 with 79 GiB")
])  # fmt: skip
def test_plan_is_made_for_the_available_device(config, monkeypatch, name, plan):
    device = SimpleNamespace(name=name, total_memory=79 * 2**30)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle.device.cuda, "get_device_properties", lambda name: device)
    monkeypatch.setattr(paddle.cuda, "mem_get_info", lambda name: (device.total_memory, device.total_memory))
    result = dry_run(config(), ranks=2)
    for name in ("dry_run.html", "plan.txt"):
        assert plan in (result.folder / name).read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="3 ranks"):
        dry_run(config(), ranks=3)


@pytest.fixture
def trainers(monkeypatch):
    """Return the configurations of the trainers that a dry run builds; building one fails."""
    configs = []

    def record(config, **_):
        configs.append(config)
        raise RuntimeError("built a trainer")

    monkeypatch.setattr("ernie_vil2.training.dry_run.Trainer", record)
    return configs


def set_machine(monkeypatch, **changes):
    """Let the dry run measure a machine that is fast and large, but for these changes."""
    machine = Machine(memory=2.0**60, flops=1e18, draws=1e18)._replace(**changes)
    monkeypatch.setattr("ernie_vil2.training.dry_run.measure_machine", lambda: machine)


def test_step_of_seconds_is_run(config, monkeypatch, trainers):
    set_machine(monkeypatch)
    assert "built a trainer" in dry_run(config("Training.micro_batch=4")).text
    (timed,) = trainers
    assert timed.Training.global_batch == 4 and timed.Training.steps == 3


def test_step_of_minutes_is_not_run(config, monkeypatch, trainers):
    # Three direct steps of 16 rows: as many as the run has.
    flops = 3 * Plan(config(), Towers(config()), 1, DEVICES["cpu"]).flops
    set_machine(monkeypatch, flops=flops / 240)
    assert "no step was timed: 3 steps of 16 samples take at least 4 minutes" in dry_run(config()).text
    set_machine(monkeypatch, draws=1.0)
    assert "no step was timed: 3 steps" in dry_run(config()).text
    assert trainers == []
    set_machine(monkeypatch, flops=flops / 5)
    assert "built a trainer" in dry_run(config()).text


def test_step_is_timed_on_the_rows_of_the_run(config, monkeypatch, trainers):
    # Few rows of a small model take as long as many. A slower machine times fewer, and at least 16.
    large = config("Training.global_batch=128")
    flops = 3 * Plan(large, Towers(large), 1, DEVICES["cpu"]).flops
    for seconds, num_rows in ((2, 128), (5, 64), (24, 16)):
        set_machine(monkeypatch, flops=flops / seconds)
        assert "built a trainer" in dry_run(large).text
        assert trainers.pop().Training.global_batch == num_rows


def test_step_without_memory_is_not_run(config, monkeypatch, trainers):
    set_machine(monkeypatch, memory=2.0**20)
    text = dry_run(config()).text
    assert "no step was timed: a step of 16 samples needs " in text and "1.0 MiB" in text
    assert trainers == []


def test_run_on_other_devices_is_planned(config, trainers):
    settings = config("Training.precision=bfloat16", "Training.sharding=stage2", "Training.device=gpu")
    result = dry_run(settings, ranks=4, device=DEVICES["a100-80g"])
    assert not result.would_stop and "no step was timed: this machine is no a100-80g" in result.text
    plan = (result.folder / "plan.txt").read_text()
    assert "4 x a100-80g, bfloat16" in plan and "4 ranks of 4 rows" in plan
    assert trainers == []

    # Without the name of such a device the run is taken to be here.
    local = dry_run(apply_overrides(settings, ["Training.sharding=none", "Training.device=cpu"]))
    assert local.would_stop and "bfloat16: on cpu" in local.text and "--device" in local.text

    refused = dry_run(settings, ranks=4, device=DEVICES["v100-32g"])
    assert refused.would_stop and "v100-32g does not compute in bfloat16" in refused.text


def test_server_of_a_teacher_is_not_asked(config):
    address = "http://127.0.0.1:9/v1#teacher"  # nobody listens there
    settings = config(f"Tuning.teacher={{embeddings: '{address}'}}")
    result = dry_run(settings)
    assert "8 steps of 16 take about " in result.text and "Tuning.teacher" in result.text and not result.would_stop
    assert load_config(result.folder / "config.yaml") == settings


@pytest.mark.parametrize("task", ["entailment", "nlvr2"])
def test_other_tasks_show_the_fields_of_their_rows(config, tmp_path, task):
    folder = {"entailment": write_entailment_folder, "nlvr2": write_nlvr2_folder}[task](tmp_path)
    result = dry_run(config(f"Training.task={task}", f"Data.train=[{folder}]", f"Data.val=[{folder}]"))
    html = (result.folder / "dry_run.html").read_text(encoding="utf-8")
    page, text = Page(html), " ".join(Page(html).text)
    images_per_row = 2 if task == "nlvr2" else 1
    image_count = len(page.find_all("img"))
    assert image_count > 0 and image_count % images_per_row == 0
    assert "statement" in text and "label" in text
    assert not result.would_stop and "no plan: " in result.text


VIEWS = ("image_1", "image_2", "text_1", "text_2")


@pytest.fixture
def settings(shapes, tmp_path):
    """Return a mixture of coloured shapes with tags (3 of 4 samples) and a TSV with every third image broken."""
    image = encode_png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    rows = [(f"a disc {number}", str(number), b"\xff\xd8" if number % 3 == 0 else image) for number in range(30)]
    write_tsv(tmp_path / "discs.tsv", rows)
    sources = (
        f"{{data: [{shapes['train']}], weight: 3, languages: {{zh: 1.0}}}}, "
        f"{{data: [{tmp_path}/discs.tsv], weight: 1, languages: {{en: 1.0}}}}"
    )
    return load_config(None, [
        "Model.image.image_size=32", "Views.crop_area=[0.5, 1.0]", "Views.languages={zh: 1.0, en: 1.0}",
        "Training.global_batch=32", "Data.workers=1", f"Data.train=[{sources}]",
    ])  # fmt: skip


def test_preview_shows_the_samples_of_the_training(settings):
    tokenizer = WordPieceTokenizer(max_length=16)
    stream = SampleStream(settings)
    batch = next(load_batches(MultiViewRows(stream, settings, tokenizer, VIEWS), settings))
    expected = {}  # by source, in order
    for row, position in enumerate(batch["positions"]):
        ids = [number for number in batch["text"][row].tolist() if number != PAD_ID]
        views = {view: batch[view][row].numpy() for view in ("image_1", "image_2")}
        expected.setdefault(stream[position][0], []).append((batch["names"][row], views, ids))
    for source, rows in expected.items():
        result = preview_source(MultiViewRows(stream, settings, tokenizer, VIEWS), settings, source, 8)
        assert result.num_read == 8 and result.seconds > 0
        compared = list(zip(result.rows, rows, strict=False))
        assert len(compared) >= 4, "too few to compare"
        for sample, (name, views, ids) in compared:
            assert sample.texts["sample"] == name
            assert sample.texts["text, as tokens"] == " ".join(tokenizer.tokens[number] for number in ids)
            assert sample.images.keys() == views.keys()
            assert all(np.array_equal(sample.images[view], views[view]) for view in views)


def test_preview_copies_only_its_row(settings):
    rows = MultiViewRows(SampleStream(settings), settings, WordPieceTokenizer(max_length=16), VIEWS)
    batch = read_batch(rows, settings, range(8))
    # As on a GPU: training on CPU switches views off.
    flag = "FLAGS_use_stride_kernel"
    previous = paddle.get_flags(flag)
    paddle.set_flags({flag: True})
    try:
        with count_copied_bytes() as sizes:
            rows.preview(batch, 3, 3)
    finally:
        paddle.set_flags(previous)
    num_rows = batch["text"].shape[0]
    whole_sizes = [batch[name].size * batch[name].element_size() for name in ("image_1", "image_2", "text")]
    assert sorted(sizes) == sorted(size // num_rows for size in whole_sizes)


def test_preview_counts_bad_samples_and_cut_texts(settings):
    tokenizer = WordPieceTokenizer(max_length=7)  # enough for "[CLS] a disc 2 9 [SEP]", not for tags
    rows = MultiViewRows(SampleStream(settings), settings, tokenizer, VIEWS)
    result = preview_source(rows, settings, 1, 30)  # an epoch of the TSV
    assert sorted(result.bad) == [("broken image", str(number)) for number in sorted(map(str, range(0, 30, 3)))]
    mean = fmean(len(tokenizer.encode(f"a disc {number}")) for number in range(30) if number % 3)
    assert result.notes == [f"texts of {mean:.1f} tokens, 0 of them cut at 7, 0.0% of the tokens unknown"]
    assert len(result.rows) == len(result.stored_bytes) == min(MAX_PREVIEWS, 20)  # of 20 usable samples

    rows = MultiViewRows(SampleStream(settings), settings, tokenizer, VIEWS)
    shapes = preview_source(rows, settings, 0, 32)
    # "图片中包含绿色、方块" is cut to seven tokens; "绿色的方块" has exactly seven or fewer.
    text = read_batch(rows, settings, rows.stream.first_positions(0, 32))["text"].numpy()
    full_count = int((text[:, 6] != PAD_ID).sum())
    assert full_count > 0 and f", {full_count} of them cut at 7, " in shapes.notes[0]
    assert shapes.rows[0].texts.keys() == {"sample", "text, as tokens", "caption, zh", "tags, zh"}


def test_unknown_tokens_are_counted(settings):
    tokenizer = WordPieceTokenizer(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a"], max_length=16)
    result = preview_source(MultiViewRows(SampleStream(settings), settings, tokenizer, {"text_1"}), settings, 1, 30)
    assert result.rows[0].texts["text, as tokens"] == "[CLS] a [UNK] [UNK] [SEP]"
    assert result.notes == ["texts of 5.0 tokens, 0 of them cut at 16, 40.0% of the tokens unknown"]
    assert not result.bad and result.rows[0].images == {}  # without image views, broken images are not decoded
