"""Fine-tuning with the trainer: frozen layers, LoRA, the moving average of the weights, and epochs."""

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

import ernie_vil2
from ernie_vil2.config import ConfigError
from ernie_vil2.encoder import PaddleBackend
from ernie_vil2.models.lora import merge_lora
from ernie_vil2.models.weights.format import read_model, write_model
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.optimizer import resolve_steps
from ernie_vil2.training.trainer import Trainer
from tests.support.ranks import run_ranks, train
from tests.support.trainings import REPVGG, check_resume, fit, read_evaluation_records, read_last_weights

TUNINGS = {
    "mixed": ["Tuning.initial_share=0.3", "Tuning.ema=0.9"],
    "lora": ["Tuning.lora={rank: 4}", "Tuning.layer_decay=0.8"],
    "frozen": ["Tuning.freeze=[text.*, image.embeddings]", "Tuning.layer_decay=0.5", "Tuning.image_rate=0.5"],
    "frozen norms": ["Tuning.freeze=['image.blocks.[0-2]']", "Tuning.ema=0.9", REPVGG],
}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in ("lora", "frozen norms") else pytest.mark.slow) for name in TUNINGS
])  # fmt: skip
def test_resume_is_bit_equal_and_frozen_layers_stay(config, tmp_path, name):
    tuning = TUNINGS[name]
    trainer = check_resume(lambda *changes: config(*tuning, *changes), tmp_path)
    initial = Trainer(config(*tuning)).model.state_dict()
    trained = set()
    for group in trainer.task.parameter_groups():
        trained.update(group.names)
    for name, value in read_last_weights(trainer).items():
        norm, _, statistic = name.rpartition(".")
        learns = name in trained
        # The statistics of a batch norm change if its weight is trained.
        if statistic in ("_mean", "_variance"):
            learns = f"{norm}.weight" in trained
        assert np.array_equal(value, initial[name].numpy()) != learns, name


def test_checkpoint_with_lora_is_loaded_as_a_plain_model(config, tmp_path):
    trainer = fit(config(*TUNINGS["lora"], "Model.embed_dim=64", "Training.steps=2"))
    trainer.model.eval()
    pixels = np.random.default_rng(0).integers(0, 256, [3, 32, 32, 3], dtype=np.uint8)
    loaded = ernie_vil2.load_model(trainer.run)
    assert not any("lora" in name for name in loaded.backend.model.state_dict())
    ids = paddle.to_tensor([trainer.task.tokenizer.encode("红色的圆")])
    expected = trainer.model.encode_text(ids).numpy()
    assert np.allclose(loaded.encode_texts(["红色的圆"]), expected, atol=2e-6)
    write_model(read_model(list_checkpoints(trainer.run)[-1]), tmp_path / "official", "official")
    stored = read_model(tmp_path / "official", heads=(2, 2))
    for name, value in loaded.backend.model.state_dict().items():
        assert np.array_equal(value.numpy(), stored.arrays[name]), name
    continued = Trainer(config(f"Model.weights={trainer.run}", f"Training.output={tmp_path / 'again'}"))
    backend = PaddleBackend(continued.model, loaded.preprocessing)
    model = ernie_vil2.ErnieViL2(backend, loaded.tokenizer, loaded.config)
    assert np.array_equal(model.encode_pixels(pixels), loaded.encode_pixels(pixels))


def test_two_ranks_match_one_process(config, overrides, tmp_path):
    # The settings are all that change a step: learning rates, LoRA and its base, frozen layers and the average.
    changes = ["Tuning={lora: {rank: 4, layers: [image.blocks.*]}, layer_decay: 0.7, image_rate: 2.0, ema: 0.9, "
               "freeze: [text.*]}", "Evaluation.every=4", "Training.micro_batch=3", "Training.steps=4"]  # fmt: skip
    fit(config(*changes, f"Training.output={tmp_path / 'alone'}"))
    run_ranks(train, [*overrides, *changes, "Training.device=cpu"])
    for file in ("model.safetensors", "optimizer.safetensors"):
        expected = load_file(list_checkpoints(tmp_path / "alone")[-1] / file)
        actual = load_file(list_checkpoints(tmp_path / "run")[-1] / file)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(actual[name], value, rtol=2e-3, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(("ema", "share"), [(0.5, 0.3), pytest.param(None, 0.3, marks=pytest.mark.slow)])
def test_average_matches_its_formula(config, ema, share):
    # The weights w_t of each step are averaged with decay min(d, (1 + t) / (10 + t)) and then mixed with w_0.
    trainer = Trainer(config(f"Tuning.ema={'null' if ema is None else ema}", f"Tuning.initial_share={share}", REPVGG,
                             "Training.steps=5", "Tuning.freeze=[text.*]"))  # fmt: skip
    names = [name for name in trainer.model.state_dict() if name.startswith(("image.", "log"))]

    def copy_weights():
        return {name: trainer.model.state_dict()[name].numpy().astype(np.float64) for name in names}

    initial, expected, update, steps = copy_weights(), copy_weights(), trainer.average.update, []

    def check_and_update(step):
        steps.append(step)
        decay = min(ema or 0, (1 + step) / (10 + step))
        for name, value in copy_weights().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
        update(step)

    trainer.average.update = check_and_update
    assert trainer.fit()
    assert steps == list(range(1, trainer.step + 1))  # the decay of the first step is 2 / 11
    saved, raw = read_last_weights(trainer), load_file(list_checkpoints(trainer.run)[-1] / "optimizer.safetensors")
    for name, value in copy_weights().items():
        mixed = share * initial[name] + (1 - share) * expected[name]
        np.testing.assert_allclose(saved[name], mixed, rtol=1e-5, atol=1e-6, err_msg=name)
        if f"{name}/raw" in raw:
            np.testing.assert_array_equal(raw[f"{name}/raw"], value.astype(np.float32), err_msg=name)
    assert any("bn._variance/raw" in name for name in raw) and not any(name.startswith("text.") for name in raw)


def test_average_is_scored_and_training_goes_on_without_it(config, tmp_path):
    settings = ["Evaluation.every=4", "Evaluation.batch_size=16", "Training.steps=4"]
    plain = fit(config(*settings, f"Training.output={tmp_path / 'plain'}"))
    averaged = fit(config(*settings, "Tuning.ema=0.9"))
    for expected, actual in zip(plain.model.parameters(), averaged.model.parameters(), strict=True):
        assert np.array_equal(actual.numpy(), expected.numpy())
    loaded = ernie_vil2.load_model(averaged.run).backend.model
    metrics = averaged.evaluations.evaluators["retrieval"](loaded).values
    assert read_evaluation_records(averaged.run)[-1]["metrics"] == pytest.approx(metrics)
    averaged_weights = read_last_weights(averaged)
    assert any((averaged_weights[name] != value).any() for name, value in read_last_weights(plain).items())


def test_initial_share_mixes_two_lora_models(config, tmp_path):
    # The weights before training and those of the same run without a share are mixed, both with LoRA merged.
    settings = ["Tuning.lora={rank: 4}", "Training.steps=5"]
    plain = Trainer(config(*settings, f"Training.output={tmp_path / 'plain'}"))
    initial = merge_lora({name: value.numpy() for name, value in plain.model.state_dict().items()})
    mixed = fit(config(*settings, "Tuning.initial_share=0.3"))
    assert plain.fit()
    learned, actual = merge_lora(read_last_weights(plain)), merge_lora(read_last_weights(mixed))
    for name, value in initial.items():
        np.testing.assert_allclose(actual[name], 0.3 * value + 0.7 * learned[name], atol=1e-6, err_msg=name)


def test_epochs_are_converted_to_steps(config):
    # 128 samples in batches of 16 are 8 steps per epoch.
    settings = config("Training.epochs=2.5", "Schedule.warmup_steps=100")
    fitted = resolve_steps(settings, 128)
    assert (fitted.Training.steps, fitted.Training.epochs, fitted.Schedule.warmup_steps) == (20, None, 2)
    assert resolve_steps(config("Training.epochs=5", "Schedule.warmup_steps=3"), 128).Schedule.warmup_steps == 3
    assert resolve_steps(settings, 3).Training.steps == 1
    # 1.1 * 50_000 is above 55,000 in floating point.
    exact = config("Training.epochs=1.1", "Training.global_batch=100")
    assert [resolve_steps(exact, num_samples).Training.steps for num_samples in (50_000, 50_001)] == [550, 551]
    # If the warm-up is longer than the run, it becomes a tenth of the run.
    for steps, warmup, expected in ((100, 100, 10), (9, 2000, 0), (101, 100, 100)):
        fitted = resolve_steps(config(f"Training.steps={steps}", f"Schedule.warmup_steps={warmup}"), 128)
        assert (fitted.Training.steps, fitted.Schedule.warmup_steps) == (steps, expected)
    assert fit(config("Training.epochs=0.5")).step == 4
    assert Trainer(config("Training.epochs=0.5"), resume=True).fit()
    with pytest.raises(ConfigError, match="--resume --extend"):
        Trainer(config("Training.epochs=1"), resume=True)
