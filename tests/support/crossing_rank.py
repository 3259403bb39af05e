"""One rank of a run whose crossings are counted: `crossing_rank.py FOLDER [OVERRIDE ...]` leaves FOLDER/RANK.json."""

import json
import sys
from pathlib import Path

from benchmarks.crossings import crossings_of_steps
from ernie_vil2.config import load_config
from ernie_vil2.training.trainer import Trainer


def main():
    folder, *overrides = sys.argv[1:]
    trainer = Trainer(load_config(None, overrides))
    Path(folder, f"{trainer.rank}.json").write_text(json.dumps(crossings_of_steps(trainer)))


if __name__ == "__main__":
    main()
