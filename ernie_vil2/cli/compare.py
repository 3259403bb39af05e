"""Compare models on your own data: figures with intervals, which is better, who finds what, and what each costs.

    python tools/compare.py runs/emoji runs/scratch --data demo_data/emoji-test.tar --language zh en
    python tools/compare.py ernie-vil-2.0-base-zh mine=runs/mine --data titles.csv --images photos
    python tools/compare.py runs/emoji --embeddings api=embeddings --data titles.csv --images photos
    python tools/compare.py first second --data coco-cn-version1805v1.1 --protocol coco-cn-test

Models are checkpoints, exports and known names; the first is what the others are compared with. Prints a table and a
verdict for each, and writes them as text and JSON, every query's ranks as CSV, and a page with what one model finds and
another does not. docs/compare.md says how intervals and verdicts are meant.
"""

import argparse
import os
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from ernie_vil2.cli import arguments
from ernie_vil2.cli.arguments import count, file_name, input_folder, model, natural, option, output_folder, source
from ernie_vil2.cli.eval import write_results


def labelled_model(text: str) -> tuple[str, str]:
    """Name, if any, and source of `MODEL` or `NAME=MODEL`."""
    name, equals, path = text.partition("=")
    if equals and not os.path.lexists(text):
        return name, model(path)
    return "", model(text)


def labelled_folder(text: str) -> tuple[str, str]:
    """Name and folder of `NAME=FOLDER`."""
    name, equals, path = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text}: write NAME=FOLDER")
    return name, input_folder(path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    add = parser.add_argument
    add(
        "models",
        nargs="*",
        type=labelled_model,
        metavar="MODEL",
        help="as --checkpoint of tools/eval.py; NAME=MODEL names it",
    )
    add(
        "--embeddings",
        nargs="+",
        default=[],
        type=labelled_folder,
        metavar="NAME=FOLDER",
        help="embeddings of another library: image_embeddings.npy and text_embeddings.npy with images.jsonl and "
        "texts.jsonl as embed.py writes them, or images.txt and texts.txt, a name per line",
    )
    arguments.add_data_options(parser)
    add("--language", nargs="+", help="of the captions, where they have several; default: the first model's")
    add("--protocol", nargs="+", default=[], metavar="NAME", help="of retrieval, see docs/protocols.md; default: pairs")
    add("--scorer", metavar="NAME", help="what is scored, where the data's layout does not say it")
    add("--option", action="append", default=[], type=option, metavar="NAME=VALUE", help="of the scorer, as YAML")
    arguments.add_field_option(parser, Retrieval, "pixel_baseline", nargs="+", type=source)
    arguments.add_import_option(parser)
    arguments.add_encoding_options(parser)
    add("--resamples", type=count, default=10_000, help="of the bootstrap and the test; default: 10,000")
    add("--seed", type=natural, default=0, help="of both")
    add("--queries", type=count, default=12, help="of each kind on the page, for each model and direction")
    add("--name", type=file_name, help="of the files written; default: the data's")
    add("--output", type=output_folder, default=Path("comparison"), metavar="FOLDER", help="default: comparison")
    add("--no-cache", action="store_true", help="do not keep embeddings in the output folder")


def run(args: argparse.Namespace) -> int:
    if not args.data or len(args.models) + len(args.embeddings) + bool(args.pixel_baseline) < 2:
        raise ValueError("name two models or more, and --data; --embeddings NAME=FOLDER counts as a model")

    from ernie_vil2.evaluation.compare import (
        PIXEL_BASELINE_NAME,
        EmbeddingFolder,
        NearestPixels,
        compare_models,
        name_models,
    )
    from ernie_vil2.evaluation.compare_page import make_comparison_report
    from ernie_vil2.evaluation.report import describe_run
    from ernie_vil2.evaluation.scorer import find_scorer, make_scorer
    from ernie_vil2.registry import import_user_modules

    import_user_modules([*filter(None, [args.scorer]), *args.protocol])
    unnamed = iter(name_models([path for name, path in args.models if not name]))
    models: list[tuple[str, Any]] = [(name or next(unnamed), path) for name, path in args.models]
    models += [(name, EmbeddingFolder(folder)) for name, folder in args.embeddings]
    if args.pixel_baseline:
        models.append((PIXEL_BASELINE_NAME, NearestPixels(args.pixel_baseline)))
    if len(dict(models)) < len(models):
        names = ", ".join(name for name, _ in models)
        raise ValueError(f"each model has a name of its own; here are {names}")
    data = arguments.make_data_spec(args, languages=args.language)
    options = dict(args.option) | ({"protocol": tuple(args.protocol)} if args.protocol else {})
    compared = compare_models(
        dict(models),
        data,
        scorer=make_scorer(args.scorer or find_scorer(data, args.protocol), options),
        cache=None if args.no_cache else args.output / "embeddings",
        device=args.device,
        precision=args.precision,
        batch_size=args.batch_size,
        resamples=args.resamples,
        seed=args.seed,
    )
    report = make_comparison_report(compared, args.queries)
    record = describe_run(" ".join(compared.sources), list(map(str, args.data)), report.settings, None)
    suffixes = [*filter(None, [args.split]), *(args.language or []), *args.protocol]
    return write_results(args, report, record, args.output, suffixes)
