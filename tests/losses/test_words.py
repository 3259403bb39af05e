"""Targets and loss of the word head, against NumPy and by hand on a vocabulary of seven tokens."""

import numpy as np
import paddle
import pytest

from ernie_vil2.losses import words
from ernie_vil2.losses.words import WordHead
from tests.support.steps import use_default_dtype

PAD, START, END, UNKNOWN, CAT, DOG, SUN = range(7)
FIRST_TEXTS = [[START, CAT, CAT, SUN, END], [START, DOG, UNKNOWN, SUN, END], [START, UNKNOWN, END, PAD, PAD]]
SECOND_TEXTS = [[START, SUN, END, PAD, PAD], [START, DOG, END, PAD, PAD]]


@pytest.fixture
def head():
    with use_default_dtype("float64"):
        paddle.seed(0)
        yield WordHead(5, 7, {PAD, START, END, UNKNOWN})


def add_batch(head, texts):
    """Count a batch of texts; return its ids and targets."""
    ids, is_first = head.find_words(paddle.to_tensor(texts))
    counts = head.count_texts(ids, is_first)
    targets = head.compute_targets(ids, is_first, counts)
    frequencies, num_batches = head.update_frequencies(counts)
    head.frequencies.set_value(frequencies)
    head.num_batches.set_value(num_batches)
    return ids, targets


def spread(ids, targets):
    """Return sparse targets as a matrix, `[b, V]`."""
    matrix = np.zeros([len(ids), 7])
    for row, (row_ids, row_targets) in enumerate(zip(ids.numpy(), targets.numpy(), strict=True)):
        np.add.at(matrix[row], row_ids, row_targets)
    return matrix


def test_targets_weigh_words_by_their_rarity_so_far(head):
    # Of three texts, one has a cat, one a dog, and two the sun: idf = log((1 + 1/3) / (1/3 + 1/3)) and so on.
    rare, sun = np.log(2), np.log(4 / 3)
    expected = np.zeros([3, 7])
    expected[0, [CAT, SUN]] = np.array([rare, sun]) / (rare + sun)
    expected[1, [DOG, SUN]] = np.array([rare, sun]) / (rare + sun)
    np.testing.assert_allclose(spread(*add_batch(head, FIRST_TEXTS)), expected, rtol=1e-14)

    # Then of two texts: n = 2, f(dog) = 1/3 + 1/2, f(sun) = 2/3 + 1/2. A single word has the whole target.
    np.testing.assert_allclose(spread(*add_batch(head, SECOND_TEXTS)), np.eye(7)[[SUN, DOG]], rtol=1e-14)
    np.testing.assert_allclose(head.frequencies.numpy(), [0, 0, 0, 0, 1 / 3, 5 / 6, 7 / 6], rtol=1e-14)
    assert head.num_batches.item() == 2

    sun, dog = (np.log((3 + 1 / 1) / (f + 1 / 1)) for f in (7 / 6 + 1, 5 / 6 + 1))
    both = np.zeros([1, 7])
    both[0, [SUN, DOG]] = np.array([sun, dog]) / (sun + dog)
    np.testing.assert_allclose(spread(*add_batch(head, [[DOG, SUN]])), both, rtol=1e-14)


def compute_losses(head, features, matrix):
    """Return the cross-entropy of each row in NumPy, and the gradients of its sum weighted 1, 2, ..."""
    logits = features @ head.weight.numpy() + head.bias.numpy()
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    differences = np.exp(log_softmax) * matrix.sum(axis=1, keepdims=True) - matrix
    differences *= np.arange(1, 1 + len(features))[:, None]
    return -(matrix * log_softmax).sum(axis=1), [
        differences @ head.weight.numpy().T, features.T @ differences, differences.sum(axis=0)
    ]  # fmt: skip


@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
def test_loss_and_gradients_match_numpy_in_chunks(head, rows_at_once, monkeypatch):
    monkeypatch.setattr(words, "count_rows_at_once", lambda vocab_size: rows_at_once)
    ids, targets = add_batch(head, FIRST_TEXTS)
    features = paddle.randn([3, 5], "float64") * 3
    features.stop_gradient = False
    losses = head(features, ids, targets)
    (losses * paddle.arange(1, 4).astype("float64")).sum().backward()
    expected, gradients = compute_losses(head, features.numpy(), spread(ids, targets))
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-12)
    for value, gradient in zip((features, head.weight, head.bias), gradients, strict=True):
        np.testing.assert_allclose(value.grad.numpy(), gradient, rtol=1e-10, atol=1e-14)


def test_text_without_words_contributes_nothing(head):
    # In the second batch all texts have the same word, which then tells nothing.
    for texts in ([[START, END, PAD], [START, UNKNOWN, END]], [[START, CAT, END]] * 2):
        head.frequencies.zero_()
        head.num_batches.zero_()
        ids, targets = add_batch(head, texts)
        assert not targets.numpy().any()
        features = paddle.ones([2, 5], "float64")
        features.stop_gradient = False
        losses = head(features, ids, targets)
        losses.sum().backward()
        assert not losses.numpy().any() and not features.grad.numpy().any() and not head.weight.grad.numpy().any()


def test_improbable_word_has_a_finite_loss(head):
    features = paddle.ones([1, 5], "float64")
    head.bias.set_value(np.array([0, 0, 0, 0, -1000, 0, 0.0]))
    head.weight.set_value(np.zeros([5, 7]))
    losses = head(features, paddle.to_tensor([[CAT]]), paddle.ones([1, 1], "float64"))
    assert losses.item() == pytest.approx(1000 + np.log(6), rel=1e-12)
