"""Search images by a sentence or an image, and name images by texts such as tags.

    python tools/search.py build --index icons --checkpoint runs/emoji --data demo_data/icons/*.tar --texts tags.txt
    python tools/search.py query --index icons "a red apple" "红苹果"
    python tools/search.py query --index icons --image cat.jpg --among texts
    python tools/search.py query --index icons --image cat.jpg --plus "at night" --minus "people" --where license=MIT
    python tools/search.py add --index icons --data more/    # or: remove --index icons ID ...
    python tools/search.py sync --index icons --data more/   # what is new, changed and gone since
    python tools/search.py serve --index icons               # a page at http://127.0.0.1:8000
    python tools/search.py check --index icons               # is every file what was written?

An index is a folder, or lies in a Milvus: --index http://host:19530/NAME, or a .db folder of milvus-lite. It belongs to
the checkpoint that it was built with. What is there already with the same content is not encoded again, so that a
build that was stopped continues. docs/search.md has the rest.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_vil2.cli.arguments import (
    CALIBRATED,
    add_import_option,
    add_pipe_option,
    add_precision_option,
    add_sources,
    add_table_options,
    count,
    fraction,
    get_calibrated_threshold,
    input_file,
    input_folder,
    make_data_spec,
    model,
    natural,
    number,
    port,
    threshold,
)
from ernie_vil2.device.extras import require
from ernie_vil2.io.files import parse_json

if TYPE_CHECKING:
    import numpy as np

    from ernie_vil2.apps.search.index import Index

BATCH = 256  # queries of a file that are encoded and answered together

LONGEST_FILTER = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions = {
        name: kinds.add_parser(name, help=text, description=text)
        for name, text in (
            ("build", "add images and texts, and make searching them fast"),
            ("add", "add or replace images and texts"),
            ("sync", "bring images and texts up to date: add, refresh and remove what has come, changed and gone"),
            ("remove", "remove images or texts by their ids"),
            ("query", "ask"),
            ("serve", "serve a page and an API"),
            ("check", "read all of an index and report what is damaged"),
        )
    }
    for name, action in actions.items():
        action.add_argument("--index", required=True, metavar="INDEX", help="folder, .db of milvus-lite, or address")
        if name == "check":
            add_import_option(action)
            continue
        action.add_argument(
            "--checkpoint", type=model, metavar="MODEL", help="as for load_model; default: the index's own"
        )
        action.add_argument("--device", help="auto, cpu, gpu, gpu:0, ...")
        action.add_argument(
            "--width",
            type=count,
            metavar="NUMBERS",
            help="of the model's Loss.widths: of embeddings a new index keeps so many numbers; in one of wider "
            "embeddings items are found by them and ranked by all; default: all",
        )
        add_precision_option(action)
        add_import_option(action)
        add_pipe_option(action)
    for name in ("build", "add", "sync"):
        add_sources(actions[name], "--data", "SOURCE", "any source of docs/data.md, or folders of images")
        add_table_options(actions[name])
        add_sources(actions[name], "--texts", "FILE", "lines of a .txt, or the tags of a source of samples")
        actions[name].add_argument(
            "--thumbnails",
            type=natural,
            default=160,
            metavar="PIXELS",
            help="longer side of the small images that the page shows; 0: none",
        )
        actions[name].add_argument(
            "--root",
            type=input_folder,
            metavar="FOLDER",
            help="paths of images count from here; default: from where they did, at first the working directory",
        )
    actions["build"].add_argument(
        "--index-type", metavar="NAME", help="exact, ivf or your own; default: by the number of items"
    )
    actions["build"].add_argument(
        "--recall", type=fraction, default=0.98, help="share of the ten closest items that it finds; default: 0.98"
    )
    actions["sync"].add_argument("--dry-run", action="store_true", help="report what would be done, and change nothing")
    actions["sync"].add_argument(
        "--rebuild",
        type=fraction,
        default=0.1,
        metavar="SHARE",
        help="build the index type again where it does not cover a larger share of the rows, and drop rows of items "
        "that are gone where these are a larger share; default: 0.1",
    )
    actions["remove"].add_argument("ids", nargs="+", metavar="ID")
    actions["remove"].add_argument("--among", choices=("images", "texts"), default="images")
    query = actions["query"]
    query.add_argument("text", nargs="*", help="sentences")
    query.add_argument("--file", type=input_file, metavar="FILE", help="more sentences, one per line")
    query.add_argument("--image", nargs="+", default=[], type=input_file, metavar="FILE", help="images")
    query.add_argument("--plus", action="append", default=[], metavar="TEXT", help="is added to every query")
    query.add_argument("--minus", action="append", default=[], metavar="TEXT", help="is subtracted from every query")
    query.add_argument("--among", choices=("images", "texts"), default="images")
    query.add_argument("--count", type=count, default=10, help="answers to each query")
    query.add_argument(
        "--threshold",
        type=threshold,
        metavar="COSINE",
        help="least cosine of an answer; calibrated: by tools/calibrate.py; default: any",
    )
    query.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only items of this value, or within bounds: price<100, date>=2025-01-01",
    )
    query.add_argument("--json", action="store_true", help="one JSON object per query")
    serve = actions["serve"]
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    serve.add_argument("--port", type=port, default=8000, help="default: 8000; 0: one that is free")
    serve.add_argument(
        "--root",
        nargs="+",
        default=[],
        type=input_folder,
        metavar="FOLDER",
        help="folders whose images are served in full; default: thumbnails alone",
    )
    serve.add_argument("--threshold", type=number, help="least cosine of a tag; default: the checkpoint's calibration")
    serve.add_argument("--workers", type=count, default=1, help="processes that share port and index; default: 1")
    serve.add_argument(
        "--queue", type=count, default=256, help="queries that may wait in a process; one more gets 503; default: 256"
    )
    serve.add_argument(
        "--cache",
        type=natural,
        default=2048,
        help="answers that a process keeps until the index changes; default: 2048; 0: none",
    )
    serve.add_argument(
        "--token-file",
        type=input_file,
        metavar="FILE",
        help="every request but /healthz and /readyz needs the token in this file",
    )
    serve.add_argument("--trusted-proxy", nargs="+", action="extend", default=[], type=network, metavar="ADDRESS",
                       help="addresses or networks (10.0.0.0/8) of proxies: any number of their connections may be "
                       "slow, and their X-Forwarded-For is logged")  # fmt: skip
    serve.add_argument("--public", action="store_true", help="other machines may ask without a token")
    serve.add_argument("--allowed-host", nargs="+", default=[], metavar="NAME",
                       help="names by which it is addressed, as a proxy passes them; default: 127.0.0.1 and localhost, "
                       "with another --host any")  # fmt: skip
    serve.add_argument("--root-path", type=root_path, default="", metavar="/PATH",
                       help="where a proxy shows it: https://example.com/PATH/")  # fmt: skip
    serve.add_argument("--show", nargs="+", default=[], metavar="FIELD", help="fields on the cards of the page")
    serve.add_argument("--writable", action="store_true", help="the API adds and removes items; needs a token")
    serve.add_argument("--access-log", action="store_true", help="a line for each request, without the query")
    serve.add_argument("--log-queries", action="store_true", help="that line with the query")


def network(text: str) -> IPv4Network | IPv6Network:
    """Return the network of an option, or of one address."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is not an address such as 10.0.0.1, nor a network such as 10.0.0.0/8"
        ) from None


def root_path(text: str) -> str:
    """A path of an address, as `/images`."""
    if not re.fullmatch(r"(/[\w.~-]+)*/?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text} is not a path such as /images")
    return text.rstrip("/")


def run(args: argparse.Namespace) -> int:
    return globals()[f"_{args.action}"](args)


def _build(args: argparse.Namespace) -> int:
    from ernie_vil2.apps.search.add_items import optimize_collection
    from ernie_vil2.apps.search.index_types import find_index_type
    from ernie_vil2.apps.search.store import open_store
    from ernie_vil2.registry import import_user_modules

    _check_table_options(args)
    if not (args.data or args.texts):  # then what is there already gets an index type
        try:
            open_store(args.index, writable=False).close()
        except FileNotFoundError:
            raise ValueError(
                f"{args.index} is not an index yet: name its model (--checkpoint) and content (--data, --texts)"
            ) from None

    import_user_modules([args.index_type or ""])
    if args.index_type is not None:
        find_index_type(args.index_type)  # before all images are encoded
    with _opened(args, writable=True) as index:
        used = _fill(index, args)
        for kind in ("images", "texts"):
            if index.has(kind):
                optimize_collection(index, kind, args.index_type, args.recall)
                collection = index.collection(kind)
                print(f"{kind}: {len(collection):,}, {json.dumps(collection.index_type)}")
    return _checked(used, args)


def _add(args: argparse.Namespace) -> int:
    if not (args.data or args.texts):
        raise ValueError("nothing to add: name --data or --texts")
    _check_table_options(args)
    with _opened(args, writable=True) as index:
        used = _fill(index, args)
    return _checked(used, args)


def _sync(args: argparse.Namespace) -> int:
    from ernie_vil2.apps.search.add_items import rebuild_if_needed, sync_images, sync_texts

    if not (args.data or args.texts):
        raise ValueError("nothing to bring up to date: name --data or --texts")
    _check_table_options(args)
    with _opened(args, writable=not args.dry_run) as index:
        if args.data:
            data = make_data_spec(args)
            print(f"images: {sync_images(index, data, args.thumbnails, args.dry_run)}")
        if args.texts:
            print(f"texts: {sync_texts(index, args.texts, args.dry_run)}")
        for kind in ("images", "texts"):
            if index.has(kind) and not args.dry_run:
                rebuild_if_needed(index, kind, args.rebuild)
    return 0


def _checked(used: int, args: argparse.Namespace) -> int:
    """The exit code: 1 where there was data and nothing of it could be used."""
    if used or not (args.data or args.texts):
        return 0
    print(f"error: nothing of {', '.join(args.data + args.texts)} could be used", file=sys.stderr)
    return 1


def _remove(args: argparse.Namespace) -> int:
    with _opened(args, writable=True) as index:
        removed = index.collection(args.among).remove(args.ids)
    print(f"{removed} of {len(args.ids)} removed")
    return 0 if removed == len(args.ids) else 1


def _query(args: argparse.Namespace) -> int:
    from ernie_vil2.data.samples import is_blank
    from ernie_vil2.io.files import read_text

    for option, given in (("a query", args.text), ("--plus", args.plus), ("--minus", args.minus)):
        if any(is_blank(text) for text in given):
            raise ValueError(f"{option} is empty: write a sentence")
    texts = args.text + ([line for line in read_text(args.file).split("\n") if line.strip()] if args.file else [])
    if not (texts or args.image or args.plus):
        raise ValueError("ask something: a sentence, --file, --image or --plus")
    where = _where(args.where)
    changes = [(1.0, text) for text in args.plus] + [(-1.0, text) for text in args.minus]
    options = {"count": args.count, "among": args.among, "where": where, "threshold": args.threshold}
    with _opened(args) as index:
        if args.threshold == CALIBRATED:
            direction = "image_to_text" if args.among == "texts" else "text_to_image"
            options["threshold"] = get_calibrated_threshold(index.model, index.name, direction, is_quiet=args.json)
        change = index.combine_embeddings(changes)
        for names, vectors in _queries(index, texts, args.image):
            for name, hits in zip(names, index.search_embeddings(vectors + change, **options), strict=True):
                words = filter(None, [name, *(f"+ {t}" for t in args.plus), *(f"- {t}" for t in args.minus)])
                _show(" ".join(words), hits, args.json)
    return 0


def _queries(index: Index, texts: list[str], images: list[str]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Batches of queries, with their embeddings `[Q, D]`; without any one that is zero, for --plus alone."""
    import numpy as np

    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        yield batch, index.encode_texts(batch)
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        yield batch, index.model.encode_images([Path(name) for name in batch])
    if not (texts or images):
        yield [""], np.zeros([1, index.model.embed_dim], np.float32)


def _serve(args: argparse.Namespace) -> int:
    require("the page of a search", "fastapi", "uvicorn", "orjson")
    from ernie_vil2.apps.search.locations import Originals
    from ernie_vil2.apps.search.middleware import LOOPBACK_HOSTS, Access, read_token
    from ernie_vil2.apps.search.server import Settings, serve
    from ernie_vil2.apps.search.store import open_store

    Originals(args.root)  # before the model is loaded
    open_store(args.index, writable=False).close()
    token = read_token(args.token_file) if args.token_file else None
    if args.host not in LOOPBACK_HOSTS and not (token or args.public):
        raise ValueError(f"--host {args.host} lets other machines ask: name a --token-file, or --public if anybody may")
    own = LOOPBACK_HOSTS if args.host in LOOPBACK_HOSTS or args.allowed_host else ("*",)
    access = Access((*own, *map(str.lower, args.allowed_host)), token, args.root_path,
                    args.access_log or args.log_queries, args.log_queries)  # fmt: skip
    if args.writable and not token:
        raise ValueError("--writable lets clients change the index: name a --token-file as well")
    settings = Settings(
        host=args.host,
        port=args.port,
        workers=args.workers,
        access=access,
        trusted_proxies=args.trusted_proxy,
        threshold=args.threshold,
        roots=args.root,
        max_queue=args.queue,
        cache_size=args.cache,
        card_fields=args.show,
        writable=args.writable,
    )
    return serve(partial(_opened_by_worker if args.workers > 1 else _opened_to_serve, args), settings)


def _opened_to_serve(args: argparse.Namespace) -> Index:
    index = _opened(args)
    if args.threshold is None and index.model.calibration and index.has("texts"):
        print(f"tags: {index.model.calibration.described('image_to_text')}")
    return index


def _opened_by_worker(args: argparse.Namespace) -> Index:
    """As `_opened_to_serve`, in a process that does nothing else."""
    from ernie_vil2.cli import EXPECTED_ERRORS, format_error, import_modules, rewrite_commands

    try:
        import_modules(args)
        return _opened_to_serve(args)
    except EXPECTED_ERRORS as error:
        print(f"error: {rewrite_commands(format_error(error), args.prog)}", file=sys.stderr, flush=True)
        sys.exit(2)


def _check(args: argparse.Namespace) -> int:
    from ernie_vil2.apps.search.checking import check_index

    checked = check_index(args.index)
    for line in (*checked.summary, *checked.faults):
        print(line)
    return 1 if checked.faults else 0


def _opened(args: argparse.Namespace, writable: bool = False) -> Index:
    from ernie_vil2.apps.search import open_index
    from ernie_vil2.encoder import describe_backend

    root = args.root if writable and args.action != "remove" else None
    index = open_index(args.index, args.checkpoint, writable, args.device, args.precision, root, args.width)
    if args.action != "query":
        print(f"backend: {describe_backend(index.model.backend)}")
    return index


def _check_table_options(args: argparse.Namespace) -> None:
    """Raise ValueError if there are options of --data without it."""
    if not args.data and (args.images or args.columns or args.encoding):
        raise ValueError("--images, --columns and --encoding are of --data: name it, or leave them out")


def _fill(index: Index, args: argparse.Namespace) -> int:
    """Adds what the arguments name; returns how much of it could be used."""
    from ernie_vil2.apps.search.add_items import add_images, add_texts, list_images, read_texts

    used = 0
    if args.data:
        sources = list_images(make_data_spec(args))
        images = add_images(index, sources, args.thumbnails)
        print(f"images: {images}")
        used += images.num_used
    for file in args.texts:
        texts = add_texts(index, read_texts(file))
        print(f"texts: {texts}")
        used += texts.num_used
    return used


def _show(query: str, hits: list, as_json: bool) -> None:
    from ernie_vil2.io.terminal import printable

    if as_json:
        json.dump({"query": query, "hits": [hit.as_json() for hit in hits]}, sys.stdout, ensure_ascii=False)
        print()
        return
    print(printable(query))
    for hit in hits:
        captions = [str(value) for name, value in hit.fields.items() if name.startswith("caption")]
        print(f"  {hit.score:.3f}  {printable(hit.id)}  {printable(', '.join(captions))}")
    if not hits:
        print("  nothing that is close enough")


def _where(given: list[str]) -> dict[str, Any]:
    """The filter that `--where` options are: values of a field, or bounds of it."""
    where: dict[str, Any] = {}
    for text in given:
        if len(text) > LONGEST_FILTER:
            raise ValueError(f"--where {text[:40]}...: more than {LONGEST_FILTER:,} characters; name a shorter value")
        found = re.fullmatch(r"([^<>=]+)(<=|>=|<|>|=)(.*)", text, re.DOTALL)
        if not found:
            raise ValueError(f"--where {text}: write FIELD=VALUE or FIELD<VALUE, as license=MIT or price<100")
        name, sign, value = found.groups()
        try:
            meant = parse_json(value)
        except ValueError:
            meant = value
        is_number = isinstance(meant, int | float)
        ranged = sign != "="
        if isinstance(where.setdefault(name, {} if ranged else []), dict) != ranged:
            raise ValueError(f"--where {text}: {name} is given values and bounds; give one kind")
        if ranged:  # by a number, or by a date, of which the index says whether it is one
            where[name][sign] = meant if is_number else value
        else:  # the text itself, and what it is in JSON (true, 3), as far as a filter takes it
            taken = (is_number and -(2**63) <= meant < 2**63) or (isinstance(meant, str) and meant != value)
            where[name] += [value, meant] if taken else [value]
    return where
