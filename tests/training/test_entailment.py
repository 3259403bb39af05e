"""Training on statements with labels: entailment and NLVR2, by the trainer of everything else."""

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError
from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.training.trainer import Trainer
from tests.support.entailment_data import TOKENS, entailment_folder, nlvr2_folder
from tests.support.trainings import REPVGG, check_resume, evaluation_records, fit, train_records, weights

FOLDERS = {"entailment": entailment_folder, "nlvr2": nlvr2_folder}
EACH_ONCE = [
    ("entailment", "interaction"),
    ("nlvr2", "concatenation"),
    pytest.param("entailment", "concatenation", marks=pytest.mark.slow),
    pytest.param("nlvr2", "interaction", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {task: make(tmp_path_factory.mktemp(task)) for task, make in FOLDERS.items()}


@pytest.fixture
def statements(config, folders):
    """`statements(task, "Section.key=value", ...)`: the tiny run on statements, with changes."""
    return lambda task, *changes: config(
        f"Training.task={task}", f"Data.train=[{folders[task]}]", "Data.val=[]", "Data.text_id=null", *changes
    )


def curve(trainer):
    return [[record["loss"], record["accuracy"]] for record in train_records(trainer.run)]


@pytest.mark.parametrize(("task", "head"), [
    ("nlvr2", "concatenation"), pytest.param("entailment", "interaction", marks=pytest.mark.slow), *EACH_ONCE[2:]
])  # fmt: skip
def test_labels_are_learned(statements, tmp_path, task, head):
    """By towers that learn fast: those of the tiny run stay at chance for 40 to more than 120 steps, as the seed is."""
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS), encoding="utf-8")
    seed = {"entailment": 1, "nlvr2": 7}[task]  # by which the untrained head of either kind is as good as chance
    changes = ["Training.steps=60", "Views.jitter=0.0", "Views.blur=0.0", "Views.flip=0.0",
               "Views.crop_area=[1.0, 1.0]", f"Head.kind={head}", REPVGG, "Model.text.pooling=mean",
               f"Model.text.vocabulary={tmp_path / 'vocab.txt'}", f"Training.seed={seed}"]  # fmt: skip
    trainer = Trainer(statements(task, *changes, "Training.global_batch=32"))
    temperature = trainer.model.logit_scale.item()
    assert trainer.fit()
    records = np.array(curve(trainer))
    classes = len(trainer.task.labels)
    assert records[0, 0] == pytest.approx(np.log(classes), rel=0.3)
    assert records[-10:, 0].mean() < 0.8 * np.log(classes) and records[-10:, 1].mean() > 1.3 / classes
    assert trainer.model.logit_scale.item() == temperature


@pytest.mark.parametrize(("task", "head"), EACH_ONCE)
def test_resume_is_bit_equal(statements, tmp_path, task, head):
    changes = [f"Head.kind={head}", "Model.text.dropout=0.1"]
    whole = check_resume(lambda *more: statements(task, *changes, *more), tmp_path)
    assert "accuracy" in train_records(whole.run)[0]


@pytest.mark.parametrize("task", FOLDERS)
def test_micro_batches_change_nothing(statements, tmp_path, task):
    changes = ["Model.text.dropout=0.2", "Head.dropout=0.3", "Optimizer.learning_rate=1e-4", "Training.steps=3"]
    whole = fit(statements(task, *changes))
    cut = fit(statements(task, *changes, "Training.micro_batch=5", f"Training.output={tmp_path / 'cut'}"))
    assert np.allclose(curve(cut), curve(whole), rtol=1e-3)


@pytest.mark.parametrize("task", FOLDERS)
def test_head_learns_faster_and_the_first_layers_slower(statements, task):
    trainer = Trainer(statements(task, "Head.rate=10", "Tuning.layer_decay=0.5"))
    factors = {name: group.factor for group in trainer.task.parameter_groups() for name in group.names}
    assert {factor for name, factor in factors.items() if name.startswith("head.")} == {10}
    assert factors["image.norm.weight"] == 1 and factors["image.patch_embed.proj.weight"] == 0.25
    assert "log_logit_scale" not in factors


@pytest.mark.parametrize("task", FOLDERS)
def test_models_begin_a_task_and_what_comes_of_it_encodes(statements, config, tmp_path, task):
    """Training the head alone leaves the towers; a task begins with another run's head, retrieval without it."""
    pretrained = fit(config("Training.steps=1", f"Training.output={tmp_path / 'pretrained'}"))
    trainer = Trainer(statements(task, f"Model.weights={pretrained.run}", "Tuning.freeze=['image.*', 'text.*']",
                                 "Training.steps=2"))  # fmt: skip
    before = {name: value.numpy().copy() for name, value in trainer.model.named_parameters()}
    assert np.array_equal(before["image.norm.weight"], weights(pretrained)["image.norm.weight"])
    assert trainer.fit()
    after = dict(trainer.model.named_parameters())
    changed = {name for name, value in before.items() if not np.array_equal(after[name].numpy(), value)}
    assert changed == {name for name in before if name.startswith("head.")}

    model = ernie_vil2.load_model(trainer.run, verify=True)
    assert np.array_equal(model.backend.model.image.norm.weight.numpy(), weights(trainer)["image.norm.weight"])
    again = Trainer(statements(task, f"Model.weights={trainer.run}", f"Training.output={tmp_path / 'again'}"))
    assert np.array_equal(again.model.head.classifier[0].weight.numpy(), weights(trainer)["head.classifier.0.weight"])
    retrieval = Trainer(config(f"Model.weights={trainer.run}", f"Training.output={tmp_path / 'retrieval'}"))
    assert np.array_equal(retrieval.model.image.norm.weight.numpy(), weights(trainer)["image.norm.weight"])


def test_data_of_another_task_are_bad_samples(statements, config, folders, shapes):
    for data, reason in ((shapes["train"], "no label"), (folders["nlvr2"], "unknown label")):
        with pytest.raises(TooManyBadSamples, match=f"{reason}: 1"):
            Trainer(statements("entailment", f"Data.train=[{data}]", "Training.output=" + str(data) + ".run")).fit()
    with pytest.raises(TooManyBadSamples, match="statement with a label, no caption"):
        Trainer(config(f"Data.train=[{folders['entailment']}]")).fit()


def test_head_of_other_labels_is_refused(statements):
    fit(statements("entailment", "Training.steps=1"))
    with pytest.raises(ConfigError, match="Training.task"):
        Trainer(statements("nlvr2", "Training.steps=1"), resume=True)


@pytest.mark.parametrize("task", FOLDERS)
def test_best_checkpoint_is_that_of_the_best_accuracy(statements, folders, task):
    settings = [f"Data.val=[{folders[task]}]", "Evaluation.every=2", "Optimizer.learning_rate=0.01", "Training.steps=6"]
    trainer = fit(statements(task, *settings))
    records = evaluation_records(trainer.run)
    accuracies = {record["step"]: record["metrics"]["accuracy"] for record in records}
    best = max((value, -step) for step, value in accuracies.items() if step)
    assert trainer.best == {"step": -best[1], "metric": "accuracy", "value": best[0]}
    expected = {"accuracy", *(f"accuracy/{label}" for label in trainer.task.labels)}
    if task == "nlvr2":
        expected.add("consistency")
        expected |= {f"{name}/{half}" for name in ("accuracy", "consistency") for half in ("balanced", "unbalanced")}
    assert records[-1]["metrics"].keys() == expected and records[-1]["evaluator"] == "entailment"
