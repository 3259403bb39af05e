"""Transfers between host and device.

On a GPU, all but `copy_to_host` use pinned memory and a stream of their own, so that they run while the device computes
and nobody waits for them. On a CPU nothing has to be copied, and each transfer is a plain call.
"""

import ctypes
import itertools
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np
import paddle

# As of Paddle 3.3.1, only this undocumented module copies on a stream of its own. Paddle's public functions copy on the
# stream that computes, where a copy waits for everything queued before it.
from paddle.incubate.tensor import manipulation

T = TypeVar("T")
Arrays = Mapping[str, np.ndarray]

# Bytes to which Paddle (3.3.1) rounds up the memory of a tensor on a GPU.
_GPU_BLOCK = 256
# Batches in pinned memory that are ready to be copied. More take more pinned memory; fewer leave no reserve for a batch
# that takes longer to load.
NUM_READY = 2
# Batches for which there is pinned memory: besides the ready ones, one is being copied and one is being filled.
NUM_SLOTS = NUM_READY + 2
# Seconds that the thread which fills slots has to end; a loader process that hangs must not stop the end of a run.
_STOP_PATIENCE = 5.0
# Seconds after which that thread looks whether it should stop while it waits for room in the queue.
_POLL_INTERVAL = 0.1


class Gpu:
    """Paddle's current GPU with a stream for copies.

    Copies are represented by Paddle's objects: `copy.cuda_wait()` makes everything that is queued on the device later
    wait for the copy, `copy.cpu_wait()` makes the calling thread wait.
    """

    def __init__(self) -> None:
        self._device_id = int(paddle.get_device().removeprefix("gpu:"))
        self._stream = manipulation.create_async_load()
        # Two threads may copy at once: a server encodes in another thread than the main one. Paddle's object has no
        # lock, and releases the interpreter's.
        self._lock = threading.Lock()
        # Paddle (3.3.1) initialises the stream with the device of the first tensor, which must go to the host.
        self.start_download(paddle.zeros([1]))

    def use_in_this_thread(self) -> None:
        """Make this GPU the current device of the calling thread.

        A new thread has GPU 0 as its device. If it allocated pinned memory there, every rank of a machine would open a
        context on GPU 0, which takes about half a gigabyte of its memory.
        """
        # Private, and only in GPU builds (Paddle 3.3.1). `paddle.set_device` sets the place of Paddle's operations, but
        # not CUDA's device of the calling thread (read in Paddle's sources; its pull request 31177 took that out).
        paddle.base.core.set_cuda_current_device_id(self._device_id)  # type: ignore[attr-defined]

    def allocate_pinned(self, array: np.ndarray) -> paddle.Tensor:
        """Return host memory with the content of an array, which the device can read by itself.

        The thread must have called `use_in_this_thread`.
        """
        return paddle.to_tensor(array, place=paddle.CUDAPinnedPlace())

    def start_upload(self, pinned: paddle.Tensor) -> tuple[paddle.Tensor, Any]:
        """Start to copy pinned memory to the device, after everything that is queued on the device now."""
        with self._lock:
            return manipulation.async_reload(pinned, self._stream)

    def start_download(self, tensor: paddle.Tensor) -> tuple[paddle.Tensor, Any]:
        """Start to copy a tensor to pinned memory, after everything that is queued on the device now."""
        with self._lock:
            return manipulation.async_offload(tensor, self._stream)


# The arguments are the key of the cache: there is one stream for each device and purpose.
@cache
def _open_gpu(name: str, purpose: Literal["batches", "values"]) -> Gpu:
    return Gpu()


def _current_gpu(purpose: Literal["batches", "values"]) -> Gpu | None:
    """Return Paddle's current GPU, or None for a CPU; small `values` do not wait for `batches` on its streams."""
    name = paddle.get_device()
    return None if name == "cpu" else _open_gpu(name, purpose)


def start_host_copy(tensor: paddle.Tensor, device: Gpu | None = None) -> Callable[[], np.ndarray]:
    """Start to copy a tensor to the host.

    Args:
        tensor: the tensor; it must not be changed in place any more.
        device: GPU of the tensor; None: Paddle's current device.

    Returns:
        A function that waits for this copy, but not for anything queued on the device meanwhile, and returns the array.
    """
    device = device or _current_gpu("values")
    if device is None:
        return tensor.numpy
    host_tensor, copy = device.start_download(tensor)

    def wait_for_array() -> np.ndarray:
        copy.cpu_wait()
        return host_tensor.numpy()

    return wait_for_array


def copy_to_host(tensor: paddle.Tensor) -> np.ndarray:
    """Return the values of a tensor; of the memory that a view shares, only the part of the view is copied.

    `Tensor.numpy()` copies all the memory that a view shares (Paddle 3.3.1): a whole batch for one of its rows, and a
    buffer of many parameters for each of them with `Training.sharding=stage2`.
    """
    # Private (Paddle 3.3.1): the bytes of the memory that a tensor shares. Nothing public tells them.
    if tensor._holder_size() >= tensor.size * tensor.element_size() + _GPU_BLOCK:
        tensor = tensor.detach().clone()
    return tensor.numpy()


class Sender:
    """Sender of arrays of one type to the device, one after the other.

    Neither the host nor computations in progress wait. An array is copied after the computations that are queued
    before; this delays a large array, but hardly the small ones of a training step.
    """

    def __init__(self, device: Gpu | None = None):
        device = device or _current_gpu("values")
        self._slots = itertools.cycle([_Slot(device) for _ in range(NUM_SLOTS)]) if device else None
        self._lock = threading.Lock()

    def __call__(self, array: np.ndarray) -> paddle.Tensor:
        """Return an array on the device, for computations that are queued from now on."""
        if self._slots is None:
            # Paddle 3.3.1 leaks a list for each tensor that paddle.to_tensor makes of an array: 11 MB in 100,000 calls.
            tensor = paddle.empty(array.shape, array.dtype.type)
            tensor.get_tensor().set(np.ascontiguousarray(array), paddle.CPUPlace())
            return tensor
        with self._lock:
            slot = next(self._slots)
            slot.fill({"array": array})
            slot.start_upload()
            return slot.take_tensors()["array"]


def upload_batches(
    batches: Generator[tuple[Arrays, T], None, None], device: Gpu | None = None
) -> Iterator[tuple[dict[str, paddle.Tensor], T]]:
    """Yield batches on the device in order; the next batch is copied while the device computes with this one.

    A thread requests batches ahead and copies them into pinned slots; an error in it is raised at the position of its
    batch. The first batch is requested by the calling thread, which therefore starts the processes that make batches:
    Linux ends these with the thread that started them (see `launch.exit_when_parent_dies`).

    Args:
        batches: arrays by name, which may be overwritten when the next batch is requested, and any further content.
        device: GPU to copy to; None: Paddle's current device.
    """
    device = device or _current_gpu("batches")
    if device is None:
        for arrays, content in batches:
            yield {name: paddle.to_tensor(array) for name, array in arrays.items()}, content
        return

    first_batch = next(batches, None)
    if first_batch is None:
        return
    filler = _SlotFiller(itertools.chain([first_batch], batches), batches.close, device)
    filler.start()
    uploading = deque[Any]()  # at most one item: the batch after the one that is yielded
    try:
        while True:
            if not uploading:
                uploading.append(filler.wait_for_item())
            item = uploading.popleft()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            slot, content = item
            # The next copy starts before this batch is yielded: it waits for everything queued on the device so far,
            # and the step with this batch is not queued yet.
            if filler.is_ready():
                uploading.append(filler.wait_for_item())
            yield slot.take_tensors(), content
    finally:
        filler.stop()


class _SlotFiller(threading.Thread):
    """Thread that fills slots with batches until it is stopped; then it calls `close`, which ends their source."""

    def __init__(self, batches: Iterator[tuple[Arrays, Any]], close: Callable[[], None], device: Gpu):
        super().__init__(daemon=True)
        self._batches, self._close = batches, close
        self._slots = itertools.cycle([_Slot(device) for _ in range(NUM_SLOTS)])
        self._items: queue.Queue = queue.Queue(NUM_READY)
        self._should_stop = threading.Event()

    def run(self) -> None:
        # Signals are handled by the main thread, whose system calls they have to interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            for slot, (arrays, content) in zip(self._slots, self._batches, strict=False):
                slot.fill(arrays)
                if not self._put((slot, content)):
                    break
            self._put(None)
        except BaseException as error:  # a panic of Rust, in a tokenizer, and SystemExit are no Exception
            self._put(error)
        finally:
            self._close()

    def _put(self, item: Any) -> bool:
        """Wait for room and put an item into the queue; return False if the thread should stop instead."""
        while not self._should_stop.is_set():
            try:
                self._items.put(item, timeout=_POLL_INTERVAL)
                return True
            except queue.Full:
                pass
        return False

    def is_ready(self) -> bool:
        """Return whether `wait_for_item` returns at once."""
        return not self._items.empty()

    def wait_for_item(self) -> Any:
        """Return the next slot, whose upload has been started, and its content; an error; or None at the end."""
        item = self._items.get()
        if isinstance(item, tuple):
            slot, _ = item
            slot.start_upload()
        return item

    def stop(self) -> None:
        """Let the thread end, and the processes that make batches, unless it is waiting for one of them."""
        self._should_stop.set()
        self.join(_STOP_PATIENCE)


class _Slot:
    """Pinned memory of one batch; it grows to the largest arrays that are put into it."""

    def __init__(self, device: Gpu):
        self._device = device
        self._memory: dict[str, _PinnedMemory] = {}
        self._names: list[str] = []
        self._copies: list[Any] = []
        self._tensors: dict[str, paddle.Tensor] = {}

    def fill(self, arrays: Arrays) -> None:
        """Copy arrays into the slot, after the copies of its previous content have finished."""
        for copy in self._copies:
            copy.cpu_wait()
        self._names = list(arrays)
        for name, array in arrays.items():
            if name not in self._memory or self._memory[name].num_bytes < array.nbytes:
                self._device.use_in_this_thread()
                self._memory[name] = _PinnedMemory(self._device.allocate_pinned(array))
            self._memory[name].write(array)

    def start_upload(self) -> None:
        """Start to copy the arrays to the device."""
        self._tensors, self._copies = {}, []
        for name in self._names:
            tensor, copy = self._device.start_upload(self._memory[name].tensor)
            self._tensors[name] = tensor
            self._copies.append(copy)

    def take_tensors(self) -> dict[str, paddle.Tensor]:
        """Return the tensors on the device, for computations that are queued from now on; the slot forgets them."""
        for copy in self._copies:
            copy.cuda_wait()
        tensors, self._tensors = self._tensors, {}
        return tensors


class _PinnedMemory:
    """Host tensor that is used as memory for arrays of its type with at most `num_bytes` bytes."""

    def __init__(self, tensor: paddle.Tensor):
        self.tensor, self.num_bytes = tensor, tensor.size * tensor.element_size()
        # A view of the tensor's memory for NumPy: `Tensor.numpy()` would copy it.
        memory = (ctypes.c_ubyte * self.num_bytes).from_address(tensor.data_ptr())
        self._bytes = np.frombuffer(memoryview(memory).cast("B"), np.uint8)

    def write(self, array: np.ndarray) -> None:
        # NumPy copies without the interpreter lock, so that the main thread goes on meanwhile.
        np.copyto(self._bytes[: array.nbytes].view(array.dtype).reshape(array.shape), array)
        # Private, as of Paddle 3.3.1: nothing public gives a tensor a smaller shape without allocating it again.
        self.tensor.value().get_tensor()._set_dims(list(array.shape))
