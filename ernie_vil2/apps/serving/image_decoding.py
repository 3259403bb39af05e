"""Decodes the images that clients send, with a bound on the memory that this takes in the whole process.

A file of 150 KB can hold 88 megapixels. The memory for decoding an image is estimated from its header, and only as many
images are decoded at a time as fit under the bound. The others wait in their order of arrival, for a limited time.
Large images have a queue of their own, so that small ones need not wait for them.
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
# Memory of all large images that are being decoded: enough for a PNG with the largest allowed number of pixels, nine
# bytes for each of 89,478,485. An image that needs more is refused.
MAX_LARGE_BYTES = 768 * MIB
MAX_SMALL_BYTES = 128 * MIB  # memory of all small images that are being decoded
# An image up to both of these is small. A JPEG of 12 megapixels is: it is decoded to some MiB in 0.1 s.
SMALL_BYTES = 32 * MIB
SMALL_PIXELS = 2**24
NUM_SMALL_THREADS, NUM_LARGE_THREADS = 4, 2
# Stored pixels of all images of a request: two images of the largest phones, or 64 of 4 megapixels. Decoding them takes
# about two seconds of a core.
MAX_REQUEST_PIXELS = 256 * 10**6
MAX_WAIT = 10.0  # seconds that an image waits for others; then the client is told to try again

Result = TypeVar("Result")


class DecodingOverload(Exception):  # noqa: N818  -- named by what has happened
    """The images of other clients take all the memory for decoding."""


class ImageTooLarge(ValueError):  # noqa: N818  -- named by what has happened
    """Decoding an image, or all images of a request, would take too much memory or time."""


@dataclass(eq=False)
class _Waiter:
    weight: int
    admission: asyncio.Future[None]
    is_admitted: bool = False  # set under the lock, before the event loop is told by `admission`


class FairLimit:
    """A semaphore with weights that admits in the order of arrival; for any number of event loops and threads.

    Args:
        capacity: largest sum of weights that are admitted at a time.

    Attributes:
        used: current sum.
    """

    def __init__(self, capacity: int):
        self.capacity, self.used = capacity, 0
        self._waiters: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    async def acquire(self, weight: int, max_wait: float) -> None:
        """Wait until there is room for a weight; DecodingOverload if there is none after `max_wait` seconds."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(weight, loop.create_future())
        with self._lock:
            self._waiters.append(waiter)
            self._admit()
        if waiter.is_admitted:
            return
        try:
            async with asyncio.timeout(max_wait):
                await waiter.admission
        except TimeoutError:
            self._give_up(waiter)
            raise DecodingOverload("too many images are being decoded; try again") from None
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def release(self, weight: int) -> None:
        """Release a weight that was acquired; from any thread."""
        with self._lock:
            self.used -= weight
            self._admit()

    def _give_up(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter.is_admitted:  # at the same moment, by another thread
                self.used -= waiter.weight
            else:
                self._waiters.remove(waiter)
            self._admit()

    def _admit(self) -> None:
        while self._waiters and self.used + self._waiters[0].weight <= self.capacity:
            waiter = self._waiters.popleft()
            loop = waiter.admission.get_loop()
            if loop.is_closed():
                continue
            waiter.is_admitted = True
            self.used += waiter.weight
            loop.call_soon_threadsafe(_wake, waiter.admission)


def _wake(admission: asyncio.Future[None]) -> None:
    if not admission.done():  # it may have been cancelled meanwhile
        admission.set_result(None)


class _Lane:
    """Threads that decode, with a limit of the memory that they take together."""

    def __init__(self, name: str, num_threads: int, max_bytes: int):
        self.limit = FairLimit(max_bytes)
        self.threads = ThreadPoolExecutor(num_threads, name)


class ImageDecoder:
    """Decodes images of clients for the models of a process; small and large ones on separate threads."""

    def __init__(self) -> None:
        self._small = _Lane("decode", NUM_SMALL_THREADS, MAX_SMALL_BYTES)
        self._large = _Lane("decode large", NUM_LARGE_THREADS, MAX_LARGE_BYTES)

    def plan(self, image: bytes, name: str, preprocessing: Preprocessing) -> DecodingPlan:
        """Return a plan for decoding an image for the model with this preprocessing.

        Raises:
            BadSample: it is not an image.
            ImageTooLarge: decoding it takes too much memory.
        """
        plan = preprocessing.plan(image, name)
        if plan.num_bytes > self._large.limit.capacity:
            raise ImageTooLarge(
                f"{name} would take {plan.num_bytes // MIB:,} MiB to decode, but only "
                f"{self._large.limit.capacity // MIB:,} are allowed: make it smaller, or send a JPEG that is not "
                "progressive"
            )
        return plan

    def plan_all(self, images: Sequence[bytes | None], preprocessing: Preprocessing) -> list[DecodingPlan | None]:
        """Return the plans for all images of a request; None stays None; errors as `plan`."""
        plans = [None if image is None else self.plan(image, "image", preprocessing) for image in images]
        num_pixels = sum(plan.num_pixels for plan in plans if plan is not None)
        _check_pixels(num_pixels)
        return plans

    async def decode(
        self,
        image: bytes,
        name: str,
        plan: DecodingPlan,
        preprocessing: Preprocessing,
        finish: Callable[[np.ndarray | Image.Image], Result],
    ) -> Result:
        """Decode an image on a thread and return the result of `finish`, which gets the pixels there.

        Raises:
            BadSample: the image cannot be used.
            DecodingOverload: the images of other clients leave no memory for it.
        """
        # Large images have their own threads and their own share of the memory, so that small ones overtake them.
        is_large = plan.num_bytes > SMALL_BYTES or plan.num_pixels > SMALL_PIXELS
        lane = self._large if is_large else self._small
        await lane.limit.acquire(plan.num_bytes, MAX_WAIT)
        work = lane.threads.submit(_decode, image, name, plan, preprocessing, finish, is_large)
        # When the thread ends, not this coroutine: a client that disconnects does not stop the thread.
        work.add_done_callback(lambda _: lane.limit.release(plan.num_bytes))
        return await asyncio.wrap_future(work)


def _decode(
    image: bytes,
    name: str,
    plan: DecodingPlan,
    preprocessing: Preprocessing,
    finish: Callable[..., Any],
    is_large: bool,
) -> Any:
    try:
        return finish(preprocessing.decode(image, name, plan.factor))
    finally:
        if is_large:
            _return_memory()


def _check_pixels(num_pixels: int) -> None:
    if num_pixels > MAX_REQUEST_PIXELS:
        raise ImageTooLarge(
            f"the images have {num_pixels / 1e6:,.0f} megapixels together (those of a JPEG count again for every 16 "
            f"scans); a request may have {MAX_REQUEST_PIXELS / 1e6:,.0f}"
        )


def _return_memory() -> None:
    """Return freed memory to the system; glibc would keep it for the thread, in pieces of up to 32 MiB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)
