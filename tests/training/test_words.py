"""The word head learns the same in parts of a batch, over ranks and resumed, and is in no weights of the model."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle.distributed import fleet
from safetensors.numpy import load_file

import ernie_vil2
from ernie_vil2.config import ConfigError
from ernie_vil2.models.weights.format import read_model, write_model
from ernie_vil2.parallel.ranks import join_ranks
from ernie_vil2.tasks.contrastive_step import build_step
from ernie_vil2.tasks.words import LossWithWords, Words
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.trainer import Trainer
from tests.support.ranks import run_ranks
from tests.support.steps import (
    RANK_ROWS,
    VIT,
    build_model_and_loss,
    compute_step,
    make_batch,
    make_config,
    measure_errors,
    use_default_dtype,
)
from tests.support.trainings import check_resume, fit, read_train_records

TOKENIZER = SimpleNamespace(vocab_size=50, pad_id=0, unknown_id=3, encode=lambda text: [1, 2])
KEPT_TOKENS = VIT.removesuffix("}") + ", keep_tokens: 0.5}"
CHANGES = ["Training.micro_batch=3", "Training.recompute=true"]


def compute_words_step(config, rows=None, wrap=None, weight=2.0):
    """Return losses and gradients of the second of two batches; without weight, those of the pairs alone."""
    model, loss = build_model_and_loss(config)
    if weight:
        words, loss = Words(model, "ViT", TOKENIZER), LossWithWords(loss, weight)
    step = build_step(model, loss, config, wrap(model) if wrap else None)
    views, ids, positions = make_batch("float64") if rows is None else make_batch("float64", rows)
    if weight:
        words.make_targets([views["text_1"][:, 2:]])
        words.add_batch()
        views |= words.make_targets([views["text_1"]])
    return compute_step(step, (views, ids, positions))


@pytest.mark.parametrize("image", [VIT, KEPT_TOKENS], ids=["all tokens", "kept tokens"])
@pytest.mark.parametrize("change", CHANGES)
def test_parts_of_a_batch_find_the_gradients_of_the_whole(change, image):
    errors = {}
    with use_default_dtype("float64"):
        for weight in (0, 2):
            whole, divided = make_config(image), make_config(image, change)
            expected = compute_words_step(whole, weight=weight)
            errors[weight] = max(measure_errors(compute_words_step(divided, weight=weight), expected))
    assert np.linalg.norm(expected[1]["word_head.weight"]) > 0.1 and expected[0]["words"] > 1
    # No further than the pairs alone, but for rounding in another order.
    assert errors[2] < 1e-10 and errors[2] <= 2 * errors[0] + 1e-15, errors


def compute_rank_steps(folder):
    """Compute steps with and without words as a rank, and write losses and gradients to `folder`/RANK.npz."""
    rank, _ = join_ranks()
    arrays = {}
    for weight, micro_batch in product((0, 2), ("null", 2)):
        with use_default_dtype("float64"):
            config = make_config(VIT, f"Training.micro_batch={micro_batch}")
            losses, gradients = compute_words_step(config, RANK_ROWS[rank], fleet.distributed_model, weight)
        for kind, values in (("losses", losses), ("gradients", gradients)):
            arrays |= {f"{weight}/{micro_batch}/{kind}/{name}": value for name, value in values.items()}
    np.savez(f"{folder}/{rank}.npz", **arrays)


def test_two_ranks_find_the_gradients_of_one(tmp_path):
    run_ranks(compute_rank_steps, tmp_path)
    ranks = [np.load(tmp_path / f"{rank}.npz") for rank in range(2)]
    errors = {}
    for weight, micro_batch in product((0, 2), ("null", 2)):
        with use_default_dtype("float64"):
            expected = compute_words_step(make_config(VIT), np.concatenate(RANK_ROWS), weight=weight)
        prefix, losses, rank_errors = f"{weight}/{micro_batch}", {}, []
        for name in expected[0]:
            losses[name] = sum(float(rank[f"{prefix}/losses/{name}"]) for rank in ranks)
        for rank in ranks:
            gradients = {name: rank[f"{prefix}/gradients/{name}"] for name in expected[1]}
            rank_errors += measure_errors((losses, gradients), expected)
        errors[weight, micro_batch] = max(rank_errors)
    for micro_batch in ("null", 2):
        assert errors[2, micro_batch] <= 2 * errors[0, micro_batch] + 1e-15 < 1e-10, errors


def read_head(run):
    """Return what the last checkpoint of a run holds of the word head."""
    arrays = load_file(list_checkpoints(run)[-1] / "optimizer.safetensors")
    return {name: array for name, array in arrays.items() if name.startswith("word_head.")}


@pytest.mark.parametrize("change", ["Training.steps=4", "Tuning.ema=0.9"])
def test_resume_is_bit_equal(config, tmp_path, change):
    check_resume(lambda *changes: config("Loss.weights.words=1", change, *changes), tmp_path)
    whole, resumed = read_head(tmp_path / "whole"), read_head(tmp_path / "interrupted")
    assert whole.keys() == resumed.keys()
    assert {"word_head.weight/raw", "word_head.weight/moment1_0", "word_head.frequencies/raw"} <= whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)
    assert whole["word_head.num_batches/raw"].tolist() == [4]


def test_frequencies_are_those_of_the_drawn_texts(config):
    trainer = Trainer(config("Loss.weights.words=1", "Views.long_caption=caption", "Training.steps=3"))
    tokens = trainer.task.tokenizer.tokens
    special_ids = {tokens.index(name) for name in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")}
    shares = np.zeros(len(tokens))
    original_forward = trainer.task.forward

    def forward(batch, step):
        rows = [set(row) for row in np.concatenate([batch["text"], batch["text_2"]], axis=1).tolist()]
        for row in rows:
            shares[list(row - special_ids)] += 1 / len(rows)
        return original_forward(batch, step)

    trainer.task.forward = forward
    trainer.fit()
    np.testing.assert_allclose(trainer.model.word_head.frequencies.numpy(), shares, rtol=1e-12)


def test_loss_of_words_falls_and_is_logged(config):
    trainer = fit(config("Loss.weights.words=0.5", "Training.steps=12", "Optimizer.learning_rate=1e-2"))
    first, *_, last = read_train_records(trainer.run)
    pairs = sum(first[pair] for pair in ("image_image", "text_text", "image_text", "text_image"))
    assert first["loss"] == pytest.approx(pairs + 0.5 * first["words"], rel=1e-5)
    assert last["words"] < 0.9 * first["words"]


@pytest.mark.parametrize("tuning", ["Tuning.lora={rank: 2}", "Tuning.freeze=[image.blocks.*]"])
def test_head_trains_and_is_in_no_weights(config, tmp_path, tuning):
    trainer = fit(config("Loss.weights.words=1", tuning, "Training.steps=3"))
    assert np.abs(read_head(trainer.run)["word_head.weight/moment1_0"]).max() > 0
    write_model(read_model(trainer.run), tmp_path / "copy", "ernie_vil2")
    for folder in (list_checkpoints(trainer.run)[-1], tmp_path / "copy"):
        assert not [name for name in load_file(folder / "model.safetensors") if "word" in name and "head" in name]
    images = list(np.random.default_rng(0).integers(0, 256, [2, 32, 32, 3], np.uint8))
    copied = ernie_vil2.load_model(tmp_path / "copy").encode_images(images)
    np.testing.assert_array_equal(ernie_vil2.load_model(trainer.run, verify=True).encode_images(images), copied)


def test_head_decays_like_other_matrices(config):
    task = Trainer(config("Loss.weights.words=1")).task
    decays = {name: group.has_decay for group in task.parameter_groups() for name in group.names}
    assert decays["word_head.weight"] and not decays["word_head.bias"]


def test_without_weight_there_is_no_head(config):
    trainer = Trainer(config())
    assert trainer.model.word_head is None and trainer.task.words is None


@pytest.mark.parametrize(("changes", "culprit"), [
    (["Loss.weights={words: 1, image_text: 0, text_image: 0}"], "Loss.weights.words"),
    (["Loss.weights.words=1", "Model.image={name: 'tests.support.towers:Cropping', image_size: 32, width: 16}"],
     "Cropping"),
    (["Loss.weights={words: 1, image_image: 0, image_text: 0, text_image: 0}", "Training.task=new_language"],
     "Loss.weights"),
])  # fmt: skip
def test_words_without_patches_or_texts_are_refused(config, changes, culprit):
    with pytest.raises(ConfigError, match=culprit):
        Trainer(config(*changes))


def test_means_in_16_bits_have_a_loss_in_float32():
    model, _ = build_model_and_loss(make_config(VIT))
    words = Words(model, "ViT", TOKENIZER)
    targets = words.make_targets([make_batch()[0]["text_1"]])
    losses = {}
    for dtype in ("float32", "bfloat16"):
        losses[dtype] = model.word_head(paddle.ones([10, 32], dtype), targets["word_ids"], targets["word_weights"])
    assert losses["bfloat16"].dtype == paddle.float32
    np.testing.assert_array_equal(losses["bfloat16"].numpy(), losses["float32"].numpy())
