"""Working examples of every command, for tests that change one argument or one thing around them."""

import argparse
import re
import shutil
from functools import cache
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ernie_vil2 import cli as commands
from experiments.ablation import command as study
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.entailment_data import write_entailment_folder
from tests.support.published_files import json_lines, write_files
from tests.support.rectangles import export_detector
from tests.support.shapes import COLOURS, SHAPES, draw, encode_png, write_tsv

CONFIG = """
Model:
  image: {name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 1, heads: 1}
  text: {name: ernie, width: 32, depth: 1, heads: 1, max_positions: 16}
Data: {train: [IN/val.tar], max_length: 16, workers: 0, text_id: id}
Training: {steps: 1, global_batch: 4, device: cpu}
Evaluation: {every: 0}
Schedule: {warmup_steps: 0}
"""
STUDY = """
title: Shapes
output: IN/study
base: tiny.yaml
baseline: A
models: {A: {config: tiny.yaml, description: captions alone}}
seeds: [0]
groups: [{name: main, models: [A]}]
tests: {val: {data: [IN/val.tar]}}
small: {groups: [main], seeds: [0]}
"""
EMBEDDINGS = {"--embeddings": "IN/embeddings", "--output": "OUT/results"}
ROWS = {"--embeddings": "IN/official", "--annotations": "IN/rows.tsv", "--protocol": "official-rows",
        "--output": "OUT/results"}  # fmt: skip
EXAMPLES = {
    "train": {"--config": "IN/tiny.yaml", "--override": "Training.output=OUT/run"},
    "eval": {"--checkpoint": "IN/model", "--data": "IN/val.tar", "--language": "en", "--output": "OUT/results",
             "--pixel-baseline": "IN/val.tar", "--device": "cpu"},
    "eval check": {"--check": None, "--data": "IN/val.tar", "--language": "en"},
    "eval_retrieval": {"--checkpoint": "IN/model", "--data": "IN/val.tar", "--language": "en",
                       "--output": "OUT/results", "--device": "cpu"},
    "eval_retrieval embeddings": EMBEDDINGS,
    "eval_retrieval rows": ROWS,
    "eval embeddings": EMBEDDINGS,
    "eval rows": ROWS,
    "eval entailment": {"--checkpoint": "IN/classifier", "--data": "IN/snli-ve", "--output": "OUT/results",
                      "--device": "cpu"},
    "eval entailment check": {"--data": "IN/snli-ve", "--check": None, "--split": "test"},
    "embed": {"--checkpoint": "IN/model", "--data": "IN/val.tar", "--language": "en", "--output": "OUT/embeddings",
              "--cache": "OUT/cache", "--device": "cpu"},
    "embed unpaired": {"--checkpoint": "IN/model", "--images": "IN/photos", "--texts": "IN/words.txt",
                       "--output": "OUT/embeddings", "--device": "cpu"},
    "eval_classification": {"--checkpoint": "IN/model", "--data": "IN/classes", "--split": "test",
                            "--names": "en=IN/names.txt", "--templates": "en=IN/templates.txt",
                            "--linear-probe": "IN/classes", "--output": "OUT/results", "--device": "cpu"},
    "eval_classification table": {"--checkpoint": "IN/model", "--data": "IN/labels.csv", "--images": "IN/drawings",
                                  "--threshold": "0.1", "--json": "OUT/figures.json", "--output": "OUT/results",
                                  "--device": "cpu"},
    "calibrate": {"--checkpoint": "IN/model", "--data": "IN/val.tar", "--language": "en", "--device": "cpu"},
    "interpolate": {"first": "IN/model", "others": "IN/run", "--alpha": ["0", "1"], "--new": "IN/val.tar",
                    "--old": "IN/val.tar", "--write": "OUT/mixed", "--output": "OUT/interpolation", "--device": "cpu"},
    "compare": {"models": ["first=IN/model", "second=IN/model"], "--embeddings": "third=IN/embeddings",
                "--data": "IN/val.tar", "--language": "en", "--pixel-baseline": "IN/val.tar", "--resamples": "50",
                "--output": "OUT/comparison", "--device": "cpu"},
    "search build": {"action": "build", "--index": "OUT/index", "--checkpoint": "IN/model", "--data": "IN/val.tar",
                     "--texts": "IN/words.txt", "--device": "cpu"},
    "search query": {"action": "query", "--index": "IN/index", "--file": "IN/words.txt", "--device": "cpu"},
    "search check": {"action": "check", "--index": "IN/index"},
    "report": {"--run": "IN/run", "--data": "IN/val.tar", "--output": "OUT/report.html", "--queries": "2"},
    "study": {"study": "IN/study.yaml", "--report": None, "--output": "OUT/study"},
    "study results": {"--results": "IN/results.json", "--output": "OUT/study"},
    "plan": {"--config": "IN/tiny.yaml", "--ranks": "1", "--device": "cpu", "--json": "OUT/plan.json"},
    "plan measured": {"--config": "IN/tiny.yaml", "--ranks": "1", "--device": "cpu", "--step-seconds": "0.5"},
    "curate": {"--data": "IN/val.tar", "--output": "OUT/curated", "--config": "IN/curate.yaml", "--processes": "1"},
    "prepare": {"input": "IN/val.tar", "--output": "OUT/shards", "--tags": "IN/tags.jsonl", "--processes": "1"},
    "prepare check": {"input": "IN/val.tar", "--check": None},
    "tag file": {"way": "file", "input": "IN/val.tar", "--tags": "IN/tags.jsonl", "--output": "OUT/tags.jsonl"},
    "tag detector": {"way": "detector", "input": "IN/val.tar", "--model": "IN/detector", "--classes": "en",
                     "--attributes": "en=IN/colours.txt", "--device": "cpu", "--output": "OUT/tags.jsonl"},
    "tag lexicon": {"way": "lexicon", "input": "IN/val.tar", "--checkpoint": "IN/model", "--words": "en=IN/words.txt",
                    "--templates": "en=IN/templates.txt", "--output": "OUT/tags.jsonl", "--device": "cpu"},
    "convert": {"source": "IN/model", "target": "OUT/converted", "--to": "paddlenlp"},
    "export": {"checkpoint": "IN/model", "folder": "OUT/exported", "--to": "onnx", "--data": "IN/val.tar"},
    "trim": {"model": "IN/model", "--keep": "en", "--texts": "IN/words.txt", "--held-out": "IN/words.txt",
             "--output": "OUT/trimmed"},
    "trim words": {"--data": "IN/val.tar", "--output": "OUT/vocabulary.txt"},
}  # fmt: skip
"""Command -> arguments with which it succeeds; the second word tells the examples of a command apart."""


@pytest.fixture(scope="session")
def inputs(tmp_path_factory, shapes):
    """Make the folder that `IN` means."""
    folder = tmp_path_factory.mktemp("inputs")
    discs = [encode_png(draw(COLOURS["red"][0], "disc", np.random.default_rng(copy))) for copy in range(5)]
    bars = [encode_png(draw(COLOURS["red"][0], "bar", np.random.default_rng(copy))) for copy in range(5)]
    tags = [{"id": f"{colour}-{shape}-2-0", "tags": [colour]} for colour, shape in product(COLOURS, SHAPES)]
    write_files(folder, {
        "val.tar": shapes["val"].read_bytes(),
        "tiny.yaml": CONFIG.replace("IN", str(folder)),
        "study.yaml": STUDY.replace("IN", str(folder)),
        "curate.yaml": "text_rules: {characters: 2, words: 2}\nimage_rules: {short_side: 8}\n",
        "words.txt": "disc\nsquare\nbar\ncross\n",
        "templates.txt": "a {}\n",
        "colours.txt": "red\ngreen\nblue\n",
        "tags.jsonl": json_lines(*tags),
        "run/log.jsonl": "",
        "names.txt": "bar\tred bar\ndisc\tred disc\n",
        "labels.csv": "image,label\nbar.png,bar\ndisc.png,disc\n",
        "drawings/disc.png": discs[0],
        "drawings/bar.png": bars[0],
        "photos/disc.png": discs[0],
        "classes/test/disc/0.png": discs[0],
        "classes/test/bar/0.png": bars[0],
        **{f"classes/train/disc/{copy}.png": image for copy, image in enumerate(discs)},
        **{f"classes/train/bar/{copy}.png": image for copy, image in enumerate(bars)},
    })  # fmt: skip
    export_detector(folder / "detector")
    write_untrained_checkpoint(folder / "model")
    write_untrained_checkpoint(folder / "classifier", task="entailment")
    write_entailment_folder(folder / "snli-ve")
    (folder / "run" / "checkpoints").mkdir()
    (folder / "run" / "checkpoints" / "step_00000001").symlink_to(folder / "model")
    write_tsv(folder / "rows.tsv", [(f"a {colour} disc", colour, discs[0]) for colour in COLOURS])
    for layout, name, data in (("numpy", "embeddings", "val.tar"), ("official", "official", "rows.tsv")):
        changes = {"--data": f"IN/{data}", "--format": layout, "--output": f"IN/{name}"}
        assert run_example("embed", changes, folder, folder / "out") == 0
    assert run_example("search build", {"--index": "IN/index"}, folder, folder / "out") == 0
    assert run_example("study", {}, folder, folder / "out") == 0
    shutil.copy(folder / "out" / "study" / "results.json", folder)
    return folder


RESUMABLE_FILES = re.compile(
    r"/run.lock$|/index/|/shards/.prepare/|/\.curate/|/\d+.tar$|tags.jsonl.partial$|/(?:embeddings|cache)/[0-9a-f]{32}/\w+-[0-9a-f]{32}.safetensors$"
)
"""Files that a failed command leaves, so that it can go on from them."""


@cache
def list_options(example: str) -> dict[str, argparse.Action]:
    """Return the arguments of an example's command or subcommand that take a value, with their actions."""
    parser = commands.make_parser(resolve_command(example))
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parser = action.choices[EXAMPLES[example][action.dest]]

    actions = {}
    for action in parser._actions:
        if action.nargs != 0:  # flags take no value
            name = action.option_strings[-1] if action.option_strings else action.dest
            actions[name] = action
    return actions


def resolve_command(example: str) -> str | ModuleType:
    """Return the command of an example as `commands.run` takes it: a name, or a module of the experiments."""
    name = example.split()[0]
    return study if name == "study" else name


def run_example(example: str, changes: dict[str, str | list[str] | None], inputs: Path, out: Path) -> int:
    """Run an example with other values of some arguments (None: without a value), and return its exit code."""
    positional, options = [], []
    for argument, value in (EXAMPLES[example] | changes).items():
        if value is None:
            values = []
        elif isinstance(value, str):
            values = [value]
        else:
            values = value
        if argument.startswith("-"):
            options += [argument, *values]
        else:
            positional += values
    arguments = [text.replace("IN", str(inputs)).replace("OUT", str(out)) for text in positional + options]
    return commands.run(resolve_command(example), arguments)


@pytest.fixture
def command(inputs, tmp_path, monkeypatch):
    """Return `run_example` as `command(example, {argument: value})`, within a folder of this test, which is `OUT`."""
    monkeypatch.chdir(tmp_path)
    return lambda example, changes, out=tmp_path: run_example(example, changes, inputs, out)
