"""What ranks have to agree on, and an error of one of three ranks, which ends all of them."""

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


def among(monkeypatch, *others):
    """Makes this process one of several ranks, the first, by what the others say."""
    monkeypatch.setattr(collectives, "all_gather_object", lambda own: [own, *others])


def test_who_differs_is_named_in_every_key(monkeypatch):
    among(
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

    among(monkeypatch, facts)
    check_agreement(facts)  # which all have
    # The first rank is the odd one.
    among(monkeypatch, {"steps": 8}, {"steps": 8})
    with pytest.raises(Disagreement, match="steps: rank 0 has 7; rank 1 has 8"):
        check_agreement({"steps": 7})


class Rows(list):
    """A stream of one source."""

    def is_local(self, position):
        return not isinstance(super().__getitem__(position), str)

    def describe_location(self, position):
        return super().__getitem__(position)

    def __getitem__(self, position):
        sample = super().__getitem__(position)
        if isinstance(sample, Exception):
            raise sample
        return 0, sample


def test_a_digest_sees_order_texts_and_images():
    samples = [Sample(f"i{n}", f"t{n}", b"image %d" % n, {"zh": f"text {n}"}) for n in range(5)]
    other_text = Sample("i2", "t2", b"image 2", {"zh": "another"})
    other_image = Sample("i2", "t2", b"image 3", {"zh": "text 2"})
    broken = BadSample("broken image", "i2")
    variants = [[*samples[:2], changed, *samples[3:]] for changed in (samples[2], other_text, other_image, broken)]
    variants.append(samples[::-1])
    assert len({hash_samples(Rows(variant), 5) for variant in variants}) == len(variants)
    assert hash_samples(Rows(samples), 3) == hash_samples(Rows([*samples[:3], broken]), 3)
    assert hash_samples(Rows(["s3://a.tar, 1"]), 1) != hash_samples(Rows(["s3://a.tar, 2"]), 1)


def ended(action):
    try:
        return action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main(folder):
    """As one of three ranks: leave what it finds in `folder`/RANK.json."""
    rank, ranks = join_ranks()
    found = {}

    def in_a_block(failing):
        with errors_on_all_ranks():
            if rank in failing:
                raise OSError(f"the disk of {rank}")
        return "went on"

    def fetched():
        if rank == 0:
            time.sleep(1)
            (folder / "fetched").write_text("once")
            return "fetched"
        return (folder / "fetched").read_text()

    def not_fetched(failing):
        (folder / f"tried_{failing}_{rank}").touch()
        if rank == failing:
            raise ValueError(f"no such model on {rank}")

    for failing in ([], [0], [2], [1, 2]):
        found[f"block {failing}"] = ended(lambda failing=failing: in_a_block(failing))
    found["fetched"] = ended(lambda: run_on_first_rank_first(fetched))
    for failing in (0, 1):
        found[f"not fetched {failing}"] = ended(
            lambda failing=failing: run_on_first_rank_first(lambda: not_fetched(failing))
        )
    gate = BatchGate(ranks, StopSignals())
    error = TooManyBadSamples("3 of 4 samples") if rank == 1 else None
    found["gate"] = [ended(lambda: gate.admit_batch(4, 2)), ended(lambda: gate.admit_batch(rank, 1)),
                     ended(lambda: gate.admit_batch(4, 2, error))]  # fmt: skip
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(main, folder, ranks=3)
    tried = sorted(path.name for path in folder.glob("tried_*"))
    return [json.loads((folder / f"{rank}.json").read_text()) | {"tried": tried} for rank in range(3)]


@pytest.mark.parametrize("failing", [[], [0], [2], [1, 2]])
def test_an_error_of_one_rank_ends_all_with_its_cause(found, failing):
    for rank in range(3):
        expected = "went on" if not failing else f"FailedRank: rank {failing[0]}: the disk of {failing[0]}"
        if rank in failing:
            expected = f"OSError: the disk of {rank}"
        assert found[rank][f"block {failing}"] == expected


def test_the_first_rank_fetches_and_the_others_find_it(found):
    assert [of_rank["fetched"] for of_rank in found] == ["fetched", "once", "once"]


def test_what_the_first_rank_cannot_fetch_the_others_do_not_try(found):
    assert [of_rank["not fetched 0"].partition(":")[0] for of_rank in found] == ["ValueError", *["FailedRank"] * 2]
    assert found[2]["not fetched 1"].startswith("FailedRank: rank 1")
    assert found[0]["tried"] == ["tried_0_0", "tried_1_0", "tried_1_1", "tried_1_2"]


def test_too_many_bad_samples_of_one_rank_end_all(found):
    for of_rank, error in zip(found, ("FailedRank: rank 1", "TooManyBadSamples", "FailedRank: rank 1"), strict=True):
        assert of_rank["gate"][:2] == [True, False] and of_rank["gate"][2].startswith(error)
