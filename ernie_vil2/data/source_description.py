"""Description of what a source was understood to hold, so that a person sees a wrong guess before a training does."""

import unicodedata
from collections.abc import Iterable
from contextlib import suppress

from ernie_vil2.data.decoding import EncodedImage
from ernie_vil2.data.readers.source import ShardedSource
from ernie_vil2.data.readers.tables import TableSource
from ernie_vil2.data.samples import BadSample, Sample
from ernie_vil2.io.terminal import make_printable

# The first rows may be broken ones. Reading so many takes a moment even if they hold large images.
MAX_ROWS_TRIED = 20
# Characters of a value: with its name it fits on a line of a terminal.
MAX_VALUE_LENGTH = 90


def describe_source(source: ShardedSource) -> str:
    """Return which columns are the image, the texts and the fields, and the first sample that can be used.

    Columns are those of the first shard, if it is a table. Other layouts name images and texts themselves.
    """
    lines: list[str] = []
    table = source.shards[0]
    if isinstance(table, TableSource):
        lines.append(f"columns of {table.name}:")
        lines += _align(table.describe_columns())
        lines += table.describe_choices()

    for row in range(min(MAX_ROWS_TRIED, len(source))):
        with suppress(BadSample):
            description = _align(_describe_sample(source[row]))
            lines.append(f"sample {row + 1}:")
            lines += description
            break
    return "\n".join(lines)


def _describe_sample(sample: Sample) -> list[tuple[str, str]]:
    image = EncodedImage(sample.image, sample.image_name)
    rows = [("image", f"{sample.image_name} ({image.width} x {image.height} pixels)")]
    for language, caption in sample.captions.items():
        rows.append((f"caption_{language}" if language else "caption", caption))
    for language, tags in sample.tags.items():
        rows.append((f"tags_{language}" if language else "tags", ", ".join(tags)))
    for name, value in sample.fields.items():
        # "text" is another name of the caption, which has been shown.
        is_caption_or_tags = name == "text" or name.partition("_")[0] in ("caption", "tags")
        if not is_caption_or_tags:
            rows.append((name, str(value)))
    return rows


def _align(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each name and value, with the values below each other."""
    printable_rows: list[tuple[str, str]] = []
    for name, value in rows:
        printable_name = make_printable(name, max_length=MAX_VALUE_LENGTH)
        printable_rows.append((printable_name, make_printable(value, max_length=MAX_VALUE_LENGTH)))
    width = max((_measure_width(name) for name, _ in printable_rows), default=0)
    return [f"  {name}{' ' * (width - _measure_width(name))}  {value}" for name, value in printable_rows]


def _measure_width(text: str) -> int:
    """Return the columns of a terminal that a text takes: a Chinese character takes two."""
    num_wide_characters = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + num_wide_characters
