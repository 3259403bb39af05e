"""An error of one of three ranks ends all of them, or they wait for it."""

import json

import pytest

from tests.support.agreement_worker import main
from tests.support.ranks import forked_ranks

RANKS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    forked_ranks(main, folder, ranks=RANKS)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("failing", [[], [0], [2], [1, 2]])
def test_an_error_of_one_rank_ends_all_with_its_cause(found, failing):
    for rank in range(RANKS):
        expected = "went on" if not failing else f"FailedRank: rank {failing[0]}: the disk of {failing[0]}"
        if rank in failing:
            expected = f"OSError: the disk of {rank}"
        assert found[rank][f"block {failing}"] == expected


def test_the_first_rank_fetches_and_the_others_find_it(found):
    assert [of_rank["fetched"] for of_rank in found] == ["fetched", "once", "once"]


def test_what_the_first_rank_cannot_fetch_the_others_do_not_try(found, folder):
    assert [of_rank["not fetched 0"].partition(":")[0] for of_rank in found] == ["ValueError", *["FailedRank"] * 2]
    assert found[2]["not fetched 1"].startswith("FailedRank: rank 1")
    assert sorted(path.name for path in folder.glob("tried_*")) == ["tried_0_0", "tried_1_0", "tried_1_1", "tried_1_2"]


def test_too_many_bad_samples_of_one_rank_end_all(found):
    for of_rank, error in zip(found, ("FailedRank: rank 1", "TooManyBadSamples", "FailedRank: rank 1"), strict=True):
        assert of_rank["gate"][:2] == [True, False] and of_rank["gate"][2].startswith(error)
