"""Training on statements with labels: entailment and NLVR2, by the trainer of everything else."""

import numpy as np
import paddle
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError
from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.support.entailment_data import TOKENS, entailment_folder, nlvr2_folder
from tests.training.test_trainer import REPVGG, crash_after, weights

FOLDERS = {"entailment": entailment_folder, "nlvr2": nlvr2_folder}
EACH_ONCE = [
    ("entailment", "interaction"),
    ("nlvr2", "concatenation"),
    pytest.param("entailment", "concatenation", marks=pytest.mark.slow),
    pytest.param("nlvr2", "interaction", marks=pytest.mark.slow),
]
TASKS = pytest.mark.parametrize("task", FOLDERS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {task: make(tmp_path_factory.mktemp(task)) for task, make in FOLDERS.items()}


@pytest.fixture
def statements(config, folders):
    """`statements(task, "Section.key=value", ...)`: the tiny run on statements, with changes."""
    return lambda task, *changes, data=None: config(
        f"Training.task={task}", f"Data.train=[{folders[data or task]}]", "Data.val=[]", "Data.text_id=null", *changes
    )


def curve(trainer):
    records = read_log(trainer.run / "log.jsonl")
    return [[record["loss"], record["accuracy"]] for record in records if record["kind"] == "train"]


@pytest.mark.parametrize(("task", "head"), EACH_ONCE)
def test_labels_are_learned(statements, tmp_path, task, head):
    """By towers that learn fast: those of the tiny run stay at chance for 40 to more than 120 steps, as the seed is."""
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS), encoding="utf-8")
    seed = {"entailment": 1, "nlvr2": 7}[task]  # by which the untrained head of either kind is as good as chance
    changes = ["Training.steps=60", "Views.jitter=0.0", "Views.blur=0.0", "Views.flip=0.0",
               "Views.crop_area=[1.0, 1.0]", f"Head.kind={head}", REPVGG, "Model.text.pooling=mean",
               f"Model.text.vocabulary={tmp_path / 'vocab.txt'}", f"Training.seed={seed}"]  # fmt: skip
    trainer = Trainer(statements(task, *changes, "Training.global_batch=32"))
    temperature = trainer.model.logit_scale.item()
    trainer.fit()
    found = np.array(curve(trainer))
    classes = len(trainer.task.labels)
    assert found[0, 0] == pytest.approx(np.log(classes), rel=0.3)
    assert found[-10:, 0].mean() < 0.8 * np.log(classes) and found[-10:, 1].mean() > 1.3 / classes
    assert trainer.model.logit_scale.item() == temperature


@pytest.mark.parametrize(("task", "head"), EACH_ONCE)
def test_a_resumed_run_ends_where_the_whole_one_ends(statements, tmp_path, task, head):
    changes = [f"Head.kind={head}", "Model.text.dropout=0.1", "Training.checkpoint_every=5"]
    whole = Trainer(statements(task, *changes, f"Training.output={tmp_path / 'whole'}"))
    whole.fit()
    crash_after(Trainer(statements(task, *changes)), 6)
    paddle.seed(999)  # the state of the process must not matter
    second = Trainer(statements(task, *changes), resume=True)
    assert second.step == 5 and second.fit()
    assert curve(second) == curve(whole)
    assert all(np.array_equal(value, weights(second)[name]) for name, value in weights(whole).items())


@TASKS
def test_micro_batches_change_nothing(statements, tmp_path, task):
    dropped = ["Model.text.dropout=0.2", "Head.dropout=0.3", "Optimizer.learning_rate=1e-4", "Training.steps=5"]
    whole, parts = Trainer(statements(task, *dropped)), statements(task, *dropped, "Training.micro_batch=5")
    parts = Trainer(
        parts.model_copy(update={"Training": parts.Training.model_copy(update={"output": str(tmp_path / "p")})})
    )
    whole.fit()
    parts.fit()
    assert np.allclose(curve(parts), curve(whole), rtol=1e-3)


@TASKS
def test_the_head_learns_faster_and_the_first_layers_slower(statements, task):
    config = statements(task, "Head.rate=10", "Tuning.layer_decay=0.5")
    trainer = Trainer(config)
    factors = {name: group.factor for group in trainer.task.parameter_groups() for name in group.names}
    assert {factor for name, factor in factors.items() if name.startswith("head.")} == {10}
    assert factors["image.norm.weight"] == 1 and factors["image.patch_embed.proj.weight"] == 0.25
    assert "log_logit_scale" not in factors


@TASKS
def test_the_head_alone_can_be_trained(statements, task):
    trainer = Trainer(statements(task, "Tuning.freeze=['image.*', 'text.*']"))
    before = {name: value.numpy().copy() for name, value in trainer.model.named_parameters()}
    trainer.fit()
    changed = {
        name for name, value in trainer.model.named_parameters() if not np.array_equal(value.numpy(), before[name])
    }
    assert changed == {name for name in before if name.startswith("head.")}


@TASKS
def test_a_trained_model_begins_the_task_and_what_comes_of_it_encodes(statements, config, tmp_path, task):
    pretrained = Trainer(config("Training.steps=3", f"Training.output={tmp_path / 'pretrained'}"))
    pretrained.fit()
    trainer = Trainer(statements(task, f"Model.weights={pretrained.run}"))
    assert np.array_equal(trainer.model.image.norm.weight.numpy(), weights(pretrained)["image.norm.weight"])
    trainer.fit()
    model = ernie_vil2.load_model(trainer.run, verify=True)
    assert np.array_equal(model.backend.model.image.norm.weight.numpy(), weights(trainer)["image.norm.weight"])
    # And a task begins with the head of another run, or retrieval without it.
    again = Trainer(statements(task, f"Model.weights={trainer.run}", f"Training.output={tmp_path / 'again'}"))
    assert np.array_equal(again.model.head.classifier[0].weight.numpy(), weights(trainer)["head.classifier.0.weight"])
    retrieval = Trainer(config(f"Model.weights={trainer.run}", f"Training.output={tmp_path / 'retrieval'}"))
    assert np.array_equal(retrieval.model.image.norm.weight.numpy(), weights(trainer)["image.norm.weight"])


def test_data_of_another_task_are_bad_samples(statements, folders, shapes):
    for data, reason in ((shapes["train"], "no label"), (folders["nlvr2"], "unknown label")):
        with pytest.raises(TooManyBadSamples, match=f"{reason}: 1"):
            Trainer(statements("entailment", f"Data.train=[{data}]", "Training.output=" + str(data) + ".run")).fit()


def test_captions_are_not_made_of_statements(config, folders):
    with pytest.raises(TooManyBadSamples, match="statement with a label, no caption"):
        Trainer(config(f"Data.train=[{folders['entailment']}]")).fit()


def test_a_head_of_other_labels_is_refused(statements, tmp_path):
    first = Trainer(statements("entailment", "Training.steps=3", f"Training.output={tmp_path / 'first'}"))
    first.fit()
    with pytest.raises(ConfigError, match="trained with other values of Training.task"):
        Trainer(statements("nlvr2", "Training.steps=3", f"Training.output={first.run}"), resume=True)


@TASKS
def test_the_best_checkpoint_is_that_of_the_best_accuracy(statements, folders, task):
    trainer = Trainer(
        statements(task, f"Data.val=[{folders[task]}]", "Evaluation.every=2", "Optimizer.learning_rate=0.01")
    )
    trainer.fit()
    records = [record for record in read_log(trainer.run / "log.jsonl") if record["kind"] == "evaluation"]
    accuracies = {record["step"]: record["metrics"]["accuracy"] for record in records}
    best = max((value, -step) for step, value in accuracies.items() if step)
    assert trainer.best == {"step": -best[1], "metric": "accuracy", "value": best[0]}
    wanted = {f"accuracy/{label}" for label in trainer.task.labels}
    if task == "nlvr2":
        wanted |= {
            "consistency",
            *(f"{name}/{part}" for name in ("accuracy", "consistency") for part in ("balanced", "unbalanced")),
        }
    assert records[-1]["metrics"].keys() == {"accuracy"} | wanted and records[-1]["evaluator"] == "entailment"
