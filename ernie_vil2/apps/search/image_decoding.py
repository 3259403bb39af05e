"""Decoding of the images that clients send, bounded over a whole process.

A file of 150 KB can hold 88 megapixels. What decoding an image takes is estimated from its header, and only as many
images are decoded at a time as fit into a bound; the others wait in the order in which they came, and not for long.
Large images wait in a line of their own, so that small ones are not held up by them.
"""

import asyncio
import ctypes
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ernie_vil2.data.decoding import DecodingPlan
from ernie_vil2.data.preprocessing import Preprocessing

MIB = 2**20
MAX_LARGE_BYTES = 768 * MIB
"""Of all large images being decoded: what a PNG of the most pixels that an image may have takes, nine bytes for each of
89,478,485 pixels. An image that takes more is refused."""
MAX_SMALL_BYTES = 128 * MIB  # of all small images being decoded
SMALL_BYTES = 32 * MIB
SMALL_PIXELS = 2**24
"""Up to both an image is small, as a JPEG of 12 megapixels is, of which the decoder makes some MiB in 0.1 s."""
NUM_SMALL, NUM_LARGE = 4, 2  # threads
MAX_REQUEST_PIXELS = 256 * 10**6
"""Stored pixels of all images of a request: two of the largest phones, or 64 of 4 megapixels. Decoding them takes about
two seconds of a core."""
MAX_WAIT = 10.0  # seconds that an image waits for others; then the client may try again

Content = TypeVar("Content")


class DecodingOverload(Exception):  # noqa: N818  -- named by what has happened
    """Images that others sent take all the memory there is for decoding."""


class ImageTooLarge(ValueError):  # noqa: N818  -- named by what has happened
    """An image, or all of a request, that would take too much to decode."""


@dataclass(eq=False)
class _Waiter:
    weight: int
    admitted: asyncio.Future[None]
    is_admitted: bool = False


class FairLimit:
    """A semaphore of weights that admits in the order of arrival; for any number of event loops and threads.

    Attributes:
        used: sum of the weights that are admitted.
    """

    def __init__(self, capacity: int):
        self.capacity, self.used = capacity, 0
        self._waiters: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    async def acquire(self, weight: int, max_wait: float) -> None:
        """Wait until there is room; DecodingOverload if there is none after so many seconds."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(weight, loop.create_future())
        with self._lock:
            self._waiters.append(waiter)
            self._admit()
        if waiter.is_admitted:
            return
        try:
            async with asyncio.timeout(max_wait):
                await waiter.admitted
        except TimeoutError:
            self._give_up(waiter)
            raise DecodingOverload("too many images are being decoded; try again") from None
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def release(self, weight: int) -> None:
        """Give back what was acquired; from any thread."""
        with self._lock:
            self.used -= weight
            self._admit()

    def _give_up(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter.is_admitted:  # in the moment in which it gave up
                self.used -= waiter.weight
            else:
                self._waiters.remove(waiter)
            self._admit()

    def _admit(self) -> None:
        while self._waiters and self.used + self._waiters[0].weight <= self.capacity:
            waiter = self._waiters.popleft()
            loop = waiter.admitted.get_loop()
            if loop.is_closed():
                continue
            waiter.is_admitted = True
            self.used += waiter.weight
            loop.call_soon_threadsafe(_wake, waiter.admitted)


def _wake(admitted: asyncio.Future[None]) -> None:
    if not admitted.done():
        admitted.set_result(None)


class _Lane:
    """Threads that decode, and the memory that they may take together."""

    def __init__(self, name: str, num_threads: int, max_bytes: int):
        self.limit = FairLimit(max_bytes)
        self.threads = ThreadPoolExecutor(num_threads, name)


class ImageDecoder:
    """Decodes images of clients for one model."""

    def __init__(self, preprocessing: Preprocessing):
        self._preprocessing = preprocessing
        self._small = _Lane("decode", NUM_SMALL, MAX_SMALL_BYTES)
        self._large = _Lane("decode large", NUM_LARGE, MAX_LARGE_BYTES)

    def plan(self, image: bytes, name: str) -> DecodingPlan:
        """Return how an image is decoded; BadSample if it is none, ImageTooLarge if it takes too much memory."""
        plan = self._preprocessing.plan(image, name)
        if plan.num_bytes > self._large.limit.capacity:
            raise ImageTooLarge(
                f"{name} would take {plan.num_bytes // MIB:,} MiB to decode, and {self._large.limit.capacity // MIB:,} "
                "are allowed: make it smaller, or send a JPEG that is not progressive"
            )
        return plan

    def plan_one(self, image: bytes) -> DecodingPlan:
        """Plan the only image of a request; errors as of `plan`."""
        plan = self.plan(image, "image")
        _check_pixels(plan.num_pixels)
        return plan

    def plan_all(self, images: Sequence[bytes | None]) -> list[DecodingPlan | None]:
        """Plan all images of a request before the first one is decoded; errors as of `plan`."""
        plans = [None if image is None else self.plan(image, "image") for image in images]
        num_pixels = sum(plan.num_pixels for plan in plans if plan is not None)
        _check_pixels(num_pixels)
        return plans

    async def decode(
        self, image: bytes, name: str, plan: DecodingPlan, finish: Callable[[np.ndarray | Image.Image], Content]
    ) -> Content:
        """Decode an image as planned, on a thread, and return what `finish` makes of its pixels there.

        Raises:
            BadSample: it is not an image that can be used.
            DecodingOverload: the images of others leave no room for it.
        """
        is_large = plan.num_bytes > SMALL_BYTES or plan.num_pixels > SMALL_PIXELS
        lane = self._large if is_large else self._small
        await lane.limit.acquire(plan.num_bytes, MAX_WAIT)
        work = lane.threads.submit(self._decode, image, name, plan, finish, is_large)
        # Not when this coroutine ends: a client that goes away does not stop the thread.
        work.add_done_callback(lambda _: lane.limit.release(plan.num_bytes))
        return await asyncio.wrap_future(work)

    def _decode(self, image: bytes, name: str, plan: DecodingPlan, finish: Callable[..., Any], is_large: bool) -> Any:
        try:
            return finish(self._preprocessing.decode(image, name, plan.factor))
        finally:
            if is_large:
                _return_memory()


def _check_pixels(num_pixels: int) -> None:
    if num_pixels > MAX_REQUEST_PIXELS:
        raise ImageTooLarge(
            f"images of {num_pixels / 1e6:,.0f} megapixels together, counted again for every 16 scans of a JPEG; "
            f"at most {MAX_REQUEST_PIXELS / 1e6:,.0f} are taken in a request"
        )


def _return_memory() -> None:
    """Give freed memory back to the system, which glibc keeps in pieces of up to 32 MiB for each thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
