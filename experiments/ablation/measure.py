"""Score a model of a study by retrieval between and within the modalities, and by alignment and uniformity.

Figures are named `<test>/<measure>`, with the test `all` for those of all tests together. Recalls and mean recalls (mR)
are in percent. Alignment and uniformity are those of Wang and Isola (arXiv 2005.10242).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import permutations
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

BLOCK_ROWS = 256  # rows of a matrix of distances in memory at a time; that of all texts of a benchmark takes gigabytes
ALL = "all"  # name of the test in figures of all tests together


class Tests(NamedTuple):
    """Opened tests of a study.

    Attributes:
        benchmarks: benchmarks by the name of their test.
        further_benchmarks: by the name of a test, and then by that of the further captions, the same images with these.
        digests: digests of the tests' files, by name.
        translations: names of concepts in the second language, by their name in the first one, without case.
    """

    benchmarks: Mapping[str, Benchmark]
    further_benchmarks: Mapping[str, Mapping[str, Benchmark]]
    digests: Mapping[str, str]
    translations: Mapping[str, str]


def open_tests(definition: Definition) -> Tests:
    """Open the tests of a study."""
    benchmarks: dict[str, Benchmark] = {}
    further_benchmarks: dict[str, dict[str, Benchmark]] = {}
    digests: dict[str, str] = {}
    languages = [definition.language, *definition.further_captions.values()]
    for name, test in definition.tests.items():
        benchmarks_by_language = open_benchmarks(test.data, languages=languages)
        benchmarks[name] = benchmarks_by_language[definition.language]
        further_benchmarks[name] = {}
        for captions, language in definition.further_captions.items():
            further_benchmarks[name][captions] = benchmarks_by_language[language]
        digests[name] = _compute_digest(test.data)
    translations: dict[str, str] = {}
    if definition.drawings:
        translations = read_translations(definition.drawings, definition.language, definition.second_language)
        digests["drawings"] = _compute_digest([definition.drawings])
    return Tests(benchmarks, further_benchmarks, digests, translations)


def read_translations(drawings: str, language: str, second_language: str) -> dict[str, str]:
    """Return the captions of a shard in the second language, by those in the first one, without case."""
    source = open_sources([drawings])
    translations: dict[str, str] = {}
    for row in range(len(source)):
        try:
            sample = source[row]
            translations[sample.caption(language).casefold()] = sample.caption(second_language)
        except BadSample:
            continue
    return translations


def _compute_digest(paths: Sequence[str]) -> str:
    """Return a digest of the content of files."""
    digest = blake2b(digest_size=16)
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def measure(encoder: ErnieViL2, tests: Tests) -> dict[str, float]:
    """Return all figures of a model on the tests."""
    figures: dict[str, float] = {}
    encoded_tests: dict[str, EncodedBenchmark] = {}
    for test, benchmark in tests.benchmarks.items():
        encoded = encoded_tests[test] = encode_benchmark(encoder, benchmark)
        figures |= _add_prefix(test, score_retrieval(encoded))
        figures |= _add_prefix(test, score_alignment_and_uniformity(encoded))
        figures |= _add_prefix(test, score_second_language(encoder, encoded, tests.translations))
        for captions, further_benchmark in tests.further_benchmarks[test].items():
            further_encoded = encode_benchmark(encoder, further_benchmark)
            figures |= _add_prefix(f"{test}/{FURTHER}/{captions}", score_retrieval(further_encoded))
    figures |= _add_prefix(ALL, score_image_to_image(list(encoded_tests.values())))
    figures |= _add_prefix(ALL, score_text_to_text(encoder, list(encoded_tests.values())))
    return figures | average_over_tests(figures, list(encoded_tests))


def _add_prefix(prefix: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in figures.items()}


def score_retrieval(encoded: EncodedBenchmark) -> dict[str, float]:
    """Return the recalls of images by texts and of texts by images, and their mean."""
    directions = evaluate_retrieval(
        encoded.image_embeddings, encoded.text_embeddings, encoded.benchmark.pairs, allow_unpaired=True
    )
    figures: dict[str, float] = {}
    for direction, result in directions.items():
        figures |= _add_prefix(direction, result.recall)
    mean = mean_recall(directions)
    return figures if mean is None else figures | {"mR": mean}


def score_alignment_and_uniformity(encoded: EncodedBenchmark) -> dict[str, float]:
    """Return the alignment of pairs, and the uniformity of images and of texts; less is better for all of them.

    Alignment is the mean squared distance of image and text. Uniformity is log mean exp(-2 d^2) over all pairs of
    images, or of texts.
    """
    images, texts = encoded.image_embeddings.astype(np.float64), encoded.text_embeddings.astype(np.float64)
    image_rows, text_rows = encoded.benchmark.pairs.T
    cosines = (images[image_rows] * texts[text_rows]).sum(axis=1)
    # The squared distance of unit vectors is 2 - 2 cos.
    figures = {"alignment": float((2 - 2 * cosines).mean())}
    for side, embeddings in (("image", images), ("text", texts)):
        if len(embeddings) > 1:
            figures[f"{side}_uniformity"] = _compute_uniformity(embeddings)
    return figures


def _compute_uniformity(embeddings: np.ndarray) -> float:
    """Return the uniformity of two or more unit vectors, `[N, D]` float64."""
    total = 0.0
    for start in range(0, len(embeddings), BLOCK_ROWS):
        squared_distances = 2 - 2 * embeddings[start : start + BLOCK_ROWS] @ embeddings.T
        potentials = np.exp(-2 * squared_distances)
        np.fill_diagonal(potentials[:, start:], 0)  # pairs of an embedding with itself
        total += potentials.sum()
    return float(np.log(total / (len(embeddings) * (len(embeddings) - 1))))


def score_queries(
    encoder: ErnieViL2,
    pairs: Iterable[tuple[str, int]],
    gallery: np.ndarray,
    make_query: Callable[[str], str] = str,
) -> tuple[dict[str, float], int]:
    """Return the recalls of rows of a gallery by names, and the number of different names.

    Args:
        encoder: encodes the queries.
        pairs: a name and a row that it should find; a name may have several rows.
        gallery: embeddings of images or of texts, `[N, D]`.
        make_query: returns the query for a name.
    """
    numbers: dict[str, int] = {}
    positives = np.array([(numbers.setdefault(name, len(numbers)), row) for name, row in pairs])
    # The gallery takes the place of the images, whatever it holds.
    matching = Matching(np.arange(len(numbers)), np.arange(len(gallery)), positives, ("text", "image"))
    sides = {"text": encoder.encode_texts([make_query(name) for name in numbers]), "image": gallery}
    results = score_matchings([matching], sides, ["text_to_image"])
    return results["text_to_image"].recall, len(numbers)


def score_second_language(
    encoder: ErnieViL2, encoded: EncodedBenchmark, translations: Mapping[str, str]
) -> dict[str, float]:
    """Return the recalls of images by their captions in the second language, and by the same ones in the first.

    Captions without a translation are left out.
    """
    pairs = []
    for image, text in encoded.benchmark.pairs.tolist():
        caption = encoded.benchmark.texts[text].text
        if caption.casefold() in translations:
            pairs.append((caption, image))
    if not pairs:
        return {}
    first_recalls, num_queries = score_queries(encoder, pairs, encoded.image_embeddings)
    second_recalls, _ = score_queries(
        encoder, pairs, encoded.image_embeddings, lambda caption: translations[caption.casefold()]
    )
    figures: dict[str, float] = {"second/queries": num_queries}
    return figures | _add_prefix("second", second_recalls) | _add_prefix("first", first_recalls)


def score_text_to_text(encoder: ErnieViL2, encoded_tests: Sequence[EncodedBenchmark]) -> dict[str, float]:
    """Return the recalls of captions by other names of their images, among the captions of all tests."""
    embeddings: dict[str, np.ndarray] = {}
    tags_and_captions: list[tuple[Sequence[str], str]] = []
    for encoded in encoded_tests:
        benchmark = encoded.benchmark
        for text, embedding in zip(benchmark.texts, encoded.text_embeddings, strict=True):
            embeddings[text.text] = embedding
        for image, text_number in benchmark.pairs.tolist():
            tags = _list_tags(benchmark.images[image].fields)
            tags_and_captions.append((tags, benchmark.texts[text_number].text))
    rows = {caption: row for row, caption in enumerate(embeddings)}
    pairs = [(alias, rows[caption]) for alias, caption in find_aliases(tags_and_captions) if alias not in rows]
    if not pairs:
        return {}
    recalls, num_queries = score_queries(encoder, pairs, np.stack(list(embeddings.values())))
    return _add_prefix("text_to_text", recalls | {"queries": num_queries})


def find_aliases(tags_and_captions: Iterable[tuple[Sequence[str], str]]) -> list[tuple[str, str]]:
    """Return other names of images, each with the caption: tags of images of this caption only.

    A tag of images with several captions is a category, not a name.

    Args:
        tags_and_captions: tags and caption of each image.
    """
    captions_by_tag: dict[str, set[str]] = {}
    for tags, caption in tags_and_captions:
        for tag in tags:
            captions_by_tag.setdefault(tag, set()).add(caption)
    aliases = []
    for tag, captions in captions_by_tag.items():
        if len(captions) == 1 and tag not in captions:
            aliases.append((tag, next(iter(captions))))
    return aliases


def _list_tags(fields: Mapping[str, object]) -> list[str]:
    """Return the tags of an image in all languages."""
    tags: list[str] = []
    for name, value in fields.items():
        if name.startswith("tags") and isinstance(value, list | tuple):
            tags += map(str, value)
    return tags


def score_image_to_image(encoded_tests: Sequence[EncodedBenchmark]) -> dict[str, float]:
    """Return the recalls of images by images with the same caption in another test, among the images of all tests.

    Images with the same caption in the same test are neither right nor wrong answers.
    """
    tests_of_rows: list[int] = []
    rows_by_caption: dict[str, list[int]] = {}
    for test, encoded in enumerate(encoded_tests):
        first_row = len(tests_of_rows)
        tests_of_rows += [test] * len(encoded.image_embeddings)
        for image, text in encoded.benchmark.pairs.tolist():
            caption = encoded.benchmark.texts[text].text.casefold()
            rows_by_caption.setdefault(caption, []).append(first_row + image)

    positives = set[tuple[int, int]]()
    excluded = {(row, row) for row in range(len(tests_of_rows))}
    for rows in rows_by_caption.values():
        for query, row in permutations(rows, 2):
            pairs = excluded if tests_of_rows[query] == tests_of_rows[row] else positives
            pairs.add((query, row))
    if not positives:
        return {}
    embeddings = np.concatenate([encoded.image_embeddings for encoded in encoded_tests])
    all_rows = np.arange(len(embeddings))
    matching = Matching(all_rows, all_rows, np.array(sorted(positives)), ("image", "image"), np.array(sorted(excluded)))
    results = score_matchings([matching], {"image": embeddings}, ["image_to_image"])
    num_queries = len({query for query, _ in positives})
    return _add_prefix("image_to_image", results["image_to_image"].recall | {"queries": num_queries})


def average_over_tests(figures: Mapping[str, float], tests: Sequence[str]) -> dict[str, float]:
    """Return the means of the measures that all tests have, and the sums of numbers of queries.

    Recalls in the first and second language are weighted by their numbers of queries, which differ between tests.
    """
    counts: Counter[str] = Counter()
    for name in figures:
        test, _, measure_name = name.partition("/")
        if test in tests:
            counts[measure_name] += 1
    averages = {}
    for measure_name, count in counts.items():
        if count < len(tests):
            continue
        values = [figures[f"{test}/{measure_name}"] for test in tests]
        weights = None
        if measure_name.startswith(("first/", "second/")):
            weights = [figures[f"{test}/second/queries"] for test in tests]
        is_number = measure_name.endswith("queries")
        averages[f"{ALL}/{measure_name}"] = sum(values) if is_number else float(np.average(values, weights=weights))
    return averages
