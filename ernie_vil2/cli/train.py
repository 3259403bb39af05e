"""Pretrain a dual encoder by multi-view contrastive learning.

python tools/train.py -c configs/demo/emoji.yaml -o Training.steps=100
python tools/train.py -c configs/demo/emoji.yaml --resume
python tools/train.py -c configs/demo/emoji.yaml --dry-run
python tools/train.py -c configs/pretrain/vit_b16_ernie_base_zh.yaml --dry-run --ranks 112 --device a100-80g
fleetrun tools/train.py -c configs/pretrain/vit_b16_ernie_base_zh.yaml
"""

from __future__ import annotations

import argparse
import math
import os
from typing import TYPE_CHECKING

from ernie_vil2.cli import print_next_command
from ernie_vil2.cli.arguments import (
    add_allow_pipes_option,
    add_config_options,
    add_import_option,
    add_table_options,
    count,
    make_table_overrides,
)
from ernie_vil2.device.launch import launched_rank, start_ranks
from ernie_vil2.planning.plan import DEVICES

if TYPE_CHECKING:
    from ernie_vil2.config import Config
    from ernie_vil2.planning.plan import DataSheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 train`."""
    add_config_options(parser)
    add_import_option(parser)
    add_allow_pipes_option(parser)
    add_table_options(parser)
    parser.add_argument("--resume", action="store_true",
                        help="resume from the newest complete checkpoint; without one, start anew")  # fmt: skip
    parser.add_argument("--extend", action="store_true",
                        help="with --resume: train for more Training.steps than the run had, with the learning rates "
                        "of a run of the new length; continues from the checkpoint before a cooldown")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true",
                        help="train nothing: read one batch of every source, and write a page with its views, the plan "
                        "and the schedule to <run folder>/dry_run")  # fmt: skip
    parser.add_argument("--ranks", type=count,
                        help="with --dry-run: number of devices that the run will have, one rank on each (default: "
                        "those of this command)")  # fmt: skip
    parser.add_argument("--device", choices=DEVICES,
                        help="with --dry-run: kind of these devices (default: that of this machine)")  # fmt: skip
    parser.add_argument("--tune-rate", action="store_true",
                        help="first try a few learning rates and batch sizes on the data for a short time each; train "
                        "with the best if it beats the configuration's by more than the 95 %% interval of their "
                        "difference (docs/own_data.md)")  # fmt: skip
    parser.add_argument("--processes", type=count, default=1,
                        help="number of CPU ranks to start on this machine; for GPUs use fleetrun instead")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 train` and return its exit code."""
    from ernie_vil2.config import load_config

    _check_options(args)
    config = load_config(args.config, [*args.override, *make_table_overrides(args)])
    if args.dry_run:
        # The page of a dry run also shows what the overrides changed in the file.
        name_and_config = None
        if args.config:
            name_and_config = str(args.config), load_config(args.config)
        device = DEVICES[args.device] if args.device else None
        return write_dry_run(config, args.ranks, args.processes, name_and_config, device)
    _check_divisible(config.Training.global_batch, args.processes)
    if args.processes > 1:
        code = start_ranks(args.processes, config.Training.device, cpu_option="-o Training.device=cpu")
        if code is not None:  # this process has started the ranks; None: it is one of them
            return code

    from ernie_vil2.io.terminal import pluralize
    from ernie_vil2.models.weights.initial import resolve_model_like
    from ernie_vil2.registry import import_user_modules
    from ernie_vil2.training.trainer import Trainer

    if args.tune_rate:
        from ernie_vil2.training.rate_search import tune_rate

        # The trainer does this itself, but the search comes before it.
        import_user_modules(config.component_names)
        config = tune_rate(resolve_model_like(config))
    trainer = Trainer(config, args.resume, args.extend)
    is_finished = trainer.fit()
    if trainer.rank == 0 and is_finished:
        print(f"finished: {pluralize(trainer.step, 'step')}, run folder {trainer.run}")
        if best := trainer.best:
            folder = trainer.run / "checkpoints" / "best"
            print(f"best: step {best['step']}, {best['metric']} {best['value']:.4g}, in {folder}")
        command = "eval_retrieval" if config.Training.task == "multi_view" else "eval"
        print_next_command(args, command, "--checkpoint", trainer.run, "--data", "DATA")
    elif trainer.rank == 0:
        print(f"stopped after step {trainer.step}; continue with the same command and --resume")
    return 0 if is_finished else trainer.signals.exit_code


def _check_options(args: argparse.Namespace) -> None:
    if args.extend and not args.resume:
        raise ValueError("--extend goes with --resume")
    if (args.ranks or args.device) and not args.dry_run:
        raise ValueError(
            "--ranks and --device go with --dry-run: a training has the ranks and devices it is started on"
        )
    _, num_launched_ranks = launched_rank()
    if args.tune_rate and max(args.processes, num_launched_ranks) > 1:
        raise ValueError(
            "--tune-rate works in one process: run it without --processes and fleetrun, then train in several with the "
            "rate and batch that it found"
        )


def _check_divisible(batch: int, num_processes: int) -> None:
    """Raise ValueError if the processes cannot share the batch; the ranks would notice after importing Paddle."""
    if batch % num_processes == 0:
        return
    divisors = [number for number in range(1, num_processes) if batch % number == 0]
    larger_batch = num_processes * math.ceil(batch / num_processes)
    raise ValueError(
        f"--processes {num_processes}: Training.global_batch ({batch}) must be divisible by the ranks; name "
        f"{divisors[-1]}, or another batch: -o Training.global_batch={larger_batch}"
    )


def write_dry_run(
    config: Config,
    num_ranks: int | None,
    num_processes: int,
    name_and_config: tuple[str, Config] | None,
    device: DataSheet | None,
) -> int:
    """Write the page of a dry run, and return the exit code: 1 if a training would stop.

    Args:
        config: configuration of the run.
        num_ranks: value of --ranks.
        num_processes: value of --processes.
        name_and_config: name and content of the configuration file, without the overrides.
        device: kind of devices that --device names.
    """
    rank, num_launched_ranks = launched_rank()
    if rank != 0:
        return 0  # the first rank does it for all
    os.environ.setdefault("GLOG_minloglevel", "2")  # hides Paddle's log lines about traced graphs

    from ernie_vil2.training.dry_run import dry_run

    if num_ranks is None:
        # Without a launcher, --processes would start the ranks.
        num_ranks = num_launched_ranks if num_launched_ranks > 1 else num_processes
    result = dry_run(config, num_ranks, name_and_config, device)
    print(result.text)
    print(f"nothing was trained; look at {result.folder / 'dry_run.html'}")
    return 1 if result.would_stop else 0
