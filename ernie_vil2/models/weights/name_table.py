"""Convert the arrays of another implementation into ours and back, by a table of their names and forms.

A row of a table is `(ours, theirs, form)`: our name of an array or a layer, the name in the other implementation, and
how the two differ. In names,

- `N` stands for the number of a block;
- the name of a layer stands for two arrays, its weight and its bias; `*` marks where these words go, if not at the end;
- `{q,k,v}` stands for several arrays that the other side holds as one. They follow one another along the axis of the
  outputs: the first one in PyTorch, the last one in Paddle. `kv` instead of `k,v` is one array of twice the size.

Forms of a layer:

- `linear`: the weight is transposed, because PyTorch's linear layers hold `[out, in]` and Paddle's `[in, out]`; the
  bias is equal;
- `weight_bias`: weight and bias are equal.

Forms of a single array:

- `equal`;
- `transposed`;
- `token`: theirs is `[D]`, ours `[1, 1, D]`;
- `grid`: theirs is `[T, D]`, ours `[1, T, D]`;
- `scalar`: theirs is `[]`, ours `[1]`;
- `spliced`: theirs are two arrays of our shape; ours has the first rows of the first one, as many as the table says,
  and the further rows of the second one.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from ernie_vil2.io.terminal import join_names, make_printable
from ernie_vil2.models.weights.files import allocate_array

Form = Literal["linear", "weight_bias", "equal", "transposed", "token", "grid", "scalar", "spliced"]
Row = tuple[str, str, Form]
_BRACES = re.compile(r"\{([^}]*)\}")


class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays by name that are computed at each access and not stored, so that a model is never in memory twice."""

    def __init__(self, makers: Mapping[str, Callable[[], np.ndarray]]):
        self.makers = makers

    def __getitem__(self, name: str) -> np.ndarray:
        return self.makers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self.makers  # that of Mapping would compute the array

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


def select_arrays(arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> LazyArrays:
    """Return the arrays with these names."""
    return LazyArrays({name: partial(arrays.__getitem__, name) for name in names})


@dataclass(frozen=True)
class _Link:
    """Row of a table for one kind of array, weight or bias, of one block.

    Attributes:
        ours: names of our arrays.
        theirs: names of their arrays; at most one side has several.
        form: how they differ; never "linear" or "weight_bias".
        sizes: relative sizes of the several arrays; empty if both sides have one. In the form "spliced", the number of
            rows of the first array that are used.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    form: Form
    sizes: tuple[int, ...]

    def make_ours(self, arrays: Mapping[str, np.ndarray], position: int) -> np.ndarray:
        """Return our array at a position of `ours`, from theirs.

        Raises:
            ValueError: their arrays do not fit together, or theirs cannot be split; the message names one of them.
        """
        pieces = [arrays[name] for name in self.theirs]
        self._check_shapes(pieces)
        if self.form == "spliced":
            (num_first_rows,) = self.sizes
            return np.concatenate([pieces[0][:num_first_rows], pieces[1][num_first_rows:]])
        if len(pieces) > 1:
            shape = list(pieces[0].shape)
            shape[self._output_axis] *= len(pieces)
            # Into memory that was requested as a whole, see allocate_array.
            memory = allocate_array(shape, np.result_type(*pieces))
            return _to_our_form(np.concatenate(pieces, self._output_axis, memory), self.form)
        array = pieces[0]
        if len(self.ours) > 1:
            array = self._split(array, self.theirs[0])[position]
        return _to_our_form(array, self.form)

    def make_theirs(self, arrays: Mapping[str, np.ndarray], position: int) -> np.ndarray:
        """Return their array at a position of `theirs`, from ours."""
        pieces = [_to_their_form(arrays[name], self.form) for name in self.ours]
        if len(pieces) > 1:
            return np.concatenate(pieces, self._output_axis)
        # Each of their two spliced arrays gets all rows; their code uses some of each.
        if len(self.theirs) == 1 or self.form == "spliced":
            return pieces[0]
        return self._split(pieces[0], self.ours[0])[position]

    @property
    def _output_axis(self) -> int:
        """Axis of the outputs in their arrays; a bias has one axis only."""
        return 0 if self.form == "transposed" else -1

    def _check_shapes(self, pieces: Sequence[np.ndarray]) -> None:
        """Raise ValueError if there are several of their arrays, and these differ in shape or have no axes."""
        if len(pieces) == 1:
            return
        for name, piece in zip(self.theirs, pieces, strict=True):
            if not piece.ndim or piece.shape != pieces[0].shape:
                raise ValueError(
                    f"{self.theirs[0]} has the shape {list(pieces[0].shape)} and {name} {list(piece.shape)}; arrays "
                    "that become one must have the same, of one axis or more"
                )

    def _split(self, array: np.ndarray, name: str) -> list[np.ndarray]:
        count = sum(self.sizes)
        if not array.ndim or array.shape[self._output_axis] % count:
            raise ValueError(
                f"{make_printable(name, max_length=100)} has the shape {list(array.shape)}, which is not {count} "
                "equal parts"
            )
        unit = array.shape[self._output_axis] // count
        ends = np.cumsum(self.sizes) * unit
        return np.split(array, ends[:-1], self._output_axis)


class NameTable:
    """Table of names for a model of a given depth.

    Args:
        rows: rows as the module describes them.
        blocks: numbers of the blocks, by the prefix of our names of their arrays, such as `image.blocks.`. A row with
            `N` must have one of these prefixes.
        num_first_rows: rows of the first array that the form "spliced" uses.
    """

    def __init__(self, rows: Sequence[Row], blocks: Mapping[str, Iterable[int | str]], num_first_rows: int = 0):
        self._links: list[_Link] = []
        # A row with N becomes a link for each block.
        for row in rows:
            for link in _make_links(row):
                if link.form == "spliced":
                    link = replace(link, sizes=(num_first_rows,))
                if not any("N" in name.split(".") for name in link.ours):
                    self._links.append(link)
                    continue
                prefix = next(prefix for prefix in blocks if link.ours[0].startswith(prefix))
                for number in blocks[prefix]:
                    ours = tuple(_insert_number(name, number) for name in link.ours)
                    theirs = tuple(_insert_number(name, number) for name in link.theirs)
                    self._links.append(_Link(ours, theirs, link.form, link.sizes))

    def to_ours(self, arrays: Mapping[str, np.ndarray], is_complete: bool = True) -> LazyArrays:
        """Return arrays of the other implementation by our names.

        Args:
            arrays: their arrays by their names.
            is_complete: whether all rows must have their arrays; arrays that are in no row are then left out.
                Otherwise, rows without arrays are skipped, and arrays that are in no row keep their names.

        Raises:
            ValueError: `is_complete`, and an array is missing.
        """
        links = [link for link in self._links if all(name in arrays for name in link.theirs)]
        if is_complete and len(links) < len(self._links):
            missing = [name for name in self._their_names() if name not in arrays]
            subject = "an array is" if len(missing) == 1 else f"{len(missing)} arrays are"
            raise ValueError(f"{subject} missing: {join_names(missing, 3)}")

        # Nothing is computed yet: each array gets a function that makes it.
        makers: dict[str, Callable[[], np.ndarray]] = {}
        for link in links:
            for position, name in enumerate(link.ours):
                makers[name] = partial(link.make_ours, arrays, position)
        if not is_complete:
            converted: set[str] = set()
            for link in links:
                converted.update(link.theirs)
            makers |= select_arrays(arrays, [name for name in arrays if name not in converted]).makers
        return LazyArrays(makers)

    def to_theirs(self, arrays: Mapping[str, np.ndarray], is_complete: bool = True) -> LazyArrays:
        """Return our arrays by their names, bit for bit the inverse of `to_ours`.

        Args:
            arrays: our arrays by our names.
            is_complete: whether all rows must have their arrays; otherwise, rows of which we have no array are skipped.

        Raises:
            ValueError: an array is in no row, or `is_complete` and a row has no array.
        """
        our_names: set[str] = set()
        for link in self._links:
            our_names.update(link.ours)
        unexpected = [name for name in arrays if name not in our_names]
        if unexpected:
            raise ValueError(f"the format cannot hold {join_names(unexpected)}")
        missing = sorted(our_names - arrays.keys())
        if is_complete and missing:
            raise ValueError(f"the format has {join_names(missing, 3)}, which the model lacks")

        makers: dict[str, Callable[[], np.ndarray]] = {}
        for link in self._links:
            if not arrays.keys().isdisjoint(link.ours):
                for position, name in enumerate(link.theirs):
                    makers[name] = partial(link.make_theirs, arrays, position)
        return LazyArrays(makers)

    def find_unused(self, arrays: Mapping[str, np.ndarray]) -> list[str]:
        """Return the names of their arrays that are in no row."""
        their_names = set(self._their_names())
        return [name for name in arrays if name not in their_names]

    def translate(self, our_name: str) -> tuple[str, ...]:
        """Return the names of their arrays that an array of ours is made of; its own name if it is in no row."""
        for link in self._links:
            if our_name in link.ours:
                return link.theirs
        return (our_name,)

    def _their_names(self) -> list[str]:
        names: list[str] = []
        for link in self._links:
            names += link.theirs
        return names


def _make_links(row: Row) -> Iterator[_Link]:
    ours, theirs, form = row
    our_names, our_sizes = _expand_braces(ours)
    their_names, their_sizes = _expand_braces(theirs)
    if form not in ("linear", "weight_bias"):
        yield _Link((ours,), their_names, form, ())
        return
    # A bias has no matrix to transpose.
    for kind in ("weight", "bias"):
        form_of_array: Form = "transposed" if (form, kind) == ("linear", "weight") else "equal"
        yield _Link(
            tuple(_insert_kind(name, kind) for name in our_names),
            tuple(_insert_kind(name, kind) for name in their_names),
            form_of_array,
            our_sizes or their_sizes,
        )


def _expand_braces(name: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names that a name with braces stands for and the relative sizes of their arrays.

    A name without braces stands for itself and has no sizes.
    """
    match = _BRACES.search(name)
    if match is None:
        return (name,), ()
    words = match[1].split(",")
    sizes = tuple(2 if word == "kv" else 1 for word in words)
    return tuple(name.replace(match[0], word) for word in words), sizes


def _insert_kind(name: str, kind: str) -> str:
    return name.replace("*", kind) if "*" in name else f"{name}.{kind}"


def _insert_number(name: str, number: int | str) -> str:
    words = [str(number) if word == "N" else word for word in name.split(".")]
    return ".".join(words)


def _to_our_form(array: np.ndarray, form: Form) -> np.ndarray:
    if form == "transposed":
        return array.T
    if form == "token":
        return array.reshape(1, 1, -1)
    if form == "grid" and array.ndim == 2:
        return array[None]
    if form == "scalar" and array.size == 1:
        return array.reshape(1)
    return array


def _to_their_form(array: np.ndarray, form: Form) -> np.ndarray:
    if form == "transposed":
        return array.T
    if form == "token":
        return array.reshape(-1)
    if form == "grid":
        return array[0]
    if form == "scalar":
        return array.reshape(())
    return array
