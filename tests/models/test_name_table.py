"""Arrays of other implementations become ours by a table, or are refused by their names."""

import numpy as np
import pytest

from ernie_vil2.models.weights.name_table import LazyArrays, NameTable

JOINED = NameTable([("qkv", "{q,k,v}", "weight_bias")], {})
SPLICED = NameTable([("positions", "{first,rest}", "spliced")], {}, num_first_rows=2)


@pytest.mark.parametrize(
    ("table", "array", "shapes", "culprit"),
    [
        (JOINED, "qkv.weight", {"q": (3, 3), "k": (3, 3), "v": (4, 3)}, r"q\.weight .*v\.weight .*4"),
        (JOINED, "qkv.weight", {"q": (3, 3), "k": (3,), "v": (3, 3)}, r"q\.weight .*k\.weight"),
        (SPLICED, "positions", {"first": (4, 2), "rest": (4, 3)}, "first .*rest"),
        (SPLICED, "positions", {"first": (4,), "rest": (4, 3)}, "first .*rest"),
        (SPLICED, "positions", {"first": (), "rest": ()}, "first .*"),
    ],
)
def test_arrays_that_do_not_fit_together_are_named(table, array, shapes, culprit):
    suffixes = [""] if table is SPLICED else [".weight", ".bias"]
    arrays = {f"{name}{suffix}": np.zeros(shape) for name, shape in shapes.items() for suffix in suffixes}
    with pytest.raises(ValueError, match=culprit):
        table.to_ours(arrays)[array]


def test_arrays_are_not_computed_by_looking_for_their_names():
    made = []

    def make_array():
        made.append(np.zeros(3))
        return made[-1]

    arrays = LazyArrays({f"qkv.{kind}": make_array for kind in ("weight", "bias")})
    theirs = JOINED.to_theirs(arrays)
    assert "qkv.bias" in arrays and "q.bias" not in arrays and "k.weight" in theirs
    assert not made
