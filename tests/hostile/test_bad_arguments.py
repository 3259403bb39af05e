"""Every argument of every command with what cannot be used: an error of one line that names it, and exit code 2.

The arguments are those of the parsers, so that a new option is tried without a new line here; a new command needs an
example in `command_examples.EXAMPLES`. The usual run tries each argument with a few bad values, which take turns, and
`-m slow` the other combinations.
"""

import os
import random
import resource
import shutil
from pathlib import Path

import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.apps.curation import command as curate
from ernie_vil2.cli import arguments, compare
from tests.hostile.bad_input.case import bounded_time
from tests.support.command_examples import EXAMPLES, RESUMABLE_FILES, list_options
from tests.support.limits import PATIENCE

HUGE = 1 << 40  # bytes, of which none are on the disk
MEMORY = 2 << 30
VALUES_IN_TURN = 2
FILES = {arguments.input_file, arguments.configuration, arguments.named_file, arguments.named_list,
         arguments.optional_file}  # fmt: skip
INPUTS = FILES | {arguments.input_folder, arguments.input_path, arguments.source, arguments.model,
                  arguments.run_folder, compare.labelled_model, compare.labelled_folder}  # fmt: skip
FOLDERS = {arguments.input_folder, compare.labelled_folder}
OUTPUTS = {arguments.output_file, arguments.output_folder, arguments.output_path}
NUMBERS = {arguments.count, arguments.natural, arguments.number, arguments.amount, arguments.fraction,
           arguments.port, arguments.threshold, arguments.share, curate.parse_share}  # fmt: skip
BAD_NUMBERS = ["x", "-1", "0", "1.5", "nan", "1e999"]
NAMES = {None, str, arguments.file_name, arguments.module, arguments.option, arguments.columns}


def tried_in(example, argument):
    """The examples of the same command that give an argument, or the first of those that can take it."""
    alike = [other for other in EXAMPLES if other.split()[0] == example.split()[0] and argument in list_options(other)]
    return [other for other in alike if argument in EXAMPLES[other]] or alike[:1]


def cases(kinds, bad, possible=lambda kind, what: True):
    """List examples, arguments and bad values; of an argument's values all but the next ones in turn are slow."""
    pairs = [
        (example, argument)
        for example in EXAMPLES
        for argument, action in list_options(example).items()
        if action.type in kinds and not action.choices and example in tried_in(example, argument)
    ]
    parameters = []
    for turn, (example, argument) in enumerate(pairs):
        values = [what for what in bad if possible(list_options(example)[argument].type, what)]
        usual = {(VALUES_IN_TURN * turn + number) % len(values) for number in range(VALUES_IN_TURN)}
        for position, what in enumerate(values):
            identifier = ascii(f"{example} {argument} {what}"[:80])
            marks = () if position in usual else pytest.mark.slow
            parameters.append(pytest.param(example, argument, what, id=identifier, marks=marks))
    return parameters


def test_every_argument_of_every_command_is_tried():
    assert {example.split()[0] for example in EXAMPLES} == {*commands.COMMANDS, "study"} - {"doctor"}
    known = INPUTS | OUTPUTS | NUMBERS | NAMES
    assert all(action.type in known for example in EXAMPLES for action in list_options(example).values())


@pytest.fixture
def run(command, tmp_path, capsys):
    """`run(example, changes)`: exit code and standard error; it must end, and an error leaves nothing behind."""

    def run(example, changes):
        before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
        capsys.readouterr()
        memory = resource.getrlimit(resource.RLIMIT_AS)
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, memory[1]))
        try:
            with bounded_time(PATIENCE):
                code = command(example, changes)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, memory)
        error = capsys.readouterr().err
        if code == 2:
            assert error.startswith("error: ") and error.count("\n") == 1 and error[:-1].isprintable(), error
            changed = [path for path in tmp_path.rglob("*") if path.lstat().st_mtime_ns != before.get(path)]
            assert not [path for path in changed if path.is_file() and not RESUMABLE_FILES.search(str(path))]
        return code, error

    return run


def value(kind, path):
    named = (arguments.named_file, arguments.named_list, arguments.optional_file, compare.labelled_folder)
    return f"en={path}" if kind in named else os.fspath(path)


def suffix(example, argument):
    """Of the file that an example gives; none where it gives several."""
    given = EXAMPLES[example].get(argument, "")
    return Path(given).suffix if isinstance(given, str) else ""


def sparse(path):
    with path.open("wb") as file:
        file.truncate(HUGE)


UNREADABLE = {
    "missing": lambda path: None,
    "not UTF-8 \udcff": lambda path: None,
    "too long a name" + 300 * "x": lambda path: None,
    "link to itself": lambda path: path.symlink_to(path),
    "below a file/x": lambda path: path.parent.touch(),
    "a folder for a file": Path.mkdir,
    "a file for a folder": Path.touch,
    "huge": sparse,
    "reading fails": lambda path: path.symlink_to("/proc/self/mem"),
}
FOR_FILES = {"a folder for a file", "huge", "reading fails"}
FOR_FOLDERS = {"a file for a folder"}


def is_unreadable(kind, what):
    return not ((what in FOR_FILES and kind in FOLDERS) or (what in FOR_FOLDERS and kind in FILES))


@pytest.mark.parametrize(("example", "argument", "what"), cases(INPUTS, UNREADABLE, is_unreadable))
def test_what_cannot_be_read(run, tmp_path, example, argument, what):
    kind = list_options(example)[argument].type
    path = tmp_path / (what + suffix(example, argument))
    UNREADABLE[what](path)
    code, error = run(example, {argument: value(kind, path)})
    if kind is arguments.source and what in ("huge", "a file for a folder") and code != 2:
        return  # a shard of zeros is a bad sample, an empty text has no lines
    assert code == 2 and str(tmp_path) in error and what[:8] in error


CONTENTS = {
    "empty": b"",
    "binary": bytes(random.Random(0).randbytes(3000)),  # noqa: S311  -- no secret
    "zeros": bytes(3000),
    "GBK": "图片\t标签\n\n".encode("gbk") * 100,
    "nested": b"[" * 100_000,
    "one value": b"7\n",
}


def is_something_else(kind, what):
    return not (kind is arguments.configuration and what == "empty")  # that is the default one


@pytest.mark.parametrize(("example", "argument", "what"), cases(INPUTS - FOLDERS, CONTENTS, is_something_else))
def test_what_holds_something_else(run, tmp_path, example, argument, what):
    kind = list_options(example)[argument].type
    path = tmp_path / f"other-file{suffix(example, argument)}"
    path.write_bytes(CONTENTS[what])
    code, error = run(example, {argument: value(kind, path)})
    if what in ("binary", "GBK") and kind is not arguments.source:
        assert code == 2 and "other-file" in error


@pytest.mark.parametrize(
    ("example", "argument", "what"),
    cases({arguments.input_folder, arguments.run_folder, arguments.model}, [None, *CONTENTS]),
)
def test_a_folder_that_holds_something_else(run, inputs, tmp_path, example, argument, what):
    """Every file of the right folder is replaced in its turn; None: the folder is empty."""
    right = Path(EXAMPLES[example].get(argument, "none").replace("IN", str(inputs)))
    if not right.is_dir():
        pytest.skip("no example of such a folder")
    for file in [path for path in right.rglob("*") if path.is_file()] if what else [None]:
        folder = tmp_path / f"folder{file and file.name}"
        folder.mkdir()
        if file:
            shutil.copytree(right, folder, dirs_exist_ok=True)
            (folder / file.relative_to(right)).write_bytes(CONTENTS[what])
        code, error = run(example, {argument: str(folder)})
        assert (code == 0 and what) or (code == 2 and str(folder) in error), (file, code, error)


UNWRITABLE = {
    "missing/x": lambda path: None,
    "below a file/x": lambda path: path.parent.touch(),
    "link to itself": lambda path: path.symlink_to(path),
    "too long a name" + 300 * "x": lambda path: None,
    "a folder for a file": Path.mkdir,
    "a file for a folder": Path.touch,
    "/proc/x": lambda path: None,
}


def is_unwritable(kind, what):
    if kind is arguments.output_folder:  # which is made
        return what not in ("a folder for a file", "missing/x")
    if kind is arguments.output_path:  # whether it is a file or a folder is seen by another argument
        return what not in ("a folder for a file", "a file for a folder", "missing/x")
    return what != "a file for a folder"  # it is replaced, or refused by what lies in it


@pytest.mark.parametrize(("example", "argument", "what"), cases(OUTPUTS, UNWRITABLE, is_unwritable))
def test_what_cannot_be_written(run, tmp_path, example, argument, what):
    path = tmp_path / (what + suffix(example, argument))
    UNWRITABLE[what](path)
    code, error = run(example, {argument: str(path)})
    assert code == 2 and str(path.parent) in error and what[:8] in error


@pytest.mark.parametrize(("example", "argument", "given"), cases(NUMBERS, BAD_NUMBERS))
def test_numbers_out_of_range(run, example, argument, given):
    times = list_options(example)[argument].nargs
    code, error = run(example, {argument: [given] * times if isinstance(times, int) else given})
    assert code in (0, 2) and (code == 2 or given not in ("x", "nan"))
    assert code == 0 or argument.strip("-") in error or given in error


@pytest.mark.parametrize(("example", "argument", "given"),
                         cases(NAMES, ["", "\udcff", "a/b", "x" * 3000, "\x1b[2J", "%s {}", "=1"]))  # fmt: skip
def test_any_text(run, example, argument, given):
    assert run(example, {argument: given})[0] in (0, 1, 2)
