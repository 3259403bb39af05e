"""A sample as a source yields it, and what becomes of those that cannot be used."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar, Protocol
from zlib import crc32

from ernie_vil2.io.files import RepeatedKey, parse_json, write_json, write_text
from ernie_vil2.io.terminal import RunError, counted, printable

MAX_BYTES = 2**28  # of an image file, of a row that holds an image, of a member of a shard; what is longer is not read
MAX_TEXT_BYTES = 2**22  # of a JSON object, a text file, a row without image: as Python objects they take far more
MAX_CHARACTERS = 100_000  # of a caption, or all tags in a language; a longer one is a whole document, or damage
MAX_ID_BITS = 4096  # of a whole number that is an id


class Reason(StrEnum):
    """Why a sample cannot be used: fixed phrases, so that equal faults are counted together (docs/bad_input.md)."""

    # the image
    BROKEN_IMAGE = "broken image"
    TRUNCATED_IMAGE = "truncated image"
    TOO_MANY_PIXELS = "too many pixels"
    TOO_NARROW = "too narrow an image"
    WIDE_PIXELS = "pixels of 32 bits"
    WIDE_JPEG_2000 = "JPEG 2000 of more than 8 bits a colour"
    TOO_LONG_FOR_JPEG = "image too long for JPEG"
    NOT_RGB = "array is not [H, W, 3] uint8 RGB"
    NO_IMAGE = "no image"
    NO_IMAGE_MEMBER = "no image member"
    MISSING_IMAGE = "missing image"
    OUTSIDE_FOLDER = "image outside its folder"
    MALFORMED_IMAGE_ID = "malformed image id"
    UNMATCHED_IMAGE = "unmatched image id"
    REPEATED_IMAGE = "repeated image id"
    DIFFERENT_IMAGE = "image id with different content"
    ONLY_EMBEDDING = "only its embedding is known"
    # its texts
    NO_CAPTION = "no caption"
    EMPTY_CAPTION = "empty caption"
    EMPTY_TEXT = "empty text"
    MALFORMED_CAPTION = "malformed caption"
    CAPTION_NOT_UTF8 = "caption is not UTF-8"
    NOT_UNICODE = "not Unicode text"
    TEXT_TOO_LONG = "text too long"
    MALFORMED_TAGS = "malformed tags"
    TEXT_WITHOUT_IMAGE = "text without image"
    STATEMENT = "statement with a label, no caption"
    REPEATED_TEXT = "repeated text id"
    DIFFERENT_TEXT = "text id with different content"
    # its label
    NO_LABEL = "no label"
    NO_GOLD_LABEL = "no gold label"
    UNKNOWN_LABEL = "unknown label"
    # the row
    MALFORMED_ROW = "malformed row"
    MALFORMED_JSON = "malformed JSON"
    REPEATED_KEY = "repeated key in JSON"
    MALFORMED_BASE64 = "malformed base64"
    NOT_UTF8 = "not UTF-8"
    NO_ID = "no id"
    REPEATED_ID = "repeated id"
    NO_FIELD = "missing field"
    # the files
    MISSING_FILE = "missing file"
    UNREADABLE_FILE = "unreadable file"
    NOT_FETCHED = "file not fetched"
    NO_ANSWER = "no answer in time"
    TOO_LARGE = "more than 256 MiB"
    TOO_MUCH_TEXT = "more than 4 MiB of text"
    LARGE_GROUP = "row group of more than 1 GiB"
    CUT_SHARD = "cut shard"
    DATA_BEHIND = "data behind the end of the shard"
    EMPTY_SHARD = "empty shard"
    LINK = "link in the shard"
    DEVICE = "device in the shard"
    OUTSIDE_SHARD = "member outside the shard"
    SPARSE_MEMBER = "sparse member"
    NAME_NOT_UTF8 = "name is not UTF-8"


class BadSample(ValueError):  # noqa: N818  -- named by what has happened
    """A sample that cannot be used.

    Args:
        reason: one of the fixed phrases.
        name: the sample's name, for a person who looks for it; a long one is cut, characters that cannot be printed are
            written as escapes.
    """

    LONGEST_NAME = 200

    def __init__(self, reason: Reason, name: str):
        self.reason = Reason(reason)
        self.name = printable(name, longest=self.LONGEST_NAME) or "(without a name)"
        super().__init__(f"{self.name}: {self.reason}")


def check_size(size: int, most: int, name: str) -> None:
    """BadSample if something is larger than `most` bytes, which is `MAX_BYTES` or `MAX_TEXT_BYTES`."""
    if size > most:
        raise BadSample(Reason.TOO_LARGE if most == MAX_BYTES else Reason.TOO_MUCH_TEXT, name)


def as_text(line: bytes, name: str) -> str:
    """A line as UTF-8; BadSample if it is not."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSample(Reason.NOT_UTF8, name) from error


def as_object(line: bytes, name: str) -> dict:
    """A line as JSON object; BadSample if it is none, has a key twice, or is longer than `MAX_TEXT_BYTES`."""
    check_size(len(line), MAX_TEXT_BYTES, name)
    try:
        row = parse_json(line)
    except RepeatedKey as error:
        raise BadSample(Reason.REPEATED_KEY, name) from error
    except ValueError as error:
        raise BadSample(Reason.MALFORMED_JSON, name) from error
    if not isinstance(row, dict):
        raise BadSample(Reason.MALFORMED_JSON, name)
    return row


def check_text(text: str, name: str | None = None) -> None:
    """BadSample if a text is longer than `MAX_CHARACTERS`, or holds half a character, as the JSON escape `\\ud800`; of
    the row's name, or else of what the text begins with."""
    name = text if name is None else name
    if len(text) > MAX_CHARACTERS:
        raise BadSample(Reason.TEXT_TOO_LONG, name)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadSample(Reason.NOT_UNICODE, name) from error


def is_id(value: object) -> bool:
    """Whether a value can be an id: a text that is not blank, or a whole number. BadSample as `check_text`."""
    if isinstance(value, str):
        check_text(value)
        return bool(value.strip())
    # A pickle can hold a number that is longer than Python is willing to write in digits (4,300).
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= MAX_ID_BITS


@dataclass(frozen=True)
class Sample:
    """One image with its texts.

    `captions` and `tags` are by language; the language "" is that of a source that names none.
    Samples share an image if their `image_name` and their bytes are equal, and a text if their `text_name` is.
    `fields` holds what else the source says, for filters. `image_file` is the file that the image has to itself; empty
    where it lies in a shard.
    """

    image_name: str
    text_name: str
    image: bytes
    captions: Mapping[str, str]
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fields: Mapping[str, object] = field(default_factory=dict)
    image_file: str = ""
    no_caption: ClassVar[Reason] = Reason.EMPTY_CAPTION
    """Why it cannot be used where a caption is needed and there is none."""

    @property
    def stored_bytes(self) -> int:
        """Of its images as they are stored."""
        return len(self.image)

    def caption(self, language: str) -> str:
        """The caption in a language, or the one that has no language; BadSample if nothing can be read in it."""
        text = (self.captions.get(language) or self.captions.get("") or "").strip()
        if is_blank(text):
            raise BadSample(self.no_caption, self.image_name)
        return text

    def readable_captions(self) -> dict[str, str]:
        """Those that are not blank, stripped; BadSample if there is none."""
        captions = {language: text.strip() for language, text in self.captions.items() if not is_blank(text)}
        if not captions:
            raise BadSample(self.no_caption, self.image_name)
        return captions

    def caption_lines(self, language: str) -> list[str]:
        """The lines of the caption that are not blank; each is a caption where `Views.caption_lines` says so."""
        return [line.strip() for line in self.caption(language).splitlines() if not is_blank(line)]

    def long_caption(self, name: str, language: str) -> str | None:
        """The caption `NAME_LANGUAGE`, or the one `NAME`; None if nothing can be read in it."""
        text = (self.captions.get(f"{name}_{language}") or self.captions.get(name) or "").strip()
        return None if is_blank(text) else text

    def text_name_without(self, long: str) -> str:
        """`text_name`, where captions make it without the long ones: two long ones may belong to one short text."""
        if self.text_name != "\n".join(self.captions.values()):
            return self.text_name
        short = [text for language, text in self.captions.items() if language.partition("_")[0] != long]
        return "\n".join(short) or self.text_name

    @property
    def has_lines(self) -> bool:
        """Whether a caption has several lines that are not blank."""
        return any(sum(not is_blank(line) for line in text.splitlines()) > 1 for text in self.captions.values())

    def tag_list(self, language: str) -> tuple[str, ...]:
        """The object tags in a language, or those that have no language; possibly none."""
        return self.tags.get(language) or self.tags.get("") or ()


@dataclass(frozen=True, kw_only=True)
class Statement(Sample):
    """A text about an image, or about a left and a right one, and what it is to them: true, entailed, contradicted, ...

    It may be false, so it is not a caption. `image` is the left one of two.
    """

    text: str
    label: str
    right: bytes | None = None
    no_caption: ClassVar[Reason] = Reason.STATEMENT

    @property
    def stored_bytes(self) -> int:
        return len(self.image) + len(self.right or b"")


def is_blank(text: str) -> bool:
    """Whether a text is empty to the tokenisers: they drop spaces, control characters and lone accents."""
    return all(letter == "\ufffd" or unicodedata.category(letter).startswith(("C", "Z", "Mn")) for letter in text)


def text_key(text: str) -> str:
    """Return what two texts have in common that a person takes for the same: neither case nor spaces count."""
    return " ".join(text.split()).casefold()


SEVERAL_LINES = "caption of several lines, read as one text (see caption_lines)"  # remark on a sample


def content_id(name: str, image: bytes | None = None) -> int:
    """A name as a 63-bit number that travels with the batch; for an image with its bytes.

    An image's name alone does not distinguish it from others: keys begin again in each shard, and a table with
    images in it may keep but the last part of their paths. Samples of one name and other bytes are different images.
    """
    digest = blake2b(name.encode(), digest_size=8)
    if image is not None:
        # It is distinguished from others of its name alone: this is enough, and blake2b would take six times as long.
        digest.update(f"\0{len(image)} {crc32(image)}".encode())
    return int.from_bytes(digest.digest(), "little") >> 1


def first_names(count: int, names: Sequence[str]) -> str:
    """A count with the first of the names that it counts."""
    return f"{count:,} ({', '.join(names)}{', ...' * (count > len(names))})"


class TooManyBadSamples(RunError):  # noqa: N818  -- named by what has happened
    """More samples could not be used than `Data.max_bad_share` allows."""


class BadSampleReport:
    """Counts the samples that could not be used, by reason, and what is odd about others; with the first names of each.
    A share of `max_share` that could not be used is tolerated."""

    NAMES = 10  # of each reason
    PATIENCE = 100  # samples that are read before the share is judged

    def __init__(self, max_share: float = 1.0):
        self.max_share = max_share
        self.read = 0
        self.counts: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()  # on samples that are used
        self.names: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, read: int, bad: Iterable[tuple[str, str]], remarks: Iterable[tuple[str, str]] = ()) -> None:
        """Takes `read` more samples of which `bad`, as (reason, name), could not be used.

        `remarks`, as (remark, name), are on samples that are used, see `decoding.collect_remarks`.

        Raises:
            TooManyBadSamples: their share over the whole run passes `max_share`.
        """
        self.read += read
        for counts, found in ((self.counts, bad), (self.remarks, remarks)):
            for reason, name in found:
                counts[reason] += 1
                if len(self.names[reason]) < self.NAMES and name not in self.names[reason]:
                    self.names[reason].append(name)
        if self.read >= self.PATIENCE and self.counts.total() > self.max_share * self.read:
            raise TooManyBadSamples(
                f"{self.counts.total():,} of {counted(self.read, 'sample')} could not be used, more than "
                f"Data.max_bad_share = {self.max_share} allows\n{self}"
            )

    @contextmanager
    def attempt(self, remarks: Iterable[tuple[str, str]] = ()) -> Iterator[None]:
        """The block reads one sample; a BadSample that it raises is counted, and the run goes on.

        Args:
            remarks: as of `add`, if the sample is used.
        """
        bad = []
        try:
            yield
        except BadSample as problem:
            bad.append((problem.reason, problem.name))
        self.add(1, bad, () if bad else remarks)

    def merge(self, saved: dict) -> None:
        """Adds what another report's `as_dict` gave: that of an earlier run, or of another rank."""
        self.read += saved["read"]
        for counts, entries in ((self.counts, saved["reasons"]), (self.remarks, saved.get("remarks", {}))):
            for reason, entry in entries.items():
                counts[reason] += entry["count"]
                self.names[reason] = list(dict.fromkeys(self.names[reason] + entry["names"]))[: self.NAMES]

    def as_dict(self) -> dict:
        """For JSON: samples read, samples bad, and by reason the count and the first names; remarks, if any, alike."""
        reasons, remarks = (
            {reason: {"count": count, "names": self.names[reason]} for reason, count in counts.most_common()}
            for counts in (self.counts, self.remarks)
        )
        return {"read": self.read, "bad": self.counts.total(), "reasons": reasons} | (
            {"remarks": remarks} if remarks else {}
        )

    def write(self, folder: Path) -> None:
        """Writes `bad_samples.json`, and `bad_samples.txt` for a person."""
        write_json(folder / "bad_samples.json", self.as_dict())
        write_text(folder / "bad_samples.txt", f"{self}\n")

    def __str__(self) -> str:
        bad, read = self.counts.total(), f"{counted(self.read, 'sample')} read"
        lines = [
            f"{bad:,} of {read} could not be used and {'was' if bad == 1 else 'were'} skipped:"
            if bad
            else f"{'the one sample read' if self.read == 1 else f'all {read}'} could be used"
        ]
        lines += self._lines(self.counts)
        if self.remarks:
            lines += ["odd, but used:", *self._lines(self.remarks)]
        return "\n".join(lines)

    def _lines(self, counts: Counter[str]) -> list[str]:
        return [
            f"  {reason}: {count} ({', '.join(self.names[reason])}{', ...' * (count > self.NAMES)})"
            for reason, count in counts.most_common()
        ]


class SampleSequence(Protocol):
    """Random access to samples; reading one raises BadSample when it cannot be used."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class LocatedSamples(SampleSequence, Protocol):
    """Samples of which a person can be told where they lie."""

    @property
    def files(self) -> list[Path]:
        """The local files that rows are read from."""

    def where(self, index: int) -> str:
        """Shard and row of a sample, for a person who looks for it."""
