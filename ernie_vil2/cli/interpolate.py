"""Mix the weights of models: along the path from one to its fine-tuned version, or the mean of several.

    python tools/interpolate.py runs/emoji runs/tuned@best --alpha 0 0.1 ... 1 --new team.tar --old emoji-test.tar
    python tools/interpolate.py runs/emoji runs/tuned@best --alpha 0.5 --write runs/mixed
    python tools/interpolate.py runs/seed0 runs/seed1 runs/seed2 --write runs/soup

Of two models --alpha is the share of the second (WiSE-FT); without it all have the same share (a soup). With data every
mixture is scored: a table, interpolation.json, and interpolation.html with the new task against the old one. --write
makes a folder of the mixture of --choose, by default of the best mean over the data; all tools read it as a model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_vil2.cli.arguments import (
    ELLIPSIS,
    add_pipe_option,
    add_precision_option,
    add_sources,
    add_table_options,
    count,
    model,
    number,
    output_folder,
    share,
)

if TYPE_CHECKING:
    import numpy as np

    from ernie_vil2.models.weights.format import StoredModel

SIDES = ("new", "old")
MOST = 1001


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=model, metavar="MODEL",
                        help="run folder (its newest checkpoint; RUN@best), checkpoint or released model")  # fmt: skip
    parser.add_argument("others", nargs="+", type=model, metavar="MODEL", help="its fine-tuned version, or several")
    parser.add_argument("--alpha", nargs="+", default=[], type=share, metavar="SHARE",
                        help="shares of the second model, from 0 to 1; 0 0.1 ... 1 is 0 to 1 in tenths")  # fmt: skip
    for side, what in zip(SIDES, ("was fine-tuned for", "could do before"), strict=True):
        add_sources(parser, f"--{side}", "PATH", f"data that is scored, of what the second model {what}")
        parser.add_argument(f"--{side}-split", metavar="SPLIT", help="of it; default: the protocol's, else test")
        parser.add_argument(f"--{side}-protocol", default="pairs", metavar="NAME", help="default: pairs")
    add_pipe_option(parser)
    add_table_options(parser)  # of --new, which is the user's own
    parser.add_argument("--choose", type=number, metavar="SHARE", help="the mixture to write; default: see above")
    parser.add_argument("--write", type=output_folder, metavar="FOLDER", help="new folder for the chosen mixture")
    parser.add_argument("--output", type=output_folder, default=Path("interpolation"), metavar="FOLDER",
                        help="of table and page (default interpolation)")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu, gpu:0, ...")
    add_precision_option(parser)
    parser.add_argument("--batch-size", type=count, default=128, help="rows encoded at once, up to 128")


def run(args: argparse.Namespace) -> int:
    from contextlib import nullcontext
    from dataclasses import replace

    alphas = shares_of(args.alpha)
    args.models = [str(name) for name in (args.first, *args.others)]
    if alphas and len(args.models) > 2:
        raise ValueError(f"--alpha is of two models, and here are {len(args.models)}; leave it out for their mean")
    if args.choose is not None and args.choose not in alphas:
        raise ValueError(f"--choose {args.choose:g} is none of --alpha")
    if not (args.write or args.new or args.old):
        raise ValueError("nothing to do: name data to score the mixtures on, --new or --old, or a folder to --write")
    if args.write and args.choose is None and len(alphas) > 1 and not (args.new or args.old):
        raise ValueError("--write needs data to choose by, --choose, or a single --alpha")
    if args.write and args.write.exists() and (not args.write.is_dir() or any(args.write.iterdir())):
        raise FileExistsError(f"{args.write} exists already; name another folder")

    import numpy as np

    from ernie_vil2.device import runtime
    from ernie_vil2.encoder import build_encoder
    from ernie_vil2.io.files import atomic_files
    from ernie_vil2.models.weights.format import read_model, write_model
    from ernie_vil2.models.weights.integrity import compute_golden

    runtime.set_device(args.device)
    runtime.check_precision(args.precision, "--precision")
    stored = [read_model(name) for name in args.models]
    check_mixable(stored, args.models)
    if alphas:
        mixtures = {f"{alpha:g}": [1 - alpha, alpha] for alpha in alphas}
    else:
        mixtures = dict(zip(args.models, np.eye(len(stored)).tolist(), strict=True))
        mixtures["mean"] = [1 / len(stored)] * len(stored)
    rows = score_mixtures(args, stored, mixtures) if args.new or args.old else []
    if not alphas:
        chosen = "mean"
    elif args.choose is not None or not rows:
        chosen = f"{alphas[0] if args.choose is None else args.choose:g}"
    else:
        chosen = max(rows, key=lambda row: row["mean"])["share"]
    # Both or neither, should the disk be full.
    with atomic_files(args.output) if rows else nullcontext(args.output) as folder:
        if rows:
            write_table(args, rows, chosen, folder)
        if args.write:
            mixed = replace(stored[0], arrays=mix_weights(stored, mixtures[chosen]))
            made = (
                compute_golden(build_encoder(mixed.build()[0], mixed, mixed.config, "float32", 8))
                if mixed.tokens
                else None
            )
            write_model(mixed, args.write, "ernie_vil2", made)
    if rows:
        print(f"written: {args.output / 'interpolation.json'}, {args.output / 'interpolation.html'}")
    if args.write:
        print(f"written: {args.write}, the mixture {chosen}")
    return 0


def shares_of(given: list[float | str]) -> list[float]:
    """The shares of `--alpha`; of `a b ... c` all from a to c in steps of b - a."""
    shares = [share for share in given if not isinstance(share, str)]
    if len(shares) < len(given):
        if len(given) != 4 or len(shares) != 3 or given.index(ELLIPSIS) != 2:
            raise ValueError("write a row of shares as --alpha FIRST SECOND ... LAST, for example 0 0.1 ... 1")
        first, second, last = shares
        steps = round((last - first) / (second - first)) if second > first else -1
        if not 1 <= steps < MOST or abs(first + steps * (second - first) - last) > 1e-9:
            raise ValueError(f"--alpha {first:g} {second:g} ... {last:g}: the last is not reached in such steps")
        shares = [round(first + (last - first) * step / steps, 12) for step in range(steps + 1)]
    return list(dict.fromkeys(shares))


def check_mixable(models: Sequence[StoredModel], names: Sequence[str]) -> None:
    """Raise ValueError if the models differ in settings, vocabulary, or the names or shapes of their weights.

    Args:
        models: two or more models.
        names: what the user called them, for the message.
    """
    for stored, name in zip(models[1:], names[1:], strict=True):
        reason = _find_difference(models[0], stored)
        if reason:
            raise ValueError(f"{names[0]} and {name} cannot be mixed: {reason}; mix a model with its own fine-tunings")


def _find_difference(left: StoredModel, right: StoredModel) -> str | None:
    from ernie_vil2.config import differences
    from ernie_vil2.models.dual_encoder import with_sizes
    from ernie_vil2.models.weights.integrity import TRAINING_FIELDS

    left_settings = with_sizes(left.config.Model).model_dump(exclude=TRAINING_FIELDS)
    right_settings = with_sizes(right.config.Model).model_dump(exclude=TRAINING_FIELDS)
    for key, (left_value, right_value) in differences(left_settings, right_settings, prefix="Model."):
        return f"{key} is {left_value} in one and {right_value} in the other"
    unmatched = sorted(left.arrays.keys() ^ right.arrays.keys())
    if unmatched:
        return f"only one of them has the weight {unmatched[0]}"
    for name, array in left.arrays.items():
        if array.shape != right.arrays[name].shape:
            return f"{name} is {list(array.shape)} in one and {list(right.arrays[name].shape)} in the other"
    if left.tokens != right.tokens:
        return "their vocabularies differ, so the same id stands for different words"
    return None


def mix_weights(models: Sequence[StoredModel], shares: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the weighted mean of the models' weights.

    Between a model and its fine-tuned version, the new task is learned before the old one is lost (WiSE-FT, Wortsman
    et al. 2021, arXiv 2109.01903); the mean of several fine-tunings is often better than each of them (model soups,
    Wortsman et al. 2022, arXiv 2203.05482). Running statistics of batch norms and the log of the temperature are
    averaged like all other weights.

    Args:
        models: models that `check_mixable` accepts.
        shares: share of each model; they add up to 1.

    Returns:
        Arrays by name in the type of the first model.
    """
    import numpy as np

    mixed = {}
    for name, array in models[0].arrays.items():
        # In float64, and not added to a zero, so that a share of 1 gives back the model bit for bit.
        terms = [share * stored.arrays[name].astype(np.float64) for stored, share in zip(models, shares, strict=True)]
        mixed[name] = sum(terms[1:], terms[0]).astype(array.dtype)
    return mixed


def score_mixtures(
    args: argparse.Namespace, stored: Sequence[StoredModel], mixtures: dict[str, list[float]]
) -> list[dict]:
    """For each mixture its recalls on the data, by side and language."""
    import sys
    from dataclasses import replace
    from statistics import fmean

    from tqdm import tqdm

    from ernie_vil2.data.spec import DataSpec
    from ernie_vil2.encoder import build_encoder
    from ernie_vil2.evaluation.protocol import find_protocol
    from ernie_vil2.evaluation.scorer import run_scorer
    from ernie_vil2.evaluation.scorers.retrieval import MEAN_RECALL, Retrieval
    from ernie_vil2.models import set_weights

    config = stored[0].config
    if stored[0].tokens is None:
        raise ValueError(f"{args.models[0]}: no vocab.txt next to it, without which its words have no ids")
    opened = {}
    for side in SIDES:
        paths = getattr(args, side)
        if not paths:
            continue
        data = DataSpec(
            paths,
            split=getattr(args, f"{side}_split"),
            text_id=config.Data.text_id,
            caption_lines=config.Views.caption_lines,
            preferred_languages=config.Views.languages,
        )
        if side == "new":  # the options on tables are of the user's own data
            data = replace(data, images=args.images, columns=args.columns, encoding=args.encoding)
        scorer = Retrieval([find_protocol(getattr(args, f"{side}_protocol")).name], title=side)
        opened[side] = scorer, scorer.open(data)
    network, _ = stored[0].build()
    encoder = build_encoder(network, stored[0], config, args.precision, args.batch_size)
    rows = []
    for name, shares in tqdm(mixtures.items(), unit="mixture", file=sys.stdout):
        set_weights(network, mix_weights(stored, shares))
        row: dict = {"share": name, "results": {}, **dict.fromkeys(SIDES)}
        for side, (scorer, benchmarks) in opened.items():
            report = run_scorer(scorer, encoder, benchmarks)
            found = report.record["results"].items()
            row["results"] |= {label.replace(", ", " ", 1): one["result"] for label, one in found}
            row[side] = report.metrics.get(MEAN_RECALL)
        row["mean"] = fmean(row[side] for side in SIDES if row[side] is not None)
        rows.append(row)
    return rows


def write_table(args: argparse.Namespace, rows: list[dict], chosen: str, folder: Path) -> None:
    """Prints the table, and writes it with the page."""
    from ernie_vil2.io.files import write_json
    from ernie_vil2.pages import Axis, Series, Table, make_line_chart, write_page

    sides = [side for side in SIDES if rows[0][side] is not None]
    cells = [
        (row["share"], [*(f"{row[side]:.2f}" for side in [*sides, "mean"]), "chosen" * (row["share"] == chosen)])
        for row in rows
    ]
    print(Table([*sides, "mean", ""], cells, min_width=8, has_rule=False).as_text())
    print("two-way mean recall, %, the mean over languages")
    record = {"models": args.models, "chosen": chosen, "mixtures": rows,
              **{side: list(map(str, getattr(args, side))) for side in SIDES}}  # fmt: skip
    write_json(folder / "interpolation.json", record)
    charts = []
    if args.alpha:
        along = [Series(side, [(float(row["share"]), row[side]) for row in rows], position)
                 for position, side in enumerate(sides, 1)]  # fmt: skip
        charts.append(
            make_line_chart("Along the path", "", along, Axis("mean recall, %"), x=Axis("share of the second"))
        )
    if args.alpha and len(sides) == 2:
        points = [(row["old"], row["new"]) for row in rows]
        charts.append(make_line_chart(
            "The new task against the old one", f"From {rows[0]['share']} to {rows[-1]['share']} of the second model.",
            [Series("mixtures", points, 1)], Axis("new, mean recall, %", has_zero=False),
            x=Axis("old, mean recall, %", has_zero=False),
        ))  # fmt: skip
    facts = {"Models": " and ".join(record["models"]), **{side.capitalize(): " ".join(record[side]) for side in sides}}
    write_page(folder / "interpolation.html", "interpolation.html", title="Between models", facts=facts, charts=charts,
               columns=[*sides, "mean"], rows=rows, chosen=chosen)  # fmt: skip
