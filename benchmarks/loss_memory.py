"""Peak memory and CPU seconds of the contrastive loss, forward and backward: tiled, plain, and as OpenCLIP writes it.

    python benchmarks/loss_memory.py
    python benchmarks/loss_memory.py --torch-python TORCH_VENV/bin/python --rows 4096 16384 --rounds 2

N = B random unit vectors in float32 from one seed, one thread, batches of one process. The pairs are image-text both
ways, which is all that OpenCLIP's loss has, and all four of this package. OpenCLIP's two products and two cross
entropies are written out here; `--torch-python` names an interpreter that has PyTorch for them. Every measurement has
a process of its own, and the forms take turns. Memory is that of the process at its peak, less what it had with the
inputs loaded, as Linux counts it; it contains the gradients, which are as large as the inputs. The forms must agree
on the loss and on the gradient of the scale, or the benchmark fails. Four widths (`Loss.widths`) are an eighth, a
quarter, a half and all of the width, next to the width alone.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

SCALE = 1 / 0.07
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
LIMITS = {"plain": 16384, "plain-four": 4096, "openclip": 16384}  # rows; beyond it they need more than 6 GiB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[4096, 8192, 16384, 32768], help="batch sizes")
    parser.add_argument("--width", type=int, default=512, help="dimensions of an embedding")
    parser.add_argument("--tile", type=int, default=1024, help="rows and columns of a tile")
    parser.add_argument("--rounds", type=int, default=1, help="turns of every form; the median is printed")
    parser.add_argument("--forms", nargs="+", choices=NAMES, default=list(NAMES), help="what is measured")
    parser.add_argument("--torch-python", help="interpreter that has PyTorch")
    parser.add_argument("--measure", choices=NAMES, help=argparse.SUPPRESS)  # what a process of its own runs
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.rows[0], args.width, args.tile)))
        return 0

    forms = [form for form in args.forms if form != "openclip" or args.torch_python]
    print(f"width {args.width}, tiles of {args.tile}, one thread, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<40}{'rows':>8}{'MiB over inputs':>18}{'CPU seconds':>14}")
    do_agree = True
    for rows in args.rows:
        forms_of_size = [form for form in forms if rows <= LIMITS.get(form, rows)]
        rounds = [{form: run_in_process(form, rows, args) for form in forms_of_size} for _ in range(args.rounds)]
        results = {
            form: {key: statistics.median(turn[form][key] for turn in rounds) for key in rounds[0][form]}
            for form in forms_of_size
        }
        for form, result in results.items():
            print(f"{NAMES[form]:<40}{rows:>8}{result['memory']:>18.0f}{result['seconds']:>14.2f}", flush=True)
        for ours, theirs in (("tiled-widths", "tiled"), ("tiled-widths-four", "tiled-four")):
            if ours in results and theirs in results:
                compare(results[ours], results[theirs], NAMES[ours], NAMES[theirs], should_agree=False)
        for ours, theirs in (("tiled", "plain"), ("tiled", "openclip"), ("tiled-four", "plain-four")):
            if ours in results and theirs in results:
                do_agree &= compare(results[ours], results[theirs], NAMES[ours], NAMES[theirs])
    return 0 if do_agree else 1


def compare(ours, theirs, our_name, their_name, should_agree=True) -> bool:
    """Print the ratios; return whether the two agree, or need not."""
    memory, seconds = (ours[key] / theirs[key] for key in ("memory", "seconds"))
    print(f"  {our_name} / {their_name}: {memory:.3f} of the memory, {seconds:.2f} of the time")
    for value in ("loss", "gradient") if should_agree else ():
        if abs(ours[value] - theirs[value]) > 1e-3 * abs(theirs[value]):
            print(f"error: they do not agree on the {value}: {ours[value]}, {theirs[value]}", file=sys.stderr)
            return False
    return True


def run_in_process(form: str, rows: int, args: argparse.Namespace) -> dict[str, float]:
    python = args.torch_python if form == "openclip" else sys.executable
    command = [python, __file__, "--measure", form, "--rows", rows, "--width", args.width, "--tile", args.tile]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(  # noqa: S603  -- a command of this script
        [str(part) for part in command], capture_output=True, text=True, env={**os.environ, **threads}
    )
    if done.returncode:
        reason = done.stderr[-2000:] or f"exit status {done.returncode} (-9: out of memory?)"
        sys.exit(f"{NAMES[form]} at {rows} rows failed:\n{reason}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(form: str, rows: int, width: int, tile: int) -> dict[str, float]:
    """Return peak MiB over the inputs, CPU seconds, loss, and gradient of the scale."""
    names = ["image_1", "text_1", "image_2", "text_2"][: 4 if form.endswith("four") else 2]
    widths = [width // 8, width // 4, width // 2, width] if "widths" in form else []
    run, empty, copy_rows = prepare(form, tile, widths)
    # A small batch first, which loads the kernels.
    run({name: copy_rows(empty(64, width), *parts) for name, parts in draw_blocks(names, 64, width)})
    views = {name: empty(rows, width) for name in names}
    for name, parts in draw_blocks(names, rows, width):
        for number, part in enumerate(parts):
            copy_rows(views[name], part, number * 256)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, start = resident("VmRSS"), time.process_time()
    loss, gradient = run(views)
    return {
        "seconds": time.process_time() - start,
        "memory": resident("VmHWM") - before,
        "loss": loss,
        "gradient": gradient,
    }


def draw_blocks(names, rows, width):
    """Yield each name with unit vectors, in blocks so small that they leave no free heap to hide what a loss takes."""
    import numpy as np

    random = np.random.default_rng(0)
    for name in names:
        parts = (random.standard_normal((min(256, rows - at), width), np.float32) for at in range(0, rows, 256))
        yield name, (part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts)


def prepare(form, tile, widths):
    """Return three functions of a form: forward and backward on views, an empty matrix, and a copy into its rows."""
    return prepare_openclip() if form == "openclip" else prepare_paddle(form, tile, widths)


def prepare_openclip():
    import torch

    torch.set_num_threads(1)

    def run(views):
        for view in views.values():
            view.requires_grad_()
        images, texts = views["image_1"], views["text_1"]
        scale = torch.tensor(SCALE, requires_grad=True)
        loss = openclip_loss(torch, images, texts, scale)
        loss.backward()
        return loss.item(), scale.grad.item()

    def empty(rows, width):
        return torch.empty(rows, width)

    def copy_rows(matrix, part, start=0):
        matrix[start : start + len(part)] = torch.from_numpy(part)
        return matrix

    return run, empty, copy_rows


def prepare_paddle(form, tile, widths):
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from ernie_vil2.device import runtime

    runtime.configure()
    import paddle

    from ernie_vil2.losses import MultiViewLoss

    weights = FOUR_PAIRS if form.endswith("four") else IMAGE_TEXT
    loss_of = MultiViewLoss(weights, tile=tile if form.startswith("tiled") else None, widths=widths)

    def run(views):
        for view in views.values():
            view.stop_gradient = False
        scale = paddle.to_tensor(SCALE, stop_gradient=False)
        loss, _ = loss_of(views, views, {"logit_scale": scale})
        loss.backward()
        if scale.grad is None:
            raise ValueError(f"{NAMES[form]} gives the scale no gradient")
        return float(loss), float(scale.grad)

    def empty(rows, width):
        return paddle.empty([rows, width])

    def copy_rows(matrix, part, start=0):
        matrix[start : start + len(part)] = paddle.to_tensor(part)
        return matrix

    return run, empty, copy_rows


def openclip_loss(torch, images, texts, scale):
    """Return the mean of both directions, as `ClipLoss` of OpenCLIP computes it in one process."""
    cross_entropy, targets = torch.nn.functional.cross_entropy, torch.arange(len(images))
    logits_of_images = scale * images @ texts.T
    logits_of_texts = scale * texts @ images.T
    return (cross_entropy(logits_of_images, targets) + cross_entropy(logits_of_texts, targets)) / 2


def resident(what: str) -> float:
    """Return the resident memory of this process in MiB, now or at its peak."""
    match = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise OSError(f"/proc/self/status has no {what}")
    return int(match[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
