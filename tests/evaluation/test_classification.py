"""Classification against values worked out by hand, scikit-learn, and the definitions of CLIP_benchmark."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from ernie_vil2.data.benchmark import BenchmarkText
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.check import find_class_remarks
from ernie_vil2.evaluation.classification import (
    ClassScores,
    EncodedClasses,
    assemble_classes,
    compute_class_embeddings,
    make_prompt_benchmark,
    make_prompts,
    read_templates,
)
from ernie_vil2.evaluation.encoded import EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.linear_probe import (
    STRENGTHS,
    _choose_validation_images,
    fit_linear_probe,
    score_linear_probe,
)
from tests.support.encoding_model import (
    ProjectionEncoder,
    make_benchmark,
    make_noise_image,
    normalise_rows,
    raise_missing_file,
)
from tests.support.limits import limit_examples


def answers(truth, scores, **changes):
    scores = np.asarray(scores, np.float32)
    return ClassScores(np.asarray(truth, bool), scores, tuple(map(str, range(scores.shape[1]))), **changes)


def one_hot(labels, classes):
    return np.eye(classes, dtype=bool)[labels]


def drawn(seed, images, classes):
    """Embeddings of images and classes, and one class for each image, towards which it leans."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    texts = normalise_rows(rng.normal(size=(classes, 6)))
    return labels, normalise_rows(texts[labels] + rng.normal(size=(images, 6))), texts


def test_figures_by_hand():
    found = answers(one_hot([0, 0, 0, 1], 3), [[3, 1, 2], [1, 3, 2], [2, 1, 3], [1, 3, 2]])
    assert found.answers.tolist() == [0, 1, 2, 1] and found.rank.tolist() == [1, 3, 2, 1]
    assert found.confusion.tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
    # Class 2 has no image: it was answered once, and is in no mean.
    assert found.metrics == pytest.approx({"acc1": 50, "mean_per_class_recall": 100 * (1 / 3 + 1) / 2})
    assert found.chance == pytest.approx({"acc1": 100 / 3, "mean_per_class_recall": 100 / 3})


@limit_examples(40)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 30), classes=st.integers(2, 8), ties=st.booleans())
def test_several_classes_are_scored_as_scikit_learn_does(seed, images, classes, ties):
    rng = np.random.default_rng(seed)
    truth, scores = rng.random((images, classes)) < 0.4, rng.normal(size=(images, classes)).astype(np.float32)
    truth[0] = True  # every class has an image, and one image several classes
    scores = np.round(scores) if ties else scores
    found = answers(truth, scores)
    expected = 100 * average_precision_score(truth, scores, average="macro")
    assert found.is_multi_label and found.metrics == {"mAP": pytest.approx(expected, abs=1e-6)} and found.chance == {}


@limit_examples(40)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(8, 40), classes=st.integers(2, 8))
def test_figures_follow_the_definitions_of_clip_benchmark(seed, images, classes):
    """`accuracy` and `balanced_accuracy_score` as CLIP_benchmark's zeroshot_classification.py calls them."""
    labels, embeddings, texts = drawn(seed, images, classes)
    logits = 100 * embeddings @ texts.T
    found = answers(one_hot(labels, classes), embeddings @ texts.T).metrics
    order = np.argsort(-logits, axis=1)
    assert found["acc1"] == pytest.approx(100 * np.mean(order[:, 0] == labels))
    assert found["mean_per_class_recall"] == pytest.approx(100 * balanced_accuracy_score(labels, logits.argmax(axis=1)))
    if classes >= 5:
        assert found["acc5"] == pytest.approx(100 * np.mean((order[:, :5] == labels[:, None]).any(axis=1)))


def test_answers_above_a_threshold_by_hand():
    found = answers(one_hot([0, 0, 1, 1], 2), [[0.9, 0.1], [0.4, 0.3], [0.6, 0.5], [0.1, 0.2]])
    expected = {"answered": 50, "precision": 50, "recall": 25}  # the first and third, of which the first is right
    assert found.threshold_metrics(0.5) == expected
    assert found.threshold_metrics(2.0) == {"answered": 0, "precision": 0, "recall": 0}
    several = answers([[1, 1], [1, 0]], [[0.9, 0.6], [0.2, 0.7]])
    assert several.threshold_metrics(0.5) == {
        "answered": 100,
        "precision": pytest.approx(200 / 3),
        "recall": pytest.approx(200 / 3),
    }


def test_probabilities_by_hand():
    cosines = answers(one_hot([0], 2), [[0.5, 0.1]], logit_scale=10.0)
    assert cosines.probabilities[0, 0] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-6)
    assert replace(cosines, logit_scale=None).probabilities is cosines.scores


def test_a_class_is_the_normalised_mean_of_its_prompts():
    rows = np.array([[3, 0], [0, 4], [1, 0], [1, 0]], np.float32)
    expected = [[2**-0.5, 2**-0.5], [1, 0]]
    np.testing.assert_allclose(compute_class_embeddings(rows, 2), expected, rtol=1e-6)
    assert make_prompts(["猫", "{}"], ["一只{}", "{c}、{}"]) == ["一只猫", "猫、猫", "一只{}", "{}、{}"]


@pytest.mark.parametrize(
    ("content", "culprit"), [("a cat\n{}\n", "t.txt.*'a cat' has no slot"), ("", "t.txt"), ("x\t{}\n", "t.txt")]
)
def test_a_file_without_templates_is_named(tmp_path, content, culprit):
    (tmp_path / "t.txt").write_text(content)
    with pytest.raises(ValueError, match=culprit):
        read_templates("en", str(tmp_path / "t.txt"))


def labelled(images, own, names=("cat", "dog")):
    """Images of classes, of each the number or numbers of its class."""
    made = make_benchmark(images, [""])
    pairs = np.array([(row, one) for row, each in enumerate(own) for one in np.atleast_1d(each)], np.int64)
    texts = [BenchmarkText(f"c{row}", name, {"en": name, "zh": f"{name}类"}) for row, name in enumerate(names)]
    return replace(made, texts=texts, pairs=pairs)


def test_unusable_images_are_left_out_with_their_classes():
    data = labelled(
        {"a": make_noise_image(1), "gone": raise_missing_file, "broken": b"x", "b": make_noise_image(2)}, [1, 0, 0, 1]
    )
    templates = {"zh": ("{}", "一个{}"), "en": ("a {}",)}
    model = ProjectionEncoder()
    encoded = assemble_classes(data, templates, encode_benchmark(model, make_prompt_benchmark(data, templates)))
    assert [image.id for image in encoded.benchmark.images] == ["a", "b"]
    assert encoded.truth.tolist() == [[False, True], [False, True]]
    assert encoded.bad_samples.counts == {"missing image": 1, "broken image": 1}
    expected = {
        "zh": compute_class_embeddings(model.encode_texts(["cat类", "一个cat类", "dog类", "一个dog类"]), 2),
        "en": model.encode_texts(["a cat", "a dog"]),
    }
    for language, found in encoded.score_classes(20.0).items():
        np.testing.assert_allclose(found.scores, encoded.image_embeddings @ expected[language].T, atol=1e-6)
        assert found.names == (("cat类", "dog类") if language == "zh" else ("cat", "dog"))
        # The broken images were all of the first class: it has none left, and no mean breaks.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isnan(found.class_metrics[0]) and 0 <= found.metrics["mean_per_class_recall"] <= 100


def test_embeddings_that_are_not_finite_are_not_answers():
    data, templates = labelled({"a": make_noise_image(1)}, [0]), {"en": ("{}",)}
    encoded = encode_benchmark(ProjectionEncoder(), make_prompt_benchmark(data, templates))
    with pytest.raises(ValueError, match="not finite; evaluate an earlier checkpoint"):
        assemble_classes(data, templates, replace(encoded, image_embeddings=encoded.image_embeddings * np.nan))


def test_what_is_odd_about_classes_is_reported():
    assert find_class_remarks(labelled({"a": make_noise_image(1), "b": make_noise_image(2)}, [0, 1])) == []
    (empty,) = find_class_remarks(labelled({"a": make_noise_image(1)}, [0]))
    assert "classes without an image: 1 (c1)" in empty
    same = find_class_remarks(labelled({"a": make_noise_image(1), "b": make_noise_image(2)}, [0, 1], ("cat", "cat")))
    assert len(same) == 2 and "in en: 1 (cat (c0 and c1))" in same[0] and "in zh: 1 (cat类 (c0 and c1))" in same[1]


CENTRES = normalise_rows(np.random.default_rng(9).normal(size=(3, 8)))


def clouds(seed, count, noise=0.4):
    """Embeddings around three centres, and their classes `[count, 3]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return normalise_rows(CENTRES[labels] + noise * rng.normal(size=(count, 8))).astype(np.float32), np.eye(
        3, dtype=bool
    )[labels]


def test_the_validation_part_has_a_fifth_of_every_class():
    truth = np.eye(4, dtype=bool)[[0] * 20 + [1] * 11 + [2] * 5 + [3] * 2]
    held_out = _choose_validation_images(truth)
    assert truth[held_out].sum(axis=0).tolist() == [4, 2, 1, 0] and truth[~held_out].any(axis=0).all()
    assert (_choose_validation_images(truth) == held_out).all()


@pytest.mark.thorough
def test_the_strength_is_the_best_on_the_validation_part():
    (train, truth), (asked, _) = clouds(0, 45, noise=1.0), clouds(1, 30, noise=1.0)
    found = fit_linear_probe(train, truth, asked)
    assert list(found.validation) == STRENGTHS.tolist()
    best = max(found.validation.values())
    assert found.strength == min(strength for strength, value in found.validation.items() if value == best)
    again = LogisticRegression(C=found.strength, max_iter=1000).fit(train, truth.argmax(axis=1))
    np.testing.assert_allclose(found.scores, again.predict_proba(asked), atol=1e-6)
    # What it is asked changes nothing of the choice.
    assert fit_linear_probe(train, truth, asked[:5]).strength == found.strength


def test_what_can_be_distinguished_is():
    (train, truth), (asked, right) = clouds(0, 30, noise=0.1), clouds(1, 30, noise=0.1)
    assert (fit_linear_probe(train, truth, asked).scores.argmax(axis=1) == right.argmax(axis=1)).all()
    # A class without a training image has probability 0; two classes work as three do.
    two = truth[:, 2]
    found = fit_linear_probe(train[~two], truth[~two], asked)
    assert (found.scores[:, 2] == 0).all() and found.scores.shape == (30, 3)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "error"),
    [(slice(0, 0), "two classes"), (slice(0, 12), "give 5")],
)
def test_too_few_training_images_are_explained(rows, error):
    train, truth = clouds(0, 60)
    with pytest.raises(ValueError, match=error):
        fit_linear_probe(train[rows], truth[rows], train)


def test_classes_are_matched_by_label_and_leaks_are_reported():
    (train, trained), (asked, right) = clouds(0, 60, noise=0.1), clouds(1, 6, noise=0.1)
    asked[0] = train[30]
    data = make_benchmark({str(row): make_noise_image(row) for row in range(6)}, [""])
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
        make_benchmark({str(row): b"" for row in range(60)}, [""]),
        texts=[BenchmarkText(name, name) for name in order], pairs=np.argwhere(own),
    )  # fmt: skip
    answers, lines = score_linear_probe(classes, EncodedBenchmark(source, train, train[:4], BadSampleReport()))
    assert answers.metrics["acc1"] == 100 and answers.names == ("a", "b", "c")
    assert lines[0].startswith("linear probe: 54 training images, C = ")
    assert "6 training images of other classes" in lines[1] and "scored and trained on: 1 (0)" in lines[2]


def test_of_equal_scores_the_first_class_is_the_answer():
    equal = answers(one_hot([0, 1, 2], 3), np.ones((3, 3)))
    assert equal.answers.tolist() == [0, 0, 0] and equal.rank.tolist() == [1, 2, 3]
    assert equal.metrics["acc1"] == pytest.approx(100 / 3) == equal.metrics["mean_per_class_recall"]
