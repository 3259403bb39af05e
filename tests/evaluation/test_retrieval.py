"""Ranks, recalls and chance equal definitions computed row by row, and bad input is named."""

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.evaluation import chance_recall, evaluate_retrieval, first_positive_ranks, ranking, recall, top_matches
from ernie_vil2.evaluation.ranking import Blocks, rank_queries
from ernie_vil2.evaluation.retrieval import Matching, mean_recall, score_matchings, summarize
from tests.support.limits import limit_examples


def list_ranks(results):
    return tuple(result.ranking.rank.tolist() for result in results.values())


@st.composite
def draw_problem(draw, all_have_positives=True):
    """Draw queries, a gallery, pairs and a block size; scores of small integers are exact, and ties frequent.

    Every query has a positive if `all_have_positives`, otherwise any row of either side may be in no pair.
    """
    num_queries, num_rows, width = draw(st.integers(1, 7)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    is_pair = rng.random((num_queries, num_rows)) < draw(st.sampled_from([0.0, 0.1, 0.5]))
    if all_have_positives:
        is_pair[np.arange(num_queries), rng.integers(num_rows, size=num_queries)] = True
    pairs = rng.permutation(np.argwhere(is_pair))
    queries = rng.integers(-2, 3, (num_queries, width)).astype(np.float32)
    gallery = rng.integers(-2, 3, (num_rows, width)).astype(np.float32)
    return queries, gallery, pairs, draw(st.integers(1, 10))


@limit_examples(25)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_copies_of_the_positive_tie_with_it(block, seed):
    rng = np.random.default_rng(seed)
    queries, gallery = (rng.normal(size=(n, 67)).astype(np.float32) for n in (5, 37))
    gallery[[3, 20, 36]] = queries[0] * 3  # far above all other rows: one positive and two copies of it
    positives = np.array([[0, 20], [1, 0], [2, 1], [3, 2], [4, 4]])
    assert first_positive_ranks(queries, gallery, positives, Blocks(block))[0] == 3


def find_best(columns, scores):
    """Return the column with the highest score, the first of equal ones."""
    return max(columns, key=lambda column: (scores[column], -column))


def rank_by_definition(scores, pairs, optimistic):
    """Return (rank, best positive, its score, best column, its score) of each row, straight from the definitions."""
    rankings = []
    for query, row in enumerate(scores.tolist()):
        positives = sorted(column for number, column in pairs if number == query)
        top = find_best(range(len(row)), row)
        if not positives:
            rankings.append((0, -1, None, top, row[top]))
            continue
        best = find_best(positives, row)
        wrong_scores = [score for column, score in enumerate(row) if column not in positives]
        num_above = sum(score > row[best] for score in wrong_scores)
        if not optimistic:
            num_above += sum(score == row[best] for score in wrong_scores)
        rankings.append((1 + num_above, best, row[best], top, row[top]))
    return rankings


@limit_examples(80)
@given(draw_problem(all_have_positives=False), st.booleans())
def test_both_sides_are_ranked_by_either_tie_rule(problem, optimistic):
    images, texts, pairs, block = problem
    rankings = rank_queries(images, texts, pairs, Blocks(block), ties="optimistic" if optimistic else "pessimistic")
    scores = images @ texts.T
    for side, rows, positives in zip(rankings, (scores, scores.T), (pairs, pairs[:, ::-1]), strict=True):
        positive_scores = [None if np.isnan(value) else value for value in side.positive_score.tolist()]
        columns = (side.rank, side.positive, positive_scores, side.top, side.top_score.tolist())
        assert list(zip(*columns, strict=True)) == rank_by_definition(rows, positives.tolist(), optimistic)


@limit_examples(60)
@given(draw_problem(), st.booleans())
def test_excluded_rows_rank_as_if_absent(problem, optimistic):
    # Every row is a query for the other rows of its side; expected ranks come from a gallery without the row itself.
    rows, _, pairs, block = problem
    pairs = [(query, answer) for query, answer in (pairs % len(rows)).tolist() if query != answer]
    positives = np.array(pairs, np.int64).reshape(-1, 2)
    all_rows = np.arange(len(rows))
    matching = Matching(all_rows, all_rows, positives, ("text", "text"), np.stack([all_rows, all_rows], axis=1))
    results = score_matchings([matching], {"text": rows}, ["text_to_text"], blocks=Blocks(block),
                              ties="optimistic" if optimistic else "pessimistic")  # fmt: skip
    result, scores = results["text_to_text"], rows @ rows.T
    assert list(results) == ["text_to_text"]
    answers, answer_scores = result.find_best_answers({"text": rows}, all_rows, len(rows))
    positives_of = {query: set() for query in all_rows.tolist()}
    for query, answer in pairs:
        positives_of[query].add(answer)
    for query, right_answers in positives_of.items():
        gallery = [row for row in all_rows.tolist() if row != query]
        if gallery:
            right_columns = [(0, gallery.index(answer)) for answer in right_answers]
            expected = rank_by_definition(scores[[query]][:, gallery], right_columns, optimistic)
            rank, positive, _, top, _ = expected[0]
            assert result.ranking.rank[query] == rank
            assert result.ranking.positive[query] == (gallery[positive] if right_answers else -1)
            assert result.ranking.top[query] == gallery[top]
        else:
            assert result.ranking.rank[query] == 0 and result.ranking.positive[query] == -1
        order = sorted(gallery, key=lambda row, query=query: (-scores[query, row], row))
        assert answers[query].tolist() == [*order, -1]
        assert answer_scores[query, :-1].tolist() == scores[query, order].tolist()
    counts = [len(right_answers) for right_answers in positives_of.values() if right_answers]
    if counts:
        assert result.chance == pytest.approx(chance_recall(counts, len(rows) - 1))


def test_pair_that_is_right_and_excluded_is_named():
    with pytest.raises(ValueError, match=r"pair \(1, 1\) is right and excluded"):
        rank_queries(np.eye(2), np.eye(2), np.array([[0, 1], [1, 1]]), excluded=np.array([[0, 0], [1, 1]]))


@limit_examples(15)
@given(draw_problem())
def test_paddle_computes_the_same_scores(problem):
    queries, gallery, _, _ = problem
    scores = ranking._paddle_scores(queries, gallery, "cpu")
    assert scores.dtype == np.float32 and np.array_equal(scores, queries @ gallery.T)


def test_scores_alone_are_computed_on_another_device(monkeypatch):
    devices = []

    def compute_on_cpu(rows, columns, device):
        devices.append(device)
        return paddle_scores(rows, columns, "cpu")

    paddle_scores = ranking._paddle_scores
    monkeypatch.setattr(ranking, "_paddle_scores", compute_on_cpu)
    pairs = np.array([[0, 0], [1, 1], [2, 0], [2, 2]])
    results = evaluate_retrieval(np.eye(3), np.eye(3), pairs, Blocks(2, "gpu:0"))
    assert list_ranks(results) == ([1, 1, 1], [1, 1, 1])
    assert devices == ["gpu:0"] * 4


def test_unpaired_rows_are_in_the_gallery_but_no_queries():
    images = np.eye(3)
    texts = np.array([[0.5, 0, 0.9], [0, 1, 0], [1, 0, 0]])
    # Image 2 and text 2 are in no pair. Text 0 finds image 2 first and its own second; image 0 finds text 2 first.
    results = evaluate_retrieval(images, texts, np.array([[0, 0], [1, 1]]), allow_unpaired=True)
    assert list_ranks(results) == ([2, 1, 0], [2, 1, 0])
    assert [result.recall["R@1"] for result in results.values()] == [50, 50]
    assert results["image_to_text"].chance["R@1"] == pytest.approx(100 / 3)


def test_repeated_pairs_change_nothing():
    positives = np.array([[0, 1], [0, 1], [1, 0]])
    results = evaluate_retrieval(np.eye(2), np.eye(2), positives)
    assert (summarize(results)["pairs"], list_ranks(results)[0]) == (2, [2, 2])
    assert results["image_to_text"].chance["R@1"] == 50


def test_recall_equals_that_by_hand():
    assert recall([1, 2, 5, 6, 10, 11, 400, 1]) == {"R@1": 25.0, "R@5": 50.0, "R@10": 75.0, "mR": 50.0}


@pytest.mark.parametrize(("positives", "gallery_size"), [(1, 7), (2, 7), (3, 4), (4, 12), (1, 1)])
def test_chance_equals_the_mean_over_all_rankings(positives, gallery_size):
    # In a random ranking the positives take any set of positions equally often; their first position is the rank.
    position_sets = itertools.combinations(range(1, gallery_size + 1), positives)
    expected = recall([min(positions) for positions in position_sets])
    assert chance_recall([positives], gallery_size) == pytest.approx(expected)


@pytest.mark.parametrize("gallery_size", [5, 20])
def test_chance_recall_without_positives_is_zero(gallery_size):
    assert set(chance_recall([0], gallery_size).values()) == {0.0}


def test_both_directions_with_several_texts_per_image():
    images = np.eye(2)
    texts = np.array([[1, 0], [0.2, 0.8], [0.1, 0.9]])  # the second text of image 0 looks like image 1
    results = evaluate_retrieval(images, texts, np.array([[0, 0], [0, 1], [1, 2]]))
    values = summarize(results)
    assert [values[name] for name in ("images", "texts", "pairs")] == [2, 3, 3]
    assert list_ranks(results) == ([1, 1], [1, 2, 1])
    assert values["image_to_text"] == {"R@1": 100, "R@5": 100, "R@10": 100, "mR": 100}
    assert values["text_to_image"]["R@1"] == pytest.approx(200 / 3)
    assert values["mR"] == mean_recall(results) == pytest.approx((100 + (200 / 3 + 200) / 3) / 2)
    assert values["chance"]["image_to_text"]["R@1"] == pytest.approx(100 * (2 / 3 + 1 / 3) / 2)
    assert values["chance"]["text_to_image"]["R@1"] == pytest.approx(50)


@limit_examples(50)
@given(draw_problem(), st.data())
def test_top_matches_equal_a_stable_sort(problem, data):
    queries, gallery, _, block = problem
    k = data.draw(st.integers(1, len(gallery)))
    scores = queries @ gallery.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    indices, best_scores = top_matches(queries, gallery, k, Blocks(block))
    assert indices.tolist() == order.tolist()
    assert best_scores.tolist() == np.take_along_axis(scores, order, axis=1).tolist()


@pytest.mark.parametrize("block", [1, 64, 1000])
def test_equal_scores_are_ordered_by_row(block):
    gallery = np.tile([[1.0], [2.0]], (150, 1))
    indices, _ = top_matches(np.ones((2, 1)), gallery, 200, Blocks(block))
    # The odd rows score 2, the even ones 1.
    assert indices.tolist() == [[*range(1, 300, 2), *range(0, 100, 2)]] * 2


VALID, DIAGONAL = np.eye(3), np.array([[0, 0], [1, 1], [2, 2]])


@pytest.mark.parametrize(
    ("function", "arguments", "culprit"),
    [
        (evaluate_retrieval, (VALID, np.full((3, 3), np.nan), DIAGONAL), "text embedding row 0 is not finite"),
        (evaluate_retrieval, (VALID, VALID, np.array([[0, 0], [1, 1], [1, 2]])), "image row 2 has no positive"),
        (evaluate_retrieval, (VALID, VALID, np.array([[0, 0], [1, 2], [2, 2]])), "text row 1 has no positive"),
        (evaluate_retrieval, (VALID, VALID, np.array([[0, 0], [1, 3]])), r"pair 1 is \(1, 3\)"),
        (evaluate_retrieval, (VALID, VALID, np.array([[-1, 0]])), r"pair 0 is \(-1, 0\)"),
        (partial(evaluate_retrieval, ties="random"), (VALID, VALID, DIAGONAL), "ties = 'random'"),
        (first_positive_ranks, (VALID, VALID, DIAGONAL / 1.0), "integers"),
        (first_positive_ranks, (VALID, VALID[:, :2], DIAGONAL), "3 wide, gallery embeddings 2"),
        (first_positive_ranks, (VALID, VALID, DIAGONAL, Blocks(0)), "block = 0"),
        (top_matches, (VALID[0], VALID, 1), "shape"),
        (top_matches, (VALID, VALID, 4), "k = 4"),
        (recall, ([],), "empty"),
        (recall, ([1, 0, 3],), "rank 0"),
        (chance_recall, ([1, 4], 3), "more positives than its gallery"),
    ],
)
def test_bad_input_is_named(function, arguments, culprit):
    with pytest.raises(ValueError, match=culprit):
        function(*arguments)
