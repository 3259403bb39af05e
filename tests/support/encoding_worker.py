"""One rank of the test of encoding: `main` leaves FOLDER/rank_R.npz."""

import numpy as np

from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.parallel.ranks import join_ranks
from tests.support.encoding_model import ProjectionEncoder, make_benchmark, make_noise_image

CASES = {
    # Chunks of 2 over three ranks: images 2 2 2 1, texts 2 2 1; image 6, alone in its chunk, is broken.
    "uneven": make_benchmark(
        {**{str(n): make_noise_image(n) for n in range(6)}, "6": b"broken"}, ["a", "b", "c", "b", "d", "e"]
    ),
    # The third rank has nothing to do.
    "few": make_benchmark({"0": make_noise_image(0)}, ["a"]),
}


def main(folder):
    rank, ranks = join_ranks()
    arrays = {}
    for case, rows in CASES.items():
        for run in ("first", "second"):
            model, ticks = ProjectionEncoder(), []
            encoded = encode_benchmark(
                model, rows, folder / "cache", ticks.append, chunk_rows=2, rank=rank, ranks=ranks
            )
            arrays |= {
                f"{case}/{run}/images": encoded.image_embeddings,
                f"{case}/{run}/texts": encoded.text_embeddings,
                f"{case}/{run}/ids": [image.id for image in encoded.benchmark.images],
                f"{case}/{run}/bad": encoded.bad_samples.counts.total(),
                f"{case}/{run}/encoded": model.rows["images"] + model.rows["texts"],
                f"{case}/{run}/ticks": sum(ticks),
            }
    np.savez(folder / f"rank_{rank}.npz", **arrays)
