"""The two tools that break kernels on purpose still work: on a few kernels here, on all of them by `make mutants`."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpunet.cuda.source import blank_comments
from tests import mutants_cuda
from tests.emulated import needs_emulator, source
from tests.mutants_cuda import Shelf
from tests.mutants_cuda_faults import RULES, faults
from tests.mutants_cuda_text import active_lines, blanked, units

ROOT = Path(__file__).resolve().parents[1]


def run(tool: str, *arguments: str, **variables: str) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "tests" / tool), *arguments]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_broken_kernels_are_noticed():
    code, told = run("mutants.py", "relu", "softmax", "matmul")
    assert code == 0, told
    rows = [line.split() for line in told.splitlines() if line.startswith("kernels/")]
    assert len(rows) == 3
    assert all(int(mutants) == int(caught) > 0 for _, mutants, caught, _, _ in rows)


@needs_emulator
def test_broken_cuda_kernels_are_noticed():
    code, told = run("mutants_cuda.py", "relu", "dropout", "--each", "1")
    assert code == 0, told
    rows = [line.split() for line in told.splitlines() if line.startswith(("relu ", "dropout "))]
    assert len(rows) == 2
    for _, made, caught, report, wrong, refused, endless, crash, equal, survived in rows:
        assert int(made) >= 5
        assert int(caught) == int(report) + int(wrong) + int(refused) + int(endless) + int(crash)
        assert int(made) == int(caught) + int(equal)
        assert int(survived) == 0


@pytest.mark.parametrize(
    ("kinds", "faults", "whole", "code"), [(12, 150, True, 0), (11, 150, True, 1), (12, 149, True, 1), (1, 1, False, 0)]
)
def test_a_whole_run_must_make_faults_enough(capsys, kinds: int, faults: int, whole: bool, code: int):
    shop: Any = SimpleNamespace(broken=[], wanted=[])
    mutants: Any = [
        SimpleNamespace(kind=str(k % kinds), file="", source="", texts={"": "line"}, line=1, change="")
        for k in range(faults)
    ]
    assert mutants_cuda.verdict(shop, [(each, "wrong", "") for each in mutants], whole) == code
    told = f"a whole run must make 150 faults of 12 kinds, got {faults} of {kinds}"
    assert (told in capsys.readouterr().out) == bool(code)


def test_without_a_compiler_no_table_is_no_success(tmp_path: Path):
    code, told = run("mutants_cuda.py", PATH=str(tmp_path))
    assert code == 1
    assert "install g++ 11 or newer" in told


#: a kernel with a place for every rule
TEXT = """
#define ALL_LANES 0xffffffffu
__device__ real helper(real a, real b) { return a > b ? a : b; }  // a > b in a comment
struct Four { real v[4]; };
extern "C" __global__ void other(real* __restrict__ y, int N) { y[threadIdx.x + N] = helper(1, 2); }
extern "C" __global__ void k(real* __restrict__ y, const real* __restrict__ x, const real* __restrict__ w, int M,
                             int N) {
    __shared__ real tile[16][17];
    int tx = threadIdx.x % 32, row = blockIdx.x * N, lanes = N / M;
    double sum = 0;
    Four four;
    if (row >= M) return;
    bool inside = row < M && tx < N;
    tile[row][tx] = inside ? x[row * N + tx] : real(0);
    copy_async_wait<0>();
    __syncthreads();
    for (int k = 0; k < N; k += 2) {
        sum += tile[row][k] * w[k];
        four.v[k] = fmaxf(real(0.5) * sum, sum);
    }
    sum += __shfl_xor_sync(ALL_LANES, sum, 16);
    y[row * N + tx] = sum - (1 << lanes);
}
"""


def test_every_rule_finds_something():
    kinds = {fault.kind for fault in faults(TEXT)}
    assert kinds == set(RULES)
    assert len(kinds) >= 12


def test_a_fault_changes_one_place_and_no_comment():
    plain = blank_comments(TEXT)
    assert [unit.name for unit in units(plain)] == ["helper", "Four", "other", "k"]
    for fault in faults(TEXT):
        assert plain[fault.begin : fault.end] == TEXT[fault.begin : fault.end] != fault.new
        assert fault.unit.begin <= fault.begin <= fault.end <= fault.unit.end
        if fault.kind == "loop bound":
            assert TEXT[: fault.begin].endswith("k ")


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("guard dropped", "if (row >= M) return;", ";"),
        ("guard dropped", "&& tx < N", ""),
        ("guard dropped", "row < M &&", ""),
        ("padding lost", "inside ? x[row * N + tx] : real(0)", "x[row * N + tx]"),
        ("padding lost", "row < M && tx < N", "true"),
        ("indices exchanged", "[row][tx]", "[tx][row]"),
        ("stale tile", "tile[row][tx] = inside ? x[row * N + tx] : real(0);", ";"),
        ("wait missing", "0", "0 + 1"),
        ("early exit", "", "break; "),
        ("narrow type", "double", "float"),
        ("arms exchanged", "a : b", "b : a"),
        ("wrong array", "x", "w"),
    ],
)
def test_a_rule_rewrites_what_it_says(kind: str, before: str, after: str):
    assert any(
        (fault.kind, TEXT[fault.begin : fault.end].strip(), fault.new.strip()) == (kind, before, after.strip())
        for fault in faults(TEXT)
    )


def test_other_kernels_are_emptied_and_lines_stay():
    short = blanked(TEXT, {"k"})
    assert "helper(1, 2)" not in short
    assert short.count("\n") == TEXT.count("\n")
    assert short.partition("void k(")[2] == TEXT.partition("void k(")[2]


@needs_emulator
def test_lines_that_only_a_gpu_gets_are_left_alone():
    text = "int a;\n#ifdef GPUNET_EMULATOR\nint b;\n#else\nint c;\n#endif\n"
    made = source(text)
    assert active_lines(made)[made.path.name] == {1, 3}


@needs_emulator
def test_the_shelf_hands_out_the_text_it_was_given():
    shelf = Shelf()
    shelf.texts = {"relu": "// nothing", "common/common.cuh": "// nothing either"}
    module = shelf.load("relu", True, False, (("real", "float"),))
    assert module.source.text == "// nothing"
    assert module.source.included["common/common.cuh"] == "// nothing either"
    assert (module.source.includes[0] / "common" / "common.cuh").read_text() == "// nothing either"
    assert "relu_forward_plain" in module.source.signatures
    assert module is shelf.load("relu", True, False, (("real", "float"),))
    assert not shelf.launched
    _ = module.relu_forward_plain
    assert shelf.launched == {("relu", "relu_forward_plain")}
