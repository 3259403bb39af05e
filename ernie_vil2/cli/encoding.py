"""What the commands that encode a benchmark share: their options, and what these name."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_vil2.cli.arguments import (
    add_engine_option,
    add_import_option,
    add_pipe_option,
    add_precision_option,
    count,
    input_file,
    input_folder,
    model,
    source,
)

if TYPE_CHECKING:
    from ernie_vil2.data.benchmark import Benchmark
    from ernie_vil2.encoder import ErnieViL2
    from ernie_vil2.evaluation.scorer import Data

RANK = int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def add_model_options(parser: argparse.ArgumentParser, engines: bool = True) -> None:
    """Options that name a model and say how it encodes; `engines`: by whichever engine, an export's among them."""
    parser.add_argument(
        "--checkpoint",
        type=model,
        metavar="MODEL",
        help="run folder (its newest checkpoint; RUN@best: that of the best evaluation), checkpoint, official "
        ".pdparams, PaddleNLP folder, export, or a known name",
    )
    if engines:
        add_engine_option(parser)
    parser.add_argument(
        "--vocab", type=input_file, metavar="FILE", help="vocabulary file, where the model does not bring its own"
    )
    add_import_option(parser)
    parser.add_argument("--batch-size", type=count, default=128, help="rows encoded at once, up to 128")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu, gpu:0, ...")
    add_precision_option(parser)
    parser.add_argument(
        "--processes", type=count, default=1, help="CPU: ranks to start on this machine; GPUs: use fleetrun instead"
    )


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Options that name a benchmark; docs/benchmarks.md shows what they take."""
    parser.add_argument(
        "--data",
        type=source,
        nargs="+",
        default=[],
        metavar="PATH",
        help="a benchmark's folder as its authors publish it, or whatever can be trained on",
    )
    add_pipe_option(parser)
    parser.add_argument("--layout", help="layout of the data; default: recognised from the files")
    parser.add_argument("--split", help="split of the data; default: the protocol's, else test, else validation")
    parser.add_argument(
        "--images", type=input_folder, metavar="FOLDER", help="where the images lie, if not with the data"
    )
    parser.add_argument(
        "--text-id", metavar="FIELD", help="tar shards: JSON field that names the text; default: the captions do"
    )
    parser.add_argument(
        "--caption-lines", action="store_true", help="each line of a caption is a text of its own (CLIP_benchmark)"
    )


def load(args: argparse.Namespace, labels: bool = False) -> tuple[ErnieViL2, Path]:
    """The model that the options name, and its weight file.

    `args.checkpoint` becomes the checkpoint that was taken where it names a run.

    Args:
        labels: whether it labels statements.
    """
    from ernie_vil2.backends import described
    from ernie_vil2.encoder import load_classifier, load_model
    from ernie_vil2.io.run_folder import run_of
    from ernie_vil2.models.weights.stored import weights_path

    weights = weights_path(args.checkpoint)
    options = {"batch_size": args.batch_size, "precision": args.precision}
    if labels:
        model = load_classifier(weights, args.vocab, args.device, **options)
    else:
        model = load_model(weights, args.vocab, args.device, **options, engine=args.engine)
        if RANK == 0:
            print(f"engine: {described(model.engine)}")
    if run_of(weights.parent):
        args.checkpoint = weights.parent
    return model, weights


def calibrated(model: ErnieViL2, name: str, direction: str, quiet: bool = False) -> float:
    """The least cosine of an answer by the model's calibration, which `CALIBRATED` names.

    Precision and recall that it had on its validation set are printed, unless quiet.

    Raises:
        ValueError: the model, of this name, has no calibration.
    """
    if model.calibration is None:
        raise ValueError(f"{name} has no calibration: run ernie-vil2 calibrate, or give a number")
    if not quiet:
        print(model.calibration.described(direction))
    return model.calibration.thresholds[direction].cosine


def open_data(
    args: argparse.Namespace, languages: Sequence[str] | None = None, preferred: Collection[str] = ()
) -> dict[str, Benchmark]:
    """The benchmarks that the options name, by language; see `open_benchmarks`."""
    found = named_data(args, languages, preferred).benchmarks()
    name_equal_captions(found)
    return found


def named_data(args: argparse.Namespace, languages: Sequence[str] | None, preferred: Collection[str] = ()) -> Data:
    """The data that the options name."""
    from ernie_vil2.evaluation.scorer import Data

    return Data(args.data, languages, preferred, args.layout, args.split, args.images, args.text_id, args.caption_lines)


def name_equal_captions(benchmarks: Iterable[str]) -> None:
    """Prints which languages are one benchmark, as their captions are the same."""
    for same in benchmarks if RANK == 0 else ():
        if ", " in same:
            print(f"{same}: the captions are the same, as they name no language; they are taken once")
