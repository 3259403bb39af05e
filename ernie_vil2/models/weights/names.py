"""How the arrays of another implementation become ours and back: a table of names, and of what differs in their form.

A row of a table is `(ours, theirs, form)`. In names,

- `N` is a block's number;
- `*` is weight and bias, two arrays; a name of a layer without `*` has it at its end;
- `{q,k,v}` is several arrays that the other side holds as one, one after the other along the outputs, the first axis
  of PyTorch's and the last of Paddle's; `kv` instead of `k,v` is one of twice the size.

Forms: `linear` is a layer whose matrix is transposed, as PyTorch's are against Paddle's, `layer` one whose arrays are
equal. Of a single array, `array` is equal, `matrix` transposed, `token` `[D]` against our `[1, 1, D]`, `grid` `[T, D]`
against our `[1, T, D]`, `scalar` `[]` against our `[1]`, and `spliced` two of which ours has the first 20 rows of the
first and the other rows of the second.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from ernie_vil2.io.terminal import listed, printable
from ernie_vil2.models.weights.files import allocate_array

Form = Literal["linear", "layer", "array", "matrix", "token", "grid", "scalar", "spliced"]
Row = tuple[str, str, Form]
SPLICE = 20
_LETTERS = re.compile(r"\{([^}]*)\}")


class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays by name, each made when it is asked for and not kept, so that no second copy of a model is in memory."""

    def __init__(self, makers: Mapping[str, Callable[[], np.ndarray]]):
        self.makers = makers

    def __getitem__(self, name: str) -> np.ndarray:
        return self.makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


def selected(arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> LazyArrays:
    """Some of the arrays."""
    return LazyArrays({name: partial(arrays.__getitem__, name) for name in names})


@dataclass(frozen=True)
class _Link:
    """One row for weight or bias: our arrays, theirs, and how large each is in proportion."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    form: Form
    sizes: tuple[int, ...]  # of the side that has several arrays

    def to_ours(self, arrays: Mapping[str, np.ndarray], part: int) -> np.ndarray:
        """Our array number `part`, from theirs."""
        names = self.theirs
        if self.form == "spliced":
            return np.concatenate([arrays[names[0]][:SPLICE], arrays[names[1]][SPLICE:]])
        if len(names) > 1:
            parts = [arrays[name] for name in names]
            shape = list(parts[0].shape)
            if not shape or any(list(part.shape) != shape for part in parts):
                raise ValueError(f"{names[0]} and {names[1]} are of different shapes")
            shape[self._axis] *= len(parts)
            joined = allocate_array(shape, np.result_type(*parts))
            return _ours(np.concatenate(parts, self._axis, joined), self.form)
        array = arrays[names[0]]
        return _ours(array if len(self.ours) == 1 else self._parts(array, names[0])[part], self.form)

    def to_theirs(self, arrays: Mapping[str, np.ndarray], part: int) -> np.ndarray:
        """Their array number `part`, from ours."""
        whole = [_theirs(arrays[name], self.form) for name in self.ours]
        if len(whole) > 1:
            return np.concatenate(whole, self._axis)
        whole_again = len(self.theirs) == 1 or self.form == "spliced"
        return whole[0] if whole_again else self._parts(whole[0], self.ours[0])[part]

    @property
    def _axis(self) -> int:
        """The axis of their outputs."""
        return 0 if self.form == "matrix" else -1

    def _parts(self, array: np.ndarray, name: str) -> list[np.ndarray]:
        count = sum(self.sizes)
        if not array.ndim or array.shape[self._axis] % count:
            shown = printable(name, longest=100)
            raise ValueError(f"{shown} has the shape {list(array.shape)}, which is not {count} equal parts")
        unit = array.shape[self._axis] // count
        return np.split(array, np.cumsum(self.sizes)[:-1] * unit, self._axis)


class Names:
    """A table of names for a model of these blocks.

    Args:
        rows: see above.
        blocks: their numbers, by what our names of their arrays begin with.
    """

    def __init__(self, rows: Sequence[Row], blocks: Mapping[str, Iterable[int | str]]):
        self._links = []
        for link in itertools.chain.from_iterable(map(_links, rows)):
            if not any("N" in name.split(".") for name in link.ours):
                self._links.append(link)
                continue
            (numbers,) = (found for start, found in blocks.items() if link.ours[0].startswith(start))
            for number in numbers:
                ours, theirs = (tuple(_numbered(name, number) for name in side) for side in (link.ours, link.theirs))
                self._links.append(_Link(ours, theirs, link.form, link.sizes))

    def to_ours(self, arrays: Mapping[str, np.ndarray], whole: bool = True) -> LazyArrays:
        """Arrays of the other side by our names.

        Args:
            whole: all of the table must be there, and what it does not have is left out; else what is not there is left
                out, and what has no counterpart keeps its name.

        Raises:
            ValueError: one of the table is missing.
        """
        links = [link for link in self._links if all(name in arrays for name in link.theirs)]
        if whole and len(links) < len(self._links):
            missing = [name for link in self._links for name in link.theirs if name not in arrays]
            what = "an array is" if len(missing) == 1 else f"{len(missing)} arrays are"
            raise ValueError(f"{what} missing: {listed(missing, 3)}")
        makers: dict[str, Callable[[], np.ndarray]] = {
            name: partial(link.to_ours, arrays, part) for link in links for part, name in enumerate(link.ours)
        }
        if not whole:
            known = {name for link in links for name in link.theirs}
            makers |= selected(arrays, [name for name in arrays if name not in known]).makers
        return LazyArrays(makers)

    def to_theirs(self, arrays: Mapping[str, np.ndarray], whole: bool = True) -> LazyArrays:
        """The inverse of `to_ours`, bit for bit; ValueError if the table lacks a name, or with `whole` has one more."""
        known = {name for link in self._links for name in link.ours}
        if lacking := [name for name in arrays if name not in known]:
            raise ValueError(f"the format cannot hold {listed(lacking)}")
        if whole and (missing := sorted(known - arrays.keys())):
            raise ValueError(f"the format has {listed(missing, 3)}, which the model lacks")
        return LazyArrays(
            {
                name: partial(link.to_theirs, arrays, part)
                for link in self._links
                if not arrays.keys().isdisjoint(link.ours)
                for part, name in enumerate(link.theirs)
            }
        )

    def unused(self, arrays: Mapping[str, np.ndarray]) -> list[str]:
        """The names of arrays that the table does not have."""
        known = {name for link in self._links for name in link.theirs}
        return [name for name in arrays if name not in known]

    def all_theirs(self, ours: str) -> tuple[str, ...]:
        """All arrays that it is of on the other side; its own name if it is in no row."""
        return next((link.theirs for link in self._links if ours in link.ours), (ours,))


def _links(row: Row) -> Iterator[_Link]:
    ours, theirs, form = row
    if form not in ("linear", "layer"):
        yield _Link((ours,), tuple(_alternatives(theirs)[0]), form, ())
        return
    (of_ours, sizes), (of_theirs, others) = _alternatives(ours), _alternatives(theirs)
    for part in ("weight", "bias"):
        sides = [tuple(_named(name, part) for name in side) for side in (of_ours, of_theirs)]
        yield _Link(sides[0], sides[1], "matrix" if (form, part) == ("linear", "weight") else "array", sizes or others)


def _alternatives(name: str) -> tuple[list[str], tuple[int, ...]]:
    """The names that one with braces means, and the sizes of their arrays in proportion; () for a single one."""
    found = _LETTERS.search(name)
    if found is None:
        return [name], ()
    letters = found[1].split(",")
    return [name.replace(found[0], one) for one in letters], tuple(map(len, letters))


def _named(name: str, part: str) -> str:
    return name.replace("*", part) if "*" in name else f"{name}.{part}"


def _numbered(name: str, number: int | str) -> str:
    return ".".join(str(number) if part == "N" else part for part in name.split("."))


def _ours(array: np.ndarray, form: Form) -> np.ndarray:
    if form == "matrix":
        return array.T
    if form == "token":
        return array.reshape(1, 1, -1)
    if form == "grid":
        return array[None] if array.ndim == 2 else array
    return array.reshape(1) if form == "scalar" and array.size == 1 else array


def _theirs(array: np.ndarray, form: Form) -> np.ndarray:
    if form == "matrix":
        return array.T
    if form == "token":
        return array.reshape(-1)
    if form == "grid":
        return array[0]
    return array.reshape(()) if form == "scalar" else array
