"""AIC-ICC, the captions of AI Challenger 2017, as published: a JSON list and a folder of images for each split."""

from __future__ import annotations

from pathlib import Path

from ernie_vil2.data.annotation_files import read_json
from ernie_vil2.data.benchmark import Benchmark, BenchmarkText, Collector
from ernie_vil2.data.readers.layout import ImageFolders, Layout, found_files
from ernie_vil2.data.samples import BadSample, Reason

ANNOTATIONS = {
    "val": "caption_validation_annotations_20170910.json",
    "train": "caption_train_annotations_20170902.json",
}


def _find(folder: Path) -> dict[str, list[Path]]:
    return found_files(folder, ANNOTATIONS)


def _read(annotations: Path, split: str, folders: ImageFolders) -> Benchmark:
    """An image's id is its file name; its texts are `<file name>#0` to `#4`."""
    collector = Collector()
    for number, row in enumerate(read_json(annotations, list)):
        with collector.entry():
            image_id, captions = _row(row, f"{annotations.name}, entry {number}")
            if not collector.add_image(folders.image(image_id, image_id), image_id):
                raise BadSample(Reason.REPEATED_IMAGE, image_id)
            for place, caption in enumerate(captions):
                with collector.entry():
                    text_id = f"{image_id}#{place}"
                    collector.add_text(BenchmarkText(text_id, caption.strip()))
                    collector.add_pair(image_id, text_id)
    return collector.benchmark(f"aic-icc-{split}", [annotations])


def _row(row: object, place: str) -> tuple[str, list[str]]:
    if isinstance(row, dict):
        image_id, captions = row.get("image_id"), row.get("caption")
        if isinstance(image_id, str) and isinstance(captions, list) and all(isinstance(text, str) for text in captions):
            return image_id, captions
    raise BadSample(Reason.MALFORMED_ROW, place)


AIC_ICC = Layout(
    name="aic-icc",
    files=" or ".join(ANNOTATIONS.values()),
    find=_find,
    read=_read,
    image_folders=("caption_validation_images_20170910", "caption_train_images_20170902"),
)
