"""The commands `eval`, `eval_retrieval` and `eval_classification`, which score a model on data.

All three take the same steps: read the options, choose a scorer, open and encode the data, score, and write the report.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_vil2.cli import arguments, print_next_command
from ernie_vil2.cli.arguments import (
    add_field_option,
    count,
    file_name,
    input_file,
    input_path,
    named_list,
    option,
    output_file,
    output_folder,
    source,
    threshold,
)
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.device.launch import launched_rank, start_ranks

if TYPE_CHECKING:
    from ernie_vil2.evaluation.report import Report
    from ernie_vil2.evaluation.scorer import Scorer

    # Returns the scorer, and suffixes that set the names of its files apart from those of the data's own scorer.
    ScorerChoice = Callable[[argparse.Namespace, DataSpec], tuple[Scorer, Sequence[str]]]


# Options that say how --data is read; a file of embeddings takes --split alone.
_DATA_OPTIONS = ("layout", "images", "columns", "encoding", "text_id", "caption_lines")


class Eval:
    """Score a model on any benchmark: retrieval, classes, entailment, NLVR2, CxC, SugarCrepe, or your own scorer.

        python tools/eval.py --checkpoint runs/emoji --data demo_data/emoji-test.tar --language zh en
        python tools/eval.py --checkpoint runs/snli_ve@best --data data/snli-ve --split test
        python tools/eval.py --checkpoint runs/mine --data sugar-crepe/data
        python tools/eval.py --checkpoint runs/mine --data mscoco --protocol cxc-correlation
        python tools/eval.py --checkpoint runs/mine --data images --scorer my_module:MyScorer --option scale=100
        python tools/eval.py --data data/nlvr2 --check

    --scorer names the scorer; by default it follows from --protocol or from the layout of the data. For retrieval or
    classification alone, tools/eval_retrieval.py and tools/eval_classification.py have fewer options. Prints a table
    and what it means, and writes it as JSON, the result of every query as CSV, and a page with examples. Finished
    embeddings stay in the output folder: after an interruption the same command reuses them. docs/benchmarks.md shows
    the folders that --data takes, docs/extending.md how to write a scorer.
    """

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        from ernie_vil2.evaluation.scorer import SCORERS

        add_model_and_data_options(parser)
        add = parser.add_argument
        add("--scorer", metavar="NAME", help=f"{', '.join(SCORERS)} or my_module:Class; default: see above")
        add("--option", action="append", default=[], type=option, metavar="NAME=VALUE",
            help="option of the scorer, its value written as YAML; may be repeated")  # fmt: skip
        add_result_options(parser, "evaluation or entailment")
        add_retrieval_options(parser.add_argument_group("options of retrieval"))

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        return score_by(choose_scorer, args)


class EvalRetrieval:
    """Score a model on image-text retrieval by a named protocol: R@1, R@5, R@10 and their mean, in both directions.

        python tools/eval_retrieval.py --checkpoint runs/emoji --data demo_data/emoji-test.tar --language zh en
        python tools/eval_retrieval.py --checkpoint model.pdparams --data coco-cn --protocol coco-cn-test
        python tools/eval_retrieval.py --checkpoint runs/mine --data flickr30k --protocol flickr30k-test all-conventions
        python tools/eval_retrieval.py --data coco-cn --protocol coco-cn-test --check
        python tools/eval_retrieval.py --embeddings cross_modal_embeddings.out --protocol official-rows

    Prints a table and what it means, and writes it as JSON, the rank of each query's right answer as CSV, and a page
    with the worst and the best queries. Finished embeddings stay in the output folder: after an interruption the same
    command reuses them. docs/benchmarks.md shows the folders that --data takes, docs/protocols.md defines the
    protocols. tools/eval.py scores everything else.
    """

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add_model_and_data_options(parser)
        add_retrieval_options(parser)
        add_result_options(parser, "evaluation")

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        return score_by(choose_retrieval_scorer, args)


class EvalClassification:
    """Score a model on zero-shot classification: acc1, acc5, mean per-class recall; mAP if images have several classes.

        python tools/eval_classification.py --checkpoint runs/emoji --data images
        python tools/eval_classification.py --checkpoint model.pdparams --data cifar-10 --names zh=cifar-10/label_cn.txt
        python tools/eval_classification.py --checkpoint runs/mine --data birds.csv --label species --names en=names.txt
        python tools/eval_classification.py --checkpoint runs/mine --data cifar-10 --linear-probe
        python tools/eval_classification.py --data images --check

    --data is a folder with one folder per class, or with such folders for test and train; tables with the columns image
    and label; or tar shards whose JSON has the field. Prints a table, and writes it as JSON, the answer for every image
    as CSV, and a page of confusions. Finished embeddings stay in the output folder: after an interruption the same
    command reuses them. docs/classification.md has the rest.
    """

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        from ernie_vil2.evaluation.scorers.zero_shot import ZeroShot

        arguments.add_model_options(parser)
        arguments.add_width_option(parser)
        arguments.add_source_argument(parser, "--data", "PATH", "images and their classes", required=True)
        arguments.add_allow_pipes_option(parser)
        add_field_option(parser, DataSpec, "split", help="split of the data; default: test, else validation")
        arguments.add_table_options(parser)
        add_field_option(parser, ZeroShot, "label")
        add_field_option(parser, ZeroShot, "names", nargs="+", type=named_list)
        add_field_option(parser, ZeroShot, "templates", nargs="+", type=named_list)
        add_field_option(parser, ZeroShot, "linear_probe", nargs="*", type=source)
        add_field_option(parser, ZeroShot, "threshold", type=threshold)
        add = parser.add_argument
        add("--check", action="store_true", help="only read the data and report what is wrong with them")
        add("--name", type=file_name, help="base name of the output files; default: derived from the data")
        add("--output", type=output_folder, metavar="FOLDER",
            help="output folder; default: classification, in the run folder or else in the working "
            "directory")  # fmt: skip
        add("--json", type=output_file, metavar="FILE", help="also write the record to this file")
        add("--no-cache", action="store_true", help="do not keep embeddings in the output folder")

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        if not (args.checkpoint or args.check):
            raise ValueError("give --checkpoint, or --check")
        if args.processes > 1 and (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
            return code

        from ernie_vil2.evaluation.scorers.zero_shot import ZeroShot

        names = arguments.map_files_by_language("--names", args.names)
        templates = arguments.map_files_by_language("--templates", args.templates)
        scorer = ZeroShot(args.label, names, templates, args.linear_probe, args.threshold)
        return score_model(args, scorer, arguments.make_data_spec(args), args.width, json_file=args.json)


def add_model_and_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a model, how it encodes, and the data that it is scored on."""
    arguments.add_model_options(parser)
    arguments.add_width_option(parser)
    arguments.add_data_options(parser)
    add = parser.add_argument
    add("--language", action="extend", nargs="+",
        help="languages of the captions to score; default: those that the model was trained on, else all")  # fmt: skip
    add("--check", action="store_true", help="only read the data and report what is wrong with them")


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
    add("--embeddings", type=input_path, metavar="PATH", help="score these embeddings; no model is loaded")
    add("--annotations", type=input_file, metavar="FILE", help="file that names the rows of --embeddings")


def add_result_options(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add the options that say where results are written; `folder` names the default folder."""
    add = parser.add_argument
    add("--name", type=file_name,
        help="base name of the output files; default: derived from the data and the protocols")  # fmt: skip
    add("--output", type=output_folder, metavar="FOLDER",
        help=f"output folder; default: {folder}, in the run folder or else in the working directory")  # fmt: skip
    add("--no-cache", action="store_true", help="do not keep embeddings in the output folder")


def choose_scorer(args: argparse.Namespace, data: DataSpec) -> tuple[Scorer, Sequence[str]]:
    """Return the scorer that the options name, or the one for the protocol or the layout of the data."""
    from ernie_vil2.evaluation.scorer import SCORERS, find_scorer, list_options, make_scorer
    from ernie_vil2.registry import import_user_modules

    if args.scorer:
        import_user_modules([args.scorer])
    options = changed_retrieval_options(args)
    # A file of embeddings has no layout by which a scorer could be chosen.
    is_by_protocol = args.embeddings or "protocol" in options
    default_name = find_scorer(data, args.protocol if is_by_protocol else ())
    name = args.scorer or default_name
    # A scorer of classes has no title; --label is then the column that names the classes.
    if "title" in options and "title" not in list_options(SCORERS.find(name)):
        options["label"] = options.pop("title")
    scorer = make_scorer(name, options | dict(args.option))
    if name == default_name:
        return scorer, []
    return scorer, [name.rpartition(":")[2]]


def choose_retrieval_scorer(args: argparse.Namespace, data: DataSpec) -> tuple[Scorer, Sequence[str]]:
    """Return the scorer of the protocols, whatever the layout of the data."""
    from ernie_vil2.evaluation.protocol import find_protocol_scorer
    from ernie_vil2.evaluation.scorer import make_scorer
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    # Not always "retrieval" itself: the protocols of CxC have a scorer that extends it.
    scorer = make_scorer(find_protocol_scorer(args.protocol), changed_retrieval_options(args))
    if not isinstance(scorer, Retrieval):
        raise ValueError(
            f"--protocol {' '.join(args.protocol)} does not measure retrieval; score it with ernie-vil2 eval"
        )
    return scorer, []


def changed_retrieval_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the retrieval options that differ from their defaults, by field of the scorer.

    Defaults are left out because other scorers do not have these fields.
    """
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    return arguments.find_changed_options(args, Retrieval)


def score_by(choose: ScorerChoice, args: argparse.Namespace) -> int:
    """Score a model, or the embeddings in a file, with the scorer that a command chooses.

    Args:
        choose: returns the scorer for the data, and the suffixes of its files' names.
        args: values of all options that this module adds.

    Returns:
        The exit code of the command.
    """
    args.only = [tuple(text.split("=", 1)) for text in args.only]
    if any(len(pair) != 2 for pair in args.only):
        raise ValueError("--only takes FIELD=VALUE, for example --only kind=object")
    if bool(args.embeddings) == bool(args.data) or (args.data and not (args.checkpoint or args.check)):
        raise ValueError("give --checkpoint and --data, --check and --data, or --embeddings")
    if args.embeddings:
        names = ("checkpoint", "check", "width", "language", "pixel_baseline", *_DATA_OPTIONS)
        unused = [f"--{name.replace('_', '-')}" for name in names if vars(args)[name]]
        if unused:
            raise ValueError(f"--embeddings are scored as they are: leave {', '.join(unused)} out")
    if args.annotations and not args.embeddings:
        raise ValueError("--annotations names the rows of --embeddings; --data brings its own names")
    if args.processes > 1 and (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code

    from ernie_vil2.registry import import_user_modules

    import_user_modules(args.protocol)
    data = arguments.make_data_spec(args, languages=args.language)
    scorer, suffixes = choose(args, data)
    if args.embeddings:
        return score_embeddings(args, scorer, data)
    return score_model(args, scorer, data, args.width, suffixes)


def score_embeddings(args: argparse.Namespace, scorer: Scorer, data: DataSpec) -> int:
    """Score the embeddings of --embeddings; no model is loaded."""
    from ernie_vil2.evaluation.embedding_files import read_embeddings
    from ernie_vil2.evaluation.report import describe_run
    from ernie_vil2.evaluation.scorer import ScorerInput
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    if not isinstance(scorer, Retrieval):
        raise ValueError("--embeddings are scored as retrieval; another scorer needs --checkpoint and --data")
    embeddings = read_embeddings(args.embeddings, args.annotations, args.split)
    opened = ScorerInput(data, {"": embeddings.benchmark})
    report = scorer.score(opened, {"": embeddings}, None)
    record = describe_run(args.embeddings, [args.embeddings], report.settings, files=[])
    return write_results(args, report, record, args.output or Path(scorer.folder), scorer.file_name_parts(opened))


def score_model(
    args: argparse.Namespace,
    scorer: Scorer,
    data: DataSpec,
    width: int | None = None,
    suffixes: Sequence[str] = (),
    json_file: str | None = None,
) -> int:
    """Score the model that the options name, or with --check only read the data.

    Args:
        args: values of the options.
        scorer: what is scored.
        data: data to score on.
        width: numbers of each embedding that are used; None: all.
        suffixes: further words for the names of the output files.
        json_file: file that gets a copy of the record.

    Returns:
        The exit code of the command.
    """
    if width and scorer.needs_classifier:
        raise ValueError("--width cuts embeddings, but this scorer needs a head on whole ones: leave --width out")
    if scorer.needs_classifier and args.backend not in ("fastest", "paddle"):
        raise ValueError(
            f"--backend {args.backend} computes embeddings only; this scorer needs a head, which runs in Paddle: leave "
            "--backend out"
        )
    # This needs no model.
    if args.check:
        return check_data(scorer, data)

    from ernie_vil2.evaluation.encoded import encode_on_all_ranks
    from ernie_vil2.evaluation.report import describe_run
    from ernie_vil2.evaluation.scorer import run_scorer
    from ernie_vil2.io.run_folder import find_run_folder

    model, weights = arguments.load_named_model(args, scorer.needs_classifier)
    if width:
        model = model.with_width(width)
    # Results of a run's checkpoint belong to the run.
    run_folder = find_run_folder(weights.parent)
    if args.output is None and run_folder:
        args.output = run_folder / scorer.folder
    output = args.output or Path(scorer.folder)
    cache = None if args.no_cache else output / "embeddings"

    opened = scorer.open(replace(data, preferred_languages=model.config.Views.languages))
    arguments.report_shared_captions(opened.benchmarks)
    encode = partial(encode_on_all_ranks, cache=cache)
    rank, _ = launched_rank()
    report = run_scorer(scorer, model, opened, str(args.checkpoint), encode, rank)
    # All ranks encode; the first one has the report and writes it.
    if rank != 0:
        return 0

    files = [weights]
    for benchmark in opened.benchmarks.values():
        files += benchmark.files
    model_name = str(args.checkpoint)
    suffixes = [*scorer.file_name_parts(opened), *suffixes]
    if width:
        model_name = f"{args.checkpoint}, {width} numbers"
        suffixes.append(f"width-{width}")
    record = describe_run(model_name, list(map(str, args.data)), report.settings, files)
    code = write_results(args, report, record, output, suffixes, json_file)
    if run_folder:
        print_next_command(args, "report", "--run", run_folder, "--data", *args.data)
    elif not scorer.needs_classifier:
        model_words = ["--checkpoint", str(args.checkpoint)]
        print_next_command(args, "search", "build", "--index", "indexes/mine", *model_words, "--data", "IMAGES")
    return code


def write_results(
    args: argparse.Namespace,
    report: Report,
    record: Mapping[str, Any],
    output: Path,
    suffixes: Sequence[str],
    json_file: str | None = None,
) -> int:
    """Print a report and write its files.

    Args:
        args: values of the options.
        report: the report of the scorer.
        record: model, data and versions, from `evaluation.report.describe_run`.
        output: folder of the files.
        suffixes: words that follow the name of the data in the names of the files.
        json_file: file that gets a copy of the record.

    Returns:
        The exit code of the command.
    """
    from ernie_vil2.evaluation.report import choose_result_name, write_report

    paths = record["data"]
    print(f"\n{report.as_text()}\n")
    if report.sizes is not None:
        print(f"model {record['model']}, data {' '.join(paths)}{report.sizes and f': {report.sizes}'}")
    print(*report.notes, sep="\n")
    name = args.name or choose_result_name(output, paths, suffixes)
    files = write_report(report, output, name, record, json_file)
    print("\nwritten:", *files, sep="\n  ")
    return 0


def check_data(scorer: Scorer, data: DataSpec) -> int:
    """Print what the data contain; return 0 if all of it can be used and is as expected, otherwise 1."""
    from ernie_vil2.io.progress import progress_bar

    @contextmanager
    def reading_bar(num_images: int) -> Iterator[Callable[[int], object]]:
        with progress_bar(description="reading", unit="image", total=num_images) as bar:
            yield bar.update

    inspection = scorer.inspect(data, reading_bar)
    print(inspection.text)
    return 0 if inspection.is_good else 1
