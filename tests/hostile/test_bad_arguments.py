"""Every argument of every command with unusable values: an error of one line that names the value, and exit code 2.

The arguments are read from the parsers, so that a new option is tried without a new line here. A new command needs an
example in `command_examples.EXAMPLES`. The usual run tries every argument with two of the bad values, which take turns;
`-m slow` tries the others.
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

HUGE = 1 << 40  # bytes of a sparse file, which takes no room on the disk
MEMORY = 2 << 30  # bytes that a command may allocate: it must not read a huge file whole
VALUES_IN_TURN = 2  # bad values of an argument in the usual run
FILES = {arguments.input_file, arguments.configuration, arguments.named_file, arguments.named_list,
         arguments.optional_file}  # fmt: skip
INPUTS = FILES | {arguments.input_folder, arguments.input_path, arguments.source, arguments.model,
                  arguments.run_folder, compare.labelled_model, compare.labelled_embeddings}  # fmt: skip
FOLDERS = {arguments.input_folder, compare.labelled_embeddings}
OUTPUTS = {arguments.output_file, arguments.output_folder, arguments.output_path}
NUMBERS = {arguments.count, arguments.whole_number, arguments.number, arguments.positive_number, arguments.fraction,
           arguments.port, arguments.threshold, arguments.share, arguments.non_negative_number,
           curate.parse_share}  # fmt: skip
BAD_NUMBERS = ["x", "-1", "0", "1.5", "nan", "1e999"]
NAMES = {None, str, arguments.file_name, arguments.module, arguments.option, arguments.columns}


def choose_examples(command, argument):
    """Return the examples of a command that have an argument, or else the first that could have it."""
    possible = [name for name in EXAMPLES if name.split()[0] == command and argument in list_options(name)]
    return [name for name in possible if argument in EXAMPLES[name]] or possible[:1]


def list_cases(kinds, values, is_possible=lambda kind, value: True):
    """Return parameters of examples, their arguments of some kinds, and bad values; most are marked as slow."""
    pairs = []
    for example in EXAMPLES:
        for argument, action in list_options(example).items():
            is_tried = action.type in kinds and not action.choices
            if is_tried and example in choose_examples(example.split()[0], argument):
                pairs.append((example, argument))

    parameters = []
    for turn, (example, argument) in enumerate(pairs):
        kind = list_options(example)[argument].type
        possible_values = [value for value in values if is_possible(kind, value)]
        # The values that come next belong to the usual run.
        usual = {(VALUES_IN_TURN * turn + number) % len(possible_values) for number in range(VALUES_IN_TURN)}
        for position, value in enumerate(possible_values):
            identifier = ascii(f"{example} {argument} {value}"[:80])
            marks = () if position in usual else pytest.mark.slow
            parameters.append(pytest.param(example, argument, value, id=identifier, marks=marks))
    return parameters


def test_every_argument_of_every_command_is_tried():
    # A server does not end by itself; tests/commands/test_commands.py tries its arguments.
    assert {example.split()[0] for example in EXAMPLES} == {*commands.COMMANDS, "study"} - {"doctor", "serve"}
    kinds = INPUTS | OUTPUTS | NUMBERS | NAMES
    for example in EXAMPLES:
        assert all(action.type in kinds for action in list_options(example).values()), example


@pytest.fixture
def run(command, tmp_path, capsys):
    """Return `run(example, changes)`, which returns exit code and standard error, and checks that errors leave no file.

    A command has to end in time, and within `MEMORY`.
    """

    def run(example, changes):
        old_times = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
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
            changed = [path for path in tmp_path.rglob("*") if path.lstat().st_mtime_ns != old_times.get(path)]
            assert not [path for path in changed if path.is_file() and not RESUMABLE_FILES.search(str(path))]
        return code, error

    return run


def format_path(kind, path):
    """Return the value of an argument of a kind that stands for a path."""
    kinds_with_name = (arguments.named_file, arguments.named_list, arguments.optional_file, compare.labelled_embeddings)
    return f"en={path}" if kind in kinds_with_name else os.fspath(path)


def file_suffix(example, argument):
    """Return the suffix of the file that an example has for an argument, or nothing if it has several files."""
    value = EXAMPLES[example].get(argument, "")
    return Path(value).suffix if isinstance(value, str) else ""


def write_sparse_file(path):
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
    "huge": write_sparse_file,
    "reading fails": lambda path: path.symlink_to("/proc/self/mem"),
}
FOR_FILES = {"a folder for a file", "huge", "reading fails"}  # conditions that only files have
FOR_FOLDERS = {"a file for a folder"}


def is_unreadable(kind, condition):
    return not ((condition in FOR_FILES and kind in FOLDERS) or (condition in FOR_FOLDERS and kind in FILES))


@pytest.mark.parametrize(("example", "argument", "condition"), list_cases(INPUTS, UNREADABLE, is_unreadable))
def test_unreadable_path_is_named(run, tmp_path, example, argument, condition):
    kind = list_options(example)[argument].type
    path = tmp_path / (condition + file_suffix(example, argument))
    UNREADABLE[condition](path)
    code, error = run(example, {argument: format_path(kind, path)})
    if kind is arguments.source and condition in ("huge", "a file for a folder") and code != 2:
        return  # a shard of zeros is a bad sample, an empty text has no lines
    assert code == 2 and str(tmp_path) in error and condition[:8] in error


CONTENTS = {
    "empty": b"",
    "binary": bytes(random.Random(0).randbytes(3000)),  # noqa: S311  -- no secret
    "zeros": bytes(3000),
    "GBK": "图片\t标签\n\n".encode("gbk") * 100,
    "nested": b"[" * 100_000,
    "one value": b"7\n",
}


def is_wrong_content(kind, content):
    return not (kind is arguments.configuration and content == "empty")  # an empty file is the default configuration


@pytest.mark.parametrize(("example", "argument", "content"), list_cases(INPUTS - FOLDERS, CONTENTS, is_wrong_content))
def test_file_of_wrong_content_is_named(run, tmp_path, example, argument, content):
    kind = list_options(example)[argument].type
    path = tmp_path / f"other-file{file_suffix(example, argument)}"
    path.write_bytes(CONTENTS[content])
    code, error = run(example, {argument: format_path(kind, path)})
    if content in ("binary", "GBK") and kind is not arguments.source:
        assert code == 2 and "other-file" in error


FOLDER_KINDS = {arguments.input_folder, arguments.run_folder, arguments.model}


@pytest.mark.parametrize(("example", "argument", "content"), list_cases(FOLDER_KINDS, [None, *CONTENTS]))
def test_folder_of_wrong_content_is_named(run, inputs, tmp_path, example, argument, content):
    valid_folder = Path(EXAMPLES[example].get(argument, "none").replace("IN", str(inputs)))
    if not valid_folder.is_dir():
        pytest.skip("no example of such a folder")
    if content is None:
        (tmp_path / "folderNone").mkdir()
        code, error = run(example, {argument: str(tmp_path / "folderNone")})
        assert code == 2 and str(tmp_path / "folderNone") in error, (code, error)
        return

    # Each file of a valid folder is replaced in turn; some files are not read by every command.
    for file in [path for path in valid_folder.rglob("*") if path.is_file()]:
        folder = tmp_path / f"folder{file.name}"
        folder.mkdir()
        shutil.copytree(valid_folder, folder, dirs_exist_ok=True)
        (folder / file.relative_to(valid_folder)).write_bytes(CONTENTS[content])
        code, error = run(example, {argument: str(folder)})
        assert code == 0 or (code == 2 and str(folder) in error), (file, code, error)


UNWRITABLE = {
    "missing/x": lambda path: None,
    "below a file/x": lambda path: path.parent.touch(),
    "link to itself": lambda path: path.symlink_to(path),
    "too long a name" + 300 * "x": lambda path: None,
    "a folder for a file": Path.mkdir,
    "a file for a folder": Path.touch,
    "/proc/x": lambda path: None,
}


def is_unwritable(kind, condition):
    if kind is arguments.output_folder:  # missing folders are created
        return condition not in ("a folder for a file", "missing/x")
    if kind is arguments.output_path:  # another argument decides whether it is a file or a folder
        return condition not in ("a folder for a file", "a file for a folder", "missing/x")
    return condition != "a file for a folder"  # an existing file is replaced, or refused by its content


@pytest.mark.parametrize(("example", "argument", "condition"), list_cases(OUTPUTS, UNWRITABLE, is_unwritable))
def test_unwritable_path_is_named(run, tmp_path, example, argument, condition):
    path = tmp_path / (condition + file_suffix(example, argument))
    UNWRITABLE[condition](path)
    code, error = run(example, {argument: str(path)})
    assert code == 2 and str(path.parent) in error and condition[:8] in error


@pytest.mark.parametrize(("example", "argument", "number"), list_cases(NUMBERS, BAD_NUMBERS))
def test_number_out_of_range_is_named(run, example, argument, number):
    num_values = list_options(example)[argument].nargs
    code, error = run(example, {argument: [number] * num_values if isinstance(num_values, int) else number})
    assert code in (0, 2) and (code == 2 or number not in ("x", "nan"))
    assert code == 0 or argument.strip("-") in error or number in error


BAD_TEXTS = ["", "\udcff", "a/b", "x" * 3000, "\x1b[2J", "%s {}", "=1"]


@pytest.mark.parametrize(("example", "argument", "text"), list_cases(NAMES, BAD_TEXTS))
def test_any_text_is_accepted_or_an_error_of_one_line(run, example, argument, text):
    assert run(example, {argument: text})[0] in (0, 1, 2)
