"""The shipped kernels, broken on purpose one line at a time: every break is refused or gives a wrong result."""

import numpy as np
import pytest

from gpunet.cuda import emulator, source
from gpunet.errors import EmulatorError
from tests.emulated import needs_emulator
from tests.emulated import source as source_of

pytestmark = needs_emulator

M, N, K, TILE = 21, 18, 35, 16

#: text -> what it becomes, and how the emulator calls what follows (None: the result is wrong)
MATMUL = {
    "__syncthreads();  // both tiles": ("// both tiles", {"race", "uninitialised"}),
    "__syncthreads();  // everyone": ("// everyone", {"race"}),
    "first_row + ai < M && k + ak < K;": "first_row + ai < M;",
    "bool a_inside = first_row + ai < M &&": "bool a_inside =",
    "k + bk < K && first_col + bj < N;": "k + bk < K;",
    "bool b_inside = k + bk < K &&": "bool b_inside =",
    "if (row < M && col < N) y": "if (row <= M && col < N) y",
    "as[ty][t] * bs[t][tx]": "as[ty][t + 1] * bs[t][tx]",
    "t < TILE; ++t": "t <= TILE; ++t",
    "k < K; k += TILE": "k + TILE < K; k += TILE",
    "* M + row) * N + col": "* M + row) * M + col",
}


def run_matmul(text: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((M, K)).astype("f4"), rng.standard_normal((K, N)).astype("f4")
    y = emulator.mark(np.full((M, N), np.nan, np.float32))
    program = emulator.program(source_of(text, real="float", TILE=TILE))
    emulator.options.seed = seed
    arguments = (y, a, b, M, N, K, K, 1, N, 1, 0, 0, 1)
    try:
        emulator.launch(program, "matmul_forward_tiled", (2, 2, 1), (TILE, TILE, 1), arguments)
    finally:
        emulator.options.seed = 0
    return np.abs(y - a @ b)


def shipped(op: str) -> str:
    return source.find(op).read_text()


def test_the_shipped_text_passes():
    for seed in range(4):
        assert run_matmul(shipped("matmul"), seed).max() < 1e-4


@pytest.mark.parametrize("old", MATMUL)
def test_a_break_of_matmul_is_seen(old: str):
    change = MATMUL[old]
    new, kinds = change if isinstance(change, tuple) else (change, None)
    text = shipped("matmul")
    assert text.count(old) >= 1
    before, _, after = text.rpartition(old)  # the last rung is the tiled one
    broken = before + new + after
    for seed in range(3):
        kind, off = "", 0.0
        try:
            off = run_matmul(broken, seed).max()
        except EmulatorError as error:
            kind = error.kind
        if kinds is None:
            assert kind or not off < 1e-4
        else:
            assert kind in kinds, "a missing barrier must be refused, whatever the result"


RELU = {
    "if (i < size) y[i]": "if (i <= size) y[i]",
    "if (p < packs) {\n        Pack in": "if (p <= packs) {\n        Pack in",
    "y[packs * LANES + p] = clipped(x[packs * LANES + p])": "y[packs * LANES + p] = clipped(x[packs * LANES + p + 1])",
    "packs = size / LANES": "packs = (size + LANES - 1) / LANES",
}


@pytest.mark.parametrize("old", RELU)
def test_a_break_of_relu_is_out_of_bounds(old: str):
    text = shipped("relu")
    assert text.count(old) >= 1
    program = emulator.program(source_of(text.replace(old, RELU[old]), real="float"))
    x = np.arange(1021, dtype=np.float32)
    caught = []
    for name in ("relu_forward_plain", "relu_forward_vectorised"):
        y = emulator.mark(np.empty(1021, np.float32))
        try:
            emulator.launch(program, name, (4, 1, 1), (256, 1, 1), (y, x, 1021))
        except EmulatorError as error:
            caught.append(error.kind)
    assert caught == ["out_of_bounds"]
