"""One is one, wherever something is counted."""

import re

import numpy as np
import pytest

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.prepare import Settings, check, prepare
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.check import check_benchmark
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.protocol import queries_title, score
from ernie_vil2.evaluation.protocols import PROTOCOLS
from ernie_vil2.evaluation.scorers.retrieval import format_counts
from ernie_vil2.io.terminal import counted
from ernie_vil2.tagging.extract import TaggedRows, TaggingReport
from tests.support.shapes import draw, png, write_tsv

IMAGE = png(draw((0, 0, 0), "disc", np.random.default_rng(0)))
SEVERAL = re.compile(r"(?<![\d.,])1 (\w+s)\b(?<!was)")


def report(*bad):
    made = BadSampleReport()
    made.add(1, bad)
    return made


def prepared(tmp_path):
    source = open_sources([str(write_tsv(tmp_path / "a.tsv", [("x", "1", IMAGE)]))])
    settings = Settings(drop_duplicates=True)
    return f"{check(source, settings)}\n{prepare(source, tmp_path / 'out', settings)}"


def scored(tmp_path):
    images, texts = [BenchmarkImage("i", lambda: IMAGE)], [BenchmarkText("t", "a disc")]
    benchmark = Benchmark("one", images, texts, np.array([[0, 0]]), report(("empty text", "t2")))
    one = np.ones([1, 1], np.float32)
    evaluation = score(EncodedBenchmark(benchmark, one, one, report()), PROTOCOLS["pairs"])
    lines = [check_benchmark(benchmark, [PROTOCOLS["pairs"]]), format_counts({"model": evaluation})]
    return "\n".join(map(str, [*lines, queries_title("all queries", [evaluation])]))


def tagged(tmp_path):
    made = TaggingReport()
    made.add(TaggedRows(1, [("a", {"en": ("cat",)})], [], [], ""), 1)
    return str(made)


@pytest.mark.parametrize(
    "printed", [lambda tmp_path: f"{report()}\n{report(('empty caption', 'a'))}", prepared, scored, tagged]
)
def test_nothing_says_1_shards(tmp_path, printed):
    text = printed(tmp_path)
    assert text and not SEVERAL.findall(text), text


def test_a_number_with_its_noun():
    assert counted(1, "shard") == "1 shard" and counted(0, "shard") == "0 shards"
    assert counted(1555, "query", "queries") == "1,555 queries" and counted(1, "query", "queries") == "1 query"
