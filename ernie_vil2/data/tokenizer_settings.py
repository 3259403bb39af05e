"""Settings in a folder's `tokenizer_config.json`, which transformers puts above what `tokenizer.json` says.

Every setting that changes the ids of a text is either followed, or refused with an error that names it.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_vil2.io.files import load_json, parse_json
from ernie_vil2.io.terminal import make_printable

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_SETTINGS = "tokenizer_config.json"

# Settings that have only one value in what is read here, by `Model.text.tokenizer`; other rules read no such file.
_COMMON = {"padding_side": "right", "truncation_side": "right", "split_special_tokens": False}
# NLLB's texts begin with the code of their language; in its older form, which is not read, they end with it.
_OPEN_CLIP = _COMMON | {"legacy_behaviour": False}
_REQUIRED: dict[str, dict[str, Any]] = {
    "bert": _COMMON,
    "clip": _COMMON | {"add_prefix_space": False},
    "xlm_roberta": _COMMON | {"add_prefix_space": True},
    # SigLIP's texts are lowered before they reach the library, see `tokenizer.DIALECTS`.
    "siglip": _COMMON | {"do_lower_case": True},
    "siglip2": _COMMON | {"do_lower_case": True},
    "open_clip_hf": _OPEN_CLIP,
    "open_clip_lower": _OPEN_CLIP,
    "open_clip_canonical": _OPEN_CLIP,
    "open_clip_without_sep": _COMMON,
}

# Settings that name the first and the last token of every text, by `Model.text.tokenizer`.
_START_AND_END = {
    "bert": ("cls_token", "sep_token"),
    "clip": ("bos_token", "eos_token"),
    "xlm_roberta": ("cls_token", "eos_token"),
    "siglip": (None, "eos_token"),
    "siglip2": (None, "eos_token"),
    "open_clip_hf": ("src_lang", None),
    "open_clip_lower": ("src_lang", None),
    "open_clip_canonical": ("src_lang", None),
    "open_clip_without_sep": ("cls_token", "sep_token"),
}

# BERT's normaliser: the setting, and its name in a tokenizer.json.
_NORMALIZER_FIELDS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}

# Limit of the characters that one character of a text becomes. The largest growth in a published tokenizer is 18, by
# Unicode's compatibility forms, times 2 for each of up to three replacements after it; more is an attack on the memory.
MAX_GROWTH = 256

# Limit of the ids that a template puts around a text, where published ones put at most three. A template names an entry
# with ids as often as it likes, so that a file of a megabyte can ask for a billion.
MAX_TEMPLATE_IDS = 10_000

# Maximum number of characters that one character becomes, by the type of a step; other types add none, or are computed
# in `_bound_growth`.
_GROWTHS = {
    "BertNormalizer": 24,  # spaces around a character (3), decomposed (4), lowered (2)
    "ByteLevel": 4,  # one character for each byte
    "Lowercase": 2,  # U+0130
    "Metaspace": 2,
    "NFC": 3,
    "NFD": 4,
    "NFKC": 18,  # U+FDFA
    "NFKD": 18,
}


def read_settings(folder: Path, rules: str) -> dict[str, Any]:
    """Read the settings next to a tokenizer of these rules; {} if there are none.

    Raises:
        ValueError: a setting asks for something that is not supported; the message names it.
    """
    if rules not in _REQUIRED or not (folder / TOKENIZER_SETTINGS).is_file():
        return {}
    settings = load_json(folder / TOKENIZER_SETTINGS)
    if not isinstance(settings, dict):
        raise ValueError(f"{TOKENIZER_SETTINGS}: not a JSON object")
    for key, value in _REQUIRED[rules].items():
        if settings.get(key) not in (None, value):
            raise _setting_error(settings, key, f"only tokenizers with {value!r} are supported")
    return settings


def find_token(settings: dict[str, Any], key: str) -> str | None:
    """Return a special token that settings name, as a text or as an object with its content."""
    token = settings.get(key)
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _setting_error(settings: dict[str, Any], key: str, expected: str) -> ValueError:
    return ValueError(
        f"{TOKENIZER_SETTINGS}: {key} is {make_printable(repr(settings.get(key)), max_length=60)}; {expected}"
    )


def apply_bert_settings(content: str, settings: dict[str, Any]) -> str:
    """Return a `tokenizer.json` whose normaliser treats case, accents and Chinese characters as the settings say.

    A setting that is missing has BERT's default, whatever the file says, because transformers does so.

    Args:
        content: text of the `tokenizer.json`.
        settings: result of `read_settings`.

    Raises:
        ValueError: a setting has another type, or the file has a normaliser to which it does not apply.
    """
    values = {
        "do_lower_case": settings.get("do_lower_case", True),
        "strip_accents": settings.get("strip_accents"),  # None: as do_lower_case
        "tokenize_chinese_chars": settings.get("tokenize_chinese_chars", True),
    }
    for key, value in values.items():
        is_default_accents = key == "strip_accents" and value is None
        if type(value) is not bool and not is_default_accents:
            raise _setting_error(settings, key, "true or false is expected")

    tokenizer = parse_json(content)
    normalizer = tokenizer.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        for key in values:
            if settings.get(key) is not None:
                raise _setting_error(settings, key, "tokenizer.json has a normaliser to which it does not apply")
        return content
    for key, value in values.items():
        normalizer[_NORMALIZER_FIELDS[key]] = value
    return json.dumps(tokenizer, ensure_ascii=False)


def find_missing_tokens(library: tokenizers.Tokenizer, settings: dict[str, Any]) -> list[tokenizers.AddedToken]:
    """Return the added tokens of settings that `tokenizer.json` does not declare as such.

    The library searches a text for added tokens before it splits the text. An added token beyond the vocabulary is left
    out: it has no row in the weights, so no text can contain it.

    Args:
        library: tokenizer that was made from the `tokenizer.json`.
        settings: result of `read_settings`.

    Raises:
        ValueError: a token is malformed, or has another id in the vocabulary.
    """
    from tokenizers import AddedToken

    added = settings.get("added_tokens_decoder") or {}
    if not isinstance(added, dict):
        raise _setting_error(settings, "added_tokens_decoder", "an object is expected")
    declared = {token.content for token in library.get_added_tokens_decoder().values()}
    missing_tokens, vocab_size = [], library.get_vocab_size()
    for number, token in added.items():
        text = token.get("content") if isinstance(token, dict) else None
        if not isinstance(text, str) or not number.isdecimal():
            raise _setting_error(settings, "added_tokens_decoder", "an object of ids and tokens is expected")
        token_id = library.token_to_id(text)
        if token_id is None and int(number) >= vocab_size:
            continue
        if token_id != int(number):
            problem = "is not in the vocabulary" if token_id is None else f"has the id {token_id}"
            quoted = make_printable(repr(text), max_length=60)
            raise ValueError(
                f"{TOKENIZER_SETTINGS}: added_tokens_decoder gives {quoted} the id {int(number)}, but that token "
                f"{problem}"
            )
        if text not in declared:
            flags = {key: token.get(key) is True for key in ("lstrip", "rstrip", "normalized", "single_word")}
            missing_tokens.append(AddedToken(text, special=token.get("special") is True, **flags))
    return missing_tokens


def check_special_tokens(library: tokenizers.Tokenizer, settings: dict[str, Any], rules: str) -> None:
    """Raise ValueError if settings and tokenizer disagree on the tokens around a text or for unknown words."""
    ids = library.encode("").ids
    start_key, end_key = _START_AND_END.get(rules, (None, None))
    # The tokens around every text.
    for key, position in ((start_key, 0), (end_key, -1)):
        if key is None:
            continue
        name = find_token(settings, key)
        if not name:
            continue
        if not ids:
            raise _setting_error(settings, key, "the tokenizer puts nothing there")
        if library.token_to_id(name) != ids[position]:
            token = make_printable(repr(library.id_to_token(ids[position])), max_length=60)
            raise _setting_error(settings, key, f"the tokenizer puts {token} there")

    # Whether there are such tokens at all.
    for key, name_key in (("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")):
        name = find_token(settings, name_key)
        if not name or type(settings.get(key)) is not bool:
            continue
        token_id = library.token_to_id(name)
        if token_id is not None:
            if settings[key] and token_id not in ids:
                raise _setting_error(settings, key, "the tokenizer does not add that token")
            if not settings[key] and token_id in ids:
                raise _setting_error(settings, key, "the tokenizer adds that token")

    unknown_token, library_token = find_token(settings, "unk_token"), getattr(library.model, "unk_token", None)
    if rules == "bert" and unknown_token and unknown_token != library_token:
        raise _setting_error(
            settings, "unk_token", f"the tokenizer has {make_printable(repr(library_token), max_length=60)}"
        )


def check_growth(settings: dict[str, Any]) -> None:
    """Check that a `tokenizer.json` does not make a text far longer.

    The library runs all steps before anyone sees the length: forty steps that each double a text would fill the memory.
    So the growth is bounded from the file, before a text is encoded.

    Raises:
        ValueError: the steps before the vocabulary may make a text more than `MAX_GROWTH` times as long, or the step
            behind it repeats the text or adds more than `MAX_TEMPLATE_IDS` ids.
    """
    for key in ("normalizer", "pre_tokenizer"):
        growth = _bound_growth(settings.get(key))
        if growth > MAX_GROWTH:
            raise ValueError(f"its {key} may make a text {growth:.3g} times as long; at most {MAX_GROWTH} are read")
    try:
        num_ids = _count_template_ids(settings.get("post_processor"))
    except (KeyError, TypeError, AttributeError):
        return  # the library will say what is wrong with the template
    if num_ids > MAX_TEMPLATE_IDS:
        raise ValueError(f"its post_processor adds {num_ids:,} ids to a text; at most {MAX_TEMPLATE_IDS:,} are read")


def _count_template_ids(processor: Any) -> int:
    """Return the number of ids that the templates of a post-processor add to a text.

    Raises:
        ValueError: a template has the text several times.
    """
    if not isinstance(processor, dict):
        return 0
    if processor.get("type") == "Sequence":
        return sum(map(_count_template_ids, processor.get("processors") or ()))
    if processor.get("type") != "TemplateProcessing":
        return 0
    num_ids = num_texts = 0
    special_tokens = processor.get("special_tokens") or {}
    for entry in processor.get("single") or ():
        if "SpecialToken" in entry:
            num_ids += len(special_tokens[entry["SpecialToken"]["id"]]["ids"])
        else:
            num_texts += 1
    if num_texts > 1:
        raise ValueError(f"its post_processor repeats a text {num_texts} times; it is read once")
    return num_ids


def _bound_growth(step: Any) -> float:
    """Return an upper bound of the characters that one character becomes by a step, or by a sequence of steps."""
    if not isinstance(step, dict):
        return 1
    kind = step.get("type")
    if kind == "Sequence":
        growth = 1.0
        for inner_step in step.get("normalizers") or step.get("pretokenizers") or ():
            growth = min(growth * _bound_growth(inner_step), 1e12)  # far above the limit, and no overflow
        return growth
    if kind == "Replace":
        pattern, content = step.get("pattern"), str(step.get("content", ""))
        text = pattern.get("String") if isinstance(pattern, dict) else None
        if isinstance(text, str) and text:
            return max(1, len(content) / len(text))
        # A regular expression may match each character, and also the empty text between two characters.
        return 1 + len(content)
    if kind == "Prepend":
        return 1 + len(str(step.get("prepend", "")))
    if kind == "Precompiled":
        return _longest_replacement(step.get("precompiled_charsmap"))
    return _GROWTHS.get(str(kind), 1)


def _longest_replacement(table: Any) -> float:
    """Return the length of the longest text in a sentencepiece model's table of characters.

    The table is the size of a trie in bytes, the trie, and the texts, each ending with a zero.
    """
    try:
        data = base64.b64decode(table) if isinstance(table, str) else bytes(table or ())
        (size,) = struct.unpack_from("<I", data)
    except (binascii.Error, struct.error, TypeError, ValueError):
        return 1  # the library will say what is wrong with the table
    return max(len(text) for text in data[4 + size :].split(b"\0")) or 1
