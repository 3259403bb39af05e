"""Retrieval benchmarks of one list of captions, a line each; docs/benchmarks.md shows each on disk.

- Flickr30K-CNA, Flickr30K translated by hand once more (Xie et al., Zero and R2D2, arXiv 2205.03860).
- COCO-CN with five translated sentences an image, as FG-CLIP 2 scores it (Xie et al., arXiv 2510.10921).
- LIT-CN, DCI-CN and DOCCI-CN, long Chinese captions of the same authors: read as their own evaluation reads them.
- Crossmodal-3600, captions of 3,600 images in 36 languages (Thapliyal et al., arXiv 2205.12522).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ernie_vil2.data.benchmark import TEXT_ID, Benchmark, BenchmarkImage, BenchmarkText, Collector
from ernie_vil2.data.readers.caption_benchmarks import FLICKR30K_FOLDERS, MSCOCO_FOLDERS
from ernie_vil2.data.readers.layout import ImageFolders, Layout, Precedence, find_file, found_files
from ernie_vil2.data.readers.shard_files import Location
from ernie_vil2.data.samples import BadSample, Reason, Sample, as_object, as_text, is_blank
from ernie_vil2.data.source_files import numbered_lines
from ernie_vil2.data.spec import DataSpec

Line = tuple[BenchmarkImage, BenchmarkText]  # the image and the text of a line


def _read_lines(
    name: str, parse: Callable[[str, str, ImageFolders], Line], path: Path, split: str, folders: ImageFolders
) -> Benchmark:
    """A pair in each line, which `parse` makes of the line and its name for errors."""
    collector = Collector()
    for where, line in numbered_lines(path):
        with collector.entry():
            image, text = parse(as_text(line, where), where, folders)
            collector.add_sample(image, image.id, text, where)
    return collector.benchmark(f"{name}-{split}" if split else name, [path])


def _numbered(line: str, where: str, folders: ImageFolders) -> Line:
    """`<image>#<n><white space><caption>`: all before the white space is the text's id, the image is `<image>.jpg`."""
    text_id, *caption = line.split(maxsplit=1) or [""]
    image_id, mark, _ = text_id.partition("#")
    if not mark or not image_id:
        raise BadSample(Reason.MALFORMED_ROW, where)
    return folders.image(image_id, f"{image_id}.jpg"), BenchmarkText(text_id, "".join(caption).strip())


def _with_path(line: str, where: str, folders: ImageFolders) -> Line:
    """`<path of the image><tab><caption>`: the path is the image's id and, with the number of the line, the text's."""
    file, tab, caption = line.partition("\t")
    if not tab or is_blank(file):
        raise BadSample(Reason.MALFORMED_ROW, where)
    file = file.strip().removeprefix("./")
    names = [Path(file).name] if Path(file).is_absolute() else [file, Path(file).name]
    return folders.image(file, *names), BenchmarkText(where.rpartition("/")[2], caption.strip())


FLICKR30K_CNA_FILES = {
    "test": "flickr30k_cna_test.txt",
    "val": "flickr30k_cna_val.txt",
    "train": "flickr30k_cna_train.txt",
}
OTHER_TEST = {"test": "flickr30k_cn_test.txt"}  # what the release of Zero calls it
FLICKR30K_CNA = Layout(
    name="flickr30k-cna",
    files=FLICKR30K_CNA_FILES["test"],
    find=lambda folder: found_files(folder, OTHER_TEST) | found_files(folder, FLICKR30K_CNA_FILES),
    read=partial(_read_lines, "flickr30k-cna", _numbered),
    image_folders=(*FLICKR30K_FOLDERS, "flickr30k/images"),
    precedence=Precedence.BENCHMARK,
)


def _find_translated(folder: Path) -> dict[str, Sequence[Path]]:
    path = find_file(folder, "pair.txt")
    return {"test": [path]} if path and _begins_with(path, b"#zhm#") else {}


def _begins_with(path: Path, mark: bytes) -> bool:
    return mark in next((line for _, line in numbered_lines(path)), b"")


COCO_CN_TRANSLATED = Layout(
    name="coco-cn-translated",
    files="pair.txt, of lines with #zhm#",
    find=_find_translated,
    read=partial(_read_lines, "coco-cn-translated", _numbered),
    image_folders=MSCOCO_FOLDERS,
    precedence=Precedence.BENCHMARK,
)


LONG_CAPTION_FILES = ("image_caption_trans.txt", "image_caption_long_cn.txt")


def _find_long(folder: Path) -> dict[str, Sequence[Path]]:
    found = [path for name in LONG_CAPTION_FILES if (path := find_file(folder, name))]
    return {"": found[:1]} if found else {}


LONG_CAPTIONS_CN = Layout(
    name="long-captions-cn",
    files=" or ".join(LONG_CAPTION_FILES),
    find=_find_long,
    read=partial(_read_lines, "long-captions-cn", _with_path),
    image_folders=("images",),
    precedence=Precedence.BENCHMARK,
)


KEY = "image/key"


class Xm3600:
    """The captions of Crossmodal-3600 as samples: of every image its first captions in all languages, then the second.

    Args:
        path: `captions.jsonl`.
        folders: of the images, `<key>.jpg`.
    """

    def __init__(self, path: Path, folders: ImageFolders):
        self.name, self.files = str(path), [path]
        self._rows: list[tuple[BenchmarkImage, int, dict[str, str]] | BadSample] = []
        for where, line in numbered_lines(path):
            try:
                self._rows += self._of_image(as_object(line, where), where, folders)
            except BadSample as bad:
                self._rows.append(bad)

    def _of_image(
        self, row: dict, where: str, folders: ImageFolders
    ) -> list[tuple[BenchmarkImage, int, dict[str, str]]]:
        key = row.get(KEY)
        if not isinstance(key, str) or not key:
            raise BadSample(Reason.MALFORMED_ROW, where)
        image = folders.image(key, f"{key}.jpg", fields={"locale": row.get("image/locale", "")})
        captions = {
            language: [text for text in found["caption"] if isinstance(text, str)]
            for language, found in row.items()
            if isinstance(found, dict) and isinstance(found.get("caption"), list)
        }
        most = max(map(len, captions.values()), default=0)
        if not most:
            raise BadSample(Reason.EMPTY_CAPTION, where)
        return [
            (image, number, {language: own[number] for language, own in captions.items() if number < len(own)})
            for number in range(most)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def _row(self, index: int) -> tuple[BenchmarkImage, int, dict[str, str]]:
        row = self._rows[index]
        if isinstance(row, BadSample):
            raise BadSample(row.reason, row.name)
        return row

    def image_name(self, index: int) -> str:
        """What the image of a row is called, see `Shard`."""
        return self._row(index)[0].id

    def __getitem__(self, index: int) -> Sample:
        image, number, captions = self._row(index)
        name = f"{image.id}#{number}"
        return Sample(image.id, name, image.read(), captions, {}, {**image.fields, TEXT_ID: name})

    def first_images(self) -> list[BenchmarkImage]:
        """Those of the first rows, of which one must be there."""
        return [row[0] for row in self._rows[:64] if not isinstance(row, BadSample)]

    def release(self) -> None:
        """Nothing is kept open."""


def _find_xm3600(folder: Path) -> dict[str, Sequence[Path]]:
    path = find_file(folder, "captions.jsonl")
    return {"": [path]} if path and _begins_with(path, f'"{KEY}"'.encode()) else {}


def _open_xm3600(location: Location, data: DataSpec) -> Xm3600:
    path = Path(location.name)
    folders = XM3600.images_of(path, data)
    source = Xm3600(path, folders)
    folders.require(source.first_images())
    return source


XM3600 = Layout(
    name="xm3600",
    files="captions.jsonl, of objects with image/key",
    find=_find_xm3600,
    open=_open_xm3600,
    image_folders=("images",),
    precedence=Precedence.BENCHMARK,
)
