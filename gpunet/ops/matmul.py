"""matmul: the matrix product of the last two axes, batched over the axes in front; and linear, made of it.

Kernels: kernels/matmul/. Cases: tests/cases.py under "matmul". Benchmark: bench/suites/matmul.py.
"""

from typing import Any

import numpy as np

from gpunet.devices import Device
from gpunet.dispatch import fuses, launch
from gpunet.errors import ShapeError
from gpunet.graph import Function
from gpunet.ops.checks import need_float, need_given, need_ndim, one_of
from gpunet.ops.reduce import sum_to
from gpunet.ops.relu import ReluGradX, relu
from gpunet.tensor import Tensor


class MatMul(Function):
    """y = A @ B, where A is a or a with its last two axes exchanged (``transpose_a``), and B likewise.

    Its gradients are gA = gy @ B^T and gB = A^T @ gy: the same Function with other flags, so the family is closed and
    no transpose is ever stored.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        ctx.transpose_a, ctx.transpose_b = transpose_a, transpose_b
        ctx.shape_a, ctx.shape_b = a.shape, b.shape
        need_a, need_b = ctx.needs_input_grad
        ctx.save(a if need_b else None, b if need_a else None)  # each is needed for the other's gradient alone
        return launch(a.device, "matmul.forward", a.data, b.data, transpose_a=transpose_a, transpose_b=transpose_b)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        a, b = ctx.saved
        ta, tb = ctx.transpose_a, ctx.transpose_b
        ga = gb = None
        need_a, need_b = ctx.needs_input_grad
        if need_a:  # where a is stored transposed so must ga be: (gy @ B^T)^T = B @ gy^T
            ga = _product(b, gy, tb, True) if ta else _product(gy, b, False, not tb)
            ga = sum_to(ga, ctx.shape_a)
        if need_b:
            gb = _product(gy, a, True, ta) if tb else _product(a, gy, not ta, False)
            gb = sum_to(gb, ctx.shape_b)
        return ga, gb


class MatMulBias(Function):
    """rows @ weight^T + bias, or the positive part of that, in one pass over the result."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, *, relu: bool) -> Any:
        need_rows, need_weight, _ = ctx.needs_input_grad
        ctx.relu = relu
        arrays = rows.data, weight.data, bias.data
        if relu:
            y = launch(rows.device, "matmul.forward_bias_relu", *arrays, transpose_a=False, transpose_b=True)
        else:
            y = launch(rows.device, "matmul.forward_bias", *arrays, transpose_a=False, transpose_b=True)
        ctx.save(rows if need_weight else None, weight if need_rows else None, y if relu else None)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        rows, weight, y = ctx.saved
        need_rows, need_weight, need_bias = ctx.needs_input_grad
        if ctx.relu:
            gy = ReluGradX.apply(gy, y)
        g_rows = _product(gy, weight, False, False) if need_rows else None
        g_weight = _product(gy, rows, True, False) if need_weight else None
        return g_rows, g_weight, gy.sum(0) if need_bias else None


def _product(a: Tensor, b: Tensor, transpose_a: bool, transpose_b: bool) -> Tensor:
    return MatMul.apply(a, b, transpose_a=transpose_a, transpose_b=transpose_b)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``: rows of a times columns of b, over all leading axes.

    One axis counts as a row for ``a`` and as a column for ``b``, and is left out of the result; so two vectors give
    their inner product.

    Args:
        a: (..., M, K) or (K,), float32 or float64.
        b: (..., K, N) or (K,), same dtype and device. The axes in front broadcast against those of ``a``.

    Returns:
        Tensor of shape (..., M, N); without M where ``a`` has one axis, without N where ``b`` has one.

    Raises:
        ShapeError: an argument has no axes, the inner sizes differ, or the leading axes do not broadcast.
        DTypeError: not a tensor, not float32 or float64, or two dtypes.
        DeviceError: two devices.

    Precision:
        Sums of K products in the dtype of the inputs, in an order that is the kernel's own. inf and NaN follow the
        sum: 0 * inf is NaN. Deterministic on one machine and one kernel. K = 0 gives zeros.

    Kernels:
        kernels/matmul/: matmul.forward, for the product and for both gradients, of any order.

    Source:
        Derived in kernels/matmul/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> a = gn.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> gn.functional.matmul(a, gn.tensor([1.0, 10.0])).tolist()
        [21.0, 43.0]
        >>> (gn.ones(5, 1, 2, 3) @ gn.ones(4, 3, 2)).shape
        (5, 4, 2, 2)
    """
    need_given("matmul", b=b)
    need_float("matmul", a=a, b=b)
    for name, tensor in (("a", a), ("b", b)):
        if tensor.ndim == 0:
            raise ShapeError(f"matmul: {name} must have at least 1 axis, got a single number; use * to scale")
    inner_a, inner_b = a.shape[-1], b.shape[-2 if b.ndim > 1 else 0]
    if inner_a != inner_b:
        raise ShapeError(
            f"matmul: columns of a must equal rows of b, got {inner_a} and {inner_b}, from a {a.shape} and b {b.shape}"
            "; use .transpose(-1, -2) where one lies the other way round"
        )
    if b.ndim <= 2:  # one matrix for all rows of a: their leading axes become one long axis of rows
        rows = a.reshape(_rows(a.shape), inner_a) if a.ndim != 2 else a
        columns = b if b.ndim == 2 else b.reshape(inner_b, 1)
        return MatMul.apply(rows, columns).reshape(*a.shape[:-1], *b.shape[1:])
    _need_batches(a, b)
    if a.ndim == 1:
        y = MatMul.apply(a.reshape(1, inner_a), b)
        return y.reshape(*y.shape[:-2], y.shape[-1])
    return MatMul.apply(a, b)


def _rows(shape: tuple[int, ...]) -> int:
    """The number of rows when all axes but the last become one."""
    return int(np.prod(shape[:-1]))


def _need_batches(a: Tensor, b: Tensor) -> None:
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"matmul: leading axes must be equal or broadcast (sizes equal or 1), got {a.shape[:-2]} and "
            f"{b.shape[:-2]}, from a {a.shape} and b {b.shape}"
        ) from None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """``x @ weight^T + bias``: each output feature is a weighted sum of all input features.

    With ``activation="relu"`` of that the positive part, which a GPU kernel can finish before it writes the sum.

    Args:
        x: (..., IN), float32 or float64; any number of leading axes, none included.
        weight: (OUT, IN), one row for each output feature.
        bias: (OUT,), or None for no bias.
        activation: None or "relu".

    Returns:
        Tensor of shape (..., OUT).

    Raises:
        ArgumentError: another activation.
        ShapeError: x has no axes, weight has not two, or sizes disagree.
        DTypeError: not a tensor, not float32 or float64, or two dtypes.
        DeviceError: two devices.

    Precision:
        As :func:`matmul`; the bias is added last.

    Kernels:
        kernels/matmul/: matmul.forward with transpose_b, one product for all leading axes together; or, where the
        device has kernels for it, matmul.forward_bias and matmul.forward_bias_relu (:func:`gpunet.use_fused` decides
        by name).

    Source:
        Derived in kernels/matmul/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> x, weight = gn.ones(2, 3), gn.tensor([[1.0, 2.0, 3.0]])
        >>> gn.functional.linear(x, weight, gn.tensor([0.5])).tolist()
        [[6.5], [6.5]]
    """
    need_given("linear", weight=weight)
    need_float("linear", x=x, weight=weight, bias=bias)
    need_ndim("linear", "weight", weight, (2,), "(OUT, IN)")
    one_of("linear", "activation", activation, (None, "relu"))
    if x.ndim == 0:
        raise ShapeError("linear: x must have at least 1 axis (..., IN), got a single number")
    if x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: x has {x.shape[-1]} features on its last axis but weight expects {weight.shape[1]}, "
            f"from x {x.shape} and weight {weight.shape}"
        )
    out = weight.shape[0]
    if bias is not None and bias.shape != (out,):
        raise ShapeError(f"linear: bias must have shape ({out},), one number for each row of weight, got {bias.shape}")
    rows = x if x.ndim == 2 else x.reshape(_rows(x.shape), x.shape[-1])
    positive = activation == "relu"
    if bias is not None and _fuses(rows.device, positive):
        y = MatMulBias.apply(rows, weight, bias, relu=positive)
    else:
        y = MatMul.apply(rows, weight, transpose_b=True)
        y = y if bias is None else y + bias
        y = relu(y) if positive else y
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], out)


def _fuses(device: Device, positive: bool) -> bool:
    if positive:
        return fuses(device, "matmul.forward_bias_relu", "matmul.forward", "relu.forward")
    return fuses(device, "matmul.forward_bias", "matmul.forward")
