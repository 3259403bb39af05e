"""A tokenizer from the files that a model's folder holds, whoever wrote them.

BPE, unigram and word pieces of other people's models are computed by the `tokenizers` library.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
import re
import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ernie_vil2.data.sentencepiece import MAX_BYTES, tokenizer_of_pieces
from ernie_vil2.data.tokenizer import TextTokenizer, Tokenizer
from ernie_vil2.data.tokenizer_settings import (
    check_growth,
    check_special_tokens,
    follow_normalizer,
    missing_tokens,
    read_settings,
    token_name,
)
from ernie_vil2.io.export_folder import WORD_RULES
from ernie_vil2.io.files import check_ordinary, load_json, parse_json, read_text
from ernie_vil2.io.run_folder import TOKENIZER as FILE
from ernie_vil2.io.run_folder import VOCABULARY
from ernie_vil2.io.terminal import printable

if TYPE_CHECKING:
    import tokenizers

CLIP_BPE = Path(__file__).parent / "vocab_clip_bpe.txt.gz"
"""Merges of CLIP's byte pairs, a pair a line; MIT licence, in the file next to it."""
CLIP_MERGES = 49_152 - 256 - 2
MAX_CHARACTERS = 2**28  # of a tokenizer.json; that of MetaCLIP 2, of 901,629 tokens, has 60 million
_PIECES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_LOOKED_FOR = {
    "bert": (FILE, VOCABULARY),
    "clip": (FILE, "vocab.json"),
    "open_clip": (FILE, "vocab.json"),
    "siglip": (*_PIECES, FILE),
}
"""Files by the dialect, the one that decides first; of the others tokenizer.json goes before sentencepiece's."""
_SPLIT_CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_PROBE = "A cat, 2 dogs! \u732b\u548c\u72d7 \u00e9\U0001f600"
"""A text of several kinds of characters: a pattern at which the library panics shows when the file is opened."""
_STARTS, _ENDS = ("<|startoftext|>", "<start_of_text>"), ("<|endoftext|>", "<end_of_text>")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _repaired(text: str) -> str:
    """Wrong encodings and HTML entities put right, as OpenCLIP does before everything else."""
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _siglip(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(_WITHOUT_PUNCTUATION)).strip()


def _open_clip(text: str) -> str:
    return _one_line(_repaired(text))


def _open_clip_lower(text: str) -> str:
    return _open_clip(text).lower()


def _open_clip_canonical(text: str) -> str:
    return _one_line(_repaired(text).replace("_", " ").translate(_WITHOUT_PUNCTUATION).lower())


class Dialect(NamedTuple):
    """How a family treats a text before and after its vocabulary is asked.

    clean: what is done to the text first, between the special tokens in it where `around_special`.
    to_full_length: whether every text is filled up to the longest length, which matters where nothing masks padding.
    """

    clean: Callable[[str], str] | None = None
    around_special: bool = False
    to_full_length: bool = False


DIALECTS = {
    "bert": Dialect(),
    "clip": Dialect(),
    "xlm_roberta": Dialect(),
    "siglip": Dialect(_siglip, around_special=True, to_full_length=True),
    "siglip2": Dialect(str.lower, to_full_length=True),
    "open_clip": Dialect(_open_clip_lower),
    "open_clip_hf": Dialect(_open_clip, to_full_length=True),
    "open_clip_lower": Dialect(_open_clip_lower, to_full_length=True),
    "open_clip_canonical": Dialect(_open_clip_canonical, to_full_length=True),
}
"""By `Model.text.tokenizer`: the tokenizers of transformers for BERT, CLIP and XLM-R, which clean as their file says;
those of SigLIP and SigLIP 2 (FG-CLIP 2), which also lower the case, the first without punctuation; and OpenCLIP's own
BPE, and what it does before a tokenizer of transformers."""


class LibraryTokenizer(TextTokenizer):
    """A tokenizer of a `tokenizer.json`; see `TextTokenizer`.

    Args:
        content: the JSON text. Its `padding` names the padding token; how long texts become is this class's affair.
        max_length: tokens of a text, special ones included; of a longer one the last token is the end token.
        rules: a name of `DIALECTS`.

    Raises:
        ValueError: the text is not such a file, or a text of `max_length` has no room for the special tokens.
    """

    def __init__(self, content: str, max_length: int, rules: str):
        settings = parse_json(content)
        if isinstance(settings, dict):
            check_growth(settings)
        self.library = _read(content)
        self.content, self.max_length, self.rules = content, max_length, rules
        self._dialect = DIALECTS[rules]
        self.to_full_length = self._dialect.to_full_length
        self.library.no_padding()
        self.library.no_truncation()
        around = self._encode("").ids
        self._encode(_PROBE)
        if max_length <= len(around):
            raise ValueError(f"texts of {max_length} tokens have no room: {len(around)} are special")
        self.library.enable_truncation(max_length)
        by_id = {number: token for token, number in self.library.get_vocab().items()}
        self.tokens = [by_id.get(number, "") for number in range(max(by_id) + 1)]
        self.pad_id: int = (settings.get("padding") or {}).get("pad_id", 0)
        unknown = _unknown(settings, self.library.token_to_id)
        self.unknown_id = None if unknown in around else unknown  # CLIP's is its end token: bytes are all known
        special = [re.escape(token["content"]) for token in settings.get("added_tokens", ()) if token.get("special")]
        self._special = re.compile(f"({'|'.join(special)})") if special and self._dialect.around_special else None

    def __reduce__(self) -> tuple[Any, ...]:
        return LibraryTokenizer, (self.content, self.max_length, self.rules)

    def of_length(self, max_length: int) -> LibraryTokenizer:
        """The same for texts of another length."""
        return self if max_length == self.max_length else LibraryTokenizer(self.content, max_length, self.rules)

    def encode(self, text: str) -> list[int]:
        return self._encode(self._cleaned(text)).ids

    def cuts(self, text: str) -> bool:
        return bool(self._encode(self._cleaned(text)).overflowing)

    def normalized(self, text: str) -> str:
        """What is looked up in the vocabulary, before it is split: cleaned, and as the file's normaliser has it."""
        text = self._cleaned(text)
        normalizer = self.library.normalizer
        if normalizer is None:
            return text
        with _library_errors():
            return normalizer.normalize_str(text)

    def _encode(self, text: str) -> tokenizers.Encoding:
        with _library_errors():
            return self.library.encode(text)

    def files(self) -> dict[str, str]:
        return {FILE: self.content}

    def identity(self) -> dict[str, object]:
        digest = blake2b(self.content.encode(), digest_size=16).hexdigest()
        return {"tokenizer": digest, "rules": self.rules, "max_length": self.max_length}

    def _cleaned(self, text: str) -> str:
        text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is none of Unicode's characters
        if self._dialect.clean is None:
            return text
        if self._special is None:
            return self._dialect.clean(text)
        parts = self._special.split(text)
        return "".join(part if position % 2 else self._dialect.clean(part) for position, part in enumerate(parts))


@contextmanager
def _library_errors() -> Iterator[None]:
    """Turn what the library raises in the block into a ValueError; a file's pattern can make it panic at a text."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit):
        raise
    except BaseException as error:  # also a panic of Rust's, which is not an Exception
        raise ValueError(f"the tokenizers library fails with this {FILE}: {str(error)[:200]}") from None


def _read(content: str) -> tokenizers.Tokenizer:
    import tokenizers

    with _library_errors():
        return tokenizers.Tokenizer.from_str(content)


def _unknown(settings: dict[str, Any], to_id: Callable[[str], int | None]) -> int | None:
    model = settings.get("model", {})
    return model["unk_id"] if "unk_id" in model else to_id(model["unk_token"]) if model.get("unk_token") else None


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
    return open_library_tokenizer(cast("str | Path | None", source), max_length, rules, nearby)


def read_tokens(path: Path) -> list[str]:
    """Return the tokens of a `vocab.txt` or `tokenizer.json` in the order of their ids.

    Errors are those of `open_tokenizer`.
    """
    return open_tokenizer(path, 512, "bert" if path.name == FILE else "official").tokens


def open_library_tokenizer(
    source: str | Path | None, max_length: int, rules: str, nearby: Path | None
) -> LibraryTokenizer:
    """As `open_tokenizer`, where `rules` are of a dialect."""
    path = vocabulary_file(source, rules)
    folder = nearby or path.parent
    try:
        content, settings = _content(path, rules, folder), read_settings(folder, rules)
        if settings and rules == "bert":
            content = follow_normalizer(content, settings)
        tokenizer = LibraryTokenizer(content, max_length, rules)
        if tokens := missing_tokens(tokenizer.library, settings):
            library = _read(content)
            library.add_tokens(tokens)
            tokenizer = LibraryTokenizer(library.to_str(), max_length, rules)
        check_special_tokens(tokenizer.library, settings, rules)
        return tokenizer
    except OSError:
        raise
    except Exception as error:  # the library's own are of no other kind
        plain = isinstance(error, ValueError) or type(error) is Exception
        why = error if plain else f"not of a tokenizer of the kind {rules} ({type(error).__name__})"
        raise ValueError(f"vocabulary {path}: {why}") from None


def vocabulary_file(source: str | Path | None, rules: str) -> Path:
    """The file of a folder that the tokenizer is made of, or `source` itself if it is a file. FileNotFoundError if
    there is none."""
    names = _LOOKED_FOR.get(rules, (FILE, *_PIECES)) if rules in DIALECTS else (VOCABULARY,)
    if source is not None:
        for path in (Path(source), *(Path(source, name) for name in names)):
            if path.is_file():
                return path
        if not Path(source).exists():
            raise FileNotFoundError(
                f"{source}: no such file or folder; name the vocabulary that the model was trained with"
            )
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
        content = tokenizer_of_pieces(path.read_bytes(), rules)
        return _padded(content, padding or ("</s>" if rules == "siglip" else "<pad>"), bool(padding))
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read(2**25).split("\n")[1 : CLIP_MERGES + 1]
        return _of_merges(tuple(line for line in lines if line), rules, padding)
    if path.suffix == ".txt":
        return _of_words(path, padding)
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
    return _padded(text, padding or _PADDING.get(rules), bool(padding))


_PADDING = {"siglip": "</s>", "siglip2": "<pad>", "xlm_roberta": "<pad>", "bert": "[PAD]", "clip": "<|endoftext|>"}
"""Where a folder does not say it."""


def _padded(content: str, token: str | None, is_named: bool = False) -> str:
    """A `tokenizer.json` whose `padding` names this token, or the first one if there is none of that name.

    ValueError if there is none and the folder is who names it.
    """
    library = _read(content)
    number = library.token_to_id(token) if token else None
    if number is None and is_named:
        raise ValueError(f"pad_token is {printable(repr(token), longest=60)}, which the vocabulary does not have")
    if number is None:
        number, token = 0, library.id_to_token(0) or ""
    library.enable_padding(pad_id=number, pad_token=token)
    library.no_truncation()
    return library.to_str()


def _named(folder: Path, key: str) -> str | None:
    """A special token that the folder's settings name."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            settings = load_json(folder / name)
            token = token_name(settings, key) if isinstance(settings, dict) else None
            if token is not None:
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
    return _padded(library.to_str(), None if own else padding or end, bool(padding) and not own)


def byte_characters() -> dict[str, int]:
    """The 256 characters that write bytes, with these, in the order of CLIP's vocabulary: first those that are seen."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(0x100 + number): byte for number, byte in enumerate(unseen)}


def _of_words(path: Path, padding: str | None) -> str:
    """Word pieces as transformers' fast tokenizer of BERT finds them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokens = read_text(path).removesuffix("\n").split("\n")
    vocab = {token: number for number, token in enumerate(tokens)}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if missing := [token for token in special[:4] if token not in vocab]:
        raise ValueError(f"{', '.join(missing)} missing; is this a vocabulary file?")
    library = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106  -- a word of a vocabulary
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    )
    library.add_special_tokens([token for token in special if token in vocab])
    return _padded(library.to_str(), padding or "[PAD]", bool(padding))
