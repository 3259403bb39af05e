"""docs/models.md: the figures are those that evaluations print, and what is named there exists."""

import re
from pathlib import Path

import pytest

from ernie_vil2.data.tokenizer_files import DIALECTS
from ernie_vil2.evaluation.protocols import FG_CLIP_2, PAPER_RESULTS, PROTOCOLS

PAGES = [Path(__file__).parents[1] / "docs" / name for name in ("models.md", "zh/models.md")]


def rows(page, first):
    """The cells of the table whose header begins with `first` and then names protocols."""
    table = page.read_text("utf-8").split(first)[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_fg_clip_2s_figures_are_those_that_evaluations_print(page):
    protocols = ["lit-cn", "dci-cn", "docci-cn", "flickr30k-cna-test", "coco-cn-translated"]
    header = " | ".join(f"`{name}`" for name in protocols)
    found = rows(page, header)
    assert len(found) == 9 and set(protocols) <= set(PROTOCOLS)
    for model, *cells in found:
        for name, cell in zip(protocols, cells, strict=True):
            label = f"{model}, zero-shot"
            of_table = [one for one in PAPER_RESULTS if one.source == FG_CLIP_2 and one.protocol == name]
            (result,) = [one for one in of_table if one.label == label]
            both = [values["R@1"] for values in result.values.values()]
            assert cell == f"{both[0]} / {both[1]}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_protocols_and_tokenizers_of_the_page_exist(page):
    text = page.read_text("utf-8")
    assert set(re.findall(r"--protocol ([\w-]+)", text)) <= set(PROTOCOLS)
    assert all(f"`{rules}`" in text for rules in DIALECTS)
