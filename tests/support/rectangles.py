"""A detector of coloured rectangles, with weights that can be checked by hand, exported in PaddleDetection's layout.

python -m tests.support.rectangles FOLDER NAME
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import paddle
import yaml
from paddle.static import InputSpec

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SIZE = 64

STEPS = [
    {"type": "Resize", "target_size": [SIZE, SIZE], "keep_ratio": False, "interp": 0},
    {"type": "NormalizeImage", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "is_scale": True, "norm_type": "none"},
    {"type": "Permute"},
]


class RectangleDetector(paddle.nn.Layer):
    """At most one object of each colour: where that colour exceeds the sum of the others by more than a half.

    Class 0 is a bar, more than twice as wide as high, class 1 a block. The score is the excess, and so is the score of
    the colour as attribute; other attributes have 0.
    """

    def __init__(self):
        super().__init__()
        self.excess = paddle.nn.Conv2D(3, 3, 1, bias_attr=False)
        self.excess.weight.set_value(2 * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) - 1)

    def forward(self, image, im_shape, scale_factor):
        # Twice as large, as the necks of detectors do; oneDNN's kernel for it fails in Paddle 3.3.
        excess = paddle.nn.functional.interpolate(self.excess(image), scale_factor=2.0)  # [B, 3, 2 H, 2 W]
        inside = (excess > 0.5).astype("float32")
        sides = []
        for axis, other in ((3, 2), (2, 3)):
            position = paddle.arange(excess.shape[axis], dtype="float32") / 2
            here = inside.max(axis=other) > 0  # [B, 3, 2 W or 2 H]
            # Both are [B, 2]: vertical, horizontal.
            scale, limit = (pair[:, axis - 2 : axis - 1] for pair in (scale_factor, im_shape))
            first = paddle.where(here, position, position * 0 + 1e6).min(-1)
            last = paddle.where(here, position + 0.5, position * 0).max(-1)
            sides.append((first / scale, paddle.where(last < limit, last, limit) / scale))
        (left, right), (top, bottom) = sides
        score = excess.max(axis=[2, 3])  # [B, 3]
        kind = (right - left <= 2 * (bottom - top)).astype("float32")
        rows = paddle.stack([kind, score, left, top, right, bottom], axis=-1).reshape([-1, 6])
        colours = (score.unsqueeze(-1) * paddle.eye(3)).reshape([-1, 3])
        seen = (score > 0.5).astype("int32")
        there = paddle.nonzero(seen.flatten()).squeeze(1)
        return paddle.gather(rows, there), seen[:, 0] + seen[:, 1] + seen[:, 2], paddle.gather(colours, there)


def export_detector(folder, steps=STEPS, name="model"):
    """Writes the detector to a folder, which is made."""
    folder.mkdir(exist_ok=True)
    net = RectangleDetector()
    net.eval()
    inputs = [
        InputSpec([None, 3, None, None], "float32", "image"),
        InputSpec([None, 2], "float32", "im_shape"),
        InputSpec([None, 2], "float32", "scale_factor"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Paddle's own `where` asks for what a static graph does not have
        paddle.jit.save(net, str(folder / name), input_spec=inputs)
    config = {"mode": "paddle", "arch": "PPYOLOE", "Preprocess": steps, "label_list": ["bar", "block"]}
    (folder / "infer_cfg.yml").write_text(yaml.safe_dump(config))
    return folder


def draw_rectangles(height, width, rectangles, background=255):
    """`[height, width, 3]` uint8 RGB with rectangles (colour, left, top, right, bottom)."""
    image = np.full([height, width, 3], background, np.uint8)
    for colour, left, top, right, bottom in rectangles:
        image[top:bottom, left:right] = COLOURS.get(colour, colour)
    return image


if __name__ == "__main__":
    export_detector(Path(sys.argv[1]), name=sys.argv[2])
