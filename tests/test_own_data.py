"""docs/own_data.md, executed: the way from a folder and a table to a service, every command as it is there.

The set is made smaller and the training shorter; no command is changed but for SMALLER's options.
"""

import json
import math
import re
import shlex

import numpy as np
import pytest
import yaml

from ernie_vil2 import cli, load_model
from ernie_vil2.cli import report
from ernie_vil2.config import load_config
from ernie_vil2.data.samples import text_key
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.evaluation.intervals import Interval
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.evaluation.protocol import evaluate
from ernie_vil2.evaluation.protocols import protocol
from ernie_vil2.evaluation.scorer import Data
from ernie_vil2.models.weights.initial import recipe_of, with_model_like
from ernie_vil2.training import rate_search
from tests.support.checkpoints import untrained_checkpoint
from tests.support.page_commands import PAGES, parts, run_command
from tests.support.published_folders import TOKENS
from tests.support.stand_ins import checkout, shorten
from tests.test_commands_of_pages import SERVERS, serve

PAGE = PAGES["own_data.md"]
COMMANDS = [text for kind, text in parts(PAGE) if kind == "shell"]
SMALLER = {"demo_data/shop.py": " --articles 30"}
"""Options that make a command short."""


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder in which all commands have been run, and what they printed; the server answers with its page."""
    folder, printed = tmp_path_factory.mktemp("own_data"), {}
    checkout(folder)
    shorten(folder / "configs" / "finetune" / "own.yaml", Training={"epochs": 1, "output": "runs/own",
            "global_batch": 16, "checkpoint_every": 100}, Evaluation={"every": 2, "at_start": True})  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in COMMANDS:
            if command.startswith(SERVERS):
                assert "<html" in serve(command)
                continue
            small = next((option for name, option in SMALLER.items() if name in command), "")
            code, printed[command] = run_command(command.partition("  #")[0] + small)
            assert code == 0, f"{command}\n{printed[command]}"
    return folder, printed


def test_every_command_runs_one_after_the_other(walked):
    _, printed = walked
    assert len(printed) == len(COMMANDS) - 1
    checked, dry, *_ = (text for command, text in printed.items() if "--check" in command or "--dry-run" in command)
    assert "all 60 samples read could be used" in checked and "nothing was trained" in dry


def test_the_report_begins_with_the_verdict_and_shows_images(walked):
    folder, _ = walked
    html = (folder / "runs" / "own" / "report.html").read_text(encoding="utf-8")
    lead = html.index('<p class="lead">After fine-tuning, mean recall on your ')
    assert lead < html.index("<section>") and "test images is " in html[lead:] and "95 % interval" in html[lead:]
    if "those that moved furthest" in html:
        assert 'class="moved"' in html


def test_the_verdict_says_what_the_old_task_lost(walked, monkeypatch, capsys):
    folder, _ = walked
    monkeypatch.chdir(folder)
    old = ["--old", "shop/商品.csv", "--images", "shop/photos", "--output", "old.html"]
    assert cli.run("report", ["--run", "runs/own", *old]) == 0
    printed, html = capsys.readouterr().out, (folder / "old.html").read_text(encoding="utf-8")
    (moved,) = re.findall(r"; on shop/商品.csv.* it (rose by|fell by|stayed as it was)([ 0-9.]*)\.\n", printed)
    assert "".join(moved) in html
    assert ("mixed weights keep more" in printed) == (moved[0] == "fell by" and float(moved[1]) > 1)
    for name in ("before.csv", "after.json"):
        (folder / "runs" / "own" / "evaluation" / name).rename(folder / name)
        assert cli.run("report", ["--run", "runs/own", *old]) == 2
        error = capsys.readouterr().err
        assert "there is nothing to set it against without" in error and name in error
        (folder / name).rename(folder / "runs" / "own" / "evaluation" / name)


def mean_recall(model, data, language, most):
    """Mean recall on the first images of data and their captions alone."""
    benchmark = data.benchmarks()[language]
    texts = sorted({text for image, text in benchmark.pairs.tolist() if image < most})
    return evaluate(load_model(model), benchmark.select(range(most), texts), protocol("pairs")).mean_recall


def test_the_report_says_what_was_lost_of_what_the_initial_run_validated(walked, monkeypatch, capsys):
    """Without --old: by the first images of Data.val of the run that the initial weights are of."""
    folder, _ = walked
    monkeypatch.chdir(folder)
    monkeypatch.setattr(report, "MOST_OLD_IMAGES", 20)
    path = folder / "MODEL" / "config.yaml"
    settings = path.read_text(encoding="utf-8")
    own = yaml.safe_load(settings)
    own["Data"] |= {"val": ["shop/商品.csv"], "images": "shop/photos"}
    own["Views"] |= {"languages": {"zh": 1.0}}
    try:
        path.write_text(yaml.safe_dump(own, allow_unicode=True), encoding="utf-8")
        assert cli.run("report", ["--run", "runs/own", "--output", "known.html"]) == 0
        printed = capsys.readouterr().out
        own["Data"]["val"] = ["shop/gone.csv"]
        path.write_text(yaml.safe_dump(own, allow_unicode=True), encoding="utf-8")
        assert cli.run("report", ["--run", "runs/own", "--output", "gone.html"]) == 0
        assert "gone.csv" in capsys.readouterr().err
    finally:
        path.write_text(settings, encoding="utf-8")
    moved = re.search(r"on shop/商品.csv [(]Data.val of MODEL[)] it (rose|fell|stayed)(?: by (\d+\.\d))?", printed)
    data = Data(["shop/商品.csv"], images="shop/photos", preferred=["zh"], unnamed="zh")
    after = json.loads((folder / "runs" / "own" / "evaluation" / "after.json").read_text())["model"]
    change = mean_recall(after, data, "zh", 20) - mean_recall("MODEL", data, "zh", 20)
    sign = {"rose": 1, "fell": -1, "stayed": 0}[moved[1]]
    assert sign * float(moved[2] or 0) == pytest.approx(change, abs=0.051)
    assert "Data.val of MODEL" in (folder / "known.html").read_text(encoding="utf-8")


def test_the_verdict_says_how_many_test_texts_are_trained_on(walked, monkeypatch, capsys):
    """Of a division that keeps no caption together, as of tables that somebody else has divided."""
    folder, _ = walked
    monkeypatch.chdir(folder)
    assert cli.run("report", ["--run", "runs/own", "--output", "apart.html"]) == 0
    assert re.search("; none of the [0-9]+ test texts is trained on", capsys.readouterr().out)
    test = {text.text for text in texts_of_test(folder)}
    seen = sorted(test)[: len(test) // 2]
    monkeypatch.setattr(SampleStream, "training_texts", lambda *_: ({text_key(f" {text} ") for text in seen}, True))
    assert cli.run("report", ["--run", "runs/own", "--output", "trained.html"]) == 0
    printed = capsys.readouterr().out
    assert f"; {len(seen)} of the {len(test)} test texts " in printed and " gain " in printed
    assert f"{len(seen)} of the {len(test)} test texts " in (folder / "trained.html").read_text(encoding="utf-8")


def texts_of_test(folder):
    """What `Data.test` of the run holds."""
    config = load_config(folder / "runs" / "own" / "config.yaml")
    (benchmark,) = Data.of_run(config, config.Data.tested, "test").benchmarks().values()
    return benchmark.texts


def test_only_paths_are_particular_to_the_set():
    """Somebody else changes nothing but paths for other images, and the field that one option groups by."""
    particular = {"shop/商品.csv", "shop/photos", "shop", "shards/shop", "货号", "Data.train=[shop/商品.csv]"}
    for command in COMMANDS[1:]:
        words = [word for word in shlex.split(command.replace("\\\n", " "), comments=True) if not word.isascii()]
        assert set(words) <= particular, command


def test_rate_and_batch_follow_the_size_of_the_model_unless_they_are_set(tmp_path):
    untrained_checkpoint(tmp_path / "MODEL", TOKENS)
    settings = [f"Model.weights={tmp_path / 'MODEL'}", "Data.train=[x]"]
    small = with_model_like(load_config("configs/finetune/own.yaml", settings))
    assert (small.Tuning.initial_share, small.Tuning.freeze_norms) == (0.3, small.Model.image.name == "RepVGG")
    assert (small.Optimizer.learning_rate, small.Training.global_batch, small.Training.micro_batch) == (2e-3, 64, None)
    own = [*settings, "Optimizer.learning_rate=3e-4", "Training.global_batch=128"]
    assert with_model_like(with_model_like(load_config("configs/finetune/own.yaml", own))).Training.global_batch == 128
    assert with_model_like(load_config("configs/finetune/own.yaml", own)).Optimizer.learning_rate == 3e-4
    released = {key: value for _, key, value in recipe_of({"image": {}, "text": {"width": 768}})}
    assert released == {
        "learning_rate": 5e-5,
        "global_batch": 256,
        "micro_batch": 64,
        "initial_share": 0,
        "freeze_norms": False,
    }
    assert recipe_of({"image": {}, "text": {"name": "ernie-base"}}) == recipe_of({"image": {}, "text": {"width": 768}})
    convolutional = recipe_of({"image": {"name": "RepVGG"}, "text": {"width": 192}})
    assert ("Tuning", "freeze_norms", True) in convolutional


TRAIN = next(command for command in COMMANDS if "train.py" in command and "--dry-run" not in command)


@pytest.mark.parametrize("clearly_better", [False, True])
def test_the_search_keeps_the_recipe_unless_another_is_clearly_better(walked, monkeypatch, clearly_better):
    """By the page's command, with the difference of every trial to the recipe's given here."""
    folder, _ = walked
    monkeypatch.chdir(folder)
    monkeypatch.setattr(rate_search, "SAMPLES", 64)
    monkeypatch.setattr(rate_search, "RATES", rate_search.RATES[::3])
    low = 0.5 if clearly_better else -0.5
    monkeypatch.setattr(
        rate_search, "paired_queries", lambda *_: Interval(2.0, low, 3.5, 20, 0.8, 0.001 if clearly_better else 0.2)
    )
    output = f"runs/tuned-{clearly_better}"
    code, printed = run_command(f"{TRAIN} --tune-rate -o Training.output={output}")
    assert code == 0, printed
    record = json.loads((folder / output / rate_search.KEPT).read_text())
    recipe, *others = record["trials"]
    assert {trial[0] for trial in others} >= {*rate_search.RATES[::3]} - {recipe[0]}
    rates = load_config(folder / output / "config.yaml").Optimizer.learning_rate
    if clearly_better:
        best = max(others, key=lambda trial: (trial[2], -trial[0]))
        assert record["chosen"] == best and rates == best[0]
        assert f"trains with -o Optimizer.learning_rate={best[0]!r}" in printed
    else:
        assert record["chosen"] is None and rates == recipe[0] == 2e-3
    assert not (folder / output / rate_search.TRIALS).exists()
    code, printed = run_command(f"{TRAIN} --tune-rate --resume -o Training.output={output}")
    assert code == 0 and "rates were tried before" in printed


def queries_of(hits, language="zh"):
    """Outcomes of images and their texts of which these are found, as a scorer gives them."""
    ids = [f"{way} {number}" for way in ("image_to_text", "text_to_image") for number in range(len(hits))]
    values = 100.0 * np.tile(np.asarray(hits, float), 2)
    rows = np.arange(len(hits))
    return {
        language: Outcomes(
            ids,
            {"mR": values},
            "mR",
            np.tile(rows, 2),
            np.where(values > 0, 1, 9),
            {"mR": np.repeat([0, 1], len(hits))},
        )
    }


def results_of(recipe, *others):
    """The recipe's trial and others, each from which images it finds."""
    results = rate_search.Results()
    for number, hits in enumerate((recipe, *others)):
        queries = None if hits is None else rate_search.pool_queries(queries_of(hits))
        score = None if hits is None else 100 * float(np.mean(hits))
        results.add(rate_search.Trial(1e-3 * 2**number, 64, score), queries)
    return results


def test_a_rate_is_chosen_only_beyond_the_interval_of_its_difference():
    """Of 93 images the recipe finds the first 40; another that finds five more and loses three is no better."""
    recipe = np.arange(93) < 40
    slightly = (np.arange(93) >= 3) & (np.arange(93) < 45)
    clearly = np.arange(93) < 60
    assert results_of(recipe, slightly).choose() is None
    assert results_of(recipe, recipe).choose() is None
    assert results_of(recipe, slightly, clearly, None).choose().rate == 4e-3
    assert results_of(clearly, recipe, slightly).choose() is None  # worse ones are not chosen either
    assert results_of(None, slightly, clearly).choose().rate == 4e-3
    found = results_of(recipe, slightly)
    difference = found.difference(*found.trials[::-1])
    assert difference.mean == pytest.approx(100 * 2 / 93) and difference.low < 0 < difference.high


def test_one_of_many_rates_is_not_chosen_by_chance():
    """Eight rates that differ from the recipe's in coin flips; of twenty such searches one in twenty may choose one."""
    random = np.random.default_rng(0)
    chosen = 0
    for _ in range(20):
        recipe, *others = random.random((9, 60)) < 0.5
        chosen += results_of(recipe, *others).choose() is not None
    assert chosen <= 3


def test_queries_of_two_languages_are_pooled_by_images():
    outcomes = {**queries_of([1, 0, 1]), **queries_of([0, 0, 1], "en")}
    queries = rate_search.pool_queries(outcomes)
    assert len(set(queries.ids)) == 12 and len(set(queries.groups.tolist())) == 4
    by_image = [queries.clusters[number::3].tolist() for number in range(3)]
    assert all(len(set(numbers)) == 1 for numbers in by_image) and len(set(queries.clusters.tolist())) == 3
    means = [queries.values[queries.groups == group].mean() for group in range(4)]
    assert np.mean(means) == pytest.approx((200 / 3 + 100 / 3) / 2)


def test_the_best_trial_is_that_of_the_best_score_and_of_equal_ones_the_lowest_rate():
    trials = [rate_search.Trial(1e-3, 64, 40.0), rate_search.Trial(1e-4, 64, 40.0), rate_search.Trial(1e-2, 64)]
    assert rate_search.best_of(trials) == trials[1]
    assert rate_search.best_of(trials[2:]) is None


LADDER = [2e-5, 5e-5, 1e-4, 2e-4, 4e-4, 1e-3]


@pytest.mark.parametrize(
    ("best", "batch", "rate", "expected"),
    [
        (1e-4, 64, 1e-4, [2e-5, 5e-5, 2e-4, 4e-4, 1e-3]),  # the recipe's is not tried twice
        (1e-3, 64, 5e-4, [*LADDER, 2e-3]),
        (4e-3, 64, 2e-3, [*LADDER, 4e-3, 8e-3]),  # the recipe's is the highest of the ladder
        (1, 64, 5e-4, [*LADDER, 2e-3, 4e-3, 8e-3]),
        (4e-3, 256, 1e-3, [*LADDER, 2e-3, 4e-3, 8e-3, 2e-3, 4e-3, 8e-3]),
        (2e-5, 256, 2e-5, [*LADDER, 5e-5]),
    ],
)
def test_rates_go_on_while_the_highest_is_clearly_the_best(best, batch, rate, expected):
    settings = ["Data.train=[x]", f"Training.global_batch={batch}", f"Optimizer.learning_rate={rate}"]
    for is_clear in (True, False):
        config, finished = load_config(None, settings), []
        for trial in rate_search.propose_trials(config, 1000, finished, lambda *_, clear=is_clear: clear):
            finished.append(trial._replace(score=-abs(math.log(trial.rate / best)) - trial.batch))
        assert finished[0].setting == (rate, batch)
        tried = [trial.rate for trial in finished[1:]]
        if is_clear:
            assert tried == expected
        else:
            assert max(tried) <= max(1e-3, rate)


def test_the_recipe_is_tried_at_the_rate_that_its_base_batch_makes():
    settings = ["Data.train=[x]", "Training.global_batch=64", "Optimizer.learning_rate=1e-4", "Tuning.base_batch=16"]
    first = next(rate_search.propose_trials(load_config(None, settings), 1000, [], lambda *_: False))
    assert first.setting == (pytest.approx(4e-4), 64)


def test_rates_are_tried_on_one_process_only(monkeypatch, capsys):
    arguments = ["-c", "configs/finetune/own.yaml", "-o", "Model.weights=MODEL", "-o", "Data.train=[x]", "--tune-rate"]
    assert cli.run("train", [*arguments, "--processes", "2"]) == 2
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    assert cli.run("train", arguments) == 2
    assert (
        capsys.readouterr().err.count("--tune-rate tries on one process: run it without --processes and fleetrun") == 2
    )
