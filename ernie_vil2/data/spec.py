"""Which data are meant: one object on its way from the configuration or the command line to the readers."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ernie_vil2.config import Config, HoldoutConfig, ScoredConfig
    from ernie_vil2.config.sections import LocationConfig

TRAIN = "train"
"""The split and the part of a holdout that are trained on."""


def option(default: Any, description: str, metavar: str | None = None) -> Any:
    """Return a field of a dataclass that commands have as an option.

    Args:
        default: of both; a mapping is copied.
        description: help of the option.
        metavar: placeholder for its value in the help.
    """
    metadata = {"help": description, "metavar": metavar}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataSpec:
    """Where data lie and how they are read; the fields that have a description are options of commands.

    Attributes:
        paths: paths with braces and `*`, addresses, `pipe:` commands, lists of such; the folder of a benchmark, or its
            annotation file.
        default_split: the split that is meant where none is named; None: the one that is scored.
        languages: of the captions that are scored; None: those that the captions are in, of these the preferred ones
            if there are some.
        preferred_languages: those that a model was trained for.
        unnamed_language: the name of captions that say no language.
        holdout: divides the samples, of which only a part is scored; None: all samples are.
        part: name of that part.
    """

    paths: Sequence[str]
    _: KW_ONLY
    layout: str | None = option(None, "layout of the data; default: recognised from the files")
    split: str | None = option(None, "split of the data; default: the protocol's, else test, else validation")
    default_split: str | None = None
    images: str | Path | None = option(
        None, "where the images lie, if not with the data; absolute paths in a table are a part of it", "FOLDER"
    )
    columns: Mapping[str, str] | None = option(
        None,
        "of a table by their names here: image=照片,caption_zh=文案; the usual ones are understood without",
        "NAME=COLUMN,...",
    )
    encoding: str | None = option(None, "of CSV files: utf-8, gb18030, ...; default: recognised", "NAME")
    text_id: str | None = option(None, "tar shards: JSON field that names the text; default: the captions do", "FIELD")
    caption_lines: bool = option(False, "each line of a caption is a text of its own (CLIP_benchmark)")
    languages: Sequence[str] | None = None
    preferred_languages: Collection[str] = ()
    unnamed_language: str = ""
    holdout: HoldoutConfig | None = None
    part: str = TRAIN

    @classmethod
    def of(cls, data: DataLike, **fields: Any) -> DataSpec:
        """Return the data of one path or several, or of another spec, with these fields."""
        if isinstance(data, DataSpec):
            return replace(data, **fields)
        paths = [data] if isinstance(data, str | os.PathLike) else data
        return cls(list(map(str, paths)), **fields)

    @classmethod
    def of_source(cls, config: Config, source: LocationConfig, default_split: str = TRAIN, **fields: Any) -> DataSpec:
        """Return the data of an entry of a run's `Data`; what it leaves open is as in `Data` and `Views`."""
        caption_lines = source.caption_lines
        if caption_lines is None:
            caption_lines = config.Views.caption_lines
        names = ("layout", "split", "images", "columns", "encoding")
        return cls(
            source.data,
            default_split=default_split,
            text_id=source.text_id or config.Data.text_id,
            caption_lines=caption_lines,
            **{name: getattr(source, name) for name in names},
            **fields,
        )

    @classmethod
    def of_scored(cls, config: Config, scored: ScoredConfig, part: str) -> DataSpec:
        """Return the data that a run scores.

        Args:
            config: of the run.
            scored: `Data.validation` or `Data.tested`.
            part: `val` or `test`: the split if neither `scored` nor a protocol names one, or the part of a holdout.
        """
        languages = config.Views.languages
        is_held_out = config.Data.holds_out(part)
        return cls.of_source(
            config,
            scored,
            TRAIN if is_held_out else part,
            preferred_languages=languages,
            unnamed_language=", ".join(languages),
            holdout=config.Data.holdout if is_held_out else None,
            part=part,
        )

    @property
    def image_folder(self) -> Path | None:
        """The folder of the image files; None: they lie with the data."""
        return Path(self.images) if self.images else None


DataLike = DataSpec | str | os.PathLike | Iterable[str | os.PathLike]
"""Data as functions take them: a spec, or paths, with fields of a spec by their names."""
