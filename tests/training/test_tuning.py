"""Fine-tuning by the trainer: what is frozen stays, LoRA is merged for whoever reads it, a resumed run is the same."""

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

import ernie_vil2
from ernie_vil2 import cli as commands
from ernie_vil2.encoder.backends import Eager
from ernie_vil2.models.weights.stored import read_model, write_model
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.trainer import Trainer
from tests.support.ranks import forked_ranks, train
from tests.support.trainings import REPVGG, check_resume, fit, weights

TUNINGS = {
    "mixed": ["Tuning.initial_share=0.3", "Tuning.ema=0.9"],
    "lora": ["Tuning.lora={rank: 4}", "Tuning.layer_decay=0.8"],
    "frozen": ["Tuning.freeze=[text.*, image.embeddings]", "Tuning.layer_decay=0.5", "Tuning.image_rate=0.5"],
    "frozen norms": ["Tuning.freeze=['image.blocks.[0-2]']", "Tuning.ema=0.9", REPVGG],
}


@pytest.mark.parametrize("tuning", TUNINGS.values(), ids=TUNINGS)
def test_resume_is_bit_equal_and_what_is_frozen_stays(config, tmp_path, tuning):
    whole = check_resume(lambda *changes: config(*tuning, *changes), tmp_path)
    before = Trainer(config(*tuning)).model.state_dict()
    trained = {name for group in whole.task.parameter_groups() for name in group.names}
    for name, value in weights(whole).items():
        norm, _, statistic = name.rpartition(".")
        learns = name in trained
        if statistic in ("_mean", "_variance"):
            learns = f"{norm}.weight" in trained
        assert np.array_equal(value, before[name].numpy()) != learns, name


def test_checkpoint_with_lora_is_read_as_a_plain_model(config, tmp_path):
    trainer = fit(config(*TUNINGS["lora"], "Model.embed_dim=64", "Training.steps=2"))
    trainer.model.eval()
    pixels = np.random.default_rng(0).integers(0, 256, [3, 32, 32, 3], dtype=np.uint8)
    loaded = ernie_vil2.load_model(trainer.run)
    assert not any("lora" in name for name in loaded.backend.model.state_dict())
    ids = paddle.to_tensor([trainer.task.tokenizer.encode("红色的圆")])
    expected = trainer.model.encode_text(ids).numpy()
    assert np.allclose(loaded.encode_texts(["红色的圆"]), expected, atol=2e-6)
    for layout in ("official", "paddlenlp", "ernie_vil2"):
        write_model(read_model(list_checkpoints(trainer.run)[-1]), tmp_path / layout, layout)
        stored = read_model(tmp_path / layout, heads=(2, 2))
        model, report = stored.build()
        assert not report.missing and not report.unexpected
        for name, value in loaded.backend.model.state_dict().items():
            assert np.array_equal(value.numpy(), stored.arrays[name]), name
    graphs = tmp_path / "graphs"
    assert commands.run("export", [str(trainer.run), str(graphs), "--to", "paddle-inference"]) == 0
    exported = ernie_vil2.load_model(graphs)
    assert np.allclose(exported.encode_texts(["红色的圆"]), expected, atol=1e-5)
    again = Trainer(config(f"Model.weights={trainer.run}", f"Training.output={tmp_path / 'again'}"))
    backend = Eager(again.model, loaded.preprocessing)
    model = ernie_vil2.ErnieViL2(backend, loaded.tokenizer, loaded.config)
    assert np.array_equal(model.encode_pixels(pixels), loaded.encode_pixels(pixels))


def test_two_ranks_train_what_one_process_does(config, overrides, tmp_path):
    """With everything that `Tuning` changes in a step: rates, LoRA and its base, frozen parts and the average."""
    changes = ["Tuning={lora: {rank: 4, layers: [image.blocks.*]}, layer_decay: 0.7, image_rate: 2.0, ema: 0.9, "
               "freeze: [text.*]}", "Evaluation.every=4", "Training.micro_batch=3", "Training.steps=4"]  # fmt: skip
    fit(config(*changes, f"Training.output={tmp_path / 'alone'}"))
    forked_ranks(train, [*overrides, *changes, "Training.device=cpu"])
    folders = [list_checkpoints(tmp_path / name)[-1] for name in ("alone", "run")]
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, two = (load_file(folder / file) for folder in folders)
        assert one.keys() == two.keys()
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, rtol=2e-3, atol=2e-5, err_msg=name)
