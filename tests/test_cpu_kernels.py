"""Kernels of the processor on any number of threads: the same bits, and memory that may be used again."""

import numpy as np
import pytest

import gpunet as gn
from gpunet import devices, dispatch
from gpunet.cpu import buffers
from gpunet.measure import calls

RUNS = devices.BACKENDS["numba_cpu"].why_not("cpu") is None
OPS = sorted({each.op for each in gn.list_kernels() if each.backend == "numba_cpu"}) if RUNS else []


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = gn.get_num_threads()
    yield
    gn.set_num_threads(before)


def cases(op):
    """The calls of the op's smallest real size: large enough to be cut into tasks."""
    size = min(calls.suites.sizes(op, ("quick",)), key=lambda each: each.elements)
    found = calls.capture(calls.suites.load(op), size, "float32", 0)
    return list({each.label: each for each in found}.values())


@pytest.mark.parametrize("op", OPS)
def test_bits_do_not_depend_on_the_number_of_threads(op):
    ran = 0
    for case in cases(op):
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
