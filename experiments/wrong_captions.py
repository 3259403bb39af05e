"""Find wrong captions with models that learn from the same pairs, but never score a pair that they have learnt.

    python -m experiments.wrong_captions                             # 60 % of the demo's drawings get a wrong caption
    python -m experiments.wrong_captions --wrong 0.3 --keep 0.7 --learn 0.75 --output runs/wrong_captions_30
    python tools/study.py configs/ablation/wrong_captions.yaml       # measure what that does to training

The pairs are divided into folds. For each fold a model is trained on the others, and scores the fold in the step
`score` of a curation. In further rounds models are trained on the better part of the other folds, by the scores of the
round before. After each round the command prints how well the scores find wrong pairs.

The output holds `noisy.tar`; for each round its models, and `round-N`, the curation for `Data.select`; `right.tar`, as
many right pairs as the last curation keeps; and `scores.csv`. If it is stopped, the same command continues.
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
from experiments.ablation.runs import train
from experiments.ablation.tables import Table, format_markdown

# Fields that a wrong pair takes from another drawing.
TEXT_FIELDS = ("id", "caption_zh", "caption_en", "tags_zh", "tags_en")
DRAWN = "drawn"  # field with the text name of what the image shows
SCORES: Mapping[str, Mapping[str, Any]] = {
    "captions": {},
    "captions and tags": {"tags": True},
    "captions, tags and neighbours": {"tags": True, "neighbours": 10},
}
"""Settings of the step `score` by the name of the score; the last one decides."""
QUARTER = 0.25  # share of the best pairs that is reported, besides the share that a curation keeps
NOISE_SEED, CHOICE_SEED = 60, 0


def exchange_texts(samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Give a share of the samples the texts of another concept; the field `drawn` names what the image shows.

    Texts are exchanged among these samples, so that each stays as frequent as before.

    Raises:
        ValueError: more than half of these samples are of one concept, so that some keep their texts.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(samples))[: round(share * len(samples))]
    text_names = np.array([sample.text_name for sample in samples])
    _, counts = np.unique(text_names[chosen], return_counts=True)
    if counts.max(initial=0) > len(chosen) / 2:
        raise ValueError(f"{len(chosen)} of {len(samples)} samples are too few, or too much alike, to exchange texts")
    text_rows = rng.permutation(chosen)
    while True:
        # Those that got a text of their own concept exchange it with any others.
        unchanged = np.flatnonzero(text_names[chosen] == text_names[text_rows])
        if not unchanged.size:
            break
        partners = rng.integers(len(text_rows), size=unchanged.size)
        for place, partner in zip(unchanged, partners, strict=True):
            text_rows[[place, partner]] = text_rows[[partner, place]]
    text_row_of = dict(zip(chosen.tolist(), text_rows.tolist(), strict=True))
    return [_replace_texts(sample, samples[text_row_of.get(row, row)]) for row, sample in enumerate(samples)]


def _replace_texts(image: Sample, texts: Sample) -> Sample:
    """Return the image of one sample with the texts of another one."""
    fields = dict(image.fields)
    for name in TEXT_FIELDS:
        fields[name] = texts.fields[name]
    fields[DRAWN] = image.text_name
    return Sample(image.image_name, texts.text_name, image.image, texts.captions, texts.tags, fields)


def find_right(samples: Sequence[Sample]) -> np.ndarray:
    """Return which samples have the texts of what their image shows, `[N]` bool."""
    return np.array([sample.fields["id"] == sample.fields[DRAWN] for sample in samples])


def write_shard(path: Path, samples: Sequence[Sample]) -> None:
    """Write samples into a tar shard."""
    with atomic_write(path) as temporary_path, tarfile.open(temporary_path, "w") as archive:
        for sample in samples:
            write_sample(archive, sample.image_name, "webp", sample.image, dict(sample.fields))


def compute_auc(scores: np.ndarray, is_right: np.ndarray) -> float:
    """Return the probability that a right pair scores above a wrong one: the area under the ROC curve.

    Args:
        scores: scores without ties, `[N]`.
        is_right: which pairs are right, `[N]` bool.
    """
    ranks = scores.argsort().argsort() + 1.0
    num_right = is_right.sum()
    num_ordered = ranks[is_right].sum() - num_right * (num_right + 1) / 2
    return float(num_ordered / (num_right * (len(is_right) - num_right)))


def choose_best(scores: np.ndarray, share: float) -> np.ndarray:
    """Return which pairs belong to the share that scores best, `[N]` bool."""
    is_chosen = np.zeros(len(scores), bool)
    is_chosen[np.argsort(-scores, kind="stable")[: round(share * len(scores))]] = True
    return is_chosen


class CrossScoring:
    """Rounds in which models score the pairs that they have not learnt.

    Args:
        source: all pairs.
        config: configuration of the trainings, but for data and output.
        num_folds: number of folds.
        keep: share of the pairs that a curation keeps.
        folder: folder of shards, models and curations.

    Attributes:
        samples: all pairs.
    """

    def __init__(self, source: ShardedSource, config: Config, num_folds: int, keep: float, folder: Path):
        self._source, self._config, self._num_folds = source, config, num_folds
        self._keep, self._folder = keep, folder
        self.samples = [source[row] for row in range(len(source))]
        ids = [hash_id(f"{sample.image_name}\n{sample.text_name}", sample.image) for sample in self.samples]
        # The step score gives these folds to several models.
        self._folds = np.array([pair_id % num_folds for pair_id in ids])

    def score(self, round_number: int, is_learnt: np.ndarray) -> dict[str, np.ndarray]:
        """Return each of `SCORES` for all pairs, `[N]`.

        Args:
            round_number: number of the round, in the names of its models and its curation.
            is_learnt: pairs that models learn unless they score them, `[N]` bool.
        """
        models = []
        for fold in range(self._num_folds):
            name = f"round-{round_number}-fold-{fold}"
            shard = self._folder / f"{name}.tar"
            rows = np.flatnonzero(is_learnt & (self._folds != fold))
            write_shard(shard, [self.samples[row] for row in rows])
            models.append(str(train(self._configure(shard, self._folder / name))))
        output = self._folder / f"round-{round_number}"
        return {name: self._curate(output, models, settings) for name, settings in SCORES.items()}

    def _configure(self, shard: Path, output: Path) -> Config:
        tree = self._config.model_dump()
        tree["Data"]["train"], tree["Training"]["output"] = [str(shard)], str(output)
        return Config.model_validate(tree)

    def _curate(self, output: Path, models: Sequence[str], settings: Mapping[str, Any]) -> np.ndarray:
        """Curate all pairs by their scores alone, and return the scores, `[N]`."""
        step_settings = {"model": models, "by": "quantile", "keep": self._keep, **settings}
        curate(self._source, [Score(Settings.model_validate(step_settings))], output)
        table = dataset.dataset(output / TABLE).to_table(["sample", "score"]).sort_by("sample")
        return table["score"].to_numpy()


def format_report(rounds: Sequence[Mapping[str, np.ndarray]], is_right: np.ndarray, shares: Sequence[float]) -> str:
    """Return a table in Markdown: of each score the AUC, and which percentage of the best pairs is right.

    Args:
        rounds: scores of each round, by name.
        is_right: which pairs are right, `[N]` bool.
        shares: shares of the pairs that score best.
    """
    columns = ["round", "score", "AUC", *(f"right of the best {share:.0%}" for share in shares)]
    rows = []
    for number, scores_by_name in enumerate(rounds, 1):
        for name, scores in scores_by_name.items():
            cells = [str(number), name, f"{compute_auc(scores, is_right):.3f}"]
            for share in shares:
                cells.append(f"{100 * is_right[choose_best(scores, share)].mean():.1f}")
            rows.append(cells)
    return format_markdown(Table("Wrong captions found", columns, rows))


def write_scores(path: Path, samples: Sequence[Sample], is_right: np.ndarray, scores: np.ndarray) -> None:
    """Write a CSV file with key, truth and score of each pair."""
    with atomic_write(path) as temporary_path, temporary_path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["key", "right", "score"])
        for sample, sample_is_right, score in zip(samples, is_right, scores, strict=True):
            table.writerow([sample.image_name, int(sample_is_right), f"{score:.5f}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo_data/emoji-train.tar", help="shard of drawings")
    parser.add_argument("--output", type=Path, default=Path("runs/wrong_captions"), metavar="FOLDER")
    parser.add_argument("--wrong", type=float, default=0.6, help="share of the pairs that get texts of another")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--learn", type=float, default=0.5, help="share of the pairs that further rounds learn from")
    parser.add_argument("--keep", type=float, default=0.4, help="share of the pairs that stay")
    parser.add_argument("-c", "--config", default="configs/ablation/wrong_base.yaml", metavar="FILE")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="Section.key=value")
    args = parser.parse_args(arguments)
    runtime.configure()

    args.output.mkdir(parents=True, exist_ok=True)
    noisy_shard = args.output / "noisy.tar"
    if not noisy_shard.exists():
        drawings = open_sources([args.data], text_id="id")
        samples = [drawings[row] for row in range(len(drawings))]
        write_shard(noisy_shard, exchange_texts(samples, args.wrong, NOISE_SEED))
    source = open_sources([str(noisy_shard)], text_id="id")
    config = load_config(args.config, args.override)
    cross_scoring = CrossScoring(source, config, args.folds, args.keep, args.output)
    samples = cross_scoring.samples
    is_right = find_right(samples)
    num_wrong = len(samples) - int(is_right.sum())
    if num_wrong != round(args.wrong * len(samples)):
        raise SystemExit(
            f"error: {noisy_shard} has {num_wrong} wrong pairs of {len(samples)}, not the share of --wrong "
            f"{args.wrong}: name another folder as --output"
        )

    is_learnt = np.ones(len(samples), bool)
    rounds: list[dict[str, np.ndarray]] = []
    for number in range(1, args.rounds + 1):
        rounds.append(cross_scoring.score(number, is_learnt))
        scores = list(rounds[-1].values())[-1]
        is_learnt = choose_best(scores, args.learn)
        print(format_report(rounds, is_right, (args.keep, QUARTER)), flush=True)

    num_kept = choose_best(scores, args.keep).sum()
    right_rows = np.random.default_rng(CHOICE_SEED).permutation(np.flatnonzero(is_right))[:num_kept]
    write_shard(args.output / "right.tar", [samples[row] for row in np.sort(right_rows)])
    write_scores(args.output / "scores.csv", samples, is_right, scores)
    return 0


if __name__ == "__main__":
    sys.exit(main())
