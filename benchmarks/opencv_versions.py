"""Whether images become the same pixels with two versions of OpenCV: JPEG files, views that are scored, training views.

    .venv/bin/python benchmarks/opencv_versions.py --write pixels.npz        # in one environment
    .venv-313/bin/python benchmarks/opencv_versions.py --compare pixels.npz  # in the other

The images are windows of the two photographs that scikit-learn ships, of several shapes, encoded by simplejpeg. Each
line compares all values of all images: how many are the same, and how far apart the others are, in levels of 255.
"""

import argparse
import io
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ernie_vil2.config import Config
from ernie_vil2.data.augment import training_views
from ernie_vil2.data.decoding import decode_image, resized
from ernie_vil2.data.preprocessing import evaluation_view, official_view, paddlenlp_view

SIZE = 224
SHAPES = ((375, 500), (425, 320), (427, 640), (256, 256), (224, 224), (240, 639), (150, 200))
"""Heights and widths, larger than a view, smaller, and of its size."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the pixels of this environment")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare them with those of another")
    args = parser.parse_args()
    if (args.write is None) == (args.compare is None):
        parser.error("give --write or --compare")
    found = pixels()
    if args.write:
        np.savez_compressed(args.write, **found)
        print(f"{args.write}: OpenCV {cv2.__version__}, NumPy {np.__version__}, Pillow {version('pillow')}")
        return 0
    with np.load(args.compare) as other:
        print(f"OpenCV {other['opencv']} and {cv2.__version__}, NumPy {other['numpy']} and {np.__version__}")
        print(f"{'':<44}{'same values':>14}{'largest':>9}{'mean of others':>16}")
        for name in [name for name in found if name not in ("opencv", "numpy")]:
            ours, theirs = found[name].astype(int), other[name].astype(int)
            apart = np.abs(ours - theirs) if ours.shape == theirs.shape else np.full(1, np.nan)
            others = apart[apart > 0].mean() if (apart > 0).any() else 0.0
            print(f"{name:<44}{(apart == 0).mean():>13.3%}{apart.max():>9}{others:>16.2f}")
    return 0


def pixels() -> dict[str, np.ndarray]:
    """By what is compared, uint8 values `[N, ...]`, and under `opencv` and `numpy` their versions."""
    files, views = photographs(), Config().Views
    images = [decode_image(file, "photograph", None) for file in files]
    drawn = [
        view
        for seed, file in enumerate(files)
        for view in training_views(file, "photograph", 2, SIZE, views, np.random.default_rng(seed))
    ]
    smaller = [cv2.resize(image, (200, 150), interpolation=cv2.INTER_AREA) for image in images]
    encoded = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for image in images]
    return {
        "JPEG, decoded by simplejpeg": flat(images),
        "JPEG, decoded by OpenCV": flat([cv2.imdecode(np.frombuffer(file, np.uint8), 1) for file in files]),  # noqa: TID251
        "JPEG of prepare, encoded by OpenCV": flat([Image.open(io.BytesIO(file)) for file in encoded]),
        "view, official preprocessing": np.stack([official_view(image, SIZE) for image in images]),
        "view, PaddleNLP's preprocessing": np.stack([paddlenlp_view(image, SIZE) for image in images]),
        "view, this package's preprocessing": np.stack([evaluation_view(image, SIZE) for image in images]),
        "view, upscaled": np.stack([resized(image, 2 * SIZE, 2 * SIZE) for image in images]),
        "image of prepare and pages, made smaller": np.stack(smaller),
        "training views": np.stack(drawn),
        "opencv": np.array(cv2.__version__),
        "numpy": np.array(np.__version__),
    }


def photographs() -> list[bytes]:
    from sklearn.datasets import load_sample_images

    rng, files = np.random.default_rng(0), []
    for photograph in load_sample_images().images:
        for shape in SHAPES:
            height, width = shape
            top, left = rng.integers(np.subtract(photograph.shape[:2], shape) + 1)
            window = np.ascontiguousarray(photograph[top : top + height, left : left + width])
            files.append(simplejpeg.encode_jpeg(window, quality=90, colorspace="RGB"))
    return files


def flat(images) -> np.ndarray:
    """Images of several sizes as one row."""
    return np.concatenate([np.asarray(image).ravel() for image in images])[None]


if __name__ == "__main__":
    sys.exit(main())
