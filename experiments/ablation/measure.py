"""What a trained model of a study is measured by: retrieval between and within the modalities, and alignment and
uniformity, the two properties of Wang and Isola (arXiv 2005.10242).

All figures are by name, `<test>/<measure>`; recalls and mean recalls (mR) in percent.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers import open_benchmarks, open_sources
from ernie_vil2.data.samples import BadSample
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.encoded import EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.retrieval import Matching, evaluate_retrieval, mean_recall, score_matchings
from experiments.ablation.definition import FURTHER, Definition

ALL = "all"  # the name of figures over all tests together


class Tests(NamedTuple):
    """What is scored: benchmarks by name, the same images with further captions by what these are, the digests of all,
    and the names of concepts in a second language."""

    benchmarks: Mapping[str, Benchmark]
    further: Mapping[str, Mapping[str, Benchmark]]
    digests: Mapping[str, str]
    second: Mapping[str, str]


def open_tests(definition: Definition) -> Tests:
    """Opens the tests of a study."""
    benchmarks, digests = {}, {}
    further: dict[str, dict[str, Benchmark]] = {}
    for name, test in definition.tests.items():
        found = open_benchmarks(test.data, languages=[definition.language, *definition.further.values()])
        benchmarks[name] = found[definition.language]
        further[name] = {what: found[language] for what, language in definition.further.items()}
        digests[name] = _digest(test.data)
    names = {}
    if definition.drawings:
        names = names_of(definition.drawings, definition.language, definition.second)
        digests["drawings"] = _digest([definition.drawings])
    return Tests(benchmarks, further, digests, names)


def measure(encoder: ErnieViL2, tests: Tests) -> dict[str, float]:
    """All figures of a model on the tests."""
    encoded = {name: encode_benchmark(encoder, benchmark) for name, benchmark in tests.benchmarks.items()}
    figures: dict[str, float] = {}
    for name, each in encoded.items():
        figures |= _under(name, _across(each) | alignment_and_uniformity(each))
        figures |= _under(name, _second_language(encoder, each, tests.second))
        for what, benchmark in tests.further[name].items():
            figures |= _under(f"{name}/{FURTHER}/{what}", _across(encode_benchmark(encoder, benchmark)))
    together = list(encoded.values())
    figures |= _under(ALL, _images(together) | _aliases(encoder, together))
    return figures | _means(figures, list(encoded))


def _across(encoded: EncodedBenchmark) -> dict[str, float]:
    """Recall of images by texts and of texts by images."""
    found = evaluate_retrieval(
        encoded.image_embeddings, encoded.text_embeddings, encoded.benchmark.pairs, allow_unpaired=True
    )
    figures = {f"{way}/{name}": value for way, result in found.items() for name, value in result.recall.items()}
    mean = mean_recall(found)
    return figures if mean is None else figures | {"mR": mean}


def alignment_and_uniformity(encoded: EncodedBenchmark) -> dict[str, float]:
    """The mean squared distance of pairs, and for each side log mean exp(-2 d^2) over all its pairs of rows.

    Less is better of all three. Rows are normalised, so that d^2 is 2 - 2 cos.
    """
    images, texts = (side.astype(np.float64) for side in (encoded.image_embeddings, encoded.text_embeddings))
    pairs = encoded.benchmark.pairs
    distances = 2 - 2 * (images[pairs[:, 0]] * texts[pairs[:, 1]]).sum(axis=1)
    figures = {"alignment": float(distances.mean())}
    for side, rows in (("image", images), ("text", texts)):
        apart = (2 - 2 * rows @ rows.T)[np.triu_indices(len(rows), 1)]
        if apart.size:
            figures[f"{side}_uniformity"] = float(np.log(np.exp(-2 * apart).mean()))
    return figures


def _aliases(encoder: ErnieViL2, encoded: Sequence[EncodedBenchmark]) -> dict[str, float]:
    """Text to text: another name of an image asks for its caption among the captions of all tests."""
    captions = {
        text.text: row for each in encoded for text, row in zip(each.benchmark.texts, each.text_embeddings, strict=True)
    }
    row_of = {caption: row for row, caption in enumerate(captions)}
    named = [(each.benchmark.texts[text].text, _tags(each.benchmark.images[image].fields))
             for each in encoded for image, text in each.benchmark.pairs.tolist()]  # fmt: skip
    pairs = [(alias, row_of[caption]) for alias, caption in aliases(named) if alias not in row_of]
    if not pairs:
        return {}
    recall, queries = recall_of_texts(pairs, encoder, np.stack(list(captions.values())))
    return {f"text_to_text/{name}": value for name, value in recall.items()} | {"text_to_text/queries": queries}


def recall_of_texts(
    pairs: Iterable[tuple[str, int]], encoder: ErnieViL2, gallery: np.ndarray, asked: Callable[[str], str] = str
) -> tuple[dict[str, float], int]:
    """The recall of rows of a gallery, `[N, D]`, by the texts that they are paired with, and how many texts there are.

    Each text asks once, as the sentence that `asked` makes of it.
    """
    row_of: dict[str, int] = {}
    positives = np.array([(row_of.setdefault(text, len(row_of)), row) for text, row in pairs])
    matching = Matching(np.arange(len(row_of)), np.arange(len(gallery)), positives, ("text", "image"))
    sides = {"text": encoder.encode_texts([asked(text) for text in row_of]), "image": gallery}
    (result,) = score_matchings([matching], sides, ["text_to_image"]).values()
    return result.recall, len(row_of)


def aliases(named: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, str]]:
    """Other names of images, with their caption: those of their tags that no image of another caption has.

    Of every image caption and tags are given. A category belongs to many captions; the name of one thing to one.
    """
    captions: dict[str, set[str]] = {}
    for caption, tags in named:
        for tag in tags:
            captions.setdefault(tag, set()).add(caption)
    return [(tag, next(iter(found))) for tag, found in captions.items() if len(found) == 1 and tag not in found]


def _tags(fields: Mapping[str, object]) -> list[str]:
    return [tag for key, value in fields.items() if key.startswith("tags") and isinstance(value, list | tuple)
            for tag in map(str, value)]  # fmt: skip


def _images(encoded: Sequence[EncodedBenchmark]) -> dict[str, float]:
    """Image to image: an image asks for images of its caption by other teams, among all of these."""
    images = np.concatenate([each.image_embeddings for each in encoded])
    starts = np.cumsum([0, *(len(each.image_embeddings) for each in encoded)])
    team = np.repeat(np.arange(len(encoded)), np.diff(starts))
    rows_of: dict[str, list[int]] = {}
    for each, start in zip(encoded, starts[:-1].tolist(), strict=True):
        for image, text in each.benchmark.pairs.tolist():
            rows_of.setdefault(each.benchmark.texts[text].text.casefold(), []).append(start + image)
    positives = [(a, b) for rows in rows_of.values() for a in rows for b in rows if team[a] != team[b]]
    if not positives:
        return {}
    everyone = np.arange(len(images))
    own = [(a, b) for rows in rows_of.values() for a in rows for b in rows if a != b and team[a] == team[b]]
    excluded = np.concatenate([np.stack([everyone] * 2, axis=1), np.array(own, np.int64).reshape(-1, 2)])
    matching = Matching(everyone, everyone, np.array(positives), ("image", "image"), excluded)
    (result,) = score_matchings([matching], {"image": images}, ["image_to_image"]).values()
    figures: dict[str, float] = {f"image_to_image/{name}": value for name, value in result.recall.items()}
    return figures | {"image_to_image/queries": len({a for a, _ in positives})}


def _second_language(encoder: ErnieViL2, encoded: EncodedBenchmark, names: Mapping[str, str]) -> dict[str, float]:
    """Texts in the second language ask for images that are named in the first alone; and the names themselves do."""
    texts = encoded.benchmark.texts
    known = [(texts[text].text, image) for image, text in encoded.benchmark.pairs.tolist()]
    known = [(caption, image) for caption, image in known if caption.casefold() in names]
    if not known:
        return {}
    figures: dict[str, float] = {}
    for language, asked in (("second", lambda caption: names[caption.casefold()]), ("first", str)):
        recall, figures["second/queries"] = recall_of_texts(known, encoder, encoded.image_embeddings, asked)
        figures |= {f"{language}/{name}": value for name, value in recall.items()}
    return figures


def _means(figures: Mapping[str, float], tests: Sequence[str]) -> dict[str, float]:
    """The mean over the tests of what all of them have, of names in two languages by their queries; these add up."""
    counts = Counter(name.partition("/")[2] for name in figures if name.partition("/")[0] in tests)
    found = {}
    for measure, count in counts.items():
        if count == len(tests):
            values = [figures[f"{test}/{measure}"] for test in tests]
            by_query = measure.startswith(("first/", "second/"))
            weights = [figures[f"{test}/second/queries"] for test in tests] if by_query else None
            mean = float(np.average(values, weights=weights))
            found[f"{ALL}/{measure}"] = sum(values) if measure.endswith("queries") else mean
    return found


def _under(test: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{test}/{name}": value for name, value in figures.items()}


def names_of(drawings: str, language: str, second: str) -> dict[str, str]:
    """By the caption of a drawing in the first language that in the second."""
    source, names = open_sources([drawings]), {}
    for row in range(len(source)):
        try:
            sample = source[row]
            names[sample.caption(language).casefold()] = sample.caption(second)
        except BadSample:
            continue
    return names


def _digest(paths: Sequence[str]) -> str:
    """Of the files' content."""
    digest = blake2b(digest_size=16)
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()
