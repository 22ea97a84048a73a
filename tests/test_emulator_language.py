"""What of CUDA C++ the emulator's header offers: types, sizes, intrinsics, 16-bit floats, the ways to change stacks."""

import subprocess

import numpy as np
import pytest

from gpunet.cuda import emulator, store
from gpunet.cuda.emulator import build
from gpunet.cuda.emulator.native import Library
from gpunet.errors import CompileError
from tests.emulated import floats, needs_emulator, run, source, unwritten

pytestmark = needs_emulator

SIZES = """
template <class A> __device__ int both() { return int(sizeof(A)) * 100 + int(alignof(A)); }
extern "C" __global__ void k(int* y) {
    int at[] = {both<float2>(), both<float3>(), both<float4>(), both<int2>(), both<int4>(), both<double2>(),
                both<uint4>(), both<uchar4>(), both<char2>(), both<half>(), both<__half2>(),
                both<__nv_bfloat16>(), both<double4>()};
    for (int k = 0; k < 13; ++k) y[k] = at[k];
}
"""


def test_sizes_and_alignments_are_the_devices():
    y = np.zeros(13, np.int32)
    run("#include <cuda_fp16.h>\n#include <cuda_bf16.h>\n" + SIZES, 1, 1, y)
    assert list(y) == [808, 1204, 1616, 808, 1616, 1616, 1616, 404, 202, 202, 404, 202, 3216]


def test_indices_in_three_dimensions():
    text = """
extern "C" __global__ void k(int* y) {
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    y[block * blockDim.x * blockDim.y * blockDim.z + thread] = threadIdx.z * 100 + blockIdx.z * 10 + warpSize - 32;
}
"""
    y = np.full(2 * 3 * 2 * 24, -1, np.int32)
    run(text, (2, 3, 2), (2, 3, 4), y)
    wanted = [z * 100 + b * 10 for b in range(2) for _ in range(6) for z in range(4) for _ in range(6)]
    assert list(y) == wanted


def test_half_and_bfloat16_round_as_the_device_does():
    text = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
extern "C" __global__ void k(unsigned short* h, unsigned short* b, float* back, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    __half one = __float2half(x[i]);
    __nv_bfloat16 two = __float2bfloat16(x[i]);
    h[i] = one.bits;
    b[i] = two.bits;
    back[i] = __half2float(one);
}
"""
    rng = np.random.default_rng(0)
    edges = [
        0,
        -0.0,
        np.inf,
        -np.inf,
        65504,
        65519.99,
        65520,
        -7e4,
        6e-8,
        2.9e-8,
        3.1e-8,
        6.1e-5,
        1 + 2**-11,
        1 + 3 * 2**-11,
    ]
    x = np.concatenate([edges, rng.standard_normal(5000) * 10.0 ** rng.integers(-8, 6, 5000)]).astype(np.float32)
    h, b, back = np.zeros(x.size, np.uint16), np.zeros(x.size, np.uint16), unwritten(x.size)
    run(text, -(-x.size // 256), 256, h, b, back, x, x.size)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(h, x.astype(np.float16).view(np.uint16))
        np.testing.assert_array_equal(back, x.astype(np.float16).astype(np.float32))
    bits = x.view(np.uint32).astype(np.uint64)
    np.testing.assert_array_equal(b, ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16))


def test_integer_intrinsics():
    text = """
extern "C" __global__ void k(unsigned long long* y) {
    y[0] = __umulhi(0xffffffffu, 0xfffffff0u);
    y[1] = __umul64hi(~0ull, 16ull);
    y[2] = __popc(0xf0f0u) + 100 * __clz(1) + 10000 * __ffs(8);
    y[3] = __brev(1u) + __byte_perm(0x33221100u, 0x77665544u, 0x7610u);
    y[4] = min(3, 2) + 10 * max(3u, 2u) + 100 * int(fmaf(2.0f, 3.0f, 4.0f)) + 10000 * int(rsqrtf(0.25f));
    y[5] = __float_as_uint(1.0f);
}
"""
    y = np.zeros(6, np.uint64)
    run(text, 1, 1, y)
    assert list(y) == [0xFFFFFFEF, 15, 8 + 3100 + 40000, 0x80000000 + 0x77661100, 2 + 30 + 1000 + 20000, 0x3F800000]


def test_functions_of_floats_are_floats():
    """As CUDA overloads them: what C alone would compute in double is computed in float."""
    calls = ("exp", "log", "log1p", "expm1", "tanh", "erf", "sqrt", "fabs", "floor", "cos")
    body = " ".join(f"y[{k}] = sizeof({name}(x));" for k, name in enumerate(calls))
    body += " y[10] = sizeof(pow(x, x)); y[11] = sizeof(exp(1.0));"
    y = np.zeros(len(calls) + 2, np.int32)
    run(f'extern "C" __global__ void k(int* y, float x) {{ {body} }}', 1, 1, y, np.float32(0.5))
    assert list(y) == [4] * 11 + [8]


def test_atomics_of_every_type():
    text = """
extern "C" __global__ void k(double* d, unsigned long long* u, int* i, unsigned* w) {
    atomicAdd(d, 0.5);
    atomicAdd(u, 1ull << 33);
    atomicMin(i, int(threadIdx.x) - 7);
    atomicExch(i + 1, 9);
    atomicOr(w, 1u << threadIdx.x);
    atomicInc(w + 1, 4u);
    unsigned old = atomicAdd(w + 2, 0u), seen;
    do { seen = old; old = atomicCAS(w + 2, seen, seen + 2); } while (seen != old);
}
"""
    d, u, i, w = np.zeros(1), np.zeros(1, np.uint64), np.zeros(2, np.int32), np.zeros(3, np.uint32)
    emulator.options.seed = 3
    run(text, 1, 32, d, u, i, w)
    assert (d[0], u[0], list(i), list(w)) == (16.0, 32 << 33, [-7, 9], [2**32 - 1, 32 % 5, 64])
    emulator.options.seed = 0


def test_warp_reductions_and_matching():
    text = """
extern "C" __global__ void k(int* y) {
    int lane = threadIdx.x;
    y[lane] = __reduce_add_sync(0xffffffffu, lane - 16) + 1000 * __reduce_min_sync(0xffffffffu, lane - 5)
        + 100000 * __popc(__match_any_sync(0xffffffffu, lane / 4));
    if (lane < 8) y[lane] += __shfl_sync(0xffu, lane, 3, 4) * 1000000;
}
"""
    y = np.zeros(32, np.int32)
    run(text, 1, 32, y)
    wanted = np.full(32, -16 - 5000 + 400000)
    wanted[:8] += 1000000 * np.array([3, 3, 3, 3, 7, 7, 7, 7])
    np.testing.assert_array_equal(y, wanted)


def test_barriers_that_count():
    text = """
extern "C" __global__ void k(int* y) {
    int i = threadIdx.x;
    int many = __syncthreads_count(i % 3 == 0), any = __syncthreads_or(i == 70), all = __syncthreads_and(i < 70);
    y[i] = many * 100 + any * 10 + all;
}
"""
    y = np.zeros(96, np.int32)
    run(text, 1, 96, y)
    assert set(y) == {3210}


def test_local_arrays():
    text = """
extern "C" __global__ void k(float* y, const float* x, int n) {
    float local[SIZE];
    for (int k = 0; k < SIZE; ++k) local[k] = x[k % 32] + n;
    float sum = 0.0f;
    for (int k = 0; k < SIZE; ++k) sum += local[(k * 7 + n) % SIZE];
    y[threadIdx.x] = sum;
}
"""
    y = unwritten(32)
    run(text, 1, 32, y, floats(32), 0, SIZE=1024)
    assert (y == floats(32).sum() * 32).all()
    with pytest.raises(CompileError, match=r"frame size of 8.... bytes is larger than 49152"):
        run(text, 1, 32, y, floats(32), 0, SIZE=20000)


def test_changing_stacks_without_assembly(tmp_path):
    """Elsewhere than on x86-64 threads change stacks through the C library; the same results, more slowly."""
    path, _ = build.compiler() or ("", "")
    program = tmp_path / "kernel.cpp"
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    __shared__ float row[64];
    row[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = row[63 - threadIdx.x] + __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}
"""
    usual = run(text, 1, 64, unwritten(64), floats(64)).library.path
    program.write_text(build.prepared(source(text)))
    flags = [*build._BASE, *build._WATCHED, "-DGPUNET_EMULATOR_ARCH=900", "-I", str(build.HERE)]
    header = ["-include", str(build.HERE / "cuda_emulator.h")]
    subprocess.run([path, *flags, *header, "-c", str(program), "-o", str(tmp_path / "kernel.o")], check=True)
    units = [str(build.HERE / name) for name in build.RUNTIME]
    runtime = ["-shared", "-O1", "-std=c++20", "-fPIC", "-fvisibility=hidden", "-pthread", "-DGPUNET_UCONTEXT"]
    target = tmp_path / "kernel.so"
    subprocess.run(
        [path, *runtime, "-Wl,-Bsymbolic", str(tmp_path / "kernel.o"), *units, "-o", str(target)], check=True
    )
    assert target.stat().st_size > 0
    assert usual != target
    portable = emulator.Program(source(text), Library(target), 900)
    for seed in range(3):
        emulator.options.seed = seed
        y = unwritten(64)
        emulator.launch(portable, "k", (1, 1, 1), (64, 1, 1), (y, floats(64)))
        np.testing.assert_array_equal(y, floats(64)[::-1] + (np.arange(64) ^ 1))
    emulator.options.seed = 0


def test_no_compiler_is_a_reason_and_a_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "compiler", lambda: None)
    emulator.why_not.cache_clear()
    try:
        assert "found none; install g++ 11 or newer" in str(emulator.why_not())
    finally:
        emulator.why_not.cache_clear()
    assert store.folder("emulator").is_dir()
