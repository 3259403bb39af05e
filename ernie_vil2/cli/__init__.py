"""The command lines: `ernie-vil2 train`, or `python tools/train.py` in a checkout.

A command is a module, here or in an application: its docstring is the help, `add_arguments(parser)` declares its
options, `run(args)` does the work and returns the exit code. A bad argument, a file that cannot be used and a full
disk are one line on standard error and exit code 2; any other exception is a fault of the code, and its traceback is
shown.
"""

import argparse
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from types import ModuleType
from typing import Any, NoReturn

from ernie_vil2.device import runtime
from ernie_vil2.device.extras import EXTRAS, missing
from ernie_vil2.io.terminal import PrintableStream, RunError, printable
from ernie_vil2.registry import import_named

COMMANDS = {
    "train": "ernie_vil2.cli.train",
    "eval_retrieval": "ernie_vil2.cli.eval_retrieval",
    "eval": "ernie_vil2.cli.eval",
    "eval_classification": "ernie_vil2.cli.eval_classification",
    "calibrate": "ernie_vil2.cli.calibrate",
    "interpolate": "ernie_vil2.cli.interpolate",
    "compare": "ernie_vil2.cli.compare",
    "embed": "ernie_vil2.cli.embed",
    "search": "ernie_vil2.apps.search.command",
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
"""Module of each command, in the order of the help. Those of applications are named here and imported when called."""
EXPECTED = (RunError, OSError, ValueError, MemoryError, ImportError, argparse.ArgumentTypeError)
"""What input, machine and installation can cause; the last one by types of arguments that a command calls itself."""
LONGEST = 2000  # characters of an error that are shown; a name in it may be longer than a screen


class Parser(argparse.ArgumentParser):
    """Says what is wrong on one line, as `run` does for everything else."""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Refuse an option that is there and says nothing, as `--group-by ''` of an unset variable, for all commands.

        The code behind them would take it for an option that is not there. Options with a type, or that may be
        repeated, have messages of their own. The method is private, but argparse has no other place that sees a value
        with its option.
        """
        is_plain = action.option_strings and action.type is None
        if is_plain and isinstance(action, argparse._StoreAction) and not arg_string.strip():
            raise argparse.ArgumentError(action, "is empty; write a value, or leave the option out")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help lists the options)")

    def format_help(self) -> str:
        """As argparse's, with commands named as the user called this one."""
        return as_called(super().format_help(), self.prog)


def parser(command: str | ModuleType, prog: str | None = None) -> Parser:
    """The options of a command, see `run`."""
    module = _module(command)
    made = Parser(prog=prog, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.set_defaults(imports=(), allow_pipes=False, prog=prog)
    module.add_arguments(made)
    return made


def run(command: str | ModuleType, arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs a command and returns its exit code: 2 after an error that it explains, 130 after Ctrl-C.

    Args:
        command: one of `COMMANDS`, or a module that is a command as theirs are.
        arguments: None: those of this process.
        prog: what the help calls the command; None: the name of the script.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8, nor the terminal
    module = _module(command)
    with redirect_stdout(PrintableStream(sys.stdout)), redirect_stderr(PrintableStream(sys.stderr)):
        try:
            runtime.configure()
            args = parser(module, prog).parse_args(arguments)
            import_parts(args)
            code = _run_module(module, args)
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            print("\nstopped; the same command continues with what is finished", file=sys.stderr)
            return 130
        except EXPECTED as error:
            print(f"error: {as_called(explained(error), prog)}", file=sys.stderr)
            try:
                sys.stdout.flush()
            except OSError:  # it is what the error is about: Python would say so again at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 2


def _module(command: str | ModuleType) -> ModuleType:
    return importlib.import_module(COMMANDS[command]) if isinstance(command, str) else command


def _run_module(module: ModuleType, args: argparse.Namespace) -> int:
    if not args.allow_pipes:
        return module.run(args)

    from ernie_vil2.data.readers.locations import pipes_allowed

    with pipes_allowed():
        return module.run(args)


def import_parts(args: argparse.Namespace) -> None:
    """Imports what `--import` names and a `--layout` of the user's own, also in a process that a command starts."""
    for name in args.imports:
        importlib.import_module(name)
    import_named(filter(None, [getattr(args, "layout", None)]))


def explained(error: BaseException) -> str:
    """An error on one line; characters that a terminal would take for a command are shown as escapes."""
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        error = missing(error.name, "this command")
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    text = re.sub(r"\s*\n\s*", "; ", text.strip())
    return printable(text, longest=LONGEST)


def as_called(text: str, prog: str | None) -> str:
    """A text that names commands as the user called this one: `ernie-vil2 plan`, or `tools/plan.py` in a checkout."""
    if prog and prog.startswith("ernie-vil2"):
        scripts = r"(?<!fleetrun )(?:python )?tools/(" + "|".join(COMMANDS) + r")\.py"
        return re.sub(scripts, lambda script: f"ernie-vil2 {script[1].replace('_', '-')}", text)
    names = "ernie-vil2 (" + "|".join(name.replace("_", "-") for name in COMMANDS) + r")(?![\w-])"
    return re.sub(names, lambda found: f"tools/{found[1].replace('-', '_')}.py", text)


def main() -> int:
    """The console command `ernie-vil2 COMMAND ...`."""
    summaries = "\n".join(
        f"  {name.replace('_', '-'):<21}{str(_module(name).__doc__).splitlines()[0]}" for name in COMMANDS
    )
    names = [name.replace("_", "-") for name in COMMANDS]
    if len(sys.argv) > 1 and (command := sys.argv[1].replace("-", "_")) in COMMANDS:
        return run(command, sys.argv[2:], f"ernie-vil2 {sys.argv[1]}")
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(f"usage: ernie-vil2 COMMAND ...\n\n{summaries}\n\nernie-vil2 COMMAND --help has the rest.")
        return 0
    print(f"error: name one of the commands {', '.join(names)}; --help describes them", file=sys.stderr)
    return 2
