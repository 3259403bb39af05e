"""Texts that PaddleOCR has recognised in images, from the files that its `save_to_json` writes.

A result is a JSON object with `input_path`, `rec_texts` and `rec_scores`; its other keys are ignored. A `.json` file
holds one result, as `save_to_json` writes it, or a list of results. A `.jsonl` file has a result on each line. The
result may also be within the key `res`, where PaddleOCR's attribute `json` puts it.
"""

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ernie_vil2.apps.search.words import MAX_ITEM_LENGTH
from ernie_vil2.data.samples import parse_object
from ernie_vil2.data.source_files import read_numbered_lines
from ernie_vil2.io.files import is_number, load_json
from ernie_vil2.io.progress import progress_bar

# Lines that PaddleOCR is less sure of are left out: its own default up to version 2 (`drop_score`), while version 3
# returns all lines.
MIN_SCORE = 0.5


class _Result(NamedTuple):
    """The text of an image, and its path with forward slashes, otherwise as PaddleOCR was given it."""

    path: str
    text: str


class RecognizedTexts:
    """Texts in images, from files and folders of results.

    Args:
        sources: `.json` and `.jsonl` files, and folders with such files at any depth.

    Attributes:
        used_paths: paths of the results whose text `find` has returned.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file holds anything but results; the message names it.
    """

    def __init__(self, sources: Iterable[str | Path]):
        self._texts: dict[str, str] = {}  # by path
        self.used_paths: set[str] = set()
        files = [file for source in sources for file in _list_files(Path(source))]
        for file in progress_bar(files, description="reading texts", unit="file"):
            for path, text in _read_results(file):
                if path in self._texts:  # a document has a result for each of its pages
                    text = f"{self._texts[path]}\n{text}"
                self._texts[path] = text[:MAX_ITEM_LENGTH]  # words beyond it would not be found

        # Many images may have one file name, such as 0001/page.png and 0002/page.png, so `find` must not look at all of
        # them. Reversed and sorted, paths with the same end follow one another.
        self._paths_by_location: dict[str, list[str]] = {}
        for path in self._texts:
            location = os.path.abspath(path)  # noqa: PTH100  -- resolve() would follow links
            self._paths_by_location.setdefault(location, []).append(path)
        self._reversed_paths = sorted(_reverse(path) for path in self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def find(self, path: str, name: str) -> str | None:
        """Return the text in an image, or None.

        The result of an image is the one with its path, where a relative path counts from the current folder. If none
        has it, it is the one whose path ends with the name of the image, provided that there is only one.

        Args:
            path: absolute path of the image file or of its shard.
            name: name of the image in its source.
        """
        matches = self._paths_by_location.get(path, [])
        if not matches:
            reversed_name = _reverse(name)
            start = bisect_left(self._reversed_paths, reversed_name)
            # Two of them suffice to see that there are several.
            candidates = self._reversed_paths[start : start + 2]
            matches = [candidate[-2::-1] for candidate in candidates if candidate.startswith(reversed_name)]
        if len(matches) != 1:
            return None
        self.used_paths.add(matches[0])
        return self._texts[matches[0]]


def _reverse(path: str) -> str:
    """Return the characters of a path in reverse order, and a slash, at which the name of a folder ends."""
    return f"{path[::-1]}/"


def _list_files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    files = sorted(source.rglob("*.json")) + sorted(source.rglob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"{source}: no .json or .jsonl here; name what PaddleOCR's save_to_json has written")
    return files


def _read_results(file: Path) -> Iterator[_Result]:
    for location, value in _read_values(file):
        try:
            yield _parse_result(value)
        except ValueError as error:
            raise ValueError(f"{location}: no result of PaddleOCR: {error}") from None


def _read_values(file: Path) -> Iterator[tuple[Path, Any]]:
    """Yield the JSON values that should be results, each with its file, or `file:line` in a `.jsonl`."""
    if file.suffix == ".jsonl":
        for name, line in read_numbered_lines(file):
            location = file.with_name(name)
            yield location, parse_object(line, str(location))
        return
    content = load_json(file)
    for value in content if isinstance(content, list) else [content]:
        yield file, value


def _parse_result(value: Any) -> _Result:
    """Return the result in a JSON value; ValueError, which says what is wrong, if it is none."""
    if isinstance(value, dict) and isinstance(value.get("res"), dict):
        value = value["res"]
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    path, texts, scores = value.get("input_path"), value.get("rec_texts"), value.get("rec_scores")
    if not isinstance(path, str) or not path:
        raise ValueError("input_path is not the path of an image")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("rec_texts is not a list of texts")
    if not isinstance(scores, list) or len(scores) != len(texts):
        raise ValueError("rec_scores is not a list with a score for each text")
    if not all(is_number(score, 0, 1) for score in scores):
        raise ValueError("rec_scores holds something else than numbers from 0 to 1")
    lines = [text for text, score in zip(texts, scores, strict=True) if score >= MIN_SCORE]
    return _Result(path.replace("\\", "/"), "\n".join(lines))
