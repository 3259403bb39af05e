"""SNLI-VE (arXiv 1901.06706) as published: JSON lines for each split, on the images of Flickr30K."""

from __future__ import annotations

from pathlib import Path

from ernie_vil2.data.readers.layout import ImageFolders, Layout, found_files, in_order
from ernie_vil2.data.readers.published.karpathy import FLICKR30K
from ernie_vil2.data.samples import BadSample, Reason, is_id
from ernie_vil2.data.statements import StatementRow, open_statements, text_of

LABELS = ("entailment", "neutral", "contradiction")
IMAGE_KEYS = ("Flikr30kID", "Flickr30K_ID")  # as distributed, and as the authors' generator writes it
FILES = {"test": "snli_ve_test.jsonl", "dev": "snli_ve_dev.jsonl", "train": "snli_ve_train.jsonl"}


def _find(folder: Path) -> dict[str, list[Path]]:
    return in_order({split: paths[0] for split, paths in found_files(folder, FILES).items()})


def _row(folders: ImageFolders, row: dict, place: str) -> StatementRow:
    """The hypothesis alone is the text: the caption of the image, `sentence1`, would give the answer away."""
    image_id = next((row[key] for key in IMAGE_KEYS if row.get(key) is not None), None)
    if image_id is None or not is_id(image_id):
        raise BadSample(Reason.NO_IMAGE if image_id is None else Reason.MALFORMED_IMAGE_ID, place)
    image_id = str(image_id).removesuffix(".jpg")
    name = row.get("pairID", place)
    if not is_id(name):
        raise BadSample(Reason.NO_ID, place)
    image = folders.image(image_id, f"{image_id}.jpg")
    return StatementRow(str(name), (image,), text_of(row, "sentence2", place), text_of(row, "gold_label", place))


SNLI_VE = Layout(
    name="snli-ve",
    files=", ".join(FILES.values()),
    find=_find,
    open=lambda place, options: open_statements(SNLI_VE, LABELS, _row, place, options),
    image_folders=FLICKR30K.image_folders,
)
