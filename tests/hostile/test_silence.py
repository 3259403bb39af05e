"""Commands without anything to do, and meaningless values: an error of one line says what is missing or wrong."""

import pytest

from tests.support.command_examples import EXAMPLES, run_example

DEEP = "[" * 100_000
NOTHING_TO_DO = {
    "interpolate": ({"--new": [], "--old": [], "--write": []}, "--new or --old"),
    "search build": ({"--data": [], "--texts": []}, "--checkpoint"),
    "search query": ({"--file": [], "text": ""}, "a query is empty"),
    "study": ({"--run": ""}, "main/A/0"),
}  # fmt: skip


def merge_options(example, changes):
    """Return the options of an example with changes; options with an empty list are removed."""
    return {name: values for name, values in (EXAMPLES[example] | changes).items() if values != []}


@pytest.mark.parametrize("example", NOTHING_TO_DO)
def test_command_with_nothing_to_do_names_the_missing_argument(inputs, tmp_path, monkeypatch, capsys, example):
    changes, message = NOTHING_TO_DO[example]
    monkeypatch.setitem(EXAMPLES, example, merge_options(example, changes))
    monkeypatch.chdir(tmp_path)
    assert run_example(example, {}, inputs, tmp_path) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("example", "changes", "message"), [
    ("search query", {"--plus": " "}, "--plus"),
    ("eval", {"--device": " "}, "--device"),
    ("eval", {"--annotations": "IN/rows.tsv"}, "--annotations"),
    ("embed", {"--data": [], "--language": [], "--texts": "IN/words.txt", "--split": "test"}, "need --data"),
    ("embed unpaired", {"--caption-lines": None}, "--caption-lines need"),
    ("prepare", {"--seed": "7"}, "--seed goes with --parts"),
    ("prepare check", {"--text-id": ""}, "--text-id"),
    ("train", {"-o": "Data.holdout={group_by: ''}"}, "Data.holdout.group_by"),
    ("train", {"--processes": "99", "-o": "Training.global_batch=16"}, "--processes 99"),
    ("search query", {"--where": f"x={DEEP}"}, "1,000 characters"),
    ("search build", {"--recall": "5"}, "--recall: 5"),
    ("interpolate", {"--alpha": ["0", "0.3", "...", "1"]}, "--alpha 0 0.3 ... 1"),
    ("interpolate", {"--alpha": ["0", "1e-9", "...", "1"]}, "do not reach"),
    ("interpolate", {"others": ["IN/run", "IN/model"]}, "--alpha"),
    ("interpolate", {"--choose": "0.5"}, "--choose 0.5"),
    ("embed unpaired", {"--format": "official"}, "--format"),
    ("eval_classification", {"--templates": "zh=IN/templates.txt"}, "templates in zh"),
    *(("eval", {"--import": name}, f"--import: {name!r}") for name in ("", ".x")),
])  # fmt: skip
def test_meaningless_value_is_named(command, monkeypatch, capsys, example, changes, message):
    monkeypatch.setitem(EXAMPLES, example, merge_options(example, changes))
    assert command(example, {}) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and len(error) < 2100
