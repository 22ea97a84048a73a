"""layer_norm: each row brought to mean 0 and variance 1. Kernels in kernels/layer_norm/."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunet.dispatch import launch
from gpunet.errors import ArgumentError, ShapeError
from gpunet.graph import Function, GradFunction
from gpunet.ops.checks import need_float, need_number, need_shape
from gpunet.tensor import Tensor


class LayerNorm(Function):
    """Every row of x (R, D) normalized, times w (D,), plus b (D,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor | None, b: Tensor | None, *, eps: float) -> Any:
        y, mean, invstd = launch(x.device, "layer_norm.forward", x.data, _raw(w), _raw(b), eps=eps)
        ctx.statistics = {"mean": mean, "invstd": invstd, "eps": eps}
        ctx.save(x, w)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        x, w = ctx.saved
        need_x, need_w, need_b = ctx.needs_input_grad
        gx = LayerNormGradX.apply(gy, x, w, **ctx.statistics) if need_x else None
        if need_w or need_b:
            return gx, *LayerNormGradWB.apply(gy, x, **ctx.statistics)
        return gx, None, None


def _raw(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.data


def _xhat(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Normalized rows and invstd in tensor ops, as functions of x."""
    away = x - x.mean(1, keepdim=True)
    factor = ((away * away).mean(1, keepdim=True) + eps) ** -0.5
    return away * factor, factor


class LayerNormGradWB(GradFunction):
    """The sums over rows of gy * xhat, and of gy."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, *, mean: Any, invstd: Any, eps: float) -> Any:
        return launch(gy.device, "layer_norm.grad_wb", gy.data, x.data, mean, invstd)

    @staticmethod
    def formula(gy: Tensor, x: Tensor, *, mean: Any, invstd: Any, eps: float) -> Any:
        return (gy * _xhat(x, eps)[0]).sum(0), gy.sum(0)


class LayerNormGradX(GradFunction):
    """invstd * (g - mean of g - xhat * mean of (g * xhat)), g = gy * w."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, w: Tensor | None, *, mean: Any, invstd: Any, eps: float) -> Any:
        return launch(gy.device, "layer_norm.grad_x", gy.data, x.data, _raw(w), mean, invstd)

    @staticmethod
    def formula(gy: Tensor, x: Tensor, w: Tensor | None, *, mean: Any, invstd: Any, eps: float) -> Tensor:
        xhat, factor = _xhat(x, eps)
        g = gy if w is None else gy * w
        return factor * (g - g.mean(1, keepdim=True) - xhat * (g * xhat).mean(1, keepdim=True))


def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, with mean and variance over the last axes of x.

    Unlike :func:`batch_norm` it treats each sample alone: nothing is kept, and training and use are the same.

    Args:
        x: (..., *normalized_shape), float32 or float64.
        normalized_shape: sizes of the last axes, over which the statistics run; an integer for one axis.
        weight: of shape normalized_shape, None for ones.
        bias: of shape normalized_shape, None for zeros.
        eps: added to the variance; at least 0.

    Returns:
        Tensor of the shape of x.

    Raises:
        DTypeError: a tensor does not hold floats, or dtypes differ.
        DeviceError: the tensors are on two devices.
        ShapeError: x does not end in normalized_shape, or weight or bias has another shape.
        ArgumentError: normalized_shape is empty or holds no integers, or eps is out of range.

    Precision:
        Two passes, sums in float64 on NumPy: accurate also where the mean is large against the spread. The variance is
        the biased one (divisor D, the product of normalized_shape). NaN or inf in a row makes that row NaN.

    Kernels:
        kernels/layer_norm/: layer_norm.forward, layer_norm.grad_wb, layer_norm.grad_x.

    Source:
        Ba, Kiros and Hinton, "Layer normalization", 2016, section 3.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.layer_norm(gn.tensor([[1.0, 3.0], [10.0, 30.0]]), 2, eps=0.0).tolist()
        [[-1.0, 1.0], [-1.0, 1.0]]
    """
    need_float("layer_norm", x=x, weight=weight, bias=bias)
    whole = isinstance(normalized_shape, int | np.integer)
    sizes = (normalized_shape,) if whole else tuple(normalized_shape or ())
    if not sizes or not all(isinstance(size, int | np.integer) for size in sizes):
        raise ArgumentError(f"layer_norm: normalized_shape must be an integer or integers, got {normalized_shape!r}")
    if x.shape[x.ndim - len(sizes) :] != sizes or len(sizes) > x.ndim:
        raise ShapeError(f"layer_norm: x must end in normalized_shape {sizes}, got x {x.shape}")
    for name, each in (("weight", weight), ("bias", bias)):
        need_shape("layer_norm", name, each, sizes, "that of normalized_shape")
    eps = need_number("layer_norm", "eps", eps, 0)
    D = math.prod(sizes)
    rows = x.reshape(math.prod(x.shape[: x.ndim - len(sizes)]), D)
    w, b = (None if each is None else each.reshape(D) for each in (weight, bias))
    return LayerNorm.apply(rows, w, b, eps=eps).reshape(x.shape)
