"""The samples that sources yield, and the report on samples that cannot be used."""

import re
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
from ernie_vil2.io.terminal import RunError, make_printable, pluralize

# Limits on what is read of strangers' files; whatever is larger is a bad sample.
MAX_BYTES = 2**28  # of an image file, a table row with an image, or a member of a shard
MAX_TEXT_BYTES = 2**22  # of a JSON object, a text file, or a row without image: Python objects take many times as much
MAX_CHARACTERS = 100_000  # of a caption, or of all tags in a language; a longer one is a whole document, or damage
MAX_ID_BITS = 4096  # of an integer id; Python refuses to write integers of more than 4,300 digits

SEVERAL_LINES = "caption of several lines, read as one text (see caption_lines)"  # remark in a `BadSampleReport`


class Reason(StrEnum):
    """Reasons why a sample cannot be used, in fixed phrases that are counted (docs/bad_input.md)."""

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
        name: name of the sample, for a person who looks for it. A long one is cut; unprintable characters are escaped.
    """

    MAX_NAME = 200  # characters: a line of a terminal or two, even if the name is a whole row

    def __init__(self, reason: Reason, name: str):
        self.reason = Reason(reason)
        self.name = make_printable(name, max_length=self.MAX_NAME) or "(without a name)"
        super().__init__(f"{self.name}: {self.reason}")


def check_size(size: int, max_bytes: int, name: str) -> None:
    """Raise BadSample if a size exceeds `max_bytes`, which is `MAX_BYTES` or `MAX_TEXT_BYTES`."""
    if size > max_bytes:
        reason = Reason.TOO_LARGE if max_bytes == MAX_BYTES else Reason.TOO_MUCH_TEXT
        raise BadSample(reason, name)


def decode_utf8(line: bytes, name: str) -> str:
    """Decode a line; BadSample if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSample(Reason.NOT_UTF8, name) from error


def parse_object(line: bytes, name: str) -> dict:
    """Parse a line as a JSON object; BadSample if it is none, repeats a key, or is longer than `MAX_TEXT_BYTES`."""
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
    """Raise BadSample if a text has more than `MAX_CHARACTERS` or a lone surrogate (JSON escape D800 to DFFF).

    Args:
        text: the text.
        name: name of its row, for the error; None: the text itself.
    """
    if name is None:
        name = text
    if len(text) > MAX_CHARACTERS:
        raise BadSample(Reason.TEXT_TOO_LONG, name)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadSample(Reason.NOT_UNICODE, name) from error


def is_id(value: object) -> bool:
    """Return whether a value can be an id: a text that is not blank, or an integer.

    Raises:
        BadSample: as `check_text`.
    """
    if isinstance(value, str):
        check_text(value)
        return bool(value.strip())
    # JSON cannot hold an integer that is too long to write, but a pickle can.
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= MAX_ID_BITS


@dataclass(frozen=True)
class Sample:
    """One image with its texts.

    Samples share an image if `image_name` and bytes are equal. They share a text if `text_name` is equal.

    Attributes:
        image_name: name of the image.
        text_name: name of the text.
        image: bytes of the image file.
        captions: captions by language; the language is "" if the source names none.
        tags: object tags by language, as for captions.
        fields: other fields of the source, for filters.
        image_file: path of the image file; empty if the image lies in a shard.
        no_caption: reason why a sample without a caption cannot be used.
    """

    image_name: str
    text_name: str
    image: bytes
    captions: Mapping[str, str]
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fields: Mapping[str, object] = field(default_factory=dict)
    image_file: str = ""
    no_caption: ClassVar[Reason] = Reason.EMPTY_CAPTION

    @property
    def stored_bytes(self) -> int:
        """Size of its image files in bytes."""
        return len(self.image)

    def caption(self, language: str) -> str:
        """Return the caption in a language, or else the one without a language; BadSample if both are blank."""
        text = self._find_caption(language, "")
        if text is None:
            raise BadSample(self.no_caption, self.image_name)
        return text

    def _find_caption(self, *keys: str) -> str | None:
        """Return the first caption under these keys that is not blank, stripped; None if all are."""
        for key in keys:
            text = self.captions.get(key, "").strip()
            if not is_blank(text):
                return text
        return None

    def readable_captions(self) -> dict[str, str]:
        """Return the captions that are not blank, stripped; BadSample if there is none."""
        captions = {language: text.strip() for language, text in self.captions.items() if not is_blank(text)}
        if not captions:
            raise BadSample(self.no_caption, self.image_name)
        return captions

    def caption_lines(self, language: str) -> list[str]:
        """Return the lines of the caption that are not blank; with `Views.caption_lines` each is a caption."""
        return split_lines(self.caption(language))

    def long_caption(self, kind: str, language: str) -> str | None:
        """Return the long caption of a kind in a language, or else without a language; None if both are blank.

        Args:
            kind: `Views.long_caption`; long stands for the captions under the keys `long_zh`, `long_en` and `long`.
            language: the language.
        """
        return self._find_caption(f"{kind}_{language}", kind)

    def text_name_without(self, kind: str) -> str:
        """Return the name of the text, without the long captions of a kind if captions make up the name.

        Samples with the same short captions then share their text, even if their long captions differ.
        """
        if self.text_name != "\n".join(self.captions.values()):
            return self.text_name
        short_captions = [text for key, text in self.captions.items() if key.partition("_")[0] != kind]
        return "\n".join(short_captions) or self.text_name

    @property
    def has_several_lines(self) -> bool:
        """Whether a caption has several lines that are not blank."""
        return any(len(split_lines(text)) > 1 for text in self.captions.values())

    def tag_list(self, language: str) -> tuple[str, ...]:
        """Return the object tags in a language, or else those without a language; maybe none."""
        return self.tags.get(language) or self.tags.get("") or ()


@dataclass(frozen=True, kw_only=True)
class Statement(Sample):
    """A text about one or two images, with a label: true, entailed, contradicted, ...

    The text may be false, so it is not a caption.

    Attributes:
        text: the statement.
        label: what the images say about it.
        right: bytes of the second image; `image` is then the left one.
    """

    text: str
    label: str
    right: bytes | None = None
    no_caption: ClassVar[Reason] = Reason.STATEMENT

    @property
    def stored_bytes(self) -> int:
        return len(self.image) + len(self.right or b"")


def split_lines(text: str) -> list[str]:
    """Return the lines of a text that are not blank, stripped.

    A line ends as in a text file. `str.splitlines` would also cut at characters within a line: U+2028, or the U+0085
    that an ellipsis becomes when Windows' encoding is taken for Latin-1.
    """
    return [line.strip() for line in re.split(r"[\r\n]", text) if not is_blank(line)]


def is_blank(text: str) -> bool:
    """Return whether tokenizers see nothing in a text: they drop spaces, control characters and lone accents."""
    # They also drop U+FFFD, which stands for bytes that could not be decoded.
    return all(letter == "\ufffd" or unicodedata.category(letter).startswith(("C", "Z", "Mn")) for letter in text)


def text_key(text: str) -> str:
    """Return a text without differences of case and spaces, equal for texts that people regard as the same."""
    return " ".join(text.split()).casefold()


def hash_id(name: str, image: bytes | None = None) -> int:
    """Return a 63-bit hash of a name, or of an image's name and bytes; it identifies the image in a batch.

    Names of images are not unique: keys start again in each shard, and a table with images may hold only the last
    component of their paths. Samples of equal names and different bytes are different images.
    """
    digest = blake2b(name.encode(), digest_size=8)
    if image is not None:
        # CRC-32 is enough to tell apart the few images of one name, and takes a sixth of blake2b's time.
        digest.update(f"\0{len(image)} {crc32(image)}".encode())
    return int.from_bytes(digest.digest(), "little") >> 1


def format_names(count: int, names: Sequence[str]) -> str:
    """Return a count with the first names of what is counted, made printable, as in "3 (a, b, ...)"."""
    printable_names = [make_printable(name, max_length=BadSample.MAX_NAME) for name in names]
    ellipsis = ", ..." if count > len(names) else ""
    return f"{count:,} ({', '.join(printable_names)}{ellipsis})"


class TooManyBadSamples(RunError):  # noqa: N818  -- named by what has happened
    """More samples could not be used than `Data.max_bad_share` allows."""


class BadSampleReport:
    """Counts of the samples that could not be used, by reason, and of remarks on others, with the first names of each.

    Args:
        max_share: share of bad samples that is tolerated.

    Attributes:
        num_read: number of samples read.
        counts: number of bad samples by reason.
        remarks: number of samples that are odd, but used, by remark.
        names: names of the first samples by reason or remark.
    """

    MAX_NAMES = 10  # of each reason; bounds the report, in memory and on the screen
    MIN_READ = 100  # samples that are read before the share is judged, so that a bad start does not end the run

    def __init__(self, max_share: float = 1.0):
        self.max_share = max_share
        self.num_read = 0
        self.counts: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self.names: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, num_read: int, bad: Iterable[tuple[str, str]], remarks: Iterable[tuple[str, str]] = ()) -> None:
        """Count samples.

        Args:
            num_read: number of samples read.
            bad: reason and name of the samples that cannot be used.
            remarks: remark and name of samples that are odd, but used; see `decoding.collect_remarks`.

        Raises:
            TooManyBadSamples: the share of bad samples over the whole run exceeds `max_share`.
        """
        self.num_read += num_read
        for counts, entries in ((self.counts, bad), (self.remarks, remarks)):
            for reason, name in entries:
                counts[reason] += 1
                if len(self.names[reason]) == self.MAX_NAMES:
                    continue
                # A stranger chooses the name: the names of remarks have not been made printable so far.
                printable_name = make_printable(name, max_length=BadSample.MAX_NAME)
                # An image that is read in every epoch is named once.
                if printable_name not in self.names[reason]:
                    self.names[reason].append(printable_name)
        if self.num_read >= self.MIN_READ and self.counts.total() > self.max_share * self.num_read:
            raise TooManyBadSamples(
                f"{self.counts.total():,} of {pluralize(self.num_read, 'sample')} could not be used, more than "
                f"Data.max_bad_share = {self.max_share} allows\n{self}"
            )

    @contextmanager
    def attempt(self, remarks: Iterable[tuple[str, str]] = ()) -> Iterator[None]:
        """Count the sample that is read in the block; a BadSample raised there is counted and suppressed.

        Args:
            remarks: as in `add`, counted if the sample is used.
        """
        bad = []
        try:
            yield
        except BadSample as error:
            bad.append((error.reason, error.name))
        self.add(1, bad, () if bad else remarks)

    def merge(self, saved: dict) -> None:
        """Add the report of an earlier run or another rank, as `as_dict` has returned it."""
        self.num_read += saved["num_read"]
        for counts, entries in ((self.counts, saved["reasons"]), (self.remarks, saved.get("remarks", {}))):
            for reason, entry in entries.items():
                counts[reason] += entry["count"]
                names = dict.fromkeys(self.names[reason] + entry["names"])  # without repetitions
                self.names[reason] = list(names)[: self.MAX_NAMES]

    def as_dict(self) -> dict:
        """Return the report as JSON: number of samples read and bad, and count and first names by reason and remark."""
        content = {"num_read": self.num_read, "num_bad": self.counts.total(), "reasons": self._entries(self.counts)}
        if self.remarks:
            content["remarks"] = self._entries(self.remarks)
        return content

    def _entries(self, counts: Counter[str]) -> dict[str, dict]:
        return {reason: {"count": count, "names": self.names[reason]} for reason, count in counts.most_common()}

    def write(self, folder: Path) -> None:
        """Write `bad_samples.json`, and `bad_samples.txt` for people."""
        write_json(folder / "bad_samples.json", self.as_dict())
        write_text(folder / "bad_samples.txt", f"{self}\n")

    def __str__(self) -> str:
        num_bad = self.counts.total()
        samples_read = f"{pluralize(self.num_read, 'sample')} read"
        if num_bad:
            verb = "was" if num_bad == 1 else "were"
            lines = [f"{num_bad:,} of {samples_read} could not be used and {verb} skipped:"]
        elif self.num_read == 1:
            lines = ["the one sample read could be used"]
        else:
            lines = [f"all {samples_read} could be used"]
        lines += self._lines(self.counts)
        if self.remarks:
            lines += ["odd, but used:", *self._lines(self.remarks)]
        return "\n".join(lines)

    def _lines(self, counts: Counter[str]) -> list[str]:
        lines = []
        for reason, count in counts.most_common():
            names = self.names[reason]
            # Fewer names than samples alone do not mean that names are missing: an image of every epoch is named once.
            ellipsis = ", ..." if count > len(names) == self.MAX_NAMES else ""
            lines.append(f"  {reason}: {count} ({', '.join(names)}{ellipsis})")
        return lines


class SampleSequence(Protocol):
    """Random access to samples; reading a sample that cannot be used raises BadSample."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class LocatedSamples(SampleSequence, Protocol):
    """Samples that know where they are stored, for messages."""

    @property
    def files(self) -> list[Path]:
        """The local files that rows are read from."""

    def describe_location(self, index: int) -> str:
        """Return shard and row of a sample, for a person who looks for it."""
