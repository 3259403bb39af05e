"""Retrieval benchmarks of captions as their authors publish them; docs/benchmarks.md shows each on disk.

- Karpathy and Fei-Fei's splits of Flickr30K and MSCOCO (arXiv 1412.2306): one JSON file for all splits.
- MSCOCO's own captions (Chen et al., arXiv 1504.00325): `captions_{train,val}{2014,2017}.json`.
- COCO-CN (Li et al., arXiv 1805.08661): lists of MSCOCO images, and captions by hand.
- Flickr30k-CN (Lan et al., arXiv 1708.04390): one folder per split, captions cut into words by BosonNLP. Those of the
  test split were translated by hand (`zhm`), the others by machine (`zhb`).
- AIC-ICC, the captions of AI Challenger 2017: a JSON list and a folder of images for each split.
"""

import re
from collections.abc import Callable, Container
from functools import partial
from pathlib import Path
from typing import Any

from ernie_vil2.data.benchmark import Benchmark, BenchmarkText, Collector
from ernie_vil2.data.readers.layout import SPLITS, ImageFolders, Layout, Precedence, found_files, in_order
from ernie_vil2.data.samples import BadSample, Reason, as_text
from ernie_vil2.data.source_files import numbered_lines, read_json, values_of

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
            file, sentences = values_of(row, f"{annotations.name}, image {number}", filename=str, sentences=list)
            fields = {name: row[name] for name in FIELDS if name in row}
            image = folders.image(file, file, fields=fields)
            collector.add_image(image, image.id, once=True)
            for position, sentence in enumerate(sentences):
                with collector.entry():
                    text = _karpathy_text(sentence, row, f"{image.id}, sentence {position}")
                    collector.add_text(text, once=True)
                    collector.add_pair(image.id, text.id)
    return collector.benchmark(f"{name}-{split}", [annotations])


def _karpathy_text(sentence: Any, row: dict, where: str) -> BenchmarkText:
    text_id, raw = values_of(sentence, where, "sentid", raw=str)
    if sentence.get("imgid", row.get("imgid")) != row.get("imgid"):
        raise BadSample(Reason.UNMATCHED_IMAGE, where)
    return BenchmarkText(text_id, raw.strip())


FLICKR30K = Layout(
    name="flickr30k",
    files="dataset_flickr30k.json",
    find=lambda folder: found_files(folder, dict.fromkeys(SPLITS, "dataset_flickr30k.json")),
    read=partial(_read_karpathy, "flickr30k"),
    image_folders=FLICKR30K_FOLDERS,
    precedence=Precedence.BENCHMARK,
)
MSCOCO = Layout(
    name="mscoco",
    files="dataset_coco.json",
    find=lambda folder: found_files(folder, dict.fromkeys(SPLITS, "dataset_coco.json")),
    read=partial(_read_karpathy, "mscoco"),
    image_folders=MSCOCO_FOLDERS,
    precedence=Precedence.BENCHMARK,
)


COCO_CAPTIONS_FILE = re.compile(r"captions_((?:train|val|test)\d*)\.json")


def _find_coco_captions(folder: Path) -> dict[str, list[Path]]:
    paths = [path for home in (folder, folder / "annotations") for path in home.glob("captions_*.json")]
    return in_order({found[1]: path for path in paths if (found := COCO_CAPTIONS_FILE.fullmatch(path.name))})


def _read_coco_captions(annotations: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Images and texts have their published ids, which are numbers: `391895`, `770337`."""
    content = read_json(annotations, dict)
    if not isinstance(content.get("images"), list) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"{annotations}: no lists of images and annotations in it; is it one of COCO's caption files?")
    collector = Collector()
    for number, row in enumerate(content["images"]):
        with collector.entry():
            image_id, file = values_of(row, f"{annotations.name}, image {number}", "id", file_name=str)
            collector.add_image(folders.image(image_id, file), file, once=True)
    for number, row in enumerate(content["annotations"]):
        with collector.entry():
            where = f"{annotations.name}, annotation {number}"
            text_id, caption = values_of(row, where, "id", caption=str)
            image_id = str(row.get("image_id"))
            if not collector.has_image(image_id):
                raise BadSample(Reason.UNMATCHED_IMAGE, f"{where}, {image_id}")
            collector.add_text(BenchmarkText(text_id, caption.strip()), once=True)
            collector.add_pair(image_id, text_id)
    return collector.benchmark(f"coco-captions-{split}", [annotations])


COCO_CAPTIONS = Layout(
    name="coco-captions",
    files="annotations/captions_{train,val}{2014,2017}.json",
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
    for where, line in numbered_lines(ids):
        with collector.entry():
            image_id = as_text(line, where).strip()
            collector.add_image(folders.image(image_id, f"{image_id}.jpg"), image_id, once=True)
    for where, line in numbered_lines(captions):
        if line.partition(b"#")[0] in other_ids:
            continue
        with collector.entry():
            text_id, *caption = as_text(line, where).split(maxsplit=1) or [""]
            image_id, mark, _ = text_id.partition("#")
            if not mark:
                raise BadSample(Reason.MALFORMED_ROW, where)
            if not collector.has_image(image_id):
                raise BadSample(Reason.UNMATCHED_IMAGE, text_id)
            collector.add_text(BenchmarkText(text_id, clean("".join(caption))), once=True)
            collector.add_pair(image_id, text_id)
    return collector.benchmark(name, [ids, captions])


COCO_CN_CAPTIONS = "imageid.human-written-caption.txt"


def _read_coco_cn(ids: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Images and texts have their published ids: `COCO_val2014_000000001234`, `COCO_val2014_000000001234#0`."""
    lists = {path: {line.strip() for _, line in numbered_lines(path)} for path in ids.parent.glob("coco-cn_*.txt")}
    others = set().union(*lists.values()) - lists[ids]
    return _read_caption_lines(f"coco-cn-{split}", ids, ids.with_name(COCO_CN_CAPTIONS), folders, others)


COCO_CN = Layout(
    name="coco-cn",
    files=f"coco-cn_test.txt and {COCO_CN_CAPTIONS}",
    find=lambda folder: found_files(folder, {split: f"coco-cn_{split}.txt" for split in SPLITS}),
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
    files="flickr30kzhmbosontest/ImageSets/flickr30kzhmbosontest.txt and TextData/ next to ImageSets/",
    # The folder of all splits, or that of one.
    find=lambda folder: found_files(folder, FLICKR30K_CN_SETS),
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
            image_id, captions = values_of(row, where, image_id=str, caption=list)
            if not all(isinstance(caption, str) for caption in captions):
                raise BadSample(Reason.MALFORMED_ROW, where)
            collector.add_image(folders.image(image_id, image_id), image_id, once=True)
            for position, caption in enumerate(captions):
                with collector.entry():
                    text_id = f"{image_id}#{position}"
                    collector.add_text(BenchmarkText(text_id, caption.strip()))
                    collector.add_pair(image_id, text_id)
    return collector.benchmark(f"aic-icc-{split}", [annotations])


AIC_ICC = Layout(
    name="aic-icc",
    files=" or ".join(AIC_ICC_FILES.values()),
    find=lambda folder: found_files(folder, AIC_ICC_FILES),
    read=_read_aic_icc,
    image_folders=("caption_validation_images_20170910", "caption_train_images_20170902"),
    precedence=Precedence.BENCHMARK,
)
