"""Ranks that disagree are named, and an error of one of three ranks ends all of them."""

import json
import time

import paddle.distributed as dist
import pytest

from ernie_vil2.data.samples import BadSample, Sample, TooManyBadSamples
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.collectives import (
    Disagreement,
    check_agreement,
    errors_on_all_ranks,
    hash_samples,
    run_on_first_rank_first,
)
from ernie_vil2.parallel.ranks import join_ranks
from ernie_vil2.training.update import BatchGate, StopSignals
from tests.support.ranks import run_ranks


def add_ranks(monkeypatch, *objects):
    """Make this process rank 0 of several ranks, whose further ranks gather these objects."""
    monkeypatch.setattr(collectives, "all_gather_object", lambda local_object: [local_object, *objects])


def test_rank_that_differs_is_named_for_every_key(monkeypatch):
    add_ranks(
        monkeypatch,
        {"Training": {"steps": 8, "rate": 0.1}, "data": "ab", "versions": {}},
        {"Training": {"steps": 9, "rate": 0.1}, "data": "ab", "versions": {}},
        {"Training": {"steps": 8, "rate": 0.1}, "versions": {"numpy": "1"}},
    )
    facts = {"Training": {"steps": 8, "rate": 0.1}, "data": "ab", "versions": {}}
    with pytest.raises(Disagreement) as error:
        check_agreement(facts)
    culprits = [line.split(" has ")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert culprits == ["Training.steps: rank 2", "data: rank 3", "versions.numpy: rank 3"]

    add_ranks(monkeypatch, facts)
    check_agreement(facts)
    # The first rank differs from the majority.
    add_ranks(monkeypatch, {"steps": 8}, {"steps": 8})
    with pytest.raises(Disagreement, match="steps: rank 0 has 7; rank 1 has 8"):
        check_agreement({"steps": 7})


class Rows(list):
    """A stream of a single source; a string is the location of a sample elsewhere."""

    def is_local(self, position):
        return not isinstance(super().__getitem__(position), str)

    def describe_location(self, position):
        return super().__getitem__(position)

    def __getitem__(self, position):
        sample = super().__getitem__(position)
        if isinstance(sample, Exception):
            raise sample
        return 0, sample


def test_hash_depends_on_order_texts_and_images():
    samples = [Sample(f"i{n}", f"t{n}", b"image %d" % n, {"zh": f"text {n}"}) for n in range(5)]
    changed_text = Sample("i2", "t2", b"image 2", {"zh": "another"})
    changed_image = Sample("i2", "t2", b"image 3", {"zh": "text 2"})
    broken = BadSample("broken image", "i2")
    variants = [[*samples[:2], sample, *samples[3:]] for sample in (samples[2], changed_text, changed_image, broken)]
    variants.append(samples[::-1])
    assert len({hash_samples(Rows(variant), 5) for variant in variants}) == len(variants)
    assert hash_samples(Rows(samples), 3) == hash_samples(Rows([*samples[:3], broken]), 3)
    assert hash_samples(Rows(["s3://a.tar, 1"]), 1) != hash_samples(Rows(["s3://a.tar, 2"]), 1)


def describe_outcome(function, *arguments):
    """Return the result of a call, or the type and message of its error."""
    try:
        return function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main(folder):
    """Write the outcomes of one of three ranks to `folder`/RANK.json."""
    rank, ranks = join_ranks()
    outcomes = {}

    def run_block(failing_ranks):
        with errors_on_all_ranks():
            if rank in failing_ranks:
                raise OSError(f"the disk of {rank}")
        return "went on"

    def fetch():
        if rank == 0:
            time.sleep(1)  # the file would be missing if the other ranks did not wait
            (folder / "fetched").write_text("once")
            return "fetched"
        return (folder / "fetched").read_text()

    def fail_to_fetch(failing_rank):
        (folder / f"tried_{failing_rank}_{rank}").touch()
        if rank == failing_rank:
            raise ValueError(f"no such model on {rank}")

    for failing_ranks in ([], [0], [2], [1, 2]):
        outcomes[f"block {failing_ranks}"] = describe_outcome(run_block, failing_ranks)
    outcomes["fetched"] = describe_outcome(run_on_first_rank_first, fetch)
    for failing_rank in (0, 1):
        outcome = describe_outcome(run_on_first_rank_first, lambda rank=failing_rank: fail_to_fetch(rank))
        outcomes[f"not fetched {failing_rank}"] = outcome
    gate = BatchGate(ranks, StopSignals())
    error = TooManyBadSamples("3 of 4 samples") if rank == 1 else None
    outcomes["gate"] = [
        describe_outcome(gate.admit_batch, 4, 2),
        describe_outcome(gate.admit_batch, rank, 1),
        describe_outcome(gate.admit_batch, 4, 2, error),
    ]
    (folder / f"{rank}.json").write_text(json.dumps(outcomes))
    dist.barrier()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Return the outcomes of three ranks, and which of them have tried to fetch."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(main, folder, ranks=3)
    attempts = sorted(path.name for path in folder.glob("tried_*"))
    return [json.loads((folder / f"{rank}.json").read_text()) | {"attempts": attempts} for rank in range(3)]


@pytest.mark.parametrize("failing_ranks", [[], [0], [2], [1, 2]])
def test_error_of_a_rank_ends_all_ranks_with_its_cause(outcomes, failing_ranks):
    for rank in range(3):
        if not failing_ranks:
            expected = "went on"
        elif rank in failing_ranks:
            expected = f"OSError: the disk of {rank}"
        else:
            expected = f"FailedRank: rank {failing_ranks[0]}: the disk of {failing_ranks[0]}"
        assert outcomes[rank][f"block {failing_ranks}"] == expected


def test_first_rank_fetches_before_all_others(outcomes):
    assert [outcome["fetched"] for outcome in outcomes] == ["fetched", "once", "once"]


def test_ranks_do_not_fetch_after_the_first_rank_failed(outcomes):
    errors = [outcome["not fetched 0"].partition(":")[0] for outcome in outcomes]
    assert errors == ["ValueError", "FailedRank", "FailedRank"]
    assert outcomes[2]["not fetched 1"].startswith("FailedRank: rank 1")
    assert outcomes[0]["attempts"] == ["tried_0_0", "tried_1_0", "tried_1_1", "tried_1_2"]


def test_too_many_bad_samples_of_a_rank_end_all_ranks(outcomes):
    errors = "FailedRank: rank 1", "TooManyBadSamples", "FailedRank: rank 1"
    for outcome, error in zip(outcomes, errors, strict=True):
        assert outcome["gate"][:2] == [True, False] and outcome["gate"][2].startswith(error)
