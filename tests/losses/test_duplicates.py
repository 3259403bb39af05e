import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.losses import NoNegatives, refuse_without_negatives
from tests.support.limits import examples

KEYS = st.integers(0, 3) | st.integers(2**62, 2**62 + 1)


@examples(60)
@given(st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=9))
def test_a_batch_in_which_most_rows_lack_a_negative_is_refused(ids):
    ids = np.array(ids, np.int64)
    without = (ids[:, None] == ids[None]).any(axis=2).all(axis=1).sum()
    if len(ids) > 1 and without > len(ids) / 2:
        with pytest.raises(NoNegatives, match=f"^{without} of the {len(ids)} rows"):
            refuse_without_negatives(ids)
    else:
        refuse_without_negatives(ids)
