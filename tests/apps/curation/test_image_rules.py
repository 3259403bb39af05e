"""Rules of images: pages of text, collages, gradients, QR codes and unfinished images, each made here."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ernie_vil2.apps.curation.image_measures import (
    count_letters,
    measure_blocks,
    measure_qr_code,
    measure_relief,
    measure_seams,
    measure_sharpness,
    measure_unfinished,
    shrink_luminance,
)
from tests.support.crawled_pairs import make_distinct_image, write_pair_shard
from tests.support.image_formats import encode_image


def make_gradient(size=240):
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    return np.stack([250 * x, 200 - 90 * y, 40 + 100 * x * y], axis=2).astype(np.uint8)


def make_page(size=480, num_lines=10):
    page = Image.new("RGB", (size, size), (245,) * 3)
    # Pillow's font, because OpenCV's is another one from version 5 on.
    font = ImageFont.load_default(22)
    for line in range(num_lines):
        ImageDraw.Draw(page).text((20, 20 + 40 * line), f"Returns within {line} days", (20,) * 3, font)
    return np.array(page)


def make_collage(gap=4, size=200):
    collage = np.full((2 * size + gap, 2 * size + gap, 3), 255, np.uint8)
    for number, (top, left) in enumerate([(0, 0), (0, size + gap), (size + gap, 0), (size + gap, size + gap)]):
        collage[top : top + size, left : left + size] = make_distinct_image(number, size) // 2
    return collage


def make_code(angle=0):
    """Return a picture with a QR code of level L, made by OpenCV's encoder, turned by some degrees."""
    code = cv2.QRCodeEncoder.create().encode("https://example.com/follow-us")
    code = cv2.copyMakeBorder(code, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=255)
    code = cv2.resize(code, (240, 240), interpolation=cv2.INTER_NEAREST)
    image = np.full((400, 400), 255, np.uint8)
    image[80:320, 80:320] = code
    matrix = cv2.getRotationMatrix2D((200, 200), angle, 1)
    image = cv2.warpAffine(image, matrix, (400, 400), borderValue=255)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def make_unfinished():
    image = make_distinct_image(5, 200).copy()
    image[120:] = 128
    return image


MADE = {
    "gradient": make_gradient, "page of text": make_page, "collage": make_collage, "QR code": make_code,
    "unfinished image": make_unfinished,
}  # fmt: skip


def test_images_without_a_scene_are_removed(tmp_path, curated):
    images = [*(make() for make in MADE.values()), *(make_distinct_image(number, 240) for number in range(20))]
    rows = [(encode_image(image), f"a picture of something, number {number}") for number, image in enumerate(images)]
    table = curated([write_pair_shard(tmp_path / "crawl.tar", rows)], "image_rules: {}").values()
    assert [row["reason"] for row in table] == [*MADE, *[None] * 20]


@pytest.mark.parametrize("angle", [0, 7, 90])
def test_share_of_a_qr_code_is_that_of_its_square(angle):
    rows, _ = np.nonzero(shrink_luminance(make_code()) < 128)
    side = rows.max() + 1 - rows.min()
    assert measure_qr_code(shrink_luminance(make_code(angle))) == pytest.approx((side / 400) ** 2, rel=0.1)


def test_letters_are_counted_in_rows():
    # Each line has 17 letters and 3 spaces; a letter counts if the next one is near it.
    num_letters = count_letters(shrink_luminance(make_page(num_lines=8)))
    assert num_letters == pytest.approx(8 * 17, rel=0.15)
    page = make_page()
    page[200:320, 200:320] = 0  # a picture on the page
    assert count_letters(shrink_luminance(page)) == 0


def test_relief_is_zero_for_a_quadratic_and_the_noise_otherwise():
    rng = np.random.default_rng(0)
    noise = np.kron(rng.normal(0, 5, (32, 32, 3)), np.ones((4, 4, 1)))
    gradient = cv2.resize(make_gradient(), (128, 128))
    assert measure_relief(gradient) < 0.5
    noisy = np.clip(gradient.astype(float) + noise, 0, 255).astype(np.uint8)
    assert measure_relief(noisy) == pytest.approx(5, rel=0.2)


def test_seams_cross_both_ways_and_rough_images_have_none():
    assert measure_seams(shrink_luminance(make_collage())) > 0.8
    pair = make_collage()[:200]  # side by side
    assert measure_seams(shrink_luminance(pair)) < 0.5
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert measure_seams(shrink_luminance(noise)) < 0.2


def test_unfinished_share_is_that_of_the_grey_rows():
    assert measure_unfinished(make_unfinished()) == pytest.approx(0.4)
    assert measure_unfinished(make_distinct_image(5, 200)) == 0
    assert measure_unfinished(np.full((10, 10, 3), 128, np.uint8)) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (3, 7), (31, 33), (64, 64), (2000, 3)])
def test_measures_take_images_of_any_shape(shape):
    for level in (0, 128, 255):
        pixels = np.full((*shape, 3), level, np.uint8)
        luminance = shrink_luminance(pixels)
        assert count_letters(luminance) == 0 and measure_seams(luminance) == 0 and measure_qr_code(luminance) == 0
        assert measure_relief(pixels) == pytest.approx(0)
        measure_unfinished(pixels)


def test_sharpness_is_that_of_the_details_and_not_of_the_size():
    luminance = np.where(make_distinct_image(3, 256)[..., 1] > 128, 200, 50).astype(np.uint8)
    sharpness = measure_sharpness(luminance)
    small = cv2.resize(luminance, (128, 128), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, (512, 512), interpolation=cv2.INTER_CUBIC)
    assert measure_sharpness(small) < 0.7 * sharpness
    assert measure_sharpness(enlarged) < 0.9 * sharpness
    assert measure_sharpness(cv2.GaussianBlur(luminance, (0, 0), 2)) < 0.7 * sharpness
    darker = (0.6 * luminance).astype(np.uint8)
    assert measure_sharpness(darker) == pytest.approx(sharpness, rel=0.1)


def test_blocks_of_compression_are_seen():
    pixels = make_gradient()
    blocks = []
    for quality in (95, 30, 8):
        _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        blocks.append(measure_blocks(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)))
    assert blocks == sorted(blocks) and blocks[0] < 0.5 < blocks[2]
    assert measure_blocks(cv2.cvtColor(make_distinct_image(3, 256), cv2.COLOR_RGB2GRAY)) < 0.3
    assert measure_blocks(np.zeros((1, 30), np.uint8)) == measure_sharpness(np.zeros((1, 30), np.uint8)) == 0
