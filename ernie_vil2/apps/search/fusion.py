"""Fusion of two rankings of the same items: by meaning and by words."""

from collections.abc import Sequence

# Ranks of each ranking that are fused; below them, only the ranking by meaning goes on. It does not depend on the
# number of hits that a client asks for, so that pages of an answer fit together.
FUSION_DEPTH = 200
# Of reciprocal rank fusion, as in its paper (Cormack, Clarke and Büttcher, SIGIR 2009): with a smaller constant the
# first ranks count for more, and one ranking alone decides on the first hits.
RANK_CONSTANT = 60


def fuse_rankings(by_meaning: Sequence[int], by_words: Sequence[int], weight: float) -> list[int]:
    """Return the items of two rankings, best first, by the sum of their reciprocal ranks.

    Args:
        by_meaning: items, best first, at least `FUSION_DEPTH` of them if there are so many.
        by_words: items, best first.
        weight: factor of the reciprocal ranks by words; those by meaning have 1.
    """
    scores: dict[int, float] = {}
    # Words come first: of two items with equal sums, the sort leaves the one with the words in front.
    for ranking, factor in ((by_words, weight), (by_meaning, 1.0)):
        for rank, item in enumerate(ranking[:FUSION_DEPTH], 1):
            scores[item] = scores.get(item, 0.0) + factor / (RANK_CONSTANT + rank)
    fused = sorted(scores, key=lambda item: scores[item], reverse=True)
    fused += [item for item in by_meaning[FUSION_DEPTH:] if item not in scores]
    return fused
