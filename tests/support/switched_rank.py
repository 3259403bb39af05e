"""One rank's steps under the switches of its environment: `switched_rank.py FOLDER` leaves FOLDER/RANK.npz."""

import sys

from ernie_vil2.device import runtime

runtime.configure()  # before anything imports Paddle, as the command lines do

import numpy as np  # noqa: E402

from ernie_vil2.device import runtime  # noqa: E402
from ernie_vil2.parallel.ranks import join_ranks  # noqa: E402
from tests.support.freezing import IMAGES, TOWERS, Case, found_by_rank  # noqa: E402

BACKBONES = ("EfficientNetB0", "ResNet18", "MobileNetV3_small_x0_35", "SwinTransformer_tiny_patch4_window7_224")
IMAGES |= {name: f"{{name: {name}, image_size: 32}}" for name in BACKBONES}
CASES = [
    Case(image, text, step=step)
    for image, text in (*TOWERS, *((name, "ernie") for name in BACKBONES))
    for step in ("direct", "recomputed", "cached")
]


def main():
    runtime.set_device("cpu")
    rank, _ = join_ranks()
    with runtime.flushed_denormals():
        np.savez(f"{sys.argv[1]}/{rank}.npz", **found_by_rank(CASES, rank))


if __name__ == "__main__":
    main()
