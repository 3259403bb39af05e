"""Write a model's embeddings of a benchmark to disk, to be taken elsewhere, or scored again without the model.

    python tools/extract_embeddings.py --checkpoint ernie-vil-2.0-base-zh --data coco_cn.tsv --output embeddings
    python tools/extract_embeddings.py --checkpoint model.pdparams --data coco_cn.tsv --format official --output out
    python tools/extract_embeddings.py --checkpoint runs/mine --data Flickr30k-CN --split test --format chinese-clip \\
        --cache ~/.cache/embeddings --processes 2 --output features

An interrupted command goes on where it stopped when it is given a --cache.
"""

import argparse
from pathlib import Path

from ernie_vil2.evaluation import command_line

FORMATS = ("numpy", "official", "chinese-clip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    command_line.add_model_options(parser)
    command_line.add_data_options(parser)
    parser.add_argument("--language", default="", help="language of the captions, where the data has several")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder of the files to write")
    parser.add_argument("--format", choices=FORMATS, default="numpy",
                        help="numpy (.npy with ids and pairs as JSON lines), the official release's text file, with a "
                        "row a TSV row, or Chinese-CLIP's feature files; default: numpy")  # fmt: skip
    parser.add_argument("--cache", default=None, metavar="FOLDER", help="keeps finished embeddings, to go on with them")


def run(args: argparse.Namespace) -> int:
    if not args.checkpoint or not args.data:
        raise ValueError("give --checkpoint and --data")
    if (code := command_line.start_ranks(args)) is not None:
        return code

    from ernie_vil2.evaluation import embedding_files

    model, _ = command_line.load(args)
    benchmark = command_line.open_data(args, args.language)
    encoded = command_line.encode_data(model, benchmark, args.cache)
    if command_line.RANK != 0:
        return 0

    output = Path(args.output)
    if args.format == "numpy":
        embedding_files.write_numpy(output, encoded)
    elif args.format == "chinese-clip":
        embedding_files.write_chinese_clip(output, encoded, args.split or "test")
    else:
        from_tsv = all(file.suffix == ".tsv" for file in benchmark.files)
        lines = embedding_files.official_rows(benchmark.files, encoded.benchmark) if from_tsv else None
        output.mkdir(parents=True, exist_ok=True)
        embedding_files.write_official(output / embedding_files.OFFICIAL_FILE, encoded, lines)
    print(f"model: {args.checkpoint}\ndata: {encoded.benchmark.rows}\nimages: {encoded.problems}")
    print(
        f"{len(encoded.images)} images and {len(encoded.texts)} texts, {encoded.images.shape[1]} numbers each: {output}"
    )
    return 0
