"""What words find next to meaning: names and numbers of articles, and what queries by meaning lose.

    python demo_data/crawls/shop.py --output runs/crawls/shop --rows 2000
    python demo_data/shop.py --output runs/articles
    python benchmarks/words.py --checkpoint runs/emoji

Each set is indexed and asked twice, with and without the ranking by words. "Names" and "numbers" are in a field of the
image that they ask for. "Meaning" takes all texts away from every second image and asks for these images by their
captions, so that the words of a query can only be found in wrong images. R@k is the share of queries with a right image
among the first k hits; the differences have 95 % intervals over the queries.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.add_items import add_images, list_images
from ernie_vil2.apps.search.collection import Item, WordQueries
from ernie_vil2.apps.search.index import Index
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.evaluation.intervals import Interval, estimate_over_queries, estimate_query_difference

DEPTHS = (1, 10)
CHUNK_SIZE = 256  # queries that are encoded and asked together


class Query(NamedTuple):
    """A text, and the ids of the images that are right answers."""

    text: str
    right_ids: frozenset[str]


def read_items(index: Index) -> list[Item]:
    """Return the images of an index, sorted by id."""
    return sorted(index.collection("images").iterate_items(), key=lambda item: item.id)


def ask_by_field(index: Index, field: str) -> list[Query]:
    """Return a query for each value of a field; all images that have it are right answers."""
    ids: dict[str, set[str]] = {}
    for item in read_items(index):
        if field in item.fields:
            ids.setdefault(str(item.fields[field]), set()).add(item.id)
    return [Query(text, frozenset(right_ids)) for text, right_ids in ids.items()]


def ask_by_meaning(index: Index, field: str) -> list[Query]:
    """Take the fields of every second image away, and return a query for each value that such an image has had."""
    items = read_items(index)
    queries = ask_by_field(index, field)
    bare_items = [replace(item, fields={}) for item in items[::2]]
    index.collection("images").update(bare_items)
    bare_ids = {item.id for item in bare_items}
    return [query for query in queries if query.right_ids <= bare_ids]


def measure(
    index: Index, queries: Sequence[Query], weight: float
) -> tuple[dict[tuple[int, bool], np.ndarray], list[float]]:
    """Return the outcomes of queries, and the times of all searches without and with words in milliseconds.

    Args:
        index: the index.
        queries: the queries.
        weight: of the ranking by words.
    """
    outcomes: dict[tuple[int, bool], list[float]] = {(depth, flag): [] for depth in DEPTHS for flag in (False, True)}
    milliseconds = [0.0, 0.0]
    collection = index.collection("images")
    for start in range(0, len(queries), CHUNK_SIZE):
        chunk = queries[start : start + CHUNK_SIZE]
        embeddings = index.encode_texts([query.text for query in chunk])
        for has_words in (False, True):
            words = WordQueries([query.text for query in chunk], weight) if has_words else None
            begin = time.perf_counter()
            answers = collection.search(embeddings, max(DEPTHS), words=words)
            milliseconds[has_words] += 1000 * (time.perf_counter() - begin)
            for query, hits in zip(chunk, answers, strict=True):
                ranks = [rank for rank, hit in enumerate(hits, 1) if hit.id in query.right_ids]
                for depth in DEPTHS:
                    is_right = bool(ranks) and ranks[0] <= depth
                    outcomes[depth, has_words].append(100.0 * is_right)
    return {key: np.array(values) for key, values in outcomes.items()}, milliseconds


def format_interval(interval: Interval, sign: str = "") -> str:
    """Return a figure with its interval, of which a single query has none."""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:{sign}.1f}"
    return f"{interval.mean:{sign}.1f} ({interval.low:{sign}.1f} to {interval.high:{sign}.1f})"


def print_row(name: str, index: Index, queries: Sequence[Query], weight: float) -> None:
    """Print a row of the table."""
    outcomes, milliseconds = measure(index, queries, weight)
    cells = [name, f"{len(queries):,}"]
    for depth in DEPTHS:
        without, with_words = outcomes[depth, False], outcomes[depth, True]
        cells.append(format_interval(estimate_over_queries(without)))
        cells.append(format_interval(estimate_over_queries(with_words)))
        cells.append(format_interval(estimate_query_difference(with_words, without), "+"))
    cells += [f"{total / len(queries):.2f}" for total in milliseconds]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="MODEL")
    parser.add_argument("--drawings", default="demo_data/emoji-test.tar", metavar="SOURCE")
    parser.add_argument("--shop", default="runs/crawls/shop", metavar="FOLDER", help="of demo_data/crawls/shop.py")
    parser.add_argument("--articles", default="runs/articles", metavar="FOLDER", help="of demo_data/shop.py")
    parser.add_argument("--weight", type=float, default=1.0, help="of the ranking by words; default: 1")
    args = parser.parse_args()

    drawings = DataSpec([args.drawings])
    shop = DataSpec([str(path) for path in sorted(Path(args.shop).glob("*.tar"))])
    articles = DataSpec([str(Path(args.articles, "商品.csv"))], images=str(Path(args.articles, "photos")))
    rows: list[tuple[str, DataSpec, Callable[[Index, str], list[Query]], str]] = [
        ("names: titles of the shop", shop, ask_by_field, "caption"),
        ("names: titles of articles", articles, ask_by_field, "caption_zh"),
        ("numbers: articles", articles, ask_by_field, "货号"),
        ("meaning: titles of the shop", shop, ask_by_meaning, "caption"),
        ("meaning: drawings, zh", drawings, ask_by_meaning, "caption_zh"),
        ("meaning: drawings, en", drawings, ask_by_meaning, "caption_en"),
    ]
    header = ["queries", "number"]
    for depth in DEPTHS:
        header += [f"R@{depth}, meaning", f"R@{depth}, with words", "difference"]
    header += ["ms, meaning", "ms, with words"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for name, data, ask, field in rows:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_index(Path(folder, "index"), args.checkpoint, writable=True) as index,
        ):
            add_images(index, list_images(data), thumbnail_side=0)
            print_row(name, index, ask(index, field), args.weight)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
