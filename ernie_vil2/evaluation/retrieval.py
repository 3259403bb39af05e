"""Image-text retrieval: ranks, recall, chance, best matches and the tables that print them.

Which row ranks where is found in `ranking.py`, exactly and in blocks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ernie_vil2.evaluation.ranking import TIE_RULES, Ranking, rank_queries, refuse_unpaired
from ernie_vil2.evaluation.ranking import first_positive_ranks as first_positive_ranks
from ernie_vil2.evaluation.ranking import top_matches as top_matches

CUTOFFS = (1, 5, 10)
COLUMNS = tuple(f"R@{k}" for k in CUTOFFS)
DIRECTIONS = ("image_to_text", "text_to_image")
TIE_RULE = TIE_RULES["pessimistic"]


@dataclass(frozen=True)
class RetrievalResult:
    """Recall of one model on one set of image-text pairs, in both directions.

    Recalls are in percent, as `{"R@1", "R@5", "R@10", "mR"}`; a direction that is not scored is `{}`. `chance` holds
    what a random ranking would be expected to reach. The ranks are 1-based, one for every image (`image_ranks`,
    `[N]`, of its best text) and for every text (`text_ranks`, `[M]`, of its best image); 0 marks a row without a
    pair, which is in the gallery, but no query.
    """

    images: int
    texts: int
    pairs: int
    image_to_text: dict[str, float]
    text_to_image: dict[str, float]
    chance: dict[str, dict[str, float]]
    image_ranks: np.ndarray = field(repr=False, compare=False)
    text_ranks: np.ndarray = field(repr=False, compare=False)
    tie_rule: str = TIE_RULE

    @property
    def mean_recall(self) -> float:
        """The mean of the scored directions' mR, in percent; of both, the two-way mR."""
        means = [way["mR"] for way in (self.image_to_text, self.text_to_image) if way]
        return sum(means) / len(means)

    def as_dict(self) -> dict:
        """The result without its ranks, ready for JSON and for `format_table`."""
        return {
            "images": self.images,
            "texts": self.texts,
            "pairs": self.pairs,
            "image_to_text": self.image_to_text,
            "text_to_image": self.text_to_image,
            "mR": self.mean_recall,
            "chance": self.chance,
            "tie_rule": self.tie_rule,
        }


def evaluate_retrieval(
    image_embeddings,
    text_embeddings,
    pairs,
    block: int = 1024,
    *,
    ties: str = "pessimistic",
    directions: Sequence[str] = DIRECTIONS,
    allow_unpaired: bool = False,
    device: str = "cpu",
) -> RetrievalResult:
    """Score images `[N, D]` against texts `[M, D]`; `pairs` `[P, 2]` are (image row, text row), many to many.

    Args:
        ties, block, device: as in `rank_queries`.
        directions: those that are scored, of `DIRECTIONS`.
        allow_unpaired: whether a row may be without a pair; it then is in the gallery, but no query.

    Raises:
        ValueError: an embedding that is not finite, a pair out of range, no query at all, and, unless allowed, a
            row without a pair.
    """
    if not allow_unpaired:
        refuse_unpaired(pairs, len(image_embeddings), len(text_embeddings))
    rankings = rank_queries(
        image_embeddings, text_embeddings, pairs, block, ties=ties, names=("image", "text"), device=device
    )
    return summarize(*rankings, pairs, ties, directions)


def summarize(
    images: Ranking,
    texts: Ranking,
    pairs,
    ties: str = "pessimistic",
    directions: Sequence[str] = DIRECTIONS,
) -> RetrievalResult:
    """The result of ranked image queries and text queries; arguments as in `evaluate_retrieval`."""
    pairs = np.unique(pairs, axis=0)
    galleries = {"image_to_text": (images, texts, 0), "text_to_image": (texts, images, 1)}
    recalls, chances = {}, {}
    for direction in directions:
        queries, gallery, column = galleries[direction]
        recalls[direction] = recall(queries.rank[queries.rank > 0])
        positives = np.bincount(pairs[:, column], minlength=len(queries.rank))
        chances[direction] = chance(positives[queries.rank > 0], len(gallery.rank))
    return RetrievalResult(
        images=len(images.rank),
        texts=len(texts.rank),
        pairs=len(pairs),
        image_to_text=recalls.get("image_to_text", {}),
        text_to_image=recalls.get("text_to_image", {}),
        chance=chances,
        image_ranks=images.rank,
        text_ranks=texts.rank,
        tie_rule=TIE_RULES[ties],
    )


def recall(ranks) -> dict[str, float]:
    """R@1, R@5, R@10 and their mean mR, in percent, of 1-based `ranks` `[Q]`."""
    ranks = np.asarray(ranks)
    if ranks.size == 0:
        raise ValueError("recall of no queries is undefined: the evaluation set is empty")
    if ranks.min() < 1:
        raise ValueError("ranks count from 1; a row of rank 0 has no pair and is no query: leave it out")
    return _with_mean([float(np.mean(ranks <= k)) for k in CUTOFFS])


def chance(counts_of_positives, gallery_size: int) -> dict[str, float]:
    """The expected recall of a random ranking, in percent; `counts_of_positives` `[Q]`, one count a query.

    A query with c positives among G misses all of them in its first k with probability
    C(G - c, k) / C(G, k) = prod_{i<k} (G - c - i) / (G - i), the hypergeometric distribution at zero.
    """
    counts = np.asarray(counts_of_positives)
    if counts.size == 0 or counts.min() < 1 or counts.max() > gallery_size:
        raise ValueError(f"every query needs between 1 and {gallery_size} positives (the gallery size)")
    shares = []
    for k in CUTOFFS:
        drawn = np.arange(min(k, gallery_size))
        missed = np.maximum(gallery_size - counts[:, None] - drawn, 0) / (gallery_size - drawn)  # [Q, k]
        shares.append(float(np.mean(1 - missed.prod(axis=1))))
    return _with_mean(shares)


def mean_reciprocal_rank(ranks) -> float:
    """The mean of 1 / rank, in percent, of 1-based `ranks` `[Q]`."""
    return float(100 * np.mean(1 / np.asarray(ranks)))


Row = tuple[str, RetrievalResult | Mapping | None]


def format_table(rows: Iterable[Row]) -> str:
    """A plain text table in the form of the paper's: recall in percent, image to text, text to image, mR.

    A row is (label, values): values is a RetrievalResult, a dictionary of recalls by direction such as
    `result.chance` (what it lacks prints as "-"), or None for a heading that opens a group of rows.
    """
    rows = [(label, None if values is None else table_cells(values)) for label, values in rows]
    width = max([len(label) for label, _ in rows], default=0)
    group = len(COLUMNS) * 7
    lines = [
        " " * width + "".join(f"  {name:>{group - 2}}" for name in ("image -> text", "text -> image")),
        " " * width + "".join(f"{name:>7}" for name in (*COLUMNS, *COLUMNS, "mR")),
    ]
    lines.append("-" * len(lines[-1]))
    for label, cells in rows:
        numbers = "" if cells is None else "".join(f"{cell:>7}" for cell in cells)
        lines.append(f"{label:<{width}}{numbers}".rstrip())
    return "\n".join(lines)


def format_markdown(rows: Iterable[Row]) -> str:
    """The same table in Markdown, for a README."""
    header = ["", *(f"{way} {name}" for way in ("I→T", "T→I") for name in COLUMNS), "mR"]
    lines = [_markdown_row(header), _markdown_row(["---", *["---:"] * (len(header) - 1)])]
    for label, values in rows:
        empty = [""] * (len(header) - 1)
        cells = [f"**{label}**", *empty] if values is None else [label, *table_cells(values)]
        lines.append(_markdown_row(cells))
    return "\n".join(lines)


def table_cells(values: RetrievalResult | Mapping) -> list[str]:
    """The seven numbers of one table row.

    The last is `values["mR"]` or, without it, the two-way mR; "-" when a direction lacks its mR.
    """
    if isinstance(values, RetrievalResult):
        values = values.as_dict()
    ways = [values.get(direction) or {} for direction in DIRECTIONS]
    numbers = [way.get(name) for way in ways for name in COLUMNS]
    means = [way["mR"] for way in ways if "mR" in way]
    numbers.append(values.get("mR", sum(means) / 2 if len(means) == 2 else None))
    return ["-" if number is None else f"{number:.2f}" for number in numbers]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _with_mean(shares: Sequence[float]) -> dict[str, float]:
    percents = [100 * share for share in shares]
    return {**dict(zip(COLUMNS, percents, strict=True)), "mR": sum(percents) / len(percents)}
