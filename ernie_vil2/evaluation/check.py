"""Checks of a benchmark before anything is encoded: what is missing, broken or unlike the protocol."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample, BadSampleReport, format_names
from ernie_vil2.evaluation.classification import class_names
from ernie_vil2.evaluation.protocol import Protocol
from ernie_vil2.io.terminal import pluralize

# Images that are handed to the threads at once. Progress moves in steps of this size.
CHUNK_SIZE = 256


class Inspection(NamedTuple):
    """Result of checking data without a model.

    Attributes:
        text: the result in words.
        is_good: whether all of the data can be used and is as expected.
    """

    text: str
    is_good: bool

    def __str__(self) -> str:
        return self.text


def check_benchmark(
    benchmark: Benchmark,
    protocols: Sequence[Protocol] = (),
    progress: Callable[[int], object] = lambda images: None,
) -> Inspection:
    """Read and decode every image, and compare the counts with the counts that protocols expect.

    The result is good if every entry and every image can be used, and the counts are those of every protocol.

    Args:
        benchmark: the benchmark, or what the protocols select of it.
        protocols: protocols that it is to be scored by.
        progress: called with the number of images just checked.
    """
    texts_per_image = np.bincount(benchmark.pairs[:, 0], minlength=len(benchmark.images))
    images_per_text = np.bincount(benchmark.pairs[:, 1], minlength=len(benchmark.texts))
    shares = []
    for num_texts, num_images in sorted(Counter(texts_per_image.tolist()).items()):
        shares.append(f"{num_texts} ({pluralize(num_images, 'image')})")
    lines = [f"{benchmark.name}: {_describe_sizes(benchmark)}", f"texts per image: {', '.join(shares)}"]

    # Rows without a pair can be wrong answers, but cannot be queries.
    for description, rows, counts in (
        ("images without a text", benchmark.images, texts_per_image),
        ("texts without an image", benchmark.texts, images_per_text),
    ):
        unpaired_ids = [rows[row].id for row in np.flatnonzero(counts == 0).tolist()]
        if unpaired_ids:
            lines.append(f"{description}, in the gallery only: {_list_first(unpaired_ids)}")

    image_report = decode_all(benchmark.images, progress)
    lines += [f"entries of the annotations: {benchmark.entry_report}", f"images: {image_report}"]

    all_differences = []
    for protocol in protocols:
        selection = protocol.select(benchmark)
        differences = protocol.find_differences(selection)
        all_differences += differences
        if not differences:
            verdict = ", as it expects" if protocol.expected_counts else ""
            lines.append(f"protocol {protocol.name}: {_describe_sizes(selection)}{verdict}")
    lines += all_differences
    is_good = not (all_differences or benchmark.entry_report.counts or image_report.counts)
    return Inspection("\n".join(lines), is_good)


def _describe_sizes(benchmark: Benchmark) -> str:
    counts = [
        pluralize(len(benchmark.images), "image"),
        pluralize(len(benchmark.texts), "text"),
        pluralize(len(benchmark.pairs), "pair"),
    ]
    return ", ".join(counts)


def decode_all(images: Sequence[BenchmarkImage], progress: Callable[[int], object]) -> BadSampleReport:
    """Read and decode images, and count the unusable ones.

    Args:
        images: the images.
        progress: called with the number of images just checked.
    """
    report = BadSampleReport()
    # Threads suffice, because OpenCV releases Python's lock while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(images), CHUNK_SIZE):
            chunk = images[start : start + CHUNK_SIZE]
            report.add(num_read=len(chunk), bad=filter(None, pool.map(_find_problem, chunk)))
            progress(len(chunk))
    return report


def _find_problem(image: BenchmarkImage) -> tuple[str, str] | None:
    """Return why an image cannot be used, and its name; None if it can."""
    try:
        decode_image(image.read(), image.id)
    except BadSample as error:
        return error.reason, error.name
    except OSError as error:
        return f"unreadable image ({error.strerror or error})", image.id
    return None


def find_class_remarks(labelled: Benchmark) -> list[str]:
    """Return remarks on the classes that a reader of the figures should know, a line each.

    They name classes without an image, classes of the same name, and images of several classes.

    Args:
        labelled: images whose texts are their classes, from `open_labelled`.
    """
    images_per_class = np.bincount(labelled.pairs[:, 1], minlength=len(labelled.texts))
    classes_per_image = np.bincount(labelled.pairs[:, 0], minlength=len(labelled.images))
    remarks = []
    empty_classes = [labelled.texts[row].id for row in np.flatnonzero(images_per_class == 0).tolist()]
    if empty_classes:
        remarks.append(
            f"classes without an image: {_list_first(empty_classes)}; they can be answered, but are left out of all "
            "means: add images, or remove the classes"
        )

    for language in labelled.texts[0].fields:
        ids_of_name: dict[str, list[str]] = {}
        for class_text in labelled.texts:
            ids_of_name.setdefault(str(class_text.fields[language]), []).append(class_text.id)
        shared_names = []
        for name, ids in ids_of_name.items():
            if len(ids) > 1:
                shared_names.append(f"{name} ({' and '.join(ids)})")
        if shared_names:
            remarks.append(
                f"names of several classes in {language}: {_list_first(shared_names)}; "
                "nothing distinguishes these classes: give each its own name"
            )

    num_multi_label = int((classes_per_image > 1).sum())
    if num_multi_label:
        remarks.append(f"{pluralize(num_multi_label, 'image')} of several classes: mAP is scored")
    return remarks


def check_labelled(labelled: Benchmark, progress: Callable[[int], object]) -> Inspection:
    """Read and decode every image, and look for images that occur several times.

    Args:
        labelled: images whose texts are their classes, from `open_labelled`.
        progress: called with the number of images just checked.
    """
    image_report = decode_all(labelled.images, progress)
    remarks = find_class_remarks(labelled)
    repeats, conflicts = _find_equal_images(labelled)
    if repeats:
        remarks.append(f"images that occur twice in a class: {_list_first(repeats)}")
    if conflicts:
        remarks.append(f"equal images in different classes: {_list_first(conflicts)}; leave each in one")

    counts = np.bincount(labelled.pairs[:, 1], minlength=len(labelled.texts)).tolist()
    classes = f"{len(labelled.texts):,} classes of {min(counts):,} to {max(counts):,} images each"
    lines = [f"{labelled.name}: {pluralize(len(labelled.images), 'image')}, {classes}"]
    for language in labelled.texts[0].fields:
        lines.append(f"names in {language}: {_list_first(class_names(labelled, language))}")
    lines += [f"entries: {labelled.entry_report}", f"images: {image_report}", *remarks]
    return Inspection("\n".join(lines), not (remarks or labelled.entry_report.counts or image_report.counts))


def _find_equal_images(labelled: Benchmark) -> tuple[list[str], list[str]]:
    """Find images with the same bytes: pairs in the same classes, and pairs in different classes, in words."""
    classes_of_image: dict[int, set[int]] = defaultdict(set)
    for row, class_row in labelled.pairs.tolist():
        classes_of_image[row].add(class_row)

    # Digests are compared, because the images together may not fit into memory.
    repeats, conflicts = [], []
    first_row_of_digest: dict[bytes, int] = {}
    for row, image in enumerate(labelled.images):
        try:
            digest = blake2b(image.read(), digest_size=16).digest()
        except (BadSample, OSError):
            continue  # already counted when it was decoded
        first_row = first_row_of_digest.setdefault(digest, row)
        if first_row == row:
            continue
        sentence = f"{image.id} as {labelled.images[first_row].id}"
        if classes_of_image[first_row] == classes_of_image[row]:
            repeats.append(sentence)
        else:
            conflicts.append(sentence)
    return repeats, conflicts


def _list_first(names: Sequence[str]) -> str:
    return format_names(len(names), names[: BadSampleReport.MAX_NAMES])
