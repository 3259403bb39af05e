"""Queries that are images: what decoding takes, and what it changes that a large JPEG is decoded smaller.

python benchmarks/query_images.py memory       # of each format, at its peak
python benchmarks/query_images.py reduced [--model MODEL]    # difference to the whole image
"""

import argparse
import io
import multiprocessing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.io.export_folder import PreprocessingKind

MEAN, STD = (0.5,) * 3, (0.5,) * 3
SIDE = 4000  # 16 megapixels
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("RGB", {}),
    "JPEG, progressive": ("RGB", {"progressive": True, "subsampling": 0}),
    "PNG": ("RGBA", {"compress_level": 1}),
    "GIF": ("L", {}),
    "TIFF": ("RGBA", {"compression": "tiff_deflate"}),
    "WEBP": ("RGBA", {"method": 0}),
    "AVIF": ("RGBA", {"speed": 10}),
    "JPEG2000": ("RGBA", {}),
}
SHORT_SIDES = (600, 1500, 3000)  # decoded whole, at 1/2 and at 1/4 for a model of 224 pixels


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as a file."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def read_status(key: str) -> int:
    """Return the bytes of an entry of this process, such as VmRSS."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def measure_memory(content: bytes, kind: PreprocessingKind) -> tuple[float, float]:
    """Return MiB that decoding takes at its peak, and those that are planned for it; for a process of its own."""
    preprocessing = Preprocessing(kind, 224, MEAN, STD)
    preprocessing(encode(Image.new("RGB", (64, 64)), "JPEG"), "warm-up")
    plan = preprocessing.plan(content, "image")
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    preprocessing.make_view(preprocessing.decode(content, "image", plan.factor))
    return (read_status("VmHWM") - before) / 2**20, plan.num_bytes / 2**20


def print_memory() -> None:
    """Print a row of each format."""
    context = multiprocessing.get_context("spawn")
    print("| format | pixels | ernie_vil2 | transformers | planned |\n|---|---|---|---|---|")
    for name, (mode, options) in FORMATS.items():
        side = SIDE if name != "JPEG2000" else 2800
        content = encode(Image.new(mode, (side, side), 3), name.partition(",")[0], **options)
        peaks = []
        for kind in ("ernie_vil2", "transformers"):
            with context.Pool(1) as pool:
                peak, planned = pool.apply(measure_memory, (content, kind))
            peaks.append(f"{peak:.0f} MiB")
        print(f"| {name} | {side * side / 1e6:.0f} MP | {peaks[0]} | {peaks[1]} | {planned:.0f} MiB |", flush=True)


def draw_photograph(short_side: int, rng: np.random.Generator) -> bytes:
    """Return a JPEG with detail of all sizes, as photographs have: noise that is weaker where it is finer."""
    height, width = short_side, short_side * 4 // 3
    pixels = np.zeros([height, width, 3], np.float32)
    for level in range(2, 12):
        noise = rng.normal(size=[2**level * 3 // 4, 2**level, 3]).astype(np.float32)
        pixels += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 2.0 ** (2 - level) * 60
    return encode(Image.fromarray(np.clip(pixels + 128, 0, 255).astype(np.uint8)), "JPEG", quality=90)


def print_reduced(source: str | None) -> None:
    """Print how far what the model sees, and its embedding, is from that of the whole image."""
    model = None
    if source:
        from ernie_vil2 import load_model

        model = load_model(source)
    kinds = [model.preprocessing] if model else [Preprocessing(kind, 224, MEAN, STD)
                                                 for kind in ("ernie_vil2", "official", "transformers")]  # fmt: skip
    rng = np.random.default_rng(0)
    print("| preprocessing | short side | decoded at | mean difference of 255 | cosine |\n|---|---|---|---|---|")
    for preprocessing in kinds:
        for short_side in SHORT_SIDES:
            content = draw_photograph(short_side, rng)
            factor = preprocessing.plan(content, "image").factor
            whole = preprocessing.make_view(preprocessing.decode(content, "image"))
            reduced = preprocessing.make_view(preprocessing.decode(content, "image", factor))
            difference = np.abs(whole.astype(float) - reduced).mean()
            cosine = "-"
            if model:
                left, right = model.encode_pixels([whole, reduced])
                cosine = f"{left @ right:.4f}"
            print(f"| {preprocessing.kind} | {short_side} | 1/{factor} | {difference:.2f} | {cosine} |", flush=True)


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("memory", "reduced"))
    parser.add_argument("--model", help="as for load_model; default: what the model sees alone")
    arguments = parser.parse_args()
    if arguments.table == "memory":
        print_memory()
    else:
        print_reduced(arguments.model)


if __name__ == "__main__":
    main()
