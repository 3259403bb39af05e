"""Search images by a sentence or an image, and name images by texts such as tags.

    python tools/search.py build --index icons --checkpoint runs/emoji --data demo_data/icons/*.tar --texts tags.txt
    python tools/search.py query --index icons "a red apple" "红苹果"
    python tools/search.py query --index icons --image cat.jpg --among texts
    python tools/search.py query --index icons --image cat.jpg --plus "at night" --minus "people" --where license=MIT
    python tools/search.py query --index icons "A1-B" "苹果手机壳"   # exact names and numbers, next to the meaning
    python tools/search.py add --index icons --data more/    # or: remove --index icons ID ...
    python tools/search.py sync --index icons --data more/   # add, update and remove what has changed
    python tools/search.py serve --index icons               # a page at http://127.0.0.1:8000
    python tools/search.py check --index icons               # compare all files with their checksums

An index is a folder, or lies in Milvus: --index http://host:19530/NAME, or a .db folder of milvus-lite. It belongs to
the checkpoint that it was built with. Content that an index has is not encoded again, so a build that was interrupted
continues where it stopped. docs/search.md explains the rest.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_vil2.apps.serving.options import add_server_options, serve_application
from ernie_vil2.cli import print_next_command
from ernie_vil2.cli.arguments import (
    CALIBRATED,
    add_allow_pipes_option,
    add_import_option,
    add_precision_option,
    add_source_argument,
    add_table_options,
    count,
    fraction,
    get_calibrated_threshold,
    input_file,
    input_folder,
    input_path,
    make_data_spec,
    model,
    non_negative_number,
    number,
    threshold,
    whole_number,
)
from ernie_vil2.device.extras import require
from ernie_vil2.io.files import parse_json
from ernie_vil2.io.terminal import make_printable, print_error

if TYPE_CHECKING:
    import numpy as np

    from ernie_vil2.apps.search.index import Index
    from ernie_vil2.apps.search.ocr_results import RecognizedTexts
    from ernie_vil2.apps.serving.metrics import Metrics
    from ernie_vil2.apps.serving.middleware import Access
    from ernie_vil2.apps.serving.server import Application

# Not imported from `search.collection`: NumPy would make every call of the command line slower.
KINDS = ("images", "texts")
BATCH_SIZE = 256  # queries that are encoded and answered together; answers appear batch by batch
MAX_CONDITION_LENGTH = 1000  # characters of --where
INTEGER_BOUND = 2**63  # SQLite stores integers of 64 bits with sign, so no item has a larger one
ACTIONS = {
    "build": "add images and texts, and make the index fast to search",
    "add": "add or replace images and texts",
    "sync": "bring the index up to date with its sources: add, update and remove images and texts",
    "remove": "remove images or texts by their ids",
    "query": "search by sentences and images",
    "serve": "serve a page and an API",
    "check": "read the whole index and report what is damaged",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of the command with their options."""
    # Defaults are written out here: importing the modules that define them would take longer than printing the help.
    subparsers = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    parsers = {name: subparsers.add_parser(name, help=text, description=text) for name, text in ACTIONS.items()}
    for name, action in parsers.items():
        action.add_argument(
            "--index", required=True, metavar="INDEX", help="folder, .db of milvus-lite, or address of Milvus"
        )
        if name == "check":
            add_import_option(action)
        else:
            _add_model_options(action)
    for name in ("build", "add", "sync"):
        _add_source_options(parsers[name])

    parsers["build"].add_argument(
        "--index-type", metavar="NAME", help="exact, ivf or your own; default: chosen by the number of items"
    )
    parsers["build"].add_argument(
        "--recall",
        type=fraction,
        default=0.98,
        help="share of the ten closest items that the index type must find; default: 0.98",
    )
    parsers["sync"].add_argument("--dry-run", action="store_true", help="report what would be done, and change nothing")
    parsers["sync"].add_argument(
        "--rebuild",
        type=fraction,
        default=0.1,
        metavar="SHARE",
        help="build the index type again if more than this share of the rows is not in it yet, and drop the rows of "
        "removed items if they are more than this share; default: 0.1",
    )
    parsers["remove"].add_argument("ids", nargs="+", metavar="ID")
    parsers["remove"].add_argument("--among", choices=KINDS, default="images")
    _add_query_options(parsers["query"])
    _add_serve_options(parsers["serve"])


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=model,
        metavar="MODEL",
        help="model, as for load_model; default: the one that the index was built with",
    )
    parser.add_argument("--device", help="auto, cpu, gpu, gpu:0, ...")
    parser.add_argument(
        "--width",
        type=count,
        metavar="NUMBERS",
        help="one of the model's Loss.widths: a new index stores embeddings of this width; in an index of wider "
        "embeddings items are found by their first numbers and ranked by all; default: all numbers",
    )
    add_precision_option(parser)
    add_import_option(parser)
    add_allow_pipes_option(parser)


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    add_source_argument(parser, "--data", "SOURCE", "any source of docs/data.md, or folders of images")
    add_table_options(parser)
    parser.add_argument(
        "--ocr",
        action="extend",
        nargs="+",
        default=[],
        type=input_path,
        metavar="FILE",
        help="results of PaddleOCR (save_to_json) for images of --data, or folders of them: texts become a field, "
        "which query finds",
    )
    add_source_argument(parser, "--texts", "FILE", "lines of a .txt, or the tags of a source of samples")
    parser.add_argument(
        "--thumbnails",
        type=whole_number,
        default=160,
        metavar="PIXELS",
        help="longer side of the thumbnails that the page shows; 0: no thumbnails; default: 160",
    )
    parser.add_argument(
        "--root",
        type=input_folder,
        metavar="FOLDER",
        help="base folder of the image paths that are stored; default: the folder that the index has, or the working "
        "directory for a new index",
    )


def _add_query_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="*", help="sentences")
    parser.add_argument("--file", type=input_file, metavar="FILE", help="more sentences, one per line")
    parser.add_argument(
        "--image", action="extend", nargs="+", default=[], type=input_file, metavar="FILE", help="images"
    )
    parser.add_argument("--plus", action="append", default=[], metavar="TEXT", help="text to add to every query")
    parser.add_argument(
        "--minus", action="append", default=[], metavar="TEXT", help="text to subtract from every query"
    )
    parser.add_argument("--among", choices=KINDS, default="images", help="what to search; default: images")
    parser.add_argument("--count", type=count, default=10, help="number of hits for each query; default: 10")
    parser.add_argument(
        "--threshold",
        type=threshold,
        metavar="COSINE",
        help="smallest cosine similarity of a hit; calibrated: from tools/calibrate.py; default: any",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only items with this value, or within bounds: price<100, date>=2025-01-01",
    )
    parser.add_argument(
        "--words",
        action=argparse.BooleanOptionalAction,
        help="also find the items whose fields contain all words of a sentence; default: yes, unless there is --plus "
        "or --minus, or the index is in Milvus",
    )
    parser.add_argument(
        "--word-weight",
        type=non_negative_number,
        default=1.0,
        metavar="WEIGHT",
        help="weight of these items; with 1, the best one that a sentence names comes first, with 2 all of them; "
        "default: 1",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object for each query")


def _add_serve_options(parser: argparse.ArgumentParser) -> None:
    add_server_options(parser, default_queue=256)
    parser.add_argument(
        "--root",
        action="extend",
        nargs="+",
        default=[],
        type=input_folder,
        metavar="FOLDER",
        help="folders whose images are served in full; default: only thumbnails are served",
    )
    parser.add_argument(
        "--threshold", type=number, help="smallest cosine similarity of a tag; default: from the model's calibration"
    )
    parser.add_argument(
        "--cache",
        type=whole_number,
        default=2048,
        help="number of answers that a process keeps until the index changes; 0: none; default: 2048",
    )
    parser.add_argument("--title", default="ERNIE-ViL 2.0 search", help="title of the page")
    parser.add_argument(
        "--show", action="extend", nargs="+", default=[], metavar="FIELD", help="fields on the cards of the page"
    )
    parser.add_argument("--writable", action="store_true", help="let the API add and remove items; needs a token")


def run(args: argparse.Namespace) -> int:
    """Run the action of the command and return the exit code."""
    actions = {
        "build": _build,
        "add": _add,
        "sync": _sync,
        "remove": _remove,
        "query": _query,
        "serve": _serve,
        "check": _check,
    }
    return actions[args.action](args)


def _build(args: argparse.Namespace) -> int:
    from ernie_vil2.apps.search.add_items import optimize_collection
    from ernie_vil2.apps.search.index_types import find_index_type
    from ernie_vil2.apps.search.store import open_store
    from ernie_vil2.registry import import_user_modules

    _check_table_options(args)
    if not (args.data or args.texts):  # only the index type is built, so the index must exist
        try:
            open_store(args.index, writable=False).close()
        except FileNotFoundError:
            raise ValueError(
                f"{args.index} is not an index yet: name its model (--checkpoint) and content (--data, --texts)"
            ) from None

    # A wrong name is reported now, and not when all images have been encoded.
    if args.index_type is not None:
        import_user_modules([args.index_type])
        find_index_type(args.index_type)
    with _open_index(args, writable=True) as index:
        num_used = _add_sources(index, args)
        for kind in KINDS:
            if index.has(kind):
                optimize_collection(index, kind, args.index_type, args.recall)
                collection = index.collection(kind)
                print(f"{kind}: {len(collection):,}, {json.dumps(collection.index_type)}")
    if num_used:
        print_next_command(args, "search", "serve", "--index", args.index)
    return _exit_code(num_used, args)


def _add(args: argparse.Namespace) -> int:
    if not (args.data or args.texts):
        raise ValueError("nothing to add: name --data or --texts")
    _check_table_options(args)
    with _open_index(args, writable=True) as index:
        num_used = _add_sources(index, args)
    return _exit_code(num_used, args)


def _sync(args: argparse.Namespace) -> int:
    from ernie_vil2.apps.search.add_items import rebuild_if_needed, sync_images, sync_texts

    if not (args.data or args.texts):
        raise ValueError("nothing to bring up to date: name --data or --texts")
    _check_table_options(args)
    with _open_index(args, writable=not args.dry_run) as index:
        if args.data:
            texts = _read_ocr_results(args)
            result = sync_images(index, make_data_spec(args), args.thumbnails, args.dry_run, texts)
            print(f"images: {result}")
            _report_ocr_results(texts)
        if args.texts:
            print(f"texts: {sync_texts(index, args.texts, args.dry_run)}")
        for kind in KINDS:
            if index.has(kind) and not args.dry_run:
                rebuild_if_needed(index, kind, args.rebuild)
    return 0


def _exit_code(num_used: int, args: argparse.Namespace) -> int:
    """Return 1, with a message, if there were sources and nothing in them could be used."""
    if num_used or not (args.data or args.texts):
        return 0
    print_error(f"nothing in {', '.join(args.data + args.texts)} could be used")
    return 1


def _remove(args: argparse.Namespace) -> int:
    ids = list(dict.fromkeys(args.ids))
    with _open_index(args, writable=True) as index:
        num_removed = index.collection(args.among).remove(ids)
    print(f"{num_removed} of {len(ids)} removed")
    return 0 if num_removed == len(ids) else 1


def _query(args: argparse.Namespace) -> int:
    from ernie_vil2.apps.search.collection import WordQueries
    from ernie_vil2.data.samples import is_blank
    from ernie_vil2.io.files import read_text

    for option, values in (("a query", args.text), ("--plus", args.plus), ("--minus", args.minus)):
        if any(is_blank(text) for text in values):
            raise ValueError(f"{option} is empty: write a sentence")
    texts = list(args.text)
    if args.file:
        texts += [line for line in read_text(args.file).split("\n") if line.strip()]
    if not (texts or args.image or args.plus):
        raise ValueError("nothing to search for: write a sentence, or name --file, --image or --plus")

    # --plus and --minus are the same for all queries, so their sum is encoded once.
    terms = [(1.0, text) for text in args.plus] + [(-1.0, text) for text in args.minus]
    suffixes = [f"+ {text}" for text in args.plus] + [f"- {text}" for text in args.minus]
    options: dict[str, Any] = {
        "count": args.count,
        "among": args.among,
        "where": _parse_conditions(args.where),
        "threshold": args.threshold,
    }
    with _open_index(args) as index:
        if args.threshold == CALIBRATED:
            direction = "image_to_text" if args.among == "texts" else "text_to_image"
            options["threshold"] = get_calibrated_threshold(index.model, index.name, direction, is_quiet=args.json)
        offset = index.combine_embeddings(terms)
        use_words = args.words
        if use_words is None:
            use_words = index.has_words and not terms
        for names, sentences, embeddings in _encode_queries(index, texts, args.image):
            if use_words:
                word_texts = [" ".join([sentence, *args.plus]) for sentence in sentences]
                options["words"] = WordQueries(word_texts, args.word_weight)
            answers = index.search_embeddings(embeddings + offset, **options)
            for name, hits in zip(names, answers, strict=True):
                terms_of_query = [name, *suffixes] if name else suffixes  # there is no name for --plus alone
                _print_hits(" ".join(terms_of_query), hits, args.json)
    return 0


def _encode_queries(
    index: Index, texts: list[str], images: list[str]
) -> Iterator[tuple[list[str], list[str], np.ndarray]]:
    """Yield batches of queries: their names, their sentences, which an image has none of, and embeddings `[Q, D]`.

    If there is no query, yield one without a name whose embedding is zero, so that --plus can be used alone.
    """
    import numpy as np

    for start in range(0, len(texts), BATCH_SIZE):
        batch = texts[start : start + BATCH_SIZE]
        yield batch, batch, index.encode_texts(batch)
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        yield batch, [""] * len(batch), index.model.encode_images([Path(name) for name in batch])
    if not (texts or images):
        yield [""], [""], np.zeros([1, index.model.embed_dim], np.float32)


def _serve(args: argparse.Namespace) -> int:
    require("the page of a search", "fastapi", "uvicorn", "orjson")
    from ernie_vil2.apps.search.locations import OriginalImages
    from ernie_vil2.apps.search.store import open_store

    # Wrong folders are reported now, and not when the model has been loaded.
    OriginalImages(args.root)
    open_store(args.index, writable=False).close()
    if args.writable and not args.token_file:
        raise ValueError("--writable lets clients change the index: name a --token-file as well")
    return serve_application(open_search, args)


@contextmanager
def open_search(args: argparse.Namespace, metrics: Metrics, access: Access) -> Iterator[Application]:
    """Open the index and yield the application that searches it."""
    from ernie_vil2.apps.search.batching import SearchBatcher
    from ernie_vil2.apps.search.service import build_app, describe_content
    from ernie_vil2.apps.serving.server import Application

    with _open_index(args) as index:
        lines = []
        if args.threshold is None and index.model.calibration and index.has("texts"):
            lines.append(f"tags: {index.model.calibration.describe('image_to_text')}")
        if args.root:
            lines.append(f"images in full: {', '.join(map(str, args.root))}")
        else:
            lines.append("thumbnails alone; --root names folders whose images are served in full")
        lines.append(describe_content(index))
        batcher = SearchBatcher(index, args.queue, args.cache, metrics)
        app = build_app(index, args.threshold, access, args.root, batcher, args.show, args.writable, args.title)
        yield Application(app, "\n".join(lines))


def _check(args: argparse.Namespace) -> int:
    from ernie_vil2.apps.search.checking import check_index

    result = check_index(args.index)
    for line in (*result.summary, *result.faults):
        print(line)
    return 1 if result.faults else 0


def _open_index(args: argparse.Namespace, writable: bool = False) -> Index:
    from ernie_vil2.apps.search import open_index
    from ernie_vil2.encoder import describe_backend

    has_root = args.action in ("build", "add", "sync")  # --root of serve is another option
    root = args.root if writable and has_root else None
    index = open_index(args.index, args.checkpoint, writable, args.device, args.precision, root, args.width)
    if args.action != "query":
        print(f"backend: {describe_backend(index.model.backend)}")
    return index


def _check_table_options(args: argparse.Namespace) -> None:
    """Raise ValueError if there are options of --data without it."""
    if not args.data and (args.images or args.columns or args.encoding or args.ocr):
        raise ValueError("--images, --columns, --encoding and --ocr describe --data: name it, or leave them out")


def _read_ocr_results(args: argparse.Namespace) -> RecognizedTexts | None:
    from ernie_vil2.apps.search.ocr_results import RecognizedTexts

    return RecognizedTexts(args.ocr) if args.ocr else None


def _report_ocr_results(texts: RecognizedTexts | None) -> None:
    if texts is not None:
        print(f"texts in images: {len(texts.used_paths):,} of {len(texts):,} results belong to images of these sources")


def _add_sources(index: Index, args: argparse.Namespace) -> int:
    """Add the images and texts of the options, and return how many of them could be used."""
    from ernie_vil2.apps.search.add_items import add_images, add_recognized_texts, add_texts, list_images, read_texts

    # Texts are added file by file, each with a summary of its own.
    num_used = 0
    if args.data:
        images, texts = list_images(make_data_spec(args)), _read_ocr_results(args)
        if texts is not None:
            images = add_recognized_texts(images, texts)
        result = add_images(index, images, args.thumbnails)
        print(f"images: {result}")
        _report_ocr_results(texts)
        num_used += result.num_used
    for file in args.texts:
        result = add_texts(index, read_texts(file))
        print(f"texts: {result}")
        num_used += result.num_used
    return num_used


def _print_hits(query: str, hits: list, as_json: bool) -> None:
    if as_json:
        json.dump({"query": query, "hits": [hit.as_json() for hit in hits]}, sys.stdout, ensure_ascii=False)
        print()
        return
    print(make_printable(query))
    for hit in hits:
        captions = [str(value) for name, value in hit.fields.items() if name.startswith("caption")]
        mark = "  [words]" if hit.has_words else ""
        print(f"  {hit.score:.3f}  {make_printable(hit.id)}  {make_printable(', '.join(captions))}{mark}")
    if not hits:
        print("  nothing is close enough")


def _parse_conditions(conditions: list[str]) -> dict[str, Any]:
    """Return the filter that the values of --where describe: values or bounds of each field."""
    where: dict[str, Any] = {}
    for text in conditions:
        if len(text) > MAX_CONDITION_LENGTH:
            raise ValueError(
                f"--where {text[:40]}...: more than {MAX_CONDITION_LENGTH:,} characters; name a shorter value"
            )
        match = re.fullmatch(r"([^<>=]+)(<=|>=|<|>|=)(.*)", text, re.DOTALL)
        if not match:
            raise ValueError(f"--where {text}: write FIELD=VALUE or FIELD<VALUE, such as license=MIT or price<100")
        name, operator, value = match.groups()
        try:
            json_value = parse_json(value)
        except ValueError:
            json_value = value
        is_number = isinstance(json_value, int | float)

        is_bound = operator != "="
        condition = where.setdefault(name, {} if is_bound else [])
        if isinstance(condition, dict) != is_bound:
            raise ValueError(f"--where {text}: {name} has both values and bounds; give one kind")
        if is_bound:  # a number, or a text that the index accepts only if it is a date
            if operator in condition:
                raise ValueError(f"--where {text}: {name} has two bounds with {operator}; give one")
            condition[operator] = json_value if is_number else value
        else:
            # `--where page=3` may mean the text "3" or the number 3, so items with either match. The same holds for
            # quoted texts: `name="a"` means the text with the quotes or the one without.
            condition.append(value)
            was_quoted = isinstance(json_value, str) and json_value != value
            if was_quoted or (is_number and -INTEGER_BOUND <= json_value < INTEGER_BOUND):
                condition.append(json_value)
    return where
