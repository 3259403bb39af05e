"""Measure what search by words adds to search by meaning: names and numbers that it finds, and what it displaces.

    python demo_data/crawls/shop.py --output runs/crawls/shop --rows 2000
    python demo_data/shop.py --output runs/articles
    python demo_data/icons.py --output runs/icons --sets mdi game-icons openmoji streamline-emojis icon-park-twotone
    python benchmarks/words.py --checkpoint runs/emoji

Each set is indexed, and asked with and without the ranking by words. "Names" and "numbers" are in a field of the image
that they ask for. "Tags" are names that images have among their tags alone. "Meaning" removes texts from every second
image and asks for these images by their captions, so that words can only match wrong images: either all texts are
removed, or those in the language of the query. R@k is the share of queries with a right image among the first k hits;
differences have 95 % intervals over the queries.

The factor of words in `search.fusion` was chosen on the validation style: --drawings demo_data/emoji-val.tar.
"""

import argparse
import math
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.add_items import add_images, list_images
from ernie_vil2.apps.search.collection import Item, WordQueries
from ernie_vil2.apps.search.index import Index
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.evaluation.intervals import Interval, estimate_over_queries, estimate_query_difference

DEPTHS = (1, 5, 10)
CHUNK_SIZE = 256  # queries that are encoded and asked together
MAX_QUERIES = 2000  # queries of a row of the table: the intervals are narrow by then

QueryMaker = Callable[[Index, str], "list[Query]"]
"""Changes the fields of an index, and returns queries for the values of a field."""


class Query(NamedTuple):
    """A query with its right answers.

    Attributes:
        text: the query.
        right_ids: ids of the images that are right answers.
    """

    text: str
    right_ids: frozenset[str]


def read_items(index: Index) -> list[Item]:
    """Return the images of an index, sorted by id."""
    return sorted(index.collection("images").iterate_items(), key=lambda item: item.id)


def number_images(index: Index) -> None:
    """Replace the ids of the images of an index by numbers, since ids have words, too."""
    collection = index.collection("images")
    items = read_items(index)
    embeddings = [collection.get_embedding(item.id) for item in items]
    collection.remove([item.id for item in items])
    new_items = [replace(item, id=f"{number:08}") for number, item in enumerate(items)]
    collection.add(new_items, np.array(embeddings, np.float32))


def ask_by_field(index: Index, field: str) -> list[Query]:
    """Return a query for each value of a field; all images that have it are right answers."""
    ids_by_value: dict[str, set[str]] = {}
    for item in read_items(index):
        if field in item.fields:
            ids_by_value.setdefault(str(item.fields[field]), set()).add(item.id)
    return [Query(text, frozenset(right_ids)) for text, right_ids in ids_by_value.items()]


def remove_fields(index: Index, keeps: Callable[[str, Any], bool], step: int = 1) -> set[str]:
    """Remove fields from every `step`-th image.

    Args:
        index: the index.
        keeps: returns whether a field is kept, from its name and value.
        step: 1 for all images, 2 for every second one.

    Returns:
        The ids of these images.
    """
    items = []
    for item in read_items(index)[::step]:
        fields = {name: value for name, value in item.fields.items() if keeps(name, value)}
        items.append(replace(item, fields=fields))
    index.collection("images").update(items)
    return {item.id for item in items}


def ask_by_tags(index: Index, field: str) -> list[Query]:
    """Remove all fields but lists of tags, and return a query for each value that the field had."""
    queries = ask_by_field(index, field)
    remove_fields(index, lambda _, value: isinstance(value, list))
    return queries


def ask_by_meaning(index: Index, field: str) -> list[Query]:
    """Remove all fields from every second image, and return queries whose right answers are all among these images."""
    queries = ask_by_field(index, field)
    bare_ids = remove_fields(index, lambda *_: False, step=2)
    return [query for query in queries if query.right_ids <= bare_ids]


def ask_in_other_language(index: Index, field: str) -> list[Query]:
    """Do as `ask_by_meaning`, but remove only the fields in the language of `field`, whose names end in _zh or _en."""
    queries = ask_by_field(index, field)
    language = field[-3:]
    changed_ids = remove_fields(index, lambda name, _: not name.endswith(language), step=2)
    return [query for query in queries if query.right_ids <= changed_ids]


def measure(
    index: Index, queries: Sequence[Query], weight: float
) -> tuple[dict[tuple[int, bool], np.ndarray], list[float]]:
    """Search for all queries, without and with the ranking by words.

    Args:
        index: the index.
        queries: the queries, at least one.
        weight: weight of the ranking by words.

    Returns:
        Whether the queries have a right answer, `[Q]` of 0 and 100, by depth and whether words are ranked; and the CPU
        milliseconds of all searches without and with words.
    """
    outcomes: dict[tuple[int, bool], list[float]] = defaultdict(list)
    milliseconds = [0.0, 0.0]
    collection = index.collection("images")
    for start in range(0, len(queries), CHUNK_SIZE):
        chunk = queries[start : start + CHUNK_SIZE]
        texts = [query.text for query in chunk]
        embeddings = index.encode_texts(texts)
        if start == 0:
            # Warm-up: the first search opens files and loads libraries, which would count for the one without words.
            collection.search(embeddings[:1], max(DEPTHS), words=WordQueries(texts[:1], weight))
        for has_words in (False, True):
            words = WordQueries(texts, weight) if has_words else None
            start_cpu = time.process_time()
            answers = collection.search(embeddings, max(DEPTHS), words=words)
            milliseconds[has_words] += 1000 * (time.process_time() - start_cpu)
            for query, hits in zip(chunk, answers, strict=True):
                right_ranks = [rank for rank, hit in enumerate(hits, 1) if hit.id in query.right_ids]
                first_rank = min(right_ranks, default=math.inf)
                for depth in DEPTHS:
                    outcomes[depth, has_words].append(100.0 * (first_rank <= depth))
    return {key: np.array(values) for key, values in outcomes.items()}, milliseconds


def format_interval(interval: Interval, sign: str = "") -> str:
    """Return a figure with its interval, which a single query does not have."""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:{sign}.1f}"
    return f"{interval.mean:{sign}.1f} ({interval.low:{sign}.1f} to {interval.high:{sign}.1f})"


def print_row(titles: Sequence[str], index: Index, queries: Sequence[Query], weight: float) -> None:
    """Print a row of the table: its titles, the number of queries, recalls with differences, and CPU milliseconds."""
    outcomes, milliseconds = measure(index, queries, weight)
    cells = [*titles, f"{len(queries):,}"]
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
    parser.add_argument("--drawings", default="demo_data/emoji-test.tar", metavar="SOURCE", help="the demo's drawings")
    parser.add_argument(
        "--shop", default="runs/crawls/shop", metavar="FOLDER", help="output of demo_data/crawls/shop.py"
    )
    parser.add_argument("--articles", default="runs/articles", metavar="FOLDER", help="output of demo_data/shop.py")
    parser.add_argument("--icons", default="runs/icons", metavar="FOLDER", help="output of demo_data/icons.py")
    parser.add_argument("--weight", type=float, default=1.0, help="weight of the ranking by words")
    args = parser.parse_args()

    sets = {
        "shop": DataSpec([str(path) for path in sorted(Path(args.shop).glob("*.tar"))]),
        "articles": DataSpec([str(Path(args.articles, "商品.csv"))], images=str(Path(args.articles, "photos"))),
        "drawings": DataSpec([args.drawings]),
        "icons": DataSpec([str(path) for path in sorted(Path(args.icons).glob("*.tar"))]),
    }
    # Title, set, queries, and the field that they are made from.
    rows: list[tuple[str, str, QueryMaker, str]] = [
        ("names", "shop", ask_by_field, "caption"),
        ("names", "articles", ask_by_field, "caption_zh"),
        ("numbers", "articles", ask_by_field, "货号"),
        ("names, zh", "drawings", ask_by_field, "caption_zh"),
        ("names, en", "drawings", ask_by_field, "caption_en"),
        ("names", "icons", ask_by_field, "caption_en"),
        ("tags, zh", "drawings", ask_by_tags, "caption_zh"),
        ("tags, en", "drawings", ask_by_tags, "caption_en"),
        ("meaning", "shop", ask_by_meaning, "caption"),
        ("meaning, zh", "drawings", ask_by_meaning, "caption_zh"),
        ("meaning, en", "drawings", ask_by_meaning, "caption_en"),
        ("meaning, zh among en", "drawings", ask_in_other_language, "caption_zh"),
        ("meaning, en among zh", "drawings", ask_in_other_language, "caption_en"),
        ("meaning", "icons", ask_by_meaning, "caption_en"),
    ]
    header = ["queries", "set", "number"]
    for depth in DEPTHS:
        header += [f"R@{depth}, meaning", f"R@{depth}, with words", "difference"]
    header += ["CPU ms, meaning", "CPU ms, with words"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    with tempfile.TemporaryDirectory() as folder:
        for name, data in sets.items():
            with open_index(Path(folder, name), args.checkpoint, writable=True) as index:
                add_images(index, list_images(data), thumbnail_side=0)
                number_images(index)
        for title, name, make_queries, field in rows:
            # A copy, because the queries change the index.
            copy = shutil.copytree(Path(folder, name), Path(folder, "copy"))
            with open_index(copy, args.checkpoint, writable=True) as index:
                queries = make_queries(index, field)
                if not queries:
                    sys.exit(f"error: no image of {name} has {field}")
                step = math.ceil(len(queries) / MAX_QUERIES)
                print_row([title, name], index, queries[::step], args.weight)
            shutil.rmtree(copy)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
