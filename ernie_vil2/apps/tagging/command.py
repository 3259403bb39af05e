"""Find the object tags of any source's images: in a file, by a detector, or in a lexicon by image-to-text search.

    python tools/tag.py file pairs/train.csv --tags names.tsv --output tags.jsonl
    python tools/tag.py detector 'shards/*.tar' --model ppyoloe --classes en zh=coco_zh.txt --output tags.jsonl
    python tools/tag.py lexicon 'shards/*.tar' --checkpoint runs/mine --words zh=words.txt --output tags.jsonl

INPUT is whatever Data.train takes (docs/data.md). The output holds the tags by id, next to it lies a report;
`prepare --tags` makes shards with them. Stopped or killed, the same command continues. docs/tags.md has the rest.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ernie_vil2.cli.arguments import (
    CALIBRATED,
    add_backend_option,
    add_precision_option,
    add_source_options,
    count,
    get_calibrated_threshold,
    input_file,
    input_folder,
    load_named_model,
    make_data_spec,
    model,
    named_file,
    number,
    optional_file,
    output_file,
    threshold,
)

if TYPE_CHECKING:
    from ernie_vil2.apps.tagging.extract import Tagger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    ways = parser.add_subparsers(dest="way", required=True, metavar="WAY")
    from_file = add_way(ways, "file", "tags that a file has by id")
    from_file.add_argument("--tags", required=True, type=input_file, metavar="FILE",
                           help=".jsonl, .tsv or .csv with an id and tags, tags_zh, ... a row")  # fmt: skip
    from_file.add_argument(
        "--tags-id", metavar="FIELD", help="field with the id of the tags; default: the image's name"
    )
    detector = add_way(ways, "detector", "what a detector exported by PaddleDetection finds")
    detector.add_argument("--model", required=True, type=input_folder, metavar="FOLDER", help="the exported detector")
    detector.add_argument("--classes", nargs="+", required=True, type=optional_file, metavar="LANG[=FILE]",
                          help="names of the classes, one per line; without FILE those in infer_cfg.yml")  # fmt: skip
    detector.add_argument("--attributes", nargs="+", default=[], type=named_file, metavar="LANG=FILE",
                          help="names of the attributes, one per line")  # fmt: skip
    detector.add_argument("--threshold", type=number, default=0.5, help="least score of an object; default 0.5")
    detector.add_argument("--attribute-threshold", type=number, default=0.5,
                          help="least score of its attribute; default 0.5")  # fmt: skip
    detector.add_argument("--batch-size", type=count, default=8, help="images at once; default 8")
    add_work(detector)
    lexicon = add_way(ways, "lexicon", "the words of a list that a model finds nearest to the image")
    lexicon.add_argument("--checkpoint", required=True, type=model, metavar="MODEL",
                         help="run or checkpoint folder, .pdparams, PaddleNLP folder, export, known name")  # fmt: skip
    add_backend_option(lexicon)
    add_precision_option(lexicon)
    lexicon.add_argument(
        "--vocab", type=input_file, metavar="FILE", help="vocabulary, where the model does not bring its own"
    )
    lexicon.add_argument(
        "--words", nargs="+", required=True, type=named_file, metavar="LANG=FILE", help="the words, one per line"
    )
    lexicon.add_argument("--templates", nargs="+", default=[], type=named_file, metavar="LANG=FILE",
                         help="texts with {} for the word, one per line; default: the word alone")  # fmt: skip
    lexicon.add_argument("--top", type=count, default=5, metavar="K", help="words of an image at most; default 5")
    lexicon.add_argument("--threshold", type=threshold, default=-1.0, metavar="COSINE",
                         help="least of image and word; calibrated: tools/calibrate.py's; default: any")  # fmt: skip
    lexicon.add_argument("--batch-size", type=count, default=64, help="images at once; default 64")
    add_work(lexicon)


def run(args: argparse.Namespace) -> int:
    from ernie_vil2.apps.tagging.extract import extract_tags
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.data.spec import TRAIN

    source = open_sources(make_data_spec(args, args.input, default_split=TRAIN))
    tagger, options = TAGGERS[args.way](args)
    print(extract_tags(source, tagger, args.output, **options))
    return 0


def add_way(ways: Any, name: str, what: str) -> argparse.ArgumentParser:
    """The options of one way, with those that all have."""
    way = ways.add_parser(name, help=what, description=f"Object tags: {what}; docs/tags.md.")
    add_source_options(way)
    way.add_argument("--output", required=True, type=output_file, metavar="FILE", help="the .jsonl file to write")
    return way


def add_work(way: argparse.ArgumentParser) -> None:
    """The options of the ways that look at images."""
    way.add_argument("--device", default="auto", help="auto, cpu, gpu, gpu:0, ...; default auto")
    way.add_argument("--threads", type=count, metavar="N", help="that decode images; default: the usable cores")


def file_tagger(args: argparse.Namespace) -> tuple[Tagger, dict[str, Any]]:
    from ernie_vil2.apps.tagging.sources import FileTagger

    return FileTagger(args.tags), {"id_field": args.tags_id, "batch_size": 1024}


def detector_tagger(args: argparse.Namespace) -> tuple[Tagger, dict[str, Any]]:
    from ernie_vil2.apps.tagging.detector import Detector, DetectorTagger, Phrases
    from ernie_vil2.apps.tagging.sources import read_names

    attributes = {language: read_names(path) for language, path in args.attributes}
    detector = Detector(args.model, args.device, len(next(iter(attributes.values()), ())))
    classes = {language: read_names(path) if path else detector.label_list for language, path in args.classes}
    phrases = Phrases(classes, attributes, args.threshold, args.attribute_threshold)
    return DetectorTagger(detector, phrases), image_options(args)


def lexicon_tagger(args: argparse.Namespace) -> tuple[Tagger, dict[str, Any]]:
    import paddle

    from ernie_vil2.apps.tagging.sources import LexiconTagger, read_names

    words, templates = (
        {language: read_names(path) for language, path in values} for values in (args.words, args.templates)
    )
    name, (model, _) = args.checkpoint, load_named_model(args)
    least = get_calibrated_threshold(model, name, "image_to_text") if args.threshold == CALIBRATED else args.threshold
    return LexiconTagger(model, words, templates, args.top, least, paddle.get_device()), image_options(args)


def image_options(args: argparse.Namespace) -> dict[str, Any]:
    from ernie_vil2.device.runtime import num_usable_cores

    return {"batch_size": args.batch_size, "threads": args.threads or num_usable_cores()}


TAGGERS = {"file": file_tagger, "detector": detector_tagger, "lexicon": lexicon_tagger}
