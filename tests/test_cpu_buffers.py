"""The memory pool of the processor: memory comes back when its last array is gone, and never before."""

import gc
import threading

import numpy as np
import pytest

import gpunet as gn
from gpunet.cpu.buffers import SMALLEST, Pool
from gpunet.errors import ArgumentError

SHAPE = (1024, 257)  # of float32: beyond the smallest that is kept


def place(array: np.ndarray) -> int:
    return array.ctypes.data


def test_memory_is_used_again_once_the_array_is_gone():
    pool = Pool()
    first = pool.empty(SHAPE, np.float32)
    before, size = place(first), pool.size()
    assert size.used >= first.nbytes
    assert size.kept == 0
    del first
    assert pool.size() == (0, size.used, size.limit)
    again = pool.empty(SHAPE, np.float32)
    assert place(again) == before
    assert pool.size() == size


@pytest.mark.parametrize(
    "look", [lambda a: a[3:5], lambda a: a.T, lambda a: a.ravel()[::2], lambda a: memoryview(a), lambda a: a.view("u1")]
)
def test_memory_that_somebody_looks_at_is_not_handed_out(look):
    pool = Pool()
    first = pool.empty(SHAPE, np.float32)
    before, view = place(first), look(first)
    del first
    assert place(pool.empty(SHAPE, np.float32)) != before
    del view
    gc.collect()
    assert before in {place(each) for each in [pool.empty(SHAPE, np.float32) for _ in range(2)]}


def test_two_arrays_never_share_memory():
    pool = Pool()
    arrays = [pool.empty(SHAPE, np.float32) for _ in range(5)]
    for k, each in enumerate(arrays):
        each[...] = k
    assert [float(each.min()) for each in arrays] == [float(each.max()) for each in arrays] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.bool_])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (300, 301), (2, 1, 70000)])
def test_arrays_are_what_numpys_are(shape, dtype):
    found, wanted = Pool().empty(shape, dtype), np.empty(shape, dtype)
    assert (found.shape, found.dtype, found.strides) == (wanted.shape, wanted.dtype, wanted.strides)
    assert found.flags.writeable
    assert found.flags.c_contiguous
    if found.nbytes >= SMALLEST:
        assert place(found) % 64 == 0


def test_no_more_than_the_limit_is_kept():
    pool = Pool(limit=1_200_000)
    arrays = [pool.empty(SHAPE, np.float32) for _ in range(3)]  # 1 052 672 bytes each, a little more with their class
    del arrays
    assert 0 < pool.size().kept <= 1_200_000
    pool.set_limit(0)
    assert pool.size() == (0, 0, 0)
    del pool


def test_results_come_from_the_pool_that_everybody_can_see(monkeypatch):
    monkeypatch.setattr(gn.config.settings, "poison", False)  # poisoned outputs are not the pool's
    gn.memory_pool.release()
    before = gn.memory_pool.size().used
    y = gn.functional.relu(gn.zeros(1000, 1000))
    assert gn.memory_pool.size().used - before >= 4_000_000
    del y
    assert gn.memory_pool.size().used == before
    assert gn.memory_pool.release() >= 4_000_000


def test_release_gives_back_what_is_free_and_nothing_else():
    pool = Pool()
    held, free = pool.empty(SHAPE, np.float32), pool.empty(SHAPE, np.float32)
    held[...] = 7
    del free
    kept = pool.size().kept
    assert pool.release() == kept > 0
    assert pool.size().kept == 0
    assert (held == 7).all()


@pytest.mark.parametrize("wrong", [-1, 1.5, "many", None, True])
def test_a_wrong_limit_is_refused(wrong):
    with pytest.raises(ArgumentError, match="buffers: limit must be a whole number of bytes, at least 0, got"):
        Pool().set_limit(wrong)


def test_an_array_may_outlive_the_pool():
    pool = Pool()
    array = pool.empty(SHAPE, np.float32)
    array[...] = 3
    del pool
    gc.collect()
    assert float(array.sum()) == 3 * array.size


def test_threads_may_use_it_at_once():
    pool, wrong = Pool(), []

    def worker(mark: int) -> None:
        for _ in range(200):
            mine = pool.empty(SHAPE, np.float32)
            mine[...] = mark
            if not (mine == mark).all():
                wrong.append(mark)

    workers = [threading.Thread(target=worker, args=(k,)) for k in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert wrong == []
    assert pool.size().used == 0


def test_a_block_is_at_most_an_eighth_larger_than_its_array():
    pool = Pool()
    for elements in (2**20, 1_200_000, 2**21 + 1, 9_000_003):
        array = pool.empty((elements,), np.uint8)
        assert elements <= pool.size().used <= 1.126 * elements
        del array
