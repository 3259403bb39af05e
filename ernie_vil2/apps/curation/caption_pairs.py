"""Compare the captions of two images that look the same: do they say the same, or name something else?

All functions take plain captions, as `text_rules.fold_text` returns them, except where they say otherwise.
"""

import re
from collections.abc import Sequence

from ernie_vil2.apps.curation.languages import split_units

# Share of the words of two captions, counted from begin and end, that they have in common if they come from one
# template. In the synthetic crawls of demo_data/crawls 98 % of the captions of copies are equal or have less in common;
# 99 % of those that differ in a colour, a number or an angle have more.
MIN_COMMON_WORDS = 0.5
# Words that add nothing to what a caption says; prepositions and numbers are not among them.
EMPTY_UNITS = frozenset("a an the and is are was were this that these those 的 了 着 啊 呀 呢 吧".split())  # noqa: SIM905  -- words are read as a text
MIN_ORDERED_COLOURS = 3  # colours in the reverse order: a caption may well name two in either order
_DIGITS = re.compile(r"\d+")
_YEAR = re.compile(r"(?<!\d)(?:1[89]|20)\d\d(?!\d)")

_DIRECTIONAL_WORDS = re.compile(
    r"\b(left|right|(counter|anti)?clockwise|\w+[- ]thirty|\d{1,2}:\d\d|o['’]clock)\b"
    r"|左|右|时针|[一二三四五六七八九十两\d]点",
    re.IGNORECASE,
)
_UP = re.compile(r"\bup(wards?)?\b|上")
_DOWN = re.compile(r"\bdown(wards?)?\b|下")

# Names of a colour. Shades that people call by either name are one colour. Chinese characters that also name a
# material, a fruit or the young count before 色 only.
_COLOURS = {
    "red": "red crimson scarlet 红 紅 赤色",
    "maroon": "maroon burgundy 酒红 酒紅 枣红 棗紅 栗色",
    "orange": "orange 橙色 橘色",
    "yellow": "yellow gold golden 黄 黃 金色",
    "green": "green olive mint 绿 綠 翠色",
    "teal": "teal turquoise cyan aqua 青色 青绿 青綠",
    "blue": "blue 蓝 藍",
    "navy": "navy 藏青 藏蓝 藏藍 深蓝 深藍",
    "purple": "purple violet lilac 紫",
    "pink": "pink 粉色",
    "brown": "brown tan 棕 褐",
    "beige": "beige cream khaki 米色 米白 杏色 卡其",
    "black": "black 黑",
    "white": "white ivory 白",
    "grey": "grey gray silver 灰 银色 銀色",
}
# A ground is not what an image is about: it may differ from image to image, and few captions name it. Without the first
# \b, every letter of a long text without spaces would begin another search to its end.
_GROUND = re.compile(r"\b\w+ (background|backdrop)\b|\w色?(底|背景)")
_COLOUR_BY_NAME = {name: colour for colour, names in _COLOURS.items() for name in names.split()}
_COLOUR_NAME = re.compile(
    "|".join(rf"\b{name}\b" if name.isascii() else name for name in sorted(_COLOUR_BY_NAME, reverse=True))
)


def say_the_same(first: str, second: str) -> bool:
    """Return whether captions are the same but for articles and the like."""
    if first == second:
        return True
    first_units = [unit for unit in split_units(first) if unit not in EMPTY_UNITS]
    second_units = [unit for unit in split_units(second) if unit not in EMPTY_UNITS]
    return bool(first_units) and first_units == second_units


def is_variant(first: str, second: str) -> bool:
    """Return whether captions come from one template, and name something else in one place, such as a colour.

    Captions that differ in nothing but their numbers, in one place or several, are variants, too.
    """
    if differ_in_numbers(first, second):
        return True
    first_units, second_units = split_units(first), split_units(second)
    # Count the units that are equal from the begin on, and then those from the end on.
    shorter_length = min(len(first_units), len(second_units))
    num_common = 0
    while num_common < shorter_length and first_units[num_common] == second_units[num_common]:
        num_common += 1
    last = -1
    while num_common < shorter_length and first_units[last] == second_units[last]:
        num_common += 1
        last -= 1
    # A caption with nothing but additions to the other one says the same of the image.
    is_addition = num_common == shorter_length
    return not is_addition and 2 * num_common >= MIN_COMMON_WORDS * (len(first_units) + len(second_units))


def differ_in_numbers(first: str, second: str) -> bool:
    """Return whether captions differ, and in nothing but their numbers."""
    first_units, second_units = split_units(first), split_units(second)
    return first_units != second_units and _mask_numbers(first_units) == _mask_numbers(second_units)


def _mask_numbers(units: Sequence[str]) -> list[str]:
    return [_DIGITS.sub("0", unit) for unit in units]


def name_other_colours(first: str, second: str) -> bool:
    """Return whether each of two captions names a colour that the other one does not name."""
    first_colours, second_colours = set(_list_colours(first)), set(_list_colours(second))
    return bool(first_colours - second_colours and second_colours - first_colours)


def name_other_years(first: str, second: str) -> bool:
    """Return whether both captions name years, and none in common: badges and posters differ in little else."""
    first_years, second_years = set(_YEAR.findall(first)), set(_YEAR.findall(second))
    return bool(first_years and second_years) and not first_years & second_years


def name_direction(caption: str) -> bool:
    """Return whether a caption, as it was written, has words that do not fit the mirrored image.

    These are a side, a sense of rotation, or the time on a clock.
    """
    return bool(_DIRECTIONAL_WORDS.search(caption))


def name_opposite_directions(first: str, second: str) -> bool:
    """Return whether one caption says up and the other one down, or both list the same colours in opposite orders."""
    for upper, lower in ((first, second), (second, first)):
        points_up = bool(_UP.search(upper)) and not _DOWN.search(upper)
        points_down = bool(_DOWN.search(lower)) and not _UP.search(lower)
        if points_up and points_down:
            return True
    first_colours, second_colours = _list_colours(first), _list_colours(second)
    return len(first_colours) >= MIN_ORDERED_COLOURS and first_colours == second_colours[::-1]


def _list_colours(caption: str) -> list[str]:
    """Return the colours that a caption names, each once, in the order of their first names."""
    names = _COLOUR_NAME.findall(_GROUND.sub("", caption))
    return list(dict.fromkeys(map(_COLOUR_BY_NAME.__getitem__, names)))
