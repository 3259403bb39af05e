"""Score a model on any benchmark: retrieval, classes, visual entailment, NLVR2, CxC, SugarCrepe, or your own scorer.

    python tools/eval.py --checkpoint runs/emoji --data demo_data/emoji-test.tar --language zh en
    python tools/eval.py --checkpoint runs/snli_ve@best --data data/snli-ve --split test
    python tools/eval.py --checkpoint runs/mine --data sugar-crepe/data
    python tools/eval.py --checkpoint runs/mine --data mscoco --protocol cxc-correlation
    python tools/eval.py --checkpoint runs/mine --data images --scorer my_module:MyScorer --option scale=100
    python tools/eval.py --data data/nlvr2 --check

--scorer says what is scored, by default as --protocol or the data's layout does. For retrieval or classes alone,
tools/eval_retrieval.py and tools/eval_classification.py have fewer options. Prints a table and what it means, and
writes it as JSON, the result of every query as CSV, and a page with examples. Finished embeddings are kept in the
output folder: an interrupted command reuses them. docs/benchmarks.md shows the folders that --data takes,
docs/extending.md a scorer of your own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ernie_vil2.cli import evaluation
from ernie_vil2.cli.arguments import option

if TYPE_CHECKING:
    from ernie_vil2.data.spec import DataSpec
    from ernie_vil2.evaluation.scorer import Scorer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ernie_vil2.evaluation.scorer import SCORERS

    evaluation.add_model_and_data_options(parser)
    add = parser.add_argument
    add(
        "--scorer",
        metavar="NAME",
        help=f"{', '.join(SCORERS)} or my_module:Class; default: see above",
    )
    add("--option", action="append", default=[], type=option, metavar="NAME=VALUE", help="of the scorer, as YAML")
    evaluation.add_result_options(parser, "evaluation or entailment")
    evaluation.add_retrieval_options(parser.add_argument_group("options of retrieval"))


def run(args: argparse.Namespace) -> int:
    return evaluation.run(args, choose_scorer)


def choose_scorer(args: argparse.Namespace, data: DataSpec) -> tuple[Scorer, Sequence[str]]:
    """Return the scorer that the options name, or the one for the protocol or the data's layout.

    The second value distinguishes its files from those of the data's own scorer.
    """
    from ernie_vil2.evaluation.scorer import SCORERS, make_scorer, options_of, scorer_of
    from ernie_vil2.registry import import_named

    if args.scorer:
        import_named([args.scorer])
    options = evaluation.retrieval_options(args)
    # Embeddings have no layout by which they could be recognised.
    is_by_protocol = args.embeddings or "protocol" in options
    default_name = scorer_of(data, args.protocol if is_by_protocol else ())
    name = args.scorer or default_name
    # A scorer of classes has no title; --label is then the column that names the classes.
    if "title" in options and "title" not in options_of(SCORERS.find(name)):
        options["label"] = options.pop("title")
    scorer = make_scorer(name, options | dict(args.option))
    if name == default_name:
        return scorer, []
    return scorer, [name.rpartition(":")[2]]
