"""Compare models on your own data: scores with intervals, which model is better, what each finds, and what it costs.

    python tools/compare.py runs/emoji runs/scratch --data demo_data/emoji-test.tar --language zh en
    python tools/compare.py ernie-vil-2.0-base-zh mine=runs/mine --data titles.csv --images photos
    python tools/compare.py runs/emoji --embeddings api=embeddings --data titles.csv --images photos
    python tools/compare.py runs/emoji --embeddings http://127.0.0.1:8000/v1#large --data titles.csv --images photos
    python tools/compare.py first second --data coco-cn-version1805v1.1 --protocol coco-cn-test

Models are checkpoints, exports and names of released models; all are compared with the first. Prints a table and a
verdict for each, and writes them as text and JSON, every query's ranks as CSV, and a page with what one model finds and
another does not. docs/compare.md explains intervals and verdicts.
"""

import argparse
import os
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from ernie_vil2.cli import arguments
from ernie_vil2.cli.arguments import count, file_name, input_folder, model, option, output_folder, source, whole_number
from ernie_vil2.cli.eval import write_results
from ernie_vil2.io.model_address import is_address, parse_address


def labelled_model(text: str) -> tuple[str, str]:
    """Return name and source of NAME=MODEL, or "" and the source of MODEL."""
    name, equals, path = text.partition("=")
    if equals and not os.path.lexists(text):
        return name, model(path)
    return "", model(text)


def labelled_embeddings(text: str) -> tuple[str, str]:
    """Return name and folder of NAME=FOLDER, or name and address of NAME=ADDRESS; without NAME that of the model."""
    if is_address(text):
        return parse_address(text)[1], text
    name, equals, source = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text}: write NAME=FOLDER, or the address of an API, http://host/v1#MODEL")
    if is_address(source):
        parse_address(source)
        return name, source
    return name, input_folder(source)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 compare`."""
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    add = parser.add_argument
    add("models", nargs="*", type=labelled_model, metavar="MODEL",
        help="model, like --checkpoint of tools/eval.py; NAME=MODEL gives it a name")  # fmt: skip
    add("--embeddings", action="extend", nargs="+", default=[], type=labelled_embeddings, metavar="NAME=FOLDER",
        help="embeddings of another library: image_embeddings.npy and text_embeddings.npy, with images.jsonl and "
        "texts.jsonl as tools/embed.py writes them, or images.txt and texts.txt with a name on each line; or "
        "the address of a server in OpenAI's form, with the name of a model: http://host/v1#MODEL")  # fmt: skip
    arguments.add_data_options(parser)
    add("--language", action="extend", nargs="+",
        help="languages of the captions to compare on; default: those that the first model was trained on")  # fmt: skip
    add("--protocol", action="extend", nargs="+", default=[], metavar="NAME",
        help="protocols of retrieval, see docs/protocols.md; default: pairs")  # fmt: skip
    add("--scorer", metavar="NAME", help="scorer; default: chosen by the layout of the data")
    add("--option", action="append", default=[], type=option, metavar="NAME=VALUE",
        help="option of the scorer, its value written as YAML; may be repeated")  # fmt: skip
    arguments.add_field_option(parser, Retrieval, "pixel_baseline", nargs="+", type=source)
    arguments.add_import_option(parser)
    arguments.add_encoding_options(parser)
    add("--resamples", type=count, default=10_000,
        help="number of resamples for the intervals and the significance test; default: 10,000")  # fmt: skip
    add("--seed", type=whole_number, default=0, help="seed of the resamples (default 0)")
    add("--queries", type=count, default=12,
        help="queries of each kind on the page, for each model and direction (default 12)")  # fmt: skip
    add("--name", type=file_name, help="base name of the output files; default: derived from the data")
    add("--output", type=output_folder, default=Path("comparison"), metavar="FOLDER",
        help="output folder; default: comparison")  # fmt: skip
    add("--no-cache", action="store_true", help="do not keep embeddings in the output folder")


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 compare` and return its exit code."""
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

    scorer_names = [args.scorer] if args.scorer else []
    import_user_modules([*scorer_names, *args.protocol])
    sources: list[tuple[str, Any]] = []
    # Models without a name are named after their sources.
    new_names = iter(name_models([path for name, path in args.models if not name]))
    for name, path in args.models:
        sources.append((name or next(new_names), path))
    for name, folder in args.embeddings:
        sources.append((name, folder if is_address(folder) else EmbeddingFolder(folder)))
    if args.pixel_baseline:
        sources.append((PIXEL_BASELINE_NAME, NearestPixels(args.pixel_baseline)))
    models = dict(sources)
    if len(models) < len(sources):
        names = ", ".join(name for name, _ in sources)
        raise ValueError(f"two models have the same name: {names}; write NAME=MODEL")

    # All models are scored by one scorer on the same data.
    data = arguments.make_data_spec(args, languages=args.language)
    options = dict(args.option)
    if args.protocol:
        options["protocol"] = tuple(args.protocol)
    comparison = compare_models(
        models,
        data,
        scorer=make_scorer(args.scorer or find_scorer(data, args.protocol), options),
        cache=None if args.no_cache else args.output / "embeddings",
        device=args.device,
        precision=args.precision,
        batch_size=args.batch_size,
        resamples=args.resamples,
        seed=args.seed,
    )
    report = make_comparison_report(comparison, args.queries)
    record = describe_run(" ".join(comparison.sources), list(map(str, args.data)), report.settings, None)
    suffixes = [*(args.language or []), *args.protocol]
    if args.split:
        suffixes.insert(0, args.split)
    return write_results(args, report, record, args.output, suffixes)
