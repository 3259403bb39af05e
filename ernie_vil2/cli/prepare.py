"""Turn any source of pairs into tar shards: checked, made smaller, with tags, without duplicates.

    python tools/prepare.py 'downloads/{00000..00099}.tar' --output data/train --short-side 256
    python tools/prepare.py pairs/train.csv --output data/train --tags tags.jsonl --drop-duplicates
    python tools/prepare.py shop.xlsx --output data/shop --parts 0.8 0.1 0.1 --group-by sku
    python tools/prepare.py lmdb/train --check
    python tools/prepare.py crawl --select curated --output data/train

INPUT is whatever Data.train takes (docs/data.md). The output holds 00000.tar, ..., index.json (counts, sizes and
checksums) and report.txt (what could not be used). Stopped or killed, the same command continues. --check reads and
decodes everything and writes nothing; its exit status is 1 if a sample cannot be used.
"""

import argparse

from ernie_vil2.cli.arguments import (
    add_field_option,
    add_source_options,
    count,
    fraction,
    input_file,
    input_folder,
    make_data_spec,
    natural,
    output_folder,
)
from ernie_vil2.data.spec import TRAIN, DataSpec

NAMES = {2: ("train", "test"), 3: ("train", "val", "test")}  # of parts, by how many there are


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_options(parser)
    parser.add_argument("--output", type=output_folder, metavar="FOLDER", help="folder of the shards")
    parser.add_argument("--check", action="store_true", help="only read everything, and report what is wrong")
    parser.add_argument("--short-side", type=count, metavar="PIXELS",
                        help="longer ones become JPEG of this; default: images keep their bytes")  # fmt: skip
    parser.add_argument("--quality", type=count, default=90, help="of that JPEG, 1 to 100; default 90")
    parser.add_argument("--background", type=natural, nargs=3, default=(255, 255, 255),
                        metavar=("RED", "GREEN", "BLUE"),
                        help="behind transparent pixels of what becomes JPEG; default 255 255 255")  # fmt: skip
    parser.add_argument("--tags", action="append", default=[], type=input_file, metavar="FILE",
                        help=".jsonl, .tsv or .csv with id, tags, tags_zh, ... a row; may be repeated")  # fmt: skip
    parser.add_argument("--tags-id", metavar="FIELD", help="field with the id of the tags; default: the image's name")
    parser.add_argument("--drop-duplicates", action="store_true", help="keep the first of equal image and captions")
    parser.add_argument(
        "--select",
        type=input_folder,
        metavar="FOLDER",
        help="output of ernie-vil2 curate: only what it kept, whatever its weight",
    )
    add_field_option(parser, DataSpec, "text_id", help="field that names a text, like Data.text_id")
    parser.add_argument(
        "--parts",
        nargs="+",
        type=fraction,
        default=[],
        metavar="SHARE",
        help="0.8 0.1 0.1: folders train, val and test in --output, or of two shares train and test; "
        "no image is in two of them",
    )
    parser.add_argument("--group-by", metavar="FIELD", help="with --parts: no value of this field is in two of them")
    parser.add_argument("--stratify-by", metavar="FIELD", help="with --parts: each part has its share of every value")
    parser.add_argument("--seed", type=natural, default=0, help="with --parts: seed of the division")
    parser.add_argument("--samples-per-shard", type=count, default=10_000, metavar="N", help="default 10000")
    parser.add_argument("--processes", type=count, metavar="N", help="default: one for each core that may be used")


def run(args: argparse.Namespace) -> int:
    if bool(args.output) == args.check:
        raise ValueError("give --output FOLDER, or --check")
    if args.parts and (args.check or len(args.parts) not in NAMES):
        raise ValueError("--parts takes two or three shares, for --output: 0.8 0.2 or 0.8 0.1 0.1")
    if args.parts and args.select:
        raise ValueError("--parts is of a whole source: write what --select keeps first, then its parts")
    if (args.group_by or args.stratify_by) and not args.parts:
        raise ValueError("--group-by and --stratify-by go with --parts")
    if args.seed and not args.parts:
        raise ValueError("--seed goes with --parts: nothing else is drawn")
    if args.tags_id and not args.tags:
        raise ValueError("--tags-id says by which field the tags of --tags are joined: name --tags FILE as well")

    from ernie_vil2.data.prepare import Settings, check, prepare
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.data.readers.splits import Division, select_rows
    from ernie_vil2.data.selection import SelectedSamples
    from ernie_vil2.data.tags import TagsFile
    from ernie_vil2.device.runtime import usable_cores

    settings = Settings(
        args.short_side,
        args.quality,
        args.samples_per_shard,
        args.tags_id,
        args.drop_duplicates,
        args.text_id,
        tuple(args.background),
    )
    opened = open_sources(make_data_spec(args, args.input, default_split=TRAIN))
    source = SelectedSamples(args.select, opened) if args.select else opened
    tags = [TagsFile(path) for path in args.tags]
    processes = args.processes or usable_cores()
    if args.check:
        index = check(source, settings, tags, processes)
        print(index)
        return 1 if index.bad_samples.counts else 0
    if not args.parts:
        print(prepare(source, args.output, settings, tags, processes))
        return 0
    shares = dict(zip(NAMES[len(args.parts)], args.parts, strict=True))
    division = Division(shares, args.group_by, args.stratify_by, args.seed)
    for name, rows in division.assign_rows(opened).items():
        print(f"{name}: {prepare(select_rows(opened, rows), args.output / name, settings, tags, processes)}")
    return 0
