"""What a configuration or a command line may name: a part of this package by its name, or one's own by its import path.

A name with a colon, `package.module:Class`, is something of a user's own module. Importing a module runs it, so that
only a name that the user wrote may import one (`import_named`); a name that came with weights may not, and `find` looks
at modules that are imported already.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar, cast

T = TypeVar("T")


class UnknownName(ValueError):  # noqa: N818  -- named by what has happened
    """No part has this name; the message suggests the nearest one and lists those that exist."""


class Registry(dict[str, T]):
    """Parts of one kind by name; `registry[name] = part` adds one.

    Args:
        kind: what one of them is called in messages, as "loss".
        entries: the parts of this package, or of one that is imported when it is asked for its `package.module:Name`.
        attributes: that one of the user's own must have.
    """

    def __init__(self, kind: str, entries: Mapping[str, T | str], attributes: Collection[str] = ()):
        super().__init__(cast(Mapping[str, T], entries))
        self.kind, self.attributes = kind, attributes

    def parts(self) -> list[T]:
        """Return all registered parts in their order; those of this package are imported."""
        return [self.find(name) for name in self]

    def find(self, name: str) -> T:
        """The part of a name, or what an imported module of the user's own holds; else UnknownName."""
        if name in self:
            part = self[name]
            if not isinstance(part, str):
                return part
            module, _, attribute = part.partition(":")
            return cast(T, getattr(importlib.import_module(module), attribute))
        module, colon, attribute = name.partition(":")
        if not colon:
            raise unknown(self.kind, name, self)
        if module not in sys.modules:
            raise UnknownName(f"the {self.kind} {name} is in a module of your own: import {module} first, or pass "
                              f"--import {module}")  # fmt: skip
        if not hasattr(sys.modules[module], attribute):
            raise UnknownName(f"the module {module} has no {attribute}, which should be the {self.kind} {name}")
        part = getattr(sys.modules[module], attribute)
        if lacking := [one for one in self.attributes if not hasattr(part, one)]:
            raise UnknownName(
                f"{name} has no {', '.join(lacking)}, which a {self.kind} has; docs/extending.md shows one"
            )
        return cast(T, part)


def unknown(kind: str, name: str, known: Iterable[str], more: Iterable[str] = ()) -> UnknownName:
    """The error for a name that no part of a kind has.

    Args:
        known: the names that there are.
        more: names that may be meant too, but are too many to be listed.
    """
    names = list(known)
    near = difflib.get_close_matches(name, [*names, *more], n=1)
    meant = f"did you mean {near[0]}? Known" if near else "known"
    return UnknownName(f"there is no {kind} {name!r}; {meant}: {', '.join(names)}, or your own as package.module:Name")


def import_named(names: Iterable[str]) -> None:
    """Imports the modules of those names that are import paths, as the user wrote them, not as they came with weights;
    UnknownName if a module cannot be found."""
    for name in names:
        module, colon, _ = name.partition(":")
        if colon and not module:
            raise UnknownName(f"{name}: write your own as package.module:Name")
        if colon:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise UnknownName(f"{name}: {error}; is the folder of {module} in PYTHONPATH?") from error
