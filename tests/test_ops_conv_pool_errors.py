"""What matmul, linear, the convolutions and the poolings refuse, and the words they do it with."""

from typing import Any

import numpy as np
import pytest

import gpunet as gn
import gpunet.functional as F
from gpunet import devices
from gpunet.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from gpunet.tensor import Tensor

X, W4, B4 = (2, 4, 5, 5), (6, 4, 3, 3), (6,)
NOT_A_TENSOR: Any = [1.0]
NOT_AN_INTEGER: Any = 1.5


def make(shape, dtype="float32"):
    return gn.zeros(*shape, dtype=dtype)


ERRORS = [
    # matmul and linear
    (
        lambda: F.matmul(make((2, 3)), make((4, 5))),
        ShapeError,
        r"matmul: columns of a must equal rows of b, got 3 and 4, from a \(2, 3\) and b \(4, 5\)",
    ),
    (lambda: F.matmul(make((3,)), make((4,))), ShapeError, "matmul: columns of a must equal rows of b, got 3 and 4"),
    (lambda: F.matmul(make(()), make((4,))), ShapeError, "matmul: a must have at least 1 axis"),
    (
        lambda: F.matmul(make((2, 2, 3)), make((3, 3, 4))),
        ShapeError,
        r"matmul: leading axes must be equal or broadcast.*got \(2,\) and \(3,\)",
    ),
    (
        lambda: F.matmul(make((2, 2)), make((2, 2), "int64")),
        DTypeError,
        "matmul: b must be float32 or float64, got int64",
    ),
    (
        lambda: F.matmul(make((2, 2)), make((2, 2), "float64")),
        DTypeError,
        "matmul: a and b must have one dtype, got float32 and float64",
    ),
    (
        lambda: F.matmul(make((2, 2)), NOT_A_TENSOR),
        DTypeError,
        r"matmul: b must be a gpunet tensor, got list; use gn.tensor\(b\)",
    ),
    (
        lambda: F.linear(make((2, 3)), make((5, 4))),
        ShapeError,
        r"linear: x has 3 features on its last axis but weight expects 4, from x \(2, 3\) and weight \(5, 4\)",
    ),
    (lambda: F.linear(make((2, 3)), make((3,))), ShapeError, r"linear: weight must have 2 axes \(OUT, IN\), got 1"),
    (lambda: F.linear(make(()), make((5, 4))), ShapeError, "linear: x must have at least 1 axis"),
    (
        lambda: F.linear(make((2, 3)), make((5, 3)), make((3,))),
        ShapeError,
        r"linear: bias must have shape \(5,\).*got \(3,\)",
    ),
    # conv2d
    (
        lambda: F.conv2d(make((4, 5)), make(W4)),
        ShapeError,
        r"conv2d: x must have 3 or 4 axes .*got 2 in shape \(4, 5\)",
    ),
    (
        lambda: F.conv2d(make(X), make((6, 4, 3))),
        ShapeError,
        r"conv2d: weight must have 4 axes \(F, C/groups, KH, KW\), got 3",
    ),
    (
        lambda: F.conv2d(make((2, 3, 5, 5)), make(W4)),
        ShapeError,
        r"conv2d: x has 3 channels but weight expects 4, from x \(2, 3, 5, 5\) and weight \(6, 4, 3, 3\)",
    ),
    (
        lambda: F.conv2d(make(X), make(W4), groups=2),
        ShapeError,
        r"conv2d: x has 4 channels but weight expects 8 \(4 in each of 2 groups\)",
    ),
    (
        lambda: F.conv2d(make((2, 4, 0, 5)), make(W4)),
        ShapeError,
        r"conv2d: sizes of x must be at least 1, got shape \(2, 4, 0, 5\); only the batch",
    ),
    (
        lambda: F.conv2d(make(X), make((6, 4, 0, 3))),
        ShapeError,
        r"conv2d: every size of weight must be at least 1, got shape \(6, 4, 0, 3\)",
    ),
    (
        lambda: F.conv2d(make(X, "float64"), make(W4)),
        DTypeError,
        "conv2d: x and weight must have one dtype, got float64 and float32",
    ),
    (lambda: F.conv2d(make(X), make(W4), make(B4, "float64")), DTypeError, "conv2d: x and bias must have one dtype"),
    (
        lambda: F.conv2d(make(X, "int64"), make(W4)),
        DTypeError,
        r"conv2d: x must be float32 or float64, got int64; use x.float\(\)",
    ),
    (
        lambda: F.conv2d(NOT_A_TENSOR, make(W4)),
        DTypeError,
        r"conv2d: x must be a gpunet tensor, got list; use gn.tensor\(x\)",
    ),
    (
        lambda: F.conv2d(make(X), make((6, 4, 7, 3)), padding=(0, 1)),
        ShapeError,
        r"conv2d: the window must fit into the padded input, got a window of 7x3 and an input of 5x7 \(5x5 and",
    ),
    (
        lambda: F.conv2d(make(X), make(W4), dilation=3),
        ShapeError,
        r"conv2d: the window must fit.*7x7 \(3x3 with dilation 3x3\)",
    ),
    (lambda: F.conv2d(make(X), make(W4), padding=-1), ArgumentError, "conv2d: padding must be at least 0, got -1"),
    (
        lambda: F.conv2d(make(X), make(W4), padding="full"),
        ArgumentError,
        "conv2d: padding must be one of 'same', 'valid', got 'full'",
    ),
    (
        lambda: F.conv2d(make(X), make(W4), padding="same", stride=2),
        ArgumentError,
        r"conv2d: padding='same' needs stride 1, got stride \(2, 2\)",
    ),
    (
        lambda: F.conv2d(make(X), make(W4), padding=(1, 1, 1)),
        ArgumentError,
        r"conv2d: padding must be an integer or a pair of integers.*got \(1, 1, 1\)",
    ),
    (lambda: F.conv2d(make(X), make(W4), stride=0), ArgumentError, "conv2d: stride must be at least 1, got 0"),
    (
        lambda: F.conv2d(make(X), make(W4), stride=1.5),
        ArgumentError,
        "conv2d: stride must be an integer or a pair.*got 1.5",
    ),
    (lambda: F.conv2d(make(X), make(W4), dilation=0), ArgumentError, "conv2d: dilation must be at least 1, got 0"),
    (
        lambda: F.conv2d(make(X), make(W4), groups=3),
        ArgumentError,
        "conv2d: groups must divide C = 4, got 3; possible are 1, 2, 4",
    ),
    (
        lambda: F.conv2d(make(X), make((6, 1, 3, 3)), groups=4),
        ArgumentError,
        "conv2d: groups must divide F = 6, got 4; possible are 1, 2, 3, 6",
    ),
    (
        lambda: F.conv2d(make(X), make(W4), groups=0),
        ArgumentError,
        "conv2d: groups must be an integer of at least 1, got 0",
    ),
    (
        lambda: F.conv2d(make(X), make(W4), make((4,))),
        ShapeError,
        r"conv2d: bias must have shape \(6,\), one number for each output channel, got \(4,\)",
    ),
    # conv_transpose2d
    (
        lambda: F.conv_transpose2d(make(X), make(W4)),
        ShapeError,
        r"conv_transpose2d: x has 4 channels but weight expects 6.*weight is \(C, F/groups, KH, KW\)",
    ),
    (lambda: F.conv_transpose2d(make((4, 5)), make(W4)), ShapeError, "conv_transpose2d: x must have 3 or 4 axes"),
    (lambda: F.conv_transpose2d(make(X), make((4, 2, 3))), ShapeError, "conv_transpose2d: weight must have 4 axes"),
    (
        lambda: F.conv_transpose2d(make(X), make((4, 2, 3, 3)), make((2,)), groups=2),
        ShapeError,
        r"conv_transpose2d: bias must have shape \(4,\), .*got \(2,\)",
    ),
    (
        lambda: F.conv_transpose2d(make(X), make((4, 2, 3, 3)), groups=3),
        ArgumentError,
        "conv_transpose2d: groups must divide C = 4, got 3",
    ),
    (
        lambda: F.conv_transpose2d(make(X), make((4, 2, 3, 3)), stride=2, output_padding=2),
        ArgumentError,
        "conv_transpose2d: output_padding must be below stride or below dilation, got 2 with stride 2 and dilation 1",
    ),
    (
        lambda: F.conv_transpose2d(make(X), make((4, 2, 3, 3)), output_padding=-1),
        ArgumentError,
        "conv_transpose2d: output_padding must be at least 0, got -1",
    ),
    (
        lambda: F.conv_transpose2d(make(X), make((4, 2, 3, 3)), padding=4),
        ShapeError,
        "conv_transpose2d: the result must have pixels, got size -1x-1.*use less padding",
    ),
    # pooling
    (
        lambda: F.max_pool2d(make(X), 2, padding=2),
        ArgumentError,
        "max_pool2d: padding must be at most half of the window, got 2 for a window of 2; at most 1",
    ),
    (lambda: F.max_pool2d(make(X), 2, dilation=0), ArgumentError, "max_pool2d: dilation must be at least 1, got 0"),
    (
        lambda: F.max_pool2d(make((1, 1, 2, 2)), 2, padding=1, dilation=3),
        ArgumentError,
        "max_pool2d: every window must hold a pixel of the image, got one of 2 with dilation 3 that starts 1 before",
    ),
    (lambda: F.adaptive_avg_pool2d(make(X), 0), ArgumentError, "adaptive_avg_pool2d: output_size must be at least 1"),
    (
        lambda: F.adaptive_max_pool2d(make(X), (1, 2, 3)),
        ArgumentError,
        "adaptive_max_pool2d: output_size must be an integer or a pair",
    ),
    (
        lambda: F.avg_pool2d(make(X), 2, divisor_override=0),
        ArgumentError,
        "avg_pool2d: divisor_override must be an integer other than 0, got 0; None divides",
    ),
    (
        lambda: F.avg_pool2d(make(X), 2, divisor_override=NOT_AN_INTEGER),
        ArgumentError,
        "avg_pool2d: divisor_override must be an integer other than 0, got 1.5",
    ),
]
for _op, _pool in (("max_pool2d", F.max_pool2d), ("avg_pool2d", F.avg_pool2d)):
    ERRORS += [
        (lambda p=_pool: p(make(X), 0), ArgumentError, f"{_op}: kernel_size must be at least 1, got 0"),
        (lambda p=_pool: p(make(X), 2, 0), ArgumentError, f"{_op}: stride must be at least 1, got 0"),
        (lambda p=_pool: p(make(X), 2, 2, -1), ArgumentError, f"{_op}: padding must be at least 0, got -1"),
        (
            lambda p=_pool: p(make(X), 6),
            ShapeError,
            f"{_op}: the window must fit into the padded input, got a window of 6x6 and an input of 5x5",
        ),
    ]
for _op, _pool in (
    ("max_pool2d", F.max_pool2d),
    ("avg_pool2d", F.avg_pool2d),
    ("adaptive_avg_pool2d", F.adaptive_avg_pool2d),
    ("adaptive_max_pool2d", F.adaptive_max_pool2d),
):
    ERRORS += [
        (lambda p=_pool: p(make((5, 5)), 2), ShapeError, f"{_op}: x must have 3 or 4 axes"),
        (lambda p=_pool: p(make((1, 0, 5, 5)), 2), ShapeError, f"{_op}: sizes of x must be at least 1"),
        (lambda p=_pool: p(make(X, "int32"), 2), DTypeError, f"{_op}: x must be float32 or float64, got int32"),
    ]


@pytest.mark.parametrize(
    ("call", "error", "message"), ERRORS, ids=[f"{k}-{e[2].split(':')[0]}" for k, e in enumerate(ERRORS)]
)
def test_wrong_arguments_are_refused_with_both_sides(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_tensors_on_two_devices_are_refused():
    elsewhere = Tensor._wrap(np.zeros(W4, "f4"), devices.Device("sim", None))
    with pytest.raises(
        DeviceError, match=r"conv2d: x and weight must be on one device, got cpu and sim; use weight.to\('cpu'\)"
    ):
        F.conv2d(make(X), elsewhere)
