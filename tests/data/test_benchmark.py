import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.samples import BadSampleReport


def benchmark():
    images = [BenchmarkImage(name, lambda: b"") for name in "abc"]
    texts = [BenchmarkText(name, name) for name in "uvwx"]
    return Benchmark("small", images, texts, np.array([[0, 0], [0, 1], [1, 2], [2, 3], [1, 0]]), BadSampleReport())


def test_selected_rows_keep_the_pairs_that_have_both_sides():
    chosen = benchmark().select(images=[1, 0], texts=[0, 2, 3])
    assert [image.id for image in chosen.images] == ["b", "a"] and [text.id for text in chosen.texts] == ["u", "w", "x"]
    assert chosen.pairs.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert benchmark().select().pairs.tolist() == benchmark().pairs.tolist()
