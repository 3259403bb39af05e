"""Flickr30k-CN as its authors publish it (Lan et al., arXiv 1708.04390): one folder per split, captions cut into words.

The test captions were translated by hand (`zhm`), the others by machine (`zhb`); all were cut into words by BosonNLP.
"""

from __future__ import annotations

import re
from pathlib import Path

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers.layout import ImageFolders, Layout, found_files
from ernie_vil2.data.readers.published.caption_lines import read_caption_lines

COLLECTIONS = {"test": "flickr30kzhmbosontest", "val": "flickr30kzhbbosonval", "train": "flickr30kzhbbosontrain"}
PART_OF_SPEECH = re.compile(r":[A-Za-z]+$")


def _find(folder: Path) -> dict[str, list[Path]]:
    # The folder of all splits, or that of one.
    return found_files(folder, {split: f"ImageSets/{name}.txt" for split, name in COLLECTIONS.items()})


def _read(ids: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Images and texts have their published ids: `1007129816`, `1007129816#zhm#0`."""
    captions = ids.parents[1] / "TextData" / f"seg.{ids.stem}.caption.txt"
    return read_caption_lines(f"flickr30k-cn-{split}", ids, captions, folders, clean=join_words)


def join_words(caption: str) -> str:
    """A caption of words, each with its part of speech or without (`警车:n 停:v`), as it was written (`警车停`)."""
    return "".join(PART_OF_SPEECH.sub("", word) for word in caption.split())


FLICKR30K_CN = Layout(
    name="flickr30k-cn",
    files="flickr30kzhmbosontest/ImageSets/flickr30kzhmbosontest.txt and TextData/ beside ImageSets/",
    find=_find,
    read=_read,
    image_folders=("flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images"),
)
