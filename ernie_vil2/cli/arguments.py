"""Arguments that commands have in common: options, their types, and the model and the data that they name.

A type takes the text of an argument and returns the value; argparse says what it raises on one line. A path that cannot
be used is refused before the work begins, not after it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
from argparse import ArgumentTypeError
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_vil2.data.spec import DataSpec
from ernie_vil2.device.launch import launched_rank

if TYPE_CHECKING:
    from ernie_vil2.data.benchmark import Benchmark
    from ernie_vil2.encoder import ErnieViL2

CALIBRATED = "calibrated"
DOTS = "..."
_PACKAGE = Path(__file__).parents[1]
CONFIGURATIONS = next((path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir()), _PACKAGE)
"""Of an installation, or of a checkout."""


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds `-c FILE` and `-o Section.key=value`."""
    parser.add_argument(
        "-c",
        "--config",
        type=configuration,
        metavar="FILE",
        help="YAML overlay over the defaults of configs/default.yaml; those in configs/ are found from any folder",
    )
    parser.add_argument("-o", "--override", action="append", default=[], metavar="Section.key=value",
                        help="overrides one value; may be repeated")  # fmt: skip


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """The option of every command that uses parts which may be the user's own; `cli.run` does what it says."""
    parser.add_argument("--import", dest="imports", action="append", default=[], type=module, metavar="MODULE",
                        help="import this module of your own first: what it registers can then be named")  # fmt: skip


def add_sources(
    parser: argparse._ActionsContainer,
    name: str = "input",
    metavar: str = "INPUT",
    help: str = "files, patterns, addresses, pipe: commands, folders",
    **how: Any,
) -> None:
    """An argument that takes sources, as `Data.train` does; without it there are none."""
    parser.add_argument(name, nargs="+", type=source, metavar=metavar, help=help, **{"default": [], **how})


def add_pipe_option(parser: argparse.ArgumentParser) -> None:
    """Add the option of every command that opens sources; `cli.run` does what it says."""
    parser.add_argument("--allow-pipes", action="store_true", help="run the commands of pipe: entries; read them first")


def add_field_option(parser: argparse._ActionsContainer, owner: type, name: str, *flags: str, **settings: Any) -> None:
    """Add the option that sets a field of a dataclass; help, placeholder and default are those of the field.

    Args:
        parser: that gets the option, or a group of its options.
        owner: the dataclass.
        name: of the field, and of its value among the arguments.
        flags: that the user writes; none: the name of the field.
        settings: how the option is read, as for `add_argument`; they go before what the field says.
    """
    (field,) = (field for field in dataclasses.fields(owner) if field.name == name)
    default = default_of(field)
    if isinstance(default, bool):
        settings = {"action": "store_true", **settings}
    described = {key: value for key, value in field.metadata.items() if value is not None}
    names = flags or (f"--{name.replace('_', '-')}",)
    parser.add_argument(*names, **{"dest": name, "default": default, **described, **settings})


def default_of(field: dataclasses.Field) -> Any:
    """Return the default of a field as argparse has it: lists, to which options may append."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return list(default) if isinstance(default, tuple | dict) else default


def changed_options(args: argparse.Namespace, owner: type) -> dict[str, Any]:
    """Return the values of options of `add_field_option` that are not the fields' defaults, by field."""
    defaults = {field.name: default_of(field) for field in dataclasses.fields(owner) if field.metadata}
    return {name: vars(args)[name] for name, default in defaults.items() if vars(args)[name] != default}


def add_table_options(parser: argparse.ArgumentParser, **images: Any) -> None:
    """Add the options of every command that opens sources, on tables of the user's own; `images`: as for --images."""
    add_field_option(parser, DataSpec, "images", type=input_folder, **images)
    add_field_option(parser, DataSpec, "columns", type=columns)
    add_field_option(parser, DataSpec, "encoding")


def add_source_options(parser: argparse.ArgumentParser, *what: str, **how: Any) -> None:
    """An argument that takes sources, as of `add_sources`, with the options that say how these are opened."""
    add_sources(parser, *what, **how)
    add_pipe_option(parser)
    add_table_options(parser)


def data_spec(args: argparse.Namespace, paths: Sequence[str] | None = None, **fields: Any) -> DataSpec:
    """Return the data that the options name.

    Args:
        args: values of options that are fields of `DataSpec`.
        paths: of the data; None: those of --data.
        fields: that are not options of the command.
    """
    names = {field.name for field in dataclasses.fields(DataSpec)}
    options = {name: value for name, value in vars(args).items() if name in names}
    return DataSpec(args.data if paths is None else paths, **options | fields)


def table_overrides(args: argparse.Namespace) -> list[str]:
    """Return the options on tables as texts of `-o`."""
    values = {name: vars(args)[name] for name in ("images", "columns", "encoding")}
    return [f"Data.{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value]


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    """The option of every command that loads a model to encode with."""
    parser.add_argument("--backend", choices=("fastest", "paddle", "paddle_inference", "onnx"),
                        default="fastest", help="what computes; default: an export's own library, for a checkpoint on "
                        "CPU a float32 export next to it that ranks alike, else Paddle")  # fmt: skip


def add_precision_option(parser: argparse.ArgumentParser) -> None:
    """The option of every command that encodes."""
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32",
                        help="of the towers, on a GPU that has it; embeddings and scores are float32")  # fmt: skip


def add_encoding_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that encodes a benchmark: how many rows at once, on what, and how precisely."""
    parser.add_argument("--batch-size", type=count, default=128, help="rows encoded at once, up to 128")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu, gpu:0, ...")
    add_precision_option(parser)


def add_width_option(parser: argparse.ArgumentParser) -> None:
    """The option of commands that use embeddings of a model trained with several widths."""
    parser.add_argument("--width", type=count, metavar="NUMBERS", help="of embeddings, one of the model's Loss.widths; "
                        "default: all")  # fmt: skip


def add_model_options(parser: argparse.ArgumentParser, backends: bool = True) -> None:
    """Options that name a model and say how it encodes; `backends`: also by which backend, an export's among them."""
    parser.add_argument(
        "--checkpoint",
        type=model,
        metavar="MODEL",
        help="run folder (its newest checkpoint; RUN@best: that of the best evaluation), checkpoint, official "
        ".pdparams, PaddleNLP folder, export, or a known name",
    )
    if backends:
        add_backend_option(parser)
    parser.add_argument(
        "--vocab", type=input_file, metavar="FILE", help="vocabulary file, where the model does not bring its own"
    )
    add_import_option(parser)
    add_encoding_options(parser)
    parser.add_argument(
        "--processes", type=count, default=1, help="CPU: ranks to start on this machine; GPUs: use fleetrun instead"
    )


def add_data_options(parser: argparse.ArgumentParser, **images: Any) -> None:
    """Add the options that name a benchmark, as docs/benchmarks.md shows them; `images`: as for --images."""
    what = "a benchmark's folder as its authors publish it, or whatever can be trained on"
    add_sources(parser, "--data", "PATH", what)
    add_pipe_option(parser)
    add_field_option(parser, DataSpec, "layout")
    add_field_option(parser, DataSpec, "split")
    add_table_options(parser, **images)
    add_field_option(parser, DataSpec, "text_id")
    add_field_option(parser, DataSpec, "caption_lines")


def configuration(text: str) -> str:
    """A YAML file; where there is none of that name, the one that comes with the package: configs/demo/emoji.yaml."""
    packaged = CONFIGURATIONS / text.removeprefix("configs/")
    return input_file(str(packaged) if packaged.is_file() and not os.path.exists(text) else text)  # noqa: PTH110  -- Path raises where this says no


def input_file(text: str) -> str:
    """An existing file, device or pipe."""
    if os.path.isdir(text):  # noqa: PTH112  -- Path raises where this says no
        raise ArgumentTypeError(f"{text} is a folder; name a file")
    return input_path(text)


def input_folder(text: str) -> str:
    """An existing folder."""
    if not os.path.isdir(input_path(text)):  # noqa: PTH112  -- Path raises where this says no
        raise ArgumentTypeError(f"{text} is not a folder")
    return text


def input_path(text: str) -> str:
    """An existing file or folder."""
    try:
        Path(text).stat()
    except OSError as error:
        raise ArgumentTypeError(f"{text}: {error.strerror}") from None
    return text


def source(text: str) -> str:
    """What `Data.train` takes: a file, a folder, a pattern, an address or a `pipe:` command."""
    return input_path(text) if os.path.lexists(text) else text


def model(text: str) -> str:
    """A file or folder of weights, or the name of a published model."""
    return input_path(text) if os.path.lexists(text) else text


def run_folder(text: str) -> str:
    """The folder of a run; RUN@best or RUN@newest name one of its checkpoints."""
    if os.path.exists(text) and not os.path.isdir(text):  # noqa: PTH110, PTH112  -- Path raises where this says no
        raise ArgumentTypeError(f"{text} is not a folder")
    return model(text)


def named_file(text: str) -> tuple[str, str]:
    """Name and file of NAME=FILE."""
    name, equals, path = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text}: write LANG=FILE, for example zh=words.txt")
    return name, input_file(path)


def named_list(text: str) -> tuple[str, str]:
    """Name and file of NAME=FILE, or of NAME=FILE@LIST, a list in a JSON file."""
    name, equals, file = text.partition("=")
    if not equals or os.path.exists(file):  # noqa: PTH110  -- Path raises where this says no
        return named_file(text)
    path, mark, _ = file.rpartition("@")
    named_file(f"{name}={path if mark else file}")
    return name, file


def columns(text: str) -> dict[str, str]:
    """Columns of a table by their names here, of NAME=COLUMN,NAME=COLUMN."""
    named = dict(part.strip().split("=", 1) for part in text.split(",") if "=" in part)
    if len(named) < len(text.split(",")) or not all(name and column for name, column in named.items()):
        raise ArgumentTypeError(f"{text}: write NAME=COLUMN,..., for example image=图片,caption_zh=标题")
    return named


def option(text: str) -> tuple[str, Any]:
    """Name and value of NAME=VALUE, the value as YAML."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ArgumentTypeError(f"{text}: write NAME=VALUE")
    from ernie_vil2.config.load import parse_yaml
    from ernie_vil2.io.terminal import ConfigError

    try:
        return name, parse_yaml(value, text)
    except ConfigError as error:
        raise ArgumentTypeError(str(error)) from None


def optional_file(text: str) -> tuple[str, str | None]:
    """Name and file of NAME=FILE, or a name alone."""
    return named_file(text) if "=" in text else (text, None)


def output_file(text: str) -> str:
    """A file that can be written: new, there already, a link, or a device."""
    if os.path.isdir(text):  # noqa: PTH112  -- Path raises where this says no
        raise ArgumentTypeError(f"{text} is a folder; name a file")
    target = Path(os.path.realpath(text))
    if target.is_symlink():
        raise ArgumentTypeError(f"{text} is a link that leads back to itself")
    folder = target.parent
    if not folder.is_dir():
        raise ArgumentTypeError(f"{text}: there is no folder {folder}")
    special = target.exists() and not target.is_file()
    if not os.access(text if special else folder, os.W_OK):
        raise ArgumentTypeError(f"{text} cannot be written; name another file")
    return text


def output_folder(text: str) -> Path:
    """A folder that can be written into or made, with all that are missing above it."""
    there = Path(os.path.abspath(text))  # noqa: PTH100  -- resolve() would follow links
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise ArgumentTypeError(f"{text}: {there} is not a folder")
    if not os.access(there, os.W_OK):
        raise ArgumentTypeError(f"{text} cannot be written; name another folder")
    return Path(text)


def output_path(text: str) -> str:
    """A file or a folder that can be written, where another argument decides which of both it is."""
    if os.path.isdir(text) or not os.path.lexists(text):  # noqa: PTH112  -- Path raises where this says no
        output_folder(text)
    else:
        output_file(text)
    return text


def file_name(text: str) -> str:
    """What a file can be called, without its suffix."""
    if text in ("", ".", "..") or "/" in text or len(os.fsencode(text)) > 200:
        raise ArgumentTypeError(f"{text!r} is not a name for a file")
    return text


def count(text: str) -> int:
    """A whole number from 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number from 0."""
    return _whole(text, 0)


def port(text: str) -> int:
    """A number of a TCP port; 0 is any that is free."""
    if natural(text) > 65535:
        raise ArgumentTypeError(f"{text} is not a port; they end at 65535")
    return int(text)


def number(text: str) -> float:
    """A finite number."""
    if not math.isfinite(float(text)):
        raise ArgumentTypeError(f"{text} is not a number")
    return float(text)


def threshold(text: str) -> float | str:
    """A cosine, or `CALIBRATED`."""
    return text if text == CALIBRATED else number(text)


def share(text: str) -> float | str:
    """A share from 0 to 1, or the dots in a row of them."""
    if text != DOTS and not 0 <= number(text) <= 1:
        raise ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return text if text == DOTS else float(text)


def module(text: str) -> str:
    """The name of a Python module."""
    if not all(part.isidentifier() for part in text.split(".")):
        raise ArgumentTypeError(f"{text!r} is not the name of a module; write package.module, as Python "
                                         "finds it in its path")  # fmt: skip
    return text


def fraction(text: str) -> float:
    """A share above 0, up to 1."""
    if not 0 < number(text) <= 1:
        raise ArgumentTypeError(f"{text} is not a share above 0 and up to 1")
    return float(text)


def amount(text: str) -> float:
    """A number above 0."""
    if number(text) <= 0:
        raise ArgumentTypeError(f"{text} is not a number above 0")
    return float(text)


def named_model(args: argparse.Namespace, labels: bool = False) -> tuple[ErnieViL2, Path]:
    """The model that the options name, and its weight file.

    `args.checkpoint` becomes the checkpoint that was taken where it names a run. With `labels` it labels statements.
    """
    from ernie_vil2.encoder import describe_backend, load_model
    from ernie_vil2.evaluation.scorers.entailment import load_classifier
    from ernie_vil2.io.run_folder import run_of
    from ernie_vil2.models.weights.format import find_weights

    weights = find_weights(args.checkpoint)
    options = {"batch_size": args.batch_size, "precision": args.precision}
    if labels:
        model = load_classifier(weights, args.vocab, args.device, **options)
    else:
        model = load_model(weights, args.vocab, args.device, **options, backend=args.backend)
        if launched_rank()[0] == 0:
            print(f"backend: {describe_backend(model.backend)}")
    if run_of(weights.parent):
        args.checkpoint = weights.parent
    return model, weights


def calibrated(model: ErnieViL2, name: str, direction: str, quiet: bool = False) -> float:
    """The least cosine of an answer by the model's calibration, which `CALIBRATED` names.

    Precision and recall that it had on its validation set are printed, unless quiet.
    """
    if model.calibration is None:
        raise ValueError(f"{name} has no calibration: run ernie-vil2 calibrate, or give a number")
    if not quiet:
        print(model.calibration.described(direction))
    return model.calibration.thresholds[direction].cosine


def open_data(
    args: argparse.Namespace, languages: Sequence[str] | None = None, preferred_languages: Collection[str] = ()
) -> dict[str, Benchmark]:
    """Open the benchmarks that the options name, by language; see `open_benchmarks`."""
    from ernie_vil2.data.readers import open_benchmarks

    benchmarks = open_benchmarks(data_spec(args, languages=languages, preferred_languages=preferred_languages))
    name_equal_captions(benchmarks)
    return benchmarks


def name_equal_captions(benchmarks: Iterable[str]) -> None:
    """Prints which languages are one benchmark, as their captions are the same."""
    if launched_rank()[0] != 0:
        return
    for languages in benchmarks:
        if ", " in languages:
            print(f"{languages}: the captions are the same, as they name no language; they are taken once")


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or not least <= int(text[:10]) < 10**9:
        raise ArgumentTypeError(f"{text} is not a whole number from {least} to 999999999")
    return int(text)
