"""Score a model on image-text retrieval by a named protocol: R@1, R@5, R@10 and their mean, in both directions.

    python tools/eval_retrieval.py --checkpoint runs/emoji --data demo_data/emoji-test.tar --language zh en
    python tools/eval_retrieval.py --checkpoint model.pdparams --data coco-cn-version1805v1.1 --protocol coco-cn-test
    python tools/eval_retrieval.py --checkpoint runs/mine --data flickr30k --protocol flickr30k-test all-conventions
    python tools/eval_retrieval.py --data coco-cn-version1805v1.1 --protocol coco-cn-test --check
    python tools/eval_retrieval.py --embeddings cross_modal_embeddings.out --protocol official-rows

Prints a table and what it means, and writes it as JSON, the rank of every query as CSV, and a page with the worst and
the best queries. Finished embeddings are kept in the output folder: an interrupted command reuses them.
docs/benchmarks.md shows the folders that --data takes, docs/protocols.md defines the protocols. tools/eval.py scores
everything else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ernie_vil2.cli import evaluation

if TYPE_CHECKING:
    from ernie_vil2.data.spec import DataSpec
    from ernie_vil2.evaluation.scorer import Scorer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    evaluation.add_model_and_data_options(parser)
    evaluation.add_retrieval_options(parser)
    evaluation.add_result_options(parser, "evaluation")


def run(args: argparse.Namespace) -> int:
    return evaluation.run(args, choose_scorer)


def choose_scorer(args: argparse.Namespace, data: DataSpec) -> tuple[Scorer, Sequence[str]]:
    """Return the scorer of the protocols, whatever the layout of the data."""
    from ernie_vil2.evaluation.protocol import scorer_of_protocols
    from ernie_vil2.evaluation.scorer import make_scorer
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    # Not always "retrieval" itself: the protocols of CxC have a scorer of their own, which extends it.
    scorer = make_scorer(scorer_of_protocols(args.protocol), evaluation.retrieval_options(args))
    if not isinstance(scorer, Retrieval):
        raise ValueError(f"--protocol {' '.join(args.protocol)} is not of retrieval; score it with ernie-vil2 eval")
    return scorer, []
