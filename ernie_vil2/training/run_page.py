"""`curves.html` of a run folder: one page that opens without a server and loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

from ernie_vil2.config import Config
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.io.files import load_json
from ernie_vil2.pages import speed_charts, training_charts, write_page
from ernie_vil2.training.run_log import read_log

PAGE = "curves.html"


def write_run_page(run: Path, config: Config, bad_samples: BadSampleReport) -> None:
    """Writes the page from the run's log: facts, losses, scores, schedule, speed, and what could not be used.

    As the log of a resumed run goes on where the interrupted one was, so do the curves.

    Args:
        run: the run folder, with its `log.jsonl` and `environment.json`.
        config: the resolved configuration.
        bad_samples: of all ranks.
    """
    records = read_log(run / "log.jsonl")
    environment = load_json(run / "environment.json")
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    facts = {
        **config_facts(config),
        **progress_facts(config, records),
        "Versions": versions,
        "Git revision": environment["git"] or "not a checkout",
    }
    write_page(
        run / PAGE,
        "run.html",
        title=f"ERNIE-ViL 2.0: {run.name}",
        facts=facts,
        training=training_charts(records),
        speed=speed_charts(records),
        bad_samples=bad_samples,
    )


def config_facts(config: Config) -> dict[str, str]:
    """Names and values of what a run trains, for the head of a page."""
    return {
        "Task": config.Training.task.replace("_", " "),
        "Towers": f"{config.Model.image.name} ({config.Model.image.image_size} px), {config.Model.text.name}",
        "Training data": ", ".join(source.name for source in config.Data.sources),
        "Languages": ", ".join(config.Views.languages),
        "Global batch": f"{config.Training.global_batch:,} samples",
    }


def progress_facts(config: Config, records: Sequence[Mapping]) -> dict[str, str]:
    """How far a run has come and how fast; empty before its first log record."""
    train = [record for record in records if record["kind"] == "train"]
    if not train:
        return {}
    return {
        "Steps": f"{train[-1]['step']:,} of {config.Training.steps:,}",
        "Training time": f"{train[-1]['seconds'] / 60:.1f} minutes",
        "Throughput": f"{median(record['samples_per_second'] for record in train):,.0f} samples a second (median)",
        "Loader wait": f"{fmean(record['loader_wait'] for record in train):.1%} of the time",
    }
