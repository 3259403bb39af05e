"""One rank of a run that counts what its second step sends: `traffic_rank.py FOLDER [OVERRIDE ...]`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.traffic import counted_traffic
from ernie_vil2.config import load_config
from ernie_vil2.training.trainer import Trainer


def main():
    folder, *overrides = sys.argv[1:]
    trainer = Trainer(load_config(None, overrides))
    step = trainer._train_step

    def counted(batch, rate):
        with counted_traffic() as traffic:
            losses = step(batch, rate)
        if trainer.step == 2:
            sent = {kind: asdict(entry) for kind, entry in traffic.items()}
            Path(folder, f"{trainer.rank}.json").write_text(json.dumps(sent))
        return losses

    trainer._train_step = counted
    trainer.fit()


if __name__ == "__main__":
    main()
