"""Normal forms and words of captions, and the languages of captions, by script and by function words."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from ernie_vil2.apps.curation.kaomoji import strip_kaomoji

Language = Literal["zh", "en", "other"]

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_KANA = "\u3041-\u3096\u30a1-\u30fa"
_HANGUL = "\u1100-\u11ff\uac00-\ud7af"
_OTHER_SCRIPT = "\u0370-\u1fff\u2c00-\u2dff\ua000-\ua4cf\ua500-\uabff\ufb1d-\ufdff\ufe70-\ufeff"
# A single letter is a symbol or part of a face, so that two in a row count. Hangul and kana next to a Chinese character
# also count alone, and the mark of a long vowel (ー) only behind kana.
_FOREIGN_WORD = re.compile(
    f"[{_KANA}][{_KANA}\u30fc]+|(?<={HAN.pattern})[{_KANA}]|[{_KANA}](?={HAN.pattern})"
    f"|[{_HANGUL}]|[{_OTHER_SCRIPT}]{{2,}}"
)
_WORD = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+")
_UNIT = re.compile(f"{HAN.pattern}|(?:(?!{HAN.pattern})\\w)+")

# Function words, because nouns and names wander between languages, and function words hardly do.
ENGLISH_WORDS = frozenset(
    """the of and is are was were to for with by from on at as an it its his her their this that these those you your
    our my we they he she which who what where when how not no be been has have had will would can could should or but
    if into over under near between after before about above below through during without within against while
    than then there here all more most other some such only own same so too very up down out off again both each
    few any""".split()  # noqa: SIM905  -- words are read as a text
)
FOREIGN_WORDS = frozenset(
    """der die das und ist nicht ein eine einen einem einer eines mit auf für von zu im dem den des bei aus nach über
    unter sich auch wie oder aber als wir ihr sie es zum zur vom am beim wird werden sind haben hat kein keine sehr
    noch unser unsere unseren unserer mein meine meinen meiner ich schon leider etwas wenn le la les un une des du et
    est dans pour avec sur par au aux que qui ce cette ces son sa ses leur pas plus ou où nous vous ils elle sont être
    sans sous chez entre vers notre votre el los las una unos unas y es en con por para del al lo su sus más pero como
    muy este esta estos estas ese esa hay ser sin sobre entre desde hasta cuando donde nuestro il gli uno di da nel
    nella dei delle degli della dello che è sono con per tra fra alla allo ai agli sul sulla questo questa anche molto
    più o os as um uma do dos da das no na nos nas em com para por que não são é ao aos pelo pela mais seu sua het een
    van en met op voor zijn niet dat deze dit bij naar uit aan ook maar worden onder tussen och att det som på av för
    är inte ett den med till från om har så eller men under mellan og ikke til fra er av det en et på med som den de w
    z na i do się nie jest że od przez dla oraz ten ta to jak po pod przy nad ve bir bu için ile da de çok olan gibi
    daha ne yang dan di ke dari untuk dengan pada adalah ini itu tidak akan atau oleh juga dalam ja ei se on että
    mutta sekä kuin tai joka ovat a az egy és nem hogy van meg csak vagy và của là có một các cho không
    với được trong""".split()  # noqa: SIM905  -- words are read as a text
) - {*ENGLISH_WORDS, *"a do den die hat i men o om per pod so tai ten van yang".split()}  # noqa: SIM905  -- words are read as a text
"""Function words of German, French, Spanish, Italian, Portuguese, Dutch, Swedish, Danish, Polish, Turkish, Indonesian,
Finnish, Hungarian and Vietnamese, without those that are English words as well."""

# Words that are neither names nor English. A single one decides where a text has no English function word.
CLEAR_WORDS = frozenset(
    """nicht mit eine einen einem einer eines auf für über unter auch wird werden wurde sind haben nach bei zum zur beim
    dans avec aux cette leur nous vous ils sont être notre votre una unos unas pero muy esta estos estas
    cuando donde desde hasta gli questo questa anche sulla uma não são pelo pela seu sua
    een het voor zijn niet deze dit naar ook maar worden tussen och det som från eller från ikke til efter
    jest oraz przez przy nad dla bir için olan gibi kadar daha untuk dengan pada adalah tidak akan atau oleh juga
    dalam dari mutta sekä ovat joka hogy nem csak của một các những không với được trong mga sinh vào este din pentru
    și nebo jako který jsou koji gdje kako yra dhe""".split()  # noqa: SIM905  -- words are read as a text
)
NAME_WORDS = frozenset("de la le el du del di da do dos van von los las les des der y e".split())  # noqa: SIM905  -- words are read as a text
"""Words that are in names of people and places; two of them do not make a text a foreign one."""
LOANWORDS = frozenset(
    "café cafés crêpe crêpes déjà décor entrée façade jalapeño jalapeños naïve piña piñata résumé sauté sautéed".split()  # noqa: SIM905  -- words are read as a text
)
"""English words with accents."""
_PLACES = re.compile(
    r"\b(?:big sur|el (?:paso|capitan|salvador)|la (?:paz|jolla|la land)|las (?:vegas|palmas)|"
    r"le mans|los (?:angeles|cabos)|mar del plata|punta del este|são paulo|rio de janeiro|leonardo da vinci|"
    r"tour de france|eau de (?:parfum|toilette)|notre dame(?: de paris)?)\b",
    re.IGNORECASE,
)
"""Names and phrases with a foreign word that English captions have."""
# In a caption of up to this many words a single word with accents decides, unless there is an English function word. In
# a longer one it may be a name or a dish.
MAX_SHORT_WORDS = 3


JAPANESE_WORDS = frozenset("駐車場 駐輪場 送料無料 株式会社 会社概要 会社案内 撮影禁止 立入禁止 改札口 待合室".split())  # noqa: SIM905  -- words are read as a text
"""Words that Chinese has other words for, of characters that Chinese has as well."""
# First character of level 2 of JIS X 0208, in Shift-JIS. Level 1 has nearly all characters in daily use; level 2 has
# most of the old forms that were simplified in 1946.
FIRST_RARE_KANJI = b"\x98\x9f"


# Marks that combine with the letter in front of them, and five characters that normalisation turns into such marks.
_MARK = "".join(filter(unicodedata.combining, map(chr, range(0x300, 0x1EA00)))) + "\u0f73\u0f75\u0f81\uff9e\uff9f"
# Marks of a letter behind its thirtieth, the bound of Unicode's Stream-Safe Text Format. Languages need two or three.
_SURPLUS_MARKS = re.compile(f"([{_MARK}]{{30}})[{_MARK}]+")
_MAX_SORTED = 1000  # characters, in which Python sorts any marks within a millisecond


def normalize_text(form: Literal["NFC", "NFKC"], text: str) -> str:
    """Return a normal form of a text, in time in proportion to its length.

    Python sorts the marks of a letter in quadratic time: 100,000 of them would take seconds. In a long text a letter
    keeps thirty.
    """
    if text.isascii():  # a shortcut, as most captions are
        return text
    if len(text) > _MAX_SORTED:
        text = _SURPLUS_MARKS.sub(r"\1", text)
    return unicodedata.normalize(form, text)


def split_units(text: str) -> list[str]:
    """Return the words and Chinese characters of a plain text."""
    return _UNIT.findall(text)


def detect_language(text: str) -> Language:
    """Return the language of a text: zh, en or other.

    A text is `other` if at least a tenth of its letters are kana, hangul or of a script that neither Chinese nor
    English uses, in words and not in faces such as (´･ω･`). Otherwise a Chinese character weighs as much as three Latin
    letters, and Chinese characters that no standard of Chinese has in full are `other`, too. Latin text is English
    unless one of two counts exceeds that of its English function words: that of different foreign words (words of
    other languages or with accents, at least two of them), or that of clear words of other languages. A capitalised
    word with accents is taken for a name, unless most of the words are such words.
    """
    if text.isascii():  # a shortcut: most captions are ASCII, and the patterns below need not look at them
        return _detect_latin_language(text)
    text = strip_kaomoji(text)
    num_han = len(HAN.findall(text))
    num_latin = len(_LATIN.findall(text))
    num_foreign = len("".join(_FOREIGN_WORD.findall(text)).replace("\u30fc", ""))
    if num_foreign and num_foreign * 10 >= num_han + num_latin + num_foreign:
        return "other"
    # Product names are often Latin in Chinese captions, and a Chinese word has fewer characters than an English one.
    if 3 * num_han >= num_latin:
        return "zh" if num_han and not _is_japanese(text) else "other"
    return _detect_latin_language(normalize_text("NFC", text))


def _is_japanese(text: str) -> bool:
    """Return whether a text whose letters are mostly Chinese characters is Japanese.

    Chinese is written in the simplified characters of GB 2312, or in the traditional ones of Big5. Japanese has some of
    both, and some of its own, such as 駅 or 桜. Other Japanese cannot be told from Chinese by its characters.
    """
    characters = "".join(HAN.findall(text))
    if any(word in characters for word in JAPANESE_WORDS):
        return True
    if _fits(characters, "gb2312") or _fits(characters, "big5") or not _fits(characters, "shift_jis"):
        return False
    if not all(_fits(character, "gb2312") or _fits(character, "big5") for character in characters):
        return True
    # The text mixes simplified and traditional characters. Mixed Chinese has some that are rare in Japanese, or the
    # Chinese comma; otherwise it is Japanese.
    is_common = all(character.encode("shift_jis") < FIRST_RARE_KANJI for character in characters)
    return is_common and "，" not in text


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def detect_languages(texts: Iterable[str]) -> str:
    """Return the different languages of several texts, in alphabetic order and separated by spaces: `en zh`."""
    return " ".join(sorted(set(map(detect_language, texts))))


def _detect_latin_language(text: str) -> Language:
    words = _WORD.findall(_PLACES.sub("", text))
    if not words:
        return "en" if _WORD.search(text) else "other"
    is_shouted = text.isupper()
    num_english = num_clear = 0
    foreign_words: set[str] = set()
    accented_names: set[str] = set()
    for word in words:
        folded = word.casefold()
        num_english += folded in ENGLISH_WORDS
        # In a text in mixed case, capitals are short for something: LED, DE, SE.
        is_short_form = word.isupper() and not is_shouted
        if folded in FOREIGN_WORDS:
            if not is_short_form:
                foreign_words.add(folded)
        elif not (word.isascii() or folded in LOANWORDS):  # the word itself: folding turns ß into ss
            (accented_names if word[0].isupper() else foreign_words).add(folded)
        num_clear += folded in CLEAR_WORDS and word.islower()
    if 2 * len(accented_names) > len(words):
        foreign_words |= accented_names

    has_foreign_grammar = len(foreign_words) >= 3 or bool(foreign_words - NAME_WORDS)
    if len(foreign_words) >= 2 and has_foreign_grammar and len(foreign_words) > num_english:
        return "other"
    if num_clear > num_english:
        return "other"
    # Without accents, a word may be a name or an English one: Plus Size Dress, Al Gore, hay bales.
    has_accents = not all(map(str.isascii, foreign_words))
    if has_accents and not num_english and len(words) <= MAX_SHORT_WORDS:
        return "other"
    return "en"
