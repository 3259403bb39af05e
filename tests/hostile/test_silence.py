"""A command that does nothing says what is missing, and any two hostile values of its arguments give one clear line."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.command_examples import EXAMPLES, options, run

DEEP = "[" * 100_000
CHEAP = ("eval check", "interpolate", "search build", "search query", "study", "study results", "plan",
         "prepare check", "convert", "trim words", "eval embeddings")  # fmt: skip
HOSTILE = ["", " ", ".", ".x", "=", "a=", "nan", "1e400", "-1", "0", "5", "9" * 5000, "\udcff", "\x1b[2J", "{}",
           "x/y/z", "{a: 1, a: 2}", f"x={DEEP}", DEEP]  # fmt: skip
NOTHING = {
    "interpolate": ({"--new": [], "--old": [], "--write": []}, "--new or --old"),
    "search build": ({"--data": [], "--texts": []}, "--checkpoint"),
    "search query": ({"--file": [], "text": ""}, "a query is empty"),
    "study": ({"--run": ""}, "main/A/0"),
}  # fmt: skip


def without_empty(example, changes):
    """An option without values is left out."""
    return {name: values for name, values in (EXAMPLES[example] | changes).items() if values != []}


@pytest.mark.parametrize("example", NOTHING)
def test_nothing_to_do_says_what_is_missing(inputs, tmp_path, monkeypatch, capsys, example):
    changes, output = NOTHING[example]
    monkeypatch.setitem(EXAMPLES, example, without_empty(example, changes))
    monkeypatch.chdir(tmp_path)
    assert run(example, {}, inputs, tmp_path) == 2
    assert output in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("example", "changes", "output"), [
    ("search query", {"--plus": " "}, "--plus"),
    ("search query", {"--minus": ""}, "--minus"),
    ("search query", {"--device": ""}, "--device"),
    ("eval", {"--device": " "}, "--device"),
    ("eval", {"--annotations": "IN/rows.tsv"}, "--annotations"),
    ("embed", {"--data": [], "--language": [], "--texts": "IN/words.txt", "--split": "test"}, "are of --data"),
    ("search build", {"--data": [], "--texts": "IN/words.txt", "--encoding": "utf-8"}, "are of --data"),
    ("prepare", {"--group-by": ""}, "--group-by"),
    ("prepare", {"--seed": "7"}, "--seed goes with --parts"),
    ("prepare check", {"--text-id": ""}, "--text-id"),
    ("prepare check", {"--tags-id": "id"}, "--tags-id"),
    ("train", {"-o": "Data.holdout={group_by: ''}"}, "Data.holdout.group_by"),
    ("train", {"-o": "Training.device=''"}, "Training.device"),
    ("train", {"--processes": "99", "-o": "Training.global_batch=16"}, "--processes 99"),
    ("search query", {"--where": f"x={DEEP}"}, "1,000 characters"),
    ("search build", {"--recall": "5"}, "--recall: 5"),
    ("search build", {"--recall": "0"}, "--recall: 0"),
    ("plan", {"--step-seconds": "0"}, "--step-seconds: 0"),
    ("interpolate", {"--alpha": ["0", "0.3", "...", "1"]}, "--alpha 0 0.3 ... 1"),
    ("interpolate", {"--alpha": ["0", "1e-9", "...", "1"]}, "is not reached"),
    ("interpolate", {"--alpha": ["0", "...", "1"]}, "a row of shares"),
    ("interpolate", {"others": ["IN/run", "IN/model"]}, "--alpha"),
    ("interpolate", {"--choose": "0.5"}, "--choose 0.5"),
    ("embed unpaired", {"--format": "official"}, "--format"),
    ("embed unpaired", {"--data": "IN/val.tar"}, "--images"),
    ("eval_classification", {"--templates": "zh=IN/templates.txt"}, "templates in zh"),
    ("eval_classification", {"--names": "IN/names.txt"}, "LANG=FILE"),
    ("eval_classification", {"--split": "val"}, "no split val"),
    *(("eval", {"--import": name}, f"--import: {name!r}") for name in ("", ".x", "a b")),
])  # fmt: skip
def test_values_that_mean_nothing_are_explained(command, monkeypatch, capsys, example, changes, output):
    monkeypatch.setitem(EXAMPLES, example, without_empty(example, changes))
    assert command(example, {}) == 2
    error = capsys.readouterr().err
    assert output in error and error.count("\n") == 1 and len(error) < 2100


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_two_hostile_values_are_one_clear_line(command, tmp_path, capsys, data):
    """Codes 0, 1 and 2 alone; an error is one printable line; and what ends well has printed or written something."""
    example = data.draw(st.sampled_from(CHEAP))
    names = [name for name, action in options(example).items() if action.dest not in ("help", "action", "processes")]
    changed = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    changes = {name: data.draw(st.sampled_from(HOSTILE)) for name in changed}
    capsys.readouterr()
    code = command(example, changes, tmp_path / str(len(list(tmp_path.iterdir()))))
    output = capsys.readouterr()
    assert code in (0, 1, 2)
    if code == 2:
        assert output.err.startswith("error: ") and output.err.count("\n") == 1 and output.err[:-1].isprintable()
        assert len(output.err) < 2100
    else:
        assert output.out
