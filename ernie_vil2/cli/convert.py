"""Convert a model to another layout, or back to the one that it came from.

    python tools/convert.py official/model.pdparams converted --to paddlenlp
    python tools/convert.py runs/emoji converted --to ernie_vil2
    python tools/convert.py runs/chinese_clip converted

SOURCE is a weight file or folder in any layout that load_model reads; its own files show which. A run folder is its
newest checkpoint, RUN@best that of the best evaluation. TARGET is a new folder. The arrays go through unchanged. A
report lists the weights that match the model; any other is an error unless allowed. TARGET has an integrity.json,
with a few inputs and their embeddings: TARGET is loaded once, and has to give the same. Where the format makes the
model compute otherwise, a note says in what, and the embeddings are those that TARGET gives.

Without --to a model goes back to the layout that it came from: that of the folder with which its run began. Settings,
tokenizer and what else lies in that folder are copied from it (--origin, if it has moved).
"""

import argparse

from ernie_vil2.cli.arguments import count, input_file, model, output_folder

OWN = ("paddlenlp", "official", "ernie_vil2")
"""Layouts that are written from the model alone; a folder of the others is needed for its settings and tokenizer."""
PACKAGED_WORDS = 21_128  # lines of the vocab.txt in Chinese-CLIP's package
LAYOUTS = ["hf", "openclip", "chinese-clip", *OWN]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=model, metavar="SOURCE", help="model file or folder")
    parser.add_argument("target", type=output_folder, metavar="TARGET", help="folder to be made")
    parser.add_argument("--to", choices=LAYOUTS, help="layout of TARGET; default: the one that the model came from")
    parser.add_argument(
        "--origin",
        type=model,
        metavar="FOLDER",
        help="folder in the layout of TARGET with a model of "
        "this architecture; default: where the weights came from that its run began with",
    )
    parser.add_argument(
        "--lora",
        choices=["merged", "peft"],
        default="merged",
        help="of a run with LoRA: merged into "
        "the weights, or the changes alone in the layout of peft, to be added to the folder that the "
        "run began with",
    )
    parser.add_argument(
        "--vocabulary", type=input_file, metavar="FILE", help="vocabulary file; default: vocab.txt next to the weights"
    )
    parser.add_argument("--heads", nargs=2, type=count, metavar=("IMAGE", "TEXT"),
                        help="attention heads, if SOURCE does not define them; default: width / 64")  # fmt: skip
    parser.add_argument("--allow", action="append", default=[], metavar="NAME",
                        help="a weight, or a glob pattern of weights, that may be missing, unexpected or of another "
                        "shape; it is left out; may be repeated")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from ernie_vil2.encoder import build_encoder, load_model
    from ernie_vil2.io.files import remove_folder
    from ernie_vil2.io.run_folder import named_checkpoint
    from ernie_vil2.models.weights.format import read_model, write_model
    from ernie_vil2.models.weights.integrity import add_golden, check_golden, compute_golden, has_golden
    from ernie_vil2.models.weights.write_back import find_layout, find_origin

    if args.target.exists() and any(args.target.iterdir()):
        raise FileExistsError(f"{args.target} exists already; name another folder")
    args.source = named_checkpoint(args.source) or args.source
    if args.lora == "peft":
        return _write_adapter(args)
    stored = read_model(args.source, args.vocabulary, tuple(args.heads) if args.heads else None)
    try:
        model, report = stored.build(args.allow)
    except ValueError as error:
        raise ValueError(f"{args.source}: {error}") from error
    kept = replace(stored, arrays={name: stored.arrays[name] for name in report.matched})
    if args.to in OWN:
        if args.origin:
            raise ValueError(f"--origin {args.origin} is not needed with --to {args.to}; leave it out")
        origin, layout = None, args.to
    else:
        origin = find_origin(args.origin or args.source)
        if origin is None and args.origin:
            raise ValueError(f"--origin {args.origin}: no model is there")
        if origin is None:
            raise ValueError(
                f"{args.source}: the folder that it came from is not known or not there any more; name it "
                f"with --origin, or choose --to {', '.join(OWN)}"
            )
        layout = args.to or find_layout(origin)
    made = compute_golden(build_encoder(model, stored, stored.config, "float32", 8)) if stored.tokens else None
    notes = write_model(kept, args.target, layout, made, origin)
    if layout == "chinese-clip":
        notes.append(
            "cn_clip's load_from_name rounds weights to float16, also on a CPU: its embeddings differ from this "
            "model's by that rounding"
        )
    if layout == "chinese-clip" and stored.vocab_size != PACKAGED_WORDS:
        notes.append("its own code reads the vocab.txt of its package: put the one of TARGET there")
    if made and not report.mismatches():
        loaded = load_model(args.target, args.vocabulary if origin else None)
        try:
            (check_golden if has_golden(args.target) else add_golden)(args.target, loaded)
        except OSError:  # a disk that became full meanwhile
            remove_folder(args.target)
            raise
    print(f"{args.source} ({stored.layout}) is now {args.target} ({layout})\n{report}")
    for note in notes:
        print(f"  note: {note}")
    return 0


def _write_adapter(args: argparse.Namespace) -> int:
    from ernie_vil2.config import load_config
    from ernie_vil2.io.run_folder import CONFIG
    from ernie_vil2.models.weights.format import find_weights
    from ernie_vil2.models.weights.lora_adapter import write_adapter
    from ernie_vil2.models.weights.write_back import find_origin

    weights, origin = find_weights(args.source), find_origin(args.origin or args.source)
    if origin is None or not weights.with_name(CONFIG).is_file():
        raise ValueError(f"{args.source}: no run whose origin is known; name the folder that it began with by --origin")
    notes = write_adapter(weights, load_config(weights.with_name(CONFIG), is_strangers=True), origin, args.target)
    print(f"the LoRA of {args.source} is now {args.target}, an adapter of peft for {origin}")
    for note in notes:
        print(f"  note: {note}")
    return 0
