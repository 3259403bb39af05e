"""The moving average of the weights: against NumPy, what is scored and saved, and patience."""

import numpy as np
import pytest
from safetensors.numpy import load_file

import ernie_vil2
from ernie_vil2.config import ConfigError
from ernie_vil2.models.lora import merged
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.optimizer import WeightAverage, with_steps
from ernie_vil2.training.trainer import Trainer
from tests.support.trainings import REPVGG, evaluation_records, fit, weights


@pytest.mark.parametrize(("ema", "share"), [(0.5, 0.3), (None, 0.3)])
def test_average_is_that_of_numpy(config, ema, share):
    """Over every step of a run: w_t averaged with decay min(d, (1 + t) / (10 + t)), then mixed with w_0."""
    trainer = Trainer(config(f"Tuning.ema={'null' if ema is None else ema}", f"Tuning.initial_share={share}", REPVGG,
                             "Training.steps=5"))  # fmt: skip
    names = [name for name in trainer.model.state_dict() if name.startswith(("image.", "log"))]

    def now():
        return {name: trainer.model.state_dict()[name].numpy().astype(np.float64) for name in names}

    initial, expected, update, steps = now(), now(), trainer.average.update, []

    def watched(step):
        steps.append(step)
        decay = min(ema or 0, (1 + step) / (10 + step))
        for name, value in now().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
        update(step)

    trainer.average.update = watched
    assert trainer.fit()
    assert steps == list(range(1, trainer.step + 1))  # the decay of the first step is 2 / 11
    saved, raw = weights(trainer), load_file(list_checkpoints(trainer.run)[-1] / "optimizer.safetensors")
    for name, value in now().items():
        mixed = share * initial[name] + (1 - share) * expected[name]
        np.testing.assert_allclose(saved[name], mixed, rtol=1e-5, atol=1e-6, err_msg=name)
        if f"{name}/raw" in raw:
            np.testing.assert_array_equal(raw[f"{name}/raw"], value.astype(np.float32), err_msg=name)
    assert any("bn._variance/raw" in name for name in raw)


def test_average_is_scored_and_training_goes_on_without_it(config, tmp_path):
    settings = ["Evaluation.every=4", "Evaluation.batch_size=16", "Training.steps=4"]
    plain = fit(config(*settings, f"Training.output={tmp_path / 'plain'}"))
    averaged = fit(config(*settings, "Tuning.ema=0.9"))
    for one, other in zip(plain.model.parameters(), averaged.model.parameters(), strict=True):
        assert np.array_equal(one.numpy(), other.numpy())
    loaded = ernie_vil2.load_model(averaged.run).backend.model
    scored = averaged.scores.evaluators["retrieval"](loaded).values
    assert evaluation_records(averaged.run)[-1]["metrics"] == pytest.approx(scored)
    saved = weights(averaged)
    assert any(not np.array_equal(saved[name], value.numpy()) for name, value in averaged.model.state_dict().items())


def test_frozen_weight_has_no_average_of_its_own(config):
    trainer = Trainer(config("Tuning.ema=0.9", "Tuning.freeze=[text.*]"))
    assert not any(name.startswith("text") for name in WeightAverage(trainer.model, 0.9).raw())


def test_run_ends_when_nothing_gets_better(config):
    settings = ["Tuning.patience=2", "Evaluation.every=1", "Training.steps=6", "Training.checkpoint_every=100"]
    trainer = Trainer(config(*settings))
    values = iter([10.0, 30.0, 20.0, 30.0, 50.0])

    def evaluate(model):
        result = evaluators(model)
        return result._replace(values={**result.values, "mean_recall": next(values)})

    evaluators = trainer.scores.evaluators["retrieval"]
    evaluate.best_by, evaluate.data = evaluators.best_by, evaluators.data
    trainer.scores.evaluators["retrieval"] = evaluate
    assert trainer.fit()
    assert trainer.step == 4 and trainer.best == {"step": 2, "metric": "mean_recall", "value": 30.0}
    assert [folder.name for folder in list_checkpoints(trainer.run)] == ["step_00000002", "step_00000004"]
    again = Trainer(config(*settings), resume=True)
    assert again.fit() and again.step == 4
    longer = Trainer(config(*settings, "Tuning.patience=5"), resume=True)
    assert longer.fit() and longer.step > 4
    with pytest.raises(ConfigError, match="Tuning.patience .*Evaluation.every"):
        config("Tuning.patience=2", "Evaluation.every=0")


def test_share_of_the_initial_weights_mixes_two_lora_models(config, tmp_path):
    """The model before training and that of the same run without a share, as whoever reads them gets them."""
    settings = ["Tuning.lora={rank: 4}", "Training.steps=5"]
    plain = Trainer(config(*settings, f"Training.output={tmp_path / 'plain'}"))
    initial = merged({name: value.numpy() for name, value in plain.model.state_dict().items()})
    mixed = fit(config(*settings, "Tuning.initial_share=0.3"))
    assert plain.fit()
    learned, actual = merged(weights(plain)), merged(weights(mixed))
    for name, value in initial.items():
        np.testing.assert_allclose(actual[name], 0.3 * value + 0.7 * learned[name], atol=1e-6, err_msg=name)
    assert any(not np.allclose(actual[name], learned[name], atol=1e-4) for name in actual)


def test_epochs_are_steps(config):
    """128 samples in batches of 16 are 8 steps an epoch."""
    read = config("Training.epochs=2.5", "Schedule.warmup_steps=100")
    fitted = with_steps(read, 128)
    assert (fitted.Training.steps, fitted.Training.epochs, fitted.Schedule.warmup_steps) == (20, None, 2)
    assert with_steps(config("Training.epochs=5", "Schedule.warmup_steps=3"), 128).Schedule.warmup_steps == 3
    assert with_steps(read, 3).Training.steps == 1
    trainer = fit(config("Training.epochs=0.5"))
    assert trainer.step == 4
    assert Trainer(config("Training.epochs=0.5"), resume=True).fit()
    with pytest.raises(ConfigError, match="--resume --extend"):
        Trainer(config("Training.epochs=1"), resume=True)


@pytest.mark.parametrize(("steps", "warmup", "expected"), [(50, 100, 5), (100, 100, 10), (9, 2000, 0), (101, 100, 100)])
def test_short_try_has_a_tenth_of_it_as_warm_up(config, steps, warmup, expected):
    fitted = with_steps(config(f"Training.steps={steps}", f"Schedule.warmup_steps={warmup}"), 128)
    assert (fitted.Training.steps, fitted.Schedule.warmup_steps) == (steps, expected)
