"""Columns of a table, and the names under which they are read: the user's, our own, or common synonyms."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from ernie_vil2.data.source_files import IMAGE_SUFFIXES

# The first of these columns that a row has is its image. `file_name` is the column of Hugging Face's image folders, and
# img2dataset puts the bytes of an image under its suffix.
IMAGE_KEYS = ("image", "image_path", "file_name", *sorted(IMAGE_SUFFIXES))
TEXT_KEYS = ("text", "caption")
PREFERRED_TEXT_KEYS = ("caption", "text")  # in a row that has both, the former is read
ID_KEYS = ("key", "image_id", "text_id")
SYNONYMS = {
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
"""What people call these columns. Only the first synonym in a table is renamed; others remain fields."""
ADDRESS_WORDS = ("url", "link", "链接", "网址", "图片地址")  # in names of columns that hold addresses of images
MAX_SHOWN_COLUMNS = 20  # in a message
ColumnNames = dict[str, str]  # new name of each column that is renamed, by its header


def is_text_column(column: str) -> bool:
    """Return whether the values of a column are texts even if they look like numbers."""
    return column in (*IMAGE_KEYS, *TEXT_KEYS, *ID_KEYS) or column.partition("_")[0] in ("caption", "tags")


def has_images(columns: Sequence[str]) -> bool:
    """Return whether one of the columns, after renaming, holds images."""
    return not set(columns).isdisjoint(IMAGE_KEYS)


def has_texts(columns: Sequence[str]) -> bool:
    """Return whether one of the columns, after renaming, holds texts."""
    return any(column in TEXT_KEYS or column.startswith("caption_") for column in columns)


def has_pairs(headers: Sequence[str], new_names: Mapping[str, str]) -> bool:
    """Return whether a table has columns of images and of texts."""
    columns = apply_names(headers, new_names)
    return has_images(columns) and has_texts(columns)


def simplify_name(column: str) -> str:
    """Return a header without what people write in several ways: case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "_", column.strip().casefold())


def rename_columns(headers: Sequence[str], user_columns: Mapping[str, str], where: str) -> ColumnNames:
    """Return the new names of the columns that a table calls otherwise.

    Args:
        headers: headers of the table.
        user_columns: headers that the user names, by the new name: `{"image": "照片"}`.
        where: the table, for the error.

    Raises:
        ValueError: the table lacks a header that the user names, or the user names it twice.
    """
    new_names: ColumnNames = {}
    for name, header in user_columns.items():
        if header not in headers:
            raise ValueError(f"{where}: there is no column {header} (for {name}); columns here: {_list_names(headers)}")
        if header in new_names:
            raise ValueError(f"{where}: the column {header} cannot be both {new_names[header]} and {name}")
        new_names[header] = name
    # Another column that already has a name which the user gives to a column makes way for it, and so does one with a
    # name that would be preferred. With the mark in front, `caption_zh` is no caption any more.
    displaced_names = set(user_columns)
    for names in (IMAGE_KEYS, PREFERRED_TEXT_KEYS):
        positions = [names.index(name) for name in user_columns if name in names]
        if positions:
            displaced_names.update(names[: min(positions)])
    for header in headers:
        if header in displaced_names and header not in new_names:
            new_names[header] = f"_{header}"

    simple_headers: dict[str, str] = {}
    for header in headers:
        if header not in new_names:
            simple_headers.setdefault(simplify_name(header), header)

    # Our own names in another spelling, such as "Image Path".
    existing_names = displaced_names.union(apply_names(headers, new_names))  # a set, as there may be very many columns
    for name, header in simple_headers.items():
        if name != header and is_text_column(name) and name not in existing_names:
            new_names[header] = name

    # Synonyms, unless there is a column of the kind already.
    for name, synonyms in SYNONYMS.items():
        columns = apply_names(headers, new_names)
        is_needless = has_images(columns) if name == "image" else name in columns
        # "caption" is a text in an unknown language, which a text in a known language makes needless.
        if name == "caption" and has_texts(columns):
            is_needless = True
        matches = [simple_headers[synonym] for synonym in synonyms if synonym in simple_headers]
        if matches and not is_needless:
            new_names[matches[0]] = name
    return new_names


def apply_names(headers: Sequence[str], new_names: Mapping[str, str]) -> list[str]:
    """Return the names of all columns after renaming."""
    return [new_names.get(header, header) for header in headers]


def find_column(column: str, headers: Sequence[str], new_names: Mapping[str, str]) -> str:
    """Return the name under which a column is read, whose header may be written in another case or spacing.

    A name that resembles no header is returned unchanged.

    Args:
        column: header or name of the column, as the user writes it.
        headers: headers of the table.
        new_names: result of `rename_columns`.
    """
    if column not in headers and column not in new_names.values():
        for header in headers:
            if simplify_name(header) == simplify_name(column):
                column = header
                break
    return new_names.get(column, column)


def find_alternatives(headers: Sequence[str], new_names: Mapping[str, str]) -> dict[str, list[str]]:
    """Return, by the name of a column, the other columns that could have been meant and are read as fields.

    Args:
        headers: headers of the table.
        new_names: result of `rename_columns`.
    """
    names = apply_names(headers, new_names)
    roles = {"image": next((name for name in IMAGE_KEYS if name in names), None)}
    for name in names:
        if name in TEXT_KEYS or name.startswith("caption_"):
            roles[name] = name
    role_names = set(roles.values())
    # Headers of fields, and these as they are compared.
    fields = {
        header: simplify_name(header) for header, name in zip(headers, names, strict=True) if name not in role_names
    }

    alternatives: dict[str, list[str]] = {}
    for name, role in roles.items():
        if role is None:
            continue
        likely_names = {name, *SYNONYMS.get(name, ())}
        if name == "image":
            likely_names |= set(IMAGE_KEYS)
        else:
            # A text in an unnamed language, as "title", could be this one.
            likely_names |= {*TEXT_KEYS, *SYNONYMS["caption"]}
        unused = [header for header, simple_name in fields.items() if simple_name in likely_names]
        if unused:
            alternatives[role] = unused
    return alternatives


def describe_missing(headers: Sequence[str], new_names: Mapping[str, str]) -> str | None:
    """Return which column, of images or of texts, a table lacks or has twice, and what to do; None if it has both."""
    columns = apply_names(headers, new_names)
    for name, count in Counter(columns).items():
        if count > 1 and is_text_column(name):
            return f"{count} columns are called {name}; give each a name of its own"
    missing: list[str] = []
    examples: list[str] = []
    if not has_images(columns):
        missing.append("image")
        examples.append("image")
    if not has_texts(columns):
        missing.append("text, caption, caption_zh or caption_en")
        examples.append("caption_zh")
    if not missing:
        return None

    if "image" in missing:
        for header in headers:
            if any(word in header.casefold() for word in ADDRESS_WORDS):
                return describe_addresses(header, headers, new_names)
    # A table without headers begins with a row of data, such as the name of an image file.
    if any(header.rpartition(".")[2].lower() in IMAGE_SUFFIXES for header in headers if "." in header):
        return f"columns here: {_list_names(headers)}; the first line is to hold names of columns, as image,caption_zh"

    # Suggest the first columns that have no meaning yet, as long as there are some.
    unused = [header for header in headers if header not in new_names and header not in (*IMAGE_KEYS, *TEXT_KEYS)]
    for position, name in enumerate(examples):
        header = unused[position] if position < len(unused) else "NAME"
        examples[position] = f"{name}={header}"
    option = ",".join(examples)
    return (
        f"columns here: {_list_names(headers)}; one must be {' and one '.join(missing)}, or name them: "
        f"--columns {quote_argument(option)} (Data.columns)"
    )


def describe_addresses(column: str, headers: Sequence[str], new_names: Mapping[str, str]) -> str:
    """Return that a column holds addresses of images, and how to fetch them."""
    text_column = "TEXT_COLUMN"
    for header, name in zip(headers, apply_names(headers, new_names), strict=True):
        if has_texts([name]):
            text_column = header
            break
    return (
        f"the images are addresses (column {column}), which are not fetched here; img2dataset fetches them: "
        f"img2dataset --url_list TABLE --input_format FORMAT --url_col {quote_argument(column)} "
        f"--caption_col {quote_argument(text_column)} "
        "--output_format webdataset --output_folder FOLDER; its folder is then the data"
    )


def quote_argument(text: str) -> str:
    """Return an argument of a command line, quoted if a shell needs it; letters of any language need no quotes."""
    return shlex.quote(text) if re.search(r"[^\w@%+=:,./-]", text) else text


def _list_names(headers: Sequence[str]) -> str:
    listing = ", ".join(header or '""' for header in headers[:MAX_SHOWN_COLUMNS])
    return f"{listing}, ..." if len(headers) > MAX_SHOWN_COLUMNS else listing
