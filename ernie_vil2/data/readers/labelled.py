"""Images with the classes that they are of, and the names of classes, from whichever file holds them.

The classes are a folder each, a column of a table, or a field of samples.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText, Collector, ImageIds, read_image
from ernie_vil2.data.readers import ShardedSource, open_sources
from ernie_vil2.data.readers.columns import rename_columns
from ernie_vil2.data.readers.layout import SPLITS, ImageFolders, canonical_split
from ernie_vil2.data.readers.spreadsheets import LIST_SEPARATOR
from ernie_vil2.data.readers.tables import TABLES, Table, find_image, open_table
from ernie_vil2.data.samples import BadSample, Reason, is_id
from ernie_vil2.data.source_files import list_image_files, read_file, read_json
from ernie_vil2.data.spec import DataLike, DataSpec
from ernie_vil2.io.files import read_text
from ernie_vil2.io.terminal import counted

SET_MARK = "@"  # between a JSON file and the name of one of its lists: `classnames.json@imagenet1k`
LABEL = "label"
CHINESE_NAMES = "label_cn.txt"  # Chinese names next to the folders of a data set, as Chinese-CLIP lays it out


def read_list(source: str) -> list[str] | dict[str, str]:
    """Texts in the order of a file, or by label.

    Args:
        source: a text file with one of them a line, or `label<TAB>text` in every line; or JSON: a list, an object of
            texts by label, or an object of lists of which `FILE@NAME` names one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is none of these, it is empty, or an entry in it is.
    """
    before, mark, after = source.rpartition(SET_MARK)
    path, name = (Path(before), after) if mark and not Path(source).exists() else (Path(source), "")
    found = _from_json(path, name) if path.suffix == ".json" else _from_lines(path)
    entries = list(found.items()) if isinstance(found, dict) else list(enumerate(found, 1))
    if not all(isinstance(text, str) for _, text in entries):
        raise ValueError(f"{source}: a list of texts is expected, or texts by label")
    for label, text in entries:
        if not text.strip():
            what = f"class {label} has no name" if isinstance(found, dict) else f"entry {label} is empty"
            raise ValueError(f"{source}: {what}; write it, or take it out with what belongs to it")
    if not entries:
        raise ValueError(f"{source}: nothing in it")
    return found


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
            raise ValueError(f"{path}, line {number}: {label.strip()} is there twice")
        found[label.strip()] = text.strip()
    return found


def named_classes(labels: Collection[str], names: Sequence[str] | Mapping[str, str], source: str) -> dict[str, str]:
    """The name of every class, in their order.

    Names in an order belong to the labels that say so: to themselves, where labels are names; to numbers, which count
    from 0; otherwise to the sorted labels, of which there must be as many.

    Args:
        labels: that the images have; further ones may have a name.
        names: as `read_list` gives them.
        source: of the names, for the error.

    Raises:
        ValueError: it is not clear which name belongs to which class.
    """
    if isinstance(names, Mapping):
        return dict(names)
    if not set(labels).isdisjoint(names):
        return {name: name for name in names}
    if all(label.isdecimal() for label in labels):
        by_number = {int(label): label for label in labels}
        if max(by_number, default=0) >= len(names):
            raise ValueError(
                f"{source}: {counted(len(names), 'name')}, but there is a class {by_number[max(by_number)]}, counted "
                "from 0; give every class a line, or write label<TAB>name"
            )
        widths = set(map(len, labels))
        width = max(widths) if len(widths) == 1 else 1
        return {by_number.get(number, f"{number:0{width}d}"): name for number, name in enumerate(names)}
    if len(labels) != len(names):
        raise ValueError(
            f"{source}: {counted(len(names), 'name')} for {counted(len(labels), 'class', 'classes')}; give every class "
            "a line, in the order of the sorted labels, or write label<TAB>name"
        )
    return dict(zip(sorted(labels), names, strict=True))


def _some(names: Collection[str]) -> str:
    return ", ".join(list(names)[:10]) + ", ..." * (len(names) > 10) or "none"


class Found(NamedTuple):
    """What images there are: each with its labels, or why it cannot be used; `labels` are of empty folders too."""

    name: str
    entries: list[tuple[BenchmarkImage, tuple[str, ...]] | BadSample]
    labels: list[str]
    files: tuple[Path, ...]
    names: Path | None = None


def open_labelled(
    data: DataLike, names: Mapping[str, str] | None = None, *, label: str = LABEL, **fields: Any
) -> Benchmark:
    """Open images and their classes, as a benchmark whose texts are the classes.

    The id of a class is its label; `fields` has its name in every language, the text is that of the first.

    Args:
        data: a spec, or paths: a folder with a folder for each class, or with such a folder for each split; tables with
            the columns `image` and `label`; or what `open_sources` takes.
        names: files of names by language, see `read_list`. None: `label_cn.txt` next to the folders, else the labels
            themselves, as zh where there is a Chinese character in them and as en otherwise.
        label: column or field that says the class of an image; several are a list, in CSV separated by `|`.
        fields: of `DataSpec`. Where no split is named and there are several, it is test.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: it is not clear what is there, a class has no name, or no image can be used.
    """
    spec = DataSpec.from_data(data, **fields)
    found = _found(replace(spec, default_split=spec.default_split or "test"), label)
    sources = dict(names or ({"zh": str(found.names)} if found.names else {}))
    by_language = {
        language: named_classes(found.labels, read_list(source), source) for language, source in sources.items()
    } or {_language(found.labels): {one: one.replace("_", " ") for one in found.labels}}
    classes = next(iter(by_language.values()))
    for language, named in by_language.items():
        for missing in [*(classes.keys() - named.keys()), *(named.keys() - classes.keys())]:
            raise ValueError(f"class {missing} has a name in one language and none in another ({language}); write it")
    if len(classes) < 2:
        raise ValueError(
            f"{found.name}: one class alone ({', '.join(classes)}) is not a question; a folder for each class is "
            f"expected, or a table with the columns image and {label}"
        )
    collector = Collector()
    for one, text in classes.items():
        named = {language: each[one] for language, each in by_language.items()}
        collector.add_text(BenchmarkText(one, text, named))
    for entry in found.entries:
        with collector.entry():
            if isinstance(entry, BadSample):
                raise entry
            image, labels = entry
            if unknown := [one for one in labels if one not in classes]:
                raise BadSample(Reason.UNKNOWN_LABEL, f"{image.id}: {unknown[0]}")
            collector.add_image(image, image.id, must_be_new=True)
            for one in labels:
                collector.add_pair(image.id, one)
    return collector.make_benchmark(found.name, found.files)


def _language(labels: Sequence[str]) -> str:
    return "zh" if any("\u4e00" <= letter <= "\u9fff" for label in labels for letter in label) else "en"


def _found(data: DataSpec, label: str) -> Found:
    path = Path(data.paths[0])
    if path.is_dir() and (found := _in_folders(path, data.split, data.default_split)):
        if len(data.paths) > 1:
            raise ValueError(f"{path} is a folder of classes; give it alone")
        return found
    if all(Path(one).suffix.lower() in TABLES for one in data.paths):
        if data.split:
            raise ValueError(f"{path} has no splits; name the table of the split")
        entries = [entry for one in data.paths for entry in _in_table(Path(one), label, data)]
        files = tuple(map(Path, data.paths))
    else:
        source = open_sources(data)
        entries = list(_in_samples(source, label))
        files = tuple(file for shard in source.shards for file in shard.files if file.is_file())
    if all(isinstance(entry, BadSample) and entry.reason == Reason.NO_LABEL for entry in entries):
        raise ValueError(f"{path}: nothing has a {label}; say which column or field is the class (label, --label)")
    labels = {one: None for entry in entries if not isinstance(entry, BadSample) for one in entry[1]}
    return Found(path.stem, entries, sorted(labels), files)


def _in_folders(root: Path, split: str | None, default: str | None) -> Found | None:
    """The images of a folder of classes; None if it is none, as no folder in it has an image file."""
    folder, classes = root, _folders(root)
    splits = {
        canonical_split(one.name): one for one in classes if canonical_split(one.name) in SPLITS and _folders(one)
    }
    if splits:
        chosen = canonical_split(split or default or "test")
        if split is None and chosen != "train" and chosen not in splits:
            chosen = next(one for one in SPLITS if one in splits)
        if chosen not in splits:
            raise ValueError(f"{root} has no split {split or default}; choose one of {', '.join(splits)}")
        folder = splits[chosen]
        classes = _folders(folder)
    files = {one.name: list_image_files(one) for one in classes}
    if not any(files.values()):
        return None
    if split is not None and not splits:
        raise ValueError(f"{root} has no splits; leave out split")
    entries: list = [
        (BenchmarkImage(path.relative_to(folder).as_posix(), partial(read_file, path)), (name,))
        for name, paths in files.items()
        for path in paths
    ]
    entries += [BadSample(Reason.NO_LABEL, path.name) for path in list_image_files(folder) if path.parent == folder]
    names = next((home / CHINESE_NAMES for home in (folder, folder.parent) if (home / CHINESE_NAMES).is_file()), None)
    name = folder.name if folder == root else f"{root.name}-{folder.name}"
    return Found(name, entries, list(files), (), names)


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def _in_table(path: Path, label: str, data: DataSpec) -> list[tuple[BenchmarkImage, tuple[str, ...]] | BadSample]:
    home = data.image_folder
    table, folders = open_table(path, data.encoding), ImageFolders([home or path.parent], ())
    names = rename_columns(table.column_names, data.columns or {}, str(path))
    entries, in_files = list[tuple[BenchmarkImage, tuple[str, ...]] | BadSample](), list[BenchmarkImage]()
    for index in range(len(table)):
        where = table.describe_row(index)
        try:
            row = table.read_row(index, names)
            _, name, file, content = find_image(row, where, home)
            if content is None:
                in_files.append(image := folders.get_image(name, file))
            else:
                image = BenchmarkImage(name, partial(_bytes_of, table, index, names))
            entries.append((image, _labels(row.get(label), where)))
        except BadSample as bad:
            entries.append(bad)
    if in_files:
        folders.check_images(in_files)
    return entries


def _bytes_of(table: Table, index: int, names: Mapping[str, str]) -> bytes:
    *_, data = find_image(table.read_row(index, names), table.describe_row(index))
    return data or b""


def _in_samples(source: ShardedSource, label: str) -> Iterator:
    ids = ImageIds()
    for index in range(len(source)):
        try:
            sample = source[index]
            labels = _labels(sample.fields.get(label), sample.image_name)
            yield BenchmarkImage(ids.assign(sample, source.where(index)), partial(read_image, source, index)), labels
        except BadSample as bad:
            yield bad


def _labels(value: Any, name: str) -> tuple[str, ...]:
    if value in (None, "", []):
        raise BadSample(Reason.NO_LABEL, name)
    value = str(value) if isinstance(value, float) else value
    values = value if isinstance(value, list) else value.split(LIST_SEPARATOR) if isinstance(value, str) else [value]
    if not all(map(is_id, values)):
        raise BadSample(Reason.MALFORMED_ROW, name)
    return tuple(dict.fromkeys(str(one).strip() for one in values))
