"""Gain and forgetting of a fine-tuning on few drawings: the demo's model and a design team that it has not seen.

    python benchmarks/finetune_study.py                  # an hour on two cores
    python benchmarks/finetune_study.py --minutes 9      # ends before; the same command goes on with what is missing
    python benchmarks/finetune_study.py --table          # the tables of docs/finetuning.md, of what there is

The demo's model is pretrained without Microsoft's drawings (fluent-emoji, fluent-emoji-flat), then fine-tuned on 100,
on 300 and on all of them but those of held-out concepts. Scored are the drawings of the held-out concepts, the new
task, and Twitter's, the demo's test set, the old one: two-way mean recall, the mean of Chinese and English. A seed
draws the drawings, their order and what else is random. Settings were chosen on concepts of their own, in neither.
"""

import argparse
import hashlib
import io
import json
import shutil
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
from ernie_vil2.io.files import write_text  # noqa: E402

if TYPE_CHECKING:
    from ernie_vil2 import ErnieViL2

TEAM = ("fluent-emoji", "fluent-emoji-flat")
SIZES = {"100": 40, "300": 60, "all": 100}
"""Drawings, and steps of a fine-tuning on so many."""
SCRATCH_STEPS = 100
SHARES = (0.25, 0.5)
"""Shares of the fine-tuned model in mixtures with the pretrained one."""
FINE_TUNED = ["Loss.weights={image_image: 0, text_text: 0}", "Optimizer.learning_rate=5e-4"]
LORA = (
    "Tuning.lora={rank: 8, layers: [image.network.stage0.rbr_dense.*, 'image.network.stage[1-4].*', "
    "text.network.encoder.*]}"
)  # all but the convolution of one pixel's three values
METHODS = {
    "full": FINE_TUNED,
    "from scratch": None,
    "frozen text tower": [*FINE_TUNED, "Tuning.freeze=[text.*]"],
    "layer-decayed (0.7)": [*FINE_TUNED, "Tuning.layer_decay=0.7"],
    "LoRA (rank 8, 1e-3)": [*FINE_TUNED, LORA, "Optimizer.learning_rate=1e-3"],
    "LoRA (rank 8, 2e-3)": [*FINE_TUNED, LORA, "Optimizer.learning_rate=2e-3"],
}
"""By name what a fine-tuning sets next to the demo's configuration; None: the demo's recipe, from random weights."""
MIXED = "full"


class Study:
    """The data, runs and results in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.data = folder, folder / "data"
        self.results = folder / "results.json"
        self.tests = {"new": self.data / "held_out.tar", "old": ROOT / "demo_data" / "emoji-test.tar"}
        self._scored: dict[str, tuple] = {}
        self.scores = json.loads(self.results.read_text()) if self.results.exists() else {}

    def record(self, key: str, scores: dict[str, float]) -> None:
        self.scores[key] = scores
        write_text(self.results, json.dumps(self.scores, indent=1))
        print(f"{key}: new {scores['new']:.2f}, old {scores['old']:.2f}", flush=True)

    def make_data(self) -> None:
        """Write shards for pretraining, fine-tuning, choosing settings (validation) and scoring (held out)."""
        if (self.data / "train.tar").exists():
            return
        parts: dict[str, list] = {"pretrain": [], "held_out": [], "validation": [], "train": []}
        for name, members in samples(ROOT / "demo_data" / "emoji-train.tar").items():
            concept, _, style = name.partition("_")
            part = "pretrain" if style not in TEAM else split_of(concept)
            parts[part].append(members)
        for part, chosen in parts.items():
            write_shard(self.data / f"{part}.tar", chosen)

    def subset(self, size: str, seed: int) -> Path:
        """Return a shard of so many drawings of the team; those of a smaller size are among those of a larger."""
        if size == "all":
            return self.data / "train.tar"
        path = self.data / f"train_{size}_{seed}.tar"
        if not path.exists():
            every = list(samples(self.data / "train.tar").values())
            order = np.random.default_rng(seed).permutation(len(every))
            write_shard(path, [every[row] for row in order[: int(size)]])
        return path

    @property
    def pretrained(self) -> Path:
        return self.folder / "pretrained"

    def pretrain(self, seconds: float) -> bool:
        """Continue the pretraining for so many seconds; return whether it has ended."""
        command = [sys.executable, str(ROOT / "tools" / "train.py"), "-c", str(ROOT / "configs/demo/emoji.yaml"),
                   "--resume", "--processes", "2", "-o", f"Data.train=['{self.data}/pretrain.tar']",
                   "-o", "Model.image.weights=null", "-o", "Training.steps=1800",
                   "-o", f"Training.output={self.pretrained}"]  # fmt: skip
        with subprocess.Popen(command, cwd=ROOT) as process:  # noqa: S603  -- a command of this script
            try:
                return process.wait(seconds) == 0
            except subprocess.TimeoutExpired:
                process.terminate()  # it saves a checkpoint
                process.wait()
        return False

    def fine_tune(self, method: str, size: str, seed: int) -> Path:
        """Return the run folder of a fine-tuning."""
        from ernie_vil2.config import load_config
        from ernie_vil2.training.trainer import Trainer

        run = self.folder / "runs" / f"{method.split(' ')[0]}_{size}_{seed}"
        shutil.rmtree(run, ignore_errors=True)  # one that was stopped
        changes, steps = METHODS[method], SIZES[size]
        if changes is None:
            changes, steps = [], SCRATCH_STEPS
        else:
            changes = [f"Model.weights={self.pretrained}", "Schedule.warmup_steps=5", "Schedule.floor=0", *changes]
        trainer = Trainer(load_config(ROOT / "configs/demo/emoji.yaml", [
            f"Data.train=['{self.subset(size, seed)}']", "Data.val=[]", "Training.global_batch=64",
            f"Training.steps={steps}", f"Training.seed={seed}", f"Training.output={run}", "Training.device=cpu",
            "Model.image.weights=null", *changes,
        ]))  # fmt: skip
        trainer.fit()
        return run

    def score(self, model: "ErnieViL2") -> dict[str, float]:
        """Return the two-way mean recall of both tasks, the mean over languages, by the protocol `pairs`."""
        from ernie_vil2.data.readers import open_benchmarks
        from ernie_vil2.data.samples import BadSampleReport
        from ernie_vil2.evaluation.encoded import EncodedBenchmark
        from ernie_vil2.evaluation.protocol import find_protocol, score_embeddings

        if not self._scored:  # all models see the same pixels, so that they are made once
            for task, source in self.tests.items():
                benchmarks = open_benchmarks(source, languages=["zh", "en"], text_id="id")
                pixels = np.stack([model.preprocess(image.read()) for image in benchmarks["zh"].images])
                self._scored[task] = benchmarks, pixels
        found = {}
        for task, (benchmarks, pixels) in self._scored.items():
            images = np.concatenate([model.encode_pixels(part) for part in np.array_split(pixels, len(pixels) // 128)])
            recalls = []
            for benchmark in benchmarks.values():
                texts = model.encode_texts([text.text for text in benchmark.texts])
                encoded = EncodedBenchmark(benchmark, images, texts, BadSampleReport())
                mean_recall = score_embeddings(encoded, find_protocol("pairs")).mean_recall
                if mean_recall is None:
                    raise ValueError(f"{benchmark.name} has no queries in one direction")
                recalls.append(mean_recall)
            found[task] = fmean(recalls)
        return found

    def score_mixtures(self, run: Path, key: str) -> None:
        """Score mixtures of the weights of the pretrained model and of a fine-tuned one."""
        from ernie_vil2.cli.interpolate import mix_weights
        from ernie_vil2.encoder import load_model
        from ernie_vil2.encoder.pretrained import get_network
        from ernie_vil2.models import set_weights
        from ernie_vil2.models.weights.format import read_model

        stored, model = [read_model(self.pretrained), read_model(run)], load_model(run)
        network = get_network(model, "a mixture")
        for share in SHARES:
            if f"{key}/{share}" not in self.scores:
                set_weights(network, mix_weights(stored, [1 - share, share]))
                self.record(f"{key}/{share}", self.score(model))


def split_of(concept: str) -> str:
    """Return the split of a concept: of 20, 6 are held out and 2 are for choosing settings."""
    number = int(hashlib.md5(concept.encode()).hexdigest(), 16) % 20  # noqa: S324  -- a number, not a secret
    return "held_out" if number < 6 else "validation" if number < 8 else "train"


def samples(shard: Path) -> dict[str, list[tuple[str, bytes]]]:
    """Return the members of each sample of a shard, in its order."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    with tarfile.open(shard) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:  # a folder has no content
                found.setdefault(member.name.partition(".")[0], []).append((member.name, file.read()))
    return found


def write_shard(path: Path, chosen: list[list[tuple[str, bytes]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    with tarfile.open(aside, "w") as archive:
        for name, content in (member for members in chosen for member in members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    aside.rename(path)


def jobs(seeds: int):
    """List method, size, seed and key of every fine-tuning, one method after the other."""
    for method in METHODS:
        for seed in range(seeds):
            for size in SIZES:
                yield method, size, seed, f"{method}/{size}/{seed}"


def work(study: Study, seeds: int, minutes: float) -> bool:
    """Do what is missing until the time is up; return whether nothing is missing any more."""
    from ernie_vil2.encoder import load_model

    end = time.monotonic() + 60 * minutes
    study.make_data()
    if "zero-shot" not in study.scores:
        if not study.pretrain(max(1.0, end - time.monotonic() - 30)):
            return False
        study.record("zero-shot", study.score(load_model(study.pretrained)))
    for method, size, seed, key in jobs(seeds):
        wanted = [key, *(f"{key}/{share}" for share in SHARES if method == MIXED)]
        if all(name in study.scores for name in wanted):
            continue
        if time.monotonic() + 80 > end:  # longer than any of them takes
            return False
        run = study.fine_tune(method, size, seed)
        if key not in study.scores:
            study.record(key, study.score(load_model(run)))
        if method == MIXED:
            study.score_mixtures(run, key)
    return True


def spread(values: list[float]) -> str:
    return f"{fmean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def show(study: Study, seeds: int) -> None:
    """Return tables in Markdown: means and standard deviations over the seeds that have been run."""
    before = study.scores["zero-shot"]
    names = {method: [method] for method in METHODS}
    names[MIXED] += [f"{MIXED}, mixed {share:g}" for share in SHARES]
    for task, title in (("new", "New task: drawings of held-out concepts"), ("old", "Old task: the demo's test set")):
        print(f"\n| {title} | " + " | ".join(f"{size} drawings" for size in SIZES) + " |")
        print("|---" + "|---:" * len(SIZES) + "|")
        print("| zero-shot | " + " | ".join(f"{before[task]:.1f}" for _ in SIZES) + " |")
        for method, rows in names.items():
            for name in rows:
                end = f"/{name.rpartition(' ')[2]}" if ", mixed " in name else ""
                cells = []
                for size in SIZES:
                    keys = [f"{method}/{size}/{seed}{end}" for seed in range(seeds)]
                    values = [study.scores[key][task] for key in keys if key in study.scores]
                    cells.append(spread(values) if values else "")
                print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "finetune_study", help="of data, runs, results")
    parser.add_argument("--seeds", type=int, default=3, help="fine-tunings of each kind")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which the command ends")
    parser.add_argument("--table", action="store_true", help="only print what there is")
    args = parser.parse_args()
    runtime.configure()
    study = Study(args.folder.resolve())
    done = args.table or work(study, args.seeds, args.minutes)
    if "zero-shot" in study.scores:
        show(study, args.seeds)
    print("" if done else "\nnot finished: the same command goes on")
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
