"""A vocabulary cut down to what some texts use, such that the ids of these texts stay the same tokens.

The rows that stay keep their order, so that the end token keeps the largest id where a model looks for that.
"""

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.data.sentencepiece import remove_pieces
from ernie_vil2.data.tokenizer import TextTokenizer, Tokenizer
from ernie_vil2.data.tokenizer_files import MAX_CHARACTERS, LibraryTokenizer, byte_characters
from ernie_vil2.io.files import load_json, parse_json, read_text, write_json, write_text
from ernie_vil2.io.run_folder import TOKENIZER, VOCABULARY

# Characters of texts as ranges of code points, without their ends. All texts have ASCII, symbols and emoji.
_SHARED = "20-7F A0-C0 2000-2070 20A0-20D0 2100-2150 2190-2800 FE0F-FE10 1F300-1FB00"
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
_SPACE = "\u2581"
_PAIRS = "vocab.json", "merges.txt"


def characters(languages: Iterable[str]) -> set[str]:
    """The characters of texts in these languages; ValueError if one is not known."""
    ranges = _SHARED.split()
    for language in languages:
        if language not in LANGUAGES:
            raise ValueError(f"--keep {language}: known are {', '.join(LANGUAGES)}; for others give --texts FILE")
        ranges += LANGUAGES[language].split()
    codes = (range(*(int(end, 16) for end in ends.split("-"))) for ends in ranges)
    return set(map(chr, chain.from_iterable(codes))) | set("\t\n\r")


def kept_of_characters(tokenizer: TextTokenizer, allowed: set[str]) -> list[int]:
    """The ids that any text of these characters can have, in order, with those that every text may have."""
    if isinstance(tokenizer, Tokenizer):
        normal = {piece for one in allowed for piece in unicodedata.normalize("NFD", one.lower()) + one.lower()}
        kept = {number for number, token in enumerate(tokenizer.tokens) if set(token.removeprefix("##")) <= normal}
        return sorted(kept | _always(tokenizer))
    settings = parse_json(tokenizer.files()["tokenizer.json"])
    normal = {piece for one in allowed for piece in tokenizer.normalized(one)} | {_SPACE}  # type: ignore[attr-defined]
    fits = _bytes_of(normal) if _of_bytes(settings) else (lambda token: set(token.removeprefix("##")) <= normal)
    kept = {number for number, token in enumerate(tokenizer.tokens) if fits(token)}
    return sorted(kept | _always(tokenizer, settings))


def kept_of_texts(tokenizer: TextTokenizer, texts: Iterable[str]) -> list[int]:
    """The ids that these texts have, in order, with those that every text may have, and of byte pairs those that become
    them."""
    used = {number for text in texts for number in tokenizer.encode(text)}
    if isinstance(tokenizer, Tokenizer):
        return sorted(used | _always(tokenizer))
    settings = parse_json(tokenizer.files()["tokenizer.json"])
    if settings["model"]["type"] == "BPE":
        used |= _parts(settings["model"], {tokenizer.tokens[number] for number in used})
    return sorted(used | _always(tokenizer, settings))


def trimmed(tokenizer: TextTokenizer, kept: list[int]) -> TextTokenizer:
    """The tokenizer with the rows `kept` alone, in their order."""
    tokens = [tokenizer.tokens[number] for number in kept]
    if isinstance(tokenizer, Tokenizer):
        return Tokenizer(tokens, tokenizer.max_length, tokenizer.rules)  # type: ignore[arg-type]
    settings = parse_json(tokenizer.files()["tokenizer.json"])
    _renumber(settings, {number: position for position, number in enumerate(kept)})
    content = json.dumps(settings, ensure_ascii=False)
    return LibraryTokenizer(content, tokenizer.max_length, tokenizer.rules)


def trim_files(folder: Path, positions: Mapping[int, int], rules: str) -> None:
    """Cuts the tokenizer in a folder down, in the files of its own that the authors' code reads.

    Args:
        positions: the new id of each old one that stays.
        rules: of the tokenizer, as `Model.text.tokenizer`.
    """
    known: dict[str, int] = load_json(folder / _PAIRS[0]) if (folder / _PAIRS[0]).is_file() else {}
    stay = {token for token, number in known.items() if number in positions}
    for path in sorted(folder.iterdir()):
        if path.name == VOCABULARY:
            lines = read_text(path).removesuffix("\n").split("\n")
            write_text(path, "".join(f"{lines[number]}\n" for number in positions))
        elif path.name == TOKENIZER:
            settings = load_json(path, MAX_CHARACTERS)
            _renumber(settings, positions)
            write_text(path, json.dumps(settings, ensure_ascii=False))
        elif path.name == _PAIRS[0]:
            write_json(path, {token: positions[known[token]] for token in known if token in stay})
        elif path.name == _PAIRS[1]:
            head, *lines = read_text(path).split("\n")  # the first says their version
            lines = [line for line in lines if not line or {*_pair(line), line.replace(" ", "")} <= stay]
            write_text(path, "\n".join([head, *lines]))
        elif path.suffix == ".model":
            path.write_bytes(remove_pieces(path.read_bytes(), positions, rules))
        elif path.name == "tokenizer_config.json":
            settings = load_json(path)
            added = {int(number): token for number, token in settings.get("added_tokens_decoder", {}).items()}
            moved = {str(positions[number]): token for number, token in added.items() if number in positions}
            write_json(path, settings | ({"added_tokens_decoder": moved} if added else {}), indent=2)


def missing_share(tokenizer: TextTokenizer, kept: Iterable[int], texts: Iterable[str]) -> tuple[int, int, int, int]:
    """Of other texts the tokens and how many of them are not kept, and the texts and how many have one of these."""
    stays = np.zeros(tokenizer.vocab_size, bool)
    stays[list(kept)] = True
    lost = [(len(ids), int((~stays[ids]).sum())) for ids in map(tokenizer.encode, texts)]
    return sum(count for count, _ in lost), sum(gone for _, gone in lost), len(lost), sum(gone > 0 for _, gone in lost)


def _always(tokenizer: TextTokenizer, settings: Mapping[str, Any] | None = None) -> set[int]:
    """Special tokens, bytes, what is around every text, and the piece of the least score, by which sentencepiece counts
    what it does not know."""
    by_name = {token: number for number, token in enumerate(tokenizer.tokens)}
    always = {tokenizer.pad_id, *tokenizer.encode(""), *({tokenizer.unknown_id} - {None})}
    if settings is None:
        always |= {by_name[token] for token in ("[MASK]",) if token in by_name}
        return always  # type: ignore[return-value]
    model = settings["model"]
    always |= {token["id"] for token in settings.get("added_tokens", ())}
    always |= {number for token, number in by_name.items() if token.startswith("<0x") and len(token) == 6}
    if _of_bytes(settings):
        single = {f"{one}{end}" for one in byte_characters() for end in ("", "</w>")}
        always |= {by_name[token] for token in single if token in by_name}
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        always.add(scores.index(min(scores)))
    return always  # type: ignore[return-value]


def _of_bytes(settings: Mapping[str, Any]) -> bool:
    return "ByteLevel" in json.dumps(settings.get("pre_tokenizer"))


def _bytes_of(normal: set[str]) -> Callable[[str], bool]:
    """Whether a token of byte pairs is a part of a text of these characters, which may begin and end within one."""
    of_character = byte_characters()
    encoded = {one.encode() for one in normal if not "\ud800" <= one <= "\udfff"}
    starts = {one[:cut] for one in encoded for cut in range(1, len(one))}
    ends = {one[cut:] for one in encoded for cut in range(1, len(one))}
    inner = {one[first:last] for one in encoded for first in range(1, len(one)) for last in range(first + 1, len(one))}

    def fits(token: str) -> bool:
        try:
            data = bytes(of_character[one] for one in token.removesuffix("</w>"))
        except KeyError:
            return False
        if data in inner:
            return True
        for head in range(min(4, len(data) + 1)):
            if head and data[:head] not in ends:
                continue
            for tail in range(min(4, len(data) - head + 1)):
                if tail and data[len(data) - tail :] not in starts:
                    continue
                try:
                    middle = data[head : len(data) - tail].decode()
                except UnicodeDecodeError:
                    continue
                if set(middle) <= normal:
                    return True
        return False

    return fits


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _parts(model: Mapping[str, Any], tokens: set[str]) -> set[int]:
    """Of byte pairs, what these tokens become on the way from their characters, by the merges in their order."""
    ranks = {_pair(merge): rank for rank, merge in enumerate(model["merges"])}
    vocab, end, found = model["vocab"], model.get("end_of_word_suffix") or "", set()
    for token in tokens:
        parts = list(token.removesuffix(end)) if end else list(token)
        if end and token.endswith(end) and parts:
            parts[-1] += end
        while len(parts) > 1:
            found.update(parts)
            pairs = list(pairwise(parts))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            position = pairs.index(best)
            parts[position : position + 2] = ["".join(best)]
        found.update(parts)
    return {vocab[part] for part in found if part in vocab}


def _renumber(settings: dict[str, Any], positions: Mapping[int, int]) -> None:
    model = settings["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [row for number, row in enumerate(model["vocab"]) if number in positions]
        if model.get("unk_id") is not None:
            model["unk_id"] = positions[model["unk_id"]]
    else:
        model["vocab"] = {token: positions[number] for token, number in model["vocab"].items() if number in positions}
    if "merges" in model:
        pairs = [(_pair(merge), merge) for merge in model["merges"]]
        model["merges"] = [merge for (one, two), merge in pairs if {one, two, one + two} <= model["vocab"].keys()]
    for token in settings.get("added_tokens", ()):
        token["id"] = positions[token["id"]]
    if settings.get("padding"):
        settings["padding"]["pad_id"] = positions[settings["padding"]["pad_id"]]
    _renumber_processor(settings.get("post_processor") or {}, positions)


def _renumber_processor(processor: dict[str, Any], positions: Mapping[int, int]) -> None:
    for special in processor.get("special_tokens", {}).values():
        special["ids"] = [positions[number] for number in special["ids"]]
    for key in ("sep", "cls"):
        if key in processor:
            processor[key][1] = positions[processor[key][1]]
    for inner in processor.get("processors", ()):
        _renumber_processor(inner, positions)
