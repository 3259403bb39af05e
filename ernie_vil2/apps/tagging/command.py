"""Find object tags for the images of any source: in a file, by a detector, or in a lexicon by image-to-text search.

    python tools/tag.py file pairs/train.csv --tags names.tsv --output tags.jsonl
    python tools/tag.py detector 'shards/*.tar' --model ppyoloe --classes en zh=coco_zh.txt --output tags.jsonl
    python tools/tag.py lexicon 'shards/*.tar' --checkpoint runs/mine --words zh=words.txt --output tags.jsonl

INPUT is anything that Data.train takes (docs/data.md). The output holds the tags by id, and a report is written next to
it; `prepare --tags` makes shards with the tags. If the command is stopped or killed, the same command continues.
docs/tags.md describes the details.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ernie_vil2.cli.arguments import (
    CALIBRATED,
    add_backend_option,
    add_import_option,
    add_precision_option,
    add_source_options,
    count,
    get_calibrated_threshold,
    input_file,
    input_folder,
    load_named_model,
    make_data_spec,
    map_files_by_language,
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
    """Add the options of `ernie-vil2 tag`."""
    ways = parser.add_subparsers(dest="way", required=True, metavar="WAY")

    from_file = add_way(ways, "file", "look tags up in a file by id")
    from_file.add_argument("--tags", required=True, type=input_file, metavar="FILE",
                           help=".jsonl, .tsv or .csv file whose rows have an id, and tags, tags_zh, ...")  # fmt: skip
    from_file.add_argument(
        "--tags-id",
        metavar="FIELD",
        help="field of the samples with the id of the tags; default: the name of the image",
    )

    detector = add_way(ways, "detector", "name the objects that a detector exported by PaddleDetection finds")
    detector.add_argument("--model", required=True, type=input_folder, metavar="FOLDER", help="the exported detector")
    detector.add_argument("--classes", action="extend", nargs="+", required=True, type=optional_file,
                          metavar="LANG[=FILE]",
                          help="names of the classes, one per line; without FILE those in infer_cfg.yml")  # fmt: skip
    detector.add_argument("--attributes", action="extend", nargs="+", default=[], type=named_file, metavar="LANG=FILE",
                          help="names of the attributes, one per line")  # fmt: skip
    detector.add_argument("--threshold", type=number, default=0.5, help="least score of an object; default 0.5")
    detector.add_argument("--attribute-threshold", type=number, default=0.5,
                          help="least score of an object's attribute; default 0.5")  # fmt: skip
    detector.add_argument("--batch-size", type=count, default=8, help="images detected at once; default 8")
    add_computation_options(detector)

    lexicon = add_way(ways, "lexicon", "choose the words of a list that a model finds nearest to each image")
    lexicon.add_argument("--checkpoint", required=True, type=model, metavar="MODEL",
                         help="run or checkpoint folder, .pdparams, PaddleNLP folder, export, known name")  # fmt: skip
    add_backend_option(lexicon)
    add_precision_option(lexicon)
    lexicon.add_argument(
        "--vocab", type=input_file, metavar="FILE", help="vocabulary; needed only if the model comes without one"
    )
    lexicon.add_argument(
        "--words",
        action="extend",
        nargs="+",
        required=True,
        type=named_file,
        metavar="LANG=FILE",
        help="the words, one per line",
    )
    lexicon.add_argument("--templates", action="extend", nargs="+", default=[], type=named_file, metavar="LANG=FILE",
                         help="texts with {} for the word, one per line; default: the word alone")  # fmt: skip
    lexicon.add_argument("--top", type=count, default=5, metavar="K",
                         help="greatest number of words for an image; default 5")  # fmt: skip
    lexicon.add_argument("--threshold", type=threshold, default=-1.0, metavar="COSINE",
                         help="least cosine of image and word; calibrated: the threshold that tools/calibrate.py "
                         "stored; default: none")  # fmt: skip
    lexicon.add_argument("--batch-size", type=count, default=64, help="images encoded at once; default 64")
    add_computation_options(lexicon)


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 tag` and return its exit code."""
    from ernie_vil2.apps.tagging.extract import extract_tags
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.data.spec import TRAIN

    source = open_sources(make_data_spec(args, args.input, default_split=TRAIN))
    tagger, options = TAGGERS[args.way](args)
    print(extract_tags(source, tagger, args.output, **options))
    return 0


def add_way(ways: Any, name: str, purpose: str) -> argparse.ArgumentParser:
    """Add the parser of a way to find tags, with the options that all ways have."""
    description = f"{purpose[0].upper()}{purpose[1:]}. See docs/tags.md."
    way = ways.add_parser(name, help=purpose, description=description)
    add_source_options(way)
    add_import_option(way)
    way.add_argument("--output", required=True, type=output_file, metavar="FILE", help="the .jsonl file to write")
    return way


def add_computation_options(way: argparse.ArgumentParser) -> None:
    """Add the options of the ways that decode images."""
    way.add_argument("--device", default="auto", help="auto, cpu, gpu, gpu:0, ...; default auto")
    way.add_argument(
        "--threads", type=count, metavar="N", help="number of threads that decode images; default: the usable cores"
    )


def make_file_tagger(args: argparse.Namespace) -> tuple[Tagger, dict[str, Any]]:
    """Return the tagger of `tag file`, and options of `extract_tags`."""
    from ernie_vil2.apps.tagging.taggers import FileTagger

    # No images are decoded, so a larger batch costs no memory, and makes fewer lines in the journal.
    return FileTagger(args.tags), {"id_field": args.tags_id, "batch_size": 1024}


def make_detector_tagger(args: argparse.Namespace) -> tuple[Tagger, dict[str, Any]]:
    """Return the tagger of `tag detector`, and options of `extract_tags`."""
    from ernie_vil2.apps.tagging.detector import Detector, DetectorTagger, Phrases
    from ernie_vil2.apps.tagging.taggers import read_name_lists, read_names

    attributes = read_name_lists(map_files_by_language("--attributes", args.attributes))
    class_files = map_files_by_language("--classes", args.classes)
    # All languages have as many names; Phrases checks that.
    num_attributes = len(next(iter(attributes.values()), ()))
    detector = Detector(args.model, args.device, num_attributes)
    classes = {}
    for language, path in class_files.items():
        classes[language] = read_names(path) if path else detector.label_list
    phrases = Phrases(classes, attributes, args.threshold, args.attribute_threshold)
    return DetectorTagger(detector, phrases), get_image_options(args)


def make_lexicon_tagger(args: argparse.Namespace) -> tuple[Tagger, dict[str, Any]]:
    """Return the tagger of `tag lexicon`, and options of `extract_tags`."""
    import paddle

    from ernie_vil2.apps.tagging.taggers import LexiconTagger, read_name_lists

    # Small files come first, so that a mistake in them shows before the model is loaded.
    words = read_name_lists(map_files_by_language("--words", args.words))
    templates = read_name_lists(map_files_by_language("--templates", args.templates))
    name = args.checkpoint  # as the user named it; loading replaces args.checkpoint
    encoder, _ = load_named_model(args)
    min_cosine = args.threshold
    if min_cosine == CALIBRATED:
        min_cosine = get_calibrated_threshold(encoder, name, "image_to_text")
    # Loading the model has chosen Paddle's device, on which the search runs, too.
    tagger = LexiconTagger(encoder, words, templates, args.top, min_cosine, paddle.get_device())
    return tagger, get_image_options(args)


def get_image_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `extract_tags` for taggers that decode images."""
    from ernie_vil2.device.runtime import num_usable_cores

    return {"batch_size": args.batch_size, "threads": args.threads or num_usable_cores()}


TAGGERS = {"file": make_file_tagger, "detector": make_detector_tagger, "lexicon": make_lexicon_tagger}
