"""Transfers between host and device that nobody waits for.

On GPUs they go by way of pinned memory and on a stream of their own, so that they run while the device computes; on CPU
there is nothing to wait for, and each is a plain call.
"""

import ctypes
import itertools
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import numpy as np
import paddle
from paddle.incubate.tensor import manipulation

T = TypeVar("T")
Arrays = Mapping[str, np.ndarray]

READY = 2  # batches in pinned memory that wait for their copy
SLOTS = READY + 2  # pinned memory of so many batches: one more is on its way to the device, and one is filled
GRACE = 5.0  # seconds that a thread which fills slots has to end


class Gpu:
    """Paddle's current GPU, which copies on a stream of its own; not for two threads at once.

    A copy that has been begun has `cuda_wait`, for which what is queued on the device from then on waits, and
    `cpu_wait`, for which the thread does.
    """

    def __init__(self) -> None:
        self._stream = manipulation.create_async_load()
        self.down(paddle.zeros([1]))  # Paddle takes the device from the first copy, which has to be this way

    def pinned(self, array: np.ndarray) -> paddle.Tensor:
        """Memory of the host for such an array that the device reads by itself."""
        return paddle.to_tensor(array, place=paddle.CUDAPinnedPlace())

    def up(self, pinned: paddle.Tensor) -> tuple[paddle.Tensor, Any]:
        """Begins to copy pinned memory to the device, after what has been queued on the device so far."""
        return manipulation.async_reload(pinned, self._stream)

    def down(self, tensor: paddle.Tensor) -> tuple[paddle.Tensor, Any]:
        """Begins to copy a tensor to pinned memory, likewise."""
        return manipulation.async_offload(tensor, self._stream)


@cache
def _gpu(name: str, what: str) -> Gpu:
    return Gpu()


def current_device(what: str) -> Gpu | None:
    """What copies `batches`, or `values`, which do not wait for them, for Paddle's current device; None for a CPU."""
    name = paddle.get_device()
    return None if name == "cpu" else _gpu(name, what)


def fetched(tensor: paddle.Tensor, device: Gpu | None = None) -> Callable[[], np.ndarray]:
    """Begins to bring a tensor to the host, which is not changed in place from then on, by a device or the current one;
    what gives the array waits for this copy, and not for what has been queued on the device since."""
    device = device or current_device("values")
    if device is None:
        return tensor.numpy
    copied, copy = device.down(tensor)

    def array() -> np.ndarray:
        copy.cpu_wait()
        return copied.numpy()

    return array


class Sender:
    """Sends small arrays, one for each step: neither the host waits, nor what the device still computes."""

    def __init__(self, device: Gpu | None = None):
        device = device or current_device("values")
        self._slots = itertools.cycle([_Slot(device) for _ in range(SLOTS)]) if device else None

    def __call__(self, array: np.ndarray) -> paddle.Tensor:
        """An array on the device, for what is computed from now on."""
        if self._slots is None:
            return paddle.to_tensor(array)
        slot = next(self._slots)
        slot.fill({"": array})
        slot.send()
        return slot.tensors()[""]


def uploaded(
    batches: Generator[tuple[Arrays, T], None, None], device: Gpu | None = None
) -> Iterator[tuple[dict[str, paddle.Tensor], T]]:
    """Batches on the device, in order: the next one goes up while what is made of this one is computed.

    A thread asks for them ahead and copies them into pinned slots; an error in it is raised where its batch
    would have come. The first is asked for by the caller's thread, whose child the processes that make batches become.

    Args:
        batches: arrays by name, which hold until the next batch is asked for, and what goes with them.
        device: as for `fetched`.
    """
    device = device or current_device("batches")
    if device is None:
        for arrays, rest in batches:
            yield {name: paddle.to_tensor(array) for name, array in arrays.items()}, rest
        return
    first = next(batches, None)
    if first is None:
        return
    filler, begun = _Filler(itertools.chain([first], batches), batches.close, device), deque[Any]()
    filler.start()
    try:
        while True:
            begun = begun or deque([filler.next()])
            item = begun.popleft()
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            slot, rest = item
            if filler.is_ready():  # now, as its copy waits for what is computed by then, and the next step is not yet
                begun.append(filler.next())
            yield slot.tensors(), rest
    finally:
        filler.stop()


class _Filler(threading.Thread):
    """Fills slots with batches, one after the other, until it is stopped; `close` ends what makes them."""

    def __init__(self, batches: Iterator[tuple[Arrays, Any]], close: Callable[[], None], device: Gpu):
        super().__init__(daemon=True)
        self._batches, self._close = batches, close
        self._slots = itertools.cycle([_Slot(device) for _ in range(SLOTS)])
        self._filled: queue.Queue = queue.Queue(READY)
        self._stopped = threading.Event()

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the main thread
        try:
            for slot, (arrays, rest) in zip(self._slots, self._batches, strict=False):
                slot.fill(arrays)
                if not self._put((slot, rest)):
                    break
            self._put(None)
        except Exception as error:
            self._put(error)
        finally:
            self._close()

    def _put(self, item: Any) -> bool:
        """False where nobody wants it any more."""
        while not self._stopped.is_set():
            try:
                self._filled.put(item, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def is_ready(self) -> bool:
        """Whether `next` need not wait."""
        return not self._filled.empty()

    def next(self) -> Any:
        """The next slot, whose copy is begun, with what goes with it; or an error instead; None at the end."""
        item = self._filled.get()
        if isinstance(item, tuple):
            item[0].send()
        return item

    def stop(self) -> None:
        """Lets it end: the processes that make batches too, unless one of them is waited for just then."""
        self._stopped.set()
        self.join(GRACE)


class _Slot:
    """Pinned memory of a batch, which grows with what is put into it."""

    def __init__(self, device: Gpu):
        self._device = device
        self._memory: dict[str, _Pinned] = {}
        self._filled: list[str] = []
        self._copies: list[Any] = []
        self._tensors: dict[str, paddle.Tensor] = {}

    def fill(self, arrays: Arrays) -> None:
        """Takes arrays in, once the copies of the last ones are made."""
        for copy in self._copies:
            copy.cpu_wait()
        self._filled = list(arrays)
        for name, array in arrays.items():
            if name not in self._memory or self._memory[name].size < array.nbytes:
                self._memory[name] = _Pinned(self._device.pinned(array))
            self._memory[name].hold(array)

    def send(self) -> None:
        """Begins to copy them to the device."""
        begun = {name: self._device.up(self._memory[name].tensor) for name in self._filled}
        self._tensors = {name: tensor for name, (tensor, _) in begun.items()}
        self._copies = [copy for _, copy in begun.values()]

    def tensors(self) -> dict[str, paddle.Tensor]:
        """Those on the device, for what is computed from now on. They are the caller's."""
        for copy in self._copies:
            copy.cuda_wait()
        tensors, self._tensors = self._tensors, {}
        return tensors


class _Pinned:
    """A tensor on the host as memory: of arrays of its type that are no larger than the one that it was made of, whose
    bytes `size` says."""

    def __init__(self, tensor: paddle.Tensor):
        self.tensor, self.size = tensor, tensor.size * tensor.element_size()
        memory = (ctypes.c_ubyte * self.size).from_address(tensor.data_ptr())
        self._bytes = np.frombuffer(memoryview(memory).cast("B"), np.uint8)

    def hold(self, array: np.ndarray) -> None:
        """By NumPy, which lets other threads run meanwhile."""
        np.copyto(self._bytes[: array.nbytes].view(array.dtype).reshape(array.shape), array)
        self.tensor.value().get_tensor()._set_dims(list(array.shape))
