"""What the losses refuse, and the words they do it with."""

import math
import re
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import devices, functional
from gpunet.errors import ArgumentError, DeviceError, DTypeError, GraphError, ShapeError
from gpunet.tensor import Tensor

F: Any = functional  # wrong types are passed on purpose
NAN = math.nan


def make(*shape, dtype="float32"):
    return gn.zeros(*shape, dtype=dtype)


def labels(*values):
    return gn.tensor(np.array(values))


def elsewhere(*shape, dtype="float32"):
    return Tensor._wrap(np.zeros(shape, dtype), devices.Device("sim", None))


LOSSES = {
    "mse_loss": F.mse_loss,
    "l1_loss": F.l1_loss,
    "binary_cross_entropy": F.binary_cross_entropy,
    "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
}

ERRORS = [
    # cross_entropy and nll_loss: labels
    *(
        error
        for op, loss, name in (("cross_entropy", F.cross_entropy, "logits"), ("nll_loss", F.nll_loss, "x"))
        for error in (
            (
                lambda loss=loss: loss(make(3, 4), labels(0, 9, 8)),
                ArgumentError,
                f"{op}: target must lie from 0 to 3 (C = 4 classes in {name} (3, 4)) or be ignore_index -100, "
                "got 9 at target[1]",
            ),
            (
                lambda loss=loss: loss(make(2, 4, 3), labels([0, 1, 2], [3, -1, 7]), ignore_index=7),
                ArgumentError,
                f"{op}: target must lie from 0 to 3 (C = 4 classes in {name} (2, 4, 3)) or be ignore_index 7, "
                "got -1 at target[1, 1]",
            ),
            (lambda loss=loss: loss(make(4), gn.tensor(4)), ArgumentError, "or be ignore_index -100, got 4 at target"),
            (
                lambda loss=loss: loss(make(3, 4), labels(0, 1)),
                ShapeError,
                f"{op}: target must have shape (3,), that of {name} (3, 4) without the classes, got (2,)",
            ),
            (
                lambda loss=loss: loss(make(3, 4), labels([0], [1], [2])),
                ShapeError,
                f"{op}: target must have shape (3,), that of {name} (3, 4) without the classes, got (3, 1)",
            ),
            (lambda loss=loss: loss(make(4), labels(1)), ShapeError, f"{op}: target must have shape ()"),
            (lambda loss=loss: loss(make(), labels(1)), ShapeError, f"{op}: {name} must have axes (C,), (N, C)"),
            (
                lambda loss=loss: loss(make(3, 4), labels(0, 1, 2), make(3)),
                ShapeError,
                f"{op}: weight must have shape (4,), one number for each class of {name} (3, 4), got (3,)",
            ),
            (
                lambda loss=loss: loss(make(3, 4), labels(0, 1, 2), make(4, dtype="float64")),
                DTypeError,
                f"{op}: {name} and weight must have one dtype, got float32 and float64",
            ),
            (
                lambda loss=loss: loss(make(3, 4), labels(0, 1, 2), make(4).requires_grad_()),
                GraphError,
                f"{op}: weight must not need a gradient beside labels, got requires_grad=True; use .detach()",
            ),
            (
                lambda loss=loss: loss(make(3, 4, dtype="int64"), labels(0, 1, 2)),
                DTypeError,
                f"{op}: {name} must be float32 or float64, got int64",
            ),
            (
                lambda loss=loss: loss(make(3, 4), labels(0, 1, 2), ignore_index=1.5),
                ArgumentError,
                f"{op}: ignore_index must be an integer, got 1.5",
            ),
            (
                lambda loss=loss: loss(make(3, 4), labels(0, 1, 2), reduction="avg"),
                ArgumentError,
                f"{op}: reduction must be one of 'mean', 'sum', 'none', got 'avg'",
            ),
            (
                lambda loss=loss: loss(make(3, 4), elsewhere(3, dtype="int64")),
                DeviceError,
                f"{op}: target must be on cpu like the input, got sim; use .to('cpu')",
            ),
            (
                lambda loss=loss: loss(make(3, 4), [0, 1, 2]),
                DTypeError,
                f"{op}: target must be a gpunet tensor, got list",
            ),
            (
                lambda loss=loss: loss(make(3, 4), gn.tensor([True, False, True])),
                DTypeError,
                f"{op}: target must hold integers, got bool; use target.long()",
            ),
        )
    ),
    (
        lambda: F.nll_loss(make(3, 4), make(3)),
        DTypeError,
        "nll_loss: target must hold integers, got float32; use target.long()",
    ),
    # cross_entropy: class probabilities
    (
        lambda: F.cross_entropy(make(3, 4), make(3)),
        DTypeError,
        "cross_entropy: target must hold integers (labels), or class probabilities of the shape of logits (3, 4), got "
        "float32 of shape (3,); use target.long() for labels",
    ),
    (
        lambda: F.cross_entropy(make(2, 2), gn.tensor([[0.0, 1.0], [NAN, 1.0]])),
        ArgumentError,
        "cross_entropy: target must not hold NaN, got one at target[1, 0]; clean the data first",
    ),
    (
        lambda: F.cross_entropy(make(2, 2), make(2, 2, dtype="float64")),
        DTypeError,
        "cross_entropy: logits and target must have one dtype, got float32 and float64",
    ),
    (
        lambda: F.cross_entropy(make(2, 2), make(2, 2), ignore_index=1),
        ArgumentError,
        "cross_entropy: ignore_index must be negative beside class probabilities, got 1",
    ),
    (
        lambda: F.cross_entropy(make(2, 3), make(2, 3), make(2)),
        ShapeError,
        "cross_entropy: weight must have shape (3,), one number for each class of logits (2, 3), got (2,)",
    ),
    (lambda: F.cross_entropy(make(), make()), ShapeError, "cross_entropy: logits must have axes (C,), (N, C)"),
    (
        lambda: F.cross_entropy(make(2, 2), elsewhere(2, 2)),
        DeviceError,
        "cross_entropy: logits and target must be on one device, got cpu and sim",
    ),
    *(
        (
            lambda e=e: F.cross_entropy(make(1, 2), labels(0), label_smoothing=e),
            ArgumentError,
            f"cross_entropy: label_smoothing must be from 0 to 1, got {e}",
        )
        for e in (-0.1, 1.1, NAN)
    ),
    # losses of numbers and of probabilities
    *(
        error
        for op, loss in LOSSES.items()
        for error in (
            (
                lambda loss=loss: loss(make(2, 3), make(3)),
                ShapeError,
                f"{op}: target must have shape (2, 3), that of x, got (3,)",
            ),
            (
                lambda loss=loss: loss(make(2), make(2, dtype="float64")),
                DTypeError,
                f"{op}: x and target must have one dtype, got float32 and float64; use target.to('float32')",
            ),
            (
                lambda loss=loss: loss(make(2), labels(0, 1)),
                DTypeError,
                f"{op}: target must be float32 or float64, got int64; use target.float()",
            ),
            (lambda loss=loss: loss(make(2), elsewhere(2)), DeviceError, f"{op}: x and target must be on one device"),
            (
                lambda loss=loss: loss(make(2, 2), gn.tensor([[0.0, NAN], [0.0, NAN]])),
                ArgumentError,
                f"{op}: target must not hold NaN, got one at target[0, 1]; clean the data first",
            ),
            (lambda loss=loss: loss(make(), gn.tensor(NAN)), ArgumentError, "NaN, got one at target;"),
            (
                lambda loss=loss: loss(make(2), make(2), reduction="Mean"),
                ArgumentError,
                f"{op}: reduction must be one of 'mean', 'sum', 'none', got 'Mean'",
            ),
        )
    ),
    *(
        (
            lambda value=value: F.binary_cross_entropy(gn.tensor([0.5, value]), make(2)),
            ArgumentError,
            f"binary_cross_entropy: x must lie from 0 to 1, got {value:g} at x[1]; use sigmoid, or "
            "binary_cross_entropy_with_logits for raw numbers",
        )
        for value in (1.5, -0.25, NAN, math.inf)
    ),
    (
        lambda: F.binary_cross_entropy(gn.tensor(2.0), make()),
        ArgumentError,
        "binary_cross_entropy: x must lie from 0 to 1, got 2 at x;",
    ),
    (
        lambda: F.binary_cross_entropy(make(1, 2), gn.tensor([[0.5, 1.5]])),
        ArgumentError,
        "binary_cross_entropy: target must lie from 0 to 1, got 1.5 at target[0, 1]",
    ),
    *(
        (
            lambda loss=loss: loss(make(2, 3), make(2, 3), weight=make(2)),
            ShapeError,
            f"{op}: weight must broadcast to x (2, 3), got (2,)",
        )
        for op, loss in list(LOSSES.items())[2:]
    ),
    (
        lambda: F.binary_cross_entropy_with_logits(make(3), make(3), pos_weight=make(2, 3)),
        ShapeError,
        "binary_cross_entropy_with_logits: pos_weight must broadcast to x (3,), got (2, 3)",
    ),
    (
        lambda: F.binary_cross_entropy_with_logits(make(3), make(3), pos_weight=make(3, dtype="float64")),
        DTypeError,
        "binary_cross_entropy_with_logits: x and pos_weight must have one dtype, got float32 and float64",
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), ERRORS, ids=[f"{k}-{e[2].split(':')[0]}" for k, e in enumerate(ERRORS)]
)
def test_wrong_arguments_are_refused_with_both_sides(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
