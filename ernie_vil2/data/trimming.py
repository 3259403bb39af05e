"""Vocabularies reduced to what some texts use, so that these texts have the same tokens as before.

The remaining rows keep their order. So the end token keeps the largest id, where a model finds it by that.
"""

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ernie_vil2.data.sentencepiece import remove_pieces
from ernie_vil2.data.tokenizer import LibraryTokenizer, TextTokenizer, WordPieceTokenizer
from ernie_vil2.data.tokenizer_files import MAX_CHARACTERS, byte_characters
from ernie_vil2.io.files import load_json, parse_json, read_text, write_json, write_text
from ernie_vil2.io.run_folder import TOKENIZER, VOCABULARY

# Characters of texts, as hexadecimal ranges of code points without their ends. The common ones, which texts in all
# languages have, are ASCII, punctuation, symbols and emoji.
_COMMON = "20-7F A0-C0 2000-2070 20A0-20D0 2100-2150 2190-2800 FE0F-FE10 1F300-1FB00"
_LATIN, _HAN = "C0-180", "2E80-3040 3100-3130 3190-A000 F900-FB00 FE10-FE70 FF00-10000 20000-32000"
LANGUAGES = {
    "zh": _HAN,
    "en": _LATIN,
    "ja": f"{_HAN} 3040-3100",
    "ko": f"{_HAN} 1100-1200 3130-3190 AC00-D7B0",
    "ru": "400-530",
    "ar": "600-700 750-780",
    "hi": "900-980",
    "th": "E00-E80",
    **dict.fromkeys(("de", "es", "fr", "it", "pt"), _LATIN),
}

_SPACE = "\u2581"  # how sentencepiece writes a space
_VOCAB_JSON, _MERGES = "vocab.json", "merges.txt"


def list_characters(languages: Iterable[str]) -> set[str]:
    """Return the characters of texts in these languages; ValueError if a language is unknown."""
    ranges = _COMMON.split()
    for language in languages:
        if language not in LANGUAGES:
            raise ValueError(f"--keep {language}: known are {', '.join(LANGUAGES)}; for others give --texts FILE")
        ranges += LANGUAGES[language].split()
    characters = set("\t\n\r")
    for code_points in ranges:
        first, _, end = code_points.partition("-")
        characters.update(map(chr, range(int(first, 16), int(end, 16))))
    return characters


def find_ids_of_characters(tokenizer: TextTokenizer, characters: set[str]) -> list[int]:
    """Return all ids that texts of these characters can have, in order, with the ids that every text may have."""
    if isinstance(tokenizer, WordPieceTokenizer):
        # Words are lowered and decomposed before they are looked up; composed forms remain as well.
        normalized = set[str]()
        for character in characters:
            lowered = character.lower()
            normalized.update(unicodedata.normalize("NFD", lowered) + lowered)
        return sorted(_find_ids_within(tokenizer, normalized) | _find_permanent_ids(tokenizer))

    settings = parse_json(tokenizer.files()["tokenizer.json"])
    normalized = {_SPACE}
    for character in characters:
        normalized.update(tokenizer.normalize(character))  # type: ignore[attr-defined]
    if _is_byte_level(settings):
        can_occur = _match_byte_tokens(normalized)
        ids = {token_id for token_id, token in enumerate(tokenizer.tokens) if can_occur(token)}
    else:
        ids = _find_ids_within(tokenizer, normalized)
    return sorted(ids | _find_permanent_ids(tokenizer, settings))


def _find_ids_within(tokenizer: TextTokenizer, characters: set[str]) -> set[int]:
    """Return the ids of tokens that consist of these characters; "##" marks a piece inside a word."""
    ids = set()
    for token_id, token in enumerate(tokenizer.tokens):
        if set(token.removeprefix("##")) <= characters:
            ids.add(token_id)
    return ids


def find_ids_of_texts(tokenizer: TextTokenizer, texts: Iterable[str]) -> list[int]:
    """Return the ids of these texts, in order, with the ids that every text may have.

    For byte pairs, the tokens that merge into these tokens are included.
    """
    ids: set[int] = set()
    for text in texts:
        ids.update(tokenizer.encode(text))
    if isinstance(tokenizer, WordPieceTokenizer):
        return sorted(ids | _find_permanent_ids(tokenizer))
    settings = parse_json(tokenizer.files()["tokenizer.json"])
    if settings["model"]["type"] == "BPE":
        ids |= _find_merged_ids(settings["model"], {tokenizer.tokens[number] for number in ids})
    return sorted(ids | _find_permanent_ids(tokenizer, settings))


def trim_tokenizer(tokenizer: TextTokenizer, ids: list[int]) -> TextTokenizer:
    """Return a tokenizer with only the tokens of these ids, in their order."""
    if isinstance(tokenizer, WordPieceTokenizer):
        tokens = [tokenizer.tokens[number] for number in ids]
        return WordPieceTokenizer(tokens, tokenizer.max_length, tokenizer.rules)  # type: ignore[arg-type]
    settings = parse_json(tokenizer.files()["tokenizer.json"])
    _renumber(settings, {old_id: new_id for new_id, old_id in enumerate(ids)})
    content = json.dumps(settings, ensure_ascii=False)
    return LibraryTokenizer(content, tokenizer.max_length, tokenizer.rules)


def trim_files(folder: Path, new_ids: Mapping[int, int], rules: str) -> None:
    """Trim the tokenizer's files in a folder, which its authors' code reads.

    Args:
        folder: folder of the files, which are overwritten.
        new_ids: new id of each old id that remains, in order.
        rules: the tokenizer's rules, as in `Model.text.tokenizer`.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a file is damaged.
    """
    vocab: dict[str, int] = {}
    if (folder / _VOCAB_JSON).is_file():
        vocab = load_json(folder / _VOCAB_JSON)
    remaining_vocab = {token: new_ids[old_id] for token, old_id in vocab.items() if old_id in new_ids}

    for path in sorted(folder.iterdir()):
        if path.name == VOCABULARY:
            lines = read_text(path).removesuffix("\n").split("\n")
            # Tokens that tokenizer.json adds to the vocabulary have larger ids.
            remaining_lines = [lines[old_id] for old_id in new_ids if old_id < len(lines)]
            write_text(path, "".join(f"{line}\n" for line in remaining_lines))
        elif path.name == TOKENIZER:
            settings = load_json(path, MAX_CHARACTERS)
            _renumber(settings, new_ids)
            write_text(path, json.dumps(settings, ensure_ascii=False))
        elif path.name == _VOCAB_JSON:
            write_json(path, remaining_vocab)
        elif path.name == _MERGES:
            _trim_merges(path, remaining_vocab)
        elif path.suffix == ".model":
            path.write_bytes(remove_pieces(path.read_bytes(), new_ids, rules))
        elif path.name == "tokenizer_config.json":
            settings = load_json(path)
            if settings.get("added_tokens_decoder"):
                added_tokens = {}
                for old_id, token in settings["added_tokens_decoder"].items():
                    if int(old_id) in new_ids:
                        added_tokens[str(new_ids[int(old_id)])] = token
                settings["added_tokens_decoder"] = added_tokens
            write_json(path, settings, indent=2)


def _trim_merges(path: Path, vocab: Mapping[str, int]) -> None:
    """Keep the merges of a `merges.txt` whose tokens remain in the vocabulary, and its line with a version."""
    remaining_lines: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line and not line.startswith("#version"):
            pair = line.split(" ")
            if len(pair) != 2:
                raise ValueError(f"{path}, line {number}: not a merge, which is two tokens; copy the file again")
            if not {*pair, "".join(pair)} <= vocab.keys():
                continue
        remaining_lines.append(line)
    write_text(path, "\n".join(remaining_lines))


class MissingTokens(NamedTuple):
    """Counts of the tokens of some texts that a trimmed vocabulary lacks."""

    num_tokens: int
    num_missing: int
    num_texts: int
    num_texts_with_missing: int  # texts with at least one missing token


def count_missing_tokens(tokenizer: TextTokenizer, ids: Iterable[int], texts: Iterable[str]) -> MissingTokens:
    """Count the tokens of texts that a vocabulary trimmed to `ids` lacks.

    Args:
        tokenizer: the tokenizer before it is trimmed.
        ids: ids that remain.
        texts: texts that were not used to choose them.
    """
    is_remaining = np.zeros(tokenizer.vocab_size, bool)
    is_remaining[list(ids)] = True
    num_tokens = num_missing = num_texts = num_texts_with_missing = 0
    for text in texts:
        text_ids = tokenizer.encode(text)
        num_missing_here = int((~is_remaining[text_ids]).sum())
        num_tokens += len(text_ids)
        num_missing += num_missing_here
        num_texts += 1
        num_texts_with_missing += num_missing_here > 0
    return MissingTokens(num_tokens, num_missing, num_texts, num_texts_with_missing)


def _find_permanent_ids(tokenizer: TextTokenizer, settings: Mapping[str, Any] | None = None) -> set[int]:
    """Return the ids that no vocabulary may lack.

    Special tokens, bytes, and the piece with the lowest score have such ids; sentencepiece computes the score of
    unknown characters from that piece.
    """
    ids_of_tokens = {token: token_id for token_id, token in enumerate(tokenizer.tokens)}
    ids = {tokenizer.pad_id, *tokenizer.encode("")}
    if tokenizer.unknown_id is not None:
        ids.add(tokenizer.unknown_id)
    if settings is None:
        if "[MASK]" in ids_of_tokens:
            ids.add(ids_of_tokens["[MASK]"])
        return ids

    ids |= {token["id"] for token in settings.get("added_tokens", ())}
    # sentencepiece writes bytes as <0x00> to <0xFF>.
    ids |= {token_id for token, token_id in ids_of_tokens.items() if token.startswith("<0x") and len(token) == 6}
    if _is_byte_level(settings):
        for character in byte_characters():
            for token in (character, f"{character}</w>"):
                if token in ids_of_tokens:
                    ids.add(ids_of_tokens[token])
    model = settings["model"]
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        ids.add(scores.index(min(scores)))
    return ids


def _is_byte_level(settings: Mapping[str, Any]) -> bool:
    return "ByteLevel" in json.dumps(settings.get("pre_tokenizer"))


def _match_byte_tokens(characters: set[str]) -> Callable[[str], bool]:
    """Return a function that says whether a token of bytes can occur in texts of these characters.

    Such a token may begin and end inside a character: it is the end of a character, whole characters, and the start of
    a character, or lies inside a single one.
    """
    byte_of_character = byte_characters()
    starts, ends, middles = set[bytes](), set[bytes](), set[bytes]()
    for character in characters:
        if "\ud800" <= character <= "\udfff":  # a lone surrogate, which UTF-8 does not have
            continue
        encoded = character.encode()
        for first in range(1, len(encoded)):
            starts.add(encoded[:first])
            ends.add(encoded[first:])
            middles.update(encoded[first:last] for last in range(first + 1, len(encoded)))

    def can_occur(token: str) -> bool:
        try:
            data = bytes(byte_of_character[character] for character in token.removesuffix("</w>"))
        except KeyError:
            return False
        if data in middles:
            return True
        # UTF-8 has at most four bytes a character, so at most three of one that is cut.
        for head_length in range(min(4, len(data) + 1)):
            if head_length and data[:head_length] not in ends:
                continue
            for tail_length in range(min(4, len(data) - head_length + 1)):
                whole_end = len(data) - tail_length
                if tail_length and data[whole_end:] not in starts:
                    continue
                try:
                    whole_characters = data[head_length:whole_end].decode()
                except UnicodeDecodeError:
                    continue
                if set(whole_characters) <= characters:
                    return True
        return False

    return can_occur


def _split_merge(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _find_merged_ids(model: Mapping[str, Any], tokens: set[str]) -> set[int]:
    """Return the ids of all tokens that occur while characters are merged to these tokens, themselves included."""
    ranks = {_split_merge(merge): rank for rank, merge in enumerate(model["merges"])}
    vocab, word_end = model["vocab"], model.get("end_of_word_suffix") or ""
    seen: set[str] = set()
    for token in tokens:
        symbols = list(token.removesuffix(word_end)) if word_end else list(token)
        if word_end and token.endswith(word_end) and symbols:
            symbols[-1] += word_end
        # Apply the merge that comes first in the file, as BPE does, until none applies.
        while len(symbols) > 1:
            seen.update(symbols)
            pairs = list(pairwise(symbols))
            best_pair = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best_pair not in ranks:
                break
            position = pairs.index(best_pair)
            symbols[position : position + 2] = ["".join(best_pair)]
        seen.update(symbols)
    return {vocab[symbol] for symbol in seen if symbol in vocab}


def _renumber(settings: dict[str, Any], new_ids: Mapping[int, int]) -> None:
    """Reduce a `tokenizer.json` to the ids that remain, in place."""
    model = settings["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [piece for old_id, piece in enumerate(model["vocab"]) if old_id in new_ids]
        if model.get("unk_id") is not None:
            model["unk_id"] = new_ids[model["unk_id"]]
    else:
        model["vocab"] = {token: new_ids[old_id] for token, old_id in model["vocab"].items() if old_id in new_ids}
    if "merges" in model:
        merges = []
        for merge in model["merges"]:
            left, right = _split_merge(merge)
            if {left, right, left + right} <= model["vocab"].keys():
                merges.append(merge)
        model["merges"] = merges
    for token in settings.get("added_tokens", ()):
        token["id"] = new_ids[token["id"]]
    if settings.get("padding"):
        settings["padding"]["pad_id"] = new_ids[settings["padding"]["pad_id"]]
    _renumber_processor(settings.get("post_processor") or {}, new_ids)


def _renumber_processor(processor: dict[str, Any], new_ids: Mapping[int, int]) -> None:
    for special_token in processor.get("special_tokens", {}).values():
        special_token["ids"] = [new_ids[old_id] for old_id in special_token["ids"]]
    for key in ("sep", "cls"):
        if key in processor:
            processor[key][1] = new_ids[processor[key][1]]
    for inner_processor in processor.get("processors", ()):
        _renumber_processor(inner_processor, new_ids)
