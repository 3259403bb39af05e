"""Find what a checkpoint's scores mean, on a validation set: a temperature, and a threshold for "nothing matches".

    python tools/calibrate.py --checkpoint runs/emoji --data demo_data/emoji-val.tar --language zh
    python tools/calibrate.py --checkpoint model.pdparams --data coco-cn-version1805v1.1 --split val

Writes calibration.json next to the checkpoint, which `rank`, classification, tagging and search use, and prints
precision and recall of the thresholds, one for each direction. docs/search.md explains how they are found.
"""

import argparse

from ernie_vil2.cli import arguments
from ernie_vil2.device.extras import require
from ernie_vil2.device.launch import launched_rank, start_ranks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 calibrate`."""
    arguments.add_model_options(parser)
    arguments.add_data_options(parser)
    parser.add_argument("--language",
                        help="language of the captions, if the data have several")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 calibrate` and return its exit code."""
    if not args.checkpoint or not args.data:
        raise ValueError("give --checkpoint and --data")
    require("a calibration", "scipy")
    if args.processes > 1 and (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code
    from ernie_vil2.evaluation.calibrate import calibrate
    from ernie_vil2.evaluation.encoded import encode_on_all_ranks
    from ernie_vil2.io.calibration import write_calibration

    encoder, weights = arguments.load_named_model(args)
    languages = [args.language] if args.language else None
    benchmarks = arguments.open_data(args, languages)
    # A calibration is for one language: without --language, the first one of the data.
    language, benchmark = next(iter(benchmarks.items()))
    encoded = encode_on_all_ranks(encoder, benchmark)
    if launched_rank()[0] != 0:
        return 0
    images, texts = encoded.image_embeddings, encoded.text_embeddings

    name_parts = [*map(str, args.data), args.split, language]
    data_name = " ".join(part for part in name_parts if part)
    calibration = calibrate(images, texts, encoded.benchmark.pairs, encoder.fingerprint, data_name)
    path = write_calibration(calibration, weights.parent)

    print(f"\n{len(images):,} images, {len(texts):,} texts; logit scale {calibration.logit_scale:.1f}")
    print(f"{'':<16}{'threshold':>11}{'precision %':>13}{'recall %':>10}{'rejected %':>12}")
    for direction, threshold in calibration.thresholds.items():
        figures = f"{threshold.precision:>13.1f}{threshold.recall:>10.1f}{threshold.rejection:>12.1f}"
        print(f"{direction.replace('_to_', ' to '):<16}{threshold.cosine:>11.3f}{figures}")
    print(f"written: {path}")
    return 0
