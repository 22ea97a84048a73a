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
    "if (row < M && col < N)\n            y": "if (row <= M && col < N)\n            y",
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
    arguments = (y, a, b, None, 0, M, N, K, K, 1, N, 1, 0, 0, 1)
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
    begin, end = (text.index(f"\n// matmul_forward_{name}\n") for name in ("tiled", "register_1d"))
    assert old in text[begin:end]
    broken = text[:begin] + text[begin:end].replace(old, new, 1) + text[end:]
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


#: text -> what it becomes; the first is in the plain rung, all others in the vectorised one
RELU = {
    "if (i < size) y[i]": "if (i <= size) y[i]",
    "p < packs; p += 2 * step": "p <= packs; p += 2 * step",
    "more = p + step < packs": "more = p + step <= packs",
    "two = more ? load_pack(x, p + step) : one": "two = load_pack(x, p + step)",
    "if (more) store_pack(y, p + step, two)": "store_pack(y, p + step, two)",
    "y[rest] = clipped(x[rest])": "y[rest] = clipped(x[rest + 1])",
    "if (rest < size) y[rest]": "if (rest <= size) y[rest]",
    "packs = size / LANES": "packs = (size + LANES - 1) / LANES",
}
LAUNCHES = [  # kernel, blocks, size: with one block, the second pack of a thread is the one behind the last
    ("relu_forward_plain", 4, 1021),
    ("relu_forward_vectorised", 4, 1021),
    ("relu_forward_vectorised", 1, 2045),
]


def run_relu(text: str) -> list[str]:
    """What the emulator refuses of the forward kernels."""
    program = emulator.program(source_of(text, real="float"))
    kinds = []
    for name, blocks, size in LAUNCHES:
        x = np.arange(size, dtype=np.float32)
        y = emulator.mark(np.empty(size, np.float32))
        try:
            emulator.launch(program, name, (blocks, 1, 1), (256, 1, 1), (y, x, size))
        except EmulatorError as error:
            kinds.append(error.kind)
    return kinds


def test_the_shipped_relu_passes():
    assert run_relu(shipped("relu")) == []


@pytest.mark.parametrize("old", RELU)
def test_a_break_of_relu_is_out_of_bounds(old: str):
    text = shipped("relu")
    assert text.count(old) >= 1
    assert set(run_relu(text.replace(old, RELU[old]))) == {"out_of_bounds"}


RELU_MASK = {
    "real out = i < size ?": "real out = i <= size ?",
    "return !(y <= real(0))": "return y >= real(0)",
    "(p - lane) * LANES < size": "p * LANES < size",
    "if (writes && p * LANES < size) mask": "if (writes) mask",
    "if (writes && q * LANES < size) mask": "if (writes) mask",
    "apart = SHARING / 2": "apart = SHARING / 4",
    "bits <<= threadIdx.x % SHARING * LANES": "bits <<= threadIdx.x % SHARING",
    "p * LANES + k < size ? x[p * LANES + k]": "p * LANES + k <= size ? x[p * LANES + k]",
}


def run_relu_mask(text: str, seed: int) -> bool:
    """Whether both kernels that write a mask write the right one, without a complaint."""
    program = emulator.program(source_of(text, real="float"))
    emulator.options.seed = seed
    x = np.random.default_rng(0).standard_normal(933).astype(np.float32)
    x[:40] = 0
    wanted = np.packbits(np.append(x > 0, [False] * 27), bitorder="little").view(np.uint32)
    try:
        for name, blocks in (("plain", 4), ("vectorised", 2), ("vectorised", 1)):
            y, mask = emulator.mark(np.empty_like(x)), emulator.mark(np.empty(30, np.uint32))
            emulator.launch(program, f"relu_forward_mask_{name}", (blocks, 1, 1), (256, 1, 1), (y, mask, x, 933))
            if not np.array_equal(mask, wanted):
                return False
    except EmulatorError:
        return False
    finally:
        emulator.options.seed = 0
    return True


@pytest.mark.parametrize("old", RELU_MASK)
def test_a_break_of_the_mask_of_relu_is_seen(old: str):
    text = shipped("relu")
    assert text.count(old) == 1
    for seed in range(2):
        assert run_relu_mask(text, seed)
        assert not run_relu_mask(text.replace(old, RELU_MASK[old]), seed)
