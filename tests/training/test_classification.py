"""Zero-shot classification in the course of a run: an evaluator as every other."""

import json

import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.config import ConfigError
from ernie_vil2.training.trainer import Trainer
from tests.support.trainings import evaluation_records, fit


@pytest.fixture
def classes(shapes, tmp_path):
    """`Evaluation.classes` of the coloured shapes: four kinds, named in two languages."""
    names = {"zh": ["bar\t条", "cross\t十字", "disc\t圆", "square\t方块"], "en": ["bar", "cross", "disc", "square"]}
    for language, lines in names.items():
        (tmp_path / f"{language}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files = ", ".join(f"{language}: {tmp_path / language}.txt" for language in names)
    return f"Evaluation.classes={{data: [{shapes['val']}], label: kind, names: {{{files}}}}}"


def zero_shot_records(trainer):
    return [record for record in evaluation_records(trainer.run) if record["evaluator"] == "zero_shot"]


def test_classes_are_watched_next_to_retrieval_or_alone(config, classes, tmp_path):
    """The figures of the last step are those of the command on the checkpoint that is left."""
    settings = ["Evaluation.every=2", "Training.steps=4", "Evaluation.at_start=true", classes]
    trainer = Trainer(config(*settings, "Evaluation.evaluators=[retrieval, zero_shot]"))
    assert trainer.scores.evaluators["zero_shot"].data == {"val": "16 images, 4 classes, named in zh and en"}
    assert trainer.fit() and not trainer.best_effort.failures
    assert [record["step"] for record in zero_shot_records(trainer)] == [0, 2, 4]
    assert trainer.best["metric"] == "mean_recall"
    metrics = zero_shot_records(trainer)[-1]["metrics"]
    figures = ("acc1", "mean_per_class_recall")
    assert set(metrics) == {"acc1", *(f"{language}/{name}" for language in ("zh", "en") for name in figures)}
    assert metrics["acc1"] == pytest.approx((metrics["zh/acc1"] + metrics["en/acc1"]) / 2)
    assert "zh acc1" in (trainer.run / "curves.html").read_text(encoding="utf-8").replace("/", " ")

    out = tmp_path / "out"
    names = [f"{language}={tmp_path / language}.txt" for language in ("zh", "en")]
    data = ["--data", str(trainer.config.Evaluation.classes.data[0]), "--label", "kind", "--names", *names]
    assert commands.run("eval_classification", ["--checkpoint", str(trainer.run), *data, "--output", str(out)]) == 0
    (path,) = out.glob("*.json")
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert results["zero-shot, zh"]["acc1"] == pytest.approx(metrics["zh/acc1"])

    alone = fit(config(*settings, "Evaluation.evaluators=[zero_shot]", f"Training.output={tmp_path / 'b'}"))
    assert alone.best["metric"] == "acc1"
    assert alone.best["value"] == max(record["metrics"]["acc1"] for record in zero_shot_records(alone)[1:])


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
