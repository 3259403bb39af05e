"""`load_model`: a model with its tokenizer and preprocessing, from wherever its weights are found."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Literal

import paddle

from ernie_vil2.backends import Eager
from ernie_vil2.config import Config, load_config
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.device import runtime
from ernie_vil2.device.extras import MissingPackage
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.io.calibration import read_calibration
from ernie_vil2.io.export_folder import ABOUT, AGAIN, CONFIG, PARITY, VOCABULARY, BadExport, is_export, read_export
from ernie_vil2.io.files import load_json
from ernie_vil2.models import set_weights
from ernie_vil2.models.heads import build_classifier
from ernie_vil2.models.precision import check_precision
from ernie_vil2.models.weights.stored import StoredModel, read_model, weights_path
from ernie_vil2.tasks import TASKS
from ernie_vil2.tasks.statements import StatementTask


def load_model(
    source: str | os.PathLike,
    vocab: str | os.PathLike | None = None,
    device: str | None = None,
    heads: tuple[int, int] | None = None,
    max_length: int | None = None,
    batch_size: int = 64,
    allow: Sequence[str] = (),
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    engine: Literal["auto", "fastest", "paddle", "paddle_inference", "onnx"] = "auto",
) -> ErnieViL2:
    """A model with the tokenizer and the preprocessing that it was trained with, and its calibration if it has one.

    Args:
        source: one of

            - an official weight file, `.pdparams`; the sizes of the towers follow from its shapes,
            - a folder that PaddleNLP's `save_pretrained` wrote, with model, tokenizer and image processor,
            - a run folder of this package, which is its newest checkpoint, as `RUN@newest` is; `RUN@best` is the one
              of the best evaluation; or a checkpoint, or a converted folder,
            - a folder that `tools/export.py` wrote: its graphs are run as they are, so that `vocab`, `heads`,
              `max_length` and `allow` do not apply, nor a reduced `precision` unless it is the export's,
            - a known name, see `hub.MODELS`: from the local cache, else downloaded into it.
        vocab: vocabulary file. None: `vocab.txt` in the folder or beside the file, else what the run's configuration
            names, else the packaged ERNIE 3.0 vocabulary if it has the size of the weights.
        device: auto, cpu, gpu, gpu:0, ... (or cuda), which becomes Paddle's device; auto: GPU where Paddle has one;
            None: Paddle's current device.
        heads: attention heads of the image and of the text tower. None: what the folder says; width / 64 for an
            official file, which does not say.
        max_length: tokens of a text with [CLS] and [SEP]; longer ones are cut. None: as in the run's configuration;
            48 for an official file; for a PaddleNLP folder what its tokenizer or else its positions allow.
        batch_size: rows encoded at once unless a call says otherwise.
        allow: glob patterns of the weights that may be missing, unexpected or of another shape.
        precision: in which the towers compute; embeddings are float32. Paddle reduces it on GPUs only.
        engine: what computes: `paddle` for a checkpoint, `paddle_inference` or `onnx` for an exported folder, whose
            own it must be; auto: told from `source`; fastest: for a checkpoint on CPU that has a float32 export in a
            folder beside its weights, which ranks alike, that export, else as auto.

    Raises:
        FileNotFoundError: there is nothing at `source`, or a known model cannot be downloaded.
        ValueError: weights, vocabulary and configuration do not fit each other, or are of no kind known here; or there
            is no such device, or it lacks the precision; or the calibration beside the weights is damaged.
        BadExport: an exported folder is damaged or for another engine.
        MissingPackage: its library is not installed.
    """
    folder = Path(source).parent if Path(source).name == ABOUT else Path(source)
    if is_export(folder):
        made = _load_export(folder, device, batch_size, engine)
        if precision not in ("float32", made.precision):
            raise BadExport(f"{source} is an export in {made.precision}; export the checkpoint again for {precision}")
        return _calibrated(made, folder)
    if engine not in ("auto", "fastest", "paddle"):
        raise ValueError(f"{source} is no export for {engine}: make one, tools/export.py {source} FOLDER --to "
                         f"{engine.replace('_', '-')}")  # fmt: skip
    runtime.set_device(device or paddle.get_device())
    check_precision(precision, "precision")
    stored = read_model(source, vocab, heads)
    config = stored.config
    if max_length is not None:
        if not 3 <= max_length <= config.Model.text.max_positions:
            raise ValueError(f"max_length is {max_length}; this model takes 3 to {config.Model.text.max_positions}")
        config = config.model_copy(update={"Data": config.Data.model_copy(update={"max_length": max_length})})
    tokenizer = _tokenizer(source, stored, config)
    try:
        model, _ = stored.build(allow)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    model.eval()
    made = ErnieViL2(Eager(model, Preprocessing.of(config.Model.image), precision), tokenizer, config, batch_size)
    beside = weights_path(source).parent
    if engine == "fastest" and precision == "float32" and made.device == "cpu":
        made = _export_beside(beside, made) or made
    return _calibrated(made, beside)


def _export_beside(folder: Path, model: ErnieViL2) -> ErnieViL2 | None:
    """An export of a model beside its weights that ranks alike: same fingerprint, same order on real inputs."""
    found = sorted(about.parent for about in folder.glob(f"*/{ABOUT}"))
    for engine, export in product(("onnx", "paddle_inference"), found):  # the faster first
        try:
            made = _load_export(export, model.device, model.batch_size, engine)
            alike = load_json(export / PARITY)["top_10"]["same_order"] == 1
        except (MissingPackage, OSError, ValueError, KeyError, TypeError):  # not to be run here, or not compared
            continue
        if alike and made.fingerprint == model.fingerprint:
            return made
    return None


def _calibrated(model: ErnieViL2, folder: Path) -> ErnieViL2:
    model.calibration = read_calibration(folder, lambda: model.fingerprint)
    return model


def load_classifier(
    source: str | os.PathLike,
    vocab: str | os.PathLike | None = None,
    device: str | None = None,
    batch_size: int = 64,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
) -> ErnieViL2:
    """A model trained to label statements, with its `labels` in the order of what `engine.model.label_logits` gives.

    Args:
        source: the run, or a checkpoint of it; these and the others as for `load_model`.

    Raises:
        FileNotFoundError: as for `load_model`.
        ValueError: as for `load_model`, or the model was trained for something else.
    """
    runtime.set_device(device or paddle.get_device())
    check_precision(precision, "precision")
    stored = read_model(source, vocab)
    config = stored.config
    task = TASKS.get(config.Training.task)
    if not (isinstance(task, type) and issubclass(task, StatementTask)):
        raise ValueError(f"{source} labels no statements: it was trained on Training.task {config.Training.task}")
    model = build_classifier(config.Model, config.Head, stored.vocab_size, task.images, len(task.labels))
    try:
        set_weights(model, stored.arrays)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    model.eval()
    engine = Eager(model, Preprocessing.of(config.Model.image), precision)
    made = ErnieViL2(engine, _tokenizer(source, stored, config), config, batch_size)
    made.labels = task.labels
    return made


def _tokenizer(source: str | os.PathLike, stored: StoredModel, config: Config) -> Tokenizer:
    if stored.tokens is None:
        raise ValueError(f"{source}: no vocab.txt beside it; give the model's vocabulary file as vocab=...")
    return Tokenizer(stored.tokens, config.Data.max_length, config.Model.text.tokenizer)


def _load_export(folder: Path, device: str | None, batch_size: int, engine: str) -> ErnieViL2:
    from ernie_vil2.backends.exported import Exported

    about = read_export(folder)
    if engine not in ("auto", "fastest", about["engine"]):
        raise BadExport(f"{folder} is an export for {about['engine']}, not for {engine}")
    runtime.set_device(device or paddle.get_device())
    config = load_config(folder / CONFIG)
    longest, rules = config.Data.max_length, config.Model.text.tokenizer
    configured = {
        "preprocessing": dataclasses.asdict(Preprocessing.of(config.Model.image)),
        "tokenizer": {"max_length": longest, "rules": rules},
    }
    for section, values in configured.items():
        for key, value in values.items():
            said = about[section][key]
            if said != (list(value) if isinstance(value, tuple) else value):
                raise BadExport(f"{folder}: {section}.{key} is {said} in {ABOUT} and {value} in {CONFIG}: it is "
                                f"damaged; {AGAIN}")  # fmt: skip
    tokenizer = Tokenizer(folder / VOCABULARY, longest, rules)
    return ErnieViL2(Exported(folder, about, paddle.get_device()), tokenizer, config, batch_size)
