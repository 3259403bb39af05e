"""The loss and the distance to a teacher equal NumPy's."""

import numpy as np
import paddle
import pytest
from paddle.base import core

from ernie_vil2.losses.multi_view import teacher_distance, teacher_loss
from tests.support.loss_reference import draw_unit_rows


def draw_rows(rng, count, width):
    return draw_unit_rows(rng, count, width).astype(np.float32)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def compute_divergences(student_logits, teacher_logits):
    """Return the divergence of each row's softmax from the teacher's."""
    student, teacher = log_softmax(student_logits), log_softmax(teacher_logits)
    return (np.exp(teacher) * (teacher - student)).sum(axis=1)


def compute_expected_loss(images, texts, teacher, scale, teacher_scale):
    """Return the mean divergence over rows and both directions; a teacher's row is an image's and a text's vector."""
    images, texts = images.astype(np.float64), texts.astype(np.float64)
    teacher_images, teacher_texts = np.split(teacher.astype(np.float64), 2, axis=1)
    student_logits, teacher_logits = scale * images @ texts.T, teacher_scale * teacher_images @ teacher_texts.T
    from_images = compute_divergences(student_logits, teacher_logits)
    return np.mean([from_images, compute_divergences(student_logits.T, teacher_logits.T)])


@pytest.mark.parametrize("unknown_rows", [[], [1, 4], [0, 1, 2, 3, 4, 5, 6]])
def test_divergence_and_distance_equal_numpys_on_any_rank(unknown_rows):
    rng = np.random.default_rng(0)
    images, texts = draw_rows(rng, 7, 5), draw_rows(rng, 7, 5)
    teacher = np.concatenate([draw_rows(rng, 7, 3), draw_rows(rng, 7, 3)], axis=1)
    student = np.concatenate([draw_rows(rng, 7, 3), draw_rows(rng, 7, 3)], axis=1)
    # Zeros are rows for which the teacher has no vectors; they count neither as rows nor as columns.
    teacher[unknown_rows] = 0
    rows = np.setdiff1d(np.arange(7), unknown_rows)
    expected_loss = expected_distance = 0.0
    if len(rows):
        expected_loss = compute_expected_loss(images[rows], texts[rows], teacher[rows], 4.0, 9.0)
        # Squared distances of two pairs of unit vectors.
        expected_distance = np.mean(4 - 2 * (student * teacher)[rows].sum(axis=1))

    images, texts, teacher, student = map(paddle.to_tensor, (images, texts, teacher, student))
    scale = paddle.to_tensor([4.0])
    for shards in ([slice(0, 7)], [slice(0, 3), slice(3, 7)]):
        loss = distance = 0.0
        for shard in shards:
            local_teacher = teacher[shard], teacher
            loss += float(teacher_loss((images[shard], images), (texts[shard], texts), local_teacher, scale, 9.0))
            distance += float(teacher_distance(student[shard], local_teacher))
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        assert distance == pytest.approx(expected_distance, rel=1e-5)


def test_student_equal_to_the_teacher_has_no_loss():
    rng = np.random.default_rng(1)
    images, texts = map(paddle.to_tensor, (draw_rows(rng, 6, 4), draw_rows(rng, 6, 4)))
    images.stop_gradient = False
    teacher = paddle.concat([images.detach(), texts], axis=1)
    loss = teacher_loss((images, images), (texts, texts), (teacher, teacher), paddle.to_tensor([9.0]), 9.0)
    loss.backward()
    assert float(loss) == pytest.approx(0, abs=1e-6) and np.allclose(images.grad.numpy(), 0, atol=1e-5)
    # Sharp distributions do not overflow.
    teacher = paddle.concat([-images, texts], axis=1)
    loss = teacher_loss((images, images), (texts, texts), (teacher, teacher), paddle.to_tensor([100.0]), 1000.0)
    assert 64 < float(loss) < 300


def test_no_product_is_rounded_to_tf32(monkeypatch):
    switches, matmul = [], paddle.matmul

    def record_switch(*arguments, **options):
        switches.append(core.get_cublas_switch())
        return matmul(*arguments, **options)

    monkeypatch.setattr(paddle, "matmul", record_switch)
    rng = np.random.default_rng(2)
    images, texts, teacher = (paddle.to_tensor(draw_rows(rng, 6, 4)) for _ in range(3))
    images.stop_gradient = texts.stop_gradient = False
    original = core.get_cublas_switch()
    core.set_cublas_switch(True)
    try:
        teacher_loss((images, images), (texts, texts), (teacher, teacher), paddle.to_tensor([9.0]), 9.0).backward()
        # Forward four products, and backward two for each of the student's.
        assert switches == [False] * 8 and core.get_cublas_switch()
    finally:
        core.set_cublas_switch(original)
