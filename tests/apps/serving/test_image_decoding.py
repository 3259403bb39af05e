"""Decoding of uploaded images: its memory is planned from the header, and bounded over the whole process."""

import asyncio
import json
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from ernie_vil2.apps.serving import image_decoding
from ernie_vil2.apps.serving.image_decoding import DecodingOverload, FairLimit, ImageDecoder, ImageTooLarge
from ernie_vil2.data import decoding
from ernie_vil2.data.decoding import plan_decoding
from ernie_vil2.data.preprocessing import Geometry, Preprocessing
from ernie_vil2.data.samples import BadSample
from tests.support import image_formats
from tests.support.image_formats import encode_data_url, make_smooth_image
from tests.support.limits import PATIENCE
from tests.support.paths import ROOT
from tests.support.processes import run_process

KINDS = ("ernie_vil2", "official", "paddlenlp", "transformers", "open_clip", "naflex")


def encode_smooth_image(width, height, kind="JPEG", mode="RGB", **options):
    return image_formats.encode_image(Image.fromarray(make_smooth_image(height, width)).convert(mode), kind, **options)


def make_preprocessing(kind="ernie_vil2", size=32, geometry=None):
    return Preprocessing(kind, size, (0.5,) * 3, (0.5,) * 3, geometry=geometry or Geometry())


@pytest.mark.parametrize(("short_side", "factor"), [(63, 1), (127, 1), (128, 2), (255, 2), (256, 4), (512, 8)])
def test_scale_keeps_twice_the_side_that_the_model_sees(short_side, factor):
    content = encode_smooth_image(short_side, short_side + 50)
    for kind in KINDS[:5]:
        plan = make_preprocessing(kind).plan(content, "a")
        assert plan.factor == factor and plan.num_pixels == short_side * (short_side + 50), kind


def test_scale_follows_the_resize_of_the_model():
    wide = encode_smooth_image(1024, 128)
    longest = make_preprocessing("transformers", geometry=Geometry(resize="longest"))
    resized = make_preprocessing("transformers", geometry=Geometry(resized=64))
    naflex = make_preprocessing("naflex", geometry=Geometry(most_patches=8))  # 8 x 1 patches of 16 pixels
    factors = [preprocessing.plan(wide, "a").factor for preprocessing in (longest, resized, naflex)]
    assert factors == [8, 1, 4]


@pytest.mark.parametrize(("kind", "orientation"), [*((kind, 6) for kind in KINDS), ("ernie_vil2", 1)])
def test_reduced_image_gives_the_view_of_the_whole_image(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode_smooth_image(900, 600, exif=exif, quality=95)
    preprocessing = make_preprocessing(kind, geometry=Geometry(most_patches=4) if kind == "naflex" else None)
    factor = preprocessing.plan(content, "a").factor
    assert factor == 8
    expected = preprocessing.make_view(preprocessing.decode(content, "a", 1)).astype(int)
    actual = preprocessing.make_view(preprocessing.decode(content, "a", factor)).astype(int)
    assert actual.shape == expected.shape
    # The views differ by less than the view and itself, moved by one pixel.
    shift = min(np.abs(np.diff(expected, axis=axis)).mean() for axis in (0, 1))
    assert np.abs(actual - expected).mean() < shift


def test_coefficients_of_a_progressive_jpeg_are_counted():
    # 13 bytes a pixel of the reduced image, and 2 a coefficient where all coefficients are needed at once.
    width, height = 800, 640
    one_pass = encode_smooth_image(width, height, subsampling=0)
    assert plan_decoding(one_pass, "a", lambda *_: (80, 80)).num_bytes == 100 * 80 * 13
    for subsampling, samples in ((0, 3), (1, 2), (2, 1.5)):
        progressive = encode_smooth_image(width, height, progressive=True, subsampling=subsampling)
        plan = plan_decoding(progressive, "a", lambda *_: (80, 80))
        assert plan.num_bytes == 100 * 80 * 13 + 2 * samples * width * height
    # An image whose first scan has a single colour needs all coefficients as well. The byte behind the length of the
    # scan's header is its number of colours.
    grey = encode_smooth_image(width, height, mode="L")
    start = grey.index(b"\xff\xda")
    assert grey[start + 4] == 1
    scan_header = one_pass[one_pass.index(b"\xff\xda") :][:5]
    three_scans = one_pass.replace(scan_header, b"\xff\xda\x00\x08\x01")
    assert plan_decoding(three_scans, "a", lambda *_: (80, 80)).num_bytes == 100 * 80 * 13 + 2 * 3 * width * height


def test_many_scans_of_a_jpeg_count_as_more_pixels():
    content = encode_smooth_image(100, 80, progressive=True)
    with_more_scans = content + content[content.index(b"\xff\xda") :] * 20
    num_scans = with_more_scans.count(b"\xff\xda")
    assert plan_decoding(content, "a", lambda *_: (1, 1)).num_pixels == 8000
    # The pixels count once more for every 16 scans that are begun.
    assert plan_decoding(with_more_scans, "a", lambda *_: (1, 1)).num_pixels == 8000 * -(-num_scans // 16) > 50_000


def test_photo_of_108_megapixels_is_decoded_and_one_of_200_refused(monkeypatch):
    content = encode_smooth_image(160, 120)
    position = content.index(b"\xff\xc0") + 5  # of the height in the header of the frame

    def set_size(width, height):
        return content[:position] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[position + 4 :]

    plan = make_preprocessing(size=224).plan(set_size(12000, 9000), "phone")
    assert plan.factor == 8 and plan.num_bytes < 300 * 2**20
    for width, height in ((65_000, 300), (16_000, 12_500)):
        with pytest.raises(BadSample):
            make_preprocessing(size=224).plan(set_size(width, height), "a")
    # A model of 4,000 pixels needs the image in full.
    with pytest.raises(BadSample, match="too many pixels"):
        make_preprocessing(size=4000).plan(set_size(12000, 9000), "a")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "1", "CMYK"])
@pytest.mark.parametrize("background", [None, (255, 200, 100)], ids=["black", "coloured"])
def test_decoding_in_bands_gives_the_same_pixels(monkeypatch, mode, background):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    content = encode_smooth_image(90, 70, kind, mode)
    expected = decoding.decode_image(content, "a", background)
    monkeypatch.setattr(decoding, "_BAND_PIXELS", 1000)
    np.testing.assert_array_equal(decoding.decode_image(content, "a", background), expected)


def test_image_above_the_memory_limit_is_refused(monkeypatch):
    content = encode_smooth_image(50, 40, "PNG")
    monkeypatch.setattr(image_decoding, "MAX_LARGE_BYTES", make_preprocessing().plan(content, "a").num_bytes - 1)
    with pytest.raises(ImageTooLarge, match="mine"):
        ImageDecoder().plan(content, "mine", make_preprocessing())


def test_large_jpeg_2000_is_refused(monkeypatch):
    content = encode_smooth_image(64, 64, "JPEG2000")
    make_preprocessing().plan(content, "a")
    monkeypatch.setattr(decoding, "_MAX_JPEG_2000_PIXELS", 64 * 64 - 1)
    with pytest.raises(BadSample, match="too many pixels"):
        make_preprocessing().plan(content, "a")


class Gate:
    """Work on decoded pixels that waits for `go`.

    Attributes:
        started: is released whenever work starts.
        running: planned bytes of the work that runs now.
        peak: largest `running` until now.
    """

    def __init__(self, num_bytes):
        self.num_bytes, self.started, self.go = num_bytes, threading.Semaphore(0), threading.Event()
        self.running = self.peak = 0
        self._lock = threading.Lock()

    def __call__(self, pixels):
        with self._lock:
            self.running += self.num_bytes
            self.peak = max(self.peak, self.running)
        self.started.release()
        self.go.wait(PATIENCE)
        with self._lock:
            self.running -= self.num_bytes
        return pixels.shape


@pytest.mark.parametrize("limit", ["MAX_SMALL_BYTES", "MAX_LARGE_BYTES"])
def test_memory_of_all_images_being_decoded_is_bounded(monkeypatch, limit):
    content = encode_smooth_image(50, 40, "PNG")
    num_bytes = make_preprocessing().plan(content, "a").num_bytes
    monkeypatch.setattr(image_decoding, limit, 2 * num_bytes)
    monkeypatch.setattr(image_decoding, "NUM_SMALL_THREADS", 6)
    monkeypatch.setattr(image_decoding, "NUM_LARGE_THREADS", 6)
    if limit == "MAX_LARGE_BYTES":
        monkeypatch.setattr(image_decoding, "SMALL_BYTES", 0)
    gate = Gate(num_bytes)

    async def decode_six_images():
        decoder, preprocessing = ImageDecoder(), make_preprocessing()
        plan = decoder.plan(content, "a", preprocessing)

        def decode():
            return decoder.decode(content, "a", plan, preprocessing, gate)

        tasks = [asyncio.create_task(decode()) for _ in range(6)]
        for _ in range(2):
            await asyncio.to_thread(gate.started.acquire)
        monkeypatch.setattr(image_decoding, "MAX_WAIT", 0)
        with pytest.raises(DecodingOverload):
            await decode()
        # The clients of an image that is decoded and of one that waits go away. A thread cannot be stopped: it
        # continues, and its memory stays counted.
        for task in (tasks[0], tasks[5]):
            task.cancel()
        await asyncio.wait([tasks[0], tasks[5]])
        assert gate.running == 2 * num_bytes
        gate.go.set()
        assert await asyncio.gather(*tasks[1:5]) == [(40, 50, 3)] * 4
        return decoder

    decoder = asyncio.run(decode_six_images())
    assert gate.peak == 2 * num_bytes
    for lane in (decoder._small, decoder._large):
        lane.threads.shutdown()
        assert lane.limit.used == 0


def test_small_request_does_not_overtake_a_large_one():
    async def run():
        limit, order = FairLimit(10), []

        async def take(name, weight):
            await limit.acquire(weight, PATIENCE)
            order.append(name)

        await take("first", 6)
        tasks = [asyncio.create_task(take(name, weight)) for name, weight in (("large", 10), ("small", 1))]
        await asyncio.sleep(0)
        assert order == ["first"]
        limit.release(6)
        await tasks[0]
        assert order == ["first", "large"] and limit.used == 10
        limit.release(10)
        await tasks[1]
        limit.release(1)
        assert limit.used == 0

    asyncio.run(run())


def test_server_answers_503_while_others_decode(client, monkeypatch):
    image = encode_data_url(encode_smooth_image(50, 40, "PNG"))
    monkeypatch.setattr(image_decoding, "MAX_WAIT", 0)
    assert client.post("/v1/embeddings", json={"input": image}).status_code == 200
    monkeypatch.setattr(FairLimit, "_admit", lambda self: None)
    answer = client.post("/v1/embeddings", json={"input": image})
    assert answer.status_code == 503 and answer.headers["retry-after"]


PEAK = """
import json, resource, sys
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.apps.serving.image_decoding import _return_memory
preprocessing = Preprocessing("ernie_vil2", 224, (0.5,) * 3, (0.5,) * 3)
content = open(sys.argv[1], "rb").read()
initial = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
plan = preprocessing.plan(content, "a")
preprocessing.make_view(preprocessing.decode(content, "a", plan.factor))
_return_memory()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([1024 * (peak - initial), plan.num_bytes]))
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
        pytest.param("PNG", "RGBA", {"compress_level": 1}, marks=pytest.mark.slow),
        pytest.param("JPEG", "RGB", {}, marks=pytest.mark.slow),
        pytest.param("TIFF", "RGBA", {"compression": "tiff_deflate"}, marks=pytest.mark.slow),
        pytest.param("WEBP", "RGBA", {"method": 0}, marks=pytest.mark.slow),
        pytest.param("JPEG2000", "RGBA", {}, marks=pytest.mark.slow),
    ],
)
def test_decoding_takes_no_more_memory_than_planned(tmp_path, kind, mode, options):
    (tmp_path / "image").write_bytes(encode_smooth_image(2900, 2800, kind, mode, **options))
    command = [sys.executable, "-c", PEAK, str(tmp_path / "image")]
    result = run_process(command, cwd=ROOT, capture_output=True, text=True, check=True)
    peak, planned = json.loads(result.stdout)
    assert peak < planned + 16 * 2**20  # 16 MiB for memory of the libraries beside the pixels
