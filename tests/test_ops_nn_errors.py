"""What activations, dropout, softmax and normalisation refuse, and the words they do it with."""

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


def elsewhere(*shape, dtype="float32"):
    return Tensor._wrap(np.zeros(shape, dtype), devices.Device("sim", None))


#: op -> a call with x in place of its first argument
ONE_FLOAT = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, make(1)),
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "gelu": F.gelu,
    "softplus": F.softplus,
    "dropout": F.dropout,
    "dropout2d": F.dropout2d,
    "softmax": lambda x: F.softmax(x, 0),
    "log_softmax": lambda x: F.log_softmax(x, 0),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "layer_norm": lambda x: F.layer_norm(x, 3),
}


@pytest.mark.parametrize("op", ONE_FLOAT)
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_x_must_be_floating(op, dtype):
    with pytest.raises(DTypeError, match=rf"^{op}: x must be float32 or float64, got {dtype}; use x.float\(\)$"):
        ONE_FLOAT[op](make(2, 3, dtype=dtype))


@pytest.mark.parametrize("op", ONE_FLOAT)
def test_x_must_be_a_tensor(op):
    with pytest.raises(DTypeError, match=f"^{op}: x must be a gpunet tensor, got ndarray"):
        ONE_FLOAT[op](np.zeros((2, 3), "f4"))


def batch_norm(x, **given):
    """batch_norm in training with everything given, and some of it replaced."""
    C = x.shape[1] if x.ndim > 1 else 1
    default = {"running_mean": make(C), "running_var": make(C), "weight": make(C), "bias": make(C), "training": True}
    return F.batch_norm(x, **(default | given))


ERRORS = [
    # activations
    (lambda: F.leaky_relu(make(2), NAN), ArgumentError, "leaky_relu: negative_slope must be no NaN, got nan"),
    (lambda: F.leaky_relu(make(2), "0.1"), ArgumentError, "leaky_relu: negative_slope must be a number, got '0.1'"),
    (
        lambda: F.prelu(make(2, 3), make(2)),
        ShapeError,
        "prelu: weight must have shape (1,) or (3,), one for each channel, got (2,) with x (2, 3)",
    ),
    (lambda: F.prelu(make(3), make(3)), ShapeError, "prelu: weight must have shape (1,), got (3,) with x (3,)"),
    (lambda: F.prelu(make(2, 3), make(3, 1)), ShapeError, "prelu: weight must have shape (1,) or (3,)"),
    (
        lambda: F.prelu(make(2, 3), make(3, dtype="float64")),
        DTypeError,
        "prelu: x and weight must have one dtype, got float32 and float64; use weight.to('float32')",
    ),
    (
        lambda: F.prelu(make(2, 3), elsewhere(3)),
        DeviceError,
        "prelu: x and weight must be on one device, got cpu and sim",
    ),
    (lambda: F.gelu(make(2), "exact"), ArgumentError, "gelu: approximate must be one of 'none', 'tanh', got 'exact'"),
    (lambda: F.softplus(make(2), 0), ArgumentError, "softplus: beta must be finite and not 0, got 0.0"),
    (lambda: F.softplus(make(2), math.inf), ArgumentError, "softplus: beta must be finite and not 0, got inf"),
    (lambda: F.softplus(make(2), 1, NAN), ArgumentError, "softplus: threshold must be no NaN, got nan"),
    # dropout
    (lambda: F.dropout(make(2), 1.5), ArgumentError, "dropout: p must be from 0 to 1, got 1.5"),
    (lambda: F.dropout(make(2), -0.1, False), ArgumentError, "dropout: p must be from 0 to 1, got -0.1"),
    (lambda: F.dropout(make(2), NAN), ArgumentError, "dropout: p must be from 0 to 1, got nan"),
    (lambda: F.dropout(make(2), True), ArgumentError, "dropout: p must be a number, got True"),
    (lambda: F.dropout2d(make(1, 1, 2, 2), 2), ArgumentError, "dropout2d: p must be from 0 to 1, got 2"),
    (
        lambda: F.dropout2d(make(2, 3, 4)),
        ShapeError,
        "dropout2d: x must have 4 axes (N, C, H, W), got 3 in shape (2, 3, 4)",
    ),
    # softmax
    (
        lambda: F.softmax(make(2, 3), 2),
        ArgumentError,
        "softmax: dim must be from -2 to 1 for a tensor with 2 axes, got 2",
    ),
    (
        lambda: F.log_softmax(make(2, 3), -3),
        ArgumentError,
        "log_softmax: dim must be from -2 to 1 for a tensor with 2 axes, got -3",
    ),
    (lambda: F.softmax(make(2, 3), 0.5), ArgumentError, "softmax: dim must be an integer, got 0.5"),
    # batch_norm
    (lambda: batch_norm(make(3)), ShapeError, "batch_norm: x must have at least 2 axes (N, C, ...), got shape (3,)"),
    *(
        (
            lambda name=name: batch_norm(make(4, 3), **{name: make(2)}),
            ShapeError,
            f"batch_norm: {name} must have shape (3,), one number for each channel of x (4, 3), got (2,)",
        )
        for name in ("running_mean", "running_var", "weight", "bias")
    ),
    *(
        (
            lambda name=name: batch_norm(make(4, 3), **{name: make(3, dtype="float64")}),
            DTypeError,
            f"batch_norm: x and {name} must have one dtype, got float32 and float64; use {name}.to('float32')",
        )
        for name in ("running_mean", "running_var", "weight", "bias")
    ),
    (
        lambda: batch_norm(make(4, 3), bias=elsewhere(3)),
        DeviceError,
        "batch_norm: x and bias must be on one device, got cpu and sim; use bias.to('cpu')",
    ),
    (
        lambda: batch_norm(make(4, 3), running_var=None),
        ArgumentError,
        "batch_norm: running_mean and running_var must be given together, got no running_var",
    ),
    (
        lambda: F.batch_norm(make(4, 3), None, None),
        ArgumentError,
        "batch_norm: running_mean and running_var must be given when training=False, got None; pass them, or",
    ),
    (
        lambda: batch_norm(make(1, 3)),
        ShapeError,
        "batch_norm: training needs more than 1 value for each channel, got 1 in x (1, 3)",
    ),
    (lambda: batch_norm(make(1, 3, 1, 1)), ShapeError, "batch_norm: training needs more than 1 value for each channel"),
    (lambda: batch_norm(make(4, 3), momentum=1.5), ArgumentError, "batch_norm: momentum must be from 0 to 1, got 1.5"),
    (lambda: batch_norm(make(4, 3), momentum=None), ArgumentError, "batch_norm: momentum must be a number, got None"),
    (lambda: batch_norm(make(4, 3), eps=-1e-5), ArgumentError, "batch_norm: eps must be at least 0, got -1e-05"),
    (
        lambda: batch_norm(make(4, 3), running_mean=make(3).requires_grad_()),
        GraphError,
        "batch_norm: running_mean must not need a gradient, got requires_grad=True; use .detach()",
    ),
    # layer_norm
    (
        lambda: F.layer_norm(make(2, 3), 4),
        ShapeError,
        "layer_norm: x must end in normalized_shape (4,), got x (2, 3)",
    ),
    (
        lambda: F.layer_norm(make(3), (2, 3)),
        ShapeError,
        "layer_norm: x must end in normalized_shape (2, 3), got x (3,)",
    ),
    (
        lambda: F.layer_norm(make(2, 3), ()),
        ArgumentError,
        "layer_norm: normalized_shape must be an integer or integers",
    ),
    (lambda: F.layer_norm(make(2, 3), (3.0,)), ArgumentError, "layer_norm: normalized_shape must be an integer"),
    (
        lambda: F.layer_norm(make(2, 3), 3, make(2)),
        ShapeError,
        "layer_norm: weight must have shape (3,), that of normalized_shape, got (2,)",
    ),
    (
        lambda: F.layer_norm(make(2, 2, 3), (2, 3), make(2, 3), make(6)),
        ShapeError,
        "layer_norm: bias must have shape (2, 3), that of normalized_shape, got (6,)",
    ),
    (
        lambda: F.layer_norm(make(2, 3), 3, make(3, dtype="float64")),
        DTypeError,
        "layer_norm: x and weight must have one dtype, got float32 and float64",
    ),
    (lambda: F.layer_norm(make(2, 3), 3, elsewhere(3)), DeviceError, "layer_norm: x and weight must be on one device"),
    (lambda: F.layer_norm(make(2, 3), 3, eps=NAN), ArgumentError, "layer_norm: eps must be at least 0, got nan"),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), ERRORS, ids=[f"{k}-{e[2].split(':')[0]}" for k, e in enumerate(ERRORS)]
)
def test_wrong_arguments_are_refused_with_both_sides(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
