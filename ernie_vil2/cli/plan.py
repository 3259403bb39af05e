"""What a run needs before it is run: memory, traffic, what to change when it does not fit; days from a measured step.

python tools/plan.py -c configs/pretrain/vit_b16_ernie_base_zh.yaml --ranks 112 --device a100-80g
python tools/plan.py -c configs/demo/emoji.yaml --ranks 2 --device cpu --measured runs/emoji --json plan.json
"""

import argparse
import os
import warnings
from pathlib import Path

from ernie_vil2.cli import rewrite_commands
from ernie_vil2.cli.arguments import add_config_options, add_import_option, amount, count, input_folder, output_file
from ernie_vil2.planning.devices import DEVICES, check
from ernie_vil2.registry import import_named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    add_import_option(parser)
    parser.add_argument("--ranks", type=count, required=True, help="devices, one rank on each")
    parser.add_argument("--device", required=True, choices=DEVICES, help="on which the ranks run")
    measured = parser.add_mutually_exclusive_group()
    measured.add_argument("--step-seconds", type=amount, help="that a step takes; gives days and loader rates")
    measured.add_argument("--measured", type=input_folder, metavar="RUN",
                          help="the same, from the log of a run of this batch on as many ranks")  # fmt: skip
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
    from ernie_vil2.io.files import write_json
    from ernie_vil2.models.weights.initial import with_model_like
    from ernie_vil2.planning.plan import plan_run
    from ernie_vil2.training.optimizer import with_steps

    with warnings.catch_warnings(action="ignore"):  # Paddle's, of traces and of what is not installed
        text, made, advice = plan_run(
            with_steps(with_model_like(config), args.samples),
            args.ranks,
            device,
            round(args.sample_kb * 1000),
            step_seconds(args.measured, config.Training.global_batch) if args.measured else args.step_seconds,
        )
    print(rewrite_commands(text, args.prog))
    if epochs := config.Training.epochs:
        print(f"steps of {epochs:g} epochs of {args.samples:,} samples; --samples says how many there are")
    if args.json:
        figures = made.as_dict() | {"advice": advice and {"overrides": advice[0], **advice[1].as_dict()}}
        write_json(args.json, figures)
    return 0


def step_seconds(run: str, global_batch: int) -> float:
    """Seconds of a step, the median over a run's log; of several records the first, in which a run starts, is left out.

    Raises:
        ValueError: the log has no step yet, or its steps are of another batch.
    """
    from statistics import median

    from ernie_vil2.config import load_config
    from ernie_vil2.io.run_folder import CONFIG, LOG
    from ernie_vil2.planning.plan import MEASURE
    from ernie_vil2.training.run_log import read_log

    log = Path(run, LOG)
    rates = [record["samples_per_second"] for record in read_log(log) if record["kind"] == "train"]
    rates = [rate for rate in rates if rate > 0]
    if not rates:
        raise ValueError(f"{log}: no step is logged yet; train for some steps, {MEASURE}")
    batch = load_config(Path(run, CONFIG), is_strangers=True).Training.global_batch
    if batch != global_batch:
        raise ValueError(f"{run} has steps of {batch:,} samples, and {global_batch:,} are planned: a step of another "
                         "batch does not say how long one takes")  # fmt: skip
    return median(batch / rate for rate in rates[1:] or rates)
