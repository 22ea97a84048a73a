"""cross_entropy: -log of the softmax at the target class, in one pass. Kernels in kernels/cross_entropy/."""

from typing import Any

import numpy as np

from gpunet.dispatch import launch
from gpunet.errors import ArgumentError, DTypeError, ShapeError
from gpunet.graph import Function, GradFunction
from gpunet.ops.checks import need_float, need_given, need_number, need_shape, need_tensor, one_of
from gpunet.ops.elementwise import where
from gpunet.ops.log_softmax import log_softmax
from gpunet.ops.losses import REDUCTIONS, class_labels, need_no_nan, reduced
from gpunet.tensor import Tensor


class CrossEntropy(Function):
    """Losses (N, S) of x (N, C, S) against labels (N, S); labels and weight are constants."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, labels: Any, weight: Any, **options: Any) -> Any:
        loss, lse = launch(x.device, "cross_entropy.forward", x.data, labels, weight, **options)
        ctx.constants = {"lse": lse, "labels": labels, "weight": weight, **options}
        ctx.save(x)
        return loss

    @staticmethod
    def backward(ctx: Any, gloss: Tensor) -> Any:
        (x,) = ctx.saved
        return CrossEntropyGradX.apply(gloss, x, **ctx.constants)


class CrossEntropyGradX(GradFunction):
    """gloss * (softmax minus target), weighted."""

    @staticmethod
    def forward(ctx: Any, gloss: Tensor, x: Tensor, *, lse: Any, labels: Any, weight: Any, **options: Any) -> Any:
        return launch(x.device, "cross_entropy.grad_x", gloss.data, x.data, lse, labels, weight, **options)

    @staticmethod
    def formula(gloss: Tensor, x: Tensor, *, lse: Any, labels: Any, weight: Any, **options: Any) -> Tensor:
        # gx[c] = gloss * (share * p[c] - cost[c]): share (N, 1, S) and cost (N, C, S) are constants. What is ignored
        # is taken out at the start: it may hold inf or NaN, which a factor of 0 would not stop.
        xp, e = x.device.xp, options["label_smoothing"]
        w = xp.ones(x.shape[1], x.dtype) if weight is None else weight
        is_target = labels[:, None] == xp.arange(x.shape[1])[None, :, None]
        cost = ((1 - e) * is_target.astype(x.dtype) + e / max(x.shape[1], 1)) * w[None, :, None]
        share, cost = (Tensor._wrap(each, x.device) for each in (cost.sum(1, keepdims=True), cost))
        keep = Tensor._wrap((labels != options["ignore_index"])[:, None], x.device)
        gloss, x = where(keep, gloss.unsqueeze(1), 0.0), where(keep, x, 0.0)
        return gloss * (x.softmax(1) * share - cost)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log of the softmax of the logits at the target class: the usual loss of classification.

    Takes the numbers before the softmax, and labels or, as floats of the logits' shape, class probabilities.

    Args:
        logits: (C,), (N, C) or (N, C, ...), any numbers, float32 or float64.
        target: labels, integers from 0 to C - 1 or ignore_index, of shape (), (N,) or (N, ...); or class
            probabilities, of the shape and dtype of logits.
        weight: (C,), a factor for each class; None for ones.
        ignore_index: the label of positions that count nothing, neither in the sum nor in the mean's divisor; negative
            beside class probabilities, which know no labels.
        reduction: "mean" divides the sum by the weights of the targets' classes, added up (with class probabilities,
            by the number of positions); "sum"; or "none".
        label_smoothing: share e of the target, from 0 to 1, that is spread evenly over all C classes.

    Returns:
        A single number, or with "none" a tensor of the shape of logits without the classes.

    Raises:
        DTypeError: logits or weight does not hold floats, dtypes differ, or target holds floats of another shape.
        DeviceError: the tensors are on two devices.
        ShapeError: shapes do not fit one another.
        ArgumentError: a label out of range or a NaN in class probabilities (the message says where), label_smoothing
            outside 0 to 1, or an unknown reduction.
        GraphError: weight needs a gradient beside labels.

    Precision:
        The largest logit is subtracted first, so nothing overflows. Sums in the dtype of logits. The mean of nothing,
        when all are ignored, is NaN. Ignored positions give no gradient whatever they hold.

    Kernels:
        kernels/cross_entropy/: cross_entropy.forward, cross_entropy.grad_x, for labels. Class probabilities run through
        kernels/log_softmax/ and tensor ops, and may need a gradient themselves.

    Source:
        Derived in kernels/cross_entropy/__init__.py; label smoothing: Szegedy and others, "Rethinking the Inception
        architecture", 2015, section 7.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> logits = gn.tensor([[0.0, 0.0], [1000.0, 0.0]])
        >>> [round(y, 4) for y in F.cross_entropy(logits, gn.tensor([1, 0]), reduction="none").tolist()]
        [0.6931, 0.0]
    """
    one_of("cross_entropy", "reduction", reduction, REDUCTIONS)
    e = need_number("cross_entropy", "label_smoothing", label_smoothing, 0, 1)
    if _is_probabilities(logits, target):
        return _of_probabilities(logits, target, weight, ignore_index, reduction, e)
    rows, labels, total = class_labels("cross_entropy", "logits", logits, target, weight, ignore_index)
    loss = CrossEntropy.apply(
        rows,
        labels=labels,
        weight=None if weight is None else weight.data,
        ignore_index=int(ignore_index),
        label_smoothing=e,
    )
    return reduced(loss.reshape(target.shape), reduction, total)


def _is_probabilities(logits: Tensor, target: Tensor) -> bool:
    """Whether ``target`` holds class probabilities (floats of the logits' shape) rather than labels (integers)."""
    need_float("cross_entropy", logits=logits)
    need_given("cross_entropy", target=target)
    need_tensor("cross_entropy", target=target)
    if target.dtype.kind == "f" and target.shape != logits.shape:
        raise DTypeError(
            f"cross_entropy: target must hold integers (labels), or class probabilities of the shape of logits "
            f"{logits.shape}, got {target.dtype} of shape {target.shape}; use target.long() for labels"
        )
    return target.dtype.kind == "f"


def _of_probabilities(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, e: float
) -> Tensor:
    """- sum over c of weight[c] * target[c] * log_softmax(logits)[c]."""
    need_float("cross_entropy", logits=logits, target=target, weight=weight)
    if logits.ndim == 0:
        raise ShapeError("cross_entropy: logits must have axes (C,), (N, C) or (N, C, ...), got a single number")
    axis = min(logits.ndim - 1, 1)
    C = logits.shape[axis]
    need_shape("cross_entropy", "weight", weight, (C,), f"one number for each class of logits {logits.shape}")
    if not isinstance(ignore_index, int | np.integer) or ignore_index >= 0:
        raise ArgumentError(
            f"cross_entropy: ignore_index must be negative beside class probabilities, got {ignore_index!r}; "
            "set the probabilities of positions to be ignored to 0"
        )
    need_no_nan("cross_entropy", "target", target)
    share = target * (1 - e) + e / max(C, 1) if e else target
    if weight is not None:
        share = share * weight.reshape(C, *[1] * (logits.ndim - axis - 1))
    loss = -(share * log_softmax(logits, axis)).sum(axis)
    return reduced(loss, reduction, logits.numel() / max(C, 1))
