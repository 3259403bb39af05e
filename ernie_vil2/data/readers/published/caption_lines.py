"""Lists of image ids with files of caption lines: the form that COCO-CN and Flickr30k-CN share."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path

from ernie_vil2.data.annotation_files import numbered_lines
from ernie_vil2.data.benchmark import Benchmark, BenchmarkText, Collector
from ernie_vil2.data.readers.layout import ImageFolders
from ernie_vil2.data.samples import BadSample, Reason, as_text


def read_caption_lines(
    name: str,
    ids: Path,
    captions: Path,
    folders: ImageFolders,
    other_ids: Container[bytes] = (),
    clean: Callable[[str], str] = str.strip,
) -> Benchmark:
    """The images of a list with their captions.

    Args:
        name: of the benchmark.
        ids: one image id a line; the image file is `<image id>.jpg`.
        captions: lines `<image id>#<n><TAB or space><caption>`; all before the white space is the text's id.
        other_ids: images of other splits as the files spell them, whose captions are skipped.
        clean: makes the published caption the text that is encoded.

    Raises:
        FileNotFoundError: there is no file of captions.
        ValueError: no image or no text could be used.
    """
    if not captions.is_file():
        raise FileNotFoundError(
            f"{captions} is missing; {ids.name} beside it lists images, and it holds their captions"
        )
    collector = Collector()
    for place, line in numbered_lines(ids):
        with collector.entry():
            image_id = as_text(line, place).strip()
            if not collector.add_image(folders.image(image_id, f"{image_id}.jpg"), image_id):
                raise BadSample(Reason.REPEATED_IMAGE, image_id)
    for place, line in numbered_lines(captions):
        if line.partition(b"#")[0] in other_ids:
            continue
        with collector.entry():
            text_id, *caption = as_text(line, place).split(maxsplit=1) or [""]
            image_id, mark, _ = text_id.partition("#")
            if not mark:
                raise BadSample(Reason.MALFORMED_ROW, place)
            if not collector.has_image(image_id):
                raise BadSample(Reason.UNMATCHED_IMAGE, text_id)
            if not collector.add_text(BenchmarkText(text_id, clean("".join(caption)))):
                raise BadSample(Reason.REPEATED_TEXT, text_id)
            collector.add_pair(image_id, text_id)
    return collector.benchmark(name, [ids, captions])
