"""Images with their classes, and the names of classes from any kind of file.

The class of an image is the folder that it is in, a column of a table, or a field of a sample.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText, Collector, ImageIds, read_image
from ernie_vil2.data.readers import ShardedSource, open_sources
from ernie_vil2.data.readers.columns import find_column, rename_columns
from ernie_vil2.data.readers.layout import SPLITS, ImageFolders, canonical_split
from ernie_vil2.data.readers.locations import LocalFile, find_locations
from ernie_vil2.data.readers.source import find_field
from ernie_vil2.data.readers.spreadsheets import LIST_SEPARATOR
from ernie_vil2.data.readers.tables import TABLES, Table, find_image, open_table
from ernie_vil2.data.samples import BadSample, BadSampleReport, Reason, Sample, is_id
from ernie_vil2.data.source_files import decode_path, list_image_files, read_file, read_json
from ernie_vil2.data.spec import TRAIN, DataLike, DataSpec
from ernie_vil2.io.files import read_text
from ernie_vil2.io.terminal import pluralize

LIST_MARK = "@"  # between a JSON file and the name of a list in it: `classnames.json@imagenet1k`
LABEL = "label"
CHINESE_NAMES = "label_cn.txt"  # Chinese names next to the folders of classes, as in Chinese-CLIP's data sets
MAX_SHOWN_NAMES = 10  # in a message

# ---- Names of classes ----


def read_list(source: str) -> list[str] | dict[str, str]:
    """Read texts from a file: a list in the order of the file, or texts by label.

    Args:
        source: a text file with a text in each line, or with `label<TAB>text` in each line. Or a JSON file with a list,
            or with an object of texts by label, or `FILE@NAME` with an object of lists.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has another form, it or an entry in it is empty, or a list in a text file is named.
    """
    file, mark, name = source.rpartition(LIST_MARK)
    path = Path(source)
    # The name of a folder may have the mark, too; an error is to name the file that the user has named.
    if mark and not path.exists() and Path(file).is_file():
        path = Path(file)
    else:
        name = ""
    if path.suffix.lower() == ".json":
        texts = _read_json_list(path, name)
    elif name:
        raise ValueError(f"{source}: only a JSON file has lists with names; leave out {LIST_MARK}{name}")
    else:
        texts = _read_lines(path)

    if isinstance(texts, dict):
        kind, entries = "class", list(texts.items())
    else:
        kind, entries = "entry", list(enumerate(texts, 1))
    if not all(isinstance(text, str) for _, text in entries):
        raise ValueError(f"{source}: a list of texts is expected, or texts by label")
    for key, text in entries:
        if not text.strip():
            problem = "has no name" if kind == "class" else "is empty"
            raise ValueError(f"{source}: {kind} {key} {problem}; write it, or take it out with what belongs to it")
    if not entries:
        raise ValueError(f"{source}: nothing in it")
    return texts


def _read_json_list(path: Path, name: str) -> list | dict:
    content = read_json(path, object)
    lists: dict[str, Any] = {}
    if isinstance(content, dict) and any(isinstance(value, list) for value in content.values()):
        lists = content
    if name or lists:
        if not isinstance(lists.get(name), list):
            listing = ", ".join(list(lists)[:MAX_SHOWN_NAMES]) or "none"
            if len(lists) > MAX_SHOWN_NAMES:
                listing += ", ..."
            raise ValueError(f"{path}: name one of its lists as {path.name}{LIST_MARK}NAME; it holds {listing}")
        return lists[name]
    if not isinstance(content, dict | list):
        raise ValueError(f"{path}: a list of texts is expected, or texts by label")
    return content


def _read_lines(path: Path) -> list[str] | dict[str, str]:
    lines = read_text(path).rstrip("\n ").split("\n")
    if lines == [""]:
        return []
    lines_without_tab = [number for number, line in enumerate(lines, 1) if "\t" not in line]
    if lines_without_tab:
        if not any("\t" in line.strip() for line in lines):
            return [line.strip() for line in lines]
        raise ValueError(
            f"{path}, line {lines_without_tab[0]}: there is no tab, as in other lines; write label<TAB>name in every "
            "line, or names without a tab"
        )
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        label, _, text = line.partition("\t")
        if label.strip() in texts:
            raise ValueError(f"{path}, line {number}: {label.strip()} is there twice")
        texts[label.strip()] = text.strip()
    return texts


def assign_class_names(
    labels: Collection[str], names: Sequence[str] | Mapping[str, str], source: str
) -> dict[str, str]:
    """Return the name of each class by its label, in the order of the classes.

    A list of names belongs to labels as follows. If labels are names themselves, they belong to themselves. If labels
    are numbers, names are counted from 0. Otherwise names belong to the sorted labels, and there must be as many.

    Args:
        labels: labels of the images. There may be names for more classes.
        names: names as `read_list` returns them.
        source: file of the names, for errors.

    Raises:
        ValueError: it is not clear which name belongs to which class.
    """
    if isinstance(names, Mapping):
        return dict(names)
    if not set(labels).isdisjoint(names):
        return {name: name for name in names}

    if all(label.isdecimal() for label in labels):
        labels_by_number = {int(label): label for label in labels}
        max_number = max(labels_by_number, default=0)
        if max_number >= len(names):
            raise ValueError(
                f"{source}: {pluralize(len(names), 'name')}, but there is a class {labels_by_number[max_number]}, "
                "counted from 0; give every class a line, or write label<TAB>name"
            )
        # Classes without images are numbered as the others: with leading zeros if all labels have the same width.
        widths = {len(label) for label in labels}
        width = max(widths) if len(widths) == 1 else 1
        class_names: dict[str, str] = {}
        for number, name in enumerate(names):
            class_names[labels_by_number.get(number, f"{number:0{width}d}")] = name
        return class_names

    if len(labels) != len(names):
        raise ValueError(
            f"{source}: {pluralize(len(names), 'name')} for {pluralize(len(labels), 'class', 'classes')}; give every "
            "class a line, in the order of the sorted labels, or write label<TAB>name"
        )
    return dict(zip(sorted(labels), names, strict=True))


# ---- Images with labels ----

Entry = tuple[BenchmarkImage, tuple[str, ...]] | BadSample  # an image with its labels, or why it cannot be used


class LabelledImages(NamedTuple):
    """Images with their labels.

    Attributes:
        name: name of the data.
        entries: images with labels, and errors.
        labels: labels of the classes, sorted; also of folders without images.
        files: files that were read.
        names_file: file with the Chinese names of the classes, if there is one.
    """

    name: str
    entries: list[Entry]
    labels: list[str]
    files: tuple[Path, ...]
    names_file: Path | None = None


def open_labelled(
    data: DataLike, names: Mapping[str, str] | None = None, *, label: str = LABEL, **fields: Any
) -> Benchmark:
    """Open images and their classes, as a benchmark whose texts are the classes.

    The id of a class is its label. Its text is its name in the first language, and its fields are the names in all
    languages.

    Args:
        data: a spec or paths: a folder with a folder for each class, or with such a folder for each split; tables with
            the columns `image` and `label`; or any data of `open_sources`.
        names: files of names by language, see `read_list`. None: `label_cn.txt` next to the folders, else the labels
            themselves: Chinese if a label has a Chinese character, otherwise English.
        label: column or field with the class of an image. If an image has several, it holds a list; in CSV they are
            separated by `|`.
        fields: fields of `DataSpec`. The default split is test, if there are several. With a `layout`, a folder is
            read as samples, whatever folders it has.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: the data are not clear, a class has no name, or no image can be used.
    """
    spec = DataSpec.from_data(data, **fields)
    images = _find_images(replace(spec, default_split=spec.default_split or "test"), label)
    names_by_language = _read_class_names(images, names)
    class_names = next(iter(names_by_language.values()))
    if len(class_names) < 2:
        raise ValueError(
            f"{images.name}: one class alone ({', '.join(class_names)}) is not a question; a folder for each class is "
            f"expected, or a table with the columns image and {label}"
        )

    collector = Collector()
    for class_label, name in class_names.items():
        translations = {language: names_of[class_label] for language, names_of in names_by_language.items()}
        collector.add_text(BenchmarkText(class_label, name, translations))
    for entry in images.entries:
        with collector.entry():
            if isinstance(entry, BadSample):
                raise entry
            image, labels = entry
            for class_label in labels:
                if class_label not in class_names:
                    raise BadSample(Reason.UNKNOWN_LABEL, f"{image.id}: {class_label}")
            collector.add_image(image, image.id, must_be_new=True)
            for class_label in labels:
                collector.add_pair(image.id, class_label)
    return collector.make_benchmark(images.name, images.files)


def _read_class_names(images: LabelledImages, sources: Mapping[str, str] | None) -> dict[str, dict[str, str]]:
    """Return the names of the classes by language and label; raise ValueError if a language lacks one."""
    if not sources and images.names_file:
        sources = {"zh": str(images.names_file)}
    names_by_language: dict[str, dict[str, str]] = {}
    for language, source in (sources or {}).items():
        names_by_language[language] = assign_class_names(images.labels, read_list(source), source)
    if not names_by_language:
        language = _guess_language(images.labels)
        names_by_language[language] = {label: label.replace("_", " ") for label in images.labels}

    first_names = next(iter(names_by_language.values()))
    for language, names in names_by_language.items():
        unmatched_labels = sorted(first_names.keys() ^ names.keys())
        if unmatched_labels:
            raise ValueError(
                f"class {unmatched_labels[0]} has a name in one language and none in another ({language}); write it"
            )
    return names_by_language


def _guess_language(labels: Sequence[str]) -> str:
    return "zh" if any("\u4e00" <= character <= "\u9fff" for character in "".join(labels)) else "en"


def _find_images(data: DataSpec, label: str) -> LabelledImages:
    """Find labelled images in folders of classes, in tables, or in the samples of any other source.

    Raises:
        ValueError: there is a split where data have none, or nothing has a label.
    """
    path = Path(data.paths[0])
    if path.is_dir() and not data.layout:  # a layout is one of samples
        images = _find_in_folders(path, data.split, data.default_split)
        if images:
            if len(data.paths) > 1:
                raise ValueError(f"{path} is a folder of classes; give it alone")
            return images

    entries: list[Entry] = []
    files: list[Path] = []
    if all(Path(name).suffix.lower() in TABLES for name in data.paths):
        if data.split:
            raise ValueError(f"{path} has no splits; name the table of the split")
        for pattern in data.paths:
            for location in find_locations(pattern):
                if not isinstance(location, LocalFile):
                    raise ValueError(f"{location.name}: a table of images is read from this machine; copy it here")
                files.append(Path(location.name))
        image_ids = ImageIds()
        for table in files:
            entries += _read_table(table, label, data, image_ids)
    else:
        source = open_sources(data)
        entries += _read_samples(source, label)
        for shard in source.shards:
            files += [file for file in shard.files if file.is_file()]

    labels: set[str] = set()
    has_label = False  # also true if a labelled image cannot be used: then the column is the right one
    for entry in entries:
        if isinstance(entry, BadSample):
            has_label |= entry.reason != Reason.NO_LABEL
        else:
            has_label = True
            labels.update(entry[1])
    if not has_label:
        raise ValueError(f"{path}: nothing has a {label}; say which column or field is the class (label, --label)")
    if not labels:
        report = BadSampleReport()
        bad_entries = [entry for entry in entries if isinstance(entry, BadSample)]
        report.add(len(entries), [(error.reason, error.name) for error in bad_entries])
        raise ValueError(f"{path}: no {label} can be used\n{report}")
    return LabelledImages(path.stem, entries, sorted(labels), tuple(files))


def _find_in_folders(root: Path, split: str | None, default: str | None) -> LabelledImages | None:
    """Return the images in the folders of classes, by their folder; None if no folder has an image file."""
    # A folder of a split has folders itself; one of a class that is called "test" has images.
    folder = root
    class_folders = _list_folders(root)
    splits: defaultdict[str, list[Path]] = defaultdict(list)
    for candidate in class_folders:
        if canonical_split(candidate.name) in SPLITS and _list_folders(candidate):
            splits[canonical_split(candidate.name)].append(candidate)
    if splits:
        folder = _choose_split_folder(root, splits, split, default)
        class_folders = _list_folders(folder)

    # Two folders may be one class, named in UTF-8 and in GBK.
    files_by_class: defaultdict[str, list[Path]] = defaultdict(list)
    for class_folder in class_folders:
        files_by_class[decode_path(class_folder.name)] += list_image_files(class_folder)
    if not any(files_by_class.values()):
        return None
    if split is not None and not splits:
        raise ValueError(f"{root} has no splits; leave out split")
    entries: list[Entry] = []
    for class_name, paths in files_by_class.items():
        for path in paths:
            image = BenchmarkImage(decode_path(str(path.relative_to(folder))), partial(read_file, path))
            entries.append((image, (class_name,)))
    # Images next to the folders have no class.
    for path in list_image_files(folder):
        if path.parent == folder:
            entries.append(BadSample(Reason.NO_LABEL, path.name))

    # The names lie next to the folders of classes, or next to the folders of splits.
    names_file: Path | None = None
    for parent in (folder, folder.parent):
        if (parent / CHINESE_NAMES).is_file():
            names_file = parent / CHINESE_NAMES
            break
    name = folder.name if folder == root else f"{root.name}-{folder.name}"
    return LabelledImages(name, entries, sorted(files_by_class), (), names_file)


def _choose_split_folder(
    root: Path, splits: Mapping[str, Sequence[Path]], split: str | None, default: str | None
) -> Path:
    name = canonical_split(split or default or "test")
    # As elsewhere, another split may replace a missing default, except for training.
    if split is None and name != TRAIN and name not in splits:
        name = next(candidate for candidate in SPLITS if candidate in splits)
    if name not in splits:
        raise ValueError(f"{root} has no split {split or default}; choose one of {', '.join(splits)}")
    # Several folders may be the same split by their names, such as val and valid.
    folders = [folder for folder in splits[name] if folder.name == split] or splits[name]
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise ValueError(f"{root}: the folders {names} are the same split ({name}); name one of them")
    return folders[0]


def _list_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _read_table(path: Path, label: str, data: DataSpec, image_ids: ImageIds) -> list[Entry]:
    """Return the rows of a table, which needs no column of texts."""
    table = open_table(path, data.encoding)
    folders = ImageFolders([data.image_folder or path.parent], ())
    names = rename_columns(table.column_names, data.columns or {}, str(path))
    label = find_column(label, table.column_names, names)
    entries: list[Entry] = []
    images_in_files: list[BenchmarkImage] = []
    for index in range(len(table)):
        where = table.describe_row(index)
        try:
            row = table.read_row(index, names)
            value = find_image(row, where, data.image_folder)
            if value.data is None:
                # As when its samples are read: spaces at the end are usually a mistake, but may belong to the name.
                image = folders.get_image(value.name, value.file, value.file.strip())
                images_in_files.append(image)
            else:
                # Rows with images in them often have equal names: Hugging Face drops the folders of `cat/1.png`.
                image_id = image_ids.assign(Sample(value.name, "", value.data, {}), f"{path}, {index + 1}")
                image = BenchmarkImage(image_id, partial(_read_table_image, table, index, names))
            entries.append((image, _parse_labels(row.get(label), where)))
        except BadSample as error:
            entries.append(error)
    if images_in_files:
        folders.check_images(images_in_files)
    return entries


def _read_table_image(table: Table, index: int, names: Mapping[str, str]) -> bytes:
    return find_image(table.read_row(index, names), table.describe_row(index)).data or b""


def _read_samples(source: ShardedSource, label: str) -> Iterator[Entry]:
    image_ids = ImageIds()
    fields: dict[int, str] = {}  # field of the label in each shard
    for index in range(len(source)):
        try:
            sample = source[index]
            shard_number, _ = source.locate(index)
            if shard_number not in fields:
                fields[shard_number] = find_field(source.shards[shard_number], label)
            labels = _parse_labels(sample.fields.get(fields[shard_number]), sample.image_name)
            image_id = image_ids.assign(sample, source.describe_location(index))
            yield BenchmarkImage(image_id, partial(read_image, source, index)), labels
        except BadSample as error:
            yield error


def _parse_labels(value: Any, name: str) -> tuple[str, ...]:
    is_nan = isinstance(value, float) and math.isnan(value)  # so pandas marks what is missing
    if is_nan or value in (None, "", []):
        raise BadSample(Reason.NO_LABEL, name)
    if isinstance(value, list):
        values = value
    elif isinstance(value, str):
        values = value.split(LIST_SEPARATOR)
    elif isinstance(value, float):
        # Whole numbers are floats where some are missing, as in pandas. Written as 10.0, a label would be no number of
        # a class, and come before 2.0 in the order of the names.
        values = [str(int(value)) if value.is_integer() else str(value)]
    else:
        values = [value]
    if not all(map(is_id, values)):
        raise BadSample(Reason.MALFORMED_ROW, name)
    return tuple(dict.fromkeys(str(label).strip() for label in values))
