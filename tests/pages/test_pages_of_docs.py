"""Commands, translations, links, figures, recipes and the API reference of the documentation are right."""

import re
import shlex
import sys

import pytest

from ernie_vil2.cli import make_parser
from ernie_vil2.config import load_config
from ernie_vil2.data.tokenizer import DIALECTS
from ernie_vil2.evaluation.protocol import PROTOCOLS
from ernie_vil2.evaluation.published import read_published
from tests.support.page_commands import PAGES, TOOLS, split_page
from tests.support.paths import ROOT
from tests.support.processes import run_process

DOCS = ROOT / "docs"
TRANSLATIONS = {page: DOCS / page.name for page in sorted((DOCS / "zh").glob("*.md"))}
TRANSLATIONS[ROOT / "README.zh.md"] = ROOT / "README.md"
MODELS = [DOCS / "models.md", DOCS / "zh" / "models.md"]


def format_path(page):
    return str(page.relative_to(ROOT))


def list_tool_commands(page):
    """Yield name and arguments of each `python tools/NAME.py ...` of a page."""
    for kind, text in split_page(PAGES[page]):
        if kind != "shell":
            continue
        for line in re.split(r" && | \| |; |\n", text.replace("\\\n", " ")):
            command = re.match(r"(?:python|fleetrun)(?: -m paddle.*?)? tools/(\w+\.py)(.*)", line)
            if command:
                arguments = re.sub(r" (?:&|2?>).*$", "", command[2])
                yield TOOLS[command[1]], shlex.split(arguments, comments=True)


def test_every_command_of_the_pages_is_valid():
    num_commands = 0
    for page, path in PAGES.items():
        for command, arguments in list_tool_commands(page):
            num_commands += 1
            if "--help" in arguments:
                continue
            try:
                options = make_parser(command).parse_args(arguments)
                if command in ("train", "plan") and "Model.weights" not in str(options.override):
                    load_config(options.config, options.override)
            except ValueError as error:
                # Earlier commands of the page make the file, or the page shows the error.
                if "No such file" not in str(error) and str(error) not in path.read_text(encoding="utf-8"):
                    pytest.fail(f"{page}: {command} {shlex.join(arguments)}: {error}")
    assert num_commands > 80


def list_comparable_lines(page):
    """Return the lines of each block of a page without comments, which are translated."""
    lines = []
    for block in re.findall(r"^```.*?^```$", page.read_text(encoding="utf-8"), re.M | re.S):
        # In a tree of files the comment follows the name without a `#`.
        pattern = r"[│├└─\s]*\S*" if "──" in block else r".*?(?=\s*#|$)"
        lines.append([re.match(pattern, line)[0] for line in block.splitlines()])
    return lines


@pytest.mark.parametrize("page", TRANSLATIONS, ids=format_path)
def test_chinese_pages_have_the_same_commands_and_valid_links(page):
    assert list_comparable_lines(page) == list_comparable_lines(TRANSLATIONS[page])
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert links and not missing


@pytest.mark.parametrize("page", MODELS, ids=format_path)
def test_models_page_has_published_figures_and_known_names(page):
    text = page.read_text("utf-8")
    assert set(re.findall(r"--protocol ([\w-]+)", text)) <= set(PROTOCOLS)
    assert all(f"`{rules}`" in text for rules in DIALECTS)

    # The table of FG-CLIP 2 has the figures that evaluations print.
    protocols = ["lit-cn", "dci-cn", "docci-cn", "flickr30k-cna-test", "coco-cn-translated"]
    header = " | ".join(f"`{name}`" for name in protocols)
    lines = text.split(header)[1].split("\n\n")[0].splitlines()[2:]
    results = {(row.protocol, row.label): row.values for row in read_published() if "2510.10921" in row.source}
    for line in lines:
        model, *cells = re.split(r"\s*\|\s*", line.strip("| "))
        for protocol, cell in zip(protocols, cells, strict=True):
            recalls = [values["R@1"] for values in results[protocol, f"{model}, zero-shot"].values()]
            assert cell == f"{recalls[0]} / {recalls[1]}"


@pytest.mark.slow
def test_pages_and_reference_are_built(tmp_path):
    pytest.importorskip("mkdocstrings")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(site)]
    assert run_process(command, cwd=ROOT).returncode == 0
    packages = [path.parent.name for path in (ROOT / "ernie_vil2").glob("*/__init__.py")]
    for package in packages:
        assert (site / "reference" / f"ernie_vil2.{package}.html").is_file()
    names = (site / "reference" / "index.html").read_text(encoding="utf-8")
    assert "serving.bodies.check_parameter_names" in names  # a coroutine
    pages = [path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")]
    assert [page for page in pages if not (site / page).is_file()] == []
    start = (site / "index.html").read_text(encoding="utf-8")
    assert "简体中文" in start and all(f'href="{page}"' in start for page in pages if page.name != "index.html")
