"""Which data to read and how: one object that the configuration or the command line hands to the readers."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ernie_vil2.config import Config, EvaluationDataConfig, HoldoutConfig
    from ernie_vil2.config.sections import LocationConfig

TRAIN = "train"
"""Name of the split, and of the part of a holdout, that models are trained on."""


def option(default: Any, description: str, metavar: str | None = None) -> Any:
    """Return a dataclass field that is also an option of commands.

    Args:
        default: default of the field and of the option; a mapping is copied.
        description: help of the option.
        metavar: placeholder for its value in the help.
    """
    metadata = {"help": description, "metavar": metavar}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataSpec:
    """Paths of data, and how they are read. The fields with a description are options of commands.

    Attributes:
        paths: paths with braces and `*`, addresses, `pipe:` commands, or lists of these; or the folder of a benchmark,
            or its annotation file.
        default_split: split to read if none is named; None: the preferred split for scoring.
        languages: languages of the captions to score. None: the captions' languages that are preferred, or
            all if none is preferred.
        preferred_languages: languages that a model was trained for.
        unnamed_language: name for captions without a language.
        holdout: divides the samples, so that only a part is scored; None: all samples are scored.
        holdout_part: name of that part.
    """

    paths: Sequence[str]
    _: KW_ONLY
    layout: str | None = option(None, "layout of the data; default: recognised from the files")
    split: str | None = option(None, "split of the data; default: the protocol's, else test, else validation")
    default_split: str | None = None
    images: str | Path | None = option(
        None, "folder of the image files, if not with the data; absolute paths in a table may lead into it", "FOLDER"
    )
    columns: Mapping[str, str] | None = option(
        None,
        "columns of a table: image=照片,caption_zh=文案; common names are recognised without this option",
        "NAME=COLUMN,...",
    )
    encoding: str | None = option(None, "encoding of CSV files: utf-8, gb18030, ...; default: detected", "NAME")
    text_id: str | None = option(
        None, "JSON field of tar shards that names the text; default: the captions themselves", "FIELD"
    )
    caption_lines: bool = option(False, "read each line of a caption as a separate text, as CLIP_benchmark does")
    languages: Sequence[str] | None = None
    preferred_languages: Collection[str] = ()
    unnamed_language: str = ""
    holdout: HoldoutConfig | None = None
    holdout_part: str = TRAIN

    @classmethod
    def from_data(cls, data: DataLike, **fields: Any) -> DataSpec:
        """Return the spec of a path or several paths, or a copy of another spec, with these fields."""
        if isinstance(data, DataSpec):
            return replace(data, **fields)
        paths = [data] if isinstance(data, str | os.PathLike) else data
        return cls([str(path) for path in paths], **fields)

    @classmethod
    def from_source(cls, config: Config, source: LocationConfig, default_split: str = TRAIN, **fields: Any) -> DataSpec:
        """Return the spec of an entry of a run's `Data`; what it leaves open is taken from `Data` and `Views`."""
        caption_lines = source.caption_lines
        if caption_lines is None:
            caption_lines = config.Views.caption_lines
        return cls(
            source.data,
            layout=source.layout,
            split=source.split,
            default_split=default_split,
            images=source.images,
            columns=source.columns,
            encoding=source.encoding,
            text_id=source.text_id or config.Data.text_id,
            caption_lines=caption_lines,
            **fields,
        )

    @classmethod
    def from_scored(cls, config: Config, scored: EvaluationDataConfig, split: str) -> DataSpec:
        """Return the spec of data that a run scores.

        Args:
            config: configuration of the run.
            scored: `Data.val_config` or `Data.test_config`.
            split: `val` or `test`: the part of the holdout, if the run has one for it; otherwise the split if neither
                `scored` nor a protocol names one.
        """
        languages = config.Views.languages
        is_held_out = config.Data.holds_out(split)
        return cls.from_source(
            config,
            scored,
            # A part is held out of the training data.
            default_split=TRAIN if is_held_out else split,
            preferred_languages=languages,
            unnamed_language=", ".join(languages),
            holdout=config.Data.holdout if is_held_out else None,
            holdout_part=split,
        )

    @property
    def image_folder(self) -> Path | None:
        """The folder of the image files; None if they lie with the data."""
        return Path(self.images) if self.images else None


DataLike = DataSpec | str | os.PathLike | Iterable[str | os.PathLike]
"""Data as functions accept them: a spec, a path or several paths; other fields of the spec are keyword arguments."""
