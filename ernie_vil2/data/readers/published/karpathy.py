"""Flickr30K and MSCOCO in the splits of Karpathy and Fei-Fei (arXiv 1412.2306): one JSON file for all splits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ernie_vil2.data.annotation_files import read_json
from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText, Collector
from ernie_vil2.data.readers.layout import SPLITS, ImageFolders, Layout, found_files
from ernie_vil2.data.samples import BadSample, Reason, is_id

FIELDS = ("imgid", "cocoid", "filepath", "split")


def _find(annotations: str, folder: Path) -> dict[str, list[Path]]:
    return found_files(folder, dict.fromkeys(SPLITS, annotations))


def _read(name: str, annotations: Path, split: str, folders: ImageFolders) -> Benchmark:
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
            image, sentences = _row(row, f"{annotations.name}, image {number}", folders)
            if not collector.add_image(image, image.id):
                raise BadSample(Reason.REPEATED_IMAGE, image.id)
            for place, sentence in enumerate(sentences):
                with collector.entry():
                    text = _text(sentence, row, f"{image.id}, sentence {place}")
                    if not collector.add_text(text):
                        raise BadSample(Reason.REPEATED_TEXT, text.id)
                    collector.add_pair(image.id, text.id)
    return collector.benchmark(f"{name}-{split}", [annotations])


def _row(row: object, place: str, folders: ImageFolders) -> tuple[BenchmarkImage, list]:
    if (
        not isinstance(row, dict)
        or not isinstance(row.get("filename"), str)
        or not isinstance(row.get("sentences"), list)
    ):
        raise BadSample(Reason.MALFORMED_ROW, place)
    file = row["filename"]
    return folders.image(file, file, fields={name: row[name] for name in FIELDS if name in row}), row["sentences"]


def _text(sentence: object, row: dict, place: str) -> BenchmarkText:
    if not isinstance(sentence, dict) or not isinstance(sentence.get("raw"), str) or not is_id(sentence.get("sentid")):
        raise BadSample(Reason.MALFORMED_ROW, place)
    if sentence.get("imgid", row.get("imgid")) != row.get("imgid"):
        raise BadSample(Reason.UNMATCHED_IMAGE, place)
    return BenchmarkText(str(sentence["sentid"]), sentence["raw"].strip())


FLICKR30K = Layout(
    "flickr30k",
    "dataset_flickr30k.json",
    partial(_find, "dataset_flickr30k.json"),
    read=partial(_read, "flickr30k"),
    image_folders=("flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images"),
)
MSCOCO = Layout(
    "mscoco",
    "dataset_coco.json",
    partial(_find, "dataset_coco.json"),
    read=partial(_read, "mscoco"),
    image_folders=("train2014", "val2014"),
)
