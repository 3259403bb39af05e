import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.losses import NoNegatives, refuse_without_negatives

KEYS = st.integers(0, 3) | st.integers(2**62, 2**62 + 1)


@given(st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=9))
def test_a_batch_is_refused_when_most_rows_share_an_image_or_a_text_with_every_other(ids):
    ids = np.array(ids, np.int64)
    without = (ids[:, None] == ids[None]).any(axis=2).all(axis=1).sum()
    if len(ids) > 1 and without > len(ids) / 2:
        with pytest.raises(NoNegatives, match=f"^{without} of the {len(ids)} rows of a batch have no negative left"):
            refuse_without_negatives(ids)
    else:
        refuse_without_negatives(ids)


def test_the_message_says_what_the_rows_share():
    with pytest.raises(
        NoNegatives, match="one image is in 2 rows, one text in 4. Look at images, captions and Data.te"
    ):
        refuse_without_negatives(np.array([[1, 5], [2, 5], [1, 5], [3, 5]]))
