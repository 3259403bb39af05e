"""A sample from files that share a name: an image and its texts, as in a tar shard or in a folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ernie_vil2.data.image_files import IMAGE_SUFFIXES
from ernie_vil2.data.rows import BYTE_ORDER_MARK, as_object, check_text, is_id
from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, BadSample, Reason, Sample, is_blank

IMAGE_ID = "image_id"
"""Field that names the image, where several samples share one; otherwise its file does."""


def split_name(name: str) -> tuple[str, str]:
    """The name of the sample that a file belongs to, and the file's suffix: what follows the first dot of its name."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def assemble(name: str, suffixes: Collection[str], read: Callable[[str, int], bytes], text_id: str | None) -> Sample:
    """The sample of an image file, and of `.json` (captions, tags, fields) and `.txt` (a caption) beside it.

    Args:
        suffixes: of the files that there are.
        read: gives the content of the one with a suffix, of so many bytes at most.
        text_id: JSON field that names the text; None: the captions name it.

    Raises:
        BadSample: there is no image, or the texts cannot be used.
    """
    image = next((suffix for suffix in suffixes if suffix in IMAGE_SUFFIXES), None)
    if image is None:
        raise BadSample(Reason.NO_IMAGE_MEMBER, name)
    fields = as_object(read("json", MAX_TEXT_BYTES), name) if "json" in suffixes else {}
    captions, tags = texts_of(fields, name)
    if "txt" in suffixes:
        try:
            text = read("txt", MAX_TEXT_BYTES).removeprefix(BYTE_ORDER_MARK).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadSample(Reason.CAPTION_NOT_UTF8, name) from error
        check_text(text, name)
        captions.setdefault("", text)
    image_name = fields.get(IMAGE_ID, name)
    if not is_id(image_name):
        raise BadSample(Reason.MALFORMED_IMAGE_ID, name)
    text = text_name(captions, fields, text_id, name)
    return Sample(str(image_name), text, read(image, MAX_BYTES), captions, tags, fields)


def texts_of(fields: Mapping, name: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Captions and tags by language of fields such as `caption`, `caption_zh`, `tags_en`; null stands for none.

    Raises:
        BadSample: a caption is not a text, or tags are not a list of texts.
    """
    captions, tags = {}, {}
    for key, value in fields.items():
        kind, _, language = key.partition("_")
        if kind not in ("caption", "tags") or value is None:
            continue
        if kind == "caption":
            if not isinstance(value, str):
                raise BadSample(Reason.MALFORMED_CAPTION, name)
            check_text(value, name)
            captions[language] = value
        else:
            if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
                raise BadSample(Reason.MALFORMED_TAGS, name)
            check_text("".join(value), name)
            tags[language] = tuple(tag for tag in value if not is_blank(tag))
    return captions, tags


def text_name(captions: Mapping[str, str], fields: Mapping, text_id: str | None, name: str) -> str:
    """What names the text: a field, or the captions themselves.

    Raises:
        BadSample: there is no caption, or no such field.
    """
    if not captions:
        raise BadSample(Reason.NO_CAPTION, name)
    if text_id is None:
        return "\n".join(captions.values())
    if fields.get(text_id) is None:
        raise BadSample(Reason.NO_FIELD, f"{name}, {text_id}")
    value = str(fields[text_id])
    check_text(value, name)
    return value
