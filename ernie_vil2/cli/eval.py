"""Score a model on image-text retrieval by a named protocol, on classes, visual entailment, NLVR2 or your own scorer.

    python tools/eval.py --checkpoint runs/emoji --data demo_data/emoji-test.tar --language zh en
    python tools/eval.py --checkpoint model.pdparams --data coco-cn-version1805v1.1 --protocol coco-cn-test
    python tools/eval.py --checkpoint runs/mine --data flickr30k --protocol flickr30k-test all-conventions
    python tools/eval.py --data coco-cn-version1805v1.1 --protocol coco-cn-test --check
    python tools/eval.py --embeddings cross_modal_embeddings.out --protocol official-rows

--scorer says what is scored (retrieval, zero_shot, entailment, nlvr2, cxc, sugar_crepe, my_module:Class), by default as
--protocol or the data's layout does. Prints a table and what it means, and writes it as JSON, the rank of every query
as CSV, and a page with the worst and the best queries. Finished embeddings are kept in the output folder: an
interrupted command reuses them.
docs/benchmarks.md shows the folders that --data takes, docs/protocols.md defines the protocols.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_vil2.cli import arguments
from ernie_vil2.cli.arguments import count, file_name, input_file, input_path, option, output_folder
from ernie_vil2.device.launch import start_ranks

if TYPE_CHECKING:
    from ernie_vil2.evaluation.report import Report
    from ernie_vil2.evaluation.scorer import Data, Scorer


DEFAULTS = {"protocol": ["pairs"], "only": [], "top_k": None, "pixel_baseline": [], "title": "model", "block": 1024}
"""Of options that are those of scorers; only what differs is handed on, as not every scorer has them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_model_options(parser)
    arguments.add_width_option(parser)
    arguments.add_data_options(parser)
    add = parser.add_argument
    add(
        "--scorer",
        metavar="NAME",
        help="retrieval, zero_shot, entailment, nlvr2, cxc, sugar_crepe or my_module:Class; default: see above",
    )
    add("--option", action="append", default=[], type=option, metavar="NAME=VALUE", help="of the scorer, as YAML")
    add("--language", nargs="+", help="of the captions, where they have several; default: the run's, or all")
    add("--embeddings", type=input_path, metavar="PATH", help="score these, instead of a model on data")
    add("--annotations", type=input_file, metavar="FILE", help="what names the rows of --embeddings")
    add(
        "--protocol",
        nargs="+",
        default=DEFAULTS["protocol"],
        metavar="NAME",
        help="default: pairs; all-conventions: any-of, first-text, row-label side by side",
    )
    add("--check", action="store_true", help="only read the data, and report what is wrong with them")
    add(
        "--only",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="additional rows for the queries with this value; galleries stay whole",
    )
    add("--top-k", type=count, metavar="K", help="write the K best answers to every query; 10 for MUGE's test split")
    arguments.add_pixel_baseline_option(parser)
    add("--label", dest="title", default="model", metavar="LABEL", help="what the model is called in the table")
    add("--name", type=file_name, help="of the files written; default: the data's and the protocols'")
    add("--output", type=output_folder, metavar="FOLDER", help="default: evaluation or entailment, in the run or here")
    add("--no-cache", action="store_true", help="do not keep embeddings in the output folder")
    add("--block", type=count, default=1024, help="rows of either side that are scored at once")


def run(args: argparse.Namespace) -> int:
    args.only = [tuple(text.split("=", 1)) for text in args.only]
    if any(len(pair) != 2 for pair in args.only):
        raise ValueError("--only takes FIELD=VALUE, for example --only kind=object")
    if bool(args.embeddings) == bool(args.data) or (args.data and not (args.checkpoint or args.check)):
        raise ValueError("give --checkpoint and --data, --check and --data, or --embeddings")
    if args.processes > 1 and (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code

    from ernie_vil2.evaluation.protocols import scorer_of_protocols
    from ernie_vil2.evaluation.scorer import SCORERS, Data, make_scorer, options_of, scorer_of
    from ernie_vil2.registry import import_named

    import_named([*filter(None, [args.scorer]), *args.protocol])
    data = Data([args.embeddings]) if args.embeddings else arguments.named_data(args, args.language)
    given = {name: value for name, default in DEFAULTS.items() if (value := getattr(args, name)) != default}
    named = scorer_of_protocols(args.protocol) if args.embeddings or "protocol" in given else scorer_of(data)
    if "title" in given and "title" not in options_of(SCORERS.find(args.scorer or named)):
        given["label"] = given.pop("title")  # of classes, the column that names them
    scorer = make_scorer(args.scorer or named, given | dict(args.option))
    if args.embeddings:
        from ernie_vil2.evaluation.embedding_files import read_embeddings
        from ernie_vil2.evaluation.scorers.retrieval import Retrieval

        if not isinstance(scorer, Retrieval):
            raise ValueError(f"--scorer {args.scorer} needs a model, not --embeddings: name --checkpoint and --data")
        encoded = read_embeddings(args.embeddings, args.annotations, args.split)
        data = replace(data, split=args.split, languages=args.language)
        return finish(args, scorer, scorer.score({"": encoded}, None), data, args.embeddings, [args.embeddings], [])
    # As another scorer has results of the same data under their plain name.
    naming = [args.scorer.rpartition(":")[2]] if args.scorer not in (None, named) else []
    return evaluate(args, scorer, data, list(map(str, args.data)), args.width, naming)


def evaluate(
    args: argparse.Namespace,
    scorer: Scorer,
    data: Data,
    given: str | list[str],
    width: int | None = None,
    naming: Sequence[str] = (),
) -> int:
    """Scores the model that the options name, or with `--check` only reads the data.

    Args:
        given: the data as the options name it.
        width: of embeddings; None: all numbers.
        naming: what the names of the files say besides the data and the scorer's own parts.
    """
    if width and scorer.labels:
        raise ValueError("--width is of embeddings, and here a head on the whole ones is scored")
    if scorer.labels and args.backend not in ("fastest", "paddle"):
        raise ValueError(f"--backend {args.backend} is of embeddings, and Paddle alone computes the head on them")
    if args.check:
        return inspect(scorer, data)

    from ernie_vil2.evaluation.encoded import RANK, encode_on_all_ranks
    from ernie_vil2.evaluation.scorer import score
    from ernie_vil2.io.run_folder import run_of

    model, weights = arguments.named_model(args, scorer.labels)
    model = model.narrowed(width) if width else model
    folder = run_of(weights.parent)
    args.output = args.output or (folder / scorer.folder if folder else None)
    cache = None if args.no_cache else (args.output or Path(scorer.folder)) / "embeddings"
    data = replace(data, preferred=model.config.Views.languages)
    benchmarks = scorer.open(data)
    arguments.name_equal_captions(benchmarks)
    encode = partial(encode_on_all_ranks, cache=cache)
    report = score(scorer, model, benchmarks, str(args.checkpoint), encode, RANK)
    if RANK != 0:
        return 0
    files = [weights, *(path for benchmark in benchmarks.values() for path in benchmark.files)]
    named = f"{args.checkpoint}, {width} numbers" if width else args.checkpoint
    return finish(args, scorer, report, data, named, given, files, [*naming, *([f"width-{width}"] if width else [])])


def finish(
    args: argparse.Namespace,
    scorer: Scorer,
    report: Report,
    data: Data,
    model: str | Path,
    given: str | list[str],
    files: list[Path],
    naming: Sequence[str] = (),
) -> int:
    """Prints a report, and writes it, to files whose names differ by `naming`, besides the scorer's own parts."""
    from ernie_vil2.evaluation.report import about, result_name, write_report

    named = given if isinstance(given, str) else " ".join(map(str, given))
    print(f"\n{report.as_text()}\n")
    if report.sizes is not None:
        print(f"model {model}, data {named}{report.sizes and f': {report.sizes}'}")
    print(*report.notes, sep="\n")
    output = args.output or Path(scorer.folder)
    paths = [given] if isinstance(given, str) else given
    name = args.name or result_name(output, paths, [*scorer.naming(data), *naming])
    done = about(str(model), given, report.about, files)
    written = write_report(report, output, name, done, getattr(args, "json", None))
    print("\nwritten:", *written, sep="\n  ")
    return 0


def inspect(scorer: Scorer, data: Data) -> int:
    """Prints what is in the data; 0 if all of it can be used and is as expected."""
    from tqdm import tqdm

    @contextmanager
    def bar(images: int) -> Iterator[Callable[[int], object]]:
        with tqdm(total=images, unit="image", desc="reading", file=sys.stdout) as shown:
            yield shown.update

    found = scorer.inspect(data, bar)
    print(found.text)
    return 0 if found.good else 1
