"""Run the study of the paper's Table 4 (`experiments/ablation`) in a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ernie_vil2.cli import run
from experiments.ablation import command

if __name__ == "__main__":
    sys.exit(run(command))
