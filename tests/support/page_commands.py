"""What is in the blocks of the pages, and how it is run."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from ernie_vil2 import cli as commands
from experiments.ablation import command as study
from tests.support.processes import run_process

ROOT = Path(__file__).parents[2]
PAGES = {
    path.name: path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/notes").glob("*.md")))
}
TOOLS = {
    path.name: found[1] for path in sorted((ROOT / "tools").glob("*.py"))
    if (found := re.search(r'run\("(\w+)"\)', path.read_text()))
} | {"study.py": study}  # fmt: skip
"""By the name of a tool what `commands.run` takes."""
PROMPT = r"^\$ (?:.*\\\n)*.*"
NEEDS_A_PROCESS = re.compile(r"&&|[|;<>`\n]|\$[({\w?!]|--processes")


def blocks(page):
    """(language, text) of each block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def parts(page):
    """("shell", command), ("python", code), ("yaml", text) and ("", output or tree of files), in the page's order."""
    for language, text in blocks(page):
        if re.match(r"\$ ", text):
            prompted = "\n".join(line.removeprefix("$ ") for line in re.findall(PROMPT, text, re.M))
            yield from (("shell", command) for command in shell_commands(prompted))
            yield "", re.sub(PROMPT + r"\n", "", text, flags=re.M)
        elif language == "bash" or text.startswith("python "):
            yield from (("shell", command) for command in shell_commands(text))
        else:
            yield language, text


def shell_commands(text):
    """The commands of a block of shell: one that goes on in further lines, and a document within, stay in one piece."""
    found, lines = [], text.splitlines()
    while lines:
        command = [lines.pop(0)]
        document = re.search(r"<<'(\w+)'", command[0])
        while lines and (command[-1].endswith("\\") or (document and command[-1] != document[1])):
            command.append(lines.pop(0))
        if "$?" in command[0]:  # of the command before
            found[-1] += "\n" + command[0]
        elif command[0].strip() and not command[0].startswith("#"):
            found.append("\n".join(command))
    return found


def environment():
    """Of a shell in which `python` is this one, and finds the package and its tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


def run_command(command):
    """Runs one command of a page in the working directory: its exit code, and what it prints.

    A tool is run in this process, which has imported Paddle already; bash is given what needs a shell, and ranks, which
    are started by the command line that they see.
    """
    line = command.replace("\\\n", " ")
    if line.startswith("python tools/") and not NEEDS_A_PROCESS.search(line):
        tool, *arguments = shlex.split(line, comments=True)[1:]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = commands.run(TOOLS[Path(tool).name], arguments)
        return code, printed.getvalue()
    done = run_process(["bash", "-uo", "pipefail", "-c", command], env=environment(), timeout=1800,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    return done.returncode, done.stdout
