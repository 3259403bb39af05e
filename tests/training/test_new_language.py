"""A text tower learns a language from parallel texts; the image tower stays as it is."""

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
    """Write a table of sixteen parallel texts with unusual column names."""
    path = tmp_path_factory.mktemp("texts") / "train.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("source", "target"), *PAIRS])
    return path


@pytest.fixture(scope="module")
def teacher(shapes, tmp_path_factory):
    """Train a model of images and English names, and return its folder."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    return train_model([*list_tiny_overrides(shapes, folder), *TEACHER]).run


@pytest.fixture
def settings(overrides, texts, teacher, tmp_path):
    """Return `settings("Section.key=value", ...)`, which lists overrides of a run that teaches that model Chinese."""
    model = shutil.copytree(teacher, tmp_path / "model", symlinks=True)
    replaced = ("Model.", "Loss.", "Data.max_length", "Data.text_id", "Data.train")
    tiny_overrides = [override for override in overrides if not override.startswith(replaced)]

    def list_settings(*changes):
        return [
            *tiny_overrides, "Model.like=weights", f"Model.weights={model}", "Training.task=new_language",
            "Loss.weights={image_image: 0, image_text: 0, text_image: 0, text_text: 0}", "Views.tag_probability=0",
            f"Data.train=[{texts}]", "Data.columns={caption_en: source, caption_zh: target}", *changes,
        ]  # fmt: skip

    return list_settings


def train_model(arguments):
    return fit(load_config(None, arguments))


def test_student_gives_translations_the_same_embeddings(settings, tmp_path, shapes):
    trainer = train_model(settings("Training.steps=60", "Optimizer.learning_rate=1e-2", "Tuning.ema=0.5",
                               f"Data.test=[{shapes['val']}]"))  # fmt: skip
    teacher, student = ernie_vil2.load_model(tmp_path / "model"), ernie_vil2.load_model(trainer.run, verify=True)
    weights, trained_weights = teacher.backend.model.state_dict(), student.backend.model.state_dict()
    changed = {
        name for name, value in weights.items() if not np.array_equal(value.numpy(), trained_weights[name].numpy())
    }
    assert changed and all(name.startswith("text") for name in changed)
    english, chinese = map(list, zip(*PAIRS, strict=True))
    english_embeddings = teacher.encode_texts(english)

    def count_hits(model, texts):
        return int(((model.encode_texts(texts) @ english_embeddings.T).argmax(axis=1) == np.arange(16)).sum())

    # The teacher does not know Chinese; the student finds all sixteen in both languages.
    assert count_hits(teacher, chinese) < 8
    assert count_hits(student, chinese) == count_hits(student, english) == 16
    assert {path.name for path in (trainer.run / "evaluation").iterdir()} >= {"before.json", "after.json"}


@pytest.mark.parametrize("weight", [0, 0.5])
def test_loss_is_computed_from_the_embeddings(settings, tmp_path, weight):
    # The expected loss is computed with NumPy, for the first step, in which the student equals the teacher.
    changes = ["Views.languages={zh: 1.0}", "Loss.duplicates=masked", "Model.text.dropout=0", "Training.steps=1"]
    trainer = train_model(settings(*changes, f"Loss.weights.text_text={weight}", "Schedule.warmup_steps=0"))
    teacher = ernie_vil2.load_model(tmp_path / "model")
    english_texts, chinese_texts = map(list, zip(*PAIRS, strict=True))
    english = teacher.encode_texts(english_texts).astype(np.float64)
    chinese = teacher.encode_texts(chinese_texts).astype(np.float64)
    (record,) = read_train_records(trainer.run)
    distance = ((chinese - english) ** 2).sum(axis=1).mean()
    assert record["distance"] == pytest.approx(distance, rel=1e-5)
    logits = teacher.logit_scale * chinese @ english.T
    contrast = (np.log(np.exp(logits).sum(axis=1)) - logits.diagonal()).mean()
    if weight:
        assert record["text_text"] == pytest.approx(contrast, rel=1e-5)
    assert record["loss"] == pytest.approx(distance + weight * contrast, rel=1e-5)


def test_dry_run_times_a_step_with_the_teacher(settings):
    assert "a step of " in dry_run(load_config(None, settings())).text


def test_resume_is_bit_equal(settings, tmp_path):
    changes = ["Tuning.ema=0.9", "Training.micro_batch=4", "Loss.weights.text_text=1", "Model.text.dropout=0.2"]
    trainer = check_resume(lambda *more: load_config(None, settings(*changes, *more)), tmp_path)
    assert "distance" in read_train_records(trainer.run)[0]


@pytest.mark.parametrize("weight", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_micro_batches_and_ranks_match_one_process(settings, tmp_path, weight):
    changes = [f"Loss.weights.text_text={weight}", "Model.text.dropout=0.2", "Training.steps=2"]
    train_model(settings(*changes, f"Training.output={tmp_path / 'alone'}"))
    train_model(settings(*changes, "Training.micro_batch=4", f"Training.output={tmp_path / 'cut'}"))
    run_ranks(train, settings(*changes, "Training.device=cpu"))
    expected_records = read_train_records(tmp_path / "alone")
    for folder in ("cut", "run"):
        for record, expected in zip(read_train_records(tmp_path / folder), expected_records, strict=True):
            for name in ("loss", "distance", "gradient_norm"):
                assert record[name] == pytest.approx(expected[name], rel=1e-4), (folder, record["step"], name)


@pytest.mark.slow
def test_student_may_have_another_tower_and_vocabulary(settings, tmp_path):
    words = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *dict.fromkeys("".join(zh for _, zh in PAIRS))]
    (tmp_path / "zh.txt").write_text("\n".join(words), encoding="utf-8")
    trainer = train_model(settings(
        "Model.text={name: bert, width: 32, depth: 2, heads: 2, max_positions: 16, pooling: mean}",
        f"Model.text.vocabulary={tmp_path / 'zh.txt'}", "Model.allow=[text.*, text_projection.*]",
        "Data.max_length=16", "Views.languages={zh: 1.0}", "Training.steps=160", "Optimizer.learning_rate=1e-2",
    ))  # fmt: skip
    teacher, student = ernie_vil2.load_model(tmp_path / "model"), ernie_vil2.load_model(trainer.run)
    english, chinese = map(list, zip(*PAIRS, strict=True))
    cosines = student.encode_texts(chinese) @ teacher.encode_texts(english).T
    assert (cosines.argmax(axis=1) == np.arange(16)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("Model={like: null, weights: null}", "set Model.weights"),
        ("Loss.weights.image_text=1", "new_language sees no images"),
        ("Views.caption_lines=true", "Views.caption_lines"),
        ("Tuning.lora={rank: 2, layers: [image.*]}", "images are not trained"),
        ("Data.columns={caption_en: source}", "columns here: source, target"),
        ("Tuning.known_language=fr", "could not be used"),
    ],
)
def test_impossible_settings_are_errors(settings, change, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        train_model(settings(change))


def test_resume_with_another_teacher_is_refused(settings, tmp_path, overrides):
    changes = settings("Training.checkpoint_every=1", "Training.steps=2")
    crash_after(Trainer(load_config(None, changes)), 1)
    shutil.rmtree(tmp_path / "model")
    train_model([*overrides, *TEACHER, "Training.seed=5", f"Training.output={tmp_path / 'model'}"])
    with pytest.raises(ConfigError, match="its image.* is not that of the model"):
        Trainer(load_config(None, changes), resume=True)
