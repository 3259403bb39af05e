"""Lookup of components by name: those of this package, and user-defined ones as `package.module:Name`.

Importing a module runs its code, so only names that the user wrote may import one (`import_user_modules`). Names that
came with weights may not: `Registry.find` searches only modules that are already imported.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar, cast

T = TypeVar("T")


class UnknownName(ValueError):  # noqa: N818  -- named by what has happened
    """A name that no component has; the message suggests the nearest one and lists those that exist."""


class Registry(dict[str, T]):
    """Components of one kind by name; `registry[name] = component` adds one.

    Args:
        kind: what a component is called in messages, such as "loss".
        entries: components of this package, or their `package.module:Name`, which is imported at the first use.
        required_attributes: attributes that a user-defined component must have.
    """

    def __init__(self, kind: str, entries: Mapping[str, T | str], required_attributes: Collection[str] = ()):
        super().__init__(cast(Mapping[str, T], entries))
        self.kind, self.required_attributes = kind, required_attributes

    def load_all(self) -> list[T]:
        """Return all registered components in their order, importing those of this package."""
        return [self.find(name) for name in self]

    def find(self, name: str) -> T:
        """Return the component of a name, or a user-defined one from an imported module.

        Raises:
            UnknownName: there is no such component, its module is not imported, or it lacks a required attribute.
        """
        if name in self:
            component = self[name]
            if not isinstance(component, str):
                return component
            module, _, attribute = component.partition(":")
            return cast(T, getattr(importlib.import_module(module), attribute))

        # A user-defined component.
        module, colon, attribute = name.partition(":")
        if not colon:
            raise unknown_name(self.kind, name, self)
        if module not in sys.modules:
            raise UnknownName(f"the {self.kind} {name} is in a module of your own: import {module} first, or pass "
                              f"--import {module}")  # fmt: skip
        if not hasattr(sys.modules[module], attribute):
            raise UnknownName(f"the module {module} has no {attribute}, which should be the {self.kind} {name}")
        component = getattr(sys.modules[module], attribute)
        missing = [required for required in self.required_attributes if not hasattr(component, required)]
        if missing:
            raise UnknownName(
                f"{name} has no {', '.join(missing)}, which every {self.kind} needs; docs/extending.md shows one"
            )
        return cast(T, component)


def unknown_name(kind: str, name: str, registered: Iterable[str], unlisted: Iterable[str] = ()) -> UnknownName:
    """Return the error for a name that no component has.

    Args:
        kind: what a component is called in the message.
        name: the unknown name.
        registered: names that the message lists.
        unlisted: further names that may be meant, but are too many to list.
    """
    names = list(registered)
    listing = "known"
    nearest = difflib.get_close_matches(name, [*names, *unlisted], n=1)
    if nearest:
        listing = f"did you mean {nearest[0]}? Known"
    return UnknownName(
        f"there is no {kind} {name!r}; {listing}: {', '.join(names)}, or your own as package.module:Name"
    )


def import_user_modules(names: Iterable[str]) -> None:
    """Import the modules of those names that are import paths.

    Args:
        names: names that the user wrote, not names that came with weights.

    Raises:
        UnknownName: a module cannot be imported, or a name is not complete.
    """
    for name in names:
        module, colon, attribute = name.partition(":")
        if not colon:
            continue
        if not module or module.startswith(".") or not attribute:
            raise UnknownName(f"{name}: write your own as package.module:Name")
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UnknownName(f"{name}: {error}; is the folder of {module} in PYTHONPATH?") from error
