"""TSV of images with JSON lines of texts: the layout of Chinese-CLIP (arXiv 2211.01335), and MUGE's own release.

Chinese-CLIP publishes MUGE and Flickr30k-CN as `{split}_imgs.tsv` and `{split}_texts.jsonl`; MUGE's own release has
`MR_{split}_imgs.tsv` and `MR_{split}_queries.jsonl`, which differ in the names of the keys.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ernie_vil2.data.annotation_files import numbered_lines
from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText, Collector
from ernie_vil2.data.readers.chinese_clip import (
    IMAGES,
    LONGEST_ID,
    ChineseClipSource,
    image_of_row,
    is_images,
    parse_text,
    text_keys,
    texts_beside,
)
from ernie_vil2.data.readers.layout import ImageFolders, Layout, in_order
from ernie_vil2.data.readers.lines import Lines
from ernie_vil2.data.samples import BadSample, Reason, as_object


def _find(folder: Path) -> dict[str, list[Path]]:
    """A split whose first text names no image comes last: the answers of MUGE's test split are not published."""
    images = {path.name.removesuffix(IMAGES).removeprefix("MR_"): path for path in folder.glob(f"*{IMAGES}")}
    splits = in_order({split: path for split, path in images.items() if texts_beside(path)})
    return dict(sorted(splits.items(), key=lambda item: not _names_images(item[1][0])))


def _names_images(images: Path) -> bool:
    texts = texts_beside(images)
    for name, line in numbered_lines(texts):
        try:
            return bool(as_object(line, name).get(text_keys(texts)[2]))
        except BadSample:
            continue
    return False


def _read(images: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Images and texts have their published ids. A text without image ids stays in the gallery and is no query."""
    collector, texts = Collector(), texts_beside(images)
    _read_images(collector, Lines(images))
    for name, line in numbered_lines(texts):
        with collector.entry():
            text_id, text, image_ids = parse_text(as_object(line, name), name, text_keys(texts))
            text = BenchmarkText(text_id, text)
            matched = [image_id for image_id in image_ids if collector.has_image(image_id)]
            if image_ids and not matched:
                raise BadSample(Reason.UNMATCHED_IMAGE, f"{name}, {image_ids[0]}")
            if not collector.add_text(text):
                raise BadSample(Reason.REPEATED_TEXT, text.id)
            for image_id in matched:
                collector.add_pair(image_id, text.id)
            for image_id in image_ids:
                if image_id not in matched:
                    with collector.entry():
                        raise BadSample(Reason.UNMATCHED_IMAGE, f"{name}, {image_id}")
    return collector.benchmark(f"{images.parent.name}-{split}", [images, texts])


def _read_images(collector: Collector, rows: Lines) -> None:
    first: dict[str, int] = {}
    for index in range(len(rows)):
        with collector.entry():
            columns = rows.columns(index, LONGEST_ID)
            image_id = columns[0].decode("utf-8", "replace").strip()
            if len(columns) != 2 or not image_id:
                raise BadSample(Reason.MALFORMED_ROW, rows.row_name(index))
            if image_id in first:
                same = rows.columns(first[image_id]) == rows.columns(index)
                raise BadSample(
                    Reason.REPEATED_IMAGE if same else Reason.DIFFERENT_IMAGE, f"{rows.row_name(index)}, {image_id}"
                )
            first[image_id] = index
            collector.add_image(BenchmarkImage(image_id, partial(image_of_row, rows, index)), index)


CHINESE_CLIP = Layout(
    name="chinese-clip",
    files="{split}_imgs.tsv and {split}_texts.jsonl, or MUGE's MR_{split}_imgs.tsv and MR_{split}_queries.jsonl",
    find=_find,
    fits=is_images,
    # The pairs alone, of which only an index is held.
    open=lambda place, options: ChineseClipSource(place.name, options.text_id),
    read=_read,
)
