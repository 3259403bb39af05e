"""Score a model on zero-shot classification: acc1, acc5, mean per-class recall; mAP for several classes.

    python tools/eval_classification.py --checkpoint runs/emoji --data images
    python tools/eval_classification.py --checkpoint model.pdparams --data cifar-10 --names zh=cifar-10/label_cn.txt
    python tools/eval_classification.py --checkpoint runs/mine --data birds.csv --label species --names en=names.txt
    python tools/eval_classification.py --checkpoint runs/mine --data cifar-10 --linear-probe
    python tools/eval_classification.py --data images --check

--data is a folder with a folder for each class, or with such folders for test and train; tables with the columns image
and label; or tar shards whose JSON has the field. Prints a table, and writes it as JSON, every image's answer as CSV,
and a page of confusions. Finished embeddings are kept in the output folder: an interrupted command reuses them.
docs/classification.md has the rest.
"""

import argparse

from ernie_vil2.cli import arguments
from ernie_vil2.cli.arguments import (
    add_field_option,
    add_pipe_option,
    add_sources,
    add_table_options,
    file_name,
    named_list,
    output_file,
    output_folder,
    source,
    threshold,
)
from ernie_vil2.cli.evaluation import evaluate
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.device.launch import start_ranks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ernie_vil2.evaluation.scorers.zero_shot import ZeroShot

    arguments.add_model_options(parser)
    arguments.add_width_option(parser)
    add = parser.add_argument
    add_sources(parser, "--data", "PATH", "images and their classes", required=True)
    add_pipe_option(parser)
    add_field_option(parser, DataSpec, "split", help="of the data; default: test, else validation")
    add_table_options(parser)
    add_field_option(parser, ZeroShot, "label")
    add_field_option(parser, ZeroShot, "names", nargs="+", type=named_list)
    add_field_option(parser, ZeroShot, "templates", nargs="+", type=named_list)
    add_field_option(parser, ZeroShot, "linear_probe", nargs="*", type=source)
    add_field_option(parser, ZeroShot, "threshold", type=threshold)
    add("--check", action="store_true", help="only read the data, and report what is wrong with them")
    add("--name", type=file_name, help="of the files written; default: the data's")
    add("--output", type=output_folder, metavar="FOLDER", help="default: <run>/classification, else classification")
    add("--json", type=output_file, metavar="FILE", help="also write the record to this file")
    add("--no-cache", action="store_true", help="do not keep embeddings in the output folder")


def run(args: argparse.Namespace) -> int:
    if not (args.checkpoint or args.check):
        raise ValueError("give --checkpoint, or --check")
    if args.processes > 1 and (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code

    from ernie_vil2.evaluation.scorers.zero_shot import ZeroShot

    scorer = ZeroShot(args.label, dict(args.names), dict(args.templates), args.linear_probe, args.threshold)
    return evaluate(args, scorer, arguments.data_spec(args), args.width, json_file=args.json)
