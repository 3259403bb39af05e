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
from tests.training.test_trainer import crash_after, weights

TUNINGS = {
    "average": ["Tuning.ema=0.9", "Model.image={name: RepVGG, image_size: 32, width: 8, depth: 1}"],
    "mixed": ["Tuning.initial_share=0.3", "Tuning.ema=0.9"],
    "lora": ["Tuning.lora={rank: 4}", "Tuning.layer_decay=0.8"],
    "frozen": ["Tuning.freeze=[text.*, image.embeddings]", "Tuning.layer_decay=0.5", "Tuning.image_rate=0.5"],
    "frozen norms": ["Tuning.freeze=['image.blocks.[0-2]']", "Tuning.ema=0.9",
                     "Model.image={name: RepVGG, image_size: 32, width: 8, depth: 1}"],
}  # fmt: skip


@pytest.mark.parametrize("tuning", TUNINGS.values(), ids=TUNINGS)
def test_a_resumed_run_ends_where_the_whole_one_ends(config, tmp_path, tuning):
    tuning = [*tuning, "Training.steps=6"]
    whole = Trainer(config(*tuning, f"Training.output={tmp_path / 'whole'}"))
    before = {name: value.numpy() for name, value in whole.model.state_dict().items()}
    assert whole.fit()
    trained = {name for group in whole.task.parameter_groups() for name in group.names}
    for name, value in weights(whole).items():
        norm, _, part = name.rpartition(".")
        learns = f"{norm}.weight" in trained if part in ("_mean", "_variance") else name in trained
        assert np.array_equal(value, before[name]) != learns, name

    first = Trainer(config(*tuning, "Training.checkpoint_every=5"))
    crash_after(first, 5)
    paddle.seed(999)
    second = Trainer(config(*tuning, "Training.checkpoint_every=5"), resume=True)
    assert second.step == 5 and second.fit()
    for name, value in weights(whole).items():
        assert np.array_equal(value, weights(second)[name]), name


def test_a_checkpoint_with_lora_is_a_plain_model_to_whoever_reads_it(config, tmp_path):
    trainer = Trainer(config(*TUNINGS["lora"], "Model.embed_dim=64"))
    trainer.fit()
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
               "freeze: [text.*]}", "Evaluation.every=8", "Training.micro_batch=3"]  # fmt: skip
    alone = Trainer(config(*changes, f"Training.output={tmp_path / 'alone'}"))
    assert alone.fit()
    forked_ranks(train, [*overrides, *changes, "Training.device=cpu"])
    folders = [list_checkpoints(tmp_path / name)[-1] for name in ("alone", "run")]
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, two = (load_file(folder / file) for folder in folders)
        assert one.keys() == two.keys()
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, rtol=2e-3, atol=2e-5, err_msg=name)
