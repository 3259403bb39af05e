"""The training loop."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors.numpy import save_file
from tqdm import tqdm

from ernie_vil2 import runtime
from ernie_vil2.config import Config, ConfigError, load_config
from ernie_vil2.data.loader import TEXT_VIEWS, Batch, training_batches
from ernie_vil2.data.samples import BadSampleReport, TooManyBadSamples
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.environment import environment
from ernie_vil2.evaluation.benchmark import Benchmark
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.evaluator import score
from ernie_vil2.evaluation.protocols import protocol
from ernie_vil2.evaluation.readers import open_benchmark
from ernie_vil2.files import write_text
from ernie_vil2.losses import MultiViewLoss
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.initial_weights import load_initial_weights
from ernie_vil2.parallel import average_statistics, collectives
from ernie_vil2.parallel.agreement import check_agreement, digest
from ernie_vil2.parallel.norms import batch_norms, synchronise_norms
from ernie_vil2.parallel.ranks import join_ranks, meet, watched_ranks
from ernie_vil2.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from ernie_vil2.training.optimizer import build_optimizer, learning_rate
from ernie_vil2.training.run_log import RunLog
from ernie_vil2.training.run_page import write_run_page
from ernie_vil2.training.sharding import distribute, optimizer_arrays
from ernie_vil2.training.step import build_step

# What a resumed run may change: nothing that the weights depend on.
FREE_ON_RESUME = {
    "Loss.tile",
    "Data.val",
    "Data.workers",
    "Data.max_bad_share",
    "Evaluation",
    "Training.output",
    "Training.device",
    "Training.micro_batch",
    "Training.recompute",
    "Training.sharding",
    "Training.log_every",
    "Training.checkpoint_every",
    "Training.keep_checkpoints",
}


class NonFiniteLoss(RuntimeError):
    """The loss is NaN or infinite; what led to it has been saved."""


class Trainer:
    """One training run, on one process or as one of several ranks.

    Args:
        config: the whole configuration.
        resume: go on from the run folder's newest checkpoint, or start if there is none.

    Raises:
        ConfigError: ranks that do not divide the batch, a run folder in use without `resume`, or a
            configuration that differs from the run's own.
    """

    def __init__(self, config: Config, resume: bool = False):
        self.config = config
        runtime.set_device(config.Training.device)
        self.rank, self.ranks = join_ranks(config.Training.sharding == "stage1")
        if config.Training.global_batch % self.ranks:
            raise ConfigError(
                f"Training.global_batch ({config.Training.global_batch}) must be divisible by the {self.ranks} ranks"
            )
        self.run = Path(config.Training.output)
        checkpoints = list_checkpoints(self.run)
        if checkpoints and not resume:
            raise ConfigError(
                f"{self.run} already holds a run; go on with --resume or choose another -o Training.output=..."
            )

        self.stream = SampleStream(config)
        self.val = validation_sets(config)
        check_agreement(_facts(config, self.stream, self.val, checkpoints))
        text = config.Model.text
        self.tokenizer = Tokenizer(text.vocabulary, config.Data.max_length, text.tokenizer)
        paddle.seed(config.Training.seed)
        self.model = build_dual_encoder(config.Model, self.tokenizer.vocab_size, config.Loss.temperature)
        if not checkpoints:
            for report in load_initial_weights(self.model, config.Model):
                if self.rank == 0:
                    print(f"initial weights\n{report}")
        self.loss = MultiViewLoss(config.Loss.weights.model_dump(), config.Loss.duplicates, config.Loss.tile)
        self.model.freeze_all_but(self.loss.views)
        meet()  # initial weights may take one rank longer than another
        self.parallel, self.optimizer, self.scaler = distribute(
            self.model,
            build_optimizer(self.model, config.Optimizer),
            paddle.amp.GradScaler(enable=config.Training.precision == "float16"),
            config.Training.sharding,
        )
        self.bad_samples = BadSampleReport(config.Data.max_bad_share)
        self.step = 0
        self.place = 0  # of the stream, that the next step begins at
        if checkpoints:
            self._resume(checkpoints[-1])
        self._prepare_norms()
        self.objective = build_step(self.model, self.loss, config, self.parallel, self.scaler)
        self._stop = False

    def _prepare_norms(self) -> None:
        """Synchronises batch norms over the ranks, and says which rows they see where that is not the global batch."""
        training, norms = self.config.Training, batch_norms(self.model)
        left = list(norms) if self.ranks > 1 else []
        if self.ranks > 1 and training.sync_norms:
            left = synchronise_norms(self.model)
        if self.rank == 0 and left:
            print(f"batch norms of each rank's own rows: {', '.join(left)}")
        if self.rank == 0 and norms and training.micro_batch:
            print(f"{len(norms)} batch norms see one micro batch at a time (docs/memory.md)")

    def _resume(self, checkpoint: Path) -> None:
        changed = _differences(_settings(load_config(checkpoint / "config.yaml")), _settings(self.config))
        if changed:
            raise ConfigError(
                f"{checkpoint} was trained with other values of {', '.join(changed)}; "
                "resume with the run's own or choose another -o Training.output=..."
            )
        state = load_checkpoint(checkpoint, self.model, self.optimizer)
        self.stream.check(state["data"])
        self.step, self.place = state["step"], state["data"]["place"]
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.rank == 0:
            self.bad_samples.merge(state["bad_samples"])

    @watched_ranks()
    @runtime.flushed_denormals()
    def fit(self) -> bool:
        """Trains up to `Training.steps`, with evaluation, log and checkpoints on the way.

        Returns:
            True when the run is finished, False when a signal stopped it; then its checkpoint is saved.

        Raises:
            NonFiniteLoss: the loss is NaN or infinite.
            TooManyBadSamples: see `Data.max_bad_share`.
            LostRank: another rank has died or is stuck.
        """
        training = self.config.Training
        if self.step >= training.steps:
            return True
        if self.rank == 0 and paddle.get_device() == "cpu":
            print(runtime.summary())
        log = RunLog(self.run, self.config, self.step) if self.rank == 0 else None
        batches = training_batches(
            self.stream, self.config, self.tokenizer, self.loss.views, self.place, self.rank, self.ranks
        )
        bar = tqdm(
            total=training.steps, initial=self.step, unit="step", disable=self.rank != 0, file=sys.stdout,
            dynamic_ncols=True, mininterval=1.0,
        )  # fmt: skip
        waiting, counted, since = 0.0, self.step, time.monotonic()
        with bar, self._stopping_on_signals():
            while self.step < training.steps and not self._stop:
                asked = time.monotonic()
                batch = next(batches)
                waiting += time.monotonic() - asked
                self._count(batch)
                rate = learning_rate(self.step, self.config)
                losses = self._train_step(batch, rate)
                self.place += training.global_batch
                bar.set_postfix_str(f"loss {losses['loss']:.3f}, lr {rate:.2e}", refresh=False)
                bar.update()
                last = self.step == training.steps
                if log and (last or self.step % training.log_every == 0):
                    seconds = time.monotonic() - since
                    done = (self.step - counted) * training.global_batch
                    log.write(
                        "train",
                        self.step,
                        losses
                        | {
                            "learning_rate": rate,
                            "logit_scale": float(self.model.logit_scale),
                            "samples_per_second": round(done / seconds, 2),
                            "loader_wait": round(waiting / seconds, 4),
                            "bad_samples": self.bad_samples.counts.total(),
                            "epochs": dict(zip(self.stream.names, self.stream.epochs(self.place), strict=True)),
                        },
                    )
                    waiting, counted, since = 0.0, self.step, time.monotonic()
                if last or self._stop or self.step % training.checkpoint_every == 0:
                    self._save()
                    self._write_reports()
                every = self.config.Evaluation.every
                if self.val and every and (last or self.step % every == 0):
                    paused = time.monotonic()
                    self._evaluate(log, bar)
                    self._write_reports()
                    since += time.monotonic() - paused
        report = self._bad_samples_of_all_ranks()
        if log:
            log.close()
            print(report)
        return self.step >= training.steps

    def _count(self, batch: Batch) -> None:
        try:
            self.bad_samples.add(batch["rows"], batch["bad"])
        except TooManyBadSamples:
            self.bad_samples.write(self.run)  # of this rank: the others do not know that it ends
            raise

    def _train_step(self, batch: Batch, rate: float) -> dict[str, float]:
        """One optimiser step; returns the losses over the global batch."""
        if not batch["names"]:
            raise RuntimeError(f"no sample of step {self.step} could be used; the first: {batch['bad'][0]}")
        self.parallel.train()
        views = {view: batch["text"] if view in TEXT_VIEWS else batch[view] for view in self.loss.views}
        total, pairs = self.objective.forward(views, batch["ids"], batch["places"].numpy(), self.step)
        losses = self._over_ranks({"loss": total, **pairs})
        if not all(map(math.isfinite, losses.values())):
            self._save_evidence(batch, {"loss": float(total), **{pair: float(loss) for pair, loss in pairs.items()}})
        self.objective.backward()
        self.optimizer.set_lr(rate)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.clear_grad()
        self.model.clamp_temperature(self.config.Loss.max_logit_scale)
        self.step += 1
        return losses

    def _over_ranks(self, losses: dict[str, paddle.Tensor]) -> dict[str, float]:
        """Sums over ranks; the wish of any rank to stop travels along, so that all stop at the same step."""
        values = paddle.stack([*losses.values(), paddle.to_tensor(float(self._stop))]).detach()
        if self.ranks > 1:
            collectives.all_reduce(values)
        *sums, stops = values.tolist()
        self._stop = stops > 0
        return dict(zip(losses, sums, strict=True))

    def _bad_samples_of_all_ranks(self) -> BadSampleReport:
        """A collective: every rank must call it."""
        if self.ranks == 1:
            return self.bad_samples
        joined = BadSampleReport()
        for report in collectives.all_gather_object(self.bad_samples.as_dict()):
            joined.merge(report)
        return joined

    def _write_reports(self) -> None:
        """What a person reads while the run goes on: bad samples and curves. A collective, as the ranks join theirs."""
        report = self._bad_samples_of_all_ranks()
        if self.rank == 0:
            report.write(self.run)
            write_run_page(self.run, self.config, report)

    def _save(self) -> None:
        bad_samples = self._bad_samples_of_all_ranks()
        average_statistics(self.model)
        optimizer = optimizer_arrays(self.optimizer, self.model)
        if self.rank == 0:
            training = self.config.Training
            state: dict[str, Any] = {
                "seed": training.seed,
                "ranks": self.ranks,
                "scaler": _plain(self.scaler.state_dict()),
                "bad_samples": bad_samples.as_dict(),
                "data": self.stream.position(self.place),
            }
            save_checkpoint(
                self.run,
                self.step,
                self.model,
                optimizer,
                self.config,
                self.tokenizer.tokens,
                state,
                training.keep_checkpoints,
            )

    def _save_evidence(self, batch: Batch, own: dict[str, float]) -> None:
        """Saves every rank's batch and the weights that gave a non-finite loss, and stops the run. A collective.

        Args:
            own: the losses of this rank's rows.
        """
        folder = self.run / f"nonfinite_step_{self.step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in batch.items()
                  if isinstance(value, paddle.Tensor)}  # fmt: skip
        save_file(arrays, folder / f"batch_rank{self.rank}.safetensors")
        write_text(
            folder / f"batch_rank{self.rank}.json",
            json.dumps({"losses": own, "names": batch["names"]}, ensure_ascii=False, indent=1),
        )
        if self.rank == 0:
            save_file({name: value.numpy() for name, value in self.model.state_dict().items()},
                      folder / "model.safetensors")  # fmt: skip
        # Nobody ends before all have saved: the launcher ends the others then.
        everyone = collectives.all_gather_object(own)
        wrong = [f"rank {rank}: {losses}" for rank, losses in enumerate(everyone)
                 if not all(map(math.isfinite, losses.values()))]  # fmt: skip
        raise NonFiniteLoss(
            f"the loss of step {self.step} is not finite ({'; '.join(wrong)}); batches and weights are in {folder}. "
            "Look at the sample names, then try a lower learning rate or float32"
        )

    def _evaluate(self, log: RunLog | None, bar: tqdm) -> None:
        """Scores the validation set by the command line's evaluator. A collective: the ranks share the encoding."""
        evaluation = self.config.Evaluation
        average_statistics(self.model)
        model = ErnieViL2(self.model, self.tokenizer, self.config, evaluation.batch_size)
        for language, benchmark in self.val.items():
            encoded = encode_benchmark(model, benchmark, rank=self.rank, ranks=self.ranks)
            if log:
                result = score(encoded, protocol(evaluation.protocol), evaluation.block, paddle.get_device()).result
                log.write("evaluation", self.step, {"split": "val", "language": language, **result.as_dict()})
                recalls = {"image to text": result.image_to_text, "text to image": result.text_to_image}
                shown = ", ".join(f"{way} R@1 {values['R@1']:.1f}" for way, values in recalls.items() if values)
                bar.write(
                    f"step {self.step}, val, {language}: {shown}, mean recall {result.mean_recall:.1f}", sys.stdout
                )

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the run after the step in progress, with a checkpoint."""

        def stop(*_):
            self._stop = True

        previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def validation_sets(config: Config) -> dict[str, Benchmark]:
    """What `Evaluation.protocol` scores of `Data.val`, by language; a benchmark's folder is of every language."""
    if not config.Data.val:
        return {}
    scoring = protocol(config.Evaluation.protocol)
    return {
        language: scoring.select(open_benchmark(config.Data.val, language=language, text_id=config.Data.text_id))
        for language in config.Views.languages
    }


def _facts(
    config: Config, stream: SampleStream, val: Mapping[str, Benchmark], checkpoints: Sequence[Path]
) -> dict[str, Any]:
    """What the ranks of a run must have in common."""
    here = environment()
    return {
        **config.model_dump(),
        "training data": dict(zip(stream.names, stream.position(0)["sources"], strict=True)),
        "digest of the first samples": digest(stream),
        "validation data": {language: [len(rows.images), len(rows.texts)] for language, rows in val.items()},
        "newest checkpoint": checkpoints[-1].name if checkpoints else None,
        "git revision": here["git"],
        "versions": here["versions"],
    }


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A loss scaler's state for JSON; arrays become lists, as `GradScaler.load_state_dict` reads the first entry."""
    return {
        key: value.tolist() if isinstance(value, np.ndarray | paddle.Tensor) else value for key, value in state.items()
    }


def _settings(config: Config) -> dict[str, Any]:
    """The configuration as a tree, without where the training data lies: what it is must not change."""
    tree = config.model_dump()
    tree["Data"]["train"] = [source.model_dump(exclude={"data"}) for source in config.Data.sources]
    return tree


def _differences(before: dict, now: dict, prefix: str = "") -> list[str]:
    changed = []
    for key, value in now.items():
        name = prefix + key
        if name in FREE_ON_RESUME or before.get(key) == value:
            continue
        if isinstance(value, dict) and isinstance(before.get(key), dict):
            changed += _differences(before[key], value, f"{name}.")
        else:
            changed.append(name)
    return changed
