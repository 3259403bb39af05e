import threading
from dataclasses import replace
from functools import partial

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


def test_counts_are_compared_with_those_of_the_protocol():
    # i0 has the texts t0 and t1, i1 has t2; t3 has no image.
    data = benchmark(lambda: IMAGE, lambda: IMAGE, texts=4)
    report = check_benchmark(data, [expecting(images=2, texts=4)])
    assert report.good and "texts per image: 1 (1 image), 2 (1 image)" in str(report)
    assert "texts without an image, in the gallery only: 1 (t3)" in str(report)

    report = check_benchmark(data, [expecting(images=1000), expecting("other", texts=4)])
    assert not report.good and "small-test expects 1,000 images" in str(report) and "other expects" not in str(report)


def test_broken_missing_and_unreadable_images_are_distinguished():
    rows = BadSampleReport()
    rows.add(4, [("unmatched image id", "t8")])
    missing, locked = BadSample("missing image", "i3.jpg"), PermissionError(13, "Permission denied")
    reads = [lambda: IMAGE, lambda: b"not an image", lambda: b"", raising(missing), raising(locked)]
    report = check_benchmark(benchmark(*reads, rows=rows))
    names = {line.strip() for line in str(report).splitlines() if line.startswith("  ")}
    assert not report.good and names == {
        "unmatched image id: 1 (t8)",
        "broken image: 2 (i1, i2)",
        "missing image: 1 (i3.jpg)",
        "unreadable image (Permission denied): 1 (i4)",
    }


def test_every_image_is_read_once_in_threads():
    count, done, threads, reads = CHUNK + 3, [], set(), []

    def read(number):
        reads.append(number)
        threads.add(threading.get_ident())
        return IMAGE

    check_benchmark(benchmark(*(partial(read, number) for number in range(count))), progress=done.append)
    assert sorted(reads) == list(range(count)) and done == [CHUNK, 3]
    assert threading.get_ident() not in threads
