"""Export a model for an inference library: two graphs, and all that is needed around them, in one folder.

    python tools/export.py runs/emoji exports/emoji --to paddle-inference
    python tools/export.py runs/emoji exports/emoji-int8 --to onnx --precision int8
    python tools/export.py official/model.pdparams exports/official --to onnx --data coco_cn.tsv

CHECKPOINT is any model, released ones included; FOLDER is made. The export is compared with the model on real inputs.
ernie_vil2.load_model(FOLDER) uses it as it does a checkpoint, and so does --checkpoint FOLDER of the other commands;
ernie_vil2.runtime_onnx runs an ONNX export without Paddle. docs/export.md has the rest.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_vil2.cli.arguments import (
    add_pipe_option,
    add_sources,
    add_table_options,
    add_width_option,
    count,
    data_spec,
    input_file,
    model,
    output_folder,
)

if TYPE_CHECKING:
    from ernie_vil2.data.spec import DataSpec
    from ernie_vil2.encoder import ErnieViL2

TARGETS = {"paddle-inference": "paddle_inference", "onnx": "onnx"}
DEMO = Path(__file__).parents[2] / "demo_data" / "emoji-test.tar"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=model, metavar="CHECKPOINT", help="as --checkpoint of tools/eval_retrieval.py"
    )
    parser.add_argument("folder", nargs="?", type=output_folder, metavar="FOLDER",
                        help="new folder; default: one next to the weights, named after --to and --precision: "
                        "evaluation, tagging and search then use it where it ranks alike")  # fmt: skip
    parser.add_argument("--to", required=True, choices=TARGETS,
                        help="the library that runs it; onnx needs Python 3.11 or 3.12 here, "
                        "not where it is run")  # fmt: skip
    parser.add_argument("--precision", choices=("float32", "bfloat16", "int8"), default="float32",
                        help="bfloat16: paddle-inference only; int8: weights, onnx only; default: float32")  # fmt: skip
    add_width_option(parser)
    parser.add_argument("--vocab", type=input_file, metavar="FILE", help="vocabulary, where the model brings none")
    what = "real inputs to compare on, any source of docs/data.md; default: the demo's drawings of a checkout"
    add_sources(parser, "--data", "SOURCE", what)
    parser.add_argument("--samples", type=count, default=100, help="of them, from the first; default: 100")
    add_pipe_option(parser)
    add_table_options(parser)


def run(args: argparse.Namespace) -> int:
    from ernie_vil2.encoder import load_model
    from ernie_vil2.export import export, require_backend
    from ernie_vil2.models.weights.format import find_weights

    require_backend(TARGETS[args.to])
    if not args.data and not DEMO.is_file():
        raise ValueError("name real inputs to compare the export on, --data SOURCE: the demo's are not there")
    name = f"{args.to}-{args.precision}" + (f"-{args.width}" if args.width else "")
    args.folder = args.folder or find_weights(args.checkpoint).parent / name
    loaded = load_model(args.checkpoint, args.vocab, "cpu")
    real_inputs = inputs(loaded, data_spec(args, args.data or [str(DEMO)]), args.samples)
    report = export(
        loaded, args.folder, TARGETS[args.to], args.precision, real_inputs, str(args.checkpoint), args.width
    )
    size = sum(path.stat().st_size for path in args.folder.iterdir()) / 2**20
    print(f"{args.checkpoint} is now {args.folder} ({args.to}, {args.precision}, {size:.1f} MiB)\n")
    print(f"{'':<8}{'inputs':>8}{'largest difference':>20}{'least cosine':>14}")
    for side in ("images", "texts"):
        found = report[side]
        print(f"{side:<8}{found['inputs']:>8}{found['largest_difference']:>20.1e}{found['least_cosine']:>14.6f}")
    alike = report["top_10"]
    print(f"\nten closest images: the same ten for {100 * alike['same_ten']:.1f} % of the texts, in the same order for "
          f"{100 * alike['same_order']:.1f} %; {100 * alike['in_both']:.1f} % of all are in both")  # fmt: skip
    return 0


def inputs(model: ErnieViL2, data: DataSpec, most: int) -> tuple[list, list[str]]:
    """Return the pixels of the first samples of the data that can be used, and their captions in all languages."""
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.data.samples import BadSampleReport

    samples, bad = open_sources(data), BadSampleReport()
    images, texts = list[Any](), dict[str, None]()
    for row in range(len(samples)):
        if len(images) == most:
            break
        with bad.attempt():
            sample = samples[row]
            captions = [sample.caption(language) for language in sample.captions]
            images.append(model.preprocess(sample.image, sample.image_name))
            texts.update(dict.fromkeys(captions))
    if not texts:
        raise ValueError(f"{' '.join(data.paths)}: nothing to compare on\n{bad}")
    if bad.counts:
        print(bad)
    return images, list(texts)
