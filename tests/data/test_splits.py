"""Division of a source into parts: complete, without shared images or groups, each about its share."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2 import cli
from ernie_vil2.config import load_config
from ernie_vil2.data.readers import ShardedSource, open_benchmarks, open_sources
from ernie_vil2.data.readers.splits import Division, Part, make_holdout_part, select_rows
from ernie_vil2.data.samples import BadSample, Reason, Sample, Statement
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.io.terminal import RunError
from tests.support.limits import limit_examples
from tests.support.shapes import encode_png

PARTS = {"train": 0.8, "val": 0.1, "test": 0.1}


class Rows(list):
    """A shard of rows (image, sku, category, captions...); a row that is None cannot be read."""

    name, files = "rows", ()

    def __getitem__(self, index):
        row = super().__getitem__(index)
        if row is None:
            raise BadSample(Reason.NO_IMAGE, str(index))
        image, sku, category, *captions = row
        fields = {"sku": sku, "category": category}
        fields = {name: value for name, value in fields.items() if value is not None}
        texts = dict(zip(("zh", "en"), captions or [f"{index} {image}"], strict=False))
        return Sample(f"{index}", "x", image, texts, {}, fields)

    def release(self):
        pass


def make_source(*shards):
    return ShardedSource([Rows(rows) for rows in shards])


ROW = st.none() | st.tuples(st.sampled_from([b"%d" % n for n in range(40)]), st.integers(0, 30) | st.none(), st.none())


@limit_examples(30)
@given(st.lists(ROW, min_size=1, max_size=80), st.lists(ROW, max_size=20), st.integers(0, 5))
def test_no_image_and_no_group_is_in_two_parts(first, second, seed):
    rows = [*first, *second]
    source = make_source(first, second) if second else make_source(first)
    try:
        rows_by_part = Division(PARTS, "sku", seed=seed).assign_rows(source)
    except ValueError as error:
        assert "would be empty" in str(error) or "no sample has the field sku" in str(error)  # noqa: PT017  -- there may be no error
        return
    assert sorted(np.concatenate(list(rows_by_part.values())).tolist()) == list(range(len(rows)))
    part_of_image, part_of_sku = {}, {}
    for part_name, rows_of_part in rows_by_part.items():
        selected = select_rows(source, rows_of_part)
        assert len(selected) == len(rows_of_part)
        for number, row in enumerate(rows_of_part.tolist()):
            if rows[row] is None:  # unreadable rows are all in train
                assert part_name == "train"
                continue
            image, sku, _ = rows[row]
            assert selected[number].image == image and part_of_image.setdefault(image, part_name) == part_name
            assert sku is None or part_of_sku.setdefault(sku, part_name) == part_name


def test_parts_have_their_shares_in_every_stratum():
    rows = [(b"%d" % n, n // 2, "b" if n % 10 > 6 else "a") for n in range(1000)]
    division = Division(PARTS, stratify_by="category")
    rows_by_part = division.assign_rows(make_source(rows))
    for category in "ab":
        total = sum(row[2] == category for row in rows)
        for part_name, share in PARTS.items():
            count = sum(rows[row][2] == category for row in rows_by_part[part_name].tolist())
            assert abs(count - share * total) <= 2
    in_two_shards = division.assign_rows(make_source(rows[:500], rows[500:]))
    with_another_seed = Division(PARTS, stratify_by="category", seed=1).assign_rows(make_source(rows))
    assert all((in_two_shards[part_name] == rows_by_part[part_name]).all() for part_name in PARTS)
    assert set(with_another_seed["test"].tolist()) != set(rows_by_part["test"].tolist())


@limit_examples(20)
@given(st.lists(st.integers(0, 60), min_size=60, max_size=160), st.integers(0, 5))
def test_only_frequent_captions_are_in_two_parts(numbers, seed):
    rows = [(b"%d" % row, None, None, f"标题{number}", f"Title {number // 2}") for row, number in enumerate(numbers)]
    rows_by_part = Division({"train": 0.6, "test": 0.4}, seed=seed).assign_rows(make_source(rows))
    captions = {"train": [], "test": []}
    for part_name, rows_of_part in rows_by_part.items():
        for row in rows_of_part:
            captions[part_name] += rows[row][3:]
    counts = Counter(captions["train"] + captions["test"])
    for caption in set(captions["train"]) & set(captions["test"]):
        assert 20 * counts[caption] > len(rows)  # frequent: in more than a twentieth of the rows


def test_captions_equal_but_for_case_and_spaces_stay_together(capsys):
    rows = []
    for row in range(400):
        caption = "A red cup" if row % 2 == 0 else " a  Red cup "
        rows.append((b"%d" % row, None, None, f"{caption} {row // 4}"))  # four rows have the same one
    rows_by_part = Division(PARTS).assign_rows(make_source(rows))
    for part_name, rows_of_part in rows_by_part.items():
        assert len(rows_of_part) / len(rows) == pytest.approx(PARTS[part_name], abs=0.02)
        assert set(np.bincount(rows_of_part // 4)) <= {0, 4}
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("count", "is_divided"), [(20, False), (21, True)])
def test_caption_of_more_than_a_twentieth_may_be_divided(capsys, count, is_divided):
    rows = [(b"%d" % row, None, None, "cup" if row < count else f"{row // 2}") for row in range(400)]
    rows_by_part = Division({"train": 0.5, "test": 0.5}).assign_rows(make_source(rows))
    parts_with_cups = [part_name for part_name, rows_of_part in rows_by_part.items() if (rows_of_part < count).any()]
    assert (len(parts_with_cups) == 2) == is_divided
    assert ('"cup"' in capsys.readouterr().err) == is_divided
    for part_name, rows_of_part in rows_by_part.items():
        # The rows 2 n and 2 n + 1 with another caption stay together.
        pairs = set(rows_of_part[rows_of_part >= 22].tolist())
        assert {row ^ 1 for row in pairs} == pairs, part_name


def test_captions_that_chain_all_samples_are_divided(capsys):
    # Every sample shares one caption with its predecessor and another one with its successor.
    rows = [(b"%d" % row, row // 2, None, f"标题{row // 2}", f"title {(row + 1) // 2}") for row in range(200)]
    rows_by_part = Division(PARTS, "sku").assign_rows(make_source(rows))
    shares = {part_name: len(rows_of_part) / 200 for part_name, rows_of_part in rows_by_part.items()}
    assert shares == pytest.approx(PARTS, abs=0.02)
    assert "captions" in capsys.readouterr().err


def test_group_of_two_tables_is_one_whether_it_is_a_number_or_a_text():
    shards = []
    for shard, convert in enumerate((int, float, str)):
        shards.append([(b"%d %d" % (shard, number), convert(number), None) for number in range(40)])
    rows_by_part = Division({"train": 0.5, "test": 0.5}, "sku").assign_rows(make_source(*shards))
    assert set(rows_by_part["train"] % 40).isdisjoint(rows_by_part["test"] % 40)


@pytest.mark.parametrize("missing", [None, float("nan"), "", " "])
def test_rows_without_a_group_are_no_group(missing):
    rows = [(b"%d" % row, missing if row % 2 else row // 4, None) for row in range(80)]
    rows_by_part = Division({"train": 0.5, "test": 0.5}, "sku").assign_rows(make_source(rows), quiet=True)
    assert all((rows_of_part % 2 == 1).any() for rows_of_part in rows_by_part.values())


def test_parallel_texts_without_images_are_divided(tmp_path):
    lines = ["caption_zh,caption_en", *(f"句子{row // 2},sentence {row}" for row in range(60))]
    (tmp_path / "texts.csv").write_text("\n".join(lines), encoding="utf-8")
    source = open_sources([str(tmp_path / "texts.csv")], layout="texts")
    for rows in Division(PARTS).assign_rows(source).values():
        # The rows 2 n and 2 n + 1 have the same Chinese sentence.
        assert {row ^ 1 for row in rows.tolist()} == set(rows.tolist())


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (({"a": 0.5, "b": 0.6},), "sum to 1"),
        ((PARTS, "brand"), "brand; fields here: sku, category"),
        ((PARTS, None, "brand"), "brand"),
        ((PARTS,), "part val would be empty"),
    ],
)
def test_error_names_why_a_source_cannot_be_divided(monkeypatch, arguments, culprit):
    source = make_source([(b"1", 1, "x")] * 5)
    with pytest.raises(ValueError, match=culprit):
        Division(*arguments).assign_rows(source)
    monkeypatch.setattr(ShardedSource, "has_remote_shards", True)
    monkeypatch.setattr(Rows, "__getitem__", lambda *_: pytest.fail("a remote row was read"))
    with pytest.raises(ValueError, match="copy them here"):
        Division(PARTS).assign_rows(source)


def test_samples_without_a_group_are_counted_once(capsys):
    source = make_source([(b"%d" % n, None if n % 4 == 0 else n // 2, None) for n in range(40)])
    division = Division(PARTS, "sku")
    for part_name in PARTS:
        Part(division, part_name).select(source)
    assert capsys.readouterr().err.count("10 of 40 samples have no sku") == 1


# Two headers that are renamed to image and caption, a word that YAML reads as a boolean, spaces, and a number.
HEADERS = ["图片", "标题", "No", "Article Number", " 类目 ", "2024"]


@pytest.fixture
def table(tmp_path):
    """Write a table of sixty images; each value under the last four headers is in four rows, each title in two."""
    lines = [",".join(HEADERS)]
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(encode_png(np.full((8, 8, 3), 4 * number, np.uint8)))
        value = f"V{number // 4}"
        lines.append(",".join([f"{number}.png", f"标题{number // 2}", value, value, value, value]))
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "table.csv"


def read_numbers(source):
    """Return the numbers of the images of a source."""
    return {int(source[row].image_name.removesuffix(".png")) for row in range(len(source))}


def test_holdout_divides_training_and_scored_data(table):
    settings = [f"Data.train=[{table}]", "Training.global_batch=8", "Data.val=[{split: val}]",
                "Data.holdout={val: 0.2, test: 0.2, group_by: Article Number}"]  # fmt: skip
    config = load_config(None, settings)
    stream = SampleStream(config)
    images_of_parts = [{stream[position][1].image_name for position in range(stream.num_samples)}]
    for part_name, scored in (("val", config.Data.val_config), ("test", config.Data.test_config)):
        (benchmark,) = open_benchmarks(DataSpec.from_scored(config, scored, part_name)).values()
        images_of_parts.append({image.id for image in benchmark.images})
    assert sum(map(len, images_of_parts)) == 60 == len(set().union(*images_of_parts))
    assert {len(images) % 4 for images in images_of_parts} == {0}  # whole groups of four
    explicit = load_config(None, [*settings, f"Data.test=[{table}]"])
    assert DataSpec.from_scored(explicit, explicit.Data.test_config, "test").holdout is None


@pytest.mark.parametrize(("header", "group_size"), [("No", 4), ("ARTICLE NUMBER ", 4), ("2024", 4), ("标题", 2)])
def test_samples_are_grouped_by_the_header_of_the_table(table, tmp_path, header, group_size):
    config = load_config(None, [f"Data.train=[{table}]", "Training.global_batch=8", "Data.val=[{split: val}]",
                                f"Data.holdout={{val: 0.2, test: 0.2, group_by: {header}}}"])  # fmt: skip
    numbers_by_part = {}
    for part_name in PARTS:
        source = open_sources([str(table)])
        numbers_by_part[part_name] = read_numbers(make_holdout_part(config.Data.holdout, part_name).select(source))
    output = str(tmp_path / "parts")
    command = [str(table), "--output", output, "--parts", "0.6", "0.2", "0.2", "--group-by", header]
    assert cli.run("prepare", command) == 0
    assert numbers_by_part == {part_name: read_numbers(open_sources([output], split=part_name)) for part_name in PARTS}
    assert sum(map(len, numbers_by_part.values())) == 60
    for part_name, numbers in numbers_by_part.items():
        whole_groups = set()
        for number in numbers:
            first = number // group_size * group_size
            whole_groups.update(range(first, first + group_size))
        assert numbers == whole_groups, part_name


def test_row_of_a_part_is_described_by_its_number_in_the_file():
    source = make_source([(b"%d" % number, None, None) for number in range(5)], [(b"x", None, None)] * 3)
    part = select_rows(source, np.array([1, 4, 7]))
    assert [part.describe_location(index) for index in range(3)] == ["rows, 2", "rows, 5", "rows, 3"]
    part_of_part = select_rows(part, np.array([1]))
    assert part_of_part.describe_location(0) == "rows, 5"


def test_error_in_a_users_shard_is_explained_in_a_part_too():
    class FaultyRows(Rows):
        def __getitem__(self, index):
            raise TypeError("no text")

    part = select_rows(ShardedSource([FaultyRows([1, 2, 3])]), np.array([2]))
    with pytest.raises(RunError, match=r"rows, 3: .*FaultyRows raised TypeError"):
        part[0]


def test_either_image_of_a_statement_keeps_it_with_others():
    class Statements(Rows):
        def __getitem__(self, index):
            left, right = list.__getitem__(self, index)
            return Statement(f"{index}", "x", left, {}, text=f"text {index}", label="True", right=right)

    # Four statements on a chain of images: 0-1, 1-2, 2-3, 3-4; and so on.
    pairs = []
    for first in range(0, 200, 10):
        pairs += [(b"%d" % image, b"%d" % (image + 1)) for image in range(first, first + 4)]
    source = ShardedSource([Statements(pairs)])

    rows_by_part = Division({"train": 0.5, "val": 0.5}).assign_rows(source)

    images_of_parts = [{image for row in rows for image in pairs[row]} for rows in rows_by_part.values()]
    assert images_of_parts[0].isdisjoint(images_of_parts[1])
    assert [len(rows) for rows in rows_by_part.values()] == [40, 40]


@pytest.mark.parametrize("field", ["group_by", "stratify_by"])
def test_nan_is_no_value_of_a_field(field, capsys):
    rows = [(b"%d" % number, float("nan"), float("nan")) for number in range(100)]
    name = "sku" if field == "group_by" else "category"
    parts = Division({"train": 0.8, "val": 0.2}, **{field: name}).assign_rows(make_source(rows))
    assert [len(part) for part in parts.values()] == [80, 20]
    assert ("100 of 100 samples have no sku" in capsys.readouterr().err) == (field == "group_by")


@pytest.mark.parametrize("shares", ["{val: 0.6, test: 0.4}", "{val: -0.1}"])
def test_holdout_must_leave_data_to_train_on(shares):
    with pytest.raises(ValueError, match="holdout"):
        load_config(None, [f"Data.holdout={shares}"])
