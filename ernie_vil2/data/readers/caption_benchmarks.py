"""Retrieval benchmarks of captions as their authors publish them; docs/benchmarks.md shows each on disk.

- Karpathy and Fei-Fei's splits of Flickr30K and MSCOCO (arXiv 1412.2306): one JSON file for all splits.
- MSCOCO's own captions (Chen et al., arXiv 1504.00325): `captions_{train,val}{2014,2017}.json`.
- COCO-CN (Li et al., arXiv 1805.08661): lists of MSCOCO images, and captions by hand.
- Flickr30k-CN (Lan et al., arXiv 1708.04390): one folder per split, captions cut into words by BosonNLP. Those of the
  test split were translated by hand (`zhm`), the others by machine (`zhb`).
- AIC-ICC, the captions of AI Challenger 2017: a JSON list and a folder of images for each split.

Of one list of captions, a line each:
- Flickr30K-CNA, Flickr30K translated by hand once more (Xie et al., Zero and R2D2, arXiv 2205.03860).
- COCO-CN with five translated sentences an image, as FG-CLIP 2 scores it (Xie et al., arXiv 2510.10921).
- LIT-CN, DCI-CN and DOCCI-CN, long Chinese captions of the same authors: read as their own evaluation reads them.
- Crossmodal-3600, captions of 3,600 images in 36 languages (Thapliyal et al., arXiv 2205.12522).
"""

import re
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ernie_vil2.data.benchmark import TEXT_ID, Benchmark, BenchmarkImage, BenchmarkText, Collector
from ernie_vil2.data.readers.layout import (
    SPLITS,
    ImageFolders,
    Layout,
    Precedence,
    find_file,
    find_split_files,
    order_splits,
)
from ernie_vil2.data.readers.locations import Location
from ernie_vil2.data.samples import BadSample, Reason, Sample, decode_utf8, is_blank, parse_object
from ernie_vil2.data.source_files import extract_values, read_json, read_numbered_lines
from ernie_vil2.data.spec import DataSpec

Line = tuple[BenchmarkImage, BenchmarkText]  # the image and the text of a line

FLICKR30K_FOLDERS = ("flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images")
MSCOCO_FOLDERS = ("train2014", "val2014")
FIELDS = ("imgid", "cocoid", "filepath", "split")


def _read_karpathy(name: str, annotations: Path, split: str, folders: ImageFolders) -> Benchmark:
    """An image's id is its file name, a text's its `sentid`. All sentences are read; `train` includes `restval`."""
    wanted = {"train", "restval"} if split == "train" else {split}
    rows = read_json(annotations, dict).get("images")
    if not isinstance(rows, list):
        raise ValueError(f"{annotations}: no list of images in it; is it one of Karpathy's data sets?")
    collector = Collector()
    for number, row in enumerate(rows):
        if isinstance(row, dict) and row.get("split") not in wanted:
            continue
        with collector.entry():
            file, sentences = extract_values(row, f"{annotations.name}, image {number}", filename=str, sentences=list)
            fields = {name: row[name] for name in FIELDS if name in row}
            image = folders.get_image(file, file, fields=fields)
            collector.add_image(image, image.id, must_be_new=True)
            for position, sentence in enumerate(sentences):
                with collector.entry():
                    text = _karpathy_text(sentence, row, f"{image.id}, sentence {position}")
                    collector.add_text(text, must_be_new=True)
                    collector.add_pair(image.id, text.id)
    return collector.make_benchmark(f"{name}-{split}", [annotations])


def _karpathy_text(sentence: Any, row: dict, where: str) -> BenchmarkText:
    text_id, raw = extract_values(sentence, where, "sentid", raw=str)
    if sentence.get("imgid", row.get("imgid")) != row.get("imgid"):
        raise BadSample(Reason.UNMATCHED_IMAGE, where)
    return BenchmarkText(text_id, raw.strip())


FLICKR30K = Layout(
    name="flickr30k",
    file_description="dataset_flickr30k.json",
    find=lambda folder: find_split_files(folder, dict.fromkeys(SPLITS, "dataset_flickr30k.json")),
    read=partial(_read_karpathy, "flickr30k"),
    image_folders=FLICKR30K_FOLDERS,
    precedence=Precedence.BENCHMARK,
)
MSCOCO = Layout(
    name="mscoco",
    file_description="dataset_coco.json",
    find=lambda folder: find_split_files(folder, dict.fromkeys(SPLITS, "dataset_coco.json")),
    read=partial(_read_karpathy, "mscoco"),
    image_folders=MSCOCO_FOLDERS,
    precedence=Precedence.BENCHMARK,
)


COCO_CAPTIONS_FILE = re.compile(r"captions_((?:train|val|test)\d*)\.json")


def _find_coco_captions(folder: Path) -> dict[str, list[Path]]:
    paths = [path for home in (folder, folder / "annotations") for path in home.glob("captions_*.json")]
    return order_splits({found[1]: path for path in paths if (found := COCO_CAPTIONS_FILE.fullmatch(path.name))})


def _read_coco_captions(annotations: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Images and texts have their published ids, which are numbers: `391895`, `770337`."""
    content = read_json(annotations, dict)
    if not isinstance(content.get("images"), list) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"{annotations}: no lists of images and annotations in it; is it one of COCO's caption files?")
    collector = Collector()
    for number, row in enumerate(content["images"]):
        with collector.entry():
            image_id, file = extract_values(row, f"{annotations.name}, image {number}", "id", file_name=str)
            collector.add_image(folders.get_image(image_id, file), file, must_be_new=True)
    for number, row in enumerate(content["annotations"]):
        with collector.entry():
            where = f"{annotations.name}, annotation {number}"
            text_id, caption = extract_values(row, where, "id", caption=str)
            image_id = str(row.get("image_id"))
            if not collector.has_image(image_id):
                raise BadSample(Reason.UNMATCHED_IMAGE, f"{where}, {image_id}")
            collector.add_text(BenchmarkText(text_id, caption.strip()), must_be_new=True)
            collector.add_pair(image_id, text_id)
    return collector.make_benchmark(f"coco-captions-{split}", [annotations])


COCO_CAPTIONS = Layout(
    name="coco-captions",
    file_description="annotations/captions_{train,val}{2014,2017}.json",
    find=_find_coco_captions,
    read=_read_coco_captions,
    image_folders=(*MSCOCO_FOLDERS, "train2017", "val2017"),
    precedence=Precedence.CAPTIONS,
)


def _read_caption_lines(
    name: str,
    ids: Path,
    captions: Path,
    folders: ImageFolders,
    other_ids: Container[bytes] = (),
    clean: Callable[[str], str] = str.strip,
) -> Benchmark:
    """The images of a list with their captions, in the form that COCO-CN and Flickr30k-CN share.

    Args:
        name: of the benchmark.
        ids: one image id a line; the image file is `<image id>.jpg`.
        captions: lines `<image id>#<n><TAB or space><caption>`; all before the white space is the text's id.
        other_ids: images of other splits as the files spell them, whose captions are skipped.
        clean: makes the published caption the text that is encoded.
    """
    if not captions.is_file():
        raise FileNotFoundError(f"{captions} is missing; {ids.name} lists images, and it holds their captions")
    collector = Collector()
    for where, line in read_numbered_lines(ids):
        with collector.entry():
            image_id = decode_utf8(line, where).strip()
            collector.add_image(folders.get_image(image_id, f"{image_id}.jpg"), image_id, must_be_new=True)
    for where, line in read_numbered_lines(captions):
        if line.partition(b"#")[0] in other_ids:
            continue
        with collector.entry():
            text_id, *caption = decode_utf8(line, where).split(maxsplit=1) or [""]
            image_id, mark, _ = text_id.partition("#")
            if not mark:
                raise BadSample(Reason.MALFORMED_ROW, where)
            if not collector.has_image(image_id):
                raise BadSample(Reason.UNMATCHED_IMAGE, text_id)
            collector.add_text(BenchmarkText(text_id, clean("".join(caption))), must_be_new=True)
            collector.add_pair(image_id, text_id)
    return collector.make_benchmark(name, [ids, captions])


COCO_CN_CAPTIONS = "imageid.human-written-caption.txt"


def _read_coco_cn(ids: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Images and texts have their published ids: `COCO_val2014_000000001234`, `COCO_val2014_000000001234#0`."""
    lists = {path: {line.strip() for _, line in read_numbered_lines(path)} for path in ids.parent.glob("coco-cn_*.txt")}
    others = set().union(*lists.values()) - lists[ids]
    return _read_caption_lines(f"coco-cn-{split}", ids, ids.with_name(COCO_CN_CAPTIONS), folders, others)


COCO_CN = Layout(
    name="coco-cn",
    file_description=f"coco-cn_test.txt and {COCO_CN_CAPTIONS}",
    find=lambda folder: find_split_files(folder, {split: f"coco-cn_{split}.txt" for split in SPLITS}),
    read=_read_coco_cn,
    image_folders=MSCOCO_FOLDERS,
    precedence=Precedence.BENCHMARK,
)


FLICKR30K_CN_SETS = {
    "test": "ImageSets/flickr30kzhmbosontest.txt",
    "val": "ImageSets/flickr30kzhbbosonval.txt",
    "train": "ImageSets/flickr30kzhbbosontrain.txt",
}
PART_OF_SPEECH = re.compile(r":[A-Za-z]+$")


def _read_flickr30k_cn(ids: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Images and texts have their published ids: `1007129816`, `1007129816#zhm#0`."""
    captions = ids.parents[1] / "TextData" / f"seg.{ids.stem}.caption.txt"
    return _read_caption_lines(f"flickr30k-cn-{split}", ids, captions, folders, clean=join_words)


def join_words(caption: str) -> str:
    """A caption of words, each with its part of speech or without (`警车:n 停:v`), as it was written (`警车停`)."""
    return "".join(PART_OF_SPEECH.sub("", word) for word in caption.split())


FLICKR30K_CN = Layout(
    name="flickr30k-cn",
    file_description="flickr30kzhmbosontest/ImageSets/flickr30kzhmbosontest.txt and TextData/ next to ImageSets/",
    # The folder of all splits, or that of one.
    find=lambda folder: find_split_files(folder, FLICKR30K_CN_SETS),
    read=_read_flickr30k_cn,
    image_folders=FLICKR30K_FOLDERS,
    precedence=Precedence.BENCHMARK,
)


AIC_ICC_FILES = {
    "val": "caption_validation_annotations_20170910.json",
    "train": "caption_train_annotations_20170902.json",
}


def _read_aic_icc(annotations: Path, split: str, folders: ImageFolders) -> Benchmark:
    """An image's id is its file name; its texts are `<file name>#0` to `#4`."""
    collector = Collector()
    for number, row in enumerate(read_json(annotations, list)):
        with collector.entry():
            where = f"{annotations.name}, entry {number}"
            image_id, captions = extract_values(row, where, image_id=str, caption=list)
            if not all(isinstance(caption, str) for caption in captions):
                raise BadSample(Reason.MALFORMED_ROW, where)
            collector.add_image(folders.get_image(image_id, image_id), image_id, must_be_new=True)
            for position, caption in enumerate(captions):
                with collector.entry():
                    text_id = f"{image_id}#{position}"
                    collector.add_text(BenchmarkText(text_id, caption.strip()))
                    collector.add_pair(image_id, text_id)
    return collector.make_benchmark(f"aic-icc-{split}", [annotations])


AIC_ICC = Layout(
    name="aic-icc",
    file_description=" or ".join(AIC_ICC_FILES.values()),
    find=lambda folder: find_split_files(folder, AIC_ICC_FILES),
    read=_read_aic_icc,
    image_folders=("caption_validation_images_20170910", "caption_train_images_20170902"),
    precedence=Precedence.BENCHMARK,
)


def _read_lines(
    name: str, parse: Callable[[str, str, ImageFolders], Line], path: Path, split: str, folders: ImageFolders
) -> Benchmark:
    """A pair in each line, which `parse` makes of the line and its name for errors."""
    collector = Collector()
    for where, line in read_numbered_lines(path):
        with collector.entry():
            image, text = parse(decode_utf8(line, where), where, folders)
            collector.add_sample(image, image.id, text, where)
    return collector.make_benchmark(f"{name}-{split}" if split else name, [path])


def _numbered(line: str, where: str, folders: ImageFolders) -> Line:
    """`<image>#<n><white space><caption>`: all before the white space is the text's id, the image is `<image>.jpg`."""
    text_id, *caption = line.split(maxsplit=1) or [""]
    image_id, mark, _ = text_id.partition("#")
    if not mark or not image_id:
        raise BadSample(Reason.MALFORMED_ROW, where)
    return folders.get_image(image_id, f"{image_id}.jpg"), BenchmarkText(text_id, "".join(caption).strip())


def _with_path(line: str, where: str, folders: ImageFolders) -> Line:
    """`<path of the image><tab><caption>`: the path is the image's id and, with the number of the line, the text's."""
    file, tab, caption = line.partition("\t")
    if not tab or is_blank(file):
        raise BadSample(Reason.MALFORMED_ROW, where)
    file = file.strip().removeprefix("./")
    names = [Path(file).name] if Path(file).is_absolute() else [file, Path(file).name]
    return folders.get_image(file, *names), BenchmarkText(where.rpartition("/")[2], caption.strip())


FLICKR30K_CNA_FILES = {
    "test": "flickr30k_cna_test.txt",
    "val": "flickr30k_cna_val.txt",
    "train": "flickr30k_cna_train.txt",
}
OTHER_TEST = {"test": "flickr30k_cn_test.txt"}  # what the release of Zero calls it
FLICKR30K_CNA = Layout(
    name="flickr30k-cna",
    file_description=FLICKR30K_CNA_FILES["test"],
    find=lambda folder: find_split_files(folder, OTHER_TEST) | find_split_files(folder, FLICKR30K_CNA_FILES),
    read=partial(_read_lines, "flickr30k-cna", _numbered),
    image_folders=(*FLICKR30K_FOLDERS, "flickr30k/images"),
    precedence=Precedence.BENCHMARK,
)


def _find_translated(folder: Path) -> dict[str, Sequence[Path]]:
    path = find_file(folder, "pair.txt")
    return {"test": [path]} if path and _begins_with(path, b"#zhm#") else {}


def _begins_with(path: Path, mark: bytes) -> bool:
    return mark in next((line for _, line in read_numbered_lines(path)), b"")


COCO_CN_TRANSLATED = Layout(
    name="coco-cn-translated",
    file_description="pair.txt, of lines with #zhm#",
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
    file_description=" or ".join(LONG_CAPTION_FILES),
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
        for where, line in read_numbered_lines(path):
            try:
                self._rows += self._of_image(parse_object(line, where), where, folders)
            except BadSample as bad:
                self._rows.append(bad)

    def _of_image(
        self, row: dict, where: str, folders: ImageFolders
    ) -> list[tuple[BenchmarkImage, int, dict[str, str]]]:
        key = row.get(KEY)
        if not isinstance(key, str) or not key:
            raise BadSample(Reason.MALFORMED_ROW, where)
        image = folders.get_image(key, f"{key}.jpg", fields={"locale": row.get("image/locale", "")})
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

    def read_image_name(self, index: int) -> str:
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
    folders = XM3600.find_image_folders(path, data)
    source = Xm3600(path, folders)
    folders.check_images(source.first_images())
    return source


XM3600 = Layout(
    name="xm3600",
    file_description="captions.jsonl, of objects with image/key",
    find=_find_xm3600,
    open=_open_xm3600,
    image_folders=("images",),
    precedence=Precedence.BENCHMARK,
)
