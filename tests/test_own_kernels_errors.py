"""What can be wrong with a user's file of kernels: one clear line each; and kernels from a text in CUDA C++."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpunet import cuda
from gpunet.cli import own as face
from gpunet.errors import ArgumentError, CompileError, KernelError
from gpunet.measure import own
from tests.emulated import needs_emulator
from tests.own_files import (  # noqa: F401 fixtures are used by name
    EXAMPLES,
    _few_objects,
    _quick,
    checked,
    need_both_proofs,
    no_gpu,
    only_kernel,
    ran,
    written,
)

# ------------------------------------------------------------------------------------------------------------ errors


KERNEL = '@gn.kernel("relu.forward", backend="numpy", variant="mine")\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1 / 0\n", "must run when imported, got ZeroDivisionError: division by zero at line 4"),
        ("def f(:\n", "must run when imported, got SyntaxError: invalid syntax (my_kernels.py, line 4)"),
        ("raise SystemExit(0)\n", "must run when imported, got SystemExit: 0 at line 4"),
        ("import no_such_package\n", "got ModuleNotFoundError: No module named 'no_such_package' at line 4"),
        ("x = 1\n", "must register a kernel, got none; decorate a launcher with @gn.kernel(...)"),
        ("import gpunet.examples.own_kernel_numpy\n", "must register a kernel, got none"),
        (KERNEL.replace("forward", "sideways") + "def f(x): return x\n", "entry must be a known '<op>.<entry>', got"),
        (KERNEL.replace("relu", "rely") + "def f(x): return x\n", "got 'rely.forward'; known: one of the ops"),
        (KERNEL.replace("numpy", "rocm") + "def f(x): return x\n", "backend: must be one of numpy, numba_cpu, cupy,"),
        (KERNEL + "def f(x, y): return x\n", "launcher f of relu.forward must take (x), got (x, y)"),
        (KERNEL + "def f(): return 1\n", "my_kernels.py:4: launcher f of relu.forward must take (x), got ()"),
        (KERNEL.replace("relu", "gelu") + "def f(x): return x\n", "must take (x, *, approximate), got (x)"),
        ("mine = " + KERNEL.removeprefix("@").strip() + "(np.tanh)\n", "needs a plain Python function as its launcher"),
        (KERNEL + "def f(x): return x\nx = 1 / 0\n", "got ZeroDivisionError: division by zero at line 6"),
        (KERNEL + "def f(x): return x\n" + KERNEL + "def g(x): return x\n", "must be registered once, got two"),
    ],
)
@pytest.mark.parametrize("command", ["check", "bench"])
def test_a_file_that_cannot_be_used_is_one_line_and_changes_nothing(
    capsys: Any, tmp_path: Path, command: str, text: str, message: str
):
    sys.modules.pop("gpunet.examples.own_kernel_numpy", None)
    registered = set(face._registered())
    out_file, paths, modules = tmp_path / "out.json", list(sys.path), set(sys.modules)
    status, out, err = ran(capsys, command, written(tmp_path, text), "--json", str(out_file))
    assert (status, out) == (1, "")
    assert err.startswith(f"gpunet: error: {command}: ")
    assert message in err
    assert err.count("\n") == 1
    kept = {each for each in face._registered() if "/kernels/" not in each.file}
    assert kept <= registered
    assert not out_file.exists()
    assert sys.path == paths
    assert (
        not [name for name in set(sys.modules) - modules if name.startswith("_own_")]
        or "none" in message
        or ("launcher" in message)
    )


def test_a_file_may_use_what_lies_beside_it_and_be_called_anything(capsys: Any, tmp_path: Path):
    (tmp_path / "beside_it.py").write_text("import numpy as np\n\n\ndef clip(x):\n    return np.maximum(x, 0)\n")
    text = "from beside_it import clip\n" + KERNEL + "def f(x): return clip(x)\n"
    (row,) = checked(capsys, written(tmp_path, text, name="json.py"))
    assert row["status"] == "passed"
    assert sys.modules["json"] is json
    del sys.modules["beside_it"]


TEXT = '''
TEXT = """extern "C" __global__ void mine(real* __restrict__ y, const real* __restrict__ x, int size) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = x[i] <= 0 ? 0 : x[i];
}
"""

@gn.kernel("relu.forward", backend="cupy", variant="mine")
def mine(x):
    from gpunet.cuda import compile_text
    x = contiguous(x)
    y = empty(x.shape, x)
    compile_text(TEXT, "mine", real=x.dtype)((-(-x.size // 64),), (64,), (y, x, x.size))
    return y
'''


@needs_emulator
@no_gpu
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threadIdx.x;", "threadIdx.x", "it raises CompileError: emulator: mine.cu must compile as C++20"),
        ("if (i < size) y", "y", "out_of_bounds: it must stay inside its arrays, got at mine.cu:3, block"),
        ("(i < size)", "(i + 1 < size)", "holds NaN, first at "),
        ('TEXT, "mine"', 'TEXT, "yours"', "the text must hold a kernel called 'yours', got the kernels mine; write it"),
        ('extern "C" __global__', "__global__", "the text must hold a kernel called 'mine', got none; write it as"),
        ("(y, x, x.size)", "(y, x)", "mine: takes 3 arguments (y, x, size), got 2; compare the launcher with"),
        ("int size)", "thing size)", "type of parameter 'size' must be one of float, double,"),
        ("real=x.dtype", "real='float'", "argument 0 'real* __restrict__ y' must be float32, got float64"),
    ],
)
def test_what_is_wrong_with_a_text_is_one_line(capsys: Any, tmp_path: Path, old: str, new: str, message: str):
    assert TEXT.count(old) == 1
    status, out, err = ran(capsys, "check", written(tmp_path, TEXT.replace(old, new)), "--quiet")
    assert (status, out) == (1, "")
    assert err.startswith("gpunet: check: relu.forward/cupy/mine: ")
    assert message in err
    assert err.count("\n") == 1
    if "CompileError" in message:
        assert "mine.cu:3:5: error: " in err or "mine.cu:2:49: error: " in err  # g++ and clang++ place it so


@needs_emulator
@no_gpu
def test_a_file_of_cuda_that_is_missing_is_one_line(capsys: Any, tmp_path: Path):
    text = (EXAMPLES / "own_kernel_cupy_file.py").read_text()
    (tmp_path / "moved.py").write_text(text)  # without own_kernel.cu
    status, _, err = ran(capsys, "check", str(tmp_path / "moved.py"), "--quiet")
    assert status == 1
    assert "there is no kernel file 'own_kernel.cu' in " in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("it is off", "it is off"),
        ("got errors:\na.cu: In function f:\na.cu:4:5: error: no\n  x\n  ^", "got errors: a.cu:4:5: error: no"),
        ('failed\nUnknown name\n\nFile "a.py", line 7:\n x', 'failed Unknown name File "a.py", line 7:'),
    ],
)  # fmt: skip
def test_a_compilers_report_in_one_line(reason: str, line: str):
    assert face.one_line(reason) == line


def test_a_function_that_numba_compiled_may_be_its_own_launcher(capsys: Any, tmp_path: Path):
    file = written(tmp_path, """
        import numba

        @gn.kernel("relu.forward", backend="numba_cpu", variant="mine")
        @numba.njit
        def mine(x):
            return np.where(x <= 0, x.dtype.type(0), x)
    """)  # fmt: skip
    need_both_proofs(checked(capsys, file)[0])


# ------------------------------------------------------------------------------------------------------ CUDA C++ text


FILL = """
#include "common/common.cuh"
extern "C" __global__ void first(real* __restrict__ y, int size) {
    for (int i = threadIdx.x; i < size; i += blockDim.x) y[i] = larger(real(i), real(2));
}
extern "C" __global__ void second(int* __restrict__ y) { y[threadIdx.x] = COUNT; }
"""


@needs_emulator
def test_a_text_is_compiled_and_runs():
    for dtype in (np.dtype("float32"), np.dtype("float64")):
        y = cuda.fresh(np.empty(5, dtype))
        cuda.compile_text(FILL, "first", real=dtype, COUNT=1)((1,), (2,), (y, 5))
        assert y.tolist() == [2, 2, 2, 3, 4]
    counts = cuda.fresh(np.empty(4, np.int32))
    cuda.compile_text(FILL, "second", real="float", COUNT=7)((1,), (4,), (counts,))
    assert counts.tolist() == [7] * 4


def test_a_text_is_one_kernel_for_the_same_arguments():
    one = cuda.compile_text(FILL, "first", real="float", COUNT=1)
    assert cuda.compile_text(FILL, "first", COUNT=1, real="float") is one
    assert cuda.compile_text(FILL, "first", real="double", COUNT=1) is not one
    assert cuda.compile_text(FILL, "second", real="float", COUNT=1).module is one.module  # compiled together
    assert one.signature.parameters[0].dtype == np.float32
    assert cuda.compile_text(FILL, "first", real=np.dtype("float64")).signature.parameters[0].dtype == np.float64


def test_a_text_without_the_kernel_is_refused_at_once():
    with pytest.raises(KernelError, match="a kernel called 'third', got the kernels first, second; write it as"):
        cuda.compile_text(FILL, "third", real="float")
    with pytest.raises(KernelError, match=r'a kernel called \'k\', got none; write it as extern "C" __global__ void k'):
        cuda.compile_text('// extern "C" __global__ void k() {}', "k")
    with pytest.raises(KernelError, match=r"must have a type in CUDA C\+\+, got complex64"):
        cuda.compile_text(FILL, "first", real=np.dtype("complex64"))


def test_a_text_that_does_not_compile_names_its_line_for_a_gpu():
    from gpunet.cuda import compile as nvrtc

    if nvrtc.why_not():
        pytest.skip(str(nvrtc.why_not()))
    kernel = cuda.compile_text('\nextern "C" __global__ void k(float* y) {\n    y[0] = 1\n}\n', "k")
    with pytest.raises(CompileError) as caught:
        kernel.module.cubin("sm_90")
    assert "k.cu(4): error: " in face.one_line(str(caught.value))


@needs_emulator
def test_a_path_may_be_a_path():
    kernels = cuda.load(EXAMPLES / "own_kernel.cu", real=np.dtype("float32"))
    assert cuda.load(str(EXAMPLES / "own_kernel.cu"), real=np.dtype("float32")) is kernels
    y, gx = np.full(3, 0.5, np.float32), cuda.fresh(np.empty(3, np.float32))
    kernels.sigmoid_grad_x_mine((1,), (2,), (gx, np.ones(3, np.float32), y, 3))
    assert gx.tolist() == [0.25] * 3


def test_need_signature_takes_defaults_and_refuses_other_names():
    own.need_signature(only_kernel("gelu.forward", lambda x, approximate="none": x, variant="a"))
    own.need_signature(only_kernel("gelu.forward", lambda *arrays, **params: arrays[0], variant="b"))
    with pytest.raises(ArgumentError, match=r"must take \(x, \*, approximate\), got \(x, \*, approx\)"):
        own.need_signature(only_kernel("gelu.forward", lambda x, *, approx: x, variant="c"))
