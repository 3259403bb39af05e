"""Make a training set from a crawl: rules, duplicates, scores, leaks and balance, every removal with its reason.

    python tools/curate.py --data 'crawl/{00000..00099}.tar' --output curated
    python tools/curate.py --data crawl --output curated -c configs/curate/web_zh_en.yaml -o text_rules.words=2
    python tools/curate.py --data crawl --output curated -o score.model=runs/mine -o 'leaks.benchmarks=[coco-cn]'
    python tools/train.py -o 'Data.train=[crawl]' -o Data.select=curated

The output folder holds a table in Parquet, with a row per pair: every measure, whether the pair stays, and why not. It
also holds curation.json and a page; the data are not copied. If the command is stopped or killed, the same command
continues. A new shard costs only its own measures, and another threshold measures nothing. docs/curate.md describes the
steps, their settings and the columns.
"""

import argparse
from argparse import ArgumentTypeError
from functools import partial
from pathlib import Path
from typing import Any

from ernie_vil2.cli import arguments
from ernie_vil2.data.spec import TRAIN, DataSpec
from ernie_vil2.device.extras import require
from ernie_vil2.device.launch import launched_rank


def parse_share(text: str) -> tuple[int, int]:
    """Return from I/N the number of the share, counted from 0, and the number of shares."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ArgumentTypeError(f"{text}: write I/N, the number of the share, from 1, and the number of shares: 2/8")
    return int(number) - 1, int(count)


def list_reading_options(spec: DataSpec) -> dict[str, Any]:
    """Return the options that say which texts and images are read from the files of a source, by name."""
    options = {}
    for name in ("layout", "split", "images", "columns", "encoding", "text_id"):
        value = getattr(spec, name)
        if value is not None:
            options[name] = str(Path(value).resolve()) if name == "images" else value
    return options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 curate`."""
    arguments.add_source_argument(parser, "--data", "SOURCE", "pairs, in any form that Data.train takes")
    arguments.add_allow_pipes_option(parser)
    parser.add_argument("--output", type=arguments.output_folder, metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "-c",
        "--config",
        type=arguments.configuration,
        default="configs/curate/web_zh_en.yaml",
        metavar="FILE",
        help="YAML file with a section for each step; default: configs/curate/web_zh_en.yaml",
    )
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="step.key=value",
        help="set one value; step=null leaves a step out; may be repeated",
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
        help="number of processes that measure; default: one for each usable core",
    )
    parser.add_argument(
        "--memory",
        type=arguments.positive_number,
        default=1.0,
        metavar="GB",
        help="memory of the joins, which put the rest on the disk; default 1",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="measure on a Ray cluster: auto, HOST:PORT, or local; all nodes need the data and the output under the "
        "same paths",
    )
    parser.add_argument(
        "--share",
        type=parse_share,
        metavar="I/N",
        help="measure only this share of the shards; when all are measured, a run without it joins them. Ranks of a "
        "launcher take a share each",
    )


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 curate` and return its exit code."""
    if not args.data or not args.output:
        raise ValueError("give --data SOURCE and --output FOLDER")
    require("a curation", "duckdb", "pyarrow", "threadpoolctl")

    from ernie_vil2.apps.curation import curate, load_steps
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.device.runtime import num_usable_cores

    steps = load_steps(args.config, args.override)
    spec = arguments.make_data_spec(args, default_split=TRAIN)
    open_data = partial(open_sources, spec)
    num_processes = args.processes or num_usable_cores()
    share = args.share
    rank, num_ranks = launched_rank()
    if share is None and num_ranks > 1:
        share = rank, num_ranks
    reading = list_reading_options(spec)
    curation = curate(open_data(), steps, args.output, num_processes, args.memory, share, args.ray, open_data, reading)
    if curation is None:
        print("this share is measured; when all shares are, run the command without --share")
        return 0
    print(curation)
    print(f"\nwritten: {args.output}; train with -o Data.select={args.output}")
    return 0
