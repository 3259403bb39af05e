"""Training on labelled statements (entailment and NLVR2): losses and gradients of a step, and whole runs."""

from contextlib import contextmanager
from itertools import product

import numpy as np
import paddle
import pytest
from paddle.distributed import fleet

import ernie_vil2
from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.parallel.ranks import join_ranks
from ernie_vil2.training.trainer import Trainer
from tests.support.entailment_data import TOKENS, write_entailment_folder, write_nlvr2_folder
from tests.support.entailment_steps import CASES, TOLERANCES, make_batch, make_step
from tests.support.ranks import run_ranks
from tests.support.steps import RANK_ROWS, ROWS, compute_step, measure_errors, use_default_dtype
from tests.support.trainings import (
    REPVGG,
    check_resume,
    fit,
    read_evaluation_records,
    read_last_weights,
    read_train_records,
)

FOLDERS = {"entailment": write_entailment_folder, "nlvr2": write_nlvr2_folder}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {task: make(tmp_path_factory.mktemp(task)) for task, make in FOLDERS.items()}


@pytest.fixture
def statements(config, folders):
    """Return `statements(task, "Section.key=value", ...)`, the configuration of a tiny run on statements."""
    return lambda task, *changes: config(
        f"Training.task={task}", f"Data.train=[{folders[task]}]", "Data.val=[]", "Data.text_id=null", *changes
    )


def read_curve(trainer):
    return [[record["loss"], record["accuracy"]] for record in read_train_records(trainer.run)]


@pytest.mark.parametrize(("task", "head", "seed"), [
    ("nlvr2", "concatenation", 7), pytest.param("entailment", "interaction", 1, marks=pytest.mark.slow)
])  # fmt: skip
def test_labels_are_learned(statements, tmp_path, task, head, seed):
    # The towers learn fast, and the seed gives an untrained head that is as good as chance.
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS), encoding="utf-8")
    changes = ["Training.steps=60", "Views.jitter=0.0", "Views.blur=0.0", "Views.flip=0.0",
               "Views.crop_area=[1.0, 1.0]", f"Head.kind={head}", REPVGG, "Model.text.pooling=mean",
               f"Model.text.vocabulary={tmp_path / 'vocab.txt'}", f"Training.seed={seed}"]  # fmt: skip
    trainer = Trainer(statements(task, *changes, "Training.global_batch=32"))
    temperature = trainer.model.logit_scale.item()
    assert trainer.fit()
    records = np.array(read_curve(trainer))
    classes = len(trainer.task.labels)
    # An untrained head has about the loss of equal probabilities.
    assert records[0, 0] == pytest.approx(np.log(classes), rel=0.3)
    assert records[-10:, 0].mean() < 0.8 * np.log(classes) and records[-10:, 1].mean() > 1.3 / classes
    assert trainer.model.logit_scale.item() == temperature


@pytest.mark.parametrize(("task", "head"), [
    pytest.param("entailment", "interaction", marks=pytest.mark.slow), ("nlvr2", "concatenation")
])  # fmt: skip
def test_resume_is_bit_equal(statements, tmp_path, task, head):
    changes = [f"Head.kind={head}", "Model.text.dropout=0.1"]
    trainer = check_resume(lambda *more: statements(task, *changes, *more), tmp_path)
    assert "accuracy" in read_train_records(trainer.run)[0]


@pytest.mark.parametrize("task", FOLDERS)
def test_head_learns_faster_and_first_layers_slower(statements, task):
    trainer = Trainer(statements(task, "Head.rate=10", "Tuning.layer_decay=0.5"))
    factors = {}
    for group in trainer.task.parameter_groups():
        factors |= dict.fromkeys(group.names, group.rate_factor)
    assert {factor for name, factor in factors.items() if name.startswith("head.")} == {10}
    assert factors["image.norm.weight"] == 1 and factors["image.patch_embed.proj.weight"] == 0.25
    assert "log_logit_scale" not in factors


@pytest.mark.parametrize("task", ["entailment", pytest.param("nlvr2", marks=pytest.mark.slow)])
def test_tasks_and_retrieval_start_from_each_other(statements, config, tmp_path, task):
    # Training only the head leaves the towers unchanged. A task also starts with the head of the earlier run, and
    # retrieval starts without it.
    pretrained = fit(config("Training.steps=1", f"Training.output={tmp_path / 'pretrained'}"))
    trainer = Trainer(statements(task, f"Model.weights={pretrained.run}", "Tuning.freeze=['image.*', 'text.*']",
                                 "Training.steps=2"))  # fmt: skip
    initial = {name: value.numpy().copy() for name, value in trainer.model.named_parameters()}
    assert np.array_equal(initial["image.norm.weight"], read_last_weights(pretrained)["image.norm.weight"])
    assert trainer.fit()
    trained = dict(trainer.model.named_parameters())
    changed = {name for name, value in initial.items() if not np.array_equal(trained[name].numpy(), value)}
    assert changed == {name for name in initial if name.startswith("head.")}

    ernie_vil2.load_model(trainer.run, verify=True)
    continued = Trainer(statements(task, f"Model.weights={trainer.run}", f"Training.output={tmp_path / 'again'}"))
    assert np.array_equal(
        continued.model.head.classifier[0].weight.numpy(), read_last_weights(trainer)["head.classifier.0.weight"]
    )
    retrieval = Trainer(config(f"Model.weights={trainer.run}", f"Training.output={tmp_path / 'retrieval'}"))
    assert np.array_equal(retrieval.model.image.norm.weight.numpy(), read_last_weights(trainer)["image.norm.weight"])


def test_data_of_another_task_are_bad_samples(statements, config, folders, shapes):
    for data, reason in ((shapes["train"], "no label"), (folders["nlvr2"], "unknown label")):
        with pytest.raises(TooManyBadSamples, match=f"{reason}: 1"):
            Trainer(statements("entailment", f"Data.train=[{data}]", "Training.output=" + str(data) + ".run")).fit()
    with pytest.raises(TooManyBadSamples, match="statement with a label, no caption"):
        Trainer(config(f"Data.train=[{folders['entailment']}]")).fit()


@pytest.mark.parametrize("task", [pytest.param("entailment", marks=pytest.mark.slow), "nlvr2"])
def test_best_checkpoint_has_the_best_accuracy(statements, folders, task):
    settings = [f"Data.val=[{folders[task]}]", "Evaluation.every=2", "Optimizer.learning_rate=0.01", "Training.steps=6"]
    trainer = fit(statements(task, *settings))
    records = read_evaluation_records(trainer.run)
    accuracies = {record["step"]: record["metrics"]["accuracy"] for record in records}
    # The earliest step with the highest accuracy; step 0 is the model before training.
    best_value, negative_step = max((value, -step) for step, value in accuracies.items() if step)
    assert trainer.best == {"step": -negative_step, "metric": "accuracy", "value": best_value}
    expected = {f"accuracy/{label}" for label in trainer.task.labels}
    if task == "nlvr2":
        expected |= {"accuracy/balanced", "accuracy/unbalanced", "consistency/balanced", "consistency/unbalanced"}
    assert expected < records[-1]["metrics"].keys() and records[-1]["evaluator"] == "entailment"


@pytest.mark.parametrize("micro_batch", [3, *(pytest.param(rows, marks=pytest.mark.slow) for rows in (1, 9))])
@pytest.mark.parametrize(("task", "head"), CASES)
def test_cached_gradients_match_the_direct_step(task, head, micro_batch):
    with use_default_dtype("float64"):
        _, direct = make_step(task, head)
        _, cached = make_step(task, head, f"Training.micro_batch={micro_batch}")
        expected = compute_step(direct, make_batch(task, "float64"))
        actual = compute_step(cached, make_batch(task, "float64"))
    assert expected[1].keys() >= {"head.classifier.0.weight", "image.norm.weight"}
    assert "log_logit_scale" not in expected[1]
    assert max(measure_errors(actual, expected)) < 1e-10


@pytest.mark.parametrize("factor", [1, 1e4])
def test_the_loss_is_the_mean_cross_entropy(factor):
    # With large weights the loss exceeds 64, where Paddle's cross_entropy cuts it off on a CPU.
    with use_default_dtype("float64"):
        task, step = make_step("entailment", "concatenation", "Head.dropout=0", "Model.text.dropout=0",
                             "Model.text.attention_dropout=0", "Model.image.drop_path=0")  # fmt: skip
        weight = task.model.head.classifier[-1].weight
        weight.set_value(weight * factor)
        views, labels, rows = make_batch("entailment", "float64")
        total, shares = step.forward(views, labels, rows, 0)
        logits = task.model(views)[0]["logits"].numpy()
    exponents = logits - logits[np.arange(ROWS), labels[:, 0]][:, None]
    assert float(total) == pytest.approx(np.logaddexp.reduce(exponents, axis=1).mean(), rel=1e-9)
    assert float(shares["accuracy"]) == pytest.approx((logits.argmax(axis=1) == labels[:, 0]).mean())


def compute_rank_steps(folder):
    """Compute a step of every case as a rank, and write losses and gradients to `folder`/RANK.npz."""
    rank, _ = join_ranks()
    arrays = {}
    for dtype, (task, head), micro_batch in product(TOLERANCES, CASES, ("null", "2")):
        with use_default_dtype(dtype):
            rank_task, _ = make_step(task, head, f"Training.micro_batch={micro_batch}")
            rank_task.prepare(fleet.distributed_model(rank_task.model), None)
            losses, gradients = compute_step(rank_task._step, make_batch(task, dtype, RANK_ROWS[rank]))
        case = f"{dtype}/{task}/{head}/{micro_batch}"
        arrays |= {f"{case}/losses/{name}": value for name, value in losses.items()}
        arrays |= {f"{case}/gradients/{name}": value for name, value in gradients.items()}
    np.savez(f"{folder}/{rank}.npz", **arrays)


@pytest.mark.slow
def test_two_ranks_of_unequal_rows_match_one_process(tmp_path):
    # Data parallel averages over the ranks; the result must be the mean over all usable rows.
    run_ranks(compute_rank_steps, tmp_path)
    ranks = [dict(np.load(tmp_path / f"{rank}.npz")) for rank in range(2)]
    for dtype, (task, head), micro_batch in product(TOLERANCES, CASES, ("null", "2")):
        with use_default_dtype(dtype):
            _, step = make_step(task, head)
            expected = compute_step(step, make_batch(task, dtype, np.concatenate(RANK_ROWS)))
        case = f"{dtype}/{task}/{head}/{micro_batch}"
        losses = {}
        for name in expected[0]:
            losses[name] = sum(float(rank[f"{case}/losses/{name}"]) for rank in ranks)
        for rank in ranks:
            gradients = {name: rank[f"{case}/gradients/{name}"] for name in expected[1]}
            assert max(measure_errors((losses, gradients), expected)) < TOLERANCES[dtype], case


@pytest.mark.parametrize("head", ["concatenation", "interaction"])
def test_head_computes_in_float32_in_mixed_precision(monkeypatch, head):
    # Autocast changes nothing on a CPU, so the test records which type is requested.
    active_dtypes = []

    @contextmanager
    def record_dtype(enable=True, custom_white_list=None, dtype="float16", **options):
        active_dtypes.append(dtype if enable else "float32")
        yield
        active_dtypes.pop()

    task, step = make_step("nlvr2", head, "Training.precision=bfloat16")
    dtypes = {}
    task.model.head.classifier[0].register_forward_pre_hook(lambda *_: dtypes.update(head=active_dtypes[-1]))
    task.model.image.blocks[0].register_forward_pre_hook(lambda *_: dtypes.update(image=active_dtypes[-1]))
    monkeypatch.setattr(paddle.amp, "auto_cast", record_dtype)
    step.forward(*make_batch("nlvr2"), 0)
    assert dtypes == {"image": "bfloat16", "head": "float32"}
