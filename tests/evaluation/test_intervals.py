"""Intervals against SciPy's bootstrap and tests, what queries found by hand, and the verdicts that follow from both.

`benchmarks/intervals.py` has the simulations.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.readers.entailment import StatementRow
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.classification import ClassScores, EncodedClasses
from ernie_vil2.evaluation.intervals import (
    Interval,
    correct_p_values,
    count_queries_needed,
    estimate_over_queries,
    estimate_over_seeds,
    estimate_query_difference,
    estimate_seed_difference,
    find_detectable_difference,
)
from ernie_vil2.evaluation.outcomes import Comparison, Outcomes, compute_recalls
from ernie_vil2.evaluation.protocol import Protocol, find_protocol, score_embeddings
from ernie_vil2.evaluation.scorers.entailment import EntailmentScores, Statements
from ernie_vil2.evaluation.scorers.entailment import make_outcomes as make_statement_outcomes
from ernie_vil2.evaluation.scorers.retrieval import make_outcomes
from ernie_vil2.evaluation.scorers.zero_shot import make_outcomes as make_class_outcomes
from tests.support.embedded_pairs import make_noisy_benchmark
from tests.support.limits import limit_examples

SEEDS = st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=2, max_size=8)


def hits(queries, share=0.7, seed=0):
    return 100.0 * (np.random.default_rng(seed).random(queries) < share)


def level(clusters):
    """The level whose plain percentile interval is the expanded one of so many clusters."""
    units = np.sqrt(clusters / (clusters - 1)) * stats.t.ppf(0.975, clusters - 1)
    return 2 * stats.norm.cdf(units) - 1


def test_the_interval_is_that_of_scipys_percentile_bootstrap():
    values = np.random.default_rng(1).integers(0, 4, 300) * 100 / 3
    found = estimate_over_queries(values, resamples=20_000)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, confidence_level=level(300),
                               method="percentile", batch=1000, random_state=1)  # fmt: skip
    assert found.mean == pytest.approx(values.mean()) and found.count == 300
    assert [found.low, found.high] == pytest.approx(list(expected.confidence_interval), abs=0.15)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=0.03)


def test_clusters_and_groups_are_drawn_as_scipy_draws_images():
    random = np.random.default_rng(2)
    images, texts = 60, random.integers(1, 6, 60)
    owner = np.repeat(np.arange(images), texts)
    of_image, of_text = hits(images, 0.8, 3), 100.0 * (random.random(len(owner)) < random.random(images)[owner])
    sums = np.bincount(owner, of_text)

    def figure(image, total, count, axis):
        return (image.mean(axis=axis) + total.sum(axis=axis) / count.sum(axis=axis)) / 2

    expected = stats.bootstrap((of_image, sums, texts), figure, paired=True, n_resamples=20_000, method="percentile",
                               confidence_level=level(images), batch=1000, random_state=1)  # fmt: skip
    shuffled = random.permutation(images + len(owner))
    values, clusters = np.concatenate([of_image, of_text]), np.concatenate([np.arange(images), owner])
    groups = np.repeat([7, 3], [images, len(owner)])
    found = estimate_over_queries(values[shuffled], clusters[shuffled], groups[shuffled], resamples=20_000)
    assert found.mean == pytest.approx((of_image.mean() + of_text.mean()) / 2)
    assert [found.low, found.high] == pytest.approx(list(expected.confidence_interval), abs=0.35)
    alone = estimate_over_queries(values[shuffled], None, groups[shuffled])
    assert found.high - found.low > 1.05 * (alone.high - alone.low)  # texts of an image are alike


def test_queries_that_are_not_of_the_figure_change_nothing():
    values, clusters = hits(50), np.arange(50) // 2
    with_others = np.concatenate([np.full(10, np.nan), values])
    assert estimate_over_queries(with_others, np.concatenate([np.arange(10), clusters])) == estimate_over_queries(
        values, clusters
    )


def test_equal_models_with_several_texts_have_an_interval():
    """Images with 1 to 5 texts are of many kinds, and yet no resample of equal models differs from another."""
    owner = np.repeat(np.arange(90), np.arange(90) % 5 + 1)
    clusters = np.concatenate([np.arange(90), owner])
    groups = np.repeat([0, 1], [90, len(owner)])
    values = hits(len(clusters))

    same = estimate_query_difference(values, values, clusters, groups)

    exact = stats.binomtest(90, 90).proportion_ci(0.95, method="exact")
    assert same.high == pytest.approx(100 * (1 - exact.low)) and same.low == pytest.approx(-same.high)
    assert (same.mean, same.standard_error, same.p_value) == (0, 0, 1)


def test_alike_clusters_are_bounded_in_each_group():
    """One direction always right, the other always wrong, and 40 of 60 images have a query of the second."""
    values = np.repeat([100.0, 0.0], [60, 80])
    clusters = np.concatenate([np.arange(60), np.arange(80) // 2])
    groups = np.repeat([0, 1], [60, 80])

    found = estimate_over_queries(values, clusters, groups)

    right = stats.binomtest(60, 60).proportion_ci(0.95, method="exact")
    wrong = stats.binomtest(0, 40).proportion_ci(0.95, method="exact")
    assert found.mean == 50
    assert found.low == pytest.approx(50 * right.low) and found.high == pytest.approx(50 + 50 * wrong.high)


def test_one_cluster_has_no_interval_and_no_query_no_mean():
    found = estimate_over_queries(np.array([100.0, 0.0]), np.zeros(2))
    assert (found.mean, found.low, found.high, found.count) == (50, None, None, 2) and not found.excludes_zero
    with pytest.raises(ValueError, match="no queries"):
        estimate_over_queries(np.array([np.nan]))
    with pytest.raises(ValueError, match="same queries"):
        estimate_query_difference(np.array([1.0, np.nan]), np.array([1.0, 2.0]))


@pytest.mark.parametrize(("won", "lost"), [(4, 0), (30, 12)])
def test_the_paired_test_of_hits_is_mcnemars_exact_test(won, lost):
    first = np.concatenate([np.zeros(won), np.full(lost, 100.0), hits(150)])
    second = np.concatenate([np.full(won, 100.0), np.zeros(lost), hits(150)])
    found = estimate_query_difference(second, first, resamples=50_000)
    assert found.p_value == pytest.approx(stats.binomtest(won, won + lost).pvalue, abs=0.005)


def test_the_paired_test_exchanges_whole_clusters_as_scipy_does():
    random = np.random.default_rng(4)
    clusters = np.arange(120) // 3
    first, second = hits(120, 0.5, 5), hits(120, 0.65, 6)
    second[clusters < 15] = first[clusters < 15]
    sums = [np.bincount(clusters, values) for values in (second, first)]
    expected = stats.permutation_test(
        sums, lambda x, y, axis: np.sum(x - y, axis), permutation_type="samples", n_resamples=50_000, batch=5_000,
        vectorized=True, random_state=random,
    )  # fmt: skip
    assert estimate_query_difference(second, first, clusters, resamples=50_000).p_value == pytest.approx(
        expected.pvalue, abs=0.01
    )


def test_holms_correction_by_hand():
    assert correct_p_values([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct_p_values([0.6, 0.9]) == [1, 1] and correct_p_values([0.2]) == [0.2] and correct_p_values([]) == []


def test_so_many_queries_find_the_difference_four_times_of_five():
    """A difference of 2 points with a standard error of 2: by the usual formula (1.96 + 0.84)² = 7.85 times as many."""
    difference = Interval(2.0, -2, 6, 1000, 2.0)
    assert count_queries_needed(difference) == 7900
    assert count_queries_needed(difference, tests=3) > count_queries_needed(difference)
    assert find_detectable_difference(difference) == pytest.approx(5.6, abs=0.01)
    assert (
        count_queries_needed(Interval(0.0, 0, 0, 1000, 0.0)) is None
        and find_detectable_difference(Interval(1, 0, 2, 9)) is None
    )


def test_a_difference_of_rounding_noise_is_none():
    # Gains and losses of thirds cancel out, but their sum in floats is about 1e-15.
    values = np.array([100, 200 / 3, 100 / 3, 0, 0, 100] * 7 + [100 / 3] * 3)
    changes = np.array([-100, -100, -100, 100, 100, 100] * 7 + [0] * 3) / 3
    difference = estimate_query_difference(values + changes, values)
    assert np.mean(values + changes - values) != 0
    assert difference.mean == 0 and difference.standard_error > 1 and count_queries_needed(difference) is None
    # Noise of one sign in every query is no evidence either.
    noise = estimate_query_difference(values + 1e-13, values)
    assert noise.mean == 0 and noise.p_value == 1


@limit_examples(40)
@given(SEEDS)
def test_a_difference_over_seeds_has_the_t_tests_interval(values):
    others = [0.5 * value + position for position, value in enumerate(values)]
    found = estimate_seed_difference(dict(enumerate(values)), dict(enumerate(others)) | {99: 7.0})
    expected = stats.ttest_rel(values, others).confidence_interval(0.95)
    assert found.count == len(values)
    assert np.allclose([found.low, found.high], expected, atol=1e-9, equal_nan=True)


def test_one_seed_has_no_interval_and_none_no_mean():
    assert estimate_over_seeds([3.0]) == Interval(3.0, None, None, 1) and not estimate_over_seeds([3.0]).excludes_zero
    assert estimate_seed_difference({0: 1.0}, {1: 1.0}) is None
    with pytest.raises(ValueError, match="no runs"):
        estimate_over_seeds([])


def found(noise=1.0, name="pairs", **options):
    return make_outcomes(score_embeddings(make_noisy_benchmark(noise=noise, **options), find_protocol(name)))


def outcome(hits, ids=None, main="accuracy"):
    hits = np.asarray(hits, float)
    return Outcomes(ids or [str(row) for row in range(len(hits))], {main: 100 * hits}, main, np.arange(len(hits)),
                    np.where(hits, 1, 2))  # fmt: skip


@pytest.mark.parametrize("name", ["pairs", "first-text", "official-rows", "folds"])
def test_figures_are_those_of_the_evaluation(name):
    scoring = Protocol("folds", "", fold_size=12) if name == "folds" else find_protocol(name)
    evaluation = score_embeddings(make_noisy_benchmark(), scoring)
    one = make_outcomes(evaluation)
    if name == "folds":
        assert len(set(one.groups["mR"].tolist())) == 6  # two directions of three folds
    else:
        for way, recalls in evaluation.results.items():
            for figure, value in recalls.recall.items():
                assert one.estimate(f"{way}/{figure}").mean == pytest.approx(value)
    assert one.estimate(one.main_figure).mean == pytest.approx(evaluation.mean_recall)


def test_queries_of_an_image_are_one_cluster():
    evaluation = score_embeddings(make_noisy_benchmark(images=3), find_protocol("pairs"))
    one = make_outcomes(evaluation)
    assert list(zip(one.query_ids, one.clusters.tolist(), strict=True)) == [
        ("image_to_text i0", 0), ("image_to_text i1", 1), ("image_to_text i2", 2),
        ("text_to_image t0", 0), ("text_to_image t1", 0), ("text_to_image t2", 1), ("text_to_image t3", 1),
        ("text_to_image t4", 2), ("text_to_image t5", 2),
    ]  # fmt: skip
    ranks = [*evaluation.results["image_to_text"].ranking.rank, *evaluation.results["text_to_image"].ranking.rank]
    assert one.ranks.tolist() == ranks
    assert one.texts[:4] == ["", "", "", "text 0"] and one.fields[1] == {"kind": "odd"}


def test_classes_give_accuracy_and_the_mean_over_classes():
    truth = np.eye(3, dtype=bool)[[0, 0, 0, 1, 2]]
    scores = ClassScores(truth, np.eye(3)[[0, 0, 1, 1, 0]] + 0.1, ("a", "b", "c"), 10.0)
    images = Benchmark("x", [BenchmarkImage(str(row), bytes) for row in range(5)], [], np.zeros([0, 2], np.int64),
                         BadSampleReport())  # fmt: skip
    one = make_class_outcomes(EncodedClasses(images, np.zeros([5, 1]), {}, BadSampleReport()), scores)
    assert one.estimate("acc1").mean == pytest.approx(60) == scores.metrics["acc1"]
    assert one.estimate("mean_per_class_recall").mean == pytest.approx(100 * (2 / 3 + 1 + 0) / 3)
    assert one.estimate("mean_per_class_recall").mean == pytest.approx(scores.metrics["mean_per_class_recall"])
    assert "acc5" not in one.figures


def test_statements_give_accuracy_by_label_and_consistency():
    labels, printed, groups = ("True", "False"), [0, 1, 0, 0, 1], "aabbc"
    rows = [StatementRow(str(number), (BenchmarkImage(str(number % 2), bytes),), "x", labels[number % 2], group)
            for number, group in enumerate(groups)]  # fmt: skip
    statements = Statements("nlvr2", "dev", labels, rows, None, {})
    scores = EntailmentScores(statements, rows, np.eye(2, dtype=np.float32)[printed], BadSampleReport())
    one = make_statement_outcomes(scores)
    for name in ("accuracy", "accuracy/True", "accuracy/False", "consistency"):
        assert one.estimate(name).mean == pytest.approx(scores.metrics[name])
    assert one.clusters.tolist() == [0, 0, 1, 1, 2] and one.ranks.tolist() == [1, 1, 1, 2, 2]


def test_the_better_model_is_called_so_and_the_same_one_is_not():
    comparison = Comparison({"first": {"": found(1.2)}, "good": {"": found(0.5)}, "same": {"": found(1.2)}}, 2000)
    good, same = comparison.verdicts
    assert (good.word, same.word) == ("better", "not distinguishable")
    assert good.difference.low > 0 and good.tests == 2 and good.queries_needed is None
    for columns in comparison.record().values():
        assert len({len(values) for values in columns.values()}) == 1


def test_verdicts_are_corrected_for_their_number():
    random = np.random.default_rng(3)
    first = random.random(400) < 0.5
    second = np.where(random.random(400) < 0.1, True, first)
    alone = Comparison({"a": {"": outcome(first)}, "b": {"": outcome(second)}}).verdicts[0]
    many = Comparison({"a": {"": outcome(first)}, **{str(n): {"": outcome(second)} for n in range(5)}}).verdicts
    assert [verdict.p_value for verdict in many] == pytest.approx([min(1, 5 * alone.p_value)] * 5)


def test_a_model_of_one_direction_is_compared_in_that_one():
    both = found()
    images = [name for name in both.query_ids if name.startswith("image")]
    ranks = both.ranks[: len(images)]
    recalls = compute_recalls(["image_to_text"] * 30, ranks[::-1])
    one = Outcomes(images[::-1], recalls, "image_to_text/mR", np.arange(30), ranks[::-1])
    comparison = Comparison({"both": {"": both}, "one": {"": one}}, 500)
    (verdict,) = comparison.verdicts
    assert verdict.figure == "image_to_text/mR" and verdict.difference.mean == 0 and verdict.difference.count == 30
    assert ("", "one", "mR") not in comparison.estimates
    table = comparison.make_table()
    assert dict(table.rows)["one"][-1] == "-"
    assert comparison.find_ranks("one", "").tolist() == [*ranks.tolist(), *[0] * 60]


def test_other_queries_are_refused_in_words():
    with pytest.raises(ValueError, match="b and a"):
        Comparison({"a": {"": outcome([1, 0])}, "b": {"": outcome([1, 0], ["0", "other"])}})
    with pytest.raises(ValueError, match="x; accuracy"):
        outcome([1], main="x").choose_shared_figure(outcome([1]))


def test_one_seed_one_interval():
    values, others = hits(500), hits(500, 0.6, 9)
    assert estimate_query_difference(values, others) == estimate_query_difference(values, others)
    assert estimate_query_difference(values, others) != estimate_query_difference(values, others, seed=1)
