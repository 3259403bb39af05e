"""Configurations, vocabularies and lists that are damaged, hostile, or none."""

import os
from functools import partial
from pathlib import Path

from ernie_vil2.config import load_config
from ernie_vil2.data.source_files import read_json, read_numbered_lines
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import read_vocabulary
from tests.hostile.bad_input.case import Case, file


def config(input, text, stopped):
    return Case(input, file("a.yaml", text), stopped=stopped, opened=load_config)


def handed_over(input, text, stopped):
    """The configuration of a model, run or export of somebody else."""
    opened = partial(load_config, is_untrusted=True)
    return Case(input, file("a.yaml", text), stopped=stopped, opened=opened)


def annotations(input, make, stopped):
    return Case(input, make, stopped=stopped, opened=lambda path: read_json(Path(path), list))


def endless(input, opened):
    return Case(input, lambda folder: Path("/dev/zero"), stopped=DEVICE, opened=opened)


def read_lines(path):
    return list(read_numbered_lines(Path(path)))


def pipe(name):
    """`make` of a pipe that nobody writes to."""
    return lambda folder: os.mkfifo(folder / name) or folder / name


def hole(name):
    """`make` of a file of 64 GB, which takes no room on the disk."""

    def make(folder):
        (folder / name).touch()
        os.truncate(folder / name, 2**36)
        return folder / name

    return make


LAUGHS = "Training:\n steps:\n  - &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
    f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
MERGES = "a: &a0 {x: 1}\n" + "".join(f"b{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
VALUES = "more than 100,000 values"
DEVICE = "not an ordinary file; write what the pipe or device gives to a disk"

CASES = [
    handed_over("YAML of 600 bytes whose aliases mean 10^9 values", LAUGHS, VALUES),
    handed_over("YAML whose merges mean 10^12 keys", MERGES, VALUES),
    handed_over("YAML alias within what it means", "a: &a [*a]\n", VALUES),
    handed_over("YAML of 100,000 brackets", "[" * 100_000, "not valid YAML"),
    handed_over("YAML number of 5,000 digits", f"Training: {{steps: {'7' * 5000}}}",
                "a number of more than 100 digits"),
    config("YAML tag that its value does not fit", "a: !!bool x", "not valid YAML"),
    Case("source of fewer samples than `Data.groups`", file("a.tsv", "x\t1\tAAAA\n"),
         stopped="1 sample for 2 groups; lower Data.groups",
         opened=lambda path: SampleStream(load_config(None, [f"Data.train=[{path}]", "Data.groups=2"]))),
    config("YAML section that occurs twice", "Training: {steps: 7}\nLoss: {}\nTraining: {seed: 1}\n",
           "the key Training occurs twice, in lines 1 and 3"),
    config("YAML key of 100,000 characters", f"? {'k' * 100_000}\n: 1\n", "unknown key kkk"),
    config("YAML text where a number belongs, of 500,000 characters", f"Training: {{steps: '{'x' * 500_000}'}}",
           "Input should be a valid integer"),
    config("configuration of more than 1,048,576 characters", "# " + "x" * 2**20, "more than 1,048,576 characters"),
    endless("configuration without an end (/dev/zero)", load_config),
    endless("vocabulary without an end (/dev/zero)", read_vocabulary),
    endless("annotations without an end (/dev/zero)", read_lines),
    Case("list of more than 16,777,216 characters", hole("a.txt"), stopped="more than 16,777,216 characters"),
    Case("pipe named x.txt as list", pipe("a.txt"), stopped=DEVICE),
    annotations("JSON file of more than 16,777,216 values", file("a.json", "[" + "[]," * 9_000_000 + "0]"),
                "more than 16,777,216 values"),
    annotations("JSON file of more than 256 MiB", hole("a.json"), "more than 268,435,456 characters"),
    Case("line of more than 4 MiB in annotations", hole("a.txt"), opened=read_lines,
         stopped="a.txt:1: a line of more than 4194304 bytes"),
]  # fmt: skip
