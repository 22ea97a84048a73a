"""The thread pool of the processor's kernels: every task once, errors, nesting, BLAS, and the number of threads."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest

import gpunet as gn
from gpunet.cpu import spin, threads
from gpunet.errors import ArgumentError


@pytest.fixture(autouse=True)
def _as_before():
    before = gn.get_num_threads()
    yield
    gn.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("tasks", [0, 1, 2, 7, 300])
def test_every_task_runs_once(count, tasks):
    gn.set_num_threads(count)
    seen = [0] * tasks

    def task(k):
        seen[k] += 1

    threads.run(task, tasks)
    assert seen == [1] * tasks


def test_tasks_run_on_several_threads_at_a_time():
    gn.set_num_threads(3)
    together = threading.Barrier(3, timeout=30)  # broken, and an error, unless three threads meet
    threads.run(lambda k: together.wait(), 3)


def test_with_one_thread_the_caller_works_alone():
    gn.set_num_threads(1)
    who = set()
    threads.run(lambda k: who.add(threading.get_ident()), 8)
    assert who == {threading.get_ident()}


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_reaches_the_caller_and_the_pool_goes_on(count):
    gn.set_num_threads(count)

    def fails(k):
        if k == 5:
            raise ValueError("task 5")

    with pytest.raises(ValueError, match="task 5"):
        threads.run(fails, 20)
    seen = []
    threads.run(seen.append, 4)
    assert sorted(seen) == [0, 1, 2, 3]


def test_a_task_may_run_tasks():
    gn.set_num_threads(2)
    seen = []
    threads.run(lambda k: threads.run(lambda j: seen.append((k, j)), 3), 3)
    assert sorted(seen) == [(k, j) for k in range(3) for j in range(3)]


def test_callers_in_several_threads_do_not_mix_their_tasks():
    gn.set_num_threads(2)
    seen = {n: [] for n in range(4)}

    def caller(n):
        for _ in range(20):
            threads.run(lambda k: seen[n].append(k), 5)

    callers = [threading.Thread(target=caller, args=(n,)) for n in seen]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert all(sorted(each) == sorted([*range(5)] * 20) for each in seen.values())


def blas_threads() -> set[int]:
    return {library.get_num_threads() for library in threads._blas()}


@pytest.mark.skipif(not threads._blas(), reason="NumPy's BLAS here has no threads that can be set")
def test_what_no_worker_came_for_is_let_go():
    gn.set_num_threads(2)
    busy, go_on = threading.Barrier(3, timeout=30), threading.Event()

    def keeps_the_worker(_):
        busy.wait()
        assert go_on.wait(30)

    class Arrays:
        def use(self, k):
            pass

    other = threading.Thread(target=threads.run, args=(keeps_the_worker, 2))
    other.start()
    busy.wait()  # the other thread and the only worker are inside now
    try:
        arrays = Arrays()
        gone = weakref.ref(arrays)
        threads.run(arrays.use, 4)
        del arrays
        assert gone() is None
    finally:
        go_on.set()
        other.join()


def test_blas_computes_on_one_thread_inside_tasks_and_as_before_afterwards():
    gn.set_num_threads(2)
    before, seen = blas_threads(), set()
    threads.run(lambda k: seen.update(blas_threads()), 3, blas=True)
    assert seen == {1}
    assert blas_threads() == before

    def fails(k):
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 any
        threads.run(fails, 3, blas=True)
    assert blas_threads() == before


@pytest.mark.skipif(not threads._blas(), reason="NumPy's BLAS here has no threads that can be set")
def test_the_number_of_threads_is_blas_too():
    gn.set_num_threads(1)
    assert (gn.get_num_threads(), blas_threads()) == (1, {1})


@pytest.mark.parametrize("wrong", [0, -1, 1.0, "2", True, None])
def test_a_wrong_number_is_refused(wrong):
    before = gn.get_num_threads()
    with pytest.raises(ArgumentError, match="set_num_threads: count must be a whole number of at least 1, got"):
        gn.set_num_threads(wrong)
    assert gn.get_num_threads() == before


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"GPUNET_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 3),
        ({"OMP_NUM_THREADS": "2,1"}, 2),
        ({"MKL_NUM_THREADS": "4"}, 4),
        ({"OMP_NUM_THREADS": "many", "OPENBLAS_NUM_THREADS": "5"}, 5),
        ({}, threads.cores()),
    ],
)
def test_the_environment_says_how_many(variables, wanted):
    names = [name for name in os.environ if name.endswith("_NUM_THREADS")]
    env = {name: value for name, value in os.environ.items() if name not in names} | variables
    code = "import gpunet as gn; print(gn.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) == wanted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_a_pool_of_its_own():
    code = """
import os
import gpunet as gn
from gpunet.cpu import threads
gn.set_num_threads(2)
threads.run(lambda k: None, 8)
child = os.fork()
seen = []
threads.run(seen.append, 50)
if child == 0:
    os._exit(0 if sorted(seen) == list(range(50)) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(seen))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["0", "50"]


def test_a_worker_that_has_slept_watches_again_for_the_next_job(monkeypatch):
    gn.set_num_threads(2)
    rest, watched, together = spin.rest, [], threading.Barrier(2, timeout=30)

    def noted(done, resting, posts, seen, turns):
        watched.append(turns > 0 and seen == threads._pool.counters[0])
        return rest(done, resting, posts, seen, turns)

    threads.run(lambda k: together.wait(), 2)
    time.sleep(0.05)  # now it sleeps
    monkeypatch.setattr(spin, "rest", noted)
    for _ in range(5):
        threads.run(lambda k: together.wait(), 2)  # both threads take part
        time.sleep(0.05)
    assert watched == [True] * 5


def test_an_interrupt_comes_when_no_worker_is_in_a_task_any_more():
    gn.set_num_threads(2)
    inside, ended = threading.Event(), []

    def task(k):
        if threading.current_thread() is threading.main_thread():
            assert inside.wait(30)
        else:
            inside.set()
            time.sleep(0.3)
            ended.append(k)

    def interrupted(job):
        raise KeyboardInterrupt

    before = threads._pool.wait
    threads._pool.wait = interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            threads.run(task, 2)
    finally:
        threads._pool.wait = before
    assert len(ended) == 1


def test_a_task_that_fails_keeps_nothing_alive():
    gn.set_num_threads(2)

    class Arrays:
        def use(self, k):
            raise ValueError(k)

    arrays = Arrays()
    gone = weakref.ref(arrays)
    gc.disable()
    try:
        with pytest.raises(ValueError, match=r"[0-3]"):
            threads.run(arrays.use, 4)
        del arrays
        assert gone() is None
    finally:
        gc.enable()


def test_a_task_of_the_caller_that_runs_tasks_does_them_alone():
    gn.set_num_threads(3)
    found = []

    def task(k):
        me = threading.current_thread()
        threads.run(lambda j: found.append(threading.current_thread() is me), 4)

    threads.run(task, 6)
    assert found == [True] * 24


def test_workers_that_are_asleep_and_workers_that_watch_take_every_job():
    gn.set_num_threads(3)
    for pause in (0.0, 0.0, 0.01) * 20:  # the last is longer than a worker watches
        seen = []
        threads.run(seen.append, 4)
        assert sorted(seen) == [0, 1, 2, 3]
        time.sleep(pause)


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 1000])
def test_shares_cover_everything_once_with_a_piece_for_each_thread_at_most(count, size, unit):
    gn.set_num_threads(count)
    pieces = threads.shares(size, 5, unit)
    assert [k for start, stop in pieces for k in range(start, stop)] == list(range(size))
    assert len(pieces) <= max(1, min(count, size // 5))
    assert all(start % unit == 0 for start, _ in pieces)
    if size == 1000:
        assert len(pieces) == count


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11])
def test_ranges_cover_everything_once(size):
    pieces = threads.ranges(size, 5)
    assert [k for start, stop in pieces for k in range(start, stop)] == list(range(size))
    assert all(stop - start <= 5 for start, stop in pieces)


def test_workers_sleep_when_there_is_nothing_to_do():
    gn.set_num_threads(3)
    threads.run(lambda k: None, 10)
    begin = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - begin < 0.1
