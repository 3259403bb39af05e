"""Tables of the cases in docs/notes/bad_input_cases.md: `python -m tests.hostile.bad_input.page` writes them."""

import re
from pathlib import Path

from ernie_vil2.io.files import write_text
from tests.hostile.bad_input import addresses, images, models, rows, settings, shards, texts

PAGE = Path(__file__).parents[3] / "docs" / "notes" / "bad_input_cases.md"
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


def format_table(cases):
    """Return a table in Markdown, with a row for all cases of the same result and details."""
    inputs = {}
    for case in cases:
        details = [f"`{reason}`" for reason in case.skips]
        if case.note:
            details.append(case.note)
        if case.remark:
            details.append(f"counted as `{case.remark}`")
        inputs.setdefault((case.result, "; ".join(details)), []).append(case.input)

    lines = ["| result | as | input |", "|---|---|---|"]
    for (result, details), row_inputs in sorted(inputs.items(), key=lambda row: ORDER.index(row[0][0])):
        examples = format_examples(result, details, row_inputs)
        lines.append(f"| {result} | {escape_cell(details)} | {escape_cell(examples)} |")
    return "\n".join(lines) + "\n"


def format_examples(result, details, inputs):
    """Return two examples of the inputs of a row, or one where the result explains itself, and the number of others."""
    num_examples = 1 if result == "stopped" or (result, details) == ("used", "") else 2
    num_others = len(inputs) - num_examples
    if num_others <= 1:
        return " · ".join(inputs)
    return f"{' · '.join(inputs[:num_examples])} · {num_others} more"


def escape_cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;")


def update_tables(text):
    """Return the text of the page with the tables of the present cases."""
    return TABLE.sub(lambda match: f"## {match[1]}\n\n{format_table(SECTIONS[match[1]])}", text)


if __name__ == "__main__":
    write_text(PAGE, update_tables(PAGE.read_text(encoding="utf-8")))
