"""What stands beside the shards: their index, and the report for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ernie_vil2.data.prepare.shards import Settings
from ernie_vil2.data.readers.shard_files import INDEX
from ernie_vil2.data.samples import BadSampleReport, first_names
from ernie_vil2.io.files import write_json, write_text
from ernie_vil2.io.terminal import counted

REPORT = "report.txt"


@dataclass(frozen=True)
class PreparedIndex:
    """Shards with their counts, sizes and checksums.

    Args:
        job: what was made of what, as `describe` gives it.
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
        write_text(folder / REPORT, f"{self}\n")
        write_json(folder / INDEX, content)

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


def describe(settings: Settings, inputs: Sequence[str], tags: Sequence[str]) -> dict:
    """What decides the content of the output, for JSON; a run that goes on must have the same.

    Args:
        inputs: for each shard of the input its name and its number of samples; their content is noted shard by shard.
        tags: names of the files with tags.
    """
    made = asdict(settings) | {"background": list(settings.background)}  # as JSON gives it back
    return {"settings": made, "input": list(inputs), "tags": list(tags)}
