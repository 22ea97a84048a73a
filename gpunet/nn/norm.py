"""Normalising layers: BatchNorm1d, BatchNorm2d, LayerNorm."""

from typing import Any

import numpy as np

from gpunet import functional as F
from gpunet.nn import init
from gpunet.nn.linear import empty
from gpunet.nn.module import Module
from gpunet.nn.parameter import Parameter
from gpunet.ops.checks import need_ndim, need_number, need_tensor, whole
from gpunet.tensor import Tensor


class _BatchNorm(Module):
    """The two batch normalisations; they differ in the inputs they take."""

    _ndims: tuple[int, ...] = ()
    _meaning = ""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__()
        op = type(self).__name__
        self.num_features = whole(op, "num_features", num_features)
        self.eps = need_number(op, "eps", eps, 0)
        self.momentum = None if momentum is None else need_number(op, "momentum", momentum, 0, 1)
        self.affine, self.track_running_stats = affine, track_running_stats
        shape = (num_features,)
        self.register_parameter("weight", empty(op, shape, device, dtype) if affine else None)
        self.register_parameter("bias", empty(op, shape, device, dtype) if affine and bias else None)
        stats = [empty(op, shape, device, dtype).detach() for _ in range(2)] if track_running_stats else [None, None]
        self.register_buffer("running_mean", stats[0])
        self.register_buffer("running_var", stats[1])
        count = Tensor(0, np.int64, device) if track_running_stats else None
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batch seen."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, and fresh statistics."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises, and in training moves the running statistics."""
        op = type(self).__name__
        need_tensor(op, x=x)
        need_ndim(op, "x", x, self._ndims, self._meaning)
        mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
        from_batch = self.training or mean is None
        if not (self.training and count is not None):
            return F.batch_norm(x, mean, var, self.weight, self.bias, from_batch, self.momentum or 0.0, self.eps)
        share = 1 / (int(count.item()) + 1) if self.momentum is None else self.momentum
        y = F.batch_norm(x, mean, var, self.weight, self.bias, True, share, self.eps)
        count.data += 1  # after the op: a batch that was refused has not been seen
        count._bump(op)
        return y

    def extra_repr(self) -> str:
        """Arguments of the constructor."""
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        return f"{text}, bias={self.bias is not None}, track_running_stats={self.track_running_stats}"


class BatchNorm2d(_BatchNorm):
    """Each channel of images shifted and scaled to mean 0 and variance 1, then by its learned weight and bias.

    In training the statistics are the batch's, over (N, H, W), and running means of them are kept; in evaluation the
    running ones are used.

    Args:
        num_features: C of the input.
        eps: what is added to the variance before the root.
        momentum: share of the newest batch in the running statistics, from 0 to 1; None weighs all batches alike.
        affine: whether there are a weight and a bias.
        track_running_stats: False keeps no statistics: evaluation then uses the batch's too.
        device: where the parameters live; None for the default device.
        dtype: float32 or float64; None for float32.
        bias: False leaves the bias out, when affine.

    Attributes:
        weight: (C,), ones; or None.
        bias: (C,), zeros; or None.
        running_mean: (C,), zeros at first; or None.
        running_var: (C,), ones at first, of the unbiased variances; or None.
        num_batches_tracked: how many batches were seen, an int64 number; or None.

    Returns:
        The shape of the input, (N, C, H, W).

    Raises:
        ShapeError: the input does not have 4 axes or not C channels, or in training one value for a channel.
        ArgumentError: num_features below 1, momentum outside 0 to 1, eps below 0.

    Source:
        Ioffe and Szegedy 2015, "Batch normalization", algorithm 1.

    Example:
        >>> import gpunet as gn
        >>> y = gn.nn.BatchNorm2d(2)(gn.randn(8, 2, 4, 4) * 3 + 5)
        >>> abs(y.mean().item()) < 1e-5, abs(y.var(correction=0).item() - 1) < 1e-3
        (True, True)
    """

    _ndims = (4,)
    _meaning = "(N, C, H, W)"


class BatchNorm1d(_BatchNorm):
    """:class:`BatchNorm2d` for features (N, C) or sequences (N, C, L): statistics over N, or over N and L.

    Args:
        num_features: C of the input.
        eps: what is added to the variance before the root.
        momentum: share of the newest batch in the running statistics, from 0 to 1; None weighs all batches alike.
        affine: whether there are a weight and a bias.
        track_running_stats: False keeps no statistics: evaluation then uses the batch's too.
        device: where the parameters live; None for the default device.
        dtype: float32 or float64; None for float32.
        bias: False leaves the bias out, when affine.

    Returns:
        The shape of the input, (N, C) or (N, C, L).

    Raises:
        ShapeError: the input does not have 2 or 3 axes or not C channels, or in training one value for a channel.
        ArgumentError: num_features below 1, momentum outside 0 to 1, eps below 0.

    Source:
        Ioffe and Szegedy 2015, "Batch normalization", algorithm 1.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.BatchNorm1d(1)(gn.tensor([[1.0], [3.0]])).data.round(3).tolist()
        [[-1.0], [1.0]]
    """

    _ndims = (2, 3)
    _meaning = "(N, C) or (N, C, L)"


class LayerNorm(Module):
    """The last axes of each sample shifted and scaled to mean 0 and variance 1, then by learned weight and bias.

    The same in training and evaluation: a sample does not see the others of its batch.

    Args:
        normalized_shape: sizes of the last axes that are normalised together; an integer for one axis.
        eps: what is added to the variance before the root.
        elementwise_affine: whether there is a weight, and a bias if ``bias``.
        bias: False leaves the bias out.
        device: where the parameters live; None for the default device.
        dtype: float32 or float64; None for float32.

    Attributes:
        weight: of shape normalized_shape, ones; or None.
        bias: of shape normalized_shape, zeros; or None.

    Returns:
        The shape of the input.

    Raises:
        ShapeError: the input does not end in normalized_shape.
        ArgumentError: a size below 1, or eps below 0.

    Source:
        Ba, Kiros and Hinton 2016, "Layer normalization", section 3.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.LayerNorm(2)(gn.tensor([[1.0, 3.0], [10.0, 30.0]])).data.round(3).tolist()
        [[-1.0, 1.0], [-1.0, 1.0]]
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        sizes = normalized_shape if isinstance(normalized_shape, list | tuple) else (normalized_shape,)
        self.normalized_shape = tuple(whole("LayerNorm", "normalized_shape", size) for size in sizes)
        self.eps = need_number("LayerNorm", "eps", eps, 0)
        self.elementwise_affine = elementwise_affine
        with_bias = elementwise_affine and bias
        shape = self.normalized_shape
        self.register_parameter("weight", empty("LayerNorm", shape, device, dtype) if elementwise_affine else None)
        self.register_parameter("bias", empty("LayerNorm", shape, device, dtype) if with_bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axes."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Arguments of the constructor."""
        text = f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        return f"{text}, bias={self.bias is not None}"
