"""An encoder whose embeddings a server computes, asked in the form of OpenAI's API: `http://host/v1#model`."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import numpy as np
from PIL import Image

from ernie_vil2.config.sections import ViewsConfig
from ernie_vil2.data.decoding import WHITE, EncodedImage, decode_opened_image, open_header
from ernie_vil2.data.preprocessing import PendingEmbeddings, check_array, encode_batches
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.data.source_files import read_file
from ernie_vil2.encoder.embedding_cache import FOLDER, EmbeddingCache
from ernie_vil2.encoder.interface import ImageLike, Images
from ernie_vil2.io.calibration import Calibration
from ernie_vil2.io.files import cache_folder, is_count
from ernie_vil2.io.json_client import JsonClient, RefusedRequest, ServerError
from ernie_vil2.io.model_address import parse_address
from ernie_vil2.io.terminal import join_names
from ernie_vil2.runtime_onnx import check_texts, refuse_single_value

NUM_CONNECTIONS = 4  # requests at a time: some travel or are parsed while the server computes another one
# Bounds of a request, all below those of our own server and of text-embeddings-inference, which takes 32 inputs. A
# single image may have more than its share; then the server decides.
MAX_INPUTS = 32
MAX_CHARACTERS = 2**16
MAX_IMAGE_BYTES = 8 * 2**20
MAX_PIXELS = 10**8
MAX_WIDTH = 2**14  # numbers of an embedding: several times the widest of today's models
MAX_NUMBER_LENGTH = 32  # characters of a number in an answer; 24 are enough for any double
MAX_OTHER_BYTES = 2**16  # of an answer besides the numbers
PROBE = "a"  # text whose embedding tells the width, and whether address and token are right
# A JPEG is decoded to see whether it is whole; an eighth of its sides is enough for that.
CHECKED_SHRINK = 8.0
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # Pillow's modes that a PNG holds as they are


class PreparedImage(NamedTuple):
    """An image file that has been decoded once to see that it can be.

    content: bytes of the file.
    media_type: its type, such as image/png.
    num_pixels: number of its pixels.
    name: its name in errors.
    """

    content: bytes
    media_type: str
    num_pixels: int
    name: str


class _Input(NamedTuple):
    """A text or an image to send, and the key of its embedding in the cache."""

    key: bytes
    content: str | PreparedImage

    @property
    def load(self) -> tuple[float, float]:
        """Shares of the content in the bounds of a request, see `_split_requests`."""
        if isinstance(self.content, str):
            return len(self.content) / MAX_CHARACTERS, 0.0
        return len(self.content.content) / MAX_IMAGE_BYTES, self.content.num_pixels / MAX_PIXELS

    def encode(self) -> str:
        """Return the content as the request has it; an image as a data: URL."""
        if isinstance(self.content, str):
            return self.content
        return f"data:{self.content.media_type};base64,{base64.b64encode(self.content.content).decode()}"


class RemoteEncoder:
    """A model on a server, as an `Encoder`.

    Requests are repeated while the server is busy or away, see `JsonClient`. Every embedding that arrives is kept in
    the cache folder, by address, model, width and content, and by the fingerprint of the model if the server tells it,
    as ours does. Embeddings are L2-normalised here.

    Args:
        address: address of the API and name of the model, `http://host/v1#model`.
        width: width of the embeddings, sent as `dimensions`; None: the model's own.

    Raises:
        ValueError: the address is malformed.
        ServerError: the server does not answer, refuses, or answers with something else than embeddings of this width.
            All methods that encode raise it, too.
    """

    def __init__(self, address: str, width: int | None = None):
        self.address = address
        self.calibration: Calibration | None = None
        self.labels: tuple[str, ...] = ()
        url, self._model = parse_address(address)
        self._width = width
        self._client = JsonClient(url)
        self._pool = ThreadPoolExecutor(NUM_CONNECTIONS, "embeddings")
        self._encoding_format: str | None = "base64"  # a third of the bytes of numbers in decimals

        self._identity = json.dumps([url, self._model, width, self._fetch_fingerprint()])
        self.cache = EmbeddingCache(cache_folder() / FOLDER, f"{urlsplit(url).netloc}-{self._model}", self._identity)
        self._embed_dim: int | None = None  # unknown while the probe is encoded
        self._embed_dim = self.encode_texts([PROBE]).shape[1]
        # Servers whose models have one width often ignore `dimensions`.
        if width not in (None, self._embed_dim):
            raise ServerError(f"{address}: embeddings of {self._embed_dim} numbers, where {width} were asked for")

    def __repr__(self) -> str:
        return f"<RemoteEncoder: {self.address}, embeddings of {self.embed_dim} numbers>"

    def _fetch_fingerprint(self) -> str:
        """Return the fingerprint of the model, empty if the server does not tell it."""
        try:
            description = self._client.get(f"/models/{quote(self._model, safe='')}", MAX_OTHER_BYTES)
        except RefusedRequest as error:
            if error.status in (401, 403):
                raise
            return ""  # not every server has this path
        fingerprint = description.get("fingerprint") if isinstance(description, dict) else None
        return fingerprint if isinstance(fingerprint, str) else ""

    @property
    def embed_dim(self) -> int:
        assert self._embed_dim is not None  # noqa: S101  -- set by the constructor
        return self._embed_dim

    @property
    def fingerprint(self) -> str:
        return blake2b(self._identity.encode(), digest_size=16).hexdigest()

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def logit_scale(self) -> float:
        return 100.0  # that of most dual encoders; the server does not tell it

    @property
    def languages(self) -> Sequence[str]:
        return ()

    @property
    def views(self) -> ViewsConfig:
        return ViewsConfig()

    def with_width(self, width: int | None) -> RemoteEncoder:
        if width in (None, self.embed_dim):
            return self
        return RemoteEncoder(self.address, width)

    def preprocess(self, image: ImageLike, name: str = "image") -> PreparedImage:
        """Return an image as it is sent: the file as it is, which must be one that our own models could use, too."""
        if isinstance(image, str | os.PathLike):
            name = str(image)
            try:
                image = read_file(Path(image))
            except FileNotFoundError as error:
                raise BadSample(Reason.MISSING_IMAGE, name) from error
        if not isinstance(image, bytes):
            image = _encode_png(image, name)
        header = open_header(image, name)
        EncodedImage(image, name).decode(CHECKED_SHRINK)
        media_type = Image.MIME.get(header.format or "", "image/png")
        return PreparedImage(image, media_type, header.width * header.height, name)

    def start_pixels(self, pixels: Sequence[PreparedImage]) -> PendingEmbeddings:
        return self._start([_Input(_make_key("image", image.content), image) for image in pixels])

    def start_texts(self, texts: Sequence[str]) -> PendingEmbeddings:
        # Lone surrogates, which no request can hold, are replaced, as by our own tokenizers.
        contents = [text.encode("utf-8", "replace") for text in texts]
        return self._start([_Input(_make_key("text", content), content.decode()) for content in contents])

    def encode_images(self, images: Images) -> np.ndarray:
        refuse_single_value(images, "encode_images", "image")
        files = map(self.preprocess, images)
        return encode_batches(self.start_pixels, files, NUM_CONNECTIONS * MAX_INPUTS, self.embed_dim)

    def encode_texts(self, texts: Iterable[str]) -> np.ndarray:
        refuse_single_value(texts, "encode_texts", "text")
        return self.start_texts(list(check_texts(texts)))()

    def _start(self, inputs: Sequence[_Input]) -> PendingEmbeddings:
        """Send all inputs whose embeddings are not in the cache; return a function that waits for all embeddings."""
        distinct_inputs = {value.key: value for value in inputs}
        embeddings = self.cache.read(list(distinct_inputs))
        missing_inputs = [value for key, value in distinct_inputs.items() if key not in embeddings]
        requests: list[Future[dict[bytes, np.ndarray]]] = []
        for chunk in _split_requests(missing_inputs):
            requests.append(self._pool.submit(self._request, chunk))

        def wait() -> np.ndarray:
            try:
                for request in requests:
                    embeddings.update(request.result())
            except BaseException as error:
                for request in requests:
                    request.cancel()
                # A server that is away, or an interrupt: requests that wait for another attempt end now.
                if not isinstance(error, RefusedRequest):
                    self._client.stop()
                raise
            if not inputs:
                return np.empty([0, self.embed_dim], np.float32)
            return self._stack([embeddings[value.key] for value in inputs])

        return wait

    def _stack(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Return rows as an array; ServerError if their widths differ from each other or from D."""
        widths = {len(row) for row in rows}
        if self._embed_dim is not None:
            widths.add(self._embed_dim)
        if len(widths) > 1:
            raise ServerError(
                f"{self.address}: embeddings of different widths, {sorted(widths)}: does the server have another model "
                f"of this name now? Delete {self.cache.path}, and run the command again"
            )
        return np.stack(rows)

    def _request(self, inputs: Sequence[_Input]) -> dict[bytes, np.ndarray]:
        """Return the embeddings of a request's inputs, and keep them in the cache; runs on a thread of the pool."""
        body: dict[str, Any] = {"model": self._model, "input": [value.encode() for value in inputs]}
        if self._width is not None:
            body["dimensions"] = self._width
        max_bytes = len(inputs) * (self._embed_dim or MAX_WIDTH) * MAX_NUMBER_LENGTH + MAX_OTHER_BYTES
        try:
            answer = self._post(body, max_bytes)
        except RefusedRequest as error:
            names = [value.content.name for value in inputs if isinstance(value.content, PreparedImage)]
            if not names:
                raise
            raise RefusedRequest(f"{error} (images: {join_names(names)})", error.status) from None
        rows = self._stack(_read_embeddings(answer, len(inputs), self.address))
        embeddings = {value.key: row for value, row in zip(inputs, rows, strict=True)}
        self.cache.write(embeddings)
        return embeddings

    def _post(self, body: dict[str, Any], max_bytes: int) -> Any:
        encoding_format = self._encoding_format
        if encoding_format is None:
            return self._client.post("/embeddings", body, max_bytes)
        try:
            return self._client.post("/embeddings", {**body, "encoding_format": encoding_format}, max_bytes)
        except RefusedRequest as error:
            if error.status not in (400, 422):
                raise
            # Some servers have numbers alone. If that was not the reason, this raises the same error again.
            answer = self._client.post("/embeddings", body, max_bytes)
            self._encoding_format = None
            return answer


def _make_key(kind: str, content: bytes) -> bytes:
    # 128 bits: two contents do not get the same key by accident.
    return blake2b(content, digest_size=16, person=kind.encode()).digest()


def _encode_png(image: Image.Image | np.ndarray, name: str) -> bytes:
    """Return a Pillow image, or `[H, W, 3]` uint8 RGB, as a file; BadSample if it cannot be used."""
    if not isinstance(image, Image.Image | np.ndarray):
        raise TypeError(f"{name} is a {type(image).__name__}, not a path, bytes, a Pillow image or an array")
    if isinstance(image, np.ndarray):
        check_array(image, name)
        image = Image.fromarray(image)
    if image.mode not in PNG_MODES:
        image = Image.fromarray(decode_opened_image(image, name, WHITE))
    buffer = io.BytesIO()
    try:
        # The orientation goes into the file, too: whether to turn the image is up to the model.
        image.save(buffer, "PNG", exif=image.info.get("exif"))
    except Exception as error:  # Pillow's readers raise exceptions of any type
        raise BadSample(Reason.BROKEN_IMAGE, name) from error
    return buffer.getvalue()


def _split_requests(inputs: Iterable[_Input]) -> Iterator[list[_Input]]:
    """Yield the inputs of each request, within the bounds of this module."""
    chunk: list[_Input] = []
    loads = np.zeros(2)
    for value in inputs:
        load = np.array(value.load)
        if chunk and (len(chunk) == MAX_INPUTS or (loads + load).max() > 1):
            yield chunk
            chunk, loads = [], np.zeros(2)
        chunk.append(value)
        loads += load
    if chunk:
        yield chunk


def _read_embeddings(answer: Any, count: int, address: str) -> list[np.ndarray]:
    """Return the embeddings of an answer in the order of the inputs, float32, L2-normalised.

    Args:
        answer: content of the answer.
        count: number of inputs.
        address: address of the model, for errors.

    Raises:
        ServerError: the answer is not one to this request.
    """
    try:
        rows: dict[int, np.ndarray] = {}
        for entry in answer["data"]:
            number = entry["index"]
            if not is_count(number, 0, count - 1) or number in rows:
                raise ServerError(f"{address}: embedding {str(number)[:20]} of {count} inputs, or twice the same")
            rows[number] = _read_row(entry["embedding"])
    except (TypeError, KeyError, ValueError, OverflowError):
        raise ServerError(f"{address}: the answer does not have the form of OpenAI's embeddings") from None
    if len(rows) != count:
        raise ServerError(f"{address}: {len(rows)} embeddings for {count} inputs")

    embeddings = []
    for number in range(count):
        norm = np.linalg.norm(rows[number].astype(np.float64))
        if not 0 < norm < np.inf:
            raise ServerError(f"{address}: an embedding is zero or not finite")
        embeddings.append((rows[number] / norm).astype(np.float32))
    return embeddings


def _read_row(value: Any) -> np.ndarray:
    """Return an embedding `[D]` float32, written as a list of numbers or as base64; ValueError if it is neither."""
    if isinstance(value, str):
        row = np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
    elif isinstance(value, list) and all(type(number) in (int, float) for number in value):
        row = np.array(value, np.float32)
    else:
        raise ValueError("not an embedding")
    if not row.size:
        raise ValueError("an embedding without numbers")
    return row
