"""What learning rate and batch do on a set of one's own: the table of docs/own_data.md.

    python benchmarks/own_data.py --model runs/emoji                   # goes on where it stopped, with --seeds 0 1 2
    python benchmarks/own_data.py --model runs/emoji --minutes 20      # ends before
    python benchmarks/own_data.py --table                              # what was found so far

Each cell is a fine-tuning of the model on the pictures of demo_data/shop.py by configs/finetune/own.yaml with another
rate and batch, scored on the part that `Data.holdout` keeps for the test: mean recall, before and after. `default` is
the recipe as it is. The last line says which part of the best cell's gain the default has.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ernie_vil2 import cli  # noqa: E402
from ernie_vil2.io.files import write_json  # noqa: E402

RATES = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3)
BATCHES = (64, 256)
HOLDOUT = "Data.holdout={val: 0.15, test: 0.2, group_by: 货号}"


def cells(
    articles: list[int], seeds: list[int], rates: list[float], batches: list[int]
) -> list[tuple[str, list[str], int, int]]:
    """Name, overrides, articles and seed of each run: of a size and seed the default first, then the grid."""
    grid = [(f"{rate:g} x {batch}", [f"Optimizer.learning_rate={rate!r}", f"Training.global_batch={batch}"])
            for batch in batches for rate in rates]  # fmt: skip
    return [(name, overrides, size, seed) for seed in seeds for size in articles
            for name, overrides in [("default", []), *grid]]  # fmt: skip


def score(folder: Path, model: str, overrides: list[str], articles: int, seed: int) -> dict:
    """Mean recall on the test part before and after a run, and its minutes."""
    shop, run = folder / f"shop-{articles}", folder / "run"
    if not shop.exists():
        command = [sys.executable, str(ROOT / "demo_data" / "shop.py"), "--output", str(shop)]
        subprocess.run([*command, "--articles", str(articles)], check=True)
    subprocess.run(["rm", "-rf", str(run)], check=True)
    settings = [f"Model.weights={model}", f"Data.train=[{shop / '商品.csv'}]", f"Data.images={shop / 'pictures'}",
                HOLDOUT, f"Training.seed={seed}", f"Training.output={run}", "Data.workers=0", *overrides]  # fmt: skip
    started, printed = time.monotonic(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = cli.run("train", ["-c", "configs/finetune/own.yaml", *(f"-o{one}" for one in settings)])
    if code:
        raise SystemExit(printed.getvalue())
    found = {}
    for when in ("before", "after"):
        record = json.loads((run / "evaluation" / f"{when}.json").read_text(encoding="utf-8"))
        found[when] = fmean(one["result"]["mR"] for one in record["results"].values())
    return found | {"minutes": (time.monotonic() - started) / 60}


def table(found: dict[str, dict]) -> str:
    """Rows of Markdown by size; a cell is the mean over the seeds that are there."""
    lines, parts = [], [key.split("|") for key in found]
    for size in sorted({int(part[1]) for part in parts}):
        own = [(name, int(seed), found["|".join((name, one, seed))]) for name, one, seed in parts if int(one) == size]
        seeds = sorted({seed for _, seed, _ in own})
        before = fmean(record["before"] for _, _, record in own)
        lines += [f"\n{2 * size} pictures, seeds {', '.join(map(str, seeds))}; mean recall before: {before:.1f}\n"]
        lines += [f"| batch | {' | '.join(f'{rate:g}' for rate in RATES)} |", f"|---|{'---|' * len(RATES)}"]

        def mean(name: str, own: list = own) -> float | None:
            values = [record["after"] for one, _, record in own if one == name]
            return fmean(values) if values else None

        for batch in BATCHES:
            row = [mean(f"{rate:g} x {batch}") for rate in RATES]
            lines.append(f"| {batch} | {' | '.join('-' if one is None else f'{one:.1f}' for one in row)} |")
        default, best = (
            mean("default"),
            max((one for name, _, _ in own if (one := mean(name)) is not None), default=None),
        )
        if default is not None and best is not None and best > before:
            share = (default - before) / (best - before)
            lines.append(f"\nthe recipe: {default:.1f}, {share:.0%} of the gain of the best, {best:.1f}")
    return "\n".join(lines).strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/emoji")
    parser.add_argument("--folder", type=Path, default=Path("runs/own_data_study"))
    parser.add_argument("--articles", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    path, started = args.folder / "results.json", time.monotonic()
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    longest = 0.0
    for name, overrides, articles, seed in (
        [] if args.table else cells(args.articles, args.seeds, args.rates, args.batches)
    ):
        key = f"{name}|{articles}|{seed}"
        if key in found:
            continue
        if (time.monotonic() - started) / 60 + longest > args.minutes:
            break
        args.folder.mkdir(parents=True, exist_ok=True)
        found[key] = score(args.folder, args.model, overrides, articles, seed)
        longest = max(longest, found[key]["minutes"])
        write_json(path, found)
        print(key, found[key], flush=True)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
