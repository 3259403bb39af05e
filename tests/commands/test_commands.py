"""What all command lines share: help, one line an error, and exit codes."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.cli.arguments import configuration
from tests.support.processes import run_process

ROOT = Path(__file__).parents[2]


def test_every_module_is_a_command_and_every_command_has_a_tool():
    modules = {name for path in Path(commands.__path__[0]).glob("*.py") if (name := path.stem) != "__init__"
               and hasattr(importlib.import_module(f"ernie_vil2.cli.{name}"), "add_arguments")}  # fmt: skip
    assert modules == set(commands.COMMANDS)
    started = {name for path in ROOT.glob("tools/*.py") for name in commands.COMMANDS if f'run("{name}")' in
               path.read_text()}  # fmt: skip
    others = {path.stem for path in ROOT.glob("tools/*.py") if "from experiments" in path.read_text()}
    assert started == set(commands.COMMANDS) and others == {"study"}
    assert {f"{name}.py" for name in started | others} <= {path.name for path in ROOT.glob("tools/*.py")}


@pytest.mark.parametrize(("arguments", "expected"), [
    ([], "error: name one of the commands train, eval-retrieval, "),
    (["trian"], "error: name one of the commands train, eval-retrieval, "),
    (["plan"], "error: the following arguments are required: --ranks, --device (--help lists the options)"),
    (["plan", "--ranks", "a", "--device", "cpu"], "error: argument --ranks: a is not a whole number from 1 to"),
    (["search", "serve", "--index=i", "--port=99999"],
     "error: argument --port: 99999 is not a port; they end at 65535"),
    (["tag", "file"], "error: the following arguments are required: INPUT"),
    (["train", "--extend"], "error: --extend goes with --resume"),
    *((arguments, f"error: argument --processes: {count} is not a whole number from 1")
      for count in ("0", "-1", "two", "1.5")
      for arguments in (["train", f"--processes={count}"], ["eval", f"--processes={count}"],
                        ["embed", f"--processes={count}"], ["prepare", f"--processes={count}"])),
])  # fmt: skip
def test_misuse_is_one_line(arguments, expected, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ernie-vil2", *arguments])
    assert commands.main() == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(expected) and printed.err.count("\n") == 1


def test_the_help_names_every_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ernie-vil2", "--help"])
    assert commands.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].replace("-", "_") for line in lines if line.startswith("  ")] == list(commands.COMMANDS)
    monkeypatch.setattr(sys, "argv", ["ernie-vil2", "eval-classification", "--help"])
    with pytest.raises(SystemExit):
        commands.main()
    assert "usage: ernie-vil2 eval-classification " in capsys.readouterr().out


def test_a_configuration_that_comes_with_the_package_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = str(ROOT / "configs" / "demo" / "emoji.yaml")
    assert configuration("configs/demo/emoji.yaml") == configuration("demo/emoji.yaml") == packaged
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "emoji.yaml").touch()
    assert configuration("demo/emoji.yaml") == "demo/emoji.yaml"
    with pytest.raises(argparse.ArgumentTypeError, match="configs/demo/none.yaml: No such file"):
        configuration("configs/demo/none.yaml")


@pytest.mark.parametrize(("error", "line"), [
    (ValueError("first\n  second\n"), "first; second"),
    (ValueError("\x1b[2J\u202eabc 图"), "\\u001b[2J\\u202eabc 图"),
    (FileNotFoundError(2, "No such file or directory", "a.yaml"), "a.yaml: No such file or directory"),
    (FileNotFoundError(2, "No such file or directory", b"\xff.yaml"), "\\udcff.yaml: No such file or directory"),
    (OSError("what"), "what"),
    (MemoryError(), "MemoryError"),
])  # fmt: skip
def test_an_error_is_one_printable_line(error, line):
    assert commands.explained(error) == line


def test_a_fault_of_the_code_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("ernie_vil2.cli.doctor.run", lambda args: {}["missing"])
    with pytest.raises(KeyError):
        commands.run("doctor", [])


def test_ctrl_c_is_one_line_and_130(monkeypatch, capsys):
    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ernie_vil2.cli.doctor.run", stop)
    assert commands.run("doctor", []) == 130
    assert capsys.readouterr().err.startswith("\nstopped; ")


SCRIPT = """
import sys
from ernie_vil2 import cli as commands
from ernie_vil2.cli import doctor
doctor.all_checks = lambda seconds: print("\\udcff 图") or []
sys.exit(commands.run("doctor", []))
"""


@pytest.mark.parametrize(
    ("stdout", "code", "printed"), [("/dev/full", 2, "No space left on device"), ("/dev/null", 0, "")]
)
def test_a_standard_output_that_is_full_is_one_line(stdout, code, printed):
    with Path(stdout).open("w") as file:
        child = run_process([sys.executable, "-c", SCRIPT], cwd=ROOT, stdout=file, stderr=subprocess.PIPE, text=True)
    assert child.returncode == code and printed in child.stderr and child.stderr.count("\n") == bool(printed)


def test_a_name_that_is_not_a_text_can_be_printed():
    child = run_process([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True,
                           env={"PYTHONIOENCODING": "ascii"})  # fmt: skip
    assert child.returncode == 0 and child.stdout == "\\udcff \\u56fe\n", child.stderr
