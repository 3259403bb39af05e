"""What a run needs before it is run: memory, traffic, loader rates, days, and what to change when it does not fit.

python tools/plan.py -c configs/pretrain/vit_b16_ernie_base_zh.yaml --ranks 112 --device a100-80g
python tools/plan.py -c configs/demo/emoji.yaml --ranks 2 --device cpu --json plan.json
"""

import argparse
import json
import os
import warnings

from ernie_vil2.cli.arguments import add_config_options, add_import_option, amount, count, fraction, output_file
from ernie_vil2.planning.devices import DEVICES, check
from ernie_vil2.registry import import_named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    add_import_option(parser)
    parser.add_argument("--ranks", type=count, required=True, help="devices, one rank on each")
    parser.add_argument("--device", required=True, choices=DEVICES, help="on which the ranks run")
    parser.add_argument("--utilisation", type=fraction, default=0.35,
                        help="share of the device's peak speed that training reaches (default 0.35)")  # fmt: skip
    parser.add_argument(
        "--bandwidth",
        type=amount,
        help="GB/s that leave a rank (default: the device's link, its network above 8 ranks)",
    )
    parser.add_argument("--sample-kb", type=amount, default=50, help="stored kilobytes of a sample (default 50)")
    parser.add_argument("--samples", type=count, default=100_000,
                        help="of the training data, if Training.epochs gives the length (default 100,000)")  # fmt: skip
    parser.add_argument("--json", type=output_file, metavar="FILE", help="also write all figures to this file")


def run(args: argparse.Namespace) -> int:
    from ernie_vil2.config import load_config

    device, config = DEVICES[args.device], load_config(args.config, args.override)
    import_named(config.names)
    check(config, args.ranks, device)  # before Paddle is imported, which takes seconds

    os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's remarks on traces
    from ernie_vil2.io.files import write_text
    from ernie_vil2.models.weights.architecture import with_model_like
    from ernie_vil2.planning.text import plan_run
    from ernie_vil2.training.optimizer import with_steps

    with warnings.catch_warnings(action="ignore"):  # Paddle's, of traces and of what is not installed
        text, made, advice = plan_run(
            with_steps(with_model_like(config), args.samples),
            args.ranks,
            device,
            utilisation=args.utilisation,
            sample_bytes=round(args.sample_kb * 1000),
            bandwidth=args.bandwidth and args.bandwidth * 1e9,
        )
    print(text)
    if epochs := config.Training.epochs:
        print(f"steps of {epochs:g} epochs of {args.samples:,} samples; --samples says how many there are")
    if args.json:
        figures = made.as_dict() | {"advice": advice and {"overrides": advice[0], **advice[1].as_dict()}}
        write_text(args.json, json.dumps(figures, indent=1))
    return 0
