"""Mix the weights of models: along the path from one to its fine-tuned version, or the mean of several.

    python tools/interpolate.py runs/emoji runs/tuned@best --alpha 0 0.1 ... 1 --new team.tar --old emoji-test.tar
    python tools/interpolate.py runs/emoji runs/tuned@best --alpha 0.5 --write runs/mixed
    python tools/interpolate.py runs/seed0 runs/seed1 runs/seed2 --write runs/soup

With two models, --alpha is the share of the second (WiSE-FT); without --alpha all models have the same share (a model
soup). With data every mixture is scored; the results are a table, interpolation.json, and interpolation.html, which
shows the new task against the old one. --write makes a folder of one mixture, which all commands read as a model: that
of --choose, by default the one with the best mean over the data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_vil2.cli.arguments import (
    ELLIPSIS,
    add_allow_pipes_option,
    add_import_option,
    add_precision_option,
    add_source_argument,
    add_table_options,
    count,
    model,
    number,
    output_folder,
    share,
)

if TYPE_CHECKING:
    import numpy as np

    from ernie_vil2.config import Config
    from ernie_vil2.data.spec import DataSpec
    from ernie_vil2.models.weights.format import StoredModel

SIDES = ("new", "old")  # what the second model was fine-tuned for, and what it could do before
DEFAULT_PROTOCOL = "pairs"
MEAN = "mean"  # name of the mixture of all models in equal shares
MAX_SHARES = 1001  # in a row of shares: steps of a thousandth; each is scored, which takes long


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 interpolate`."""
    add = parser.add_argument
    add("first", type=model, metavar="MODEL",
        help="run folder (its newest checkpoint; RUN@best), checkpoint or released model")  # fmt: skip
    add("others", nargs="+", type=model, metavar="MODEL", help="its fine-tuned version, or several")
    add("--alpha", action="extend", nargs="+", default=[], type=share, metavar="SHARE",
        help="shares of the second model, from 0 to 1; 0 0.1 ... 1 stands for 0 to 1 in tenths")  # fmt: skip
    add_source_argument(parser, "--new", "PATH", "data of the task that the second model was fine-tuned for")
    _add_scoring_options(parser, "new")
    add_source_argument(parser, "--old", "PATH", "data of a task that the second model could do before")
    _add_scoring_options(parser, "old")
    add_import_option(parser)
    add_allow_pipes_option(parser)
    add_table_options(parser)  # apply to --new, which is the user's own data
    add("--choose", type=number, metavar="SHARE",
        help="share of the mixture to write; default: the one with the best mean over the data")  # fmt: skip
    add("--write", type=output_folder, metavar="FOLDER", help="new folder for the chosen mixture")
    add("--output", type=output_folder, default=Path("interpolation"), metavar="FOLDER",
        help="folder of table and page (default interpolation)")  # fmt: skip
    add("--device", default="auto", help="auto (default), cpu, gpu, gpu:0, ...")
    add_precision_option(parser)
    add("--batch-size", type=count, default=128, help="rows encoded at once (default 128)")


def _add_scoring_options(parser: argparse.ArgumentParser, side: str) -> None:
    parser.add_argument(f"--{side}-split", metavar="SPLIT",
                        help=f"split of --{side}; default: that of the protocol, else test")  # fmt: skip
    parser.add_argument(f"--{side}-protocol", metavar="NAME",
                        help=f"protocol for --{side}, see docs/protocols.md (default {DEFAULT_PROTOCOL})")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 interpolate` and return its exit code."""
    from contextlib import nullcontext

    alphas = sorted(expand_shares(args.alpha))  # the page draws a line along them
    args.models = [str(name) for name in (args.first, *args.others)]
    has_data = bool(args.new or args.old)
    if alphas and len(args.models) > 2:
        raise ValueError(f"--alpha takes two models, but there are {len(args.models)}; leave it out for their mean")
    if args.choose is not None and args.choose not in alphas:
        raise ValueError(f"--choose {args.choose:g} is none of --alpha")
    if not (args.write or has_data):
        raise ValueError("nothing to do: name data to score the mixtures on, --new or --old, or a folder to --write")
    if args.write and args.choose is None and len(alphas) > 1 and not has_data:
        raise ValueError("--write needs data to choose by, --choose, or a single --alpha")
    if args.write and args.write.exists() and (not args.write.is_dir() or any(args.write.iterdir())):
        raise FileExistsError(f"{args.write} exists already; name another folder")
    # The mixture is written last, into a folder that is empty until then.
    if args.write and has_data and args.output.resolve().is_relative_to(args.write.resolve()):
        raise ValueError(f"--output {args.output} lies in the folder of the mixture, {args.write}; name another folder")
    if not alphas and MEAN in args.models:
        raise ValueError(f"{MEAN} is the name of the mixture of all models; name the model ./{MEAN}")
    _check_data_options(args)

    import numpy as np

    from ernie_vil2.device import runtime
    from ernie_vil2.io.files import atomic_files
    from ernie_vil2.models.weights.format import read_model

    runtime.set_device(args.device)
    runtime.check_precision(args.precision, "--precision")
    models = [read_model(name) for name in args.models]
    check_mixable(models, args.models)

    # Shares of all models by the name of the mixture.
    if alphas:
        mixtures = {_name_mixture(alpha): [1 - alpha, alpha] for alpha in alphas}
    else:
        mixtures = dict(zip(args.models, np.eye(len(models)).tolist(), strict=True))
        mixtures[MEAN] = [1 / len(models)] * len(models)
    rows = []
    if has_data:
        rows = score_mixtures(args, models, mixtures)

    # The mixture to write: the only one, the one that the user chose, or the best.
    if not alphas:
        chosen = MEAN
    elif args.choose is not None:
        chosen = _name_mixture(args.choose)
    elif rows:
        chosen = max(rows, key=lambda row: row["mean"])["mixture"]
    else:
        chosen = _name_mixture(alphas[0])

    # If the disk is full, neither the table nor the model is written.
    with atomic_files(args.output) if rows else nullcontext(args.output) as folder:
        if rows:
            write_table(args, rows, chosen, folder)
        if args.write:
            write_mixture(models, mixtures[chosen], args.write)
    if rows:
        print(f"written: {args.output / 'interpolation.json'}, {args.output / 'interpolation.html'}")
    if args.write:
        print(f"written: {args.write}, the mixture {chosen}")
    return 0


def _check_data_options(args: argparse.Namespace) -> None:
    """Raise ValueError if an option says how to read or score data that are not named."""
    for side in SIDES:
        names = [f"{side}_split", f"{side}_protocol"]
        if side == "new":
            names += ["images", "columns", "encoding"]
        for name in names:
            if getattr(args, name) and not getattr(args, side):
                option = name.replace("_", "-")
                raise ValueError(f"--{option} applies to the data of --{side}; name these, or leave it out")


def _name_mixture(alpha: float) -> str:
    """Return a share as text, 0.5 or 1; with all its digits, so that two shares never have the same name."""
    return repr(alpha).removesuffix(".0")


def expand_shares(values: list[float | str]) -> list[float]:
    """Return the shares of `--alpha`, without repetitions; `a b ... c` stands for a to c in steps of b - a."""
    shares = [value for value in values if not isinstance(value, str)]
    if len(shares) < len(values):
        if len(values) != 4 or len(shares) != 3 or values.index(ELLIPSIS) != 2:
            raise ValueError("write a row of shares as --alpha FIRST SECOND ... LAST, for example 0 0.1 ... 1")
        first, second, last = shares
        step = second - first
        num_steps = 0
        if step > 0:
            num_steps = round((last - first) / step)
        # The tolerance allows for decimal fractions, which floats do not represent exactly.
        is_reached = abs(first + num_steps * step - last) <= 1e-9
        if not 1 <= num_steps < MAX_SHARES or not is_reached:
            raise ValueError(f"--alpha {first:g} {second:g} ... {last:g}: such steps do not reach the last share")
        # Rounded, so that 0.3 is not 0.30000000000000004.
        shares = [round(first + (last - first) * number / num_steps, 12) for number in range(num_steps + 1)]
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


def write_mixture(models: Sequence[StoredModel], shares: Sequence[float], folder: Path) -> None:
    """Write a mixture as a model."""
    from dataclasses import replace

    from ernie_vil2.encoder import build_encoder
    from ernie_vil2.models.weights.format import write_model
    from ernie_vil2.models.weights.integrity import compute_golden

    mixed = replace(models[0], arrays=mix_weights(models, shares))
    golden = None
    if mixed.tokens:  # without a vocabulary there are no texts to embed
        golden = compute_golden(build_encoder(mixed.build()[0], mixed, mixed.config, "float32", 8))
    write_model(mixed, folder, "ernie_vil2", golden)


def score_mixtures(
    args: argparse.Namespace, models: Sequence[StoredModel], mixtures: dict[str, list[float]]
) -> list[dict]:
    """Score each mixture on the data.

    Args:
        args: values of the options.
        models: the models that are mixed.
        mixtures: shares of the models by the name of the mixture.

    Returns:
        For each mixture its name, its `results` by side and language, its mean recall on each side, and the `mean`
        over the sides.
    """
    from statistics import fmean

    from ernie_vil2.encoder import build_encoder
    from ernie_vil2.evaluation.protocol import find_protocol
    from ernie_vil2.evaluation.scorer import run_scorer
    from ernie_vil2.evaluation.scorers.retrieval import MEAN_RECALL, Retrieval
    from ernie_vil2.io.progress import progress_bar
    from ernie_vil2.models import set_weights

    config = models[0].config
    if models[0].tokens is None:
        raise ValueError(f"{args.models[0]}: there is no vocab.txt next to it, so texts cannot be encoded")
    inputs = {}
    for side in SIDES:
        if getattr(args, side):
            protocol = find_protocol(getattr(args, f"{side}_protocol") or DEFAULT_PROTOCOL)
            scorer = Retrieval([protocol.name], title=side)
            inputs[side] = scorer, scorer.open(_make_side_spec(args, side, config))

    # One network for all mixtures: only its weights are replaced.
    network, weight_report = models[0].build()
    encoder = build_encoder(network, models[0], config, args.precision, args.batch_size)
    rows = []
    for name, shares in progress_bar(mixtures.items(), unit="mixture"):
        # The weights of a classification head are mixed, but the network that scores retrieval has no head.
        arrays = mix_weights(models, shares)
        set_weights(network, {weight: arrays[weight] for weight in weight_report.matched})
        row: dict = {"mixture": name, "results": {}, **dict.fromkeys(SIDES)}
        for side, (scorer, scorer_input) in inputs.items():
            report = run_scorer(scorer, encoder, scorer_input)
            for label, entry in report.record["results"].items():
                row["results"][label.replace(", ", " ", 1)] = entry["result"]
            if MEAN_RECALL not in report.metrics:
                raise ValueError(
                    f"--{side}-protocol {scorer.protocol[0]} has no mean recall on these data, by which mixtures are "
                    "compared; name another protocol"
                )
            row[side] = report.metrics[MEAN_RECALL]
        row["mean"] = fmean(row[side] for side in inputs)
        rows.append(row)
    return rows


def _make_side_spec(args: argparse.Namespace, side: str, config: Config) -> DataSpec:
    from dataclasses import replace

    from ernie_vil2.data.spec import DataSpec

    data = DataSpec(
        getattr(args, side),
        split=getattr(args, f"{side}_split"),
        text_id=config.Data.text_id,
        caption_lines=config.Views.caption_lines,
        preferred_languages=config.Views.languages,
    )
    if side == "new":
        return replace(data, images=args.images, columns=args.columns, encoding=args.encoding)
    return data


def write_table(args: argparse.Namespace, rows: list[dict], chosen: str, folder: Path) -> None:
    """Print the table of the mixtures, and write it and the page to a folder."""
    from ernie_vil2.io.files import write_json
    from ernie_vil2.pages import Axis, Series, Table, make_line_chart, write_page

    sides = [side for side in SIDES if rows[0][side] is not None]
    columns = [*sides, "mean"]
    lines = []
    for row in rows:
        remark = "chosen" if row["mixture"] == chosen else ""
        lines.append((row["mixture"], [*(f"{row[name]:.2f}" for name in columns), remark]))
    print(Table([*columns, ""], lines, min_width=8, has_rule=False).as_text())
    print("two-way mean recall in percent, mean over the languages")

    record = {"models": args.models, "chosen_mixture": chosen, "mixtures": rows}
    for side in SIDES:
        record[side] = list(map(str, getattr(args, side)))
    write_json(folder / "interpolation.json", record)

    # Only mixtures along a path have an order in which they can be drawn.
    charts = []
    if args.alpha:
        series = []
        for colour, side in enumerate(sides, start=1):
            series.append(Series(side, [(float(row["mixture"]), row[side]) for row in rows], colour))
        share_axis = Axis("share of the second")
        charts.append(make_line_chart("Along the path", "", series, Axis("mean recall, %"), x=share_axis))
    if args.alpha and len(sides) == 2:
        points = [(row["old"], row["new"]) for row in rows]
        note = f"From {rows[0]['mixture']} to {rows[-1]['mixture']} of the second model."
        charts.append(
            make_line_chart(
                "The new task against the old one",
                note,
                [Series("mixtures", points, 1)],
                Axis("new, mean recall, %", has_zero=False),
                x=Axis("old, mean recall, %", has_zero=False),
            )
        )
    facts = {"Models": " and ".join(args.models)}
    for side in sides:
        facts[side.capitalize()] = " ".join(record[side])
    write_page(
        folder / "interpolation.html",
        "interpolation.html",
        title="Between models",
        facts=facts,
        charts=charts,
        columns=columns,
        rows=rows,
        chosen=chosen,
    )
