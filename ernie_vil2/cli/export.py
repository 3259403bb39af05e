"""Export a model for an inference library: two graphs, and all that is needed around them, in one folder.

    python tools/export.py runs/emoji exports/emoji --to paddle-inference
    python tools/export.py runs/emoji exports/emoji-int8 --to onnx --precision int8
    python tools/export.py official/model.pdparams exports/official --to onnx --data coco_cn.tsv
    python tools/export.py ernie-vil-2.0-base-zh exports/photos --to immich

CHECKPOINT is any model, released ones included; FOLDER is created. The export is compared with the model on real
inputs. ernie_vil2.load_model(FOLDER) and --checkpoint FOLDER of the other commands use it like a checkpoint;
ernie_vil2.runtime_onnx runs an ONNX export without Paddle. An export for Immich, a server for photos, is for Immich
alone. docs/export.md has the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_vil2.cli.arguments import (
    add_allow_pipes_option,
    add_import_option,
    add_source_argument,
    add_table_options,
    add_width_option,
    count,
    input_file,
    make_data_spec,
    model,
    output_folder,
)

if TYPE_CHECKING:
    from ernie_vil2.data.spec import DataSpec

BACKENDS = {"paddle-inference": "paddle_inference", "onnx": "onnx"}  # --to -> backend
IMMICH = "immich"  # value of --to that names an application, not a library
DEMO = Path(__file__).parents[2] / "demo_data" / "emoji-test.tar"  # in a checkout only


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 export`."""
    parser.add_argument("checkpoint", type=model, metavar="CHECKPOINT",
                        help="model to export, like --checkpoint of tools/eval_retrieval.py")  # fmt: skip
    parser.add_argument("folder", nargs="?", type=output_folder, metavar="FOLDER",
                        help="new folder; default: a folder next to the weights, named after --to and --precision, "
                        "which evaluation, tagging and search then use if it ranks like the checkpoint")  # fmt: skip
    parser.add_argument("--to", required=True, choices=(*BACKENDS, IMMICH),
                        help="library or application that runs the export; to make one for onnx or immich, this "
                        "command needs Python 3.11 or 3.12")  # fmt: skip
    parser.add_argument("--precision", choices=("float32", "bfloat16", "int8"), default="float32",
                        help="bfloat16: for paddle-inference only; int8: 8-bit weights, for onnx and immich; "
                        "default: float32")  # fmt: skip
    add_width_option(parser)
    parser.add_argument("--vocab", type=input_file, metavar="FILE",
                        help="vocabulary file, if the model does not include one")  # fmt: skip
    add_source_argument(parser, "--data", "SOURCE",
                        "real inputs to compare on, any source of docs/data.md; default: the demo's drawings in a "
                        "checkout")  # fmt: skip
    parser.add_argument("--samples", type=count, default=100,
                        help="number of samples to compare on, from the first; default: 100")  # fmt: skip
    add_import_option(parser)
    add_allow_pipes_option(parser)
    add_table_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 export` and return its exit code."""
    from ernie_vil2.encoder import load_model
    from ernie_vil2.export import export, require_backend
    from ernie_vil2.export.immich import NAMES, export_for_immich
    from ernie_vil2.models.weights.format import find_weights

    backend = BACKENDS.get(args.to, "onnx")
    require_backend(backend)
    if not args.data and not DEMO.is_file():
        raise ValueError("name real inputs to compare the export on, --data SOURCE: there is no demo data here")
    if args.folder is None:
        name = f"{args.to}-{args.precision}"
        if args.width:
            name += f"-{args.width}"
        args.folder = find_weights(args.checkpoint).parent / name

    encoder = load_model(args.checkpoint, args.vocab, "cpu")
    data = make_data_spec(args, args.data or [str(DEMO)])
    # Immich prepares images in its own way, which the comparison includes.
    inputs = read_inputs(data, args.samples, encoder.preprocess, keeps_files=args.to == IMMICH)
    if args.to == IMMICH:
        report = export_for_immich(encoder, args.folder, args.precision, inputs, args.width)
    else:
        report = export(encoder, args.folder, backend, args.precision, inputs, str(args.checkpoint), args.width)

    num_bytes = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    print(f"{args.checkpoint} is now {args.folder} ({args.to}, {args.precision}, {num_bytes / 2**20:.1f} MiB)\n")
    print(f"{'':<8}{'inputs':>8}{'largest difference':>20}{'least cosine':>14}")
    for side in ("images", "texts"):
        figures = report[side]
        print(f"{side:<8}{figures['num_inputs']:>8}{figures['max_difference']:>20.1e}{figures['min_cosine']:>14.6f}")
    shares = {name: 100 * share for name, share in report["top_10"].items()}
    print(
        f"\nten closest images: the same ten for {shares['same_images']:.1f} % of the texts, in the same order for "
        f"{shares['same_order']:.1f} %; {shares['mean_overlap']:.1f} % of the ten are the same on average"
    )
    if args.to == IMMICH:
        width = args.width or encoder.embed_dim
        if width in NAMES:
            print(f"\nnext: copy it to clip/{NAMES[width]} in the container's cache, and choose that model in Immich")
        else:
            widths = ", ".join(map(str, NAMES))
            print(f"\nImmich's container loads it, but its server has models of {widths} numbers, and none of {width}")
    return 0


def read_inputs(
    data: DataSpec, max_samples: int, preprocess: Callable[[bytes, str], Any], keeps_files: bool = False
) -> tuple[list, list[str]]:
    """Return the first usable samples of the data: their images, and their captions in all languages.

    Args:
        data: the data.
        max_samples: number of samples.
        preprocess: makes pixels of an image file and its name.
        keeps_files: return image files instead of their pixels.
    """
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.data.samples import BadSampleReport

    samples, bad_samples = open_sources(data), BadSampleReport()
    images: list[Any] = []
    texts: dict[str, None] = {}  # an ordered set
    for row in range(len(samples)):
        if len(images) == max_samples:
            break
        with bad_samples.attempt():
            sample = samples[row]
            captions = sample.readable_captions().values()
            pixels = preprocess(sample.image, sample.image_name)  # raises if the image cannot be used
            images.append(sample.image if keeps_files else pixels)
            texts.update(dict.fromkeys(captions))
    if not texts:
        raise ValueError(f"{' '.join(data.paths)}: nothing to compare on\n{bad_samples}")
    if bad_samples.counts:
        print(bad_samples)
    return images, list(texts)
