"""Kernels of the processor on any number of threads: the same bits, and memory that may be used again."""

import re
import sys

import numpy as np
import pytest

import gpunet as gn
from gpunet import config, devices, dispatch
from gpunet.cpu import buffers, threads
from gpunet.measure import calls

RUNS = devices.BACKENDS["numba_cpu"].why_not("cpu") is None
OPS = sorted({each.op for each in gn.list_kernels() if each.backend == "numba_cpu"}) if RUNS else []


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = gn.get_num_threads()
    yield
    gn.set_num_threads(before)


def cases(op, least=0):
    """The calls of the op's smallest real size of so many elements, or else of its largest."""
    sizes = sorted(calls.suites.sizes(op, ("quick",)), key=lambda each: each.elements)
    size = next((each for each in sizes if each.elements >= least), sizes[-1])
    found = calls.capture(calls.suites.load(op), size, "float32", 0)
    return list({each.label: each for each in found}.values())


OURS = re.compile(r"gpunet\.kernels\..*_numba_cpu")
#: sizes of a task at the least, and what tests can do with instead, so that small arrays are cut as large ones are
LEAST = {
    **dict.fromkeys(("ALONE",), 0),
    **dict.fromkeys(("GRAIN", "PART", "UNIT", "NARROW"), 1),
    **dict.fromkeys(("TERMS", "SUMMED", "MATRICES", "ONE_THREAD", "LINE"), 2**4),
    **dict.fromkeys(("SMALLEST", "WORK", "SHARE", "PATCH", "FLOPS", "BLOCK"), 2**6),
}
#: kernels that take no second thread, and why
ALONE = {
    "matmul.forward/numba_cpu/blas": "BLAS has its own threads, or one where the bits would hang on them",
}


@pytest.fixture
def cut_small(monkeypatch):
    """Kernels share out whatever they can; yields a list that grows with each job that is."""
    modules = [module for name, module in sys.modules.items() if OURS.fullmatch(name)]
    for module in modules:
        for constant in vars(module).keys() & LEAST.keys():
            monkeypatch.setattr(module, constant, LEAST[constant])
    shared, hand_out = [], threads._pool.hand_out
    monkeypatch.setattr(threads._pool, "hand_out", lambda job, helpers: (shared.append(job), hand_out(job, helpers)))
    kept = [each for module in modules for each in vars(module).values() if hasattr(each, "cache_clear")]
    for each in kept:  # plans of the same sizes, made with other constants
        each.cache_clear()
    yield shared
    for each in kept:
        each.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", OPS)
def test_bits_do_not_depend_on_the_number_of_threads(op, dtype, cut_small):
    alone = {}
    for size in calls.suites.sizes(op, ("proof",)):
        for case in {each.label: each for each in calls.capture(calls.suites.load(op), size, dtype, 0)}.values():
            for kernel in dispatch.variants(case.entry, "numba_cpu"):
                arrays = case.arrays_on(devices.CPU)
                if kernel.refusal(arrays, case.call.params) is not None:
                    continue
                cut_small.clear()
                results = []
                for count in (1, 2, 3, 7):
                    gn.set_num_threads(count)
                    found = calls.outputs(kernel.function(*arrays, **case.call.params))
                    results.append([each.tobytes() for each in found])
                assert results.count(results[0]) == 4, f"{kernel.name}, {size.name}"
                alone[kernel.name] = alone.get(kernel.name, True) and not cut_small
    assert alone
    assert not {name for name, never in alone.items() if never} - ALONE.keys()


@pytest.mark.parametrize("op", OPS)
def test_bits_do_not_depend_on_the_number_of_threads_at_real_sizes(op):
    ran = 0
    for case in cases(op, least=2**19):  # enough to be cut into tasks
        for kernel in dispatch.variants(case.entry, "numba_cpu"):
            arrays = case.arrays_on(devices.CPU)
            if kernel.refusal(arrays, case.call.params) is not None:
                continue
            results = []
            for count in (1, 2, 3):
                gn.set_num_threads(count)
                found = calls.outputs(kernel.function(*arrays, **case.call.params))
                results.append([each.tobytes() for each in found])
            assert results[0] == results[1] == results[2], kernel.name
            ran += 1
    assert ran


@pytest.mark.parametrize("op", OPS)
def test_results_stay_when_later_calls_take_memory(op):
    """A result that somebody holds must not change while the kernel runs again on other numbers."""
    for case in cases(op):
        other = case.permuted
        for kernel in dispatch.variants(case.entry, "numba_cpu"):
            arrays = case.arrays_on(devices.CPU)
            if kernel.refusal(arrays, case.call.params) is not None:
                continue
            held = calls.outputs(kernel.function(*arrays, **case.call.params))
            before = [each.tobytes() for each in held]
            for _ in range(3):
                kernel.function(*other.arrays_on(devices.CPU), **case.call.params)
            assert [each.tobytes() for each in held] == before, kernel.name


def test_temporaries_come_back():
    """What kernels take for the time of a call is in nobody's hands afterwards."""
    case = next(each for each in cases("conv2d") if each.entry == "conv2d.forward")
    kernel = dispatch.variants(case.entry, "numba_cpu")[0]
    arrays = case.arrays_on(devices.CPU)
    y = kernel.function(*arrays, **case.call.params)
    used = buffers.pool.size().used
    for _ in range(3):
        y = kernel.function(*arrays, **case.call.params)
    assert buffers.pool.size().used == used
    assert np.isfinite(y).all()


def whole_vectors(op):
    """Sizes of short rows that are whole vectors: there, what lies beside an array decides between the two ways."""
    one = calls.suites.sizes(op, ("proof",))[0]
    if op not in ("softmax", "log_softmax", "cross_entropy", "layer_norm", "batch_norm") or len(one.shapes) == 0:
        return []
    rows = [each for each in calls.suites.sizes(op, ("proof",)) if len(next(iter(each.shapes.values()))) == 2]
    first = next(iter(rows[0].shapes)) if rows else ""
    if not rows or len(rows[0].shapes) > 1:
        return []
    return [
        type(one)(f"rows_of_{extent}", "own", "proof", {first: (5, extent)}, rows[0].arguments) for extent in (4, 8, 16)
    ]


class Arena:
    """Memory handed out piece after piece, so that one array begins where another ends, or far from it."""

    def __init__(self, gap: int):
        self.memory, self.at, self.gap = np.zeros(2**25, np.uint8), 64, gap

    def empty(self, shape, dtype):
        dtype = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        start = -(-self.at // dtype.itemsize) * dtype.itemsize
        self.at = start + count * dtype.itemsize + self.gap
        return self.memory[start : start + count * dtype.itemsize].view(dtype).reshape(shape)

    def holds(self, array):
        found = self.empty(array.shape, array.dtype)
        found[...] = array
        return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", OPS)
def test_bits_do_not_depend_on_where_arrays_lie(op, dtype, monkeypatch):
    """LLVM keeps a second way, without vectors, for arrays that might overlap: sums must come out alike there."""
    sizes = [*calls.suites.sizes(op, ("proof",)), *whole_vectors(op)]
    found = [case for size in sizes for case in calls.capture(calls.suites.load(op), size, dtype, 0, second=True)]
    for case in found:
        for kernel in dispatch.variants(case.entry, "numba_cpu"):
            if kernel.refusal(case.arrays_on(devices.CPU), case.call.params) is not None:
                continue
            results = []
            for gap in (0, 8, 4096):
                arena = Arena(gap)
                monkeypatch.setattr(buffers.pool, "empty", arena.empty)
                monkeypatch.setattr(config.settings, "poison", False)  # poisoned outputs are not the pool's
                arrays = [arena.holds(each) if isinstance(each, np.ndarray) else each for each in case.call.arrays]
                results.append([each.tobytes() for each in calls.outputs(kernel.function(*arrays, **case.call.params))])
                monkeypatch.undo()
            assert results[0] == results[1] == results[2], f"{kernel.name}, {case.size.name}"
