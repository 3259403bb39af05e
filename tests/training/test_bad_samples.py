"""Runs over data of which some cannot be used."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from ernie_vil2 import cli as commands
from ernie_vil2.data.samples import BadSample, Reason, TooManyBadSamples
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.step_agreement import MOST_SKIPPED, BatchGate, StopSignals
from ernie_vil2.training.trainer import Trainer
from tests.support.shapes import draw, png, write_tsv
from tests.training.conftest import as_arguments, run

IMAGE = png(draw((200, 30, 30), "disc", np.random.default_rng(0)))
GOOD = [(f"text {number}", f"good {number}", IMAGE) for number in range(48)]
ONE_EPOCH = ("Views.languages={en: 1.0}", "Data.text_id=null", "Data.val=[]", "Data.max_bad_share=0.5")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_reports_reasons_counts_and_the_first_ten_names_of_each(config, tmp_path, workers):
    blank = [(" ", f"blank {number}", IMAGE) for number in range(12)]
    broken = [(f"text {number}", f"broken {number}", IMAGE[:-40]) for number in range(3)]
    path = write_tsv(tmp_path / "a.tsv", [*GOOD, *blank, *broken])
    with path.open("a") as file:
        file.write("one column\n")
    settings = config(*ONE_EPOCH, f"Data.train=[{path}]", "Training.steps=4", f"Data.workers={workers}")
    trainer = Trainer(settings)
    assert trainer.fit()

    names = {reason: [] for reason in (Reason.EMPTY_CAPTION, Reason.BROKEN_IMAGE, Reason.MALFORMED_ROW)}
    stream = SampleStream(settings)
    for index in range(64):
        try:
            name = stream[index][1].image_name
        except BadSample as bad:
            names[bad.reason].append(bad.name)
        else:
            for reason, word in ((Reason.EMPTY_CAPTION, "blank"), (Reason.BROKEN_IMAGE, "broken")):
                names[reason] += [name] * name.startswith(word)
    report = json.loads((trainer.run / "bad_samples.json").read_text())
    assert report["read"] == 64 and report["bad"] == 16
    assert report["reasons"] == {
        reason: {"count": count, "names": names[reason][:10]}
        for reason, count in (("empty caption", 12), ("broken image", 3), ("malformed row", 1))
    }
    text = (trainer.run / "bad_samples.txt").read_text()
    assert "16 of 64 samples" in text and "empty caption: 12 (" in text and "malformed row: 1 (a.tsv:64)" in text


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_odd_about_samples_that_are_used_is_counted_and_not_on_the_terminal(config, tmp_path, workers, capfd):
    odd = io.BytesIO()
    Image.open(io.BytesIO(IMAGE)).save(odd, "PNG", icc_profile=b"no profile")  # libpng writes a line for each
    rows = [(f"text {number}", f"odd {number}", odd.getvalue()) for number in range(16)]
    path = write_tsv(tmp_path / "a.tsv", [*GOOD, *rows])
    settings = config(*ONE_EPOCH, f"Data.train=[{path}]", "Training.steps=4", f"Data.workers={workers}")
    trainer = Trainer(settings)
    assert trainer.fit()
    printed = capfd.readouterr()
    assert "libpng" not in printed.err and "Warning" not in printed.err
    report = json.loads((trainer.run / "bad_samples.json").read_text())
    assert (report["read"], report["bad"], report["remarks"]["damaged colour profile"]["count"]) == (64, 0, 16)
    assert "damaged colour profile: 16 (odd" in (trainer.run / "bad_samples.txt").read_text()
    assert "damaged colour profile" in (trainer.run / "curves.html").read_text()
    resumed = Trainer(settings, resume=True)
    assert resumed.bad_samples.remarks == {"damaged colour profile": 16}


@pytest.fixture
def lost_shard(tmp_path):
    """A shard of 48 good rows and one of 48 bad ones, read one after the other, a batch of 16 at a time."""
    write_tsv(tmp_path / "good.tsv", GOOD)
    write_tsv(tmp_path / "lost.tsv", [("", f"lost {number}", IMAGE) for number in range(48)])
    return [*ONE_EPOCH, f"Data.train=['{tmp_path}/*.tsv']", "Data.shuffle_buffer=1", "Training.steps=6"]


def test_batches_without_samples_are_skipped(config, lost_shard):
    trainer = Trainer(config(*lost_shard))
    assert trainer.fit()
    # Three batches of an epoch can be used.
    assert trainer.step == 6 and trainer.position >= 9 * 16
    report = json.loads((trainer.run / "bad_samples.json").read_text())
    assert report["read"] == trainer.position and set(report["reasons"]) == {"empty caption"}
    log = read_log(trainer.run / "log.jsonl")
    assert [record["step"] for record in log if record["kind"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_a_batch_with_fewer_samples_than_micro_batches_is_skipped(config, tmp_path):
    rows = [*GOOD, *(("", f"blank {number}", IMAGE) for number in range(40))]
    few = config(*ONE_EPOCH, f"Data.train=[{write_tsv(tmp_path / 'a.tsv', rows)}]", "Training.micro_batch=2",
                 "Training.steps=3")  # fmt: skip
    trainer = Trainer(few)
    counts = []
    original = trainer._train_step
    trainer._train_step = lambda batch, rate: counts.append(len(batch["names"])) or original(batch, rate)
    assert trainer.fit() and min(counts) >= 8 and trainer.position > 3 * 16


def test_a_run_whose_data_is_gone_stops():
    gate = BatchGate(1, StopSignals())
    for _ in range(2):
        assert not any(gate.lets_through(0, 1) for _ in range(MOST_SKIPPED - 1))
        assert gate.lets_through(1, 1)
    with pytest.raises(TooManyBadSamples, match="is the data still there"):  # noqa: PT012  -- what comes before the error belongs to it
        for _ in range(MOST_SKIPPED):
            gate.lets_through(3, 4)


@pytest.mark.slow
def test_a_rank_without_samples_does_not_stop_the_others(overrides, lost_shard, tmp_path):
    result = run("tools/train.py", "--processes", 2, *as_arguments([*overrides, *lost_shard]))
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "run" / "bad_samples.json").read_text())
    assert report["read"] > 6 * 16 and report["read"] % 16 == 0


def test_a_file_that_cannot_be_read_is_an_error_of_one_line(overrides, tmp_path, capsys):
    os.mkfifo(tmp_path / "a.tar")
    assert commands.run("train", as_arguments([*overrides, f"Data.train=[{tmp_path}/a.tar]"])) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {tmp_path}/a.tar: not an ordinary file") and printed.count("\n") == 1
