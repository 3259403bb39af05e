"""The command lines: `ernie-vil2 train`, or `python tools/train.py` in a checkout.

A command is a module or a class, in this package or in an application. Its docstring is the help text,
`add_arguments(parser)` declares its options, and `run(args)` does the work and returns the exit code. A bad argument,
an unusable file and a full disk are reported on one line of standard error, with exit code 2. Any other exception is a
bug, and its traceback is shown.
"""

import argparse
import importlib
import inspect
import io
import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from ernie_vil2.device import runtime
from ernie_vil2.device.extras import EXTRAS, missing_package_error
from ernie_vil2.io.terminal import EscapingStream, RunError, make_printable, print_error
from ernie_vil2.registry import import_user_modules

# Module, or module and class, of each command, in the order of the help. Commands of applications are listed here and
# imported when they are called.
COMMANDS = {
    "train": "ernie_vil2.cli.train",
    "eval_retrieval": "ernie_vil2.cli.eval:EvalRetrieval",
    "eval": "ernie_vil2.cli.eval:Eval",
    "eval_classification": "ernie_vil2.cli.eval:EvalClassification",
    "calibrate": "ernie_vil2.cli.calibrate",
    "interpolate": "ernie_vil2.cli.interpolate",
    "compare": "ernie_vil2.cli.compare",
    "embed": "ernie_vil2.cli.embed",
    "search": "ernie_vil2.apps.search.command",
    "serve": "ernie_vil2.apps.serving.command",
    "report": "ernie_vil2.cli.report",
    "plan": "ernie_vil2.cli.plan",
    "curate": "ernie_vil2.apps.curation.command",
    "prepare": "ernie_vil2.cli.prepare",
    "tag": "ernie_vil2.apps.tagging.command",
    "convert": "ernie_vil2.cli.convert",
    "export": "ernie_vil2.cli.export",
    "trim": "ernie_vil2.cli.trim",
    "doctor": "ernie_vil2.cli.doctor",
}
Command = str | ModuleType | type  # a name in COMMANDS, or the module or class itself
# Errors that input, machine or installation can cause. ArgumentTypeError: commands also call the types of arguments
# themselves.
EXPECTED_ERRORS = (RunError, OSError, ValueError, MemoryError, ImportError, argparse.ArgumentTypeError)
MAX_ERROR_LENGTH = 2000  # characters; about one screen, as a file name in an error may be of any length


class Parser(argparse.ArgumentParser):
    """Argument parser that raises its errors, so that `run` reports them like all others."""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Refuse an empty value, such as `--group-by ''` from an unset variable.

        The commands would treat it like an option that is absent. Options with a type, or that may be repeated, report
        empty values themselves. The method is private, but argparse has no other hook that sees a value with its option
        (Python 3.11 to 3.13).
        """
        is_plain = action.option_strings and action.type is None
        if is_plain and isinstance(action, argparse._StoreAction) and not arg_string.strip():
            raise argparse.ArgumentError(action, "is empty; write a value, or leave the option out")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help lists the options)")

    def format_help(self) -> str:
        return rewrite_commands(super().format_help(), self.prog)


def make_parser(command: Command, prog: str | None = None) -> Parser:
    """Return the parser for the options of a command; arguments are as in `run`."""
    implementation = _load_command(command)
    parser = Parser(
        prog=prog,
        description=inspect.getdoc(implementation),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(imports=(), allow_pipes=False, prog=prog)
    implementation.add_arguments(parser)
    return parser


def run(command: Command, arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run a command and return its exit code: 2 after an expected error, 130 after Ctrl-C.

    Args:
        command: a name in `COMMANDS`, or a module or class that implements a command.
        arguments: the arguments of the command line; None: those of this process.
        prog: how the help names the command; None: the name of the script.
    """
    # Python has None for an output that the caller has closed, as `command >&-` does.
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be UTF-8, and neither need the terminal.
        sys.stdout.reconfigure(errors="backslashreplace")
    implementation = _load_command(command)
    with redirect_stdout(EscapingStream(sys.stdout)), redirect_stderr(EscapingStream(sys.stderr)):
        try:
            runtime.configure()  # before a command imports Paddle
            args = make_parser(implementation, prog).parse_args(arguments)
            import_modules(args)
            code = _run_command(implementation, args)
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            print("\nstopped; run the same command again to continue", file=sys.stderr)
            return 130
        except EXPECTED_ERRORS as error:
            print_error(rewrite_commands(format_error(error), prog))
            try:
                sys.stdout.flush()
            except OSError:
                # Standard output itself has failed, which the line above says; without this, Python would repeat it
                # with a traceback at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 2


def _load_command(command: Command) -> Any:
    if not isinstance(command, str):
        return command
    module, _, class_name = COMMANDS[command].partition(":")
    implementation = importlib.import_module(module)
    return getattr(implementation, class_name) if class_name else implementation


def _run_command(implementation: Any, args: argparse.Namespace) -> int:
    if not args.allow_pipes:
        return implementation.run(args)

    from ernie_vil2.data.readers.locations import pipes_allowed

    with pipes_allowed():
        return implementation.run(args)


def import_modules(args: argparse.Namespace) -> None:
    """Import the modules of `--import` and of a user-defined `--layout`; processes that a command starts do so too."""
    for name in args.imports:
        importlib.import_module(name)
    layout = getattr(args, "layout", None)
    if layout:
        import_user_modules([layout])


def format_error(error: BaseException) -> str:
    """Return an error on one line, with escapes for the characters that control a terminal."""
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        error = missing_package_error(error.name, "this command")
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    text = re.sub(r"\s*\n\s*", "; ", text.strip())
    return make_printable(text, max_length=MAX_ERROR_LENGTH)


def rewrite_commands(text: str, prog: str | None) -> str:
    """Return a text with commands written as the user called this one: `ernie-vil2 plan` or `tools/plan.py`."""
    if prog and prog.startswith("ernie-vil2"):
        # fleetrun starts a script, so it keeps the path.
        scripts = r"(?<!fleetrun )(?:python )?tools/(" + "|".join(COMMANDS) + r")\.py"
        return re.sub(scripts, lambda match: f"ernie-vil2 {_console_name(match[1])}", text)
    names = "ernie-vil2 (" + "|".join(map(_console_name, COMMANDS)) + r")(?![\w-])"
    return re.sub(names, lambda match: f"tools/{match[1].replace('-', '_')}.py", text)


def print_next_command(args: argparse.Namespace, command: str, *words: str | Path) -> None:
    """Print the command that people usually run after this one.

    Args:
        args: values of the options, which know how the user has called this command.
        command: name in `COMMANDS`.
        words: its arguments; a word in capitals stands for what the user has to name.
    """
    line = shlex.join(["python", f"tools/{command}.py", *map(str, words)])
    print(f"next: {rewrite_commands(line, args.prog)}")


def _console_name(command: str) -> str:
    return command.replace("_", "-")


def main() -> int:
    """Run the console command `ernie-vil2 COMMAND ...`."""
    arguments = sys.argv[1:]
    # The name may be written with a hyphen or an underscore.
    if arguments and (command := arguments[0].replace("-", "_")) in COMMANDS:
        return run(command, arguments[1:], f"ernie-vil2 {arguments[0]}")

    if arguments in (["-h"], ["--help"]):
        print("usage: ernie-vil2 COMMAND ...\n")
        for name in COMMANDS:
            summary = str(inspect.getdoc(_load_command(name))).splitlines()[0]
            print(f"  {_console_name(name):<21}{summary}")
        print("\nernie-vil2 COMMAND --help describes a command.")
        return 0
    print_error(f"name one of the commands {', '.join(map(_console_name, COMMANDS))}; --help describes them")
    return 2
