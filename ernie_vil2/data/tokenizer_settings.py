"""Settings of a folder's `tokenizer_config.json`: each that changes a text's ids is followed, or refused by its name.

The tokenizers of transformers read them over what `tokenizer.json` says.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_vil2.io.files import load_json, parse_json
from ernie_vil2.io.terminal import printable

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer_config.json"
_COMMON = {"padding_side": "right", "truncation_side": "right", "split_special_tokens": False}
# SigLIP's texts are lowered by the code around their vocabulary, see `tokenizer_files.DIALECTS`.
_FACTS: dict[str, dict[str, Any]] = {
    "bert": _COMMON,
    "clip": _COMMON | {"add_prefix_space": False},
    "xlm_roberta": _COMMON | {"add_prefix_space": True},
    "siglip": _COMMON | {"do_lower_case": True},
    "siglip2": _COMMON | {"do_lower_case": True},
    "open_clip_hf": _COMMON,
    "open_clip_lower": _COMMON,
    "open_clip_canonical": _COMMON,
}
"""By `Model.text.tokenizer` the settings that have one value here. The other rules read no such file."""
_AROUND = {
    "bert": ("cls_token", "sep_token"),
    "clip": ("bos_token", "eos_token"),
    "xlm_roberta": ("cls_token", "eos_token"),
    "siglip": (None, "eos_token"),
    "siglip2": (None, "eos_token"),
}
"""Likewise the settings that name the first and the last token of a text."""
MAX_GROWTH = 256
"""Characters that one character of a text may become. The largest growth in a published tokenizer is 18, of Unicode's
compatibility forms, times 2 for each of up to three replacements after it; more is an attack on memory."""
_GROWTHS = {
    "BertNormalizer": 24,  # spaces around a character (3), decomposed (4), lowered (2)
    "ByteLevel": 4,  # a character for each byte
    "Lowercase": 2,  # U+0130
    "Metaspace": 2,
    "NFC": 3,
    "NFD": 4,
    "NFKC": 18,  # U+FDFA
    "NFKD": 18,
}
"""Most characters that a character becomes, by the type of a step; other types add none, or are computed below."""


def read_settings(folder: Path, rules: str) -> dict[str, Any]:
    """Read the settings that lie next to a tokenizer of these rules; there may be none.

    Raises:
        ValueError: a setting asks for what is not done here; the message names it.
    """
    if rules not in _FACTS or not (folder / FILE).is_file():
        return {}
    settings = load_json(folder / FILE)
    if not isinstance(settings, dict):
        raise ValueError(f"{FILE}: not a JSON object")
    for key, expected in _FACTS[rules].items():
        if settings.get(key) not in (None, expected):
            raise _refusal(settings, key, f"only tokenizers with {expected!r} are read")
    return settings


def token_name(settings: dict[str, Any], key: str) -> str | None:
    """Return a special token that settings name, as a text or as an object with its content."""
    token = settings.get(key)
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _refusal(settings: dict[str, Any], key: str, expected: str) -> ValueError:
    return ValueError(f"{FILE}: {key} is {printable(repr(settings.get(key)), longest=60)}; {expected}")


def follow_normalizer(content: str, settings: dict[str, Any]) -> str:
    """Set how BERT's normaliser treats case, accents and Chinese characters in a `tokenizer.json`.

    What the settings leave out is BERT's default, whatever the file says.
    """
    values = {
        "lowercase": settings.get("do_lower_case", True),
        "strip_accents": settings.get("strip_accents"),  # None: where the case is lowered
        "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
    }
    for key, value in zip(("do_lower_case", "strip_accents", "tokenize_chinese_chars"), values.values(), strict=True):
        if type(value) is not bool and not (key == "strip_accents" and value is None):
            raise _refusal(settings, key, "true or false is expected")
    tokenizer = parse_json(content)
    normalizer = tokenizer.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
            if settings.get(key) is not None:
                raise _refusal(settings, key, "tokenizer.json has a normaliser to which it does not apply")
        return content
    tokenizer["normalizer"] = normalizer | values
    return json.dumps(tokenizer, ensure_ascii=False)


def missing_tokens(library: tokenizers.Tokenizer, settings: dict[str, Any]) -> list[tokenizers.AddedToken]:
    """Return tokens that a text is searched for before it is split, where `tokenizer.json` does not know them as such.

    One beyond the vocabulary has no row in the weights, so that no text can have it.
    """
    from tokenizers import AddedToken

    added = settings.get("added_tokens_decoder") or {}
    if not isinstance(added, dict):
        raise _refusal(settings, "added_tokens_decoder", "an object is expected")
    added_tokens = {token.content for token in library.get_added_tokens_decoder().values()}
    tokens, size = [], library.get_vocab_size()
    for number, token in added.items():
        text = token.get("content") if isinstance(token, dict) else None
        if not isinstance(text, str) or not number.isdecimal():
            raise _refusal(settings, "added_tokens_decoder", "an object of ids and tokens is expected")
        token_id = library.token_to_id(text)
        if token_id is None and int(number) >= size:
            continue
        if token_id != int(number):
            where = "is not in the vocabulary" if token_id is None else f"has the id {token_id}"
            shown = printable(repr(text), longest=60)
            raise ValueError(f"{FILE}: added_tokens_decoder gives {shown} the id {int(number)}, but that token {where}")
        if text not in added_tokens:
            flags = {key: token.get(key) is True for key in ("lstrip", "rstrip", "normalized", "single_word")}
            tokens.append(AddedToken(text, special=token.get("special") is True, **flags))
    return tokens


def check_special_tokens(library: tokenizers.Tokenizer, settings: dict[str, Any], rules: str) -> None:
    """Raise ValueError if settings name other tokens around a text, or for unknown words, than the tokenizer has."""
    ids = library.encode("").ids
    first, last = _AROUND.get(rules, (None, None))
    for key, position in ((first, 0), (last, -1)):
        name = token_name(settings, key) if key else None
        if key and name and (not ids or library.token_to_id(name) != ids[position]):
            written_token = printable(repr(library.id_to_token(ids[position])), longest=60) if ids else "nothing"
            raise _refusal(settings, key, f"the tokenizer puts {written_token} there")
    for key, name_key in (("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")):
        name = token_name(settings, name_key)
        number = library.token_to_id(name) if name else None
        if number is not None and type(settings.get(key)) is bool and settings[key] != (number in ids):
            raise _refusal(settings, key, f"the tokenizer {'adds' if number in ids else 'does not add'} that token")
    unknown_token, library_token = token_name(settings, "unk_token"), getattr(library.model, "unk_token", None)
    if rules == "bert" and unknown_token and unknown_token != library_token:
        raise _refusal(settings, "unk_token", f"the tokenizer has {printable(repr(library_token), longest=60)}")


def check_growth(settings: dict[str, Any]) -> None:
    """Raise ValueError if the steps before the vocabulary may make a text more than `MAX_GROWTH` times as long.

    The library runs all of them before anyone sees the length: forty steps that each double a text would take all
    memory. So their growth is bounded by what the file says, before any text is read.
    """
    for key in ("normalizer", "pre_tokenizer"):
        growth = _growth(settings.get(key))
        if growth > MAX_GROWTH:
            raise ValueError(f"its {key} may make a text {growth:.3g} times as long; at most {MAX_GROWTH} are read")


def _growth(step: Any) -> float:
    """Bound the characters that a character becomes by a step of a `tokenizer.json`, or by a sequence of them."""
    if not isinstance(step, dict):
        return 1
    kind = step.get("type")
    if kind == "Sequence":
        growth = 1.0
        for inner in step.get("normalizers") or step.get("pretokenizers") or ():
            growth = min(growth * _growth(inner), 1e12)
        return growth
    if kind == "Replace":
        return _growth_of_replacement(step)
    if kind == "Prepend":
        return 1 + len(str(step.get("prepend", "")))
    if kind == "Precompiled":
        return _longest_replacement(step.get("precompiled_charsmap"))
    return _GROWTHS.get(str(kind), 1)


def _growth_of_replacement(step: dict[str, Any]) -> float:
    pattern, content = step.get("pattern"), str(step.get("content", ""))
    text = pattern.get("String") if isinstance(pattern, dict) else None
    if isinstance(text, str) and text:
        return max(1, len(content) / len(text))
    # An expression may match one character, and also between two characters.
    return 1 + len(content)


def _longest_replacement(table: Any) -> float:
    """Return the length of the longest text in a sentencepiece model's table of characters.

    The table is the size of a trie in bytes, the trie, and the texts, each of which ends with a zero.
    """
    try:
        data = base64.b64decode(table) if isinstance(table, str) else bytes(table or ())
        (size,) = struct.unpack_from("<I", data)
    except (binascii.Error, struct.error, TypeError, ValueError):
        return 1  # the library says what is wrong with it
    return max(len(text) for text in data[4 + size :].split(b"\0")) or 1
