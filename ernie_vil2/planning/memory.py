"""Bytes that a rank needs: all the time, and in each part of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ernie_vil2.planning.census import Census
from ernie_vil2.planning.towers import Sizes

LOGITS_KEPT = 3
LOGITS_AT_WORK = 3
"""Float32 matrices of logits that the plain loss keeps for each view pair, and has in use beyond these."""
TILES_AT_WORK = 13
"""Tiles' worth of float32 that the tiled loss has in use, where its exponentials are float64."""


@dataclass(frozen=True)
class Need:
    """What the memory of a rank depends on.

    Attributes:
        rows: of this rank.
        encoded: of these, rows that are encoded at once, with what is kept for backward.
        cached: whether rows are encoded a first time without.
        recompute: whether blocks keep their inputs only.
        global_batch: rows of all ranks.
        ranks: how many there are.
        views: encodings of a row by kind, "image" and "text".
        censuses: of the towers that encode.
        sizes: elements of the model.
        share: of its parameters, elements whose optimiser state this rank holds.
        sharding: `Training.sharding`, none in one process.
        width: of the joint space.
        pairs: view pairs of the loss.
        tile: rows and columns of the loss's tiles; None: all logits at once.
        clips: whether gradients are clipped.
        image_bytes: of an image as the loader hands it over.
    """

    rows: int
    encoded: int
    cached: bool
    recompute: bool
    global_batch: int
    ranks: int
    views: Mapping[str, int]
    censuses: Mapping[str, Census]
    sizes: Sizes
    share: int
    sharding: str
    width: int
    pairs: int
    tile: int | None
    clips: bool
    image_bytes: int


def held(need: Need) -> dict[str, float]:
    """Bytes that are held from the first step to the last, by what."""
    parameters = need.sizes.parameters
    return {
        "weights": 4 * (parameters + 2 * need.sizes.channels),
        "gradients": 4 * (need.share if need.sharding == "stage2" else parameters),
        "optimiser state": 8 * need.share,
        "images of the batch": need.rows * need.views["image"] * need.image_bytes,
    }


def phases(need: Need) -> dict[str, dict[str, float]]:
    """Bytes beyond `held` in each part of a step, by part and what."""
    embeddings = _embeddings(need)
    activations, work = _activations(need), _work(need)
    parts: dict[str, dict[str, float]] = {
        "loss": {"embeddings": embeddings, "logits": _logits(need)},
        "backward": {"activations": activations, "work space": work, "embeddings": embeddings},
    }
    if not need.cached:
        parts["loss"]["activations"] = activations
    if need.ranks > 1 and need.sharding == "none":
        parts["backward"]["buckets of gradients"] = 4 * need.sizes.parameters
    if need.clips and need.sharding == "none":  # fleet's stages clip in place
        parts["optimiser"] = {"clipped gradients": 4 * need.sizes.parameters}
    return parts


def _activations(need: Need) -> float:
    return sum(
        census.fixed + need.encoded * need.views[kind] * (census.kept_recomputed if need.recompute else census.kept)
        for kind, census in need.censuses.items()
    )


def _work(need: Need) -> float:
    return max(
        need.encoded * need.views[kind] * (census.work_recomputed if need.recompute else census.work)
        for kind, census in need.censuses.items()
    )


def _embeddings(need: Need) -> float:
    """The rank's own and all ranks', each with its gradient; in one process these are the same."""
    rows = need.rows + (need.global_batch if need.ranks > 1 else 0)
    return 2 * rows * sum(need.views.values()) * need.width * 4


def _logits(need: Need) -> float:
    if need.tile is None:
        return (LOGITS_KEPT * need.pairs + LOGITS_AT_WORK) * need.rows * need.global_batch * 4
    return TILES_AT_WORK * min(need.tile, need.rows) * min(need.tile, need.global_batch) * 4
