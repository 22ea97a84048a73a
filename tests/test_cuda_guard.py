"""What the guard between a launcher and a kernel refuses, and in which words."""

from functools import partial

import numpy as np
import pytest

from gpunet.cuda import guard
from gpunet.cuda.source import Signature, Source
from gpunet.errors import KernelError
from tests.emulated import floats, source

TEXT = """
#include "common/common.cuh"
// extern "C" __global__ void not_this(int a) {}
extern "C" __global__ void __launch_bounds__(256) k(real* __restrict__ y, const real* __restrict__ x, int n,
                                                    unsigned char small, float scale, bool flag) {}
extern "C" __launch_bounds__(128) __global__ void other(const float4* x, long long n) {}
extern "C" __global__ void optional(float* y, float const* b, const int* __restrict__ at) {}
"""


@pytest.fixture(name="k")
def _k() -> Signature:
    return source(TEXT, real="float").signatures["k"]


def arguments(**changed: object) -> list[object]:
    """Arguments that fit, some of them changed."""
    fine: dict[str, object] = {"y": floats(8), "x": floats(8), "n": 8, "small": 3, "scale": 2, "flag": True}
    return list({**fine, **changed}.values())


def message(signature: Signature, values: list[object], grid: tuple = (1, 1, 1), block: tuple = (32, 1, 1)) -> str:
    with pytest.raises(KernelError) as caught:
        guard.check(signature, grid, block, values)
    assert guard.Quick(signature)(guard.three(grid), guard.three(block), values) is None
    text = str(caught.value)
    assert text.startswith(f"{signature.name}: ")
    assert ", got " in text
    assert "; " in text
    return text


def test_signatures_are_read_from_the_text():
    found = source(TEXT, real="double").signatures
    assert list(found) == ["k", "other", "optional"]
    y, x, n, small, scale, flag = found["k"].parameters
    assert (y.dtype, y.pointer, y.const, y.restrict) == (np.dtype("f8"), True, False, True)
    assert (x.const, x.restrict, n.pointer, n.dtype) == (True, True, False, np.dtype("i4"))
    assert (small.dtype, scale.dtype, flag.dtype) == (np.dtype("u1"), np.dtype("f4"), np.dtype("b1"))
    assert found["k"].line == 4
    assert found["other"].parameters[0].lanes == 4
    assert [each.const for each in found["optional"].parameters] == [False, True, True]


def test_a_type_it_does_not_know():
    with pytest.raises(KernelError, match=r"type of parameter 'y' must be one of .*, got 'real' in 'real"):
        _ = source(TEXT).signatures


def test_what_fits_passes_in_the_parameters_types(k: Signature):
    checked = guard.check(k, (1, 1, 1), (32, 1, 1), arguments())
    assert [type(each) for each in checked[2:]] == [np.int32, np.uint8, np.float32, np.bool_]
    guard.check(k, (1, 1, 1), (32, 1, 1), arguments(n=np.int64(5), scale=np.float64(0.5), flag=np.bool_(False)))


def test_the_quick_answer_is_the_same(k: Signature):
    quick = guard.Quick(k)
    values = arguments(scale=0.5)
    short, long = quick((1, 1, 1), (32, 1, 1), values), guard.check(k, (1, 1, 1), (32, 1, 1), values)
    assert short is not None
    for one, other in zip(short, long, strict=True):
        assert one is other or (type(one), one) == (type(other), other)
    assert quick((1, 1, 1), (32, 1, 1), arguments(n=np.int64(5))) is None  # unusual: the long way takes it


def test_count(k: Signature):
    assert "takes 6 arguments (y, x, n, small, scale, flag), got 5" in message(k, arguments()[:-1])


def test_dtype(k: Signature):
    text = message(k, arguments(x=np.zeros(8)))
    assert "argument 1 'const real* __restrict__ x' must be float32, got float64" in text
    message(k, arguments(x=np.zeros(8, ">f4")))


def test_no_array_and_no_pointer(k: Signature):
    assert "must be a NumPy or CuPy array, or None, got list" in message(k, arguments(x=[1.0]))
    optional = source(TEXT, real="float").signatures["optional"]
    guard.check(optional, (1, 1, 1), (1, 1, 1), [floats(3), None, np.zeros(3, np.int32)])


def test_contiguity(k: Signature):
    text = message(k, arguments(x=floats(16)[::2]))
    assert "must be C-contiguous, got shape (8,) with strides (8,); use ascontiguousarray" in text
    guard.check(k, (1, 1, 1), (32, 1, 1), arguments(x=floats(16)[8:]))


def test_read_only_output(k: Signature):
    y = floats(8)
    y.flags.writeable = False
    assert "must be writable" in message(k, arguments(y=y))
    guard.check(k, (1, 1, 1), (32, 1, 1), arguments(x=y))


@pytest.mark.parametrize(("name", "value", "words"), [
    ("n", 2**31, "must be from -2147483648 to 2147483647, got 2147483648"),
    ("n", 1.0, "must be an integer, got 1.0"),
    ("n", True, "must be an integer, got True"),
    ("small", 256, "must be from 0 to 255, got 256"),
    ("small", -1, "must be from 0 to 255, got -1"),
    ("scale", "2", "must be a number, got '2'"),
    ("scale", True, "must be a number, got True"),
    ("flag", 1, "must be True or False, got 1"),
])  # fmt: skip
def test_scalars(k: Signature, name: str, value: object, words: str):
    assert words in message(k, arguments(**{name: value}))


def test_overlap(k: Signature):
    x = floats(16)
    assert "arguments 0 'y' and 1 'x' in one place; copy one of them" in message(k, arguments(y=x[:8], x=x[7:15]))
    guard.check(k, (1, 1, 1), (32, 1, 1), arguments(y=x[:8], x=x[8:]))


def test_wide_elements():
    other = source(TEXT, real="float").signatures["other"]
    guard.check(other, (1, 1, 1), (32, 1, 1), [floats(8), 2])
    assert "must have a multiple of 4 elements" in message(other, [floats(7), 2])
    assert "begin at a multiple of 16 bytes" in message(other, [floats(9)[1:], 2])


def test_index_range():
    text = 'extern "C" __global__ void {}(unsigned char* y, {} n) {{}}\n'
    kernels = source(text.format("ints", "int") + text.format("longs", "long long")).signatures
    huge = np.zeros(2**31, np.uint8)  # pages that nobody touches are never there
    told = message(kernels["ints"], [huge, 5])
    assert "argument 0 'unsigned char* y' must have at most 2147483647 elements" in told
    assert "got 2147483648; split the batch" in told
    for kernel, array in ((kernels["ints"], huge[:-1]), (kernels["longs"], huge)):
        for check in (guard.Quick(kernel), partial(guard.check, kernel)):
            assert check((1, 1, 1), (32, 1, 1), [array, 5]) == [array, 5]


@pytest.mark.parametrize(("grid", "block", "words"), [
    ((1, 65536, 1), (1, 1, 1), "grid must be at most (2147483647, 65535, 65535), and a block at least 1, got (1, 6"),
    ((1, 1, 1), (1, 1, 65), "block must be at most (1024, 1024, 64)"),
    ((1, 1, 1), (0, 1, 1), "got (0, 1, 1)"),
    ((1, 1, 1), (64, 32, 1), "block must have at most 1024 threads, got (64, 32, 1), 2048 threads"),
    ((1, 1), (1, 1, 1), "grid must be three integers, got (1, 1)"),
])  # fmt: skip
def test_sizes(k: Signature, grid: tuple, block: tuple, words: str):
    assert words in message(k, arguments(), grid, block)


def test_missing_file(tmp_path):
    with pytest.raises(KernelError, match=r"there is no kernel file 'gone\.cu'"):
        Source(tmp_path / "gone.cu")
