"""Cases of configurations, vocabularies and lists that are damaged or hostile."""

import os
from functools import partial
from pathlib import Path

from ernie_vil2.config import load_config
from ernie_vil2.data.source_files import read_json, read_numbered_lines
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import read_vocabulary
from tests.hostile.bad_input.case import Case, file_writer


def config_case(input, text, error):
    return Case(input, file_writer("a.yaml", text), error=error, open=load_config)


def untrusted_config_case(input, text, error):
    """Return the case of a configuration that comes with a model, run or export of somebody else."""
    return Case(input, file_writer("a.yaml", text), error=error, open=partial(load_config, is_untrusted=True))


def annotations_case(input, make, error):
    return Case(input, make, error=error, open=lambda path: read_json(Path(path), list))


def endless_case(input, open_file):
    return Case(input, lambda folder: Path("/dev/zero"), error=DEVICE, open=open_file)


def read_lines(path):
    return list(read_numbered_lines(Path(path)))


def pipe_writer(name):
    """Return `make` of a pipe that no process writes to."""

    def make(folder):
        os.mkfifo(folder / name)
        return folder / name

    return make


def hole_writer(name):
    """Return `make` of a file of 64 GB that takes no room on the disk."""

    def make(folder):
        (folder / name).touch()
        os.truncate(folder / name, 2**36)
        return folder / name

    return make


# Each line repeats the previous one nine times.
LAUGHS = "Training:\n steps:\n  - &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
    f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
MERGES = "a: &a0 {x: 1}\n" + "".join(f"b{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
VALUES = "more than 100,000 values"
DEVICE = "not an ordinary file; write what the pipe or device gives to a disk"

CASES = [
    untrusted_config_case("YAML of 600 bytes whose aliases mean 10^9 values", LAUGHS, VALUES),
    untrusted_config_case("YAML whose merges mean 10^12 keys", MERGES, VALUES),
    untrusted_config_case("YAML alias within what it means", "a: &a [*a]\n", VALUES),
    untrusted_config_case("YAML of 100,000 brackets", "[" * 100_000, "not valid YAML"),
    untrusted_config_case("YAML number of 5,000 digits", f"Training: {{steps: {'7' * 5000}}}",
                          "a number of more than 100 digits"),
    config_case("YAML tag that its value does not fit", "a: !!bool x", "not valid YAML"),
    Case("source of fewer samples than `Data.groups`", file_writer("a.tsv", "x\t1\tAAAA\n"),
         error="1 sample for 2 groups; lower Data.groups",
         open=lambda path: SampleStream(load_config(None, [f"Data.train=[{path}]", "Data.groups=2"]))),
    config_case("YAML section that occurs twice", "Training: {steps: 7}\nLoss: {}\nTraining: {seed: 1}\n",
                "the key Training occurs twice, in lines 1 and 3"),
    config_case("YAML key of 100,000 characters", f"? {'k' * 100_000}\n: 1\n", "unknown key kkk"),
    config_case("YAML text where a number belongs, of 500,000 characters", f"Training: {{steps: '{'x' * 500_000}'}}",
                "Input should be a valid integer"),
    config_case("configuration of more than 1,048,576 characters", "# " + "x" * 2**20,
                "more than 1,048,576 characters"),
    endless_case("configuration without an end (/dev/zero)", load_config),
    endless_case("vocabulary without an end (/dev/zero)", read_vocabulary),
    endless_case("annotations without an end (/dev/zero)", read_lines),
    Case("list of more than 16,777,216 characters", hole_writer("a.txt"), error="more than 16,777,216 characters"),
    Case("pipe named x.txt as list", pipe_writer("a.txt"), error=DEVICE),
    annotations_case("JSON file of more than 16,777,216 values", file_writer("a.json", "[" + "[]," * 9_000_000 + "0]"),
                     "more than 16,777,216 values"),
    annotations_case("JSON file of more than 256 MiB", hole_writer("a.json"), "more than 268,435,456 characters"),
    Case("line of more than 4 MiB in annotations", hole_writer("a.txt"), open=read_lines,
         error="a.txt:1: a line of more than 4194304 bytes"),
]  # fmt: skip
