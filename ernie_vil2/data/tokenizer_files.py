"""A tokenizer from the files that a model's folder holds, whoever wrote them."""

from __future__ import annotations

import gzip
import importlib.util
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from ernie_vil2.data.library_tokenizer import DIALECTS, LibraryTokenizer, with_padding
from ernie_vil2.data.sentencepiece import MAX_BYTES, tokenizer_of_pieces
from ernie_vil2.data.tokenizer import TextTokenizer, Tokenizer
from ernie_vil2.io.export_folder import WORD_RULES
from ernie_vil2.io.files import check_ordinary, load_json, parse_json, read_text
from ernie_vil2.io.run_folder import TOKENIZER as FILE
from ernie_vil2.io.run_folder import VOCABULARY

CLIP_BPE = Path(__file__).parent / "vocab_clip_bpe.txt.gz"
"""Merges of CLIP's byte pairs, a pair a line; MIT licence, in the file next to it."""
CLIP_MERGES = 49_152 - 256 - 2
MAX_CHARACTERS = 2**28
"""Of a tokenizer.json; that of MetaCLIP 2, of 901,629 tokens, has 60 million."""
_PIECES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_LOOKED_FOR = {
    "bert": (FILE, VOCABULARY),
    "clip": (FILE, "vocab.json"),
    "open_clip": (FILE, "vocab.json"),
    "siglip": (*_PIECES, FILE),
}
"""Files by the dialect, the one that decides first; of the others tokenizer.json goes before sentencepiece's."""
_SPLIT_CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_STARTS, _ENDS = ("<|startoftext|>", "<start_of_text>"), ("<|endoftext|>", "<end_of_text>")


def open_tokenizer(
    source: str | Path | Sequence[str] | None, max_length: int, rules: str, nearby: Path | None = None
) -> TextTokenizer:
    """The tokenizer of a vocabulary.

    Args:
        source: a vocabulary's file (`vocab.txt`, `tokenizer.json`, `vocab.json` with `merges.txt` next to it, a
            sentencepiece `.model`, or merges as OpenCLIP has them), a folder that holds one, or the tokens of a
            `vocab.txt`. None: the packaged vocabulary, ERNIE 3.0's, or CLIP's where `rules` are "open_clip" or "clip",
            which a folder without one has as well.
        max_length: tokens of a text, special ones included.
        rules: a value of `Model.text.tokenizer`.
        nearby: the folder whose `tokenizer_config.json` names the padding token; None: that of the file.

    Raises:
        FileNotFoundError: there is no such file, or none in the folder.
        ValueError: a file is not what its name says, or does not go with `rules`; the message names it.
    """
    if rules in WORD_RULES:
        if isinstance(source, str | Path) and Path(source).is_dir():
            source = Path(source, VOCABULARY)
        return Tokenizer(cast("Path | list[str] | None", source), max_length, cast(Any, rules))
    path = vocabulary_file(cast("str | Path | None", source), rules)
    try:
        return LibraryTokenizer(_content(path, rules, nearby or path.parent), max_length, rules)
    except OSError:
        raise
    except Exception as error:  # the library's own are of no other kind
        plain = isinstance(error, ValueError) or type(error) is Exception
        why = error if plain else f"not of a tokenizer of the kind {rules} ({type(error).__name__})"
        raise ValueError(f"vocabulary {path}: {why}") from None


def read_tokens(path: Path) -> list[str]:
    """The tokens of a `vocab.txt` or `tokenizer.json` in the order of their ids; errors as of `open_tokenizer`."""
    return open_tokenizer(path, 512, "bert" if path.name == FILE else "official").tokens


def vocabulary_file(source: str | Path | None, rules: str) -> Path:
    """The file of a folder that the tokenizer is made of, or `source` itself if it is a file.

    Raises:
        FileNotFoundError: there is none.
    """
    if source is not None and Path(source).is_file():
        return Path(source)
    if source is not None and not Path(source).exists():
        raise FileNotFoundError(
            f"{source}: no such file or folder; name the vocabulary that the model was trained with"
        )
    names = _LOOKED_FOR.get(rules, (FILE, *_PIECES)) if rules in DIALECTS else (VOCABULARY,)
    for name in names if source is not None else ():
        if Path(cast("str | Path", source), name).is_file():
            return Path(cast("str | Path", source), name)
    if rules in ("open_clip", "clip"):
        return _of_open_clip()
    raise FileNotFoundError(
        f"{source}: no {' or '.join(names)} there; name the vocabulary that the model was trained with"
    )


def _of_open_clip() -> Path:
    """CLIP's merges: those of an installed open_clip_torch, else the packaged ones, which are the same."""
    found = importlib.util.find_spec("open_clip")  # not imported: that would take torch
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (merges := Path(folder, "bpe_simple_vocab_16e6.txt.gz")).is_file():
            return merges
    return CLIP_BPE


def _content(path: Path, rules: str, folder: Path) -> str:
    """The text of a tokenizer.json for a vocabulary file of any kind."""
    padding = _named(folder, "pad_token")
    if path.suffix == ".model":
        check = check_ordinary(path).st_size
        if check > MAX_BYTES:
            raise ValueError(f"{check:,} bytes are too many for a sentencepiece model")
        return tokenizer_of_pieces(path.read_bytes(), rules, padding)
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read(2**25).split("\n")[1 : CLIP_MERGES + 1]
        return _of_merges(tuple(line for line in lines if line), rules, padding)
    if path.suffix == ".txt":
        return _of_words(path, folder, padding)
    if path.name == "vocab.json":
        merges = read_text(path.with_name("merges.txt")).split("\n")
        pairs = [line for line in merges if line and not line.startswith("#version")][:CLIP_MERGES]
        return _of_pairs(load_json(path), pairs, rules, padding)
    text = read_text(path, MAX_CHARACTERS)
    if rules == "open_clip" and _STARTS[1] not in text:
        model = parse_json(text)["model"]
        pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        return _of_pairs(model["vocab"], pairs, rules, padding)
    found = re.search(r'"padding"\s*:\s*(\{|null)', text) if padding is None else None
    if found and found[1] == "{":  # one of ours
        return text
    return with_padding(text, padding or _PADDING.get(rules))


_PADDING = {"siglip": "</s>", "siglip2": "<pad>", "xlm_roberta": "<pad>", "bert": "[PAD]", "clip": "<|endoftext|>"}
"""Where a folder does not say it."""


def _named(folder: Path, key: str) -> str | None:
    """A special token that the folder's settings name."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            settings = load_json(folder / name)
            token = settings.get(key) if isinstance(settings, dict) else None
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                return token
    return None


@lru_cache(maxsize=2)
def _of_merges(merges: tuple[str, ...], rules: str, padding: str | None) -> str:
    """CLIP's byte pairs without a vocabulary; a training opens the packaged ones three times, half a second each."""
    return _of_pairs(None, merges, rules, padding)


def _of_pairs(vocab: dict[str, int] | None, merges: Sequence[str], rules: str, padding: str | None) -> str:
    """CLIP's byte pairs, as transformers ("clip") or OpenCLIP ("open_clip") splits the words before them."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    if vocab is None:
        single = [*byte_characters(), *(f"{one}</w>" for one in byte_characters())]
        whole = [*single, *(pair.replace(" ", "") for pair in merges), _STARTS[0], _ENDS[0]]
        vocab = {token: number for number, token in enumerate(whole)}
    own = rules == "open_clip"
    start, end = (next(name for name in names if name in vocab) for names in (_STARTS, _ENDS))
    if own:
        renamed = {start: _STARTS[1], end: _ENDS[1]}
        vocab = {renamed.get(token, token): number for token, number in vocab.items()}
        start, end = renamed.values()
    pairs = [cast("tuple[str, str]", tuple(pair.split(" "))) for pair in merges]
    library = Tokenizer(
        models.BPE(vocab, pairs, unk_token=end, continuing_subword_prefix="", end_of_word_suffix="</w>")
    )
    if own:
        split = pre_tokenizers.Split(Regex(f"(?i){_SPLIT_CLIP}"), "removed", invert=True)
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        library.normalizer = normalizers.Sequence(steps)
        split = pre_tokenizers.Split(Regex(_SPLIT_CLIP), "removed", invert=True)
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    library.post_processor = processors.TemplateProcessing(
        f"{start} $A {end}", special_tokens=[(token, vocab[token]) for token in (start, end)]
    )
    library.add_special_tokens([AddedToken(token, normalized=not own, special=True) for token in (start, end)])
    return with_padding(library.to_str(), None if own else padding or end)


def byte_characters() -> list[str]:
    """The 256 characters that write bytes, in the order of CLIP's vocabulary: first those that can be seen."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, seen), *(chr(0x100 + number) for number in range(256 - len(seen)))]


def _of_words(path: Path, folder: Path, padding: str | None) -> str:
    """Word pieces as transformers' fast tokenizer of BERT finds them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokens = read_text(path).removesuffix("\n").split("\n")
    vocab = {token: number for number, token in enumerate(tokens)}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if missing := [token for token in special[:4] if token not in vocab]:
        raise ValueError(f"{', '.join(missing)} missing; is this a vocabulary file?")
    settings = load_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    lower = settings.get("do_lower_case", True) if isinstance(settings, dict) else True
    library = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    library.normalizer = normalizers.BertNormalizer(lowercase=bool(lower))
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    )
    library.add_special_tokens([token for token in special if token in vocab])
    return with_padding(library.to_str(), padding or "[PAD]")
