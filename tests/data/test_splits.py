"""Parts of a source: together all of it, none with another's image or group, each about its share."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2 import cli
from ernie_vil2.config import load_config
from ernie_vil2.data.readers import ShardedSource, open_benchmarks, open_sources
from ernie_vil2.data.samples import BadSample, Reason, Sample
from ernie_vil2.data.splits import Division, Part, part_of
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.evaluation.scorer import Data
from tests.support.limits import examples
from tests.support.shapes import draw, png

PARTS = {"train": 0.8, "val": 0.1, "test": 0.1}


def test_a_program_may_import_it_before_the_readers():
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", "import ernie_vil2.data.splits"]).returncode == 0


class Rows:
    """A shard of samples: image, sku and category of each; None cannot be read."""

    name, files = "rows", ()

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        if self._rows[index] is None:
            raise BadSample(Reason.NO_IMAGE, str(index))
        image, sku, category = self._rows[index]
        fields = {"sku": sku, "category": category}
        return Sample(f"{index}", "x", image, {"": "x"}, {}, {k: v for k, v in fields.items() if v is not None})

    def release(self):
        pass


def source(*shards):
    return ShardedSource([Rows(rows) for rows in shards])


ROW = st.none() | st.tuples(st.sampled_from([b"%d" % n for n in range(40)]), st.integers(0, 30) | st.none(), st.none())


@examples(40)
@given(st.lists(ROW, min_size=1, max_size=80), st.lists(ROW, max_size=20), st.integers(0, 5))
def test_no_image_and_no_group_is_in_two_parts(first, second, seed):
    rows = [*first, *second]
    whole = source(first, second) if second else source(first)
    try:
        parts = Division(PARTS, "sku", seed=seed).rows(whole)
    except ValueError as error:
        assert "would be empty" in str(error) or "no sample has the field sku" in str(error)
        return
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(rows)))
    for column in (0, 1):
        owners = {}
        for name, chosen in parts.items():
            for row in chosen.tolist():
                if rows[row] is not None and rows[row][column] is not None:
                    assert owners.setdefault(rows[row][column], name) == name
    for name, chosen in parts.items():
        part = part_of(whole, chosen)
        assert len(part) == len(chosen)
        for number, row in enumerate(chosen.tolist()):
            if rows[row] is None:
                assert name == "train"
            else:
                assert part[number].image == rows[row][0]


def test_parts_have_their_shares_in_every_stratum_and_follow_from_the_seed():
    rows = [(b"%d" % n, n // 2, ("a", "b")[n % 10 > 6]) for n in range(2000)]
    division = Division(PARTS, stratify_by="category")
    parts = division.rows(source(rows))
    for category in "ab":
        total = sum(row[2] == category for row in rows)
        for name, share in PARTS.items():
            found = sum(rows[row][2] == category for row in parts[name].tolist())
            assert abs(found - share * total) <= 2
    again = division.rows(source(rows[:1000], rows[1000:]))
    other = Division(PARTS, stratify_by="category", seed=1).rows(source(rows))
    assert all((again[name] == parts[name]).all() for name in PARTS)
    assert set(other["test"].tolist()) != set(parts["test"].tolist())


def test_groups_of_any_size_keep_the_shares():
    random = np.random.default_rng(0)
    rows = [(b"%d" % n, int(random.geometric(0.02)), None) for n in range(3000)]
    parts = Division(PARTS, "sku").rows(source(rows))
    assert len(parts["test"]) / len(rows) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"a": 0.5, "b": 0.6},), "shares above 0 that sum to 1"),
        ((PARTS, "brand"), "no sample has the field brand; fields here: sku, category"),
        ((PARTS, None, "brand"), "no sample has the field brand"),
    ],
)
def test_what_cannot_be_divided_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Division(*arguments).rows(source([(b"1", 1, "x")] * 5))
    with pytest.raises(
        ValueError, match="the part val would be empty: 5 samples are in 1 group of which each stays in one part"
    ):
        Division(PARTS).rows(source([(b"1", 1, "x")] * 5))


def test_samples_without_a_group_are_counted_once(capsys):
    whole = source([(b"%d" % n, None if n % 4 == 0 else n // 2, None) for n in range(40)])
    division = Division(PARTS, "sku")
    division.rows(whole)
    message = "10 of 40 samples have no sku: only those of one image are kept together\n"
    assert capsys.readouterr().err == message
    for name in PARTS:
        Part(division, name).of(whole)
    Division(PARTS).rows(whole)
    assert capsys.readouterr().err == message


def test_what_is_fetched_is_not_divided_and_not_read_for_it(monkeypatch):
    elsewhere = source([(b"1", 1, "x")] * 5)
    monkeypatch.setattr(ShardedSource, "fetches", True)
    monkeypatch.setattr(Rows, "__getitem__", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="Data.holdout and --parts divide files that lie here.*copy them here"):
        Division(PARTS).rows(elsewhere)


@pytest.fixture
def shop(tmp_path):
    """Forty images of twenty articles, each with two titles."""
    random, lines = np.random.default_rng(1), ["图片,标题,货号"]
    for number in range(40):
        shape, colour = ("disc", "square", "bar")[number % 3], random.integers(0, 255, 3)
        (tmp_path / f"{number}.png").write_bytes(png(draw(tuple(map(int, colour)), shape, random)))
        lines += [f"{number}.png,标题{number}{title},A{number // 2}" for title in "甲乙"]
    (tmp_path / "shop.csv").write_bytes("\n".join(lines).encode("gb18030"))
    return tmp_path


def test_prepare_writes_parts_that_are_splits(shop, tmp_path, capsys):
    command = [str(shop / "shop.csv"), "--output", str(tmp_path / "parts"), "--parts", "0.6", "0.2", "0.2"]
    assert cli.run("prepare", [*command, "--group-by", "货号"]) == 0
    printed = capsys.readouterr().out
    assert [line.partition(":")[0] for line in printed.splitlines() if "samples in 1 shard" in line] == [*PARTS]
    articles = {}
    for split in PARTS:
        found = open_sources([str(tmp_path / "parts")], split=split)
        articles[split] = Counter(found[row].fields["货号"] for row in range(len(found)))
        assert set(articles[split].values()) == {4}  # two images with two titles
    assert sum(map(len, articles.values())) == 20 == len(set().union(*articles.values()))
    assert len(open_sources([str(tmp_path / "parts")])) == sum(articles["train"].values())
    for arguments in (["--parts", "1"], ["--parts", "0.5", "0.6"], ["--group-by", "货号"]):
        assert cli.run("prepare", [*command[:3], *arguments]) == 2


def test_a_holdout_divides_what_is_trained_on_and_scored(shop):
    settings = [f"Data.train=[{shop / 'shop.csv'}]", "Training.global_batch=8", "Data.val=[{split: val}]",
                "Data.holdout={val: 0.2, test: 0.2, group_by: 货号}"]  # fmt: skip
    config = load_config(None, settings)
    stream = SampleStream(config)
    names = {"train": {stream[position][1].image_name for position in range(stream.samples)}}
    for part, scored in (("val", config.Data.validation), ("test", config.Data.tested)):
        (benchmark,) = Data.of_run(config, scored, part).benchmarks().values()
        names[part] = {image.id for image in benchmark.images}
        assert len(benchmark.texts) == 2 * len(benchmark.images)
    assert sum(map(len, names.values())) == 40 == len(set().union(*names.values()))
    assert {len(found) % 2 for found in names.values()} == {0}
    own = load_config(None, [*settings, f"Data.test=[{shop / 'shop.csv'}]"])
    assert Data.of_run(own, own.Data.tested, "test").part is None
    assert len(open_benchmarks(shop / "shop.csv")["zh"].images) == 40


@pytest.mark.parametrize("shares", ["{val: 0.6, test: 0.4}", "{val: 0, test: 0}", "{val: -0.1}"])
def test_a_holdout_leaves_something_to_train_on(shares):
    with pytest.raises(ValueError, match="holdout"):
        load_config(None, [f"Data.holdout={shares}"])
