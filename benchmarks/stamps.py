"""Fine-tune the demo's model on Tux Paint's stamps, images unlike its own, and measure what it gains and forgets.

    python demo_data/stamps.py
    python benchmarks/stamps.py                     # about twenty minutes on two cores
    python benchmarks/stamps.py --minutes 9         # ends before; the same command goes on with what is missing
    python benchmarks/stamps.py --table             # the tables of docs/notes/stamps.md, of what there is

The demo's model (runs/emoji, `make demo`) is fine-tuned on 100, on 300 and on all 529 training images; next to it, a
model of the same architecture is trained on them from scratch. Models are scored on the 308 test images, by retrieval
(two-way mean recall) and by their sixteen classes (zero-shot, and a linear probe on the embeddings of the training
images), and on the demo's test drawings. A seed determines which images are drawn, their order, and all other
randomness. Settings were chosen on the validation images.
"""

import argparse
import csv
import itertools
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
DEMO_TEST = ROOT / "demo_data" / "emoji-test.tar"
LANGUAGES = ("zh", "en")
STEPS_BY_SIZE = {100: 40, 300: 60, 529: 80}  # steps of a fine-tuning, by its number of training images
COMMON_SETTINGS = [
    "Data.text_id=null",
    "Data.val=[]",
    "Views.tag_probability=0",
    "Evaluation.every=0",
    "Model.image.weights=null",
    "Training.global_batch=64",
    "Training.device=cpu",
]
FINE_TUNED = "fine-tuned"
SETTINGS_BY_METHOD = {
    "from scratch": ["Training.steps=100"],  # of any number of images
    FINE_TUNED: [
        "Loss.weights={image_image: 0, text_text: 0}",
        "Optimizer.learning_rate=1e-3",
        "Schedule.warmup_steps=5",
        "Schedule.floor=0",
    ],
}
MIXTURE_SHARES = (0.25, 0.5)  # weight of the fine-tuned model in averages with the start (WiSE-FT)
RETRIEVAL_COLUMNS = ("stamps zh", "stamps en", "demo zh", "demo en")
CLASS_COLUMNS = ("zh", "en", "linear probe")
MAX_JOB_SECONDS = 120  # more than any training with its scores takes; not begun with less time left


class Study:
    """Runs and results of the study in a folder.

    Attributes:
        start: the model that is fine-tuned.
        folder: folder of runs and tables.
        scores: percent by column, by key: `zero-shot`, `METHOD/SIZE/SEED` or `METHOD/SIZE/SEED/SHARE`.
    """

    def __init__(self, start: str, folder: Path):
        self.start, self.folder = start, folder
        folder.mkdir(parents=True, exist_ok=True)
        start_file = folder / "start.txt"
        if start_file.exists() and start_file.read_text(encoding="utf-8") != start:
            sys.exit(f"error: {folder} has the scores of another --start: name another folder as --folder")
        start_file.write_text(start, encoding="utf-8")
        self._results_file = folder / "results.json"
        self.scores = json.loads(self._results_file.read_text()) if self._results_file.exists() else {}

    def record(self, key: str, model: "ErnieViL2") -> None:
        """Score a model, unless the key has scores."""
        if key in self.scores:
            return
        self.scores[key] = score_model(model)
        write_text(self._results_file, json.dumps(self.scores, indent=1))
        print(f"{key}: " + ", ".join(f"{name} {value:.1f}" for name, value in self.scores[key].items()), flush=True)

    def write_table(self, size: int, seed: int) -> Path:
        """Write a table of so many training images; with the same seed, larger tables include smaller ones."""
        with (STAMPS / "train.csv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        random.Random(seed).shuffle(rows)  # noqa: S311  -- no secret
        path = self.folder / "tables" / f"{size}_{seed}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows[:size]])
        return path

    def train(self, method: str, size: int, seed: int) -> Path:
        """Train a model, and return its run folder."""
        from ernie_vil2.config import load_config
        from ernie_vil2.training.trainer import Trainer

        run = self.folder / "runs" / f"{method.replace(' ', '_')}_{size}_{seed}"
        shutil.rmtree(run, ignore_errors=True)  # of a run that was stopped
        options = [
            f"Data.train=[{{data: ['{self.write_table(size, seed)}'], images: '{STAMPS}'}}]",
            f"Training.output={run}",
            f"Training.seed={seed}",
            f"Training.steps={STEPS_BY_SIZE[size]}",
            *COMMON_SETTINGS,
        ]
        if method == FINE_TUNED:
            options.append(f"Model.weights={self.start}")
        options += SETTINGS_BY_METHOD[method]
        Trainer(load_config(ROOT / "configs/demo/emoji.yaml", options)).fit()
        return run

    def score_mixtures(self, run: Path, key: str) -> None:
        """Score averages of the weights of the start and of a fine-tuned model."""
        from ernie_vil2 import load_model
        from ernie_vil2.cli.interpolate import mix_weights
        from ernie_vil2.encoder.pretrained import get_network
        from ernie_vil2.models import set_weights
        from ernie_vil2.models.weights.format import read_model

        stored_models = [read_model(self.start), read_model(run)]
        model = load_model(run)
        network = get_network(model, "a mixture")
        for share in MIXTURE_SHARES:
            set_weights(network, mix_weights(stored_models, [1 - share, share]))
            self.record(f"{key}/{share}", model)


def score_model(model: "ErnieViL2") -> dict[str, float]:
    """Return percent by column: mean recalls on the stamps and the demo's test set, and acc1 on the stamps' classes."""
    from ernie_vil2.data.readers import open_benchmarks
    from ernie_vil2.data.readers.labelled import open_labelled
    from ernie_vil2.evaluation.classification import assemble_classes, choose_templates, make_prompt_benchmark
    from ernie_vil2.evaluation.encoded import encode_benchmark
    from ernie_vil2.evaluation.linear_probe import score_linear_probe
    from ernie_vil2.evaluation.protocol import evaluate, find_protocol

    # Retrieval. The demo's texts are told apart by the field `id`, those of the stamps' table by their words.
    scores = {}
    for name, source, text_id in (("stamps", STAMPS / "test.csv", None), ("demo", DEMO_TEST, "id")):
        for language, benchmark in open_benchmarks(source, languages=list(LANGUAGES), text_id=text_id).items():
            mean_recall = evaluate(model, benchmark, find_protocol("pairs")).mean_recall
            if mean_recall is None:
                raise ValueError(f"{source} has no queries in one direction")
            scores[f"{name} {language}"] = mean_recall

    # Classification: zero-shot in each language, then the linear probe.
    class_names = {language: str(STAMPS / f"names_{language}.txt") for language in LANGUAGES}
    test_images = open_labelled([STAMPS], class_names, split="test")
    training_images = open_labelled([STAMPS], class_names, split="train")
    templates = choose_templates(test_images, {})
    encoded_test = encode_benchmark(model, make_prompt_benchmark(test_images, templates))
    classes = assemble_classes(test_images, templates, encoded_test)
    for language, answers in classes.score_classes(model.logit_scale).items():
        scores[language] = answers.metrics["acc1"]
    probe, _ = score_linear_probe(classes, encode_benchmark(model, training_images))
    scores["linear probe"] = probe.metrics["acc1"]
    return scores


def run_jobs(study: Study, num_seeds: int, minutes: float) -> bool:
    """Train and score what is missing until the time is up; return whether nothing is missing any more."""
    from ernie_vil2 import load_model

    deadline = time.monotonic() + 60 * minutes
    if "zero-shot" not in study.scores:
        study.record("zero-shot", load_model(study.start))
    for seed, size, method in itertools.product(range(num_seeds), STEPS_BY_SIZE, SETTINGS_BY_METHOD):
        key = f"{method}/{size}/{seed}"
        keys = [key]
        if method == FINE_TUNED:
            keys += [f"{key}/{share}" for share in MIXTURE_SHARES]
        if all(name in study.scores for name in keys):
            continue
        if time.monotonic() + MAX_JOB_SECONDS > deadline:
            return False
        run = study.train(method, size, seed)
        study.record(key, load_model(run))
        if method == FINE_TUNED:
            study.score_mixtures(run, key)
    return True


def print_tables(study: Study, num_seeds: int) -> None:
    """Print tables in Markdown: means and standard deviations over the seeds that have scores."""
    # By row name: the method and the end of the key.
    row_keys = {"from scratch": ("from scratch", ""), FINE_TUNED: (FINE_TUNED, "")}
    for share in MIXTURE_SHARES:
        row_keys[f"{FINE_TUNED}, mixed {share:g}"] = (FINE_TUNED, f"/{share}")

    for columns in (RETRIEVAL_COLUMNS, CLASS_COLUMNS):
        print(f"\n| images | | {' | '.join(columns)} |\n|---:|---|{'---:|' * len(columns)}")
        cells = [f"{study.scores['zero-shot'][column]:.1f}" for column in columns]
        print(f"| 0 | zero-shot | {' | '.join(cells)} |")
        for size in STEPS_BY_SIZE:
            for name, (method, key_end) in row_keys.items():
                keys = [f"{method}/{size}/{seed}{key_end}" for seed in range(num_seeds)]
                scores_of_seeds = [study.scores[key] for key in keys if key in study.scores]
                if not scores_of_seeds:
                    continue
                cells = []
                for column in columns:
                    cells.append(format_spread([scores[column] for scores in scores_of_seeds]))
                print(f"| {size} | {name} | {' | '.join(cells)} |")


def format_spread(values: list[float]) -> str:
    """Return mean and standard deviation as a cell; a single value has no deviation."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{fmean(values):.1f} ± {stdev(values):.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--start", default=str(ROOT / "runs" / "emoji"), metavar="MODEL", help="model that is fine-tuned"
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "stamps_study", help="folder of runs and results"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="minutes after which the command ends")
    parser.add_argument("--table", action="store_true", help="only print the tables of what there is")
    args = parser.parse_args()
    if not (STAMPS / "train.csv").exists():
        sys.exit(f"error: {STAMPS} is not there: run python demo_data/stamps.py")
    runtime.configure()
    study = Study(args.start, args.folder.resolve())
    is_finished = args.table or run_jobs(study, args.seeds, args.minutes)
    if "zero-shot" in study.scores:
        print_tables(study, args.seeds)
    if not is_finished:
        print("\nnot finished: the same command goes on")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
