"""What a run needs, from its configuration alone. docs/plan.md has the formulas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ernie_vil2.config import Config
from ernie_vil2.losses import build_loss
from ernie_vil2.planning.devices import Device, check
from ernie_vil2.planning.memory import Need, held, phases
from ernie_vil2.planning.towers import Sizes, Towers
from ernie_vil2.planning.traffic import Transfer, gradient_transfers, norm_transfers, transfers

USABLE = 0.92
"""Share of a device's memory that tensors can have: the rest is the driver's and lost between blocks."""
RANKS_PER_MACHINE = 8


@dataclass(frozen=True)
class Plan:
    """Figures of one run.

    Attributes:
        ranks: devices, one rank on each.
        rows: pairs of a step on each rank.
        encoded: of these, pairs that are encoded at once with what is kept for backward.
        views: encodings of a row by kind, "image" and "text".
        sizes: elements of the model.
        held: bytes a rank holds all the time, by what.
        phases: bytes that each part of a step needs beyond these, by part and what.
        limit: bytes of the device that tensors can have.
        transfers: what a rank sends in a step.
        flops: operations of a step over all ranks.
        compute: seconds of a step at the stated utilisation.
        transfer: seconds of a step in which a rank sends and computes nothing.
        hidden_transfer: seconds of sending beside the computation, if that is long enough.
        steps: of the schedule.
        global_batch: pairs of a step.
        sample_bytes: stored bytes of a sample, as assumed.
        device_bytes: bytes of a sample that the loader hands to the device.
    """

    ranks: int
    rows: int
    encoded: int
    views: Mapping[str, int]
    sizes: Sizes
    held: Mapping[str, float]
    phases: Mapping[str, Mapping[str, float]]
    limit: float
    transfers: list[Transfer]
    flops: float
    compute: float
    transfer: float
    hidden_transfer: float
    steps: int
    global_batch: int
    sample_bytes: int
    device_bytes: int

    @property
    def peak(self) -> float:
        """Bytes of a rank in the part of the step that needs the most."""
        return sum(self.held.values()) + max(sum(phase.values()) for phase in self.phases.values())

    @property
    def fits(self) -> bool:
        """Whether `peak` is within `limit`."""
        return self.peak <= self.limit

    @property
    def seconds(self) -> float:
        """Of a step: computing, or sending beside it where that takes longer, and then the rest of the sending."""
        return max(self.compute, self.hidden_transfer) + self.transfer

    @property
    def days(self) -> float:
        """Of the whole schedule."""
        return self.steps * self.seconds / 86400

    @property
    def samples_per_second(self) -> float:
        """Pairs that the loaders of all ranks must deliver."""
        return self.global_batch / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        derived = ("peak", "fits", "seconds", "days", "samples_per_second")
        return asdict(self) | {name: getattr(self, name) for name in derived}


def make_plan(
    config: Config,
    towers: Towers,
    ranks: int,
    device: Device,
    utilisation: float = 0.35,
    sample_bytes: int = 50_000,
    bandwidth: float | None = None,
) -> Plan:
    """Plans a run of `config` on `ranks` devices.

    Args:
        config: of the run.
        towers: those of `config.Model`.
        utilisation: share of the device's peak speed that training reaches.
        sample_bytes: stored bytes of one sample.
        bandwidth: bytes a second that leave a rank; None: the device's, within a machine up to 8 ranks and between
            machines above.

    Raises:
        ConfigError: the ranks do not divide the batch, or the device lacks the precision.
    """
    training = config.Training
    check(config, ranks, device)
    rows = training.global_batch // ranks
    loss = build_loss(config.Loss)
    views = {kind: sum(view.startswith(kind) for view in loss.views) for kind in ("image", "text")}
    sizes, width = towers.sizes, towers.embed_dim
    censuses = {kind: towers.census(kind, training.precision) for kind in views if views[kind]}
    parts = -(-rows // training.micro_batch) if training.micro_batch else 1
    cached = training.micro_batch is not None
    sharding = training.sharding if ranks > 1 else "none"
    sent = transfers(ranks, rows, sum(views.values()), width, len(loss.weights))
    sent += gradient_transfers(ranks, sizes.parameters, sizes.tensors, sharding)
    if views["image"] and training.sync_norms:
        forwards = parts * (1 + cached + training.recompute)
        sent += norm_transfers(ranks, sizes.norms, sizes.channels, forwards, backwards=parts)

    need = Need(
        rows=rows,
        encoded=-(-rows // parts),
        cached=cached,
        recompute=training.recompute,
        global_batch=training.global_batch,
        ranks=ranks,
        views=views,
        censuses=censuses,
        sizes=sizes,
        share=sizes.parameters if sharding == "none" else towers.largest_share(ranks),
        sharding=sharding,
        width=width,
        pairs=len(loss.weights),
        tile=config.Loss.tile,
        clips=config.Optimizer.clip_norm is not None,
        image_bytes=3 * config.Model.image.image_size**2,
    )
    encoding = sum(views[kind] * census.flops for kind, census in censuses.items()) * training.global_batch
    # Tiles are computed twice: the products of forward, these again, and two for the gradients.
    products = 3 if config.Loss.tile is None else 4
    scoring = len(loss.weights) * products * 2.0 * training.global_batch**2 * width
    flops = (3 + cached + training.recompute) * encoding + scoring
    bandwidth = bandwidth or (device.link if ranks <= RANKS_PER_MACHINE else device.network)
    return Plan(
        ranks=ranks,
        rows=rows,
        encoded=need.encoded,
        views=views,
        sizes=sizes,
        held=held(need),
        phases=phases(need),
        limit=USABLE * device.memory,
        transfers=sent,
        flops=flops,
        compute=flops / (ranks * device.flops[training.precision] * utilisation),
        transfer=sum(transfer.sent for transfer in sent if not transfer.hidden) / bandwidth,
        hidden_transfer=sum(transfer.sent for transfer in sent if transfer.hidden) / bandwidth,
        steps=training.steps,
        global_batch=training.global_batch,
        sample_bytes=sample_bytes,
        device_bytes=views["image"] * need.image_bytes + (8 * config.Data.max_length if views["text"] else 0) + 16,
    )
