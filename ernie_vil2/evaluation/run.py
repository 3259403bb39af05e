"""An evaluation from opened benchmarks to its files: for commands, interpolation, and both ends of a training."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.evaluation.encoded import EmbeddingModel, EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.report import Report
from ernie_vil2.evaluation.scorer import ScoredModel, Scorer
from ernie_vil2.io.files import load_json, sha256

RANK = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
RANKS = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
ENDINGS = re.compile(r"(\.(tar|tsv|csv|jsonl|parquet|json|txt|out)|_imgs\.tsv)$")
LONGEST_NAME = 160  # bytes; a file system takes 255


def encode_on_all_ranks(
    model: EmbeddingModel, benchmark: Benchmark, name: str = "", cache: Path | None = None
) -> EncodedBenchmark:
    """Encodes a benchmark, with a progress bar on rank 0. A collective of the ranks of a command.

    Args:
        name: of the benchmark, for the bar.
        cache: as for `encode_benchmark`.
    """
    if RANKS > 1:
        _join_ranks()
    rows, title = len(benchmark.images) + len(benchmark.texts), f"encoding {name}".strip()
    with tqdm(total=rows, unit="row", desc=title, disable=RANK != 0, file=sys.stdout) as bar:
        return encode_benchmark(model, benchmark, cache, bar.update, rank=RANK, ranks=RANKS)


@functools.cache  # once per command, however many data sets it encodes
def _join_ranks() -> None:
    from ernie_vil2.parallel.ranks import join_ranks

    join_ranks()


def score(scorer: Scorer, model: ScoredModel, benchmarks: Mapping[str, Benchmark]) -> Report:
    """Encodes in this process what a scorer has opened, and scores it.

    Raises:
        ValueError: see `encode_benchmark` and `Scorer.score`.
    """
    return scorer.score({name: encode_benchmark(model, one) for name, one in benchmarks.items()}, model)


def about(
    model: str, data: str | Sequence[str], more: Mapping[str, Any], files: Iterable[Path] | None
) -> dict[str, Any]:
    """What was run, for a record: model, data, other choices, and the SHA-256 of each file; None: of none."""
    found = {"model": model, "data": data, "paths": absolute_paths([data] if isinstance(data, str) else data), **more}
    return found if files is None else {**found, "checksums": checksums(files)}


def checksums(files: Iterable[str | Path]) -> dict[str, str]:
    """The SHA-256 of each file, by its path."""
    return {str(path): sha256(Path(path)) for path in dict.fromkeys(files)}


def absolute_paths(data: Sequence[str]) -> list[str]:
    """Absolute paths, so that they say the same in whichever folder they are read; addresses as they are."""
    return [path if "://" in path else str(Path(path).resolve()) for path in data]


def result_name(folder: Path, data: Sequence[str], more: Iterable[str] = ()) -> str:
    """What the results of some data are called in a folder.

    The name of the first path with that of the folder it is in, and with the folders above where other data has left
    results under that name. Results of the same data are replaced.

    Args:
        folder: of the results.
        data: as it was named.
        more: what distinguishes results of the same data: split, languages, protocols.
    """
    here = absolute_paths(data)
    *parents, last = Path(here[0]).parts[1:] or ("data",)
    ending = [ENDINGS.sub("", last), *([f"and-{len(data) - 1}-more"] if len(data) > 1 else []), *more]
    for depth in range(1, max(2, len(parents) + 1)):
        name = re.sub(r"[^\w.+-]+", "_", "-".join([*parents[-depth:], *ending]))
        if len(name.encode()) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME // 4]}-{blake2b(name.encode(), digest_size=4).hexdigest()}"
        if not _is_of_other_data(folder / f"{name}.json", here):
            break
    return name


def _is_of_other_data(path: Path, here: list[str]) -> bool:
    try:
        record = load_json(path)
        return (record.get("paths") or record["places"]) != here  # the key of before
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return True
