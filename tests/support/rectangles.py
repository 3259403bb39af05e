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
    """Detector of at most one object of each colour, where that colour exceeds the sum of the others by over a half.

    Class 0 is a bar, more than twice as wide as high, class 1 a block. The score of an object is the excess, and so is
    the score of its colour as an attribute; other attributes have the score 0.
    """

    def __init__(self):
        super().__init__()
        self.excess = paddle.nn.Conv2D(3, 3, 1, bias_attr=False)
        self.excess.weight.set_value(2 * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) - 1)

    def forward(self, image, im_shape, scale_factor):
        # Upsampled as in the necks of detectors; oneDNN's kernel for it fails in Paddle 3.3.
        excess = paddle.nn.functional.interpolate(self.excess(image), scale_factor=2.0)  # [B, 3, 2 H, 2 W]
        inside = (excess > 0.5).astype("float32")

        # scale_factor and im_shape are [B, 2]: vertical, horizontal.
        left, right = self._find_bounds(inside.max(axis=2), scale_factor[:, 1:2], im_shape[:, 1:2])
        top, bottom = self._find_bounds(inside.max(axis=3), scale_factor[:, 0:1], im_shape[:, 0:1])

        score = excess.max(axis=[2, 3])  # [B, 3]
        kind = (right - left <= 2 * (bottom - top)).astype("float32")
        rows = paddle.stack([kind, score, left, top, right, bottom], axis=-1).reshape([-1, 6])
        colours = (score.unsqueeze(-1) * paddle.eye(3)).reshape([-1, 3])
        is_object = (score > 0.5).astype("int32")
        indices = paddle.nonzero(is_object.flatten()).squeeze(1)
        num_objects = is_object[:, 0] + is_object[:, 1] + is_object[:, 2]  # [B]
        return paddle.gather(rows, indices), num_objects, paddle.gather(colours, indices)

    @staticmethod
    def _find_bounds(inside, scale, limit):
        """Return the first and last position of objects along one axis, in pixels of the original image, `[B, 3]`."""
        position = paddle.arange(inside.shape[2], dtype="float32") / 2  # of the upsampled image
        mask = inside > 0  # [B, 3, length]
        first = paddle.where(mask, position, position * 0 + 1e6).min(-1)
        last = paddle.where(mask, position + 0.5, position * 0).max(-1)
        return first / scale, paddle.where(last < limit, last, limit) / scale


def export_detector(folder, steps=STEPS, name="model"):
    """Export the detector to a folder, which is made if it is missing."""
    folder.mkdir(exist_ok=True)
    net = RectangleDetector()
    net.eval()
    inputs = [
        InputSpec([None, 3, None, None], "float32", "image"),
        InputSpec([None, 2], "float32", "im_shape"),
        InputSpec([None, 2], "float32", "scale_factor"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Paddle's `where` asks for an attribute that static graphs lack
        paddle.jit.save(net, str(folder / name), input_spec=inputs)
    config = {"mode": "paddle", "arch": "PPYOLOE", "Preprocess": steps, "label_list": ["bar", "block"]}
    (folder / "infer_cfg.yml").write_text(yaml.safe_dump(config))
    return folder


def draw_rectangles(height, width, rectangles, background=255):
    """Return an image with rectangles (colour, left, top, right, bottom), `[height, width, 3]` uint8 RGB."""
    image = np.full([height, width, 3], background, np.uint8)
    for colour, left, top, right, bottom in rectangles:
        image[top:bottom, left:right] = COLOURS.get(colour, colour)
    return image


if __name__ == "__main__":
    export_detector(Path(sys.argv[1]), name=sys.argv[2])
