"""A text tower that learns a language from parallel texts, while images stay where they are."""

import csv
import shutil

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.training.dry_run import dry_run
from ernie_vil2.training.trainer import Trainer
from tests.support.ranks import run_ranks, train
from tests.support.shapes import COLOURS, SHAPES
from tests.support.trainings import REPVGG, check_resume, crash_after, fit, list_tiny_overrides, read_train_records

PAIRS = [
    (f"a {colour} {shape}", f"{colour_zh}的{shape_zh}")
    for colour, (_, colour_zh) in COLOURS.items()
    for shape, shape_zh in SHAPES.items()
]
TEACHER = [REPVGG, "Model.text.pooling=mean", "Model.embed_dim=48", "Views.languages={en: 1.0}"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A table of sixteen parallel texts, whose columns have names of their own."""
    path = tmp_path_factory.mktemp("texts") / "train.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("source", "target"), *PAIRS])
    return path


@pytest.fixture(scope="module")
def teacher(shapes, tmp_path_factory):
    """The folder of a model of images and English names."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    return trained([*list_tiny_overrides(shapes, folder), *TEACHER]).run


@pytest.fixture
def settings(overrides, texts, teacher, tmp_path):
    """`settings("Section.key=value", ...)` of a run that teaches that model Chinese."""
    model = shutil.copytree(teacher, tmp_path / "model", symlinks=True)
    others = ("Model.", "Loss.", "Data.max_length", "Data.text_id", "Data.train")
    kept = [one for one in overrides if not one.startswith(others)]

    def made(*changes):
        return [
            *kept, "Model.like=weights", f"Model.weights={model}", "Training.task=new_language",
            "Loss.weights={image_image: 0, image_text: 0, text_image: 0, text_text: 0}", "Views.tag_probability=0",
            f"Data.train=[{texts}]", "Data.columns={caption_en: source, caption_zh: target}", *changes,
        ]  # fmt: skip

    return made


def trained(arguments):
    return fit(load_config(None, arguments))


def test_texts_go_where_the_teacher_puts_what_they_mean(settings, tmp_path, shapes):
    trainer = trained(settings("Training.steps=60", "Optimizer.learning_rate=1e-2", "Tuning.ema=0.5",
                               f"Data.test=[{shapes['val']}]"))  # fmt: skip
    before, after = ernie_vil2.load_model(tmp_path / "model"), ernie_vil2.load_model(trainer.run, verify=True)
    of_before, of_after = (dict(one.backend.model.state_dict()) for one in (before, after))
    changed = {name for name, value in of_before.items() if not np.array_equal(value.numpy(), of_after[name].numpy())}
    assert changed and all(name.startswith("text") for name in changed)
    english, chinese = map(list, zip(*PAIRS, strict=True))
    where = before.encode_texts(english)

    def found(model, texts):
        return int(((model.encode_texts(texts) @ where.T).argmax(axis=1) == np.arange(16)).sum())

    assert found(before, chinese) < 8 and found(after, chinese) == found(after, english) == 16
    assert {path.name for path in (trainer.run / "evaluation").iterdir()} >= {"before.json", "after.json"}


@pytest.mark.parametrize("weight", [0, 0.5])
def test_loss_is_that_of_the_embeddings(settings, tmp_path, weight):
    """Against NumPy, for the first step, in which the student is the teacher."""
    trainer = trained(settings(f"Loss.weights.text_text={weight}", "Views.languages={zh: 1.0}", "Training.steps=1",
                               "Schedule.warmup_steps=0", "Loss.duplicates=masked"))  # fmt: skip
    teacher = ernie_vil2.load_model(tmp_path / "model")
    english, chinese = (teacher.encode_texts(list(side)).astype(np.float64) for side in zip(*PAIRS, strict=True))
    (record,) = read_train_records(trainer.run)
    distance = ((chinese - english) ** 2).sum(axis=1).mean()
    assert record["distance"] == pytest.approx(distance, rel=1e-5)
    logits = teacher.logit_scale * chinese @ english.T
    contrast = (np.log(np.exp(logits).sum(axis=1)) - logits.diagonal()).mean()
    if weight:
        assert record["text_text"] == pytest.approx(contrast, rel=1e-5)
    assert record["loss"] == pytest.approx(distance + weight * contrast, rel=1e-5)


def test_a_dry_run_times_a_step_with_the_teacher(settings):
    assert "a step of " in dry_run(load_config(None, settings())).text


def test_resume_is_bit_equal(settings, tmp_path):
    changes = ["Tuning.ema=0.9", "Training.micro_batch=4", "Loss.weights.text_text=1", "Model.text.dropout=0.2"]
    whole = check_resume(lambda *more: load_config(None, settings(*changes, *more)), tmp_path)
    assert "distance" in read_train_records(whole.run)[0]


@pytest.mark.parametrize("weight", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_micro_batches_and_ranks_train_what_one_process_does(settings, tmp_path, weight):
    changes = [f"Loss.weights.text_text={weight}", "Model.text.dropout=0.2", "Training.steps=2"]
    trained(settings(*changes, f"Training.output={tmp_path / 'alone'}"))
    trained(settings(*changes, "Training.micro_batch=4", f"Training.output={tmp_path / 'cut'}"))
    run_ranks(train, settings(*changes, "Training.device=cpu"))
    for record, *others in zip(*(read_train_records(tmp_path / name) for name in ("alone", "cut", "run")), strict=True):
        for other in others:
            for name in ("loss", "distance", "gradient_norm"):
                assert other[name] == pytest.approx(record[name], rel=1e-4), (record["step"], name)


@pytest.mark.slow
def test_student_may_have_another_tower_and_vocabulary(settings, tmp_path):
    words = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *dict.fromkeys("".join(zh for _, zh in PAIRS))]
    (tmp_path / "zh.txt").write_text("\n".join(words), encoding="utf-8")
    trainer = trained(settings(
        "Model.text={name: bert, width: 32, depth: 2, heads: 2, max_positions: 16, pooling: mean}",
        f"Model.text.vocabulary={tmp_path / 'zh.txt'}", "Model.allow=[text.*, text_projection.*]",
        "Data.max_length=16", "Views.languages={zh: 1.0}", "Training.steps=80", "Optimizer.learning_rate=1e-2",
    ))  # fmt: skip
    before, after = ernie_vil2.load_model(tmp_path / "model"), ernie_vil2.load_model(trainer.run)
    english, chinese = map(list, zip(*PAIRS, strict=True))
    cosines = after.encode_texts(chinese) @ before.encode_texts(english).T
    assert (cosines.argmax(axis=1) == np.arange(16)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("Model={like: null, weights: null}", "set Model.weights"),
        ("Loss.weights.image_text=1", "new_language sees no images"),
        ("Tuning.lora={rank: 2, layers: [image.*]}", "images are not trained"),
        ("Data.columns={caption_en: source}", "columns here: source, target"),
        ("Tuning.known_language=fr", "could not be used"),
    ],
)
def test_what_cannot_be_is_an_error(settings, change, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        trained(settings(change))


def test_another_teacher_of_a_run_that_has_begun_is_refused(settings, tmp_path, overrides):
    changes = settings("Training.checkpoint_every=1", "Training.steps=2")
    crash_after(Trainer(load_config(None, changes)), 1)
    shutil.rmtree(tmp_path / "model")
    trained([*overrides, *TEACHER, "Training.seed=5", f"Training.output={tmp_path / 'model'}"])
    with pytest.raises(ConfigError, match="its image.* is not that of the model"):
        Trainer(load_config(None, changes), resume=True)
