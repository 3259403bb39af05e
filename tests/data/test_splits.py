"""Parts of a source: together all of it, none with another's image or group, each about its share."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2 import cli
from ernie_vil2.config import load_config
from ernie_vil2.data.readers import ShardedSource, open_benchmarks, open_sources
from ernie_vil2.data.readers.splits import Division, Part, holdout_part, select_rows
from ernie_vil2.data.samples import BadSample, Reason, Sample
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.data.stream import SampleStream
from tests.support.limits import limit_examples
from tests.support.shapes import encode_png

PARTS = {"train": 0.8, "val": 0.1, "test": 0.1}


class Rows(list):
    """A shard of rows: image, sku, category and perhaps the captions of each; None cannot be read."""

    name, files = "rows", ()

    def __getitem__(self, index):
        row = super().__getitem__(index)
        if row is None:
            raise BadSample(Reason.NO_IMAGE, str(index))
        image, sku, category, *captions = row
        fields = {name: value for name, value in (("sku", sku), ("category", category)) if value is not None}
        texts = dict(zip(("zh", "en"), captions or [f"{index} {image}"], strict=False))
        return Sample(f"{index}", "x", image, texts, {}, fields)

    def release(self):
        pass


def source(*shards):
    return ShardedSource([Rows(rows) for rows in shards])


ROW = st.none() | st.tuples(st.sampled_from([b"%d" % n for n in range(40)]), st.integers(0, 30) | st.none(), st.none())


@limit_examples(30)
@given(st.lists(ROW, min_size=1, max_size=80), st.lists(ROW, max_size=20), st.integers(0, 5))
def test_no_image_and_no_group_is_in_two_parts(first, second, seed):
    rows = [*first, *second]
    whole = source(first, second) if second else source(first)
    try:
        parts = Division(PARTS, "sku", seed=seed).assign_rows(whole)
    except ValueError as error:
        assert "would be empty" in str(error) or "no sample has the field sku" in str(error)  # noqa: PT017  -- there may be no error
        return
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(rows)))
    owners = {}
    for name, chosen in parts.items():
        part = select_rows(whole, chosen)
        assert len(part) == len(chosen)
        for number, row in enumerate(chosen.tolist()):
            if rows[row] is None:
                assert name == "train"
                continue
            image, sku, _ = rows[row]
            assert part[number].image == image and owners.setdefault(image, name) == name
            assert sku is None or owners.setdefault(sku, name) == name


def test_parts_have_their_shares_in_every_stratum():
    rows = [(b"%d" % n, n // 2, ("a", "b")[n % 10 > 6]) for n in range(1000)]
    division = Division(PARTS, stratify_by="category")
    parts = division.assign_rows(source(rows))
    for category in "ab":
        total = sum(row[2] == category for row in rows)
        for name, share in PARTS.items():
            found = sum(rows[row][2] == category for row in parts[name].tolist())
            assert abs(found - share * total) <= 2
    again = division.assign_rows(source(rows[:500], rows[500:]))
    other = Division(PARTS, stratify_by="category", seed=1).assign_rows(source(rows))
    assert all((again[name] == parts[name]).all() for name in PARTS)
    assert set(other["test"].tolist()) != set(parts["test"].tolist())


@limit_examples(20)
@given(st.lists(st.integers(0, 60), min_size=60, max_size=160), st.integers(0, 5))
def test_no_caption_is_in_two_parts_but_frequent_ones(numbers, seed):
    """Captions of two languages; which are frequent is counted by hand here."""
    rows = [(b"%d" % row, None, None, f"标题{number}", f"Title {number // 2}") for row, number in enumerate(numbers)]
    parts = Division({"train": 0.6, "test": 0.4}, seed=seed).assign_rows(source(rows))
    captions = {name: [caption for row in chosen for caption in rows[row][3:]] for name, chosen in parts.items()}
    counts = Counter(captions["train"] + captions["test"])
    for caption in set(captions["train"]) & set(captions["test"]):
        assert 20 * counts[caption] > len(rows)


def test_equal_captions_stay_together_in_any_case_and_spaces(capsys):
    rows = [(b"%d" % row, None, None, ("A red cup", " a  Red cup ")[row % 2] + f" {row // 4}") for row in range(400)]
    parts = Division(PARTS).assign_rows(source(rows))
    for name, chosen in parts.items():
        assert len(chosen) / len(rows) == pytest.approx(PARTS[name], abs=0.02)
        assert set(np.bincount(chosen // 4)) <= {0, 4}
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("count", "divided"), [(20, False), (21, True)])
def test_a_caption_of_more_than_a_twentieth_may_be_divided(capsys, count, divided):
    rows = [(b"%d" % row, None, None, "cup" if row < count else f"{row // 2}") for row in range(400)]
    parts = Division({"train": 0.5, "test": 0.5}).assign_rows(source(rows))
    has_cups = [name for name, chosen in parts.items() if (chosen < count).any()]
    assert (len(has_cups) == 2) == divided
    assert ('"cup"' in capsys.readouterr().err) == divided
    for name, chosen in parts.items():  # the others stay together
        others = set(chosen[chosen >= 22].tolist())
        assert {row ^ 1 for row in others} == others, name


def test_captions_that_join_all_samples_are_not_kept_together(capsys):
    """Each sample shares one caption with the one before it and one with the next."""
    rows = [(b"%d" % row, row // 2, None, f"标题{row // 2}", f"title {(row + 1) // 2}") for row in range(200)]
    parts = Division(PARTS, "sku").assign_rows(source(rows))
    assert {name: len(chosen) / 200 for name, chosen in parts.items()} == pytest.approx(PARTS, abs=0.02)
    assert "captions" in capsys.readouterr().err


def test_parallel_texts_without_images_are_divided(tmp_path):
    lines = ["caption_zh,caption_en", *(f"句子{row // 2},sentence {row}" for row in range(60))]
    (tmp_path / "texts.csv").write_text("\n".join(lines), encoding="utf-8")
    whole = open_sources([str(tmp_path / "texts.csv")], layout="texts")
    parts = Division(PARTS).assign_rows(whole)
    for chosen in parts.values():
        assert {row ^ 1 for row in chosen.tolist()} == set(chosen.tolist())


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (({"a": 0.5, "b": 0.6},), "sum to 1"),
        ((PARTS, "brand"), "brand; fields here: sku, category"),
        ((PARTS, None, "brand"), "brand"),
        ((PARTS,), "part val would be empty"),
    ],
)
def test_what_cannot_be_divided_is_named(monkeypatch, arguments, culprit):
    whole = source([(b"1", 1, "x")] * 5)
    with pytest.raises(ValueError, match=culprit):
        Division(*arguments).assign_rows(whole)
    monkeypatch.setattr(ShardedSource, "has_remote_shards", True)
    monkeypatch.setattr(Rows, "__getitem__", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="copy them here"):
        Division(PARTS).assign_rows(whole)


def test_samples_without_a_group_are_counted_once(capsys):
    whole = source([(b"%d" % n, None if n % 4 == 0 else n // 2, None) for n in range(40)])
    division = Division(PARTS, "sku")
    for name in PARTS:
        Part(division, name).select(whole)
    assert capsys.readouterr().err.count("10 of 40 samples have no sku") == 1


HEADERS = ["图片", "标题", "No", "Article Number", " 类目 ", "2024"]
"""Of a table: two that have other names here, a word that YAML reads as a boolean, spaces, and a number."""


@pytest.fixture
def table(tmp_path):
    """Sixty images; under every header but the first two, four in a row have one value."""
    lines = [",".join(HEADERS)]
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(encode_png(np.full((8, 8, 3), 4 * number, np.uint8)))
        lines.append(",".join([f"{number}.png", f"标题{number // 2}", *[f"V{number // 4}"] * 4]))
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "table.csv"


def rows_of(source):
    return {int(source[row].image_name.removesuffix(".png")) for row in range(len(source))}


def test_a_holdout_divides_what_is_trained_on_and_scored(table):
    settings = [f"Data.train=[{table}]", "Training.global_batch=8", "Data.val=[{split: val}]",
                "Data.holdout={val: 0.2, test: 0.2, group_by: Article Number}"]  # fmt: skip
    config = load_config(None, settings)
    stream = SampleStream(config)
    parts = [{stream[position][1].image_name for position in range(stream.num_samples)}]
    for part, scored in (("val", config.Data.validation), ("test", config.Data.tested)):
        (benchmark,) = open_benchmarks(DataSpec.from_scored(config, scored, part)).values()
        parts.append({image.id for image in benchmark.images})
    assert sum(map(len, parts)) == 60 == len(set().union(*parts))
    assert {len(images) % 4 for images in parts} == {0}
    explicit = load_config(None, [*settings, f"Data.test=[{table}]"])
    assert DataSpec.from_scored(explicit, explicit.Data.tested, "test").holdout is None


@pytest.mark.parametrize(("header", "size"), [("No", 4), ("ARTICLE NUMBER ", 4), ("2024", 4), ("标题", 2)])
def test_samples_are_grouped_by_the_header_of_the_table(table, tmp_path, header, size):
    """By -o, as a number or word of YAML, too, and by --group-by."""
    config = load_config(None, [f"Data.train=[{table}]", "Training.global_batch=8", "Data.val=[{split: val}]",
                                f"Data.holdout={{val: 0.2, test: 0.2, group_by: {header}}}"])  # fmt: skip
    found = {
        name: rows_of(holdout_part(config.Data.holdout, name).select(open_sources([str(table)]))) for name in PARTS
    }
    output = str(tmp_path / "parts")
    command = [str(table), "--output", output, "--parts", "0.6", "0.2", "0.2", "--group-by", header]
    assert cli.run("prepare", command) == 0
    assert found == {name: rows_of(open_sources([output], split=name)) for name in PARTS}
    assert sum(map(len, found.values())) == 60
    for name, rows in found.items():
        assert rows == {size * (row // size) + other for row in rows for other in range(size)}, name


@pytest.mark.parametrize("shares", ["{val: 0.6, test: 0.4}", "{val: -0.1}"])
def test_a_holdout_leaves_something_to_train_on(shares):
    with pytest.raises(ValueError, match="holdout"):
        load_config(None, [f"Data.holdout={shares}"])
