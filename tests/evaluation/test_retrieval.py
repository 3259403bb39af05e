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


def ranks(results):
    return tuple(result.ranking.rank.tolist() for result in results.values())


@st.composite
def small_problems(draw, paired=True):
    """Small integer embeddings, so that scores are exact and ties frequent.

    Every query has a positive if `paired`, otherwise any row of either side may be in no pair.
    """
    queries, gallery, width = (draw(st.integers(1, 7)), draw(st.integers(1, 9)), draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    related = rng.random((queries, gallery)) < draw(st.sampled_from([0.0, 0.1, 0.5]))
    if paired:
        related[np.arange(queries), rng.integers(gallery, size=queries)] = True
    positives = rng.permutation(np.argwhere(related))
    left = rng.integers(-2, 3, (queries, width)).astype(np.float32)
    right = rng.integers(-2, 3, (gallery, width)).astype(np.float32)
    return left, right, positives, draw(st.integers(1, 10))


@limit_examples(25)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_copy_of_the_positive_ties_with_it_wherever_it_is(block, seed):
    rng = np.random.default_rng(seed)
    queries, gallery = (rng.normal(size=(n, 67)).astype(np.float32) for n in (5, 37))
    gallery[[3, 20, 36]] = queries[0] * 3  # far above the rest: one positive and two copies of it
    positives = np.array([[0, 20], [1, 0], [2, 1], [3, 2], [4, 4]])
    assert first_positive_ranks(queries, gallery, positives, Blocks(block))[0] == 3


def find_one_by_one(scores, pairs, optimistic):
    """(rank, best positive, its score, what ranks first, its score) of each row, straight from the definitions."""
    found = []
    for query, row in enumerate(scores.tolist()):
        own = sorted(g for q, g in pairs if q == query)
        first = max(range(len(row)), key=lambda g, row=row: (row[g], -g))
        if own:
            best = max(own, key=lambda g, row=row: (row[g], -g))
            others = [row[g] for g in range(len(row)) if g not in own]
            above = [score for score in others if score > row[best] or (score == row[best] and not optimistic)]
            found.append((1 + len(above), best, row[best], first, row[first]))
        else:
            found.append((0, -1, None, first, row[first]))
    return found


@limit_examples(80)
@given(small_problems(paired=False), st.booleans())
def test_one_pass_ranks_both_sides_by_either_tie_rule(problem, optimistic):
    left, right, pairs, block = problem
    rankings = rank_queries(left, right, pairs, Blocks(block), ties="optimistic" if optimistic else "pessimistic")
    scores = left @ right.T
    for found, rows, positives in zip(rankings, (scores, scores.T), (pairs, pairs[:, ::-1]), strict=True):
        score = [None if np.isnan(value) else value for value in found.positive_score.tolist()]
        columns = (found.rank, found.positive, score, found.top, found.top_score.tolist())
        assert list(zip(*columns, strict=True)) == find_one_by_one(rows, positives.tolist(), optimistic)


@limit_examples(60)
@given(small_problems(), st.booleans())
def test_what_is_excluded_is_as_if_it_were_not_there(problem, optimistic):
    """Every row of a side asks among the others: against ranks in a gallery without the row itself."""
    rows, _, positives, block = problem
    positives = np.array([(q, g) for q, g in (positives % len(rows)).tolist() if q != g], np.int64).reshape(-1, 2)
    everyone = np.arange(len(rows))
    matching = Matching(everyone, everyone, positives, ("text", "text"), np.stack([everyone, everyone], axis=1))
    results = score_matchings([matching], {"text": rows}, ["text_to_text"], blocks=Blocks(block),
                              ties="optimistic" if optimistic else "pessimistic")  # fmt: skip
    result, scores = results["text_to_text"], rows @ rows.T
    assert list(results) == ["text_to_text"]
    answers, best = result.find_best_answers({"text": rows}, everyone, len(rows))
    for query in everyone:
        others = [g for g in everyone if g != query]
        right = [(0, others.index(g)) for q, g in positives.tolist() if q == query]
        (rank, positive, _, top, _), = find_one_by_one(scores[[query]][:, others], right, optimistic) if others else (
            (0, -1, None, None, None),)  # fmt: skip
        assert result.ranking.rank[query] == rank
        assert result.ranking.positive[query] == (others[positive] if right else -1)
        ordered = sorted(others, key=lambda g, query=query: (-scores[query, g], g))
        assert answers[query].tolist() == [*ordered, -1]
        assert best[query, :-1].tolist() == scores[query, ordered].tolist()
        assert not others or result.ranking.top[query] == others[top]
    asking = np.unique(positives[:, 0])
    if asking.size:
        counts = [len({g for q, g in positives.tolist() if q == query}) for query in asking]
        assert result.chance == pytest.approx(chance_recall(counts, len(rows) - 1))


def test_what_is_right_and_excluded_at_once_is_named():
    with pytest.raises(ValueError, match=r"pair \(1, 1\) is right and excluded"):
        rank_queries(np.eye(2), np.eye(2), np.array([[0, 1], [1, 1]]), excluded=np.array([[0, 0], [1, 1]]))


@limit_examples(15)
@given(small_problems())
def test_paddle_computes_the_same_scores(problem):
    left, right, _, _ = problem
    scores = ranking._paddle_scores(left, right, "cpu")
    assert scores.dtype == np.float32 and np.array_equal(scores, left @ right.T)


def test_another_device_computes_the_scores_and_nothing_else(monkeypatch):
    devices = []

    def on_cpu(rows, columns, device):
        devices.append(device)
        return paddle_scores(rows, columns, "cpu")

    paddle_scores = ranking._paddle_scores
    monkeypatch.setattr(ranking, "_paddle_scores", on_cpu)
    pairs = np.array([[0, 0], [1, 1], [2, 0], [2, 2]])
    results = evaluate_retrieval(np.eye(3), np.eye(3), pairs, Blocks(2, "gpu:0"))
    assert ranks(results) == ([1, 1, 1], [1, 1, 1])
    assert devices == ["gpu:0"] * 4


def test_rows_without_a_pair_are_in_the_gallery_but_no_queries():
    images = np.eye(3)
    texts = np.array([[0.5, 0, 0.9], [0, 1, 0], [1, 0, 0]])
    # Image 2 and text 2 are in no pair. Text 0 finds image 2 first and its own second; image 0 finds text 2 first.
    results = evaluate_retrieval(images, texts, np.array([[0, 0], [1, 1]]), allow_unpaired=True)
    assert ranks(results) == ([2, 1, 0], [2, 1, 0])
    assert [result.recall["R@1"] for result in results.values()] == [50, 50]
    assert results["image_to_text"].chance["R@1"] == pytest.approx(100 / 3)


def test_repeated_pairs_change_nothing():
    positives = np.array([[0, 1], [0, 1], [1, 0]])
    results = evaluate_retrieval(np.eye(2), np.eye(2), positives)
    assert (summarize(results)["pairs"], ranks(results)[0]) == (2, [2, 2])
    assert results["image_to_text"].chance["R@1"] == 50


def test_recall_by_hand():
    assert recall([1, 2, 5, 6, 10, 11, 400, 1]) == {"R@1": 25.0, "R@5": 50.0, "R@10": 75.0, "mR": 50.0}


@pytest.mark.parametrize(("positives", "gallery_size"), [(1, 7), (2, 7), (3, 4), (4, 12), (1, 1)])
def test_chance_equals_the_count_over_all_rankings(positives, gallery_size):
    """Which positions the positives take in a random ranking: all choices are equally likely."""
    positions = list(itertools.combinations(range(1, gallery_size + 1), positives))
    expected = recall([min(chosen) for chosen in positions])
    assert chance_recall([positives], gallery_size) == pytest.approx(expected)


@pytest.mark.parametrize("gallery_size", [5, 20])
def test_chance_never_finds_what_has_no_positive(gallery_size):
    assert set(chance_recall([0], gallery_size).values()) == {0.0}


def test_both_directions_with_several_texts_per_image():
    images = np.eye(2)
    texts = np.array([[1, 0], [0.2, 0.8], [0.1, 0.9]])  # the second text of image 0 looks like image 1
    results = evaluate_retrieval(images, texts, np.array([[0, 0], [0, 1], [1, 2]]))
    values = summarize(results)
    assert [values[name] for name in ("images", "texts", "pairs")] == [2, 3, 3]
    assert ranks(results) == ([1, 1], [1, 2, 1])
    assert values["image_to_text"] == {"R@1": 100, "R@5": 100, "R@10": 100, "mR": 100}
    assert values["text_to_image"]["R@1"] == pytest.approx(200 / 3)
    assert values["mR"] == mean_recall(results) == pytest.approx((100 + (200 / 3 + 200) / 3) / 2)
    assert values["chance"]["image_to_text"]["R@1"] == pytest.approx(100 * (2 / 3 + 1 / 3) / 2)
    assert values["chance"]["text_to_image"]["R@1"] == pytest.approx(50)


@limit_examples(50)
@given(small_problems(), st.data())
def test_top_matches_equal_a_stable_sort(problem, data):
    queries, gallery, _, block = problem
    k = data.draw(st.integers(1, len(gallery)))
    scores = queries @ gallery.T
    order = np.array([sorted(range(len(row)), key=lambda g, row=row: (-row[g], g))[:k] for row in scores])
    indices, best = top_matches(queries, gallery, k, Blocks(block))
    assert indices.tolist() == order.tolist()
    assert best.tolist() == np.take_along_axis(scores, order, axis=1).tolist()


@pytest.mark.parametrize("block", [1, 64, 1000])
def test_equal_scores_come_by_lower_row_in_a_large_gallery(block):
    gallery = np.tile([[1.0], [2.0]], (150, 1))
    indices, _ = top_matches(np.ones((2, 1)), gallery, 200, Blocks(block))
    assert indices.tolist() == [[*range(1, 300, 2), *range(0, 100, 2)]] * 2


GOOD, DIAGONAL = np.eye(3), np.array([[0, 0], [1, 1], [2, 2]])


@pytest.mark.parametrize(
    ("function", "arguments", "culprit"),
    [
        (evaluate_retrieval, (GOOD, np.full((3, 3), np.nan), DIAGONAL), "text embedding row 0 is not finite"),
        (evaluate_retrieval, (GOOD, GOOD, np.array([[0, 0], [1, 1], [1, 2]])), "image row 2 has no positive"),
        (evaluate_retrieval, (GOOD, GOOD, np.array([[0, 0], [1, 2], [2, 2]])), "text row 1 has no positive"),
        (evaluate_retrieval, (GOOD, GOOD, np.array([[0, 0], [1, 3]])), r"pair 1 is \(1, 3\)"),
        (evaluate_retrieval, (GOOD, GOOD, np.array([[-1, 0]])), r"pair 0 is \(-1, 0\)"),
        (partial(evaluate_retrieval, ties="random"), (GOOD, GOOD, DIAGONAL), "ties = 'random'"),
        (first_positive_ranks, (GOOD, GOOD, DIAGONAL / 1.0), "integers"),
        (first_positive_ranks, (GOOD, GOOD[:, :2], DIAGONAL), "3 wide, gallery embeddings 2"),
        (first_positive_ranks, (GOOD, GOOD, DIAGONAL, Blocks(0)), "block = 0"),
        (top_matches, (GOOD[0], GOOD, 1), "shape"),
        (top_matches, (GOOD, GOOD, 4), "k = 4"),
        (recall, ([],), "empty"),
        (recall, ([1, 0, 3],), "rank 0"),
        (chance_recall, ([1, 4], 3), "more positives than its gallery"),
    ],
)
def test_bad_input_is_named(function, arguments, culprit):
    with pytest.raises(ValueError, match=culprit):
        function(*arguments)
