import threading
from dataclasses import replace

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.samples import BadSample, BadSampleReport
from ernie_vil2.evaluation.check import CHUNK, check_benchmark
from ernie_vil2.evaluation.protocols import PROTOCOLS
from tests.support.shapes import draw, png

IMAGE = png(draw((200, 30, 30), "disc", np.random.default_rng(0)))


def raising(error):
    def read():
        raise error

    return read


def benchmark(*reads, texts=3, pairs=((0, 0), (0, 1), (1, 2)), rows=None):
    images = [BenchmarkImage(f"i{n}", read) for n, read in enumerate(reads)]
    names = [BenchmarkText(f"t{n}", f"text {n}") for n in range(texts)]
    return Benchmark("small", images, names, np.array(pairs, np.int64).reshape(-1, 2), rows or BadSampleReport())


def expecting(name="small-test", **counts):
    return replace(PROTOCOLS["pairs"], name=name, **counts)


def good():
    return benchmark(lambda: IMAGE, lambda: IMAGE)


def test_a_good_benchmark_is_counted_and_nothing_is_found_wrong():
    report = check_benchmark(good(), [expecting(images=2, texts=3), PROTOCOLS["first-text"]])
    assert report.good
    assert str(report).splitlines() == [
        "small: 2 images, 3 texts, 3 pairs",
        "texts per image: 1 (1 image), 2 (1 image)",  # i0 has the texts t0 and t1, i1 has t2
        "entries of the annotations: all 0 samples read could be used",
        "images: all 2 samples read could be used",
        "protocol small-test: 2 images, 3 texts, 3 pairs, as it expects",
        "protocol first-text: 2 images, 2 texts, 2 pairs",
    ]


def test_broken_missing_and_unreadable_images_are_distinguished():
    report = check_benchmark(
        benchmark(
            lambda: IMAGE,
            lambda: b"not an image",
            lambda: b"",
            raising(BadSample("missing image", "i3.jpg")),
            raising(PermissionError(13, "Permission denied")),
        ),
        [expecting(images=5)],
    )
    assert not report.good and str(report).splitlines()[-5:] == [
        "images: 4 of 5 samples read could not be used and were skipped:",
        "  broken image: 2 (i1, i2)",
        "  missing image: 1 (i3.jpg)",
        "  unreadable image (Permission denied): 1 (i4)",
        "protocol small-test: 5 images, 3 texts, 3 pairs, as it expects",
    ]


def test_a_difference_from_the_protocol_is_reported_in_a_sentence():
    report = check_benchmark(good(), [expecting(images=1000, texts=2), expecting("other", texts=3)])
    assert not report.good and str(report).splitlines()[-3:] == [
        "protocol other: 2 images, 3 texts, 3 pairs, as it expects",
        "small-test expects 1,000 images; here are 2, 998 fewer.",
        "small-test expects 2 texts; here are 3, 1 more.",
    ]


def test_rows_without_a_partner_are_named_and_are_not_a_fault():
    report = check_benchmark(benchmark(*[lambda: IMAGE] * 13, texts=4))
    assert report.good and "texts per image: 0 (11 images), 1 (1 image), 2 (1 image)" in str(report)
    assert "images without a text, in the gallery only: 11 (i2, i3, i4, i5, i6, i7, i8, i9, i10, i11, ...)" in str(
        report
    )
    assert "texts without an image, in the gallery only: 1 (t3)" in str(report)


def test_what_the_reader_could_not_use_is_shown():
    rows = BadSampleReport()
    rows.add(4, [("empty text", "t9"), ("unmatched image id", "t8")])
    report = check_benchmark(benchmark(lambda: IMAGE, lambda: IMAGE, rows=rows))
    assert not report.good and "  unmatched image id: 1 (t8)" in str(report)


def test_every_image_is_read_once_in_threads_with_progress():
    count, done, lock, threads = CHUNK + 3, [], threading.Lock(), set()
    reads = []

    def read(number):
        with lock:
            reads.append(number)
            threads.add(threading.get_ident())
        return IMAGE

    images = [lambda number=number: read(number) for number in range(count)]
    check_benchmark(benchmark(*images), progress=done.append)
    assert sorted(reads) == list(range(count)) and done == [CHUNK, 3]
    assert threading.get_ident() not in threads
