"""Write report.html for a run, or for several side by side: tables by data set, curves, and a few queries.

python tools/report.py --run runs/emoji --data demo_data/emoji-test.tar
python tools/report.py --run runs/first runs/second@best --data demo_data/emoji-test.tar --output comparison.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_vil2.cli import rewrite_commands
from ernie_vil2.cli.arguments import (
    add_import_option,
    add_precision_option,
    add_source_argument,
    add_source_options,
    count,
    make_data_spec,
    output_file,
    run_folder,
    whole_number,
)
from ernie_vil2.device.extras import MissingPackage

if TYPE_CHECKING:
    from ernie_vil2.config import Config
    from ernie_vil2.evaluation.report_page import ChangeSummary, ReportedRun
    from ernie_vil2.pages import Card
    from ernie_vil2.section import Precision

# Loss of mean recall on the old task, in points, from which the command advises to mix the weights.
FORGETTING = 1.0
# Images of the initial model's validation data that are scored: about a minute of a CPU for small models. With more, a
# report takes long.
MAX_OLD_IMAGES = 2_000
# Training samples whose captions are looked up among the test texts. A user's own data have fewer; reading more takes
# long.
MAX_TRAINING_SAMPLES = 100_000
# Errors of data and weights that a run names. They may have moved, or need a package that this machine lacks; the page
# is then written without what they would add.
_UNUSABLE = (OSError, ValueError, MissingPackage)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ernie-vil2 report`."""
    parser.add_argument("--run", action="extend", nargs="+", required=True, type=run_folder, metavar="RUN",
                        help="run folders; answers are those of the checkpoint that was scored after training, else "
                        "of the newest; RUN@best and RUN@newest name another")  # fmt: skip
    add_source_options(parser, "--data", "FILE", "data of the queries and answers to show; default: none are shown")
    add_precision_option(parser)
    add_import_option(parser)
    add_source_argument(parser, "--old", "FILE",
                        "data of what the model could do before its training: scored with the weights before and after "
                        "it, for the verdict; default: Data.val of the run that made the initial weights")  # fmt: skip
    parser.add_argument("--queries", type=count, default=12,
                        help="number of captions to show, each in every language of the run (default 12)")  # fmt: skip
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of the choice of captions (default 0)")
    parser.add_argument("--output", type=output_file, metavar="FILE",
                        help="page to write; default: report.html in the folder of the first run")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run `ernie-vil2 report` and return its exit code."""
    from ernie_vil2.config import load_config
    from ernie_vil2.evaluation.report_page import ReportedRun, read_evaluations, write_run_report
    from ernie_vil2.io.run_folder import CONFIG, LOG, RESULTS, find_run_folder
    from ernie_vil2.training.run_log import describe_config, describe_progress, read_log

    # Figures are read from the files that evaluations have left in the run. Only answers are computed here, by one
    # checkpoint of each run.
    checkpoints = list(map(_choose_checkpoint, args.run))
    folders = [
        find_run_folder(checkpoint) or Path(path) for checkpoint, path in zip(checkpoints, args.run, strict=True)
    ]
    runs: list[ReportedRun] = []
    card_lists: list[list[Card]] = []  # one for each run and language
    licences, thumbnails = set[str](), dict[str, bytes]()
    for checkpoint, folder, name in zip(checkpoints, folders, _name_runs(args.run, folders), strict=True):
        # The configuration may come from somebody else: it must not import modules.
        config = load_config(checkpoint / CONFIG, is_untrusted=True)
        records = read_log(folder / LOG)
        facts = {"Answers of" if args.data else "Checkpoint": checkpoint.name}
        if trained_model := _read_result_after(folder).get("model"):
            facts["Scored after training"] = f"{Path(trained_model).name}, the best of its evaluations"
        facts |= describe_config(config) | describe_progress(config, records)

        # A fine-tuning has scored its test data before and after; other runs have nothing to compare.
        changes, verdict_sentences, headline, key_figure = _compare_before_and_after(args, folder, config)
        image_ids = set[str]()
        for summary in changes.values():
            image_ids.update(summary.image_ids)
        thumbnails |= _make_thumbnails(config, image_ids)

        evaluations = read_evaluations(folder / RESULTS)
        runs.append(
            ReportedRun(
                name,
                config,
                facts,
                records,
                evaluations,
                changes=changes,
                verdict_sentences=verdict_sentences,
                headline=headline,
                key_figure=key_figure,
            )
        )
        if args.data:
            card_lists += _make_cards(args, checkpoint, config, [name] if len(folders) > 1 else [], licences)

    # All runs and languages draw the same captions: show the cards of a caption next to each other. A run without one
    # of the languages has fewer cards.
    cards = []
    for row in range(args.queries):
        cards += [card_list[row] for card_list in card_lists if row < len(card_list)]
    queries, page_facts = {}, {}
    if cards:
        checkpoint_names = ", ".join(dict.fromkeys(checkpoint.name for checkpoint in checkpoints))
        queries[f"{' '.join(map(str, args.data))}, {checkpoint_names}"] = cards
    if licences:
        page_facts["Licence of the images"] = ", ".join(sorted(licences))
    output = Path(args.output or folders[0] / "report.html")
    write_run_report(
        output,
        title=f"ERNIE-ViL 2.0: {' and '.join(run.name for run in runs)}",
        runs=runs,
        queries=queries,
        facts=page_facts,
        thumbnails=thumbnails,
    )
    for reported_run in runs:
        if reported_run.headline:
            print(reported_run.headline)
    print(f"report: {output.resolve()}, with answers of {', '.join(map(str, checkpoints))}")
    return 0


def _choose_checkpoint(run: str) -> Path:
    """Return the checkpoint whose answers are shown: the one that `run` names or, of a run, the one it was scored by.

    A fine-tuning scores the best of its checkpoints, whose figures the page then shows. It is not always the newest.
    """
    from ernie_vil2.io.run_folder import CHECKPOINTS
    from ernie_vil2.models.weights.format import find_weights

    checkpoint = find_weights(run).parent
    folder = Path(run)
    if (folder / CHECKPOINTS).is_dir():
        scored = folder / CHECKPOINTS / Path(_read_result_after(folder).get("model", checkpoint)).name
        if scored.is_dir():
            return scored
    return checkpoint


def _compare_before_and_after(
    args: argparse.Namespace, folder: Path, config: Config
) -> tuple[dict[str, ChangeSummary], list[str], str, str]:
    """Compare the results of a run before and after training.

    Returns:
        Won and lost queries by language and direction, sentences on how certain the changes are, a headline, and its
        figures in a few words; all empty if a result is missing.
    """
    from ernie_vil2.evaluation.report_page import (
        compare_rank_files,
        find_trained_queries,
        format_key_figure,
        make_headline,
        read_changes,
    )
    from ernie_vil2.io.run_folder import AFTER, BEFORE, RESULTS

    rank_files = {name: folder / RESULTS / f"{name}.csv" for name in (BEFORE, AFTER)}
    needed_files = list(rank_files.values())
    if args.old:
        needed_files.append(folder / RESULTS / f"{AFTER}.json")
    missing_files = [path for path in needed_files if not path.is_file()]
    if missing_files and args.old:
        raise ValueError(
            f"--old {' '.join(map(str, args.old))}: there is no {missing_files[0]}, which a fine-tuning leaves, to "
            "compare with"
        )
    if missing_files:
        return {}, [], "", ""

    # What the model could do before: the user's data of it, or those that the initial weights were validated on.
    if args.old:
        old_changes = _score_old(args, folder, config)
    else:
        old_changes = _score_initial_run(args, folder, config)
    try:
        changes = read_changes(rank_files[BEFORE], rank_files[AFTER])
        comparison = compare_rank_files(rank_files)
        if comparison is None:
            return changes, [], "", ""
        # Test texts that were trained on may have been memorised: the headline tells their gain from that of the
        # others.
        trained_queries = None
        trained_texts = _read_trained_texts(config)
        if trained_texts is not None:
            trained_queries = find_trained_queries(rank_files[BEFORE], trained_texts)
        headline = make_headline(comparison, old_changes, trained_queries)
        return changes, comparison.sentences, headline, format_key_figure(comparison)
    except (OSError, ValueError) as error:
        print(f"warning: {error}; won and lost queries are left out", file=sys.stderr)
        return {}, [], "", ""


def _score_old(args: argparse.Namespace, folder: Path, config: Config) -> dict[str, float]:
    """Return how mean recall on the data of --old changed by the training, by data and language."""
    from ernie_vil2.evaluation.compare import compare_models
    from ernie_vil2.io.run_folder import AFTER, BEFORE

    if config.Model.weights is None:
        raise ValueError(f"{folder} was trained from random weights: --old has nothing to compare with")
    models = {BEFORE: config.Model.weights, AFTER: _read_result_after(folder)["model"]}
    run_settings = {"preferred_languages": config.Views.languages, "text_id": config.Data.text_id}
    data = make_data_spec(args, args.old, default_split="test", **run_settings)
    if args.data:  # the options on tables apply to --data
        data = replace(data, images=None, columns=None, encoding=None)
    # Few resamples: only the means are used.
    result = compare_models(models, data, resamples=100, precision=args.precision)

    data_name = " ".join(map(str, args.old))
    changes = {}
    for verdict in result.comparison.verdicts:
        in_language = f" in {verdict.result}" if verdict.result else ""
        changes[f"{data_name}{in_language}"] = verdict.difference.mean
    _advise_on_forgetting(args, changes, models[BEFORE], models[AFTER], data_name)
    return changes


def _score_initial_run(args: argparse.Namespace, folder: Path, config: Config) -> dict[str, float]:
    """Return how mean recall changed on the validation data of the run that made the initial weights.

    Returns:
        The change by data and language. Empty if the initial weights come from no run, or, with a warning, if its data
        cannot be scored.
    """
    from ernie_vil2.config import load_config
    from ernie_vil2.io.run_folder import CONFIG, resolve_checkpoint

    initial = config.Model.weights
    if not initial:
        return {}
    try:
        checkpoint = resolve_checkpoint(initial) or Path(initial)
        if not (checkpoint / CONFIG).is_file():
            return {}
        initial_config = load_config(checkpoint / CONFIG, is_untrusted=True)
        validation = initial_config.Data.val_config
        # This configuration came with the weights: nothing is fetched, run or imported because of it.
        if validation is None or validation.layout or any(map(_is_remote, validation.data)):
            return {}
        trained = _read_result_after(folder)["model"]
        changes = _measure_recall_change(initial_config, str(initial), trained, args.precision)
    except (*_UNUSABLE, KeyError) as error:
        print(
            f"warning: what {initial} could do before is not scored ({error}); name its data with --old",
            file=sys.stderr,
        )
        return {}

    data_name = " ".join(validation.data)
    changes_by_name = {}
    for language, change in changes.items():
        in_language = f" in {language}" if language else ""
        changes_by_name[f"{data_name} (Data.val of {initial}){in_language}"] = change
    _advise_on_forgetting(args, changes_by_name, str(initial), trained, data_name)
    return changes_by_name


def _measure_recall_change(
    initial_config: Config, initial: str, trained: str, precision: Precision
) -> dict[str, float]:
    """Measure how mean recall differs between two models on the validation data of the first one's run.

    Args:
        initial_config: configuration of the run that made the initial weights.
        initial: the initial weights.
        trained: the weights after training.
        precision: precision of the towers.

    Returns:
        The difference by language; the language is "" if there is only one result.

    Raises:
        OSError: the data or a model cannot be read.
        ValueError: the data or a model cannot be used, or the two models cannot be scored on the same data.
    """
    from ernie_vil2.encoder import load_model
    from ernie_vil2.evaluation.outcomes import Comparison
    from ernie_vil2.evaluation.scorer import run_scorer
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    scorer, data = Retrieval.from_config(initial_config, initial_config.Data.val_config, "val")
    if data is None or not isinstance(scorer, Retrieval):
        return {}
    scorer_input = scorer.open(data)
    # Only the first images and their texts, if there are many.
    benchmarks = dict(scorer_input.benchmarks)
    for language, benchmark in benchmarks.items():
        if len(benchmark.images) > MAX_OLD_IMAGES:
            texts = {text for image, text in benchmark.pairs.tolist() if image < MAX_OLD_IMAGES}
            benchmarks[language] = benchmark.select(range(MAX_OLD_IMAGES), sorted(texts))
    scorer_input = replace(scorer_input, benchmarks=benchmarks)

    # The same queries for both models, so that the difference is one of the weights.
    outcomes = {}
    for name, source in (("before", initial), ("after", trained)):
        report = run_scorer(scorer, load_model(source, device="auto", precision=precision), scorer_input, name)
        outcomes[name] = report.make_outcomes() if report.make_outcomes else {}
    verdicts = Comparison(outcomes, resamples=100).verdicts  # few resamples: only the means are used
    if len(verdicts) == 1:
        return {"": verdicts[0].difference.mean}
    return {verdict.result: verdict.difference.mean for verdict in verdicts}


def _advise_on_forgetting(
    args: argparse.Namespace, changes: Mapping[str, float], initial: str, trained: str, data: str
) -> None:
    """Print what to do if mean recall on the old task has fallen."""
    if not changes or min(changes.values()) >= -FORGETTING:
        return
    command = f"ernie-vil2 interpolate {initial} {trained} --alpha 0 0.1 ... 1 --old {data} --new ..."
    print(
        f"mixed weights forget less: {rewrite_commands(command, args.prog)}; training on some of the old data as well "
        "forgets least (docs/finetuning.md)"
    )


def _is_remote(path: str) -> bool:
    """Return whether data must be fetched, or are the output of a command."""
    return "://" in path or path.startswith("pipe:")


def _read_trained_texts(config: Config) -> set[str] | None:
    """Return the captions that a run was trained on; None if they are not on this machine, or too many."""
    from ernie_vil2.data.stream import SampleStream

    for source in config.Data.sources:
        if any(map(_is_remote, source.data)):
            return None  # a report fetches no training data
    try:
        texts, is_complete = SampleStream(config).training_texts(MAX_TRAINING_SAMPLES)
    except _UNUSABLE as error:
        print(f"warning: {error}; it is unknown how many test texts were trained on", file=sys.stderr)
        return None
    if not is_complete:
        print(
            "it is unknown how many test texts were trained on: they are looked up in data on this machine with up to "
            f"{MAX_TRAINING_SAMPLES:,} training samples",
            file=sys.stderr,
        )
        return None
    return texts


def _read_result_after(folder: Path) -> dict:
    """Return the record of the result after training; empty if there is none."""
    from ernie_vil2.evaluation.report import RECORD_VERSION
    from ernie_vil2.io.files import check_version, load_json
    from ernie_vil2.io.run_folder import AFTER, RESULTS

    path = folder / RESULTS / f"{AFTER}.json"
    if not path.is_file():
        return {}
    record = load_json(path)
    remedy = "remove it, and continue the run with --resume to score again"
    check_version(record.get("version") if isinstance(record, dict) else None, RECORD_VERSION, path, remedy)
    if not isinstance(record.get("model"), str):
        raise ValueError(f"{path}: not the record of an evaluation; {remedy}")
    return record


def _make_thumbnails(config: Config, image_ids: set[str]) -> dict[str, bytes]:
    """Return thumbnails of images of `Data.test` by their ids; images that cannot be read are left out."""
    from ernie_vil2.data.readers import open_benchmarks
    from ernie_vil2.data.spec import DataSpec
    from ernie_vil2.evaluation.examples import make_thumbnail

    test_config = config.Data.test_config
    if not image_ids or test_config is None:
        return {}
    try:
        benchmarks = open_benchmarks(DataSpec.from_scored(config, test_config, "test")).values()
    except _UNUSABLE as error:
        print(f"warning: {error}; queries are shown without their images", file=sys.stderr)
        return {}
    images = {}
    for benchmark in benchmarks:
        for image in benchmark.images:
            if image.id in image_ids:
                images[image.id] = image
    thumbnails = {}
    for image_id, image in images.items():
        thumbnail = make_thumbnail(image)
        if thumbnail is not None:
            thumbnails[image_id] = thumbnail
    return thumbnails


def _name_runs(paths: list[str], folders: list[Path]) -> list[str]:
    """Return the names of the folders, or if two are equal the paths that the user wrote."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else list(map(str, paths))


def _make_cards(
    args: argparse.Namespace, checkpoint: Path, config: Config, tags: list[str], licences: set[str]
) -> list[list[Card]]:
    """Return the cards of a run for each language, and add the licences of the images to `licences`."""
    from ernie_vil2.data.readers import open_benchmarks
    from ernie_vil2.encoder import load_model
    from ernie_vil2.evaluation.examples import CardMaker, draw_queries
    from ernie_vil2.evaluation.protocol import evaluate, find_protocol

    encoder = load_model(checkpoint, device="auto", precision=args.precision)
    data = make_data_spec(args, preferred_languages=config.Views.languages)
    card_lists = []
    for language, benchmark in open_benchmarks(data).items():
        licences |= {str(image.fields["license"]) for image in benchmark.images if "license" in image.fields}
        evaluation = evaluate(encoder, benchmark, find_protocol("pairs"))
        queries = draw_queries(evaluation.results["text_to_image"], args.queries, args.seed)
        card_tags = [*tags, language] if language else tags
        card_maker = CardMaker(evaluation, language=language, tags=card_tags)
        card_lists.append(card_maker.make_cards("text_to_image", queries))
    return card_lists
