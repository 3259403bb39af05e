"""What lies at a place: the registry of the layouts that are read. docs/data.md and docs/benchmarks.md show each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ernie_vil2.data.readers.caption_benchmarks import AIC_ICC, COCO_CAPTIONS, COCO_CN, FLICKR30K, FLICKR30K_CN, MSCOCO
from ernie_vil2.data.readers.chinese_clip import CHINESE_CLIP, IMAGES
from ernie_vil2.data.readers.chinese_clip_lmdb import LMDB
from ernie_vil2.data.readers.entailment import NLVR2, SNLI_VE
from ernie_vil2.data.readers.files import FILES
from ernie_vil2.data.readers.layout import SPLITS, Layout, family
from ernie_vil2.data.readers.locations import LocalFile, Location
from ernie_vil2.data.readers.tables import TABLE
from ernie_vil2.data.readers.tar import TAR
from ernie_vil2.data.readers.tsv import TSV
from ernie_vil2.registry import Registry

# A folder that holds several of these is ambiguous.
BENCHMARKS = (COCO_CN, AIC_ICC, FLICKR30K, MSCOCO, FLICKR30K_CN, CHINESE_CLIP, SNLI_VE, NLVR2)
# Of these the first counts that a folder holds: MSCOCO's own captions lie beside what others made of them, shards go
# before what they may be made of, and img2dataset leaves a table without images beside each of its folders.
OTHERS = (COCO_CAPTIONS, TAR, LMDB, TSV, FILES, TABLE)
LAYOUTS: Registry[Layout] = Registry.of("layout", *BENCHMARKS, *OTHERS)


class UnknownLayout(ValueError):
    """A folder has none of the layouts."""


class Content(NamedTuple):
    """What lies at a place: its layout, a split by its name there, and the files or folders of that split."""

    place: Location
    layout: Layout
    split: str
    shards: Sequence[Location]


def content(
    place: Location, split: str | None = None, default: str | None = None, layout: str | None = None
) -> Content:
    """What lies at a place.

    Args:
        place: a folder, a file, an address or a command.
        split: by name; `val`, `valid`, `validation` and `dev` are one, and so are `train` and `train2014`.
        default: the split that is meant where none is named; where it is missing, the one that is scored. Only for
            `train` there is no other: nobody wants to train on test data unawares.
        layout: by name; None: told from the files.

    Raises:
        ValueError: the layout cannot be told, or the split is not there.
    """
    known = [LAYOUTS.find(layout)] if layout else list(LAYOUTS.values())
    path, local = Path(place.name), isinstance(place, LocalFile)
    if local and path.is_dir():
        found, splits = _in_folder(path, known)
    elif local and (annotated := annotates(path, known)):
        found, splits = annotated
    else:
        found = next((one for one in known if one.fits and one.fits(place)), None)
        if found is None:
            where = "" if local else "; only .tar and .tsv are read at an address"
            raise ValueError(f"{place.name}: no layout that is known; {_names(known)}{where}")
        splits = {"": [path]}
    chosen = _choose(f"{place.name} (layout {found.name})", path, splits, split, default)
    return Content(place, found, chosen, [LocalFile(one) for one in splits[chosen]] if local else [place])


def annotates(path: Path, known: Sequence[Layout]) -> tuple[Layout, Mapping[str, Sequence[Path]]] | None:
    """The benchmark that has a file for its annotations, with the splits in it; None: it is no such file."""
    if path.suffix in (".json", ".jsonl", ".txt") or path.name.endswith(IMAGES):
        for layout in known:
            if not layout.read and layout not in BENCHMARKS:
                continue
            with suppress(ValueError):
                if own := {split: paths for split, paths in layout.find(path.parent).items() if path in paths}:
                    return layout, own
    return None


def _in_folder(folder: Path, known: Sequence[Layout]) -> tuple[Layout, Mapping[str, Sequence[Path]]]:
    fitting, problems = {}, []
    for layout in known:
        if fitting and layout not in BENCHMARKS and (layout is not TAR or _is_inside(fitting, folder)):
            continue
        try:
            splits = layout.find(folder)
        except ValueError as problem:
            problems.append(problem)
            continue
        if splits:
            fitting[layout] = splits
    if len(fitting) > 1:
        names = ", ".join(layout.name for layout in fitting)
        raise ValueError(f"{folder}: files of several layouts are here ({names}); name one as the layout, or its file")
    if fitting:
        return next(iter(fitting.items()))
    if problems:
        raise problems[0]
    here = sorted(entry.name for entry in folder.iterdir())
    shown = f"{', '.join(here[:10]) or 'no files'}{', ...' * (len(here) > 10)}"
    raise UnknownLayout(f"{folder}: no layout that is known; here are {shown}; {_names(known)}")


def _is_inside(fitting: Mapping[Layout, Mapping[str, Sequence[Path]]], folder: Path) -> bool:
    """Whether a benchmark lies in the folder itself, and not only in one of its sub-folders."""
    return any(path.parent == folder for splits in fitting.values() for paths in splits.values() for path in paths)


def _names(known: Sequence[Layout]) -> str:
    if len(known) == 1:
        return f"{known[0].name} is told by {known[0].files}"
    return f"known are {', '.join(layout.name for layout in known)} (docs/data.md, docs/benchmarks.md)"


def _choose(
    place: str, path: Path, splits: Mapping[str, Sequence[Path]], split: str | None, default: str | None
) -> str:
    names = ", ".join(splits)
    if split is None:
        own = [name for name, paths in splits.items() if path in paths]  # the path is that of one split
        if len(own or splits) == 1 and (own or family(names) not in SPLITS):
            return next(iter(own or splits))
        split = default if default == "train" or default in map(family, splits) else family(next(iter(splits)))
        if split not in SPLITS:
            raise ValueError(f"{place} holds several tables ({names}); name one as the split")
    elif list(splits) == [""]:
        raise ValueError(f"{place} has no splits; leave out split")
    matching = [name for name in splits if name == split] or [name for name in splits if family(name) == family(split)]
    if len(matching) == 1:
        return matching[0]
    found = "several splits" if matching else "no split"
    raise ValueError(f"{place} has {found} {split}; choose a split of {names}, or name its file")
