"""Names of classes, from whichever file holds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ernie_vil2.data.annotation_files import read_json
from ernie_vil2.io.files import read_text
from ernie_vil2.io.terminal import counted

SET_MARK = "@"
"""Between a JSON file and the name of one of its lists: `classnames.json@imagenet1k`."""


def read_list(place: str) -> list[str] | dict[str, str]:
    """Texts in the order of a file, or by label.

    Args:
        place: a text file with one of them a line, or `label<TAB>text` in every line; or JSON: a list, an object of
            texts by label, or an object of lists of which `FILE@NAME` names one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is none of these, it is empty, or an entry in it is.
    """
    path, name = split_place(place)
    found = _from_json(path, name) if path.suffix == ".json" else _from_lines(path)
    entries = list(found.items()) if isinstance(found, dict) else list(enumerate(found, 1))
    if not all(isinstance(text, str) for _, text in entries):
        raise ValueError(f"{place}: a list of texts is expected, or texts by label")
    for label, text in entries:
        if not text.strip():
            what = f"class {label} has no name" if isinstance(found, dict) else f"entry {label} is empty"
            raise ValueError(f"{place}: {what}; write it, or take it out with what belongs to it")
    if not entries:
        raise ValueError(f"{place}: nothing in it")
    return found


def split_place(place: str) -> tuple[Path, str]:
    """The file of `FILE` or `FILE@NAME`, and the name of the list in it."""
    path, mark, name = place.rpartition(SET_MARK)
    return (Path(path), name) if mark and not Path(place).exists() else (Path(place), "")


def _from_json(path: Path, name: str) -> list | dict:
    content = read_json(path, object)
    lists = content if isinstance(content, dict) and any(isinstance(one, list) for one in content.values()) else {}
    if name or lists:
        if not isinstance(lists.get(name), list):
            raise ValueError(f"{path}: name one of its lists as {path.name}{SET_MARK}NAME; it holds {_some(lists)}")
        return lists[name]
    if not isinstance(content, dict | list):
        raise ValueError(f"{path}: a list of texts is expected, or texts by label")
    return content


def _from_lines(path: Path) -> list[str] | dict[str, str]:
    lines = read_text(path).rstrip("\n ").split("\n")
    if not all("\t" in line for line in lines):
        return [line.strip() for line in lines] if lines != [""] else []
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        label, _, text = line.partition("\t")
        if label.strip() in found:
            raise ValueError(f"{path}, line {number}: {label.strip()} stands there twice")
        found[label.strip()] = text.strip()
    return found


def named_classes(labels: Collection[str], names: Sequence[str] | Mapping[str, str], place: str) -> dict[str, str]:
    """The name of every class, in their order.

    Names in an order belong to the labels that say so: to themselves, where labels are names; to numbers, which count
    from 0; otherwise to the sorted labels, of which there must be as many.

    Args:
        labels: that the pictures have; further ones may have a name.
        names: as `read_list` gives them.
        place: of the names, for the error.

    Raises:
        ValueError: it cannot be told which name is whose.
    """
    if isinstance(names, Mapping):
        return dict(names)
    if not set(labels).isdisjoint(names):
        return {name: name for name in names}
    if all(label.isdecimal() for label in labels):
        by_number = {int(label): label for label in labels}
        if max(by_number, default=0) >= len(names):
            raise ValueError(
                f"{place}: {counted(len(names), 'name')}, but there is a class {by_number[max(by_number)]}, counted "
                "from 0; give every class a line, or write label<TAB>name"
            )
        widths = set(map(len, labels))
        width = max(widths) if len(widths) == 1 else 1
        return {by_number.get(number, f"{number:0{width}d}"): name for number, name in enumerate(names)}
    if len(labels) != len(names):
        raise ValueError(
            f"{place}: {counted(len(names), 'name')} for {counted(len(labels), 'class', 'classes')}; give every class "
            "a line, in the order of the sorted labels, or write label<TAB>name"
        )
    return dict(zip(sorted(labels), names, strict=True))


def _some(names: Collection[str]) -> str:
    return ", ".join(list(names)[:10]) + ", ..." * (len(names) > 10) or "none"
