"""Measure the memory of decoding images of requests, and what changes when a large JPEG is decoded at reduced size.

    python benchmarks/query_images.py memory                     # peak memory, by format
    python benchmarks/query_images.py reduced [--model MODEL]    # difference to the image decoded whole

docs/notes/search_speed.md has both tables.
"""

import argparse
import io
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.memory import read_peak, reset_peak
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.io.export_folder import PreprocessingKind

IMAGE_SIZE = 224  # pixels that the model sees on a side
MEAN, STD = (0.5,) * 3, (0.5,) * 3
SIDE = 4000  # pixels of a square image of 16 megapixels
SIDE_JPEG2000 = 2800
# Format -> mode, and options of Pillow's encoder: those with the most memory to decode, and the fastest to encode.
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
    """Return the content of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def measure_memory(content: bytes, kind: PreprocessingKind) -> tuple[float, float]:
    """Return the peak memory of decoding a file in this process and the planned memory, in MiB."""
    preprocessing = Preprocessing(kind, IMAGE_SIZE, MEAN, STD)
    preprocessing(encode(Image.new("RGB", (64, 64)), "JPEG"), "warm-up")
    plan = preprocessing.plan(content, "image")
    memory_before = reset_peak()
    preprocessing.make_view(preprocessing.decode(content, "image", plan.factor))
    return read_peak() - memory_before, plan.num_bytes / 2**20


def print_memory() -> None:
    """Print the peak memory of decoding each format, measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    print("| format | pixels | ernie_vil2 | transformers | planned |\n|---|---|---|---|---|")
    for name, (mode, options) in FORMATS.items():
        side = SIDE_JPEG2000 if name == "JPEG2000" else SIDE
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


def print_reduced(model_name: str | None) -> None:
    """Print how much the model's view and its embedding change when the image is decoded at reduced size."""
    model = None
    if model_name:
        from ernie_vil2 import load_model

        model = load_model(model_name)
        preprocessings = [model.preprocessing]
    else:
        kinds: tuple[PreprocessingKind, ...] = ("ernie_vil2", "official", "transformers")
        preprocessings = [Preprocessing(kind, IMAGE_SIZE, MEAN, STD) for kind in kinds]
    rng = np.random.default_rng(0)
    print("| preprocessing | short side | decoded at | mean difference of 255 | cosine |\n|---|---|---|---|---|")
    for preprocessing in preprocessings:
        for short_side in SHORT_SIDES:
            content = draw_photograph(short_side, rng)
            factor = preprocessing.plan(content, "image").factor
            whole = preprocessing.make_view(preprocessing.decode(content, "image"))
            reduced = preprocessing.make_view(preprocessing.decode(content, "image", factor))
            difference = np.abs(whole.astype(float) - reduced).mean()
            cosine = "-"
            if model:
                whole_embedding, reduced_embedding = model.encode_pixels([whole, reduced])
                cosine = f"{whole_embedding @ reduced_embedding:.4f}"
            print(f"| {preprocessing.kind} | {short_side} | 1/{factor} | {difference:.2f} | {cosine} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("memory", "reduced"), help="the table to print")
    parser.add_argument("--model", help="with `reduced`, a model as for load_model; default: none, views alone")
    args = parser.parse_args()
    if args.table == "memory":
        print_memory()
    else:
        print_reduced(args.model)


if __name__ == "__main__":
    main()
