"""Score a model on statements about images: SNLI-VE (visual entailment) or NLVR2 (pairs of images).

    python tools/eval_transfer.py --checkpoint runs/snli_ve@best --data data/snli-ve --split test
    python tools/eval_transfer.py --checkpoint runs/nlvr2@best --data data/nlvr2 --split test1
    python tools/eval_transfer.py --data data/nlvr2 --check

Prints accuracy, for all and by label, consistency and the published subsets of NLVR2, confusion, and the paper's
figures; writes them as text and JSON, every prediction as CSV, and a page with examples. --check reads every split,
and says what is missing, broken or unlike the published one, and which images a split shares with train.
docs/transfer.md shows the folders.
"""

import argparse

from ernie_vil2.cli import arguments
from ernie_vil2.cli.arguments import file_name, input_folder, input_path, output_folder
from ernie_vil2.cli.eval import evaluate
from ernie_vil2.device.launch import start_ranks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_model_options(parser, backends=False)
    add = parser.add_argument
    add("--data", type=input_path, metavar="PATH", help="the folder as it is published, or the file of a split")
    add("--split", help="dev, test, test1, ...; default: test, or dev where that is not there")
    add("--images", type=input_folder, metavar="FOLDER", help="where the images lie, if not with the data")
    add("--check", action="store_true", help="only read the data, and report what is wrong with them")
    add("--label", default="model", help="what the model is called in the table")
    add("--name", type=file_name, help="of the files written; default: the data's and the split's")
    add("--output", type=output_folder, metavar="FOLDER", help="default: <run>/transfer, else transfer")
    add("--no-cache", action="store_true", help="do not keep embeddings in the output folder")


def run(args: argparse.Namespace) -> int:
    if not args.data or bool(args.checkpoint) == args.check:
        raise ValueError("give --checkpoint and --data, or --check and --data")
    if args.processes > 1 and (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code

    from ernie_vil2.evaluation.scorer import Data
    from ernie_vil2.evaluation.scorers.entailment import Entailment

    data = Data([args.data], split=args.split, images=args.images)
    return evaluate(args, Entailment(args.label), data, args.data)
