"""Evaluation in the course of a run: by every protocol, of classes, before and after it, and where it fails."""

import json
import shutil

import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.config import ConfigError
from ernie_vil2.evaluation.protocol import PROTOCOLS, find_protocol
from ernie_vil2.evaluation.scorers import cxc
from ernie_vil2.training import scoring
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.trainer import Trainer
from tests.support.cxc_ratings import rated_folder, write_images  # noqa: F401  -- a fixture
from tests.support.trainings import crash_after, fit, read_evaluation_records

ONE_OF_A_KIND = ("muge-val", "cxc-correlation")
"""Of the protocols: one direction, and ratings without a best."""
DIRECTION_NAMES = ("image_to_text", "text_to_image", "text_to_text", "image_to_image")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in ONE_OF_A_KIND else pytest.mark.slow) for name in PROTOCOLS
])  # fmt: skip
def test_run_is_evaluated_by_every_protocol_and_resumes(config, folder, monkeypatch, name):
    settings = [f"Evaluation.protocol={name}", "Evaluation.every=1", "Training.checkpoint_every=1", "Training.steps=2"]
    scoring, languages = find_protocol(name), 2
    if name.startswith("cxc"):  # of MSCOCO alone, with its ratings, in one language
        write_images(folder, scoring.split)
        for kind in ("sts", "sis", "sits"):
            shutil.copy(folder / f"{kind}_test.csv", folder / f"{kind}_val.csv")
            monkeypatch.setitem(cxc.NUM_RATINGS, (kind, "val"), cxc.NUM_RATINGS[kind, "test"])
        settings.append(f"Data.val=[{folder}]")
        languages = 1
    settings = config(*settings)
    crash_after(Trainer(settings), 1)
    trainer = Trainer(settings, resume=True)
    assert trainer.step == trainer.evaluations.evaluated_step == 1
    assert trainer.fit() and not trainer.best_effort.failures
    assert [record["step"] for record in read_evaluation_records(trainer.run)] == [1, 2]
    names = {name for record in read_evaluation_records(trainer.run) for name in record["metrics"]}
    scored = {way for way in DIRECTION_NAMES if any(f"/{way}/" in name for name in names)}
    assert scored == set(scoring.directions)
    assert (trainer.best is None) == (not scored)
    # R@1 and R@10 of each language and direction, and the mean recall.
    assert (
        not scored
        or len(read_evaluation_records(trainer.run)[0]["progress_metrics"]) == 2 * languages * len(scored) + 1
    )


def test_missing_validation_data_end_a_run_before_its_first_step(config, shapes, tmp_path, capsys):
    shard = shutil.copy(shapes["val"], tmp_path / "val.tar")
    settings = config("Evaluation.every=1", "Training.steps=3", "Training.checkpoint_every=1", f"Data.val=[{shard}]")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="val.tar"):
        Trainer(settings)
    shutil.copy(shapes["val"], shard)
    crash_after(Trainer(settings), 1)
    shard.unlink()
    resumed = Trainer(settings, resume=True)
    assert resumed.step == 1 and resumed.fit() and resumed.step == 3
    assert resumed.best_effort.failures == {"validation data": 1}
    assert "warning: validation data: " in capsys.readouterr().err
    assert [record["step"] for record in read_evaluation_records(resumed.run)] == [1] and resumed.best["step"] == 1


@pytest.mark.parametrize("part", [
    "training.run_log.write_run_page", pytest.param("training.trainer.save_evaluation", marks=pytest.mark.slow),
    "evaluation.scorers.retrieval.score_embeddings",
])  # fmt: skip
def test_best_effort_that_fails_ends_no_run(config, monkeypatch, capsys, part):
    def fails(*arguments, **options):
        raise RuntimeError("a fault in it")

    monkeypatch.setattr(f"ernie_vil2.{part}", fails)
    settings = config("Evaluation.every=2", "Training.checkpoint_every=2", "Training.steps=4")
    trainer = fit(settings)
    languages = 2 if part.endswith("score_embeddings") else 1
    assert sum(trainer.best_effort.failures.values()) == 2 * languages
    assert "a fault in it" in capsys.readouterr().err
    assert [path.name for path in list_checkpoints(trainer.run)] == ["step_00000002", "step_00000004"]
    monkeypatch.undo()
    again = Trainer(settings, resume=True)
    assert again.fit() and not again.best_effort.failures
    assert again.evaluations.evaluated_step == 4  # what had failed is made up for
    assert "mean_recall" in read_evaluation_records(again.run)[-1]["metrics"]


def test_due_checkpoint_is_written_before_the_evaluation(config, monkeypatch):
    """Where the evaluation takes the process with it, as one that needs too much memory does."""
    settings = config("Evaluation.every=2", "Training.checkpoint_every=2", "Training.steps=4")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    first = Trainer(settings)
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "run_evaluator", interrupted)
        with pytest.raises(KeyboardInterrupt):
            first.fit()
    second = Trainer(settings, resume=True)
    assert second.step == 2 and second.fit()
    assert [record["step"] for record in read_evaluation_records(second.run)] == [2, 4]


@pytest.fixture
def classes(shapes, tmp_path):
    """`Evaluation.classes` of the coloured shapes: four kinds, named in two languages."""
    names = {"zh": ["bar\t条", "cross\t十字", "disc\t圆", "square\t方块"], "en": ["bar", "cross", "disc", "square"]}
    for language, lines in names.items():
        (tmp_path / f"{language}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files = ", ".join(f"{language}: {tmp_path / language}.txt" for language in names)
    return f"Evaluation.classes={{data: [{shapes['val']}], label: kind, names: {{{files}}}}}"


def zero_shot_records(trainer):
    return [record for record in read_evaluation_records(trainer.run) if record["evaluator"] == "zero_shot"]


def test_classes_are_watched_next_to_retrieval_or_alone(config, classes, tmp_path):
    """The figures of the last step are those of the command on the checkpoint that is left."""
    settings = ["Evaluation.every=2", "Training.steps=3", "Evaluation.at_start=true", classes]
    trainer = Trainer(config(*settings, "Evaluation.evaluators=[retrieval, zero_shot]"))
    assert trainer.evaluations.evaluators["zero_shot"].data_sizes == {"val": "16 images, 4 classes, named in zh and en"}
    assert trainer.fit() and not trainer.best_effort.failures
    assert [record["step"] for record in zero_shot_records(trainer)] == [0, 2, 3]
    assert trainer.best["metric"] == "mean_recall"
    metrics = zero_shot_records(trainer)[-1]["metrics"]
    assert metrics["acc1"] == pytest.approx((metrics["zh/acc1"] + metrics["en/acc1"]) / 2)

    out = tmp_path / "out"
    names = [f"{language}={tmp_path / language}.txt" for language in ("zh", "en")]
    data = ["--data", str(trainer.config.Evaluation.classes.data[0]), "--label", "kind", "--names", *names]
    assert commands.run("eval_classification", ["--checkpoint", str(trainer.run), *data, "--output", str(out)]) == 0
    (path,) = out.glob("*.json")
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert results["zero-shot, zh"]["acc1"] == pytest.approx(metrics["zh/acc1"])


def test_several_classes_are_chosen_by_map(config, shapes):
    classes = f"Evaluation.classes={{data: [{shapes['val']}], label: tags_en}}"
    settings = ["Evaluation.every=1", "Training.steps=1", "Evaluation.evaluators=[zero_shot]", classes]
    trainer = fit(config(*settings))
    assert trainer.best["metric"] == "mAP"
    assert set(zero_shot_records(trainer)[-1]["metrics"]) == {"mAP", "en/mAP"}


def test_what_cannot_be_scored_is_reported_before_the_run(config, shapes):
    with pytest.raises(ConfigError, match="Evaluation.classes"):
        Trainer(config("Evaluation.evaluators=[zero_shot]"))
    unlabelled = f"Evaluation.classes={{data: [{shapes['val']}], label: none}}"
    with pytest.raises(ValueError, match="nothing has a none"):
        Trainer(config("Evaluation.evaluators=[zero_shot]", unlabelled))


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
    assert trainer.comparison._scorer.title == "model", "it is not renamed for the next to find"
    assert list(before["results"]) == ["before, zh", "before, en"] and sum(means(after)) > sum(means(before))
    protocols = {one["protocol"] for record in (before, after) for one in record["results"].values()}
    assert protocols == {"pairs"} and after["model"].endswith(f"step_{trainer.best['step']:08d}")
    assert "before, zh: image to text R@1 " in capsys.readouterr().out
    # What is scored before is what step 0 of the curve is, as val and test are the same data here.
    curve = read_evaluation_records(trainer.run)
    assert curve[0]["step"] == 0 and curve[-1]["step"] == 20
    for metrics in (record["metrics"] for record in curve):
        assert metrics["mean_recall"] == pytest.approx((metrics["zh/mR"] + metrics["en/mR"]) / 2)
    assert curve[0]["metrics"]["zh/mR"] == pytest.approx(means(before)[0])
    best = next(record for record in curve if record["step"] == trainer.best["step"])
    assert best["metrics"]["zh/mR"] == pytest.approx(means(after)[0])

    assert commands.run("report", ["--run", str(trainer.run)]) == 0
    page = (trainer.run / "report.html").read_text()
    assert page.count("<h2>Retrieval: ") == 1 and page.index("before, zh") < page.index("after, zh")


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
    longer = fit(tested(*settings, "Training.steps=4"), resume=True, can_extend=True)
    assert results(longer, "before") == before
    assert results(longer, "after")["model"] != after["model"]

    data.unlink()
    assert fit(tested(*settings, "Training.steps=6"), resume=True, can_extend=True).step == 6
    with pytest.raises(FileNotFoundError):
        Trainer(tested(*settings, f"Training.output={tmp_path / 'new'}"))


def test_a_task_that_is_not_retrieval_has_no_test_of_it(tested):
    with pytest.raises(ConfigError, match="Data.test .*Training.task=entailment"):
        Trainer(tested("Training.task=entailment", "Data.val=[]"))
