"""Reads a configuration: defaults, then a YAML overlay, then `Section.key=value` overrides."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ernie_vil2.config.schema import Config


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and what to do."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as a string; people mean a number."""


class _Dumper(yaml.SafeDumper):
    """Puts a text that `_Loader` would take for a number in quotes."""

    def represent_text(self, text: str) -> yaml.Node:
        # PyYAML folds a text at U+0085 and does not find the place again; between double quotes it is escaped.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None)


_Dumper.add_representer(str, _Dumper.represent_text)

for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not valid YAML: {error}") from error


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in _sections(field.annotation):
            yield from _keys(inner, f"{prefix}{name}.")


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type is made of: itself, or those in its list or union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _nearest(key: str) -> str:
    """The existing key that `key` was most likely meant to be.

    The same section counts first, then the last part of the name anywhere, so that both a
    misspelt name and a name in the wrong section find their way."""
    known = list(_keys(Config))
    parent, _, leaf = key.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    by_leaf = {}
    for name in known:
        by_leaf.setdefault(name.rpartition(".")[2].lower(), name)
    near_sibling = difflib.get_close_matches(key, siblings, n=1, cutoff=0.75)
    near_leaf = difflib.get_close_matches(leaf.lower(), by_leaf, n=1, cutoff=0.6)
    if near_sibling:
        return f"; did you mean {near_sibling[0]}?"
    if near_leaf:
        return f"; did you mean {by_leaf[near_leaf[0]]}?"
    return f"; known here: {', '.join(siblings or Config.model_fields)}"


def _override(tree: dict, text: str) -> None:
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"-o {text}: write Section.key=value, for example -o Loss.temperature=0.05")
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"-o {text}: {part} is a value and has no keys{_nearest(key)}")
    tree[path[-1]] = _parse(value, f"-o {text}")


def _explain(error: ValidationError, origin: str) -> ConfigError:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {key}{_nearest(key)}")
        elif problem["type"] == "value_error":
            lines.append(f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"]))
        else:
            lines.append(f"{key}: {problem['msg']}, got {problem['input']!r}")
    return ConfigError(f"{origin}: " + "; ".join(dict.fromkeys(lines)))


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a run.

    Args:
        path: YAML overlay; what it does not name keeps its default. None: the defaults.
        overrides: `Section.key=value` texts, the value written as in YAML; the last one wins.

    Raises:
        ConfigError: unknown key (with the nearest right one), wrong type, value out of range,
            invalid YAML or missing file.
    """
    tree: Any = {}
    if path is not None:
        try:
            tree = _parse(Path(path).read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}); look into configs/ for examples") from error
        if tree is None:
            tree = {}
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: the top level must be sections ({', '.join(Config.model_fields)})")
    overrides = list(overrides)
    for text in overrides:
        _override(tree, text)
    origin = " ".join([str(path or "defaults"), *(f"-o {text}" for text in overrides)])
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, origin) from None


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal one."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
