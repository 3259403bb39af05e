"""Embeddings of a model on a server: those of the model itself, whatever server and network do meanwhile."""

import sqlite3
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from ernie_vil2 import load_model
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.data.samples import BadSample
from ernie_vil2.encoder import RemoteEncoder, open_encoder, remote
from ernie_vil2.io import json_client
from ernie_vil2.io.files import DamagedFile
from ernie_vil2.io.json_client import JsonClient, RefusedRequest, ServerError
from ernie_vil2.io.model_address import parse_address
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.embedding_servers import ScriptedServer, embed, make_entries, serve_model
from tests.support.encoding_model import make_noise_image, normalise_rows
from tests.support.image_formats import TRANSPARENT
from tests.support.processes import run_process

TEXTS = ["a red disc", "红色圆", "a green bar", "a red disc"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep embeddings in a folder of the test, and send no token."""
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def pauses(monkeypatch):
    """Return the pauses between attempts, in seconds; none is made."""
    pauses = []
    monkeypatch.setattr(JsonClient, "_pause", lambda self, seconds, stopped: pauses.append(seconds))
    return pauses


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server


def expect(texts):
    return normalise_rows(np.stack([embed(text) for text in texts]))


def refuse(status, content=b"", **headers):
    return lambda handler, body: handler.send(status, content, **headers)


def refuse_with_reason(reason):
    def answer(handler, body):
        handler.send_response(404, reason)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def answer_entries(change):
    """Return an answer whose entries are those of a right one after a change."""
    return lambda handler, body: handler.send(200, {"data": change(make_entries(body))})


def test_embeddings_equal_those_of_the_model(tmp_path):
    model = load_model(write_untrained_checkpoint(tmp_path / "model"), device="cpu")
    images = [make_noise_image(number) for number in range(3)]
    with serve_model(model) as address:
        encoder = open_encoder(address)
        assert encoder.embed_dim == model.embed_dim
        np.testing.assert_allclose(encoder.encode_texts(TEXTS), model.encode_texts(TEXTS), atol=1e-6)
        np.testing.assert_allclose(encoder.encode_images(images), model.encode_images(images), atol=1e-6)
        pixels = np.zeros((9, 8, 3), np.uint8)
        np.testing.assert_allclose(encoder.encode_images([pixels]), model.encode_images([pixels]), atol=1e-6)
        image = Image.fromarray(pixels)
        np.testing.assert_allclose(encoder.encode_images([image]), model.encode_images([image]), atol=1e-6)
        with pytest.raises(RefusedRequest, match="dimensions"):
            encoder.with_width(7)
        with pytest.raises(RefusedRequest, match="no-such"):
            open_encoder(address.replace("#shapes", "#no-such"))
    assert encoder.encode_texts([]).shape == (0, model.embed_dim)


@pytest.mark.parametrize("encoding_format", ["base64", "float"])
def test_either_format_and_any_order_of_an_answer_is_read(server, monkeypatch, encoding_format):
    def answer(handler, body):
        handler.send(200, {"data": make_entries(body | {"encoding_format": encoding_format})[::-1]})

    monkeypatch.setattr(remote, "MAX_INPUTS", 2)
    server.script = [answer] * 4
    embeddings = RemoteEncoder(server.address).encode_texts(TEXTS)
    np.testing.assert_allclose(embeddings, expect(TEXTS), atol=1e-6)
    assert sorted(server.inputs) == sorted(set(TEXTS))


def test_server_without_base64_is_asked_for_numbers(server):
    message = {"error": {"message": "encoding_format is unknown"}}
    server.script = [refuse(400, message)]
    np.testing.assert_allclose(RemoteEncoder(server.address).encode_texts(TEXTS), expect(TEXTS), atol=1e-6)
    assert ["encoding_format" in body for body in server.requests] == [True, False, False]


def test_busy_server_is_asked_again(server, pauses):
    server.script = [refuse(503, Retry_After="7"), refuse(429), refuse(500), None]
    server.script.append(lambda handler, body: handler.connection.close())  # in the middle of the second request
    server.script.append(lambda handler, body: handler.send(200, b'{"data": [', Content_Length="99"))
    server.script.append(refuse(200, b"<html>"))
    encoder = RemoteEncoder(server.address)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expect(TEXTS), atol=1e-6)
    first, *others = pauses
    assert first == 7 and len(others) == 5
    # The second pause follows the second attempt: up to twice the first delay.
    assert 0.5 * 2 * json_client.FIRST_DELAY <= others[0] <= 2 * json_client.FIRST_DELAY


@pytest.mark.parametrize(
    ("header", "seconds"), [("12", 12), ("99999999", 300), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None)]
)
def test_time_to_wait_is_read_within_bounds(header, seconds):
    assert json_client._parse_delay(header) == seconds


@pytest.mark.parametrize("requested", ["0", "1", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_short_time_to_wait_does_not_end_the_attempts_earlier(server, pauses, requested):
    server.script = [refuse(503, Retry_After=requested)] * (json_client.MAX_ATTEMPTS - 1)
    RemoteEncoder(server.address)
    delays = [json_client.FIRST_DELAY * 2**number for number in range(json_client.MAX_ATTEMPTS - 1)]
    assert sum(pauses) >= 0.5 * sum(min(delay, json_client.MAX_DELAY) for delay in delays)


def test_server_is_asked_patiently_again_after_a_failure(server, pauses):
    encoder = RemoteEncoder(server.address)
    server.script = [refuse(503)] * json_client.MAX_ATTEMPTS
    with pytest.raises(ServerError, match="503"):
        encoder.encode_texts(["b"])
    server.script = [refuse(503)]
    np.testing.assert_allclose(encoder.encode_texts(["b"]), expect(["b"]), atol=1e-6)


def test_web_page_in_place_of_an_api_is_refused_at_once(server, pauses):
    page = b"\n<!doctype html><title>Shop</title>"
    server.description = page  # for every path that it does not know; embeddings it has
    np.testing.assert_allclose(RemoteEncoder(server.address).encode_texts(["b"]), expect(["b"]), atol=1e-6)
    server.script = [refuse(200, page)]
    with pytest.raises(RefusedRequest, match=r"127\.0\.0\.1.*/v1/embeddings: .*web page"):
        RemoteEncoder(server.address.replace("#m", "#other"))
    assert not pauses


def test_attempts_end(server, pauses):
    server.script = [refuse(503, {"detail": "loading"})] * 99
    with pytest.raises(ServerError, match=r"127\.0\.0\.1.*503, loading"):
        RemoteEncoder(server.address)
    assert len(server.requests) == json_client.MAX_ATTEMPTS


@pytest.mark.parametrize(
    ("answer", "culprit"),
    [
        (answer_entries(lambda entries: entries[1:]), "2 embeddings for 3 inputs"),
        (answer_entries(lambda entries: [*entries, entries[0]]), "embedding 0 of 3 inputs"),
        (answer_entries(lambda entries: [{**entry, "index": 5} for entry in entries]), "embedding 5 of 3 inputs"),
        (answer_entries(lambda entries: [{**entry, "embedding": [1.0, 2.0]} for entry in entries]), r"\[2, 4\]"),
        (answer_entries(lambda entries: [{**entry, "embedding": [0.0] * 4} for entry in entries]), "zero"),
        (answer_entries(lambda entries: [{**entry, "embedding": [1e999] * 4} for entry in entries]), "finite"),
        (answer_entries(lambda entries: [{**entry, "embedding": "@@@"} for entry in entries]), "form of OpenAI"),
        (answer_entries(lambda entries: [{**entry, "embedding": ["1"] * 4} for entry in entries]), "form of OpenAI"),
        (answer_entries(lambda entries: "none"), "form of OpenAI"),
        (refuse(200, {"data": " " * 2**18}), "bytes"),
        (refuse(401, {"error": {"message": "no token"}}), "no token.*OPENAI_API_KEY"),
        (refuse(404, b"\x1b[2Jnothing here"), r"404, \\u001b\[2Jnothing here"),
        (refuse(404, {"error": "no model or message", "error_type": "x"}), "404, no model or message$"),
        (refuse(404, {"error": None, "detail": "nothing here"}), "404, nothing here$"),
        (refuse_with_reason("\x1b[2Jnothing here"), r"404, \\u001b\[2Jnothing here"),
        (refuse(307, Location="http://127.0.0.1:9/v1/embeddings"), "redirects to http://127.0.0.1:9"),
    ],
)  # fmt: skip
def test_unusable_answer_names_the_address_and_its_fault(server, pauses, answer, culprit):
    encoder = RemoteEncoder(server.address)
    server.script = [answer]
    with pytest.raises(ServerError, match=culprit) as error:
        encoder.encode_texts(TEXTS)
    assert "127.0.0.1" in str(error.value) and not pauses
    # Nothing of such an answer is kept.
    np.testing.assert_allclose(RemoteEncoder(server.address).encode_texts(TEXTS), expect(TEXTS), atol=1e-6)


def test_slow_answer_is_given_up_and_asked_for_again(server, pauses, monkeypatch):
    def trickle(handler, body):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b" ")
        server.is_given_up.wait(20)

    server.is_given_up = threading.Event()
    monkeypatch.setattr(json_client, "TIMEOUT", 0.2)
    server.script = [trickle]
    try:
        np.testing.assert_allclose(RemoteEncoder(server.address).encode_texts(["b"]), expect(["b"]), atol=1e-6)
    finally:
        server.is_given_up.set()
    assert len(pauses) == 1


def test_slow_report_of_an_error_is_given_up(server, monkeypatch):
    def trickle(handler, body):
        handler.send_response(404)
        handler.end_headers()
        while not server.is_given_up.wait(0.01):
            handler.wfile.write(b"x")

    server.is_given_up = threading.Event()
    monkeypatch.setattr(json_client, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(json_client, "MAX_ERROR_BYTES", 1000)
    encoder = RemoteEncoder(server.address)
    server.script = [trickle]
    try:
        with pytest.raises(RefusedRequest, match="status 404, Not Found"):
            encoder.encode_texts(["b"])
    finally:
        server.is_given_up.set()


def test_nothing_is_asked_for_twice_also_after_an_interruption(server, monkeypatch):
    monkeypatch.setattr(remote, "MAX_INPUTS", 1)
    monkeypatch.setattr(remote, "NUM_CONNECTIONS", 1)
    image = make_noise_image(0)
    encoder = RemoteEncoder(server.address)
    server.script = [None, None, refuse(403)]
    with pytest.raises(RefusedRequest):
        encoder.encode_texts(list("bcdef"))
    encoder = RemoteEncoder(server.address)
    np.testing.assert_allclose(encoder.encode_texts(list("bcdef")), expect("bcdef"), atol=1e-6)
    encoder.encode_images([image, image])
    asked = server.inputs
    # The request that was refused is repeated, and maybe those that were cancelled with it.
    assert asked.count("b") == asked.count("c") == 1 and asked.count("d") == 2
    assert asked[-1].startswith("data:image/png;base64,")
    again = RemoteEncoder(server.address)
    again.encode_images([image])
    again.encode_texts(list("fb"))
    assert server.inputs == asked and server.requests.count(server.requests[0]) == 1  # the probe is kept, too


def test_another_fingerprint_of_the_server_is_another_model(server):
    server.description = {"id": "m", "fingerprint": "first"}
    first = RemoteEncoder(server.address)
    server.description = {"id": "m", "fingerprint": "second"}
    second = RemoteEncoder(server.address)
    assert first.fingerprint != second.fingerprint and first.cache.path != second.cache.path
    assert RemoteEncoder(server.address, width=4).fingerprint != second.fingerprint
    assert server.requests[-1]["dimensions"] == 4


def test_our_server_tells_the_fingerprint_of_any_name(tmp_path):
    model = load_model(write_untrained_checkpoint(tmp_path / "model"), device="cpu")
    with serve_model(model, "org/模型 1") as address:
        assert RemoteEncoder(address)._fetch_fingerprint() == model.fingerprint


def test_server_that_ignores_the_width_is_named(server):
    for _ in range(2):  # also if the probe is in the cache
        with pytest.raises(ServerError, match=r"127\.0\.0\.1.*embeddings of 4 numbers.*2"):
            RemoteEncoder(server.address, width=2)


def test_damaged_cache_is_named(server):
    path = RemoteEncoder(server.address).cache.path
    path.write_bytes(b"no database at all" * 99)
    with pytest.raises(DamagedFile, match=path.name):
        RemoteEncoder(server.address)
    path.unlink()
    cache = RemoteEncoder(server.address).cache
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE embeddings SET value = x'0000803f'")
    with pytest.raises(ServerError, match=path.name):
        RemoteEncoder(server.address).encode_texts(["b"])


def test_requests_stay_within_their_bounds(server, monkeypatch):
    encoder = RemoteEncoder(server.address)
    encoder.encode_texts([f"text {number}" for number in range(70)])
    assert sorted(len(body["input"]) for body in server.requests[1:]) == [6, 32, 32]
    server.requests.clear()
    encoder.encode_texts([letter * 30_000 for letter in "bcdef"])
    assert sorted(len(body["input"]) for body in server.requests) == [1, 2, 2]
    server.requests.clear()
    monkeypatch.setattr(remote, "MAX_PIXELS", 2.5 * 120)  # the images have 12 x 10
    encoder.encode_images([make_noise_image(number) for number in range(5)])
    assert sorted(len(body["input"]) for body in server.requests) == [1, 2, 2]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_pillow_image_is_seen_as_by_a_local_model(server, mode, orientation):
    premultiplied = {"La": "LA", "RGBa": "RGBA"}
    image = TRANSPARENT.convert(premultiplied.get(mode, mode)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    preprocessing = Preprocessing("ernie_vil2", 32, (0.5,) * 3, (0.5,) * 3)
    content = RemoteEncoder(server.address).preprocess(image).content
    np.testing.assert_array_equal(preprocessing(content, "sent"), preprocessing(image, "local"))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 4), (0, 8, 3)])
def test_array_that_is_no_image_is_refused_by_name(server, shape):
    encoder = RemoteEncoder(server.address)
    for dtype in (np.uint8, np.float32):
        with pytest.raises(BadSample, match="mine"):
            encoder.preprocess(np.zeros(shape, dtype), "mine")
    for image in (Image.new("RGB", (0, 8)), Image.new("I", (8, 8))):
        with pytest.raises(BadSample, match="mine"):
            encoder.preprocess(image, "mine")


def test_single_image_or_text_is_refused(server):
    encoder = RemoteEncoder(server.address)
    for image in ("cat.jpg", make_noise_image(1), Image.new("RGB", (8, 8)), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(TypeError, match=r"encode_images\(\[image\]\)"):
            encoder.encode_images(image)
    with pytest.raises(TypeError, match=r"encode_texts\(\[text\]\)"):
        encoder.encode_texts("red")


def test_row_that_is_no_text_or_image_is_named(server):
    model = RemoteEncoder(server.address)
    with pytest.raises(TypeError, match="text 1 is a float"):
        model.encode_texts(["a", float("nan")])
    with pytest.raises(TypeError, match="image is a float"):
        model.encode_images([float("nan")])


def test_few_images_are_held_in_memory(server, monkeypatch):
    monkeypatch.setattr(remote, "MAX_INPUTS", 1)
    monkeypatch.setattr(remote, "NUM_CONNECTIONS", 1)
    encoder = RemoteEncoder(server.address)
    images = [make_noise_image(number) for number in range(9)]
    read_images, counts = [], []

    def read():
        for image in images:
            read_images.append(image)
            yield image

    def answer(handler, body):
        counts.append(len(read_images))
        handler.send(200, {"data": make_entries(body)})

    server.script = [answer] * len(images)
    embeddings = encoder.encode_images(read())
    np.testing.assert_array_equal(embeddings, encoder.encode_images(images))
    # The image that is sent, and the next one.
    assert counts[0] <= 2 and len(counts) == len(images)


def test_lone_surrogate_is_replaced(server):
    encoder = RemoteEncoder(server.address)
    np.testing.assert_array_equal(encoder.encode_texts(["b\ud800"]), encoder.encode_texts(["b?"]))


def test_image_that_is_refused_or_broken_is_named(server):
    encoder = RemoteEncoder(server.address)
    with pytest.raises(BadSample, match="torn"):
        encoder.preprocess(b"GIF89a", "torn")
    with pytest.raises(BadSample, match="missing"):
        encoder.preprocess("missing.png")
    image = encoder.preprocess(make_noise_image(1), "mine")
    server.script = [refuse(422, {"error": {"message": "no images here"}})] * 2  # also without base64
    with pytest.raises(RefusedRequest, match="no images here.*mine"):
        encoder.start_pixels([image])()


def test_token_is_sent_and_never_shown(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-token")
    server.script = [refuse(401)]
    with pytest.raises(RefusedRequest) as error:
        RemoteEncoder(server.address)
    assert server.tokens == ["Bearer secret-token"] and "secret" not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", "secret\ntoken")
    with pytest.raises(ServerError, match="OPENAI_API_KEY") as error:
        RemoteEncoder(server.address)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    ["http://", "http://host/v1", "http://host/v1#", "http://me:secret@host/v1#m", "http://host/v1?key=secret#m",
     "http://host:port/v1#m", "http://a b/v1#m", "http://host/v1\n#m", "http://host/模型#m", "http://[::1/v1#m",
     "http://host℀/v1#m", "http://me:secret@host:port/v1#m", "http://me:x/secret@host/v1#m", "http://a b?secret#m",
     "http://127.0.0..1/v1#m"],
)  # fmt: skip
def test_malformed_address_is_refused(address):
    with pytest.raises(ValueError, match=r"model|MODEL") as error:
        parse_address(address)
    assert "secret" not in str(error.value)


ENDS_EARLY = """
import sys
from ernie_vil2.encoder import RemoteEncoder
RemoteEncoder(sys.argv[1]).start_texts(["b"])
"""


def test_program_that_ends_does_not_go_on_asking(server):
    server.script = [None, *[refuse(503)] * 99]
    run_process([sys.executable, "-c", ENDS_EARLY, server.address], check=True)
    assert 1 <= server.inputs.count("b") < json_client.MAX_ATTEMPTS


def test_address_has_the_path_of_the_api_and_the_model():
    assert parse_address("https://host:8/api/v1/#org/model") == ("https://host:8/api/v1", "org/model")
