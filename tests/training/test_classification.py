"""Zero-shot classification in the course of a run: an evaluator as every other."""

import json

import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.config import ConfigError
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer


@pytest.fixture
def classes(shapes, tmp_path):
    """`Evaluation.classes` of the coloured shapes: four kinds, named in two languages."""
    names = {"zh": ["bar\t条", "cross\t十字", "disc\t圆", "square\t方块"], "en": ["bar", "cross", "disc", "square"]}
    for language, lines in names.items():
        (tmp_path / f"{language}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files = ", ".join(f"{language}: {tmp_path / language}.txt" for language in names)
    return f"Evaluation.classes={{data: [{shapes['val']}], label: kind, names: {{{files}}}}}"


def evaluations(trainer, name):
    records = read_log(trainer.run / "log.jsonl")
    return [one for one in records if one["kind"] == "evaluation" and one["evaluator"] == name]


def test_a_run_watches_classes_next_to_retrieval_and_takes_its_best_checkpoint_by_either(config, classes, tmp_path):
    """The figures of the last step are those of the command on the checkpoint that is left."""
    settings = ["Evaluation.every=4", "Training.checkpoint_every=4", "Evaluation.at_start=true", classes]
    trainer = Trainer(config(*settings, "Evaluation.evaluators=[retrieval, zero_shot]"))
    assert trainer.scores.evaluators["zero_shot"].data == {"val": "16 images, 4 classes, named in zh and en"}
    assert trainer.fit() and not trainer.best_effort.failures
    assert [one["step"] for one in evaluations(trainer, "zero_shot")] == [0, 4, 8]
    assert trainer.best["metric"] == "mean_recall"
    found = evaluations(trainer, "zero_shot")[-1]["metrics"]
    figures = ("acc1", "mean_per_class_recall")
    assert set(found) == {"acc1", *(f"{language}/{name}" for language in ("zh", "en") for name in figures)}
    assert found["acc1"] == pytest.approx((found["zh/acc1"] + found["en/acc1"]) / 2)
    assert "zh acc1" in (trainer.run / "curves.html").read_text(encoding="utf-8").replace("/", " ")

    out = tmp_path / "out"
    names = [f"{language}={tmp_path / language}.txt" for language in ("zh", "en")]
    data = ["--data", str(trainer.config.Evaluation.classes.data[0]), "--label", "kind", "--names", *names]
    assert commands.run("eval_classification", ["--checkpoint", str(trainer.run), *data, "--output", str(out)]) == 0
    (path,) = out.glob("*.json")
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert results["zero-shot, zh"]["acc1"] == pytest.approx(found["zh/acc1"])

    alone = Trainer(config(*settings, "Evaluation.evaluators=[classification]", f"Training.output={tmp_path / 'b'}"))
    assert alone.fit() and alone.best["metric"] == "acc1"
    assert alone.best["value"] == max(one["metrics"]["acc1"] for one in evaluations(alone, "zero_shot")[1:])


def test_several_classes_are_chosen_by_map(config, shapes):
    classes = f"Evaluation.classes={{data: [{shapes['val']}], label: tags_en}}"
    trainer = Trainer(config("Evaluation.every=8", "Evaluation.evaluators=[classification]", classes))
    assert trainer.fit() and trainer.best["metric"] == "mAP"
    assert set(evaluations(trainer, "zero_shot")[-1]["metrics"]) == {"mAP", "en/mAP"}


def test_what_it_cannot_score_is_reported_before_the_first_step(config, shapes):
    with pytest.raises(ConfigError, match="classification scores Evaluation.classes, which names no images"):
        Trainer(config("Evaluation.evaluators=[classification]"))
    classes = f"Evaluation.classes={{data: [{shapes['val']}], label: none}}"
    with pytest.raises(ValueError, match="nothing has a none; say which column or field is the class"):
        Trainer(config("Evaluation.evaluators=[classification]", classes))


def test_two_names_of_one_evaluator_are_refused(config, classes):
    with pytest.raises(ConfigError, match="classification is zero_shot, which is there already"):
        Trainer(config("Evaluation.evaluators=[zero_shot, classification]", classes))
