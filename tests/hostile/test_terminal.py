"""Control sequences in ids, captions, languages and names of files and weights never reach the terminal."""

import json
import unicodedata

import numpy as np
import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.config import dump_config, load_config
from ernie_vil2.models.weights.files import read_weights, write_weights
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.shapes import SPECIAL_TOKENS, draw, encode_png, write_tar

EVIL = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e"  # clears the screen, sets its title and colour, and turns the direction
CONTROL_CATEGORIES = ("Cc", "Cf", "Zl", "Zp")
TOKENS = [*SPECIAL_TOKENS, "a", "red", "disc"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a shard with two bad samples, tags, and models; every text in them is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    members = []
    for row in range(6):
        fields = {"id": f"{row}{EVIL}", f"caption_{EVIL}": f"a red disc {row} {EVIL}", "caption_en": f"a {EVIL} disc"}
        image = encode_png(draw((200, 0, 0), "disc", np.random.default_rng(row))) if row > 1 else b"no image"
        members += [(f"{row}{EVIL}.png", image), (f"{row}{EVIL}.json", json.dumps(fields).encode())]
    write_tar(folder / f"a{EVIL}.tar", members)
    (folder / "tags.jsonl").write_text(json.dumps({"id": f"3{EVIL}", f"tags_{EVIL}": [EVIL], "tags_en": []}))
    (model := folder / f"model{EVIL}").mkdir()
    write_untrained_checkpoint(model, TOKENS)
    write_weights(model / "model.safetensors", read_weights(model / "model.safetensors") | {EVIL: np.zeros(1)})
    languages = {"languages": 1.0, "prompts": "a ", "separators": " "}
    overrides = [f"Views.{key}={json.dumps({EVIL: value, 'en': value})}" for key, value in languages.items()]
    config = load_config(model / "config.yaml", overrides)
    (model / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    # A model that can be loaded: none of its weights has a hostile name.
    (valid := folder / "valid").mkdir()
    write_untrained_checkpoint(valid, TOKENS)
    (valid / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return folder


# A space distinguishes a second example of a command.
COMMANDS = {
    "prepare": ["{data}", "--check", "--text-id", "id"],
    "prepare ": ["{data}", "--output", "{out}", "--tags", "{tags}", "--tags-id", "id"],
    "tag": ["file", "{data}", "--tags", "{tags}", "--tags-id", "id", "--output", "{out}/tags.jsonl"],
    "convert": ["{model}", "{out}/c", "--to", "ernie_vil2"],
    "eval": ["--data", "{data}", "--language", EVIL, "--check"],
    "eval ": ["--checkpoint", "{valid}", "--data", "{data}", "--output", "{out}", "--device", "cpu", "--label", EVIL],
    "embed": ["--checkpoint", "{valid}", "--data", "{data}", "--output", "{out}/e", "--language", EVIL],
    "train": ["--dry-run", "-c", "{valid}/config.yaml", "-o", "Data.train=[{quoted}]", "-o", "Training.device=cpu",
              "-o", "Training.output={plain}/r", "-o", "Training.global_batch=4"],
    "plan": ["-c", "{valid}/config.yaml", "-o", EVIL, "--ranks", "1", "--device", "cpu"],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_control_sequences_are_printed_escaped(folder, tmp_path, capfd, command):
    data = folder / f"a{EVIL}.tar"
    names = {"data": data, "quoted": json.dumps(str(data)), "tags": folder / "tags.jsonl", "valid": folder / "valid",
             "model": folder / f"model{EVIL}", "plain": tmp_path, "out": tmp_path / EVIL}  # fmt: skip
    (tmp_path / EVIL).mkdir()
    arguments = [argument.format(**names) for argument in COMMANDS[command]]
    commands.run(command.strip(), arguments)
    output = "".join(capfd.readouterr())
    control_characters = {character for character in output if unicodedata.category(character) in CONTROL_CATEGORIES}
    assert control_characters <= set("\n\r\t") and "\\u001b[2J" in output, output
