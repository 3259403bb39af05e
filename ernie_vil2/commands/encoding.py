"""What the commands that encode a benchmark share: their options, and encoding on several ranks with a progress bar."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_vil2.commands.arguments import add_pipe_option, count, input_file, input_folder, model, source

if TYPE_CHECKING:
    from ernie_vil2.data.benchmark import Benchmark
    from ernie_vil2.encoder import ErnieViL2
    from ernie_vil2.evaluation.encoded import EncodedBenchmark

RANK = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
RANKS = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options that name a model and say how it encodes."""
    parser.add_argument(
        "--checkpoint",
        type=model,
        metavar="MODEL",
        help="run folder (its newest checkpoint; RUN@best: that of the best evaluation), checkpoint, official "
        ".pdparams, PaddleNLP folder, or a known name",
    )
    parser.add_argument(
        "--vocab", type=input_file, metavar="FILE", help="vocabulary file, where the model does not bring its own"
    )
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE",
                        help="module of your own that a tower of the model is of")  # fmt: skip
    parser.add_argument("--batch-size", type=count, default=128, help="rows encoded at once, up to 128")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu, gpu:0, ...")
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
    from ernie_vil2.models.model_files import weights_path
    from ernie_vil2.pretrained import load_model
    from ernie_vil2.run_folder import run_of

    for name in args.imports:
        importlib.import_module(name)
    weights = weights_path(args.checkpoint)
    model = load_model(weights, args.vocab, args.device, batch_size=args.batch_size)
    if run_of(weights.parent):
        args.checkpoint = weights.parent
    return model, weights


def open_data(
    args: argparse.Namespace,
    languages: Sequence[str] | None = None,
    preferred: Collection[str] = (),
    split: str | None = None,
) -> dict[str, Benchmark]:
    """The benchmarks that the options name, by language; see `open_benchmarks`.

    Args:
        split: that of the protocol, which counts where the options name none.
    """
    from ernie_vil2.data.sources import open_benchmarks

    found = open_benchmarks(
        args.data,
        languages,
        preferred=preferred,
        layout=args.layout,
        split=args.split,
        images=args.images,
        text_id=args.text_id,
        caption_lines=args.caption_lines,
        default=split,
    )
    for same in found if RANK == 0 else ():
        if ", " in same:
            print(f"{same}: the captions are the same, as they name no language; they are taken once")
    return found


def encode_data(model: ErnieViL2, benchmark: Benchmark, cache: Path | None, title: str = "") -> EncodedBenchmark:
    """Encodes a benchmark, with a progress bar on rank 0. A collective: every rank must call it."""
    from tqdm import tqdm

    from ernie_vil2.evaluation.encoded import encode_benchmark

    if RANKS > 1:
        from ernie_vil2.parallel.ranks import join_ranks

        join_ranks()
    rows = len(benchmark.images) + len(benchmark.texts)
    title = f"encoding {title}".strip()
    with tqdm(total=rows, unit="row", desc=title, disable=RANK != 0, file=sys.stdout) as bar:
        return encode_benchmark(model, benchmark, cache, bar.update, rank=RANK, ranks=RANKS)
