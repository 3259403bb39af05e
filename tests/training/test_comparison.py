"""Before and after: `Data.test` scored at both ends by one protocol, and the report that shows both."""

import json

import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.config import ConfigError
from ernie_vil2.io.run_folder import list_checkpoints
from ernie_vil2.training.trainer import Trainer
from tests.support.trainings import evaluation_records, fit


@pytest.fixture
def tested(config, shapes):
    return lambda *changes: config(
        f"Data.test=[{shapes['val']}]", "Training.steps=20", "Training.checkpoint_every=10", "Evaluation.every=10",
        "Evaluation.at_start=true", *changes,
    )  # fmt: skip


def results(trainer, name):
    return json.loads((trainer.run / "evaluation" / f"{name}.json").read_text())


def means(record):
    return [one["result"]["mR"] for one in record["results"].values()]


def test_both_ends_are_scored_by_one_protocol_and_reported(tested, capsys):
    trainer = fit(tested())
    before, after = results(trainer, "before"), results(trainer, "after")
    assert list(before["results"]) == ["before, zh", "before, en"] and sum(means(after)) > sum(means(before))
    protocols = {one["protocol"] for record in (before, after) for one in record["results"].values()}
    assert protocols == {"pairs"} and after["model"].endswith(f"step_{trainer.best['step']:08d}")
    printed = capsys.readouterr().out
    assert "before, zh: image to text R@1 " in printed and "after, en: image to text R@1 " in printed
    # What is scored before is what step 0 of the curve is, as val and test are the same data here.
    curve = evaluation_records(trainer.run)
    assert curve[0]["step"] == 0 and curve[-1]["step"] == 20
    assert curve[0]["metrics"]["zh/mR"] == pytest.approx(means(before)[0])
    best = next(record for record in curve if record["step"] == trainer.best["step"])
    assert best["metrics"]["zh/mR"] == pytest.approx(means(after)[0])

    assert commands.run("report", ["--run", str(trainer.run)]) == 0
    page = (trainer.run / "report.html").read_text()
    assert page.count("<h2>Retrieval: ") == 1 and page.index("before, zh") < page.index("after, zh")
    assert "Won and lost" in page and "zh, image → text" in page


def test_extended_run_keeps_what_it_was_before(tested, shapes, tmp_path):
    """Also where the test data are gone by then."""
    data = tmp_path / "test.tar"
    data.write_bytes(shapes["val"].read_bytes())
    settings = [f"Data.test=[{data}]", "Evaluation.every=2", "Training.checkpoint_every=2"]
    trainer = fit(tested(*settings, "Training.steps=2"))
    before, after = results(trainer, "before"), results(trainer, "after")
    (trainer.run / "evaluation" / "after.json").unlink()
    again = fit(tested(*settings, "Training.steps=2"), resume=True)
    assert means(results(again, "after")) == means(after)
    longer = fit(tested(*settings, "Training.steps=4"), resume=True, extend=True)
    assert results(longer, "before") == before
    assert results(longer, "after")["model"] != after["model"]

    data.unlink()
    longest = fit(tested(*settings, "Training.steps=6"), resume=True, extend=True)
    assert list_checkpoints(longest.run)[-1].name == "step_00000006"
    with pytest.raises(FileNotFoundError):
        Trainer(tested(*settings, f"Training.output={tmp_path / 'new'}"))


def test_a_task_that_is_not_retrieval_has_no_test_of_it(tested):
    with pytest.raises(ConfigError, match="Data.test .*Training.task=entailment"):
        Trainer(tested("Training.task=entailment", "Data.val=[]"))
