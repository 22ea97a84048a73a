"""Layers of weighted sums and of shape: Linear, Flatten, Identity."""

import math
from typing import Any

import numpy as np

from gpunet import devices
from gpunet import functional as F
from gpunet.errors import DTypeError
from gpunet.nn import init
from gpunet.nn.module import Module
from gpunet.nn.parameter import Parameter
from gpunet.ops.checks import one_of, whole
from gpunet.tensor import FLOATS, Tensor


def empty(op: str, shape: tuple[int, ...], device: Any, dtype: Any) -> Parameter:
    """A parameter whose values are still to be drawn; dtype None means float32, device None the default one."""
    kind = np.dtype(np.float32 if dtype is None else dtype)
    if kind not in FLOATS:
        raise DTypeError(f"{op}: dtype must be float32 or float64, got {kind}")
    place = devices.device(device)
    return Parameter(Tensor._wrap(place.xp.zeros(shape, kind), place))


def draw_weights(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's start for linear and convolutional layers: both uniform with bound 1 / sqrt(fan_in)."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))  # sqrt(3) * sqrt(2 / (1 + 5)) = 1
    if bias is not None:
        bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
        init.uniform_(bias, -bound, bound)


class Linear(Module):
    """``x @ weight^T + bias``: every output is a weighted sum of all inputs.

    Args:
        in_features: IN, size of the last axis of the input.
        out_features: OUT, size of the last axis of the output.
        bias: whether a number is added to each output.
        device: where the parameters live; None for the default device.
        dtype: float32 or float64; None for float32.
        activation: None, or "relu" for the positive part of the result, in the same pass where the device can.

    Attributes:
        weight: (OUT, IN), uniform with bound 1 / sqrt(IN).
        bias: (OUT,), uniform with the same bound; or None.

    Returns:
        (..., OUT) for an input (..., IN).

    Raises:
        ArgumentError: a number of features is no integer of at least 1, or another activation.
        ShapeError: in forward, the last axis of the input is not IN.

    Source:
        Start values as in PyTorch: He et al. 2015 with slope sqrt(5).

    Example:
        >>> import gpunet as gn
        >>> gn.nn.Linear(20, 5)(gn.zeros(3, 20)).shape
        (3, 5)
    """

    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        activation: str | None = None,
    ):
        super().__init__()
        self.activation = one_of("Linear", "activation", activation, (None, "relu"))
        self.in_features = whole("Linear", "in_features", in_features)
        self.out_features = whole("Linear", "out_features", out_features)
        self.weight = empty("Linear", (out_features, in_features), device, dtype)
        self.register_parameter("bias", empty("Linear", (out_features,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new start values."""
        draw_weights(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., IN) to (..., OUT)."""
        return F.linear(x, self.weight, self.bias, self.activation)

    def extra_repr(self) -> str:
        """Sizes and whether there is a bias."""
        text = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return text if self.activation is None else f"{text}, activation={self.activation!r}"


class Flatten(Module):
    """Axes ``start_dim`` to ``end_dim`` joined into one; by default all but the batch.

    Args:
        start_dim: first axis of those joined.
        end_dim: last axis of those joined.

    Returns:
        (N, C * H * W) for an input (N, C, H, W) and the default axes.

    Raises:
        ArgumentError: an axis that the input lacks.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.Flatten()(gn.zeros(2, 3, 4, 4)).shape
        (2, 48)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) to (N, product of the rest)."""
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Its input, unchanged: a place-holder for a layer taken out. Arguments are accepted and ignored.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.Identity()(gn.ones(2)).tolist()
        [1.0, 1.0]
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, x: Any) -> Any:
        """``x`` itself."""
        return x
