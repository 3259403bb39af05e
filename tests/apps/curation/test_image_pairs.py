"""Pairs of images: what is proposed and checked, and what a later run takes from the file of an earlier one."""

import cv2
import numpy as np
import pytest

from ernie_vil2.apps.curation import image_pairs
from ernie_vil2.apps.curation.guesses import GUESS, WHOLE_SUPPORT, Comparison, _choose_supported
from ernie_vil2.apps.curation.likeness import make_thumbnails
from ernie_vil2.apps.curation.neighbours import _group_by_cell
from ernie_vil2.apps.curation.registration import (
    CORNERS,
    FAILED,
    FINE_LEVEL,
    LEVELS,
    MIN_PULL,
    _find_stretch,
    _solve_positive,
    compare,
    fit_colours,
    invert_transforms,
    make_pyramid,
    make_view,
    register,
)
from ernie_vil2.apps.curation.thumbnails import pack_thumbnails
from tests.support.crawled_pairs import make_distinct_image, table_digests, write_pair_shard
from tests.support.image_formats import encode_image

STEPS = "image_rules: {{short_side: {short_side}}}\nnear_duplicates: {{likeness: {likeness}}}"


def make_altered_images(count):
    """Return distinct images, and behind them each once more: noisy, or smaller."""
    originals = [make_distinct_image(number, 128) for number in range(count)]
    altered = []
    for number, pixels in enumerate(originals):
        noise = np.random.default_rng(number).normal(0, 30, pixels.shape)
        smaller = cv2.resize(pixels, (96, 96), interpolation=cv2.INTER_AREA)
        altered.append(smaller if number % 2 else np.clip(pixels + noise, 0, 255).astype(np.uint8))
    return originals + altered


def write_shard(path, images):
    return write_pair_shard(path, [(encode_image(pixels), "a picture of boats") for pixels in images])


@pytest.fixture
def judged(monkeypatch):
    """Return a list of the samples of all pairs that are registered from now on."""
    pairs = []
    judge_block = image_pairs._judge_block

    def record(all_pairs, numbers, left, right):
        for pair in all_pairs[numbers]:
            pairs.append({int(left.images.samples[pair["query"]]), int(right.images.samples[pair["row"]])})
        judge_block(all_pairs, numbers, left, right)

    monkeypatch.setattr(image_pairs, "_judge_block", record)
    return pairs


def test_changed_threshold_registers_nothing_again(tmp_path, curated, judged):
    path = write_shard(tmp_path / "crawl.tar", make_altered_images(6))
    loose = curated([path], STEPS.format(short_side=8, likeness=0.8))
    assert len(judged) >= 6
    judged.clear()
    strict = curated([path], STEPS.format(short_side=8, likeness=0.99))
    assert not judged
    assert sum(row["is_kept"] for row in loose.values()) < sum(row["is_kept"] for row in strict.values())

    assert strict == curated([path], STEPS.format(short_side=8, likeness=0.99), "fresh")
    assert table_digests(tmp_path / "curated") == table_digests(tmp_path / "fresh")


def test_pairs_are_registered_once_nothing_removes_them(tmp_path, curated, judged):
    path = write_shard(tmp_path / "crawl.tar", make_altered_images(6))
    curated([path], STEPS.format(short_side=100, likeness=0.8))
    registered = list(judged)
    assert registered and not any(pair & {7, 9, 11} for pair in registered)  # the smaller ones are removed
    judged.clear()
    curated([path], STEPS.format(short_side=8, likeness=0.8))
    assert judged and all(pair & {7, 9, 11} for pair in judged)

    curated([path], STEPS.format(short_side=8, likeness=0.8), "fresh")
    assert table_digests(tmp_path / "curated") == table_digests(tmp_path / "fresh")


def test_changed_image_invalidates_its_own_pairs_alone(tmp_path, curated, judged):
    images = make_altered_images(6)
    path = write_shard(tmp_path / "crawl.tar", images)
    text = STEPS.format(short_side=8, likeness=0.8)
    curated([path], text)
    judged.clear()
    images[8] = make_altered_images(20)[25]
    write_shard(path, images)
    curated([path], text)
    assert all(8 in pair for pair in judged)
    assert len(list((tmp_path / "curated" / ".curate").glob("near_duplicates-*.npy"))) == 1

    curated([path], text, "fresh")
    assert table_digests(tmp_path / "curated") == table_digests(tmp_path / "fresh")


def test_equal_images_are_compared_once(tmp_path, curated, judged):
    images = [make_distinct_image(1, 128)] * 5 + [make_distinct_image(2, 128)]
    table = curated([write_shard(tmp_path / "crawl.tar", images)], "near_duplicates: {}")
    assert [row["is_kept"] for row in table.values()] == [True, False, False, False, False, True]
    assert {row["nearest"] for row in table.values()} == {None, 0}
    assert judged == [{0}, {0, 5}]  # the second pair because its captions are equal


def test_turned_images_have_to_be_more_alike(tmp_path):
    original, altered = make_altered_images(1)  # noisy
    for pixels, shares in ((altered, (0.9, 1.1)), (np.ascontiguousarray(altered[:, ::-1]), (2.4, 2.6))):
        packed = pack_thumbnails([make_thumbnails(original), make_thumbnails(pixels)])

        def find(likeness, packed=packed):
            (matches,) = image_pairs.find_matches(packed, tmp_path, Comparison(likeness=likeness))
            return matches

        difference = 1 - float(find(0.5).likeness.max())
        # Upright, a pair may differ by all that the threshold leaves; mirrored, by two fifths of it.
        is_found = [len(find(1 - share * difference).likeness) > 0 for share in shares]
        assert is_found == [False, True]


def test_rows_are_grouped_as_by_a_sort(monkeypatch, tmp_path):
    monkeypatch.setattr("ernie_vil2.apps.curation.neighbours.BLOCK", 3)
    cells = np.random.default_rng(0).integers(0, 7, (500, 2)).astype(np.int32)
    rows_by_cell, bounds = _group_by_cell(cells, 9, tmp_path)
    np.testing.assert_array_equal(rows_by_cell, np.argsort(cells.ravel(), kind="stable") // 2)
    np.testing.assert_array_equal(np.diff(bounds), np.bincount(cells.ravel(), minlength=9))


def make_moved_images(count):
    """Return luminances, parts of them, and the maps from the samples of the parts to those of the images."""
    rng = np.random.default_rng(0)
    luminances, parts, transforms = [], [], []
    for number in range(count):
        luminance = cv2.cvtColor(make_distinct_image(number), cv2.COLOR_RGB2GRAY)
        scale = rng.uniform(0.7, 0.9)
        lean = rng.uniform(-0.05, 0.05)
        transform = np.array([[scale, -lean, rng.uniform(4, 6)], [lean, scale, rng.uniform(4, 6)]], np.float32)
        parts.append(cv2.warpAffine(luminance, transform, (64, 64), flags=cv2.WARP_INVERSE_MAP))
        luminances.append(luminance)
        transforms.append(transform)
    return luminances, parts, np.stack(transforms)


def make_quick(luminances):
    return np.stack([make_pyramid(luminance)[0] for luminance in luminances])


def test_guesses_are_checked_by_their_correlation():
    luminances, parts, transforms = make_moved_images(8)
    templates, images = make_quick(parts), make_quick(luminances)
    checked, correlations = register(templates, images, transforms, LEVELS[0])
    np.testing.assert_allclose(checked, transforms, atol=1e-4)
    expected = []
    for number in range(8):
        warped = cv2.warpAffine(luminances[number], transforms[number], (64, 64), flags=cv2.WARP_INVERSE_MAP)
        expected.append(np.corrcoef(make_pyramid(warped)[0].ravel(), templates[number].ravel())[0, 1])
    np.testing.assert_allclose(correlations, expected, atol=0.03)
    assert register(templates, np.roll(images, 1, axis=0), transforms, LEVELS[0])[1].max() < 0.9
    far = transforms + np.array([[0, 0, 50], [0, 0, 50]], np.float32)
    np.testing.assert_array_equal(register(templates, images, far, LEVELS[0])[1], FAILED)


def test_refined_guesses_are_nearer_to_the_truth():
    luminances, parts, transforms = make_moved_images(8)
    images = 0.5 * make_quick(luminances) + 40  # light does not matter
    guesses = transforms * np.float32(1.05) + np.array([[0, 0, 1], [0, 0, -1]], np.float32)
    refined, correlations = register(make_quick(parts), images, guesses, LEVELS[1])
    assert correlations.min() > 0.99
    corners = np.array([[0, 63, 0, 63], [0, 0, 63, 63], [1, 1, 1, 1]], np.float32)
    errors = [np.abs((maps - transforms) @ corners).max(axis=(1, 2)) for maps in (guesses, refined)]
    assert (errors[1] < 0.5 * errors[0]).all()


def test_sticker_is_left_out_of_the_registration():
    luminances, parts, transforms = make_moved_images(8)
    templates, images = make_quick(parts), make_quick(luminances)
    templates[:, 4:10, 5:11] = 255
    guesses = transforms + np.array([[0, 0, 1], [0, 0, -1]], np.float32)
    level = LEVELS[1]._replace(min_trimmed=0.9)
    refined, ranks = register(templates, images, guesses, level)
    whole, _ = register(templates, images, guesses, level._replace(sure_correlation=-1.0))
    assert ((ranks > -0.1) & (ranks < 0)).all()
    errors = [np.abs(maps - transforms)[:, :, 2].max() for maps in (refined, whole)]
    assert errors[0] < 1 < errors[1]


def test_small_mark_does_not_pull_the_map_away():
    luminances, parts, transforms = make_moved_images(8)
    templates, images = np.stack(parts).astype(np.float32), np.stack(luminances).astype(np.float32)
    templates[:, 52:60, 40:60] += 60
    untrimmed = FINE_LEVEL._replace(unsure_correlation=-1.0, sure_correlation=-1.0)
    pulled, correlations = register(templates, images, transforms, untrimmed)
    refined, _ = register(templates, images, transforms, FINE_LEVEL)
    is_between = (correlations > FINE_LEVEL.unsure_correlation) & (correlations < FINE_LEVEL.sure_correlation)
    errors = [np.abs((maps - transforms) @ CORNERS).max(axis=(1, 2)) for maps in (refined, pulled)]
    assert is_between.sum() >= 4
    assert (errors[0] <= errors[1]).all() and errors[0][is_between].max() < MIN_PULL


def test_every_other_sample_finds_the_same_map():
    luminances, parts, transforms = make_moved_images(8)
    blurred = [np.stack([cv2.GaussianBlur(image, (5, 5), 0) for image in images]) for images in (parts, luminances)]
    templates, images = (stack.astype(np.float32) for stack in blurred)
    guesses = transforms + np.array([[0, 0, 1], [0, 0, -1]], np.float32)
    whole, correlations = register(templates, images, guesses, FINE_LEVEL._replace(stride=1))
    sparse, sparse_correlations = register(templates, images, guesses, FINE_LEVEL._replace(stride=2))
    assert np.abs((sparse - whole) @ CORNERS).max() < 1 / 3  # of a sample, as judging needs
    np.testing.assert_allclose(sparse_correlations, correlations, atol=0.01)


def test_saturation_and_tint_are_found_beside_a_mark():
    rng = np.random.default_rng(0)
    strong, light = rng.uniform(-80, 80, (600, 3)), rng.uniform(0, 1, (600, 1))
    pale = 0.6 * strong + np.array([9, -6, -3]) * light
    pale[:60] += 100
    saturation, tint = fit_colours(*(values.astype(np.float32) for values in (strong, pale, light)), 5, 8)
    assert saturation == pytest.approx(0.6, abs=0.02)
    np.testing.assert_allclose(tint, [9, -6, -3], atol=1)


def make_guesses(*supported):
    """Return guesses of a pair, of supports and shifts."""
    guesses = np.zeros(len(supported), GUESS)
    guesses["row"] = 1
    guesses["transform"] = np.eye(2, 3)
    guesses["score"], guesses["transform"][:, 0, 2] = np.transpose(supported)
    return guesses


def test_guess_needs_a_high_cosine_or_one_that_agrees():
    for supported, num_chosen in (
        ([(0.75, 0), (0.75, 40)], 0),
        ([(0.75, 0), (0.75, 40), (0.75, 3)], 2),
        ([(0.75, 0), (0.75, 0)], 0),  # the same feature, found twice
        ([(0.75, 0), (0.9, 40)], 1),
        ([(WHOLE_SUPPORT, 0), (0.75, 3)], 1),
        ([(WHOLE_SUPPORT, 0), *((0.9, 20 + 0.1 * number) for number in range(9))], 9),  # of a symmetric image
    ):
        assert len(_choose_supported(make_guesses(*supported))) == num_chosen


def test_steps_of_all_guesses_solve_their_own_equations():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(20, 8, 30))
    matrices, vectors = roots @ roots.transpose(0, 2, 1), rng.normal(size=(20, 8))
    expected = np.linalg.solve(matrices, vectors[..., None])[..., 0]
    np.testing.assert_allclose(_solve_positive(matrices, vectors), expected, rtol=1e-9)


def test_inverse_maps_and_stretches_are_those_of_numpy():
    rng = np.random.default_rng(0)
    transforms = rng.normal(size=(50, 2, 3)).astype(np.float32)
    for transform, inverse in zip(transforms, invert_transforms(transforms), strict=True):
        np.testing.assert_allclose(inverse, cv2.invertAffineTransform(transform), rtol=1e-3, atol=1e-3)
    values = np.linalg.svd(transforms[:, :, :2].astype(float), compute_uv=False)
    np.testing.assert_allclose(
        _find_stretch(transforms[:, :, :2].astype(float)), values[:, 0] / values[:, 1], rtol=1e-6
    )


def test_a_sticker_that_bends_the_curve_of_light_is_local():
    """Most of a drawing on white has one level, so that a sticker over a part of it would move the curve of white."""
    pixels = np.full((160, 160, 3), 255, np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(14):
        centre, colour = rng.integers(30, 130, 2).tolist(), rng.integers(20, 200, 3).tolist()
        cv2.circle(pixels, centre, int(rng.integers(6, 16)), colour, -1)
    covered = pixels.copy()
    cv2.rectangle(covered, (95, 95), (155, 155), (140, 30, 60), -1)
    views = []
    for image in (pixels, covered):
        luminance = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
        views.append(make_view(luminance, cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA)))
    verdict = compare(*views, np.eye(2, 3, dtype=np.float32))
    assert verdict is not None
    assert verdict.likeness > 0.99
    assert not verdict.has_other_colours
