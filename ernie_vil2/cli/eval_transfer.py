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
import sys
from pathlib import Path

from ernie_vil2.cli import encoding
from ernie_vil2.cli.arguments import file_name, input_folder, input_path, output_folder
from ernie_vil2.device.launch import start_ranks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    encoding.add_model_options(parser, engines=False)
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
    if args.check:
        return check(args)
    if (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code

    from ernie_vil2.evaluation import results
    from ernie_vil2.evaluation.statement_results import (
        format_confusion,
        format_table,
        notes,
        table_rows,
        write_statement_results,
    )
    from ernie_vil2.evaluation.statements import read_statements, score_statements
    from ernie_vil2.io.run_folder import run_of
    from ernie_vil2.models.weights.stored import weights_path
    from ernie_vil2.pretrained import load_classifier

    weights = weights_path(args.checkpoint)
    model, labels = load_classifier(weights, args.vocab, args.device, args.batch_size, args.precision)
    statements = read_statements(_sources(args, args.split))
    if statements.labels != labels:
        raise ValueError(f"{args.checkpoint} says {', '.join(labels)}; the labels of {statements.name} are "
                         f"{', '.join(statements.labels)}")  # fmt: skip
    run = run_of(weights.parent)
    output = args.output or (run / "transfer" if run else Path("transfer"))
    encoded = encoding.encode_data(model, statements.benchmark, None if args.no_cache else output / "embeddings")
    if encoding.RANK != 0:
        return 0
    scores = score_statements(statements, encoded, model.engine.model.label_logits)
    print(f"\n{format_table(table_rows(args.label, scores))}\n\n{format_confusion(scores)}\n")
    print(*notes(scores), sep="\n")
    name = args.name or results.result_name(output, [args.data], [statements.split])
    files = [weights, *statements.benchmark.files]
    about = {"model": str(weights.parent if run else args.checkpoint), "data": args.data,
             "places": results.places([args.data]), "checksums": results.checksums(files)}  # fmt: skip
    written = write_statement_results(output, name, args.label, scores, about)
    print("\nwritten:", *written, sep="\n  ")
    return 0


def check(args: argparse.Namespace) -> int:
    """Prints what is in the data; 0 if all of it can be used and is as published."""
    from tqdm import tqdm

    from ernie_vil2.evaluation.statements import check_statements, read_statements, splits_of

    splits = [
        read_statements(_sources(args, split)) for split in ([args.split] if args.split else splits_of(args.data))
    ]
    images = sum(len(statements.benchmark.images) for statements in splits)
    with tqdm(total=images, unit="image", desc="reading", file=sys.stdout) as bar:
        report = check_statements(splits, bar.update)
    print(report)
    return 0 if report.good else 1


def _sources(args: argparse.Namespace, split: str | None):
    from ernie_vil2.data.readers import open_sources

    return open_sources([args.data], None, split, args.images, default=None)
