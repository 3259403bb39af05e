"""Convert a model between the official file, the PaddleNLP folder and this package's folder.

    python tools/convert.py official/model.pdparams converted --to paddlenlp
    python tools/convert.py runs/emoji converted --to ernie_vil2

SOURCE is a weight file or folder in any of the three formats; its own files tell which. A run folder is its newest
checkpoint, RUN@best that of the best evaluation. TARGET is a new folder. The arrays go through unchanged. A report
lists the weights that match the model; any other is an error unless allowed.
"""

import argparse

from ernie_vil2.cli.arguments import count, input_file, model, output_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=model, metavar="SOURCE", help="model file or folder")
    parser.add_argument("target", type=output_folder, metavar="TARGET", help="folder to be made")
    parser.add_argument("--to", required=True, choices=["official", "paddlenlp", "ernie_vil2"], help="format of TARGET")
    parser.add_argument(
        "--vocabulary", type=input_file, metavar="FILE", help="vocabulary file; default: vocab.txt next to the weights"
    )
    parser.add_argument("--heads", nargs=2, type=count, metavar=("IMAGE", "TEXT"),
                        help="attention heads where SOURCE does not tell them; default: width / 64")  # fmt: skip
    parser.add_argument("--allow", action="append", default=[], metavar="NAME",
                        help="a weight, or a glob pattern of weights, that may be missing, unexpected or of another "
                        "shape; it is left out; may be repeated")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from ernie_vil2.io.run_folder import named_checkpoint
    from ernie_vil2.models.weights.stored import changed_ways, read_model, write_model

    args.source = named_checkpoint(args.source) or args.source
    stored = read_model(args.source, args.vocabulary, tuple(args.heads) if args.heads else None)
    try:
        _, report = stored.build(args.allow)
    except ValueError as error:
        raise ValueError(f"{args.source}: {error}") from error
    kept = {name: stored.arrays[name] for name in report.matched}
    write_model(replace(stored, arrays=kept), args.target, args.to)
    print(f"{args.source} ({stored.layout}) is now {args.target} ({args.to})\n{report}")
    for change in changed_ways(stored.config, args.to):
        print(f"  note: {change}")
    return 0
