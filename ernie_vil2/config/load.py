"""Read a configuration: defaults, then YAML overlays, then `Section.key=value` overrides; and compare two of them.

An overlay may name another one as its `base`, whose settings then lie below its own.

Some sections are polymorphic: they exist in several kinds, and one of their fields names the kind. `Loss.kind` and
`Model.image.name`, for example, choose the class that validates the rest of the section (`Section.kinds`).
"""

import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ernie_vil2.config.sections import MAPPING_ENTRY, TEXT_ENTRY, Config
from ernie_vil2.io.files import OtherVersion, check_version, read_text
from ernie_vil2.io.terminal import ConfigError, print_once
from ernie_vil2.section import Section, SwitchWord

VERSION = 1  # of the keys; a file without a version is read as this one
Tree = dict[str, Any]
MAX_CHARACTERS = 2**20  # of a configuration file: a hundred times the length of configs/default.yaml
# Bounds of files that others hand over. A configuration has some 200 values; an alias counts as all values it stands
# for, because ten lines of nested aliases can stand for more values than memory holds.
MAX_VALUES = 100_000
MAX_DIGITS = 100
# Bounds of one message: a file with a thousand errors must not fill the terminal.
MAX_PROBLEMS, MAX_PROBLEM_LENGTH = 10, 500
_VALUE_REPR = reprlib.Repr()
_VALUE_REPR.maxstring = _VALUE_REPR.maxlong = _VALUE_REPR.maxother = 100


class _Loader(yaml.SafeLoader):
    """YAML loader that reads `1e-4` as a number and refuses a key that occurs twice.

    YAML 1.1 reads `1e-4` as a string. If a key occurs twice, PyYAML silently keeps only the last value; of a repeated
    section, all settings of the first one would be lost.
    """

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            # Keys are compared as Python values, since 1 and 0x1 are the same key. The keys `<<` and `=` stand for no
            # value of their own and cannot be constructed, so their text is compared.
            value = key.value if key.tag.endswith((":merge", ":value")) else self.construct_object(key)
            if value in lines:
                raise yaml.YAMLError(f"the key {key.value[:100]} occurs twice, in lines {lines[value]} and {line}")
            lines[value] = line
        return node


class _UntrustedLoader(_Loader):
    """Loader of untrusted files, which bounds the number of values and the digits of a number."""

    def __init__(self, text: str):
        super().__init__(text)
        self._num_values = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        num_values_before = self._num_values
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        # An alias that refers to a node around it has no size yet, as that node is still being composed. It stands for
        # infinitely many values, so it is counted as more than allowed.
        self._num_values += self._sizes.get(node, MAX_VALUES) if is_alias else 1
        if self._num_values > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES:,} values; an alias counts as all values it stands for")
        self._sizes[node] = self._num_values - num_values_before
        if node.tag.endswith((":int", ":float")) and len(node.value) > MAX_DIGITS:
            # PyYAML reads 1:1:1: ... in base 60, in quadratic time.
            raise yaml.YAMLError(f"a number of more than {MAX_DIGITS} digits")
        return node


class _SwitchWordLoader(_Loader):
    """Loader that keeps on, off, yes, no, true and false as `SwitchWord`, where YAML 1.1 reads booleans."""


class _UntrustedSwitchWordLoader(_UntrustedLoader):
    """`_UntrustedLoader` that keeps these words as `SwitchWord`, too."""


def _construct_switch_word(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> SwitchWord:
    return SwitchWord.of(node.value, loader.construct_yaml_bool(node))


_SwitchWordLoader.add_constructor("tag:yaml.org,2002:bool", _construct_switch_word)
_UntrustedSwitchWordLoader.add_constructor("tag:yaml.org,2002:bool", _construct_switch_word)


class _Dumper(yaml.SafeDumper):
    """YAML dumper of texts that `_Loader` reads back unchanged.

    The resolver below makes it quote texts such as `1e-4`, which `_Loader` would read as numbers.
    """

    def represent_text(self, text: str) -> yaml.Node:
        # PyYAML breaks a line at the control character U+0085 (next line), and drops the character when it reads the
        # text again. In double quotes the character is written as an escape.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None)


_Dumper.add_representer(str, _Dumper.represent_text)

# A number with an exponent, as in YAML 1.2. The possessive quantifiers (`*+`, `++`) match the same texts as plain ones,
# but never backtrack: a long run of digits without an exponent fails at once; no shorter run of them is tried.
for _yaml_class in (_Loader, _Dumper):
    _yaml_class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*+(?:\.\d*+)?|\.\d++)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse_yaml(text: str, origin: str, keep_switch_words: bool = False, is_untrusted: bool = False) -> Any:
    """Parse a YAML text.

    Args:
        text: YAML.
        origin: where the text comes from, for errors.
        keep_switch_words: keep on, off, yes, no, true and false as `SwitchWord`, which each field of a `Section` turns
            into a text or a boolean; otherwise they are booleans.
        is_untrusted: the text is from a file that somebody else may have written, so its size is bounded.

    Raises:
        ConfigError: the text is not YAML, or too large; the message begins with `origin`.
    """
    if is_untrusted:
        loader = _UntrustedSwitchWordLoader if keep_switch_words else _UntrustedLoader
    else:
        loader = _SwitchWordLoader if keep_switch_words else _Loader
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - subclasses of SafeLoader
    except Exception as error:  # YAML's own, or any that a wrong tag causes: `!!bool x`
        raise ConfigError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: str | Path, keep_switch_words: bool = False, is_untrusted: bool = False) -> Any:
    """Read a YAML file; arguments as in `parse_yaml`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is too large.
    """
    try:
        text = read_text(path, MAX_CHARACTERS)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); look into configs/ for examples") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return parse_yaml(text, str(path), keep_switch_words, is_untrusted)


def _list_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a section and of the sections in it: `Model`, `Model.image`, `Model.image.name`, ..."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner_section in _find_sections(field.annotation):
            yield from _list_keys(inner_section, f"{prefix}{name}.")


def _find_sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the section classes in an annotation.

    A class of sections yields itself, or all of its kinds if it is polymorphic; a list or union yields the classes that
    its arguments contain.
    """
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield from annotation.kinds()
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _find_sections(argument)


def _suggest_key(key: str, section: type[BaseModel]) -> str:
    """Return the end of a message: the keys that an unknown key was most likely meant to be, or those that exist.

    Only the last names of keys are compared, such as `seed` of `Training.seed`, because the common prefix makes all
    keys of a section look alike. A suggestion from the section of the unknown key is spelled similarly or shares a word
    with it, such as `batch`; one from another section is spelled similarly.
    """
    all_keys = list(dict.fromkeys(_list_keys(section)))
    parent, _, leaf = key.rpartition(".")
    siblings = [name for name in all_keys if name.rpartition(".")[0] == parent]
    words = set(leaf.lower().split("_"))

    # 0.75 accepts a wrong or missing letter in four; other sections must be closer, as they have many more keys.
    suggestions = _find_similar(leaf, siblings, 0.75)
    if not suggestions:
        suggestions = [name for name in siblings if words & set(_last_name(name).split("_"))]
    if not suggestions:
        suggestions = _find_similar(leaf, all_keys, 0.8)
    if suggestions:
        return f"; did you mean {' or '.join(suggestions[:3])}?"
    return f"; known here: {', '.join(siblings or section.model_fields)}"


def _find_similar(leaf: str, keys: list[str], cutoff: float) -> list[str]:
    """Return the keys whose last name is the one most similar to `leaf`."""
    last_names = {_last_name(key).lower() for key in keys}
    nearest = difflib.get_close_matches(leaf.lower(), last_names, n=1, cutoff=cutoff)
    return [key for key in keys if _last_name(key).lower() in nearest]


def _last_name(key: str) -> str:
    return key.rpartition(".")[2]


def split_key(key: str) -> list[str]:
    """Split `Section.key` at its dots; dots before a colon belong to an import path and are kept.

    An import path stands first: `package.module:Class.option` becomes `["package.module:Class", "option"]`.
    """
    return re.split(r"\.(?!.*:)", key.strip())


def override(tree: Tree, text: str, section: type[BaseModel] = Config) -> str | None:
    """Set a value in a tree of settings.

    Args:
        tree: settings by section and key, changed in place.
        text: `Section.key=value`, the value as YAML.
        section: type of the whole tree.

    Returns:
        A note for the user if the override also changes or drops other settings (see `_merge_section`), else None.

    Raises:
        ConfigError: the text is malformed.
    """
    key, equals, yaml_value = text.partition("=")
    path = split_key(key)
    if not equals or not all(path):
        raise ConfigError(f"-o {text}: write Section.key=value, for example -o Loss.temperature=0.05")
    for name in path[:-1]:
        inner_tree = tree.get(name)
        if inner_tree is None:  # such as `Tuning.lora: null`
            inner_tree = {}
        if not isinstance(inner_tree, dict):
            raise ConfigError(f"-o {text}: {name} is a value and has no keys{_suggest_key(key, section)}")
        # A copy is changed, because an alias in the file (`*name`) stands for the same mapping.
        tree[name] = dict(inner_tree)
        tree = tree[name]

    remark = None
    value = parse_yaml(yaml_value, f"-o {text[:MAX_PROBLEM_LENGTH]}", keep_switch_words=True)
    old_value = tree.get(path[-1])
    polymorphic_section = _find_polymorphic_section(path, section)
    if polymorphic_section and isinstance(old_value, Mapping) and isinstance(value, Mapping):
        value, remark = _merge_section(polymorphic_section, ".".join(path), old_value, value)
    tree[path[-1]] = value

    if section is Config and path == ["Training", "steps"] and tree.get("epochs") is not None:
        # Epochs take precedence over steps. The user wants the steps of the override, often for a short trial of a
        # recipe that is given in epochs, so the epochs are cleared.
        remark = f"Training.steps={value} takes the place of Training.epochs={tree['epochs']}"
        tree["epochs"] = None
    return remark


def _find_polymorphic_section(path: Sequence[str], section: type[BaseModel]) -> type[Section] | None:
    """Return the type of the section at a path if it exists in several kinds, such as `Model.image`; else None."""
    annotation: Any = section
    for name in path:
        field = annotation.model_fields.get(name)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
    # Only polymorphic sections define fields that all of their kinds share.
    return annotation if issubclass(annotation, Section) and annotation.shared_fields else None


def _merge_section(
    section: type[Section], key: str, old_settings: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Tree, str | None]:
    """Merge an override of a whole polymorphic section with its previous settings.

    An example of such an override is `-o 'Model.image={name: ViT, width: 64}'`. If it has the same kind, only the
    settings that it names change; but the weights are dropped if a size changes, since they would not fit. If it has
    another kind, only the fields that every kind has are kept. The sizes and weights of a tower, or the initial
    temperature of a loss, are then dropped.

    Args:
        section: type of the section.
        key: name of the section, such as `Model.image`.
        old_settings: settings of the file or of an earlier override.
        settings: settings of the override.

    Returns:
        The merged section, and a note for the user on the settings that were kept and dropped; None if there are none.
    """
    kind_field = section.kind_field
    old_kind = old_settings.get(kind_field, section.model_fields[kind_field].default)
    kind = settings.get(kind_field, old_kind)
    size_fields = {size for kind_section in section.kinds() for size in kind_section.required_fields()}
    changes_sizes = any(settings[name] != old_settings.get(name) for name in settings if name in size_fields)

    kept: list[str] = []
    dropped: list[str] = []
    for name in old_settings:
        if name in settings or name == kind_field:
            continue
        if kind != old_kind:
            should_keep = name in section.shared_fields
        else:
            should_keep = name != "weights" or not changes_sizes
        (kept if should_keep else dropped).append(name)

    merged: Tree = {}
    if kind_field in old_settings:
        merged[kind_field] = kind
    for name in kept:
        merged[name] = old_settings[name]
    merged.update(settings)

    remarks = []
    for verb, names in (("keeps", kept), ("drops", dropped)):
        if names:
            remarks.append(f"{verb} {', '.join(f'{name}: {old_settings[name]}' for name in names)}")
    if not remarks:
        return merged, None
    change = f"{old_kind} becomes {kind}" if kind != old_kind else str(kind)
    return merged, f"{key} ({change}) {' and '.join(remarks)}"


def describe_problems(error: ValidationError, origin: str, section: type[BaseModel] = Config) -> ConfigError:
    """Return the error that says on one line what is wrong with a tree of settings.

    Args:
        error: pydantic's error.
        origin: where the settings come from; the message begins with it.
        section: type of the whole tree.
    """
    problems = error.errors()
    lines = []
    for problem in problems[:MAX_PROBLEMS]:
        location = [name for name in problem["loc"] if name not in (TEXT_ENTRY, MAPPING_ENTRY)]
        key = ".".join(map(str, location))[:MAX_PROBLEM_LENGTH]
        if problem["type"] == "extra_forbidden":
            key_in_any_entry = ".".join(name for name in location if isinstance(name, str))  # Training.stages.until
            lines.append(f"unknown key {key}{_suggest_key(key_in_any_entry, section)}")
        elif problem["type"] == "value_error":
            reason = str(problem["ctx"]["error"])
            lines.append(f"{key}: {reason}" if key else reason)
        else:
            # pydantic says "Input should be a valid dictionary or instance of ImageTower": the class helps no user.
            reason = problem["msg"].partition(" or instance of")[0]
            example = ""
            if problem["type"] in ("list_type", "sequence_str") and isinstance(problem["input"], str | int | float):
                example = f"; write [{problem['input']}]"
            lines.append(f"{key}: {reason}, got {_VALUE_REPR.repr(problem['input'])}{example}")

    # The kinds of a union report the same problem several times.
    sentences = list(dict.fromkeys(line[:MAX_PROBLEM_LENGTH] for line in lines))
    if len(problems) > MAX_PROBLEMS:
        sentences.append(f"and {len(problems) - MAX_PROBLEMS} more")
    return ConfigError(f"{origin}: {'; '.join(sentences)}")


def load_config(path: str | Path | None = None, overrides: Iterable[str] = (), is_untrusted: bool = False) -> Config:
    """Load the configuration of a run.

    Args:
        path: YAML overlay; what it and its base do not name keeps its default. None: the defaults.
        overrides: `Section.key=value` texts, the value written as in YAML; the last one wins.
        is_untrusted: the file belongs to a model, run or export that somebody else may have made.

    Raises:
        ConfigError: unknown key (the message names the nearest existing one), wrong type, value out of range, invalid
            YAML or too much of it, a file that is missing, is not text, or is of another version.
    """
    tree: Tree = {}
    if path is not None:
        tree = read_overlay(path, is_untrusted)
    overrides = list(overrides)
    for text in overrides:
        remark = override(tree, text)
        if remark:
            print_once(f"note: {remark}")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        origin = _describe_origin(path, overrides, error)
        raise describe_problems(error, origin) from None


def read_overlay(path: str | Path, is_untrusted: bool = False) -> Tree:
    """Read the settings of a YAML overlay, merged with those of the file that it names as `base: FILE`.

    The name is relative to the folder of the overlay. A base may have a base itself.

    Args:
        path: the overlay.
        is_untrusted: as in `load_config`; such a file may not name a base, which could be any file of this machine.

    Returns:
        Settings by section, as written; they are not validated.

    Raises:
        ConfigError: a file cannot be read, is of another version, has no sections, or is its own base, directly or
            through others.
    """
    overlays: list[Tree] = []
    paths: list[Path] = []
    next_path: Path | None = Path(path)
    while next_path is not None:
        tree = read_yaml(next_path, keep_switch_words=True, is_untrusted=is_untrusted)
        if tree is None:
            tree = {}
        if not isinstance(tree, dict):
            raise ConfigError(f"{next_path}: the top level must be sections ({', '.join(Config.model_fields)})")
        pop_version(tree, next_path)
        training = tree.get("Training")
        if isinstance(training, dict) and "steps" in training:
            training.setdefault("epochs", None)  # otherwise the epochs of a base would take precedence
        overlays.append(tree)
        paths.append(next_path.resolve())
        if is_untrusted:
            break  # the validation refuses a key base as unknown
        base = tree.pop("base", None)
        if base is None:
            break
        if not isinstance(base, str):
            raise ConfigError(f"{next_path}: base is the name of a file, not {_VALUE_REPR.repr(base)}")
        next_path = next_path.parent / base
        if next_path.resolve() in paths:
            raise ConfigError(f"{paths[-1]}: base: {base} leads back to a file that has been read")

    settings: Tree = {}
    for tree in reversed(overlays):
        settings = merge_trees(settings, tree)
    return settings


def merge_trees(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Tree:
    """Merge two trees of settings key by key.

    Args:
        lower: settings below, such as those of a base.
        upper: settings above, which win where both trees have a value that is no mapping.

    Returns:
        A new tree; the arguments are unchanged.
    """
    merged = dict(lower)
    for key, value in upper.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            value = merge_trees(merged[key], value)
        merged[key] = value
    return merged


def _describe_origin(path: str | Path | None, overrides: Sequence[str], error: ValidationError) -> str:
    """Return the name of the file and the overrides that may have caused the error, for its message.

    These are the overrides of the sections that the error names, or all overrides if it names no section.
    """
    wrong_sections = {str(problem["loc"][0]) if problem["loc"] else "" for problem in error.errors()}
    origin = [str(path or "defaults")]
    for text in overrides:
        section = re.split("[.=]", text.strip(), maxsplit=1)[0]
        if "" in wrong_sections or section in wrong_sections:
            origin.append(f"-o {text[:MAX_PROBLEM_LENGTH]}")
    return " ".join(origin)


def apply_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """Return the configuration with other values, `Section.key=value` texts; ConfigError as in `load_config`."""
    tree = config.model_dump()
    for text in overrides:
        override(tree, text)
    return validate_config(tree, " ".join(overrides))


def pop_version(tree: Tree, path: str | Path) -> None:
    """Remove the version from the tree of a file; raise ConfigError if this package does not read that version."""
    version = tree.pop("version", VERSION)
    try:
        check_version(version, VERSION, path, "write its keys as configs/default.yaml explains them")
    except OtherVersion as error:
        raise ConfigError(str(error)) from None


def validate_config(tree: Any, origin: str) -> Config:
    """Return the configuration of a tree of settings.

    Args:
        tree: sections with their keys.
        origin: where they come from, for the error.

    Raises:
        ConfigError: the settings are no configuration; the message begins with `origin`.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise describe_problems(error, origin) from None


def dump_config(config: Config) -> str:
    """Return the resolved configuration as YAML, from which `load_config` reads an equal one."""
    return yaml.dump({"version": VERSION, **config.model_dump()}, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()  # the value of a key that a tree lacks


def differences(*trees: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield the keys in which trees of settings differ, each with the values of the trees in their order.

    Args:
        trees: as `Config.model_dump` returns them, or sections of that. Mappings are compared key by key if all trees
            have one; other values, lists too, as a whole.
        prefix: prefix of each key, which is written as `Section.key`.
    """
    for key in dict.fromkeys(key for tree in trees for key in tree):
        values = [tree.get(key, MISSING) for tree in trees]
        if all(value == values[0] for value in values):
            continue
        if all(isinstance(value, Mapping) for value in values):
            yield from differences(*values, prefix=f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", values
