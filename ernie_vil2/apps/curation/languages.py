"""The language of a caption, by plain rules: its script, and words that only sentences of a language have."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

Language = Literal["zh", "en", "other"]

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA_HANGUL = re.compile("[\u3041-\u3096\u30a1-\u30fa\u1100-\u11ff\uac00-\ud7af]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_OTHER = re.compile("[\u0370-\u1fff\u2c00-\u2dff\ua000-\ua4cf\ua500-\uabff\ufb1d-\ufdff\ufe70-\ufeff]")
_WORD = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+")

ENGLISH = frozenset(
    """the of and is are was were to for with by from on at as an it its his her their this that these those you your
    our my we they he she which who what where when how not no be been has have had will would can could should or but
    if into over under near between after before about above below through during without within against while
    than then there here all more most other some such only own same so too very up down out off again both each
    few any""".split()  # noqa: SIM905  -- words are read as a text
)
FOREIGN = frozenset(
    """der die das und ist nicht ein eine einen einem einer eines mit auf für von zu im dem den des bei aus nach über
    unter sich auch wie oder aber als wir ihr sie es zum zur vom am beim wird werden sind haben hat kein keine
    sehr noch le la les un une des du et est dans pour avec sur par au aux que qui ce cette ces son sa ses leur
    pas plus ou où nous vous ils elle sont être sans sous chez entre vers notre votre el los las una unos unas y
    es en con por para del al lo su sus más pero como muy este esta estos estas ese esa hay ser sin sobre entre
    desde hasta cuando donde nuestro il gli uno di da nel nella dei delle degli della dello che è sono con per tra
    fra alla allo ai agli sul sulla questo questa anche molto più o os as um uma do dos da das no na nos nas em
    com para por que não são é ao aos pelo pela mais seu sua het een van en met op voor zijn niet dat deze dit bij
    naar uit aan ook maar worden onder tussen och att det som på av för är inte ett den med till från om har så
    eller men under mellan og ikke til fra er av det en et på med som den de w z na i do się nie jest że od przez
    dla oraz ten ta to jak po pod przy nad ve bir bu için ile da de çok olan gibi daha ne yang dan di ke dari
    untuk dengan pada adalah ini itu tidak akan atau oleh juga dalam ja ei se on että mutta sekä kuin tai joka
    ovat a az egy és nem hogy van meg csak vagy và của là có một các cho không với được trong""".split()  # noqa: SIM905  -- words are read as a text
) - {*ENGLISH, *"a do den die hat i men o om per pod so tai ten van yang".split()}  # noqa: SIM905  -- words are read as a text
"""Of German, French, Spanish, Italian, Portuguese, Dutch, Swedish, Danish, Polish, Turkish, Indonesian, Finnish,
Hungarian and Vietnamese, without those that are English words as well."""

LOANS = frozenset(
    "café cafés crêpe crêpes déjà décor entrée façade jalapeño jalapeños naïve piña piñata résumé sauté sautéed".split()  # noqa: SIM905  -- words are read as a text
)
"""With accents, and English."""
SHORT = 3  # words of a text in which one word says the language


def language_of(text: str) -> Language:
    """zh, en, or other.

    A text with kana, hangul or a script that neither Chinese nor English is written in is `other`, if that is a tenth
    of its letters or more. Otherwise a Chinese character counts as three Latin letters. Latin letters are English
    unless words of other languages, or words with accents, are more than the English function words among them and
    at least a quarter of all: a single one may be a name, or a dish.
    """
    if text.isascii():  # as most captions are
        return _latin(text)
    han = len(HAN.findall(text))
    latin = len(_LATIN.findall(text))
    strange = len(_KANA_HANGUL.findall(text)) + len(_OTHER.findall(text))
    if strange * 10 >= han + latin + strange and strange:
        return "other"
    if 3 * han >= latin:
        return "zh" if han else "other"
    return _latin(unicodedata.normalize("NFC", text))


def languages_of(texts: Iterable[str]) -> str:
    """The languages of several captions, each once, in alphabetic order: `en zh`."""
    return " ".join(sorted(set(map(language_of, texts))))


def _latin(text: str) -> Language:
    words = [word.casefold() for word in _WORD.findall(text)]
    if not words:
        return "other"
    english = sum(word in ENGLISH for word in words)
    foreign = {word for word in words if word in FOREIGN or not (word.isascii() or word in LOANS)}
    if len(foreign) >= 2 and len(foreign) > english:
        return "other"
    return "other" if foreign and not english and len(words) <= SHORT else "en"
