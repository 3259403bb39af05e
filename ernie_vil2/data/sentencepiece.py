"""A sentencepiece model as the `tokenizers` library computes it: unigram, and byte pairs as Gemma has them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

# Of a file; XLM-V's has 18 million bytes, in 901,629 pieces. Of as many empty pieces as fit, the parser makes 0.9 GiB.
MAX_BYTES = 2**25
MAX_PIECES = 2**21
MAX_PIECE_CHARACTERS = 1000  # the merges of a piece take the square of it; sentencepiece trains pieces of up to 16
_SPACE = "\u2581"


def parse_model(data: bytes) -> ModelProto:
    """Parse the bytes of a sentencepiece `.model`.

    Raises:
        ValueError: they are not a model of unigrams or byte pairs, or it has more or longer pieces than are read.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    try:
        model = ModelProto.FromString(data)
    except DecodeError as error:
        raise ValueError(f"not a sentencepiece model ({error})") from None
    is_supported = model.trainer_spec.model_type in (model.trainer_spec.UNIGRAM, model.trainer_spec.BPE)
    if not model.pieces or not is_supported:
        raise ValueError("not a sentencepiece model of unigrams or byte pairs")
    if len(model.pieces) > MAX_PIECES:
        raise ValueError(f"{len(model.pieces):,} pieces are too many for a sentencepiece model")
    for piece in model.pieces:
        if isinstance(piece.piece, bytes):  # as protobuf returns a text that is not UTF-8
            raise ValueError("not a sentencepiece model (a piece is not UTF-8)")
        if len(piece.piece) > MAX_PIECE_CHARACTERS:
            raise ValueError(f"a piece of {len(piece.piece):,} characters is too long for a sentencepiece model")
    return model


def remove_pieces(data: bytes, kept_ids: Collection[int], rules: str) -> bytes:
    """Return a sentencepiece model with the pieces of these ids alone; ids are those of `tokenizer_of_pieces`."""
    model = parse_model(data)
    kept_pieces = []
    for position, piece in enumerate(model.pieces):
        if rules == "xlm_roberta":
            # The ids of fairseq are one more; its special tokens stand in place of the first three pieces.
            is_kept = position < 3 or position + 1 in kept_ids
        else:
            is_kept = position in kept_ids
        if is_kept:
            kept_pieces.append(piece)
    del model.pieces[:]
    model.pieces.extend(kept_pieces)
    return model.SerializeToString()


def tokenizer_of_pieces(data: bytes, rules: str) -> str:
    """The text of a `tokenizer.json` that gives the ids of a sentencepiece model.

    Args:
        data: the bytes of the `.model`.
        rules: "xlm_roberta": ids are those of fairseq, one more, with four special tokens before and one after them;
            "siglip2": as Gemma, where spaces are kept; else as T5 and SigLIP.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    model = parse_model(data)
    byte_fallback = model.trainer_spec.byte_fallback
    characters = model.normalizer_spec.precompiled_charsmap
    fairseq = rules == "xlm_roberta"
    pieces = model.pieces
    special = {piece.piece for piece in pieces if piece.type == piece.CONTROL}
    unknown = next((number for number, piece in enumerate(pieces) if piece.type == piece.UNKNOWN), 0)
    scored = [(piece.piece, piece.score) for piece in pieces]
    if fairseq:
        scored = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *scored[3:], ("<mask>", 0.0)]
        special, unknown = {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}, 3
    elif rules == "siglip":
        special = {"</s>", pieces[unknown].piece}  # what transformers' tokenizer of SigLIP looks for in a text
    vocab = {text: number for number, (text, _) in enumerate(scored)}
    if model.trainer_spec.model_type == model.trainer_spec.UNIGRAM:
        library = Tokenizer(models.Unigram(scored, unknown, byte_fallback))
    else:
        pairs = _pairs(scored, vocab)
        name = scored[unknown][0]
        library = Tokenizer(models.BPE(vocab, pairs, unk_token=name, fuse_unk=True, byte_fallback=byte_fallback))
    if rules == "siglip2":
        library.normalizer = normalizers.Replace(" ", _SPACE)
        library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        steps = [normalizers.Precompiled(characters)] if characters else []
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
    user_defined = [piece.piece for piece in pieces if piece.type == piece.USER_DEFINED]
    library.add_tokens([AddedToken(text, normalized=False) for text in user_defined])
    end = next((text for text in ("<eos>", "</s>") if text in vocab), None)
    if end:
        template = f"<s> $A {end}" if fairseq else f"$A {end}"
        used = [(text, vocab[text]) for text in ("<s>", end) if text in vocab]
        library.post_processor = processors.TemplateProcessing(template, special_tokens=used)
    return library.to_str()


def _pairs(scored: list[tuple[str, float]], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Return the merges of byte pairs, which sentencepiece does not store.

    They are all ways to make a piece of two others, those of the best pieces first.
    """
    merges = []
    for text, score in scored:
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in vocab and right in vocab:
                merges.append((-score, -len(left), -len(right), vocab[left], left, right))
    merges.sort(key=lambda merge: merge[:4])
    return [(left, right) for *_, left, right in merges]
