"""Any source made into tar shards by several processes, with their index and a report; a run that was stopped goes on.

`tools/prepare.py` is the command line, docs/data.md the guide.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ernie_vil2.data.decoding import WHITE, EncodedImage, collect_remarks
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.readers.locations import INDEX
from ernie_vil2.data.samples import (
    SEVERAL_LINES,
    BadSample,
    BadSampleReport,
    Reason,
    Sample,
    SampleSequence,
    check_text,
    content_id,
    format_names,
)
from ernie_vil2.data.selection import SelectedSamples
from ernie_vil2.data.shard_processes import Count, each_shard
from ernie_vil2.data.tags import TagsFile, find_tags_id, join_tags
from ernie_vil2.io.files import atomic_files, atomic_write, load_json, sha256, write_json, write_text
from ernie_vil2.io.locks import claimed
from ernie_vil2.io.terminal import counted

VERSION = 1  # of what is kept of a job, and of the notes of its shards
REPORT = "report.txt"
STATE = ".prepare"
"""Folder in the output that holds what a run needs to go on: the job, and a note on each finished shard."""
DIGEST_BYTES = 16
# How the formats that a shard may hold begin; whatever else can be decoded becomes JPEG.
SIGNATURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"BM": "bmp"}


@dataclass(frozen=True)
class Settings:
    """How a sample is written, and how many go into a shard.

    Args:
        short_side: images whose short side is longer become JPEG of this short side, in pixels; None: images keep
            their bytes.
        quality: of that JPEG, 1 to 100.
        samples_per_shard: of the input; what cannot be used is missing from the shard.
        tags_id: field whose value the tags are joined by; None: the image's name.
        drop_duplicates: of samples with equal image and captions only the first is kept.
        text_id: JSON field that names a text, as in `Data.text_id`.
        background: [red, green, blue] behind transparent pixels where an image becomes JPEG, 0 to 255.

    Raises:
        ValueError: a number is out of its range.
    """

    short_side: int | None = None
    quality: int = 90
    samples_per_shard: int = 10_000
    tags_id: str | None = None
    drop_duplicates: bool = False
    text_id: str | None = None
    background: tuple[int, int, int] = WHITE

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(f"the short side must be at least 1 pixel, not {self.short_side}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"JPEG quality is 1 to 100, not {self.quality}")
        if not all(0 <= value <= 255 for value in self.background):
            raise ValueError(f"the background's red, green and blue are 0 to 255, not {self.background}")
        if self.samples_per_shard < 1:
            raise ValueError(f"a shard holds at least 1 sample, not {self.samples_per_shard}")


@dataclass(frozen=True)
class Work:
    """All that a process needs to make any of the shards.

    `kept` says which samples are not duplicates of an earlier one; None: all. `count` is called with the samples read
    since.
    """

    source: SampleSequence
    settings: Settings
    tags: Sequence[TagsFile] = ()
    kept: np.ndarray | None = None
    count: Callable[[int], None] = lambda samples: None

    @property
    def shards(self) -> int:
        """How many shards there will be."""
        return -(-len(self.source) // self.settings.samples_per_shard)

    def rows(self, shard: int) -> range:
        """The samples of the input that a shard is made of."""
        size = self.settings.samples_per_shard
        return range(shard * size, min((shard + 1) * size, len(self.source)))


def digests(work: Work, shard: int) -> np.ndarray:
    """What distinguishes the samples of a shard, by image and captions, `[samples, 16]` uint8.

    A sample that cannot be read has zeros, and is not a duplicate.
    """
    found = np.zeros((len(work.rows(shard)), DIGEST_BYTES), np.uint8)
    for position, row in enumerate(work.rows(shard)):
        try:
            sample = work.source[row]
        except BadSample:
            continue
        finally:
            work.count(1)
        content = blake2b(blake2b(sample.image).digest(), digest_size=DIGEST_BYTES)
        content.update(json.dumps(sorted(sample.captions.items())).encode())
        found[position] = np.frombuffer(content.digest(), np.uint8)
    return found


def make_shard(work: Work, shard: int, folder: Path | None) -> dict:
    """Makes a shard in a folder; None: only checks its samples. A shard without any sample is not written.

    Returns:
        For JSON: `name`, `samples`, `bytes`, `sha256` (null without a file), `input` (see `input_digest`), `read`,
        `duplicates`, `tagged` (samples with tags) and `bad_samples` as in a run's report. Without a folder also
        `images`: of each sample the row, the image's name as a number, and one of name and content.
    """
    found = _Found()
    entry: dict[str, Any] = {"name": f"{shard:05d}.tar", "bytes": 0, "sha256": None}
    samples = _good_samples(work, shard, found)
    if folder is None:
        for _ in samples:
            pass
        entry["images"] = found.images
    else:
        path = folder / entry["name"]
        path.unlink(missing_ok=True)  # one of other content, which could not be verified
        first = next(samples, None)
        if first is not None:
            with atomic_write(path) as aside, tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as archive:
                for row, suffix, image, fields in chain([first], samples):
                    write_sample(archive, f"{row:09d}", suffix, image, fields)
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every one
            entry |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    report, counts = found.report, dict(found.counts)
    return (
        entry
        | counts
        | {"input": found.input.hexdigest(), "num_read": report.num_read, "bad_samples": report.as_dict()}
    )


class _Found:
    """What is found out about the samples of a shard while they are read."""

    def __init__(self) -> None:
        self.input = blake2b(digest_size=DIGEST_BYTES)
        self.report = BadSampleReport()
        self.counts = {"samples": 0, "duplicates": 0, "tagged": 0}
        self.images: list[tuple[int, int, int]] = []


def input_digest(work: Work, shard: int) -> str:
    """A digest of all that decides a shard: images, texts and tags as they are now; no image is decoded."""
    content = blake2b(digest_size=DIGEST_BYTES)
    for _ in _read(work, shard, content):
        pass
    return content.hexdigest()


def _read(work: Work, shard: int, content: blake2b) -> Iterator[tuple[int, Sample, dict] | BadSample | None]:
    """The rows of a shard with the JSON of each, None for a duplicate; what was read goes into the digest."""
    for row in work.rows(shard):
        work.count(1)
        read: tuple[int, Sample, dict] | BadSample | None = None
        parts = [b"duplicate"]
        if work.kept is None or work.kept[row]:
            try:
                sample = work.source[row]
                fields = _fields(sample, work)
                read, parts = (row, sample, fields), [sample.image, _as_json(fields)]
            except BadSample as bad:
                read, parts = bad, [str(bad).encode()]
        for part in parts:
            content.update(blake2b(part).digest())
        yield read


def _good_samples(work: Work, shard: int, found: _Found) -> Iterator[tuple[int, str, bytes, dict]]:
    for read in _read(work, shard, found.input):
        if read is None:
            found.report.add(1, [])
            found.counts["duplicates"] += 1
            continue
        try:
            if isinstance(read, BadSample):
                raise read
            row, sample, fields = read
            with collect_remarks() as odd:
                suffix, image = _image(sample, work.settings)
        except BadSample as bad:
            found.report.add(1, [(bad.reason, bad.name)])
            continue
        name = sample.image_name
        odd += [SEVERAL_LINES] * sample.has_several_lines
        found.report.add(1, [], [(remark, name) for remark in odd])
        found.counts["samples"] += 1
        found.counts["tagged"] += any(field.partition("_")[0] == "tags" for field in fields)
        found.images.append((row, content_id(name), content_id(name, sample.image)))
        yield row, suffix, image, fields


def _image(sample: Sample, settings: Settings) -> tuple[str, bytes]:
    """Suffix and bytes of what is written; BadSample if the image cannot be decoded."""
    image = EncodedImage(sample.image, sample.image_name, settings.background)
    short, suffix = min(image.height, image.width), _suffix(sample.image)
    if settings.short_side is not None and short > settings.short_side:
        shrink = short / settings.short_side
        size = [max(1, round(side / shrink)) for side in (image.width, image.height)]
        pixels = cv2.resize(image.decode(shrink), size, interpolation=cv2.INTER_AREA)
    else:
        pixels = image.decode()
        if suffix:
            return suffix, sample.image
    flags = [cv2.IMWRITE_JPEG_QUALITY, settings.quality]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), flags)
    if not done:  # JPEG ends at 65,535 pixels a side
        raise BadSample(Reason.TOO_LONG_FOR_JPEG, sample.image_name)
    return "jpg", encoded.tobytes()


def _suffix(image: bytes) -> str | None:
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    return next((suffix for start, suffix in SIGNATURES.items() if image.startswith(start)), None)


def _fields(sample: Sample, work: Work) -> dict:
    """The JSON of a sample: the name of its image, what else its source says, captions and tags."""
    captions, tags = sample.readable_captions(), dict(sample.tags)
    if work.tags:
        tags = join_tags(tags, find_tags_id(sample, work.settings.tags_id), work.tags)
    fields = {
        name: value
        for name, value in sample.fields.items()
        if name != "text" and name.partition("_")[0] not in ("caption", "tags")
    }
    fields["image_id"] = sample.image_name
    for kind, texts in (
        ("caption", captions),
        ("tags", {language: list(one) for language, one in tags.items() if one}),
    ):
        for language, value in texts.items():
            fields[f"{kind}_{language}" if language else kind] = value
    check_text(sample.image_name)
    return fields


def _as_json(fields: dict) -> bytes:
    # str: what a table may hold and JSON may not, such as dates.
    return json.dumps(fields, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def write_sample(archive: tarfile.TarFile, name: str, suffix: str, image: bytes, fields: dict) -> None:
    """Adds a sample to a shard: the file of its image, and one of its fields."""
    for ending, content in ((suffix, image), ("json", _as_json(fields))):
        member = tarfile.TarInfo(f"{name}.{ending}")  # owner, mode and time are the same for all
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


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
        totals = {count: self.total(count) for count in ("samples", "bytes", "num_read", "duplicates", "tagged")}
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
                f"names that different images have, by which no tags can be joined: {format_names(*self.shared_names)}"
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
    names = [source[row].image_name for row in shared[: BadSampleReport.MAX_NAMES]]
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
