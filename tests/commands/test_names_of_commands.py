"""A command has one name, in `tools/` and in the wheel; messages and help name it as the user called it."""

import re

import pytest

from ernie_vil2.cli import COMMANDS, as_called, main, parser, run
from tests.support.checkpoints import untrained_checkpoint
from tests.training.conftest import ROOT


def test_every_command_has_one_script_of_its_name():
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "tools").glob("*.py")}
    assert "run(command)" in scripts.pop("study")  # an experiment, outside the package
    started = {name: re.search(r'run\("(\w+)"\)', text)[1] for name, text in scripts.items()}
    assert started == {name: name for name in COMMANDS}


def test_commands_are_named_as_the_user_called_this_one():
    text = "ernie-vil2 eval, ernie-vil2 eval-classification --check, ernie-vil2 eval-retrieval; ernie-vil2 evaluates"
    assert as_called(text, None) == (
        "tools/eval.py, tools/eval_classification.py --check, tools/eval_retrieval.py; ernie-vil2 evaluates"
    )
    text = "python tools/embed.py, tools/eval_retrieval.py, fleetrun tools/train.py, tools/study.py"
    assert as_called(text, "ernie-vil2 eval") == (
        "ernie-vil2 embed, ernie-vil2 eval-retrieval, fleetrun tools/train.py, tools/study.py"
    )


@pytest.mark.parametrize("name", ["trian", "evaluation", "arguments", "eval/retrieval"])
def test_an_unknown_command_is_refused(monkeypatch, capsys, name):
    monkeypatch.setattr("sys.argv", ["ernie-vil2", name, "--help"])
    assert main() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "train, eval-retrieval, eval, " in error


def test_errors_and_help_do_so(tmp_path, capsys):
    arguments = ["query", "--index", str(tmp_path / "none"), "a"]
    assert run("search", arguments) == 2 and "build one with tools/search.py build" in capsys.readouterr().err
    assert run("search", arguments, "ernie-vil2 search") == 2
    assert "build one with ernie-vil2 search build" in capsys.readouterr().err
    assert "python tools/search.py query" in parser("search", "search.py").format_help()
    assert "    ernie-vil2 search query" in parser("search", "ernie-vil2 search").format_help()


def test_the_doctor_does_so(tmp_path, capsys):
    model = untrained_checkpoint(tmp_path / "model")
    for prog, command in ((None, "tools/convert.py"), ("ernie-vil2 doctor", "ernie-vil2 convert")):
        assert run("doctor", [str(model)], prog) == 0
        assert f"{command} writes one" in capsys.readouterr().out
