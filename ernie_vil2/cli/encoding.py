"""What the commands that encode a benchmark share: their options, and encoding on several ranks with a progress bar."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Collection, Sequence
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
    from ernie_vil2.evaluation.encoded import EncodedBenchmark
    from ernie_vil2.evaluation.pixel_baseline import PixelBaseline
    from ernie_vil2.evaluation.protocol import Protocol

RANK = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
RANKS = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


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
    parser.add_argument("--layout", help="layout of the data; default: told from what lies there")
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


def load(args: argparse.Namespace) -> tuple[ErnieViL2, Path]:
    """The model that the options name, and its weight file.

    `args.checkpoint` becomes the checkpoint that was taken where it names a run.
    """
    from ernie_vil2.backends import described
    from ernie_vil2.io.run_folder import run_of
    from ernie_vil2.models.weights.stored import weights_path
    from ernie_vil2.pretrained import load_model

    weights = weights_path(args.checkpoint)
    model = load_model(
        weights,
        args.vocab,
        args.device,
        batch_size=args.batch_size,
        precision=args.precision,
        engine=args.engine,
    )
    if RANK == 0:
        print(f"engine: {described(model.engine)}")
    if run_of(weights.parent):
        args.checkpoint = weights.parent
    return model, weights


def calibrated(model: ErnieViL2, name: str, direction: str, quiet: bool = False) -> float:
    """The least cosine of an answer by the model's calibration, which `CALIBRATED` stands for.

    Precision and recall that it had on its validation set are printed, unless quiet.

    Raises:
        ValueError: the model, of this name, has no calibration.
    """
    if model.calibration is None:
        raise ValueError(f"{name} has no calibration: run tools/calibrate.py, or give a number")
    if not quiet:
        print(model.calibration.described(direction))
    return model.calibration.thresholds[direction].cosine


def open_data(
    args: argparse.Namespace,
    languages: Sequence[str] | None = None,
    preferred: Collection[str] = (),
    protocols: Sequence[Protocol] = (),
) -> dict[str, Benchmark]:
    """The benchmarks that the options name, by language; see `open_benchmarks`.

    Args:
        protocols: by which they are scored: only what these select is taken, and where the options name no split, it
            is that of the first.
    """
    from ernie_vil2.data.readers import open_benchmarks
    from ernie_vil2.evaluation.protocol import select

    found = open_benchmarks(
        args.data,
        languages,
        preferred=preferred,
        layout=args.layout,
        split=args.split,
        images=args.images,
        text_id=args.text_id,
        caption_lines=args.caption_lines,
        default=_split(protocols),
    )
    for same in found if RANK == 0 else ():
        if ", " in same:
            print(f"{same}: the captions are the same, as they name no language; they are taken once")
    return {language: select(one, protocols) for language, one in found.items()} if protocols else found


def _split(protocols: Sequence[Protocol]) -> str | None:
    return protocols[0].split if protocols else None


def check_data(args: argparse.Namespace, protocols: Sequence[Protocol]) -> int:
    """Prints what is in the data; 0 if all of it can be used and is what every protocol expects."""
    from tqdm import tqdm

    from ernie_vil2.evaluation.check import check_benchmark

    good = True
    for language, benchmark in open_data(args, args.language, protocols=protocols).items():
        with tqdm(total=len(benchmark.images), unit="image", desc="reading", file=sys.stdout) as bar:
            report = check_benchmark(benchmark, protocols, bar.update)
        print(f"captions in {language}\n" * bool(language) + str(report))
        good &= report.good
    return 0 if good else 1


def encode_languages(
    args: argparse.Namespace, protocols: Sequence[Protocol]
) -> tuple[dict[str, EncodedBenchmark], list[Path], str]:
    """Embeddings by label, the files they come from, and the device they were computed on. A collective.

    A run's results go into the run, unless the options name another folder.
    """
    import paddle

    from ernie_vil2.io.run_folder import RESULTS, run_of

    model, weights = load(args)
    run = run_of(weights.parent)
    args.output = args.output or (run and run / RESULTS)
    cache = None if args.no_cache else (args.output or Path("evaluation")) / "embeddings"
    inputs, files = {}, [weights]
    for language, benchmark in open_data(args, args.language, model.config.Views.languages, protocols).items():
        files += [path for path in benchmark.files if path not in files]
        label = ", ".join(filter(None, [args.label, language]))
        inputs[label] = encode_data(model, benchmark, cache, language)
    return inputs, files, paddle.get_device()


def pixel_baseline(args: argparse.Namespace, protocols: Sequence[Protocol]) -> PixelBaseline:
    """What the nearest training image by pixels reaches on the data."""
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.evaluation.pixel_baseline import pixel_baseline

    train = open_sources(args.pixel_baseline, args.text_id)
    data = open_sources(args.data, args.text_id, args.split, args.images, default=_split(protocols))
    baseline = pixel_baseline(train, data)
    if baseline.bad_samples.counts:
        print(f"pixel baseline: {baseline.bad_samples}")
    return baseline


def encode_data(model: ErnieViL2, benchmark: Benchmark, cache: Path | None, title: str = "") -> EncodedBenchmark:
    """Encodes a benchmark, with a progress bar on rank 0. A collective: every rank must call it."""
    from tqdm import tqdm

    from ernie_vil2.evaluation.encoded import encode_benchmark

    if RANKS > 1:
        _join_ranks()
    rows = len(benchmark.images) + len(benchmark.texts)
    title = f"encoding {title}".strip()
    with tqdm(total=rows, unit="row", desc=title, disable=RANK != 0, file=sys.stdout) as bar:
        return encode_benchmark(model, benchmark, cache, bar.update, rank=RANK, ranks=RANKS)


@functools.cache  # once per command, however many data sets it encodes
def _join_ranks() -> None:
    from ernie_vil2.parallel.ranks import join_ranks

    join_ranks()
