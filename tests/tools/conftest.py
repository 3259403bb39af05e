"""Examples of every command that work, for tests that change one argument or one thing around them."""

import json
from pathlib import Path

import pytest

from ernie_vil2 import commands
from tests.conftest import COLOURS, SHAPES, untrained_checkpoint
from tests.tagging.rectangles import export

CONFIG = """
Model:
  image: {name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 1, heads: 1}
  text: {name: ernie, width: 32, depth: 1, heads: 1, max_positions: 16}
Data: {train: [IN/val.tar], max_length: 16, workers: 0, text_id: id}
Training: {steps: 1, global_batch: 4, device: cpu}
Evaluation: {every: 0}
Schedule: {warmup_steps: 0}
"""
EXAMPLES = {
    "train": {"--config": "IN/tiny.yaml", "--override": "Training.output=OUT/run"},
    "eval": {"--checkpoint": "IN/model", "--data": "IN/val.tar", "--language": "en", "--output": "OUT/results",
             "--pixel-baseline": "IN/val.tar", "--device": "cpu"},
    "eval check": {"--check": None, "--data": "IN/val.tar", "--language": "en"},
    "eval embeddings": {"--embeddings": "IN/embeddings", "--output": "OUT/results"},
    "eval rows": {"--embeddings": "IN/official", "--protocol": "official-rows", "--output": "OUT/results"},
    "embed": {"--checkpoint": "IN/model", "--data": "IN/val.tar", "--language": "en", "--output": "OUT/embeddings",
              "--cache": "OUT/cache", "--device": "cpu"},
    "report": {"--run": "IN/run", "--data": "IN/val.tar", "--output": "OUT/report.html", "--queries": "2"},
    "plan": {"--config": "IN/tiny.yaml", "--ranks": "1", "--device": "cpu", "--json": "OUT/plan.json"},
    "prepare": {"input": "IN/val.tar", "--output": "OUT/shards", "--tags": "IN/tags.jsonl", "--processes": "1"},
    "prepare check": {"input": "IN/val.tar", "--check": None},
    "tag file": {"input": "IN/val.tar", "--tags": "IN/tags.jsonl", "--output": "OUT/tags.jsonl"},
    "tag detector": {"input": "IN/val.tar", "--model": "IN/detector", "--classes": "en", "--output": "OUT/tags.jsonl",
                     "--attributes": "en=IN/colours.txt", "--device": "cpu"},
    "tag lexicon": {"input": "IN/val.tar", "--checkpoint": "IN/model", "--words": "en=IN/words.txt",
                    "--templates": "en=IN/templates.txt", "--output": "OUT/tags.jsonl", "--device": "cpu"},
    "convert": {"source": "IN/model", "target": "OUT/converted", "--to": "paddlenlp"},
    "trim_vocabulary": {"--data": "IN/val.tar", "--output": "OUT/vocabulary.txt"},
}  # fmt: skip
"""Command -> arguments that it ends well with; the second word is its subcommand, or tells its examples apart."""


@pytest.fixture(scope="session")
def inputs(tmp_path_factory, shapes):
    """The folder that `IN` stands for."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "val.tar").write_bytes(shapes["val"].read_bytes())
    (folder / "tiny.yaml").write_text(CONFIG.replace("IN", str(folder)))
    for name, lines in {
        "words.txt": SHAPES, "templates.txt": ["a {}"], "colours.txt": ["red", "green", "blue"],
        "tags.jsonl": [json.dumps({"id": f"{colour}-{shape}-2-0", "tags": [colour]}) for colour in COLOURS
                       for shape in SHAPES],
    }.items():  # fmt: skip
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    export(folder / "detector")
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", *COLOURS, *SHAPES]
    (folder / "model").mkdir()
    untrained_checkpoint(folder / "model", tokens)
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "run" / "checkpoints" / "step_00000001").symlink_to(folder / "model")
    (folder / "run" / "log.jsonl").touch()
    for layout, name in (("numpy", "embeddings"), ("official", "official")):
        embed = ["embed", "--checkpoint", "IN/model", "--data", "IN/val.tar", "--language", "en", "--device", "cpu"]
        made = [argument.replace("IN", str(folder)) for argument in embed]
        assert commands.run(made[0], [*made[1:], "--format", layout, "--output", str(folder / name)]) == 0
    return folder


@pytest.fixture
def command(inputs, tmp_path, monkeypatch):
    """`command(example, {argument: value})`: runs an example with changes and returns its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(example: str, changes: dict[str, str | None], out: Path = tmp_path) -> int:
        arguments = EXAMPLES[example] | changes
        name, *way = example.split()
        positional = [value for argument, value in arguments.items() if not argument.startswith("-")]
        options = [part for argument, value in arguments.items() if argument.startswith("-")
                   for part in ([argument] if value is None else [argument, value])]  # fmt: skip
        given = [*(way if name == "tag" else []), *positional, *options]
        return commands.run(name, [text.replace("IN", str(inputs)).replace("OUT", str(out)) for text in given])

    return run
