"""Deliberately broken kernels: what the emulator must see of loads and stores, and what it must say."""

import numpy as np
import pytest

from gpunet.cuda import emulator
from tests.emulated import floats, line_of, needs_emulator, refused, run, unwritten

pytestmark = needs_emulator


@pytest.fixture(autouse=True)
def _options():
    before = dict(emulator.options.__dict__)
    yield
    emulator.options.__dict__.update(before)


COPY = """
extern "C" __global__ void k(float* __restrict__ y, const float* __restrict__ x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (%s) y[i] = x[i];  // here
}
"""


def test_a_right_copy_is_silent():
    for n in (1, 31, 256, 257):
        for seed in range(4):
            emulator.options.seed = seed
            y = emulator.mark(np.empty(n, np.float32))
            run(COPY % "i < n", 3, 128, y, floats(n), n)
            np.testing.assert_array_equal(y, floats(n))


def test_global_read_past_the_end():
    error = refused("out_of_bounds", COPY % "i <= n", 5, 256, np.zeros(1280, np.float32), floats(1024), 1024)
    assert error.block == (4, 0, 0)
    assert error.thread == (0, 0, 0)
    assert "load of 4 bytes at element 1024 of argument 1 'x', which has 1024" in str(error)


def test_global_write_past_the_end():
    error = refused("out_of_bounds", COPY % "i < n", 1, 64, unwritten(40), floats(64), 41)
    assert error.thread == (40, 0, 0)
    assert "store of 4 bytes at element 40 of argument 0 'y', which has 40" in str(error)


def test_global_read_before_the_beginning():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    int i = threadIdx.x;
    y[i] = x[i - 1];  // here
}
"""
    error = refused("out_of_bounds", text, 1, 32, unwritten(32), floats(32))
    assert error.thread == (0, 0, 0)
    assert "element -1 of argument 1 'x', which has 32" in str(error)


def test_a_wild_pointer():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    y[threadIdx.x] = x[1ll << 40];  // here
}
"""
    assert "far from every argument" in str(refused("out_of_bounds", text, 1, 1, unwritten(32), floats(32)))


def test_null_pointer():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    y[threadIdx.x] = x[2];  // here
}
"""
    refused("out_of_bounds", text, 1, 1, unwritten(32), None)


def test_bytes_are_checked_one_by_one():
    text = """
extern "C" __global__ void k(unsigned char* y, const unsigned char* x, int n) {
    __shared__ unsigned char tile[64];
    int i = threadIdx.x;
    tile[i] = x[i];
    __syncthreads();
    if (i <= n) y[i] = tile[63 - i];  // here
}
"""
    x = np.arange(64, dtype=np.uint8)
    y = np.zeros(64, np.uint8)
    run(text, 1, 64, y, x, 64)
    np.testing.assert_array_equal(y, x[::-1])
    error = refused("out_of_bounds", text, 1, 64, y[:33].copy(), x, 33)
    assert error.thread == (33, 0, 0)


def test_index_of_a_declared_shared_array():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    __shared__ float row[32];
    int i = threadIdx.x;
    row[i + 1] = x[i];  // here
    __syncthreads();
    y[i] = row[i];
}
"""
    error = refused("index_out_of_range", text, 1, 32, unwritten(32), floats(32))
    assert error.thread == (31, 0, 0)
    assert "'float [32]' is 32" in str(error)


def test_dynamic_shared_memory_past_its_end():
    text = """
extern "C" __global__ void k(float* y, const float* x, int shift) {
    extern __shared__ float row[];
    int i = threadIdx.x;
    row[i + shift] = x[i];  // here
    __syncthreads();
    y[i] = row[i];
}
"""
    run(text, 1, 32, unwritten(32), floats(32), 0, shared=128)
    error = refused("shared_out_of_bounds", text, 1, 32, unwritten(32), floats(32), 1, shared=128)
    assert error.thread == (31, 0, 0)
    assert "byte 128 of dynamic shared memory, which has 128 bytes" in str(error)


def test_shared_memory_that_nobody_wrote():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    __shared__ float row[64];
    int i = threadIdx.x;
    row[i] = x[i];
    __syncthreads();
    y[i] = row[i + 1];  // here
}
"""
    error = refused("uninitialised", text, 2, 32, unwritten(32), floats(32))
    assert error.thread == (31, 0, 0)
    assert "shared array 'row', which has 256 bytes" in str(error)


def test_shared_memory_of_the_block_before_is_not_initialised():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    __shared__ float row[32];
    int i = threadIdx.x;
    if (blockIdx.x == 0) row[i] = x[i];
    __syncthreads();
    y[blockIdx.x * 32 + i] = row[i];  // here
}
"""
    assert refused("uninitialised", text, 2, 32, unwritten(64), floats(32)).block == (1, 0, 0)


def test_output_read_before_it_is_written():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    y[threadIdx.x] += x[threadIdx.x];  // here
}
"""
    run(text, 1, 32, np.zeros(32, np.float32), floats(32))
    assert "argument 0 'y'" in str(refused("uninitialised", text, 1, 32, unwritten(32), floats(32)))


def test_what_an_earlier_launch_wrote_is_initialised():
    y = emulator.mark(np.empty(64, np.float32))
    run(COPY % "i < n", 1, 32, y, floats(64), 64)
    z = emulator.mark(np.empty(64, np.float32))
    run(COPY % "i < n", 1, 32, z, y, 64)
    np.testing.assert_array_equal(z[:32], floats(32))
    refused("uninitialised", COPY % "i < n", 1, 64, unwritten(64), np.full(64, np.nan, np.float32), 64)


def test_misaligned_float4():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    int i = threadIdx.x;
    float4 v = reinterpret_cast<const float4*>(x)[i];  // here
    y[i] = v.x + v.y + v.z + v.w;
}
"""
    x = floats(68)
    run(text, 1, 16, unwritten(16), x[:64])
    run(text, 1, 16, unwritten(16), x[4:])
    error = refused("misaligned", text, 1, 16, unwritten(16), x[1:65])
    assert "multiple of 16 bytes, this address is 4 past one" in str(error)


def test_write_through_a_const_pointer():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    int i = threadIdx.x;
    y[i] = x[i];
    const_cast<float*>(x)[i] = 0.0f;  // here
}
"""
    x = floats(32)
    assert "argument 1 'x'" in str(refused("const_write", text, 1, 32, unwritten(32), x))
    np.testing.assert_array_equal(x, floats(32))


def test_signed_overflow_of_an_index():
    text = """
extern "C" __global__ void k(float* y, int n) {
    int i = (blockIdx.x + 1) * n;
    y[threadIdx.x] = float((i + threadIdx.x) * 0 + n * (n + int(blockIdx.x)));  // here
}
"""
    assert "'int' overflows: 65536 * 65536" in str(refused("arithmetic", text, 1, 1, unwritten(1), 65536))


def test_constants_and_local_arrays_are_no_concern():
    text = """
__constant__ float weights[4] = {1.0f, 2.0f, 3.0f, 4.0f};
__device__ float pick(const float* from, int i) { return from[i & 3]; }
extern "C" __global__ void k(float* y, const float* x, int n) {
    float local[4];
    int i = threadIdx.x;
    for (int k = 0; k < 4; ++k) local[(k + n) & 3] = weights[k] * x[i];
    y[i] = pick(local, i + n);
}
"""
    y = unwritten(32)
    run(text, 1, 32, y, floats(32), 0)
    np.testing.assert_array_equal(y, floats(32) * np.tile([1, 2, 3, 4], 8))


def test_a_line_of_a_device_function_is_named():
    text = """
__device__ __forceinline__ float pick(const float* from, int i) {
    return __ldg(from + i);  // here
}
extern "C" __global__ void k(float* y, const float* x) {
    y[threadIdx.x] = pick(x, threadIdx.x + 1);
}
"""
    assert refused("out_of_bounds", text, 1, 32, unwritten(32), floats(32)).line == line_of(text)


def test_two_arguments_may_be_one_array():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    y[threadIdx.x] = 2.0f * x[threadIdx.x];
}
"""
    x = floats(32)
    run(text, 1, 32, x, x)
    np.testing.assert_array_equal(x, 2 * floats(32))
