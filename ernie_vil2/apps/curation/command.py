"""Make a training set from a crawl: rules, duplicates, scores, leaks and balance, every removal with its reason.

    python tools/curate.py --data 'crawl/{00000..00099}.tar' --output curated
    python tools/curate.py --data crawl --output curated -c configs/curate/web_zh_en.yaml -o text_rules.words=2
    python tools/curate.py --data crawl --output curated -o score.model=runs/mine -o 'leaks.benchmarks=[coco-cn]'
    python tools/train.py -o 'Data.train=[crawl]' -o Data.select=curated

The output holds the table (Parquet, a row per pair with every measure, whether it stays, and why not), curation.json
and a page; the data are not copied. Stopped or killed, the same command continues; a new shard costs only itself, and
another threshold no measuring. docs/curate.md has the steps, their settings and the columns.
"""

import argparse
from argparse import ArgumentTypeError
from functools import partial

from ernie_vil2.cli import arguments
from ernie_vil2.data.spec import TRAIN, DataSpec
from ernie_vil2.device.extras import require
from ernie_vil2.device.launch import launched_rank


def share(text: str) -> tuple[int, int]:
    """The number of a share, from 0, and how many there are, of I/N."""
    number, slash, shares = text.partition("/")
    if not (slash and number.isdecimal() and shares.isdecimal() and 1 <= int(number) <= int(shares)):
        raise ArgumentTypeError(f"{text}: write I/N, the share from 1 to N and how many there are, as 2/8")
    return int(number) - 1, int(shares)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_sources(parser, "--data", "SOURCE", "whatever Data.train takes")
    arguments.add_pipe_option(parser)
    parser.add_argument("--output", type=arguments.output_folder, metavar="FOLDER", help="folder of the table")
    parser.add_argument(
        "-c",
        "--config",
        type=arguments.configuration,
        default="configs/curate/web_zh_en.yaml",
        metavar="FILE",
        help="YAML with a section per step; default: configs/curate/web_zh_en.yaml",
    )
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="step.key=value",
        help="sets one value, step=null leaves a step out; may be repeated",
    )
    arguments.add_import_option(parser)
    arguments.add_field_option(parser, DataSpec, "layout")
    arguments.add_field_option(parser, DataSpec, "split", help="split of the data; default: train")
    arguments.add_table_options(parser)
    arguments.add_field_option(parser, DataSpec, "text_id", help="field that names a text, like Data.text_id")
    parser.add_argument(
        "--processes",
        type=arguments.count,
        metavar="N",
        help="that measure; default: one for each core that may be used",
    )
    parser.add_argument(
        "--memory",
        type=arguments.amount,
        default=1.0,
        metavar="GB",
        help="of the joins, which put the rest on the disk; default 1",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="measure on a Ray cluster, whose nodes see data and output "
        "under the same paths: auto, HOST:PORT, or local",
    )
    parser.add_argument(
        "--share",
        type=share,
        metavar="I/N",
        help="measure only this share of the shards, as each rank of a launcher does; a run without it joins them",
    )


def run(args: argparse.Namespace) -> int:
    if not args.data or not args.output:
        raise ValueError("give --data SOURCE and --output FOLDER")
    require("a curation", "duckdb", "pyarrow")

    from ernie_vil2.apps.curation import curate, load_steps
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.device.runtime import usable_cores

    steps = load_steps(args.config, args.override)
    open_data = partial(open_sources, arguments.make_data_spec(args, default_split=TRAIN))
    processes = args.processes or usable_cores()
    share = args.share
    rank, ranks = launched_rank()
    if share is None and ranks > 1:
        share = rank, ranks  # a launcher's ranks measure a share each
    done = curate(open_data(), steps, args.output, processes, args.memory, share, args.ray, open_data)
    if done is None:
        print("the share is measured; when all are, run without --share")
        return 0
    print(done)
    print(f"\nwritten: {args.output}; train with -o Data.select={args.output}")
    return 0
