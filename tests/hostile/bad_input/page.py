"""The tables of docs/bad_input.md, made of the cases: `python -m tests.hostile.bad_input.page` writes them again."""

import re
from pathlib import Path

from ernie_vil2.io.files import write_text
from tests.hostile.bad_input import addresses, images, models, rows, settings, shards, texts

PAGE = Path(__file__).parents[3] / "docs" / "bad_input.md"
SECTIONS = {
    "Images": images.CASES,
    "Texts": texts.CASES,
    "Shards": shards.CASES,
    "Rows and folders": rows.CASES,
    "Addresses and commands": addresses.CASES,
    "Configurations, vocabularies, lists": settings.CASES,
    "Weights and model folders": models.CASES,
}
ORDER = ["used", "used / skipped", "skipped", "stopped"]
TABLE = re.compile(r"^## (.+)\n\n\|(?:.+\n)+", re.MULTILINE)


def table(cases):
    """The cases as a table of Markdown, a row for all that end alike."""
    inputs = {}
    for case in cases:
        printed = [f"`{reason}`" for reason in case.skipped] + [case.note] * bool(case.note)
        printed += [f"counted as `{case.remark}`"] * bool(case.remark)
        inputs.setdefault((case.result, "; ".join(printed)), []).append(case.input)
    rows = sorted(inputs.items(), key=lambda row: ORDER.index(row[0][0]))
    lines = [f"| {result} | {cell(how)} | {cell(shown(result, how, alike))} |" for (result, how), alike in rows]
    return "\n".join(["| result | as | input |", "|---|---|---|", *lines]) + "\n"


def shown(result, how, alike):
    """Examples of the inputs of a row, one where errors explain themselves or the input is simply used."""
    some = 1 if result == "stopped" or (result, how) == ("used", "") else 2
    more = len(alike) - some
    return " · ".join(alike) if more <= 1 else f"{' · '.join(alike[:some])} · {more} more"


def cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;")


def with_tables(text):
    """The page with the tables of its sections as they are now."""
    return TABLE.sub(lambda found: f"## {found[1]}\n\n{table(SECTIONS[found[1]])}", text)


if __name__ == "__main__":
    write_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))
