"""Retrieval benchmarks of captions, as their authors publish them; docs/benchmarks.md shows the files of each.

- Karpathy and Fei-Fei's splits of Flickr30K and MSCOCO (arXiv 1412.2306): one JSON file for all splits.
- MSCOCO's own captions (Chen et al., arXiv 1504.00325): `captions_{train,val}{2014,2017}.json`.
- COCO-CN (Li et al., arXiv 1805.08661): lists of MSCOCO images, and captions written by people.
- Flickr30k-CN (Lan et al., arXiv 1708.04390): one folder for each split, captions cut into words by BosonNLP. People
  translated those of the test split (`zhm`), a machine the others (`zhb`).
- AIC-ICC, the captions of AI Challenger 2017: a JSON list and a folder of images for each split.

And benchmarks with a caption in each line:

- Flickr30K-CNA, another translation of Flickr30K by people (Xie et al., Zero and R2D2, arXiv 2205.03860).
- COCO-CN with five translated sentences for each image, as FG-CLIP 2 scores it (Xie et al., arXiv 2510.10921).
- LIT-CN, DCI-CN and DOCCI-CN, long Chinese captions of the same authors, read as their own evaluation reads them.
- Crossmodal-3600, captions of 3,600 images in 36 languages (Thapliyal et al., arXiv 2205.12522).
"""

import re
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
from ernie_vil2.data.samples import BadSample, Reason, Sample, check_text, decode_utf8, is_blank, parse_object
from ernie_vil2.data.source_files import extract_values, read_json, read_numbered_lines
from ernie_vil2.data.spec import DataSpec

FLICKR30K_FOLDERS = ("flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images")
MSCOCO_FOLDERS = ("train2014", "val2014")

# ---- Karpathy's splits ----

KARPATHY_FIELDS = ("imgid", "cocoid", "filepath", "split")  # kept as fields of the image


def _read_karpathy(name: str, annotations: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Read a split with all its sentences; ids are the file name of an image and the `sentid` of a text."""
    # COCO's `restval` holds validation images that everybody adds to the training data.
    splits = ("train", "restval") if split == "train" else (split,)
    rows = read_json(annotations, dict).get("images")
    if not isinstance(rows, list):
        raise ValueError(f"{annotations}: no list of images in it; is it one of Karpathy's data sets?")
    collector = Collector()
    for number, row in enumerate(rows):
        if isinstance(row, dict) and row.get("split") not in splits:
            continue
        with collector.entry():
            file, sentences = extract_values(row, f"{annotations.name}, image {number}", filename=str, sentences=list)
            fields = {name: row[name] for name in KARPATHY_FIELDS if name in row}
            image = folders.get_image(file, file, fields=fields)
            collector.add_image(image, image.id, must_be_new=True)
            for position, sentence in enumerate(sentences):
                with collector.entry():
                    text = _parse_karpathy_sentence(sentence, row, f"{image.id}, sentence {position}")
                    collector.add_text(text, must_be_new=True)
                    collector.add_pair(image.id, text.id)
    return collector.make_benchmark(f"{name}-{split}", [annotations])


def _parse_karpathy_sentence(sentence: Any, row: dict, where: str) -> BenchmarkText:
    text_id, text = extract_values(sentence, where, "sentid", raw=str)
    if sentence.get("imgid", row.get("imgid")) != row.get("imgid"):
        raise BadSample(Reason.UNMATCHED_IMAGE, where)
    return BenchmarkText(text_id, text.strip())


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

# ---- MSCOCO's own captions ----

COCO_CAPTIONS_FILE = re.compile(r"captions_((?:train|val|test)\d*)\.json")


def _find_coco_captions(folder: Path) -> dict[str, list[Path]]:
    splits: dict[str, Path] = {}
    for parent in (folder, folder / "annotations"):
        for path in parent.glob("captions_*.json"):
            match = COCO_CAPTIONS_FILE.fullmatch(path.name)
            if match:
                splits[match[1]] = path
    return order_splits(splits)


def _read_coco_captions(annotations: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Read a split with its published ids, which are numbers: `391895`, `770337`."""
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

# ---- COCO-CN and Flickr30k-CN ----


def _read_caption_lines(
    name: str,
    ids: Path,
    captions: Path,
    folders: ImageFolders,
    excluded_ids: Container[bytes] = (),
    clean: Callable[[str], str] = str.strip,
) -> Benchmark:
    """Read a list of images and a file of captions, the form that COCO-CN and Flickr30k-CN share.

    Args:
        name: name of the benchmark.
        ids: file with an image id in each line; the image file is `<image id>.jpg`.
        captions: file with lines `<image id>#<n><TAB or space><caption>`. The text's id is everything before the white
            space.
        folders: folders of the images.
        excluded_ids: images of other splits as the files spell them; their captions are skipped.
        clean: converts a published caption to the text that is encoded.
    """
    if not captions.is_file():
        raise FileNotFoundError(f"{captions} is missing; {ids.name} lists images, and it holds their captions")
    collector = Collector()
    for where, line in read_numbered_lines(ids):
        with collector.entry():
            image_id = decode_utf8(line, where).strip()
            collector.add_image(folders.get_image(image_id, f"{image_id}.jpg"), image_id, must_be_new=True)
    for where, line in read_numbered_lines(captions):
        if line.partition(b"#")[0] in excluded_ids:
            continue
        with collector.entry():
            text_id, image_id, caption = _split_caption_line(decode_utf8(line, where), where)
            if not collector.has_image(image_id):
                raise BadSample(Reason.UNMATCHED_IMAGE, text_id)
            collector.add_text(BenchmarkText(text_id, clean(caption)), must_be_new=True)
            collector.add_pair(image_id, text_id)
    return collector.make_benchmark(name, [ids, captions])


def _split_caption_line(line: str, where: str) -> tuple[str, str, str]:
    """Return text id, image id and caption of a line `<image id>#<n><white space><caption>`."""
    words = line.split(maxsplit=1)
    text_id = words[0] if words else ""
    caption = words[1] if len(words) > 1 else ""
    image_id, mark, _ = text_id.partition("#")
    if not mark:
        raise BadSample(Reason.MALFORMED_ROW, where)
    return text_id, image_id, caption


COCO_CN_CAPTIONS = "imageid.human-written-caption.txt"


def _read_coco_cn(ids: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Read a split with its published ids: `COCO_val2014_000000001234`, `COCO_val2014_000000001234#0`."""
    # One file has the captions of all splits. An id in no list at all remains an error.
    excluded_ids: set[bytes] = set()
    for path in ids.parent.glob("coco-cn_*.txt"):
        excluded_ids |= _read_id_list(path)
    excluded_ids -= _read_id_list(ids)
    return _read_caption_lines(f"coco-cn-{split}", ids, ids.with_name(COCO_CN_CAPTIONS), folders, excluded_ids)


def _read_id_list(path: Path) -> set[bytes]:
    return {line.strip() for _, line in read_numbered_lines(path)}


COCO_CN = Layout(
    name="coco-cn",
    file_description=f"coco-cn_test.txt and {COCO_CN_CAPTIONS}",
    find=lambda folder: find_split_files(folder, {split: f"coco-cn_{split}.txt" for split in SPLITS}),
    read=_read_coco_cn,
    image_folders=MSCOCO_FOLDERS,
    precedence=Precedence.BENCHMARK,
)

FLICKR30K_CN_FILES = {
    "test": "ImageSets/flickr30kzhmbosontest.txt",
    "val": "ImageSets/flickr30kzhbbosonval.txt",
    "train": "ImageSets/flickr30kzhbbosontrain.txt",
}
# BosonNLP writes the part of speech behind a word, as in `警车:n`.
PART_OF_SPEECH = re.compile(r":[A-Za-z]+$")


def _read_flickr30k_cn(ids: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Read a split with its published ids: `1007129816`, `1007129816#zhm#0`."""
    captions = ids.parents[1] / "TextData" / f"seg.{ids.stem}.caption.txt"
    return _read_caption_lines(f"flickr30k-cn-{split}", ids, captions, folders, clean=join_words)


def join_words(caption: str) -> str:
    """Return a caption as it was written (`警车停`) from its words, with or without parts of speech (`警车:n 停:v`)."""
    return "".join(PART_OF_SPEECH.sub("", word) for word in caption.split())


FLICKR30K_CN = Layout(
    name="flickr30k-cn",
    file_description="flickr30kzhmbosontest/ImageSets/flickr30kzhmbosontest.txt and TextData/ next to ImageSets/",
    # The user may name the folder of all splits, or the folder of one split.
    find=lambda folder: find_split_files(folder, FLICKR30K_CN_FILES),
    read=_read_flickr30k_cn,
    image_folders=FLICKR30K_FOLDERS,
    precedence=Precedence.BENCHMARK,
)

# ---- AIC-ICC ----

AIC_ICC_FILES = {
    "val": "caption_validation_annotations_20170910.json",
    "train": "caption_train_annotations_20170902.json",
}


def _read_aic_icc(annotations: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Read a split; ids are the file name of an image, and `<file name>#0` to `#4` for its texts."""
    # The texts have no published ids, so their ids are made of the position.
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

# ---- A pair in each line ----

Pair = tuple[BenchmarkImage, BenchmarkText]


def _read_pair_lines(
    name: str, parse: Callable[[str, str, ImageFolders], Pair], path: Path, split: str, folders: ImageFolders
) -> Benchmark:
    """Read a file with a pair in each line, which `parse` makes from the line and its name for errors."""
    collector = Collector()
    for where, line in read_numbered_lines(path):
        with collector.entry():
            image, text = parse(decode_utf8(line, where), where, folders)
            collector.add_sample(image, image.id, text, where)
    # The long captions are published without splits.
    return collector.make_benchmark(f"{name}-{split}" if split else name, [path])


def _parse_caption_line(line: str, where: str, folders: ImageFolders) -> Pair:
    """Parse `<image>#<n><white space><caption>`; the image is `<image>.jpg`."""
    text_id, image_id, caption = _split_caption_line(line, where)
    if not image_id:
        raise BadSample(Reason.MALFORMED_ROW, where)
    return folders.get_image(image_id, f"{image_id}.jpg"), BenchmarkText(text_id, caption.strip())


def _parse_path_line(line: str, where: str, folders: ImageFolders) -> Pair:
    """Parse `<path of the image><tab><caption>`; ids are the path, and the file with the line number for the text."""
    file, tab, caption = line.partition("\t")
    if not tab or is_blank(file):
        raise BadSample(Reason.MALFORMED_ROW, where)
    file = file.strip().removeprefix("./")
    # The authors' folders may not exist here, so the file name alone is tried too.
    names = [Path(file).name] if Path(file).is_absolute() else [file, Path(file).name]
    return folders.get_image(file, *names), BenchmarkText(where.rpartition("/")[2], caption.strip())


FLICKR30K_CNA_FILES = {
    "test": "flickr30k_cna_test.txt",
    "val": "flickr30k_cna_val.txt",
    "train": "flickr30k_cna_train.txt",
}
ZERO_TEST_FILE = {"test": "flickr30k_cn_test.txt"}  # name of the test split in the release of Zero
FLICKR30K_CNA = Layout(
    name="flickr30k-cna",
    file_description=FLICKR30K_CNA_FILES["test"],
    find=lambda folder: find_split_files(folder, ZERO_TEST_FILE) | find_split_files(folder, FLICKR30K_CNA_FILES),
    read=partial(_read_pair_lines, "flickr30k-cna", _parse_caption_line),
    image_folders=(*FLICKR30K_FOLDERS, "flickr30k/images"),
    precedence=Precedence.BENCHMARK,
)


def _find_coco_cn_translated(folder: Path) -> dict[str, Sequence[Path]]:
    path = find_file(folder, "pair.txt")
    return {"test": [path]} if path and _first_line_contains(path, b"#zhm#") else {}


def _first_line_contains(path: Path, mark: bytes) -> bool:
    _, line = next(read_numbered_lines(path), ("", b""))
    return mark in line


COCO_CN_TRANSLATED = Layout(
    name="coco-cn-translated",
    file_description="pair.txt, of lines with #zhm#",
    find=_find_coco_cn_translated,
    read=partial(_read_pair_lines, "coco-cn-translated", _parse_caption_line),
    image_folders=MSCOCO_FOLDERS,
    precedence=Precedence.BENCHMARK,
)

LONG_CAPTION_FILES = ("image_caption_trans.txt", "image_caption_long_cn.txt")


def _find_long_captions(folder: Path) -> dict[str, Sequence[Path]]:
    paths = [find_file(folder, name) for name in LONG_CAPTION_FILES]
    path = paths[0] or paths[1]
    return {"": [path]} if path else {}


LONG_CAPTIONS_CN = Layout(
    name="long-captions-cn",
    file_description=" or ".join(LONG_CAPTION_FILES),
    find=_find_long_captions,
    read=partial(_read_pair_lines, "long-captions-cn", _parse_path_line),
    image_folders=("images",),
    precedence=Precedence.BENCHMARK,
)

# ---- Crossmodal-3600 ----

XM3600_KEY = "image/key"
NUM_CHECKED_ROWS = 64  # at least one of the first rows must have its image; an image has several rows


class Xm3600Row(NamedTuple):
    """One caption in each language of an image; `number` counts such rows of the image."""

    image: BenchmarkImage
    number: int
    captions: dict[str, str]


class Xm3600:
    """Captions of Crossmodal-3600 as samples: for each image its first captions in all languages, then its second ones.

    Args:
        path: `captions.jsonl`.
        folders: folders of the images, `<key>.jpg`.
    """

    def __init__(self, path: Path, folders: ImageFolders):
        self.name, self.files = str(path), [path]
        self._rows: list[Xm3600Row | BadSample] = []
        for where, line in read_numbered_lines(path):
            try:
                self._rows += self._parse_rows(parse_object(line, where), where, folders)
            except BadSample as error:
                self._rows.append(error)

    def _parse_rows(self, entry: dict, where: str, folders: ImageFolders) -> list[Xm3600Row]:
        key = entry.get(XM3600_KEY)
        if not isinstance(key, str) or not key:
            raise BadSample(Reason.MALFORMED_ROW, where)
        image = folders.get_image(key, f"{key}.jpg", fields={"locale": entry.get("image/locale", "")})
        captions_by_language: dict[str, list[str]] = {}
        for language, value in entry.items():
            if isinstance(value, dict) and isinstance(value.get("caption"), list):
                captions_by_language[language] = [text for text in value["caption"] if isinstance(text, str)]
        # Languages differ in the number of captions.
        num_rows = max(map(len, captions_by_language.values()), default=0)
        if not num_rows:
            raise BadSample(Reason.EMPTY_CAPTION, where)

        rows = [Xm3600Row(image, number, {}) for number in range(num_rows)]
        for language, captions in captions_by_language.items():
            for row, caption in zip(rows, captions, strict=False):
                row.captions[language] = caption
        return rows

    def __len__(self) -> int:
        return len(self._rows)

    def _get_row(self, index: int) -> Xm3600Row:
        row = self._rows[index]
        if isinstance(row, BadSample):
            raise BadSample(row.reason, row.name)
        return row

    def read_image_name(self, index: int) -> str:
        """Return the name of a row's image, see `Shard`."""
        return self._get_row(index).image.id

    def __getitem__(self, index: int) -> Sample:
        image, number, captions = self._get_row(index)
        name = f"{image.id}#{number}"
        for caption in captions.values():
            check_text(caption, name)
        return Sample(image.id, name, image.read(), captions, {}, {**image.fields, TEXT_ID: name})

    def list_first_images(self) -> list[BenchmarkImage]:
        """Return the images of the first rows; at least one of them must exist."""
        return [row.image for row in self._rows[:NUM_CHECKED_ROWS] if not isinstance(row, BadSample)]

    def release(self) -> None:
        """Do nothing: no file is open."""


def _find_xm3600(folder: Path) -> dict[str, Sequence[Path]]:
    path = find_file(folder, "captions.jsonl")
    return {"": [path]} if path and _first_line_contains(path, f'"{XM3600_KEY}"'.encode()) else {}


def _open_xm3600(location: Location, data: DataSpec) -> Xm3600:
    path = Path(location.name)
    folders = XM3600.find_image_folders(path, data)
    source = Xm3600(path, folders)
    folders.check_images(source.list_first_images())
    return source


XM3600 = Layout(
    name="xm3600",
    file_description="captions.jsonl, of objects with image/key",
    find=_find_xm3600,
    open=_open_xm3600,
    image_folders=("images",),
    precedence=Precedence.BENCHMARK,
)
