"""`tools/train.py` with model, loss and update in float64, in which rounding does not separate two curves."""

import sys

import paddle

from ernie_vil2.cli import run
from ernie_vil2.device import runtime

if __name__ == "__main__":
    runtime.configure()
    paddle.set_default_dtype("float64")
    sys.exit(run("train"))
