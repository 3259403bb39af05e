r"""Write a model's embeddings to disk: those of a benchmark, of a folder of images, or of lines of text.

    python tools/embed.py --checkpoint runs/mine --images photos --texts titles.txt --output embeddings

    python tools/embed.py --checkpoint ernie-vil-2.0-base-zh --data coco_cn.tsv --output embeddings
    python tools/embed.py --checkpoint http://127.0.0.1:8000/v1#large --texts titles.txt --output embeddings
    python tools/embed.py --checkpoint model.pdparams --data coco_cn.tsv --format official --output out
    python tools/embed.py --checkpoint runs/mine --data Flickr30k-CN --split test --format chinese-clip \
        --cache ~/.cache/embeddings --processes 2 --output features

Other programs can use the embeddings, and they can be scored again without the model; docs/benchmarks.md describes the
files. With --cache an interrupted command resumes where it stopped; what a server has computed (docs/model_server.md)
is always kept.
"""

import argparse
from pathlib import Path

from ernie_vil2.cli import arguments
from ernie_vil2.cli.arguments import input_file, output_folder
from ernie_vil2.device.launch import launched_rank, start_ranks
from ernie_vil2.io.terminal import pluralize

FORMATS = ("numpy", "official", "chinese-clip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 embed`."""
    arguments.add_model_options(parser)
    arguments.add_width_option(parser)
    arguments.add_data_options(
        parser, help="without --data: folder of image files, also in sub-folders; with it: folder of its images"
    )
    parser.add_argument("--texts", type=input_file, metavar="FILE",
                        help="file with a text on each line, instead of --data, alone or with --images")  # fmt: skip
    parser.add_argument("--language", help="language of the captions, if the data have several")
    parser.add_argument("--output", required=True, type=output_folder, metavar="FOLDER", help="output folder")
    parser.add_argument("--format", choices=FORMATS, default="numpy",
                        help="numpy (default): .npy files, with ids and pairs as JSON lines; official: the text file "
                        "of the official release, one row for each row of a TSV file; chinese-clip: the feature files "
                        "of Chinese-CLIP")  # fmt: skip
    parser.add_argument("--cache", type=output_folder, metavar="FOLDER",
                        help="folder that keeps finished embeddings, for the case of an interruption")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 embed` and return its exit code."""
    is_paired = bool(args.data)
    if not args.checkpoint or (is_paired and args.texts) or not (is_paired or args.images or args.texts):
        raise ValueError("give --checkpoint, and --data, or without it --images, --texts or both")
    if not is_paired and args.format == "official":
        raise ValueError("the official format holds pairs; take another --format for --images and --texts")
    data_options = ("layout", "split", "columns", "encoding", "text_id", "caption_lines", "language")
    unused = [f"--{name.replace('_', '-')}" for name in data_options if vars(args)[name]]
    if unused and not is_paired:
        raise ValueError(f"{', '.join(unused)} need --data: leave out for a folder of images and lines of text")
    if args.processes > 1 and (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code

    from ernie_vil2.data.benchmark import read_unpaired
    from ernie_vil2.data.readers.tsv import is_tsv
    from ernie_vil2.data.samples import BadSampleReport, format_names
    from ernie_vil2.evaluation import embedding_files
    from ernie_vil2.evaluation.encoded import encode_on_all_ranks
    from ernie_vil2.io.files import atomic_files

    for path in args.data:
        if args.format == "official" and "://" in path and is_tsv(path):
            raise ValueError(f"{path}: the official format repeats the rows of a TSV file; copy it to this machine")
    encoder = arguments.open_named_encoder(args).with_width(args.width)
    if is_paired:
        languages = [args.language] if args.language else None
        benchmarks = arguments.open_data(args, languages, encoder.languages)
        if len(benchmarks) > 1:
            raise ValueError(f"there are captions in {' and '.join(benchmarks)}; name one with --language")
        benchmark = next(iter(benchmarks.values()))
    else:
        images = Path(args.images) if args.images else None
        texts = Path(args.texts) if args.texts else None
        benchmark = read_unpaired(images, texts)
    encoded = encode_on_all_ranks(encoder, benchmark, cache=args.cache)
    if launched_rank()[0] != 0:
        return 0

    left_out: list[str] = []
    # All files appear at once, or none if the disk is full.
    with atomic_files(args.output) as folder:
        if args.format == "numpy":
            embedding_files.write_numpy(folder, encoded)
        elif args.format == "chinese-clip":
            embedding_files.write_chinese_clip(folder, encoded, args.split or "test")
        else:
            # An official TSV file keeps its rows, also those with the same image or text; a table with columns may have
            # the same suffix.
            rows = None
            # Shards that are fetched from elsewhere are no files here.
            has_only_tsv = all(is_tsv(str(file), args.columns, args.encoding) for file in benchmark.files)
            if benchmark.files and has_only_tsv:
                rows, left_out = embedding_files.read_official_rows(benchmark.files, encoded.benchmark)
            embedding_files.write_official(folder / embedding_files.OFFICIAL_FILE, encoded, rows)
    print(f"model: {args.checkpoint}\ndata: {encoded.benchmark.entry_report}\nimages: {encoded.bad_samples}")
    if left_out:
        names = format_names(len(left_out), left_out[: BadSampleReport.MAX_NAMES])
        print(f"rows left out, so that those behind them are not the rows of the same numbers in the TSV: {names}")
    sizes = f"{pluralize(len(encoded.image_embeddings), 'image')} and {pluralize(len(encoded.text_embeddings), 'text')}"
    print(f"{sizes}, {encoder.embed_dim} numbers each: {args.output}")
    return 0
