"""Errors of the float32 loss and its gradients against float64: in tiles, plain, and with the scale on the logits.

    python benchmarks/loss_precision.py

Random unit vectors and noisy copies of them, which a model distinguishes the less the more noise there is; one
direction. An error is relative: of the vector of losses by its norm, of the gradients likewise, of the mean loss and
of the gradient of the scale as they are. The last form multiplies the logits by the scale, as the formula is mostly
written; the gradient of the scale is then a float32 sum of B x N terms. Float64 is the plain form.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from ernie_vil2.device import runtime  # noqa: E402

runtime.configure()
import paddle  # noqa: E402

from ernie_vil2.losses import info_nce, tiled_info_nce  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096, help="batch size")
    parser.add_argument("--width", type=int, default=64, help="dimensions of an embedding")
    args = parser.parse_args()
    print(f"{args.rows} rows, width {args.width}")
    print(
        f"{'noise':>5} {'scale':>6} {'loss':>8}  {'':<14}{'losses':>9}{'mean':>9}{'rows':>9}{'columns':>9}{'scale':>9}"
    )
    forms = {"in tiles": tiled_info_nce, "plain": info_nce, "scaled logits": scaled_logits}
    for noise in (1.0, 0.5, 0.125):
        rows, columns = embeddings(args.rows, args.width, noise)
        for scale in (1.0, 1 / 0.07, 40.0, 100.0):
            exact = values(info_nce, rows, columns, scale, "float64")
            for name, form in forms.items():
                found = values(form, rows, columns, scale, "float32")
                errors = [
                    float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(found, exact, strict=True)
                ]
                print(
                    f"{noise:5.3g} {scale:6.1f} {float(exact[1]):8.1e}  {name:<14}"
                    + "".join(f"{e:9.1e}" for e in errors)
                )


def embeddings(count, width, noise):
    """Float32 values, so that every precision gets the same."""
    paddle.seed(0)
    rows = paddle.nn.functional.normalize(paddle.randn([count, width]))
    columns = paddle.nn.functional.normalize(rows + noise * paddle.randn([count, width]))
    return rows, columns


def values(loss, rows, columns, scale, dtype):
    """Losses, their mean, and the gradients of the mean with respect to rows, columns and scale, in float64."""
    scale = paddle.to_tensor(scale, dtype="float32")
    leaves = [tensor.astype(dtype).detach() for tensor in (rows, columns, scale)]
    for leaf in leaves:
        leaf.stop_gradient = False
    losses = loss(*leaves)
    losses.mean().backward()
    losses = losses.detach().astype("float64")
    return [losses, losses.mean(), *(leaf.grad.astype("float64") for leaf in leaves)]


def scaled_logits(rows, columns, scale):
    logits = scale * paddle.matmul(rows, columns, transpose_y=True)
    return paddle.logsumexp(logits - logits.diagonal().unsqueeze(1), axis=1)


if __name__ == "__main__":
    main()
