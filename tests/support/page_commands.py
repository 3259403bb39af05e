"""What is in the blocks of the pages, and how it is run."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from experiments.ablation import command as study
from tests.support.commands import call
from tests.support.paths import ROOT
from tests.support.processes import run_process, start_process

PATHS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/notes").glob("*.md"))]
PAGES = {path.name: path for path in PATHS}
TOOLS = {path.name: path.stem for path in (ROOT / "tools").glob("*.py")} | {"study.py": study}
"""By the name of a tool what `commands.run` takes."""
PROMPT = r"^\$ (?:.*\\\n)*.*"
NEEDS_A_PROCESS = re.compile(r"&&|[|;<>`\n]|\$[({\w?!]|--processes")
SERVERS = ("make search", "python tools/search.py serve")
ADDRESS = "http://127.0.0.1:8000"


def list_blocks(page):
    """Return (language, text) of each block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def split_page(page):
    """Yield ("shell", command), ("python", code), ("yaml", text) and ("", output or tree of files), in order."""
    for language, text in list_blocks(page):
        if re.match(r"\$ ", text):
            prompted = "\n".join(line.removeprefix("$ ") for line in re.findall(PROMPT, text, re.M))
            yield from (("shell", command) for command in shell_commands(prompted))
            yield "", re.sub(PROMPT + r"\n", "", text, flags=re.M)
        elif language == "bash" or text.startswith("python "):
            yield from (("shell", command) for command in shell_commands(text))
        else:
            yield language, text


def shell_commands(text):
    """Split a block of shell into commands: further lines of one, and a document within, stay in one piece."""
    commands, lines = [], text.splitlines()
    while lines:
        command = [lines.pop(0)]
        document = re.search(r"<<'(\w+)'", command[0])
        while lines and (command[-1].endswith("\\") or (document and command[-1] != document[1])):
            command.append(lines.pop(0))
        if "$?" in command[0]:  # of the command before
            commands[-1] += "\n" + command[0]
        elif command[0].strip() and not command[0].startswith("#"):
            commands.append("\n".join(command))
    return commands


def list_commands(page, until=None):
    """Return the words of each command of the blocks of bash of a page, or of its part before a heading."""
    text = PAGES[page].read_text(encoding="utf-8").partition(until or "\0")[0]
    lines = "".join(re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def make_environment():
    """Return the environment of a shell in which `python` is this one, and finds the package and its tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


def run_command(command):
    """Run one command of a page in the working directory, and return its exit code and what it prints.

    A tool is run in this process, which has imported Paddle already; bash is given what needs a shell, and ranks, which
    are started by the command line that they see.
    """
    line = command.replace("\\\n", " ")
    if line.startswith("python tools/") and not NEEDS_A_PROCESS.search(line):
        tool, *arguments = shlex.split(line, comments=True)[1:]
        result = call(TOOLS[Path(tool).name], *arguments)
        return result.returncode, result.stdout + result.stderr
    done = run_process(["bash", "-uo", "pipefail", "-c", command], env=make_environment(), timeout=1800,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    return done.returncode, done.stdout


def serve(command):
    """Start a server, wait for its page, stop it, and return the page."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("port 8000 is in use here")
    server = start_process(["bash", "-c", f"exec {command}"], env=make_environment(), start_new_session=True)
    try:
        for _ in range(1200):
            assert server.poll() is None, f"{command} has ended by itself"
            try:
                return urllib.request.urlopen(ADDRESS).read().decode()
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"{command} gives no page")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
