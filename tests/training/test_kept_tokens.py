"""Tokens that are left out are the same in parts of a batch, recomputed and resumed, and only in their run."""

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import load_config
from ernie_vil2.models.weights.format import read_model, write_model
from ernie_vil2.models.weights.initial import resolve_model_like
from ernie_vil2.tasks.contrastive_step import CachedStep, DirectStep, build_step
from tests.support.steps import (
    EVA_02,
    VIT,
    build_model_and_loss,
    compute_step,
    make_batch,
    make_config,
    measure_errors,
    use_default_dtype,
)
from tests.support.trainings import check_resume, fit


def with_kept_tokens(tower, share=0.5):
    """Return an override of an image tower with a share of its tokens."""
    return tower.removesuffix("}") + f", keep_tokens: {share}}}"


@pytest.mark.parametrize("image", [VIT, EVA_02], ids=["ViT", "EVA-02"])
@pytest.mark.parametrize("change", ["micro_batch=3", "recompute=true"])
def test_parts_of_a_batch_see_the_tokens_of_the_whole(change, image):
    errors = {}
    with use_default_dtype("float64"):
        for share in (1, 0.5):
            tower = with_kept_tokens(image, share)
            whole, divided = make_config(tower), make_config(tower, f"Training.{change}")
            model, loss = build_model_and_loss(whole)
            expected = compute_step(build_step(model, loss, whole), make_batch("float64"))
            step = build_step(model, loss, divided)
            assert type(step) is (CachedStep if "micro_batch" in change else DirectStep)
            errors[share] = max(measure_errors(compute_step(step, make_batch("float64")), expected))
    # No further than with all tokens, but for rounding in another order.
    assert errors[0.5] < 1e-10 and errors[0.5] <= 2 * errors[1], errors


def test_resume_is_bit_equal(config, tmp_path):
    check_resume(
        lambda *changes: config("Model.image.keep_tokens=0.5", "Model.image.drop_path=0.2", *changes), tmp_path
    )


def test_model_of_the_run_keeps_all_tokens_elsewhere(config, tmp_path):
    run = fit(config("Model.image.keep_tokens=0.5", "Training.steps=2")).run
    assert load_config(run / "config.yaml").Model.image.keep_tokens == 0.5
    stored = read_model(run)
    assert stored.config.Model.image.keep_tokens == 1
    write_model(stored, tmp_path / "copy", "ernie_vil2")
    assert load_config(tmp_path / "copy" / "config.yaml").Model.image.keep_tokens == 1
    assert resolve_model_like(load_config(None, [f"Model.like={run}"])).Model.image.keep_tokens == 1
    images = np.random.default_rng(0).integers(0, 256, [2, 32, 32, 3], np.uint8)
    expected = ernie_vil2.load_model(tmp_path / "copy").encode_images(list(images))
    np.testing.assert_array_equal(ernie_vil2.load_model(run).encode_images(list(images)), expected)
