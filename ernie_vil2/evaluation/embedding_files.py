"""Embeddings on disk in three formats, to be taken elsewhere, or scored without a model.

- `numpy`, ours: `image_embeddings.npy` `[N, D]` and `text_embeddings.npy` `[M, D]` float32, whose rows are named, in
  the same order, by `images.jsonl` (`{"image_id"}`) and `texts.jsonl` (`{"text_id", "text"}`); `pairs.jsonl`
  (`{"image_id", "text_id"}`) says what belongs together.
- `official`, the text file of the official ERNIE-ViL 2.0 release: a row a pair, the text's embedding as numbers
  parted by spaces, a tab, the image's embedding, a tab, `1`. It names nothing: its rows are those of the TSV.
- `chinese-clip`, the feature files of Chinese-CLIP: `{split}_imgs.img_feat.jsonl` (`{"image_id", "feature"}`) and
  `{split}_texts.txt_feat.jsonl` (`{"text_id", "feature"}`), next to the `{split}_texts.jsonl` of its data sets
  (`{"text_id", "text", "image_ids"}`).

Embeddings are written and read as they are; whoever scores them by dot product wants them L2-normalised.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText, ImageIds
from ernie_vil2.data.readers import ShardedSource, TsvSource
from ernie_vil2.data.samples import BadSample, BadSampleReport, Reason, as_object, is_id
from ernie_vil2.data.source_files import check_widths, numbered_lines, open_embeddings
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.report import write_json_lines
from ernie_vil2.io.files import atomic_write

OFFICIAL_FILE = "cross_modal_embeddings.out"
"""What the official release calls its file."""

_IMAGE_FEATURES, _TEXT_FEATURES, _TEXTS = "_imgs.img_feat.jsonl", "_texts.txt_feat.jsonl", "_texts.jsonl"
# Two runs of one model on one input differ by less, two inputs by more.
_SAME = 1e-3


def read_embeddings(
    path: str | Path, annotations: str | Path | None = None, split: str | None = None
) -> EncodedBenchmark:
    """Embeddings from a folder in our format or Chinese-CLIP's, or from an official text file or its folder.

    The images have ids, but no content: `BenchmarkImage.read` raises BadSample.

    Args:
        annotations: what names the rows and pairs. Of an official file: the TSV it was computed from; without it,
            each row is an image and a text of its own, whose ids are the row's number from 1. Of Chinese-CLIP's: the
            texts' JSONL; by default the one next to the features.
        split: of Chinese-CLIP's: which one, where the folder holds several.

    Raises:
        FileNotFoundError: there is nothing, or nothing known, at `path`.
        ValueError: a row is malformed, not finite or of another width, an id is unknown or comes twice, or the files
            do not belong together; file and line are named.
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
    """Writes our own format into a folder, which is made if missing; of what has no rows there is no file."""
    folder, benchmark = Path(folder), encoded.benchmark
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"image_id": image.id} for image in benchmark.images]
    texts = [{"text_id": text.id, "text": text.text} for text in benchmark.texts]
    for kind, names, rows in (("image", images, encoded.image_embeddings), ("text", texts, encoded.text_embeddings)):
        if names:
            with atomic_write(folder / f"{kind}_embeddings.npy") as aside, aside.open("wb") as file:
                np.save(file, rows.astype(np.float32, copy=False), allow_pickle=False)
            write_json_lines(folder / f"{kind}s.jsonl", names)
    if not len(benchmark.pairs):
        return
    write_json_lines(
        folder / "pairs.jsonl",
        ({"image_id": benchmark.images[image].id, "text_id": benchmark.texts[text].id}
         for image, text in benchmark.pairs.tolist()),
    )  # fmt: skip


def read_numpy(folder: str | Path) -> EncodedBenchmark:
    """Reads our own format, the arrays as memory maps; errors as of `read_embeddings`."""
    folder = Path(folder)
    images, texts = sides = _Side("image"), _Side("text")
    arrays, captions = [], []
    for side in sides:
        array = open_embeddings(folder / f"{side.kind}_embeddings.npy")
        names = folder / f"{side.kind}s.jsonl"
        entries = list(_json_lines(names))
        if len(entries) != len(array):
            raise ValueError(
                f"{names}: {len(entries)} rows for {len(array)} embeddings; the folder mixes two runs, extract again"
            )
        for (where, entry), embedding in zip(entries, array, strict=True):
            side.add(_id(entry, f"{side.kind}_id", where), embedding, where)
            if side is texts:
                captions.append(_text(entry, where))
        arrays.append(array)
    pairs = [
        (images.row(_id(entry, "image_id", where), where), texts.row(_id(entry, "text_id", where), where))
        for where, entry in _json_lines(folder / "pairs.jsonl")
    ]
    files = [folder / name for name in ("image_embeddings.npy", "text_embeddings.npy", "pairs.jsonl")]
    return _encoded(images, texts, captions, pairs, files, arrays)


def embeddings_of(folder: str | os.PathLike, benchmark: Benchmark) -> tuple[EncodedBenchmark, list[str]]:
    """Embeddings that were made elsewhere, as those of a benchmark, and remarks on them.

    Args:
        folder: with `image_embeddings.npy` and `text_embeddings.npy`, whose rows `images.jsonl` and `texts.jsonl` name
            as `write_numpy` does, or `images.txt` and `texts.txt`, an id or a text per line. Rows that the benchmark
            does not have are left out; they may be in any order. They are L2-normalised here.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: a row of the benchmark has no embedding, or a file is not as described.
    """
    folder, remarks, arrays = Path(folder), [], []
    for kind, rows in (("image", benchmark.images), ("text", benchmark.texts)):
        array = np.asarray(open_embeddings(folder / f"{kind}_embeddings.npy"))
        names = _row_names(folder, kind)
        if len(names) != len(array):
            raise ValueError(f"{folder}: {len(names):,} names of {kind}s for {len(array):,} embeddings")
        number = {name: row for row, (name, _) in enumerate(names)}
        by_text = {text: row for row, (_, text) in enumerate(names) if text is not None}
        found = []
        for row in rows:
            text = row.text if isinstance(row, BenchmarkText) else None
            own = number.get(row.id)
            if text is not None and own is not None and names[own][1] not in (None, text):
                own = None  # the same id in another language
            if own is None and text is not None:
                own = by_text.get(text, number.get(text))
            found.append(-1 if own is None else own)
        if missing := [row.id for row, own in zip(rows, found, strict=True) if own < 0]:
            raise ValueError(
                f"{folder}: no embedding of {len(missing):,} of the {len(rows):,} {kind}s of {benchmark.name}, "
                f"{missing[0]!r} the first; embed the same data, and name each row by its id"
            )
        chosen = array[found].astype(np.float32)
        norms = np.linalg.norm(chosen, axis=1, keepdims=True)
        if not np.isfinite(chosen).all() or not norms.all():
            raise ValueError(f"{folder}: an embedding of {kind}s is not finite or zero")
        if np.abs(norms - 1).max(initial=0) > _SAME:
            remarks.append(f"its {kind} embeddings were not normalised; they are here")
        arrays.append(chosen / norms)
    check_widths(folder, *arrays)
    return EncodedBenchmark(benchmark, arrays[0], arrays[1], BadSampleReport()), remarks


def _row_names(folder: Path, kind: str) -> list[tuple[str, str | None]]:
    """Id and text, where it is known, of each row."""
    plain = folder / f"{kind}s.txt"
    if plain.is_file():
        return [(line.decode("utf-8", "replace").strip(), None) for _, line in numbered_lines(plain)]
    return [
        (_id(entry, f"{kind}_id", where), entry.get("text")) for where, entry in _json_lines(folder / f"{kind}s.jsonl")
    ]


def write_official(path: str | Path, encoded: EncodedBenchmark, rows: np.ndarray | None = None) -> None:
    """Writes the official text format, with numbers as the official release prints them: float32, shortest form.

    Args:
        rows: `[R, 2]` (image row, text row) of each line, such as `official_rows`; None: the benchmark's pairs.
    """
    with atomic_write(path) as aside, aside.open("w", encoding="ascii", newline="\n") as file:
        for image, text in encoded.benchmark.pairs if rows is None else rows:
            embeddings = (encoded.text_embeddings[text], encoded.image_embeddings[image])
            columns = [" ".join(map(str, embedding.astype(np.float32))) for embedding in embeddings]
            file.write("\t".join([*columns, "1\n"]))


def official_rows(tsv: Iterable[str | Path], benchmark: Benchmark) -> np.ndarray:
    """The rows of official TSV files as `[R, 2]` (image row, text row), in their order, repeated pairs too.

    A row is left out when its image or its text is not in the benchmark because it could not be used.
    """
    images = {image.id: row for row, image in enumerate(benchmark.images)}
    texts = {text.id: row for row, text in enumerate(benchmark.texts)}
    named = ((images.get(image), texts.get(text)) for image, text in _tsv_ids(*tsv))
    return np.array([row for row in named if None not in row], np.int64).reshape(-1, 2)


def read_official(path: str | Path, tsv: str | Path | None = None) -> EncodedBenchmark:
    """Reads the official text format; with `tsv`, rows of one image id become one image, rows of one text one text.

    Errors as of `read_embeddings`. The TSV's rows must be those of the file: as many, and equal ids with equal
    embeddings.
    """
    path = Path(path)
    ids = _tsv_ids(tsv) if tsv else ((str(number), str(number)) for number in count(1))
    images, texts, pairs = _Side("image"), _Side("text"), []
    for where, *embeddings in _official_lines(path):
        names = next(ids, None)
        if names is None:
            raise ValueError(f"{where}: {tsv} has no such row; give the TSV that this file was computed from")
        for side, name, embedding in zip((images, texts), names, reversed(embeddings), strict=True):
            if name not in side.rows:
                side.add(name, embedding, where)
            elif not side.holds(name, embedding):
                raise ValueError(
                    f"{where}: {side.kind} {name!r} had another embedding before; "
                    f"{tsv} is not the TSV that this file was computed from"
                )
        pairs.append((images.rows[names[0]], texts.rows[names[1]]))
    if tsv and next(ids, None):
        raise ValueError(f"{path}: {len(pairs)} rows, but {tsv} has more; give the TSV that it was computed from")
    captions = list(texts.rows) if tsv else [""] * len(texts.rows)
    return _encoded(images, texts, captions, pairs, [path, Path(tsv)] if tsv else [path])


def write_chinese_clip(folder: str | Path, encoded: EncodedBenchmark, split: str = "test") -> None:
    """Writes Chinese-CLIP's feature files and their texts' JSONL into a folder, which is made if missing; of a side
    without rows there is no file.

    Ids are numbers, as `whole_numbers` gives them. Where they are not the benchmark's own, the features keep these as
    `name`.
    """
    folder, benchmark = Path(folder), encoded.benchmark
    folder.mkdir(parents=True, exist_ok=True)
    image_ids, text_ids = whole_numbers(benchmark.images), whole_numbers(benchmark.texts)
    for ending, key, side, ids, embeddings in (
        (_IMAGE_FEATURES, "image_id", benchmark.images, image_ids, encoded.image_embeddings),
        (_TEXT_FEATURES, "text_id", benchmark.texts, text_ids, encoded.text_embeddings),
    ):
        if side:
            write_json_lines(
                folder / f"{split}{ending}",
                ({key: number, **({} if str(number) == row.id else {"name": row.id}), "feature": embedding.tolist()}
                 for number, row, embedding in zip(ids, side, embeddings, strict=True)),
            )  # fmt: skip
    if not benchmark.texts:
        return
    images_of_text = defaultdict(list)
    for image, text in benchmark.pairs.tolist():
        images_of_text[text].append(image_ids[image])
    write_json_lines(
        folder / f"{split}{_TEXTS}",
        ({"text_id": number, "text": text.text, "image_ids": images_of_text[row]}
         for row, (number, text) in enumerate(zip(text_ids, benchmark.texts, strict=True))),
    )  # fmt: skip


def whole_numbers(side: Sequence[BenchmarkImage | BenchmarkText]) -> list[int]:
    """The ids of images or texts as numbers, since Chinese-CLIP's evaluation refuses any other.

    They are the ids themselves if all of them are numbers (of 63 bits, as its tensors hold), and the numbers of the
    rows, from 0, if one is not.
    """
    numbers = [int(row.id) if row.id.isdecimal() and len(row.id) < 19 else -1 for row in side]
    own = all(str(number) == row.id for number, row in zip(numbers, side, strict=True))
    return numbers if own else list(range(len(side)))


def read_chinese_clip(
    folder: str | Path, split: str | None = None, annotations: str | Path | None = None
) -> EncodedBenchmark:
    """Reads Chinese-CLIP's feature files; arguments and errors as of `read_embeddings`.

    Images and texts are in the order of their feature files; a text with empty `image_ids` has no pair.
    """
    folder = Path(folder)
    splits = sorted(path.name.removesuffix(_IMAGE_FEATURES) for path in folder.glob(f"*{_IMAGE_FEATURES}"))
    if split is None and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        raise ValueError(f"{folder}: features of the splits {', '.join(splits) or '(none)'}; choose one of them")
    files = [folder / f"{split}{ending}" for ending in (_IMAGE_FEATURES, _TEXT_FEATURES)]
    files.append(Path(annotations) if annotations else folder / f"{split}{_TEXTS}")
    images, texts = sides = _Side("image"), _Side("text")
    names: dict[str, dict[str, str]] = {side.kind: {} for side in sides}
    for side, file in zip(sides, files[:2], strict=True):
        for where, entry in _json_lines(file):
            number = _id(entry, f"{side.kind}_id", where)
            side.add(number, _numbers(entry.get("feature"), where), where)
            names[side.kind][number] = _id(entry, "name", where) if "name" in entry else number
    captions: dict[int, str] = {}
    pairs = []
    for where, entry in _json_lines(files[2]):
        text = texts.row(_id(entry, "text_id", where), where)
        captions[text] = _text(entry, where)
        image_ids = entry.get("image_ids")
        if not isinstance(image_ids, list):
            raise ValueError(f"{where}: no image_ids, which is a list")
        pairs += [(images.row(str(name), where), text) for name in image_ids]
    unnamed = [name for name, row in texts.rows.items() if row not in captions]
    if unnamed:
        raise ValueError(f"{files[1]}: {files[2]} does not know text {unnamed[0]!r} ({len(unnamed)} such texts)")
    for side, file in zip(sides, files[:2], strict=True):
        side.rows = {names[side.kind][number]: row for number, row in side.rows.items()}
        if len(side.rows) < len(names[side.kind]):
            raise ValueError(f"{file}: one name comes with several ids")
    return _encoded(images, texts, [captions[row] for row in range(len(captions))], pairs, files)


class _Side:
    """The images or the texts of a file: ids to rows, and the embeddings of the rows."""

    def __init__(self, kind: str):
        self.kind = kind
        self.rows: dict[str, int] = {}
        self.embeddings: list[np.ndarray] = []

    def add(self, name: str, embedding: np.ndarray, where: str) -> None:
        if name in self.rows:
            raise ValueError(f"{where}: {self.kind} {name!r} comes a second time")
        if embedding.ndim != 1 or not embedding.size:
            raise ValueError(f"{where}: the embedding of {self.kind} {name!r} is not a row of numbers")
        if self.embeddings and len(embedding) != len(self.embeddings[0]):
            raise ValueError(
                f"{where}: the embedding of {self.kind} {name!r} is {len(embedding)} wide, "
                f"those before are {len(self.embeddings[0])}"
            )
        if not np.isfinite(embedding).all():
            raise ValueError(f"{where}: the embedding of {self.kind} {name!r} is not finite")
        self.rows[name] = len(self.rows)
        self.embeddings.append(embedding)

    def holds(self, name: str, embedding: np.ndarray) -> bool:
        known = self.embeddings[self.rows[name]]
        return known.shape == embedding.shape and bool(np.abs(known - embedding).max() <= _SAME)

    def row(self, name: str, where: str) -> int:
        if name not in self.rows:
            raise ValueError(f"{where}: there is no embedding of {self.kind} {name!r}")
        return self.rows[name]


def _encoded(
    images: _Side,
    texts: _Side,
    captions: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    files: Sequence[Path],
    arrays: Sequence[np.ndarray] | None = None,
) -> EncodedBenchmark:
    if not pairs:
        raise ValueError(f"{files[-1]}: no pair of an image and a text")
    left, right = arrays or [np.stack(side.embeddings) for side in (images, texts)]
    check_widths(files[0], left, right)
    report = BadSampleReport()
    report.add(len(pairs), [])
    benchmark = Benchmark(
        files[0].stem if len(files) == 1 else files[0].parent.name,
        [BenchmarkImage(name, partial(_no_content, name)) for name in images.rows],
        [BenchmarkText(name, caption) for name, caption in zip(texts.rows, captions, strict=True)],
        np.array(list(dict.fromkeys(pairs)), np.int64),
        report,
        tuple(files),
    )
    return EncodedBenchmark(benchmark, left, right, BadSampleReport())


def _no_content(name: str) -> bytes:
    raise BadSample(Reason.ONLY_EMBEDDING, name)


def _official_lines(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for where, line in numbered_lines(path):
        columns = line.split(b"\t")
        if len(columns) != 3 or columns[2] != b"1":
            raise ValueError(f"{where}: a row is a text embedding, a tab, an image embedding, a tab, and 1")
        # What is not ASCII is not a number either, and is refused as such.
        text, image = (_numbers(column.decode("ascii", "replace").split(), where) for column in columns[:2])
        yield where, text, image


def _tsv_ids(*paths: str | Path) -> Iterator[tuple[str, str]]:
    """Image id and text id of every row that can be read, as `open_benchmark` gives them."""
    source, image_id = ShardedSource([TsvSource(path) for path in paths]), ImageIds()
    for index in range(len(source)):
        try:
            sample = source[index]
        except BadSample:
            continue
        yield image_id(sample, source.where(index)), sample.captions[""].strip()


def _json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    for where, line in numbered_lines(path):
        try:
            yield where, as_object(line, where)
        except BadSample as bad:
            raise ValueError(f"{bad}; {path} is not JSON lines") from bad


def _id(entry: dict, key: str, where: str) -> str:
    if not is_id(entry.get(key)):
        raise ValueError(f"{where}: no {key}, which is a whole number or a string")
    return str(entry[key])


def _text(entry: dict, where: str) -> str:
    if not isinstance(entry.get("text"), str):
        raise ValueError(f"{where}: no text")
    return entry["text"]


def _numbers(values: object, where: str) -> np.ndarray:
    try:
        return np.array(values, np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: malformed embedding ({error})") from error
