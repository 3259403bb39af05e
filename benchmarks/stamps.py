"""What fine-tuning on Tux Paint's stamps wins and forgets: photographs and drawings unlike those of the demo's model.

    python demo_data/stamps.py
    python benchmarks/stamps.py                     # about twenty minutes on two cores
    python benchmarks/stamps.py --minutes 9         # ends before; the same command goes on with what is missing
    python benchmarks/stamps.py --table             # the tables of docs/notes/stamps.md, of what there is

The demo's model (runs/emoji, `make demo`) is fine-tuned on 100, on 300 and on all 529 training images; next to it a
model of the same towers is trained on them from scratch. Scored are the 308 test images, by retrieval (two-way mean
recall) and by their sixteen classes (zero-shot, and a linear probe on the embeddings of the training images), and the
demo's test drawings, which the start was made for. A seed draws the images, their order and what else is random.
Settings were chosen on the validation images.
"""

import argparse
import csv
import json
import random
import shutil
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ernie_vil2.device import runtime  # noqa: E402
from ernie_vil2.io.files import write_text  # noqa: E402

if TYPE_CHECKING:
    from ernie_vil2 import ErnieViL2

STAMPS = ROOT / "demo_data" / "stamps"
SIZES = {100: 40, 300: 60, 529: 80}
"""Training images, and steps of a fine-tuning on so many."""
SETTINGS = ["Data.text_id=null", "Data.val=[]", "Views.tag_probability=0", "Evaluation.every=0",
            "Model.image.weights=null", "Training.global_batch=64", "Training.device=cpu"]  # fmt: skip
METHODS = {
    "from scratch": ["Training.steps=100"],
    "fine-tuned": ["Loss.weights={image_image: 0, text_text: 0}", "Optimizer.learning_rate=1e-3",
                   "Schedule.warmup_steps=5", "Schedule.floor=0"],
}  # fmt: skip
SHARES = (0.25, 0.5)
"""Of the fine-tuned model, in mixtures with the start (WiSE-FT)."""
RETRIEVAL = ("stamps zh", "stamps en", "demo zh", "demo en")
CLASSES = ("zh", "en", "linear probe")


class Study:
    """Runs and results in a folder."""

    def __init__(self, start: str, folder: Path):
        self.start, self.folder, self.results = start, folder, folder / "results.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.scores = json.loads(self.results.read_text()) if self.results.exists() else {}

    def record(self, key: str, model: "ErnieViL2") -> None:
        """Score a model, unless that was done."""
        if key not in self.scores:
            self.scores[key] = scores(model)
            write_text(self.results, json.dumps(self.scores, indent=1))
            print(f"{key}: " + ", ".join(f"{name} {value:.1f}" for name, value in self.scores[key].items()), flush=True)

    def table(self, size: int, seed: int) -> Path:
        """Return a table of so many training images; those of a smaller size are among those of a larger."""
        with (STAMPS / "train.csv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        random.Random(seed).shuffle(rows)  # noqa: S311  -- no secret
        path = self.folder / "tables" / f"{size}_{seed}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows[:size]])
        return path

    def train(self, method: str, size: int, seed: int) -> Path:
        """Return the run folder of a training."""
        from ernie_vil2.config import load_config
        from ernie_vil2.training.trainer import Trainer

        run = self.folder / "runs" / f"{method.replace(' ', '_')}_{size}_{seed}"
        shutil.rmtree(run, ignore_errors=True)  # one that was stopped
        start = [] if method == "from scratch" else [f"Model.weights={self.start}"]
        data = f"Data.train=[{{data: ['{self.table(size, seed)}'], images: '{STAMPS}'}}]"
        Trainer(load_config(ROOT / "configs/demo/emoji.yaml", [
            data, f"Training.output={run}", f"Training.seed={seed}", f"Training.steps={SIZES[size]}", *SETTINGS, *start,
            *METHODS[method],
        ])).fit()  # fmt: skip
        return run

    def score_mixtures(self, run: Path, key: str) -> None:
        """Score mixtures of the weights of the start and of a fine-tuned model."""
        from ernie_vil2 import load_model
        from ernie_vil2.cli.interpolate import mix_weights
        from ernie_vil2.encoder.pretrained import get_network
        from ernie_vil2.models import set_weights
        from ernie_vil2.models.weights.format import read_model

        stored, model = [read_model(self.start), read_model(run)], load_model(run)
        network = get_network(model, "a mixture")
        for share in SHARES:
            set_weights(network, mix_weights(stored, [1 - share, share]))
            self.record(f"{key}/{share}", model)


def scores(model: "ErnieViL2") -> dict[str, float]:
    """Return the mean recalls on the stamps and on the demo's test set, and acc1 on the classes."""
    from ernie_vil2.data.readers import open_benchmarks
    from ernie_vil2.data.readers.labelled import open_labelled
    from ernie_vil2.evaluation.classification import assemble_classes, choose_templates, make_prompt_benchmark
    from ernie_vil2.evaluation.encoded import encode_benchmark
    from ernie_vil2.evaluation.linear_probe import score_linear_probe
    from ernie_vil2.evaluation.protocol import evaluate, find_protocol

    found = {}
    tests = (("stamps", STAMPS / "test.csv", None), ("demo", ROOT / "demo_data" / "emoji-test.tar", "id"))
    for name, source, text_id in tests:
        for language, benchmark in open_benchmarks(source, languages=["zh", "en"], text_id=text_id).items():
            mean_recall = evaluate(model, benchmark, find_protocol("pairs")).mean_recall
            if mean_recall is None:
                raise ValueError(f"{source} has no queries in one direction")
            found[f"{name} {language}"] = mean_recall
    names = {language: str(STAMPS / f"names_{language}.txt") for language in ("zh", "en")}
    test, training = (open_labelled([STAMPS], names, split=split) for split in ("test", "train"))
    templates = choose_templates(test, {})
    classes = assemble_classes(test, templates, encode_benchmark(model, make_prompt_benchmark(test, templates)))
    for language, answers in classes.score_classes(model.logit_scale).items():
        found[language] = answers.metrics["acc1"]
    probe, _ = score_linear_probe(classes, encode_benchmark(model, training))
    return found | {"linear probe": probe.metrics["acc1"]}


def work(study: Study, seeds: int, minutes: float) -> bool:
    """Do what is missing until the time is up; return whether nothing is missing any more."""
    from ernie_vil2 import load_model

    end = time.monotonic() + 60 * minutes
    if "zero-shot" not in study.scores:
        study.record("zero-shot", load_model(study.start))
    for seed, size, method in ((seed, size, method) for seed in range(seeds) for size in SIZES for method in METHODS):
        key = f"{method}/{size}/{seed}"
        wanted = [key, *(f"{key}/{share}" for share in SHARES if method == "fine-tuned")]
        if all(name in study.scores for name in wanted):
            continue
        if time.monotonic() + 120 > end:  # longer than any of them takes
            return False
        run = study.train(method, size, seed)
        study.record(key, load_model(run))
        if method == "fine-tuned":
            study.score_mixtures(run, key)
    return True


def spread(values: list[float]) -> str:
    return f"{fmean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def show(study: Study, seeds: int) -> None:
    """Return tables in Markdown: means and standard deviations over the seeds that have been run."""
    names = {"from scratch": ("from scratch", ""), "fine-tuned": ("fine-tuned", "")}
    names |= {f"fine-tuned, mixed {share:g}": ("fine-tuned", f"/{share}") for share in SHARES}
    for columns in (RETRIEVAL, CLASSES):
        print(f"\n| images | | {' | '.join(columns)} |\n|---:|---|{'---:|' * len(columns)}")
        before = [f"{study.scores['zero-shot'][column]:.1f}" for column in columns]
        print(f"| 0 | zero-shot | {' | '.join(before)} |")
        for size in SIZES:
            for name, (method, end) in names.items():
                keys = [f"{method}/{size}/{seed}{end}" for seed in range(seeds)]
                found = [study.scores[key] for key in keys if key in study.scores]
                if found:
                    cells = [spread([one[column] for one in found]) for column in columns]
                    print(f"| {size} | {name} | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default=str(ROOT / "runs" / "emoji"), metavar="MODEL", help="that is fine-tuned")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "stamps_study", help="of runs and results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which the command ends")
    parser.add_argument("--table", action="store_true", help="only print what there is")
    args = parser.parse_args()
    if not (STAMPS / "train.csv").exists():
        sys.exit(f"error: {STAMPS} is not there: run python demo_data/stamps.py")
    runtime.configure()
    study = Study(args.start, args.folder.resolve())
    done = args.table or work(study, args.seeds, args.minutes)
    if "zero-shot" in study.scores:
        show(study, args.seeds)
    print("" if done else "\nnot finished: the same command goes on")
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
