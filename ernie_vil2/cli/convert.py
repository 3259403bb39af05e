"""Convert a model to another layout, or back to the one that it came from.

    python tools/convert.py official/model.pdparams converted --to paddlenlp
    python tools/convert.py runs/emoji converted --to ernie_vil2
    python tools/convert.py runs/chinese_clip converted

SOURCE is a weight file or folder in any layout that load_model reads; the layout is recognised. A run folder stands for
its newest checkpoint, RUN@best for that of the best evaluation. TARGET is a new folder. The arrays are not changed. A
report lists the weights that match the model; any other weight is an error unless it is allowed. TARGET gets an
integrity.json with the embeddings of a few inputs; TARGET is then loaded once and must reproduce them. If a layout
makes the model compute differently, a note says in what, and the embeddings are those of TARGET.

Without --to, a model goes back to the layout of the folder that its run began with. Settings, tokenizer and other files
are copied from that folder; name it with --origin if it has moved.
"""

import argparse
from pathlib import Path

from ernie_vil2.cli.arguments import add_import_option, count, input_file, model, output_folder

# Layouts written from the model alone; the others also need a folder with settings and a tokenizer. The names are
# written out: importing the modules that define them would take longer than printing the help.
STANDALONE_LAYOUTS = ("paddlenlp", "official", "ernie_vil2")
LAYOUTS = ["hf", "openclip", "chinese-clip", "pe-core", "eva-clip", *STANDALONE_LAYOUTS]
CN_CLIP_WORDS = 21_128  # lines of the vocab.txt in the package cn_clip, which reads that file whatever the model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 convert`."""
    parser.add_argument("source", type=model, metavar="SOURCE", help="file or folder of the model")
    parser.add_argument("target", type=output_folder, metavar="TARGET", help="new folder")
    parser.add_argument("--to", choices=LAYOUTS, help="layout of TARGET; default: the one that the model came from")
    parser.add_argument("--origin", type=model, metavar="FOLDER",
                        help="folder in the layout of TARGET with a model of this architecture; default: the folder "
                        "with which the run of SOURCE began")  # fmt: skip
    parser.add_argument("--lora", choices=["merged", "peft"], default="merged",
                        help="for a run with LoRA. merged (default): write all weights, with the changes added; peft: "
                        "write the changes alone in the layout of peft, for use with the folder that the run began "
                        "with")  # fmt: skip
    parser.add_argument("--vocabulary", type=input_file, metavar="FILE",
                        help="vocabulary file; default: vocab.txt next to the weights")  # fmt: skip
    parser.add_argument("--heads", nargs=2, type=count, metavar=("IMAGE", "TEXT"),
                        help="attention heads of the towers, if SOURCE does not define them; default: width / "
                        "64")  # fmt: skip
    parser.add_argument("--allow", action="append", default=[], metavar="NAME",
                        help="leave out this weight, or the weights of this glob pattern, if it is missing, unexpected "
                        "or has another shape; may be repeated")  # fmt: skip
    add_import_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 convert` and return its exit code."""
    from dataclasses import replace

    from ernie_vil2.encoder import build_encoder, load_model
    from ernie_vil2.io.files import remove_folder
    from ernie_vil2.io.run_folder import resolve_checkpoint
    from ernie_vil2.models.heads import HEAD_PREFIX
    from ernie_vil2.models.weights.format import read_model, write_model
    from ernie_vil2.models.weights.integrity import add_golden, check_golden, compute_golden, has_golden

    if args.target.exists() and any(args.target.iterdir()):
        raise FileExistsError(f"{args.target} exists already; name another folder")
    args.source = resolve_checkpoint(args.source) or args.source
    if args.lora == "peft":
        return _write_adapter(args)

    # Weights that do not match the model are errors, or left out if they are allowed.
    heads = tuple(args.heads) if args.heads else None
    stored = read_model(args.source, args.vocabulary, heads)
    try:
        network, report = stored.build(args.allow)
    except ValueError as error:
        raise ValueError(f"{args.source}: {error}") from error
    matching = replace(stored, arrays={name: stored.arrays[name] for name in report.matched})

    layout, origin = _choose_layout(args)
    golden = None
    if stored.tokens:  # without a vocabulary there are no texts to embed
        encoder = build_encoder(network, stored, stored.config, precision="float32", batch_size=8)
        golden = compute_golden(encoder)
    notes = write_model(matching, args.target, layout, golden, origin)
    num_head_weights = sum(name.startswith(HEAD_PREFIX) for name in stored.arrays)
    if num_head_weights and stored.family is None:
        notes.append(f"the classification head of {args.source}, {num_head_weights} weights, is left out")
    if layout == "chinese-clip":
        notes.append(
            "cn_clip's load_from_name rounds weights to float16, on a CPU, too: its embeddings differ from this "
            "model's by that rounding"
        )
        if stored.vocab_size != CN_CLIP_WORDS:
            notes.append("cn_clip reads the vocab.txt of its package: replace it by that of TARGET")

    # Load TARGET and compare its embeddings with those of SOURCE; without all weights they cannot be equal. With an
    # origin, the vocabulary may be a file that TARGET does not have.
    if golden and not report.mismatches():
        encoder = load_model(args.target, args.vocabulary if origin else None)
        try:
            if has_golden(args.target):
                check_golden(args.target, encoder)
            else:
                # The layout changes what the model computes, so TARGET records its own embeddings.
                add_golden(args.target, encoder)
        except OSError:  # the disk became full
            remove_folder(args.target)
            raise
    print(f"{args.source} ({stored.layout}) is now {args.target} ({layout})\n{report}")
    for note in notes:
        print(f"  note: {note}")
    return 0


def _choose_layout(args: argparse.Namespace) -> tuple[str, Path | None]:
    """Return the layout of TARGET, and the model whose settings and tokenizer it gets, None for a standalone layout."""
    from ernie_vil2.models.weights.write_back import find_layout, find_origin

    if args.to in STANDALONE_LAYOUTS:
        if args.origin:
            raise ValueError(f"--origin {args.origin} is not needed with --to {args.to}; leave it out")
        return args.to, None
    origin = find_origin(args.origin or args.source)
    if origin is None and args.origin:
        raise ValueError(f"--origin {args.origin}: there is no model")
    if origin is None:
        raise ValueError(
            f"{args.source}: the folder that it came from is unknown or no longer there; name it with --origin, or "
            f"choose --to {', '.join(STANDALONE_LAYOUTS)}"
        )
    return args.to or find_layout(origin), origin


def _write_adapter(args: argparse.Namespace) -> int:
    """Write what LoRA has learned into TARGET, and return the exit code.

    Raises:
        ValueError: another option does not apply to an adapter, or SOURCE is no run whose origin is known.
    """
    from ernie_vil2.config import load_config
    from ernie_vil2.io.run_folder import CONFIG
    from ernie_vil2.models.weights.format import find_weights
    from ernie_vil2.models.weights.lora_adapter import write_adapter
    from ernie_vil2.models.weights.write_back import find_origin

    if args.to not in (None, "hf"):
        raise ValueError(f"--lora peft writes an adapter for transformers, in no layout {args.to}; leave --to out")
    # An adapter has neither words nor heads, and no weights but those of LoRA, all of which must fit.
    for option in ("vocabulary", "heads", "allow"):
        if getattr(args, option):
            raise ValueError(f"--{option} does not apply to --lora peft, which writes the changes alone; leave it out")

    weights, origin = find_weights(args.source), find_origin(args.origin or args.source)
    if origin is None or not weights.with_name(CONFIG).is_file():
        raise ValueError(
            f"{args.source}: not a run, or the folder that it began with is unknown; name that folder with --origin"
        )
    config = load_config(weights.with_name(CONFIG), is_untrusted=True)
    notes = write_adapter(weights, config, origin, args.target)
    print(f"the LoRA of {args.source} is now {args.target}, an adapter of peft for {origin}")
    for note in notes:
        print(f"  note: {note}")
    return 0
