"""The CUDA C++ files compile for every listed architecture, and what the compiler says is understood."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpunet import cuda
from gpunet.config import settings
from gpunet.cuda import compile as nvrtc
from gpunet.cuda import launch, source, store, table
from gpunet.errors import ArgumentError, CompileError, EmulatorError, KernelError
from gpunet.measure import resources
from tests.emulated import floats, needs_emulator
from tests.emulated import source as source_of

needs_nvrtc = pytest.mark.skipif(bool(nvrtc.why_not()), reason=str(nvrtc.why_not()))

BUILDS = resources.builds()


def test_every_cuda_file_is_listed():
    kernels = Path(source.find("relu")).parent.parent
    assert {source.find(each.name) for each in BUILDS} == set(kernels.glob("*/*.cu"))


#: (kernel, real, constants, architecture) that may spill or keep a stack frame, each with the reason
SPILLS: dict[tuple[str, str, str, str], str] = {
    ("matmul_forward_cp_async", "float", "TILE=16", "sm_75"): "copies pass through registers there; by name alone"
}


@needs_nvrtc
@pytest.mark.parametrize("arch", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_shipped_files_compile_to_what_is_recorded(build: resources.Build, arch: str):
    rows = resources.compiled(build, arch)
    assert {row.kernel for row in rows} == set(build.source.signatures)
    version, recorded = table.recorded()
    for row in rows:
        each = row.resources
        assert each.registers > 0, row
        assert each.spill_stores == each.spill_loads == each.stack == 0 or row.key in SPILLS, row
        assert each.shared <= launch.STATIC_SHARED
        assert row.key in recorded, f"{row.key} is not in the table; run `make resources`"
        if version == nvrtc.version():  # another compiler takes other registers; what is held above holds for each
            assert recorded[row.key] == each, "the table is old; run `make resources`"


def test_the_table_has_no_rows_too_many():
    recorded = {key for key in table.recorded()[1] if not table.is_numba(key)}
    kernels = {(name, each.real, each.told) for each in BUILDS for name in each.source.signatures}
    assert recorded == {(*kernel, arch) for kernel in kernels for arch in nvrtc.ARCHITECTURES}
    assert set(SPILLS) <= recorded


@needs_emulator
def test_a_launch_with_too_many_registers_is_refused_on_sim(monkeypatch):
    few = nvrtc.Resources(registers=128)
    monkeypatch.setattr(table, "resources", lambda kernel, defines, arch: few)
    x = floats(2048)
    kernel = launch.load("relu", real="float").relu_forward_plain
    kernel((4,), (512,), (np.empty_like(x), x, 2048))
    with pytest.raises(EmulatorError, match="128 registers a thread on sm_90, so a block may have 512 threads, got"):
        kernel((2,), (1024,), (np.empty_like(x), x, 2048))


@needs_nvrtc
def test_the_table_is_written_as_it_is_read(tmp_path, monkeypatch):
    build = next(each for each in BUILDS if each.name == "relu")
    monkeypatch.setattr(resources, "builds", lambda: [build])
    monkeypatch.setattr(resources, "ops_of_numba", lambda: ())
    path = tmp_path / "table.csv"
    assert resources.record(path, workers=1) == len(build.source.signatures) * len(nvrtc.ARCHITECTURES)
    version, rows = table.recorded(path)
    assert version == nvrtc.version()
    assert rows == {row.key: row.resources for arch in nvrtc.ARCHITECTURES for row in resources.compiled(build, arch)}


ERROR = 'extern "C" __global__ void k(float* y) {\n    int n = 3;\n    y[n] = nothing;\n}\n'


@needs_nvrtc
@pytest.mark.parametrize(("name", "value"), [
    ("std", "c++17"), ("fma", False), ("ftz", True), ("prec_div", False), ("prec_sqrt", False), ("lineinfo", False),
    ("define_macro", [("real", "float"), ("MORE", "1")]), ("ptxas_options", ["-v", "-O1"]),
])  # fmt: skip
def test_every_option_is_part_of_the_name_in_the_cache(monkeypatch, tmp_path, name: str, value: object):
    options, compiled = nvrtc._options, []
    relu = launch.load("relu", real="float").source
    monkeypatch.setattr(settings, "cache", str(tmp_path))
    monkeypatch.setattr(nvrtc, "_compile", lambda source, asked: (b"", compiled.append(asked[name]) or ""))
    right = [nvrtc.compile_cubin(relu, "sm_90").path for _ in range(2)]
    monkeypatch.setattr(nvrtc, "_options", lambda *given: {**options(*given), name: value})
    other = nvrtc.compile_cubin(relu, "sm_90").path
    assert right[0] == right[1] != other
    assert compiled[1:] == [value]  # what is in the name is what the compiler was given, and once each


@needs_nvrtc
def test_errors_carry_lines():
    with pytest.raises(CompileError, match=r'must compile for sm_90(.|\n)*\(3\): error: identifier "nothing"'):
        nvrtc.compile_cubin(source_of(ERROR), "sm_90")
    with pytest.raises(ArgumentError, match="arch must be sm_<number>"):
        nvrtc.compile_cubin(source_of(ERROR), "90")


@needs_emulator
def test_errors_of_the_host_compiler_carry_lines():
    with pytest.raises(CompileError, match=r"\.cu:3:\d+: error: .*nothing"):
        launch.load(str(source_of(ERROR).path)).k((1,), (1,), (floats(4),))


@needs_emulator
def test_dynamic_shared_memory_at_file_scope_is_refused():
    text = 'extern __shared__ float row[];\nextern "C" __global__ void k(float* y) { y[0] = row[0]; }\n'
    with pytest.raises(CompileError, match="must be declared inside the kernel"):
        launch.load(str(source_of(text).path)).k((1,), (1,), (floats(4),))


@needs_nvrtc
def test_the_toolkit_headers_and_the_asynchronous_copies_compile():
    text = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include "common/common.cuh"
extern "C" __global__ void k(float* y, const float* x) {
    __shared__ __align__(16) float stage[128];
    copy_async<16>(&stage[4 * threadIdx.x], x + 4 * threadIdx.x);
    copy_async<4>(&stage[threadIdx.x], x + threadIdx.x, 0);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    y[threadIdx.x] = __half2float(__float2half(stage[threadIdx.x])) + __bfloat162float(__float2bfloat16(2.0f));
}
"""
    for arch in ("sm_75", "sm_80", "sm_90a"):
        assert nvrtc.compile_cubin(source_of(text), arch).kernels["k"].shared >= 512


def test_resources_are_read_from_the_log():
    log = """ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas         .     16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16 bytes cumulative stack size, 2048 bytes smem
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas info    : Used 8 registers, used 0 barriers
"""
    found = nvrtc.parse_resources(log)
    assert found["one"] == nvrtc.Resources(registers=255, shared=2048, stack=16, spill_stores=8, spill_loads=12)
    assert found["two"] == nvrtc.Resources(registers=8)
    assert (found["one"].most_threads, found["two"].most_threads) == (256, 1024)


def test_the_cache_writes_whole_files(tmp_path):
    def broken(path):
        path.write_text("half")
        raise RuntimeError("stopped")

    target = tmp_path / "thing.so"
    with pytest.raises(RuntimeError, match="stopped"):
        store.keep(target, broken)
    assert list(tmp_path.iterdir()) == []
    store.keep(target, lambda path: path.write_text("first"))
    store.keep(target, lambda path: path.write_text("second"))
    assert target.read_text() == "first"
    assert store.key("a", "bc") != store.key("ab", "c")


@needs_emulator
def test_two_processes_may_compile_one_file(tmp_path):
    code = (
        "import numpy as np; from gpunet.cuda import launch; x = np.ones(5, np.float32); y = np.zeros(5, np.float32);"
        "launch.load('relu', real='float').relu_forward_plain((1,), (32,), (y, x, 5)); print(int(y.sum()))"
    )
    environment = {**os.environ, "GPUNET_CACHE": str(tmp_path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    assert [each.communicate()[0].strip() for each in runs] == ["5", "5"]
    assert len(list((tmp_path / "emulator").iterdir())) == 2


def test_load():
    module = launch.load("relu", real="float")
    assert launch.load("relu", real="float") is module
    assert cuda.load("relu", real="float") is module
    assert launch.load("relu", real="double") is not module
    assert module.relu_forward_plain is module.relu_forward_plain
    with pytest.raises(AttributeError, match=r"relu\.cu has no kernel 'nothing'; it has: relu_forward_plain"):
        _ = module.nothing
    with pytest.raises(KernelError, match="op 'nothing' has no file"):
        launch.load("nothing")


@needs_emulator
def test_an_empty_grid_is_skipped_or_refused():
    kernel = launch.load("relu", real="float").relu_forward_plain
    empty = np.zeros(0, np.float32)
    kernel((0,), (256,), (empty, empty, 0))
    with pytest.raises(KernelError, match="grid must have at least one block"):
        kernel((0,), (256,), (empty, empty, 0), empty="refuse")


class FakeDevice:
    """Stands for a GPU: enough of CuPy's shape to see what a launch would hand over."""

    id = 0
    compute_capability = "90"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


class FakeArray:
    """A CuPy array without a GPU."""

    def __init__(self, size: int, place: int):
        self.dtype, self.size, self.nbytes, self.device = np.dtype("f4"), size, 4 * size, FakeDevice()
        self.flags = type("Flags", (), {"c_contiguous": True})()
        self.data = type("Pointer", (), {"ptr": place})()


@needs_nvrtc
def test_what_a_gpu_would_be_handed(monkeypatch):
    calls = []

    class FakeFunction:
        max_dynamic_shared_size_bytes = 49152

        def __call__(self, grid, block, arguments, shared_mem):
            calls.append((grid, block, arguments, shared_mem, self.max_dynamic_shared_size_bytes))

    class FakeModule:
        def __init__(self, path):
            assert path.endswith(".cubin")

        def get_function(self, name):
            assert name == "relu_forward_plain"
            return FakeFunction()

    fake = type("cupy", (), {"RawModule": FakeModule, "cuda": type("cuda", (), {"Device": FakeDevice})})
    monkeypatch.setattr(cuda, "cupy", lambda: fake)
    module = launch.Module("relu", {"real": "float"}, True, False)
    y, x = FakeArray(8, 4096), FakeArray(8, 8192)
    module.relu_forward_plain((1,), (32,), (y, x, 8))
    module.relu_forward_plain((1,), (32,), (y, None, 8), 65536)
    (grid, block, arguments, shared, most), (_, _, (_, null, _), second, more) = calls
    assert type(null) is np.uint64
    assert null == 0
    assert (grid, block, shared, most) == ((1, 1, 1), (32, 1, 1), 0, 49152)
    assert arguments[:2] == (y, x)
    assert type(arguments[2]) is np.int64
    assert (second, more) == (65536, 65536)
    with pytest.raises(KernelError, match="on sim, argument 1 'x' on cuda:0"):
        module.relu_forward_plain((1,), (32,), (floats(8), x, 8))
    few = nvrtc.Resources(registers=128)
    monkeypatch.setitem(module.cubin("sm_90").kernels, "relu_forward_plain", few)
    module.relu_forward_plain._functions.clear()  # it was looked up once, with what it takes
    with pytest.raises(KernelError, match="takes 128 registers a thread, so a block may have 512 threads, got 1024"):
        module.relu_forward_plain((1,), (1024,), (y, x, 8))
