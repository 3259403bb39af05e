"""Embeddings on disk in three formats, to be used elsewhere or scored without a model.

- `numpy`, our own: `image_embeddings.npy` `[N, D]` and `text_embeddings.npy` `[M, D]` float32. Their rows are named, in
  the same order, by `images.jsonl` (`{"image_id"}`) and `texts.jsonl` (`{"text_id", "text"}`); `pairs.jsonl`
  (`{"image_id", "text_id"}`) says which images and texts belong together.
- `official`, the text file of the official ERNIE-ViL 2.0 release. Each row is a pair: the text's embedding as numbers
  separated by spaces, a tab, the image's embedding, a tab, and `1`. It has no ids: each row belongs to the row of the
  same number in the TSV file that the embeddings were computed from, of which rows that cannot be used do not count.
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

# Name of the official release's file.
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
            without it, each row is an image and a text of its own, whose id is the row's number from 1. For
            Chinese-CLIP the JSONL file of the texts; default: the one next to the features. Our own format takes none.
        split: for Chinese-CLIP, the split to read if the folder has several.

    Raises:
        FileNotFoundError: there is nothing at `path`, or no file of a known format.
        ValueError: a row is malformed, not finite or of another width, an id is unknown or repeated, or the files do
            not belong together; the message names file and line.
    """
    path = Path(path)
    if (path / "image_embeddings.npy").is_file():
        if annotations:
            raise ValueError(f"{path} names its rows itself: leave {annotations} out")
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
    """Write our own format into a folder, creating it if needed; without images (or texts) their files are left out."""
    folder, benchmark = Path(folder), encoded.benchmark
    folder.mkdir(parents=True, exist_ok=True)
    image_entries = [{"image_id": image.id} for image in benchmark.images]
    text_entries = [{"text_id": text.id, "text": text.text} for text in benchmark.texts]
    for kind, entries, embeddings in (
        ("image", image_entries, encoded.image_embeddings),
        ("text", text_entries, encoded.text_embeddings),
    ):
        if entries:
            with atomic_write(folder / f"{kind}_embeddings.npy") as draft, draft.open("wb") as file:
                np.save(file, embeddings.astype(np.float32, copy=False), allow_pickle=False)
            write_json_lines(folder / f"{kind}s.jsonl", entries)
    if len(benchmark.pairs):
        pairs = []
        for image_row, text_row in benchmark.pairs.tolist():
            pairs.append({"image_id": benchmark.images[image_row].id, "text_id": benchmark.texts[text_row].id})
        write_json_lines(folder / "pairs.jsonl", pairs)


def read_numpy(folder: str | Path) -> EncodedBenchmark:
    """Read our own format, with the arrays as memory maps; errors as for `read_embeddings`."""
    folder = Path(folder)
    images, texts = _EmbeddedRows("image"), _EmbeddedRows("text")
    arrays, captions = [], []
    for embedded_rows in (images, texts):
        array = open_embeddings(folder / f"{embedded_rows.kind}_embeddings.npy")
        names_file = folder / f"{embedded_rows.kind}s.jsonl"
        entries = list(_read_json_lines(names_file))
        if len(entries) != len(array):
            raise ValueError(
                f"{names_file}: {len(entries)} rows for {len(array)} embeddings; the folder mixes two runs, extract "
                "again"
            )
        for (location, entry), embedding in zip(entries, array, strict=True):
            embedded_rows.add(_get_id(entry, f"{embedded_rows.kind}_id", location), embedding, location)
            if embedded_rows is texts:
                captions.append(_get_text(entry, location))
        arrays.append(array)

    # Pairs refer to rows by their ids, so they are read after the rows. A row without a pair stays in the gallery.
    pairs = []
    for location, entry in _read_json_lines(folder / "pairs.jsonl"):
        image_row = images.find_row(_get_id(entry, "image_id", location), location)
        text_row = texts.find_row(_get_id(entry, "text_id", location), location)
        pairs.append((image_row, text_row))
    files = [folder / "image_embeddings.npy", folder / "text_embeddings.npy", folder / "pairs.jsonl"]
    return _make_encoded(images, texts, captions, pairs, files, arrays)


def read_benchmark_embeddings(folder: str | os.PathLike, benchmark: Benchmark) -> tuple[EncodedBenchmark, list[str]]:
    """Read another library's embeddings of a benchmark, and normalise them.

    Args:
        folder: folder with `image_embeddings.npy` and `text_embeddings.npy`. Their rows are named by `images.jsonl` and
            `texts.jsonl` as `write_numpy` writes them, or by `images.txt` and `texts.txt` with one id or text per line.
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
        row_names = _read_row_names(folder, kind)
        if len(row_names) != len(array):
            raise ValueError(f"{folder}: {len(row_names):,} names of {kind}s for {len(array):,} embeddings")

        rows, missing_ids = _match_rows(entries, row_names)
        if missing_ids:
            raise ValueError(
                f"{folder}: no embedding of {len(missing_ids):,} of the {len(entries):,} {kind}s of {benchmark.name}, "
                f"{missing_ids[0]!r} the first; embed the same data, and name each row by its id"
            )
        embeddings = array[rows].astype(np.float32)
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not norms.all():
            raise ValueError(f"{folder}: the embedding of one of the {kind}s is zero or not finite")
        if np.abs(norms - 1).max(initial=0) > _TOLERANCE:
            remarks.append(f"its {kind} embeddings were not normalised; they have been normalised for scoring")
        arrays.append(embeddings / norms)
    check_widths(folder, *arrays)
    return EncodedBenchmark(benchmark, arrays[0], arrays[1], BadSampleReport()), remarks


def _read_row_names(folder: Path, kind: str) -> list[tuple[str, str | None]]:
    """Return the name of each row: its id, and its text if the file has one. In a plain file the id may be a text."""
    row_names: list[tuple[str, str | None]] = []
    plain_file = folder / f"{kind}s.txt"
    if plain_file.is_file():
        for _, line in read_numbered_lines(plain_file):
            row_names.append((line.decode("utf-8", "replace").strip(), None))
    else:
        for location, entry in _read_json_lines(folder / f"{kind}s.jsonl"):
            text = None if entry.get("text") is None else _get_text(entry, location)
            row_names.append((_get_id(entry, f"{kind}_id", location), text))
    return row_names


def _match_rows(
    entries: Sequence[BenchmarkImage] | Sequence[BenchmarkText], row_names: Sequence[tuple[str, str | None]]
) -> tuple[list[int], list[str]]:
    """Find the row of each image or text of a benchmark by its id.

    A text whose id has no row, or the row of another text, is looked up by the text itself.

    Args:
        entries: the images or the texts.
        row_names: id of each row, and its text or None, from `_read_row_names`.

    Returns:
        The rows, and the ids of entries that have no row.
    """
    row_of_id = {row_id: row for row, (row_id, _) in enumerate(row_names)}
    row_of_text = {text: row for row, (_, text) in enumerate(row_names) if text is not None}
    # A `texts.txt` may have texts instead of ids, one of which may look like the id of another text.
    has_all_ids = all(entry.id in row_of_id for entry in entries)
    rows, missing_ids = [], []
    for entry in entries:
        row = row_of_id.get(entry.id)
        if isinstance(entry, BenchmarkText):
            # The row of this id may have another text, such as a translation; then the id is ignored.
            if row is not None and row_names[row][1] not in (None, entry.text):
                row = None
            if row is None or not has_all_ids:
                row = row_of_text.get(entry.text, row_of_id.get(entry.text, row))
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


def read_official_rows(tsv: Iterable[str | Path], benchmark: Benchmark) -> tuple[np.ndarray, list[str]]:
    """Return the rows of official TSV files in their order, with repeated pairs.

    A row is left out if its image or its text could not be used and is not in the benchmark.

    Returns:
        `[R, 2]`, (image row, text row), and file and number of each row that is left out.
    """
    image_rows = {image.id: row for row, image in enumerate(benchmark.images)}
    text_rows = {text.id: row for row, text in enumerate(benchmark.texts)}
    rows, unused = [], []
    for location, ids in _read_tsv_ids(*tsv):
        if ids is not None and ids[0] in image_rows and ids[1] in text_rows:
            rows.append((image_rows[ids[0]], text_rows[ids[1]]))
        else:
            unused.append(location)
    return np.array(rows, np.int64).reshape(-1, 2), unused


def read_official(path: str | Path, tsv: str | Path | None = None) -> EncodedBenchmark:
    """Read the official text format; errors as for `read_embeddings`.

    Args:
        path: the file.
        tsv: TSV file that it was computed from, without rows whose image cannot be used: it has as many rows, and equal
            ids have equal embeddings. Rows with the same image id become one image, and rows with the same text become
            one text. None: the numbers of the rows are the ids.
    """
    path = Path(path)
    row_ids = _number_rows()
    if tsv:
        row_ids = (ids for _, ids in _read_tsv_ids(tsv) if ids is not None)
    images, texts, pairs = _EmbeddedRows("image"), _EmbeddedRows("text"), []
    for location, text_embedding, image_embedding in _read_official_lines(path):
        ids = next(row_ids, None)
        if ids is None:
            raise ValueError(f"{location}: {tsv} has no such row; give the TSV that this file was computed from")
        image_id, text_id = ids
        # The file repeats an image for each of its texts, so a row is new or must have the known embedding.
        for embedded_rows, row_id, embedding in ((images, image_id, image_embedding), (texts, text_id, text_embedding)):
            if row_id not in embedded_rows.row_of_id:
                embedded_rows.add(row_id, embedding, location)
            elif not embedded_rows.has_embedding(row_id, embedding):
                raise ValueError(
                    f"{location}: {embedded_rows.kind} {row_id!r} had another embedding before; "
                    f"{tsv} is not the TSV that this file was computed from"
                )
        pairs.append((images.row_of_id[image_id], texts.row_of_id[text_id]))
    if tsv and next(row_ids, None):
        raise ValueError(
            f"{path}: {len(pairs)} rows, but {tsv} has more; give the TSV that it was computed from, without the rows "
            "that embed left out"
        )

    if tsv:
        return _make_encoded(images, texts, list(texts.row_of_id), pairs, [path, Path(tsv)])
    return _make_encoded(images, texts, [""] * len(texts.row_of_id), pairs, [path])


def write_chinese_clip(folder: str | Path, encoded: EncodedBenchmark, split: str = "test") -> None:
    """Write Chinese-CLIP's feature files and the JSONL file of their texts.

    Without images (or texts) their files are left out. Ids are numbers from `number_ids`. Where the benchmark has
    another id, the feature keeps it as `name`.

    Args:
        folder: folder of the files; created if needed.
        encoded: the embeddings.
        split: name of the split; the names of the files begin with it.
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
    """Return numeric ids of images or texts, because Chinese-CLIP's evaluation accepts no others.

    These are the ids themselves if all of them are numbers of at most 63 bits; otherwise the row numbers, from 0.
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

    images, image_id_of_number = _read_features(image_file, "image")
    texts, text_id_of_number = _read_features(text_file, "text")

    # Pairs refer to rows by Chinese-CLIP's numbers, so they are read before the rows get the benchmark's ids.
    captions: dict[int, str] = {}
    pairs = []
    for location, entry in _read_json_lines(annotation_file):
        text_id = _get_id(entry, "text_id", location)
        text_row = texts.find_row(text_id, location)
        if text_row in captions:
            raise ValueError(f"{location}: text {text_id!r} occurs a second time")
        captions[text_row] = _get_text(entry, location)
        image_ids = entry.get("image_ids")
        if not isinstance(image_ids, list):
            raise ValueError(f"{location}: image_ids is missing or not a list")
        for image_id in image_ids:
            pairs.append((images.find_row(str(image_id), location), text_row))
    unknown = [number for number, row in texts.row_of_id.items() if row not in captions]
    if unknown:
        raise ValueError(
            f"{text_file}: text {unknown[0]!r} is not in {annotation_file}; {len(unknown)} texts are missing there"
        )

    # From here on rows have the benchmark's ids, which `write_chinese_clip` keeps as `name`.
    for embedded_rows, id_of_number, file in (
        (images, image_id_of_number, image_file),
        (texts, text_id_of_number, text_file),
    ):
        embedded_rows.row_of_id = {id_of_number[number]: row for number, row in embedded_rows.row_of_id.items()}
        if len(embedded_rows.row_of_id) < len(id_of_number):
            raise ValueError(f"{file}: several ids have the same name")
    captions_in_order = [captions[row] for row in range(len(captions))]
    return _make_encoded(images, texts, captions_in_order, pairs, [image_file, text_file, annotation_file])


def _read_features(path: Path, kind: str) -> tuple[_EmbeddedRows, dict[str, str]]:
    """Read a feature file; return its rows by Chinese-CLIP's numbers, and the benchmark's id of each number."""
    embedded_rows = _EmbeddedRows(kind)
    id_of_number = {}
    for location, entry in _read_json_lines(path):
        number = _get_id(entry, f"{kind}_id", location)
        embedded_rows.add(number, _parse_embedding(entry.get("feature"), location), location)
        id_of_number[number] = number
        if "name" in entry:  # the number replaces an id that Chinese-CLIP could not read
            id_of_number[number] = _get_id(entry, "name", location)
    return embedded_rows, id_of_number


class _EmbeddedRows:
    """The images, or the texts, of a file with their embeddings.

    Attributes:
        kind: "image" or "text".
        row_of_id: number of the row of each id.
        embeddings: embedding of each row.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self.row_of_id: dict[str, int] = {}
        self.embeddings: list[np.ndarray] = []

    def add(self, row_id: str, embedding: np.ndarray, location: str) -> None:
        """Add a row; raise ValueError if its id occurred before, or its embedding cannot be used."""
        if row_id in self.row_of_id:
            raise ValueError(f"{location}: {self.kind} {row_id!r} occurs a second time")
        if embedding.ndim != 1 or not embedding.size:
            raise ValueError(f"{location}: the embedding of {self.kind} {row_id!r} is not a row of numbers")
        if self.embeddings and len(embedding) != len(self.embeddings[0]):
            raise ValueError(
                f"{location}: the embedding of {self.kind} {row_id!r} is {len(embedding)} wide, "
                f"those before are {len(self.embeddings[0])}"
            )
        if not np.isfinite(embedding).all():
            raise ValueError(f"{location}: the embedding of {self.kind} {row_id!r} is not finite")
        self.row_of_id[row_id] = len(self.row_of_id)
        self.embeddings.append(embedding)

    def has_embedding(self, row_id: str, embedding: np.ndarray) -> bool:
        """Return whether the row of this id has this embedding, up to rounding."""
        stored = self.embeddings[self.row_of_id[row_id]]
        return stored.shape == embedding.shape and bool(np.abs(stored - embedding).max() <= _TOLERANCE)

    def find_row(self, row_id: str, location: str) -> int:
        """Return the row of an id; raise ValueError if there is none."""
        if row_id not in self.row_of_id:
            raise ValueError(f"{location}: there is no embedding of {self.kind} {row_id!r}")
        return self.row_of_id[row_id]


def _make_encoded(
    images: _EmbeddedRows,
    texts: _EmbeddedRows,
    captions: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    files: Sequence[Path],
    arrays: Sequence[np.ndarray] | None = None,
) -> EncodedBenchmark:
    """Make a benchmark with embeddings from the rows and pairs that were read.

    Args:
        images: the images.
        texts: the texts.
        captions: text of each row of `texts`.
        pairs: (image row, text row); repeated pairs count once.
        files: files that were read; the benchmark is named after them.
        arrays: embeddings of the images and of the texts; None: the embeddings of the rows are stacked.
    """
    if not pairs:
        raise ValueError(f"{files[-1]}: no pair of an image and a text")
    image_embeddings, text_embeddings = arrays or (np.stack(images.embeddings), np.stack(texts.embeddings))
    check_widths(files[0], image_embeddings, text_embeddings)
    report = BadSampleReport()
    report.add(num_read=len(pairs), bad=[])
    benchmark_name = files[0].stem
    if len(files) > 1:
        benchmark_name = files[0].parent.name
    benchmark = Benchmark(
        benchmark_name,
        [BenchmarkImage(image_id, partial(_raise_no_content, image_id)) for image_id in images.row_of_id],
        [BenchmarkText(text_id, caption) for text_id, caption in zip(texts.row_of_id, captions, strict=True)],
        np.array(list(dict.fromkeys(pairs)), np.int64),
        report,
        tuple(files),
    )
    return EncodedBenchmark(benchmark, image_embeddings, text_embeddings, BadSampleReport())


def _raise_no_content(image_id: str) -> bytes:
    raise BadSample(Reason.ONLY_EMBEDDING, image_id)


def _read_official_lines(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield file and line, text embedding and image embedding of each row."""
    for location, line in read_numbered_lines(path):
        columns = line.split(b"\t")
        if len(columns) != 3 or columns[2] != b"1":
            raise ValueError(f"{location}: a row is a text embedding, a tab, an image embedding, a tab, and 1")
        # Other characters than ASCII are replaced, and then refused because they are not numbers.
        text_numbers = columns[0].decode("ascii", "replace").split()
        image_numbers = columns[1].decode("ascii", "replace").split()
        yield location, _parse_embedding(text_numbers, location), _parse_embedding(image_numbers, location)


def _read_tsv_ids(*paths: str | Path) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Yield file and number of every row, and its image id and text id as in `open_benchmark`; None: unreadable."""
    source, image_ids = ShardedSource([TsvSource(path) for path in paths]), ImageIds()
    for index in range(len(source)):
        location = source.describe_location(index)
        try:
            sample = source[index]
        except BadSample:
            yield location, None
            continue
        caption = sample.captions[""]  # a TSV does not say the language
        yield location, (image_ids.assign(sample, location), caption.strip())


def _number_rows() -> Iterator[tuple[str, str]]:
    """Yield for each row its number, from 1, as the id of its image and of its text."""
    for number in count(1):
        yield str(number), str(number)


def _read_json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    for location, line in read_numbered_lines(path):
        try:
            yield location, parse_object(line, location)
        except BadSample as error:
            raise ValueError(f"{error}; {path} is not JSON lines") from error


def _get_id(entry: dict, key: str, location: str) -> str:
    if not is_id(entry.get(key)):
        raise ValueError(f"{location}: {key} is missing, or neither a whole number nor a string")
    return str(entry[key])


def _get_text(entry: dict, location: str) -> str:
    if not isinstance(entry.get("text"), str):
        raise ValueError(f"{location}: text is missing or not a string")
    return entry["text"]


def _parse_embedding(values: object, location: str) -> np.ndarray:
    try:
        return np.array(values, np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{location}: malformed embedding ({error})") from error
