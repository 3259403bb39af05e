"""Intervals and tests equal SciPy's, outcomes of queries equal those by hand, and verdicts follow from both.

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


def draw_hits(num_queries, share=0.7, seed=0):
    """Return 100 for every hit and 0 for every miss."""
    return 100.0 * (np.random.default_rng(seed).random(num_queries) < share)


def compute_level(num_clusters):
    """Return the level at which SciPy's percentile interval equals the expanded 95 % interval of so many clusters."""
    units = np.sqrt(num_clusters / (num_clusters - 1)) * stats.t.ppf(0.975, num_clusters - 1)
    return 2 * stats.norm.cdf(units) - 1


def test_interval_equals_scipys_percentile_bootstrap():
    values = np.random.default_rng(1).integers(0, 4, 300) * 100 / 3
    interval = estimate_over_queries(values, resamples=20_000)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, confidence_level=compute_level(300),
                               method="percentile", batch=1000, random_state=1)  # fmt: skip
    # Two bootstraps of 20,000 resamples differ by their random draws; the interval is about 8 points wide.
    assert interval.mean == pytest.approx(values.mean()) and interval.count == 300
    assert [interval.low, interval.high] == pytest.approx(list(expected.confidence_interval), abs=0.15)
    assert interval.standard_error == pytest.approx(expected.standard_error, rel=0.03)


def test_clusters_and_groups_are_resampled_as_by_scipy():
    random = np.random.default_rng(2)
    num_images, text_counts = 60, random.integers(1, 6, 60)
    image_of_text = np.repeat(np.arange(num_images), text_counts)
    num_texts = len(image_of_text)
    image_hits = draw_hits(num_images, 0.8, 3)
    text_hits = 100.0 * (random.random(num_texts) < random.random(num_images)[image_of_text])

    # SciPy resamples images, each with the sum of its texts' values and their count.
    def compute_figure(image_value, text_sum, text_count, axis):
        return (image_value.mean(axis=axis) + text_sum.sum(axis=axis) / text_count.sum(axis=axis)) / 2

    samples = (image_hits, np.bincount(image_of_text, text_hits), text_counts)
    expected = stats.bootstrap(samples, compute_figure, paired=True, n_resamples=20_000, method="percentile",
                               confidence_level=compute_level(num_images), batch=1000, random_state=1)  # fmt: skip

    # Neither the order of queries nor the numbers of groups matter.
    order = random.permutation(num_images + num_texts)
    values = np.concatenate([image_hits, text_hits])[order]
    clusters = np.concatenate([np.arange(num_images), image_of_text])[order]
    groups = np.repeat([7, 3], [num_images, num_texts])[order]
    clustered = estimate_over_queries(values, clusters, groups, resamples=20_000)
    assert clustered.mean == pytest.approx((image_hits.mean() + text_hits.mean()) / 2)
    assert [clustered.low, clustered.high] == pytest.approx(list(expected.confidence_interval), abs=0.35)
    # Texts of an image resemble each other: without clusters the interval is too narrow.
    independent = estimate_over_queries(values, None, groups)
    assert clustered.high - clustered.low > 1.05 * (independent.high - independent.low)


def test_queries_without_a_value_change_nothing():
    values, clusters = draw_hits(50), np.arange(50) // 2
    with_missing = np.concatenate([np.full(10, np.nan), values])
    interval = estimate_over_queries(with_missing, np.concatenate([np.arange(10), clusters]))
    assert interval == estimate_over_queries(values, clusters)


def test_equal_models_with_several_texts_have_an_interval():
    # Images have 1 to 5 texts, and yet no resample of equal models differs from another.
    image_of_text = np.repeat(np.arange(90), np.arange(90) % 5 + 1)
    clusters = np.concatenate([np.arange(90), image_of_text])
    groups = np.repeat([0, 1], [90, len(image_of_text)])
    values = draw_hits(len(clusters))

    difference = estimate_query_difference(values, values, clusters, groups)

    # The bound is that of 90 images without a difference.
    exact = stats.binomtest(90, 90).proportion_ci(0.95, method="exact")
    assert difference.high == pytest.approx(100 * (1 - exact.low))
    assert difference.low == pytest.approx(-difference.high)
    assert (difference.mean, difference.standard_error, difference.p_value) == (0, 0, 1)


def test_equal_clusters_are_bounded_in_each_group():
    # One direction is always right, the other always wrong, and 40 of 60 images have a query of the second.
    values = np.repeat([100.0, 0.0], [60, 80])
    clusters = np.concatenate([np.arange(60), np.arange(80) // 2])
    groups = np.repeat([0, 1], [60, 80])

    interval = estimate_over_queries(values, clusters, groups)

    all_right = stats.binomtest(60, 60).proportion_ci(0.95, method="exact")
    all_wrong = stats.binomtest(0, 40).proportion_ci(0.95, method="exact")
    assert interval.mean == 50
    assert interval.low == pytest.approx(50 * all_right.low)
    assert interval.high == pytest.approx(50 + 50 * all_wrong.high)


def test_single_cluster_has_no_interval_and_no_queries_no_mean():
    interval = estimate_over_queries(np.array([100.0, 0.0]), np.zeros(2))
    assert (interval.mean, interval.low, interval.high, interval.count) == (50, None, None, 2)
    assert not interval.excludes_zero
    with pytest.raises(ValueError, match="no queries"):
        estimate_over_queries(np.array([np.nan]))
    with pytest.raises(ValueError, match="same queries"):
        estimate_query_difference(np.array([1.0, np.nan]), np.array([1.0, 2.0]))


@pytest.mark.parametrize(("num_won", "num_lost"), [(4, 0), (30, 12)])
def test_paired_test_of_hits_equals_mcnemars_exact_test(num_won, num_lost):
    first = np.concatenate([np.zeros(num_won), np.full(num_lost, 100.0), draw_hits(150)])
    second = np.concatenate([np.full(num_won, 100.0), np.zeros(num_lost), draw_hits(150)])
    difference = estimate_query_difference(second, first, resamples=50_000)
    # A share of 50,000 draws has a standard error below 0.0023.
    expected = stats.binomtest(num_won, num_won + num_lost).pvalue
    assert difference.p_value == pytest.approx(expected, abs=0.005)


def test_paired_test_of_many_queries_counts_ties():
    # Of two queries that both gain, half of the exchanges leave as large a difference, however many others are equal.
    second = np.zeros(180_000)
    second[:2] = 100 / 3, 200 / 3
    difference = estimate_query_difference(second, np.zeros(180_000), resamples=10_000)
    assert difference.p_value == pytest.approx(0.5, abs=0.03)


def test_paired_test_exchanges_whole_clusters_like_scipy():
    random = np.random.default_rng(4)
    clusters = np.arange(120) // 3
    first, second = draw_hits(120, 0.5, 5), draw_hits(120, 0.65, 6)
    second[clusters < 15] = first[clusters < 15]
    sums = [np.bincount(clusters, values) for values in (second, first)]
    expected = stats.permutation_test(
        sums, lambda x, y, axis: np.sum(x - y, axis), permutation_type="samples", n_resamples=50_000, batch=5_000,
        vectorized=True, random_state=random,
    )  # fmt: skip
    difference = estimate_query_difference(second, first, clusters, resamples=50_000)
    assert difference.p_value == pytest.approx(expected.pvalue, abs=0.01)  # both are drawn


def test_holms_correction_equals_that_by_hand():
    # The smallest is multiplied by 3, the next by 2, and none is smaller than the one before.
    assert correct_p_values([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct_p_values([0.6, 0.9]) == [1, 1] and correct_p_values([0.2]) == [0.2] and correct_p_values([]) == []


def test_needed_queries_detect_the_difference_with_power_80():
    # A difference of 2 points with a standard error of 2 needs (1.96 + 0.84)² = 7.85 times as many queries.
    difference = Interval(2.0, -2, 6, 1000, 2.0)
    assert count_queries_needed(difference) == 7900
    assert count_queries_needed(difference, num_tests=3) > count_queries_needed(difference)
    assert find_detectable_difference(difference) == pytest.approx(5.6, abs=0.01)
    assert count_queries_needed(Interval(0.0, 0, 0, 1000, 0.0)) is None
    assert find_detectable_difference(Interval(1, 0, 2, 9)) is None


def test_rounding_noise_is_no_difference():
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
def test_difference_over_seeds_has_the_t_tests_interval(values):
    baseline = [0.5 * value + position for position, value in enumerate(values)]
    unpaired_seed = {99: 7.0}
    difference = estimate_seed_difference(dict(enumerate(values)), dict(enumerate(baseline)) | unpaired_seed)
    expected = stats.ttest_rel(values, baseline).confidence_interval(0.95)
    assert difference.count == len(values)
    assert np.allclose([difference.low, difference.high], expected, atol=1e-9, equal_nan=True)


def test_single_seed_has_no_interval_and_no_seeds_no_mean():
    assert estimate_over_seeds([3.0]) == Interval(3.0, None, None, 1) and not estimate_over_seeds([3.0]).excludes_zero
    assert estimate_seed_difference({0: 1.0}, {1: 1.0}) is None
    with pytest.raises(ValueError, match="no runs"):
        estimate_over_seeds([])


def draw_outcomes(noise=1.0, name="pairs", **options):
    return make_outcomes(score_embeddings(make_noisy_benchmark(noise=noise, **options), find_protocol(name)))


def make_accuracy_outcomes(hits, ids=None, main="accuracy"):
    hits = np.asarray(hits, float)
    rows = np.arange(len(hits))
    ids = ids or [str(row) for row in rows]
    return Outcomes(ids, {main: 100 * hits}, main, rows, np.where(hits, 1, 2))


@pytest.mark.parametrize("name", ["pairs", "first-text", "official-rows", "folds"])
def test_outcomes_give_the_figures_of_the_evaluation(name):
    protocol = Protocol("folds", "", fold_size=12) if name == "folds" else find_protocol(name)
    evaluation = score_embeddings(make_noisy_benchmark(), protocol)
    outcomes = make_outcomes(evaluation)
    if name == "folds":
        assert len(set(outcomes.groups["mR"].tolist())) == 6  # two directions of three folds
    else:
        for direction, recalls in evaluation.results.items():
            for figure, value in recalls.recall.items():
                assert outcomes.estimate(f"{direction}/{figure}").mean == pytest.approx(value)
    assert outcomes.estimate(outcomes.main_figure).mean == pytest.approx(evaluation.mean_recall)


def test_queries_of_an_image_form_a_cluster():
    evaluation = score_embeddings(make_noisy_benchmark(images=3), find_protocol("pairs"))
    outcomes = make_outcomes(evaluation)
    assert list(zip(outcomes.query_ids, outcomes.clusters.tolist(), strict=True)) == [
        ("image_to_text i0", 0), ("image_to_text i1", 1), ("image_to_text i2", 2),
        ("text_to_image t0", 0), ("text_to_image t1", 0), ("text_to_image t2", 1), ("text_to_image t3", 1),
        ("text_to_image t4", 2), ("text_to_image t5", 2),
    ]  # fmt: skip
    ranks = [*evaluation.results["image_to_text"].ranking.rank, *evaluation.results["text_to_image"].ranking.rank]
    assert outcomes.ranks.tolist() == ranks
    assert outcomes.texts[:4] == ["", "", "", "text 0"] and outcomes.fields[1] == {"kind": "odd"}


def test_classes_give_accuracy_and_the_mean_over_classes():
    truth = np.eye(3, dtype=bool)[[0, 0, 0, 1, 2]]
    scores = ClassScores(truth, np.eye(3)[[0, 0, 1, 1, 0]] + 0.1, ("a", "b", "c"), 10.0)
    images = Benchmark("x", [BenchmarkImage(str(row), bytes) for row in range(5)], [], np.zeros([0, 2], np.int64),
                         BadSampleReport())  # fmt: skip
    outcomes = make_class_outcomes(EncodedClasses(images, np.zeros([5, 1]), {}, BadSampleReport()), scores)
    assert outcomes.estimate("acc1").mean == pytest.approx(60) == scores.metrics["acc1"]
    mean_recall = outcomes.estimate("mean_per_class_recall").mean
    assert mean_recall == pytest.approx(100 * (2 / 3 + 1 + 0) / 3)
    assert mean_recall == pytest.approx(scores.metrics["mean_per_class_recall"])
    assert "acc5" not in outcomes.figures


def test_statements_give_accuracy_by_label_and_consistency():
    labels, answers, groups = ("True", "False"), [0, 1, 0, 0, 1], "aabbc"
    rows = [StatementRow(str(number), (BenchmarkImage(str(number % 2), bytes),), "x", labels[number % 2], group)
            for number, group in enumerate(groups)]  # fmt: skip
    statements = Statements("nlvr2", "dev", labels, rows, None, {})
    scores = EntailmentScores(statements, rows, np.eye(2, dtype=np.float32)[answers], BadSampleReport())
    outcomes = make_statement_outcomes(scores)
    for name in ("accuracy", "accuracy/True", "accuracy/False", "consistency"):
        assert outcomes.estimate(name).mean == pytest.approx(scores.metrics[name])
    assert outcomes.clusters.tolist() == [0, 0, 1, 1, 2] and outcomes.ranks.tolist() == [1, 1, 1, 2, 2]


def test_better_model_is_better_and_equal_model_is_not():
    results = {"first": {"": draw_outcomes(1.2)}, "good": {"": draw_outcomes(0.5)}, "same": {"": draw_outcomes(1.2)}}
    comparison = Comparison(results, 2000)
    better, equal = comparison.verdicts
    assert (better.word, equal.word) == ("better", "not distinguishable")
    assert better.difference.low > 0 and better.num_tests == 2 and better.queries_needed is None
    for columns in comparison.record().values():
        assert len({len(values) for values in columns.values()}) == 1


def test_verdicts_are_corrected_for_their_number():
    random = np.random.default_rng(3)
    first = random.random(400) < 0.5
    second = np.where(random.random(400) < 0.1, True, first)
    baseline, candidate = {"": make_accuracy_outcomes(first)}, {"": make_accuracy_outcomes(second)}
    (single_verdict,) = Comparison({"a": baseline, "b": candidate}).verdicts
    candidates = {str(number): candidate for number in range(5)}
    verdicts = Comparison({"a": baseline, **candidates}).verdicts
    # Holm's correction of five equal values multiplies the first by five, and none is smaller than the one before.
    expected = min(1, 5 * single_verdict.p_value)
    assert [verdict.p_value for verdict in verdicts] == pytest.approx([expected] * 5)


def test_model_with_a_single_direction_is_compared_in_it():
    both = draw_outcomes()
    images = [name for name in both.query_ids if name.startswith("image")]
    ranks = both.ranks[: len(images)]
    # The same ranks, with the queries in reverse order.
    recalls = compute_recalls(["image_to_text"] * 30, ranks[::-1])
    image_to_text = Outcomes(images[::-1], recalls, "image_to_text/mR", np.arange(30), ranks[::-1])
    comparison = Comparison({"both": {"": both}, "one": {"": image_to_text}}, 500)
    (verdict,) = comparison.verdicts
    assert verdict.figure == "image_to_text/mR" and verdict.difference.mean == 0 and verdict.difference.count == 30
    assert ("", "one", "mR") not in comparison.estimates
    table = comparison.make_table()
    assert dict(table.rows)["one"][-1] == "-"
    assert comparison.find_ranks("one", "").tolist() == [*ranks.tolist(), *[0] * 60]


def test_results_with_different_queries_are_refused():
    first, second = make_accuracy_outcomes([1, 0]), make_accuracy_outcomes([1, 0], ["0", "other"])
    with pytest.raises(ValueError, match="b and a"):
        Comparison({"a": {"": first}, "b": {"": second}})
    with pytest.raises(ValueError, match="x; accuracy"):
        make_accuracy_outcomes([1], main="x").choose_shared_figure(make_accuracy_outcomes([1]))


def test_seed_determines_the_interval():
    values, baseline = draw_hits(500), draw_hits(500, 0.6, 9)
    assert estimate_query_difference(values, baseline) == estimate_query_difference(values, baseline)
    assert estimate_query_difference(values, baseline) != estimate_query_difference(values, baseline, seed=1)
