"""Readers of retrieval benchmarks as their authors publish them; docs/benchmarks.md shows the folders."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.sources.published.aic_icc import AIC_ICC
from ernie_vil2.data.sources.published.chinese_clip import CHINESE_CLIP
from ernie_vil2.data.sources.published.coco_cn import COCO_CN
from ernie_vil2.data.sources.published.flickr30k_cn import FLICKR30K_CN
from ernie_vil2.data.sources.published.image_folder import IMAGE_FOLDER
from ernie_vil2.data.sources.published.karpathy import FLICKR30K, MSCOCO
from ernie_vil2.data.sources.published.layout import SPLITS, ImageFolders, Layout
from ernie_vil2.data.sources.published.sources import read_sources

__all__ = ["LAYOUTS", "open_benchmark"]

PUBLISHED = (COCO_CN, AIC_ICC, FLICKR30K, MSCOCO, FLICKR30K_CN, CHINESE_CLIP)
SOURCES = "sources"
# A folder is asked for the layouts of this order; the last two also fit what lies beside a published benchmark.
LAYOUTS = (*(layout.name for layout in PUBLISHED), IMAGE_FOLDER.name, SOURCES)
SOURCE_SUFFIXES = (".tar", ".tsv")
VALIDATION = ("val", "valid", "validation", "dev")


def open_benchmark(
    path: str | Path | Sequence[str | Path],
    layout: str | None = None,
    split: str | None = None,
    images: str | Path | None = None,
    language: str = "",
    text_id: str | None = None,
) -> Benchmark:
    """The benchmark in a folder, in an annotation file, or in tar shards and official TSV files.

    Annotations are read once, here; an image is read when it is asked for.

    Args:
        path: a folder laid out as its authors publish it, one of its annotation files, or `.tar` and `.tsv` files.
        layout: one of `LAYOUTS`; None: told from the files.
        split: `test`, `val`, `train`, ...; None: test, or validation where test is not there or has no answers.
        images: folder of the image files, or of their published sub-folders; None: looked for below `path`.
        language: of the captions in tar shards.
        text_id: JSON field that names the text in tar shards (`Data.text_id`).

    Raises:
        FileNotFoundError: there is no such path, or none of the images is found.
        ValueError: the layout cannot be told, the split is not there, or no image or text could be used.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"unknown layout {layout}; known: {', '.join(LAYOUTS)}")
    found, splits = _detect(paths[0], layout) if len(paths) == 1 else (None, {})
    if found is None:
        if layout not in (None, SOURCES):
            raise ValueError(f"layout {layout} is that of one folder; {len(paths)} paths were given")
        if split or images:
            raise ValueError(
                "tar shards and TSV files hold their images and have no splits; leave out images and split"
            )
        files = _source_files(paths)
        if not files:
            raise ValueError(f"{', '.join(map(str, paths)) or 'no path given'}: no .tar shard and no .tsv file here")
        return read_sources(files, language, text_id)
    chosen = _choose(splits, split, f"{paths[0]} (layout {found.name})")
    if found.image_folders is None:
        if images:
            raise ValueError(f"layout {found.name} holds its images in {splits[chosen].name}; leave out images")
        return found.read(splits[chosen], chosen, ImageFolders([], []))
    roots = [Path(images)] if images else list(dict.fromkeys([_folder(paths[0]), splits[chosen].parent]))
    missing = [root for root in roots if not root.is_dir()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: no such folder of images")
    folders = ImageFolders(roots, found.image_folders)
    benchmark = found.read(splits[chosen], chosen, folders)
    folders.require(benchmark.images)
    return benchmark


def _detect(path: Path, layout: str | None) -> tuple[Layout | None, dict[str, Path]]:
    """The layout of a folder or file with its splits; (None, {}) for tar shards and TSV files."""
    if layout == SOURCES:
        return None, {}
    if not path.exists():
        if layout is None and glob.glob(str(path)):
            return None, {}
        raise FileNotFoundError(f"{path}: no such file or folder")
    known = [one for one in (*PUBLISHED, IMAGE_FOLDER) if layout in (None, one.name)]
    fitting: dict[Layout, dict[str, Path]] = {}
    problems = []
    for one in known:
        try:
            splits = one.find(_folder(path))
        except ValueError as problem:
            problems.append(problem)
            continue
        splits = {split: file for split, file in splits.items() if path in (file, _folder(path))}
        if splits and not (one is IMAGE_FOLDER and fitting):
            fitting[one] = splits
    if len(fitting) > 1:
        names = ", ".join(one.name for one in fitting)
        raise ValueError(f"{path}: files of several layouts are here ({names}); name one as the layout")
    if fitting:
        return next(iter(fitting.items()))
    if layout is None and any(file.suffix in SOURCE_SUFFIXES for file in _source_files([path])):
        return None, {}
    if problems:
        raise problems[0]
    here = sorted(entry.name for entry in _folder(path).iterdir())
    raise ValueError(
        f"{path}: no known layout; here are {', '.join(here[:10]) or 'no files'}{', ...' * (len(here) > 10)}; known:\n"
        + "\n".join(f"  {one.name}: {one.files}" for one in known)
        + f"\n  {SOURCES}: .tar shards or official .tsv files" * (layout is None)
    )


def _choose(splits: dict[str, Path], split: str | None, place: str) -> str:
    names = ", ".join(splits)
    if split is None:
        preferred = next(iter(splits))
        if preferred not in SPLITS and len(splits) > 1:
            raise ValueError(f"{place} holds several tables ({names}); name one as the split")
        return preferred
    spellings = VALIDATION if split in VALIDATION else (split,)
    chosen = next((spelling for spelling in spellings if spelling in splits), None)
    if chosen is None:
        raise ValueError(f"{place} has no split {split}; it has {names}")
    return chosen


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _source_files(paths: Sequence[Path]) -> list[Path]:
    """The shards and TSV files that paths, folders and patterns name; within a folder or pattern they are sorted."""
    files = []
    for path in paths:
        if path.is_dir():
            files += sorted(
                file
                for file in path.iterdir()
                if file.suffix in SOURCE_SUFFIXES and not file.name.endswith("_imgs.tsv")
            )
        elif path.exists():
            files.append(path)
        else:
            matches = sorted(map(Path, glob.glob(str(path))))
            if not matches:
                raise FileNotFoundError(f"{path}: no such file or folder")
            files += matches
    return files
