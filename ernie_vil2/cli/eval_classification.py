"""Score a model on zero-shot classification: acc1, acc5, mean per-class recall, and mAP for several classes a picture.

    python tools/eval_classification.py --checkpoint runs/emoji --data pictures
    python tools/eval_classification.py --checkpoint model.pdparams --data cifar-10 --names zh=cifar-10/label_cn.txt
    python tools/eval_classification.py --checkpoint runs/mine --data birds.csv --label species --names en=names.txt
    python tools/eval_classification.py --checkpoint runs/mine --data cifar-10 --linear-probe
    python tools/eval_classification.py --data pictures --check

--data is a folder with a folder for each class, or with such folders for test and train; tables with the columns image
and label; or tar shards whose JSON has the field. Prints a table, and writes it as JSON, every picture's answer as CSV,
and a page of confusions. Finished embeddings are kept in the output folder: an interrupted command goes on with them.
docs/classification.md has the rest.
"""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from ernie_vil2.cli import encoding
from ernie_vil2.cli.arguments import (
    CALIBRATED,
    add_pipe_option,
    file_name,
    input_folder,
    named_list,
    output_file,
    output_folder,
    source,
    threshold,
)
from ernie_vil2.device.launch import start_ranks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    encoding.add_model_options(parser)
    add = parser.add_argument
    add("--data", type=source, nargs="+", required=True, metavar="PATH", help="pictures and their classes")
    add_pipe_option(parser)
    add("--split", help="of the data; default: test, else validation")
    add("--images", type=input_folder, metavar="FOLDER", help="where a table's image files lie, if not beside it")
    add("--label", default="label", metavar="FIELD", help="column or field of the classes; default: label")
    add("--names", nargs="+", default=[], type=named_list, metavar="LANG=FILE",
        help="of the classes: one per line, label<TAB>name, JSON; default: label_cn.txt, else labels")  # fmt: skip
    add("--templates", nargs="+", default=[], type=named_list, metavar="LANG=FILE",
        help="texts with {} for the name, one per line, or JSON; default: our own in zh and en")  # fmt: skip
    add("--linear-probe", nargs="*", type=source, metavar="PATH",
        help="also a logistic regression on embeddings of these; default: --data's train split")  # fmt: skip
    add("--threshold", type=threshold, metavar="COSINE",
        help="below it a picture gets no answer; default: that of tools/calibrate.py, if it was run")  # fmt: skip
    add("--check", action="store_true", help="only read the data, and report what is wrong with them")
    add("--name", type=file_name, help="of the files written; default: the data's")
    add("--output", type=output_folder, metavar="FOLDER", help="default: <run>/classification, else classification")
    add("--json", type=output_file, metavar="FILE", help="also write the record to this file")
    add("--no-cache", action="store_true", help="do not keep embeddings in the output folder")


def run(args: argparse.Namespace) -> int:
    if not (args.checkpoint or args.check):
        raise ValueError("give --checkpoint, or --check")
    if (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code

    from ernie_vil2.data.readers.labelled import open_labelled
    from ernie_vil2.evaluation.classification import remarks
    from ernie_vil2.evaluation.prompts import choose_templates, repeated

    options = {"names": dict(args.names), "label": args.label, "images": args.images}
    labelled = open_labelled(args.data, split=args.split, **options)
    given = dict(args.templates)
    templates = choose_templates(labelled, given)
    if args.check:
        return _check(labelled)
    notes = [
        f"{len(own)} templates in {language}: {given.get(language, 'our own')}" for language, own in templates.items()
    ]
    notes += [
        f"templates in {language} that stand several times, and count so: {', '.join(same)}"
        for language, own in templates.items()
        if (same := repeated(own))
    ]
    notes += remarks(labelled)
    training = None
    if args.linear_probe is not None:
        # Class folders have a train split; without one, nobody wants to train on what is scored.
        training = open_labelled(args.linear_probe or args.data, split=None if args.linear_probe else "train",
                                 default="train", **options)  # fmt: skip
    return _score(args, labelled, templates, training, notes)


def _check(labelled) -> int:
    from tqdm import tqdm

    from ernie_vil2.evaluation.classification import check_labelled

    with tqdm(total=len(labelled.images), unit="picture", desc="reading", file=sys.stdout) as bar:
        found = check_labelled(labelled, bar.update)
    print("\n".join(found.lines))
    return 0 if found.good else 1


def _score(args: argparse.Namespace, labelled, templates: dict, training, notes: list[str]) -> int:
    import json

    from ernie_vil2.evaluation import results as retrieval_results
    from ernie_vil2.evaluation.classification import encoded_classes, with_prompts
    from ernie_vil2.evaluation.classification_results import (
        classification_record,
        format_table,
        table_rows,
        write_classification,
    )
    from ernie_vil2.evaluation.linear_probe import probe_classes
    from ernie_vil2.io.files import atomic_write
    from ernie_vil2.io.run_folder import run_of

    model, weights = encoding.load(args)
    run = run_of(weights.parent)
    output = args.output or (run / "classification" if run else Path("classification"))
    cache = None if args.no_cache else output / "embeddings"
    encoded = encoding.encode_data(model, with_prompts(labelled, templates), cache)
    trained = training and encoding.encode_data(model, training, cache, "the training part")
    if encoding.RANK != 0:
        return 0
    classes = encoded_classes(labelled, templates, encoded)
    calibration = model.calibration
    scale = calibration.logit_scale if calibration else model.logit_scale
    results = {f"zero-shot, {language}": one for language, one in classes.zero_shot(scale).items()}
    notes = notes + [
        f"{what}: {report}"
        for what, report in (("entries", labelled.rows), ("images", encoded.problems))
        if report.counts or report.remarks
    ]
    least = args.threshold
    if least == CALIBRATED or (least is None and calibration):
        least = encoding.calibrated(model, args.checkpoint, "image_to_text", quiet=True)
        notes.append(calibration.described("image_to_text"))
    if least is not None:
        for label, answers in results.items():
            figures = ", ".join(f"{name} {value:.1f} %" for name, value in answers.above(least).items())
            notes.append(f"{label}, cosines of {least:.3f} or more: {figures}")
    if trained:
        results["linear probe"], said = probe_classes(classes, trained)
        notes += said
    print(f"\n{format_table(table_rows(results))}\n")
    print(f"model {args.checkpoint}, data {' '.join(map(str, args.data))}: "
          f"{len(classes.benchmark.images):,} pictures, {len(classes.benchmark.texts):,} classes")  # fmt: skip
    print(*notes, sep="\n")
    data = list(map(str, args.data))
    about = {
        "model": str(args.checkpoint),
        "data": data,
        "places": retrieval_results.places(data),
        "templates": {language: list(own) for language, own in templates.items()},
        "checksums": retrieval_results.checksums([weights, *labelled.files]),
    }
    name = args.name or retrieval_results.result_name(output, data, filter(None, [args.split]))
    with atomic_write(args.json) if args.json else nullcontext() as aside:  # all of both, or nothing
        if aside:
            record = classification_record(classes, results, notes, about)
            Path(aside).write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")
        written = write_classification(output, name, classes, results, notes, about)
    print("\nwritten:", *written, sep="\n  ")
    return 0
