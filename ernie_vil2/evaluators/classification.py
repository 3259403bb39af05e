"""Zero-shot classification of the pictures that `Evaluation.classes` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import paddle.distributed as dist
from paddle import nn

from ernie_vil2.backends import Eager
from ernie_vil2.config import Config, ConfigError
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.data.readers.labelled import open_labelled
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.classification import encoded_classes, several_classes, with_prompts
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.prompts import choose_templates
from ernie_vil2.evaluators.evaluator import Metrics
from ernie_vil2.io.terminal import counted
from ernie_vil2.tasks import Task


class Classification:
    """Scores a dual encoder on classes; the best checkpoint is that of the best acc1, the mean over languages.

    Where pictures have several classes it is that of the best mAP. The ranks share the encoding.
    """

    benchmarks = ()

    def __init__(
        self, config: Config, tokenizer: Tokenizer, labelled: Benchmark, templates: Mapping[str, Sequence[str]]
    ):
        self.config, self.tokenizer, self.labelled, self.templates = config, tokenizer, labelled, templates
        self.best_by = "mAP" if several_classes(labelled) else "acc1"
        sizes = f"{counted(len(labelled.images), 'picture')}, {counted(len(labelled.texts), 'class', 'classes')}"
        self.data = {labelled.name: f"{sizes}, named in {' and '.join(templates)}"}

    def __call__(self, model: nn.Layer) -> Metrics:
        """As `Evaluator.__call__`: figures of `ClassScores` by language, `zh/acc1`, and the mean, `acc1` or `mAP`."""
        engine = Eager(model, Preprocessing.of(self.config.Model.image), self.config.Training.precision)
        encoder = ErnieViL2(engine, self.tokenizer, self.config, self.config.Evaluation.batch_size)
        prompts = with_prompts(self.labelled, self.templates)
        encoded = encode_benchmark(encoder, prompts, rank=dist.get_rank(), ranks=dist.get_world_size())
        if dist.get_rank():
            return Metrics({})
        found = encoded_classes(self.labelled, self.templates, encoded).zero_shot(encoder.logit_scale)
        values = {f"{language}/{name}": value for language, one in found.items() for name, value in one.figures.items()}
        values[self.best_by] = fmean(values[f"{language}/{self.best_by}"] for language in found)
        return Metrics(values, [name for name in values if name.rpartition("/")[2] == self.best_by])


def build_classification(config: Config, task: Task) -> Classification:
    """The evaluator of a run with `Evaluation.classes`.

    Raises:
        ConfigError: it has none.
        OSError, ValueError: see `open_labelled` and `choose_templates`.
    """
    classes = config.Evaluation.classes
    if classes is None:
        raise ConfigError("Evaluation.evaluators: classification scores Evaluation.classes, which names no pictures")
    labelled = open_labelled(
        classes.data, classes.names, label=classes.label, split=classes.split, images=classes.images, default="val"
    )
    return Classification(config, task.tokenizer, labelled, choose_templates(labelled, classes.templates))
