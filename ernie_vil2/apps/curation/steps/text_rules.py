"""Cheap rules on captions: length, language, and what is not a caption at all."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, ClassVar, Literal

from pydantic import Field

from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.languages import HAN, detect_language
from ernie_vil2.apps.curation.step import Histogram, Pair, Step
from ernie_vil2.section import Count, Section

Fault = Literal["file name", "URL", "markup", "phone number", "placeholder"]

# Captions are what strangers write, so that each pattern takes time in proportion to the length of a text. Quantifiers
# are possessive (`*+`) where giving characters back cannot help, no two that can match the same characters follow each
# other, and a search begins at most once in a run of the characters that it repeats.
_LETTER = re.compile(r"\w")

# What names a file, whatever a person would call the image: a file's ending as the last word, after up to so many
# characters in one word, or in several words of a line.
_ENDING = re.compile(
    r"\.(?:jpe?g|png|gif|webp|bmp|tiff?|heic|avif|svg|mp4)(?P<number>\s*+\(\d++\))?+\W*+$", re.IGNORECASE
)
_LONGEST_WORD, _LONGEST_WORDS = 200, 60
# From the first letter or digit on.
_FILE = re.compile(
    r"""(?:
        (?:img|dsc[nf]?|dcim|pict|photo|image|pic|scan|screenshot|snapshot|untitled|mmexport|wechatimg|wx_camera|pxl|vid
           |mvimg|gopr|p|c360|tumblr|fb_img|received|download|capture|file|sam|cimg|rimg)
        [\s_\-()]*+\d[\w\s\-:.@()]*+                              # IMG_0001, Screenshot 2021-03-01 at 10.20.30
      | (?:微信图片|微信截图|屏幕截图|截图|截屏|图片|照片|未命名|未标题|下载|企业微信截图
           |QQ图片|QQ截图|捕获|扫描|新建位图图像)
        [\d\s_\-:.()（）年月日]*+(?:副本)?+
      | [0-9a-f]{8,}+(?:[-_][0-9a-f]++)*+                          # a digest
      | [\s_\-:.x×()]*+\d[\d\s_\-:.x×()]*+                        # 20210301_102030, 800x600
      | [a-z0-9]++(?:[_\-][a-z0-9]++)*[_\-]\d{2,}(?:x\d+)?         # banner_728x90, photo-final-02
    )\W*+$""",
    re.IGNORECASE | re.VERBOSE,
)
_URL = re.compile(
    r"(?:https?|ftp)://|\bwww\.\w|"
    # All letters, digits and hyphens before the dot; where they go on from another letter, those after a hyphen.
    r"(?<![a-z0-9\-])(?>\b[a-z0-9]|[a-z0-9\-]*?-[a-z0-9])[a-z0-9\-]*+"
    r"\.(?:com|cn|net|org|info|biz|shop|co|io|top|xyz|cc|tv|me|ru|de|jp)(?:\b(?!\.\w*+\s[a-z])|/)",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"</?[a-z][a-z0-9]*+(?:\s[^<>]{0,300})?/?>|&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,5});|"
    r"\[/?(?:img|url|b|i|quote|caption)\b[^\]]{0,100}+\]|\{\{.{0,100}?\}\}|<%|%>|\$\{|"
    r"\!\[(?:(?!\!\[)[^\]])*+\]\(|\[[^\]]{1,80}+\]\([^)]{1,200}+\)|\b(?:class|style|href|src)\s*+=\s*+[\"']",
    re.IGNORECASE | re.DOTALL,
)
# Mainland mobile and landline numbers, 400 numbers, and international ones; a year or a size is none.
_PHONE = re.compile(
    r"(?<![\d.])(?:\+?86[\s\-]?)?1[3-9]\d[\s\-]?\d{4}[\s\-]?\d{4}(?!\d)|(?<![\d.])0\d{2,3}[\s\-]\d{7,8}(?!\d)|"
    r"(?<![\d.])[48]00[\s\-]?\d{3,4}[\s\-]?\d{3,4}(?!\d)|\+\d{1,3}[\s\-.]?\(?\d{1,4}\)?(?:[\s\-.]?\d{2,4}){2,4}(?!\d)|"
    r"(?<![\d.])\(?\d{3}\)?[\s\-.]\d{3}[\s\-.]\d{4}(?!\d)|"
    r"(?:电话|手机|热线|微信|QQ|tel|phone|call|whatsapp|hotline)[^\d\n]{0,12}\+?\d[\d\s\-()]{5,}\d",
    re.IGNORECASE,
)
# From the first letter or digit on.
_PLACEHOLDER = re.compile(
    r"""(?:
        (?:暂无|暂时没有|没有|无|缺少|缺)(?:图片|图像|照片|图|配图|封面|预览图?|商品图片?|描述|说明|标题)(?:描述|说明|信息|内容)?
      | (?:(?:图片|图像|照片|配图|商品图片?|正在)\s*+)?(?:加载中|加载失败|载入中|无法显示|未找到|不存在|已失效|已删除
           |占位图?|待上传|上传中|默认图片?|示意图)
        (?:，?\s*+请稍[候后等]\w{0,4})?
      | (?:默认|占位)(?:图片?|头像|封面)|点击(?:查看|放大|下载)(?:大图|原图|图片|更多)?|查看(?:大图|原图|更多)
      | 在此输入.{0,8}|请输入.{0,8}|图片|照片|图像|缩略图|无标题
      | (?:no|missing|empty)\s+(?:image|photo|picture|preview|thumbnail|alt\s?text|description|caption|title)s?
        (?:\s+(?:available|found|yet|provided|uploaded|set))?
      | (?:image|photo|picture|preview|thumbnail)\s+
        (?:not\s+(?:available|found)|unavailable|coming\s+soon|missing|placeholder|loading)
      | (?:(?:image|photo|picture|alt)\s*+)?placeholder(?:\s+(?:image|photo|picture|text))?|(?:image|photo|picture)\s+of
      | default\s+(?:image|avatar|thumbnail|title)|loading(?:\s+image)?|please\s+wait|coming\s+soon
      | untitled(?:\s+(?:image|photo|document|design))?|lorem\s+ipsum.*+
      | (?:click|tap)\s+(?:here|to\s+(?:enlarge|view|zoom|download)).{0,20}
      | (?:enter|add|insert|your)\s+(?:alt|caption|title|text|image).{0,20}(?:here)?
      | image|photo|picture|img|thumbnail|alt(?:\s?text)?|null|none|undefined|n/?a|nan|todo|tbd|test|spacer|logo|icon
      | banner|avatar
    )\W*+$""",
    re.IGNORECASE | re.VERBOSE,
)


def _names_file(text: str) -> bool:
    """Return whether a text is the name of a file, between marks."""
    first_letter = _first_letter(text)
    if _FILE.match(text, first_letter):
        return True
    ending = _ENDING.search(text)
    if not ending:
        return False
    # So many characters before the ending are not marks at the beginning.
    needed = ending.start() - first_letter
    line = text[: ending.start()].rpartition("\n")[2]
    words = line[-_LONGEST_WORD:].split()
    last_word = words[-1] if words and not line[-1].isspace() else ""
    is_words = ending["number"] is None and needed <= min(_LONGEST_WORDS, len(line))
    return is_words or max(1, needed) <= len(last_word)


def _is_placeholder(text: str) -> bool:
    """Return whether a text stands for one that is to come, between marks."""
    return _PLACEHOLDER.match(text, _first_letter(text)) is not None


def _first_letter(text: str) -> int:
    """Return where the marks at the beginning of a text end."""
    letter = _LETTER.search(text)
    return letter.start() if letter else len(text)


FAULTS: Mapping[Fault, tuple[Any, Any]] = {
    "markup": (re.compile(r"[<&\[{%$=]").search, _MARKUP.search),
    "URL": (re.compile(r"\.\w|://").search, _URL.search),
    "file name": (_LETTER.search, _names_file),
    "phone number": (re.compile(r"\d[\s\-()]*\d[\s\-()]*\d").search, _PHONE.search),
    "placeholder": (_LETTER.search, _is_placeholder),
}
"""What a caption is instead of one: what it cannot be without, which is quickly seen, and what it is. The first that
fits counts."""


LOOKED_AT = 1000  # characters of a caption; what is longer is none in any case
_TOKEN = re.compile(r"\w+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")


class Settings(Section):
    """Limits of captions."""

    languages: list[Literal["zh", "en", "other"]] = Field(
        default=["zh", "en"], description="of captions that stay, as their characters and words show them"
    )
    words: Count = Field(3, description="least number in an English caption")
    characters: Count = Field(6, description="least number in an English caption")
    han: Count = Field(2, description="least number of Chinese characters in a Chinese caption")
    longest: Count = Field(1000, description="characters of a caption at most")
    faults: list[Fault] = Field(default=list(FAULTS), description="what is not a caption")
    images_of_a_caption: Count | None = Field(
        100, description="a caption that more different images than this have says nothing of any; null: any number"
    )


class TextRules(Step[Settings]):
    """DataComp's basic rules, and the faults that crawls of alt text have.

    Measures are of the caption that is worst, where a pair has several.
    """

    name = "text_rules"
    cost = 1
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {
        "languages": "string",
        "characters": "int32",
        "words": "int32",
        "letters": "int32",
        "han": "int32",
        "text_fault": "string",
        "text_key": "uint64",
    }

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Languages, lengths, the first fault, and what a caption is once case and marks are left out.

        Characters are those of the longest caption; words and characters of the shortest English one, and the Chinese
        characters of the shortest Chinese one, are null where there is none.
        """
        texts = list(pair.captions.values())
        by_language: dict[str, list[str]] = {"zh": [], "en": [], "other": []}
        for text in texts:
            by_language[detect_language(text)].append(text)
        return {
            "languages": " ".join(sorted(language for language, own in by_language.items() if own)),
            "characters": max(map(len, texts)),
            "words": min((len(_WORD.findall(text)) for text in by_language["en"]), default=None),
            "letters": min(map(len, by_language["en"]), default=None),
            "han": min((len(HAN.findall(text)) for text in by_language["zh"]), default=None),
            "text_fault": next(filter(None, map(fault_of, texts)), None),
            "text_key": text_key(texts),
        }

    def rules(self) -> Iterable[tuple[str, str]]:
        own = self.settings
        unwanted = [language for language in ("zh", "en", "other") if language not in own.languages]
        yield from ((fault, f"text_fault = '{fault}'") for fault in own.faults)
        if unwanted:
            yield "other language", " or ".join(f"contains(languages, '{language}')" for language in unwanted)
        yield "caption too short", f"words < {own.words} or letters < {own.characters} or han < {own.han}"
        yield "caption too long", f"characters > {own.longest}"

    def decide(self, joins: Joins) -> None:
        """Remove captions of many images."""
        most = self.settings.images_of_a_caption
        if most is not None:
            image = "content" if joins.has_column("content") else "key"
            frequent = f"(select text_key from {{}} group by text_key having count(*) > {most})"  # noqa: S608  -- no text of the data is in it
            rows = f"readable semi join {frequent.format('readable')} using (text_key)"
            many = frequent.format(f"(select distinct text_key, {image} from {rows})")  # count(distinct) spills nothing  # noqa: S608  -- no text of the data is in it
            joins.remove("caption of many images", f"select sample, null from alive semi join {many} using (text_key)")  # noqa: S608  -- no text of the data is in it

    def histograms(self) -> Iterable[Histogram]:
        yield Histogram("characters", "characters of the caption", (self.settings.longest,))
        yield Histogram("words", "words of English captions", (self.settings.words,))
        yield Histogram("han", "Chinese characters of Chinese captions", (self.settings.han,))


def plain(text: str) -> str:
    """Return a text without case, width, accents of compatibility, punctuation and repeated spaces."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(_TOKEN.findall(folded.casefold()))


def text_key(texts: Iterable[str]) -> int:
    """Equal for captions that are equal as `plain` has them."""
    return int.from_bytes(blake2b("\n".join(map(plain, texts)).encode(), digest_size=8).digest(), "little")


def fault_of(text: str) -> Fault | None:
    """Return the kind of a text that is no caption, such as a file name; None if it may be a caption."""
    text = text[:LOOKED_AT]
    for fault, (hint, found) in FAULTS.items():
        if hint(text) and found(text):
            return fault
    return None
