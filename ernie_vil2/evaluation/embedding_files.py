"""Embeddings on disk in three formats, to be used elsewhere or scored without a model.

- `numpy`, our own: `image_embeddings.npy` `[N, D]` and `text_embeddings.npy` `[M, D]` float32. Their rows are named, in
  the same order, by `images.jsonl` (`{"image_id"}`) and `texts.jsonl` (`{"text_id", "text"}`); `pairs.jsonl`
  (`{"image_id", "text_id"}`) says which images and texts belong together.
- `official`, the text file of the official ERNIE-ViL 2.0 release. Each row is a pair: the text's embedding as numbers
  separated by spaces, a tab, the image's embedding, a tab, and `1`. It has no ids: its rows are those of the TSV file.
- `chinese-clip`, the feature files of Chinese-CLIP: `{split}_imgs.img_feat.jsonl` (`{"image_id", "feature"}`) and
  `{split}_texts.txt_feat.jsonl` (`{"text_id", "feature"}`), next to the `{split}_texts.jsonl` of its data sets
  (`{"text_id", "text", "image_ids"}`).

Embeddings are written and read unchanged; to score them by dot product, they have to be L2-normalised.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText, ImageIds
from ernie_vil2.data.readers import ShardedSource, TsvSource
from ernie_vil2.data.samples import BadSample, BadSampleReport, Reason, is_id, parse_object
from ernie_vil2.data.source_files import check_widths, open_embeddings, read_numbered_lines
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.report import write_json_lines
from ernie_vil2.io.files import atomic_write

# What the official release calls its file.
OFFICIAL_FILE = "cross_modal_embeddings.out"

_IMAGE_FEATURES, _TEXT_FEATURES, _TEXTS = "_imgs.img_feat.jsonl", "_texts.txt_feat.jsonl", "_texts.jsonl"
# Largest difference between numbers of two embeddings that count as equal. Two runs of a model on the same input differ
# by less, two inputs by more.
_TOLERANCE = 1e-3
# Chinese-CLIP reads ids into tensors of 63-bit numbers, which hold any number of 18 digits.
_MAX_ID_DIGITS = 18


def read_embeddings(
    path: str | Path, annotations: str | Path | None = None, split: str | None = None
) -> EncodedBenchmark:
    """Read embeddings from a folder in our own format or Chinese-CLIP's, or from an official text file or its folder.

    The images have ids, but no content: `BenchmarkImage.read` raises BadSample.

    Args:
        path: the file or folder.
        annotations: file that names the rows and pairs. For an official file the TSV that it was computed from;
            without it, each row is an image and a text of its own, called by the row's number from 1. For Chinese-CLIP
            the JSONL file of the texts; default: the one next to the features.
        split: for Chinese-CLIP, the split to read if the folder has several.

    Raises:
        FileNotFoundError: there is nothing at `path`, or no file of a known format.
        ValueError: a row is malformed, not finite or of another width, an id is unknown or repeated, or the files do
            not belong together; the message names file and line.
    """
    path = Path(path)
    if (path / "image_embeddings.npy").is_file():
        return read_numpy(path)
    if any(path.glob(f"*{_IMAGE_FEATURES}")):
        return read_chinese_clip(path, split, annotations)
    for file in (path, path / OFFICIAL_FILE):
        if file.is_file():
            return read_official(file, annotations)
    raise FileNotFoundError(
        f"{path}: no embeddings here; give a folder with image_embeddings.npy or *{_IMAGE_FEATURES}, "
        f"or an official text file such as {OFFICIAL_FILE}"
    )


def write_numpy(folder: str | Path, encoded: EncodedBenchmark) -> None:
    """Write our own format into a folder, which is made if missing; a side without rows gets no file."""
    folder, benchmark = Path(folder), encoded.benchmark
    folder.mkdir(parents=True, exist_ok=True)
    image_names = [{"image_id": image.id} for image in benchmark.images]
    text_names = [{"text_id": text.id, "text": text.text} for text in benchmark.texts]
    for kind, names, embeddings in (
        ("image", image_names, encoded.image_embeddings),
        ("text", text_names, encoded.text_embeddings),
    ):
        if names:
            with atomic_write(folder / f"{kind}_embeddings.npy") as draft, draft.open("wb") as file:
                np.save(file, embeddings.astype(np.float32, copy=False), allow_pickle=False)
            write_json_lines(folder / f"{kind}s.jsonl", names)
    if len(benchmark.pairs):
        pairs = []
        for image_row, text_row in benchmark.pairs.tolist():
            pairs.append({"image_id": benchmark.images[image_row].id, "text_id": benchmark.texts[text_row].id})
        write_json_lines(folder / "pairs.jsonl", pairs)


def read_numpy(folder: str | Path) -> EncodedBenchmark:
    """Read our own format, with the arrays as memory maps; errors as for `read_embeddings`."""
    folder = Path(folder)
    images, texts = _Side("image"), _Side("text")
    arrays, captions = [], []
    for side in (images, texts):
        array = open_embeddings(folder / f"{side.kind}_embeddings.npy")
        names_file = folder / f"{side.kind}s.jsonl"
        entries = list(_read_json_lines(names_file))
        if len(entries) != len(array):
            raise ValueError(
                f"{names_file}: {len(entries)} rows for {len(array)} embeddings; the folder mixes two runs, extract "
                "again"
            )
        for (place, entry), embedding in zip(entries, array, strict=True):
            side.add(_get_id(entry, f"{side.kind}_id", place), embedding, place)
            if side is texts:
                captions.append(_get_text(entry, place))
        arrays.append(array)

    # Rows without a pair are part of the gallery, so pairs are read last and may leave out rows.
    pairs = []
    for place, entry in _read_json_lines(folder / "pairs.jsonl"):
        image_row = images.find_row(_get_id(entry, "image_id", place), place)
        text_row = texts.find_row(_get_id(entry, "text_id", place), place)
        pairs.append((image_row, text_row))
    files = [folder / "image_embeddings.npy", folder / "text_embeddings.npy", folder / "pairs.jsonl"]
    return _make_encoded(images, texts, captions, pairs, files, arrays)


def read_benchmark_embeddings(folder: str | os.PathLike, benchmark: Benchmark) -> tuple[EncodedBenchmark, list[str]]:
    """Read another library's embeddings of a benchmark, and normalise them.

    Args:
        folder: folder with `image_embeddings.npy` and `text_embeddings.npy`. Their rows are named by `images.jsonl` and
            `texts.jsonl` as `write_numpy` writes them, or by `images.txt` and `texts.txt`, an id or a text per line.
            They may be in any order; rows that the benchmark does not have are left out.
        benchmark: the benchmark.

    Returns:
        The embeddings in the order of the benchmark, and remarks on them.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: a row of the benchmark has no embedding, or a file is not as described.
    """
    folder, remarks, arrays = Path(folder), [], []
    for kind, entries in (("image", benchmark.images), ("text", benchmark.texts)):
        array = np.asarray(open_embeddings(folder / f"{kind}_embeddings.npy"))
        names = _read_row_names(folder, kind)
        if len(names) != len(array):
            raise ValueError(f"{folder}: {len(names):,} names of {kind}s for {len(array):,} embeddings")

        rows, missing_ids = _match_rows(entries, names)
        if missing_ids:
            raise ValueError(
                f"{folder}: no embedding of {len(missing_ids):,} of the {len(entries):,} {kind}s of {benchmark.name}, "
                f"{missing_ids[0]!r} the first; embed the same data, and name each row by its id"
            )
        embeddings = array[rows].astype(np.float32)
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        if not np.isfinite(embeddings).all() or not norms.all():
            raise ValueError(f"{folder}: an embedding of {kind}s is not finite or zero")
        if np.abs(norms - 1).max(initial=0) > _TOLERANCE:
            remarks.append(f"its {kind} embeddings were not normalised; they have been normalised for scoring")
        arrays.append(embeddings / norms)
    check_widths(folder, *arrays)
    return EncodedBenchmark(benchmark, arrays[0], arrays[1], BadSampleReport()), remarks


def _read_row_names(folder: Path, kind: str) -> list[tuple[str, str | None]]:
    """Return the id of each row, and its text if the file has it."""
    names: list[tuple[str, str | None]] = []
    plain_file = folder / f"{kind}s.txt"
    if plain_file.is_file():
        for _, line in read_numbered_lines(plain_file):
            names.append((line.decode("utf-8", "replace").strip(), None))
    else:
        for place, entry in _read_json_lines(folder / f"{kind}s.jsonl"):
            names.append((_get_id(entry, f"{kind}_id", place), entry.get("text")))
    return names


def _match_rows(
    entries: Sequence[BenchmarkImage] | Sequence[BenchmarkText], names: Sequence[tuple[str, str | None]]
) -> tuple[list[int], list[str]]:
    """Find the row of each image or text of a benchmark by its id, and for texts else by the text.

    Returns:
        The rows, and the ids of entries that have no row.
    """
    row_of_id = {name: row for row, (name, _) in enumerate(names)}
    row_of_text = {text: row for row, (_, text) in enumerate(names) if text is not None}
    rows, missing_ids = [], []
    for entry in entries:
        row = row_of_id.get(entry.id)
        if isinstance(entry, BenchmarkText):
            # The text of this id may be in another language.
            if row is not None and names[row][1] not in (None, entry.text):
                row = None
            if row is None:
                row = row_of_text.get(entry.text, row_of_id.get(entry.text))
        if row is None:
            missing_ids.append(entry.id)
        else:
            rows.append(row)
    return rows, missing_ids


def write_official(path: str | Path, encoded: EncodedBenchmark, rows: np.ndarray | None = None) -> None:
    """Write the official text format, with numbers as the official release prints them: float32, shortest form.

    Args:
        path: the file.
        encoded: the embeddings.
        rows: `[R, 2]`, (image row, text row) of each line, such as from `read_official_rows`; None: the benchmark's
            pairs.
    """
    with atomic_write(path) as draft, draft.open("w", encoding="ascii", newline="\n") as file:
        for image_row, text_row in encoded.benchmark.pairs if rows is None else rows:
            columns = []
            for embedding in (encoded.text_embeddings[text_row], encoded.image_embeddings[image_row]):
                columns.append(" ".join(map(str, embedding.astype(np.float32))))
            file.write("\t".join([*columns, "1\n"]))


def read_official_rows(tsv: Iterable[str | Path], benchmark: Benchmark) -> np.ndarray:
    """Return the rows of official TSV files in their order, with repeated pairs.

    A row is left out if its image or its text could not be used and is not in the benchmark.

    Returns:
        `[R, 2]`, (image row, text row).
    """
    image_rows = {image.id: row for row, image in enumerate(benchmark.images)}
    text_rows = {text.id: row for row, text in enumerate(benchmark.texts)}
    rows = []
    for image_id, text_id in _read_tsv_ids(*tsv):
        if image_id in image_rows and text_id in text_rows:
            rows.append((image_rows[image_id], text_rows[text_id]))
    return np.array(rows, np.int64).reshape(-1, 2)


def read_official(path: str | Path, tsv: str | Path | None = None) -> EncodedBenchmark:
    """Read the official text format; errors as for `read_embeddings`.

    Args:
        path: the file.
        tsv: TSV file that it was computed from: it has as many rows, and equal ids have equal embeddings. Rows of one
            image id become one image, rows of one text become one text. None: rows are called by their number.
    """
    path = Path(path)
    row_ids = _read_tsv_ids(tsv) if tsv else _number_rows()
    images, texts, pairs = _Side("image"), _Side("text"), []
    for place, text_embedding, image_embedding in _read_official_lines(path):
        ids = next(row_ids, None)
        if ids is None:
            raise ValueError(f"{place}: {tsv} has no such row; give the TSV that this file was computed from")
        image_id, text_id = ids
        # The file repeats an image for each of its texts, so a row is new or must have the known embedding.
        for side, name, embedding in ((images, image_id, image_embedding), (texts, text_id, text_embedding)):
            if name not in side.rows:
                side.add(name, embedding, place)
            elif not side.has_embedding(name, embedding):
                raise ValueError(
                    f"{place}: {side.kind} {name!r} had another embedding before; "
                    f"{tsv} is not the TSV that this file was computed from"
                )
        pairs.append((images.rows[image_id], texts.rows[text_id]))
    if tsv and next(row_ids, None):
        raise ValueError(f"{path}: {len(pairs)} rows, but {tsv} has more; give the TSV that it was computed from")

    if tsv:
        return _make_encoded(images, texts, list(texts.rows), pairs, [path, Path(tsv)])
    return _make_encoded(images, texts, [""] * len(texts.rows), pairs, [path])


def write_chinese_clip(folder: str | Path, encoded: EncodedBenchmark, split: str = "test") -> None:
    """Write Chinese-CLIP's feature files and their texts' JSONL; a side without rows gets no file.

    Ids are numbers from `number_ids`. If they differ from the benchmark's ids, the features keep these as `name`.

    Args:
        folder: folder of the files; made if missing.
        encoded: the embeddings.
        split: name of the split, with which the files' names begin.
    """
    folder, benchmark = Path(folder), encoded.benchmark
    folder.mkdir(parents=True, exist_ok=True)
    image_ids, text_ids = number_ids(benchmark.images), number_ids(benchmark.texts)
    if benchmark.images:
        features = _list_features("image_id", image_ids, benchmark.images, encoded.image_embeddings)
        write_json_lines(folder / f"{split}{_IMAGE_FEATURES}", features)
    if benchmark.texts:
        features = _list_features("text_id", text_ids, benchmark.texts, encoded.text_embeddings)
        write_json_lines(folder / f"{split}{_TEXT_FEATURES}", features)

        images_of_text = defaultdict(list)
        for image_row, text_row in benchmark.pairs.tolist():
            images_of_text[text_row].append(image_ids[image_row])
        entries = []
        for row, (text_id, text) in enumerate(zip(text_ids, benchmark.texts, strict=True)):
            entries.append({"text_id": text_id, "text": text.text, "image_ids": images_of_text[row]})
        write_json_lines(folder / f"{split}{_TEXTS}", entries)


def _list_features(
    id_key: str,
    ids: Sequence[int],
    entries: Sequence[BenchmarkImage] | Sequence[BenchmarkText],
    embeddings: np.ndarray,
) -> Iterator[dict[str, Any]]:
    for number, entry, embedding in zip(ids, entries, embeddings, strict=True):
        feature: dict[str, Any] = {id_key: number}
        if str(number) != entry.id:
            feature["name"] = entry.id
        feature["feature"] = embedding.tolist()
        yield feature


def number_ids(entries: Sequence[BenchmarkImage | BenchmarkText]) -> list[int]:
    """Return ids of images or texts as numbers, because Chinese-CLIP's evaluation refuses any other.

    They are the ids themselves if all ids are numbers of at most 63 bits; otherwise the row numbers, from 0.
    """
    numbers = []
    for entry in entries:
        is_number = entry.id.isdecimal() and len(entry.id) <= _MAX_ID_DIGITS and str(int(entry.id)) == entry.id
        if not is_number:
            return list(range(len(entries)))
        numbers.append(int(entry.id))
    return numbers


def read_chinese_clip(
    folder: str | Path, split: str | None = None, annotations: str | Path | None = None
) -> EncodedBenchmark:
    """Read Chinese-CLIP's feature files; arguments and errors as for `read_embeddings`.

    Images and texts are in the order of their feature files; a text with empty `image_ids` has no pair.
    """
    folder = Path(folder)
    splits = sorted(path.name.removesuffix(_IMAGE_FEATURES) for path in folder.glob(f"*{_IMAGE_FEATURES}"))
    if split is None and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        raise ValueError(f"{folder}: features of the splits {', '.join(splits) or '(none)'}; choose one of them")
    image_file, text_file = folder / f"{split}{_IMAGE_FEATURES}", folder / f"{split}{_TEXT_FEATURES}"
    annotation_file = Path(annotations) if annotations else folder / f"{split}{_TEXTS}"

    images, image_names = _read_features(image_file, "image")
    texts, text_names = _read_features(text_file, "text")

    # Pairs are named by the numbers, so they are read before the sides get their names.
    captions: dict[int, str] = {}
    pairs = []
    for place, entry in _read_json_lines(annotation_file):
        text_row = texts.find_row(_get_id(entry, "text_id", place), place)
        captions[text_row] = _get_text(entry, place)
        image_ids = entry.get("image_ids")
        if not isinstance(image_ids, list):
            raise ValueError(f"{place}: no image_ids, which is a list")
        for image_id in image_ids:
            pairs.append((images.find_row(str(image_id), place), text_row))
    unknown = [name for name, row in texts.rows.items() if row not in captions]
    if unknown:
        raise ValueError(
            f"{text_file}: {annotation_file} does not know text {unknown[0]!r} ({len(unknown)} such texts)"
        )

    # From here on rows are named by the benchmark's ids, which `write_chinese_clip` keeps as names.
    for side, names, file in ((images, image_names, image_file), (texts, text_names, text_file)):
        side.rows = {names[number]: row for number, row in side.rows.items()}
        if len(side.rows) < len(names):
            raise ValueError(f"{file}: one name comes with several ids")
    captions_in_order = [captions[row] for row in range(len(captions))]
    return _make_encoded(images, texts, captions_in_order, pairs, [image_file, text_file, annotation_file])


def _read_features(path: Path, kind: str) -> tuple[_Side, dict[str, str]]:
    """Read a feature file; return its side, with rows by number, and the benchmark's id of each number."""
    side = _Side(kind)
    names = {}
    for place, entry in _read_json_lines(path):
        number = _get_id(entry, f"{kind}_id", place)
        side.add(number, _parse_embedding(entry.get("feature"), place), place)
        names[number] = number
        if "name" in entry:  # the number replaces an id that Chinese-CLIP could not read
            names[number] = _get_id(entry, "name", place)
    return side, names


class _Side:
    """Images or texts of a file.

    Attributes:
        kind: "image" or "text".
        rows: row of each id.
        embeddings: embedding of each row.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self.rows: dict[str, int] = {}
        self.embeddings: list[np.ndarray] = []

    def add(self, name: str, embedding: np.ndarray, place: str) -> None:
        """Add a row; raise ValueError if its id is known, or its embedding cannot be used."""
        if name in self.rows:
            raise ValueError(f"{place}: {self.kind} {name!r} comes a second time")
        if embedding.ndim != 1 or not embedding.size:
            raise ValueError(f"{place}: the embedding of {self.kind} {name!r} is not a row of numbers")
        if self.embeddings and len(embedding) != len(self.embeddings[0]):
            raise ValueError(
                f"{place}: the embedding of {self.kind} {name!r} is {len(embedding)} wide, "
                f"those before are {len(self.embeddings[0])}"
            )
        if not np.isfinite(embedding).all():
            raise ValueError(f"{place}: the embedding of {self.kind} {name!r} is not finite")
        self.rows[name] = len(self.rows)
        self.embeddings.append(embedding)

    def has_embedding(self, name: str, embedding: np.ndarray) -> bool:
        """Return whether the row of this id has this embedding, up to rounding."""
        stored = self.embeddings[self.rows[name]]
        return stored.shape == embedding.shape and bool(np.abs(stored - embedding).max() <= _TOLERANCE)

    def find_row(self, name: str, place: str) -> int:
        """Return the row of an id; raise ValueError if there is none."""
        if name not in self.rows:
            raise ValueError(f"{place}: there is no embedding of {self.kind} {name!r}")
        return self.rows[name]


def _make_encoded(
    images: _Side,
    texts: _Side,
    captions: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    files: Sequence[Path],
    arrays: Sequence[np.ndarray] | None = None,
) -> EncodedBenchmark:
    """Make a benchmark with embeddings from what was read.

    Args:
        images: the images.
        texts: the texts.
        captions: text of each row of `texts`.
        pairs: (image row, text row); repeated ones count once.
        files: files that were read; the benchmark is called after them.
        arrays: embeddings of both sides as arrays; None: those of the sides are stacked.
    """
    if not pairs:
        raise ValueError(f"{files[-1]}: no pair of an image and a text")
    image_embeddings, text_embeddings = arrays or (np.stack(images.embeddings), np.stack(texts.embeddings))
    check_widths(files[0], image_embeddings, text_embeddings)
    report = BadSampleReport()
    report.add(len(pairs), [])
    name = files[0].stem
    if len(files) > 1:
        name = files[0].parent.name
    benchmark = Benchmark(
        name,
        [BenchmarkImage(name, partial(_raise_no_content, name)) for name in images.rows],
        [BenchmarkText(name, caption) for name, caption in zip(texts.rows, captions, strict=True)],
        np.array(list(dict.fromkeys(pairs)), np.int64),
        report,
        tuple(files),
    )
    return EncodedBenchmark(benchmark, image_embeddings, text_embeddings, BadSampleReport())


def _raise_no_content(name: str) -> bytes:
    raise BadSample(Reason.ONLY_EMBEDDING, name)


def _read_official_lines(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the place, the text embedding and the image embedding of each row."""
    for place, line in read_numbered_lines(path):
        columns = line.split(b"\t")
        if len(columns) != 3 or columns[2] != b"1":
            raise ValueError(f"{place}: a row is a text embedding, a tab, an image embedding, a tab, and 1")
        # Other characters than ASCII are replaced, and then refused because they are not numbers.
        text_numbers = columns[0].decode("ascii", "replace").split()
        image_numbers = columns[1].decode("ascii", "replace").split()
        yield place, _parse_embedding(text_numbers, place), _parse_embedding(image_numbers, place)


def _read_tsv_ids(*paths: str | Path) -> Iterator[tuple[str, str]]:
    """Yield image id and text id of every row that can be read, the same as `open_benchmark` gives them."""
    source, image_ids = ShardedSource([TsvSource(path) for path in paths]), ImageIds()
    for index in range(len(source)):
        try:
            sample = source[index]
        except BadSample:
            continue
        yield image_ids.assign(sample, source.describe_location(index)), sample.captions[""].strip()


def _number_rows() -> Iterator[tuple[str, str]]:
    """Yield the row's number, from 1, as the id of its image and of its text."""
    for number in count(1):
        yield str(number), str(number)


def _read_json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    for place, line in read_numbered_lines(path):
        try:
            yield place, parse_object(line, place)
        except BadSample as error:
            raise ValueError(f"{error}; {path} is not JSON lines") from error


def _get_id(entry: dict, key: str, place: str) -> str:
    if not is_id(entry.get(key)):
        raise ValueError(f"{place}: no {key}, which is a whole number or a string")
    return str(entry[key])


def _get_text(entry: dict, place: str) -> str:
    if not isinstance(entry.get("text"), str):
        raise ValueError(f"{place}: no text")
    return entry["text"]


def _parse_embedding(values: object, place: str) -> np.ndarray:
    try:
        return np.array(values, np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: malformed embedding ({error})") from error
