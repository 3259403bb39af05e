"""Copies in the background, on a stand-in for a GPU that copies as late as it may."""

import threading
import time

import numpy as np
import paddle
import pytest

from ernie_vil2.device.transfers import NUM_SLOTS, Sender, copy_to_host, start_host_copy, upload_batches
from tests.support.copies import count_copied_bytes
from tests.support.late_device import LateDevice
from tests.support.limits import wait_until


def yield_batches(count, closing_threads=None, fails_at=None):
    """Yield arrays of one buffer that is used again, as loaders do, of growing and shrinking sizes."""
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
        if closing_threads is not None:
            closing_threads.append(threading.current_thread())


def check_batch(tensors, number):
    num_rows = 3 + number * 5 % 7
    np.testing.assert_array_equal(tensors["rows"].numpy(), np.full([num_rows, 4], number))
    np.testing.assert_array_equal(tensors["pixels"].numpy(), np.full([num_rows, 2], number, "uint8"))
    assert tensors["pixels"].dtype == paddle.uint8


@pytest.fixture(params=[None, LateDevice], ids=["CPU", "GPU"])
def device(request):
    return None if request.param is None else LateDevice()


@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_batches_are_in_order_and_none_is_overwritten(device, pause):
    earlier_batches = []
    for tensors, number in upload_batches(yield_batches(20), device):
        time.sleep(pause)
        earlier_batches.append(tensors)
        check_batch(tensors, number)
    assert len(earlier_batches) == 20
    # Batches that were handed out before are not overwritten either: a step may still be computing with them.
    for number, tensors in enumerate(earlier_batches):
        check_batch(tensors, number)
    assert list(upload_batches(yield_batches(0), device)) == []


def test_next_batch_is_uploaded_before_this_one_is_handed_out():
    device, num_ahead, count, num_requested = LateDevice(), [], 8, 0

    def count_requests():
        nonlocal num_requested
        for batch in yield_batches(count):
            num_requested += 1
            yield batch
        num_requested += 1  # after the last batch was put into a slot

    for number, _ in enumerate(upload_batches(count_requests(), device)):
        num_ahead.append(len(device.uploads) // 2 - 1 - number)  # a batch is two arrays
        # A step lasts here until the loader is as far ahead as it can be.
        num_possible = min(count + 1, number + NUM_SLOTS)
        wait_until(lambda num_possible=num_possible: num_requested >= num_possible)
    # One batch ahead each time, but for the first one, when the thread has just started, and the last one.
    assert num_ahead[1:] == [1] * (count - 2) + [0]


def test_pinned_memory_is_reused_and_no_copy_is_waited_for():
    device, num_allocations = LateDevice(), []
    for _ in upload_batches(yield_batches(60), device):
        num_allocations.append(device.num_allocations)
    # There are seven sizes: each of the two arrays of a slot is allocated at most seven times.
    assert num_allocations[30] == num_allocations[-1] <= 2 * NUM_SLOTS * 7 and not any(device.waits)


def test_filling_thread_has_the_device_of_the_main_thread():
    # The stand-in refuses to allocate in a thread that has not chosen it before.
    device = LateDevice()
    assert len(list(upload_batches(yield_batches(9), device))) == 9
    assert device.allocating_threads and threading.main_thread() not in device.allocating_threads


@pytest.mark.parametrize("fails_at", [0, 1, 5])
def test_error_is_raised_in_place_of_its_batch(device, fails_at):
    numbers = []

    def read_batches():
        for tensors, number in upload_batches(yield_batches(9, fails_at=fails_at), device):
            check_batch(tensors, number)
            numbers.append(number)

    with pytest.raises(ValueError, match=f"batch {fails_at}"):
        read_batches()
    assert numbers == list(range(fails_at))


def test_error_that_is_no_exception_is_raised_as_well(device):
    def exit_in_batch():
        yield from yield_batches(1)
        raise SystemExit("in the loader")

    with pytest.raises(SystemExit, match="in the loader"):
        list(upload_batches(exit_in_batch(), device))


@pytest.mark.parametrize("count", [1, 6])
def test_closing_early_ends_the_thread_and_closes_the_source(count):
    num_threads, closing_threads = threading.active_count(), []
    source = upload_batches(yield_batches(1000, closing_threads), LateDevice())
    for _ in range(count):
        next(source)
    source.close()
    assert len(closing_threads) == 1 and threading.active_count() == num_threads


def test_host_copy_is_waited_for_only_when_it_is_read(device):
    read_value = start_host_copy(paddle.to_tensor([1.0, 2.0]), device)
    assert device is None or device.waits == []
    np.testing.assert_array_equal(read_value(), [1, 2])
    assert device is None or device.waits == [True]


def test_sent_arrays_are_not_overwritten(device):
    send, tensors = Sender(device), []
    array = np.zeros([4, 2], "int64")
    for number in range(3 * NUM_SLOTS):
        array[:] = number
        tensors.append(send(array[: 1 + number % 4]))
    for number, tensor in enumerate(tensors):
        np.testing.assert_array_equal(tensor.numpy(), np.full([1 + number % 4, 2], number))


def test_view_is_copied_without_the_rest_of_its_memory():
    values = np.arange(6400, dtype="float32").reshape([20, 320])  # rows of 5 blocks of memory on a GPU
    whole = paddle.to_tensor(values)
    row = whole._slice(7, 8)  # a view whatever FLAGS_use_stride_kernel is
    row.stop_gradient = False  # as a parameter
    for tensor, expected in ((row, values[7:8]), (whole, values)):
        with count_copied_bytes() as sizes:
            np.testing.assert_array_equal(copy_to_host(tensor), expected)
        assert sizes == [expected.nbytes]
