"""Runs of a curation: stopped and continued, with a new shard, in shares, on several nodes, and used by prepare."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pyarrow as pa
import pytest
from pyarrow import parquet

from ernie_vil2 import cli
from ernie_vil2.apps.curation import curate
from ernie_vil2.apps.curation import run as running
from ernie_vil2.apps.curation.measures import measure_shard
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.selection import read_selection
from ernie_vil2.device.extras import MissingPackage, is_installed
from ernie_vil2.io import locks
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.crawled_pairs import make_distinct_image, table_digests, write_pair_shard
from tests.support.image_formats import encode_image
from tests.support.limits import PATIENCE
from tests.support.misbehaving_server import MisbehavingServer
from tests.support.processes import run_process, start_process
from tests.support.streams import open_stream

RULES = "text_rules: {}\nimage_rules: {short_side: 32}\nexact_duplicates: {}\nnear_duplicates: {likeness: 0.9}\n"


def write_shard(path, numbers):
    rows = [(encode_image(make_distinct_image(number)), f"a picture of {number} boats") for number in numbers]
    return write_pair_shard(path, rows)


@pytest.fixture
def crawl(tmp_path):
    (tmp_path / "crawl").mkdir()
    numbers = {"a": range(6), "b": [10, 0, 11, 12], "c": [20, 21, 11]}
    return [write_shard(tmp_path / "crawl" / f"{name}.tar", numbers[name]) for name in numbers]


@pytest.fixture
def measured_shards(monkeypatch):
    """Return a list to which the number of every shard that is measured is added; all are measured in this process."""
    numbers = []

    def record(maps, number, count):
        numbers.append(number)
        return measure_shard(maps, number, count)

    def map_in_this_process(task, shards, *_):
        return [task(shard, lambda num_read: None) for shard in shards]

    monkeypatch.setattr(running, "measure_shard", record)
    monkeypatch.setattr(running, "map_shards", map_in_this_process)
    return numbers


@pytest.mark.thorough
def test_new_shard_alone_is_measured_and_the_table_is_the_same(tmp_path, crawl, steps, measured_shards):
    curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "whole")
    assert measured_shards == [0, 1, 2]
    measured_shards.clear()
    curate(open_sources(list(map(str, crawl[1:]))), steps(RULES), tmp_path / "grown")
    curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "grown")
    assert measured_shards == [0, 1, 0]  # b.tar and c.tar, then a.tar, which is the first of all three
    assert table_digests(tmp_path / "grown") == table_digests(tmp_path / "whole")
    measured_shards.clear()
    curate(open_sources(list(map(str, crawl))), steps(RULES, "image_rules.short_side=65"), tmp_path / "grown")
    assert measured_shards == []  # another threshold needs no new measures
    assert table_digests(tmp_path / "grown") != table_digests(tmp_path / "whole")


def test_shares_are_measured_apart_and_joined_later(tmp_path, crawl, steps, measured_shards):
    source = open_sources(list(map(str, crawl)))
    for number in (1, 0):
        assert curate(source, steps(RULES), tmp_path / "shared", share=(number, 2)) is None
    assert measured_shards == [1, 0, 2]
    curate(source, steps(RULES), tmp_path / "shared")
    assert measured_shards == [1, 0, 2]
    curate(source, steps(RULES), tmp_path / "alone")
    assert table_digests(tmp_path / "shared") == table_digests(tmp_path / "alone")


def test_other_columns_and_images_of_a_table_are_measured(tmp_path):
    for folder, size in (("small", 64), ("large", 96)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(encode_image(make_distinct_image(1, size)))
    (tmp_path / "pairs.csv").write_text("image,caption,title\na.png,three old boats,a view of the harbour\n")
    (tmp_path / "steps.yaml").write_text("text_rules: {}\nimage_rules: {short_side: 32}\n")

    def measure(folder, *options):
        command = ["--data", str(tmp_path / "pairs.csv"), "--images", str(tmp_path / folder), *options]
        command += ["--output", str(tmp_path / "curated"), "-c", str(tmp_path / "steps.yaml"), "--processes", "1"]
        assert cli.run("curate", command) == 0
        (row,) = parquet.read_table(tmp_path / "curated" / "table").to_pylist()
        return row["width"], row["caption"]

    assert measure("small") == (64, "three old boats")
    assert measure("large") == (96, "three old boats")
    assert measure("large", "--columns", "caption=title") == (96, "a view of the harbour")


def test_images_replaced_or_added_next_to_a_table_are_measured(tmp_path, steps, measured_shards):
    (tmp_path / "a.png").write_bytes(encode_image(make_distinct_image(1, 64)))
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,three old boats\nb.png,a view of the harbour\n")

    def measure():
        curate(open_sources([str(tmp_path / "pairs.csv")]), steps(RULES), tmp_path / "curated")
        return [row["width"] for row in parquet.read_table(tmp_path / "curated" / "table").to_pylist()]

    assert measure() == measure() == [64, None]
    assert measured_shards == [0]
    (tmp_path / "a.png").write_bytes(encode_image(make_distinct_image(1, 96)))
    assert measure() == [96, None]
    (tmp_path / "b.png").write_bytes(encode_image(make_distinct_image(2, 80)))
    assert measure() == [96, 80]


def test_selection_of_other_columns_of_a_table_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_image(make_distinct_image(1, 64)))
    table = tmp_path / "pairs.csv"
    table.write_text("image,caption,title\na.png,three old boats,a view of the harbour\n")
    (tmp_path / "steps.yaml").write_text("text_rules: {}\n")
    folder = str(tmp_path / "curated")
    command = ["--data", str(table), "--output", folder, "-c", str(tmp_path / "steps.yaml"), "--processes", "1"]
    assert cli.run("curate", [*command, "--columns", "caption=title"]) == 0
    # Another way to name the same columns is no other selection.
    for columns in ({"caption": "title"}, {"image": "image", "caption": "title"}):
        assert len(read_selection(folder, open_sources([str(table)], columns=columns)).numbers) == 1
    for columns in (None, {"caption_en": "title"}):
        with pytest.raises(ValueError, match=r"curated .*pairs\.csv.*\"title\""):
            read_selection(folder, open_sources([str(table)], columns=columns))


def test_shards_of_one_name_at_two_addresses_are_both_measured(tmp_path, steps, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    first, second = (write_shard(tmp_path / f"{number}.tar", [number]).read_bytes() for number in (1, 2))
    with MisbehavingServer(a_tar=first) as server, MisbehavingServer(a_tar=second) as other_server:
        source = open_sources([f"{server.address}/well/a.tar", f"{other_server.address}/well/a.tar"])
        curate(source, steps(RULES), tmp_path / "curated")
    captions = parquet.read_table(tmp_path / "curated" / "table")["caption"].to_pylist()
    assert captions == ["a picture of 1 boats", "a picture of 2 boats"]


def test_images_that_were_missing_are_measured_once_they_exist(tmp_path, steps, measured_shards):
    names = [f"{number}.png" for number in range(4)]
    captions = [f"a picture of {number} boats" for number in range(4)]
    parquet.write_table(pa.table({"image": names, "caption": captions}), tmp_path / "pairs.parquet")
    score = f"score: {{model: {write_untrained_checkpoint(tmp_path / 'model')}, by: quantile, keep: 1.0, device: cpu}}"

    def count_scores():
        curate(open_sources([str(tmp_path / "pairs.parquet")]), steps(RULES + score), tmp_path / "curated")
        table = parquet.read_table(tmp_path / "curated" / "table")
        return len(table) - table["score"].null_count

    for number in (0, 1):
        (tmp_path / names[number]).write_bytes(encode_image(make_distinct_image(number)))
    assert count_scores() == count_scores() == 2
    assert measured_shards == [0]
    (tmp_path / names[2]).write_bytes(encode_image(make_distinct_image(2)))
    assert count_scores() == 3


def test_shard_that_could_not_be_fetched_is_measured_later(tmp_path, steps, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ernie_vil2.data.readers.source.RETRY_SECONDS", 0)
    monkeypatch.setattr("ernie_vil2.data.readers.remote.RETRY_PAUSE", 0)
    content = write_shard(tmp_path / "a.tar", [1, 2]).read_bytes()
    num_kept = []
    with MisbehavingServer(a_tar=content) as server:
        for manner in ("503", "503", "well"):
            server.manners["a.tar"] = "well"
            source = open_sources([f"{server.address}/well/a.tar"])  # fetches the shard to count its pairs
            shutil.rmtree(tmp_path / "cache" / "shards")
            server.manners["a.tar"] = manner
            num_kept.append(curate(source, steps(RULES), tmp_path / "curated").num_kept)
    assert num_kept == [0, 0, 2]


def test_table_does_not_depend_on_the_number_of_processes(tmp_path, crawl, steps):
    source = open_sources(list(map(str, crawl)))
    for processes in (1, 3):
        curate(source, steps(RULES), tmp_path / str(processes), processes)
    assert table_digests(tmp_path / "1") == table_digests(tmp_path / "3")


def test_killed_run_continues_to_the_same_table(tmp_path, crawl, steps):
    (tmp_path / "rules.yaml").write_text(RULES)
    command = [sys.executable, "tools/curate.py", "--data", *map(str, crawl), "--output", tmp_path / "killed", "-c",
               tmp_path / "rules.yaml", "--processes", "1"]  # fmt: skip
    curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "whole")
    measures = tmp_path / "killed" / ".curate" / "measures"
    for num_shards in (1, len(crawl)):  # killed between two shards, and when the joins begin
        process = start_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(measures.glob("*.parquet"))) >= num_shards:
                break
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run_process(command, stdout=subprocess.DEVNULL).returncode == 0
    assert table_digests(tmp_path / "killed") == table_digests(tmp_path / "whole")


def test_files_of_killed_runs_are_removed(tmp_path, crawl, steps):
    source = open_sources([str(crawl[0])])
    curate(source, steps(RULES), tmp_path / "curated")
    state = tmp_path / "curated" / ".curate"
    (state / "spilled").mkdir()
    left_files = [
        state / "measures" / ".0a1b.parquet.123.partial",
        state / "measures" / ".0a1b-embeddings.parquet.123.partial",
        state / ".benchmark-0a1b.npz.123.partial",
        state / "spilled" / "duckdb_temp_123_0_storage_DEFAULT-0.tmp",
    ]
    for path in left_files:
        path.touch()
    curate(source, steps(RULES), tmp_path / "curated", share=(0, 2))
    assert all(path.exists() for path in left_files)  # another share may be writing them
    curate(source, steps(RULES), tmp_path / "curated")
    assert not any(path.exists() for path in left_files)


def test_prepare_writes_shards_of_the_kept_pairs(tmp_path, crawl, steps, capsys):
    shards = list(map(str, crawl))
    result = curate(open_sources(shards), steps(RULES), tmp_path / "curated")
    assert result.num_kept == 11  # of 13 pairs, two are copies
    select = ["--select", str(tmp_path / "curated"), "--output"]
    assert cli.run("prepare", [*shards, *select, str(tmp_path / "prepared")]) == 0
    prepared = open_sources([str(tmp_path / "prepared")])
    captions = [prepared[number].caption("") for number in range(len(prepared))]
    assert len(captions) == 11 == len(set(captions))
    uncurated = str(write_shard(tmp_path / "other.tar", [70, 71]))
    assert cli.run("prepare", [uncurated, *select, str(tmp_path / "no")]) == 2
    assert "other.tar" in capsys.readouterr().err


def test_training_and_prepare_read_captions_as_they_were_cut(tmp_path, steps):
    captions = [
        {"zh": "公园里的两只猫", "en": "Two cats in a park https://example.com/cats"},
        {"zh": "一只狗在雪地里", "en": "A dog in the snow"},
        {"en": "https://example.com/nothing-else"},
        {"en": "Fishing boats in the harbour (AP Photo/Jane Doe)"},
    ]
    rows = [(encode_image(make_distinct_image(number)), texts) for number, texts in enumerate(captions)]
    path = str(write_pair_shard(tmp_path / "crawl.tar", rows))
    curate(open_sources([path]), steps("text_rules: {}"), tmp_path / "curated")
    expected = [
        {"zh": "公园里的两只猫", "en": "Two cats in a park"},
        {"zh": "一只狗在雪地里", "en": "A dog in the snow"},
        {"en": "Fishing boats in the harbour"},
    ]

    options = [f"Data.select={tmp_path}/curated", "Data.shuffle_buffer=1"]
    stream = open_stream(f"[{path}]", *options)
    samples = [stream[position][1] for position in range(3)]
    assert [dict(sample.captions) for sample in sorted(samples, key=lambda sample: sample.image_name)] == expected
    assert {sample.text_name for sample in samples} == {"\n".join(texts.values()) for texts in expected}
    english = open_stream(f"[{path}]", *options, "Views.languages={en: 1}")
    texts, _ = english.training_texts(10)
    assert {"two cats in a park", "fishing boats in the harbour"} <= texts

    uncut = open_stream(f"[{path}]", *options)
    curate(open_sources([path]), steps("text_rules: {without: [credit]}"), tmp_path / "curated")
    with pytest.raises(ValueError, match="selection of .*crawl"):
        open_stream(f"[{path}]", *options).restore_state(uncut.state(0))
    curate(open_sources([path]), steps("text_rules: {}"), tmp_path / "curated")

    selection = ["--select", str(tmp_path / "curated")]
    assert cli.run("prepare", [path, *selection, "--output", str(tmp_path / "prepared")]) == 0
    prepared = open_sources([str(tmp_path / "prepared")])
    assert [dict(prepared[number].captions) for number in range(3)] == expected


def test_folder_of_other_files_or_of_a_running_curation_is_refused(tmp_path, crawl, steps):
    source = open_sources(list(map(str, crawl)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(locks.OtherJob, match="other holds other files"):
        curate(source, steps(RULES), tmp_path / "other")
    (tmp_path / "busy" / ".curate").mkdir(parents=True)
    lock = locks.open_lock_file(tmp_path / "busy" / ".curate" / "lock")
    with lock, pytest.raises(locks.OtherJob, match="process .* is writing"):
        curate(source, steps(RULES), tmp_path / "busy")


@pytest.mark.parametrize("memory", [1e-3, 1e6, float("nan")])
def test_invalid_memory_limit_is_refused(tmp_path, crawl, steps, memory):
    with pytest.raises(ValueError, match=f"--memory {memory:g}".replace("+", r"\+")):
        curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "curated", memory=memory)


@pytest.mark.skipif(is_installed("ray"), reason="Ray is installed")
def test_missing_ray_is_named_with_the_option(tmp_path, crawl, steps):
    paths = list(map(str, crawl))
    with pytest.raises(MissingPackage, match="--ray"):
        curate(
            open_sources(paths), steps(RULES), tmp_path / "ray", ray="local", open_source=lambda: open_sources(paths)
        )


def test_cluster_needs_a_function_that_opens_the_source(tmp_path, crawl, steps):
    with pytest.raises(ValueError, match="open_source"):
        curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "ray", ray="local")
    assert not (tmp_path / "ray").exists()


@pytest.mark.slow
def test_two_nodes_of_ray_give_the_same_measures(tmp_path, crawl, steps):
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        paths = list(map(str, crawl))
        open_source = partial(open_sources, paths)
        curate(open_source(), steps(RULES), tmp_path / "ray", ray=cluster.address, open_source=open_source)
        assert len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
    curate(open_source(), steps(RULES), tmp_path / "here")
    assert table_digests(tmp_path / "ray") == table_digests(tmp_path / "here")

    def read_measures(name):
        return {path.name: path.read_bytes() for path in (tmp_path / name / ".curate/measures").iterdir()}

    assert read_measures("ray") == read_measures("here")
