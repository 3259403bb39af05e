"""Measure samples per second and core from a JPEG to two augmented views: ours, Pillow's and paddle.vision's.

    python benchmarks/loader.py
    python benchmarks/loader.py --quality 75 --rounds 9

The images are windows of 500x375 pixels from the two photographs that scikit-learn ships (a temple full of detail, a
flower before a soft background), encoded with each quality. The views are those of the default configuration: 224
pixels, the paper's augmentation.

Pillow's pipeline is that of most trainers: resize of the short side, random crop, flip, brightness, contrast, colour
and hue, Gaussian blur, grey; torchvision's transforms call the same functions of Pillow. Pillow and paddle.vision
decode an image once and apply the whole transform for each view, as trainers do. In one line Pillow shares the resize,
as ours does, and in one it decodes the file for each view, as when a view is an item of the data set. Ours ends with
uint8 pixels, which the training step normalises on its device.

Everything runs in one thread and is measured in CPU seconds. The pipelines take turns and the best round of each
counts, so that other load disturbs the ratios little. The last line is of whole batches: read from a shard, tokenised,
two views, handed to Paddle.
"""

import argparse
import io
import random
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from ernie_vil2.config import Config

Pipeline = Callable[[bytes, Any], Any]
"""Function of a JPEG file and NumPy's random generator, which makes its views."""
VIEW_SIZE = 224  # pixels
NUM_VIEWS = 2
PACKAGE = "ours, uint8"
WHOLE_LOADER = "our whole loader, text included"
DEVICE = "a100-80g"  # the device that is to be fed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", type=int, nargs="+", default=[75, 90, 95], help="qualities of the JPEG files")
    parser.add_argument("--images", type=int, default=20, help="number of images")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each pipeline, after one to warm up")
    args = parser.parse_args()

    from ernie_vil2.device import runtime

    runtime.configure()
    import cv2

    from ernie_vil2.config import Config

    cv2.setNumThreads(0)  # no further threads
    config = Config()
    peak_flops, share_of_peak = read_peak_and_share()
    image_flop, text_flop = count_flop_per_sample()
    samples_per_second = share_of_peak * peak_flops / (image_flop + text_flop)
    print(
        f"Two views of an image (ViT-B/16, {VIEW_SIZE} pixels) take {image_flop / 1e9:.0f} GFLOP, two of a text "
        f"(ERNIE base, {config.Data.max_length} tokens) {text_flop / 1e9:.0f}, forward and backward.\n"
        f"An A100 with {peak_flops / 1e12:.0f} TFLOP/s in bfloat16, {share_of_peak:.0%} of them used (calculated), so "
        f"trains on {samples_per_second:.0f} samples a second."
    )
    for quality in args.quality:
        files = jpeg_files(args.images, quality)
        rates = measure_rates(make_pipelines(config), files, args.rounds)
        rates[WHOLE_LOADER] = measure_loader_rate(files, args.rounds)
        print(f"\nJPEG quality {quality}, {sum(map(len, files)) / len(files) / 1000:.0f} kB on average")
        print(f"{'':<36}{'samples/s/core':>16}{'ours is faster':>16}{'cores an A100':>15}")
        for name, rate in rates.items():
            ratio, num_cores = rates[PACKAGE] / rate, samples_per_second / rate
            print(f"{name:<36}{rate:>16.0f}{ratio:>15.1f}x{num_cores:>15.1f}", flush=True)
        shares = measure_shares(files, args.rounds)
        print("where our time goes: " + ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items()))
    return 0


def read_peak_and_share() -> tuple[float, float]:
    """Return the operations per second of an A100 in bfloat16, and the share of them that a training uses."""
    from benchmarks.expectations import expect_step
    from ernie_vil2.planning.plan import DEVICES

    expected = expect_step(DEVICE, "suite")
    if expected is None:
        raise SystemExit(f"error: nothing is expected of {DEVICE}")
    return DEVICES[DEVICE].flops["bfloat16"], expected.share_of_peak


def count_flop_per_sample() -> tuple[float, float]:
    """Return the operations of the image tower and of the text tower for two views, forward and backward.

    The towers are those of PaddleClas and PaddleNLP, for which the share of the peak is expected.
    """
    from ernie_vil2.config import load_config
    from ernie_vil2.planning.towers import Towers

    names = ["Model.image.name=paddleclas:ViT-B/16", "Model.text.name=paddlenlp:ernie-base"]
    towers = Towers(load_config(None, names))
    passes = 3  # backward takes twice as many operations as forward
    return NUM_VIEWS * passes * towers.row_flops("image"), NUM_VIEWS * passes * towers.row_flops("text")


def jpeg_files(count: int, quality: int) -> list[bytes]:
    """Return windows of scikit-learn's photographs as JPEG files of 500x375 pixels."""
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
        left = int(rng.integers(photo.width - width + 1))
        top = int(rng.integers(photo.height - height + 1))
        window = photo.resize((500, 375), Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
        file = io.BytesIO()
        window.save(file, "JPEG", quality=quality)
        files.append(file.getvalue())
    return files


def make_pipelines(config: "Config") -> dict[str, Pipeline]:
    """Return the pipelines by name; ours comes first."""
    from benchmarks.pillow_views import normalize, pillow_views
    from ernie_vil2.data.augment import draw_image_views

    views, image = config.Views, config.Model.image

    def draw_ours(data, rng):
        return draw_image_views(data, "benchmark", NUM_VIEWS, VIEW_SIZE, views, rng)

    def draw_with_pillow(data, rng):
        return pillow_views(data, NUM_VIEWS, VIEW_SIZE, views, rng)

    def share_resize(data, rng):
        return pillow_views(data, NUM_VIEWS, VIEW_SIZE, views, rng, shared_resize=True)

    def draw_floats(data, rng):
        return [normalize(view, image.mean, image.std) for view in draw_with_pillow(data, rng)]

    def decode_for_each_view(data, rng):
        floats = []
        for _ in range(NUM_VIEWS):
            (view,) = pillow_views(data, 1, VIEW_SIZE, views, rng)
            floats.append(normalize(view, image.mean, image.std))
        return floats

    return {
        PACKAGE: draw_ours,
        "Pillow, one resize for both, uint8": share_resize,
        "Pillow, uint8": draw_with_pillow,
        "Pillow, normalised float32": draw_floats,
        "the same, the file decoded for each": decode_for_each_view,
        "paddle.vision, normalised float32": make_paddle_pipeline(config),
    }


def make_paddle_pipeline(config: "Config") -> Pipeline:
    """Return the pipeline of paddle.vision's transforms."""
    from paddle.vision import transforms
    from PIL import Image, ImageFilter

    views, image = config.Views, config.Model.image

    class RandomApply(transforms.BaseTransform):
        """Apply a transform with a probability."""

        def __init__(self, transform, probability):
            super().__init__()
            self.transform = transform
            self.probability = probability

        def _apply_image(self, decoded):
            return self.transform(decoded) if random.random() < self.probability else decoded  # noqa: S311  -- no secret

    def blur(decoded):  # paddle.vision has none
        return decoded.filter(ImageFilter.GaussianBlur(random.uniform(*views.blur_sigma)))  # noqa: S311  -- no secret

    jitter = transforms.ColorJitter(views.brightness, views.contrast, views.saturation, views.hue)
    transform: Any = transforms.Compose(  # its types lack Pillow's images
        [
            transforms.Resize(views.resize),
            transforms.RandomCrop(VIEW_SIZE),
            transforms.RandomHorizontalFlip(views.flip),
            RandomApply(jitter, views.jitter),
            RandomApply(blur, views.blur),
            RandomApply(transforms.Grayscale(3), views.grayscale),
            transforms.Transpose(),
            # The pixels are 0 to 255.
            transforms.Normalize([255 * value for value in image.mean], [255 * value for value in image.std]),
        ]
    )

    def draw_with_paddle(data, rng):
        decoded = Image.open(io.BytesIO(data)).convert("RGB")
        return [transform(decoded) for _ in range(NUM_VIEWS)]

    return draw_with_paddle


def measure_rates(pipelines: dict[str, Pipeline], files: list[bytes], num_rounds: int) -> dict[str, float]:
    """Return the samples per CPU second of each pipeline in its best round; the pipelines take turns."""
    import numpy as np

    best_seconds = dict.fromkeys(pipelines, float("inf"))
    for round_number in range(num_rounds + 1):
        for name, pipeline in pipelines.items():
            start = time.process_time()
            for position, data in enumerate(files):
                pipeline(data, np.random.default_rng([round_number, position]))
            seconds = time.process_time() - start
            if round_number > 0:  # the first round warms up
                best_seconds[name] = min(best_seconds[name], seconds)
    return {name: len(files) / seconds for name, seconds in best_seconds.items()}


def measure_loader_rate(files: list[bytes], num_rounds: int) -> float:
    """Return the samples per CPU second of the loader's best batch, from a tar shard to Paddle's tensors.

    A batch holds each file once.
    """
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
        best_seconds = float("inf")
        for _ in range(num_rounds + 1):
            start = time.process_time()
            if next(batches)["rows"] != len(files):
                raise SystemExit("error: a batch lacks rows")
            best_seconds = min(best_seconds, time.process_time() - start)
    return len(files) / best_seconds


def measure_shares(files: list[bytes], num_rounds: int) -> dict[str, float]:
    """Return the shares of the time of our views by stage: decoding alone, and what is saved by leaving a stage out."""
    from ernie_vil2.config import ViewsConfig
    from ernie_vil2.data.augment import draw_image_views
    from ernie_vil2.data.decoding import EncodedImage

    def draw_with(**changes):
        views = ViewsConfig(**changes)
        return lambda data, rng: draw_image_views(data, "benchmark", NUM_VIEWS, VIEW_SIZE, views, rng)

    pipelines = {
        "all": draw_with(),
        "without blur": draw_with(blur=0.0),
        "without colours": draw_with(jitter=0.0),
        "windows": draw_with(flip=0.0, jitter=0.0, blur=0.0, grayscale=0.0),
        "decoder": lambda data, rng: EncodedImage(data, "benchmark").decode(fast=True),
    }
    seconds = {name: 1 / rate for name, rate in measure_rates(pipelines, files, num_rounds).items()}
    stages = {
        "decoder": seconds["decoder"],
        "resize and windows": seconds["windows"] - seconds["decoder"],
        "blur": seconds["all"] - seconds["without blur"],
        "brightness, contrast, saturation and hue": seconds["all"] - seconds["without colours"],
    }
    stages["the rest"] = seconds["all"] - sum(stages.values())
    return {stage: stage_seconds / seconds["all"] for stage, stage_seconds in stages.items()}


if __name__ == "__main__":
    sys.exit(main())
