"""All commands share their help, one-line errors and exit codes."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.cli import COMMANDS, compare, make_parser, rewrite_commands, run
from ernie_vil2.cli.arguments import configuration
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.command_examples import EXAMPLES, list_options
from tests.support.page_commands import ROOT
from tests.support.processes import run_process


@pytest.mark.parametrize(("arguments", "culprit"), [
    ([], "train, eval-retrieval"),
    (["eval/retrieval", "--help"], "train, eval-retrieval"),
    (["plan"], "--ranks, --device"),
    (["search", "serve", "--index=i", "--port=99999"], "--port: 99999"),
    (["serve"], "MODEL"),
    (["serve", "no-model"], "no-model"),
    (["serve", "a=no-model", "a=no-model"], "a"),
    (["serve", "no-model", "--port=99999"], "--port: 99999"),
    (["serve", "no-model", "--workers=0"], "--workers: 0"),
    (["serve", "no-model", "--token-file=no-file"], "no-file"),
    (["serve", "/", "--host=0.0.0.0"], "--token-file"),
    (["serve", "a=/", "a=/"], "a: give them names"),
    (["tag", "file"], "INPUT"),
    (["train", "--extend"], "--extend goes with --resume"),
    (["train", "--processes=0"], "--processes: 0"),
    (["embed", "--processes=two"], "--processes: two"),
    (["tag", "lexicon", str(ROOT / "demo_data/emoji-test.tar"), "--checkpoint=/", "--output=o.jsonl",
      "--words", f"zh={ROOT / 'LICENSE'}", f"zh={ROOT / 'README.md'}"], "--words: zh"),
    (["eval-classification", "--checkpoint=/", "--data=/", "--names", f"en={ROOT / 'LICENSE'}",
      f"en={ROOT / 'README.md'}"], "--names: en"),
    (["serve", "/", "--token-file="], "--token-file: is empty"),
    (["embed", "--checkpoint=", "--data=/", "--output=o"], "--checkpoint: is empty"),
    (["prepare", "/", "--output="], "--output: is empty"),
    (["prepare", "", "--check"], "INPUT: is empty"),
    (["trim", "--keep=en", "--output="], "--output: is empty"),
    (["report", "--run=/", "--output="], "--output: is empty"),
    (["tag", "detector", "/", "--model=/", "--classes="], "--classes: "),
])  # fmt: skip
def test_misuse_prints_a_single_line(arguments, culprit, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ernie-vil2", *arguments])
    assert commands.main() == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert culprit in printed.err


def test_packaged_configuration_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = str(ROOT / "configs" / "demo" / "emoji.yaml")
    assert configuration("configs/demo/emoji.yaml") == configuration("demo/emoji.yaml") == packaged
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "emoji.yaml").touch()
    assert configuration("demo/emoji.yaml") == "demo/emoji.yaml"
    with pytest.raises(argparse.ArgumentTypeError, match="configs/demo/none.yaml"):
        configuration("configs/demo/none.yaml")


@pytest.mark.parametrize(("error", "line"), [
    (ValueError("first\n  second\n"), "first; second"),
    (ValueError("\x1b[2J\u202eabc 图"), "\\u001b[2J\\u202eabc 图"),
    (FileNotFoundError(2, "No such file or directory", b"\xff.yaml"), "\\udcff.yaml: No such file or directory"),
    (MemoryError(), "MemoryError"),
])  # fmt: skip
def test_error_is_a_single_printable_line(error, line):
    assert commands.format_error(error) == line


def test_fault_of_the_code_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("ernie_vil2.cli.doctor.run", lambda args: {}["missing"])
    with pytest.raises(KeyError):
        commands.run("doctor", [])


def test_interrupt_prints_a_line_and_exits_with_130(monkeypatch, capsys):
    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ernie_vil2.cli.doctor.run", stop)
    assert commands.run("doctor", []) == 130
    assert capsys.readouterr().err.startswith("\nstopped; ")


SCRIPT = """
import sys
from pathlib import Path
from ernie_vil2 import cli as commands
from ernie_vil2.cli import doctor
doctor.all_checks = lambda seconds: print("\\udcff 图") or []
sys.exit(commands.run("doctor", []))
"""


@pytest.mark.parametrize(
    ("stdout", "code", "printed"), [("/dev/full", 2, "No space left on device"), ("out.txt", 0, "")]
)
def test_full_standard_output_prints_a_single_line(tmp_path, stdout, code, printed):
    # Where it is not full, a name that is no text and Chinese on an ASCII output are written as escapes.
    path = tmp_path / stdout  # an absolute path stays as it is
    environment = {"PYTHONIOENCODING": "ascii"}
    with path.open("w") as file:
        child = run_process([sys.executable, "-c", SCRIPT], cwd=ROOT, stdout=file, stderr=subprocess.PIPE, text=True,
                            env=environment)  # fmt: skip
    assert child.returncode == code and printed in child.stderr and child.stderr.count("\n") == bool(printed)
    assert code or path.read_text() == "\\udcff \\u56fe\n"


def test_closed_outputs_are_no_fault(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    for redirections in (">&-", "2>&-", ">&- 2>&-"):
        assert run_process(["bash", "-c", f'"$@" {redirections}', "-", *command], cwd=ROOT).returncode == 0


def test_every_command_has_a_script_of_its_name():
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "tools").glob("*.py")}
    for outside_package in ("study", "gpu_day"):  # an experiment and a benchmark
        assert "run(command)" in scripts.pop(outside_package)
    started = {name: re.search(r'run\("(\w+)"\)', text)[1] for name, text in scripts.items()}
    assert started == {name: name for name in COMMANDS}


def test_commands_are_named_as_the_user_called_them():
    text = "ernie-vil2 eval, ernie-vil2 eval-retrieval --check; ernie-vil2 evaluates"
    assert rewrite_commands(text, None) == "tools/eval.py, tools/eval_retrieval.py --check; ernie-vil2 evaluates"
    text = "python tools/embed.py, tools/eval_retrieval.py, fleetrun tools/train.py, tools/study.py"
    expected = "ernie-vil2 embed, ernie-vil2 eval-retrieval, fleetrun tools/train.py, tools/study.py"
    assert rewrite_commands(text, "ernie-vil2 eval") == expected


def test_errors_help_and_doctor_name_commands_likewise(tmp_path, capsys):
    arguments = ["query", "--index", str(tmp_path / "none"), "a"]
    model = write_untrained_checkpoint(tmp_path / "model")
    for search, doctor, convert in (
        (None, None, "tools/convert.py"),
        ("ernie-vil2 search", "ernie-vil2 doctor", "ernie-vil2 convert"),
    ):
        assert run("search", arguments, search) == 2
        assert f"{search or 'tools/search.py'} build" in capsys.readouterr().err
        assert run("doctor", [str(model)], doctor) == 0
        assert f"{convert} writes one" in capsys.readouterr().out
    assert "python tools/search.py query" in make_parser("search", "search.py").format_help()


@pytest.mark.parametrize(("prog", "line"), [
    ("tools/train.py", "next: python tools/eval_retrieval.py --checkpoint 'my run' --data DATA"),
    ("ernie-vil2 train", "next: ernie-vil2 eval-retrieval --checkpoint 'my run' --data DATA"),
])  # fmt: skip
def test_next_command_is_written_as_this_one_was_called(prog, line, capsys):
    args = argparse.Namespace(prog=prog)
    commands.print_next_command(args, "eval_retrieval", "--checkpoint", Path("my run"), "--data", "DATA")
    assert capsys.readouterr().out == f"{line}\n"


def test_repeated_option_keeps_all_of_its_values(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    arguments = ["--embeddings", f"a={tmp_path / 'a'}", "--embeddings", f"b={tmp_path / 'b'}"]
    arguments += ["--data", str(tmp_path / "a"), "--data", str(tmp_path / "b"), "--language", "zh", "--language", "en"]
    args = parser.parse_args(arguments)
    assert [name for name, _ in args.embeddings] == ["a", "b"]
    assert args.data == [str(tmp_path / "a"), str(tmp_path / "b")] and args.language == ["zh", "en"]
    assert parser.parse_args([]).data == []  # the default is not what the options before were added to


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_option_of_several_values_may_be_repeated(example):
    for name, action in list_options(example).items():
        if action.option_strings and action.nargs in ("+", "*"):
            args = argparse.Namespace(**{action.dest: action.default})
            action(None, args, ["a", "b"])
            action(None, args, ["c"])
            assert vars(args)[action.dest] == ["a", "b", "c"], name
