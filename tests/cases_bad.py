"""What every op must refuse, and the words its message must hold: the other half of tests/cases.py.

Faults that any op can be given (not a tensor, integers, two dtypes) are made from the ordinary cases by
tests/test_bad_input.py. Here are those that belong to one op: ranks, sizes, arguments, values.
"""

from typing import Any, NamedTuple

import numpy as np

from gpunet.errors import ArgumentError, DTypeError, GraphError, ShapeError
from tests.draws import Draw, labels, normal, positive, unit


class Bad(NamedTuple):
    """A call that must raise ``error`` with all ``words`` in its message."""

    op: str
    name: str
    tensors: tuple[Any, ...]
    args: dict[str, Any]
    error: type[Exception]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


def _of(op: str, *rows: tuple[Any, ...]) -> list[Bad]:
    return [Bad(op, name, tuple(tensors), args, error, tuple(words)) for name, tensors, args, error, *words in rows]


def holding(value: float, *shape: int) -> Draw:
    """Halves, and ``value`` at index (1, 0, ...)."""

    def values(rng: np.random.Generator) -> np.ndarray:
        out = np.full(shape, 0.5)
        out[(1, *[0] * (len(shape) - 1))] = value
        return out

    return Draw(values, grad=False)


def label(value: int, *shape: int) -> Draw:
    """Zeros, and ``value`` at the last position."""

    def values(rng: np.random.Generator) -> np.ndarray:
        out = np.zeros(shape, np.int64)
        out.reshape(-1)[-1] = value
        return out

    return Draw(values, grad=False)


X, W, B = normal(2, 4, 5, 5), normal(6, 4, 3, 3), normal(6)

CONV = _of(
    "conv2d",
    ("rank_x", [normal(4, 5), W], {}, ShapeError, "3 or 4 axes", "(4, 5)"),
    ("rank_w", [X, normal(6, 4, 3)], {}, ShapeError, "4 axes", "(6, 4, 3)"),
    ("channels", [X, normal(6, 3, 3, 3)], {}, ShapeError, "4 channels", "expects 3", "(2, 4, 5, 5)", "(6, 3, 3, 3)"),
    ("bias", [X, W, normal(5)], {}, ShapeError, "(6,)", "(5,)"),
    ("no_pixels", [normal(2, 4, 0, 5), W], {}, ShapeError, "at least 1", "(2, 4, 0, 5)"),
    ("no_channels", [normal(2, 0, 5, 5), normal(6, 0, 3, 3)], {}, ShapeError, "at least 1", "(2, 0, 5, 5)"),
    ("no_filters", [X, normal(0, 4, 3, 3)], {}, ShapeError, "at least 1", "(0, 4, 3, 3)"),
    ("window_too_large", [X, normal(6, 4, 7, 3)], {}, ShapeError, "7x3", "5x5", "padding"),
    ("dilated_too_large", [X, W], {"dilation": 3}, ShapeError, "7x7", "dilation", "5x5"),
    ("stride_0", [X, W], {"stride": 0}, ArgumentError, "stride", "at least 1", "got 0"),
    ("stride_float", [X, W], {"stride": 1.5}, ArgumentError, "stride", "integer", "1.5"),
    ("stride_triple", [X, W], {"stride": (1, 1, 1)}, ArgumentError, "stride", "pair", "(1, 1, 1)"),
    ("negative_padding", [X, W], {"padding": (0, -1)}, ArgumentError, "padding", "at least 0", "-1"),
    ("unknown_padding", [X, W], {"padding": "full"}, ArgumentError, "'same'", "'valid'", "'full'"),
    ("same_with_stride", [X, W], {"padding": "same", "stride": 2}, ArgumentError, "stride 1", "(2, 2)"),
    ("dilation_0", [X, W], {"dilation": 0}, ArgumentError, "dilation", "at least 1"),
    ("groups_0", [X, W], {"groups": 0}, ArgumentError, "groups", "at least 1", "got 0"),
    ("groups_of_channels", [X, W], {"groups": 3}, ArgumentError, "C = 4", "got 3", "1, 2, 4"),
    ("groups_of_filters", [X, normal(6, 1, 3, 3)], {"groups": 4}, ArgumentError, "F = 6", "got 4", "1, 2, 3, 6"),
    ("groups_and_channels", [X, W], {"groups": 2}, ShapeError, "4 channels", "8", "groups"),
) + _of(
    "conv_transpose2d",
    ("rank_x", [normal(4, 5), normal(4, 2, 3, 3)], {}, ShapeError, "3 or 4 axes", "(4, 5)"),
    ("rank_w", [X, normal(4, 2, 3)], {}, ShapeError, "4 axes", "(4, 2, 3)"),
    ("channels", [X, normal(3, 2, 3, 3)], {}, ShapeError, "4 channels", "expects 3"),
    ("bias", [X, normal(4, 2, 3, 3), normal(3)], {}, ShapeError, "(2,)", "(3,)"),
    ("negative_padding", [X, normal(4, 2, 3, 3)], {"padding": -1}, ArgumentError, "padding", "at least 0", "-1"),
    ("much_output_padding", [X, normal(4, 2, 3, 3)], {"output_padding": 1}, ArgumentError, "below stride", "got 1"),
    ("nothing_left", [normal(1, 1, 1, 1), normal(1, 1, 2, 2)], {"padding": 1}, ShapeError, "pixels", "0x0", "padding"),
    ("groups", [X, normal(4, 2, 3, 3)], {"groups": 3}, ArgumentError, "C = 4", "got 3"),
)

POOL = [
    bad
    for op in ("max_pool2d", "avg_pool2d")
    for bad in _of(
        op,
        ("rank", [normal(5, 5)], {"kernel_size": 2}, ShapeError, "3 or 4 axes", "(5, 5)"),
        ("no_pixels", [normal(2, 3, 0, 4)], {"kernel_size": 2}, ShapeError, "at least 1", "(2, 3, 0, 4)"),
        ("window_too_large", [normal(1, 2, 3, 5)], {"kernel_size": 4}, ShapeError, "4x4", "3x5", "padding"),
        ("kernel_0", [X], {"kernel_size": 0}, ArgumentError, "kernel_size", "at least 1", "got 0"),
        ("kernel_float", [X], {"kernel_size": 2.0}, ArgumentError, "kernel_size", "integer", "2.0"),
        ("stride_0", [X], {"kernel_size": 2, "stride": 0}, ArgumentError, "stride", "at least 1"),
        ("negative_padding", [X], {"kernel_size": 2, "padding": -1}, ArgumentError, "padding", "at least 0"),
        ("wide_padding", [X], {"kernel_size": 3, "padding": 2}, ArgumentError, "half", "got 2", "at most 1"),
    )
] + _of(
    "max_pool2d",
    ("dilation_0", [X], {"kernel_size": 2, "dilation": 0}, ArgumentError, "dilation", "at least 1"),
    ("dilated_too_large", [X], {"kernel_size": 3, "dilation": 3}, ShapeError, "7x7", "5x5"),
) + _of(
    "avg_pool2d",
    ("divisor_0", [X], {"kernel_size": 2, "divisor_override": 0}, ArgumentError, "divisor_override", "other than 0"),
)  # fmt: skip

POOL += [
    bad
    for op in ("adaptive_avg_pool2d", "adaptive_max_pool2d")
    for bad in _of(
        op,
        ("rank", [normal(5, 5)], {"output_size": 2}, ShapeError, "3 or 4 axes", "(5, 5)"),
        ("no_pixels", [normal(2, 3, 4, 0)], {"output_size": 2}, ShapeError, "at least 1", "(2, 3, 4, 0)"),
        ("size_0", [X], {"output_size": 0}, ArgumentError, "output_size", "at least 1", "got (0, 0)"),
        ("size_of_three", [X], {"output_size": (1, 2, 3)}, ArgumentError, "output_size", "pair", "(1, 2, 3)"),
    )
]

DENSE = _of(
    "matmul",
    ("inner", [normal(3, 4), normal(5, 2)], {}, ShapeError, "4 and 5", "(3, 4)", "(5, 2)", "transpose"),
    ("number", [normal(), normal(2, 2)], {}, ShapeError, "at least 1 axis"),
    ("batches", [normal(2, 3, 4), normal(3, 4, 2)], {}, ShapeError, "broadcast", "(2,)", "(3,)"),
    ("vectors", [normal(3), normal(4)], {}, ShapeError, "3 and 4"),
) + _of(
    "linear",
    ("features", [normal(5, 4), normal(3, 6)], {}, ShapeError, "4 features", "expects 6", "(5, 4)", "(3, 6)"),
    ("rank_w", [normal(5, 4), normal(4)], {}, ShapeError, "2 axes", "(4,)"),
    ("bias", [normal(5, 4), normal(3, 4), normal(4)], {}, ShapeError, "(3,)", "(4,)"),
    ("number", [normal(), normal(3, 4)], {}, ShapeError, "at least 1 axis"),
)

POINTWISE = _of(
    "prelu",
    ("slopes", [normal(2, 3, 4), normal(4)], {}, ShapeError, "(1,)", "(3,)", "(4,)"),
    ("rank_w", [normal(2, 3), normal(1, 3)], {}, ShapeError, "(3,)", "(1, 3)"),
) + _of(
    "leaky_relu", ("slope", [normal(3)], {"negative_slope": "steep"}, ArgumentError, "negative_slope", "'steep'")
) + _of(
    "gelu", ("form", [normal(3)], {"approximate": "erf"}, ArgumentError, "'none'", "'tanh'", "'erf'")
) + _of(
    "softplus", ("beta", [normal(3)], {"beta": float("nan")}, ArgumentError, "beta", "nan")
) + [
    bad
    for op, x in (("dropout", normal(3, 4)), ("dropout2d", normal(2, 3, 4, 4)))
    for bad in _of(
        op,
        ("p_negative", [x], {"p": -0.1}, ArgumentError, "p", "0 to 1", "-0.1"),
        ("p_above_1", [x], {"p": 1.5}, ArgumentError, "p", "0 to 1", "1.5"),
        ("p_nan", [x], {"p": float("nan")}, ArgumentError, "p", "0 to 1", "nan"),
        ("p_text", [x], {"p": "half"}, ArgumentError, "p", "number", "'half'"),
    )
] + _of("dropout2d", ("rank", [normal(3, 4)], {}, ShapeError, "4 axes", "(3, 4)"))  # fmt: skip

AXIS = [
    bad
    for op in ("softmax", "log_softmax")
    for bad in _of(
        op,
        ("dim_high", [normal(2, 3)], {"dim": 2}, ArgumentError, "dim", "-2 to 1", "got 2"),
        ("dim_low", [normal(2, 3)], {"dim": -3}, ArgumentError, "dim", "-2 to 1", "got -3"),
        ("dim_float", [normal(2, 3)], {"dim": 1.0}, ArgumentError, "dim", "integer", "1.0"),
    )
]

RUNNING = [normal(4, grad=False), positive(4, grad=False)]
NORM = _of(
    "batch_norm",
    ("rank", [normal(4), *RUNNING], {"training": True}, ShapeError, "at least 2 axes", "(4,)"),
    ("channels", [normal(3, 5), *RUNNING], {"training": True}, ShapeError, "(5,)", "(4,)"),
    ("weight", [normal(3, 4), *RUNNING, normal(3)], {"training": True}, ShapeError, "weight", "(4,)", "(3,)"),
    ("bias", [normal(3, 4), *RUNNING, None, normal(4, 1)], {}, ShapeError, "bias", "(4,)", "(4, 1)"),
    ("one_value", [normal(1, 4), *RUNNING], {"training": True}, ShapeError, "more than 1 value", "(1, 4)"),
    ("no_statistics", [normal(3, 4), None, None], {}, ArgumentError, "running_mean", "training=True"),
    ("half_statistics", [normal(3, 4), RUNNING[0], None], {"training": True}, ArgumentError, "together", "running_var"),
    ("momentum", [normal(3, 4), *RUNNING], {"training": True, "momentum": 2}, ArgumentError, "momentum", "0 to 1", "2"),
    ("eps", [normal(3, 4), *RUNNING], {"training": True, "eps": -1.0}, ArgumentError, "eps", "at least 0", "-1"),
    ("trained_statistics", [normal(3, 4), normal(4), RUNNING[1]], {}, GraphError, "running_mean", "detach"),
) + _of(
    "layer_norm",
    ("shape", [normal(3, 4)], {"normalized_shape": (5,)}, ShapeError, "(5,)", "(3, 4)"),
    ("long_shape", [normal(4)], {"normalized_shape": (3, 4)}, ShapeError, "(3, 4)", "(4,)"),
    ("empty_shape", [normal(3, 4)], {"normalized_shape": ()}, ArgumentError, "normalized_shape", "()"),
    ("weight", [normal(3, 4)], {"normalized_shape": 4, "weight": normal(3)}, ShapeError, "weight", "(4,)", "(3,)"),
    ("eps", [normal(3, 4)], {"normalized_shape": 4, "eps": float("nan")}, ArgumentError, "eps", "nan"),
)

LOGITS = normal(3, 4)
LOSS = [
    bad
    for op in ("cross_entropy", "nll_loss")
    for bad in _of(
        op,
        ("label_high", [LOGITS, label(4, 3)], {}, ArgumentError, "0 to 3", "C = 4", "got 4", "target[2]"),
        ("label_low", [LOGITS, label(-1, 3)], {}, ArgumentError, "0 to 3", "got -1", "target[2]"),
        ("number", [normal(), labels(classes=1)], {}, ShapeError, "axes"),
        ("shape", [LOGITS, labels(4, classes=4)], {}, ShapeError, "(3,)", "(4,)", "(3, 4)"),
        ("rank", [LOGITS, labels(3, 1, classes=4)], {}, ShapeError, "(3,)", "(3, 1)"),
        ("float_target", [LOGITS, unit(3, grad=False)], {}, DTypeError, "integers", "float32", "long()"),
        ("weight", [LOGITS, labels(3, classes=4), positive(3, grad=False)], {}, ShapeError, "weight", "(4,)", "(3,)"),
        ("trained_weight", [LOGITS, labels(3, classes=4), positive(4)], {}, GraphError, "weight", "detach"),
        ("reduction", [LOGITS, labels(3, classes=4)], {"reduction": "avg"}, ArgumentError, "'mean'", "'sum'", "'avg'"),
        ("ignore", [LOGITS, labels(3, classes=4)], {"ignore_index": 0.5}, ArgumentError, "ignore_index", "0.5"),
    )
] + _of(
    "cross_entropy",
    ("smoothing", [LOGITS, labels(3, classes=4)], {"label_smoothing": 1.2}, ArgumentError, "label_smoothing", "1.2"),
    ("nan_target", [LOGITS, holding(np.nan, 3, 4)], {}, ArgumentError, "NaN", "target[1, 0]"),
)  # fmt: skip
for _op in ("mse_loss", "l1_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"):
    LOSS += _of(
        _op,
        ("shape", [unit(3, 4), unit(3)], {}, ShapeError, "target", "(3, 4)", "(3,)"),
        ("nan_target", [unit(3, 4), holding(np.nan, 3, 4)], {}, ArgumentError, "target", "NaN", "[1, 0]"),
        ("reduction", [unit(3), unit(3)], {"reduction": "batchmean"}, ArgumentError, "'mean'", "'batchmean'"),
    )
LOSS += _of(
    "binary_cross_entropy",
    ("x_above_1", [holding(1.5, 3, 4), unit(3, 4)], {}, ArgumentError, "0 to 1", "1.5", "x[1, 0]", "with_logits"),
    ("target_below_0", [unit(3, 4), holding(-0.5, 3, 4)], {}, ArgumentError, "0 to 1", "-0.5", "target[1, 0]"),
    ("weight", [unit(3, 4), unit(3, 4), positive(3, grad=False)], {}, ShapeError, "weight", "(3, 4)", "(3,)"),
)

BAD: list[Bad] = [*CONV, *POOL, *DENSE, *POINTWISE, *AXIS, *NORM, *LOSS]
