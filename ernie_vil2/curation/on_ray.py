"""The maps on many machines, by Ray Data: the functions of `measures.py`, into the same parts of a shared folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ernie_vil2.curation.measures import Maps, measure_shard
from ernie_vil2.device.extras import require


def measure_on_ray(open_maps: Callable[[], Maps], shards: Sequence[int], address: str) -> None:
    """Measures shards on the nodes of a Ray cluster, one task a shard.

    Args:
        open_maps: opens source and steps, in every process that measures; it is pickled.
        shards: without measures so far.
        address: of the cluster, as `ray.init` takes it: `auto`, `ray://host:10001`, or `local` for one on this machine.

    Raises:
        MissingPackage: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """
    require("--ray", "ray")
    import ray

    if not shards:
        return
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)

    def measure(row: dict[str, Any]) -> dict[str, Any]:
        return {"part": str(measure_shard(_opened(open_maps), int(row["shard"])))}

    dataset = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    dataset.map(measure).materialize()


@cache
def _opened(open_maps: Callable[[], Maps]) -> Maps:
    """Once in a process that is given the same callable."""
    return open_maps()
