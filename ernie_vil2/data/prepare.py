"""Conversion of any source to tar shards by several processes, with an index and a report.

A stopped run can be continued. `tools/prepare.py` is the command line, docs/data.md the guide.
"""

from __future__ import annotations

import io
import json
import math
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
    MAX_TEXT_BYTES,
    SEVERAL_LINES,
    BadSample,
    BadSampleReport,
    Reason,
    Sample,
    SampleSequence,
    check_size,
    check_text,
    format_names,
    hash_id,
)
from ernie_vil2.data.selection import SelectedSamples
from ernie_vil2.data.shard_processes import CountSamples, map_shards
from ernie_vil2.data.tags import TagsFile, find_tags_id, join_tags
from ernie_vil2.io.files import atomic_files, atomic_write, load_json, remove_partial, sha256, write_json, write_text
from ernie_vil2.io.locks import claim_output
from ernie_vil2.io.terminal import pluralize

VERSION = 1  # of the job in the state folder, and of the notes on shards
REPORT = "report.txt"
STATE = ".prepare"
"""Folder in the output with what a run needs to continue: the job, and a note on each finished shard."""

# 128 bits: among a billion samples the probability of two equal digests is 1e-21.
DIGEST_BYTES = 16

# First bytes of the formats that a shard may hold; images of all others become JPEG.
SIGNATURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"BM": "bmp"}


@dataclass(frozen=True)
class Settings:
    """How samples are written.

    Args:
        short_side: images with a longer short side become JPEG of this short side, in pixels; None: images keep their
            bytes.
        quality: quality of that JPEG, 1 to 100.
        samples_per_shard: number of input samples for a shard; samples that cannot be used are missing from it.
        tags_id: field by which tags are joined; None: name of the image.
        drop_duplicates: whether only the first of several samples with equal image and captions is written.
        text_id: JSON field that names a text, as in `Data.text_id`.
        background: [red, green, blue] behind transparent pixels of an image that becomes JPEG, 0 to 255.

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
class ShardWork:
    """Everything that a process needs to make any of the shards.

    Attributes:
        source: the samples.
        settings: how they are written.
        tags: files of tags.
        is_unique: `[N]` bool, whether each sample is no duplicate of an earlier one; None: all are written.
        count: function that is called with the number of samples read since the last call.
    """

    source: SampleSequence
    settings: Settings
    tags: Sequence[TagsFile] = ()
    is_unique: np.ndarray | None = None
    count: Callable[[int], None] = lambda samples: None

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-len(self.source) // self.settings.samples_per_shard)

    def rows(self, shard: int) -> range:
        """Return the input samples of a shard."""
        size = self.settings.samples_per_shard
        return range(shard * size, min((shard + 1) * size, len(self.source)))


def prepare(
    source: ShardedSource | SelectedSamples,
    output: str | Path,
    settings: Settings,
    tags: Sequence[TagsFile] = (),
    processes: int = 1,
) -> PreparedIndex:
    """Convert a source to tar shards, with `index.json` and `report.txt` next to them.

    The bytes of the output follow from input, tags and settings. They depend neither on the number of processes nor on
    what an earlier run left in the folder. A shard appears when it is complete. A shard of an earlier run is kept if
    its checksum and the digest of its input, which is read again for this, are unchanged.

    Args:
        source: the samples, in the order of the output.
        output: folder of the shards.
        settings: how samples are written.
        tags: files of tags; if several have tags of an id in a language, the last one is used.
        processes: number of processes that read, decode and write.

    Raises:
        OtherJob: the folder holds something else, or another run is writing there.
        KilledProcess: a process was killed.
        ValueError: no sample could be used.
        OSError: the folder cannot be written.
    """
    output = Path(output)
    job = _describe_job(source, settings, tags)
    with claim_output(output, STATE, job) as state:
        remove_partial(output, r".*")  # files and folders of a run that was killed
        work = ShardWork(source, settings, tags)
        if settings.drop_duplicates:
            work = replace(work, is_unique=_find_unique_samples(work, processes))
        entries = _map_shards(lambda work, shard: _resume_shard(work, shard, output, state), work, processes, "writing")
        index = PreparedIndex(job, entries)
        if not index.total("samples"):
            raise ValueError(f"no sample could be used, so that there is no shard\n{index.bad_samples}")
        index.write(output)
    return index


def check(
    source: ShardedSource | SelectedSamples, settings: Settings, tags: Sequence[TagsFile] = (), processes: int = 1
) -> PreparedIndex:
    """Read and decode every sample like `prepare`, and write nothing; the result has no files."""
    job = _describe_job(source, settings, tags)
    work = ShardWork(source, settings, tags)
    if settings.drop_duplicates:
        work = replace(work, is_unique=_find_unique_samples(work, processes))
    entries = _map_shards(lambda work, shard: make_shard(work, shard, None), work, processes, "checking")
    shared_rows = _find_shared_names(np.concatenate([entry.pop("images") for entry in entries]))
    names = [source[row].image_name for row in shared_rows[: BadSampleReport.MAX_NAMES]]
    return PreparedIndex(job, entries, (len(shared_rows), names))


def _find_shared_names(images: np.ndarray) -> list[int]:
    """Return, for each name that different images have, the row of the first of them.

    Args:
        images: `[samples, 3]`: row, name and content as numbers, as in `make_shard`.
    """
    rows, names, contents = images.T
    _, first_samples = np.unique(contents, return_index=True)
    first_samples.sort()  # the first sample of each image, in order
    _, positions, counts = np.unique(names[first_samples], return_index=True, return_counts=True)
    return sorted(rows[first_samples[positions[counts > 1]]].tolist())


def _describe_job(source: ShardedSource | SelectedSamples, settings: Settings, tags: Sequence[TagsFile]) -> dict:
    """Return what determines the output, as JSON; the content of the input is noted shard by shard."""
    return {
        "version": VERSION,
        "settings": asdict(settings) | {"background": list(settings.background)},  # JSON has no tuples
        "input": source.contents,
        "tags": [file.name for file in tags],
    }


def _map_shards(task: Callable[[ShardWork, int], Any], work: ShardWork, num_processes: int, description: str) -> list:
    """Do a task for every shard in several processes; return the results in order."""

    def run(shard: int, count: CountSamples) -> Any:
        return task(replace(work, count=count), shard)

    return map_shards(run, range(work.num_shards), num_processes, description, len(work.source))


def _find_unique_samples(work: ShardWork, num_processes: int) -> np.ndarray:
    """Return which samples are no duplicates of an earlier one, `[N]` bool."""
    digests = np.concatenate(_map_shards(_digest_samples, work, num_processes, "looking for duplicates"))
    is_unique = ~digests.any(axis=1)  # samples that cannot be used, which are reported when shards are made
    # np.unique compares whole digests, and returns the first row of each.
    digests_as_values = np.ascontiguousarray(digests).view(f"V{DIGEST_BYTES}")
    _, first_rows = np.unique(digests_as_values, return_index=True)
    is_unique[first_rows] = True
    return is_unique


def _digest_samples(work: ShardWork, shard: int) -> np.ndarray:
    """Return digests of image and captions of a shard's samples, `[samples, 16]` uint8; zeros if one is unusable."""
    rows = work.rows(shard)
    digests = np.zeros((len(rows), DIGEST_BYTES), np.uint8)
    for position, row in enumerate(rows):
        try:
            sample = work.source[row]
            _make_fields(sample, work)  # a sample that has no id for its tags does not stand for those that have one
        except BadSample:
            continue
        finally:
            work.count(1)
        content = blake2b(blake2b(sample.image).digest(), digest_size=DIGEST_BYTES)
        content.update(json.dumps(sorted(sample.captions.items())).encode())
        digests[position] = np.frombuffer(content.digest(), np.uint8)
    return digests


def _resume_shard(work: ShardWork, shard: int, output: Path, state: Path) -> dict:
    """Return the note on a finished shard if shard and input are unchanged; else make the shard."""
    # A note is written after its shard, so that a shard without a note is incomplete or of unknown input.
    note = state / f"{shard:05d}.json"
    if note.exists():
        entry = load_json(note)
        path = output / entry["name"]
        is_intact = entry["sha256"] is None or (path.exists() and sha256(path) == entry["sha256"])
        if is_intact:
            if entry["input"] == digest_input(work, shard):
                return entry
            work.count(-len(work.rows(shard)))  # they will be read again
    # The index of an earlier run is wrong until all shards are of the present input.
    (output / INDEX).unlink(missing_ok=True)
    entry = make_shard(work, shard, output)
    write_json(note, entry, indent=None)
    return entry


def make_shard(work: ShardWork, shard: int, folder: Path | None) -> dict:
    """Write a shard, unless none of its samples can be used.

    Args:
        work: source and settings.
        shard: number of the shard.
        folder: folder of the shard; None: samples are checked, and nothing is written.

    Returns:
        For JSON: `name`, `samples`, `bytes`, `sha256` (null without a file), `input` (see `digest_input`), `num_read`,
        `duplicates`, `tagged` (samples with tags) and `bad_samples` as in a run's report. Without a folder also
        `images`, `[samples, 3]` int64: row, the image's name as a number, and name and content as a number.
    """
    log = _ShardLog()
    entry: dict[str, Any] = {"name": f"{shard:05d}.tar", "bytes": 0, "sha256": None}
    samples = _usable_samples(work, shard, log)
    if folder is None:
        for _ in samples:
            pass
        # An array, because a list takes seven times the memory, and all shards are held at once.
        entry["images"] = np.array(log.images, np.int64).reshape(-1, 3)
    else:
        path = folder / entry["name"]
        path.unlink(missing_ok=True)  # a shard of other content, without a note to verify it
        first_sample = next(samples, None)
        if first_sample is not None:
            with atomic_write(path) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
                for row, suffix, image, fields in chain([first_sample], samples):
                    write_sample(archive, f"{row:09d}", suffix, image, fields)
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them in memory
            entry |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    return {
        **entry,
        **log.counts,
        "input": log.input_digest.hexdigest(),
        "num_read": log.report.num_read,
        "bad_samples": log.report.as_dict(),
    }


class _ShardLog:
    """Counts, digests and faults of a shard's samples, collected while they are read.

    Attributes:
        input_digest: see `digest_input`.
        report: the bad samples.
        counts: numbers of samples written, of duplicates, and of samples with tags.
        images: of each sample written the row, the image's name as a number, and name and content as a number.
    """

    def __init__(self) -> None:
        self.input_digest = blake2b(digest_size=DIGEST_BYTES)
        self.report = BadSampleReport()
        self.counts = {"samples": 0, "duplicates": 0, "tagged": 0}
        self.images: list[tuple[int, int, int]] = []


def digest_input(work: ShardWork, shard: int) -> str:
    """Return a digest of everything that determines a shard: images, texts and tags; no image is decoded."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for _ in _read_samples(work, shard, digest):
        pass
    return digest.hexdigest()


def _read_samples(
    work: ShardWork, shard: int, digest: blake2b
) -> Iterator[tuple[int, Sample, dict] | BadSample | None]:
    """Yield row, sample and JSON of a shard's samples, an error for a bad one, and None for a duplicate.

    What is read is added to the digest.
    """
    for row in work.rows(shard):
        work.count(1)
        # Each of `contents` is digested by itself, so that their borders count.
        outcome: tuple[int, Sample, dict] | BadSample | None
        if work.is_unique is not None and not work.is_unique[row]:
            outcome, contents = None, [b"duplicate"]
        else:
            try:
                sample = work.source[row]
                fields = _make_fields(sample, work)
                outcome, contents = (row, sample, fields), [sample.image, _encode_json(fields)]
            except BadSample as bad:
                outcome, contents = bad, [str(bad).encode()]
        for content in contents:
            digest.update(blake2b(content).digest())
        yield outcome


def _usable_samples(work: ShardWork, shard: int, log: _ShardLog) -> Iterator[tuple[int, str, bytes, dict]]:
    """Yield row, image suffix, image and JSON of the samples to write, and log all of them."""
    for outcome in _read_samples(work, shard, log.input_digest):
        if outcome is None:
            log.report.add(num_read=1, bad=[])
            log.counts["duplicates"] += 1
            continue
        try:
            if isinstance(outcome, BadSample):
                raise outcome
            row, sample, fields = outcome
            with collect_remarks() as remarks:
                suffix, image = _make_image(sample, work.settings)
        except BadSample as bad:
            log.report.add(num_read=1, bad=[(bad.reason, bad.name)])
            continue

        name = sample.image_name
        if sample.has_several_lines:
            remarks.append(SEVERAL_LINES)
        log.report.add(num_read=1, bad=[], remarks=[(remark, name) for remark in remarks])
        log.counts["samples"] += 1
        log.counts["tagged"] += any(field.partition("_")[0] == "tags" for field in fields)
        log.images.append((row, hash_id(name), hash_id(name, sample.image)))
        yield row, suffix, image, fields


def _make_image(sample: Sample, settings: Settings) -> tuple[str, bytes]:
    """Return suffix and bytes of the image to write; BadSample if it cannot be decoded."""
    image = EncodedImage(sample.image, sample.image_name, settings.background)
    short_side = min(image.height, image.width)
    if settings.short_side is not None and short_side > settings.short_side:
        shrink = short_side / settings.short_side
        size = [max(1, round(side / shrink)) for side in (image.width, image.height)]
        pixels = cv2.resize(image.decode(shrink), size, interpolation=cv2.INTER_AREA)
    else:
        pixels = image.decode()  # also if the bytes are kept: a damaged image is found now
        suffix = _find_suffix(sample.image)
        if suffix:
            return suffix, sample.image

    flags = [cv2.IMWRITE_JPEG_QUALITY, settings.quality]
    is_encoded, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), flags)
    if not is_encoded:  # a side of a JPEG has at most 65,535 pixels
        raise BadSample(Reason.TOO_LONG_FOR_JPEG, sample.image_name)
    return "jpg", encoded.tobytes()


def _find_suffix(image: bytes) -> str | None:
    """Return the suffix of an image's format; None for a format that a shard may not hold."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    for signature, suffix in SIGNATURES.items():
        if image.startswith(signature):
            return suffix
    return None


def _make_fields(sample: Sample, work: ShardWork) -> dict:
    """Return the JSON of a sample: the fields of its source, the name of its image, captions and tags.

    Raises:
        BadSample: it has no caption or no id for its tags, or a shard cannot hold its texts.
    """
    captions, tags = sample.readable_captions(), dict(sample.tags)
    if work.tags:
        tags = join_tags(tags, find_tags_id(sample, work.settings.tags_id), work.tags)
    # Fields of the source that hold texts are replaced by `captions` and `tags`.
    fields = {}
    for name, value in sample.fields.items():
        if name != "text" and name.partition("_")[0] not in ("caption", "tags"):
            fields[name] = value
    fields["image_id"] = sample.image_name
    for language, caption in captions.items():
        fields[f"caption_{language}" if language else "caption"] = caption
    for language, words in tags.items():
        if words:
            fields[f"tags_{language}" if language else "tags"] = list(words)
    check_text(sample.image_name)
    check_size(len(_encode_json(fields)), MAX_TEXT_BYTES, sample.image_name)
    return fields


def _encode_json(fields: dict) -> bytes:
    # default=str: a table may hold values that JSON does not have, such as dates.
    text = json.dumps(_replace_infinite(fields), ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace")


def _replace_infinite(value: Any) -> Any:
    """Return a value with None for NaN, as which pandas writes a missing number, and infinity: JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _replace_infinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_infinite(item) for item in value]
    return value


def write_sample(archive: tarfile.TarFile, name: str, suffix: str, image: bytes, fields: dict) -> None:
    """Add a sample to a shard: a file of its image, and a JSON file of its fields."""
    for file_suffix, content in ((suffix, image), ("json", _encode_json(fields))):
        member = tarfile.TarInfo(f"{name}.{file_suffix}")  # owner, mode and time are the same for all
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


@dataclass(frozen=True)
class PreparedIndex:
    """Shards with their counts, sizes and checksums.

    Args:
        job: what determines the output, see `prepare`.
        shards: results of `make_shard`, in order, including the results for shards without samples.
        shared_names: number of names that different images have, and the first of these names, as `check` finds them.
    """

    job: Mapping
    shards: Sequence[Mapping]
    shared_names: tuple[int, Sequence[str]] = (0, ())

    @property
    def bad_samples(self) -> BadSampleReport:
        """The report of all shards."""
        report = BadSampleReport()
        for shard in self.shards:
            report.merge(shard["bad_samples"])
        return report

    def total(self, count: str) -> int:
        """Return a count (`samples`, `bytes`, `num_read`, `duplicates` or `tagged`) over all shards."""
        return sum(shard[count] for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Write `index.json` and `report.txt`."""
        totals = {count: self.total(count) for count in ("samples", "bytes", "num_read", "duplicates", "tagged")}
        files = []
        for shard in self.shards:
            if shard["samples"]:
                files.append({key: shard[key] for key in ("name", "samples", "bytes", "sha256")})
        content = totals | {"shards": files, "bad_samples": self.bad_samples.as_dict(), "job": self.job}
        with atomic_files(folder) as temporary:
            write_text(temporary / REPORT, f"{self}\n")
            write_json(temporary / INDEX, content)

    def __str__(self) -> str:
        num_shards = len([shard for shard in self.shards if shard["samples"]])
        size = f", {self.total('bytes'):,} bytes" if self.total("bytes") else ""
        lines = [
            f"{pluralize(self.total('samples'), 'sample')} in {pluralize(num_shards, 'shard')}{size}",
            f"{self.total('tagged'):,} of them with tags",
        ]
        if self.job["settings"]["drop_duplicates"]:
            lines.append(f"{pluralize(self.total('duplicates'), 'duplicate')} dropped")
        if self.shared_names[0]:
            lines.append(
                f"names that different images have, by which no tags can be joined: {format_names(*self.shared_names)}"
            )
        return "\n".join([*lines, str(self.bad_samples)])
