"""Write report.html for a run, or for several side by side: tables by data set, curves, and a dozen queries.

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
    add_precision_option,
    add_source_options,
    add_sources,
    count,
    make_data_spec,
    natural,
    output_file,
    run_folder,
)

if TYPE_CHECKING:
    from ernie_vil2.config import Config
    from ernie_vil2.pages import Card
    from ernie_vil2.section import Precision

FORGOTTEN = 1.0  # points of mean recall on the old task, of which a loss is worth a remark
MOST_OLD_IMAGES = 2_000
"""Images of what the initial model was validated on that are scored. Small models take about a minute of a CPU for
them; with more, a report would take long to come."""
MOST_TRAINING_SAMPLES = 100_000
"""Training samples that are read for their captions, which are looked up among the test texts. Sets of one's own are
smaller; of larger ones a report would take long to come."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", nargs="+", required=True, type=run_folder, metavar="RUN",
                        help="run folders; RUN@best: with the answers of its best checkpoint")  # fmt: skip
    add_source_options(parser, "--data", "FILE", "where queries and answers come from; default: none are shown")
    add_precision_option(parser)
    add_sources(parser, "--old", "FILE", "what the model could do before: scored with both weights, for the verdict; "
                "default: Data.val of the run that the initial weights are of")  # fmt: skip
    parser.add_argument("--queries", type=count, default=12, help="captions shown, each in every language of the run")
    parser.add_argument("--seed", type=natural, default=0, help="which captions are drawn")
    parser.add_argument("--output", type=output_file, metavar="FILE",
                        help="default: report.html in the (first) run folder")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from ernie_vil2.config import load_config
    from ernie_vil2.evaluation.report_page import ReportedRun, read_evaluations, write_run_report
    from ernie_vil2.io.run_folder import CONFIG, LOG, RESULTS, run_of
    from ernie_vil2.models.weights.format import find_weights
    from ernie_vil2.training.run_log import config_facts, progress_facts, read_log

    checkpoints = [find_weights(path).parent for path in args.run]
    folders = [run_of(checkpoint) or Path(path) for checkpoint, path in zip(checkpoints, args.run, strict=True)]
    runs, cards, licences, thumbnails = [], [], set[str](), dict[str, bytes]()
    for checkpoint, folder, name in zip(checkpoints, folders, _names(args.run, folders), strict=True):
        config = load_config(checkpoint / CONFIG, is_strangers=True)
        records = read_log(folder / LOG)
        facts = {"Checkpoint": checkpoint.name}
        if scored := _after(folder).get("model"):
            facts["Scored after training"] = f"{Path(scored).name}, the best of its evaluations"
        facts |= config_facts(config) | progress_facts(config, records)
        changes, verdicts, sentence = _before_and_after(args, folder, config)
        thumbnails |= _thumbnails(config, {image for summary in changes.values() for image in summary.image_ids})
        evaluations = read_evaluations(folder / RESULTS)
        runs.append(ReportedRun(name, config, facts, records, evaluations, changes, verdicts, sentence))
        if args.data:
            cards += _cards(args, checkpoint, config, [name] if len(folders) > 1 else [], licences)
    # Captions are drawn alike by every run and in every language: show them side by side.
    shown = [each[row] for row in range(args.queries) for each in cards if row < len(each)]
    output = Path(args.output) if args.output else folders[0] / "report.html"
    write_run_report(
        output,
        title=f"ERNIE-ViL 2.0: {' and '.join(each.name for each in runs)}",
        runs=runs,
        queries={" ".join(map(str, args.data)): shown} if shown else {},
        facts={"Licence of the images": ", ".join(sorted(licences))} if licences else {},
        thumbnails=thumbnails,
    )
    for each in runs:
        if each.headline:
            print(each.headline)
    print(f"report: {output.resolve()}, with answers of {', '.join(map(str, checkpoints))}")
    return 0


def _before_and_after(args: argparse.Namespace, folder: Path, config: Config) -> tuple[dict, list[str], str]:
    """What changed between the results before and after training, how sure that is, and a sentence that says both;
    nothing if one is missing."""
    from ernie_vil2.evaluation.report_page import compare_rank_files, find_trained_queries, make_headline, read_changes
    from ernie_vil2.io.run_folder import AFTER, BEFORE, RESULTS

    ranks = {when: folder / RESULTS / f"{when}.csv" for when in (BEFORE, AFTER)}
    needed = [*ranks.values(), *[folder / RESULTS / f"{AFTER}.json"] * bool(args.old)]
    if missing := [path for path in needed if not path.is_file()]:
        if args.old:
            raise ValueError(
                f"--old {' '.join(map(str, args.old))}: there is nothing to set it against without "
                f"{missing[0]}, which a fine-tuning leaves"
            )
        return {}, [], ""
    old = _of_old(args, folder, config) if args.old else _of_initial_run(args, folder, config)
    try:
        changes, comparison = read_changes(*ranks.values()), compare_rank_files(ranks)
        if comparison is None:
            return changes, [], ""
        trained_texts = _trained_texts(config)
        trained = None if trained_texts is None else find_trained_queries(ranks[BEFORE], trained_texts)
        return changes, comparison.sentences, make_headline(comparison, old, trained)
    except (OSError, ValueError) as error:
        print(f"warning: {error}; what was won and lost is left out", file=sys.stderr)
        return {}, [], ""


def _of_old(args: argparse.Namespace, folder: Path, config: Config) -> dict[str, float]:
    """Return how mean recall changed from the initial weights to those scored, by the data of `--old` and language."""
    if config.Model.weights is None:
        raise ValueError(f"{folder} was trained from random weights: --old has nothing to compare with")
    from ernie_vil2.evaluation.compare import compare_models
    from ernie_vil2.io.run_folder import AFTER, BEFORE

    models = {BEFORE: config.Model.weights, AFTER: _after(folder)["model"]}
    run_settings = {"preferred_languages": config.Views.languages, "text_id": config.Data.text_id}
    data = make_data_spec(args, args.old, default_split="test", **run_settings)
    if args.data:  # the options on tables are of these
        data = replace(data, images=None, columns=None, encoding=None)
    found = compare_models(models, data, resamples=100, precision=args.precision)
    name = " ".join(map(str, args.old))
    by = {f"{name} in {one.result}" if one.result else name: one.difference.mean for one in found.comparison.verdicts}
    _advise_on_forgetting(args, by, models[BEFORE], models[AFTER], name)
    return by


def _of_initial_run(args: argparse.Namespace, folder: Path, config: Config) -> dict[str, float]:
    """Return how mean recall changed on what the run of the initial weights was validated on, by data and language.

    Nothing where the initial weights are of no run, or where its data are not at hand, which is said.
    """
    from ernie_vil2.config import ConfigError, load_config
    from ernie_vil2.io.run_folder import CONFIG, named_checkpoint

    initial = config.Model.weights
    try:
        checkpoint = initial and (named_checkpoint(initial) or Path(initial))
        if not checkpoint or not (checkpoint / CONFIG).is_file():
            return {}
        before = load_config(checkpoint / CONFIG)
        scored = before.Data.validation
        # The configuration came with the weights: nothing is fetched, run or imported for it.
        if scored is None or scored.layout or any(map(_is_elsewhere, scored.data)):
            return {}
        changes = _change_of_recall(before, str(initial), _after(folder)["model"], args.precision)
    except (OSError, ValueError, ConfigError, KeyError) as error:
        print(
            f"warning: what {initial} could do before is not scored ({error}); name its data with --old",
            file=sys.stderr,
        )
        return {}
    name = " ".join(scored.data)
    by = {
        f"{name} (Data.val of {initial}){f' in {language}' if language else ''}": change
        for language, change in changes.items()
    }
    _advise_on_forgetting(args, by, str(initial), _after(folder)["model"], name)
    return by


def _change_of_recall(before: Config, initial: str, trained: str, precision: Precision) -> dict[str, float]:
    """Return how mean recall changed from one model to another on what the configuration of the first validated by.

    Args:
        before: of the run of the initial weights.
        initial, trained: the two models.
        precision: of their towers.

    Returns:
        The difference by language, "" where the data have one.

    Raises:
        OSError, ValueError: the data or a model cannot be read, or the two cannot be scored alike.
    """
    from ernie_vil2.encoder import load_model
    from ernie_vil2.evaluation.outcomes import Comparison
    from ernie_vil2.evaluation.scorer import run_scorer
    from ernie_vil2.evaluation.scorers.retrieval import Retrieval

    scorer, data = Retrieval.from_config(before, before.Data.validation, "val")
    if data is None or not isinstance(scorer, Retrieval):
        return {}
    opened = scorer.open(data)
    benchmarks = dict(opened.benchmarks)
    for language, benchmark in benchmarks.items():
        if len(benchmark.images) > MOST_OLD_IMAGES:
            texts = sorted({text for image, text in benchmark.pairs.tolist() if image < MOST_OLD_IMAGES})
            benchmarks[language] = benchmark.select(range(MOST_OLD_IMAGES), texts)
    opened = replace(opened, benchmarks=benchmarks)
    outcomes = {}
    for name, source in (("before", initial), ("after", trained)):
        report = run_scorer(scorer, load_model(source, device="auto", precision=precision), opened, name)
        outcomes[name] = report.make_outcomes() if report.make_outcomes else {}
    verdicts = Comparison(outcomes, resamples=100).verdicts
    return {verdict.result if len(verdicts) > 1 else "": verdict.difference.mean for verdict in verdicts}


def _advise_on_forgetting(
    args: argparse.Namespace, changes: Mapping[str, float], initial: str, trained: str, data: str
) -> None:
    if not changes or min(changes.values()) >= -FORGOTTEN:
        return
    command = f"ernie-vil2 interpolate {initial} {trained} --alpha 0 0.1 ... 1 --old {data} --new ..."
    print(
        f"mixed weights keep more of what it could do: {rewrite_commands(command, args.prog)}; and "
        "a run that is trained on some of its old data, too, forgets least (docs/finetuning.md)"
    )


def _is_elsewhere(path: str) -> bool:
    """Return whether data have to be fetched, or are the output of a command."""
    return "://" in path or path.startswith("pipe:")


def _trained_texts(config: Config) -> set[str] | None:
    """Return the captions that a run was trained on; None where they are not at hand or too many."""
    from ernie_vil2.data.stream import SampleStream

    if any(_is_elsewhere(path) for source in config.Data.sources for path in source.data):
        return None  # a report fetches no training data
    try:
        texts, is_complete = SampleStream(config).training_texts(MOST_TRAINING_SAMPLES)
    except (OSError, ValueError) as error:
        print(f"warning: {error}; how many test texts are trained on is not known", file=sys.stderr)
        return None
    if not is_complete:
        print(
            f"how many test texts are trained on is not looked up: that reads up to {MOST_TRAINING_SAMPLES:,} training "
            "samples that lie here",
            file=sys.stderr,
        )
        return None
    return texts


def _after(folder: Path) -> dict:
    """The record of the result after training."""
    from ernie_vil2.evaluation.report import RECORD_VERSION
    from ernie_vil2.io.files import check_version, load_json
    from ernie_vil2.io.run_folder import AFTER, RESULTS

    path = folder / RESULTS / f"{AFTER}.json"
    if not path.is_file():
        return {}
    record = load_json(path)
    check_version(
        record.get("version"), RECORD_VERSION, path, "remove it, and continue the run with --resume to score again"
    )
    return record


def _thumbnails(config: Config, ids: set[str]) -> dict[str, bytes]:
    """Small images of these images of `Data.test`, as far as they can be read."""
    from ernie_vil2.data.readers import open_benchmarks
    from ernie_vil2.data.spec import DataSpec
    from ernie_vil2.evaluation.examples import make_thumbnail

    tested = config.Data.tested
    if not ids or tested is None:
        return {}
    try:
        benchmarks = open_benchmarks(DataSpec.from_scored(config, tested, "test")).values()
    except (OSError, ValueError) as error:
        print(f"warning: {error}; queries are shown without their images", file=sys.stderr)
        return {}
    images = {image.id: image for one in benchmarks for image in one.images if image.id in ids}
    return {name: made for name, image in images.items() if (made := make_thumbnail(image)) is not None}


def _names(given: list[str], folders: list[Path]) -> list[str]:
    """The folders' own names, or where two are alike what was given."""
    names = [folder.resolve().name for folder in folders]
    return names if len({*names}) == len(names) else list(map(str, given))


def _cards(
    args: argparse.Namespace, checkpoint: Path, config: Config, tags: list[str], licences: set[str]
) -> list[list[Card]]:
    """For every language of a run its cards; adds to the licences of the images."""
    from ernie_vil2.data.readers import open_benchmarks
    from ernie_vil2.encoder import load_model
    from ernie_vil2.evaluation.examples import CardMaker, draw_queries
    from ernie_vil2.evaluation.protocol import evaluate, find_protocol

    model = load_model(checkpoint, device="auto", precision=args.precision)
    made = []
    data = make_data_spec(args, preferred_languages=config.Views.languages)
    for language, benchmark in open_benchmarks(data).items():
        licences |= {str(image.fields["license"]) for image in benchmark.images if "license" in image.fields}
        evaluation = evaluate(model, benchmark, find_protocol("pairs"))
        chosen = draw_queries(evaluation.results["text_to_image"], args.queries, args.seed)
        card_maker = CardMaker(evaluation, language=language, tags=[*tags, *filter(None, [language])])
        made.append(card_maker.make_cards("text_to_image", chosen))
    return made
