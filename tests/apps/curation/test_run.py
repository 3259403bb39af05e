"""A whole curation: resumed, with a new shard, in shares, and what training and prepare make of its table."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from ernie_vil2 import cli
from ernie_vil2.apps.curation import curate
from ernie_vil2.apps.curation import run as running
from ernie_vil2.apps.curation.measures import measure_shard
from ernie_vil2.data.readers import open_sources
from ernie_vil2.device.extras import MissingPackage, is_installed
from ernie_vil2.io import locks
from tests.support.crawled_pairs import make_distinct_image, table_digests, write_pair_shard
from tests.support.image_formats import encode_image
from tests.support.limits import PATIENCE
from tests.support.processes import run_process, start_process

RULES = "text_rules: {}\nimage_rules: {short_side: 32}\nexact_duplicates: {}\nnear_duplicates: {likeness: 0.9}\n"


def shard(path, numbers):
    return write_pair_shard(
        path, [(encode_image(make_distinct_image(number)), f"a picture of {number} things") for number in numbers]
    )


@pytest.fixture
def crawl(tmp_path):
    (tmp_path / "crawl").mkdir()
    return [shard(tmp_path / "crawl" / f"{name}.tar", numbers) for name, numbers in
            [("a", range(6)), ("b", [10, 0, 11, 12]), ("c", [20, 21, 11])]]  # fmt: skip


@pytest.fixture
def measured(monkeypatch):
    """The numbers of the shards that are measured, in a process."""
    found = []

    def note(maps, number, count):
        found.append(number)
        return measure_shard(maps, number, count)

    monkeypatch.setattr(running, "measure_shard", note)
    monkeypatch.setattr(
        running, "map_shards", lambda task, shards, *_: [task(one, lambda read: None) for one in shards]
    )
    return found


@pytest.mark.thorough
def test_a_stopped_run_goes_on_and_a_new_shard_costs_itself(tmp_path, crawl, steps, measured):
    curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "whole")
    assert measured == [0, 1, 2]
    measured.clear()
    curate(open_sources(list(map(str, crawl[1:]))), steps(RULES), tmp_path / "grown")
    curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "grown")
    assert measured == [0, 1, 0]  # a.tar is the first now, and the only one without measures
    assert table_digests(tmp_path / "grown") == table_digests(tmp_path / "whole")
    measured.clear()
    curate(open_sources(list(map(str, crawl))), steps(RULES, "image_rules.short_side=65"), tmp_path / "grown")
    assert measured == []  # another threshold costs only the joins
    assert table_digests(tmp_path / "grown") != table_digests(tmp_path / "whole")


def test_shares_are_measured_apart_and_joined_later(tmp_path, crawl, steps, measured):
    source = open_sources(list(map(str, crawl)))
    for number in (1, 0):
        assert curate(source, steps(RULES), tmp_path / "shared", share=(number, 2)) is None
    assert measured == [1, 0, 2]
    curate(source, steps(RULES), tmp_path / "shared")
    assert measured == [1, 0, 2]
    curate(source, steps(RULES), tmp_path / "alone")
    assert table_digests(tmp_path / "shared") == table_digests(tmp_path / "alone")


def test_the_table_does_not_depend_on_processes(tmp_path, crawl, steps):
    source = open_sources(list(map(str, crawl)))
    for processes in (1, 3):
        curate(source, steps(RULES), tmp_path / str(processes), processes)
    assert table_digests(tmp_path / "1") == table_digests(tmp_path / "3")


def test_killed_anywhere_it_goes_on_to_the_same_table(tmp_path, crawl, steps):
    (tmp_path / "rules.yaml").write_text(RULES)
    command = [sys.executable, "tools/curate.py", "--data", *map(str, crawl), "--output", tmp_path / "killed", "-c",
               tmp_path / "rules.yaml", "--processes", "1"]  # fmt: skip
    curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "whole")
    for measured in (1, len(crawl)):  # in the middle of the maps, and as the joins begin
        process = start_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        measures = (tmp_path / "killed" / ".curate" / "measures").glob
        while process.poll() is None and len(list(measures("*.parquet"))) < measured and time.monotonic() < deadline:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run_process(command, stdout=subprocess.DEVNULL).returncode == 0
    assert table_digests(tmp_path / "killed") == table_digests(tmp_path / "whole")


def test_prepare_makes_shards_of_what_was_kept(tmp_path, crawl, steps, capsys):
    kept = curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "curated").num_kept
    assert kept == 11
    shards = list(map(str, crawl))
    assert cli.run("prepare", [*shards, "--select", str(tmp_path / "curated"), "--output", str(tmp_path / "made")]) == 0
    made = open_sources([str(tmp_path / "made")])
    captions = [made[number].caption("") for number in range(len(made))]
    assert len(captions) == 11 == len(set(captions))
    other = str(shard(tmp_path / "other.tar", [70, 71]))
    assert cli.run("prepare", [other, "--select", str(tmp_path / "curated"), "--output", str(tmp_path / "no")]) == 2
    assert "other.tar" in capsys.readouterr().err


def test_a_folder_of_other_files_or_of_another_run_is_refused(tmp_path, crawl, steps):
    source = open_sources(list(map(str, crawl)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(locks.OtherJob, match="other holds other files"):
        curate(source, steps(RULES), tmp_path / "other")
    (tmp_path / "busy" / ".curate").mkdir(parents=True)
    held = locks.open_lock_file(tmp_path / "busy" / ".curate" / "lock")
    with held, pytest.raises(locks.OtherJob, match="process .* is writing"):
        curate(source, steps(RULES), tmp_path / "busy")


@pytest.mark.parametrize("memory", [1e-3, 1e6, float("nan")])
def test_memory_of_no_use_is_refused_by_its_option(tmp_path, crawl, steps, memory):
    with pytest.raises(ValueError, match=f"--memory {memory:g}".replace("+", r"\+")):
        curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "curated", memory=memory)


@pytest.mark.skipif(is_installed("ray"), reason="Ray is installed")
def test_without_ray_the_extra_is_named(tmp_path, crawl, steps):
    paths = list(map(str, crawl))
    with pytest.raises(MissingPackage, match="--ray"):
        curate(
            open_sources(paths), steps(RULES), tmp_path / "ray", ray="local", open_source=lambda: open_sources(paths)
        )


@pytest.mark.slow
def test_two_nodes_measure_the_same_parts(tmp_path, crawl, steps):
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        paths = list(map(str, crawl))
        opened = partial(open_sources, paths)
        curate(opened(), steps(RULES), tmp_path / "ray", ray=cluster.address, open_source=opened)
        assert len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
    curate(opened(), steps(RULES), tmp_path / "here")
    assert table_digests(tmp_path / "ray") == table_digests(tmp_path / "here")
    parts = [{path.name: path.read_bytes() for path in (tmp_path / name / ".curate/measures").iterdir()}
             for name in ("ray", "here")]  # fmt: skip
    assert parts[0] == parts[1]
