"""A command has one name, in `tools/` and in the wheel; messages and help name it as the user called it."""

import re

from ernie_vil2.cli import COMMANDS, as_called, parser, run
from tests.support.checkpoints import untrained_checkpoint
from tests.support.page_commands import ROOT


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


def test_errors_help_and_the_doctor_do_so(tmp_path, capsys):
    arguments = ["query", "--index", str(tmp_path / "none"), "a"]
    model = untrained_checkpoint(tmp_path / "model")
    for prefix, called in (("tools/{}.py", None), ("ernie-vil2 {}", "ernie-vil2 {}")):
        assert run("search", arguments, called and called.format("search")) == 2
        assert f"{prefix.format('search')} build" in capsys.readouterr().err
        assert run("doctor", [str(model)], called and called.format("doctor")) == 0
        assert f"{prefix.format('convert')} writes one" in capsys.readouterr().out
    assert "python tools/search.py query" in parser("search", "search.py").format_help()
    assert "    ernie-vil2 search query" in parser("search", "ernie-vil2 search").format_help()
