"""Measure peak memory and CPU time of the contrastive loss: tiled, plain, and as OpenCLIP writes it.

    python benchmarks/loss_memory.py
    python benchmarks/loss_memory.py --torch-python TORCH_VENV/bin/python --rows 4096 16384 --rounds 2

Each measurement is one forward and backward pass on random unit vectors, in float32 and one thread, in a process of its
own; the forms take turns. The pairs are image-text both ways, as in OpenCLIP, or all four of this package. OpenCLIP's
two products and two cross entropies are written out here; `--torch-python` names an interpreter with PyTorch for them.
Forms with four widths (`Loss.widths`) add the loss of an eighth, a quarter and half of the width.

Memory is the peak resident memory less that with the inputs loaded, as Linux counts it. It includes the gradients,
which are as large as the inputs. The benchmark fails unless tiled, plain and OpenCLIP's form agree on the loss and on
the gradient of the scale.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.memory import read_peak, reset_peak

SCALE = 1 / 0.07  # 1 / tau, CLIP's initial temperature
BLOCK_ROWS = 256  # rows of the inputs drawn at once
IMAGE_TEXT = {"image_text": 0.5, "text_image": 0.5}
FOUR_PAIRS = {"image_image": 0.5, "text_text": 0.5, **IMAGE_TEXT}
NAMES = {
    "tiled": "tiled, image-text both ways",
    "plain": "plain, image-text both ways",
    "openclip": "OpenCLIP's form in PyTorch, the same",
    "tiled-four": "tiled, four pairs",
    "tiled-widths": "tiled, image-text both ways, four widths",
    "tiled-widths-four": "tiled, four pairs, four widths",
    "plain-four": "plain, four pairs",
}
# Largest batch of each form; with more rows it needs more than 6 GiB.
MAX_ROWS = {"plain": 16384, "plain-four": 4096, "openclip": 16384}
# Pairs of forms of which the ratios are printed. The loss of several widths is another one.
SAME_LOSS = [("tiled", "plain"), ("tiled", "openclip"), ("tiled-four", "plain-four")]
OTHER_LOSS = [("tiled-widths", "tiled"), ("tiled-widths-four", "tiled-four")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[4096, 8192, 16384, 32768], help="batch sizes")
    parser.add_argument("--width", type=int, default=512, help="dimensions of an embedding")
    parser.add_argument("--tile", type=int, default=1024, help="rows and columns of a tile")
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each form; the median is printed")
    parser.add_argument("--forms", nargs="+", choices=NAMES, help="forms to measure; default: all")
    parser.add_argument("--torch-python", help="interpreter with PyTorch, for OpenCLIP's form")
    parser.add_argument("--measure", choices=NAMES, help=argparse.SUPPRESS)  # of a process that measures
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.rows[0], args.width, args.tile)))
        return 0
    if args.forms and "openclip" in args.forms and not args.torch_python:
        parser.error("openclip needs --torch-python")

    forms = args.forms or list(NAMES)
    if not args.torch_python:
        forms = [form for form in forms if form != "openclip"]
    print(f"width {args.width}, tiles of {args.tile}, one thread, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<40}{'rows':>8}{'MiB over inputs':>18}{'CPU seconds':>14}")
    do_agree = True
    for num_rows in args.rows:
        results = measure_in_turn([form for form in forms if num_rows <= MAX_ROWS.get(form, num_rows)], num_rows, args)
        for form, result in results.items():
            print(f"{NAMES[form]:<40}{num_rows:>8}{result['memory']:>18.0f}{result['seconds']:>14.2f}", flush=True)
        for form, baseline in OTHER_LOSS + SAME_LOSS:
            if form in results and baseline in results:
                print_ratios(results, form, baseline)
        for form, baseline in SAME_LOSS:
            if form in results and baseline in results:
                do_agree &= check_agreement(results, form, baseline)
    return 0 if do_agree else 1


def measure_in_turn(forms: list[str], num_rows: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the medians of the measurements of each form; the forms take turns."""
    measurements: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
    for _ in range(args.rounds):
        for form in forms:
            measurements[form].append(run_in_process(form, num_rows, args))
    medians: dict[str, dict[str, float]] = {}
    for form, rounds in measurements.items():
        medians[form] = {}
        for key in rounds[0]:
            medians[form][key] = statistics.median(measurement[key] for measurement in rounds)
    return medians


def print_ratios(results, form: str, baseline: str) -> None:
    """Print the memory and time of a form relative to a baseline."""
    # A small batch may fit into memory that the process already has.
    memory = results[form]["memory"] / (results[baseline]["memory"] or float("nan"))
    seconds = results[form]["seconds"] / results[baseline]["seconds"]
    print(f"  {NAMES[form]} / {NAMES[baseline]}: {memory:.3f} of the memory, {seconds:.2f} of the time")


def check_agreement(results, form: str, baseline: str) -> bool:
    """Return whether two forms agree on loss and gradient; print an error if not."""
    for key in ("loss", "gradient"):
        value, expected = results[form][key], results[baseline][key]
        if not abs(value - expected) <= 1e-3 * abs(expected):  # NaN fails, too
            print(
                f"error: {NAMES[form]} and {NAMES[baseline]} do not agree on the {key}: {value}, {expected}",
                file=sys.stderr,
            )
            return False
    return True


def run_in_process(form: str, num_rows: int, args: argparse.Namespace) -> dict[str, float]:
    """Return what `measure` returns, measured in a new process with one thread."""
    python = args.torch_python if form == "openclip" else sys.executable
    command = [python, __file__, "--measure", form]
    command += ["--rows", str(num_rows), "--width", str(args.width), "--tile", str(args.tile)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)  # noqa: S603  -- a command of this script
    if process.returncode:
        reason = process.stderr[-2000:] or f"exit status {process.returncode} (-9: out of memory?)"
        sys.exit(f"{NAMES[form]} at {num_rows} rows failed:\n{reason}")
    return json.loads(process.stdout.splitlines()[-1])


def measure(form: str, num_rows: int, width: int, tile: int) -> dict[str, float]:
    """Return peak memory over the inputs in MiB, CPU seconds, loss, and gradient of the scale."""
    names = ["image_1", "text_1"]
    if form.endswith("four"):
        names += ["image_2", "text_2"]
    compute_loss, allocate, copy_rows = prepare_openclip() if form == "openclip" else prepare_paddle(form, width, tile)

    def load_views(num_rows):
        rng = np.random.default_rng(0)
        views = {}
        for name in names:
            views[name] = allocate(num_rows, width)
            for start in range(0, num_rows, BLOCK_ROWS):
                copy_rows(views[name], draw_unit_rows(rng, min(BLOCK_ROWS, num_rows - start), width), start)
        return views

    compute_loss(load_views(64))  # the first pass loads the kernels
    views = load_views(num_rows)
    memory_before = reset_peak()
    start = time.process_time()
    loss, gradient = compute_loss(views)
    seconds = time.process_time() - start
    return {"seconds": seconds, "memory": read_peak() - memory_before, "loss": loss, "gradient": gradient}


def draw_unit_rows(rng, num_rows: int, width: int) -> np.ndarray:
    """Return random unit vectors.

    The inputs are drawn in small blocks: a large array, freed, would leave heap in which a loss could hide its memory.
    """
    rows = rng.standard_normal((num_rows, width), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def prepare_openclip():
    """Return functions of PyTorch: loss and gradient of the scale, an empty matrix, and a copy into its rows."""
    import torch

    torch.set_num_threads(1)

    def compute_loss(views):
        for view in views.values():
            view.requires_grad_()
        images, texts = views["image_1"], views["text_1"]
        scale = torch.tensor(SCALE, requires_grad=True)
        loss = compute_openclip_loss(torch, images, texts, scale)
        loss.backward()
        return loss.item(), scale.grad.item()

    def copy_rows(matrix, rows, start):
        matrix[start : start + len(rows)] = torch.from_numpy(rows)

    return compute_loss, torch.empty, copy_rows


def prepare_paddle(form: str, width: int, tile: int):
    """Return functions of Paddle: loss and gradient of the scale, an empty matrix, and a copy into its rows."""
    from ernie_vil2.device import runtime

    runtime.configure()
    import paddle

    from ernie_vil2.losses import MultiViewLoss

    loss_of_views = MultiViewLoss(
        FOUR_PAIRS if form.endswith("four") else IMAGE_TEXT,
        tile=tile if form.startswith("tiled") else None,
        widths=[width // 8, width // 4, width // 2, width] if "widths" in form else [],
    )

    def compute_loss(views):
        for view in views.values():
            view.stop_gradient = False
        scale = paddle.to_tensor(SCALE, stop_gradient=False)
        loss, _ = loss_of_views(views, views, {"logit_scale": scale})
        loss.backward()
        if scale.grad is None:
            raise ValueError(f"{NAMES[form]} gives the scale no gradient")
        return float(loss), float(scale.grad)

    def allocate(num_rows, width):
        return paddle.empty([num_rows, width])

    def copy_rows(matrix, rows, start):
        matrix[start : start + len(rows)] = paddle.to_tensor(rows)

    return compute_loss, allocate, copy_rows


def compute_openclip_loss(torch, images, texts, scale):
    """Return the mean of both directions, as `ClipLoss` of OpenCLIP computes it in one process."""
    targets = torch.arange(len(images))
    logits_of_images = scale * images @ texts.T
    logits_of_texts = scale * texts @ images.T
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits_of_images, targets) + cross_entropy(logits_of_texts, targets)) / 2


if __name__ == "__main__":
    sys.exit(main())
