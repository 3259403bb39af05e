"""Samples per second and core from a JPEG to two augmented views, compared with the same in Pillow and paddle.vision.

    python benchmarks/loader.py
    python benchmarks/loader.py --quality 75 --rounds 9

The images are windows of 500x375 pixels from the two photographs that scikit-learn ships (a temple full of detail, a
flower before a soft background), encoded again with each quality. The views are those of the default configuration:
224 pixels, the paper's augmentation. Pillow's pipeline is that of most trainers: resize of the short side, random crop,
flip, brightness, contrast, colour and hue, Gaussian blur, grey; torchvision's transforms call the same functions of
Pillow. It and paddle.vision's apply their transform to the decoded image for each view, as trainers do. One line shows
Pillow with the resize shared, as it is in ours, and one with the file decoded for each view, as where a view is an item
of the data set. Ours ends with uint8 pixels: the training step normalises them on its device.

Everything runs in one thread and is measured in CPU seconds; the pipelines take turns, and of each the best round
counts, so that other load on the machine disturbs the ratios little. The last line is of whole batches: read from a
shard, tokenised, two views, handed to Paddle.
"""

import argparse
import io
import random
import sys
import tarfile
import tempfile
import time
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from ernie_vil2.config import Config

SIZE, COUNT = 224, 2
WHOLE = "our whole loader, text included"
DEVICE = "a100-80g"  # the device that has to be fed, with the share of its peak of benchmarks/expectations.yaml


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", type=int, nargs="+", default=[75, 90, 95], help="of the JPEG files")
    parser.add_argument("--images", type=int, default=20, help="different images")
    parser.add_argument("--rounds", type=int, default=5, help="turns that every pipeline takes")
    args = parser.parse_args()

    from ernie_vil2.device import runtime

    runtime.configure()
    import cv2

    from ernie_vil2.config import Config

    cv2.setNumThreads(0)
    config = Config()
    need = samples_per_second()
    print(explanation(config, need))
    for quality in args.quality:
        files = jpeg_files(args.images, quality)
        rates = measured(pipelines(config), files, args.rounds)
        rates[WHOLE] = loader_rate(files, args.rounds)
        print(f"\nJPEG quality {quality}, {sum(map(len, files)) / len(files) / 1000:.0f} kB on average")
        print(f"{'':<36}{'samples/s/core':>16}{'ours is faster':>16}{'cores an A100':>15}")
        ours = next(iter(rates.values()))
        for name, rate in rates.items():
            print(f"{name:<36}{rate:>16.0f}{ours / rate:>15.1f}x{need / rate:>15.1f}", flush=True)
        print("where our time goes: " + ", ".join(f"{part} {share:.0%}" for part, share in shares(files, args.rounds)))
    return 0


def samples_per_second() -> float:
    """Return the image-text pairs that an A100 trains on in a second, ViT-B/16 and ERNIE base, two views of each."""
    peak, share = peak_and_share()
    return share * peak / sum(flop_per_sample())


def peak_and_share() -> tuple[float, float]:
    """Return the operations a second of an A100 in bfloat16, and the share of them that a training uses."""
    from benchmarks.expectations import expect_step
    from ernie_vil2.planning.plan import DEVICES

    expected = expect_step(DEVICE, "suite")
    if expected is None:
        raise SystemExit(f"error: nothing is expected of {DEVICE}")
    return DEVICES[DEVICE].flops["bfloat16"], expected.share_of_peak


@cache
def flop_per_sample() -> tuple[float, float]:
    """Return the operations of the image and of the text tower: two views, forward once and backward twice that.

    The towers are those of PaddleClas and PaddleNLP, for which the share of the peak is expected.
    """
    from ernie_vil2.config import load_config
    from ernie_vil2.planning.towers import Towers

    names = ["Model.image.name=paddleclas:ViT-B/16", "Model.text.name=paddlenlp:ernie-base"]
    towers = Towers(load_config(None, names))
    return 2 * 3 * towers.row_flops("image"), 2 * 3 * towers.row_flops("text")


def explanation(config: "Config", need: float) -> str:
    image, text = (flop / 1e9 for flop in flop_per_sample())
    peak, share = peak_and_share()
    return (
        f"Two views of an image (ViT-B/16, {SIZE} pixels) take {image:.0f} GFLOP, two of a text (ERNIE base, "
        f"{config.Data.max_length} tokens) {text:.0f}, forward and backward.\nAn A100 with {peak / 1e12:.0f} "
        f"TFLOP/s in bfloat16, {share:.0%} of them used (calculated), so trains on {need:.0f} samples a second."
    )


def jpeg_files(count: int, quality: int) -> list[bytes]:
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    files = []
    for number in range(count):
        photo = photos[number % len(photos)]
        width = int(rng.integers(500, photo.height * 4 // 3 + 1))
        height = width * 3 // 4
        left, top = int(rng.integers(photo.width - width + 1)), int(rng.integers(photo.height - height + 1))
        window = photo.resize((500, 375), Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
        file = io.BytesIO()
        window.save(file, "JPEG", quality=quality)
        files.append(file.getvalue())
    return files


def pipelines(config: "Config") -> dict:
    """Return functions of a file and a random generator, by name; ours come first."""
    from benchmarks.pillow_views import normalize, pillow_views
    from ernie_vil2.data.augment import draw_image_views

    views, image = config.Views, config.Model.image

    def ours(data, rng):
        return draw_image_views(data, "benchmark", COUNT, SIZE, views, rng)

    def pillow(data, rng):
        return pillow_views(data, COUNT, SIZE, views, rng)

    def pillow_shared(data, rng):
        return pillow_views(data, COUNT, SIZE, views, rng, shared_resize=True)

    def pillow_floats(data, rng):
        return [normalize(view, image.mean, image.std) for view in pillow(data, rng)]

    def pillow_decoding_twice(data, rng):
        return [normalize(pillow_views(data, 1, SIZE, views, rng)[0], image.mean, image.std) for _ in range(COUNT)]

    return {
        "ours, uint8": ours,
        "Pillow, one resize for both, uint8": pillow_shared,
        "Pillow, uint8": pillow,
        "Pillow, normalised float32": pillow_floats,
        "the same, the file decoded for each": pillow_decoding_twice,
        "paddle.vision, normalised float32": partial(paddle_views, paddle_transform(views, image)),
    }


def shares(files: list[bytes], rounds: int) -> list[tuple[str, float]]:
    """Measure parts of our views: decoding alone, and what is saved when a part is switched off."""
    from ernie_vil2.config import ViewsConfig
    from ernie_vil2.data.augment import draw_image_views
    from ernie_vil2.data.decoding import EncodedImage

    def views(**changes):
        config = ViewsConfig(**changes)
        return lambda data, rng: draw_image_views(data, "benchmark", COUNT, SIZE, config, rng)

    off = {"flip": 0.0, "jitter": 0.0, "blur": 0.0, "grayscale": 0.0}
    forms = {
        "all": views(),
        "without blur": views(blur=0.0),
        "without colours": views(jitter=0.0),
        "windows": views(**off),
        "decoder": lambda data, rng: EncodedImage(data, "benchmark").decode(fast=True),
    }
    seconds = {name: 1 / rate for name, rate in measured(forms, files, rounds).items()}
    parts = {
        "decoder": seconds["decoder"],
        "resize and windows": seconds["windows"] - seconds["decoder"],
        "blur": seconds["all"] - seconds["without blur"],
        "brightness, contrast, saturation and hue": seconds["all"] - seconds["without colours"],
    }
    parts["the rest"] = seconds["all"] - sum(parts.values())
    return [(part, taken / seconds["all"]) for part, taken in parts.items()]


def paddle_transform(views, image):
    """Convert a Pillow image to normalised floats."""
    from paddle.vision import transforms
    from PIL import ImageFilter

    class Sometimes(transforms.BaseTransform):
        def __init__(self, transform, probability):
            super().__init__()
            self.transform, self.probability = transform, probability

        def _apply_image(self, decoded):
            return self.transform(decoded) if random.random() < self.probability else decoded  # noqa: S311  -- no secret

    def blur(decoded):  # which paddle.vision does not have
        return decoded.filter(ImageFilter.GaussianBlur(random.uniform(*views.blur_sigma)))  # noqa: S311  -- no secret

    jitter = transforms.ColorJitter(views.brightness, views.contrast, views.saturation, views.hue)
    return transforms.Compose(
        [
            transforms.Resize(views.resize),
            transforms.RandomCrop(SIZE),
            transforms.RandomHorizontalFlip(views.flip),
            Sometimes(jitter, views.jitter),
            Sometimes(blur, views.blur),
            Sometimes(transforms.Grayscale(3), views.grayscale),
            transforms.Transpose(),
            transforms.Normalize([255 * value for value in image.mean], [255 * value for value in image.std]),
        ]
    )


def paddle_views(transform, data, rng):
    from PIL import Image

    decoded = Image.open(io.BytesIO(data)).convert("RGB")
    return [transform(decoded) for _ in range(COUNT)]


def loader_rate(files: list[bytes], rounds: int) -> float:
    """Return samples a CPU second of the best batch that holds each file once, from a tar shard to Paddle's tensors."""
    from ernie_vil2.config import load_config
    from ernie_vil2.config.sections import VIEWS
    from ernie_vil2.data.loader import load_batches
    from ernie_vil2.data.stream import SampleStream
    from ernie_vil2.data.tokenizer import WordPieceTokenizer
    from ernie_vil2.tasks.multi_view import MultiViewRows

    caption = "一座古老的寺庙，屋檐下挂着红色的灯笼".encode()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(f"{folder}/a.tar", "w") as shard:
            for number, file in enumerate(files):
                for suffix, content in (("jpg", file), ("txt", caption)):
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
        settings = [f"Data.train=[{folder}/a.tar]", "Data.workers=0", f"Training.global_batch={len(files)}"]
        config = load_config(None, settings)
        tokenizer = WordPieceTokenizer(max_length=config.Data.max_length)
        batches = load_batches(MultiViewRows(SampleStream(config), config, tokenizer, VIEWS), config)
        seconds = []
        for _ in range(rounds + 1):
            start = time.process_time()
            if next(batches)["rows"] != len(files):
                raise SystemExit("error: a batch lacks rows")
            seconds.append(time.process_time() - start)
    return len(files) / min(seconds)


def measured(pipelines: dict, files: list[bytes], rounds: int) -> dict[str, float]:
    """Return samples a CPU second of each pipeline's best round."""
    import numpy as np

    seconds = dict.fromkeys(pipelines, float("inf"))
    for number in range(rounds + 1):  # the first warms up
        for name, views in pipelines.items():
            start = time.process_time()
            for position, data in enumerate(files):
                views(data, np.random.default_rng([number, position]))
            if number:
                seconds[name] = min(seconds[name], time.process_time() - start)
    return {name: len(files) / taken for name, taken in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
