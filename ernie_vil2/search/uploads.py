"""Images that clients send: how large, how many and how slow they may be.

What arrives is kept in a mapping of its own, which goes back to the system when the question is answered or the client
has gone. A buffer of Python would wait for the frames that refer to it: an exception that keeps them in a cycle keeps
20 MiB until the next full garbage collection, which a process with Paddle in it hardly ever sees.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import HTTPException, Request

MOST_BYTES = 20 * 2**20
"""Of an uploaded image."""
MOST_UPLOADS = 128
"""In progress at once, from the first byte to the answer."""
MOST_BYTES_AT_ONCE = 8 * MOST_BYTES
"""Of all uploads in progress."""
MOST_SECONDS = 60
"""Until an upload is complete: 20 MiB at 2.8 Mbit/s."""
RETRY_SECONDS = 5
"""After which a client that was sent away may ask again."""


class Uploads:
    """The uploads in progress of one server; for one event loop."""

    def __init__(self) -> None:
        self.count, self.bytes = 0, 0

    @asynccontextmanager
    async def received(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request; its bytes count as in progress until the block ends.

        Raises:
            HTTPException: 413 for a body that is too large, 408 for one that is too slow, 503 for one too many.
            ClientDisconnect: the client has gone.
        """
        if self.count >= MOST_UPLOADS:
            raise _busy()
        self.count += 1
        content = mmap.mmap(-1, MOST_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            try:
                async with asyncio.timeout(MOST_SECONDS):
                    await self._read(request, content)
            except TimeoutError:
                close = {"Connection": "close"}
                raise HTTPException(408, f"an upload may take {MOST_SECONDS} seconds", close) from None
            yield content[: content.tell()]
        finally:
            self.count -= 1
            self.bytes -= content.tell()
            content.close()

    async def _read(self, request: Request, content: mmap.mmap) -> None:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > len(content):
            raise _too_large()
        async for part in request.stream():
            if content.tell() + len(part) > len(content):
                raise _too_large()
            if self.bytes + len(part) > MOST_BYTES_AT_ONCE:
                raise _busy()
            self.bytes += content.write(part)


def _too_large() -> HTTPException:
    return HTTPException(413, f"an image may have {MOST_BYTES // 2**20} MiB")


def _busy() -> HTTPException:
    return HTTPException(503, "too many uploads at once; try again", {"Retry-After": str(RETRY_SECONDS)})
