"""A short and a long caption of one image as the two text views."""

import io
import json
import tarfile

import numpy as np
import paddle
import pytest

from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.data.loader import load_batches
from tests.support.trainings import build_seeded_task, check_resume

LONG = ["Views.long_caption=long", "Views.tag_probability=0.3"]
SUFFIX = {"zh": "，在白色的背景上", "en": ", on white"}


@pytest.fixture(scope="module")
def long_shapes(shapes, tmp_path_factory):
    """The coloured shapes; of three samples in four with a caption that goes on."""
    path = tmp_path_factory.mktemp("long") / "train.tar"
    with tarfile.open(shapes["train"]) as before, tarfile.open(path, "w") as after:
        for number, member in enumerate(before):
            content = before.extractfile(member).read()
            if member.name.endswith(".json") and number % 4 != 3:
                fields = json.loads(content)
                fields |= {f"caption_long_{each}": fields[f"caption_{each}"] + more for each, more in SUFFIX.items()}
                content = json.dumps(fields).encode()
            member.size = len(content)
            after.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def long_config(overrides, long_shapes):
    return lambda *changes: [*overrides, f"Data.train=[{long_shapes}]", *LONG, *changes]


def batch_of(settings):
    task = build_seeded_task(load_config(None, settings))
    return task, next(load_batches(task.open_rows(), task.config))


def test_a_batch_holds_both_texts_and_all_else_as_before(long_config):
    task, batch = batch_of(long_config())
    _, plain = batch_of(long_config("Views.long_caption=null"))
    assert batch.keys() - plain.keys() == {"text_2"} and batch["text"].shape == batch["text_2"].shape
    length = plain["text"].shape[1]
    assert (batch["text"][:, length:] == 0).all()  # as long as the long captions
    np.testing.assert_array_equal(batch["text"].numpy()[:, :length], plain["text"].numpy())
    np.testing.assert_array_equal(batch["image_2"].numpy(), plain["image_2"].numpy())
    np.testing.assert_array_equal(batch["ids"], plain["ids"])
    short, long = (["".join(task.tokenizer.tokens[id] for id in row if id > 2) for row in batch[name].tolist()]
                   for name in ("text", "text_2"))  # fmt: skip
    ends = tuple(more.replace(" ", "") for more in SUFFIX.values())
    assert not any(text.endswith(ends) for text in short)
    longer = [text.endswith(ends) for text in long]
    assert 0 < longer.count(False) < len(longer)
    assert all(one == other for one, other, more in zip(short, long, longer, strict=True) if not more)


def test_the_text_pair_contrasts_them_and_images_the_first(long_config):
    task, batch = batch_of(long_config("Loss.duplicates=ignored"))
    task.model.eval()
    task.prepare(task.model, None)
    found = task.forward(batch, 0)
    with paddle.no_grad():
        one, two = (task.model.encode_text(batch[name]).numpy() for name in ("text", "text_2"))
        scale = task.model.logit_scale.item()
        image = task.model.encode_image(task._step.normalize(batch["image_1"])).numpy()
    for pair, rows, columns in (("text_text", one, two), ("image_text", image, one)):
        logits = scale * rows @ columns.T
        expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))
        np.testing.assert_allclose(found[pair].item(), expected, rtol=1e-4, err_msg=pair)


def test_resume_is_bit_equal(long_config, tmp_path):
    settings = long_config("Views.long_first=0.5")
    check_resume(lambda *changes: load_config(None, [*settings, *changes]), tmp_path)


def test_long_captions_that_no_loss_would_see_are_an_error():
    without = ["Views.long_caption=long", "Loss.weights.text_text=0"]
    with pytest.raises(ConfigError, match="Views.long_caption: .* Loss.weights.text_text"):
        load_config(None, without)
    assert load_config(None, [*without, "Views.long_first=0.5"]).Views.long_first == 0.5
