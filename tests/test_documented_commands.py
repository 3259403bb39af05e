"""Every command of our own that the pages show is one that the command lines understand."""

import re
import shlex

import pytest

from ernie_vil2.cli import parser
from ernie_vil2.config import load_config
from tests.support.page_commands import PAGES, TOOLS, parts


def commands(page):
    """The arguments of each `python tools/NAME.py ...` of a page, with NAME."""
    for kind, text in parts(PAGES[page]):
        if kind != "shell":
            continue
        for part in re.split(r" && | \| |; |\n", text.replace("\\\n", " ")):
            found = re.match(r"(?:python|fleetrun)(?: -m paddle.*?)? tools/(\w+\.py)(.*)", part)
            if found:
                yield TOOLS[found[1]], shlex.split(re.sub(r" (?:&|2?>).*$", "", found[2]), comments=True)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_understood(page):
    for command, arguments in commands(page):
        if "--help" in arguments:
            continue
        try:
            given = parser(command).parse_args(arguments)
            if command in ("train", "plan") and "Model.weights" not in str(given.override):
                load_config(given.config, given.override)
        except ValueError as error:
            # A file that the page has made by then; an error that it shows.
            if "No such file" not in str(error) and str(error) not in PAGES[page].read_text(encoding="utf-8"):
                pytest.fail(f"{page}: {command} {shlex.join(arguments)}: {error}")


def test_there_are_commands_to_check():
    assert sum(len(list(commands(page))) for page in PAGES) > 80
