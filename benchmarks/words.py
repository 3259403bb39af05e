"""What words find next to meaning: names and numbers of articles, and what queries by meaning lose.

    python demo_data/crawls/shop.py --output runs/crawls/shop --rows 2000
    python demo_data/shop.py --output runs/articles
    python demo_data/icons.py --output runs/icons --sets mdi game-icons openmoji streamline-emojis icon-park-twotone
    python benchmarks/words.py --checkpoint runs/emoji

Each set is indexed and asked twice, with and without the ranking by words. "Names" and "numbers" are in a field of the
image that they ask for; "tags" are names that images have among their tags alone. "Meaning" takes texts away from every
second image and asks for these images by their captions, so that the words of a query can only be found in wrong
images: either all texts, or those in the language of the query. R@k is the share of queries with a right image among
the first k hits; the differences have 95 % intervals over the queries.

The ids of the images are replaced by numbers, since they have words, too.

The factor of words in `search.fusion` was chosen on the validation style: --drawings demo_data/emoji-val.tar.
"""

import argparse
import math
import shutil
import tempfile
import time
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
MAX_QUERIES = 2000  # of a row of the table: the intervals are narrow by then


Ask = Callable[[Index, str], "list[Query]"]
"""Changes an index and returns queries for the values of a field."""


class Query(NamedTuple):
    """A text, and the ids of the images that are right answers."""

    text: str
    right_ids: frozenset[str]


def read_items(index: Index) -> list[Item]:
    """Return the images of an index, sorted by id."""
    return sorted(index.collection("images").iterate_items(), key=lambda item: item.id)


def number_images(index: Index) -> None:
    """Replace the ids of the images of an index by numbers."""
    collection = index.collection("images")
    items = read_items(index)
    embeddings = [collection.get_embedding(item.id) for item in items]
    collection.remove([item.id for item in items])
    new_items = [replace(item, id=f"{number:08}") for number, item in enumerate(items)]
    collection.add(new_items, np.array(embeddings, np.float32))


def ask_by_field(index: Index, field: str) -> list[Query]:
    """Return a query for each value of a field; all images that have it are right answers."""
    ids: dict[str, set[str]] = {}
    for item in read_items(index):
        if field in item.fields:
            ids.setdefault(str(item.fields[field]), set()).add(item.id)
    return [Query(text, frozenset(right_ids)) for text, right_ids in ids.items()]


def change_fields(index: Index, change: Callable[[str, Any], bool], step: int = 1) -> set[str]:
    """Leave in every `step`-th image the fields that `change` admits by name and value; return the images' ids."""
    items = []
    for item in read_items(index)[::step]:
        fields = {name: value for name, value in item.fields.items() if change(name, value)}
        items.append(replace(item, fields=fields))
    index.collection("images").update(items)
    return {item.id for item in items}


def ask_by_tags(index: Index, field: str) -> list[Query]:
    """Take the texts of all images away but their lists, and return a query for each value of a field."""
    queries = ask_by_field(index, field)
    change_fields(index, lambda _, value: isinstance(value, list))
    return queries


def ask_by_meaning(index: Index, field: str) -> list[Query]:
    """Take the fields of every second image away, and return a query for each value that such an image has had."""
    queries = ask_by_field(index, field)
    bare_ids = change_fields(index, lambda *_: False, step=2)
    return [query for query in queries if query.right_ids <= bare_ids]


def ask_in_other_language(index: Index, field: str) -> list[Query]:
    """Do the same, but take only the fields of the language away."""
    queries = ask_by_field(index, field)
    language = field[-3:]
    changed_ids = change_fields(index, lambda name, _: not name.endswith(language), step=2)
    return [query for query in queries if query.right_ids <= changed_ids]


def measure(
    index: Index, queries: Sequence[Query], weight: float
) -> tuple[dict[tuple[int, bool], np.ndarray], list[float]]:
    """Return the outcomes of queries, and the CPU times of all searches without and with words in milliseconds.

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
            begin = time.process_time()
            answers = collection.search(embeddings, max(DEPTHS), words=words)
            milliseconds[has_words] += 1000 * (time.process_time() - begin)
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


def print_row(titles: Sequence[str], index: Index, queries: Sequence[Query], weight: float) -> None:
    """Print a row of the table."""
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
    parser.add_argument("--drawings", default="demo_data/emoji-test.tar", metavar="SOURCE")
    parser.add_argument("--shop", default="runs/crawls/shop", metavar="FOLDER", help="of demo_data/crawls/shop.py")
    parser.add_argument("--articles", default="runs/articles", metavar="FOLDER", help="of demo_data/shop.py")
    parser.add_argument("--icons", default="runs/icons", metavar="FOLDER", help="of demo_data/icons.py")
    parser.add_argument("--weight", type=float, default=1.0, help="of the ranking by words; default: 1")
    args = parser.parse_args()

    sets = {
        "shop": DataSpec([str(path) for path in sorted(Path(args.shop).glob("*.tar"))]),
        "articles": DataSpec([str(Path(args.articles, "商品.csv"))], images=str(Path(args.articles, "photos"))),
        "drawings": DataSpec([args.drawings]),
        "icons": DataSpec([str(path) for path in sorted(Path(args.icons).glob("*.tar"))]),
    }
    rows: list[tuple[str, str, Ask, str]] = [
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
        for title, name, ask, field in rows:
            copy = shutil.copytree(Path(folder, name), Path(folder, "copy"))
            with open_index(copy, args.checkpoint, writable=True) as index:
                queries = ask(index, field)
                step = math.ceil(len(queries) / MAX_QUERIES)
                print_row([title, name], index, queries[::step], args.weight)
            shutil.rmtree(copy)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
