"""A whole curation: resumed, with a new shard, in shares, and what training and prepare make of its table."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from ernie_vil2 import cli
from ernie_vil2.curation import curate
from ernie_vil2.curation import run as running
from ernie_vil2.curation.measures import measure_shard
from ernie_vil2.data.readers import open_sources
from ernie_vil2.io import locks
from tests.curation.conftest import encoded, smooth_image, write_tar
from tests.support.limits import PATIENCE
from tests.support.processes import run_process, start_process

RULES = "text_rules: {}\nimage_rules: {short_side: 32}\nexact_duplicates: {}\nnear_duplicates: {likeness: 0.9}\n"


def shard(path, numbers):
    return write_tar(path, [(encoded(smooth_image(number)), f"a picture of {number} things") for number in numbers])


@pytest.fixture
def crawl(tmp_path):
    (tmp_path / "crawl").mkdir()
    return [shard(tmp_path / "crawl" / f"{name}.tar", numbers) for name, numbers in
            [("a", range(6)), ("b", [10, 0, 11, 12]), ("c", [20, 21, 11])]]  # fmt: skip


def table(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "table").iterdir())}


@pytest.fixture
def measured(monkeypatch):
    """The numbers of the shards that are measured, in a process."""
    found = []

    def note(maps, number, count):
        found.append(number)
        return measure_shard(maps, number, count)

    monkeypatch.setattr(running, "measure_shard", note)
    monkeypatch.setattr(
        running, "each_shard", lambda task, shards, *_: [task(one, lambda read: None) for one in shards]
    )
    return found


@pytest.mark.thorough
def test_a_run_that_was_stopped_goes_on_and_a_new_shard_costs_only_itself(tmp_path, crawl, steps, measured):
    curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "whole")
    assert measured == [0, 1, 2]
    measured.clear()
    curate(open_sources(list(map(str, crawl[1:]))), steps(RULES), tmp_path / "grown")
    curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "grown")
    assert measured == [0, 1, 0]  # a.tar is the first now, and the only one without measures
    assert table(tmp_path / "grown") == table(tmp_path / "whole")
    measured.clear()
    curate(open_sources(list(map(str, crawl))), steps(RULES, "image_rules.short_side=65"), tmp_path / "grown")
    assert measured == []  # another threshold costs only the joins
    assert table(tmp_path / "grown") != table(tmp_path / "whole")


def test_shares_are_measured_apart_and_joined_later(tmp_path, crawl, steps, measured):
    source = open_sources(list(map(str, crawl)))
    for number in (1, 0):
        assert curate(source, steps(RULES), tmp_path / "shared", share=(number, 2)) is None
    assert measured == [1, 0, 2]
    curate(source, steps(RULES), tmp_path / "shared")
    assert measured == [1, 0, 2]
    curate(source, steps(RULES), tmp_path / "alone")
    assert table(tmp_path / "shared") == table(tmp_path / "alone")


def test_the_table_does_not_depend_on_the_number_of_processes(tmp_path, crawl, steps):
    source = open_sources(list(map(str, crawl)))
    for processes in (1, 3):
        curate(source, steps(RULES), tmp_path / str(processes), processes)
    assert table(tmp_path / "1") == table(tmp_path / "3")


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
    assert table(tmp_path / "killed") == table(tmp_path / "whole")


def test_prepare_makes_shards_of_what_was_kept(tmp_path, crawl, steps, capsys):
    kept = curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "curated").kept
    assert kept == 11
    shards = list(map(str, crawl))
    assert cli.run("prepare", [*shards, "--select", str(tmp_path / "curated"), "--output", str(tmp_path / "made")]) == 0
    made = open_sources([str(tmp_path / "made")])
    captions = [made[number].caption("") for number in range(len(made))]
    assert len(captions) == 11 == len(set(captions))
    other = shard(tmp_path / "other.tar", [70, 71])
    assert (
        cli.run("prepare", [str(other), "--select", str(tmp_path / "curated"), "--output", str(tmp_path / "no")]) == 2
    )
    assert "curated was not made of other.tar" in capsys.readouterr().err


def test_a_folder_of_other_files_or_of_another_run_is_refused(tmp_path, crawl, steps):
    source = open_sources(list(map(str, crawl)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(locks.OtherJob, match="other holds other files; choose a new folder"):
        curate(source, steps(RULES), tmp_path / "other")
    (tmp_path / "busy" / ".curate").mkdir(parents=True)
    with (
        locks.owned(tmp_path / "busy" / ".curate" / "lock"),
        pytest.raises(locks.OtherJob, match="process .* is writing there; wait for it or stop it"),
    ):
        curate(source, steps(RULES), tmp_path / "busy")


def test_broken_pairs_are_counted_as_everywhere(tmp_path, steps):
    path = write_tar(
        tmp_path / "a.tar", [(encoded(smooth_image(1)), "a picture of one thing"), (b"no image", "a caption")]
    )
    done = curate(open_sources([str(path)]), steps(RULES), tmp_path / "curated")
    assert done.bad.as_dict() == {
        "read": 2, "bad": 1, "reasons": {"broken image": {"count": 1, "names": ["a-00001"]}},
    }  # fmt: skip
    assert (
        Path(tmp_path / "curated" / "bad_samples.txt").read_text().startswith("1 of 2 samples read could not be used")
    )


def overwrite_values(path):
    """Write zeros over the values of a Parquet file; its footer stays as it was."""
    content = bytearray(path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer] = bytes(len(content) - footer - 4)
    path.write_bytes(content)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "zeros": overwrite_values,
    "of other columns": lambda path: parquet.write_table(pa.table({"row": [0, 1, 2]}), path),
    "of fewer rows": lambda path: parquet.write_table(parquet.read_table(path).slice(1), path),
    "of other types": lambda path: parquet.write_table(
        (table := parquet.read_table(path)).set_column(0, "row", table["row"].cast("string")), path
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_measures_are_named_and_measured_again(tmp_path, crawl, steps, damage):
    source = open_sources(list(map(str, crawl)))
    curate(source, steps(RULES), tmp_path / "curated")
    expected = table(tmp_path / "curated")
    path = max((tmp_path / "curated" / ".curate" / "measures").glob("*.parquet"))
    DAMAGE[damage](path)

    with pytest.raises(ValueError, match=path.name):
        curate(source, steps(RULES), tmp_path / "curated")

    path.unlink()  # as the message says
    curate(source, steps(RULES), tmp_path / "curated")
    assert table(tmp_path / "curated") == expected


@pytest.mark.parametrize("memory", [1e-12, 1e-7, 1e-3, 1e6, 1e12, 1e300, float("nan")])
def test_memory_of_no_use_is_refused_by_its_option(tmp_path, crawl, steps, memory):
    with pytest.raises(ValueError, match=f"--memory {memory:g}".replace("+", r"\+")):
        curate(open_sources(list(map(str, crawl))), steps(RULES), tmp_path / "curated", memory=memory)
