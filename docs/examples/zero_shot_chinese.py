"""Zero-shot classification in Chinese: names the class of each image, or says that none fits.

    python docs/examples/zero_shot_chinese.py MODEL IMAGE ... --classes 猫 狗 汽车

MODEL is a run, a released file or name (ernie-vil-2.0-base-zh), or a folder of another library. "None fits" needs a
threshold, which `ernie-vil2 calibrate` stores next to a model.
"""

import argparse
import sys

import numpy as np

import ernie_vil2

TEMPLATES = ("一张{}的照片", "{}的图片", "图中有{}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--classes", nargs="+", required=True)
    options = parser.parse_args()

    try:
        model = ernie_vil2.load_model(options.model)
    except (OSError, ValueError) as error:  # no network, or no model: one line that says what to do
        sys.exit(f"error: {error}")
    prompts = [template.format(name) for name in options.classes for template in TEMPLATES]
    classes = model.encode_texts(prompts).reshape(len(options.classes), len(TEMPLATES), -1).mean(axis=1)  # [C, D]
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)

    found = model.encode_images(options.images, on_error="skip")
    for error in found.skipped.values():
        print(f"skipped: {error}", file=sys.stderr)
    cosines = found.embeddings @ classes.T  # [N, C]
    threshold = model.calibration.thresholds["image_to_text"].cosine if model.calibration else -1.0
    for row, cosine in zip(found.rows, cosines, strict=True):
        best = int(cosine.argmax())
        name = options.classes[best] if cosine[best] >= threshold else "none fits"
        print(f"{options.images[row]}: {name} ({cosine[best]:.3f})")


if __name__ == "__main__":
    main()
