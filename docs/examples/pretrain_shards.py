"""Pretrains on your own image-text pairs: checks them, writes shards, and trains from scratch with all view pairs.

    python docs/examples/pretrain_shards.py PAIRS --val VALIDATION --output runs/mine

PAIRS is any source that docs/data.md describes, for example a CSV or the shards of img2dataset. Stopped or killed, the
same command resumes. Further options go to training, such as `-o Training.steps=1000`, or on a CPU
`-o Training.precision=float32`. For several GPUs, run the training command that it prints with
`python -m paddle.distributed.launch`.
"""

import argparse
import json
import shlex
from pathlib import Path

from ernie_vil2.cli import run

RECIPE = "configs/pretrain/vit_b16_ernie_base_zh.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("--val", required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/mine"))
    parser.add_argument("--short-side", default="256", help="images are stored with this size")
    options, settings = parser.parse_known_args()

    shards = options.output.with_name(options.output.name + "-shards")
    code = run("prepare", [options.pairs, "--output", str(shards), "--short-side", options.short_side,
                           "--drop-duplicates"])  # fmt: skip
    values = {"Data.train": [str(shards)], "Data.val": [options.val], "Training.output": str(options.output)}
    train = ["-c", RECIPE, "--resume"]
    for key, value in values.items():
        # Settings are YAML, of which JSON is a part: a path may have commas, brackets and colons.
        train += ["-o", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    train += settings
    print("training:", shlex.join(["ernie-vil2", "train", *train]))
    raise SystemExit(code or run("train", train))


if __name__ == "__main__":
    main()
