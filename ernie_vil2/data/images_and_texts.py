"""The images of a folder and the lines of a text file, without pairs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ernie_vil2.data.annotation_files import numbered_lines
from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.image_files import image_files, read_file
from ernie_vil2.data.samples import BadSample, BadSampleReport, as_text, check_text


def read_unpaired(pictures: Path | None, lines: Path | None) -> Benchmark:
    """Both sides as a benchmark without pairs, either of which may be left out.

    Args:
        pictures: a folder; its image files, those of folders within it too, are named by their path in it.
        lines: a UTF-8 file with a text in each line that is not blank, which is named by its number.

    Raises:
        OSError: one of them cannot be read.
        ValueError: there is no image file in the folder, or no text in the file.
    """
    found, texts, rows = image_files(pictures) if pictures else [], [], BadSampleReport()
    rows.add(len(found), [])
    for name, line in numbered_lines(lines) if lines else ():
        try:
            check_text(text := as_text(line, name).strip(), name)
        except BadSample as bad:
            rows.add(1, [(bad.reason, bad.name)])
            continue
        texts.append(BenchmarkText(name.rpartition(":")[2], text))
        rows.add(1, [])
    for path, side, kind in ((pictures, found, "image file"), (lines, texts, "text")):
        if path and not side:
            raise ValueError(f"{path}: no {kind} in it that can be used\n{rows}")
    images = [BenchmarkImage(file.relative_to(pictures).as_posix(), partial(read_file, file)) for file in found]
    files = (lines,) if lines else ()
    return Benchmark(str(pictures or lines), images, texts, np.empty([0, 2], np.int64), rows, files)
