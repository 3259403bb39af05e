"""Fine-tuning by the trainer: what is frozen stays, LoRA is merged for whoever reads it, a resumed run is the same."""

import numpy as np
import paddle
import pytest

import ernie_vil2
from ernie_vil2.engines import Eager
from ernie_vil2.models.model_files import read_model, write_model
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.engine import Trainer
from tests.training.test_engine import crash_after, weights

TUNINGS = {
    "lora": ["Tuning.lora={rank: 4}", "Tuning.layer_decay=0.8"],
    "frozen": ["Tuning.freeze=[text.*, image.embeddings]", "Tuning.layer_decay=0.5", "Tuning.image_rate=0.5"],
}


@pytest.mark.parametrize("tuning", TUNINGS.values(), ids=TUNINGS)
def test_a_resumed_run_ends_where_the_whole_one_ends(config, tmp_path, tuning):
    whole = Trainer(config(*tuning, f"Training.output={tmp_path / 'whole'}"))
    before = {name: value.numpy() for name, value in whole.model.state_dict().items()}
    assert whole.fit()
    trained = {name for group in whole.task.parameter_groups() for name in group.names}
    for name, value in weights(whole).items():
        assert np.array_equal(value, before[name]) == (name not in trained), name

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
    assert not any("lora" in name for name in loaded.engine.model.state_dict())
    ids = paddle.to_tensor([trainer.task.tokenizer.encode("红色的圆")])
    expected = trainer.model.encode_text(ids).numpy()
    assert np.allclose(loaded.encode_texts(["红色的圆"]), expected, atol=2e-6)
    for layout in ("official", "paddlenlp", "ernie_vil2"):
        write_model(read_model(list_checkpoints(trainer.run)[-1]), tmp_path / layout, layout)
        stored = read_model(tmp_path / layout, heads=(2, 2))
        model, report = stored.build()
        assert not report.missing and not report.unexpected
        for name, value in loaded.engine.model.state_dict().items():
            assert np.array_equal(value.numpy(), stored.arrays[name]), name
    again = Trainer(config(f"Model.weights={trainer.run}", f"Training.output={tmp_path / 'again'}"))
    engine = Eager(again.model, loaded.preprocessing)
    model = ernie_vil2.ErnieViL2(engine, loaded.tokenizer, loaded.config)
    assert np.array_equal(model.encode_pixels(pixels), loaded.encode_pixels(pixels))
