"""Conversion of sentencepiece models for the `tokenizers` library: unigrams, and byte pairs like Gemma's."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

# Limits of a file. XLM-V's has 18 million bytes and 901,629 pieces; the parser takes 0.9 GiB for as many empty pieces
# as fit.
MAX_BYTES = 2**25
MAX_PIECES = 2**21
# Finding the merges of a piece takes the square of its length. sentencepiece trains pieces of up to 16 characters.
MAX_PIECE_CHARACTERS = 1000
# A file can be made so that each character of a piece adds a merge, which takes some hundred bytes here and in the
# library. Gemma's has 580,604.
MAX_MERGES = 2**21

_SPACE = "\u2581"  # how sentencepiece writes a space


def parse_model(data: bytes) -> ModelProto:
    """Parse the bytes of a sentencepiece `.model`.

    Raises:
        ValueError: they are not a model of unigrams or byte pairs, or it has too many or too long pieces.
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
        if isinstance(piece.piece, bytes):  # so protobuf returns a text that is not UTF-8
            raise ValueError("not a sentencepiece model (a piece is not UTF-8)")
        if len(piece.piece) > MAX_PIECE_CHARACTERS:
            raise ValueError(f"a piece of {len(piece.piece):,} characters is too long for a sentencepiece model")
    return model


def remove_pieces(data: bytes, kept_ids: Collection[int], rules: str) -> bytes:
    """Return a sentencepiece model with only the pieces of these ids, as `convert_model` numbers them."""
    model = parse_model(data)
    kept_pieces = []
    for position, piece in enumerate(model.pieces):
        if rules == "xlm_roberta":
            # The ids of fairseq are one more; its special tokens replace the first three pieces.
            is_kept = position < 3 or position + 1 in kept_ids
        else:
            is_kept = position in kept_ids
        if is_kept:
            kept_pieces.append(piece)
    del model.pieces[:]
    model.pieces.extend(kept_pieces)
    return model.SerializeToString()


def convert_model(data: bytes, rules: str) -> str:
    """Return the text of a `tokenizer.json` with the ids of a sentencepiece model.

    Args:
        data: bytes of the `.model`.
        rules: "xlm_roberta": ids of fairseq, which are one more, with four special tokens before them and one after;
            "siglip2": as Gemma, which keeps spaces; "siglip" and others: as T5.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    model = parse_model(data)
    pieces = model.pieces
    byte_fallback = model.trainer_spec.byte_fallback
    is_fairseq = rules == "xlm_roberta"

    # Choose the vocabulary: pieces with their scores, the special ones, and the one for unknown characters.
    scored_pieces = [(piece.piece, piece.score) for piece in pieces]
    special_tokens = {piece.piece for piece in pieces if piece.type == piece.CONTROL}
    unknown_id = next((position for position, piece in enumerate(pieces) if piece.type == piece.UNKNOWN), 0)
    if is_fairseq:
        first_tokens = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
        scored_pieces = [*first_tokens, *scored_pieces[3:], ("<mask>", 0.0)]
        special_tokens, unknown_id = {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}, 3
    elif rules == "siglip":
        # The tokens that transformers' tokenizer of SigLIP looks for in a text.
        special_tokens = {"</s>", pieces[unknown_id].piece}
    vocab = {text: token_id for token_id, (text, _) in enumerate(scored_pieces)}
    if model.trainer_spec.model_type == model.trainer_spec.UNIGRAM:
        library = Tokenizer(models.Unigram(scored_pieces, unknown_id, byte_fallback))
    else:
        merges = _find_merges(scored_pieces, vocab)
        unknown_token = scored_pieces[unknown_id][0]
        library = Tokenizer(
            models.BPE(vocab, merges, unk_token=unknown_token, fuse_unk=True, byte_fallback=byte_fallback)
        )

    # Normalise texts and split them at spaces.
    if rules == "siglip2":
        library.normalizer = normalizers.Replace(" ", _SPACE)
        library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        character_map = model.normalizer_spec.precompiled_charsmap
        steps = [normalizers.Precompiled(character_map)] if character_map else []
        spaces = normalizers.Replace(Regex(" {2,}"), _SPACE)
        library.normalizer = normalizers.Sequence([*steps, normalizers.Strip(left=False, right=True), spaces])
        library.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, "first" if rules == "siglip" else "always")

    # Declare the tokens that a text is searched for, and put the special ones around it.
    is_siglip = rules == "siglip"
    added_tokens = []
    for text in vocab:
        if text in special_tokens:
            strips_left = is_siglip or text == "<mask>"
            added_tokens.append(AddedToken(text, normalized=False, special=True, lstrip=strips_left, rstrip=is_siglip))
    library.add_special_tokens(added_tokens)
    user_defined = [piece.piece for piece in pieces if piece.type == piece.USER_DEFINED]
    library.add_tokens([AddedToken(text, normalized=False) for text in user_defined])
    end = next((text for text in ("<eos>", "</s>") if text in vocab), None)
    if end:
        template = f"<s> $A {end}" if is_fairseq else f"$A {end}"
        template_tokens = [(text, vocab[text]) for text in ("<s>", end) if text in vocab]
        library.post_processor = processors.TemplateProcessing(template, special_tokens=template_tokens)
    return library.to_str()


def _find_merges(scored_pieces: list[tuple[str, float]], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Return the merges of byte pairs, which sentencepiece does not store.

    They are all ways to make a piece of two other pieces; the pieces with the highest scores come first.

    Raises:
        ValueError: there are more than `MAX_MERGES`.
    """
    merges = []
    for text, score in scored_pieces:
        for cut in range(1, len(text)):
            left, right = vocab.get(text[:cut]), vocab.get(text[cut:])
            if left is not None and right is not None:
                # Ids, because a copy of the texts for each merge would take several times the memory.
                merges.append((-score, -cut, cut - len(text), left, right))
        if len(merges) > MAX_MERGES:
            raise ValueError(f"more than {MAX_MERGES:,} merges are too many for a sentencepiece model")
    merges.sort(key=lambda merge: merge[:4])
    return [(scored_pieces[left][0], scored_pieces[right][0]) for *_, left, right in merges]
