"""TSV files of the official release."""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from ernie_vil2.data.readers.chinese_clip import IMAGES_SUFFIX
from ernie_vil2.data.readers.columns import has_pairs, rename_columns
from ernie_vil2.data.readers.layout import Layout, Precedence
from ernie_vil2.data.readers.locations import Location
from ernie_vil2.data.readers.source import Lines, decode_base64
from ernie_vil2.data.readers.spreadsheets import normalize_encoding, read_header_line, read_headers
from ernie_vil2.data.samples import BadSample, Reason, Sample, check_text, decode_utf8, is_id
from ernie_vil2.io.files import stat_regular_file

MAX_HEADER_BYTES = 2**16  # beginning of the first line that is searched for headers; a row with an image is far longer


class TsvSource:
    """Rows of an official TSV file: `text<TAB>image id<TAB>base64 image`, UTF-8, one pair in each row.

    As in the official reader (`datasets/coco.py`), the first column is the text and the last one the image, whatever is
    between them and whatever white space follows. The second of three or more columns is the image id. An image without
    an id is named by its content. Rows with the same image id share an image; rows with the same text share a text.

    Raises:
        ValueError: the file is empty.
    """

    def __init__(self, location: str | Path | Location):
        self._lines = Lines(location)
        self.name, self.files = self._lines.name, self._lines.files
        self.release = self._lines.release

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        name = self._lines.describe_row(index)
        first_column, _, other_columns = self._lines.read_line(index).rstrip().partition(b"\t")
        middle_columns, _, encoded_image = other_columns.rpartition(b"\t")
        if not encoded_image:
            raise BadSample(Reason.MALFORMED_ROW, name)
        text = decode_utf8(first_column, name)
        image_name = decode_utf8(middle_columns.partition(b"\t")[0], name)
        check_text(text, name)
        image = decode_base64(encoded_image, name)
        if not is_id(image_name):
            image_name = blake2b(image, digest_size=8).hexdigest()
        return Sample(image_name, text, image, {"": text})


def is_tsv(name: str, columns: Mapping[str, str] | None = None, encoding: str | None = None) -> bool:
    """Return whether a file has the official layout, and is no table whose first line names its columns.

    Args:
        name: path or address of the file.
        columns: as for `TableSource`.
        encoding: as for `TableSource`.
    """
    if not name.endswith(".tsv") or name.endswith(IMAGES_SUFFIX):
        return False
    try:
        stat_regular_file(name)  # a pipe would be waited for
        with Path(name).open("rb") as file:
            line = read_header_line(file, MAX_HEADER_BYTES)
        headers = read_headers(line, normalize_encoding(encoding), name)
        return not has_pairs(headers, rename_columns(headers, columns or {}, name))
    except (OSError, ValueError):
        return True  # an address, a file without these columns, or one whose problem is explained when it is read


def find_tsv_files(
    folder: Path, columns: Mapping[str, str] | None = None, encoding: str | None = None
) -> dict[str, list[Path]]:
    """Return the files of a folder for which `is_tsv` is true, as data without splits."""
    paths = sorted(path for path in folder.glob("[!.]*.tsv") if is_tsv(str(path), columns, encoding))
    return {"": paths} if paths else {}


TSV = Layout(
    name="tsv",
    file_description="official .tsv files",
    find=find_tsv_files,
    accepts=lambda location: is_tsv(location.name),
    open=lambda location, data: TsvSource(location),
    precedence=Precedence.TSV,
)
