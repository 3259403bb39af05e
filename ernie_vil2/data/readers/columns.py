"""Columns of a table by the names that they have here: as people call them, or as an option says."""

import re
import shlex
from collections.abc import Mapping, Sequence

from ernie_vil2.data.source_files import IMAGE_SUFFIXES

# The first of these that a row has counts; `file_name` is what the image folders of Hugging Face say, and img2dataset
# puts the bytes of an image under its suffix.
IMAGE_KEYS = ("image", "image_path", "file_name", *sorted(IMAGE_SUFFIXES))
TEXT_KEYS = ("text", "caption")
IDS = ("key", "image_id", "text_id")
OTHER_NAMES = {
    "image": (  # noqa: SIM905  -- words are read as a text
        "图片 图像 照片 主图 图片路径 图像路径 图片文件 图片名 图片名称 图片文件名 文件名 文件路径 圖片 img "
        "img_path picture photo pic filename filepath file image_file image_name path"
    ).split(),
    "caption_zh": (  # noqa: SIM905  -- words are read as a text
        "标题 中文标题 商品标题 商品名称 商品名 品名 图片标题 文本 文字 中文 描述 中文描述 图片描述 商品描述 说明 文案 "
        "標題 text_zh title_zh description_zh"
    ).split(),
    "caption_en": "英文标题 英文 英文描述 text_en title_en description_en".split(),  # noqa: SIM905  -- words are read as a text
    "caption": "title product_title product_name sentence description".split(),  # noqa: SIM905  -- words are read as a text
}
"""What other people call a column; of several that mean the same the first counts, and the others stay fields."""
ADDRESSES = ("url", "link", "链接", "网址", "图片地址")  # parts of the names of columns that hold addresses of images
SHOWN = 20
Names = dict[str, str]


def is_text(column: str) -> bool:
    """Whether the values of a column are texts whatever they look like."""
    return column in (*IMAGE_KEYS, *TEXT_KEYS, *IDS) or column.partition("_")[0] in ("caption", "tags")


def holds_images(columns: Sequence[str]) -> bool:
    """Whether one of the columns, by their names here, holds images."""
    return not set(columns).isdisjoint(IMAGE_KEYS)


def holds_texts(columns: Sequence[str]) -> bool:
    """Likewise texts."""
    return any(column in TEXT_KEYS or column.startswith("caption_") for column in columns)


def plain_name(column: str) -> str:
    """Return a column's name without what people write one way or another: case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "_", column.strip().casefold())


def names_here(columns: Sequence[str], given: Mapping[str, str], where: str) -> Names:
    """The name here of every column that a table calls otherwise; ValueError if one is not there that the user has
    given by its name here."""
    for here, column in given.items():
        if column not in columns:
            raise ValueError(f"{where}: there is no column {column} (for {here}); columns here: {_shown(columns)}")
    names = {column: here for here, column in given.items()}
    names |= {column: f"{column}_" for column in columns if column in given and column not in names}
    plain: dict[str, str] = {}
    for column in columns:
        if column not in names:
            plain.setdefault(plain_name(column), column)

    def taken() -> list[str]:
        return [names.get(column, column) for column in columns]

    for name, column in plain.items():
        if name != column and name not in taken() and is_text(name):
            names[column] = name
    for here, others in OTHER_NAMES.items():
        has = holds_images(taken()) if here == "image" else here in taken()
        found = next((plain[other] for other in others if other in plain), None)
        if found is not None and not has and not (here == "caption" and holds_texts(taken())):
            names[found] = here
    return names


def lacking(columns: Sequence[str], names: Mapping[str, str]) -> str | None:
    """What a table lacks of a column of images and one of texts, and what to do; None if it has both."""
    here = [names.get(column, column) for column in columns]
    missing = ["image"] * (not holds_images(here)) + ["text, caption, caption_zh or caption_en"] * (
        not holds_texts(here)
    )
    if not missing:
        return None
    if missing[0] == "image":
        for column in columns:
            if any(part in column.casefold() for part in ADDRESSES):
                return addresses(column, columns, names)
    free = [column for column in columns if column not in names and column not in (*IMAGE_KEYS, *TEXT_KEYS)]
    wanted = ["image"] * (missing[0] == "image") + ["caption_zh"] * (not holds_texts(here))
    example = ",".join(f"{one}={free[number] if number < len(free) else 'NAME'}" for number, one in enumerate(wanted))
    if any(column.rpartition(".")[2].lower() in IMAGE_SUFFIXES for column in columns if "." in column):
        return f"columns here: {_shown(columns)}; the first line is to hold names of columns, as image,caption_zh"
    return (
        f"columns here: {_shown(columns)}; one must be {' and one '.join(missing)}, or name them: "
        f"--columns {quoted(example)} (Data.columns)"
    )


def addresses(column: str, columns: Sequence[str], names: Mapping[str, str]) -> str:
    """That a column holds addresses of images, and how these become files."""
    text = next((one for one in columns if holds_texts([names.get(one, one)])), "TEXT_COLUMN")
    return (
        f"the images are addresses (column {column}), which are not fetched here; img2dataset fetches them: "
        f"img2dataset --url_list TABLE --input_format csv --url_col {column} --caption_col {text} "
        "--output_format webdataset --output_folder FOLDER; its folder is then the data"
    )


def quoted(text: str) -> str:
    """A word of a command line as a shell takes it; letters of any language need no quotes."""
    return shlex.quote(text) if re.search(r"[^\w@%+=:,./-]", text) else text


def _shown(columns: Sequence[str]) -> str:
    return ", ".join(column or '""' for column in columns[:SHOWN]) + ", ..." * (len(columns) > SHOWN)
