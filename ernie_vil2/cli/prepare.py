"""Turn any source of image-text pairs into checked tar shards: smaller images, added tags, no duplicates, splits.

    python tools/prepare.py 'downloads/{00000..00099}.tar' --output data/train --short-side 256
    python tools/prepare.py pairs/train.csv --output data/train --tags tags.jsonl --drop-duplicates
    python tools/prepare.py shop.xlsx --output data/shop --parts 0.8 0.1 0.1 --group-by sku
    python tools/prepare.py lmdb/train --check
    python tools/prepare.py crawl --select curated --output data/train

INPUT is anything that Data.train takes (docs/data.md). The output holds 00000.tar, ..., index.json (counts, sizes and
checksums) and report.txt (samples that could not be used). After an interruption the same command continues. --check
shows which columns are read as images and texts, reads and decodes everything, and writes nothing; its exit status is 1
if a sample cannot be used.
"""

import argparse

from ernie_vil2.cli.arguments import (
    add_field_option,
    add_import_option,
    add_source_options,
    count,
    fraction,
    input_file,
    input_folder,
    make_data_spec,
    output_folder,
    whole_number,
)
from ernie_vil2.data.spec import TRAIN, DataSpec

SPLIT_NAMES = {2: ("train", "test"), 3: ("train", "val", "test")}  # by the number of shares in --parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 prepare`."""
    add_source_options(parser)
    add_import_option(parser)
    parser.add_argument("--output", type=output_folder, metavar="FOLDER", help="folder of the shards")
    parser.add_argument("--check", action="store_true", help="only read everything and report what is wrong")
    parser.add_argument("--short-side", type=count, metavar="PIXELS",
                        help="turn images with a longer short side into JPEG with this short side; default: keep the "
                        "bytes of all images")  # fmt: skip
    parser.add_argument("--quality", type=count, default=90, help="quality of that JPEG, 1 to 100 (default 90)")
    parser.add_argument("--background", type=whole_number, nargs=3, default=(255, 255, 255),
                        metavar=("RED", "GREEN", "BLUE"),
                        help="colour behind the transparent pixels of an image that becomes JPEG (default 255 255 "
                        "255)")  # fmt: skip
    parser.add_argument("--tags", action="append", default=[], type=input_file, metavar="FILE",
                        help=".jsonl, .tsv or .csv file with id, tags, tags_zh, ... in each row; may be "
                        "repeated")  # fmt: skip
    parser.add_argument("--tags-id", metavar="FIELD",
                        help="field of a sample that holds the id of its tags; default: the name of the "
                        "image")  # fmt: skip
    parser.add_argument("--drop-duplicates", action="store_true",
                        help="keep only the first of several samples with equal image and captions")  # fmt: skip
    parser.add_argument("--select", type=input_folder, metavar="FOLDER",
                        help="output folder of ernie-vil2 curate: write only the samples that it selected, whatever "
                        "their weight")  # fmt: skip
    add_field_option(parser, DataSpec, "text_id", help="field that names a text, like Data.text_id")
    parser.add_argument("--parts", action="extend", nargs="+", type=fraction, default=[], metavar="SHARE",
                        help="divide the samples: 0.8 0.1 0.1 makes the folders train, val and test in --output, two "
                        "shares make train and test; no image is in two of them")  # fmt: skip
    parser.add_argument("--group-by", metavar="FIELD",
                        help="with --parts: no value of this field is in two folders")  # fmt: skip
    parser.add_argument("--stratify-by", metavar="FIELD",
                        help="with --parts: every value of this field is divided by the same shares")  # fmt: skip
    parser.add_argument("--seed", type=whole_number, default=0, help="with --parts: seed of the division (default 0)")
    parser.add_argument("--samples-per-shard", type=count, default=10_000, metavar="N",
                        help="samples in each shard (default 10000)")  # fmt: skip
    parser.add_argument("--processes", type=count, metavar="N",
                        help="number of processes; default: one for each usable core")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 prepare` and return its exit code."""
    _check_options(args)

    from ernie_vil2.data.prepare import Settings, check, prepare
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.data.readers.splits import Division, select_rows
    from ernie_vil2.data.selection import SelectedSamples
    from ernie_vil2.data.source_description import describe_source
    from ernie_vil2.data.tags import TagsFile
    from ernie_vil2.device.runtime import num_usable_cores

    settings = Settings(
        short_side=args.short_side,
        quality=args.quality,
        samples_per_shard=args.samples_per_shard,
        tags_id=args.tags_id,
        drop_duplicates=args.drop_duplicates,
        text_id=args.text_id,
        background=tuple(args.background),
    )
    source = open_sources(make_data_spec(args, args.input, default_split=TRAIN))
    tags = [TagsFile(path) for path in args.tags]
    processes = args.processes or num_usable_cores()
    if args.parts:
        shares = dict(zip(SPLIT_NAMES[len(args.parts)], args.parts, strict=True))
        division = Division(shares, args.group_by, args.stratify_by, args.seed)
        # All rows are assigned before anything is written, so that no image gets into two folders.
        rows_by_split = division.assign_rows(source)
        for name, rows in rows_by_split.items():
            summary = prepare(select_rows(source, rows), args.output / name, settings, tags, processes)
            print(f"{name}: {summary}")
        return 0

    samples = SelectedSamples(args.select, source) if args.select else source
    if args.check:
        print(describe_source(source))
        summary = check(samples, settings, tags, processes)
        print(summary)
        return 1 if summary.bad_samples.counts else 0
    print(prepare(samples, args.output, settings, tags, processes))
    return 0


def _check_options(args: argparse.Namespace) -> None:
    if args.output and args.check:
        raise ValueError("--check writes nothing: leave out --output, or --check")
    if not args.output and not args.check:
        raise ValueError("give --output FOLDER, or --check")
    if args.parts and args.check:
        raise ValueError("--parts goes with --output; --check checks the whole source")
    if args.parts and len(args.parts) not in SPLIT_NAMES:
        raise ValueError("--parts takes two or three shares: 0.8 0.2 or 0.8 0.1 0.1")
    if args.parts and args.select:
        raise ValueError("--parts divides a whole source: write the samples of --select first, then divide the output")
    if (args.group_by or args.stratify_by) and not args.parts:
        raise ValueError("--group-by and --stratify-by go with --parts")
    if args.seed and not args.parts:
        raise ValueError("--seed goes with --parts: nothing else is random")
    if args.tags_id and not args.tags:
        raise ValueError("--tags-id names the field for joining --tags: name --tags FILE as well")
