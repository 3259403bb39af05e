"""Before and after: `Data.test` scored with the weights that training began with, and with those that it found best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddle import nn

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.encoder import ErnieViL2, load_model
from ernie_vil2.evaluation import run
from ernie_vil2.evaluation.report import write_report
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from ernie_vil2.io.run_folder import AFTER, BEFORE, RESULTS, checkpoint_folder
from ernie_vil2.tasks import Task
from ernie_vil2.training.scoring import encoder_of


class Comparison:
    """Scores `Data.test` by its protocol. The results lie in the run's folder of results, where reports look.

    Args:
        config: of a run with `Data.test`.
        task: what it trains.

    Raises:
        ConfigError: the task is not scored by retrieval.
        ValueError: there is no such protocol, or nothing can be read of the data.
        FileNotFoundError: there is nothing there.
    """

    def __init__(self, config: Config, task: Task):
        if not task.embeds:
            raise ConfigError(
                f"Data.test is scored by retrieval, which Training.task={config.Training.task} is not; leave it out"
            )
        self._config, self._tokenizer, self._run = config, task.tokenizer, Path(config.Training.output)
        tested = config.Data.tested
        self._scorer, data = Retrieval.of_run(config, tested, "test")
        assert tested is not None and data is not None  # of a run with Data.test
        self._data = tested.data
        self.sets = self._scorer.open(data)

    @property
    def benchmarks(self) -> list[Benchmark]:
        """What is scored."""
        return list(self.sets.values())

    def before(self, model: nn.Layer) -> str:
        """Scores a dual encoder as training begins with it; a line for people for each language."""
        encoder = encoder_of(model, self._tokenizer, self._config)
        return self._score(BEFORE, encoder, self._config.Model.weights or "initial weights")

    @property
    def lacks_after(self) -> bool:
        """Whether the result at the end is not there yet."""
        return not (self._run / RESULTS / f"{AFTER}.json").is_file()

    def after(self, step: int) -> str:
        """Likewise the checkpoint of a step."""
        folder = checkpoint_folder(self._run, step)
        model = load_model(
            folder, batch_size=self._config.Evaluation.batch_size, precision=self._config.Training.precision
        )
        return self._score(AFTER, model, str(folder))

    def _score(self, name: str, model: ErnieViL2, source: str) -> str:
        if isinstance(self._scorer, Retrieval):
            self._scorer.label = name
        opened = self.sets if len(self.sets) > 1 else dict.fromkeys([""], *self.sets.values())
        report = run.score(self._scorer, model, opened)
        write_report(report, self._run / RESULTS, name, run.about(source, self._data, {}, None))
        return "\n".join(f"{label}: {_line(one['result'])}" for label, one in report.record["results"].items())


def _line(result: Mapping[str, Any]) -> str:
    figures = {f"{way.replace('_', ' ')} R@1": recalls.get("R@1") for way, recalls in result.items() if "_to_" in way}
    figures |= {"mean recall": result["mR"], **result.get("measures", {})}
    return ", ".join(f"{name} {value:.1f}" for name, value in figures.items() if value is not None)
