"""Image-text retrieval: ranks, recall, chance, best matches and the tables that print them.

A score is the dot product of two rows. It is summed in float64 and rounded to float32, so that equal
rows tie whatever order the sum was taken in, and the numbers do not depend on the block size.
All functions work on blocks: no more than `block x block` scores are held at a time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

CUTOFFS = (1, 5, 10)
COLUMNS = tuple(f"R@{k}" for k in CUTOFFS)
DIRECTIONS = ("image_to_text", "text_to_image")
TIE_RULE = "ties count against the model: rank = 1 + the non-positives that score at least the best positive"


@dataclass(frozen=True)
class RetrievalResult:
    """Recall of one model on one set of image-text pairs, in both directions.

    Recalls are in percent, as `{"R@1", "R@5", "R@10", "mR"}`. `chance` holds what a random ranking
    would be expected to reach. The ranks are 1-based, one for every image (`image_ranks`, `[N]`, of its best
    text) and for every text (`text_ranks`, `[M]`, of its best image).
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
        """The two-way mR: the mean of both directions' mR, in percent."""
        return (self.image_to_text["mR"] + self.text_to_image["mR"]) / 2

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


def evaluate_retrieval(image_embeddings, text_embeddings, pairs, block: int = 1024) -> RetrievalResult:
    """Score images `[N, D]` against texts `[M, D]`; `pairs` `[P, 2]` are (image row, text row), many to many.

    Raises ValueError for an embedding that is not finite, a row without a pair, and a pair out of range.
    """
    pairs = np.unique(_checked_pairs(pairs, len(image_embeddings), len(text_embeddings)), axis=0)
    image_ranks = first_positive_ranks(image_embeddings, text_embeddings, pairs, block, ("image", "text"))
    swapped = pairs[:, ::-1]
    text_ranks = first_positive_ranks(text_embeddings, image_embeddings, swapped, block, ("text", "image"))
    return RetrievalResult(
        images=len(image_ranks),
        texts=len(text_ranks),
        pairs=len(pairs),
        image_to_text=recall(image_ranks),
        text_to_image=recall(text_ranks),
        chance={
            "image_to_text": chance(np.bincount(pairs[:, 0]), len(text_ranks)),
            "text_to_image": chance(np.bincount(pairs[:, 1]), len(image_ranks)),
        },
        image_ranks=image_ranks,
        text_ranks=text_ranks,
    )


def first_positive_ranks(
    queries, gallery, positives, block: int = 1024, names: tuple[str, str] = ("query", "gallery")
) -> np.ndarray:
    """The 1-based rank of every query's best positive, int64 `[Q]`; ties count against the model.

    queries `[Q, D]`, gallery `[G, D]`; `positives` `[P, 2]` are (query row, gallery row), many to many.
    `names` are what error messages call the two sides. Raises ValueError for an embedding that is not finite,
    a query without a positive, and a positive out of range.
    """
    queries, gallery = _checked_embeddings(queries, gallery, names)
    positives = np.unique(_checked_pairs(positives, len(queries), len(gallery)), axis=0)  # sorted by query
    owners, targets = positives[:, 0], positives[:, 1]
    missing = np.setdiff1d(np.arange(len(queries)), owners)
    if missing.size:
        raise ValueError(
            f"{names[0]} row {missing[0]} has no positive ({missing.size} such rows); "
            "pair every row or leave it out of the evaluation"
        )

    best = np.full(len(queries), -np.inf, np.float32)
    for part in _blocks(len(positives), block):
        left, right = queries[owners[part]].astype(np.float64), gallery[targets[part]].astype(np.float64)
        np.maximum.at(best, owners[part], np.einsum("pd,pd->p", left, right).astype(np.float32))

    ranks = np.ones(len(queries), np.int64)
    for rows in _blocks(len(queries), block):
        own = slice(*np.searchsorted(owners, [rows.start, rows.stop]))
        for columns in _blocks(len(gallery), block):
            scores = _scores(queries[rows], gallery[columns])
            inside = (targets[own] >= columns.start) & (targets[own] < columns.stop)
            scores[owners[own][inside] - rows.start, targets[own][inside] - columns.start] = -np.inf
            ranks[rows] += (scores >= best[rows, None]).sum(axis=1)
    return ranks


def recall(ranks) -> dict[str, float]:
    """R@1, R@5, R@10 and their mean mR, in percent, of 1-based `ranks` `[Q]`."""
    ranks = np.asarray(ranks)
    if ranks.size == 0:
        raise ValueError("recall of no queries is undefined: the evaluation set is empty")
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


def top_matches(queries, gallery, k: int, block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """The k best gallery rows of every query, best first, equal scores by lower row: exact and deterministic.

    queries `[Q, D]`, gallery `[G, D]`. Returns indices int64 `[Q, k]` and scores float32 `[Q, k]`.
    Raises ValueError when k is not between 1 and G, or an embedding is not finite.
    """
    queries, gallery = _checked_embeddings(queries, gallery, ("query", "gallery"))
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k = {k} matches were asked of a gallery of {len(gallery)} rows")
    indices = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    for rows in _blocks(len(queries), block):
        count = rows.stop - rows.start
        best_scores, best_indices = np.empty((count, 0), np.float32), np.empty((count, 0), np.int64)
        for columns in _blocks(len(gallery), block):
            here = np.arange(columns.start, columns.stop)
            merged = np.concatenate([best_scores, _scores(queries[rows], gallery[columns])], axis=1)
            origin = np.concatenate([best_indices, np.tile(here, (count, 1))], axis=1)
            # Stable: among equal scores the earlier column wins, which is the lower gallery row.
            order = np.argsort(-merged, axis=1, kind="stable")[:, :k]
            best_scores, best_indices = (np.take_along_axis(a, order, axis=1) for a in (merged, origin))
        indices[rows], scores[rows] = best_indices, best_scores
    return indices, scores


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
    """The seven numbers of one table row; the last is the two-way mR, "-" when a direction lacks its mR."""
    if isinstance(values, RetrievalResult):
        values = values.as_dict()
    ways = [values.get(direction) or {} for direction in DIRECTIONS]
    means = [way["mR"] for way in ways if "mR" in way]
    numbers = [way.get(name) for way in ways for name in COLUMNS]
    numbers.append(sum(means) / 2 if len(means) == 2 else None)
    return ["-" if number is None else f"{number:.2f}" for number in numbers]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _with_mean(shares: Sequence[float]) -> dict[str, float]:
    percents = [100 * share for share in shares]
    return {**dict(zip(COLUMNS, percents, strict=True)), "mR": sum(percents) / len(percents)}


def _scores(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return (queries.astype(np.float64) @ gallery.astype(np.float64).T).astype(np.float32)


def _blocks(count: int, block: int) -> Iterator[slice]:
    if block < 1:
        raise ValueError(f"block = {block}: a block holds at least one row")
    return (slice(start, min(start + block, count)) for start in range(0, count, block))


def _checked_embeddings(queries, gallery, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    queries, gallery = np.asarray(queries), np.asarray(gallery)
    for name, rows in zip(names, (queries, gallery), strict=True):
        if rows.ndim != 2:
            raise ValueError(f"{name} embeddings have shape {rows.shape}; rows x width is needed")
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if broken.size:
            raise ValueError(
                f"{name} embedding row {broken[0]} is not finite ({broken.size} such rows); "
                "evaluate an earlier checkpoint, or in float32 if it was half precision"
            )
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{names[0]} embeddings are {queries.shape[1]} wide, {names[1]} embeddings {gallery.shape[1]}; "
            "encode both sides with one model"
        )
    return queries, gallery


def _checked_pairs(pairs, rows: int, columns: int) -> np.ndarray:
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(f"pairs have shape {pairs.shape} and type {pairs.dtype}; integers [P, 2] are needed")
    outside = np.flatnonzero(((pairs < 0) | (pairs >= [rows, columns])).any(axis=1))
    if outside.size:
        pair = tuple(pairs[outside[0]].tolist())
        raise ValueError(f"pair {outside[0]} is {pair}, outside the {rows} x {columns} embedding rows")
    return pairs
