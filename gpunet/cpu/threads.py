"""One pool of threads for all kernels of the processor.

A kernel cuts its work into tasks; how it does so depends on the sizes alone, or changes no result, never the bits: one
thread and sixty give the same. Threads take the next task when they are done with one. The caller works too. Workers
watch for work a moment before they sleep (:mod:`gpunet.cpu.spin`). While tasks that call BLAS run, it computes on one
thread inside each: pools in pools take 30 to 70 times as long.

The number is :func:`set_num_threads`'s; before that GPUNET_NUM_THREADS's or that of the usual variables, the first
that is set; else that of the cores that this process may use.
"""

import ctypes
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from gpunet import config
from gpunet.errors import ArgumentError

Task = Callable[[int], Any]


# ------------------------------------------------------------------------------------------------------------ number


def cores() -> int:
    """Cores this process may use: its affinity, or fewer under a quota of the container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, min(count, int(quota))) if quota else count


def _quota() -> float | None:
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def set_num_threads(count: int) -> None:
    """Sets how many threads the processor's kernels and BLAS compute on.

    Args:
        count: at least 1; more than the cores there are is allowed, and slower.

    Raises:
        ArgumentError: not a whole number of at least 1.

    Example:
        >>> import gpunet as gn
        >>> before = gn.get_num_threads()
        >>> gn.set_num_threads(1)
        >>> gn.get_num_threads()
        1
        >>> gn.set_num_threads(before)
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ArgumentError(f"set_num_threads: count must be a whole number of at least 1, got {count!r}")
    _pool.wanted = count
    for library in _blas():
        library.set_num_threads(count)


def get_num_threads() -> int:
    """How many threads the processor's kernels compute on; see :func:`set_num_threads`."""
    return _pool.wanted


# -------------------------------------------------------------------------------------------------------------- BLAS


@cache
def _blas() -> tuple[Any, ...]:
    """The BLAS libraries of this process, each with ``get_num_threads`` and ``set_num_threads``."""
    import numpy  # noqa: F401 it brings its BLAS
    from threadpoolctl import ThreadpoolController

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Inside, BLAS computes on one thread. Pools may overlap in time, so the last to leave puts the number back."""
    with _pool.lock:
        _pool.inside += 1
        if _pool.inside == 1:
            _pool.before = [library.get_num_threads() for library in _blas()]
            for library in _blas():
                library.set_num_threads(1)
    try:
        yield
    finally:
        with _pool.lock:
            _pool.inside -= 1
            if _pool.inside == 0:
                for library, count in zip(_blas(), _pool.before, strict=True):
                    library.set_num_threads(count)


# -------------------------------------------------------------------------------------------------------------- pool


class _Job:
    """Tasks numbered from 0; whoever has time takes the next."""

    def __init__(self, task: Task, count: int):
        self.task: Task | None = task
        self.count = count
        self.numbers = itertools.count()
        self.left, self.lock = count, threading.Lock()
        self.done = threading.Lock()
        self.done.acquire()
        self.helping = 0  # workers that are inside
        self.error: BaseException | None = None

    def work(self) -> None:
        """Tasks until there are none left; after an error the rest are skipped."""
        number = next(self.numbers)  # one step for the interpreter, so no two threads get the same
        while number < self.count:
            if self.error is None:
                try:
                    self.task(number)  # type: ignore[misc] it is there until all are done
                except BaseException as error:  # raised again where the work was asked for
                    self.error = error
            with self.lock:
                self.left -= 1
                if self.left == 0:
                    self.done.release()
            number = next(self.numbers)

    def help(self) -> None:
        """A worker's part."""
        with self.lock:
            self.helping += 1
        self.work()
        with self.lock:
            self.helping -= 1

    def end(self) -> None:
        """No task begins any more; waits for those that workers are in. For interrupts, which may come at any place."""
        self.count = 0
        while self.helping:
            time.sleep(1e-4)


class _Pool:
    def __init__(self) -> None:
        self.wanted = config.settings.threads or cores()
        self.lock = threading.Lock()
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.workers = 0
        self.local = threading.local()
        self.inside, self.before = 0, []
        # counters that the compiled functions of gpunet.cpu.spin watch, a cache line each
        self.counters = (ctypes.c_int64 * 32)()
        begin = ctypes.addressof(self.counters)
        self.posts, self.taken, self.done, self.resting = (begin + 64 * k for k in range(4))

    def start(self, count: int) -> None:
        """So many workers at the least; they live as long as the process, asleep when there is nothing to do."""
        with self.lock:
            while self.workers < count:
                name = f"gpunet-{self.workers}"
                threading.Thread(target=self.serve, name=name, daemon=True).start()
                self.workers += 1

    def serve(self) -> None:
        """A worker: watches for jobs a while, then sleeps until there is one."""
        from gpunet.cpu import spin

        self.local.inside = True
        while True:
            called = True
            while called:  # until there is a job, or it is time to sleep
                # Read before the queue is looked at: a job that is put there after that comes with another number.
                posts = self.counters[0]
                turns = spin.TURNS if self.jobs.empty() else 0
                called = spin.rest(self.done, self.resting, self.posts, posts, turns) and self.jobs.empty()
            job = self.jobs.get()
            self.counters[8] += 1  # at address self.taken
            job.help()
            del job  # the next may come late

    def hand_out(self, job: _Job, helpers: int) -> None:
        """Gives a job to so many workers."""
        from gpunet.cpu import spin

        for _ in range(helpers):
            self.jobs.put(job)
        spin.call(self.resting, self.posts, self.taken, spin.TURNS // 40)

    def wait(self, job: _Job) -> None:
        """Until the workers are done with it: watching first, then asleep."""
        from gpunet.cpu import spin

        while True:
            done = self.counters[16]  # at address self.done
            if not job.left or not spin.watch(self.done, done, spin.TURNS):
                break
        job.done.acquire()


_pool = _Pool()


def _after_fork() -> None:
    """A child process has none of its parent's threads."""
    global _pool
    wanted, _pool = _pool.wanted, _Pool()
    _pool.wanted = wanted


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def start() -> None:
    """Starts the workers now, for whoever watches that a call starts none."""
    _pool.start(_pool.wanted - 1)


def run(task: Task, count: int, blas: bool = False) -> None:
    """Calls ``task`` with every number from 0 to ``count - 1``, on as many threads as are set.

    Tasks must be independent, and let go of the interpreter's lock while they compute, as BLAS and kernels compiled by
    :func:`gpunet.cpu.jit.compiled` do. A task that calls ``run`` itself does that work alone.

    Args:
        task: called with a number.
        count: of tasks.
        blas: whether tasks call BLAS, which then computes on one thread in each.

    Raises:
        Whatever the first task to fail raised, when all threads have stopped.
    """
    if blas:
        with _one_blas_thread():
            run(task, count)
        return
    helpers = min(_pool.wanted, count) - 1
    if helpers < 1 or getattr(_pool.local, "inside", False):
        for number in range(count):
            task(number)
        return
    if _pool.workers < helpers:
        _pool.start(helpers)
    job = _Job(task, count)
    _pool.local.inside = True
    try:
        _pool.hand_out(job, helpers)
        job.work()
        _pool.wait(job)
    except BaseException:  # an interrupt
        job.end()
        raise
    finally:
        _pool.local.inside = False
        error, job.error, job.task = job.error, None, None  # a worker may find the job later: it must keep no arrays
    if error is not None:
        try:
            raise error
        finally:
            del error  # which holds this frame: no cycle shall keep the arrays of the task


def ranges(size: int, grain: int) -> list[tuple[int, int]]:
    """``size`` cut into pieces of ``grain``, the last one shorter: the same whatever the number of threads.

    Example:
        >>> from gpunet.cpu.threads import ranges
        >>> ranges(10, 4)
        [(0, 4), (4, 8), (8, 10)]
    """
    return [(start, min(start + grain, size)) for start in range(0, size, grain)]


def shares(size: int, least: int, unit: int = 1) -> list[tuple[int, int]]:
    """``size`` cut into a piece for each thread, or fewer: of ``least`` or more, and whole units but for the last.

    For work whose results do not depend on the cut: one task a thread costs the least. Else take :func:`ranges`.

    Example:
        >>> import gpunet as gn
        >>> from gpunet.cpu.threads import shares
        >>> before = gn.get_num_threads()
        >>> gn.set_num_threads(2)
        >>> shares(11, 2), shares(3, 2), shares(100, 10, unit=32)
        ([(0, 6), (6, 11)], [(0, 3)], [(0, 64), (64, 100)])
        >>> gn.set_num_threads(before)
    """
    count = max(1, min(_pool.wanted, size // least))
    units = -(-size // (count * unit))
    return ranges(size, units * unit) if size else []
