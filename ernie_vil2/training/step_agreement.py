"""What all ranks agree on at a step: whether it has samples enough, whether a signal ends the run, what is not finite.

SIGINT, SIGTERM and SIGHUP end a run after a step, with a checkpoint, on all ranks at the same step. A step whose loss
or gradient is not finite ends the run or is left out.
"""

import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import paddle
from tqdm import tqdm

from ernie_vil2.data.loader import Batch
from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.device.launch import STOPPED, SecondCtrlC, heard, leave_closed_terminal
from ernie_vil2.io.files import save_arrays, write_json
from ernie_vil2.io.run_folder import MODEL
from ernie_vil2.io.terminal import RunError, counted
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.collectives import agree, agreed_errors
from ernie_vil2.parallel.store import HostSums

MOST_SKIPPED = 100
"""Batches that are skipped, one after another, before the run ends."""


class StopSignals:
    """Within its context a signal of `STOPPED` is a request to stop: noted by one rank, agreed by all of them.

    A request that one rank alone acted on would leave the others waiting for it. Each rank therefore adds `requests` to
    what the ranks sum on their hosts before every step (`BatchGate`), and hands the sums to `agree`. Who will not wait
    for that presses Ctrl-C again: it ends the process as it is. A process that ignores SIGHUP, as under `nohup`,
    continues to ignore it.

    Attributes:
        agreed: the signal that ends the run, the same on every rank; None: the run continues.
    """

    def __init__(self) -> None:
        self.agreed: signal.Signals | None = None
        self._noted: set[int] = set()
        self._second_ctrl_c = SecondCtrlC()

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in heard()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self._second_ctrl_c.is_this(number):
            os._exit(STOPPED[signal.SIGINT])
        self._noted.add(number)
        if number == signal.SIGHUP:
            leave_closed_terminal()

    @property
    def exit_code(self) -> int:
        """Of a process whose run `agreed` has ended; 0 where nothing has."""
        return STOPPED[self.agreed] if self.agreed else 0

    def requests(self) -> list[int]:
        """For each of the signals 1 if this rank has received it, else 0."""
        return [int(number in self._noted) for number in STOPPED]

    def agree(self, requests: Sequence[int]) -> None:
        """Takes the sums of all ranks' `requests`."""
        self.agreed = next((number for number, ranks in zip(STOPPED, requests, strict=True) if ranks), None)


class BatchGate:
    """Lets a batch through to the step if every rank has samples enough in it; otherwise all ranks skip it.

    Bad samples may follow one another, as those of a shard that has been lost, and so fill the whole share of a rank.
    What the ranks exchange goes by the store, which asks no device, and with it the requests to stop.
    """

    def __init__(self, ranks: int, signals: StopSignals):
        self._ranks, self._signals = ranks, signals
        self._sums = HostSums()
        self._in_a_row = 0

    def lets_through(self, samples: int, least: int, error: Exception | None = None) -> bool:
        """Whether all ranks have samples enough, of which this one has `samples`, or an error. A collective.

        Raises:
            Exception: a rank has an error, see `agree`.
            TooManyBadSamples: it is the hundredth batch in a row that is skipped.
        """
        enough, failed, *requests = self._sums(samples >= least, error is not None, *self._signals.requests())
        if failed:
            agree(error)
        if enough == self._ranks:
            self._in_a_row = 0
            self._signals.agree(requests)
            return True
        self._in_a_row += 1
        if self._in_a_row == MOST_SKIPPED:
            raise TooManyBadSamples(
                f"{MOST_SKIPPED} batches in a row lacked samples that can be used; is the data still there? "
                "The run folder has the reasons in bad_samples.txt; --resume continues from the last checkpoint"
            )
        return False

    def agree_to_stop(self) -> None:
        """Lets the ranks agree on requests to stop between two batches. A collective."""
        self._signals.agree(self._sums(*self._signals.requests()))


MOST_NOT_FINITE = 10
"""Steps left out, one after another, before the run ends."""
STEPS_BEFORE_SHARE = 100
"""Steps before the share of those left out is judged in the course of a run: at its beginning a few are a large one. A
run that is shorter is judged at its end."""
_SHOWN = 5


class NotFinite(RunError):  # noqa: N818  -- named by what has happened
    """Loss, gradient or weights are NaN or infinite; the message says which, and where the last good weights are."""


class NonFiniteSteps:
    """Ends the run at the first step that is not finite, or leaves such steps out, as `Training.nonfinite` says.

    Args:
        run: the run folder, for the evidence.
        skip: whether they are left out; the tenth in a row ends the run all the same.
        max_share: the largest share of all steps that may be left out, `Training.max_skipped_share`.

    Attributes:
        skipped: steps left out so far.
        in_a_row: of these, since the last update.
    """

    def __init__(self, run: Path, skip: bool, max_share: float = 1.0):
        self._run, self._skip, self._max_share = run, skip, max_share
        self.skipped = 0
        self.in_a_row = 0

    def resume(self, skipped: int, in_a_row: int) -> None:
        """Continue from the counts that a checkpoint holds."""
        self.skipped, self.in_a_row = skipped, in_a_row

    def note_finite(self) -> None:
        """Note that the newest step is finite, which ends a row of steps left out."""
        self.in_a_row = 0

    def record(
        self,
        step: int,
        batch: Batch,
        own: Mapping[str, float],
        gradients: Sequence[str],
        model: paddle.nn.Layer,
        rank: int,
    ) -> None:
        """Saves what led to a step, numbered from 1, that is not finite and has changed no weight. A collective.

        Every rank saves the names of its samples and what is not finite of its `own` losses and of its gradients, by
        the parameters' names; where the run ends, also its batch, and rank 0 the weights.

        Raises:
            NotFinite: the run ends, on all ranks.
        """
        self.skipped += 1
        self.in_a_row += 1
        too_many = step >= STEPS_BEFORE_SHARE and self._exceeds_share(step)
        ends = not self._skip or self.in_a_row == MOST_NOT_FINITE or too_many
        folder = self._run / f"nonfinite_step_{step:08d}"
        found = {
            "losses": {name: loss if math.isfinite(loss) else str(loss) for name, loss in own.items()},
            "gradients": list(gradients),
        }
        with agreed_errors():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / f"batch_rank{rank}.json", {**found, "names": batch["names"]})
            if ends:
                arrays = {name: np.ascontiguousarray(value) for name, value in batch.items()
                          if isinstance(value, paddle.Tensor | np.ndarray)}  # fmt: skip
                save_arrays(folder / f"batch_rank{rank}.safetensors", arrays)
                if rank == 0:
                    weights = {name: value.numpy() for name, value in model.state_dict().items()}
                    save_arrays(folder / MODEL, weights)
        # Nobody ends before all have saved: the launcher ends the others then.
        what = _described(step, collectives.all_gather_object(found))
        if not ends:
            if rank == 0:
                tqdm.write(f"warning: {what}; the step is left out ({self.skipped} so far), names are in {folder}",
                           sys.stderr)  # fmt: skip
            return
        if self._skip and self.in_a_row == MOST_NOT_FINITE:
            raise NotFinite(
                f"{what}, as those of the {MOST_NOT_FINITE - 1} before; batches and weights are in {folder}"
            )
        if self._skip:
            raise NotFinite(f"{what}; {self._share_in_words(step)}; batches and weights are in {folder}")
        raise NotFinite(
            f"{what}; batches and the weights before it are in {folder}. --resume comes to the same step again, "
            "and leaves it out with -o Training.nonfinite=skip; a lower learning rate needs a new run"
        )

    def check_share(self, steps: int) -> None:
        """Raise NotFinite if too many of all steps of a run that is at its end were left out."""
        if self._skip and self._exceeds_share(steps):
            raise NotFinite(
                f"{self._share_in_words(steps)}. The last checkpoint is as the others left it. Look at the samples "
                f"that {self._run}/nonfinite_step_... names and at Optimizer.learning_rate, and train again"
            )

    def _exceeds_share(self, steps: int) -> bool:
        return self.skipped > self._max_share * steps

    def _share_in_words(self, steps: int) -> str:
        return (
            f"{self.skipped:,} of {counted(steps, 'step')} were not finite and left out, more than "
            f"Training.max_skipped_share = {self._max_share:g} allows"
        )


def check_weights(model: paddle.nn.Layer, step: int) -> None:
    """For weights that are about to be saved.

    Raises:
        NotFinite: names those that are NaN or infinite.
    """
    state = {name: value for name, value in model.state_dict().items() if paddle.is_floating_point(value)}
    if not paddle.stack([paddle.isfinite(value).all() for value in state.values()]).all():
        raise NotFinite(
            f"the weights after step {step} are not finite ({_listed(not_finite(state))}): they are not saved, and the "
            "checkpoints before stay. Look at Optimizer.learning_rate and Optimizer.epsilon"
        )


def not_finite(values: Mapping[str, paddle.Tensor]) -> list[str]:
    """Names of the tensors in which a value is NaN or infinite."""
    return [name for name, value in values.items() if not paddle.isfinite(value).all()]


def _described(step: int, everyone: Sequence[dict[str, Any]]) -> str:
    """Says of the ranks' evidence what is not finite, and where."""
    losses = [
        f"rank {rank}: {', '.join(f'{name} {loss}' for name, loss in own['losses'].items())}"
        for rank, own in enumerate(everyone)
        if any(isinstance(loss, str) for loss in own["losses"].values())
    ]
    if losses:
        return f"the loss of step {step} is not finite ({'; '.join(losses)})"
    parameters = list(dict.fromkeys(name for own in everyone for name in own["gradients"]))
    return f"the gradient of step {step} is not finite ({_listed(parameters) or 'its norm is too large for float32'})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + f" and {len(names) - _SHOWN:,} others" * (len(names) > _SHOWN)
