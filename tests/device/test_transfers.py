"""Copies that nobody waits for: on a stand-in for a GPU, which copies as late as it may."""

import threading
import time

import numpy as np
import paddle
import pytest

from ernie_vil2.device.transfers import NUM_SLOTS, Sender, start_host_copy, upload_batches
from tests.support.limits import PATIENCE


class LateCopy:
    """A copy that is made when somebody waits for it, of what the memory holds then."""

    def __init__(self, source, target, waits):
        self.source, self.target, self.waits, self.is_made = source, target, waits, False
        self.lock = threading.Lock()

    def _make(self):
        with self.lock:
            if not self.is_made:
                self.target.set_value(self.source.numpy())
                self.is_made = True

    def cuda_wait(self):
        self._make()

    def cpu_wait(self):
        self.waits.append(threading.current_thread() is threading.main_thread())
        self._make()


class LateDevice:
    def __init__(self):
        self.begun, self.waits, self.allocated = [], [], 0

    def allocate_pinned(self, array):
        self.allocated += 1
        return paddle.to_tensor(array)

    def start_upload(self, pinned):
        assert threading.current_thread() is threading.main_thread()
        target = paddle.zeros(pinned.shape, pinned.dtype)
        self.begun.append(target)
        return target, LateCopy(pinned, target, self.waits)

    start_download = start_upload


def batches(count, closed=None, fails_at=None):
    """Yield arrays of one buffer, as loaders give them, of growing and shrinking sizes."""
    buffer = np.zeros([9, 4], "int64")
    try:
        for number in range(count):
            if number == fails_at:
                raise ValueError(f"batch {number}")
            rows = buffer[: 3 + number * 5 % 7]
            rows[:] = number
            yield {"rows": rows, "pixels": rows[:, :2].astype("uint8")}, number
            buffer[:] = -1
    finally:
        if closed is not None:
            closed.append(threading.current_thread())


def assert_is_batch(tensors, number):
    num_rows = 3 + number * 5 % 7
    np.testing.assert_array_equal(tensors["rows"].numpy(), np.full([num_rows, 4], number))
    np.testing.assert_array_equal(tensors["pixels"].numpy(), np.full([num_rows, 2], number, "uint8"))
    assert tensors["pixels"].dtype == paddle.uint8


@pytest.fixture(params=[None, LateDevice], ids=["CPU", "GPU"])
def device(request):
    return request.param and request.param()


@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_batches_come_in_order_and_none_is_overwritten(device, pause):
    """Not those that were handed out before either: a step may still be computed of them."""
    earlier = []
    for tensors, number in upload_batches(batches(20), device):
        time.sleep(pause)
        earlier.append(tensors)
        assert_is_batch(tensors, number)
    assert len(earlier) == 20
    for number, tensors in enumerate(earlier):
        assert_is_batch(tensors, number)
    assert list(upload_batches(batches(0), device)) == []


def test_the_next_batch_goes_up_before_this_one_is_handed_out():
    """Where the loader is ahead: a step here lasts until it is."""
    device, ahead, asked, count = LateDevice(), [], [], 8

    def counted_batches():
        for batch in batches(count):
            asked.append(True)
            yield batch
        asked.append(True)  # after the last one was put into a slot

    for number, _ in enumerate(upload_batches(counted_batches(), device)):
        ahead.append(len(device.begun) // 2 - 1 - number)
        until = time.monotonic() + PATIENCE
        while len(asked) < min(count + 1, number + NUM_SLOTS) and time.monotonic() < until:
            time.sleep(0.001)
    assert ahead[1:] == [*[1] * (count - 2), 0]  # the thread has just begun when the first is handed out


def test_memory_is_pinned_as_it_grows_and_no_copy_waited_for():
    device, allocated = LateDevice(), []
    for _ in upload_batches(batches(60), device):
        allocated.append(device.allocated)
    assert allocated[30] == allocated[-1] <= 2 * NUM_SLOTS * 7 and not any(device.waits)


@pytest.mark.parametrize("fails_at", [0, 1, 5])
def test_an_error_comes_where_its_batch_would_have_come(device, fails_at):
    numbers = []

    def take():
        for tensors, number in upload_batches(batches(9, fails_at=fails_at), device):
            assert_is_batch(tensors, number)
            numbers.append(number)

    with pytest.raises(ValueError, match=f"batch {fails_at}"):
        take()
    assert numbers == list(range(fails_at))


@pytest.mark.parametrize("count", [1, 6])
def test_who_stops_leaves_no_thread_and_no_open_source(count):
    before, closed = threading.active_count(), []
    source = upload_batches(batches(1000, closed), LateDevice())
    for _ in range(count):
        next(source)
    source.close()
    assert len(closed) == 1 and threading.active_count() == before


def test_a_value_is_fetched_as_it_was(device):
    value = start_host_copy(paddle.to_tensor([1.0, 2.0]), device)
    assert device is None or device.waits == []
    np.testing.assert_array_equal(value(), [1, 2])
    assert device is None or device.waits == [True]


def test_small_arrays_are_sent_one_by_one(device):
    send, sent = Sender(device), []
    array = np.zeros([4, 2], "int64")
    for number in range(3 * NUM_SLOTS):
        array[:] = number
        sent.append(send(array[: 1 + number % 4]))
    for number, tensor in enumerate(sent):
        np.testing.assert_array_equal(tensor.numpy(), np.full([1 + number % 4, 2], number))
