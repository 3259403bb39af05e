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
    """Write the coloured shapes; three of four samples also have a long caption, the short one with a suffix."""
    path = tmp_path_factory.mktemp("long") / "train.tar"
    with tarfile.open(shapes["train"]) as source, tarfile.open(path, "w") as target:
        for number, member in enumerate(source):
            content = source.extractfile(member).read()
            if member.name.endswith(".json") and number % 4 != 3:
                fields = json.loads(content)
                for language, suffix in SUFFIX.items():
                    fields[f"caption_long_{language}"] = fields[f"caption_{language}"] + suffix
                content = json.dumps(fields).encode()
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def long_config(overrides, long_shapes):
    return lambda *changes: [*overrides, f"Data.train=[{long_shapes}]", *LONG, *changes]


def read_batch(settings):
    task = build_seeded_task(load_config(None, settings))
    return task, next(load_batches(task.open_rows(), task.config))


def join_tokens(tokenizer, ids):
    return "".join(tokenizer.tokens[id] for id in ids if id > 2)  # without padding, [CLS] and [SEP]


def test_batch_has_both_texts_and_is_otherwise_unchanged(long_config):
    task, batch = read_batch(long_config())
    _, plain = read_batch(long_config("Views.long_caption=null"))
    assert batch.keys() - plain.keys() == {"text_2"} and batch["text"].shape == batch["text_2"].shape
    length = plain["text"].shape[1]
    assert (batch["text"][:, length:] == 0).all()  # padding up to the length of the long captions
    np.testing.assert_array_equal(batch["text"].numpy()[:, :length], plain["text"].numpy())
    np.testing.assert_array_equal(batch["image_2"].numpy(), plain["image_2"].numpy())
    np.testing.assert_array_equal(batch["ids"], plain["ids"])
    # Tokens are joined without spaces.
    suffixes = tuple(suffix.replace(" ", "") for suffix in SUFFIX.values())
    long_count = 0
    for short_ids, long_ids in zip(batch["text"].tolist(), batch["text_2"].tolist(), strict=True):
        short, long = join_tokens(task.tokenizer, short_ids), join_tokens(task.tokenizer, long_ids)
        assert not short.endswith(suffixes)
        if long.endswith(suffixes):
            long_count += 1
        else:
            assert short == long
    assert 0 < long_count < len(batch["text"])


def test_text_pair_has_both_texts_and_image_pair_the_short(long_config):
    task, batch = read_batch(long_config("Loss.duplicates=ignored"))
    task.model.eval()
    task.prepare(task.model, None)
    losses = task.forward(batch, 0)
    with paddle.no_grad():
        short = task.model.encode_text(batch["text"]).numpy()
        long = task.model.encode_text(batch["text_2"]).numpy()
        scale = task.model.logit_scale.item()
        image = task.model.encode_image(task._step.normalize(batch["image_1"])).numpy()
    for pair, rows, columns in (("text_text", short, long), ("image_text", image, short)):
        logits = scale * rows @ columns.T
        # Mean cross-entropy of the diagonal.
        expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))
        np.testing.assert_allclose(losses[pair].item(), expected, rtol=1e-4, err_msg=pair)


def test_resume_is_bit_equal(long_config, tmp_path):
    settings = long_config("Views.long_first=0.5")
    check_resume(lambda *changes: load_config(None, [*settings, *changes]), tmp_path)


def test_long_captions_without_a_loss_are_an_error():
    without = ["Views.long_caption=long", "Loss.weights.text_text=0"]
    with pytest.raises(ConfigError, match="Views.long_caption: .* Loss.weights.text_text"):
        load_config(None, without)
    assert load_config(None, [*without, "Views.long_first=0.5"]).Views.long_first == 0.5


def test_share_of_long_captions_needs_their_name():
    with pytest.raises(ConfigError, match="Views.long_caption"):
        load_config(None, ["Views.long_first=0.5"])
