"""Find on a validation set what a checkpoint's scores mean: a temperature, and a threshold for "nothing matches".

    python tools/calibrate.py --checkpoint runs/emoji --data demo_data/emoji-val.tar --language zh
    python tools/calibrate.py --checkpoint model.pdparams --data coco-cn-version1805v1.1 --split val

Writes calibration.json next to the checkpoint, which `rank`, classification, tagging and search use, and prints
precision and recall of the threshold. docs/search.md says how they are found.
"""

import argparse

from ernie_vil2.cli import arguments
from ernie_vil2.device.extras import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_model_options(parser)
    arguments.add_data_options(parser)
    parser.add_argument("--language", default="", help="language of the captions, where the data has several")


def run(args: argparse.Namespace) -> int:
    if not args.checkpoint or not args.data:
        raise ValueError("give --checkpoint and --data")
    require("a calibration", "scipy")
    from ernie_vil2.evaluation.calibrate import calibrate
    from ernie_vil2.evaluation.encoded import encode_on_all_ranks
    from ernie_vil2.io.calibration import write_calibration

    model, weights = arguments.load_named_model(args)
    benchmarks = arguments.open_data(args, [args.language] if args.language else None)
    language, benchmark = next(iter(benchmarks.items()))
    encoded = encode_on_all_ranks(model, benchmark)
    name = " ".join(filter(None, [*map(str, args.data), args.split, language]))
    found = calibrate(
        encoded.image_embeddings, encoded.text_embeddings, encoded.benchmark.pairs, model.fingerprint, name
    )
    path = write_calibration(found, weights.parent)
    sizes = f"{len(encoded.image_embeddings):,} images, {len(encoded.text_embeddings):,} texts"
    print(f"\n{sizes}; logit scale {found.logit_scale:.1f}")
    print(f"{'':<16}{'threshold':>11}{'precision %':>13}{'recall %':>10}{'refused %':>11}")
    for way, one in found.thresholds.items():
        numbers = f"{one.cosine:>11.3f}{one.precision:>13.1f}{one.recall:>10.1f}{one.refused:>11.1f}"
        print(f"{way.replace('_to_', ' to '):<16}{numbers}")
    print(f"written: {path}")
    return 0
