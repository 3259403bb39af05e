"""Leave out the words of a model's vocabulary that your languages, or your texts, never use.

    ernie-vil2 trim FOLDER --keep zh en --output TRIMMED
    ernie-vil2 trim FOLDER --texts captions.txt --held-out others.txt --output TRIMMED

Embeddings of such texts stay the same to the last bit; ids are other numbers, and the tokenizer is written for them. In
SigLIP 2 B, words are 197 of 375 million parameters. The result is a folder of this package; ernie-vil2 convert brings
it back to the layout that it came from.
"""

import argparse

from ernie_vil2.cli.arguments import input_file, model, output_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=model, metavar="FOLDER", help="model, as for load_model")
    parser.add_argument(
        "--keep",
        nargs="+",
        default=[],
        metavar="LANGUAGE",
        help="keep what texts in these languages can have: zh, en, ja, ko, ru, ...",
    )
    parser.add_argument(
        "--texts",
        nargs="+",
        default=[],
        type=input_file,
        metavar="FILE",
        help="keep what these texts have, one a line; together with --keep both",
    )
    parser.add_argument(
        "--held-out",
        type=input_file,
        metavar="FILE",
        help="other texts, one a line, whose words outside the new vocabulary are counted",
    )
    parser.add_argument("--vocab", type=input_file, metavar="FILE", help="vocabulary file, where the folder has none")
    parser.add_argument("--output", required=True, type=output_folder, metavar="FOLDER", help="new folder")


def run(args: argparse.Namespace) -> int:
    from ernie_vil2.data.trimming import characters, kept_of_characters, kept_of_texts, missing_share
    from ernie_vil2.encoder import encoder_of
    from ernie_vil2.models.weights.contract import golden
    from ernie_vil2.models.weights.releases import WORDS
    from ernie_vil2.models.weights.stored import read_model, write_model
    from ernie_vil2.models.weights.trimming import named_ids, trim

    if not args.keep and not args.texts:
        raise ValueError("name what stays: --keep zh en, or --texts FILE")
    allowed = characters(args.keep) if args.keep else None
    stored = read_model(args.source, args.vocab)
    if stored.tokens is None or WORDS not in stored.arrays:
        raise ValueError(f"{args.source}: no vocabulary or word embedding there; name its vocabulary: --vocab FILE")
    tokenizer = stored.tokenizer(2**20)
    kept = named_ids(stored) | set(kept_of_characters(tokenizer, allowed) if allowed else ())
    if args.texts:
        kept |= set(kept_of_texts(tokenizer, (line for path in args.texts for line in _lines(path))))
    rows = sorted(kept)
    words = stored.arrays[WORDS]
    trimmed = trim(stored, rows, args.source)
    encoder = encoder_of(trimmed.build()[0], trimmed, trimmed.config, "float32", 8)
    write_model(trimmed, args.output, "ernie_vil2", golden(encoder))
    before, width = words.shape
    total = sum(array.size for array in stored.arrays.values())
    saved = (before - len(rows)) * width
    print(
        f"{len(rows):,} of {before:,} tokens kept in {args.output}; {saved / 1e6:.1f} of {total / 1e6:.1f} million "
        f"parameters left out ({saved / total:.0%})"
    )
    if args.held_out:
        tokens, lost, texts, with_lost = missing_share(tokenizer, rows, _lines(args.held_out))
        print(
            f"{args.held_out}: {lost:,} of {tokens:,} tokens ({lost / max(1, tokens):.2%}) are no longer in the "
            f"vocabulary, in {with_lost:,} of {texts:,} texts"
        )
    return 0


def _lines(path: str) -> list[str]:
    from ernie_vil2.io.files import read_text

    return read_text(path).removesuffix("\n").split("\n")
