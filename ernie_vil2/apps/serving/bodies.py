"""Bodies of requests: they are received, parsed and decoded within bounds on bytes, values, texts and pixels.

Large bodies are parsed on threads: a parser with 20 MiB to read would block the event loop, and with it all other
requests.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError

from ernie_vil2.apps.serving.errors import MAX_WORD_LENGTH, RequestError
from ernie_vil2.apps.serving.image_decoding import ImageDecoder, Result
from ernie_vil2.apps.serving.middleware import Uploads
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.io.terminal import join_names, make_printable

MAX_INPUTS = 256  # texts and images of a request
# All texts together: 512 characters for each of 256 inputs. Tokenizing them takes about half a second of a core: other
# clients do not wait longer than for a large image.
MAX_CHARACTERS = 2**17
# Values of a body, each of which takes a parser some 100 bytes. Commas and opening brackets are counted in their place:
# there are at least as many. The texts alone may have MAX_CHARACTERS commas.
MAX_VALUES = 2 * MAX_CHARACTERS
NUM_JSON_THREADS = 2  # threads that parse and write much JSON
# Bytes to parse, or numbers to write, up to which the event loop does it itself: it takes less than a millisecond, or
# three for the worst errors. Handing it to a thread costs 0.1 ms of the processor, as much as parsing 64 texts.
MAX_IMMEDIATE_SIZE = 2**14
IMAGE_DESCRIPTION = "an image in base64, or a data: URL"

Body = TypeVar("Body", bound=BaseModel)


class StrictModel(BaseModel):
    """A part of a body that refuses parameters that it does not have."""

    model_config = ConfigDict(extra="forbid")


class RequestReader:
    """Reads the bodies of the requests of one server; for one event loop."""

    def __init__(self) -> None:
        self._uploads = Uploads()
        self._json_threads = ThreadPoolExecutor(NUM_JSON_THREADS, "json")
        self._decoder = ImageDecoder()

    def receive(self, request: Request) -> AbstractAsyncContextManager[bytes]:
        """Yield the body of a request, see `Uploads.receive`."""
        return self._uploads.receive(request)

    async def convert_json(self, size: int, work: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function that parses or writes JSON and return its result; large work is done on a thread.

        Args:
            size: number of bytes that `work` parses, or of numbers that it writes.
            work: the function.
            *arguments: its arguments.
        """
        if size <= MAX_IMMEDIATE_SIZE:
            return work(*arguments)
        return await self._run_in_thread(work, *arguments)

    async def _run_in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._json_threads, work, *arguments)

    async def decode_pixels(self, image: bytes, preprocessing: Preprocessing) -> np.ndarray:
        """Return the pixels of an image file as the model with this preprocessing sees them.

        Raises:
            As `ImageDecoder`.
        """
        (pixels,) = await self.decode_all_pixels([image], preprocessing)
        assert pixels is not None  # None stands for no image  # noqa: S101
        return pixels

    async def decode_all_pixels(
        self, images: Sequence[bytes | None], preprocessing: Preprocessing
    ) -> list[np.ndarray | None]:
        """Return the same as `decode_pixels` for all images of a request; None stays None."""

        def make_view(_file: bytes, image: Any) -> np.ndarray:
            return preprocessing.make_view(image)

        return await self.decode_all(images, preprocessing, make_view)

    async def decode_all(
        self,
        images: Sequence[bytes | None],
        preprocessing: Preprocessing,
        finish: Callable[[bytes, Any], Result],
    ) -> list[Result | None]:
        """Decode the images of a request one after the other.

        All of them are planned before the first one is decoded, so that a request that is too large is refused early.

        Args:
            images: image files; None stays None.
            preprocessing: that of the model that will see them.
            finish: is called with each file and its pixels on the thread that decodes, and returns the result.

        Raises:
            As `ImageDecoder`.
        """
        if all(image is None for image in images):
            return [None] * len(images)
        plans = await self._run_in_thread(self._decoder.plan_all, images, preprocessing)
        results: list[Result | None] = []
        for image, plan in zip(images, plans, strict=True):
            if image is None or plan is None:
                results.append(None)
            else:
                result = await self._decoder.decode(image, "image", plan, preprocessing, partial(finish, image))
                results.append(result)
        return results


def parse_body(model: type[Body], content: bytes) -> Body:
    """Return the body of a request; RequestValidationError if it is malformed, as FastAPI raises it."""
    # Counting takes a millisecond, and bounds the memory that parsing takes.
    num_values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if num_values > MAX_VALUES:
        raise RequestError(f"the body has {num_values:,} values; at most {MAX_VALUES:,} are allowed")
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    # Raised outside of the handler: otherwise pydantic's error would be its __context__ and keep the body in memory.
    raise RequestValidationError([{**detail, "loc": ("body", *detail["loc"])} for detail in details])


async def check_parameter_names(request: Request) -> None:
    """Raise RequestError for a parameter in the URL that the path does not have; a dependency of routes."""
    if not request.query_params:
        return
    # The description of the application is made once. It has paths with a placeholder, such as /models/{name}, in
    # another form, so they are not found here: they take no parameters.
    path = request.scope["path"].removeprefix(request.scope["root_path"])
    operation = request.app.openapi()["paths"].get(path, {}).get(request.method.lower(), {})
    names = [parameter["name"] for parameter in operation.get("parameters", ())]
    for name in request.query_params:
        if name not in names:
            shortened = make_printable(name, max_length=MAX_WORD_LENGTH)
            known_names = f"it has {join_names(names, max_names=len(names))}" if names else "it has none"
            raise RequestError(f"there is no parameter {shortened!r} here; {known_names}", param=shortened)


def check_total_length(texts: Iterable[str]) -> None:
    """Raise RequestError if the texts of a request are too long together."""
    check_num_characters(sum(map(len, texts)))


def check_num_characters(num_characters: int) -> None:
    """Raise RequestError if the texts of a request have more characters together than `MAX_CHARACTERS`."""
    if num_characters > MAX_CHARACTERS:
        raise RequestError(
            f"the texts have {num_characters:,} characters together; a request may have {MAX_CHARACTERS:,}: send fewer"
        )


def decode_base64(text: str) -> bytes:
    """Return the bytes of an image in base64, or in a data: URL."""
    if text.startswith(("http://", "https://")):
        raise RequestError("the server fetches no addresses: send the image itself, as data:image/...;base64,...")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one; characters beyond ASCII raise the general type
        raise RequestError("an image is given in base64, or as data:image/...;base64,...") from None


def encode_json(value: Any) -> bytes:
    """Return a value as JSON; NumPy's arrays and numbers become lists and numbers."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # orjson refuses integers above 64 bits and halves of surrogate pairs
        return json.dumps(value, default=_convert_to_lists).encode()


def _convert_to_lists(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def describe_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return OpenAPI's description of a body, with every $ref replaced by the definition that it names."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(element) for element in value]
        if not isinstance(value, dict):
            return value
        name = value.get("$ref", "").rpartition("/")[2]
        if name in definitions:
            return inline(definitions[name])
        return {key: inline(element) for key, element in value.items()}

    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inline(schema)}}}}
