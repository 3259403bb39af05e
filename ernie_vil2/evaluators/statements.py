"""Accuracy on the statements of `Data.val`."""

from __future__ import annotations

import paddle.distributed as dist

from ernie_vil2.backends import Eager
from ernie_vil2.config import Config, ConfigError
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.statements import Statements, read_statements, score_statements
from ernie_vil2.evaluators.evaluator import Metrics
from ernie_vil2.io.terminal import counted
from ernie_vil2.models.heads import StatementClassifier
from ernie_vil2.tasks import Task
from ernie_vil2.tasks.statements import StatementTask


class StatementEvaluator:
    """Scores a classifier; the best checkpoint is that of the best accuracy. The ranks share the encoding."""

    best_by = "accuracy"
    benchmarks = ()

    def __init__(self, config: Config, tokenizer: Tokenizer, statements: Statements):
        self.config, self.tokenizer, self.statements = config, tokenizer, statements
        counts = statements.counts
        sizes = f"{counted(counts['statements'], 'statement')}, {counted(counts['images'], 'image')}"
        self.data = {statements.name: sizes}

    def __call__(self, model: StatementClassifier) -> Metrics:
        """As `Evaluator.__call__`: see `StatementScores.values`."""
        engine = Eager(model, Preprocessing.of(self.config.Model.image), self.config.Training.precision)
        encoder = ErnieViL2(engine, self.tokenizer, self.config, self.config.Evaluation.batch_size)
        rank, ranks = dist.get_rank(), dist.get_world_size()
        encoded = encode_benchmark(encoder, self.statements.benchmark, rank=rank, ranks=ranks)
        if rank:
            return Metrics({})
        return Metrics(score_statements(self.statements, encoded, model.label_logits).values)


def build_statements(config: Config, task: Task) -> StatementEvaluator | None:
    """The evaluator of a run with `Data.val`.

    Raises:
        ConfigError: these are statements with other labels than the task's.
    """
    place = config.Data.validation
    if place is None:
        return None
    statements = read_statements(open_sources(place.data, None, place.split, place.images, "val", place.layout))
    if not isinstance(task, StatementTask) or statements.labels != task.labels:
        raise ConfigError(f"Data.val: the labels of {statements.name} are {', '.join(statements.labels)}, which "
                          f"Training.task={config.Training.task} does not predict")  # fmt: skip
    return StatementEvaluator(config, task.tokenizer, statements)
