"""What tests/mutants_cuda.py knows about the kernels: further calls, smaller limits, and faults that change nothing."""

import math
from typing import Any

import numpy as np
from gpunet.kernels.conv2d import implicit_gemm_cupy

from tests.draws import Case, Draw, away, constant, labels, normal, positive, ramp


def _elementwise(op: str, draw: Any = normal, **args: Any) -> list[Case]:
    """Arrays for which each thread goes round several times, and which end inside 16 bytes."""
    name = "_".join(map(str, args.values())) or "plain"
    return [Case(op, f"{name}_rounds_{size}", (draw(size),), args) for size in (1021, 49157)]


def _rows(op: str) -> list[Case]:
    """Rows around what lanes, blocks and registers hold, and rows whose elements lie apart."""
    shapes = [(5, 3), (3, 36), (2, 100), (3, 132), (2, 513), (2, 1028), (1, 4097), (2, 16388), (2, 34001), (65, 16)]
    cases = [Case(op, f"row_{n}x{d}", (normal(n, d),), {"dim": 1}) for n, d in shapes]
    shapes = [(300, 3, 1), (2, 17, 130), (1, 130, 40), (2, 257, 3), (1, 600, 33), (3, 64, 2)]
    return cases + [Case(op, f"apart_{n}x{d}x{s}", (normal(n, d, s),), {"dim": 1}) for n, d, s in shapes]


def _first(value: float, *shape: int) -> Draw:
    """Normal numbers behind a first one that is odd."""

    def values(rng: np.random.Generator) -> np.ndarray:
        x = rng.standard_normal(shape)
        x.reshape(-1)[0] = value
        return x

    return Draw(values)


def _windows(op: str, draw: Any, **args: Any) -> list[Case]:
    """Images wider than a block, more planes than one, and the kinds of windows that have a text of their own."""
    kinds = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (4, 1, 2), (3, 2, 0), (2, 1, 1), (5, 1, 2)]
    shapes = [(2, 3, 8, 8), (1, 1, 9, 12), (1, 1, 5, 261), (1, 70, 5, 4), (1, 1, 5, 1032), (1, 2, 67, 20)]
    name = "_".join(map(str, args.values()))
    return [
        Case(op, f"{name}kind_{k}{s}{p}_{'x'.join(map(str, shape))}", (draw(*shape),), made)
        for shape in shapes
        for k, s, p in kinds
        for made in [{"kernel_size": k, "stride": s, "padding": p, **args}]
    ]


def _layers(*shapes: tuple[int, int]) -> list[Case]:
    """Layers of one axis."""
    made = [(f"size_{n}x{d}", (normal(n, d), normal(d), normal(d)), {"normalized_shape": (d,)}) for n, d in shapes]
    return [Case("layer_norm", *each, names=("weight", "bias")) for each in made]


def _losses(*shapes: tuple[int, int, int]) -> list[Case]:
    """Losses of N x C x S scores, with all options and without any."""
    cases = []
    for n, c, s in shapes:
        for w, e in [((), 0.0), ((positive(c, grad=False),), 0.2)]:
            tensors = (normal(n, c, s), labels(n, s, classes=c, ignored=-100), *w)
            args = {"label_smoothing": e, "reduction": "sum"}
            cases.append(Case("cross_entropy", f"size_{n}x{c}x{s}_{e}", tensors, args))
    return cases


#: calls that tests/cases.py does not make, because its sizes are below a tile, a vector or a round of the grid
EXTRA = [
    *(case for op in ("relu", "leaky_relu") for case in _elementwise(op, away)),
    *(case for op in ("sigmoid", "tanh", "gelu", "softplus", "dropout") for case in _elementwise(op)),
    *_elementwise("gelu", approximate="tanh"),
    Case("dropout2d", "rounds", (normal(3, 41, 21, 13),)),
    Case("prelu", "one_slope_rounds", (away(49157), normal(1))),
    *(Case("prelu", f"images_{n}x{c}x{s}", (away(n, c, s), normal(c))) for n, c, s in [(3, 5, 3277), (7, 300, 5)]),
    *(Case("prelu", f"columns_{n}x{c}", (away(n, c), normal(c))) for n, c in [(301, 35), (9, 2051)]),
    *(case for op in ("softmax", "log_softmax") for case in _rows(op)),
    Case("prelu", "rows_walked", (away(700, 3, 70), normal(3))),
    *(
        Case("matmul", f"tiles_{m}x{n}x{k}", (normal(m, k), normal(k, n)))
        for m, n, k in [(33, 18, 35), (132, 260, 20), (129, 257, 9), (36, 68, 600), (5, 6, 603)]
    ),
    Case("matmul", "batch_of_parts", (normal(2, 8, 600), normal(2, 600, 12))),
    Case("matmul", "groups_of_tiles", (normal(520, 2), normal(2, 130, grad=False))),
    *(Case("conv2d", f"pixels_to_{f}", (normal(2, 9, 4, 4), normal(f, 9, 1, 1), normal(f))) for f in (5, 6, 7)),
    Case("conv2d", "inf_first", (_first(math.inf, 1, 2, 9, 8), normal(3, 2, 3, 3, grad=False), None), {"padding": 1}),
    Case("conv_transpose2d", "inf_first", (_first(math.inf, 1, 2, 9, 8), normal(2, 3, 3, 3, grad=False), None)),
    *(
        Case("batch_norm", f"size_{'x'.join(map(str, shape))}", (normal(*shape), None, None, *wb), {"training": True})
        for shape in [(300, 3), (301, 5, 7), (40, 33), (3, 2, 16), (1, 2, 8300), (5, 3, 852), (9, 1, 33, 32)]
        for wb in [(normal(shape[1]), normal(shape[1]))]
    ),
    Case("batch_norm", "inf_first", (_first(math.inf, 5, 1, 20), None, None, None, None), {"training": True}),
    Case("batch_norm", "huge_first", (_first(1e100, 5, 1, 20), None, None, None, None), {"training": True}),
    Case("batch_norm", "inf_first_column", (_first(math.inf, 9, 5), None, None, None, None), {"training": True}),
    *_layers((9, 31), (2, 255), (2, 256), (3, 516), (2, 1023), (9, 1024), (2, 1025), (1, 4092), (1, 8200)),
    *_layers((65, 4), (130, 130), (1100, 3)),
    *_losses((3, 33, 1), (2, 100, 1), (2, 512, 1), (2, 1025, 1), (2, 4100, 1), (1, 20000, 1)),
    *_losses((2, 65, 5), (3, 21, 40), (1, 300, 3), (129, 4, 1)),
    *_windows("max_pool2d", ramp),
    *_windows("avg_pool2d", normal),
    *_windows("avg_pool2d", normal, count_include_pad=False)[:9],
    Case("avg_pool2d", "large_divisor", (normal(1, 2, 8, 8),), {"kernel_size": 2, "divisor_override": 2**24 + 1}),
    *(
        Case(
            "max_pool2d",
            f"holes_across_{k}{s}",
            (ramp(1, 2, 8, 12),),
            {"kernel_size": k, "stride": s, "dilation": (1, 2)},
        )
        for k, s in [(2, 2), (3, 2), (3, 1)]
    ),
    *(
        Case("max_pool2d", f"nothing_{k}{s}{p}", (constant(1, 2, 8, 8, value=-math.inf),), args, smooth=False)
        for k, s, p in [(2, 2, 0), (3, 2, 1), (3, 1, 1)]
        for args in [{"kernel_size": k, "stride": s, "padding": p}]
    ),
    *(
        Case(op, f"from_{h}x{w}_to_{'x'.join(map(str, out))}", (draw(2, 3, h, w),), {"output_size": out})
        for op, draw in (("adaptive_avg_pool2d", normal), ("adaptive_max_pool2d", ramp))
        for h, w, out in [(7, 7, (1, 1)), (33, 35, (1, 1)), (70, 33, (2, 1)), (17, 36, (3, 5)), (5, 6, (7, 9))]
    ),
]


def _by_turns(rows: int, columns: int, steps: int, lanes: int, many: int, multiprocessors: int, most: int) -> Any:
    """A tile of implicit_gemm and parts of its sums, each choice for some sizes: small calls would see one of them."""
    turn = rows + columns + steps
    return implicit_gemm_cupy.TILES[turn % 3], max(1, min(1 + turn % 2, steps, most))


#: (launchers, name in them) -> a limit so small that the kernels must walk on where a grid's axis ends, or a choice
SMALL: dict[tuple[str, str], Any] = {
    ("matmul.matmul", "MOST_Z"): 4,
    ("max_pool2d.max_pool2d", "MOST_Z"): 2,
    ("batch_norm.batch_norm", "WAVE"): 1,
    ("prelu.prelu", "MOST_ROWS"): 2,
    ("conv2d.implicit_gemm", "best"): _by_turns,
}

_COLLECTED = "collected(g, won, rows, cols, iy + a, ix)"

#: (file, part of the line as it is or becomes, kind, change) -> why it changes no result
EQUIVALENT: dict[tuple[str, str, str, str], str] = {
    ("relu", "real clipped(real x)", "comparison", "< -> <="): "at 0 both sides are 0",
    ("leaky_relu", "real leaky(real x", "comparison", "> -> >="): "at 0 both sides are 0",
    ("adaptive_avg_pool2d", "if (lanes > 32)", "constant off", "32 -> 33"): "lanes is a power of two",
    (
        "avg_pool2d",
        "rows = {H, OH, KH, sh, ph, 1}",
        "constant off",
        "1 -> 2",
    ): "is_square alone reads it",
    ("avg_pool2d", "V = LANES % S", "quotient for remainder", "/ -> %"): "V = 0: all values come one by one",
    ("batch_norm", "{j, stop, TALL, j, 0", "constant off", "1 -> 2"): "a row's place stays 0, below 1 and below 2",
    ("batch_norm", "first = real(0);", "initial value", "real(0 -> real(1"): "any finite number serves",
    ("conv2d/implicit_gemm", "row >= padded_rows", "comparison", ">= -> >"): "the grid ends with the padded sizes",
    (
        "max_pool2d",
        "collected(g, won",
        "padding lost",
        f"unsigned(iy + a) < unsigned(H) ? {_COLLECTED} : real(0) -> {_COLLECTED}",
    ): "store_strip drops what lies outside the image",
    ("conv2d/winograd", "real positive(real value", "comparison", "< -> <="): "at 0 both sides are 0",
    ("cross_entropy", "real kept(real d, real)", "narrow type", "real -> float"): "what it returns is never read",
    ("log_softmax", "first < D; first += RUN", "loop bound", "< -> <="): "a sum more, of nothing",
    ("matmul", "relu && sum < real(0)", "comparison", "< -> <="): "at 0 both sides are 0",
    ("matmul", "k < K; k += TILE", "loop bound", "< -> <="): "a step more, of zeros",
}
