"""Stand-in for a GPU that copies as late as it may."""

import threading

import paddle


class LateCopy:
    """Copy that is made when it is waited for, of what the memory holds then."""

    def __init__(self, source, target, waits):
        self.source, self.target, self.waits, self.is_made = source, target, waits, False
        self.lock = threading.Lock()

    def _copy(self):
        with self.lock:
            if not self.is_made:
                self.target.set_value(self.source.numpy())
                self.is_made = True

    def cuda_wait(self):
        self._copy()

    def cpu_wait(self):
        self.waits.append(threading.current_thread() is threading.main_thread())
        self._copy()


class LateDevice:
    """Stand-in for a GPU that counts its copies and pinned allocations."""

    def __init__(self):
        self.uploads, self.waits, self.num_allocations = [], [], 0  # waits: whether the main thread has waited
        self.threads = {threading.current_thread()}  # those that have this device as their current one
        self.allocating_threads = set()

    def use_in_this_thread(self):
        self.threads.add(threading.current_thread())

    def allocate_pinned(self, array):
        assert threading.current_thread() in self.threads
        self.allocating_threads.add(threading.current_thread())
        self.num_allocations += 1
        return paddle.to_tensor(array, place=paddle.CPUPlace())  # these tests also run on GPUs

    def start_upload(self, pinned):
        assert threading.current_thread() is threading.main_thread()
        target = paddle.zeros(pinned.shape, pinned.dtype)
        self.uploads.append(target)
        return target, LateCopy(pinned, target, self.waits)

    start_download = start_upload
