"""Vocabulary files of any project, found in a model's folder and converted to the text of a `tokenizer.json`."""

from __future__ import annotations

import gzip
import importlib.util
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ernie_vil2.data.sentencepiece import MAX_BYTES, convert_model
from ernie_vil2.data.tokenizer_settings import TOKENIZER_SETTINGS, find_token
from ernie_vil2.io.export_folder import LIBRARY_RULES
from ernie_vil2.io.files import load_json, parse_json, read_text, stat_regular_file
from ernie_vil2.io.run_folder import TOKENIZER, VOCABULARY
from ernie_vil2.io.terminal import make_printable

if TYPE_CHECKING:
    import tokenizers

# Merges of CLIP's byte pairs, one pair a line; MIT licence, in the file next to it.
CLIP_BPE = Path(__file__).parent / "vocab_clip_bpe.txt.gz"
# CLIP's code uses only so many merges of its file. With 512 bytes and two special tokens, they make 49,408 words.
CLIP_MERGES = 49_152 - 256 - 2

MAX_CHARACTERS = 2**28  # of a tokenizer.json; MetaCLIP 2's, with 901,629 tokens, has 60 million
# Limit of the ids, which may have any number of 32 bits in a file. Lists of tokens, and the library when it writes a
# tokenizer, take memory for each number below the largest id. XLM-V and MetaCLIP 2 have 901,629 ids.
MAX_IDS = 2**22
MAX_MERGES_CHARACTERS = 2**25  # of unpacked merges, against decompression bombs; the packaged ones have 515,334

_SENTENCEPIECE_FILES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")

# Files from which a tokenizer with these rules can be made, the preferred one first. All other rules take a
# tokenizer.json, or else a file of sentencepiece.
_FILES_OF_RULES = {
    "bert": (TOKENIZER, VOCABULARY),
    "clip": (TOKENIZER, "vocab.json"),
    "open_clip": (TOKENIZER, "vocab.json"),
    "siglip": (*_SENTENCEPIECE_FILES, TOKENIZER),
}

BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_CLIP_START, _CLIP_END = "<|startoftext|>", "<|endoftext|>"
_OPEN_CLIP_START, _OPEN_CLIP_END = "<start_of_text>", "<end_of_text>"  # OpenCLIP's names of the same tokens

# Padding tokens of folders that do not name one.
_PAD_TOKENS = {"siglip": "</s>", "siglip2": "<pad>", "xlm_roberta": "<pad>", "bert": "[PAD]", "clip": _CLIP_END}

_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@contextmanager
def translate_library_errors() -> Iterator[None]:
    """Turn the library's errors in the block into ValueError; some patterns make it panic on a text."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise ValueError(f"the tokenizers library fails with this {TOKENIZER}: {str(error)[:200]}") from None


def parse_tokenizer(content: str) -> tokenizers.Tokenizer:
    """Parse the text of a tokenizer.json; ValueError if the library refuses it."""
    import tokenizers

    with translate_library_errors():
        return tokenizers.Tokenizer.from_str(content)


def check_ids(ids: Collection[int]) -> None:
    """Raise ValueError if a vocabulary has no ids, or an id of `MAX_IDS` or more."""
    if not ids:
        raise ValueError("its vocabulary is empty")
    if max(ids) >= MAX_IDS:
        raise ValueError(f"its vocabulary has the id {max(ids):,}; ids below {MAX_IDS:,} are read")


def find_vocabulary_file(source: str | Path | None, rules: str) -> Path:
    """Return the file from which a tokenizer is made: `source` itself, or the decisive file of a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    # Folders with the rules of this package have a vocab.txt.
    names: tuple[str, ...] = (VOCABULARY,)
    if rules in LIBRARY_RULES:
        names = _FILES_OF_RULES.get(rules, (TOKENIZER, *_SENTENCEPIECE_FILES))
    if source is not None:
        for path in (Path(source), *(Path(source, name) for name in names)):
            if path.is_file():
                return path
        if not Path(source).exists():
            raise FileNotFoundError(
                f"{source}: no such file or folder; name the vocabulary that the model was trained with"
            )
    if rules in ("open_clip", "clip"):
        return _find_clip_merges()
    raise FileNotFoundError(
        f"{source}: no {' or '.join(names)} there; name the vocabulary that the model was trained with"
    )


def _find_clip_merges() -> Path:
    """Return CLIP's file of merges, from an installed open_clip_torch or else the packaged one, which is the same."""
    package = importlib.util.find_spec("open_clip")  # not imported: that would import torch
    if package:
        for folder in package.submodule_search_locations or ():
            merges = Path(folder, "bpe_simple_vocab_16e6.txt.gz")
            if merges.is_file():
                return merges
    return CLIP_BPE


def make_tokenizer_json(path: Path, rules: str, folder: Path) -> str:
    """Return the text of a tokenizer.json for a vocabulary file of any kind.

    Args:
        path: the vocabulary file.
        rules: value of `Model.text.tokenizer`.
        folder: folder whose settings may name the padding token.
    """
    pad_token = _find_pad_token(folder)
    if path.suffix == ".model":
        size = stat_regular_file(path).st_size
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes are too many for a sentencepiece model")
        default = "</s>" if rules == "siglip" else "<pad>"
        return _set_padding(convert_model(path.read_bytes(), rules), pad_token, default)
    if path.suffix == ".gz":
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                lines = file.read(MAX_MERGES_CHARACTERS).split("\n")[1 : CLIP_MERGES + 1]  # the first is a version
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(f"not a whole gzip file ({error})") from None
        return _convert_merges(tuple(line for line in lines if line), rules, pad_token)
    if path.suffix == ".txt":
        return _convert_word_pieces(path, pad_token)
    if path.name == "vocab.json":
        lines = read_text(path.with_name("merges.txt")).split("\n")
        merges = [line for line in lines if line and not line.startswith("#version")][:CLIP_MERGES]
        return _convert_byte_pairs(load_json(path), merges, rules, pad_token)

    # A tokenizer.json. With the rules of OpenCLIP, only the vocabulary and the merges of CLIP's are used.
    content = read_text(path, MAX_CHARACTERS)
    if rules == "open_clip" and _OPEN_CLIP_START not in content:
        model = parse_json(content)["model"]
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        return _convert_byte_pairs(model["vocab"], merges, rules, pad_token)
    if pad_token is None and re.search(r'"padding"\s*:\s*\{', content):
        return content  # a file that was written here
    return _set_padding(content, pad_token, _PAD_TOKENS.get(rules))


def _set_padding(content: str, pad_token: str | None, default: str | None) -> str:
    """Return a `tokenizer.json` whose `padding` names the padding token.

    Args:
        content: text of the file.
        pad_token: the token that the folder names; None: it names none.
        default: the token otherwise; None, or if the vocabulary lacks it: the one with id 0.

    Raises:
        ValueError: the vocabulary lacks `pad_token`.
    """
    library = parse_tokenizer(content)
    check_ids(library.get_vocab().values())
    token = pad_token or default
    token_id = library.token_to_id(token) if token else None
    if token_id is None and pad_token:
        raise ValueError(
            f"pad_token is {make_printable(repr(pad_token), max_length=60)}, which the vocabulary does not have"
        )
    if token_id is None:
        token_id, token = 0, library.id_to_token(0) or ""
    library.enable_padding(pad_id=token_id, pad_token=token)
    library.no_truncation()
    return library.to_str()


def _find_pad_token(folder: Path) -> str | None:
    """Return the padding token that the folder's settings name; None if they name none."""
    for name in (TOKENIZER_SETTINGS, "special_tokens_map.json"):
        if (folder / name).is_file():
            settings = load_json(folder / name)
            token = find_token(settings, "pad_token") if isinstance(settings, dict) else None
            if token is not None:
                return token
    return None


# A training opens the packaged merges three times, which takes half a second each time.
@lru_cache(maxsize=2)
def _convert_merges(merges: tuple[str, ...], rules: str, pad_token: str | None) -> str:
    """Return the `tokenizer.json` of merges without a vocabulary, whose ids follow from their order."""
    characters = list(byte_characters())
    tokens = characters + [f"{character}</w>" for character in characters]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens += [_CLIP_START, _CLIP_END]
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    return _convert_byte_pairs(vocab, merges, rules, pad_token)


def _convert_byte_pairs(vocab: dict[str, int], merges: Sequence[str], rules: str, pad_token: str | None) -> str:
    """Return the `tokenizer.json` of CLIP's byte pairs.

    Texts are cleaned and split into words as by transformers, or with the rules `open_clip` as by OpenCLIP.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    check_ids(vocab.values())
    is_open_clip = rules == "open_clip"
    start = _CLIP_START if _CLIP_START in vocab else _OPEN_CLIP_START
    end = _CLIP_END if _CLIP_END in vocab else _OPEN_CLIP_END
    if is_open_clip:
        new_names = {start: _OPEN_CLIP_START, end: _OPEN_CLIP_END}
        vocab = {new_names.get(token, token): token_id for token, token_id in vocab.items()}
        start, end = _OPEN_CLIP_START, _OPEN_CLIP_END
    if start not in vocab or end not in vocab:
        raise ValueError(f"its vocabulary lacks {_CLIP_START} or {_CLIP_END}; is it one of CLIP?")
    pairs = [cast("tuple[str, str]", tuple(merge.split(" "))) for merge in merges]
    library = Tokenizer(
        models.BPE(vocab, pairs, unk_token=end, continuing_subword_prefix="", end_of_word_suffix="</w>")
    )

    # For OpenCLIP the text is cleaned and lowered before it comes to the library, see `tokenizer.DIALECTS`.
    if is_open_clip:
        split = pre_tokenizers.Split(Regex(f"(?i){_CLIP_WORDS}"), "removed", invert=True)
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        library.normalizer = normalizers.Sequence(steps)
        split = pre_tokenizers.Split(Regex(_CLIP_WORDS), "removed", invert=True)
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    library.post_processor = processors.TemplateProcessing(
        f"{start} $A {end}", special_tokens=[(start, vocab[start]), (end, vocab[end])]
    )
    library.add_special_tokens([AddedToken(token, normalized=not is_open_clip, special=True) for token in (start, end)])
    if is_open_clip:  # pads with id 0, whatever its token
        return _set_padding(library.to_str(), None, None)
    return _set_padding(library.to_str(), pad_token, end)


def byte_characters() -> dict[str, int]:
    """Return the bytes by the 256 characters that stand for them, in the order of CLIP's vocabulary.

    Printable bytes stand for themselves and come first.
    """
    printable_bytes = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = {chr(byte): byte for byte in printable_bytes}
    unprintable_bytes = [byte for byte in range(256) if byte not in printable_bytes]
    for number, byte in enumerate(unprintable_bytes):
        characters[chr(0x100 + number)] = byte
    return characters


def _convert_word_pieces(path: Path, pad_token: str | None) -> str:
    """Return the `tokenizer.json` of a `vocab.txt`, as transformers' fast tokenizer of BERT reads it."""
    tokens = read_text(path).removesuffix("\n").split("\n")
    required_tokens = BERT_TOKENS[:4]  # without [MASK], which only pretraining needs
    missing = [token for token in required_tokens if token not in tokens]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing; is this a vocabulary file?")
    library = build_word_pieces(tokens, max_word_length=100, special_tokens=BERT_TOKENS)  # 100 as in transformers
    return _set_padding(library.to_str(), pad_token, "[PAD]")


def build_word_pieces(
    tokens: Sequence[str], max_word_length: int, special_tokens: Sequence[str], symbols: str = ""
) -> tokenizers.Tokenizer:
    """Build BERT's tokenizer of words in lower case and without accents, `[CLS] ... [SEP]`.

    Args:
        tokens: tokens in the order of their ids.
        max_word_length: number of characters above which a word is unknown.
        special_tokens: tokens that are read as such where they stand in a text.
        symbols: regular expression of characters that are words by themselves, as punctuation is.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    model = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=max_word_length)  # noqa: S106  -- a word of a vocabulary
    library = Tokenizer(model)
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if symbols:
        split_symbols = pre_tokenizers.Split(Regex(symbols), "isolated")
        library.pre_tokenizer = pre_tokenizers.Sequence([library.pre_tokenizer, split_symbols])
    library.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    )
    library.add_special_tokens([token for token in special_tokens if token in vocab])
    return library
