"""Wrong captions found by models that learnt from the same pairs, where no pair is judged by a model that learnt it.

    python -m experiments.wrong_captions                             # the demo's drawings, 60 % with a wrong caption
    python -m experiments.wrong_captions --wrong 0.3 --keep 0.7 --learn 0.75 --output runs/wrong_captions_30
    python tools/study.py configs/ablation/wrong_captions.yaml       # what that does to training

The pairs are dealt to folds. For each fold a model is trained on the others, and the step `score` of a curation scores
with it the pairs of its own; in a further round the models are trained on the better part of the others, as the round
before has it. The command prints how well the scores of each round find the wrong pairs. The output has `noisy.tar`;
for each round its models and `round-N`, the curation's output, for `Data.select`; `right.tar`, as many of the right
pairs as the last of these keeps; and `scores.csv`. Stopped, it goes on.
"""

import argparse
import csv
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import dataset

from ernie_vil2.apps.curation import curate
from ernie_vil2.apps.curation.steps.score import Score, Settings
from ernie_vil2.config import Config, load_config
from ernie_vil2.data.prepare import write_sample
from ernie_vil2.data.readers import ShardedSource, open_sources
from ernie_vil2.data.samples import Sample, hash_id
from ernie_vil2.data.selection import TABLE
from ernie_vil2.device import runtime
from ernie_vil2.io.files import atomic_write
from experiments.ablation.runs import trained
from experiments.ablation.tables import Table, as_markdown

GIVEN = ("id", "caption_zh", "caption_en", "tags_zh", "tags_en")  # fields that a wrong pair has of another drawing
KINDS: Mapping[str, Mapping[str, Any]] = {
    "captions": {},
    "captions and tags": {"tags": True},
    "captions, tags and neighbours": {"tags": True, "neighbours": 10},
}
"""Of scores, with the settings of the step; the last one counts."""
QUARTER = 0.25  # share of the pairs whose best are looked at, next to those that a curation keeps


def with_wrong_texts(samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """The samples, of which this share has the texts of another concept; the field `drawn` keeps the image's own.

    The texts are dealt among these samples, so that each is as frequent as before.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(samples))[: round(share * len(samples))]
    names = np.array([sample.text_name for sample in samples])
    givers = rng.permutation(chosen)
    while (same := np.flatnonzero(names[chosen] == names[givers])).size:  # these trade with any others
        for one, other in zip(same, rng.integers(len(givers), size=same.size), strict=True):
            givers[[one, other]] = givers[[other, one]]
    of = dict(zip(chosen.tolist(), givers.tolist(), strict=True))
    return [_with_texts_of(sample, samples[of.get(row, row)]) for row, sample in enumerate(samples)]


def _with_texts_of(image: Sample, texts: Sample) -> Sample:
    fields = {**image.fields, **{name: texts.fields[name] for name in GIVEN}, "drawn": image.text_name}
    return Sample(image.image_name, texts.text_name, image.image, texts.captions, texts.tags, fields)


def right(samples: Sequence[Sample]) -> np.ndarray:
    """`[N]` bool: the texts are those of what is drawn."""
    return np.array([sample.fields["id"] == sample.fields["drawn"] for sample in samples])


def write_shard(path: Path, samples: Sequence[Sample]) -> None:
    """Writes a tar shard, whole or not at all."""
    with atomic_write(path) as aside, tarfile.open(aside, "w") as archive:
        for sample in samples:
            write_sample(archive, sample.image_name, "webp", sample.image, dict(sample.fields))


def area(scores: np.ndarray, truth: np.ndarray) -> float:
    """The area under the ROC curve: the probability that a right pair scores above a wrong one, without ties."""
    ranks = scores.argsort().argsort() + 1.0
    positives = truth.sum()
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * (len(truth) - positives)))


def best(scores: np.ndarray, share: float) -> np.ndarray:
    """`[N]` bool: the pairs of this share that score best."""
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-scores, kind="stable")[: round(share * len(scores))]] = True
    return chosen


class CrossScoring:
    """Rounds of models that score what they have not learnt, of the pairs of a shard, dealt to folds.

    The training is that of `config`, with data and output in `folder`; `keep` is the share that a curation keeps.
    """

    def __init__(self, source: ShardedSource, config: Config, folds: int, keep: float, folder: Path):
        self.source, self.config, self.keep, self.folder = source, config, keep, folder
        self.samples = [source[row] for row in range(len(source))]
        ids = [hash_id(f"{sample.image_name}\n{sample.text_name}", sample.image) for sample in self.samples]
        self.folds = np.array([pair % folds for pair in ids])  # as of `score.model` of a curation with as many models

    def round(self, number: int, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """By kind the scores of all pairs, `[N]` each, by models that learnt the chosen pairs of other folds."""
        models = []
        for fold in range(self.folds.max() + 1):
            name = f"round-{number}-fold-{fold}"
            learnt = chosen & (self.folds != fold)
            shard = self.folder / f"{name}.tar"
            write_shard(shard, [sample for sample, is_learnt in zip(self.samples, learnt, strict=True) if is_learnt])
            models.append(str(trained(on_shard(self.config, shard, self.folder / name))))
        return {kind: self._scores(self.folder / f"round-{number}", models, own) for kind, own in KINDS.items()}

    def _scores(self, output: Path, models: Sequence[str], settings: Mapping[str, Any]) -> np.ndarray:
        own = Settings.model_validate({"model": models, "by": "quantile", "keep": self.keep, **settings})
        curate(self.source, [Score(own)], output)
        table = dataset.dataset(output / TABLE).to_table(["sample", "score"]).sort_by("sample")
        return table["score"].to_numpy()


def on_shard(config: Config, shard: Path, folder: Path) -> Config:
    """The configuration of a run on a shard."""
    tree = config.model_dump()
    tree["Data"]["train"], tree["Training"]["output"] = [str(shard)], str(folder)
    return Config.model_validate(tree)


def report(rounds: Sequence[Mapping[str, np.ndarray]], truth: np.ndarray, shares: Sequence[float]) -> str:
    """A table in Markdown of the area under the curve, and of the best pairs the share that is right, in percent."""
    columns, rows = ["round", "score", "AUC", *(f"right of the best {share:.0%}" for share in shares)], []
    for number, kinds in enumerate(rounds, 1):
        for kind, scores in kinds.items():
            found = [f"{100 * truth[best(scores, share)].mean():.1f}" for share in shares]
            rows.append([str(number), kind, f"{area(scores, truth):.3f}", *found])
    return as_markdown(Table("Wrong captions found", columns, rows))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo_data/emoji-train.tar", help="shard of drawings")
    parser.add_argument("--output", type=Path, default=Path("runs/wrong_captions"), metavar="FOLDER")
    parser.add_argument("--wrong", type=float, default=0.6, help="share of the pairs with texts of another")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--learn", type=float, default=0.5, help="share of the pairs that further rounds learn from")
    parser.add_argument("--keep", type=float, default=0.4, help="share of the pairs that stay")
    parser.add_argument("-c", "--config", default="configs/ablation/wrong_base.yaml", metavar="FILE")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="Section.key=value")
    args = parser.parse_args(arguments)
    runtime.configure()

    args.output.mkdir(parents=True, exist_ok=True)
    noisy = args.output / "noisy.tar"
    if not noisy.exists():
        source = open_sources([args.data], text_id="id")
        write_shard(noisy, with_wrong_texts([source[row] for row in range(len(source))], args.wrong, seed=60))
    source = open_sources([str(noisy)], text_id="id")
    scoring = CrossScoring(source, load_config(args.config, args.override), args.folds, args.keep, args.output)
    truth, rounds = right(scoring.samples), list[dict[str, np.ndarray]]()
    chosen = np.ones(len(truth), bool)
    for number in range(1, args.rounds + 1):
        rounds.append(scoring.round(number, chosen))
        scores = list(rounds[-1].values())[-1]
        chosen = best(scores, args.learn)
        print(report(rounds, truth, (args.keep, QUARTER)), flush=True)
    some = np.random.default_rng(0).permutation(np.flatnonzero(truth))[: best(scores, args.keep).sum()]
    write_shard(args.output / "right.tar", [scoring.samples[row] for row in np.sort(some)])
    with atomic_write(args.output / "scores.csv") as aside, aside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["key", "right", "score"])
        table.writerows(
            [sample.image_name, int(is_right), f"{score:.5f}"]
            for sample, is_right, score in zip(scoring.samples, truth, scores, strict=True)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
