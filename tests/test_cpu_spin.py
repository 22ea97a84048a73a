"""Waiting without sleep: what the compiled functions see and count, without the interpreter's lock."""

import ctypes
import threading

import pytest

from gpunet.cpu import spin


class Counters:
    """Four numbers in memory, each with its address."""

    def __init__(self):
        self.memory = (ctypes.c_int64 * 32)()
        self.resting, self.posts, self.taken, self.done = (ctypes.addressof(self.memory) + 64 * k for k in range(4))

    def __getitem__(self, k):
        return self.memory[8 * k]

    def __setitem__(self, k, value):
        self.memory[8 * k] = value


RESTING, POSTS, TAKEN, DONE = range(4)


@pytest.fixture
def counters():
    return Counters()


def test_watch_says_whether_the_number_is_another(counters):
    counters[POSTS] = 7
    assert spin.watch(counters.posts, 6, 1)
    assert not spin.watch(counters.posts, 7, 1000)
    assert not spin.watch(counters.posts, 6, 0)


def test_watch_sees_what_another_thread_writes_meanwhile(counters):
    ready = threading.Event()

    def write():
        ready.set()
        counters[POSTS] = 1

    writer = threading.Thread(target=write)
    writer.start()
    ready.wait(30)
    while not spin.watch(counters.posts, 0, 10_000):  # it must let go of the interpreter's lock, or this never ends
        pass
    writer.join()


def test_rest_counts_a_job_as_done_and_leaves_nobody_resting(counters):
    assert not spin.rest(counters.done, counters.resting, counters.posts, 0, 10)
    counters[POSTS] = 1
    assert spin.rest(counters.done, counters.resting, counters.posts, 0, 10)
    assert (counters[DONE], counters[RESTING]) == (2, 0)


def test_call_announces_at_once_when_nobody_watches(counters):
    spin.call(counters.resting, counters.posts, counters.taken, 10**12)  # would take hours
    assert counters[POSTS] == 1


def test_call_waits_for_a_worker_that_watches_to_take_the_job(counters):
    counters[RESTING] = 1
    seen = []

    def worker():
        while not spin.watch(counters.posts, 0, 10_000):
            pass
        seen.append(counters[POSTS])
        counters[TAKEN] += 1

    thread = threading.Thread(target=worker)
    thread.start()
    spin.call(counters.resting, counters.posts, counters.taken, 10**12)
    assert seen == [1]
    thread.join()
