"""Losses that need no kernel of their own: they are composed of tensor ops. cross_entropy has a file and kernels."""

import math
from typing import Any

import numpy as np

from gpunet.devices import Device
from gpunet.errors import ArgumentError, GraphError, ShapeError
from gpunet.graph import Function
from gpunet.ops.checks import need_float, need_given, need_integer, need_shape, one_of
from gpunet.ops.elementwise import where
from gpunet.ops.shape import take_along
from gpunet.ops.softplus import softplus
from gpunet.tensor import Tensor

REDUCTIONS = ("mean", "sum", "none")


# ------------------------------------------------------------------------------------------------- shared by losses


def reduced(loss: Tensor, reduction: str, total: Tensor | float | None = None) -> Tensor:
    """The losses as they are, their sum, or their sum over ``total`` (None: how many there are)."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if total is None else loss.sum() / total


def first_where(bad: Any, device: Device) -> tuple[int, ...] | None:
    """The first true position of a raw bool array, or None."""
    if not bad.any():
        return None
    return tuple(int(k) for k in np.unravel_index(int(device.to_host(bad).argmax()), bad.shape))


def _at(name: str, place: tuple[int, ...]) -> str:
    """``target[1, 0]``, or ``target`` for a single number."""
    return f"{name}[{', '.join(map(str, place))}]" if place else name


def need_no_nan(op: str, name: str, tensor: Tensor) -> None:
    """A target without NaN: one NaN would make the loss, and then every weight, NaN."""
    place = first_where(tensor.device.xp.isnan(tensor.data), tensor.device)
    if place is not None:
        raise ArgumentError(f"{op}: {name} must not hold NaN, got one at {_at(name, place)}; clean the data first")


def _need_unit(op: str, name: str, tensor: Tensor, remedy: str) -> None:
    place = first_where(~((tensor.data >= 0) & (tensor.data <= 1)), tensor.device)  # NaN is in no range
    if place is not None:
        value = float(tensor.data[place])
        raise ArgumentError(f"{op}: {name} must lie from 0 to 1, got {value:g} at {_at(name, place)}; {remedy}")


def class_labels(
    op: str, name: str, x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
) -> tuple[Tensor, Any, Tensor]:
    """Checked labels: x as (N, C, S), target as raw int64 (N, S), and the total weight that "mean" divides by.

    ``name`` is what the caller's x is called.
    """
    need_given(op, target=target)
    need_float(op, **{name: x, "weight": weight})
    need_integer(op, x, target=target)
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int | np.integer):
        raise ArgumentError(f"{op}: ignore_index must be an integer, got {ignore_index!r}")
    if x.ndim == 0:
        raise ShapeError(f"{op}: {name} must have axes (C,), (N, C) or (N, C, ...), got a single number")
    C = x.shape[min(x.ndim - 1, 1)]
    need_shape(op, "weight", weight, (C,), f"one number for each class of {name} {x.shape}")
    if weight is not None and weight.requires_grad:
        raise GraphError(f"{op}: weight must not need a gradient beside labels, got requires_grad=True; use .detach()")
    shape = () if x.ndim == 1 else (x.shape[0], *x.shape[2:])
    need_shape(op, "target", target, shape, f"that of {name} {x.shape} without the classes")
    keep = target.data != ignore_index
    place = first_where(keep & ((target.data < 0) | (target.data >= C)), target.device)
    if place is not None:
        raise ArgumentError(
            f"{op}: target must lie from 0 to {C - 1} (C = {C} classes in {name} {x.shape}) or be ignore_index "
            f"{ignore_index}, got {int(target.data[place])} at {_at('target', place)}"
        )
    N, S = (1, 1) if x.ndim == 1 else (x.shape[0], math.prod(x.shape[2:]))
    labels, keep = target.data.reshape(N, S).astype(np.int64), keep.reshape(N, S)
    counted = keep if weight is None else weight.data[x.device.xp.where(keep, labels, 0)] * keep
    total = Tensor._wrap(x.device.xp.asarray(counted.sum(), dtype=x.dtype), x.device)
    return x.reshape(N, C, S), labels, total


# ------------------------------------------------------------------------------------------------ public functions


def nll_loss(
    x: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-weight[target] * x[target] at every position: the loss of logarithms of probabilities.

    For numbers before the softmax use :func:`cross_entropy`, which is :func:`log_softmax` and this in one pass.

    Args:
        x: (C,), (N, C) or (N, C, ...), logarithms of probabilities, float32 or float64.
        target: (), (N,) or (N, ...): integers from 0 to C - 1, or ignore_index.
        weight: (C,), a factor for each class; None for ones.
        ignore_index: the label of positions that count nothing, neither in the sum nor in the mean's divisor.
        reduction: "mean" divides the sum by the weights of the targets' classes, added up; "sum"; or "none".

    Returns:
        A single number, or with "none" a tensor of the shape of target.

    Raises:
        DTypeError: x or weight does not hold floats, or target does not hold integers.
        DeviceError: the tensors are on two devices.
        ShapeError: shapes do not fit one another.
        ArgumentError: a label out of range (the message says where), or an unknown reduction.
        GraphError: weight needs a gradient.

    Precision:
        Sums in the dtype of x. The mean of nothing, when all are ignored, is NaN.

    Kernels:
        None: composed of tensor ops.

    Source:
        Negative log-likelihood of a categorical distribution.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.nll_loss(gn.tensor([[-0.5, -1.0], [-2.0, -0.25]]), gn.tensor([0, 1])).item()
        0.375
    """
    one_of("nll_loss", "reduction", reduction, REDUCTIONS)
    rows, labels, total = class_labels("nll_loss", "x", x, target, weight, ignore_index)
    xp, device = x.device.xp, x.device
    keep = labels != ignore_index
    place = xp.where(keep, labels, 0)
    picked = -take_along(rows, Tensor._wrap(place[:, None], device), 1).reshape(labels.shape)
    if weight is not None:
        picked = picked * Tensor._wrap(weight.data[place], device)
    loss = where(Tensor._wrap(keep, device), picked, 0.0)
    return reduced(loss.reshape(target.shape), reduction, total)


def _need_pair(op: str, x: Tensor, target: Tensor, reduction: str) -> None:
    one_of(op, "reduction", reduction, REDUCTIONS)
    need_given(op, target=target)
    need_float(op, x=x, target=target)
    need_shape(op, "target", target, x.shape, "that of x")
    need_no_nan(op, "target", target)


def mse_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(x - target)**2: the usual loss of numbers.

    Args:
        x: any shape, float32 or float64.
        target: of the shape and dtype of x; no broadcasting, which hides mistakes here.
        reduction: "mean" over all elements, "sum", or "none".

    Returns:
        A single number, or with "none" a tensor of the shape of x.

    Raises:
        DTypeError: an argument does not hold floats, or dtypes differ.
        DeviceError: the tensors are on two devices.
        ShapeError: the shapes differ.
        ArgumentError: NaN in target (the message says where), or an unknown reduction.

    Precision:
        Sums in the dtype of x. The mean of no elements is NaN.

    Kernels:
        None: composed of tensor ops.

    Source:
        Mean squared error.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.mse_loss(gn.tensor([1.0, 3.0]), gn.tensor([0.0, 0.0])).item()
        5.0
    """
    _need_pair("mse_loss", x, target, reduction)
    away = x - target
    return reduced(away * away, reduction)


def l1_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """abs(x - target): like :func:`mse_loss`, but less moved by outliers.

    Args:
        x: any shape, float32 or float64.
        target: of the shape and dtype of x; no broadcasting, which hides mistakes here.
        reduction: "mean" over all elements, "sum", or "none".

    Returns:
        A single number, or with "none" a tensor of the shape of x.

    Raises:
        DTypeError: an argument does not hold floats, or dtypes differ.
        DeviceError: the tensors are on two devices.
        ShapeError: the shapes differ.
        ArgumentError: NaN in target (the message says where), or an unknown reduction.

    Precision:
        Sums in the dtype of x. The gradient where x = target is 0. The mean of no elements is NaN.

    Kernels:
        None: composed of tensor ops.

    Source:
        Mean absolute error.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.l1_loss(gn.tensor([1.0, -3.0]), gn.tensor([0.0, 0.0])).item()
        2.0
    """
    _need_pair("l1_loss", x, target, reduction)
    return reduced((x - target).abs(), reduction)


class BinaryCrossEntropy(Function):
    """-(t * log(x) + (1 - t) * log(1 - x)) with logarithms of at least -100."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor) -> Any:
        ctx.save(x, t)
        xp = x.device.xp
        hit, miss = (xp.maximum(each, -100) for each in (xp.log(x.data), xp.log1p(-x.data)))
        return -(t.data * hit + (1 - t.data) * miss)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        x, t = ctx.saved
        need_x, need_t = ctx.needs_input_grad
        # The bound keeps the slope finite at 0 and 1, where the bounded logarithm itself is flat.
        gx = gy * (x - t) / (x * (1 - x)).clip(min=1e-12) if need_x else None
        gt = gy * ((1 - x).log().clip(min=-100) - x.log().clip(min=-100)) if need_t else None
        return gx, gt


def _need_broadcast(op: str, x: Tensor, **factors: Tensor | None) -> None:
    """Each factor is absent, or broadcasts to x without widening it."""
    need_float(op, x=x, **factors)
    for name, each in factors.items():
        if each is None:
            continue
        lead = x.ndim - each.ndim
        if lead < 0 or any(size not in (1, x.shape[k + lead]) for k, size in enumerate(each.shape)):
            raise ShapeError(f"{op}: {name} must broadcast to x {x.shape}, got {each.shape}")


def binary_cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """-(target * log(x) + (1 - target) * log(1 - x)): the loss of probabilities.

    For numbers before the sigmoid use :func:`binary_cross_entropy_with_logits`, which is accurate where x is near 0
    or 1.

    Args:
        x: any shape, probabilities from 0 to 1, float32 or float64.
        target: of the shape and dtype of x, from 0 to 1.
        weight: a factor for each element, broadcast to x; None for ones.
        reduction: "mean" over all elements (not over the weights), "sum", or "none".

    Returns:
        A single number, or with "none" a tensor of the shape of x.

    Raises:
        DTypeError: an argument does not hold floats, or dtypes differ.
        DeviceError: the tensors are on two devices.
        ShapeError: target has another shape, or weight does not broadcast to x.
        ArgumentError: x or target outside 0 to 1, NaN in them (the message says where), or an unknown reduction.

    Precision:
        Logarithms are held at -100 and above, so a loss is at most 100; the gradient divides by x * (1 - x) held at
        1e-12 and above.

    Kernels:
        None: composed of tensor ops.

    Source:
        Negative log-likelihood of a Bernoulli distribution.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> loss = F.binary_cross_entropy(gn.tensor([0.0, 0.5]), gn.tensor([1.0, 0.0]), reduction="none")
        >>> [round(y, 4) for y in loss.tolist()]
        [100.0, 0.6931]
    """
    _need_pair("binary_cross_entropy", x, target, reduction)
    _need_broadcast("binary_cross_entropy", x, weight=weight)
    _need_unit("binary_cross_entropy", "x", x, "use sigmoid, or binary_cross_entropy_with_logits for raw numbers")
    _need_unit("binary_cross_entropy", "target", target, "it is the probability of class 1")
    loss = BinaryCrossEntropy.apply(x, target)
    return reduced(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """:func:`binary_cross_entropy` of sigmoid(x), computed without the sigmoid's loss of digits.

    ``(1 - target) * x + (1 + (pos_weight - 1) * target) * log(1 + exp(-x))``, times weight.

    Args:
        x: any shape, any numbers, float32 or float64.
        target: of the shape and dtype of x; the probability of class 1.
        weight: a factor for each element, broadcast to x; None for ones.
        reduction: "mean" over all elements (not over the weights), "sum", or "none".
        pos_weight: a factor for the loss of class 1 alone, broadcast to x, so usually (C,); None for ones.

    Returns:
        A single number, or with "none" a tensor of the shape of x.

    Raises:
        DTypeError: an argument does not hold floats, or dtypes differ.
        DeviceError: the tensors are on two devices.
        ShapeError: target has another shape, or weight or pos_weight does not broadcast to x.
        ArgumentError: NaN in target (the message says where), or an unknown reduction.

    Precision:
        A few roundings at any finite x; nothing overflows.

    Kernels:
        kernels/softplus/, for log(1 + exp(-x)); the rest is composed of tensor ops.

    Source:
        Negative log-likelihood of a Bernoulli distribution, with log(sigmoid(x)) = -softplus(-x).

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> x = gn.tensor([-1000.0, 1000.0])
        >>> F.binary_cross_entropy_with_logits(x, gn.tensor([1.0, 1.0]), reduction="none").tolist()
        [1000.0, 0.0]
    """
    op = "binary_cross_entropy_with_logits"
    _need_pair(op, x, target, reduction)
    _need_broadcast(op, x, weight=weight, pos_weight=pos_weight)
    miss = softplus(-x, threshold=math.inf)  # the exact form at any size: a step of 2e-9 would show in float64
    if pos_weight is not None:
        miss = miss * ((pos_weight - 1) * target + 1)
    loss = (1 - target) * x + miss
    return reduced(loss if weight is None else loss * weight, reduction)
