"""Write a model's embeddings to disk: of a benchmark, of a folder of images, or of lines of text.

    python tools/embed.py --checkpoint runs/mine --images photos --texts titles.txt --output embeddings

    python tools/embed.py --checkpoint ernie-vil-2.0-base-zh --data coco_cn.tsv --output embeddings
    python tools/embed.py --checkpoint model.pdparams --data coco_cn.tsv --format official --output out
    python tools/embed.py --checkpoint runs/mine --data Flickr30k-CN --split test --format chinese-clip \\
        --cache ~/.cache/embeddings --processes 2 --output features

They are for other programs, or to be scored again without the model; docs/benchmarks.md describes the files.
With --cache an interrupted command resumes where it stopped.
"""

import argparse
from pathlib import Path

from ernie_vil2.cli import arguments
from ernie_vil2.cli.arguments import input_file, output_folder
from ernie_vil2.device.launch import launched_rank, start_ranks
from ernie_vil2.io.terminal import counted

FORMATS = ("numpy", "official", "chinese-clip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_model_options(parser)
    arguments.add_width_option(parser)
    arguments.add_data_options(
        parser, help="instead of --data: a folder of image files, also in sub-folders; with it: where its images lie"
    )
    parser.add_argument("--texts", type=input_file, metavar="FILE",
                        help="instead of --data, or with --images: a text in each line")  # fmt: skip
    parser.add_argument("--language", help="language of the captions, where they have several")
    parser.add_argument(
        "--output", required=True, type=output_folder, metavar="FOLDER", help="folder of the files to write"
    )
    parser.add_argument("--format", choices=FORMATS, default="numpy",
                        help="numpy (.npy with ids and pairs as JSON lines), the official release's text file, with a "
                        "row a TSV row, or Chinese-CLIP's feature files; default: numpy")  # fmt: skip
    parser.add_argument(
        "--cache", type=output_folder, metavar="FOLDER", help="keeps finished embeddings for a later attempt"
    )


def run(args: argparse.Namespace) -> int:
    unpaired = not args.data
    if not args.checkpoint or (args.data and args.texts) or (unpaired and not (args.images or args.texts)):
        raise ValueError("give --checkpoint, and --data, or without it --images, --texts or both")
    if unpaired and args.format == "official":
        raise ValueError("the official format holds pairs; take another --format for --images and --texts")
    if unpaired and (args.layout or args.split or args.columns or args.encoding or args.text_id or args.language):
        raise ValueError(
            "--layout, --split, --columns, --encoding, --text-id and --language are of --data: leave them out for a "
            "folder of images and lines of text"
        )
    if args.processes > 1 and (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code

    from ernie_vil2.data.benchmark import read_unpaired
    from ernie_vil2.evaluation import embedding_files
    from ernie_vil2.evaluation.encoded import encode_on_all_ranks
    from ernie_vil2.io.files import atomic_files

    model = arguments.load_named_model(args)[0].with_width(args.width)
    if unpaired:
        benchmark = read_unpaired(*(Path(path) if path else None for path in (args.images, args.texts)))
    else:
        found = arguments.open_data(args, [args.language] if args.language else None, model.config.Views.languages)
        if len(found) > 1:
            raise ValueError(f"there are captions in {' and '.join(found)}; name one with --language")
        benchmark = next(iter(found.values()))
    encoded = encode_on_all_ranks(model, benchmark, cache=args.cache)
    if launched_rank()[0] != 0:
        return 0

    with atomic_files(args.output) as folder:
        if args.format == "numpy":
            embedding_files.write_numpy(folder, encoded)
        elif args.format == "chinese-clip":
            embedding_files.write_chinese_clip(folder, encoded, args.split or "test")
        else:
            from_tsv = all(file.suffix == ".tsv" for file in benchmark.files)
            lines = embedding_files.read_official_rows(benchmark.files, encoded.benchmark) if from_tsv else None
            embedding_files.write_official(folder / embedding_files.OFFICIAL_FILE, encoded, lines)
    print(f"model: {args.checkpoint}\ndata: {encoded.benchmark.entry_report}\nimages: {encoded.bad_samples}")
    rows = f"{counted(len(encoded.image_embeddings), 'image')} and {counted(len(encoded.text_embeddings), 'text')}"
    print(f"{rows}, {model.embed_dim} numbers each: {args.output}")
    return 0
