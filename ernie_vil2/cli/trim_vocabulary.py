"""Write the part of the ERNIE 3.0 vocabulary that the texts of a data set use: a small model for a small language.

    python tools/trim_vocabulary.py --data demo_data/emoji-train.tar --output demo_data/vocabulary.txt

The texts are tokenised as before; other words become [UNK]. Name the file in Model.text.vocabulary.
"""

import argparse

from ernie_vil2.cli.arguments import add_source_options, output_file, table_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_options(parser, "--data", "FILE", "tar shards or official TSV files", required=True)
    parser.add_argument(
        "--output", required=True, type=output_file, metavar="FILE", help="vocabulary file, a token a line"
    )


def run(args: argparse.Namespace) -> int:
    from ernie_vil2.config import ViewsConfig
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.data.samples import BadSampleReport
    from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, Tokenizer, read_vocabulary
    from ernie_vil2.io.files import write_text

    source = open_sources(args.data, **table_options(args))
    tokenizer, views = Tokenizer(max_length=2**20), ViewsConfig()
    texts = {*views.prompts.values(), *views.separators.values()}
    report = BadSampleReport()
    for row in range(len(source)):
        with report.attempt():
            sample = source[row]
            texts.update(sample.captions.values(), *sample.tags.values())
    if report.counts.total() == report.read:
        raise ValueError(f"no sample could be used\n{report}")
    used = {number for text in texts for number in tokenizer.encode(text)}
    tokens = read_vocabulary(ERNIE_VOCABULARY)
    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    kept = special + [tokens[number] for number in sorted(used) if tokens[number] not in special]
    write_text(args.output, "\n".join(kept) + "\n")
    print(f"{len(kept)} of {len(tokens)} tokens written to {args.output}; {report}")
    return 0
