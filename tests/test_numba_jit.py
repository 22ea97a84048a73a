"""Kernels of Python as they are compiled: types, recording, machine code and its cache, without a GPU."""

import importlib
import importlib.util

import numpy as np
import pytest

from gpunet.cuda import store
from gpunet.errors import BackendUnavailableError, CompileError, KernelError

if importlib.util.find_spec("numba") is None:
    pytest.skip("Numba is not installed", allow_module_level=True)

from gpunet.cuda import jit
from gpunet.cuda.jit import cuda
from gpunet.cuda.packs import load_pack, store_pack

compiles = pytest.mark.skipif(bool(jit.why_no_compiler()), reason=str(jit.why_no_compiler()))


@jit.typed
def scaled_kernel(real):
    half = real(0.5)

    def scaled(y, x, n, flag):
        i = cuda.grid(1)
        if i < n and flag:
            y[i] = half * x[i]

    return scaled


@jit.typed
def packed_kernel(real):
    def packed(y, x, n):
        i = cuda.grid(1)
        if i < n:
            store_pack(y, i, load_pack(x, i))

    return packed


X = np.zeros(8, np.float32)


def test_a_kernel_is_made_once_for_a_dtype():
    assert scaled_kernel(X) is scaled_kernel(np.ones(3, np.float32))
    assert scaled_kernel(X) is not scaled_kernel(np.ones(3))


def test_recording_writes_down_what_would_be_compiled():
    with jit.recording() as found:
        scaled_kernel(X)((1,), (8,), (X, X, 8, True))
        scaled_kernel(X)((1,), (8,), (X, X, np.int32(8), np.bool_(True)))
    assert [each.types for each in found] == [
        ("float32[]", "float32[]", "int64", "bool"),
        ("float32[]", "float32[]", "int32", "bool"),
    ]
    assert found[0].kernel.name == "scaled_kernel"


def test_numpy_arrays_need_the_simulator():
    if jit.SIMULATED:
        pytest.skip("the simulator is on")
    with pytest.raises(BackendUnavailableError, match="scaled_kernel: NumPy arrays need the simulator"):
        scaled_kernel(X)((1,), (8,), (X, X.copy(), 8, True))


@compiles
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90", "sm_100"])
def test_machine_code_without_a_gpu(arch: str):
    kernel = scaled_kernel(X)
    cubin = kernel.cubin(("float32[]", "float32[]", "int64", "bool"), arch)
    assert cubin.path.read_bytes()[:4] == b"\x7fELF"
    (found,) = cubin.kernels.values()
    assert 0 < found.registers <= 32
    assert found.stack == found.spill_stores == found.shared == 0


def _ptx(kernel: jit.Kernel, types: tuple[str, ...]) -> str:
    numba = importlib.import_module("numba")
    signature = numba.types.void(*map(jit._numba_type, types))
    return cuda.compile(kernel.function, signature, device=False, cc=(9, 0), output="ptx", abi="numba")[0]


@compiles
@pytest.mark.parametrize(("dtype", "vector"), [("float32", "v4"), ("float64", "v2")])
def test_packs_become_one_load_and_one_store(dtype: str, vector: str):
    text = _ptx(packed_kernel(np.zeros(4, dtype)), (f"{dtype}[]", f"{dtype}[]", "int64"))
    loads = [line.split()[0] for line in text.splitlines() if "ld.global" in line]
    stores = [line.split()[0] for line in text.splitlines() if "st.global" in line]
    assert len(loads) == len(stores) == 1
    assert f".{vector}." in loads[0]
    assert f".{vector}." in stores[0]


@compiles
def test_float32_kernels_compute_in_float32():
    text = _ptx(scaled_kernel(X), ("float32[]", "float32[]", "int64", "bool"))
    assert "f64" not in text
    assert "mul.f32" in text or "mul.rn.f32" in text


@compiles
def test_what_a_kernel_closes_over_is_part_of_its_name_on_disk():
    def times(factor: np.float32):
        @jit.device
        def scaled(x):
            return factor * x

        def k(y):
            y[0] = scaled(y[0])

        return jit.kernel(k)

    def path(factor: float):
        return times(np.float32(factor)).cubin(("float32[]",), "sm_90").path.name

    assert path(2) == path(2)  # device functions are made anew: their address must not matter
    assert path(2) != path(3)


@compiles
def test_the_cache_is_asked_before_the_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(store, "folder", lambda name: tmp_path)
    types = ("float64[]", "float64[]", "int64", "bool")
    kernel = scaled_kernel(np.zeros(1))
    monkeypatch.setattr(kernel, "_cubins", {})
    first = kernel.cubin(types, "sm_90")
    monkeypatch.setattr(jit, "_compile", lambda *_: pytest.fail("compiled twice"))
    monkeypatch.setattr(kernel, "_cubins", {})
    assert kernel.cubin(types, "sm_90") == first


@compiles
def test_what_does_not_compile_is_refused_with_its_types():
    @jit.kernel
    def wrong(y):
        y[0] = y.nothing

    with pytest.raises(CompileError, match=r"wrong: must compile for \(float32\[\]\) on sm_90, got"):
        wrong.cubin(("float32[]",), "sm_90")
    with pytest.raises(CompileError, match="arch must be sm_<number>, got 'gpu'"):
        scaled_kernel(X).cubin(("float32[]", "float32[]", "int64", "bool"), "gpu")


@compiles
def test_a_bound_on_registers_is_kept():
    @jit.kernel(max_registers=24)
    def many(y, x):
        a, b, c, d = x[0], x[1], x[2], x[3]
        for k in range(100):
            a, b, c, d = a * b + c, b * c + d, c * d + a, d * a + x[k]
        y[0] = a + b + c + d

    (found,) = many.cubin(("float32[]", "float32[]"), "sm_90").kernels.values()
    assert found.registers <= 24


def test_more_sizes_than_axes_are_refused():
    with pytest.raises(KernelError, match="grid must be three integers"):
        scaled_kernel(X)((1, 1, 1, 1), (8,), (X, X, 8, True))
