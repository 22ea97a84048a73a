"""batch_norm: each channel brought to mean 0 and variance 1. Kernels in kernels/batch_norm/."""

from typing import Any

import numpy as np

from gpunet.dispatch import launch
from gpunet.errors import ArgumentError, GraphError, ShapeError
from gpunet.graph import Function, GradFunction
from gpunet.ops.checks import need_float, need_number, need_shape
from gpunet.tensor import Tensor


class BatchNorm(Function):
    """y, mean and biased variance, with the statistics of x itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor | None, b: Tensor | None, *, eps: float) -> Any:
        y, mean, var, invstd = launch(x.device, "batch_norm.forward", x.data, _raw(w), _raw(b), eps=eps)
        ctx.statistics = {"mean": mean, "invstd": invstd, "eps": eps}
        ctx.save(x, w)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, gy: Tensor, _mean: Tensor, _var: Tensor) -> Any:
        x, w = ctx.saved
        gw, gb = BatchNormGradWB.apply(gy, x, training=True, **ctx.statistics)
        gx = BatchNormGradX.apply(gy, x, w, gw, gb, **ctx.statistics) if ctx.needs_input_grad[0] else None
        return gx, gw, gb


class BatchNormEval(Function):
    """y with given statistics, which are constants."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor | None, b: Tensor | None, *, mean: Any, var: Any, eps: float) -> Any:
        if any(ctx.needs_input_grad):
            invstd = (1 / x.device.xp.sqrt(var.astype(np.float64) + eps)).astype(x.dtype)
            # Copies: the running statistics may move on before backward.
            ctx.statistics = {"mean": mean.copy(), "invstd": invstd, "eps": eps}
            ctx.save(x if ctx.needs_input_grad[1] else None, w)
        return launch(x.device, "batch_norm.forward_eval", x.data, mean, var, _raw(w), _raw(b), eps=eps)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        x, w = ctx.saved
        need_x, need_w, need_b = ctx.needs_input_grad
        gx = BatchNormGradXEval.apply(gy, w, invstd=ctx.statistics["invstd"]) if need_x else None
        if need_w:
            return gx, *BatchNormGradWB.apply(gy, x, training=False, **ctx.statistics)
        return gx, None, gy.sum(_axes(gy)) if need_b else None


def _raw(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.data


def _axes(x: Tensor) -> tuple[int, ...]:
    """All axes but the channel's."""
    return (0, *range(2, x.ndim))


def _along_channels(v: Tensor, x: Tensor) -> Tensor:
    """v (C,) so that it broadcasts against x."""
    return v.reshape(-1, *[1] * (x.ndim - 2))


def _xhat(x: Tensor, mean: Any, invstd: Any, eps: float, training: bool) -> tuple[Tensor, Tensor]:
    """Normalized x and invstd in tensor ops: functions of x in training, constants otherwise."""
    if not training:
        m, factor = (_along_channels(Tensor._wrap(each, x.device), x) for each in (mean, invstd))
        return (x - m) * factor, factor
    away = x - x.mean(_axes(x), keepdim=True)
    factor = ((away * away).mean(_axes(x), keepdim=True) + eps) ** -0.5
    return away * factor, factor


class BatchNormGradWB(GradFunction):
    """The sums over all but the channels of gy * xhat, and of gy."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, *, mean: Any, invstd: Any, eps: float, training: bool) -> Any:
        return launch(gy.device, "batch_norm.grad_wb", gy.data, x.data, mean, invstd)

    @staticmethod
    def formula(gy: Tensor, x: Tensor, *, mean: Any, invstd: Any, eps: float, training: bool) -> Any:
        xhat, _ = _xhat(x, mean, invstd, eps, training)
        return (gy * xhat).sum(_axes(x)), gy.sum(_axes(x))


class BatchNormGradX(GradFunction):
    """w * invstd * (gy - gb / M - xhat * gw / M), M the number of values a channel."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, w: Tensor | None, gw: Tensor, gb: Tensor, **statistics: Any) -> Any:
        mean, invstd = statistics["mean"], statistics["invstd"]
        return launch(gy.device, "batch_norm.grad_x", gy.data, x.data, _raw(w), mean, invstd, gw.data, gb.data)

    @staticmethod
    def formula(gy: Tensor, x: Tensor, w: Tensor | None, gw: Tensor, gb: Tensor, **statistics: Any) -> Tensor:
        share = x.shape[1] / max(x.numel(), 1)  # 1 / M
        xhat, factor = _xhat(x, training=True, **statistics)
        gx = factor * (gy - _along_channels(gb, x) * share - xhat * (_along_channels(gw, x) * share))
        return gx if w is None else gx * _along_channels(w, x)


class BatchNormGradXEval(GradFunction):
    """w * invstd * gy."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, w: Tensor | None, *, invstd: Any) -> Any:
        return launch(gy.device, "batch_norm.grad_x_eval", gy.data, _raw(w), invstd)

    @staticmethod
    def formula(gy: Tensor, w: Tensor | None, *, invstd: Any) -> Tensor:
        factor = Tensor._wrap(invstd, gy.device)
        return gy * _along_channels(factor if w is None else factor * w, gy)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, with a mean and a variance for each channel.

    In training they are those of this batch, and the running statistics move towards them, in place; otherwise the
    running statistics are used, so that one image's result does not depend on its neighbours.

    Args:
        x: (N, C, ...), float32 or float64.
        running_mean: (C,), changed in place in training; None in training: nothing is kept.
        running_var: (C,), likewise; given and absent together with running_mean.
        weight: (C,), None for ones.
        bias: (C,), None for zeros.
        training: whether to use, and to keep, the statistics of this batch.
        momentum: share of this batch in the new running statistics, from 0 to 1:
            ``running = (1 - momentum) * running + momentum * batch``.
        eps: added to the variance; at least 0.

    Returns:
        Tensor of the shape of x.

    Raises:
        DTypeError: a tensor does not hold floats, or dtypes differ.
        DeviceError: the tensors are on two devices.
        ShapeError: x has fewer than two axes; weight, bias or a running tensor is not (C,); or a channel has one value
            alone in training, whose variance says nothing.
        ArgumentError: one running tensor without the other, or neither outside training; momentum or eps out of range.
        GraphError: a running tensor needs a gradient.

        The running statistics are as they were after any of these.

    Precision:
        Two passes, sums in float64 on NumPy: accurate also where the mean is large against the spread. y divides by the
        biased variance (divisor M = N * pixels), running_var takes the unbiased one (M - 1). An empty batch leaves the
        running statistics alone. Statistics carry no gradient.

    Kernels:
        kernels/batch_norm/: batch_norm.forward, grad_wb and grad_x in training; forward_eval, grad_wb and grad_x_eval
        otherwise.

    Source:
        Ioffe and Szegedy, "Batch normalization", 2015, algorithm 1.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> mean, var = gn.zeros(1), gn.ones(1)
        >>> y = F.batch_norm(gn.tensor([[1.0], [3.0]]), mean, var, training=True, eps=0.0)
        >>> y.tolist(), round(mean.item(), 3), round(var.item(), 3)
        ([[-1.0], [1.0]], 0.2, 1.1)
    """
    per_channel = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    need_float("batch_norm", x=x, **per_channel)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: x must have at least 2 axes (N, C, ...), got shape {x.shape}")
    channels = x.shape[1]
    _check_running(running_mean, running_var, training)
    for name, each in per_channel.items():
        need_shape("batch_norm", name, each, (channels,), f"one number for each channel of x {x.shape}")
    momentum = need_number("batch_norm", "momentum", momentum, 0, 1)
    eps = need_number("batch_norm", "eps", eps, 0)
    if not training:
        return BatchNormEval.apply(x, weight, bias, mean=_raw(running_mean), var=_raw(running_var), eps=eps)
    count = x.numel() // max(channels, 1)
    if count == 1:
        raise ShapeError(f"batch_norm: training needs more than 1 value for each channel, got 1 in x {x.shape}")
    y, mean, var = BatchNorm.apply(x, weight, bias, eps=eps)
    if running_mean is not None and running_var is not None and count:
        _move(running_mean, mean.data, momentum)
        _move(running_var, var.data * (count / (count - 1)), momentum)
    return y


def _check_running(running_mean: Tensor | None, running_var: Tensor | None, training: bool) -> None:
    missing = [name for name, each in (("running_mean", running_mean), ("running_var", running_var)) if each is None]
    if len(missing) == 1:
        raise ArgumentError(f"batch_norm: running_mean and running_var must be given together, got no {missing[0]}")
    if missing and not training:
        raise ArgumentError(
            "batch_norm: running_mean and running_var must be given when training=False, got None; "
            "pass them, or training=True for the statistics of the batch"
        )
    for name, each in (("running_mean", running_mean), ("running_var", running_var)):
        if each is not None and each.requires_grad:
            raise GraphError(f"batch_norm: {name} must not need a gradient, got requires_grad=True; use .detach()")


def _move(running: Tensor, batch: Any, momentum: float) -> None:
    """Running statistics towards the batch's, in their own memory."""
    running.data *= 1 - momentum
    running.data += momentum * batch
    running._bump("batch_norm")
