"""What queries found, by hand and against the tables of the scorers, and the verdicts that follow from it."""

import numpy as np
import pytest

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.readers.entailment import StatementRow
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.classification import ClassScores, EncodedClasses
from ernie_vil2.evaluation.entailment import EntailmentScores, Statements
from ernie_vil2.evaluation.outcomes import Comparison, Outcomes, recall_figures
from ernie_vil2.evaluation.protocol import Protocol, score
from ernie_vil2.evaluation.protocols import protocol
from ernie_vil2.evaluation.scorers.entailment import outcomes as outcomes_of_statements
from ernie_vil2.evaluation.scorers.retrieval import outcomes
from ernie_vil2.evaluation.scorers.zero_shot import outcomes as outcomes_of_classes
from tests.support.embedded_pairs import noisy_pairs


def found(noise=1.0, name="pairs", **options):
    return outcomes(score(noisy_pairs(noise=noise, **options), protocol(name)))


def outcome(hits, ids=None, main="accuracy"):
    hits = np.asarray(hits, float)
    return Outcomes(ids or [str(row) for row in range(len(hits))], {main: 100 * hits}, main, np.arange(len(hits)),
                    np.where(hits, 1, 2))  # fmt: skip


@pytest.mark.parametrize("name", ["pairs", "first-text", "official-rows", "folds"])
def test_figures_are_those_of_the_evaluation(name):
    evaluation = score(noisy_pairs(), Protocol("folds", "", fold=12) if name == "folds" else protocol(name))
    one = outcomes(evaluation)
    if name == "folds":
        assert len(set(one.groups["mR"].tolist())) == 6  # two directions of three folds
    else:
        for way, recalls in evaluation.results.items():
            for figure, value in recalls.recall.items():
                assert one.level(f"{way}/{figure}").mean == pytest.approx(value)
    assert one.level(one.main).mean == pytest.approx(evaluation.mean_recall)


def test_queries_of_an_image_are_one_cluster():
    evaluation = score(noisy_pairs(images=3), protocol("pairs"))
    one = outcomes(evaluation)
    assert list(zip(one.ids, one.clusters.tolist(), strict=True)) == [
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
    one = outcomes_of_classes(EncodedClasses(images, np.zeros([5, 1]), {}, BadSampleReport()), scores)
    assert one.level("acc1").mean == pytest.approx(60) == scores.figures["acc1"]
    assert one.level("mean_per_class_recall").mean == pytest.approx(100 * (2 / 3 + 1 + 0) / 3)
    assert one.level("mean_per_class_recall").mean == pytest.approx(scores.figures["mean_per_class_recall"])
    assert "acc5" not in one.figures


def test_statements_give_accuracy_by_label_and_consistency():
    labels, printed, groups = ("True", "False"), [0, 1, 0, 0, 1], "aabbc"
    rows = [StatementRow(str(number), (BenchmarkImage(str(number % 2), bytes),), "x", labels[number % 2], group)
            for number, group in enumerate(groups)]  # fmt: skip
    statements = Statements("nlvr2", "dev", labels, rows, None, {})
    scores = EntailmentScores(statements, rows, np.eye(2, dtype=np.float32)[printed], BadSampleReport())
    one = outcomes_of_statements(scores)
    for name in ("accuracy", "accuracy/True", "accuracy/False", "consistency"):
        assert one.level(name).mean == pytest.approx(scores.values[name])
    assert one.clusters.tolist() == [0, 0, 1, 1, 2] and one.ranks.tolist() == [1, 1, 1, 2, 2]


def test_the_better_model_is_called_so_and_the_same_one_is_not():
    comparison = Comparison({"first": {"": found(1.2)}, "good": {"": found(0.5)}, "same": {"": found(1.2)}}, 2000)
    good, same = comparison.verdicts
    assert (good.word, same.word) == ("better", "not distinguishable")
    assert good.difference.low > 0 and good.tests == 2 and good.needed is None
    for columns in comparison.record().values():
        assert len({len(values) for values in columns.values()}) == 1


def test_verdicts_are_corrected_for_their_number():
    random = np.random.default_rng(3)
    first = random.random(400) < 0.5
    second = np.where(random.random(400) < 0.1, True, first)
    alone = Comparison({"a": {"": outcome(first)}, "b": {"": outcome(second)}}).verdicts[0]
    many = Comparison({"a": {"": outcome(first)}, **{str(n): {"": outcome(second)} for n in range(5)}}).verdicts
    assert [one.p for one in many] == pytest.approx([min(1, 5 * alone.p)] * 5)


def test_a_model_of_one_direction_is_compared_in_that_one():
    both = found()
    images = [name for name in both.ids if name.startswith("image")]
    ranks = both.ranks[: len(images)]
    one = Outcomes(images[::-1], recall_figures(["image_to_text"] * 30, ranks[::-1]), "image_to_text/mR", np.arange(30),
                   ranks[::-1])  # fmt: skip
    comparison = Comparison({"both": {"": both}, "one": {"": one}}, 500)
    (verdict,) = comparison.verdicts
    assert verdict.figure == "image_to_text/mR" and verdict.difference.mean == 0 and verdict.difference.count == 30
    assert ("", "one", "mR") not in comparison.levels
    table = comparison.table()
    assert dict(table.rows)["one"][-1] == "-"
    assert comparison.ranks_of("one", "").tolist() == [*ranks.tolist(), *[0] * 60]


def test_other_queries_are_refused_in_words():
    with pytest.raises(ValueError, match="b and a"):
        Comparison({"a": {"": outcome([1, 0])}, "b": {"": outcome([1, 0], ["0", "other"])}})
    with pytest.raises(ValueError, match="x; accuracy"):
        outcome([1], main="x").shared(outcome([1]))
