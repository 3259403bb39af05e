"""Evaluation during, before and after a run: by each protocol, on classes, and when it fails."""

import json
import shutil

import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.config import ConfigError
from ernie_vil2.evaluation.protocol import PROTOCOLS, find_protocol
from ernie_vil2.evaluation.scorers import cxc
from ernie_vil2.training import checkpoint_writer, scoring
from ernie_vil2.training.checkpoint import list_checkpoints, save_checkpoint
from ernie_vil2.training.trainer import Trainer
from tests.support.cxc_ratings import rated_folder, write_images  # noqa: F401  -- a fixture
from tests.support.limits import wait_until
from tests.support.trainings import crash_after, fit, read_evaluation_records

FAST_PROTOCOLS = ("muge-val", "cxc-correlation")
"""Protocols whose tests are not slow tests: one of a single direction, and ratings, which choose no checkpoint."""
DIRECTION_NAMES = ("image_to_text", "text_to_image", "text_to_text", "image_to_image")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in FAST_PROTOCOLS else pytest.mark.slow) for name in PROTOCOLS
])  # fmt: skip
def test_run_is_evaluated_by_each_protocol_and_resumes(config, folder, monkeypatch, name):
    settings = [f"Evaluation.protocol={name}", "Evaluation.every=1", "Training.checkpoint_every=1", "Training.steps=2"]
    scoring, languages = find_protocol(name), 2
    if name.startswith("cxc"):  # only for MSCOCO, with its ratings, in one language
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
    names = set()
    for record in read_evaluation_records(trainer.run):
        names |= record["metrics"].keys()
    scored = set()
    for direction in DIRECTION_NAMES:
        if any(f"/{direction}/" in name for name in names):
            scored.add(direction)
    assert scored == set(scoring.directions)
    assert (trainer.best is None) == (not scored)
    # R@1 and R@10 of each language and direction, and the mean recall.
    if scored:
        progress_metrics = read_evaluation_records(trainer.run)[0]["progress_metrics"]
        assert len(progress_metrics) == 2 * languages * len(scored) + 1


def test_missing_validation_data_refuse_only_a_new_run(config, shapes, tmp_path, capsys):
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


@pytest.mark.parametrize("function", [
    "training.run_log.write_run_page", pytest.param("training.trainer.save_evaluation", marks=pytest.mark.slow),
    "evaluation.scorers.retrieval.score_embeddings",
])  # fmt: skip
def test_failed_best_effort_task_ends_no_run(config, monkeypatch, capsys, function):
    def raise_error(*arguments, **options):
        raise RuntimeError("a fault in it")

    monkeypatch.setattr(f"ernie_vil2.{function}", raise_error)
    settings = config("Evaluation.every=2", "Training.checkpoint_every=2", "Training.steps=4")
    trainer = fit(settings)
    languages = 2 if function.endswith("score_embeddings") else 1
    assert sum(trainer.best_effort.failures.values()) == 2 * languages
    assert "a fault in it" in capsys.readouterr().err
    assert [path.name for path in list_checkpoints(trainer.run)] == ["step_00000002", "step_00000004"]
    monkeypatch.undo()
    resumed = Trainer(settings, resume=True)
    assert resumed.fit() and not resumed.best_effort.failures
    assert resumed.evaluations.evaluated_step == 4  # the failed evaluation is made up for
    assert "mean_recall" in read_evaluation_records(resumed.run)[-1]["metrics"]


def test_due_checkpoint_is_written_before_the_evaluation(config, monkeypatch):
    # An evaluation may end the process, for example if it needs too much memory; then the checkpoint must exist.
    settings = config("Evaluation.every=2", "Training.checkpoint_every=2", "Training.steps=4")

    first, waits = Trainer(settings), []
    wait = first.checkpoint_writer.wait

    def interrupt(*arguments):
        assert [path.name for path in list_checkpoints(first.run)] == ["step_00000002"]
        raise KeyboardInterrupt

    def count_and_wait():
        waits.append(first.step)
        wait()

    def save_when_waited_for(run, checkpoint):
        wait_until(lambda: waits == [2, 2])  # before the copies, and before the evaluation
        return save_checkpoint(run, checkpoint)

    first.checkpoint_writer.wait = count_and_wait
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_writer, "save_checkpoint", save_when_waited_for)
        patch.setattr(scoring, "run_evaluator", interrupt)
        with pytest.raises(KeyboardInterrupt):
            first.fit()
    second = Trainer(settings, resume=True)
    assert second.step == 2 and second.fit()
    assert [record["step"] for record in read_evaluation_records(second.run)] == [2, 4]


@pytest.fixture
def classes(shapes, tmp_path):
    """Return `Evaluation.classes` of the coloured shapes: four classes, with names in two languages."""
    names = {"zh": ["bar\t条", "cross\t十字", "disc\t圆", "square\t方块"], "en": ["bar", "cross", "disc", "square"]}
    for language, lines in names.items():
        (tmp_path / f"{language}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files = ", ".join(f"{language}: {tmp_path / language}.txt" for language in names)
    return f"Evaluation.classes={{data: [{shapes['val']}], label: kind, names: {{{files}}}}}"


def read_zero_shot_records(trainer):
    return [record for record in read_evaluation_records(trainer.run) if record["evaluator"] == "zero_shot"]


def test_classes_are_evaluated_next_to_retrieval(config, classes, tmp_path):
    # The metrics of the last step equal those of the command on the last checkpoint.
    settings = ["Evaluation.every=2", "Training.steps=3", "Evaluation.at_start=true", classes]
    trainer = Trainer(config(*settings, "Evaluation.evaluators=[retrieval, zero_shot]"))
    assert trainer.evaluations.evaluators["zero_shot"].data_sizes == {"val": "16 images, 4 classes, named in zh and en"}
    assert trainer.fit() and not trainer.best_effort.failures
    assert [record["step"] for record in read_zero_shot_records(trainer)] == [0, 2, 3]
    assert trainer.best["metric"] == "mean_recall"
    metrics = read_zero_shot_records(trainer)[-1]["metrics"]
    assert metrics["acc1"] == pytest.approx((metrics["zh/acc1"] + metrics["en/acc1"]) / 2)

    out = tmp_path / "out"
    names = [f"{language}={tmp_path / language}.txt" for language in ("zh", "en")]
    data = ["--data", str(trainer.config.Evaluation.classes.data[0]), "--label", "kind", "--names", *names]
    assert commands.run("eval_classification", ["--checkpoint", str(trainer.run), *data, "--output", str(out)]) == 0
    (path,) = out.glob("*.json")
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert results["zero-shot, zh"]["acc1"] == pytest.approx(metrics["zh/acc1"])


def test_multi_label_classes_choose_by_map(config, shapes):
    classes = f"Evaluation.classes={{data: [{shapes['val']}], label: tags_en}}"
    settings = ["Evaluation.every=1", "Training.steps=1", "Evaluation.evaluators=[zero_shot]", classes]
    trainer = fit(config(*settings))
    assert trainer.best["metric"] == "mAP"
    assert set(read_zero_shot_records(trainer)[-1]["metrics"]) == {"mAP", "en/mAP"}


def test_impossible_evaluation_is_reported_before_the_run(config, shapes):
    with pytest.raises(ConfigError, match="Evaluation.classes"):
        Trainer(config("Evaluation.evaluators=[zero_shot]"))
    unlabelled = f"Evaluation.classes={{data: [{shapes['val']}], label: none}}"
    with pytest.raises(ValueError, match="nothing has a none"):
        Trainer(config("Evaluation.evaluators=[zero_shot]", unlabelled))


@pytest.fixture
def make_tested_config(config, shapes):
    return lambda *changes: config(
        f"Data.test=[{shapes['val']}]", "Training.steps=20", "Training.checkpoint_every=10", "Evaluation.every=10",
        "Evaluation.at_start=true", *changes,
    )  # fmt: skip


def read_results(trainer, name):
    return json.loads((trainer.run / "evaluation" / f"{name}.json").read_text())


def list_mean_recalls(record):
    return [result["result"]["mR"] for result in record["results"].values()]


def test_start_and_end_are_scored_alike_and_reported(make_tested_config, capsys):
    trainer = fit(make_tested_config())
    initial, final = read_results(trainer, "before"), read_results(trainer, "after")
    assert trainer.comparison._scorer.title == "model", "the scorer must get its title back"
    assert list(initial["results"]) == ["before, zh", "before, en"]
    assert sum(list_mean_recalls(final)) > sum(list_mean_recalls(initial))
    for result in (*initial["results"].values(), *final["results"].values()):
        assert result["protocol"] == "pairs"
    assert final["model"].endswith(f"step_{trainer.best['step']:08d}")
    assert "before, zh: image to text R@1 " in capsys.readouterr().out
    # Validation and test data are the same here, so the scores before the run are those of step 0 of the curve.
    curve = read_evaluation_records(trainer.run)
    assert curve[0]["step"] == 0 and curve[-1]["step"] == 20
    for metrics in (record["metrics"] for record in curve):
        assert metrics["mean_recall"] == pytest.approx((metrics["zh/mR"] + metrics["en/mR"]) / 2)
    assert curve[0]["metrics"]["zh/mR"] == pytest.approx(list_mean_recalls(initial)[0])
    best = next(record for record in curve if record["step"] == trainer.best["step"])
    assert best["metrics"]["zh/mR"] == pytest.approx(list_mean_recalls(final)[0])

    assert commands.run("report", ["--run", str(trainer.run)]) == 0
    page = (trainer.run / "report.html").read_text()
    assert page.count("<h2>Retrieval: ") == 1 and page.index("before, zh") < page.index("after, zh")


def test_extended_run_keeps_its_initial_scores(make_tested_config, shapes, tmp_path):
    # It keeps them also if the test data no longer exist.
    data = tmp_path / "test.tar"
    data.write_bytes(shapes["val"].read_bytes())
    settings = [f"Data.test=[{data}]", "Evaluation.every=2", "Training.checkpoint_every=2"]
    trainer = fit(make_tested_config(*settings, "Training.steps=2"))
    initial, final = read_results(trainer, "before"), read_results(trainer, "after")
    (trainer.run / "evaluation" / "after.json").unlink()
    resumed = fit(make_tested_config(*settings, "Training.steps=2"), resume=True)
    assert list_mean_recalls(read_results(resumed, "after")) == list_mean_recalls(final)
    longer = fit(make_tested_config(*settings, "Training.steps=4"), resume=True, can_extend=True)
    assert read_results(longer, "before") == initial
    assert read_results(longer, "after")["model"] != final["model"]

    # Killed after the last checkpoint, before it was scored.
    (longer.run / "evaluation" / "after.json").write_text(json.dumps(final))
    resumed = fit(make_tested_config(*settings, "Training.steps=4"), resume=True)
    assert read_results(resumed, "after")["model"] == str(longer.run / "checkpoints" / "step_00000004")

    data.unlink()
    assert fit(make_tested_config(*settings, "Training.steps=6"), resume=True, can_extend=True).step == 6
    with pytest.raises(FileNotFoundError):
        Trainer(make_tested_config(*settings, f"Training.output={tmp_path / 'new'}"))


def test_tasks_without_retrieval_refuse_test_data(make_tested_config):
    with pytest.raises(ConfigError, match="Data.test .*Training.task=entailment"):
        Trainer(make_tested_config("Training.task=entailment", "Data.val=[]"))
