"""The interpolate command mixes weights as computed by hand, scores the mixtures, and refuses unlike models."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2 import cli as commands
from ernie_vil2.cli.arguments import share
from ernie_vil2.cli.interpolate import check_mixable, expand_shares, mix_weights
from ernie_vil2.config import dump_config, load_config
from ernie_vil2.evaluation.protocol import Evaluation
from ernie_vil2.io.run_folder import MODEL
from ernie_vil2.models.heads import HEAD_PREFIX
from ernie_vil2.models.weights.files import read_weights, write_weights
from ernie_vil2.models.weights.format import read_model
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import call
from tests.support.limits import limit_examples
from tests.support.shapes import SPECIAL_TOKENS
from tests.support.trainings import assert_same_arrays

TOKENS = [*SPECIAL_TOKENS, *"abcdefghijklmnopqrstuvwxyz红绿蓝黄色的圆方块条十字"]


@pytest.fixture
def pair(tmp_path):
    """Return two models of the same kind with different weights."""
    for seed, name in enumerate("ab"):
        write_untrained_checkpoint(tmp_path / name, TOKENS)
        rng = np.random.default_rng(seed)
        arrays = dict(read_weights(tmp_path / name / MODEL))
        for key, array in arrays.items():
            arrays[key] = (array + rng.normal(size=array.shape) * 0.05).astype(array.dtype)
        write_weights(tmp_path / name / MODEL, arrays)
    return tmp_path / "a", tmp_path / "b"


def interpolate(*arguments):
    return commands.run("interpolate", [*map(str, arguments)])


@limit_examples(20)
@given(st.floats(0, 1, width=32))
def test_mixtures_equal_those_by_hand(share):
    class Stored:
        def __init__(self, array):
            self.arrays = {"w": np.array(array, np.float32)}

    a, b = [1.0, -2.0, 1e-20], [3.0, 5.0, 1e20]
    expected = [(1 - share) * x + share * y for x, y in zip(a, b, strict=True)]
    assert np.allclose(mix_weights([Stored(a), Stored(b)], [1 - share, share])["w"], expected, rtol=1e-6, atol=0)
    thirds = mix_weights([Stored(a), Stored(b), Stored(b)], [1 / 3] * 3)["w"]
    assert np.allclose(thirds, [(x + 2 * y) / 3 for x, y in zip(a, b, strict=True)], rtol=1e-6)


def test_ends_of_the_path_are_the_models_bit_for_bit(pair):
    stored = [read_model(folder) for folder in pair]
    for shares, model in (([1, 0], stored[0]), ([0, 1], stored[1])):
        assert_same_arrays(mix_weights(stored, shares), dict(model.arrays))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("0 0.1 ... 1", [round(0.1 * step, 10) for step in range(11)]),
        ("0.2 0.4 ... 0.8", [0.2, 0.4, 0.6, 0.8]),
        ("0 1 ... 1", [0, 1]),
        ("0 0.5 0.5 1", [0, 0.5, 1]),
    ],
)
def test_dots_continue_a_row_of_shares(texts, expected):
    assert expand_shares([share(text) for text in texts.split()]) == expected


def test_path_is_scored_and_the_chosen_mixture_written(pair, shapes, tmp_path, capsys):
    assert interpolate(*pair, "--alpha", "0", "0.5", "...", "1", "--new", shapes["val"], "--old", shapes["train"],
                       "--output", tmp_path / "out", "--choose", "0.5", "--write", tmp_path / "mixed") == 0  # fmt: skip
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "interpolation.json").read_text())
    assert [row["mixture"] for row in record["mixtures"]] == ["0", "0.5", "1"] and record["chosen_mixture"] == "0.5"
    for row in record["mixtures"]:
        assert row["mean"] == pytest.approx((row["new"] + row["old"]) / 2)
        assert f"{row['mixture']:<3}{row['new']:>8.2f}{row['old']:>8.2f}{row['mean']:>8.2f}" in printed
    assert (tmp_path / "out" / "interpolation.html").read_text().count("<svg") >= 2
    first, second = read_model(pair[0]).arrays, read_model(pair[1]).arrays
    for name, array in read_model(tmp_path / "mixed").arrays.items():
        assert np.allclose(array, (first[name] + second[name]) / 2, atol=1e-7), name
    # The ends of the table are what the models score by themselves.
    for row, folder in ((record["mixtures"][0], pair[0]), (record["mixtures"][2], pair[1])):
        call("eval", "--checkpoint", folder, "--data", shapes["val"], "--output", tmp_path, "--name", folder.name)
        scored = json.loads((tmp_path / f"{folder.name}.json").read_text())["results"]
        assert row["results"]["new zh"]["mR"] == pytest.approx(next(iter(scored.values()))["result"]["mR"])


def test_mixture_with_the_best_mean_is_written_by_default(pair, shapes, tmp_path):
    assert interpolate(*pair, "--alpha", "1", "0", "--new", shapes["val"], "--output", tmp_path, "--write",
                       tmp_path / "best") == 0  # fmt: skip
    record = json.loads((tmp_path / "interpolation.json").read_text())
    assert [row["mixture"] for row in record["mixtures"]] == ["0", "1"]
    best = max(record["mixtures"], key=lambda row: row["mean"])["mixture"]
    assert record["chosen_mixture"] == best
    assert_same_arrays(read_weights(tmp_path / "best" / MODEL), read_weights(pair[int(best)] / MODEL))


def test_protocol_without_mean_recall_is_named(pair, shapes, monkeypatch, capsys):
    monkeypatch.setattr(Evaluation, "mean_recall", None)  # as where a protocol has other measures only
    assert interpolate(*pair, "--alpha", "0.5", "--old", shapes["val"], "--old-protocol", "first-text") == 2
    assert "--old-protocol first-text" in capsys.readouterr().err


def test_shares_that_differ_in_late_digits_are_two_mixtures(pair, tmp_path, capsys):
    shares = [0.1234567, 0.12345671]
    for share_text in map(str, shares):
        folder = tmp_path / share_text
        assert interpolate(*pair, "--alpha", *shares, "--choose", share_text, "--write", folder) == 0
        assert f"mixture {share_text}\n" in capsys.readouterr().out
        expected = mix_weights([read_model(model) for model in pair], [1 - float(share_text), float(share_text)])
        assert_same_arrays(read_weights(folder / MODEL), expected)


def test_model_with_the_name_of_the_mean_is_refused(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair[1].rename("mean")
    assert interpolate(pair[0], "mean", "--write", "soup") == 2
    assert "./mean" in capsys.readouterr().err
    assert interpolate(pair[0], "./mean", "--write", "soup") == 0


@pytest.mark.parametrize("option", [
    ("--new-split", "val"), ("--new-protocol", "coco-cn"), ("--images", "."), ("--columns", "caption=a"),
    ("--encoding", "gbk"),
])  # fmt: skip
def test_option_on_data_that_are_not_named_is_refused(pair, tmp_path, option, shapes, capsys):
    assert interpolate(*pair, "--alpha", "0.5", "--old", shapes["val"], "--output", tmp_path / "out", *option) == 2
    error = capsys.readouterr().err
    assert option[0] in error and "--new" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["mixed", "mixed/table"])
def test_mixture_in_the_folder_of_the_table_is_refused_at_once(pair, shapes, tmp_path, output, capsys):
    assert interpolate(*pair, "--alpha", "0.5", "--new", shapes["val"], "--output", tmp_path / output, "--write",
                       tmp_path / "mixed") == 2  # fmt: skip
    printed = capsys.readouterr()
    assert "--output" in printed.err and not printed.out and not (tmp_path / "mixed").exists()


def test_models_with_a_classification_head_are_scored(pair, shapes, tmp_path):
    for folder in pair:
        arrays = dict(read_weights(folder / MODEL))
        write_weights(folder / MODEL, {**arrays, f"{HEAD_PREFIX}0.weight": np.ones([2, 2], np.float32)})
    assert interpolate(*pair, "--alpha", "0.5", "--new", shapes["val"], "--output", tmp_path / "out") == 0


def test_models_of_other_kinds_or_vocabularies_are_refused(pair, tmp_path, capsys):
    (pair[1] / "vocab.txt").write_text("\n".join([*TOKENS[:5], *reversed(TOKENS[5:])]), encoding="utf-8")
    with pytest.raises(ValueError, match="vocabularies"):
        check_mixable([read_model(folder) for folder in pair], "ab")
    path = pair[1] / "config.yaml"
    path.write_text(dump_config(load_config(path, ["Model.image.heads=2"])), encoding="utf-8")
    assert interpolate(*pair, "--alpha", "0.5", "--write", tmp_path / "mixed") == 2
    printed = capsys.readouterr().err
    assert "Model.image.heads" in printed and printed.count("\n") == 1
