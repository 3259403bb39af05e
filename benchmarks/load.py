"""Seconds and memory to load a Chinese-CLIP of the size of ViT-B/16 from `pytorch_model.bin`, next to `torch.load`.

    python benchmarks/load.py --torch-python torch-venv/bin/python

Weights are random. Each time is that of a process of its own, in which the libraries are imported and have computed
before; of several rounds the least counts. Here the model is built and its weights, of which the matrices are
transposed, are set; `torch.load` gives arrays alone. Memory is what the peak of the process rises by.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = 21_128
KINDS = {"ours": "load_model's reader", "torch": "torch.load"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", type=Path, metavar="FILE", help="interpreter for PyTorch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        kind, folder = args.child
        print(json.dumps(load_ours(folder) if kind == "ours" else load_torch(folder)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder)) / 1e6
        print(f"{'':<22}{'seconds':>9}{'CPU seconds':>13}{'MB of memory':>14}   (a file of {size:.0f} MB)")
        least = {}
        for kind in ("ours", "torch") if args.torch_python else ("ours",):
            python = sys.executable if kind == "ours" else args.torch_python
            command = [python, __file__, "--child", kind, folder]
            rounds = [json.loads(subprocess.check_output(command)) for _ in range(args.rounds)]  # noqa: S603  -- a command of this script
            least[kind] = [min(values) for values in zip(*rounds, strict=True)]
            seconds, cpu, memory = least[kind]
            print(f"{KINDS[kind]:<22}{seconds:>9.2f}{cpu:>13.2f}{memory:>14.0f}")
        if len(least) == 2:
            ratios = [ours / theirs for ours, theirs in zip(*least.values(), strict=True)]
            print(f"{'ratio':<22}{ratios[0]:>9.2f}{ratios[1]:>13.2f}{ratios[2]:>14.2f}")
        print(f"memory is {least['ours'][2] / size:.2f} times the file")
    return 0


def write(folder: Path) -> int:
    """Write a folder as transformers keeps it; return the bytes of its weights."""
    from ernie_vil2.models import build_dual_encoder
    from ernie_vil2.models.weights.families.bert import CHINESE_CLIP
    from ernie_vil2.models.weights.families.family import Folder
    from ernie_vil2.models.weights.settings import Settings
    from ernie_vil2.models.weights.torch_files import write_torch

    about = {
        "model_type": "chinese_clip",
        "architectures": ["ChineseCLIPModel"],
        "vision_config": {"patch_size": 16},
        "text_config": {"vocab_size": WORDS},
    }
    (folder / "config.json").write_text(json.dumps(about))
    weights = folder / "pytorch_model.bin"
    config, _ = CHINESE_CLIP.configure(Folder(weights, Settings(folder / "config.json", about), {}, {}))
    model = build_dual_encoder(config, WORDS)
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    write_torch(weights, CHINESE_CLIP.make_name_table(config, {}).to_theirs(arrays), is_checkpoint=False)
    return weights.stat().st_size


def load_ours(folder: str) -> list[float]:
    import paddle

    from ernie_vil2.models.weights.format import read_model

    paddle.set_device("cpu")
    paddle.ones([8, 8]).matmul(paddle.ones([8, 8]))
    return measured(lambda: read_model(folder).build())


def load_torch(folder: str) -> list[float]:
    import torch

    return measured(lambda: torch.load(f"{folder}/pytorch_model.bin", weights_only=True))


def measured(load) -> list[float]:
    before, clock, cpu = peak(), time.perf_counter(), time.process_time()
    loaded = load()
    took = [time.perf_counter() - clock, time.process_time() - cpu, peak() - before]
    del loaded
    return took


def peak() -> float:
    """Return the peak memory of this process in MB; the peak of `resource` also covers the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    sys.exit(main())
