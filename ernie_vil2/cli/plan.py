"""Estimate the memory and the communication of a run before it starts, and its days if a step was measured.

If the run does not fit, overrides are suggested that make it fit.

python tools/plan.py -c configs/pretrain/vit_b16_ernie_base_zh.yaml --ranks 112 --device a100-80g
python tools/plan.py -c configs/demo/faster.yaml --ranks 1 --device cpu --measured runs/emoji --json plan.json
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_vil2.cli import rewrite_commands
from ernie_vil2.cli.arguments import (
    add_config_options,
    add_import_option,
    count,
    input_folder,
    output_file,
    positive_number,
)
from ernie_vil2.planning.plan import DEVICES, MEASUREMENT_OPTIONS, check_run, plan_run
from ernie_vil2.registry import import_user_modules

if TYPE_CHECKING:
    from ernie_vil2.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 plan`."""
    add_config_options(parser)
    add_import_option(parser)
    parser.add_argument("--ranks", type=count, required=True, help="number of devices, one rank on each")
    parser.add_argument("--device", required=True, choices=DEVICES, help="kind of the devices")
    step_time = parser.add_mutually_exclusive_group()
    step_time.add_argument("--step-seconds", type=positive_number,
                           help="measured seconds of a step; the plan then has days and loader rates")  # fmt: skip
    step_time.add_argument("--measured", type=input_folder, metavar="RUN",
                           help="take the seconds of a step from the log of this run, which had the same batch on as "
                           "many ranks")  # fmt: skip
    parser.add_argument("--sample-kb", type=positive_number, default=50,
                        help="stored size of a sample in kilobytes (default 50)")  # fmt: skip
    parser.add_argument("--samples", type=count, default=100_000,
                        help="number of training samples; needed if Training.epochs sets the length of the run "
                        "(default 100,000)")  # fmt: skip
    parser.add_argument("--json", type=output_file, metavar="FILE", help="also write all figures to this file")


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 plan` and return its exit code."""
    from ernie_vil2.config import ConfigError, load_config

    device = DEVICES[args.device]
    config = load_config(args.config, args.override)
    import_user_modules(config.component_names)
    check_run(config, args.ranks, device)  # before Paddle is imported, which takes seconds

    os.environ.setdefault("GLOG_minloglevel", "2")  # hides Paddle's log lines about traced graphs
    from ernie_vil2.io.files import write_json
    from ernie_vil2.models.weights.initial import resolve_model_like
    from ernie_vil2.tasks import find_task
    from ernie_vil2.training.optimizer import resolve_steps

    if not find_task(config.Training.task).has_plan:
        raise ConfigError(
            f"Training.task={config.Training.task}: what a step of this task needs is not known before it is run; "
            "time some steps with ernie-vil2 train --dry-run"
        )
    step_seconds = _find_step_seconds(args, config)
    with warnings.catch_warnings(action="ignore"):  # Paddle's warnings about traces and missing packages
        run_config = resolve_steps(resolve_model_like(config), args.samples)
        result = plan_run(run_config, args.ranks, device, round(args.sample_kb * 1000), step_seconds)

    print(rewrite_commands(result.text, args.prog))
    if epochs := config.Training.epochs:
        print(f"The number of steps assumes {epochs:g} epochs of {args.samples:,} samples; change it with --samples")
    if args.json:
        figures = result.plan.as_dict()
        figures["stages"] = [stage.as_dict() for stage in result.stages]
        figures["advice"] = None
        if result.advice:
            overrides, changed_plan = result.advice
            figures["advice"] = {"overrides": overrides, **changed_plan.as_dict()}
        write_json(args.json, figures)
    return 0


def _find_step_seconds(args: argparse.Namespace, config: Config) -> list[float]:
    """Return the seconds of a step in each stage, from a log or an option; an empty list if there is neither."""
    num_stages = max(1, len(config.Training.stages))
    if args.measured:
        stages: Sequence[int | None] = range(1, num_stages + 1) if num_stages > 1 else [None]
        return [read_step_seconds(args.measured, config.Training.global_batch, stage) for stage in stages]
    if args.step_seconds and num_stages > 1:
        raise ValueError(
            f"--step-seconds is one time, and the {num_stages} stages have steps of different times: measure a run "
            "with these stages, and name it with --measured"
        )
    return [args.step_seconds] if args.step_seconds else []


def read_step_seconds(run: str, global_batch: int, stage: int | None = None) -> float:
    """Return the seconds of a step: the median over the records of a run or of one of its stages.

    The first of several records is left out: it includes the start of the run or of the stage, where everything that
    depends on the sizes of the stage is built.

    Args:
        run: run folder.
        global_batch: batch of the planned run.
        stage: number of the stage, from 1; None: the planned run has a single one.

    Raises:
        ValueError: the log has no step, or none of this stage, or the run has another batch.
    """
    from statistics import median

    from ernie_vil2.config import load_config
    from ernie_vil2.io.run_folder import CONFIG, LOG
    from ernie_vil2.training.run_log import read_log

    log = Path(run, LOG)
    records = [record for record in read_log(log) if record["kind"] == "train"]
    if stage is not None:
        records = [record for record in records if record.get("stage") == stage]
    # A rate rounds to 0 if the process was suspended between two records.
    rates = [record["samples_per_second"] for record in records if record["samples_per_second"] > 0]
    if not rates and stage is not None:
        raise ValueError(f"{log} has no step of stage {stage}: train some steps of all of these stages")
    if not rates:
        raise ValueError(f"{log} has no step yet; train for some steps: {MEASUREMENT_OPTIONS}")
    # Somebody else may have made the run.
    batch = load_config(Path(run, CONFIG), is_untrusted=True).Training.global_batch
    if batch != global_batch:
        raise ValueError(f"{run} has steps of {batch:,} samples, but {global_batch:,} are planned: measure a run with "
                         "the same batch")  # fmt: skip
    steady_rates = rates[1:] or rates  # a single record is better than none
    return median(batch / rate for rate in steady_rates)
