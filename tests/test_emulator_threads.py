"""Deliberately broken kernels: barriers, races, warp operations, asynchronous copies, launches beyond the hardware."""

import numpy as np
import pytest

from gpunet import config
from gpunet.cuda import emulator
from gpunet.errors import EmulatorError
from tests.emulated import floats, needs_emulator, refused, run, unwritten

pytestmark = needs_emulator


@pytest.fixture(autouse=True)
def _options():
    before = dict(emulator.options.__dict__)
    yield
    emulator.options.__dict__.update(before)


REVERSE = """
extern "C" __global__ void k(float* y, const float* x) {
    __shared__ float row[64];
    int i = threadIdx.x;
    row[i] = x[i];
    %s
    y[i] = row[63 - i];
}
"""


def test_a_barrier_makes_it_right():
    for seed in range(6):
        emulator.options.seed = seed
        y = unwritten(64)
        run(REVERSE % "__syncthreads();", 1, 64, y, floats(64))
        np.testing.assert_array_equal(y, floats(64)[::-1])


def test_missing_barrier():
    for seed in range(4):
        emulator.options.seed = seed
        with pytest.raises(EmulatorError) as caught:
            run(REVERSE % "", 1, 64, unwritten(64), floats(64))
        # Whoever comes first reads what the partner has not written yet, in this block or ever.
        assert caught.value.kind in ("race", "uninitialised")


def test_missing_barrier_names_both_sides():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    __shared__ float sum;
    int i = threadIdx.x;
    if (i == 0) sum = x[0];
    __syncthreads();
    y[i] = sum;
    if (i == 5) sum = x[1];
    __syncthreads();
    y[i] += sum;
}
"""
    with pytest.raises(EmulatorError) as caught:
        run(text, 1, 64, unwritten(64), floats(64))
    assert caught.value.kind == "race"
    assert ":7 by block (0, 0, 0)" in str(caught.value) or ":8 by block (0, 0, 0)" in str(caught.value)
    assert caught.value.line in (7, 8)
    assert "__syncthreads()" in str(caught.value)


def test_two_blocks_at_one_element():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    y[threadIdx.x] = x[threadIdx.x];  // here
}
"""
    assert "written at" in str(refused("race", text, 2, 32, unwritten(32), floats(32)))


def test_atomics_are_no_race_but_plain_adding_is():
    text = """
extern "C" __global__ void k(float* y, int* count, const float* x) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(y, x[i]);
    atomicMax(count, i);
    atomicAdd(count + 1, 1);
}
"""
    y, count = np.zeros(1, np.float32), np.zeros(2, np.int32)
    run(text, 2, 32, y, count, floats(64))
    assert y[0] == floats(64).sum()
    assert list(count) == [63, 64]
    plain = text.replace("atomicAdd(y, x[i]);", "*y += x[i];  // here")
    refused("race", plain, 2, 32, np.zeros(1, np.float32), count, floats(64))


LAST_BLOCK = """
extern "C" __global__ void k(float* y, float* partial, unsigned* counter, const float* x) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = x[blockIdx.x];
        __threadfence();
        last = atomicAdd(counter, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last || threadIdx.x) return;
    float sum = 0.0f;
    for (int b = 0; b < gridDim.x; ++b) sum += partial[b];
    *y = sum;
}
"""


def test_the_last_block_may_read_what_the_others_fenced():
    for seed in range(4):
        emulator.options.seed = seed
        y = unwritten(1)
        run(LAST_BLOCK, 8, 32, y, emulator.mark(np.empty(8, np.float32)), np.zeros(1, np.uint32), floats(8))
        assert y[0] == 28
    without = LAST_BLOCK.replace("        __threadfence();\n", "").replace("partial[b];", "partial[b];  // here")
    refused("race", without, 8, 32, unwritten(1), np.zeros(8, np.float32), np.zeros(1, np.uint32), floats(8))


def test_barrier_in_a_branch():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    int i = threadIdx.x;
    if (i < 16) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    y[i] = x[i];
}
"""
    error = refused("barrier_divergent", text, 1, 32, unwritten(32), floats(32))
    assert error.line in (5, 7)


def test_barrier_that_threads_without_work_never_reach():
    text = """
extern "C" __global__ void k(float* y, const float* x, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    y[i] = x[i];
    __syncthreads();  // here
}
"""
    run(text, 1, 32, unwritten(32), floats(32), 32)
    error = refused("barrier_not_reached", text, 1, 32, unwritten(32), floats(32), 20)
    assert "20 of 32 threads are there" in str(error)


SUM = """
extern "C" __global__ void k(float* y, const float* x) {
    float v = x[threadIdx.x];
    for (int d = 16; d > 0; d /= 2) v += __shfl_down_sync(0xffffffffu, v, d);
    float all = __shfl_sync(0xffffffffu, v, 0);
    unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x & 1);
    float other = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
    float before = __shfl_up_sync(0xffffffffu, x[threadIdx.x], 1);
    y[threadIdx.x] = all + (odd == 0xaaaaaaaau) + 1000 * other + 0 * before
        + 1000000 * __any_sync(0xffffffffu, threadIdx.x == 3) + 2000000 * __all_sync(0xffffffffu, threadIdx.x == 3);
}
"""


def test_warp_operations():
    x = floats(64)
    y = unwritten(64)
    run(SUM, 1, 64, y, x)
    sums = np.repeat(x.reshape(2, 32).sum(1), 32)
    low = np.arange(64) % 64 == np.arange(64)
    any3 = np.repeat([1, 0], 32) * low
    np.testing.assert_array_equal(y, (sums + 1 + 1000 * (np.arange(64) ^ 1) + 1000000 * any3).astype(np.float32))


def test_a_lane_that_its_mask_does_not_name():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    y[threadIdx.x] = __shfl_down_sync(0x0000ffffu, x[threadIdx.x], 1);  // here
}
"""
    error = refused("warp_lanes", text, 1, 32, unwritten(32), floats(32))
    assert "does not name it" in str(error) or "takes no part" in str(error)


def test_a_lane_that_does_not_come():
    text = """
extern "C" __global__ void k(float* y, const float* x) {
    float v = x[threadIdx.x];
    if (threadIdx.x < 16) v += __shfl_down_sync(0xffffffffu, v, 1);  // here
    __syncthreads();
    y[threadIdx.x] = v;
}
"""
    error = refused("warp_lanes", text, 1, 32, unwritten(32), floats(32))
    assert "names a lane that does not come: it waits at the barrier" in str(error)


def test_a_lane_that_has_ended_is_not_read():
    text = """
extern "C" __global__ void k(float* y, const float* x, int n) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);  // here
}
"""
    run(text, 1, 32, unwritten(32), floats(32), 30)
    assert "takes no part" in str(refused("warp_lanes", text, 1, 32, unwritten(32), floats(32), 31))


WARP = """
extern "C" __global__ void k(float* y, const float* x) {
    __shared__ float row[2][32];
    int lane = threadIdx.x %% 32, warp = threadIdx.x / 32;
    row[warp][lane] = x[threadIdx.x];
    __syncwarp();
    float v = row[warp][31 - lane];
    %s
    row[warp][lane] = v;
    __syncwarp();
    y[threadIdx.x] = row[%s][31 - lane];
}
"""


def test_syncwarp_orders_a_warp():
    for seed in range(6):
        emulator.options.seed = seed
        y = unwritten(64)
        run(WARP % ("__syncwarp();", "warp"), 1, 64, y, floats(64))
        np.testing.assert_array_equal(y, floats(64))


def test_syncwarp_is_needed_and_orders_no_other_warp():
    refused("race", WARP % ("", "warp"), 1, 64, unwritten(64), floats(64))
    for seed in range(4):
        emulator.options.seed = seed
        with pytest.raises(EmulatorError) as caught:
            run(WARP % ("__syncwarp();", "1 - warp"), 1, 64, unwritten(64), floats(64))
        assert caught.value.kind in ("race", "uninitialised")


ASYNC = """
#include "common/common.cuh"
extern "C" __global__ void k(float* y, const float* x, int steps) {
    __shared__ __align__(16) float stage[2][128];
    int i = threadIdx.x;
    copy_async<16>(&stage[0][4 * i], x + 4 * i);
    copy_async_commit();
    for (int s = 0; s < steps; ++s) {
        if (s + 1 < steps) copy_async<16>(&stage[(s + 1) & 1][4 * i], x + 128 * (s + 1) + 4 * i);
        copy_async_commit();
        %s
        __syncthreads();
        for (int k = i; k < 128; k += 32) y[128 * s + k] = stage[s & 1][127 - k];
        %s
    }
}
"""


def test_asynchronous_copies():
    for seed in range(4):
        emulator.options.seed = seed
        y = unwritten(512)
        run(ASYNC % ("copy_async_wait<1>();", "__syncthreads();"), 1, 32, y, floats(512), 4)
        np.testing.assert_array_equal(y.reshape(4, 128), floats(512).reshape(4, 128)[:, ::-1])


@pytest.mark.parametrize("steps", [1, 4])
def test_missing_wait(steps: int):
    error = refused("pending_copy", ASYNC % ("", "__syncthreads();"), 1, 32, unwritten(512), floats(512), steps)
    assert "the copy was started at" in str(error)
    assert error.line == 13


def test_a_stage_reused_too_early():
    # Without the second barrier the next copy may overwrite what a slow thread still reads.
    for seed in range(4):
        emulator.options.seed = seed
        with pytest.raises(EmulatorError) as caught:
            run(ASYNC % ("copy_async_wait<1>();", ""), 1, 32, unwritten(512), floats(512), 4)
        # Which of the two comes first decides how it shows.
        assert caught.value.kind in ("race", "pending_copy")


def test_copy_that_is_not_aligned():
    text = """
#include "common/common.cuh"
extern "C" __global__ void k(float* y, const float* x) {
    __shared__ __align__(16) float stage[128];
    copy_async<16>(&stage[4 * threadIdx.x], x + 4 * threadIdx.x + 1);
    copy_async_wait<0>();
    y[threadIdx.x] = stage[4 * threadIdx.x];
}
"""
    refused("misaligned", text, 1, 31, unwritten(32), floats(128))


def test_launch_limits():
    text = """
extern "C" __global__ void k(float* y) {
    __shared__ float big[SIZE];
    big[threadIdx.x] = 1.0f;
    y[blockIdx.x * blockDim.x + threadIdx.x] = big[threadIdx.x];
}
"""
    assert "2048 threads" in str(refused("launch", text, 1, 2048, unwritten(2048), SIZE=1))
    assert "49156" in str(refused("launch", text, 1, 32, unwritten(32), SIZE=12289))
    run(text, 1, 32, unwritten(32), SIZE=12288)
    refused("launch", text, 1, 32, unwritten(32), SIZE=64, shared=232448)
    run(text, 1, 32, unwritten(32), SIZE=64, shared=232448 - 256)
    refused("launch", text, (1, 70000), 32, unwritten(32), SIZE=64)
    refused("launch", text, 1, (1, 1, 65), unwritten(65), SIZE=65)


def test_launch_bounds():
    text = """
constexpr int MOST = 2 * SIZE;
extern "C" __global__ void __launch_bounds__(MOST, 1) k(float* y) {
    y[threadIdx.y * blockDim.x + threadIdx.x] = 1.0f;
}
"""
    run(text, 1, (32, 4), unwritten(128), SIZE=64)
    told = str(refused("launch", text, 1, (32, 5), unwritten(160), SIZE=64))
    assert told == "k: launch: its __launch_bounds__ lets a block have 128 threads, got (32, 5, 1), 160 threads"
    run(text, 1, (32, 5), unwritten(160), SIZE=80)
    run(text.replace("__launch_bounds__(MOST, 1)", ""), 1, 1024, unwritten(1024), SIZE=64)


def test_the_environment_chooses_the_order_of_threads(monkeypatch: pytest.MonkeyPatch):
    text = """
extern "C" __global__ void k(int* y, int* before) {
    y[threadIdx.x] = atomicAdd(before, 1);
}
"""
    orders = []
    for seed in ("1", "1", "2"):
        monkeypatch.setenv("GPUNET_SIM_SEED", seed)
        config.reload()
        y, before = np.zeros(64, np.int32), np.zeros(1, np.int32)
        run(text, 1, 64, y, before)
        assert sorted(y) == list(range(64))
        orders.append(list(y))
    assert orders[0] == orders[1] != orders[2]


def test_endless_loop_and_trap():
    text = """
extern "C" __global__ void k(volatile float* y, int n) {
    if (n == 0) __trap();
    assert(n != 1);
    while (y[0] == 0.0f) {}
}
"""
    emulator.options.limit = 100_000
    for n, kind in ((2, "endless"), (0, "trap"), (1, "trap")):
        with pytest.raises(EmulatorError) as caught:
            run(text, 1, 1, np.zeros(1, np.float32), n)
        assert caught.value.kind == kind


def test_blocks_over_several_workers():
    text = """
extern "C" __global__ void k(float* y, const float* x, int n) {
    __shared__ float row[64];
    int i = blockIdx.x * 64 + threadIdx.x;
    row[threadIdx.x] = i < n ? x[i] : 0.0f;
    __syncthreads();
    if (i < n) y[i] = row[63 - threadIdx.x];
}
"""
    emulator.options.workers = 3
    for seed in range(3):
        emulator.options.seed = seed
        y = unwritten(64 * 40)
        run(text, 40, 64, y, floats(64 * 40), 64 * 40)
        np.testing.assert_array_equal(y.reshape(40, 64), floats(64 * 40).reshape(40, 64)[:, ::-1])
    wrong = text.replace("y[i] = ", "y[i + 1] = ")
    refused("out_of_bounds", wrong, 40, 64, unwritten(64 * 40), floats(64 * 40), 64 * 40)
