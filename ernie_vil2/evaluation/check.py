"""Reads a benchmark through before anything is encoded, and says what is missing, broken or unlike the protocol."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample, BadSampleReport, first_names
from ernie_vil2.evaluation.classification import class_names
from ernie_vil2.evaluation.protocol import Protocol
from ernie_vil2.io.terminal import counted

CHUNK = 256  # images that are handed to the threads at once


class Inspection(NamedTuple):
    """What was found in data without a model; good: all of it can be used and is as expected."""

    text: str
    good: bool

    def __str__(self) -> str:
        return self.text


def check_benchmark(
    benchmark: Benchmark,
    protocols: Sequence[Protocol] = (),
    progress: Callable[[int], object] = lambda images: None,
) -> Inspection:
    """Reads and decodes every image, and compares the counts with those that protocols expect.

    All is good if every entry and every image can be used, and the counts are those of every protocol.

    Args:
        benchmark: as a reader or a selection for the protocols gives it.
        protocols: by which it is to be scored.
        progress: called with the number of images just done.
    """
    texts_of_image = np.bincount(benchmark.pairs[:, 0], minlength=len(benchmark.images))
    images_of_text = np.bincount(benchmark.pairs[:, 1], minlength=len(benchmark.texts))
    shares = ", ".join(
        f"{texts} ({counted(images, 'image')})" for texts, images in sorted(Counter(texts_of_image.tolist()).items())
    )
    files = decode_all(benchmark.images, progress)
    as_expected, differences = [], []
    for protocol in protocols:
        part = protocol.select(benchmark)
        if wrong := protocol.find_differences(part):
            differences += wrong
        else:
            verdict = ", as it expects" if protocol.expected_counts else ""
            as_expected.append(f"protocol {protocol.name}: {_sizes(part)}{verdict}")
    lines = [f"{benchmark.name}: {_sizes(benchmark)}", f"texts per image: {shares}"]
    for what, rows, counts in (
        ("images without a text", benchmark.images, texts_of_image),
        ("texts without an image", benchmark.texts, images_of_text),
    ):
        if alone := [rows[row].id for row in np.flatnonzero(counts == 0).tolist()]:
            lines.append(f"{what}, in the gallery only: {_first(alone)}")
    lines += [f"entries of the annotations: {benchmark.rows}", f"images: {files}", *as_expected, *differences]
    return Inspection("\n".join(lines), not (differences or benchmark.rows.counts or files.counts))


def _sizes(benchmark: Benchmark) -> str:
    counts = (("image", benchmark.images), ("text", benchmark.texts), ("pair", benchmark.pairs))
    return ", ".join(counted(len(rows), kind) for kind, rows in counts)


def decode_all(images: Sequence[BenchmarkImage], progress: Callable[[int], object]) -> BadSampleReport:
    """Reads and decodes images in threads, which OpenCV lets run side by side; `progress` as for `check_benchmark`."""
    report = BadSampleReport()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            report.add(len(chunk), filter(None, pool.map(_problem, chunk)))
            progress(len(chunk))
    return report


def _problem(image: BenchmarkImage) -> tuple[str, str] | None:
    try:
        decode_image(image.read(), image.id)
    except BadSample as problem:
        return problem.reason, problem.name
    except OSError as problem:
        return f"unreadable image ({problem.strerror})", image.id
    return None


def labelled_remarks(labelled: Benchmark) -> list[str]:
    """Remarks on classes and images that a reader of the figures should know, a line each."""
    images = np.bincount(labelled.pairs[:, 1], minlength=len(labelled.texts))
    labels = np.bincount(labelled.pairs[:, 0], minlength=len(labelled.images))
    lines = []
    if empty := [one.id for one, count in zip(labelled.texts, images.tolist(), strict=True) if not count]:
        lines.append(
            f"classes without an image: {_first(empty)}; they can be answered and count in no mean: add images, or "
            "take them out"
        )
    for language in labelled.texts[0].fields:
        names: dict[str, list[str]] = {}
        for one in labelled.texts:
            names.setdefault(str(one.fields[language]), []).append(one.id)
        if same := [f"{name} ({' and '.join(ids)})" for name, ids in names.items() if len(ids) > 1]:
            lines.append(
                f"names of several classes in {language}: {_first(same)}; nothing distinguishes them: give each its own"
            )
    if (labels > 1).any():
        lines.append(f"{counted(int((labels > 1).sum()), 'image')} of several classes: mAP is scored")
    return lines


def check_labelled(labelled: Benchmark, progress: Callable[[int], object]) -> Inspection:
    """Reads and decodes every image, and looks for images that occur several times.

    Args:
        progress: called with the number of images just done.
    """
    counts = np.bincount(labelled.pairs[:, 1], minlength=len(labelled.texts)).tolist()
    files = decode_all(labelled.images, progress)
    first: dict[bytes, int] = {}
    again, torn = list[str](), list[str]()
    own: list[set[int]] = [set() for _ in labelled.images]
    for row, column in labelled.pairs.tolist():
        own[row].add(column)
    for row, image in enumerate(labelled.images):
        try:
            digest = blake2b(image.read(), digest_size=16).digest()
        except (BadSample, OSError):
            continue
        earlier = first.setdefault(digest, row)
        if earlier != row:
            (again if own[earlier] == own[row] else torn).append(f"{image.id} as {labelled.images[earlier].id}")
    odd = labelled_remarks(labelled)
    if again:
        odd.append(f"images that occur twice in a class: {_first(again)}")
    if torn:
        odd.append(f"equal images in different classes: {_first(torn)}; leave each in one")
    sizes = f"{min(counts):,} to {max(counts):,} images each"
    lines = [
        f"{labelled.name}: {counted(len(labelled.images), 'image')}, {len(labelled.texts):,} classes of {sizes}",
        *(f"names in {language}: {_first(class_names(labelled, language))}" for language in labelled.texts[0].fields),
        f"entries: {labelled.rows}",
        f"images: {files}",
        *odd,
    ]
    return Inspection("\n".join(lines), not (odd or labelled.rows.counts or files.counts))


def _first(names: Sequence[str]) -> str:
    return first_names(len(names), names[: BadSampleReport.NAMES])
