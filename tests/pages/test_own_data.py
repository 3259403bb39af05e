"""Every command of docs/own_data.md runs, from a folder and a table to a service.

The data are smaller and the training is shorter; no command is changed except by the options of SMALLER.
"""

import json
import re

import pytest
import yaml

from ernie_vil2 import cli, load_model
from ernie_vil2.cli import report
from ernie_vil2.config import load_config
from ernie_vil2.data.readers import open_benchmarks
from ernie_vil2.data.samples import text_key
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.evaluation.intervals import Interval
from ernie_vil2.evaluation.protocol import evaluate, find_protocol
from ernie_vil2.training import rate_search
from tests.support.commands import call
from tests.support.page_commands import PAGES, SERVERS, run_command, serve, split_page
from tests.support.stand_ins import make_checkout, shorten

COMMANDS = [text for kind, text in split_page(PAGES["own_data.md"]) if kind == "shell"]
TRAIN = next(command for command in COMMANDS if "train.py" in command and "--dry-run" not in command)
SMALLER = {"demo_data/shop.py": " --products 30"}
"""Script -> options that make its command short."""
REPORT = ("report", "--run", "runs/own", "--output")


@pytest.fixture(scope="module")
def executed_page(tmp_path_factory):
    """Run all commands of the page, and return their folder and what each printed."""
    folder, printed = tmp_path_factory.mktemp("own_data"), {}
    make_checkout(folder)
    shorten(folder / "configs" / "finetune" / "own.yaml", Training={"epochs": 1, "output": "runs/own",
            "global_batch": 16, "checkpoint_every": 100}, Evaluation={"every": 2, "at_start": True})  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in COMMANDS:
            if command.startswith(SERVERS):
                assert "<html" in serve(command)
                continue
            options = [option for name, option in SMALLER.items() if name in command]
            code, printed[command] = run_command("".join([command.partition("  #")[0], *options]))
            assert code == 0, f"{command}\n{printed[command]}"
    return folder, printed


@pytest.fixture
def folder(executed_page, monkeypatch):
    """Enter the folder of the page, and return it."""
    monkeypatch.chdir(executed_page[0])
    return executed_page[0]


def test_every_command_runs_in_order(executed_page):
    folder, printed = executed_page
    assert len(printed) == len(COMMANDS) - 1
    html = (folder / "runs" / "own" / "report.html").read_text(encoding="utf-8")
    lead = html.index('<p class="lead">')
    assert lead < html.index("<section>") and "95 % interval" in html[lead : html.index("</p>", lead)]


def test_verdict_says_what_the_old_task_lost(folder):
    old = ["report", "--run", "runs/own", "--old", "shop/商品.csv", "--images", "shop/photos", "--output", "old.html"]
    printed = call(*old).stdout
    (change,) = re.findall(r"; on shop/商品.csv.* it (rose by|fell by|stayed as it was)([ 0-9.]*)\.\n", printed)
    assert "".join(change) in (folder / "old.html").read_text(encoding="utf-8")
    assert ("mixed weights forget less" in printed) == (change[0] == "fell by" and float(change[1]) > 1)
    record = folder / "runs" / "own" / "evaluation" / "before.csv"
    record.rename(folder / record.name)
    result = call(*old)
    (folder / record.name).rename(record)
    assert result.returncode == 2 and record.name in result.stderr


def compute_mean_recall(model, data, language, num_images):
    """Return the mean recall on the first images of data and their captions."""
    benchmark = open_benchmarks(data)[language]
    texts = sorted({text for image, text in benchmark.pairs.tolist() if image < num_images})
    selection = benchmark.select(range(num_images), texts)
    return evaluate(load_model(model), selection, find_protocol("pairs")).mean_recall


def test_verdict_compares_validation_data_of_initial_weights(folder, monkeypatch):
    # Without --old, the first images of Data.val of the run that trained the initial weights are compared.
    monkeypatch.setattr(report, "MAX_OLD_IMAGES", 20)
    path = folder / "MODEL" / "config.yaml"
    original = path.read_text(encoding="utf-8")
    settings = yaml.safe_load(original)
    settings["Data"] |= {"val": ["shop/商品.csv"], "images": "shop/photos"}
    settings["Views"] |= {"languages": {"zh": 1.0}}
    try:
        path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
        printed = call(*REPORT, "known.html").stdout
        settings["Data"]["val"] = ["shop/gone.csv"]
        path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
        result = call(*REPORT, "gone.html")
        assert result.returncode == 0 and "gone.csv" in result.stderr
    finally:
        path.write_text(original, encoding="utf-8")
    change = re.search(r"on shop/商品.csv [(]Data.val of MODEL[)] it (rose|fell|stayed)(?: by (\d+\.\d))?", printed)
    data = DataSpec(["shop/商品.csv"], images="shop/photos", preferred_languages=["zh"], unnamed_language="zh")
    after = json.loads((folder / "runs" / "own" / "evaluation" / "after.json").read_text())["model"]
    expected = compute_mean_recall(after, data, "zh", 20) - compute_mean_recall("MODEL", data, "zh", 20)
    sign = {"rose": 1, "fell": -1, "stayed": 0}[change[1]]
    assert sign * float(change[2] or 0) == pytest.approx(expected, abs=0.051)  # printed with one decimal


def test_verdict_counts_test_texts_that_are_trained_on(folder, monkeypatch):
    # Tables that somebody else has split may have the same caption in training and test data.
    assert re.search("; none of the [0-9]+ test texts is trained on", call(*REPORT, "apart.html").stdout)
    config = load_config(folder / "runs" / "own" / "config.yaml")
    (benchmark,) = open_benchmarks(DataSpec.from_scored(config, config.Data.test_config, "test")).values()
    texts = {text.text for text in benchmark.texts}
    trained_texts = sorted(texts)[: len(texts) // 2]
    keys = {text_key(f" {text} ") for text in trained_texts}
    monkeypatch.setattr(SampleStream, "training_texts", lambda *_: (keys, True))
    assert f"{len(trained_texts)} of the {len(texts)} test texts " in call(*REPORT, "trained.html").stdout


@pytest.mark.parametrize("is_better", [pytest.param(False, marks=pytest.mark.slow), True])
def test_rate_changes_only_if_clearly_better(folder, monkeypatch, is_better):
    # The page's command, with a fixed difference between every trial and the recipe.
    rates = rate_search.RATES[::3]
    difference = Interval(2.0, 0.5, 3.5, 20, 0.8, 0.001) if is_better else Interval(2.0, -0.5, 3.5, 20, 0.8, 0.2)
    monkeypatch.setattr(rate_search, "MAX_SAMPLES", 64)
    monkeypatch.setattr(rate_search, "RATES", rates)
    monkeypatch.setattr(rate_search, "estimate_query_difference", lambda *_: difference)
    output = f"runs/tuned-{is_better}"
    code, printed = run_command(f"{TRAIN} --tune-rate -o Training.output={output}")
    assert code == 0, printed
    record = json.loads((folder / output / rate_search.RESULTS_FILE).read_text())
    recipe, *trials = record["trials"]
    assert {trial[0] for trial in trials} >= {*rates} - {recipe[0]}
    chosen = load_config(folder / output / "config.yaml").Optimizer.learning_rate
    if is_better:
        best = max(trials, key=lambda trial: (trial[2], -trial[0]))
        assert record["best_trial"] == best and chosen == best[0]
        assert f"Optimizer.learning_rate={best[0]!r}" in printed
    else:
        assert record["best_trial"] is None and chosen == recipe[0] == 2e-3
    code, printed = run_command(f"{TRAIN} --tune-rate --resume -o Training.output={output}")
    assert code == 0 and "rates were tried before" in printed


def test_rates_are_tried_on_a_single_process_only(monkeypatch):
    arguments = ["-c", "configs/finetune/own.yaml", "-o", "Model.weights=MODEL", "-o", "Data.train=[x]", "--tune-rate"]
    several = cli.run("train", [*arguments, "--processes", "2"])
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    result = call("train", *arguments)
    assert several == result.returncode == 2 and "--tune-rate" in result.stderr
