"""Fine-tune the demo's model on few drawings of a design team that it has not seen; measure gain and forgetting.

    python benchmarks/finetune_study.py                  # an hour on two cores
    python benchmarks/finetune_study.py --minutes 9      # ends before; the same command goes on with what is missing
    python benchmarks/finetune_study.py --table          # what there is of docs/notes/finetuning_study.md

The demo's model is pretrained without Microsoft's drawings (fluent-emoji, fluent-emoji-flat), then fine-tuned on 100,
on 300 and on all of them but those of held-out concepts. Models are scored on the new task, the drawings of the
held-out concepts, and on the old one, the demo's test set (Twitter's drawings): two-way mean recall, averaged over
Chinese and English. A seed determines which drawings are chosen, their order, and all other randomness. Settings were
chosen on validation concepts, which are in neither.
"""

import argparse
import hashlib
import io
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ernie_vil2.device import runtime  # noqa: E402
from ernie_vil2.device.launch import STOP_EXIT_CODES  # noqa: E402
from ernie_vil2.io.files import write_text  # noqa: E402

if TYPE_CHECKING:
    from ernie_vil2 import ErnieViL2

Member = tuple[str, bytes]
"""File of a shard: its name and its content."""
TEAM = ("fluent-emoji", "fluent-emoji-flat")
LANGUAGES = ("zh", "en")
STEPS_BY_SIZE = {"100": 40, "300": 60, "all": 100}  # steps of a fine-tuning, by its number of drawings
PRETRAINING_STEPS = 1800
SCRATCH_STEPS = 100  # of a training from random weights, on any number of drawings
MIXTURE_SHARES = (0.25, 0.5)  # weight of the fine-tuned model in averages with the pretrained one
FINE_TUNED = ["Loss.weights={image_image: 0, text_text: 0}", "Optimizer.learning_rate=5e-4"]
LORA = (
    "Tuning.lora={rank: 8, layers: [image.network.stage0.rbr_dense.*, 'image.network.stage[1-4].*', "
    "text.network.encoder.*]}"
)  # all layers but the 1x1 convolution of RGB, which has too few inputs
FROM_SCRATCH = "from scratch"  # the demo's recipe, from random weights
MIXED_METHOD = "full"  # its models are mixed with the pretrained one
SETTINGS_BY_METHOD: dict[str, list[str]] = {
    MIXED_METHOD: FINE_TUNED,
    FROM_SCRATCH: [],
    "frozen text tower": [*FINE_TUNED, "Tuning.freeze=[text.*]"],
    "layer-decayed (0.7)": [*FINE_TUNED, "Tuning.layer_decay=0.7"],
    "LoRA (rank 8, 1e-3)": [*FINE_TUNED, LORA, "Optimizer.learning_rate=1e-3"],
    "LoRA (rank 8, 2e-3)": [*FINE_TUNED, LORA, "Optimizer.learning_rate=2e-3"],
}
SCORING_BATCH_SIZE = 128  # images that are encoded together
MAX_JOB_SECONDS = 80  # more than any training with its scores takes; not begun with less time left
SAVING_SECONDS = 30  # for the checkpoint of a pretraining that is stopped


class Study:
    """Data, runs and results of the study in a folder.

    Attributes:
        folder: the folder.
        data: folder of the shards.
        pretrained: run folder of the pretraining.
        tests: shards that are scored, by task.
        scores: mean recalls in percent by task, by key: `zero-shot`, `METHOD/SIZE/SEED` or `METHOD/SIZE/SEED/SHARE`.
    """

    def __init__(self, folder: Path):
        self.folder, self.data, self.pretrained = folder, folder / "data", folder / "pretrained"
        self.tests = {"new": self.data / "held_out.tar", "old": ROOT / "demo_data" / "emoji-test.tar"}
        self._results_file = folder / "results.json"
        self.scores = json.loads(self._results_file.read_text()) if self._results_file.exists() else {}
        self._benchmarks: dict[str, tuple] = {}  # by task: benchmarks by language, and the pixels of their images

    def record(self, key: str, scores: dict[str, float]) -> None:
        """Store and print the scores of a model."""
        self.scores[key] = scores
        write_text(self._results_file, json.dumps(self.scores, indent=1))
        print(f"{key}: new {scores['new']:.2f}, old {scores['old']:.2f}", flush=True)

    def write_data(self) -> None:
        """Write shards for pretraining, fine-tuning, choosing settings (validation) and scoring (held out)."""
        if (self.data / "train.tar").exists():  # written last
            return
        samples_by_split: dict[str, list[list[Member]]] = {
            "pretrain": [],
            "held_out": [],
            "validation": [],
            "train": [],
        }
        for name, members in read_samples(ROOT / "demo_data" / "emoji-train.tar").items():
            concept, _, style = name.partition("_")
            split = choose_split(concept) if style in TEAM else "pretrain"
            samples_by_split[split].append(members)
        for split, samples in samples_by_split.items():
            write_shard(self.data / f"{split}.tar", samples)

    def choose_drawings(self, size: str, seed: int) -> Path:
        """Return a shard of so many drawings of the team; with the same seed, larger ones include smaller ones."""
        if size == "all":
            return self.data / "train.tar"
        path = self.data / f"train_{size}_{seed}.tar"
        if not path.exists():
            samples = list(read_samples(self.data / "train.tar").values())
            order = np.random.default_rng(seed).permutation(len(samples))
            write_shard(path, [samples[row] for row in order[: int(size)]])
        return path

    def pretrain(self, seconds: float) -> bool:
        """Continue the pretraining for so many seconds; return whether it has ended.

        Raises:
            SystemExit: the training failed.
        """
        command = [sys.executable, str(ROOT / "tools" / "train.py"), "-c", str(ROOT / "configs/demo/emoji.yaml")]
        command += ["--resume", "--processes", "2"]
        for option in (
            f"Data.train=['{self.data}/pretrain.tar']",
            "Model.image.weights=null",
            f"Training.steps={PRETRAINING_STEPS}",
            f"Training.output={self.pretrained}",
        ):
            command += ["-o", option]
        with subprocess.Popen(command, cwd=ROOT) as process:  # noqa: S603  -- a command of this script
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.terminate()  # it saves a checkpoint
                code = process.wait()
        if code not in (0, STOP_EXIT_CODES[signal.SIGTERM]):
            raise SystemExit(f"error: the pretraining ended with code {code}")
        return code == 0

    def fine_tune(self, method: str, size: str, seed: int) -> Path:
        """Train a model, and return its run folder."""
        from ernie_vil2.config import load_config
        from ernie_vil2.training.trainer import Trainer

        name = re.sub("[^A-Za-z0-9.-]+", "_", method).strip("_")  # each method needs a folder of its own
        run = self.folder / "runs" / f"{name}_{size}_{seed}"
        shutil.rmtree(run, ignore_errors=True)  # of a run that was stopped
        is_from_scratch = method == FROM_SCRATCH
        steps = SCRATCH_STEPS if is_from_scratch else STEPS_BY_SIZE[size]
        options = [
            f"Data.train=['{self.choose_drawings(size, seed)}']",
            "Data.val=[]",
            "Training.global_batch=64",
            f"Training.steps={steps}",
            f"Training.seed={seed}",
            f"Training.output={run}",
            "Training.device=cpu",
            "Model.image.weights=null",
        ]
        if not is_from_scratch:
            options += [f"Model.weights={self.pretrained}", "Schedule.warmup_steps=5", "Schedule.floor=0"]
        options += SETTINGS_BY_METHOD[method]
        Trainer(load_config(ROOT / "configs/demo/emoji.yaml", options)).fit()
        return run

    def score(self, model: "ErnieViL2") -> dict[str, float]:
        """Return the two-way mean recall of each task in percent, averaged over languages, by the protocol `pairs`."""
        from ernie_vil2.data.readers import open_benchmarks
        from ernie_vil2.data.samples import BadSampleReport
        from ernie_vil2.evaluation.encoded import EncodedBenchmark
        from ernie_vil2.evaluation.protocol import find_protocol, score_embeddings

        # All models preprocess alike, so the pixels are kept for the next ones.
        if not self._benchmarks:
            for task, source in self.tests.items():
                benchmarks = open_benchmarks(source, languages=list(LANGUAGES), text_id="id")
                pixels = np.stack([model.preprocess(image.read()) for image in benchmarks["zh"].images])
                self._benchmarks[task] = benchmarks, pixels

        scores = {}
        for task, (benchmarks, pixels) in self._benchmarks.items():
            # Both languages have the same images.
            batches = np.array_split(pixels, max(1, len(pixels) // SCORING_BATCH_SIZE))
            image_embeddings = np.concatenate([model.encode_pixels(batch) for batch in batches])
            recalls = []
            for benchmark in benchmarks.values():
                text_embeddings = model.encode_texts([text.text for text in benchmark.texts])
                encoded = EncodedBenchmark(benchmark, image_embeddings, text_embeddings, BadSampleReport())
                mean_recall = score_embeddings(encoded, find_protocol("pairs")).mean_recall
                if mean_recall is None:
                    raise ValueError(f"{benchmark.name} has no queries in one direction")
                recalls.append(mean_recall)
            scores[task] = fmean(recalls)
        return scores

    def score_mixtures(self, run: Path, key: str) -> None:
        """Score averages of the weights of the pretrained model and of a fine-tuned one."""
        from ernie_vil2.cli.interpolate import mix_weights
        from ernie_vil2.encoder import load_model
        from ernie_vil2.encoder.pretrained import get_network
        from ernie_vil2.models import set_weights
        from ernie_vil2.models.weights.format import read_model

        stored_models = [read_model(self.pretrained), read_model(run)]
        model = load_model(run)
        network = get_network(model, "a mixture")
        for share in MIXTURE_SHARES:
            if f"{key}/{share}" not in self.scores:
                set_weights(network, mix_weights(stored_models, [1 - share, share]))
                self.record(f"{key}/{share}", self.score(model))


def choose_split(concept: str) -> str:
    """Return the split of a concept: of 20, 6 are held out and 2 are for choosing settings."""
    # By the name, so that both styles of a concept are in one split, on every machine.
    number = int(hashlib.md5(concept.encode()).hexdigest(), 16) % 20  # noqa: S324  -- a number, not a secret
    if number < 6:
        return "held_out"
    return "validation" if number < 8 else "train"


def read_samples(shard: Path) -> dict[str, list[Member]]:
    """Return the files of each sample of a shard, in its order."""
    samples: dict[str, list[Member]] = {}
    with tarfile.open(shard) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:  # a folder has no content
                samples.setdefault(member.name.partition(".")[0], []).append((member.name, file.read()))
    return samples


def write_shard(path: Path, samples: list[list[Member]]) -> None:
    """Write the files of samples, under a temporary name first, so that a shard that exists is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    with tarfile.open(temporary, "w") as archive:
        for members in samples:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    temporary.rename(path)


def run_jobs(study: Study, num_seeds: int, minutes: float) -> bool:
    """Train and score what is missing until the time is up; return whether nothing is missing any more."""
    from ernie_vil2.encoder import load_model

    deadline = time.monotonic() + 60 * minutes
    study.write_data()
    if "zero-shot" not in study.scores:
        if not study.pretrain(max(1.0, deadline - time.monotonic() - SAVING_SECONDS)):
            return False
        study.record("zero-shot", study.score(load_model(study.pretrained)))
    for method, seed, size in itertools.product(SETTINGS_BY_METHOD, range(num_seeds), STEPS_BY_SIZE):
        key = f"{method}/{size}/{seed}"
        keys = [key]
        if method == MIXED_METHOD:
            keys += [f"{key}/{share}" for share in MIXTURE_SHARES]
        if all(name in study.scores for name in keys):
            continue
        if time.monotonic() + MAX_JOB_SECONDS > deadline:
            return False
        run = study.fine_tune(method, size, seed)
        if key not in study.scores:
            study.record(key, study.score(load_model(run)))
        if method == MIXED_METHOD:
            study.score_mixtures(run, key)
    return True


def print_tables(study: Study, num_seeds: int) -> None:
    """Print tables in Markdown: means and standard deviations over the seeds that have scores."""
    # By row name: the method and the end of the key.
    row_keys = {}
    for method in SETTINGS_BY_METHOD:
        row_keys[method] = (method, "")
        if method == MIXED_METHOD:
            for share in MIXTURE_SHARES:
                row_keys[f"{method}, mixed {share:g}"] = (method, f"/{share}")

    for task, title in (("new", "New task: drawings of held-out concepts"), ("old", "Old task: the demo's test set")):
        print(f"\n| {title} | " + " | ".join(f"{size} drawings" for size in STEPS_BY_SIZE) + " |")
        print("|---" + "|---:" * len(STEPS_BY_SIZE) + "|")
        print("| zero-shot |" + f" {study.scores['zero-shot'][task]:.1f} |" * len(STEPS_BY_SIZE))
        for name, (method, key_end) in row_keys.items():
            cells = []
            for size in STEPS_BY_SIZE:
                keys = [f"{method}/{size}/{seed}{key_end}" for seed in range(num_seeds)]
                cells.append(format_spread([study.scores[key][task] for key in keys if key in study.scores]))
            print(f"| {name} | " + " | ".join(cells) + " |")


def format_spread(values: list[float]) -> str:
    """Return mean and standard deviation as a cell; a single value has no deviation, and no value leaves it empty."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{fmean(values):.1f} ± {stdev(values):.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "finetune_study", help="folder of data, runs and results"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="minutes after which the command ends")
    parser.add_argument("--table", action="store_true", help="only print the tables of what there is")
    args = parser.parse_args()
    runtime.configure()
    study = Study(args.folder.resolve())
    is_finished = args.table or run_jobs(study, args.seeds, args.minutes)
    if "zero-shot" in study.scores:
        print_tables(study, args.seeds)
    if not is_finished:
        print("\nnot finished: the same command goes on")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
