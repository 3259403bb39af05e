"""Any source made into tar shards by several processes, with their index and a report; a run that was stopped goes on.

`tools/prepare.py` is the command line, docs/data.md the guide.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.data.prepare_shards import DIGEST_BYTES, Settings, Work, digests, input_digest, make_shard
from ernie_vil2.data.processes import Count, each_shard
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.readers.shard_files import INDEX
from ernie_vil2.data.samples import BadSampleReport, first_names
from ernie_vil2.data.selection import SelectedSamples
from ernie_vil2.data.tags import TagsFile
from ernie_vil2.io.files import atomic_files, load_json, sha256, write_json, write_text
from ernie_vil2.io.locks import claimed
from ernie_vil2.io.terminal import counted

VERSION = 1  # of what is kept of a job, and of the notes of its shards
REPORT = "report.txt"
STATE = ".prepare"
"""Folder in the output that holds what a run needs to go on: the job, and a note on each finished shard."""


@dataclass(frozen=True)
class PreparedIndex:
    """Shards with their counts, sizes and checksums.

    Args:
        job: what was made of what.
        shards: what `make_shard` returned for each, in order, those without a sample among them.
        shared_names: how many names different images have, and the first of these; where that was looked for.
    """

    job: Mapping
    shards: Sequence[Mapping]
    shared_names: tuple[int, Sequence[str]] = (0, ())

    @property
    def bad_samples(self) -> BadSampleReport:
        """Of all shards."""
        joined = BadSampleReport()
        for shard in self.shards:
            joined.merge(shard["bad_samples"])
        return joined

    def total(self, count: str) -> int:
        """A count (`samples`, `bytes`, `duplicates`, `tagged`) over all shards."""
        return sum(shard[count] for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Writes `index.json` and `report.txt`."""
        totals = {count: self.total(count) for count in ("samples", "bytes", "read", "duplicates", "tagged")}
        files = [
            {key: shard[key] for key in ("name", "samples", "bytes", "sha256")}
            for shard in self.shards
            if shard["samples"]
        ]
        content = totals | {"shards": files, "bad_samples": self.bad_samples.as_dict(), "job": self.job}
        with atomic_files(folder) as temporary:
            write_text(temporary / REPORT, f"{self}\n")
            write_json(temporary / INDEX, content)

    def __str__(self) -> str:
        lines = [
            f"{counted(self.total('samples'), 'sample')} in "
            f"{counted(sum(bool(shard['samples']) for shard in self.shards), 'shard')}"
            + (f", {self.total('bytes'):,} bytes" if self.total("bytes") else ""),
            f"{self.total('tagged'):,} of them with tags",
        ]
        if self.job["settings"]["drop_duplicates"]:
            lines.append(f"{counted(self.total('duplicates'), 'duplicate')} dropped")
        if self.shared_names[0]:
            lines.append(
                f"names that different images have, by which no tags can be joined: {first_names(*self.shared_names)}"
            )
        return "\n".join([*lines, str(self.bad_samples)])


def _job(source: ShardedSource | SelectedSamples, settings: Settings, tags: Sequence[TagsFile]) -> dict:
    """What determines the output, for JSON, but for the content of the input, which is noted shard by shard."""
    made = asdict(settings) | {"background": list(settings.background)}  # as JSON gives it back
    return {"version": VERSION, "settings": made, "input": source.contents, "tags": [file.name for file in tags]}


def check(
    source: ShardedSource | SelectedSamples, settings: Settings, tags: Sequence[TagsFile] = (), processes: int = 1
) -> PreparedIndex:
    """Reads and decodes every sample and writes nothing; the result has no files. Otherwise as `prepare`."""
    job = _job(source, settings, tags)
    work = replace(Work(source, settings, tags), kept=_kept(Work(source, settings), processes))
    entries = _each_shard(work, processes, "checking", lambda work, shard: make_shard(work, shard, None))
    images = np.array([image for entry in entries for image in entry.pop("images")], np.int64).reshape(-1, 3)
    shared = _shared(images)
    names = [source[row].image_name for row in shared[: BadSampleReport.NAMES]]
    return PreparedIndex(job, entries, (len(shared), names))


def _shared(images: np.ndarray) -> list[int]:
    """Rows of the first image of each name that different images have; `images` as `make_shard` gives them."""
    rows, names, contents = images.T
    distinct = np.sort(np.unique(contents, return_index=True)[1])  # of each image its first row
    _, first, counts = np.unique(names[distinct], return_index=True, return_counts=True)
    return sorted(rows[distinct[first[counts > 1]]].tolist())


def prepare(
    source: ShardedSource | SelectedSamples,
    output: str | Path,
    settings: Settings,
    tags: Sequence[TagsFile] = (),
    processes: int = 1,
) -> PreparedIndex:
    """Turns a source into tar shards, with `index.json` and `report.txt` next to them.

    The bytes of the output follow from input, tags and settings, whatever the number of processes and whatever the
    folder holds of an earlier run. A shard appears when it is whole. One that is there already is kept if its checksum
    and that of its input, which is read for this, are as they were; so what was edited since is made again.

    Args:
        source: the samples, in the order of the output.
        output: folder of the shards.
        tags: files of tags; the later one counts where several have tags of an id in a language.
        processes: that read, decode and write.

    Raises:
        OtherJob: the folder holds something else, or another run is writing there.
        KilledProcess: something killed a process.
        ValueError: no sample could be used.
        OSError: the folder cannot be written.
    """
    output = Path(output)
    job = _job(source, settings, tags)
    with claimed(output, STATE, job) as state:
        for left in output.glob(".*.partial"):  # by a run that was killed
            left.unlink()
        work = Work(source, settings, tags)
        work = replace(work, kept=_kept(work, processes))
        entries = _each_shard(work, processes, "writing", lambda work, shard: _resumed(work, shard, output, state))
        index = PreparedIndex(job, entries)
        if not index.total("samples"):
            raise ValueError(f"no sample could be used, so that there is no shard\n{index.bad_samples}")
        index.write(output)
    return index


def _resumed(work: Work, shard: int, output: Path, state: Path) -> dict:
    """What a finished shard's run noted, if shard and input are as they were then; otherwise the shard is made."""
    note = state / f"{shard:05d}.json"
    if note.exists():
        entry = load_json(note)
        path = output / entry["name"]
        if entry["sha256"] is None or (path.exists() and sha256(path) == entry["sha256"]):
            if entry["input"] == input_digest(work, shard):
                return entry
            work.count(-len(work.rows(shard)))
    (output / INDEX).unlink(missing_ok=True)  # until all shards are of one input again
    entry = make_shard(work, shard, output)
    write_json(note, entry, indent=None)
    return entry


def _kept(work: Work, processes: int) -> np.ndarray | None:
    """Which samples are not the same as an earlier one, `[N]` bool; None if duplicates are not looked for."""
    if not work.settings.drop_duplicates:
        return None
    found = np.concatenate(_each_shard(work, processes, "looking for duplicates", digests))
    kept = ~found.any(1)  # what could not be read is reported later
    _, first = np.unique(np.ascontiguousarray(found).view(f"V{DIGEST_BYTES}"), return_index=True)
    kept[first] = True
    return kept


def _each_shard(work: Work, processes: int, what: str, task: Callable[[Work, int], Any]) -> list[Any]:
    def run(shard: int, count: Count) -> Any:
        return task(replace(work, count=count), shard)

    return each_shard(run, range(work.shards), processes, what, len(work.source))
