"""Find the object tags of any source's images: in a file, by a detector, or in a lexicon by image-to-text search.

    python tools/extract_tags.py file pairs/train.csv --tags names.tsv --output tags.jsonl
    python tools/extract_tags.py detector 'shards/*.tar' --model ppyoloe --classes en zh=coco_zh.txt --output tags.jsonl
    python tools/extract_tags.py lexicon 'shards/*.tar' --checkpoint runs/mine --words zh=words.txt --output tags.jsonl

INPUT is whatever Data.train takes (docs/data.md). The output holds the tags by id, beside it lies a report;
`prepare_data.py --tags` makes shards with them. Stopped or killed, the same command goes on. docs/tags.md has the rest.
"""

import argparse
import sys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True, metavar="WAY")
    from_file = add_way(ways, "file", "tags that a file has by id")
    from_file.add_argument("--tags", required=True, metavar="FILE",
                           help=".jsonl, .tsv or .csv with an id and tags, tags_zh, ... a row")  # fmt: skip
    from_file.add_argument("--tags-id", metavar="FIELD", help="field that the tags' id is; default: the image's name")
    args = parser.parse_args()

    from ernie_vil2.data.sources import open_sources
    from ernie_vil2.tagging.extract import extract_tags
    from ernie_vil2.tagging.journal import JournalError

    try:
        source = open_sources(args.input)
        report = extract_tags(source, file_tagger(args), args.output, args.tags_id, batch_size=1024)
    except (OSError, ValueError, ImportError, JournalError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        return 130
    print(report)
    return 0


def add_way(ways, name: str, what: str) -> argparse.ArgumentParser:
    """The options of one way, with those that all have."""
    way = ways.add_parser(name, help=what, description=f"Object tags: {what}; docs/tags.md.")
    way.add_argument("input", nargs="+", metavar="INPUT", help="files, patterns, addresses, pipe: commands, folders")
    way.add_argument("--output", required=True, metavar="FILE", help="the .jsonl file to write")
    return way


def file_tagger(args: argparse.Namespace):
    from ernie_vil2.tagging.from_file import FileTagger

    return FileTagger(args.tags)


if __name__ == "__main__":
    sys.exit(main())
