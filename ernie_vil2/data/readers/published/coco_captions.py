"""MSCOCO's own captions (Chen et al., arXiv 1504.00325): `captions_{train,val}{2014,2017}.json`."""

from __future__ import annotations

import re
from pathlib import Path

from ernie_vil2.data.annotation_files import read_json
from ernie_vil2.data.benchmark import Benchmark, BenchmarkText, Collector
from ernie_vil2.data.readers.layout import ImageFolders, Layout, in_order
from ernie_vil2.data.samples import BadSample, Reason, is_id

NAME = re.compile(r"captions_((?:train|val|test)\d*)\.json")


def _find(folder: Path) -> dict[str, list[Path]]:
    paths = [path for home in (folder, folder / "annotations") for path in home.glob("captions_*.json")]
    return in_order({found[1]: path for path in paths if (found := NAME.fullmatch(path.name))})


def _read(annotations: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Images and texts have their published ids, which are numbers: `391895`, `770337`."""
    content = read_json(annotations, dict)
    if not isinstance(content.get("images"), list) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"{annotations}: no lists of images and annotations in it; is it one of COCO's caption files?")
    collector = Collector()
    for number, row in enumerate(content["images"]):
        with collector.entry():
            place = f"{annotations.name}, image {number}"
            if not isinstance(row, dict) or not is_id(row.get("id")) or not isinstance(row.get("file_name"), str):
                raise BadSample(Reason.MALFORMED_ROW, place)
            image_id, file = str(row["id"]), row["file_name"]
            if not collector.add_image(folders.image(image_id, file), file):
                raise BadSample(Reason.REPEATED_IMAGE, image_id)
    for number, row in enumerate(content["annotations"]):
        with collector.entry():
            place = f"{annotations.name}, annotation {number}"
            if not isinstance(row, dict) or not is_id(row.get("id")) or not isinstance(row.get("caption"), str):
                raise BadSample(Reason.MALFORMED_ROW, place)
            text_id, image_id = str(row["id"]), str(row.get("image_id"))
            if not collector.has_image(image_id):
                raise BadSample(Reason.UNMATCHED_IMAGE, f"{place}, {image_id}")
            if not collector.add_text(BenchmarkText(text_id, row["caption"].strip())):
                raise BadSample(Reason.REPEATED_TEXT, text_id)
            collector.add_pair(image_id, text_id)
    return collector.benchmark(f"coco-captions-{split}", [annotations])


COCO_CAPTIONS = Layout(
    name="coco-captions",
    files="annotations/captions_{train,val}{2014,2017}.json",
    find=_find,
    read=_read,
    image_folders=("train2014", "val2014", "train2017", "val2017"),
)
