"""What learning rate and batch do on a set of one's own: the tables of docs/own_data.md.

    python benchmarks/own_data.py --data 100 300 --rates 5e-4 1e-3 2e-3      # goes on where it stopped
    python benchmarks/own_data.py --data stamps --minutes 8                  # ends before
    python benchmarks/own_data.py --model runs/vit --data 300 --epochs 20 40
    python benchmarks/own_data.py --rates 2e-3 --batches 64 --how recipe replay --old    # what is forgotten
    python benchmarks/own_data.py --table                                    # what was found so far

`runs/vit` is a ViT with a two-layer ERNIE, trained for some minutes:

    python tools/train.py -c configs/demo/emoji.yaml -o Training.output=runs/vit -o Training.steps=500 \\
        -o 'Model.image={name: ViT, patch_size: 8, width: 192, depth: 4, heads: 3}' \\
        -o 'Model.text={width: 256, depth: 2, heads: 4}' -o Optimizer.learning_rate=1e-3 \\
        -o 'Loss.weights={image_image: 0, text_text: 0}' -o Evaluation.every=400

Each cell is a fine-tuning by configs/finetune/own.yaml with another rate, batch and number of epochs, in this process,
and is scored on the test part: two-way mean recall, before and after. Data are articles of demo_data/shop.py, a number,
of which `Data.holdout` keeps a part for the test, another one for each seed, or the stamps of demo_data/stamps.py. The
grid keeps nothing of the initial weights and trains all; `--how` names settings of HOW. The recipe, in bold, is what
configs/finetune/own.yaml chooses by itself.
`--old` also scores the demo's test set, and mixtures of the weights before and after (WiSE-FT) on test and validation
parts and on it.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ernie_vil2 import cli  # noqa: E402
from ernie_vil2.io.files import write_json  # noqa: E402

RECIPE = "configs/finetune/own.yaml"
RATES = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3)
BATCHES = (64, 256)
EPOCHS = 20
STAMPS = "stamps"
OLD = ROOT / "demo_data" / "emoji-test.tar"
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the fine-tuned weights in mixtures."""
TRAINED = ROOT / "demo_data" / "emoji-train.tar"
"""What the demo's model was trained on."""
HOW = {
    "": ["Tuning.initial_share=0", "Tuning.freeze_norms=false"],
    "norms": ["Tuning.initial_share=0", "Tuning.freeze_norms=true"],
    "recipe": [],
    "replay": ["Tuning.initial_share=0"],
}
"""Settings by name. With replay every other sample is of what the model was trained on, in both languages, and nothing
of the initial weights is kept."""


class Cell(NamedTuple):
    """A fine-tuning: what is trained on what, how, and its seed."""

    model: str
    data: str
    rate: float
    batch: int
    epochs: int
    seed: int
    how: str = ""

    @property
    def key(self) -> str:
        return "|".join(map(str, self)).rstrip("|")

    @classmethod
    def of(cls, key: str) -> "Cell":
        kinds = (str, str, float, int, int, int, str)
        return cls(*(kind(one) for kind, one in zip(kinds, key.split("|"), strict=False)))


def settings_of(folder: Path, data: str, seed: int, epochs: int = EPOCHS, replay: bool = False) -> list[str]:
    """Overrides that name the data, which are made if they are not there, and how long it is trained on them."""
    length = f"Training.epochs={epochs}"
    old = f"{{data: [{TRAINED}], languages: {{zh: 1, en: 1}}, weight: 1}}"
    if data == STAMPS:
        stamps = ROOT / "demo_data" / "stamps"
        if replay:
            return [f"Data.train=[{{data: [{stamps}], split: train, weight: 1}}, {old}]", *_steps(529 * epochs)]
        return [f"Data.train=[{stamps}]", length]
    shop = folder / f"shop-{data}"
    if not (shop / "photos").exists():
        command = [sys.executable, str(ROOT / "demo_data" / "shop.py"), "--output", str(shop), "--articles", data]
        subprocess.run(command, check=True)
    holdout = f"Data.holdout={{val: 0.15, test: 0.2, group_by: 货号, seed: {seed}}}"
    if replay:
        new = f"{{data: [{shop / '商品.csv'}], images: {shop / 'photos'}, weight: 1}}"
        return [f"Data.train=[{new}, {old}]", holdout, *_steps(int(data) * 2 * 0.65 * epochs)]
    return [f"Data.train=[{shop / '商品.csv'}]", f"Data.images={shop / 'photos'}", holdout, length]


def _steps(samples: float) -> list[str]:
    """For so many samples of the new data, to which those of the old come: an epoch would be of both."""
    return ["Training.epochs=null", f"Training.steps={round(2 * samples / BATCHES[0])}"]


def score(folder: Path, model: str, cell: Cell, shares: Sequence[float]) -> dict[str, float]:
    """Mean recall on the test part before and after a run, and its seconds; with shares, also what `mixed` gives."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        return _score(folder, Path(temporary) / "run", model, cell, shares)


def _score(folder: Path, run: Path, model: str, cell: Cell, shares: Sequence[float]) -> dict:
    data = settings_of(folder, cell.data, cell.seed, cell.epochs, cell.how == "replay")
    settings = [f"Model.weights={model}", *data, f"Training.output={run}",
                f"Training.seed={cell.seed}", "Data.workers=0", f"Optimizer.learning_rate={cell.rate!r}",
                f"Training.global_batch={cell.batch}", *HOW[cell.how]]  # fmt: skip
    started, printed = time.monotonic(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = cli.run("train", ["-c", str(ROOT / RECIPE), *(f"-o{one}" for one in settings)])
    if code:
        raise SystemExit(printed.getvalue())
    found = {}
    for when in ("before", "after"):
        record = read(run / "evaluation" / f"{when}.json")
        found[when] = fmean(one["result"]["mR"] for one in record["results"].values())
    found["seconds"] = round(time.monotonic() - started, 1)
    return found | ({"mixed": mixed(run, model, shares)} if shares else {})


def mixed(run: Path, model: str, shares: Sequence[float]) -> dict[str, dict[str, float]]:
    """By the share of the new weights, from 0 on, mean recall on the test part, on the validation part, and on the old
    task in Chinese and English."""
    from ernie_vil2 import load_model
    from ernie_vil2.config import load_config
    from ernie_vil2.data.readers import open_benchmarks
    from ernie_vil2.evaluation.protocol import evaluate
    from ernie_vil2.evaluation.protocols import protocol
    from ernie_vil2.evaluation.scorer import Data
    from ernie_vil2.models import set_weights
    from ernie_vil2.models.weights.mixtures import mixture
    from ernie_vil2.models.weights.stored import read_model

    config = load_config(run / "config.yaml")
    scored = {
        "test": Data.of_run(config, config.Data.tested, "test").benchmarks(),
        "val": Data.of_run(config, config.Data.validation, "val").benchmarks(),
        "old": open_benchmarks(OLD, ["zh", "en"], text_id="id"),
    }
    stored, encoder, found = [read_model(model), read_model(f"{run}@best")], load_model(model), {}
    for share in (0.0, *shares):
        set_weights(encoder.backend.model, mixture(stored, [1 - share, share]))
        found[f"{share:g}"] = {
            name: fmean(evaluate(encoder, one, protocol("pairs")).mean_recall for one in benchmarks.values())
            for name, benchmarks in scored.items()
        }
    return found


def recipe(folder: Path, model: str, data: str) -> tuple[float, int, int, str]:
    """Rate, batch and epochs that the configuration chooses by itself."""
    from ernie_vil2.config import load_config
    from ernie_vil2.models.weights.initial import with_model_like

    config = with_model_like(load_config(ROOT / RECIPE, [f"Model.weights={model}", *settings_of(folder, data, 0)]))
    return config.Optimizer.learning_rate, config.Training.global_batch, round(config.Training.epochs), "recipe"


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def table(found: dict[str, dict], recipes: dict[tuple[str, str], tuple[float, int, int, str]]) -> str:
    """Markdown for each model: a row for each data, batch, number of epochs and settings. Cells are gains of mean
    recall, means over the seeds, whose number is given where some are missing. What was forgotten follows in a table of
    its own."""
    cells = {Cell.of(key): record for key, record in found.items()}
    seeds = len({cell.seed for cell in cells})
    lines = []
    for model in dict.fromkeys(cell.model for cell in cells):
        own = {cell: record for cell, record in cells.items() if cell.model == model}
        rates = sorted({*RATES, *(cell.rate for cell in own)})
        lines += [f"\n{model}\n", f"| data | before | batch | {' | '.join(f'{rate:g}' for rate in rates)} |"]
        lines.append(f"|---|---|---|{'---|' * len(rates)}")
        notes = []
        for data in sorted({cell.data for cell in own}, key=lambda data: (data == STAMPS, len(data), data)):
            chosen = recipes.get((model, data))
            gains = defaultdict(dict)
            for cell, record in own.items():
                if cell.data == data:
                    gains[cell.rate, cell.batch, cell.epochs, cell.how][cell.seed] = record
            before = fmean({cell.seed: record["before"] for cell, record in own.items() if cell.data == data}.values())
            for batch, epochs, how in sorted({key[1:] for key in gains}):
                keys = [(rate, batch, epochs, how) for rate in rates]
                shown = [_shown(gains.get(key, {}), seeds, key == chosen) for key in keys]
                named = ", ".join([f"{batch}", *[f"{epochs} epochs"] * (epochs != EPOCHS), *[how] * bool(how)])
                lines.append(f"| {data} | {before:.1f} | {named} | {' | '.join(shown)} |")
            notes += _note(data, gains, chosen)
        lines += ["", *notes, "", *_forgotten(own)]
    return "\n".join(lines).strip()


def _shown(by_seed: dict[int, dict], seeds: int, chosen: bool) -> str:
    if not by_seed:
        return "-"
    value = f"{fmean(record['after'] - record['before'] for record in by_seed.values()):+.1f}"
    value += f" ({len(by_seed)})" * (len(by_seed) < seeds)
    return f"**{value}**" if chosen else value


def _note(data: str, gains: dict, chosen: tuple[float, int, int, str] | None) -> list[str]:
    """Which part of the gain of the grid's best cell the recipe has, over the seeds that both have."""
    if chosen not in gains:
        return []
    most = max(map(len, gains.values()))
    by_seed = {how: {seed: record["after"] - record["before"] for seed, record in records.items()}
               for how, records in gains.items() if len(records) == most}  # fmt: skip
    in_grid = {how: fmean(values.values()) for how, values in by_seed.items()
               if how[0] in RATES and how[1] in BATCHES and how[2:] == (EPOCHS, "")}  # fmt: skip
    mean = {how: fmean(values.values()) for how, values in by_seed.items()}
    if chosen not in mean or not in_grid:
        return []

    def named(how: tuple[float, int, int, str]) -> str:
        more = f" x {how[2]} epochs" * (how[2] != EPOCHS) + f" {how[3]}".rstrip()
        return f"{mean[how]:+.1f} by {how[0]:g} x {how[1]}{more}"

    best, grid = max(mean, key=mean.__getitem__), max(in_grid, key=in_grid.__getitem__)
    parts = [
        f"{mean[chosen] / mean[how]:.0%} of {what}, {named(how)}"
        for what, how in (("the grid's best", grid), ("the best of all", best))
    ]
    return [f"{data}: the recipe gains {named(chosen)}, {' and '.join(parts)} ({most} seeds)"]


def _forgotten(cells: dict[Cell, dict]) -> list[str]:
    """A table of mixtures: the gain on the test part, and how the old task changes."""
    runs = defaultdict(list)
    for cell, record in cells.items():
        if "mixed" in record:
            runs[cell._replace(seed=0)].append(record["mixed"])
    if not runs:
        return []

    def change(found: list[dict], share: float, name: str) -> str:
        changes = [one[f"{share:g}"][name] - one["0"][name] for one in found if f"{share:g}" in one]
        return f"{fmean(changes):+.1f}" if changes else "-"

    lines = ["| data | rate x batch | seeds | " + " | ".join(f"{share:g}" for share in SHARES) + " |"]
    lines.append(f"|---|---|---|{'---|' * len(SHARES)}")
    for cell, found in sorted(runs.items()):
        changes = [" / ".join(change(found, share, name) for name in ("test", "old")) for share in SHARES]
        how = " ".join(filter(None, [f"{cell.rate:g} x {cell.batch}", cell.how]))
        lines.append(f"| {cell.data} | {how} | {len(found)} | {' | '.join(changes)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/emoji")
    parser.add_argument("--folder", type=Path, default=Path("runs/own_data_study"))
    parser.add_argument("--data", nargs="+", default=["100", "300", "1000", STAMPS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--epochs", type=int, nargs="+", default=[EPOCHS])
    parser.add_argument(
        "--how", nargs="+", choices=HOW, default=[""], metavar="NAME", help="of HOW; '' is none of them"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--old", nargs="*", type=float, metavar="SHARE",
                        help="also score the demo's test, by shares of the new weights; default: SHARES")  # fmt: skip
    parser.add_argument("--table", action="store_true", help="print what there is, and train nothing")
    args = parser.parse_args()
    shares = () if args.old is None else args.old or SHARES
    cells, started, longest = args.folder / "cells", time.monotonic(), 0.0
    wanted = [Cell(Path(args.model).name, data, rate, batch, epochs, seed, how)
              for seed in args.seeds for data in args.data for batch in args.batches for epochs in args.epochs
              for rate in args.rates for how in args.how]  # fmt: skip
    cells.mkdir(parents=True, exist_ok=True)
    for cell in [] if args.table else wanted:
        path = cells / f"{cell.key}.json"
        if path.exists() and ("mixed" in read(path) or not shares):
            continue
        if (time.monotonic() - started + longest) / 60 > args.minutes:
            break
        began = time.monotonic()
        write_json(path, record := score(args.folder, args.model, cell, shares))
        longest = max(longest, time.monotonic() - began)
        print(cell.key, record, flush=True)
    found = {path.stem: read(path) for path in sorted(cells.glob("*.json"))}
    known = {(cell.model, cell.data) for cell in map(Cell.of, found)}
    models = {name: str(Path(args.model).parent / name) for name, _ in known}
    print(table(found, {(name, data): recipe(args.folder, models[name], data) for name, data in known}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
