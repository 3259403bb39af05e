"""A run learns from stored embeddings of another model."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import paddle.distributed as dist
import pytest

from ernie_vil2 import load_model
from ernie_vil2.config import ConfigError, TeacherConfig
from ernie_vil2.data.decoding import ImageRemark
from ernie_vil2.data.readers import open_benchmarks
from ernie_vil2.parallel import collectives
from ernie_vil2.tasks.contrastive_step import build_step
from ernie_vil2.tasks.multi_view import NO_TEACHER_EMBEDDING, DistillationLoss, Teacher
from ernie_vil2.training import teacher as teacher_module
from ernie_vil2.training.teacher import with_local_teacher
from ernie_vil2.training.trainer import Trainer
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import succeed
from tests.support.embedding_servers import serve_model
from tests.support.ranks import run_ranks, train
from tests.support.steps import ROWS, VIT, build_model_and_loss, make_batch, make_config
from tests.support.trainings import fit, read_train_records

PLAIN = ["Views.languages={en: 1.0}", "Views.tag_probability=0", "Loss.weights={image_image: 0, text_text: 0}"]


@pytest.fixture(scope="module")
def folder(shapes, tmp_path_factory):
    """Write embeddings of width 6 of a teacher that knows colours and shapes, for all texts and half of the images."""
    folder = tmp_path_factory.mktemp("teacher")
    rng = np.random.default_rng(0)
    benchmark = open_benchmarks([str(shapes["train"])], languages=["en"])["en"]
    words = sorted(set(" ".join(text.text for text in benchmark.texts).split()))
    vectors = dict(zip(words, rng.normal(size=[len(words), 6]), strict=True))
    # A text is the sum of its words.
    sums = []
    for text in benchmark.texts:
        sums.append(sum(vectors[word] for word in text.text.split()))
    texts = np.array(sums, np.float32)
    text_of_image = dict(benchmark.pairs.tolist())
    images = np.array([texts[text_of_image[row]] for row in range(0, len(benchmark.images), 2)], np.float32)
    np.save(folder / "image_embeddings.npy", images)
    np.save(folder / "text_embeddings.npy", texts)
    image_rows = [{"image_id": image.id} for image in benchmark.images[::2]]
    text_rows = [{"text_id": text.id, "text": text.text} for text in benchmark.texts]
    for name, rows in (("images", image_rows), ("texts", text_rows)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_student_approaches_its_teacher(config, folder, capsys):
    settings = [*PLAIN, "Training.steps=12", "Training.micro_batch=6"]
    taught = fit(config(*settings, f"Tuning.teacher={{embeddings: {folder}, weight: 2, logit_scale: 5}}"))
    first, *_, last = read_train_records(taught.run)
    assert last["teacher"] < first["teacher"]
    weighted = first["image_text"] + first["text_image"] + 2 * first["teacher"]
    assert first["loss"] == pytest.approx(weighted, rel=1e-5)
    assert "without the teacher's embedding" in capsys.readouterr().out  # half of the images


def test_embeddings_of_equal_width_approach_the_teachers(config, folder):
    taught = f"Tuning.teacher={{embeddings: {folder}, logit_scale: 5, distance: 3}}"
    with pytest.raises(ConfigError, match="Model.embed_dim=6"):
        Trainer(config(*PLAIN, taught))
    trainer = fit(config(*PLAIN, "Training.steps=20", "Model.embed_dim=6", taught))
    first, *_, last = read_train_records(trainer.run)
    assert last["teacher_distance"] < 0.8 * first["teacher_distance"]
    weighted = first["image_text"] + first["text_image"] + first["teacher"] + 3 * first["teacher_distance"]
    assert first["loss"] == pytest.approx(weighted, rel=1e-5)


def test_teacher_on_a_server_teaches_like_its_folder(config, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    model, teacher = write_untrained_checkpoint(tmp_path / "model"), tmp_path / "teacher"
    succeed("embed", "--checkpoint", model, "--data", shapes["train"], "--language", "en", "--output", teacher)

    def train(embeddings, name, *more):
        changes = [f"Tuning.teacher={{embeddings: {embeddings}}}", f"Training.output={tmp_path / name}"]
        return fit(config(*PLAIN, "Training.steps=2", *changes, *more))

    with serve_model(load_model(model, device="cpu")) as address:
        taught = train(address, "there")
        # A resumed run does not need the embeddings again; its checkpoint names the server.
        assert f"embeddings: {address}" in (taught.run / "config.yaml").read_text()
    losses = [record["teacher"] for record in read_train_records(taught.run)]
    expected = [record["teacher"] for record in read_train_records(train(teacher, "here").run)]
    assert losses == pytest.approx(expected, rel=1e-5)


def test_training_waits_for_another_that_asks_the_same_server(config, tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path))
    encoder = SimpleNamespace(fingerprint="m")  # fails if it is asked for an embedding
    monkeypatch.setattr(teacher_module, "open_encoder", lambda address: encoder)

    def wait_for_other_training(lock_file, wait):
        assert wait
        Path(lock_file.name).with_suffix("").mkdir()

    monkeypatch.setattr(teacher_module, "lock_exclusive", wait_for_other_training)
    taught = with_local_teacher(config(*PLAIN, "Tuning.teacher={embeddings: 'http://localhost/v1#m'}"))
    assert Path(taught.Tuning.teacher.embeddings).is_dir()


def test_teachers_rows_are_gathered_without_waiting_for_their_number(monkeypatch):
    model, loss = build_model_and_loss(make_config(VIT))
    teacher = TeacherConfig(embeddings="x")
    shapes = []

    def gather_equal_rows(tensor, wait=True):
        shapes.append(tensor.shape)
        return paddle.concat([tensor, tensor])

    monkeypatch.setattr(dist, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(dist, "get_rank", lambda *_: 0)
    monkeypatch.setattr(collectives, "all_gather", gather_equal_rows)
    step = build_step(model, DistillationLoss(loss, teacher), make_config(VIT))
    rows = make_batch(rows=range(ROWS // 2))
    step.forward(*rows, 0, teacher=paddle.ones([ROWS // 2, 12]))
    # Two ids of each row, four views of width 32, and the teacher's embeddings; a gather of counts would make the host
    # wait for everything that is queued on the device.
    assert shapes == [[ROWS // 2, 2], [ROWS // 2, 4 * 32], [ROWS // 2, 12]]


@pytest.mark.slow
def test_two_ranks_learn_like_one_process(config, overrides, folder, tmp_path):
    changes = [*PLAIN, "Model.embed_dim=6", f"Tuning.teacher={{embeddings: {folder}, logit_scale: 5, distance: 2}}"]
    fit(config(*changes, f"Training.output={tmp_path / 'alone'}"))
    run_ranks(train, [*overrides, *changes, "Training.device=cpu"])
    records, expected_records = read_train_records(tmp_path / "run"), read_train_records(tmp_path / "alone")
    for record, expected in zip(records, expected_records, strict=True):
        for name in ("loss", "teacher", "teacher_distance", "image_text", "text_image", "gradient_norm"):
            # Two ranks add the same float32 numbers in another order.
            assert record[name] == pytest.approx(expected[name], rel=1e-4), (record["step"], name)


@pytest.mark.slow
def test_two_ranks_learn_from_a_server(config, overrides, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    model, folder = write_untrained_checkpoint(tmp_path / "model"), tmp_path / "teacher"
    succeed("embed", "--checkpoint", model, "--data", shapes["train"], "--language", "en", "--output", folder)
    fit(config(*PLAIN, f"Tuning.teacher={{embeddings: {folder}}}", f"Training.output={tmp_path / 'alone'}"))
    with serve_model(load_model(model, device="cpu")) as address:
        run_ranks(train, [*overrides, *PLAIN, f"Tuning.teacher={{embeddings: {address}}}", "Training.device=cpu"])
    records, expected_records = read_train_records(tmp_path / "run"), read_train_records(tmp_path / "alone")
    for record, expected in zip(records, expected_records, strict=True):
        for name in ("loss", "teacher", "image_text", "text_image", "gradient_norm"):
            # Two ranks add the same float32 numbers in another order.
            assert record[name] == pytest.approx(expected[name], rel=1e-4), (record["step"], name)


def test_teacher_of_any_norm_and_type_is_normalised(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    images = np.load(copy / "image_embeddings.npy").astype(np.float64)
    narrow = (images * [[300 / np.linalg.norm(image)] for image in images]).astype(np.float16)
    narrow[1], narrow[2, 0] = 0, np.nan
    np.save(copy / "image_embeddings.npy", narrow)
    ids = [json.loads(line)["image_id"] for line in (copy / "images.jsonl").read_text("utf-8").splitlines()]
    text = json.loads((copy / "texts.jsonl").read_text("utf-8").splitlines()[0])["text"]
    teacher = Teacher(str(copy))
    image, _ = np.split(teacher.get_embeddings(ids[0], text), 2)
    # Half the distance between two float16 numbers, relative to them
    np.testing.assert_allclose(image, images[0] / np.linalg.norm(images[0]), rtol=2**-10)
    # A loss of these would be NaN, or teach nothing.
    for image_id in ids[1:3]:
        with pytest.warns(ImageRemark, match=NO_TEACHER_EMBEDDING):
            assert not teacher.get_embeddings(image_id, text).any()


def write_other_width(path):
    np.save(path, np.zeros([16, 4], np.float32))


@pytest.mark.parametrize(("name", "damage", "culprit"), [
    ("text_embeddings.npy", write_other_width, "6 wide"),
    ("images.jsonl", lambda path: path.write_text('{"image_id": "a"}\n'), "1 rows"),
    ("texts.jsonl", lambda path: path.write_bytes(b"nothing\n"), "texts.jsonl"),
    ("texts.jsonl", Path.unlink, "texts.jsonl"),
    ("image_embeddings.npy", lambda path: path.write_bytes(b"x"), "image_embeddings.npy"),
    ("image_embeddings.npy", Path.unlink, "image_embeddings.npy"),
])  # fmt: skip
def test_damaged_or_inconsistent_folder_is_reported(folder, tmp_path, name, damage, culprit):
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy / name)
    with pytest.raises((ValueError, OSError), match=culprit):
        Teacher(str(copy))


def test_teacher_needs_images_against_texts(config):
    with pytest.raises(ConfigError, match="Tuning.teacher"):
        config("Loss.weights={image_text: 0, text_image: 0}", "Tuning.teacher={embeddings: x}")
