"""SugarCrepe (Hsieh et al. 2023, arXiv 2306.14610): does a model distinguish a caption from a wrong one?

Each item is an image of MSCOCO's validation set of 2017 with a caption and a negative caption, in which an object, an
attribute or a relation was replaced, swapped or added. A model answers rightly if the caption scores more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ernie_vil2.data.benchmark import BenchmarkText, Collector
from ernie_vil2.data.readers.layout import ImageFolders
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.data.source_files import read_json
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.examples import Thumbnails
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.evaluation.report import Report
from ernie_vil2.evaluation.scorer import Scorer, ScorerInput
from ernie_vil2.io.terminal import counted
from ernie_vil2.pages import Answer, Card, Table, format_percent

KINDS = ("add_obj", "add_att", "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att")
"""The files `<kind>.json`, in the order of the authors' evaluation."""
IMAGE_FOLDERS = ("val2017", "coco/images/val2017")
DEFINITION = (
    "SugarCrepe: percent of the items whose caption scores more than its negative caption; equal scores are wrong, as "
    "in the authors' evaluation. Scores are dot products of the embeddings. The mean is that of the kinds."
)


class Item(NamedTuple):
    """A caption and a wrong one of an image, by its id."""

    id: str
    kind: str
    image: str
    caption: str
    negative: str


@dataclass
class SugarCrepe(Scorer):
    """Scores a dual encoder on the kinds that the folder holds; its best checkpoint is that of the best mean.

    Attributes:
        title: what the model is called in the table.
    """

    title: str = "model"
    folder: ClassVar[str] = "composition"
    best_by = "mean"

    @classmethod
    def recognises(cls, path: Path, layout: str | None) -> bool:
        return any((path / name).is_file() for name in ("swap_obj.json", "replace_rel.json"))

    def open(self, data: DataSpec) -> ScorerInput:
        """Open the images and both texts of all items.

        Raises:
            FileNotFoundError: none of the images is found.
            ValueError: the folder holds no file of a kind, or no item of them can be used.
        """
        home = Path(data.paths[0])
        files = [path for kind in KINDS if (path := home / f"{kind}.json").is_file()]
        if not files:
            raise ValueError(
                f"{home}: no file of SugarCrepe here; it has {', '.join(f'{kind}.json' for kind in KINDS)}"
            )
        folders = ImageFolders([data.image_folder] if data.image_folder else [home, home.parent], IMAGE_FOLDERS)
        collector, items = Collector(), list[Item]()
        for path in files:
            for number, row in read_json(path, dict).items():
                with collector.entry():
                    item = _item(path.stem, number, row)
                    collector.add_image(folders.get_image(item.image, item.image), item.image)
                    for text in (item.caption, item.negative):
                        collector.add_text(BenchmarkText(text, text))
                    collector.add_pair(item.image, item.caption)
                    items.append(item)
        benchmark = collector.make_benchmark("sugar-crepe", files)
        folders.check_images(benchmark.images)
        return ScorerInput(data, {"": benchmark}, items)

    def score(self, opened: ScorerInput, encoded: Mapping[str, EncodedBenchmark], model: ErnieViL2 | None) -> Report:
        """Score each kind in percent, and their mean."""
        (one,) = encoded.values()
        images, texts = (
            {row.id: number for number, row in enumerate(side)} for side in (one.benchmark.images, one.benchmark.texts)
        )
        items = [item for item in opened.context if item.image in images]
        if not items:
            raise ValueError(f"SugarCrepe: no item could be scored\n{one.bad_samples}")
        asked = one.image_embeddings[[images[item.image] for item in items]].astype(np.float64)
        right, wrong = (
            np.einsum("nd,nd->n", asked, one.text_embeddings[[texts[text] for text in side]].astype(np.float64))
            for side in ([item.caption for item in items], [item.negative for item in items])
        )
        scores = np.stack([right, wrong], axis=1)
        hit = 100.0 * (scores[:, 0] > scores[:, 1])
        kinds = np.array([item.kind for item in items])
        names = [kind for kind in KINDS if (kinds == kind).any()]
        metrics = {kind: float(hit[kinds == kind].mean()) for kind in names}
        metrics["mean"] = fmean(metrics.values())
        notes = [f"{counted(len(items), 'item')} of {len(opened.context):,} scored", DEFINITION]
        notes += [f"images: {one.bad_samples}"] * bool(one.bad_samples.counts)
        columns, cells = [name.replace("_", " ") for name in metrics], list(map(format_percent, metrics.values()))
        return Report(
            metrics,
            [Table(columns, [(self.title, cells)])],
            {"items": len(items), "results": metrics, "definition": DEFINITION, "encoded": one.bad_samples.as_dict()},
            ("id", "kind", "image", "caption", "negative_caption", "score", "negative_score", "right"),
            ([*item, *pair, int(pair[0] > pair[1])] for item, pair in zip(items, scores.tolist(), strict=True)),
            best_by=self.best_by,
            sizes=f"{counted(len(one.image_embeddings), 'image')}, {counted(len(one.text_embeddings), 'text')}",
            notes=notes,
            make_outcomes=lambda: {"": outcomes(items, one, scores)},
        )


def _item(kind: str, number: str, row: object) -> Item:
    keys = ("filename", "caption", "negative_caption")
    values: list[Any] = [row.get(key) for key in keys] if isinstance(row, dict) else []
    if not values or not all(isinstance(value, str) for value in values):
        raise BadSample(Reason.MALFORMED_ROW, f"{kind}.json, {number}")
    image, caption, negative = values
    return Item(f"{kind}/{number}", kind, image, caption.strip(), negative.strip())


def outcomes(items: Sequence[Item], encoded: EncodedBenchmark, scores: np.ndarray) -> Outcomes:
    """Which items were answered rightly; those of an image are drawn together.

    Args:
        scores: `[N, 2]`, of the caption and of the negative one.
    """
    hit, kinds = 100.0 * (scores[:, 0] > scores[:, 1]), np.array([item.kind for item in items])
    images, thumbnails = {image.id: image for image in encoded.benchmark.images}, Thumbnails()

    def cards(chosen: Sequence[int]) -> list[Card]:
        made = []
        for row in chosen:
            texts = zip(items[row][3:], scores[row].tolist(), (True, False), strict=True)
            answers = sorted((Answer(*text) for text in texts), key=lambda answer: -answer.score)
            image = images[items[row].image]
            made.append(Card(image.id, answers, thumbnails(image), [items[row].kind]))
        return made

    figures = {kind: np.where(kinds == kind, hit, np.nan) for kind in KINDS if (kinds == kind).any()}
    return Outcomes(
        query_ids=[item.id for item in items],
        figures={**figures, "mean": hit},
        main_figure="mean",
        clusters=np.unique([item.image for item in items], return_inverse=True)[1],
        ranks=np.where(hit > 0, 1, 2),
        groups={"mean": np.unique(kinds, return_inverse=True)[1]},
        texts=[item.caption for item in items],
        fields=[{"kind": item.kind} for item in items],
        make_cards=cards,
    )
