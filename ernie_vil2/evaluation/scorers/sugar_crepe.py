"""SugarCrepe (Hsieh et al. 2023, arXiv 2306.14610): does a model distinguish a caption from a wrong one?

Each item is an image of MSCOCO's validation set of 2017 with a caption and a negative caption, in which an object, an
attribute or a relation was replaced, swapped or added. A model is right if the caption scores higher.
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
from ernie_vil2.encoder import Encoder
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.examples import Thumbnails
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.evaluation.report import Report
from ernie_vil2.evaluation.scorer import Scorer, ScorerInput
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.pages import Answer, Card, Table, format_percent

# Kinds of items, each with a file `<kind>.json`, in the order of the authors' evaluation.
KINDS = ("add_obj", "add_att", "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att")
# Folders of the images below the folder of the annotations, or next to it.
IMAGE_FOLDERS = ("val2017", "coco/images/val2017")
DEFINITION = (
    "SugarCrepe: percent of the items whose caption scores more than its negative caption; equal scores are wrong, as "
    "in the authors' evaluation. Scores are dot products of the embeddings. The mean is that of the kinds."
)


class Item(NamedTuple):
    """An image, by its id, with a caption and a negative caption."""

    id: str
    kind: str
    image: str
    caption: str
    negative: str


@dataclass
class SugarCrepe(Scorer):
    """Scores a dual encoder on all kinds that the folder holds; the best checkpoint has the best mean over them.

    Attributes:
        title: name of the model in the table.
    """

    title: str = "model"
    folder: ClassVar[str] = "composition"
    best_by = "mean"

    @classmethod
    def recognises(cls, path: Path, layout: str | None) -> bool:
        # These two files are enough to tell the data set; a folder may lack the other kinds.
        return any((path / name).is_file() for name in ("swap_obj.json", "replace_rel.json"))

    def open(self, data: DataSpec) -> ScorerInput:
        """Open the images and both captions of all items.

        Raises:
            FileNotFoundError: none of the images exists.
            ValueError: the folder holds no file of a kind, or none of the items can be used.
        """
        folder = Path(data.paths[0])
        paths = [folder / f"{kind}.json" for kind in KINDS]
        files = [path for path in paths if path.is_file()]
        if not files:
            raise ValueError(f"{folder}: no file of SugarCrepe here; it has {', '.join(path.name for path in paths)}")
        image_folders = [data.image_folder] if data.image_folder else [folder, folder.parent]
        images = ImageFolders(image_folders, IMAGE_FOLDERS)
        collector, items = Collector(), list[Item]()
        for path in files:
            for key, row in read_json(path, dict).items():
                # A malformed row is counted and left out.
                with collector.entry():
                    item = _parse_item(path.stem, key, row)
                    collector.add_image(images.get_image(item.image, item.image), item.image)
                    for text in (item.caption, item.negative):
                        collector.add_text(BenchmarkText(text, text))
                    collector.add_pair(item.image, item.caption)
                    items.append(item)
        benchmark = collector.make_benchmark("sugar-crepe", files)
        images.check_images(benchmark.images)
        return ScorerInput(data, {"": benchmark}, items)

    def score(self, inputs: ScorerInput, encoded: Mapping[str, EncodedBenchmark], model: Encoder | None) -> Report:
        """Report the accuracy of each kind in percent, and the mean over the kinds."""
        (embeddings,) = encoded.values()
        bad_samples = embeddings.bad_samples
        image_rows, text_rows = embeddings.index_rows("image"), embeddings.index_rows("text")
        items = [item for item in inputs.context if item.image in image_rows]
        if not items:
            raise ValueError(f"SugarCrepe: no item could be scored\n{bad_samples}")

        # Dot products in float64, like the scores of ranking.py.
        images = embeddings.image_embeddings[[image_rows[item.image] for item in items]].astype(np.float64)
        captions = embeddings.text_embeddings[[text_rows[item.caption] for item in items]].astype(np.float64)
        negatives = embeddings.text_embeddings[[text_rows[item.negative] for item in items]].astype(np.float64)
        caption_scores = np.einsum("nd,nd->n", images, captions)
        negative_scores = np.einsum("nd,nd->n", images, negatives)
        scores = np.stack([caption_scores, negative_scores], axis=1)  # [N, 2]

        # Kinds differ in their number of items: the mean is over the kinds, not over the items.
        right_percent = 100.0 * (caption_scores > negative_scores)
        kind_of_item = np.array([item.kind for item in items])
        metrics = {}
        for kind in KINDS:
            if (kind_of_item == kind).any():
                metrics[kind] = float(right_percent[kind_of_item == kind].mean())
        metrics["mean"] = fmean(metrics.values())

        notes = [f"{pluralize(len(items), 'item')} of {len(inputs.context):,} scored", DEFINITION]
        if bad_samples.counts:
            notes.append(f"images: {bad_samples}")
        columns = [name.replace("_", " ") for name in metrics]
        cells = [format_percent(value) for value in metrics.values()]
        record = {"items": len(items), "results": metrics, "definition": DEFINITION, "encoded": bad_samples.as_dict()}
        rows = []
        for item, (caption_score, negative_score) in zip(items, scores.tolist(), strict=True):
            rows.append([*item, caption_score, negative_score, int(caption_score > negative_score)])
        num_images, num_texts = len(embeddings.image_embeddings), len(embeddings.text_embeddings)
        return Report(
            metrics,
            tables=[Table(columns, [(self.title, cells)])],
            record=record,
            csv_columns=("id", "kind", "image", "caption", "negative_caption", "score", "negative_score", "right"),
            csv_rows=rows,
            best_by=self.best_by,
            sizes=f"{pluralize(num_images, 'image')}, {pluralize(num_texts, 'text')}",
            notes=notes,
            make_outcomes=lambda: {"": make_outcomes(items, embeddings, scores)},
        )


def _parse_item(kind: str, key: str, row: object) -> Item:
    """Parse a row of the file of a kind, where it stands under a key; raise BadSample if it is malformed."""
    values: list[Any] = []
    if isinstance(row, dict):
        values = [row.get(name) for name in ("filename", "caption", "negative_caption")]
    if not values or not all(isinstance(value, str) for value in values):
        raise BadSample(Reason.MALFORMED_ROW, f"{kind}.json, {key}")
    image, caption, negative = values
    return Item(f"{kind}/{key}", kind, image, caption.strip(), negative.strip())


def make_outcomes(items: Sequence[Item], encoded: EncodedBenchmark, scores: np.ndarray) -> Outcomes:
    """Return the outcomes of the items; those of one image form a cluster.

    Args:
        items: items that were scored.
        encoded: embeddings of the benchmark.
        scores: `[N, 2]`, score of the caption and of the negative caption of each item.
    """
    right_percent = 100.0 * (scores[:, 0] > scores[:, 1])
    kind_of_item = np.array([item.kind for item in items])
    outcomes = {}
    for kind in KINDS:
        if (kind_of_item == kind).any():
            outcomes[kind] = np.where(kind_of_item == kind, right_percent, np.nan)
    images = {image.id: image for image in encoded.benchmark.images}
    thumbnails = Thumbnails()

    def make_cards(numbers: Sequence[int]) -> list[Card]:
        cards = []
        for number in numbers:
            item = items[number]
            caption_score, negative_score = scores[number].tolist()
            answers = [Answer(item.caption, caption_score, True), Answer(item.negative, negative_score, False)]
            # A stable sort: with equal scores the caption stays first, although such an item counts as wrong.
            answers.sort(key=lambda answer: answer.score, reverse=True)
            image = images[item.image]
            cards.append(Card(image.id, answers, thumbnails(image), [item.kind]))
        return cards

    return Outcomes(
        query_ids=[item.id for item in items],
        figures={**outcomes, "mean": right_percent},
        main_figure="mean",
        clusters=np.unique([item.image for item in items], return_inverse=True)[1],
        ranks=np.where(right_percent > 0, 1, 2),
        groups={"mean": np.unique(kind_of_item, return_inverse=True)[1]},
        texts=[item.caption for item in items],
        fields=[{"kind": item.kind} for item in items],
        make_cards=make_cards,
    )
