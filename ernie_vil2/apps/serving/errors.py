"""Errors as answers, in the form of OpenAI's API: its clients show the message, which is empty for any other form."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from ernie_vil2.apps.serving.batching import Overloaded
from ernie_vil2.apps.serving.image_decoding import DecodingOverload
from ernie_vil2.data.samples import BadSample
from ernie_vil2.io.terminal import make_printable

RETRY_SECONDS = 5  # after which a client that was refused may try again
INTERNAL_ERROR = 500  # status of an exception that no handler turns into an answer
CLIENT_CLOSED_REQUEST = 499  # status in log and counters, as nginx has it, if a client left before the answer
# Bounds of an error report, which repeats words of the request: a body of 20 MiB can have a million errors, and a key
# of any length.
MAX_ERRORS = 10
MAX_MESSAGE_LENGTH = 1000  # characters
MAX_WORD_LENGTH = 200  # characters


class RequestError(HTTPException):
    """A request that cannot be answered.

    Args:
        message: what is wrong and what to do.
        param: name of the parameter that is wrong.
        code: a word for programs, such as `model_not_found`.
        status: status of the answer.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 422):
        super().__init__(status, message)
        self.param, self.code = param, code


def make_error(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the content of an answer that reports an error."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message[:MAX_MESSAGE_LENGTH], "type": kind, "param": param, "code": code}}


def make_error_response(
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return an answer that reports an error."""
    return JSONResponse(make_error(status, message, param, code), status, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Turn the errors of the library into answers."""

    @app.exception_handler(StarletteHTTPException)
    async def handle_refusal(request: Request, error: StarletteHTTPException) -> JSONResponse:
        param, code = getattr(error, "param", None), getattr(error, "code", None)
        return make_error_response(error.status_code, str(error.detail), param, code, error.headers)

    @app.exception_handler(BadSample)
    @app.exception_handler(ValueError)
    async def handle_bad_request(request: Request, error: ValueError) -> JSONResponse:
        return make_error_response(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def handle_malformed_request(request: Request, error: RequestValidationError) -> JSONResponse:
        message, param = _summarize_errors(error)
        return make_error_response(422, message, param)

    @app.exception_handler(Overloaded)
    async def handle_overload(request: Request, error: Overloaded) -> JSONResponse:
        return make_error_response(503, str(error), headers={"Retry-After": str(error.retry_seconds)})

    @app.exception_handler(DecodingOverload)
    async def handle_decoding_overload(request: Request, error: DecodingOverload) -> JSONResponse:
        return make_error_response(503, str(error), headers={"Retry-After": str(RETRY_SECONDS)})

    @app.exception_handler(ClientDisconnect)
    async def handle_disconnect(request: Request, error: ClientDisconnect) -> Response:
        # Nobody reads this answer; without it there would be a traceback in the log.
        return Response(status_code=CLIENT_CLOSED_REQUEST)


def _summarize_errors(error: RequestValidationError) -> tuple[str, str | None]:
    """Return the first errors on one line, without the input, which the client has, and the first wrong parameter."""
    faults, params = [], []
    for detail in error.errors()[:MAX_ERRORS]:
        steps = detail["loc"][1:]  # the first one is the kind of the parameter, such as body or query
        location = ".".join(make_printable(str(step), max_length=MAX_WORD_LENGTH) for step in steps)
        message = make_printable(detail["msg"], max_length=MAX_WORD_LENGTH)
        if detail["type"] == "extra_forbidden":
            message = "there is no such parameter"
        faults.append(f"{location}: {message}" if location else message)
        params.append(location or None)
    return "; ".join(faults), params[0]
