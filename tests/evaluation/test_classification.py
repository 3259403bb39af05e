"""Classification equals values computed by hand, scikit-learn, and the definitions of CLIP_benchmark."""

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


def make_scores(truth, scores, **changes):
    scores = np.asarray(scores, np.float32)
    return ClassScores(np.asarray(truth, bool), scores, tuple(map(str, range(scores.shape[1]))), **changes)


def encode_one_hot(labels, classes):
    return np.eye(classes, dtype=bool)[labels]


def draw_embeddings(seed, images, classes):
    """Return the class of each image, and embeddings of images near those of their classes, and of the classes."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    texts = normalise_rows(rng.normal(size=(classes, 6)))
    return labels, normalise_rows(texts[labels] + rng.normal(size=(images, 6))), texts


def test_metrics_equal_those_by_hand():
    result = make_scores(encode_one_hot([0, 0, 0, 1], 3), [[3, 1, 2], [1, 3, 2], [2, 1, 3], [1, 3, 2]])
    assert result.answers.tolist() == [0, 1, 2, 1] and result.rank.tolist() == [1, 3, 2, 1]
    assert result.confusion.tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
    # Class 2 has no image: it is the answer of one image, but does not count in the mean over classes.
    assert result.metrics == pytest.approx({"acc1": 50, "mean_per_class_recall": 100 * (1 / 3 + 1) / 2})
    assert result.chance == pytest.approx({"acc1": 100 / 3, "mean_per_class_recall": 100 / 3})


@limit_examples(40)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 30), classes=st.integers(2, 8), ties=st.booleans())
def test_mean_average_precision_equals_scikit_learn(seed, images, classes, ties):
    rng = np.random.default_rng(seed)
    truth, scores = rng.random((images, classes)) < 0.4, rng.normal(size=(images, classes)).astype(np.float32)
    truth[0] = True  # every class has an image, and one image several classes
    if ties:
        scores = np.round(scores)
    result = make_scores(truth, scores)
    expected = 100 * average_precision_score(truth, scores, average="macro")
    assert result.is_multi_label and result.metrics == {"mAP": pytest.approx(expected, abs=1e-6)}
    assert result.chance == {}


@limit_examples(40)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(8, 40), classes=st.integers(2, 8))
def test_metrics_follow_the_definitions_of_clip_benchmark(seed, images, classes):
    """Compute `accuracy` and `balanced_accuracy_score` as CLIP_benchmark's zeroshot_classification.py does."""
    labels, embeddings, texts = draw_embeddings(seed, images, classes)
    logits = 100 * embeddings @ texts.T
    metrics = make_scores(encode_one_hot(labels, classes), embeddings @ texts.T).metrics
    order = np.argsort(-logits, axis=1)
    assert metrics["acc1"] == pytest.approx(100 * np.mean(order[:, 0] == labels))
    expected_recall = 100 * balanced_accuracy_score(labels, logits.argmax(axis=1))
    assert metrics["mean_per_class_recall"] == pytest.approx(expected_recall)
    if classes >= 5:
        assert metrics["acc5"] == pytest.approx(100 * np.mean((order[:, :5] == labels[:, None]).any(axis=1)))


def test_threshold_metrics_equal_those_by_hand():
    result = make_scores(encode_one_hot([0, 0, 1, 1], 2), [[0.9, 0.1], [0.4, 0.3], [0.6, 0.5], [0.1, 0.2]])
    # The first and third image have a score above 0.5; the answer to the first is right.
    assert result.threshold_metrics(0.5) == {"answered": 50, "precision": 50, "recall": 25}
    assert result.threshold_metrics(2.0) == {"answered": 0, "precision": 0, "recall": 0}
    multi_label = make_scores([[1, 1], [1, 0]], [[0.9, 0.6], [0.2, 0.7]])
    assert multi_label.threshold_metrics(0.5) == {
        "answered": 100,
        "precision": pytest.approx(200 / 3),
        "recall": pytest.approx(200 / 3),
    }


def test_probabilities_are_the_softmax_of_scaled_cosines():
    cosines = make_scores(encode_one_hot([0], 2), [[0.5, 0.1]], logit_scale=10.0)
    # The scaled cosines differ by 4.
    assert cosines.probabilities[0, 0] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-6)
    assert replace(cosines, logit_scale=None).probabilities is cosines.scores


def test_prompts_have_the_name_in_every_slot():
    prompts = make_prompts(["cat", "set {} of {c}"], ["a {c}, {}", "the {}"])
    assert prompts == ["a cat, cat", "the cat", "a set {} of {c}, set {} of {c}", "the set {} of {c}"]


def test_class_embedding_is_the_normalised_mean_of_prompts():
    rows = np.array([[3, 0], [0, 4], [1, 0], [1, 0]], np.float32)
    expected = [[2**-0.5, 2**-0.5], [1, 0]]
    np.testing.assert_allclose(compute_class_embeddings(rows, 2), expected, rtol=1e-6)
    assert make_prompts(["猫", "{}"], ["一只{}", "{c}、{}"]) == ["一只猫", "猫、猫", "一只{}", "{}、{}"]


@pytest.mark.parametrize(
    ("content", "culprit"), [("a cat\n{}\n", "t.txt.*'a cat' has no slot"), ("", "t.txt"), ("x\t{}\n", "t.txt")]
)
def test_file_without_templates_is_named(tmp_path, content, culprit):
    (tmp_path / "t.txt").write_text(content)
    with pytest.raises(ValueError, match=culprit):
        read_templates("en", str(tmp_path / "t.txt"))


def make_class_benchmark(images, labels, names=("cat", "dog")):
    """Return a benchmark of images with the numbers of their classes."""
    pairs = np.array(list(enumerate(labels)), np.int64)
    texts = [BenchmarkText(f"c{row}", name, {"en": name, "zh": f"{name}类"}) for row, name in enumerate(names)]
    return replace(make_benchmark(images, [""]), texts=texts, pairs=pairs)


def test_unusable_images_are_omitted_with_their_labels():
    images = {"a": make_noise_image(1), "gone": raise_missing_file, "broken": b"x", "b": make_noise_image(2)}
    data = make_class_benchmark(images, [1, 0, 0, 1])
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
    names = {"zh": ("cat类", "dog类"), "en": ("cat", "dog")}
    for language, result in encoded.score_classes(20.0).items():
        expected_scores = encoded.image_embeddings @ expected[language].T
        # Prompts are encoded in other batches than by hand, which changes the order of float32 sums.
        np.testing.assert_allclose(result.scores, expected_scores, atol=1e-6)
        assert result.names == names[language]
        # Both unusable images are of the first class: it has no image now, and must not turn the mean into nan.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isnan(result.class_metrics[0]) and 0 <= result.metrics["mean_per_class_recall"] <= 100


def test_nonfinite_embeddings_are_refused():
    data, templates = make_class_benchmark({"a": make_noise_image(1)}, [0]), {"en": ("{}",)}
    encoded = encode_benchmark(ProjectionEncoder(), make_prompt_benchmark(data, templates))
    with pytest.raises(ValueError, match="not finite; evaluate an earlier checkpoint"):
        assemble_classes(data, templates, replace(encoded, image_embeddings=encoded.image_embeddings * np.nan))


def test_odd_classes_are_reported():
    images = {"a": make_noise_image(1), "b": make_noise_image(2)}
    assert find_class_remarks(make_class_benchmark(images, [0, 1])) == []
    (remark,) = find_class_remarks(make_class_benchmark({"a": make_noise_image(1)}, [0]))
    assert "classes without an image: 1 (c1)" in remark
    english, chinese = find_class_remarks(make_class_benchmark(images, [0, 1], ("cat", "cat")))
    assert "in en: 1 (cat (c0 and c1))" in english and "in zh: 1 (cat类 (c0 and c1))" in chinese


CENTRES = normalise_rows(np.random.default_rng(9).normal(size=(3, 8)))


def draw_clouds(seed, count, noise=0.4):
    """Return embeddings around three centres, and their classes `[count, 3]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    embeddings = normalise_rows(CENTRES[labels] + noise * rng.normal(size=(count, 8))).astype(np.float32)
    return embeddings, np.eye(3, dtype=bool)[labels]


def test_validation_images_are_a_fifth_of_every_class():
    truth = np.eye(4, dtype=bool)[[0] * 20 + [1] * 11 + [2] * 5 + [3] * 2]
    held_out = _choose_validation_images(truth)
    assert truth[held_out].sum(axis=0).tolist() == [4, 2, 1, 0] and truth[~held_out].any(axis=0).all()
    assert (_choose_validation_images(truth) == held_out).all()


@pytest.mark.thorough
def test_probe_uses_the_best_strength_on_validation_images():
    (train, truth), (test, _) = draw_clouds(0, 45, noise=1.0), draw_clouds(1, 30, noise=1.0)
    probe = fit_linear_probe(train, truth, test)
    assert list(probe.validation) == STRENGTHS.tolist()
    best = max(probe.validation.values())
    assert probe.strength == min(strength for strength, value in probe.validation.items() if value == best)
    reference = LogisticRegression(C=probe.strength, max_iter=1000).fit(train, truth.argmax(axis=1))
    np.testing.assert_allclose(probe.scores, reference.predict_proba(test), atol=1e-6)
    # The test images have no influence on the strength.
    assert fit_linear_probe(train, truth, test[:5]).strength == probe.strength


def test_probe_separates_two_and_three_classes():
    (train, train_truth), (test, test_truth) = draw_clouds(0, 30, noise=0.1), draw_clouds(1, 30, noise=0.1)
    answers = fit_linear_probe(train, train_truth, test).scores.argmax(axis=1)
    assert (answers == test_truth.argmax(axis=1)).all()
    # A class without a training image has probability 0; two classes work as three do.
    of_third_class = train_truth[:, 2]
    probe = fit_linear_probe(train[~of_third_class], train_truth[~of_third_class], test)
    assert (probe.scores[:, 2] == 0).all() and probe.scores.shape == (30, 3)
    np.testing.assert_allclose(probe.scores.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "error"),
    [(slice(0, 0), "two classes"), (slice(0, 12), "give 5")],
)
def test_too_few_training_images_are_explained(rows, error):
    train, truth = draw_clouds(0, 60)
    with pytest.raises(ValueError, match=error):
        fit_linear_probe(train[rows], truth[rows], train)


def test_class_of_validation_images_alone_is_no_error():
    # Of five images of the first class one is for validation, and it alone has the second class, too.
    truth = np.array([[True, False]] * 5)
    truth[_choose_validation_images(truth), 1] = True
    embeddings = np.eye(5, dtype=np.float32)
    probe = fit_linear_probe(embeddings, truth, embeddings)
    assert probe.scores.shape == (5, 2) and (probe.scores[:, 0] == 1).all()


def test_probe_matches_classes_by_label_and_reports_leaks():
    (train, train_truth), (test, test_truth) = draw_clouds(0, 60, noise=0.1), draw_clouds(1, 6, noise=0.1)
    test[0] = train[30]
    data = make_benchmark({str(row): make_noise_image(row) for row in range(6)}, [""])
    texts = [BenchmarkText(name, name, {"en": name}) for name in "abc"]
    test_data = replace(data, texts=texts, pairs=np.argwhere(test_truth))
    classes = EncodedClasses(test_data, test, {"en": CENTRES}, BadSampleReport())
    # The training split names its classes in another order and has one more.
    order = ["c", "other", "a", "b"]
    train_labels = np.zeros((60, 4), bool)
    for column, name in enumerate("abc"):
        train_labels[:, order.index(name)] = train_truth[:, column]
    train_labels[:6] = [False, True, False, False]
    train_data = replace(
        make_benchmark({str(row): b"" for row in range(60)}, [""]),
        texts=[BenchmarkText(name, name) for name in order], pairs=np.argwhere(train_labels),
    )  # fmt: skip
    answers, lines = score_linear_probe(classes, EncodedBenchmark(train_data, train, train[:4], BadSampleReport()))
    assert answers.metrics["acc1"] == 100 and answers.names == ("a", "b", "c")
    assert lines[0].startswith("linear probe: 54 training images, C = ")
    assert "6 training images of other classes" in lines[1] and "scored and trained on: 1 (0)" in lines[2]


def test_first_class_wins_among_equal_scores():
    result = make_scores(encode_one_hot([0, 1, 2], 3), np.ones((3, 3)))
    assert result.answers.tolist() == [0, 0, 0] and result.rank.tolist() == [1, 2, 3]
    assert result.metrics["acc1"] == pytest.approx(100 / 3) == result.metrics["mean_per_class_recall"]
