"""Options and steps that `eval`, `eval_retrieval` and `eval_classification` share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_vil2.cli import arguments
from ernie_vil2.cli.arguments import (
    add_field_option,
    count,
    file_name,
    input_file,
    input_path,
    output_folder,
    source,
)
from ernie_vil2.device.launch import launched_rank, start_ranks

if TYPE_CHECKING:
    from ernie_vil2.data.spec import DataSpec
    from ernie_vil2.evaluation.report import Report
    from ernie_vil2.evaluation.scorer import Scorer


def add_model_and_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a model, how it encodes, and what it is scored on."""
    arguments.add_model_options(parser)
    arguments.add_width_option(parser)
    arguments.add_data_options(parser)
    add = parser.add_argument
    add("--language", nargs="+", help="of the captions, where they have several; default: the run's, or all")
    add("--check", action="store_true", help="only read the data, and report what is wrong with them")


def add_retrieval_options(parser: argparse._ActionsContainer) -> None:
    """Add the options of the retrieval scorer to a parser, or to a group of its options."""
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    add_field_option(parser, Retrieval, "protocol", nargs="+")
    add_field_option(parser, Retrieval, "only", action="append")
    add_field_option(parser, Retrieval, "top_k", type=count)
    add_field_option(parser, Retrieval, "pixel_baseline", nargs="+", type=source)
    add_field_option(parser, Retrieval, "title", "--label")
    add_field_option(parser, Retrieval, "block", type=count)
    add = parser.add_argument
    add("--embeddings", type=input_path, metavar="PATH", help="score these, instead of a model on data")
    add("--annotations", type=input_file, metavar="FILE", help="what names the rows of --embeddings")


def add_result_options(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add the options that say where results are written; `folder` is the default folder, in words."""
    add = parser.add_argument
    add("--name", type=file_name, help="of the files written; default: the data's and the protocols'")
    add("--output", type=output_folder, metavar="FOLDER", help=f"default: {folder}, in the run or here")
    add("--no-cache", action="store_true", help="do not keep embeddings in the output folder")


def retrieval_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the retrieval options that differ from their defaults, by field of the scorer.

    A default is left out because other scorers do not have the field.
    """
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    return arguments.changed_options(args, Retrieval)


def run(
    args: argparse.Namespace, choose_scorer: Callable[[argparse.Namespace, DataSpec], tuple[Scorer, Sequence[str]]]
) -> int:
    """Score a model, or the embeddings in a file, with the scorer that a command chooses.

    Args:
        args: values of all options that this module adds.
        choose_scorer: returns the scorer for the data, and what the names of its files say besides data and scorer.

    Returns:
        The exit code of the command.
    """
    args.only = [tuple(text.split("=", 1)) for text in args.only]
    if any(len(pair) != 2 for pair in args.only):
        raise ValueError("--only takes FIELD=VALUE, for example --only kind=object")
    if bool(args.embeddings) == bool(args.data) or (args.data and not (args.checkpoint or args.check)):
        raise ValueError("give --checkpoint and --data, --check and --data, or --embeddings")
    if args.annotations and not args.embeddings:
        raise ValueError("--annotations names the rows of --embeddings; --data has names of its own")
    if args.processes > 1 and (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code

    from ernie_vil2.registry import import_named

    import_named(args.protocol)
    data = arguments.data_spec(args, languages=args.language)
    scorer, name_parts = choose_scorer(args, data)
    if args.embeddings:
        return _score_embeddings(args, scorer, data)
    return evaluate(args, scorer, data, args.width, name_parts)


def _score_embeddings(args: argparse.Namespace, scorer: Scorer, data: DataSpec) -> int:
    """Score finished embeddings; no model is loaded."""
    from ernie_vil2.evaluation.embedding_files import read_embeddings
    from ernie_vil2.evaluation.report import about
    from ernie_vil2.evaluation.scorer import Opened
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    if not isinstance(scorer, Retrieval):
        raise ValueError("--embeddings are scored as retrieval; another scorer needs --checkpoint and --data")
    embeddings = read_embeddings(args.embeddings, args.annotations, args.split)
    opened = Opened(data, {"": embeddings.benchmark})
    report = scorer.score(opened, {"": embeddings}, None)
    record = about(args.embeddings, [args.embeddings], report.about, files=[])
    return finish(args, report, record, args.output or Path(scorer.folder), scorer.naming(opened))


def evaluate(
    args: argparse.Namespace,
    scorer: Scorer,
    data: DataSpec,
    width: int | None = None,
    name_parts: Sequence[str] = (),
    json_file: str | None = None,
) -> int:
    """Score the model that the options name, or with `--check` only read the data.

    Args:
        width: numbers of an embedding that are used; None: all.
        name_parts: what the names of the files say besides the data and the scorer's own parts.
        json_file: file that gets a copy of the record.

    Returns:
        The exit code of the command.
    """
    if width and scorer.labels:
        raise ValueError("--width is of embeddings, and here a head on the whole ones is scored")
    if scorer.labels and args.backend not in ("fastest", "paddle"):
        raise ValueError(f"--backend {args.backend} is of embeddings, and Paddle alone computes the head on them")
    if args.check:
        return _inspect(scorer, data)

    from ernie_vil2.evaluation.encoded import encode_on_all_ranks
    from ernie_vil2.evaluation.report import about
    from ernie_vil2.evaluation.scorer import score
    from ernie_vil2.io.run_folder import run_of

    model, weights = arguments.named_model(args, scorer.labels)
    if width:
        model = model.narrowed(width)
    run_folder = run_of(weights.parent)
    if args.output is None and run_folder:
        args.output = run_folder / scorer.folder
    output = args.output or Path(scorer.folder)
    cache = None if args.no_cache else output / "embeddings"

    opened = scorer.open(replace(data, preferred_languages=model.config.Views.languages))
    arguments.name_equal_captions(opened.benchmarks)
    encode = partial(encode_on_all_ranks, cache=cache)
    rank, _ = launched_rank()
    report = score(scorer, model, opened, str(args.checkpoint), encode, rank)
    if rank != 0:
        return 0

    files = [weights]
    for benchmark in opened.benchmarks.values():
        files += benchmark.files
    model_name = str(args.checkpoint)
    name_parts = [*scorer.naming(opened), *name_parts]
    if width:
        model_name = f"{args.checkpoint}, {width} numbers"
        name_parts.append(f"width-{width}")
    record = about(model_name, list(map(str, args.data)), report.about, files)
    return finish(args, report, record, output, name_parts, json_file)


def finish(
    args: argparse.Namespace,
    report: Report,
    record: Mapping[str, Any],
    output: Path,
    name_parts: Sequence[str],
    json_file: str | None = None,
) -> int:
    """Print a report and write it.

    Args:
        args: values of the options.
        report: of the scorer.
        record: what was run, of `evaluation.report.about`.
        output: folder of the files.
        name_parts: what their names say besides the data.
        json_file: as for `evaluate`.
    """
    from ernie_vil2.evaluation.report import result_name, write_report

    paths = record["data"]
    print(f"\n{report.as_text()}\n")
    if report.sizes is not None:
        print(f"model {record['model']}, data {' '.join(paths)}{report.sizes and f': {report.sizes}'}")
    print(*report.notes, sep="\n")
    name = args.name or result_name(output, paths, name_parts)
    written = write_report(report, output, name, record, json_file)
    print("\nwritten:", *written, sep="\n  ")
    return 0


def _inspect(scorer: Scorer, data: DataSpec) -> int:
    """Print what is in the data; return 0 if all of it can be used and is as expected."""
    from tqdm import tqdm

    @contextmanager
    def progress_bar(num_images: int) -> Iterator[Callable[[int], object]]:
        with tqdm(total=num_images, unit="image", desc="reading", file=sys.stdout) as bar:
            yield bar.update

    inspection = scorer.inspect(data, progress_bar)
    print(inspection.text)
    return 0 if inspection.good else 1
