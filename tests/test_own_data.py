"""docs/own_data.md, executed: the way from a folder and a table to a service, every command as it is there.

The set is made smaller and the training shorter; no command is changed but for SMALLER's options.
"""

import json
import math
import re
import shlex

import pytest

from ernie_vil2 import cli
from ernie_vil2.config import load_config
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
        patch.setattr(rate_search, "SAMPLES", 64)
        patch.setattr(rate_search, "RATES", rate_search.RATES[::3])
        for command in COMMANDS:
            if command.startswith(SERVERS):
                assert "<html" in serve(command)
                continue
            small = next((option for name, option in SMALLER.items() if name in command), "")
            code, printed[command] = run_command(command.partition("  #")[0] + small)
            assert code == 0, f"{command}\n{printed[command]}"
    return folder, printed


def test_every_command_runs_one_after_the_other(walked):
    folder, printed = walked
    assert len(printed) == len(COMMANDS) - 1
    checked, dry, *_ = (text for command, text in printed.items() if "--check" in command or "--dry-run" in command)
    assert "all 60 samples read could be used" in checked and "nothing was trained" in dry
    kept = json.loads((folder / "runs" / "own" / rate_search.KEPT).read_text())["trials"]
    assert [trial[0] for trial in kept] == [*rate_search.RATES[::3], *[trial[0] for trial in kept[2:]]]
    assert all(isinstance(score, float) for _, _, score in kept)
    (trained,) = (text for command, text in printed.items() if "--tune-rate" in command)
    assert (
        f"trains with -o Optimizer.learning_rate={max(kept, key=lambda trial: (trial[2], -trial[0]))[0]!r}" in trained
    )


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


def test_the_best_trial_is_that_of_the_best_score_and_of_equal_ones_the_lowest_rate():
    trials = [rate_search.Trial(1e-3, 64, 40.0), rate_search.Trial(1e-4, 64, 40.0), rate_search.Trial(1e-2, 64)]
    assert rate_search.best_of(trials) == trials[1]
    assert rate_search.best_of(trials[2:]) is None


@pytest.mark.parametrize(
    ("best", "batch", "tried"),
    [(1e-4, 64, []), (1e-3, 64, [2e-3]), (4e-3, 64, [2e-3, 4e-3, 8e-3]), (1, 64, [2e-3, 4e-3, 8e-3]),
     (4e-3, 256, [2e-3, 4e-3, 8e-3, 2e-3, 4e-3, 8e-3]), (2e-5, 256, [2e-5, 5e-5])],
)  # fmt: skip
def test_rates_go_on_while_the_highest_is_the_best(best, batch, tried):
    config = load_config(None, ["Data.train=[x]", f"Training.global_batch={batch}"])
    found: list[rate_search.Trial] = []
    for trial in rate_search._trials(config, 1000, found):
        found.append(trial._replace(score=-abs(math.log(trial.rate / best)) - trial.batch))
    assert [trial.rate for trial in found[6:]] == tried
    assert rate_search.best_of(found).rate == pytest.approx(min(best, 8e-3))


def test_rates_are_tried_on_one_process_only(monkeypatch, capsys):
    arguments = ["-c", "configs/finetune/own.yaml", "-o", "Model.weights=MODEL", "-o", "Data.train=[x]", "--tune-rate"]
    assert cli.run("train", [*arguments, "--processes", "2"]) == 2
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    assert cli.run("train", arguments) == 2
    assert (
        capsys.readouterr().err.count("--tune-rate tries on one process: run it without --processes and fleetrun") == 2
    )
