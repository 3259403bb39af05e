"""A source of samples as a retrieval benchmark: its images, its texts, and which belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ernie_vil2.data.loader import evaluation_batches
from ernie_vil2.data.samples import BadSampleReport, Sample
from ernie_vil2.data.sources import Source
from ernie_vil2.evaluation.encoder import Encoder
from ernie_vil2.evaluation.retrieval import RetrievalResult, chance, evaluate_retrieval, recall

PROTOCOL = (
    "every distinct image against every distinct caption; an answer is right when some sample holds both; "
    "images are distinct by name, captions by text name"
)


@dataclass(frozen=True)
class RetrievalSet:
    """Embedded images `[N, D]` and captions `[M, D]` with the pairs `[P, 2]` (image row, caption row).

    `image_samples` and `captions` say what stands in each row, `text_samples` where a caption comes from.
    """

    images: np.ndarray
    texts: np.ndarray
    pairs: np.ndarray
    image_samples: list[Sample]
    text_samples: list[Sample]
    captions: list[str]
    bad_samples: BadSampleReport


@dataclass(frozen=True)
class Evaluation:
    """A scored benchmark."""

    benchmark: RetrievalSet
    result: RetrievalResult

    def of_queries(self, field: str, value: str) -> RetrievalResult:
        """The recall of those queries alone whose sample has this value in a field; the galleries stay whole.

        Raises:
            ValueError: no sample has it.
        """
        benchmark, result = self.benchmark, self.result
        images = [row for row, sample in enumerate(benchmark.image_samples) if str(sample.fields.get(field)) == value]
        texts = [row for row, sample in enumerate(benchmark.text_samples) if str(sample.fields.get(field)) == value]
        if not images or not texts:
            known = {str(sample.fields[field]) for sample in benchmark.image_samples if field in sample.fields}
            raise ValueError(f"no sample has {field} = {value}; values here: {', '.join(sorted(known)[:10]) or 'none'}")
        texts_of_image, images_of_text = (np.bincount(side) for side in benchmark.pairs.T)
        return replace(
            result,
            image_to_text=recall(result.image_ranks[images]),
            text_to_image=recall(result.text_ranks[texts]),
            chance={
                "image_to_text": chance(texts_of_image[images], result.texts),
                "text_to_image": chance(images_of_text[texts], result.images),
            },
            image_ranks=result.image_ranks[images],
            text_ranks=result.text_ranks[texts],
        )


def embed_source(
    encoder: Encoder, source: Source, language: str, progress: Callable[[int], object] = lambda rows: None
) -> RetrievalSet:
    """Embeds the images of a source and their captions in one language.

    Args:
        progress: called with the number of rows just done.

    Raises:
        ValueError: no sample could be used.
    """
    image_rows: dict[str, int] = {}
    text_rows: dict[str, int] = {}
    image_samples, text_samples, captions, embeddings = [], [], [], []
    pairs: dict[tuple[int, int], None] = {}
    report = BadSampleReport()
    for batch in evaluation_batches(source, range(len(source)), language, encoder.image_size, encoder.batch_size):
        report.add(batch["rows"], batch["bad"])
        new = []
        for place, sample in enumerate(batch["samples"]):
            if sample.image_name not in image_rows:
                image_rows[sample.image_name] = len(image_rows)
                image_samples.append(sample)
                new.append(place)
            if sample.text_name not in text_rows:
                text_rows[sample.text_name] = len(text_rows)
                text_samples.append(sample)
                captions.append(sample.caption(language))
            pairs[image_rows[sample.image_name], text_rows[sample.text_name]] = None
        if new:
            embeddings.append(encoder.encode_images(batch["image"][new]))
        progress(batch["rows"])
    if not pairs:
        raise ValueError(f"no sample could be used: {report}")
    return RetrievalSet(
        np.concatenate(embeddings),
        encoder.encode_texts(captions),
        np.array(list(pairs)),
        image_samples,
        text_samples,
        captions,
        report,
    )


def evaluate_source(
    encoder: Encoder,
    source: Source,
    language: str,
    block: int = 1024,
    progress: Callable[[int], object] = lambda rows: None,
) -> Evaluation:
    """Embeds a source and scores retrieval in both directions by `PROTOCOL`; see `embed_source`."""
    benchmark = embed_source(encoder, source, language, progress)
    return Evaluation(benchmark, evaluate_retrieval(benchmark.images, benchmark.texts, benchmark.pairs, block))
