"""Reads a configuration: defaults, then a YAML overlay, then `Section.key=value` overrides.

How two configurations differ is computed here as well.
"""

import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ernie_vil2.config.sections import Config
from ernie_vil2.io.files import OtherVersion, check_version, read_text
from ernie_vil2.io.terminal import ConfigError, print_once
from ernie_vil2.section import Section, SwitchWord

VERSION = 1  # of the keys; a file that names none is taken for one of this version
Tree = dict[str, Any]
MAX_CHARACTERS = 2**20
MAX_VALUES = 100_000  # of a stranger's YAML file; an alias counts as all that it means
MAX_DIGITS = 100  # likewise
MAX_PROBLEMS, MAX_SHOWN = 10, 500  # that one message names, and characters of each
_SHOWN = reprlib.Repr()  # of values: what a file holds may be longer than a message
_SHOWN.maxstring = _SHOWN.maxlong = _SHOWN.maxother = 100


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as a string; people mean a number. A key that occurs twice is an error, as YAML has it:
    PyYAML drops the first, and with a section all that it says."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            line = key.start_mark.line + 1
            # By its value, as 1 and 0x1 are one key; `<<` and `=` have none.
            value = key.value if key.tag.endswith((":merge", ":value")) else self.construct_object(key)
            if value in lines:
                raise yaml.YAMLError(f"the key {key.value[:100]} occurs twice, in lines {lines[value]} and {line}")
            lines[value] = line
        return node


class _StrangersLoader(_Loader):
    """Loader of files that others hand over, in which ten lines of aliases can mean more than memory holds."""

    def __init__(self, text: str):
        super().__init__(text)
        self._values = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Count the values while the tree is made."""
        before, is_alias = self._values, self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        # A node whose size is not known yet holds its own alias.
        self._values += self._sizes.get(node, MAX_VALUES) if is_alias else 1
        if self._values > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES:,} values, each alias counted as all that it means")
        self._sizes[node] = self._values - before
        if node.tag.endswith((":int", ":float")) and len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"a number of more than {MAX_DIGITS} digits")  # 1:1:1: ... takes quadratic time
        return node


class _WordLoader(_Loader):
    """Loader that keeps the words that YAML 1.1 takes for booleans, for fields that take them as texts."""


class _StrangersWordLoader(_StrangersLoader):
    """Loader of files that others hand over that keeps those words, too."""


def _construct_switch_word(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> SwitchWord:
    return SwitchWord.of(node.value, loader.construct_yaml_bool(node))


_WordLoader.add_constructor("tag:yaml.org,2002:bool", _construct_switch_word)
_StrangersWordLoader.add_constructor("tag:yaml.org,2002:bool", _construct_switch_word)


class _Dumper(yaml.SafeDumper):
    """Puts a text that `_Loader` would take for a number in quotes."""

    def represent_text(self, text: str) -> yaml.Node:
        # PyYAML folds a text at U+0085 and does not find the position again; between double quotes it is escaped.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None)


_Dumper.add_representer(str, _Dumper.represent_text)

for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*+(?:\.\d*+)?|\.\d++)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse_yaml(text: str, origin: str, keep_words: bool = False, is_strangers: bool = False) -> Any:
    """Return what a YAML text says.

    Args:
        text: YAML.
        origin: where it comes from, for errors.
        keep_words: whether on, off, yes, no, true and false become a `SwitchWord`, which a `Section` reads by its
            fields; otherwise they are booleans.
        is_strangers: whether it is from a file that others hand over, and not the user's own: its values are counted.

    Raises:
        ConfigError: the text is not YAML, or too much; `origin` comes before the reason.
    """
    if is_strangers:
        loader = _StrangersWordLoader if keep_words else _StrangersLoader
    else:
        loader = _WordLoader if keep_words else _Loader
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - subclasses of SafeLoader
    except Exception as error:  # YAML's own, or that of a value that a tag before it does not fit: `!!bool x`
        raise ConfigError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: str | Path, keep_words: bool = False, is_strangers: bool = False) -> Any:
    """Return what a YAML file says, see `parse_yaml`.

    Raises:
        ConfigError: it cannot be read, is not YAML, or is too much.
    """
    try:
        text = read_text(path, MAX_CHARACTERS)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); look into configs/ for examples") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return parse_yaml(text, str(path), keep_words, is_strangers)


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in _sections(field.annotation):
            yield from _keys(inner, f"{prefix}{name}.")


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that a type is made of: itself and its kinds, or those in its list or union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield from annotation.kinds()
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _nearest(key: str, of: type[BaseModel]) -> str:
    """The existing key of `of` that `key` was most likely meant to be, or else what its section knows.

    A name that is nearly the same or shares a word counts in its own section, one that is nearly the same anywhere.
    Sections are left out of the comparison, as `Training.ema` and `Training.seed` have little in common."""
    known = list(dict.fromkeys(_keys(of)))
    parent, _, leaf = key.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    words = set(leaf.lower().split("_"))
    meant = (
        _near(leaf, siblings, 0.75)
        or [name for name in siblings if words & set(_leaf(name).split("_"))]
        or _near(leaf, known, 0.8)
    )
    if meant:
        return f"; did you mean {' or '.join(meant[:3])}?"
    return f"; known here: {', '.join(siblings or of.model_fields)}"


def _near(leaf: str, names: list[str], cutoff: float) -> list[str]:
    found = difflib.get_close_matches(leaf.lower(), {_leaf(name).lower() for name in names}, n=1, cutoff=cutoff)
    return [name for name in names if found and _leaf(name).lower() == found[0]]


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def split_key(key: str) -> list[str]:
    """Return the parts of `Section.key`. The first may be an import path, `package.module:Class`, with its own dots."""
    return re.split(r"\.(?!.*:)", key.strip())


def override(tree: Tree, text: str, of: type[BaseModel] = Config) -> str | None:
    """Sets in a tree of settings what `Section.key=value` says, the value as YAML; ConfigError if it is malformed.
    Returns what a person should know of what was there, see `_merge_kinds`."""
    key, equals, value = text.partition("=")
    path = split_key(key)
    if not equals or not all(path):
        raise ConfigError(f"-o {text}: write Section.key=value, for example -o Loss.temperature=0.05")
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"-o {text}: {part} is a value and has no keys{_nearest(key, of)}")
    new, remark = parse_yaml(value, f"-o {text[:MAX_SHOWN]}", keep_words=True), None
    before, section = tree.get(path[-1]), _section_at(path, of)
    if section and isinstance(before, Mapping) and isinstance(new, Mapping):
        new, remark = _merge_kinds(section, ".".join(path), before, new)
    tree[path[-1]] = new
    if of is Config and path == ["Training", "steps"] and tree.get("epochs") is not None:
        # A short try of a recipe that is given in epochs, which would count otherwise, and run to its end.
        remark = f"Training.steps={new} takes the place of Training.epochs={tree['epochs']}"
        tree["epochs"] = None
    return remark


def _section_at(path: Sequence[str], of: type[BaseModel]) -> type[Section] | None:
    """Return the section of several kinds at a path, if it is one."""
    section: Any = of
    for key in path:
        field = section.model_fields.get(key)
        section = field.annotation if field else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return None
    return section if issubclass(section, Section) and section.lasting else None


def _merge_kinds(
    section: type[Section], key: str, before: Mapping[str, Any], value: Mapping[str, Any]
) -> tuple[Tree, str | None]:
    """Merge an override of a whole section of kinds, `-o 'Model.image={name: ViT, width: 64}'`, with what was there.

    One of the same kind changes only what it names, and weights do not outlive the sizes that they fit. One of another
    kind keeps what every kind has: not the sizes and weights of a tower, nor where a loss starts.

    Args:
        section: its type.
        key: its name, as `Model.image`.
        before: what the file, or an earlier override, says of it.
        value: what the override says.

    Returns:
        The section, and a sentence for people; None where the override says all of it.
    """
    field = section.kind_field
    kind_before = before.get(field, section.model_fields[field].default)
    kind = value.get(field, kind_before)
    others = [name for name in before if name not in value and name != field]
    sizes = {size for each in section.kinds() for size in each.required_fields()}
    if kind != kind_before:
        kept = [name for name in others if name in section.lasting]
    elif any(name in sizes and value[name] != before.get(name) for name in value):
        kept = [name for name in others if name != "weights"]
    else:
        kept = others
    dropped = [name for name in others if name not in kept]

    result = {field: kind} if field in before else {}
    result |= {name: before[name] for name in kept} | dict(value)
    remarks = [
        f"{verb} {', '.join(f'{name}: {before[name]}' for name in names)}"
        for verb, names in (("keeps", kept), ("drops", dropped))
        if names
    ]
    change = f"{kind_before} becomes {kind}" if kind != kind_before else str(kind)
    return result, f"{key} ({change}) {' and '.join(remarks)}" if remarks else None


def explained(error: ValidationError, origin: str, of: type[BaseModel] = Config) -> ConfigError:
    """What is wrong with a tree of settings that should be of a kind, on one line."""
    problems = error.errors()
    lines = []
    for problem in problems[:MAX_PROBLEMS]:
        key = ".".join(str(part) for part in problem["loc"])[:MAX_SHOWN]
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {key}{_nearest(key, of)}")
        elif problem["type"] == "value_error":
            lines.append(f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"]))
        else:
            what, example = problem["msg"].partition(" or instance of")[0], ""
            if problem["type"] == "list_type" and isinstance(problem["input"], str | int | float):
                example = f"; write [{problem['input']}]"
            lines.append(f"{key}: {what}, got {_SHOWN.repr(problem['input'])}{example}")
    more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    shown = dict.fromkeys(line[:MAX_SHOWN] for line in lines)
    return ConfigError(f"{origin}: " + "; ".join([*shown, *more]))


def load_config(path: str | Path | None = None, overrides: Iterable[str] = (), is_strangers: bool = False) -> Config:
    """The configuration of a run.

    Args:
        path: YAML overlay; what it does not name keeps its default. None: the defaults.
        overrides: `Section.key=value` texts, the value written as in YAML; the last one wins.
        is_strangers: whether the file lies in a model, run or export that others may have handed over.

    Raises:
        ConfigError: unknown key (with the nearest right one), wrong type, value out of range, invalid YAML or too much
            of it, a file that is missing or no text, or one of another version.
    """
    tree: Any = {}
    if path is not None:
        tree = read_yaml(path, keep_words=True, is_strangers=is_strangers)
        if tree is None:
            tree = {}
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: the top level must be sections ({', '.join(Config.model_fields)})")
        take_version(tree, path)
    overrides = list(overrides)
    for text in overrides:
        if remark := override(tree, text):
            print_once(f"note: {remark}")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        wrong = {str(location[0]) if (location := problem["loc"]) else "" for problem in error.errors()}
        in_it = [text for text in overrides if "" in wrong or re.split("[.=]", text.strip(), maxsplit=1)[0] in wrong]
        raise explained(error, _origin(path, in_it)) from None


def _origin(path: str | Path | None, overrides: Sequence[str]) -> str:
    return " ".join([str(path or "defaults"), *(f"-o {text[:MAX_SHOWN]}" for text in overrides)])


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration with other values, as `Section.key=value` texts; ConfigError as of `load_config`."""
    tree = config.model_dump()
    for text in overrides:
        override(tree, text)
    return validated(tree, " ".join(overrides))


def take_version(tree: Tree, path: str | Path) -> None:
    """Take the version out of a tree that a file holds; ConfigError if it is not the one that is read."""
    try:
        check_version(
            tree.pop("version", VERSION), VERSION, path, "write its keys as configs/default.yaml explains them"
        )
    except OtherVersion as error:
        raise ConfigError(str(error)) from None


def validated(tree: Any, origin: str) -> Config:
    """The configuration of sections with their keys; ConfigError, with `origin` before the reason, if it is none."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise explained(error, origin) from None


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal one."""
    return yaml.dump({"version": VERSION, **config.model_dump()}, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()  # the value of a key that a tree lacks


def differences(*trees: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """The keys in which trees of settings differ, each with the values that the trees have, in their order.

    Args:
        trees: as `Config.model_dump` gives them, or parts of that. Mappings are compared key by key where all trees
            have one; other values, lists too, as a whole.
        prefix: goes before each key, which is written as `Section.key`.
    """
    for key in dict.fromkeys(key for tree in trees for key in tree):
        values = [tree.get(key, MISSING) for tree in trees]
        if all(value == values[0] for value in values):
            continue
        if all(isinstance(value, Mapping) for value in values):
            yield from differences(*values, prefix=f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", values
