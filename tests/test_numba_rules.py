"""The source of every Numba-CUDA kernel keeps the rules of tests/numba_rules.py, and the rules see what they forbid."""

import ast
from pathlib import Path

import pytest

from tests import numba_rules

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "kernels").glob("*/*_numba_cuda.py"), *(ROOT / "kernels" / "common").glob("*_numba.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_kernels_keep_the_rules(path: Path):
    assert numba_rules.check(path) == []


def test_there_are_kernels():
    assert FILES


HEAD = "@jit.typed\ndef k_kernel(real):\n    def k(y, x, n):\n"
BROKEN = {
    "shared_line": "a, b = cuda.shared.array(32, real), cuda.shared.array(32, real)",
    "shared_type": "a = cuda.shared.array(32, np.float32)",
    "negative_index": "y[-1] = x[0]",
    "bare_float": "y[0] = x[0] * 0.5",
    "barrier under if": "i = cuda.grid(1)\nif i < n:\n    cuda.syncthreads()",
    "barrier under threadIdx": "if cuda.threadIdx.x == 0:\n    cuda.syncthreads()",
    "barrier after return": "i = cuda.grid(1)\nif i >= n:\n    return\ncuda.syncthreads()",
    "barrier in a loop of the thread": "for k in range(cuda.threadIdx.x, n, 32):\n    cuda.syncthreads()",
    "barrier under a derived name": "t = cuda.threadIdx.x\nrow = t // 4\nif row < n:\n    cuda.syncthreads()",
    "barrier under what some threads set": "f = 0\nif cuda.laneid == 0:\n    f = 1\nif f == 1:\n    cuda.syncthreads()",
    "barrier in while": "k = cuda.threadIdx.x\nwhile k < n:\n    cuda.syncthreads()\n    k += 32",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_seen(name: str):
    body = "\n".join(f"        {line}" for line in BROKEN[name].split("\n"))
    found = list(numba_rules.faults(ast.parse(HEAD + body + "\n    return k\n")))
    assert {each.kind for each in found} == {name.split()[0]}
    assert {each.split()[0] for each in BROKEN} == set(numba_rules.KINDS)


FINE = """
t = cuda.threadIdx.x
tile = cuda.shared.array(32, real)
for k in range(0, n, 32):
    tile[t] = x[k + t] if k + t < n else zero
    cuda.syncthreads()
    if t < 16:
        tile[t] += tile[t + 16]
    cuda.syncthreads()
apart = 16
while apart > 0:
    if t < apart:
        tile[t] += tile[t + apart]
    cuda.syncthreads()
    apart //= 2
if t == 0:
    y[cuda.blockIdx.x] = tile[0]
"""


def test_what_is_right_is_left_alone():
    body = "\n".join(f"        {line}" for line in FINE.strip().split("\n"))
    assert list(numba_rules.faults(ast.parse(HEAD + body + "\n    return k\n"))) == []
