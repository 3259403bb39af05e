"""The Chinese pages: blocks of commands are the English ones but for comments, and every link leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {page: ROOT / "docs" / page.name for page in sorted((ROOT / "docs" / "zh").glob("*.md"))}
PAGES[ROOT / "README.zh.md"] = ROOT / "README.md"


def blocks(page):
    """The blocks of a page, without what follows a `#`; of each line of a tree of files the first name."""
    found = re.findall(r"^```.*?^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    compared = {False: r".*?(?=\s*#|$)", True: r"[│├└─\s]*\S*"}
    return [[re.match(compared["──" in block], line)[0] for line in block.splitlines()] for block in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_those_of_the_english_page(page):
    assert blocks(page) == blocks(PAGES[page])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert links and not missing


def test_the_pages_that_users_follow_are_there():
    names = {page.name for page in PAGES}
    followed = (  # noqa: SIM905  -- words are read as a text
        "index installation demo guide walkthrough faq weights search serving export benchmarks classification compare "
        "data tags finetuning runs memory launch plan"
    ).split()
    assert len(followed) == 20 and names >= {"README.zh.md", *(f"{name}.md" for name in followed)}
