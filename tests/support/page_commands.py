"""The blocks of the documentation's pages, their commands, and how to run them."""

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
"""Name of a tool -> the command as `commands.run` takes it."""
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
            for command in split_shell(prompted):
                yield "shell", command
            yield "", re.sub(PROMPT + r"\n", "", text, flags=re.M)
        elif language == "bash" or text.startswith("python "):
            for command in split_shell(text):
                yield "shell", command
        else:
            yield language, text


def split_shell(text):
    """Split a block of shell into commands: continued lines and here-documents stay with their command."""
    commands, lines = [], text.splitlines()
    while lines:
        command = [lines.pop(0)]
        document = re.search(r"<<'(\w+)'", command[0])
        while lines and (command[-1].endswith("\\") or (document and command[-1] != document[1])):
            command.append(lines.pop(0))
        if "$?" in command[0]:  # belongs to the previous command
            commands[-1] += "\n" + command[0]
        elif command[0].strip() and not command[0].startswith("#"):
            commands.append("\n".join(command))
    return commands


def list_commands(page, until=None):
    """Return the words of each command in a page's blocks of bash, up to the text `until` if that is given."""
    text = PAGES[page].read_text(encoding="utf-8").partition(until or "\0")[0]
    lines = "".join(re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def make_environment():
    """Return the environment of a shell in which `python` is this interpreter and finds the package and its tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


def run_command(command):
    """Run one command of a page in the working directory, and return its exit code and what it prints.

    Tools run in this process, which has imported Paddle already. Bash runs commands that need a shell, and launches of
    ranks, which repeat the command line of their process.
    """
    line = command.replace("\\\n", " ")
    if line.startswith("python tools/") and not NEEDS_A_PROCESS.search(line):
        tool, *arguments = shlex.split(line, comments=True)[1:]
        result = call(TOOLS[Path(tool).name], *arguments)
        return result.returncode, result.stdout + result.stderr
    # The longest commands of the pages train and evaluate for some minutes.
    process = run_process(["bash", "-uo", "pipefail", "-c", command], env=make_environment(), timeout=1800,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    return process.returncode, process.stdout


def serve(command):
    """Start a server, wait for its page, stop it, and return the page."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("port 8000 is in use here")
    server = start_process(["bash", "-c", f"exec {command}"], env=make_environment(), start_new_session=True)
    try:
        for _ in range(1200):  # ten minutes, as tests wait elsewhere
            assert server.poll() is None, f"{command} has ended by itself"
            try:
                return urllib.request.urlopen(ADDRESS).read().decode()
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"{command} serves no page")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
