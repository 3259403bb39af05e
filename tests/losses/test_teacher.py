"""The teacher's term against NumPy."""

import numpy as np
import paddle
import pytest

from ernie_vil2.losses.multi_view import teacher_distance, teacher_loss


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_numpy(images, texts, teacher, known, scale, teacher_scale):
    """Mean divergence over the known rows and both directions."""
    width = teacher.shape[1] // 2
    images, texts, teacher = (side[known].astype(np.float64) for side in (images, texts, teacher))

    def divergences(rows, columns, own, others):
        student, target = scale * rows @ columns.T, teacher_scale * own @ others.T
        student, target = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (student, target))
        return (np.exp(target) * (target - student)).sum(axis=1)

    teacher_images, teacher_texts = teacher[:, :width], teacher[:, width:]
    return np.mean(
        [
            divergences(images, texts, teacher_images, teacher_texts),
            divergences(texts, images, teacher_texts, teacher_images),
        ]
    )


@pytest.mark.parametrize("unknown", [[], [1, 4], [0, 1, 3, 4, 6], [0, 1, 2, 3, 4, 5, 6]])
def test_divergence_is_numpys_however_rows_are_spread(unknown):
    rng = np.random.default_rng(0)
    images, texts = unit(rng, 7, 5), unit(rng, 7, 5)
    teacher = np.concatenate([unit(rng, 7, 3), unit(rng, 7, 3)], axis=1)
    teacher[unknown] = 0
    known = np.setdiff1d(np.arange(7), unknown)
    scale = paddle.to_tensor([4.0])
    all_images, all_texts, all_teacher = map(paddle.to_tensor, (images, texts, teacher))
    shares = [
        float(teacher_loss((all_images[part], all_images), (all_texts[part], all_texts),
                           (all_teacher[part], all_teacher), scale, 9.0))
        for part in (slice(0, 3), slice(3, 7))
    ]  # fmt: skip
    whole = teacher_loss((all_images, all_images), (all_texts, all_texts), (all_teacher, all_teacher), scale, 9.0)
    expected = by_numpy(images, texts, teacher, known, 4.0, 9.0) if len(known) else 0.0
    assert sum(shares) == pytest.approx(expected, rel=1e-5) and float(whole) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("unknown", [[], [1, 4], [0, 1, 2, 3, 4, 5, 6]])
def test_distance_is_of_known_rows_however_they_are_spread(unknown):
    rng = np.random.default_rng(3)
    own, teacher = (np.concatenate([unit(rng, 7, 3), unit(rng, 7, 3)], axis=1) for _ in range(2))
    teacher[unknown] = 0
    known = np.setdiff1d(np.arange(7), unknown)
    rows, columns = map(paddle.to_tensor, (own, teacher))
    shares = [float(teacher_distance(rows[part], (columns[part], columns))) for part in (slice(0, 3), slice(3, 7))]
    expected = np.mean(4 - 2 * (own * teacher)[known].sum(axis=1)) if len(known) else 0.0
    assert sum(shares) == pytest.approx(expected, rel=1e-5)


def test_a_student_like_the_teacher_has_nothing_to_learn():
    rng = np.random.default_rng(1)
    images, texts = map(paddle.to_tensor, (unit(rng, 6, 4), unit(rng, 6, 4)))
    images.stop_gradient = False
    teacher = paddle.concat([images.detach(), texts], axis=1)
    loss = teacher_loss((images, images), (texts, texts), (teacher, teacher), paddle.to_tensor([9.0]), 9.0)
    loss.backward()
    assert float(loss) == pytest.approx(0, abs=1e-6) and np.allclose(images.grad.numpy(), 0, atol=1e-5)


def test_sharp_distributions_stay_finite():
    rng = np.random.default_rng(2)
    images, texts = map(paddle.to_tensor, (unit(rng, 6, 4), unit(rng, 6, 4)))
    teacher = paddle.concat([-images, texts], axis=1)
    loss = teacher_loss((images, images), (texts, texts), (teacher, teacher), paddle.to_tensor([100.0]), 1000.0)
    assert 64 < float(loss) < 300
