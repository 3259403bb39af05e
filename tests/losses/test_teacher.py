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

    sides = teacher[:, :width], teacher[:, width:]
    return np.mean([divergences(images, texts, *sides), divergences(texts, images, *sides[::-1])])


@pytest.mark.parametrize("unknown", [[], [1, 4], [0, 1, 2, 3, 4, 5, 6]])
def test_divergence_and_distance_are_numpys_for_rows_on_any_rank(unknown):
    rng = np.random.default_rng(0)
    images, texts = unit(rng, 7, 5), unit(rng, 7, 5)
    teacher = np.concatenate([unit(rng, 7, 3), unit(rng, 7, 3)], axis=1)
    teacher[unknown] = 0
    known = np.setdiff1d(np.arange(7), unknown)
    expected = by_numpy(images, texts, teacher, known, 4.0, 9.0) if len(known) else 0.0
    own = np.concatenate([unit(rng, 7, 3), unit(rng, 7, 3)], axis=1)
    distance = np.mean(4 - 2 * (own * teacher)[known].sum(axis=1)) if len(known) else 0.0
    images, texts, teacher, own = map(paddle.to_tensor, (images, texts, teacher, own))
    scale = paddle.to_tensor([4.0])
    for parts in ([slice(0, 7)], [slice(0, 3), slice(3, 7)]):
        losses = [teacher_loss((images[part], images), (texts[part], texts), (teacher[part], teacher), scale, 9.0)
                  for part in parts]  # fmt: skip
        assert float(sum(losses)) == pytest.approx(expected, rel=1e-5)
        distances = [teacher_distance(own[part], (teacher[part], teacher)) for part in parts]
        assert float(sum(distances)) == pytest.approx(distance, rel=1e-5)


def test_a_student_like_the_teacher_has_nothing_to_learn():
    rng = np.random.default_rng(1)
    images, texts = map(paddle.to_tensor, (unit(rng, 6, 4), unit(rng, 6, 4)))
    images.stop_gradient = False
    teacher = paddle.concat([images.detach(), texts], axis=1)
    loss = teacher_loss((images, images), (texts, texts), (teacher, teacher), paddle.to_tensor([9.0]), 9.0)
    loss.backward()
    assert float(loss) == pytest.approx(0, abs=1e-6) and np.allclose(images.grad.numpy(), 0, atol=1e-5)
    # Sharp distributions stay finite.
    teacher = paddle.concat([-images, texts], axis=1)
    loss = teacher_loss((images, images), (texts, texts), (teacher, teacher), paddle.to_tensor([100.0]), 1000.0)
    assert 64 < float(loss) < 300
