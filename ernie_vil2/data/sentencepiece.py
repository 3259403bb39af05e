"""A sentencepiece model as the `tokenizers` library computes it: unigram, and byte pairs as Gemma has them.

The file is a protocol buffer of which four messages matter: a piece (text, score, kind), the trainer's settings (kind
of model, byte fallback), the normaliser's (its compiled table of characters) and nothing else.
"""

import struct
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

MAX_BYTES = 2**27  # of a file; that of XLM-V, of 901,629 pieces, has 18 million
_UNIGRAM, _PAIRS = 1, 2
_UNKNOWN, _CONTROL, _USER = 2, 3, 4
_SPACE = "\u2581"


class Pieces(NamedTuple):
    """What a sentencepiece model holds: [text, score, kind] of each piece, and how a text is split into them."""

    pieces: list[tuple[str, float, int]]
    model: int
    byte_fallback: bool
    characters: bytes


def read_pieces(data: bytes) -> Pieces:
    """What a file's bytes say. ValueError if they are not those of a sentencepiece model."""
    pieces, model, byte_fallback, characters = [], _UNIGRAM, False, b""
    try:
        for field, value in _fields(data):
            if field == 1:
                of_piece = dict(_fields(value))
                pieces.append((of_piece.get(1, b"").decode(), of_piece.get(2, 0.0), of_piece.get(3, 1)))
            elif field == 2:
                of_trainer = dict(_fields(value))
                model, byte_fallback = of_trainer.get(3, _UNIGRAM), bool(of_trainer.get(35, 0))
            elif field == 3:
                characters = dict(_fields(value)).get(2, b"")
    except (IndexError, struct.error, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise ValueError(f"not a sentencepiece model ({error})") from None
    if not pieces or model not in (_UNIGRAM, _PAIRS):
        raise ValueError("not a sentencepiece model of unigrams or byte pairs")
    return Pieces(pieces, model, byte_fallback, characters)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message's fields: a whole number, a float, or bytes."""
    position = 0

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise IndexError("a number of more than ten bytes")

    while position < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
        elif key & 7 in (1, 2, 5):
            length = number() if key & 7 == 2 else 8 if key & 7 == 1 else 4
            value = data[position : position + length]
            if len(value) < length:
                raise IndexError("cut off")
            position += length
            yield key >> 3, struct.unpack("<f", value)[0] if key & 7 == 5 else value
        else:
            raise IndexError(f"a field of the kind {key & 7}")


def without_pieces(data: bytes, kept: Collection[int], rules: str) -> bytes:
    """A sentencepiece model with the pieces of these ids alone, which are those of `tokenizer_of_pieces`."""
    shift, number, parts = int(rules == "xlm_roberta"), -1, []
    for field, value in _fields(data):
        number += field == 1
        if field != 1 or number + shift in kept or (shift and number < 3):
            parts += [_varint(field << 3 | 2), _varint(len(value)), value]  # all fields of a model are messages
    return b"".join(parts)


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def tokenizer_of_pieces(data: bytes, rules: str) -> str:
    """The text of a `tokenizer.json` that gives the ids of a sentencepiece model.

    Args:
        data: the bytes of the `.model`.
        rules: "xlm_roberta": ids are those of fairseq, one more, with four special tokens before and one after them;
            "siglip2": as Gemma, where spaces are kept; else as T5 and SigLIP.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    read = read_pieces(data)
    fairseq = rules == "xlm_roberta"
    pieces = read.pieces
    special = {text for text, _, kind in pieces if kind == _CONTROL}
    unknown = next((number for number, (_, _, kind) in enumerate(pieces) if kind == _UNKNOWN), 0)
    scored = [(text, score) for text, score, _ in pieces]
    if fairseq:
        scored = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *scored[3:], ("<mask>", 0.0)]
        special, unknown = {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}, 3
    elif rules == "siglip":
        special = {"</s>", pieces[unknown][0]}  # what transformers' tokenizer of SigLIP looks for in a text
    vocab = {text: number for number, (text, _) in enumerate(scored)}
    if read.model == _UNIGRAM:
        library = Tokenizer(models.Unigram(scored, unknown, read.byte_fallback))
    else:
        pairs = _pairs(scored, vocab)
        name = scored[unknown][0]
        library = Tokenizer(models.BPE(vocab, pairs, unk_token=name, fuse_unk=True, byte_fallback=read.byte_fallback))
    if rules == "siglip2":
        library.normalizer = normalizers.Replace(" ", _SPACE)
        library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        steps = [normalizers.Precompiled(read.characters)] if read.characters else []
        spaces = normalizers.Replace(Regex(" {2,}"), _SPACE)
        library.normalizer = normalizers.Sequence([*steps, normalizers.Strip(left=False, right=True), spaces])
        library.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, "first" if rules == "siglip" else "always")
    stripped = rules == "siglip"
    added = [
        AddedToken(text, normalized=False, special=True, lstrip=stripped or text == "<mask>", rstrip=stripped)
        for text in vocab
        if text in special
    ]
    library.add_special_tokens(added)
    library.add_tokens([AddedToken(text, normalized=False) for text, _, kind in pieces if kind == _USER])
    end = next((text for text in ("<eos>", "</s>") if text in vocab), None)
    if end:
        template = f"<s> $A {end}" if fairseq else f"$A {end}"
        used = [(text, vocab[text]) for text in ("<s>", end) if text in vocab]
        library.post_processor = processors.TemplateProcessing(template, special_tokens=used)
    return library.to_str()


def _pairs(scored: list[tuple[str, float]], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of byte pairs, which sentencepiece does not store: every way to make a piece of two others, those of
    the best pieces first."""
    found = [
        (-score, -len(text[:cut]), -len(text[cut:]), vocab[text[:cut]], text[:cut], text[cut:])
        for text, score in scored
        for cut in range(1, len(text))
        if text[:cut] in vocab and text[cut:] in vocab
    ]
    return [(left, right) for *_, left, right in sorted(found, key=lambda one: one[:4])]
