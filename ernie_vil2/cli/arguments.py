"""Options that several commands have, types of arguments, and the model and data that options name.

A type is a function that takes the text of an argument and returns its value, or raises ArgumentTypeError, which
argparse reports on one line. Types are named by nouns, as argparse shows these names in messages. A path that cannot be
used is refused here, before the work begins.
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
from typing import TYPE_CHECKING, Any, TypeVar

from ernie_vil2.data.spec import DataSpec
from ernie_vil2.device.launch import launched_rank
from ernie_vil2.io.model_address import is_address

if TYPE_CHECKING:
    from ernie_vil2.data.benchmark import Benchmark
    from ernie_vil2.encoder import Encoder, ErnieViL2

T = TypeVar("T")
CALIBRATED = "calibrated"  # value of --threshold: the threshold of the model's calibration
ELLIPSIS = "..."  # stands for the shares between two others, as in --alpha 0 0.1 ... 1


def _find_configurations() -> Path:
    """Return the folder `configs` of an installation, or else that of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


CONFIGURATIONS = _find_configurations()


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add `-c FILE` and `-o Section.key=value`."""
    parser.add_argument("-c", "--config", type=configuration, metavar="FILE",
                        help="YAML file whose settings replace those of configs/default.yaml, and of the file that it "
                        "names as base; files in configs/ are found from any folder")  # fmt: skip
    parser.add_argument("-o", "--override", action="append", default=[], metavar="Section.key=value",
                        help="replace one setting; may be repeated")  # fmt: skip


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that imports modules with user-defined components; `cli.run` imports them."""
    parser.add_argument("--import", dest="imports", action="append", default=[], type=module, metavar="MODULE",
                        help="import this module of your own first; what it registers can then be named")  # fmt: skip


def add_source_argument(
    parser: argparse._ActionsContainer,
    name: str = "input",
    metavar: str = "INPUT",
    help: str = "files, patterns, addresses, pipe: commands, folders",
    **settings: Any,
) -> None:
    """Add an argument that takes sources, as `Data.train` does, and may be repeated; its default is an empty list."""
    settings = {"default": [], **settings}
    parser.add_argument(name, action="extend", nargs="+", type=source, metavar=metavar, help=help, **settings)


def add_allow_pipes_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --allow-pipes, which permits `pipe:` entries; `cli.run` passes the permission on."""
    parser.add_argument("--allow-pipes", action="store_true",
                        help="run the commands of pipe: entries; read these commands first")  # fmt: skip


class ExtendList(argparse.Action):
    """Collect the values of an option that is given several times, instead of its default.

    argparse's own "extend" would add them to the default.
    """

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Add the values of one occurrence."""
        earlier_values = getattr(namespace, self.dest)
        if earlier_values is self.default:
            earlier_values = []
        setattr(namespace, self.dest, [*earlier_values, *values])


def add_field_option(
    parser: argparse._ActionsContainer, dataclass: type, name: str, *flags: str, **settings: Any
) -> None:
    """Add the option that sets a field of a dataclass, with the help, placeholder and default of the field.

    Args:
        parser: parser, or group of its options.
        dataclass: class that has the field.
        name: name of the field, and of its value among the arguments.
        flags: option strings; none: derived from the name of the field.
        settings: arguments of `add_argument`, which replace those of the field.
    """
    field = next(field for field in dataclasses.fields(dataclass) if field.name == name)
    default = get_default(field)
    # A boolean field becomes a flag.
    if isinstance(default, bool):
        settings = {"action": "store_true", **settings}
    if settings.get("nargs") in ("+", "*"):
        settings = {"action": ExtendList, **settings}
    description = {key: value for key, value in field.metadata.items() if value is not None}
    flags = flags or (f"--{name.replace('_', '-')}",)
    parser.add_argument(*flags, **{"dest": name, "default": default, **description, **settings})


def get_default(field: dataclasses.Field) -> Any:
    """Return the default of a field for argparse: a tuple or mapping becomes a list, to which options can append."""
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if isinstance(default, tuple | dict):
        return list(default)
    return default


def find_changed_options(args: argparse.Namespace, dataclass: type) -> dict[str, Any]:
    """Return the values of options of `add_field_option` that differ from the defaults of their fields, by field."""
    changed = {}
    for field in dataclasses.fields(dataclass):
        if not field.metadata:
            continue  # not an option
        value = vars(args)[field.name]
        if value != get_default(field):
            changed[field.name] = value
    return changed


def add_table_options(parser: argparse.ArgumentParser, **image_settings: Any) -> None:
    """Add the options on a user's tables; `image_settings` are arguments of `add_argument` for --images."""
    add_field_option(parser, DataSpec, "images", type=input_folder, **image_settings)
    add_field_option(parser, DataSpec, "columns", type=columns)
    add_field_option(parser, DataSpec, "encoding")


def add_source_options(parser: argparse.ArgumentParser, *names: str, **settings: Any) -> None:
    """Add an argument that takes sources, see `add_source_argument`, and the options that say how they are opened."""
    add_source_argument(parser, *names, **settings)
    add_allow_pipes_option(parser)
    add_table_options(parser)


def make_data_spec(args: argparse.Namespace, paths: Sequence[str] | None = None, **fields: Any) -> DataSpec:
    """Return the spec of the data that the options name.

    Args:
        args: values of the options; those whose names are fields of `DataSpec` are used.
        paths: paths of the data; None: those of --data.
        fields: further fields of the spec; they take precedence over options.
    """
    names = {field.name for field in dataclasses.fields(DataSpec)}
    options = {name: value for name, value in vars(args).items() if name in names}
    if paths is None:
        paths = args.data
    return DataSpec(paths, **options | fields)


def make_table_overrides(args: argparse.Namespace) -> list[str]:
    """Return the options on tables as overrides of the configuration, as `-o` takes them."""
    overrides = []
    for name in ("images", "columns", "encoding"):
        value = vars(args)[name]
        if value:
            overrides.append(f"Data.{name}={json.dumps(value, ensure_ascii=False)}")
    return overrides


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses what computes the embeddings."""
    parser.add_argument("--backend", choices=("fastest", "paddle", "paddle_inference", "onnx"), default="fastest",
                        help="library that computes the embeddings. fastest (default): for an export its own; for a "
                        "checkpoint on a CPU that of a float32 export next to it with the same rankings; otherwise "
                        "Paddle")  # fmt: skip


def add_precision_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that sets the precision of the towers."""
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32",
                        help="precision of the towers; 16 bits need a GPU that supports them; embeddings and scores "
                        "stay float32")  # fmt: skip


def add_encoding_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a benchmark is encoded: batch size, device and precision."""
    parser.add_argument("--batch-size", type=count, default=128, help="rows encoded at once (default 128)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, gpu, gpu:0, ...")
    add_precision_option(parser)


def add_width_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that shortens the embeddings of a model trained with several widths."""
    parser.add_argument("--width", type=count, metavar="NUMBERS",
                        help="use the first NUMBERS of each embedding, one of the widths of the model's Loss.widths; "
                        "default: all")  # fmt: skip


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a model and say how it encodes."""
    parser.add_argument("--checkpoint", type=model, metavar="MODEL",
                        help="run folder (its newest checkpoint; RUN@best: that of the best evaluation), checkpoint, "
                        "official .pdparams, PaddleNLP folder, export, or name of a released model")  # fmt: skip
    add_backend_option(parser)
    parser.add_argument("--vocab", type=input_file, metavar="FILE",
                        help="vocabulary file, if the model does not include one")  # fmt: skip
    add_import_option(parser)
    add_encoding_options(parser)
    parser.add_argument("--processes", type=count, default=1,
                        help="number of CPU ranks to start on this machine; for GPUs use fleetrun instead")  # fmt: skip


def add_data_options(parser: argparse.ArgumentParser, **image_settings: Any) -> None:
    """Add the options that name a benchmark (docs/benchmarks.md); `image_settings`: see `add_table_options`."""
    description = "folder of a benchmark as its authors publish it, or any data that can be trained on"
    add_source_argument(parser, "--data", "PATH", description)
    add_allow_pipes_option(parser)
    add_field_option(parser, DataSpec, "layout")
    add_field_option(parser, DataSpec, "split")
    add_table_options(parser, **image_settings)
    add_field_option(parser, DataSpec, "text_id")
    add_field_option(parser, DataSpec, "caption_lines")


# In the types, functions of os.path instead of pathlib: for names that no file can have, such as one of 10,000
# characters, Path raises where os.path returns False.


def configuration(text: str) -> str:
    """Return a YAML file; a missing one is looked up among those of the package, such as configs/demo/emoji.yaml."""
    packaged = CONFIGURATIONS / text.removeprefix("configs/")
    if packaged.is_file() and not os.path.exists(text):  # noqa: PTH110
        return input_file(str(packaged))
    return input_file(text)


def input_file(text: str) -> str:
    """Return the path of an existing file, device or pipe."""
    if os.path.isdir(text):  # noqa: PTH112
        raise ArgumentTypeError(f"{text} is a folder; name a file")
    return input_path(text)


def input_folder(text: str) -> str:
    """Return the path of an existing folder."""
    if not os.path.isdir(input_path(text)):  # noqa: PTH112
        raise ArgumentTypeError(f"{text} is not a folder")
    return text


def input_path(text: str) -> str:
    """Return the path of an existing file or folder."""
    _refuse_empty(text)
    try:
        Path(text).stat()
    except OSError as error:
        raise ArgumentTypeError(f"{text}: {error.strerror}") from None
    return text


def _refuse_empty(text: str) -> None:
    """Raise ArgumentTypeError for an empty path, which would stand for the current folder or for an absent option."""
    if not text:
        raise ArgumentTypeError("is empty; write a path, or leave it out")


def source(text: str) -> str:
    """Return an entry of `Data.train`: a file, a folder, a pattern, an address or a `pipe:` command."""
    _refuse_empty(text)
    if os.path.lexists(text):
        return input_path(text)  # a link that leads nowhere is refused
    return text


def model(text: str) -> str:
    """Return a file or folder of weights, or the name of a released model."""
    return source(text)


def run_folder(text: str) -> str:
    """Return the folder of a run; RUN@best and RUN@newest name one of its checkpoints."""
    if os.path.exists(text) and not os.path.isdir(text):  # noqa: PTH110, PTH112
        raise ArgumentTypeError(f"{text} is not a folder")
    return model(text)


def named_file(text: str) -> tuple[str, str]:
    """Return name and file of NAME=FILE."""
    name, equals, path = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text}: write LANG=FILE, for example zh=words.txt")
    return name, input_file(path)


def named_list(text: str) -> tuple[str, str]:
    """Return name and file of NAME=FILE, or of NAME=FILE@LIST, which names a list in a JSON file."""
    name, equals, file = text.partition("=")
    if not equals or os.path.exists(file):  # noqa: PTH110
        return named_file(text)
    # FILE itself may contain an @: the list follows the last one.
    path, mark, _ = file.rpartition("@")
    named_file(f"{name}={path if mark else file}")  # raises if it is missing
    return name, file


def columns(text: str) -> dict[str, str]:
    """Return the columns of a table by our names for them, from NAME=COLUMN,NAME=COLUMN."""
    entries = [entry.strip().partition("=") for entry in text.split(",")]
    columns_by_name = {name: column for name, _, column in entries}
    has_duplicates = len(columns_by_name) < len(entries)
    if has_duplicates or not all(name and column for name, column in columns_by_name.items()):
        raise ArgumentTypeError(f"{text}: write NAME=COLUMN,..., for example image=图片,caption_zh=标题")
    return columns_by_name


def option(text: str) -> tuple[str, Any]:
    """Return name and value of NAME=VALUE; the value is parsed as YAML."""
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
    """Return name and file of NAME=FILE, or a name and None."""
    if "=" in text or not text:
        return named_file(text)
    return text, None


def map_files_by_language(option: str, files: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Return the values of an option LANG=FILE by language; ValueError if a language has several files."""
    by_language: dict[str, T] = {}
    for language, file in files:
        if language in by_language:
            raise ValueError(f"{option}: {language} has several files; put their lines into one")
        by_language[language] = file
    return by_language


def output_file(text: str) -> str:
    """Return the path of a file that can be written: a new or existing file, a link, or a device."""
    _refuse_empty(text)
    if os.path.isdir(text):  # noqa: PTH112
        raise ArgumentTypeError(f"{text} is a folder; name a file")
    target = Path(os.path.realpath(text))
    if target.is_symlink():
        raise ArgumentTypeError(f"{text} is a link that leads back to itself")
    folder = target.parent
    if not folder.is_dir():
        raise ArgumentTypeError(f"{text}: there is no folder {folder}")
    # A regular file is replaced by a new one in its folder; a device or pipe is itself written to.
    is_device = target.exists() and not target.is_file()
    written_path = text if is_device else folder
    if not os.access(written_path, os.W_OK):
        raise ArgumentTypeError(f"{text} cannot be written; name another file")
    return text


def output_folder(text: str) -> Path:
    """Return a folder that can be written to, or created with all missing folders above it."""
    _refuse_empty(text)
    # The nearest folder that exists is where the others will be created.
    existing = Path(os.path.abspath(text))  # noqa: PTH100  -- resolve() would follow links
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise ArgumentTypeError(f"{text}: {existing} is not a folder")
    if not os.access(existing, os.W_OK):
        raise ArgumentTypeError(f"{text} cannot be written; name another folder")
    return Path(text)


def output_path(text: str) -> str:
    """Return a file or folder that can be written, where another argument decides which of the two it is."""
    if os.path.isdir(text) or not os.path.lexists(text):  # noqa: PTH112
        output_folder(text)
    else:
        output_file(text)
    return text


def file_name(text: str) -> str:
    """Return the name of a file without its suffix."""
    # File systems allow 255 bytes; suffixes follow.
    if text in ("", ".", "..") or "/" in text or len(os.fsencode(text)) > 200:
        raise ArgumentTypeError(f"{text!r} is not a name for a file")
    return text


def count(text: str) -> int:
    """Return a whole number from 1."""
    return _parse_whole_number(text, 1)


def whole_number(text: str) -> int:
    """Return a whole number from 0."""
    return _parse_whole_number(text, 0)


def port(text: str) -> int:
    """Return the number of a TCP port; 0 stands for any free port."""
    if whole_number(text) > 65535:
        raise ArgumentTypeError(f"{text} is not a port; they end at 65535")
    return int(text)


def number(text: str) -> float:
    """Return a finite number."""
    if not math.isfinite(float(text)):
        raise ArgumentTypeError(f"{text} is not a number")
    return float(text)


def threshold(text: str) -> float | str:
    """Return a cosine, or `CALIBRATED`."""
    if text == CALIBRATED:
        return text
    return number(text)


def share(text: str) -> float | str:
    """Return a share from 0 to 1, or `ELLIPSIS`."""
    if text == ELLIPSIS:
        return text
    if not 0 <= number(text) <= 1:
        raise ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return float(text)


def module(text: str) -> str:
    """Return the name of a Python module."""
    if not all(name.isidentifier() for name in text.split(".")):
        raise ArgumentTypeError(f"{text!r} is not the name of a module; write package.module, as in an import "
                                "statement")  # fmt: skip
    return text


def fraction(text: str) -> float:
    """Return a share above 0 and up to 1."""
    if not 0 < number(text) <= 1:
        raise ArgumentTypeError(f"{text} is not a share above 0 and up to 1")
    return float(text)


def non_negative_number(text: str) -> float:
    """Return a number that is 0 or above."""
    if number(text) < 0:
        raise ArgumentTypeError(f"{text} is below 0")
    return float(text)


def positive_number(text: str) -> float:
    """Return a number above 0."""
    if number(text) <= 0:
        raise ArgumentTypeError(f"{text} is not a number above 0")
    return float(text)


def _parse_whole_number(text: str, minimum: int) -> int:
    # Ten digits are enough to see that a number is too large; int() refuses thousands of digits.
    if not text.isdecimal() or not minimum <= int(text[:10]) < 10**9:
        raise ArgumentTypeError(f"{text} is not a whole number from {minimum} to 999999999")
    return int(text)


def load_named_model(args: argparse.Namespace, has_head: bool = False) -> tuple[ErnieViL2, Path]:
    """Load the model that the options name.

    If `args.checkpoint` names a run, it is replaced by the checkpoint that was loaded.

    Args:
        args: values of the options of `add_model_options`.
        has_head: whether the model has a head that labels statements.

    Returns:
        The model and its weight file.
    """
    from ernie_vil2.encoder import describe_backend, load_model
    from ernie_vil2.evaluation.scorers.entailment import load_classifier
    from ernie_vil2.io.run_folder import find_run_folder
    from ernie_vil2.models.weights.format import find_weights

    weights = find_weights(args.checkpoint)
    options = {"batch_size": args.batch_size, "precision": args.precision}
    if has_head:
        encoder = load_classifier(weights, args.vocab, args.device, **options)
    else:
        encoder = load_model(weights, args.vocab, args.device, **options, backend=args.backend)
        if launched_rank()[0] == 0:
            print(f"backend: {describe_backend(encoder.backend)}")
    if find_run_folder(weights.parent):
        args.checkpoint = weights.parent
    return encoder, weights


def open_named_encoder(args: argparse.Namespace) -> Encoder:
    """Open the model that the options name, as `load_named_model`; it may also be the address of a server."""
    from ernie_vil2.encoder import RemoteEncoder

    if is_address(args.checkpoint):
        return RemoteEncoder(args.checkpoint)
    return load_named_model(args)[0]


def get_calibrated_threshold(encoder: ErnieViL2, name: str, direction: str, is_quiet: bool = False) -> float:
    """Return the smallest cosine of an answer, by the calibration of a model.

    Args:
        encoder: the model.
        name: name of the model, for the message.
        direction: `image_to_text` or `text_to_image`.
        is_quiet: do not print the precision and recall of the threshold on its validation set.

    Raises:
        ValueError: the model has no calibration.
    """
    if encoder.calibration is None:
        raise ValueError(f"{name} has no calibration: run ernie-vil2 calibrate, or give a number")
    if not is_quiet:
        print(encoder.calibration.describe(direction))
    return encoder.calibration.thresholds[direction].cosine


def open_data(
    args: argparse.Namespace, languages: Sequence[str] | None = None, preferred_languages: Collection[str] = ()
) -> dict[str, Benchmark]:
    """Open the benchmarks that the options name, by language; see `open_benchmarks`."""
    from ernie_vil2.data.readers import open_benchmarks

    benchmarks = open_benchmarks(make_data_spec(args, languages=languages, preferred_languages=preferred_languages))
    report_shared_captions(benchmarks)
    return benchmarks


def report_shared_captions(benchmarks: Iterable[str]) -> None:
    """Print which languages share a benchmark because its captions name none; `benchmarks` yields its languages."""
    if launched_rank()[0] != 0:
        return
    for languages in benchmarks:
        if ", " in languages:
            print(f"{languages}: the captions name no language; they are used once, for all of these")
