"""A linear probe: chosen on a validation part, and never by what it is scored on."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ernie_vil2.data.benchmark import BenchmarkText
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.classification import EncodedClasses
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.linear_probe import STRENGTHS, _held_out, linear_probe, probe_classes
from tests.support.encoding_model import benchmark, noise_image, unit

CENTRES = unit(np.random.default_rng(9).normal(size=(3, 8)))


def clouds(seed, count, noise=0.4):
    """Embeddings around three centres, and their classes `[count, 3]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return unit(CENTRES[labels] + noise * rng.normal(size=(count, 8))).astype(np.float32), np.eye(3, dtype=bool)[labels]


def test_the_validation_part_has_a_fifth_of_every_class():
    truth = np.eye(4, dtype=bool)[[0] * 20 + [1] * 11 + [2] * 5 + [3] * 2]
    held_out = _held_out(truth)
    assert truth[held_out].sum(axis=0).tolist() == [4, 2, 1, 0] and truth[~held_out].any(axis=0).all()
    assert (_held_out(truth) == held_out).all()


@pytest.mark.thorough
def test_the_strength_is_the_best_on_the_validation_part():
    (train, truth), (asked, _) = clouds(0, 45, noise=1.0), clouds(1, 30, noise=1.0)
    found = linear_probe(train, truth, asked)
    assert list(found.validation) == STRENGTHS.tolist()
    best = max(found.validation.values())
    assert found.strength == min(strength for strength, value in found.validation.items() if value == best)
    again = LogisticRegression(C=found.strength, max_iter=1000).fit(train, truth.argmax(axis=1))
    np.testing.assert_allclose(found.scores, again.predict_proba(asked), atol=1e-6)
    # What it is asked changes nothing of the choice.
    assert linear_probe(train, truth, asked[:5]).strength == found.strength


def test_what_can_be_distinguished_is():
    (train, truth), (asked, right) = clouds(0, 30, noise=0.1), clouds(1, 30, noise=0.1)
    assert (linear_probe(train, truth, asked).scores.argmax(axis=1) == right.argmax(axis=1)).all()
    # A class without a training image has probability 0; two classes work as three do.
    two = truth[:, 2]
    found = linear_probe(train[~two], truth[~two], asked)
    assert (found.scores[:, 2] == 0).all() and found.scores.shape == (30, 3)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "error"),
    [(slice(0, 0), "two classes"), (slice(0, 12), "give 5")],
)
def test_too_few_training_images_are_explained(rows, error):
    train, truth = clouds(0, 60)
    with pytest.raises(ValueError, match=error):
        linear_probe(train[rows], truth[rows], train)


def test_classes_are_matched_by_label_and_leaks_are_reported():
    (train, trained), (asked, right) = clouds(0, 60, noise=0.1), clouds(1, 6, noise=0.1)
    asked[0] = train[30]
    data = benchmark({str(row): noise_image(row) for row in range(6)}, [""])
    texts = [BenchmarkText(name, name, {"en": name}) for name in "abc"]
    classes = EncodedClasses(replace(data, texts=texts, pairs=np.argwhere(right)), asked, {"en": CENTRES},
                             BadSampleReport())  # fmt: skip
    # The training part names its classes in another order and has one more.
    order = ["c", "other", "a", "b"]
    own = np.zeros((60, 4), bool)
    for column, name in enumerate("abc"):
        own[:, order.index(name)] = trained[:, column]
    own[:6] = [False, True, False, False]
    source = replace(
        benchmark({str(row): b"" for row in range(60)}, [""]),
        texts=[BenchmarkText(name, name) for name in order], pairs=np.argwhere(own),
    )  # fmt: skip
    answers, lines = probe_classes(classes, EncodedBenchmark(source, train, train[:4], BadSampleReport()))
    assert answers.figures["acc1"] == 100 and answers.names == ("a", "b", "c")
    assert lines[0].startswith("linear probe: 54 training images, C = ")
    assert "6 training images of other classes" in lines[1] and "scored and trained with: 1 (0)" in lines[2]
