"""A run that learns from the embeddings of another model, which lie in a file."""

import json

import numpy as np
import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.config import ConfigError
from ernie_vil2.tasks.teacher import Teacher
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.support.ranks import forked_ranks, train

PLAIN = ["Views.languages={en: 1.0}", "Views.tag_probability=0", "Loss.weights={image_image: 0, text_text: 0}"]


@pytest.fixture(scope="module")
def folder(shapes, tmp_path_factory):
    """Of a teacher of width 6 that knows colours and shapes, and half of the images."""
    folder = tmp_path_factory.mktemp("teacher")
    rng = np.random.default_rng(0)
    from ernie_vil2.data.readers import open_benchmarks

    benchmark = open_benchmarks([str(shapes["train"])], ["en"])["en"]
    words = sorted({word for text in benchmark.texts for word in text.text.split()})
    vectors = dict(zip(words, rng.normal(size=[len(words), 6]), strict=True))
    texts = np.array([sum(vectors[word] for word in text.text.split()) for text in benchmark.texts], np.float32)
    of_image = dict(benchmark.pairs.tolist())
    images = np.array([texts[of_image[row]] for row in range(0, len(benchmark.images), 2)], np.float32)
    np.save(folder / "image_embeddings.npy", images)
    np.save(folder / "text_embeddings.npy", texts)
    for name, rows in (("images", [{"image_id": image.id} for image in benchmark.images[::2]]),
                       ("texts", [{"text_id": text.id, "text": text.text} for text in benchmark.texts])):  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def losses(trainer):
    return [record for record in read_log(trainer.run / "log.jsonl") if record["kind"] == "train"]


@pytest.mark.parametrize("micro_batch", ["null", "6"])
def test_a_student_comes_nearer_to_its_teacher(config, folder, tmp_path, capsys, micro_batch):
    settings = [*PLAIN, "Training.steps=30", f"Training.micro_batch={micro_batch}"]
    taught = Trainer(config(*settings, f"Tuning.teacher={{embeddings: {folder}, weight: 2, logit_scale: 5}}"))
    assert taught.fit()
    first, *_, last = losses(taught)
    assert last["teacher"] < first["teacher"]
    weighted = first["image_text"] + first["text_image"] + 2 * first["teacher"]
    assert first["loss"] == pytest.approx(weighted, rel=1e-5)
    assert "image or text without the teacher's embedding: " in capsys.readouterr().out  # half of the images
    plain = Trainer(config(*settings, "Training.steps=3", f"Training.output={tmp_path / 'plain'}"))
    plain.fit()
    assert "teacher" not in losses(plain)[0] and losses(plain)[0]["image_text"] == pytest.approx(first["image_text"])


def test_embeddings_as_wide_as_the_teachers_are_drawn_to_them(config, folder):
    taught = f"Tuning.teacher={{embeddings: {folder}, logit_scale: 5, distance: 3}}"
    with pytest.raises(ConfigError, match="embeddings are 6 wide, the model's 64; set Model.embed_dim=6"):
        Trainer(config(*PLAIN, taught))
    trainer = Trainer(config(*PLAIN, "Training.steps=30", "Model.embed_dim=6", taught))
    assert trainer.fit()
    first, *_, last = losses(trainer)
    assert last["teacher_distance"] < 0.8 * first["teacher_distance"]
    weighted = first["image_text"] + first["text_image"] + first["teacher"] + 3 * first["teacher_distance"]
    assert first["loss"] == pytest.approx(weighted, rel=1e-5)


@pytest.mark.slow
def test_two_ranks_are_taught_what_one_process_is(config, overrides, folder, tmp_path):
    changes = [*PLAIN, "Model.embed_dim=6", f"Tuning.teacher={{embeddings: {folder}, logit_scale: 5, distance: 2}}"]
    alone = Trainer(config(*changes, f"Training.output={tmp_path / 'alone'}"))
    assert alone.fit()
    forked_ranks(train, [*overrides, *changes, "Training.device=cpu"])
    one, two = (read_log(tmp_path / name / "log.jsonl") for name in ("alone", "run"))
    for before, after in zip(one, two, strict=True):
        for name in ("loss", "teacher", "teacher_distance", "image_text", "text_image", "gradient_norm"):
            assert after[name] == pytest.approx(before[name], rel=1e-4), (before["step"], name)


def test_what_the_tool_extracts_is_a_teacher(config, shapes, tmp_path):
    student = Trainer(config(*PLAIN, "Training.steps=3"))
    student.fit()
    assert commands.run("embed", ["--checkpoint", str(student.run), "--data", str(shapes["train"]), "--language", "en",
                                  "--output", str(tmp_path / "embeddings")]) == 0  # fmt: skip
    teacher = Teacher(str(tmp_path / "embeddings"))
    row = teacher.row("red-disc-1-0", "a red disc")
    assert np.allclose(np.linalg.norm(np.split(row, 2), axis=1), 1, atol=1e-5)


def damaged(folder, tmp_path, name, content):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        if path.name != name:
            (copy / path.name).write_bytes(path.read_bytes())
    if content is not None:
        (copy / name).write_bytes(content)
    return copy


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("image_embeddings.npy", None, "image_embeddings.npy: no such file; ernie-vil2 embed writes"),
        ("texts.jsonl", None, "texts.jsonl"),
        ("image_embeddings.npy", b"x", "not a whole .npy file of numbers"),
        ("images.jsonl", b'{"image_id": "a"}\n', "1 rows for 64 embeddings; the folder mixes two runs"),
        ("images.jsonl", b'{"id": "a"}\n', "images.jsonl:1: no image_id"),
        ("texts.jsonl", b"nothing\n", "texts.jsonl:1"),
    ],
)
def test_a_damaged_folder_is_named(folder, tmp_path, name, content, message):
    with pytest.raises((ValueError, OSError)) as caught:
        Teacher(str(damaged(folder, tmp_path, name, content)))
    assert message in str(caught.value)


def test_sides_of_two_models_are_refused(folder, tmp_path):
    np.save(tmp_path / "narrow.npy", np.zeros([16, 4], np.float32))
    copy = damaged(folder, tmp_path, "text_embeddings.npy", (tmp_path / "narrow.npy").read_bytes())
    with pytest.raises(ValueError, match="image embeddings are 6 wide, text embeddings 4"):
        Teacher(str(copy))


def test_a_teacher_needs_images_against_texts(config):
    with pytest.raises(ConfigError, match="Tuning.teacher compares images with texts"):
        config("Loss.weights={image_text: 0, text_image: 0}", "Tuning.teacher={embeddings: x}")
