"""COCO-CN as its authors publish it (Li et al., arXiv 1805.08661): lists of MSCOCO images, and captions by hand."""

from __future__ import annotations

from pathlib import Path

from ernie_vil2.data.annotation_files import numbered_lines
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers.layout import SPLITS, ImageFolders, Layout, found_files
from ernie_vil2.data.readers.published.caption_lines import read_caption_lines

CAPTIONS = "imageid.human-written-caption.txt"


def _find(folder: Path) -> dict[str, list[Path]]:
    return found_files(folder, {split: f"coco-cn_{split}.txt" for split in SPLITS})


def _read(ids: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Images and texts have their published ids: `COCO_val2014_000000001234`, `COCO_val2014_000000001234#0`."""
    lists = {path: {line.strip() for _, line in numbered_lines(path)} for path in ids.parent.glob("coco-cn_*.txt")}
    others = set().union(*lists.values()) - lists[ids]
    return read_caption_lines(f"coco-cn-{split}", ids, ids.with_name(CAPTIONS), folders, others)


COCO_CN = Layout(
    name="coco-cn",
    files=f"coco-cn_test.txt and {CAPTIONS}",
    find=_find,
    read=_read,
    image_folders=("train2014", "val2014"),
)
