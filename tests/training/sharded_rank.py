"""One rank of a run that notes what it holds of the optimiser state: `sharded_rank.py FOLDER [OVERRIDE ...]`."""

import json
import sys
from pathlib import Path

from ernie_vil2.config import load_config
from ernie_vil2.training.trainer import Trainer


def main():
    folder, *overrides = [*sys.argv[1:], "Training.device=cpu"]
    trainer = Trainer(load_config(None, overrides), resume=True)
    trainer.fit()
    moments = {key: value.size for key, value in trainer.optimizer.state_dict().items() if "_moment" in key}
    Path(folder, f"rank_{trainer.rank}.json").write_text(json.dumps(moments))


if __name__ == "__main__":
    main()
