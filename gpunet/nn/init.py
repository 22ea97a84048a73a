"""Filling tensors with starting values, in place. PyTorch's names, formulas and defaults.

Random values are drawn on the host in float64 from ``gpunet.random``'s generator and then cast: one seed gives the
same weights on every device, and in float32 the rounded weights of float64. Each function returns its tensor.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

from gpunet import random
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.checks import need_number, need_tensor, one_of
from gpunet.tensor import Tensor

_GAINS: dict[str, float] = {
    **dict.fromkeys(("linear", "conv2d", "conv_transpose2d", "sigmoid"), 1.0),
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "selu": 3 / 4,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much weights must be scaled for ``nonlinearity`` to keep the variance of what passes through.

    Args:
        nonlinearity: "linear", "conv2d", "conv_transpose2d", "sigmoid", "tanh", "relu", "leaky_relu" or "selu".
        param: slope below 0 of "leaky_relu"; None means 0.01.

    Raises:
        ArgumentError: another name, or a param that is no number.

    Example:
        >>> round(calculate_gain("relu") ** 2, 6)
        2.0
    """
    op = "calculate_gain"
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else need_number(op, "param", param)
        return math.sqrt(2 / (1 + slope**2))
    return _GAINS[one_of(op, "nonlinearity", nonlinearity, (*_GAINS, "leaky_relu"))]


def _fill(op: str, tensor: Tensor, draw: Callable[[tuple[int, ...]], Any]) -> Any:
    """The tensor's values become ``draw(shape)``."""
    need_tensor(op, tensor=tensor)
    tensor.data[...] = tensor.device.asarray(draw(tensor.shape), tensor.dtype)
    tensor._bump(op)
    return tensor


def _fans(op: str, tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of weights (OUT, IN, window ...): how many numbers meet in an output, and come of an input."""
    need_tensor(op, tensor=tensor)
    if tensor.ndim < 2:
        raise ShapeError(f"{op}: tensor must have at least 2 axes (OUT, IN, ...), got shape {tensor.shape}")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform values from ``a`` to ``b``."""
    return _fill("uniform_", tensor, lambda shape: random.generator().uniform(a, b, shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal values of this mean and standard deviation."""
    need_number("normal_", "std", std, 0)
    return _fill("normal_", tensor, lambda shape: random.generator().normal(mean, std, shape))


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Normal values given that they lie between ``a`` and ``b``, by the inverse of the distribution function.

    Args:
        tensor: what to fill.
        mean: mean of the normal distribution before it is cut.
        std: its standard deviation, above 0.
        a: smallest value, absolute and not in units of std.
        b: largest value, absolute.

    Raises:
        ArgumentError: std is not above 0, or a is not below b.
    """
    if need_number("trunc_normal_", "std", std, 0) == 0:
        raise ArgumentError("trunc_normal_: std must be above 0, got 0")
    if not a < b:
        raise ArgumentError(f"trunc_normal_: a must be below b, got a={a} and b={b}")
    normal = NormalDist(mean, std)

    def draw(shape: tuple[int, ...]) -> Any:
        levels = random.generator().uniform(normal.cdf(a), normal.cdf(b), math.prod(shape))
        inside = np.clip(levels, 1e-300, 1 - 2**-53)  # inv_cdf takes neither 0 nor 1
        return np.clip(np.fromiter(map(normal.inv_cdf, inside), float, inside.size), a, b).reshape(shape)

    return _fill("trunc_normal_", tensor, draw)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """``val`` everywhere."""
    return _fill("constant_", tensor, lambda shape: np.full(shape, val))


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return _fill("zeros_", tensor, np.zeros)


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return _fill("ones_", tensor, np.ones)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform values with bound ``gain * sqrt(6 / (fan_in + fan_out))``.

    Source:
        Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", eq. 16.
    """
    bound = gain * math.sqrt(6 / max(1, sum(_fans("xavier_uniform_", tensor))))
    return _fill("xavier_uniform_", tensor, lambda shape: random.generator().uniform(-bound, bound, shape))


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal values with deviation ``gain * sqrt(2 / (fan_in + fan_out))``.

    Source:
        Glorot and Bengio 2010, eq. 12.
    """
    std = gain * math.sqrt(2 / max(1, sum(_fans("xavier_normal_", tensor))))
    return _fill("xavier_normal_", tensor, lambda shape: random.generator().normal(0, std, shape))


def _kaiming_std(op: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fan = _fans(op, tensor)[("fan_in", "fan_out").index(one_of(op, "mode", mode, ("fan_in", "fan_out")))]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fan))


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform values with bound ``gain * sqrt(3 / fan)``, where gain is :func:`calculate_gain`'s with slope ``a``.

    Args:
        tensor: weights (OUT, IN, window ...).
        a: slope below 0 of the leaky relu that follows.
        mode: "fan_in" keeps the variance of forward, "fan_out" that of backward.
        nonlinearity: a name that :func:`calculate_gain` knows.

    Raises:
        ShapeError: fewer than 2 axes.
        ArgumentError: an unknown mode or nonlinearity.

    Source:
        He et al. 2015, "Delving deep into rectifiers", section 2.2.
    """
    bound = math.sqrt(3) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return _fill("kaiming_uniform_", tensor, lambda shape: random.generator().uniform(-bound, bound, shape))


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal values with deviation ``gain / sqrt(fan)``; arguments as for :func:`kaiming_uniform_`."""
    std = _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity)
    return _fill("kaiming_normal_", tensor, lambda shape: random.generator().normal(0, std, shape))


def orthogonal_(tensor: Tensor, gain: float = 1) -> Tensor:
    """``gain`` times a random matrix (OUT, rest) whose rows, or columns if they are fewer, are orthonormal.

    Source:
        Saxe et al. 2013, "Exact solutions to the nonlinear dynamics of learning"; the signs of R's diagonal make
        the distribution uniform (Mezzadri 2007, section 5).
    """
    _fans("orthogonal_", tensor)

    def draw(shape: tuple[int, ...]) -> Any:
        rows, columns = shape[0], math.prod(shape[1:])
        q, r = np.linalg.qr(random.generator().standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.sign(np.diagonal(r))
        return gain * (q if rows >= columns else q.T).reshape(shape)

    return _fill("orthogonal_", tensor, draw)
