"""Every command of our own that the pages show is one that the command lines understand."""

import re
import shlex
from pathlib import Path

import pytest

from ernie_vil2.commands import parser
from ernie_vil2.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {
    path.name: re.search(r'run\("([\w-]+)"\)', path.read_text()).group(1) for path in (ROOT / "tools").glob("*.py")
    if 'run("' in path.read_text()
}  # fmt: skip


def commands(page):
    """The arguments of each `python tools/NAME.py ...` in a page's blocks of shell, with NAME."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r" && | \| |; ", line):
                found = re.match(r"(?:python|fleetrun)(?: -m paddle.*?)? tools/(\w+\.py)(.*)", part)
                if found and found[1] in COMMANDS:
                    yield COMMANDS[found[1]], shlex.split(re.sub(r" (?:&|2?>).*$", "", found[2]), comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_understood(page):
    for command, arguments in commands(page):
        if "--help" in arguments:
            continue
        try:
            given = parser(command, command).parse_args(arguments)
            if command in ("train", "plan") and "Model.weights" not in str(given.override):
                load_config(given.config, given.override)
        except ValueError as error:
            if "No such file" not in str(error):  # which the page has made by then
                pytest.fail(f"{page.name}: {command} {shlex.join(arguments)}: {error}")


def test_there_are_commands_to_check():
    assert sum(len(list(commands(page))) for page in PAGES) > 80
