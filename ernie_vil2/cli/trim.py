"""Remove the words of a vocabulary that your languages, or your texts, never use.

    ernie-vil2 trim MODEL --keep zh en --output TRIMMED
    ernie-vil2 trim MODEL --texts captions.txt --held-out others.txt --output TRIMMED
    ernie-vil2 trim --data demo_data/emoji-train.tar --output demo_data/vocabulary.txt

With MODEL, OUTPUT is a folder with the trimmed model. Its embeddings of such texts are the same to the last bit; the
ids change, and the tokenizer is written for the new ones. In SigLIP 2 B, words are 197 of 375 million parameters.
ernie-vil2 convert brings the folder back to the layout that the model came from.

Without MODEL, OUTPUT is a vocabulary file for a model that is yet to be trained: the tokens of ERNIE 3.0 that the texts
use. Name it in Model.text.vocabulary. Other words become [UNK].
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ernie_vil2.cli.arguments import (
    add_import_option,
    add_source_options,
    input_file,
    make_data_spec,
    model,
    output_file,
    output_folder,
    output_path,
)

if TYPE_CHECKING:
    from ernie_vil2.config import ViewsConfig
    from ernie_vil2.data.tokenizer import TextTokenizer
    from ernie_vil2.models.weights.format import StoredModel

MAX_LENGTH = 2**20  # tokens of a text; so large that no text is cut, and all of its words are seen
SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")  # first lines of a vocabulary file, in this order


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 trim`."""
    add = parser.add_argument
    add("model", nargs="?", type=model, metavar="MODEL",
        help="model to trim, anything that load_model takes; default: only the vocabulary of ERNIE 3.0")  # fmt: skip
    add("--keep", action="extend", nargs="+", default=[], metavar="LANGUAGE",
        help="keep the words that texts in these languages can have: zh, en, ja, ko, ru, ...; with --texts or --data, "
        "all their words are kept")  # fmt: skip
    add("--texts", action="extend", nargs="+", default=[], type=input_file, metavar="FILE",
        help="keep the words of these texts, one text on each line")  # fmt: skip
    add_source_options(parser, "--data", "PATH",
                       "keep the words of the captions and tags of these data, anything that can be trained "
                       "on")  # fmt: skip
    add("--held-out", type=input_file, metavar="FILE",
        help="other texts, one on each line; counts their words outside the new vocabulary")  # fmt: skip
    add("--vocab", type=input_file, metavar="FILE",
        help="vocabulary file, if MODEL does not include one, or instead of that of ERNIE 3.0")  # fmt: skip
    add("--output", required=True, type=output_path, metavar="PATH", help="new folder; without MODEL, a file")
    add_import_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 trim` and return its exit code."""
    from ernie_vil2.data.trimming import find_ids_of_characters, find_ids_of_texts, list_characters

    if not (args.keep or args.texts or args.data):
        raise ValueError("name the words to keep: --keep zh en, --texts FILE or --data PATH")
    if args.model is None:
        output_file(args.output)
    else:
        output_folder(args.output)
    allowed_characters = list_characters(args.keep)
    # Read before anything is written: a file that cannot be read leaves no trimmed model behind.
    held_out_texts = _read_lines(args.held_out) if args.held_out else []

    stored = None
    if args.model is not None:
        stored = _read_model(args.model, args.vocab)
    # The ids of all words that the languages or texts can have.
    tokenizer, views = _open_vocabulary(stored, args.vocab)
    kept_ids: set[int] = set()
    if args.keep:
        kept_ids.update(find_ids_of_characters(tokenizer, allowed_characters))
    if args.texts or args.data:
        texts = set[str]()
        for path in args.texts:
            texts.update(_read_lines(path))
        if args.data:
            texts.update(_read_data(args, views))
        kept_ids.update(find_ids_of_texts(tokenizer, texts))

    # Without a model only the vocabulary is written.
    if stored is None:
        rows = sorted(kept_ids)
        _write_vocabulary(args.output, tokenizer, rows)
    else:
        rows = _write_trimmed_model(args, stored, kept_ids)
    if args.held_out:
        _print_missing_words(args.held_out, held_out_texts, tokenizer, rows)
    return 0


def _read_model(path: str, vocabulary: str | None) -> StoredModel:
    from ernie_vil2.models.weights.format import WORD_EMBEDDING, read_model

    stored = read_model(path, vocabulary)
    if stored.tokens is None or WORD_EMBEDDING not in stored.arrays:
        raise ValueError(f"{path}: no vocabulary or word embedding; name its vocabulary: --vocab FILE")
    return stored


def _open_vocabulary(stored: StoredModel | None, vocabulary: str | None) -> tuple[TextTokenizer, ViewsConfig]:
    """Return the tokenizer to trim, and the settings that turn captions and tags into texts for a training."""
    from ernie_vil2.config import ViewsConfig
    from ernie_vil2.data.tokenizer import WordPieceTokenizer

    if stored is None:
        return WordPieceTokenizer(vocabulary, max_length=MAX_LENGTH), ViewsConfig()
    return stored.build_tokenizer(MAX_LENGTH), stored.config.Views


def _read_data(args: argparse.Namespace, views: ViewsConfig) -> set[str]:
    """Return captions, tags and the texts that training makes of them; print the samples that are unusable."""
    from ernie_vil2.data.augment import format_tags
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.data.samples import BadSampleReport, split_lines
    from ernie_vil2.data.spec import TRAIN

    source = open_sources(make_data_spec(args, default_split=TRAIN))
    texts = {*views.prompts.values(), *views.separators.values()}
    report = BadSampleReport()
    for row in range(len(source)):
        with report.attempt():
            sample = source[row]
            texts.update(*sample.tags.values())
            # A word may be another token at the beginning of a text than behind a space or before a comma. So each line
            # of a caption is also a text of its own, and a tag is the only one, the first, in the middle and the last.
            for caption in sample.captions.values():
                texts.update([caption.strip(), *split_lines(caption)])
            for language in views.prompts.keys() & views.separators.keys():
                for tag in sample.tag_list(language):
                    texts.update(format_tags(tags, language, views) for tags in ([tag], [tag, tag, tag]))
    if report.counts.total() == report.num_read:
        raise ValueError(f"no sample could be used\n{report}")
    print(report)
    return texts


def _write_vocabulary(path: str, tokenizer: TextTokenizer, rows: Sequence[int]) -> None:
    from ernie_vil2.io.files import write_text

    # Special tokens first, in the order that a vocabulary file has by convention.
    tokens = [tokenizer.tokens[row] for row in rows]
    special_tokens = [token for token in SPECIAL_TOKENS if token in tokens]
    words = [token for token in tokens if token not in SPECIAL_TOKENS]
    write_text(path, "\n".join([*special_tokens, *words]) + "\n")
    print(f"{len(tokens):,} of {tokenizer.vocab_size:,} tokens written to {path}")


def _write_trimmed_model(args: argparse.Namespace, stored: StoredModel, kept_ids: Iterable[int]) -> list[int]:
    """Write the model with these rows of its word embedding and the special ones, and return the rows."""
    from ernie_vil2.encoder import build_encoder
    from ernie_vil2.models.weights.format import WORD_EMBEDDING, write_model
    from ernie_vil2.models.weights.integrity import compute_golden

    rows = sorted({*kept_ids, *_find_special_ids(stored)})
    trimmed = trim_model(stored, rows, args.model)
    encoder = build_encoder(trimmed.build()[0], trimmed, trimmed.config, "float32", 8)
    write_model(trimmed, args.output, "ernie_vil2", compute_golden(encoder))

    num_words, width = stored.arrays[WORD_EMBEDDING].shape
    total = sum(array.size for array in stored.arrays.values())
    saved = (num_words - len(rows)) * width
    print(
        f"{len(rows):,} of {num_words:,} tokens kept in {args.output}; {saved / 1e6:.1f} of {total / 1e6:.1f} million "
        f"parameters removed ({saved / total:.0%})"
    )
    return rows


def _find_special_ids(model: StoredModel) -> set[int]:
    """Return the ids that the configuration of a text tower names; they must stay in the vocabulary."""
    from ernie_vil2.towers.transformer import get_text_variant

    variant = get_text_variant(model.config.Model.text)
    if variant is None:
        return set()
    return {token_id for token_id in (variant.padding, variant.end) if token_id is not None}


def trim_model(model: StoredModel, rows: Sequence[int], source: str | None = None) -> StoredModel:
    """Return a model whose word embedding and vocabulary have only some of its rows; all else is unchanged.

    Texts whose ids are all among `rows` keep their embeddings to the last bit.

    Args:
        model: a model with a vocabulary.
        rows: ids to keep, ascending; the special ids are among them.
        source: path or name that the model was read from. For a model of another family it is recorded, so that
            `ernie-vil2 convert` can write the model back to its layout.
    """
    from dataclasses import replace

    import numpy as np

    from ernie_vil2.data.tokenizer import LibraryTokenizer
    from ernie_vil2.data.trimming import trim_tokenizer
    from ernie_vil2.models.weights.format import WORD_EMBEDDING
    from ernie_vil2.towers.transformer import get_text_variant

    config, text = model.config, model.config.Model.text
    tokenizer = trim_tokenizer(model.build_tokenizer(config.Data.max_length), list(rows))
    # The configuration names special tokens by their ids, which change.
    new_ids = {old_id: new_id for new_id, old_id in enumerate(rows)}
    variant = get_text_variant(text)
    if variant is not None:
        ids = {"padding": new_ids[variant.padding], "end": new_ids.get(variant.end)}  # type: ignore[arg-type]
        text = text.model_copy(update={"variant": variant.model_copy(update=ids)})
    text = text.model_copy(update={"vocabulary": None})

    weights = config.Model.weights
    if weights is None and source and model.family:
        weights = str(source)
    towers = config.Model.model_copy(update={"text": text, "weights": weights})
    arrays = {**model.arrays, WORD_EMBEDDING: np.ascontiguousarray(model.arrays[WORD_EMBEDDING][list(rows)])}
    return replace(
        model,
        layout="ernie_vil2",
        arrays=arrays,
        config=config.model_copy(update={"Model": towers}),
        tokens=tokenizer.tokens,
        library_tokenizer=tokenizer if isinstance(tokenizer, LibraryTokenizer) else None,
        vocabulary_path=None,
        family=None,
    )


def _print_missing_words(path: str, texts: Sequence[str], tokenizer: TextTokenizer, rows: Sequence[int]) -> None:
    from ernie_vil2.data.trimming import count_missing_tokens

    num_tokens, num_missing, num_texts, num_affected = count_missing_tokens(tokenizer, rows, texts)
    print(
        f"{path}: {num_missing:,} of {num_tokens:,} tokens ({num_missing / max(1, num_tokens):.2%}) are no longer in "
        f"the vocabulary, in {num_affected:,} of {num_texts:,} texts"
    )


def _read_lines(path: str) -> list[str]:
    from ernie_vil2.io.files import read_text

    return read_text(path).removesuffix("\n").split("\n")
