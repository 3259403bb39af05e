"""Fusion of rankings of the same items: by meaning, and by words."""

from collections.abc import Sequence

# Ranks of each ranking that are fused; below them, only the ranking by meaning goes on. It does not depend on the
# number of hits that a client asks for, so that pages of an answer fit together. As many candidates are found without
# words, too (`index_types.NUM_CANDIDATES`); more would take longer.
FUSION_DEPTH = 100
# Of reciprocal rank fusion, as in its paper (Cormack, Clarke and Büttcher, SIGIR 2009): with a smaller constant the
# first ranks count for more, and one ranking alone decides on the first hits.
RANK_CONSTANT = 60
# Factor of items that have all words of a query without being named by it: "cat" is among the tags of a tiger. With
# weight 1 the first of them comes sixth, and the next ones alternate with those by meaning. Chosen on the validation
# style of the demo among 0.9 to 0.99: with 0.95, the first of them comes fifth, and queries for drawings without texts
# begin to lose R@5; with 0.9 only two come among the first ten.
UNNAMED_FACTOR = 0.93


def fuse_rankings(
    by_meaning: Sequence[int], by_name: Sequence[int], by_words: Sequence[int], weight: float
) -> list[int]:
    """Return the items of three rankings, best first.

    The rankings by meaning and by name are fused by the sum of reciprocal ranks. The ranking by words does not add to
    the sum, since a single word says little: it only raises an item to the place of its own rank.

    Args:
        by_meaning: items, best first, at least `FUSION_DEPTH` of them if there are so many.
        by_name: the items that the query names, best first.
        by_words: the other items with all words of the query, best first.
        weight: factor of the reciprocal ranks by name and by words; those by meaning have 1.
    """
    scores: dict[int, float] = {}
    # Names come first: of two items with equal sums, the sort leaves the named one in front.
    for ranking, factor in ((by_name, weight), (by_meaning, 1.0)):
        for rank, item in enumerate(ranking[:FUSION_DEPTH], 1):
            scores[item] = scores.get(item, 0.0) + factor / (RANK_CONSTANT + rank)
    for rank, item in enumerate(by_words[:FUSION_DEPTH], 1):
        scores[item] = max(scores.get(item, 0.0), UNNAMED_FACTOR * weight / (RANK_CONSTANT + rank))
    fused = sorted(scores, key=lambda item: scores[item], reverse=True)
    fused += [item for item in by_meaning[FUSION_DEPTH:] if item not in scores]
    return fused
