"""Measures of a caption that no pattern can express; the rules of captions have bounds for them.

Every measure takes time in proportion to the length of the caption. All see its simple form (`simplify`), except
`measure_wrong_decoding`. Counts and shares in the functions were chosen on captions of the crawls of demo_data/crawls.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from ftfy.badness import badness

from ernie_vil2.apps.curation.kaomoji import strip_kaomoji
from ernie_vil2.apps.curation.languages import ENGLISH_WORDS, HAN, normalize_text

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_UNIT = re.compile(f"{HAN.pattern}|(?:(?!{HAN.pattern})[^\\W_])+")  # a Chinese character, or a word
_LATIN_WORD = re.compile("[A-Za-z\u00c0-\u024f]+(?:['’][A-Za-z\u00c0-\u024f]+)*")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_TAG_AS_WORD = re.compile(r"(?<=[的地得在是和与给把到])#([^\s#@]+)#?")
_TAG = re.compile(r"(?:#|(?<!\w)@)[^\s#@]*[^\W\d_][^\s#@]*#?")

# Not in ENGLISH_WORDS, because other languages have them, too.
_JOINING_WORDS = ENGLISH_WORDS | {"a", "i", "in", "me", "us", "him", "do", "does", "did", "am", "who's", "it's"}
# Particles, pronouns, prepositions and counted things (两本) of Chinese, which a list of keywords lacks. Packs of
# several (两件套) are keywords of shops.
_HAN_FUNCTION = re.compile(
    r"[的了着在是和与及或把被让从给也都就很这那吗呢吧]|[一二两三四五六七八九十\d][个只条张件双座位辆本支杯碗盘块朵棵片瓶](?![套装])"
    r"|[上下里前后]面|旁边|中间"
)

# Rows of a keyboard, in which idle fingers run.
_KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_RIGHTWARDS = frozenset(first + second for row in _KEY_ROWS for first, second in pairwise(row))
_KEY_PAIRS = (_RIGHTWARDS, frozenset(pair[::-1] for pair in _RIGHTWARDS))
_KEY_RUN = 4  # letters of a run along a row of the keyboard, at least; "were" and "tree" have three


def simplify(text: str) -> str:
    """Return a caption as patterns and measures see it.

    Full-width letters and marks become ASCII (NFKC), invisible characters are left out, and runs of spaces and line
    breaks become a space.
    """
    if not text.isascii():
        text = normalize_text("NFKC", _INVISIBLE.sub("", text))
    return " ".join(text.split())


_MAX_PERIOD = 12  # words or Chinese characters that are repeated; a longer text is rarely repeated three times


def measure_repetition(text: str) -> float:
    """Return the share of the words, or Chinese characters, in the longest run of repetitions.

    A word has to come four times, two or more words three times. In a caption that consists of nothing else, a word has
    to come three times, and three or more words twice.
    """
    units = _find_units(text)
    if len(set(units)) == len(units):  # a shortcut: most captions have every word once
        return 0.0
    num_repeated = 0
    for period in range(1, min(_MAX_PERIOD, len(units) // 2) + 1):
        # Units of the longest run in which each equals the one a period before.
        longest_run = run = 0
        for unit, earlier_unit in zip(units[period:], units, strict=False):
            if unit == earlier_unit:
                run += 1
                longest_run = max(longest_run, run)
            else:
                run = 0
        # How often it has to come: once less where the caption consists of nothing else, except for pairs of words.
        num_times = 4 if period == 1 else 3
        if longest_run + period == len(units) and period != 2:
            num_times -= 1
        if longest_run >= period * (num_times - 1):
            num_repeated = max(num_repeated, longest_run + period)
    # A longer text counts where the caption is that text twice or more.
    if len(units) > 2 * _MAX_PERIOD and 2 * _find_period(units) <= len(units):
        return 1.0
    return num_repeated / max(1, len(units))


@lru_cache(maxsize=4)  # several measures need the words of the same caption
def _find_units(text: str) -> tuple[str, ...]:
    """Return the words and single Chinese characters of a text, in lower case."""
    return tuple(_UNIT.findall(text.casefold()))


def _find_period(units: Sequence[str]) -> int:
    """Return the least distance at which all units repeat (the failure function of Knuth, Morris and Pratt)."""
    # For each position, the length of the longest proper prefix that is also a suffix of the units up to there.
    borders = [0] * len(units)
    border = 0
    for position in range(1, len(units)):
        while border and units[position] != units[border]:
            border = borders[border - 1]
        if units[position] == units[border]:
            border += 1
        borders[position] = border
    return len(units) - border


def measure_commonest(text: str) -> float:
    """Return the share of the commonest word, or pair of Chinese characters; 0 if it comes less than four times."""
    units = _find_units(text)
    # A shortcut: a word that comes four times, as singular or plural, repeats a unit at least twice.
    if len(units) < 4 or len(units) - len(set(units)) < 2:
        return 0.0
    counts: Counter[str] = Counter()
    for unit, following in zip(units, (*units[1:], ""), strict=True):
        if HAN.match(unit):
            if HAN.match(following):
                counts[unit + following] += 2  # a pair takes two units
        elif len(unit) > 1 and unit not in ENGLISH_WORDS and not unit.isdecimal():
            counts[unit.removesuffix("s")] += 1  # a plural is the same word
    if not counts:
        return 0.0
    commonest, count = counts.most_common(1)[0]
    num_times = count // 2 if HAN.match(commonest) else count
    if num_times < 4:
        return 0.0
    return count / len(units)


def measure_keywords(text: str) -> float:
    """Return the weighted number of entries if the caption is a list of keywords, else 0.

    A list has no words that join others, and no title that says what the entries are (静物: 书、杯子). Words between
    spaces count less than entries between commas, bars or similar marks, and entries with a word in common count more.
    So do searches for the same thing (`_count_searches`).
    """
    if _TITLED_LIST.match(text):
        return 0.0
    entries = _split_entries(text)
    weighted_count = len(entries)
    num_searches = _count_searches(text, entries)
    if num_searches:
        return float(num_searches + _COMMON_THING)
    min_share = 0.85  # of the entries that must be keywords; a list may have a title
    if weighted_count < 4:
        # Without marks, only words in lower case or groups of Chinese characters between spaces look like a list, and
        # titles of goods look like that too, so that it takes more of them.
        entries = _GAP.split(text)
        is_chinese = sum(map(_is_han_word, entries)) >= 0.7 * len(entries)
        if is_chinese:
            weighted_count = len(entries) - 2
        else:
            is_slug = " " not in text  # "red-dress-for-girls" is a caption
            if is_slug or text != text.lower() or text.endswith("."):
                return 0.0
            weighted_count = (len(entries) + 2) // 2
            min_share = 1.0
    # Entries with a word in common ("red dress, summer dress") are a list already where there are few of them, and
    # Chinese ones may be longer.
    has_common_word = weighted_count >= 4 and _count_common_word(entries) >= max(3, 0.6 * len(entries))
    max_han = 10 if has_common_word else 7
    num_keywords = sum(_is_keyword(entry, max_han) for entry in entries)
    if num_keywords < min_share * len(entries):
        return 0.0
    if has_common_word:
        weighted_count += _COMMON_THING
    return float(weighted_count)


_TITLED_LIST = re.compile("[^:、,]{1,12}: ?[^:、,]+、")
_COMMON_THING = 3  # entries by which a list counts more if its entries have a word in common or are searches


def _count_common_word(entries: Sequence[str]) -> int:
    """Return the number of entries that have the commonest word, joining words apart, or pair of Chinese characters."""
    counts = Counter[str]()
    for entry in entries:
        units = _UNIT.findall(entry.casefold())
        words = {unit for unit in units if not HAN.match(unit)}
        words -= _JOINING_WORDS
        # In pairs, because a single Chinese character is in many different words.
        for first, second in pairwise(units):
            if HAN.match(first) and HAN.match(second):
                words.add(first + second)
        counts.update(words)
    return max(counts.values(), default=0)


# What people add to the name of a thing when they search for it.
_SEARCH_WORDS = re.compile(
    r"\b(?:recipes?|ideas?|tips|best|cheap(?:est)?|buy|online|prices?|near me|how to|reviews?|free|download|easy|quick"
    r"|homemade|simple|for sale|tutorials?|meaning|calories|wallpapers?|images|pictures|20\d\d|discount|deals?"
    r"|coupons?|diy|guide|for beginners|outlet|rental|cost|reddit|vs|inspiration|designs?|outfits?|cheats?|codes?"
    r"|walkthrough)\b|做法|怎么|如何|大全|图片|价格|多少钱|视频|教程|推荐|排行|哪家|哪里|哪个|哪些|攻略|下载|图解"
    r"|技巧|方法|报价|批发|厂家|评测|测评|口碑|配置|简单|效果图|壁纸|介绍|费用|地址|电话|官网"
)


def _count_searches(text: str, entries: Sequence[str]) -> int:
    """Return the number of searches for the same thing in a text that is a list of them, else 0.

    Four or more entries are searches if nearly all have a word in common and at least half contain a search word, such
    as "recipe". Otherwise the commonest phrase has to occur three times or more: its occurrences are the searches, if
    the rest of the text has two search words and no word that joins others.
    """
    units = _find_units(text)
    # A shortcut: a word in four entries, and a phrase that occurs three times, repeat at least three units, and any
    # list of searches has two search words.
    if len(units) - len(set(units)) < 3 or len(_SEARCH_WORDS.findall(text.casefold())) < 2:
        return 0
    # Chinese searches may stand between spaces. Three entries between marks are left as they are.
    if len(entries) < 3 and HAN.search(text):
        entries = text.split()
    if len(entries) >= 4:
        num_with_search = sum(bool(_SEARCH_WORDS.search(entry.casefold())) for entry in entries)
        if 2 * num_with_search >= len(entries) and _count_common_word(entries) >= max(4, 0.8 * len(entries)):
            return len(entries)
    num_times, other_units = _find_commonest_phrase(units)
    if num_times < 3 or _JOINING_WORDS.intersection(other_units) or _HAN_FUNCTION.search("".join(other_units)):
        return 0
    return num_times if len(_SEARCH_WORDS.findall(" ".join(other_units))) >= 2 else 0


def _find_commonest_phrase(units: Sequence[str]) -> tuple[int, list[str]]:
    """Return how often the commonest phrase occurs, and the units outside of it; no units if it occurs twice or less.

    A phrase begins as two words, or as three units from a Chinese character on, unless all are words that join others.
    The commonest one is then extended by the units before and behind it that are the same at all its occurrences.
    """
    starts_by_phrase: dict[tuple[str, ...], list[int]] = {}
    for start, unit in enumerate(units):
        length = 3 if HAN.match(unit) else 2
        phrase = tuple(units[start : start + length])
        if len(phrase) == length and not _JOINING_WORDS.issuperset(phrase):
            starts_by_phrase.setdefault(phrase, []).append(start)
    if not starts_by_phrase:
        return 0, []
    phrase, starts = max(starts_by_phrase.items(), key=lambda item: len(item[1]))
    num_times = len(starts)
    if num_times < 3:
        return num_times, []

    # Units before and behind the phrase belong to it where they are the same each time. The "" at the ends of the text
    # differs from every unit. This takes linear time: if the phrase grew on a side by the least distance between two of
    # its starts, it would occur once more; so each side compares a unit at most once.
    padded_units = ("", *units, "")
    num_before, num_behind = 0, 0
    while len({padded_units[start - num_before] for start in starts}) == 1:
        num_before += 1
    while len({padded_units[start + len(phrase) + num_behind + 1] for start in starts}) == 1:
        num_behind += 1
    is_phrase = [False] * len(units)
    for start in starts:
        for position in range(start - num_before, start + len(phrase) + num_behind):
            is_phrase[position] = True
    other_units = [unit for unit, is_inside in zip(units, is_phrase, strict=True) if not is_inside]
    return num_times, other_units


_GAP = re.compile(r"[\s\-_]+")
_SEPARATOR = re.compile(r"[,;|/、·•>~]|\s[-–—]\s")


def _split_entries(text: str) -> list[str]:
    """Split a text at its most frequent mark: a list has one kind of mark, while a sentence mixes commas and dashes."""
    counts = Counter(_SEPARATOR.findall(text))
    if not counts:
        return [text]
    mark, _ = counts.most_common(1)[0]
    return [entry.strip() for entry in text.split(mark) if entry.strip(" .")]


def _is_han_word(entry: str) -> bool:
    """Return whether an entry has as many Chinese characters as a word or two."""
    num_han = len(HAN.findall(entry))
    return 2 <= num_han <= 5


def _is_keyword(entry: str, max_han: int) -> bool:
    """Return whether an entry has few words or Chinese characters, and none that join others."""
    num_han = len(HAN.findall(entry))
    words = [word.casefold() for word in _LATIN_WORD.findall(entry)]
    if num_han == 0 and not words:
        return False
    if num_han > max_han or len(words) > 4:
        return False
    return not (_HAN_FUNCTION.search(entry) or _JOINING_WORDS.intersection(words))


# Words for pictures that consist of several ones, and for several views of a thing. "Collage" alone is not among them:
# a caption may say so and then tell of one of the pictures only.
_NUMBER = "(?:two|three|four|five|six|seven|eight|nine|several|[2-9])"
_SEVERAL_PICTURES = re.compile(
    r"\b(?:memes?|comics?|(?:new|comic) strips?"
    rf"|{_NUMBER}[- ](?:pictures?|photos?|images|panels?|frames|views|sides|angles|steps)"
    r"|(?:top|bottom|left|right) panel|both sides|side by side|before and after|front and back|grid of)\b"
    r"|梗图|表情包|漫画|条漫|第[0-9一二三四五六七八九十百]+话|[两二三四五六七八九多几2-9](?:格|宫格|连拍|面图|个?角度|个?视角|张图|张照片)|拼在一起"
    r"|前后左右|前后对比|各一张"
)
_CLAUSE_END = re.compile("[.;:。]")
_AND, _HAN_AND = re.compile(" and | & "), re.compile("[和与]")
_MAX_THING = 30  # characters of a thing between two others in a list; more is a part of a sentence


def names_several_pictures(text: str) -> bool:
    """Return whether a caption speaks of several pictures or views, or lists four things or more."""
    text = text.casefold()
    return bool(_SEVERAL_PICTURES.search(text)) or any(map(_is_list, _CLAUSE_END.split(text)))


def _is_list(clause: str) -> bool:
    """Return whether a clause lists four things or more, as in "a cup, a plate, a fork and a knife"."""
    things = clause.split(", ")
    if len(things) >= 3 and _AND.search(things[-1]):
        return max(map(len, things[1:-1])) <= _MAX_THING
    things = clause.split("、")
    num_things = len(things) + bool(_HAN_AND.search(things[-1]))
    return num_things >= 4


# Things with writing on them, quoted words, and figures as a chart shows them. A caption without any of these tells of
# something else than the page of text that its image shows.
_SHOWN_TEXT = re.compile(
    r"\b(?:apps?|boards?|books?|brochures?|calendars?|calligraphy|cards?|certificates?|charts?|chats?|code|covers?"
    r"|degrees|diagrams?|documents?|equations?|error|figures|flyers?|forecasts?|formula[se]?|forms?|functions?|graphs?"
    r"|headlines?|index|infographics?|inscriptions?|invoices?|labels?|layouts?|leaflets?|letters?|listings?|lists?|lyrics"
    r"|magazines?|manuscripts?|maps?|menus?|messages?|newspapers?|notes?|notices?|numbers|orders?|pages?|plans?|poems?"
    r"|polls?|posters?|posting|posts?|prices?|programmes?|quotations?|quotes?|ranking|rates?|reads|receipts?|reports?"
    r"|results|said|sales|says|schedules?|scoreboards?|scores?|screens?|screenshots?|serves?|signboards?|signs?|slides?"
    r"|spreadsheets?|statistics|tags?|texts?|tickets?|timetables?|titles?|tweets?|websites?|words?|writes|writing|written"
    r"|(?:licen[cs]e|name|number|rating|type) ?plates?|web ?pages?|from \d{4} (?:to|until) \d{4})\b"
    r"|菜[单牌]|点菜|价目|价格[表单]|图表|[饼柱]图|[柱条][状形]图|折线|曲线|走势|对比|统计|数据|产量|指数|汇率|天气|气温|排[名行]|投票"
    r"|户型|平面图|布局图|示意图|流程图|地图|路线图|海报|传单|宣传单|封面|书[影页籍]|第[0-9一二三四五六七八九十]+页|扫描|报[告纸]|杂志"
    r"|标题|便[条签]|书信|[文题]字|文案|句子|书法|对联|题词|诗|截[图屏]|屏幕|[界页]面|聊天|对话|消息|短信|微博|朋友圈|帖子|写[着道的]"
    r"|公告|通知|告示|[招路铭门车名]牌|标签|吊牌|领标|水洗标|[门车船机邮彩发]票|票根|名片|证书|合同|文件|表格|课程?表|时刻表|日历"
    r"|[订账清]单|公式|方程|函数|代码|幻灯片|课件|作业|试卷|乐谱|歌词|\d{4}年?[至到-]\d{4}年"
    r"|\d[.,]\d|\d ?%|[“「『\"][^“”「」『』\"]{3,}[”」』\"]"
)


def names_text(text: str) -> bool:
    """Return whether a caption names a thing with writing on it (a menu), quotes words, or gives figures of a chart."""
    return bool(_SHOWN_TEXT.search(text.casefold()))


def measure_tags(text: str) -> float:
    """Return the share of the characters that are in #tags and @handles.

    Behind a Chinese particle, `#tag#` is a word of the sentence.
    """
    text = _TAG_AS_WORD.sub(r"\1", text)
    num_characters = sum(map(len, text.split()))
    return sum(map(len, _TAG.findall(text))) / max(1, num_characters)


def measure_marks(text: str) -> float:
    """Return the share of the characters that are neither letters nor digits; faces such as (´･ω･`) do not count."""
    text = strip_kaomoji(text)
    num_characters = sum(map(len, text.split()))
    return 1 - len(_LETTER_OR_DIGIT.findall(text)) / max(1, num_characters)


def measure_codes(text: str) -> float:
    """Return the share of the characters that are in words with a digit, or 0 for a caption that has other words.

    Quantities and names of substances do not count as words with a digit.

    Two words or Chinese characters are enough for 0. Where a long number makes up much of the caption, as in
    `Object ID 871404932`, three are needed, and with fewer the result is 1.
    """
    if not _DIGIT.search(text):
        return 0.0
    text, num_words = HAN.subn(" ", text)
    num_characters = num_code_characters = num_long_characters = 0
    for token in text.split():
        num_characters += len(token)
        has_digit = any(letter.isdecimal() for letter in token)
        may_be_code = has_digit and not _QUANTITY.fullmatch(token) and not _CHEMICAL.fullmatch(token)
        if may_be_code:
            num_code_characters += len(token)
            if _LONG_NUMBER.search(token):
                num_long_characters += len(token)
        # The letters of codes are capitals, or few. Others are words: a slug may have a number ("leather-boots-2021").
        for word in _LATIN_WORD.findall(token):
            is_code = may_be_code and word.isupper()
            if len(word) >= 3 and not is_code:
                num_words += 1
    if num_words <= 2 and num_long_characters > _MIN_LONG_NUMBER * num_characters:
        return 1.0
    if num_words >= 2:
        return 0.0
    # Few characters with few digits are rather the name of a thing: A4, 7UP, MiG-29.
    is_name = num_characters <= 6 and len(_DIGIT.findall(text)) <= 3 and _LATIN_WORD.search(text)
    if is_name or (num_words == 1 and _BRAND.match(text)):
        return 0.0
    return num_code_characters / max(1, num_characters)


_DIGIT = re.compile(r"\d")
# A distance, a weight or a time in the clock: 11.34k, 2am, (1:05:24).
_QUANTITY = re.compile(r"\W*(?:\d{1,4}(?:[.,]\d+)?(?:k|km|mi|kg|h|min|[ap]m)|\d{1,2}(?::\d\d){1,2})\W*", re.IGNORECASE)
# The systematic name of a substance: 4-bromophenol, 3-methyl-1-butanol.
_CHEMICAL = re.compile(
    r"(?:\d{1,2}(?:,\d{1,2})*-[a-z]{3,}-)*\d{1,2}(?:,\d{1,2})*-[a-z]{3,}"
    r"(?:ol|al|[aey]ne|one|ine?|ide|[aio]te|ose|yl|ether|acid|hyde|ile|ium)"
)
# Six decimal digits, or a word of eight hexadecimal ones.
_LONG_NUMBER = re.compile(r"\d{6,}|(?<![^\W_])(?=[a-f]*\d)[0-9a-f]{8,}(?![^\W_])")
_BRAND = re.compile(r"(?:[A-Z][a-z]{3,}|[A-Z]{4,}) ")  # in front of a model: Sharp LC-19LE510K
_MIN_LONG_NUMBER = 0.38  # share of the characters in words with long numbers; an article and its number have less


def measure_fields(text: str) -> float:
    """Return the number of fields such as `Label: value` if the caption consists of three or more, else 0.

    Labels and values are short, one of them has a digit, and no label comes twice. A label that says which part or
    colour of an image is meant makes the result 0: "Left: 1950, middle: 1980, right: 2010" is a caption.
    """
    pieces = _COLON.split(text)
    if len(pieces) < 4 or not _DIGIT.search(text) or _TIGHT_COLON.search(text):
        return 0.0
    # A piece is a value and the next label. Values of several words describe something, unless half of the pieces have
    # a digit.
    most_words = max(len(_FIELD_WORD.findall(piece)) for piece in pieces)
    num_with_digit = sum(bool(_DIGIT.search(piece)) for piece in pieces)
    max_words = 6 if 2 * num_with_digit >= len(pieces) else 3
    width = max(len(piece) + len(HAN.findall(piece)) for piece in pieces)
    if width > _MAX_WIDTH or most_words > max_words:
        return 0.0
    labels = set[str]()
    for piece in pieces[:-1]:
        label = _LABEL.search(piece)
        if not label or label[0].casefold() in _PARTS_OF_IMAGES:
            return 0.0
        labels.add(label[0].casefold())
    has_every_label_once = len(labels) == len(pieces) - 1
    return float(len(labels)) if has_every_label_once else 0.0


_COLON = re.compile(r"(?<!\d): ?|: ?(?!\d\d)")  # but for one between a digit and two digits, as in a time
_TIGHT_COLON = re.compile(
    "[A-Za-z]:[A-Za-z]"
)  # without spaces: in a program, or in a title with colons instead of spaces
_FIELD_WORD = re.compile(r"[^\s|/;]+")  # without the marks between fields
_LABEL = re.compile(r"[^\W\d_][^\s:,;|/]*(?=[ )\]]*$)")
_MAX_WIDTH = 32  # of a value and the label behind it, in Latin letters; a Chinese character is as wide as two
# Words in front of a colon that say which part, or which colour, of an image shows something.
_PARTS_OF_IMAGES = frozenset(
    """left right top bottom middle centre center above below front back rear side row foreground background inset
    panel column clockwise anticlockwise first second third fourth last from red orange yellow green blue purple pink
    black white grey gray brown cyan magenta dark light striped a b c d e f g h i v x 左 右 上 中 下 左图 右图 上图 中图
    下图 左边 右边 上面 下面 左上 右上 左下 右下 前 后 前排 后排 中排 一 二 三 四 红 橙 黄 绿 蓝 紫 黑 白 灰 红色 橙色
    黄色 绿色 蓝色 紫色 黑色 白色 灰色 粉色 甲 乙 丙 丁 图""".split()  # noqa: SIM905  -- a text is easier to read than a list of strings
)


def measure_random_letters(text: str) -> float:
    """Return how rare the pairs of letters are, in bits a pair: words are below 0, and random letters reach 1.4.

    Five words or more, 60 % of them single letters, have 2, which is more than any bound. Other captions have 0 if they
    have fewer than six pairs, or fewer than two for each Chinese character; else 2 if they are in lower case, have no
    joining words, and a third of their words are long and have no vowel.
    """
    total_bits = num_pairs = num_unpronounceable = 0
    words = [word.casefold() for word in _LATIN_WORD.findall(text)]
    if len(words) >= 5:
        tokens = text.split()
        num_single = sum(len(token) == 1 and token.isalpha() and token.isascii() for token in tokens)
        if num_single >= 0.6 * len(tokens):
            return 2.0
    for word in words:
        bits, num_pairs_of_word = _measure_word(word)
        total_bits += bits
        num_pairs += num_pairs_of_word
        if len(word) >= 5 and word.isascii() and not _VOWEL.search(word):
            num_unpronounceable += 1
    if num_pairs < 6 or num_pairs < 2 * len(HAN.findall(text)):
        return 0.0
    is_partly_unpronounceable = 3 * num_unpronounceable >= len(words)
    if is_partly_unpronounceable and text.islower() and not _JOINING_WORDS.intersection(words):
        return 2.0
    return (-total_bits - _CHANCE_BITS) / num_pairs


_CHANCE_BITS = 2  # by which a word or two may have rare pairs: "snowy day" has 5 in 6 pairs

_VOWEL = re.compile("[aeiouy]")


@lru_cache(maxsize=2**14)  # few words make up most of any text
def _measure_word(word: str) -> tuple[int, int]:
    """Return the sum of the bits of a word's pairs of letters, and their number.

    A pair in a run of keys has 2 bits less. Words with letters other than a to z, and single letters, have no pairs.
    """
    if not word.isascii() or len(word) < 2:
        return 0, 0
    letters = [ord(letter) - ord("a") for letter in word if letter != "'"]
    bits = sum(_PAIR_BITS[26 * first + second] for first, second in pairwise(letters))
    return bits - 2 * _count_key_runs(word), len(letters) - 1


def _count_key_runs(word: str) -> int:
    """Return the number of pairs of letters in runs along a row of the keyboard, in either direction."""
    num_pairs = 0
    for key_pairs in _KEY_PAIRS:
        run_length = 1
        for first, second in pairwise(word):
            if first + second not in key_pairs:
                run_length = 1
                continue
            run_length += 1
            # The pairs of a run count when it is long enough, and from then on each further pair.
            if run_length == _KEY_RUN:
                num_pairs += _KEY_RUN - 1
            elif run_length > _KEY_RUN:
                num_pairs += 1
    return num_pairs


# Binary logarithm of how much more frequent a pair of letters is, after its first letter, than if all letters were
# equally frequent: digit minus 5, a row for each first letter from a to z. Counted over the 15,901 different words of
# ERNIE 3.0's vocabulary, the GNU licences, Perl's and this package's documentation, and names of time zones.
_PAIR_DIGITS = """
25652352514757351767443242 75437322632732731654621041 72536217605532731546520030 63358433721443630563533140
53575442402657342775243531 63447632701620730645601140 73337356611545631753601131 73337223713434721545612141
54655450103558641566250304 74337332754233732243732030 73338334724435640464623040 72347321703732630255530060
75337221711353660253521131 62666472624324520267431131 44553343414668550755655331 71337125601631660755511130
43321132613531326444934233 73458241704454630565531040 62537216604443651267623140 61427216701432630665522151
65555451523667350766320222 73438320800232620231231221 71347226713445731553124021 53646424720443473347522550
64446241623556662565534334 70058326702444623333533356
""".split()  # noqa: SIM905  -- a table is read as a text
_PAIR_BITS = [int(digit) - 5 for row in _PAIR_DIGITS for digit in row]


def measure_wrong_decoding(text: str) -> float:
    """Return the number of characters that only a text decoded by the wrong encoding has.

    ftfy knows the traces of UTF-8 and GBK that were read as Latin-1 or one of its relatives. UTF-8 that was read as
    GBK, and random Chinese characters, are known by their bytes.
    """
    if text.isascii():
        return 0.0
    text = strip_kaomoji(text)
    return float(badness(text) + _count_gbk_traces(text) + _count_rare_han(text))


def _count_gbk_traces(text: str) -> int:
    """Return how many Chinese characters the GBK bytes of a text are when they are read as UTF-8; 0 if few.

    In good Chinese text few bytes can be read so by chance: at most 2 % of them, in 12,000 captions.
    """
    content = text.encode("gbk", "ignore")
    num_wide = sum(byte >= 0x80 for byte in content)
    traces = _UTF8_HAN.findall(content)
    # Each trace is three bytes long. Two occur in correct text as well, but never make up most of it.
    min_share = 0.8 if len(traces) == 2 else 0.5
    if len(traces) < 2 or 3 * len(traces) < min_share * num_wide:
        return 0
    return len(traces)


_UTF8_HAN = re.compile(rb"[\xe4-\xe9][\x80-\xbf]{2}|\xef\xbc[\x80-\xbf]|\xe3\x80[\x80-\xbf]")


def _count_rare_han(text: str) -> int:
    """Return the number of Chinese characters that no standard has, or that are rare; 0 if they are few.

    Two characters without a standard are enough if they are 40 % of all. Of rare ones it takes five different ones and
    55 %, because names of animals and plants have some: no caption of COCO-CN and of 20,000 headlines has as many.
    """
    characters = HAN.findall(text)
    num_unknown = sum(not _is_in_standard(character) for character in characters)
    if num_unknown >= 2 and num_unknown >= 0.4 * len(characters):
        return num_unknown
    if len(characters) < 5:
        return 0
    rare = [character for character in characters if not _is_common(character)]
    if len(set(rare)) < 5 or len(rare) < 0.55 * len(characters):
        return 0
    return len(rare)


def _is_common(character: str) -> bool:
    """Return whether a character is in the first level of GB 2312 or of Big5, which have the more frequent ones."""
    for encoding, first, last in (("gb2312", 0xB0, 0xD7), ("big5", 0xA4, 0xC6)):
        content = character.encode(encoding, "ignore")
        if content and first <= content[0] <= last:
            return True
    return False


def _is_in_standard(character: str) -> bool:
    """Return whether a character is one of the 6,763 of GB 2312, the 13,051 of Big5 or the 6,355 of JIS X 0208."""
    for encoding in ("gb2312", "big5", "euc_jp"):
        content = character.encode(encoding, "ignore")
        if content and len(content) == 2:  # in EUC-JP three bytes are of the supplement JIS X 0212
            return True
    return False


MEASURES: Mapping[str, Callable[[str], float]] = {
    "repetition": measure_repetition,
    "commonest": measure_commonest,
    "keywords": measure_keywords,
    "tags": measure_tags,
    "marks": measure_marks,
    "codes": measure_codes,
    "fields": measure_fields,
    "random_letters": measure_random_letters,
    "wrong_decoding": measure_wrong_decoding,
}
"""Measures by the names that rules use for their bounds."""


def measure_captions(captions: Sequence[str]) -> dict[str, float]:
    """Return each of `MEASURES` by name, the greatest one of several captions."""
    simple_captions = [simplify(caption) for caption in captions]
    measures = {}
    for name, measure in MEASURES.items():
        # The simple form no longer has the characters that give a wrong decoding away.
        texts = captions if measure is measure_wrong_decoding else simple_captions
        measures[name] = max(measure(text) for text in texts)
    return measures
