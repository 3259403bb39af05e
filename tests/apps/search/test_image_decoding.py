"""Images of clients: what decoding them takes is known before, and bounded over the process."""

import asyncio
import json
import sys
import threading

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from ernie_vil2.apps.search import image_decoding
from ernie_vil2.apps.search.image_decoding import DecodingOverload, FairLimit, ImageDecoder, ImageTooLarge
from ernie_vil2.apps.search.service import build_app
from ernie_vil2.data import decoding
from ernie_vil2.data.decoding import plan_decoding
from ernie_vil2.data.preprocessing import Geometry, Preprocessing
from ernie_vil2.data.samples import BadSample
from tests.support import image_formats
from tests.support.image_formats import make_smooth_image
from tests.support.limits import PATIENCE
from tests.support.paths import ROOT
from tests.support.processes import run_process

KINDS = ("ernie_vil2", "official", "paddlenlp", "transformers", "open_clip", "naflex")


def encoded(width, height, kind="JPEG", mode="RGB", **options):
    """A file of a smooth image."""
    return image_formats.encode_image(Image.fromarray(make_smooth_image(height, width)).convert(mode), kind, **options)


def preprocessing(kind="ernie_vil2", size=32, geometry=None):
    return Preprocessing(kind, size, (0.5,) * 3, (0.5,) * 3, geometry=geometry or Geometry())


@pytest.mark.parametrize(("short_side", "factor"), [(63, 1), (127, 1), (128, 2), (255, 2), (256, 4), (512, 8)])
def test_scale_leaves_twice_the_pixels_that_the_model_sees(short_side, factor):
    content = encoded(short_side, short_side + 50)
    for kind in KINDS[:5]:
        plan = preprocessing(kind).plan(content, "a")
        assert plan.factor == factor and plan.num_pixels == short_side * (short_side + 50), kind


def test_scale_follows_the_resize_of_the_model():
    wide = encoded(1024, 128)
    longest = preprocessing("transformers", geometry=Geometry(resize="longest"))
    resized = preprocessing("transformers", geometry=Geometry(resized=64))
    naflex = preprocessing("naflex", geometry=Geometry(most_patches=8))  # 8 x 1 patches of 16 pixels
    assert [one.plan(wide, "a").factor for one in (longest, resized, naflex)] == [8, 1, 4]


@pytest.mark.parametrize(("kind", "orientation"), [*((kind, 6) for kind in KINDS), ("ernie_vil2", 1)])
def test_reduced_query_is_seen_as_the_whole_image_is(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(900, 600, exif=exif, quality=95)
    model = preprocessing(kind, geometry=Geometry(most_patches=4) if kind == "naflex" else None)
    factor = model.plan(content, "a").factor
    assert factor == 8
    whole, reduced = (model.view(model.decode(content, "a", one)).astype(int) for one in (1, factor))
    assert whole.shape == reduced.shape
    # Less than what a shift by one pixel of the view changes.
    shift = min(np.abs(np.diff(whole, axis=axis)).mean() for axis in (0, 1))
    assert np.abs(whole - reduced).mean() < shift


def test_coefficients_of_a_progressive_jpeg_are_counted():
    width, height = 800, 640
    one_pass = encoded(width, height, subsampling=0)
    assert plan_decoding(one_pass, "a", lambda *_: (80, 80)).num_bytes == 100 * 80 * 13
    for subsampling, samples in ((0, 3), (1, 2), (2, 1.5)):
        progressive = encoded(width, height, progressive=True, subsampling=subsampling)
        plan = plan_decoding(progressive, "a", lambda *_: (80, 80))
        assert plan.num_bytes == 100 * 80 * 13 + 2 * samples * width * height
    # A scan of each colour needs all coefficients as well.
    grey = encoded(width, height, mode="L")
    start = grey.index(b"\xff\xda")
    assert grey[start + 4] == 1
    three = one_pass.replace(one_pass[one_pass.index(b"\xff\xda") :][:5], b"\xff\xda\x00\x08\x01")
    assert plan_decoding(three, "a", lambda *_: (80, 80)).num_bytes == 100 * 80 * 13 + 2 * 3 * width * height


def test_scans_of_a_jpeg_count_as_pixels():
    content = encoded(100, 80, progressive=True)
    many = content + content[content.index(b"\xff\xda") :] * 20
    scans = many.count(b"\xff\xda")
    assert plan_decoding(content, "a", lambda *_: (1, 1)).num_pixels == 8000
    assert plan_decoding(many, "a", lambda *_: (1, 1)).num_pixels == 8000 * -(-scans // 16) > 50_000


def test_photo_of_108_megapixels_is_planned_and_of_200_refused(monkeypatch):
    content = encoded(160, 120)
    position = content.index(b"\xff\xc0") + 5

    def with_size(width, height):
        return content[:position] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[position + 4 :]

    plan = preprocessing(size=224).plan(with_size(12000, 9000), "phone")
    assert plan.factor == 8 and plan.num_bytes < 300 * 2**20
    for width, height in ((65_000, 300), (16_000, 12_500)):
        with pytest.raises(BadSample):
            preprocessing(size=224).plan(with_size(width, height), "a")
    with pytest.raises(BadSample, match="too many pixels"):  # where it is not made smaller
        preprocessing(size=4000).plan(with_size(12000, 9000), "a")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "1", "CMYK"])
@pytest.mark.parametrize("background", [None, (255, 200, 100)], ids=["black", "coloured"])
def test_bands_are_the_pixels_of_the_whole_image(monkeypatch, mode, background):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    content = encoded(90, 70, kind, mode)
    whole = decoding.decode_image(content, "a", background)
    monkeypatch.setattr(decoding, "_BAND_PIXELS", 1000)
    np.testing.assert_array_equal(decoding.decode_image(content, "a", background), whole)


def test_image_that_takes_more_than_there_is_is_refused(monkeypatch):
    content = encoded(50, 40, "PNG")
    monkeypatch.setattr(image_decoding, "MAX_LARGE_BYTES", preprocessing().plan(content, "a").num_bytes - 1)
    with pytest.raises(ImageTooLarge, match="mine"):
        ImageDecoder(preprocessing()).plan(content, "mine")


def test_large_jpeg_2000_is_refused(monkeypatch):
    content = encoded(64, 64, "JPEG2000")
    preprocessing().plan(content, "a")
    monkeypatch.setattr(decoding, "_MAX_JPEG_2000_PIXELS", 64 * 64 - 1)
    with pytest.raises(BadSample, match="too many pixels"):
        preprocessing().plan(content, "a")


class Gate:
    """Work of a decoder that waits; `peak` is the most bytes that were planned for at once."""

    def __init__(self, num_bytes):
        self.num_bytes, self.begun, self.go = num_bytes, threading.Semaphore(0), threading.Event()
        self.running = self.peak = 0
        self._lock = threading.Lock()

    def __call__(self, pixels):
        with self._lock:
            self.running += self.num_bytes
            self.peak = max(self.peak, self.running)
        self.begun.release()
        self.go.wait(PATIENCE)
        with self._lock:
            self.running -= self.num_bytes
        return pixels.shape


@pytest.mark.parametrize("limit", ["MAX_SMALL_BYTES", "MAX_LARGE_BYTES"])
def test_memory_of_all_images_being_decoded_is_bounded(monkeypatch, limit):
    content = encoded(50, 40, "PNG")
    num_bytes = preprocessing().plan(content, "a").num_bytes
    monkeypatch.setattr(image_decoding, limit, 2 * num_bytes)
    monkeypatch.setattr(image_decoding, "NUM_SMALL_THREADS", 6)
    monkeypatch.setattr(image_decoding, "NUM_LARGE_THREADS", 6)
    if limit == "MAX_LARGE_BYTES":
        monkeypatch.setattr(image_decoding, "SMALL_BYTES", 0)
    gate = Gate(num_bytes)

    async def crowd():
        decoder = ImageDecoder(preprocessing())
        tasks = [asyncio.create_task(decoder.decode(content, "a", decoder.plan(content, "a"), gate)) for _ in range(6)]
        for _ in range(2):
            await asyncio.to_thread(gate.begun.acquire)
        monkeypatch.setattr(image_decoding, "MAX_WAIT", 0)
        with pytest.raises(DecodingOverload):
            await decoder.decode(content, "a", decoder.plan(content, "a"), gate)
        # One that is decoded and one that waits lose their clients: the thread goes on, and so does what it takes.
        for task in (tasks[0], tasks[5]):
            task.cancel()
        await asyncio.wait([tasks[0], tasks[5]])
        assert gate.running == 2 * num_bytes
        gate.go.set()
        assert await asyncio.gather(*tasks[1:5]) == [(40, 50, 3)] * 4
        return decoder

    decoder = asyncio.run(crowd())
    assert gate.peak == 2 * num_bytes
    for lane in (decoder._small, decoder._large):
        lane.threads.shutdown()
        assert lane.limit.used == 0


def test_large_weight_is_not_overtaken():
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


def test_server_answers_503_while_others_decode(index, monkeypatch):
    content = encoded(50, 40, "PNG")
    monkeypatch.setattr(image_decoding, "MAX_WAIT", 0)
    client = TestClient(build_app(index))
    assert client.post("/api/v1/search/image", content=content).status_code == 200
    monkeypatch.setattr(FairLimit, "_admit", lambda self: None)
    answer = client.post("/api/v1/search/image", content=content)
    assert answer.status_code == 503 and answer.headers["retry-after"]


PEAK = """
import json, resource, sys
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.apps.search.image_decoding import _return_memory
preprocessing = Preprocessing("ernie_vil2", 224, (0.5,) * 3, (0.5,) * 3)
content = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
plan = preprocessing.plan(content, "a")
preprocessing.view(preprocessing.decode(content, "a", plan.factor))
_return_memory()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([1024 * (after - before), plan.num_bytes]))
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
def test_decoding_takes_no_more_than_is_planned(tmp_path, kind, mode, options):
    (tmp_path / "image").write_bytes(encoded(2900, 2800, kind, mode, **options))
    command = [sys.executable, "-c", PEAK, str(tmp_path / "image")]
    done = run_process(command, cwd=ROOT, capture_output=True, text=True, check=True)
    peak, planned = json.loads(done.stdout)
    assert peak < planned + 16 * 2**20
