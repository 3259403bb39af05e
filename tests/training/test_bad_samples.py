"""Training runs on data that contains unusable samples."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from ernie_vil2.data.samples import BadSample, TooManyBadSamples
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.training.trainer import Trainer
from ernie_vil2.training.update import MAX_SKIPPED_BATCHES, BatchGate, StopSignals
from tests.support.shapes import draw, encode_png, write_tsv
from tests.support.trainings import call_before_steps, fit, read_train_records

IMAGE = encode_png(draw((200, 30, 30), "disc", np.random.default_rng(0)))
GOOD = [(f"text {number}", f"good {number}", IMAGE) for number in range(48)]
ONE_EPOCH = ("Views.languages={en: 1.0}", "Data.text_id=null", "Data.val=[]", "Data.max_bad_share=0.5")


@pytest.mark.parametrize("workers", [0, 2])
def test_reasons_remarks_and_first_names_are_reported(config, tmp_path, workers, capfd):
    # Oddities of usable samples are counted in the report, and libraries print nothing about them.
    odd = io.BytesIO()
    Image.open(io.BytesIO(IMAGE)).save(odd, "PNG", icc_profile=b"no profile")  # libpng warns of it
    rows = [*GOOD, *((f"text {number}", f"odd {number}", odd.getvalue()) for number in range(16))]
    rows += [(" ", f"blank {number}", IMAGE) for number in range(12)]
    rows += [(f"text {number}", f"broken {number}", IMAGE[:-40]) for number in range(3)]
    path = write_tsv(tmp_path / "a.tsv", rows)
    with path.open("a") as file:
        file.write("one column\n")
    settings = config(*ONE_EPOCH, f"Data.train=[{path}]", "Training.steps=5", f"Data.workers={workers}")
    trainer = fit(settings)
    printed = capfd.readouterr()
    assert "libpng" not in printed.err and "Warning" not in printed.err

    stream, names = SampleStream(settings), []
    for index in range(80):
        with contextlib.suppress(BadSample):
            names.append(stream[index][1].image_name)
    report = json.loads((trainer.run / "bad_samples.json").read_text())
    assert report["num_read"] == 80 and report["num_bad"] == 16
    assert report["reasons"] == {
        "empty caption": {"count": 12, "names": [name for name in names if name.startswith("blank")][:10]},
        "broken image": {"count": 3, "names": [name for name in names if name.startswith("broken")]},
        "malformed row": {"count": 1, "names": ["a.tsv:80"]},
    }
    assert report["remarks"]["damaged colour profile"]["count"] == 16
    assert "malformed row: 1 (a.tsv:80)" in (trainer.run / "bad_samples.txt").read_text()
    assert Trainer(settings, resume=True).bad_samples.remarks == {"damaged colour profile": 16}


@pytest.fixture
def settings_with_bad_shard(tmp_path):
    """Write a shard of 48 good rows and one of 48 bad rows, and return settings that read them in batches of 16."""
    write_tsv(tmp_path / "good.tsv", GOOD)
    write_tsv(tmp_path / "lost.tsv", [("", f"lost {number}", IMAGE) for number in range(48)])
    return [*ONE_EPOCH, f"Data.train=['{tmp_path}/*.tsv']", "Data.shuffle_buffer=1", "Training.steps=6"]


def test_batches_without_samples_are_skipped(config, settings_with_bad_shard):
    trainer = fit(config(*settings_with_bad_shard))
    # Only three batches of each epoch are usable, so six steps read at least nine batches.
    assert trainer.step == 6 and trainer.position >= 9 * 16
    report = json.loads((trainer.run / "bad_samples.json").read_text())
    assert report["num_read"] == trainer.position and set(report["reasons"]) == {"empty caption"}
    assert [record["step"] for record in read_train_records(trainer.run)] == [1, 2, 3, 4, 5, 6]


def test_batch_smaller_than_micro_batch_count_is_skipped(config, tmp_path):
    rows = [*GOOD, *(("", f"blank {number}", IMAGE) for number in range(40))]
    trainer = Trainer(config(*ONE_EPOCH, f"Data.train=[{write_tsv(tmp_path / 'a.tsv', rows)}]",
                             "Training.micro_batch=2", "Training.steps=3"))  # fmt: skip
    counts = []
    call_before_steps(trainer, lambda batch: counts.append(len(batch["names"])))
    assert trainer.fit() and min(counts) >= 8 and trainer.position > 3 * 16


def test_run_stops_when_data_disappears():
    gate = BatchGate(1, StopSignals())
    for _ in range(2):
        assert not any(gate.admit_batch(0, 1) for _ in range(MAX_SKIPPED_BATCHES - 1))
        assert gate.admit_batch(1, 1)
    assert not any(gate.admit_batch(3, 4) for _ in range(MAX_SKIPPED_BATCHES - 1))
    with pytest.raises(TooManyBadSamples, match="is the data still there"):
        gate.admit_batch(3, 4)
