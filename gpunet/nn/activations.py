"""Activations as layers: ReLU, LeakyReLU, PReLU, Sigmoid, Tanh, GELU, Softplus, Softmax, LogSoftmax."""

from typing import Any

from gpunet import functional as F
from gpunet.errors import ArgumentError
from gpunet.nn import init
from gpunet.nn.linear import empty
from gpunet.nn.module import Module
from gpunet.ops.checks import need_number, one_of, whole
from gpunet.ops.elementwise import where
from gpunet.tensor import Tensor


class ReLU(Module):
    """The larger of x and 0, element by element; or, with Keras' three numbers, the generalised ReLU.

    The general form is flat above, and slopes below a threshold that need not be 0::

        y = max_value                          where x >= max_value
        y = x                                  where threshold <= x < max_value
        y = negative_slope * (x - threshold)   where x < threshold

    ``ReLU(max_value=6)`` is known as ReLU6. Above ``max_value`` no gradient passes.

    Args:
        inplace: accepted so that PyTorch code runs; the input is never overwritten.
        max_value: the largest output, or None for no bound.
        negative_slope: slope below the threshold.
        threshold: where x begins to pass.

    Raises:
        ArgumentError: one of the three is no number, max_value is below threshold, or negative_slope below 0.

    Source:
        The arguments are those of Keras' layer ReLU.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.ReLU()(gn.tensor([-1.0, 2.0])).tolist()
        [0.0, 2.0]
        >>> gn.nn.ReLU(max_value=6, negative_slope=0.5, threshold=1)(gn.tensor([-1.0, 2.0, 8.0])).tolist()
        [-1.0, 2.0, 6.0]
    """

    def __init__(
        self,
        inplace: bool = False,
        *,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
    ):
        super().__init__()
        self.inplace = inplace
        self.threshold = need_number("ReLU", "threshold", threshold)
        self.negative_slope = need_number("ReLU", "negative_slope", negative_slope, 0)
        self.max_value = None if max_value is None else need_number("ReLU", "max_value", max_value, self.threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if self.threshold:
            below = (x - self.threshold) * self.negative_slope if self.negative_slope else 0.0
            y = where(x < self.threshold, below, x)
        else:
            y = F.leaky_relu(x, self.negative_slope) if self.negative_slope else F.relu(x)
        return y if self.max_value is None else y.clip(max=self.max_value)

    def extra_repr(self) -> str:
        """What differs from the plain one."""
        usual = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}
        return ", ".join(
            f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value
        )


class LeakyReLU(Module):
    """x where it is positive, else negative_slope * x.

    Args:
        negative_slope: slope below 0.
        inplace: accepted so that PyTorch code runs; the input is never overwritten.

    Raises:
        ArgumentError: negative_slope is no number.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.LeakyReLU(0.5)(gn.tensor([-1.0, 2.0])).tolist()
        [-0.5, 2.0]
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        super().__init__()
        self.negative_slope = need_number("LeakyReLU", "negative_slope", negative_slope)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """The slope."""
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """x where it is positive, else a learned slope times x.

    Args:
        num_parameters: 1 for one slope, or C for one each channel (axis 1).
        init: the slope at the start.
        device: where the slope lives; None for the default device.
        dtype: float32 or float64; None for float32.

    Attributes:
        weight: the slopes, (num_parameters,).

    Raises:
        ArgumentError: num_parameters below 1, or init no number.
        ShapeError: in forward, several slopes and another number of channels.

    Source:
        He et al. 2015, "Delving deep into rectifiers", section 2.1.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.PReLU()(gn.tensor([-1.0, 2.0])).tolist()
        [-0.25, 2.0]
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None):
        super().__init__()
        self.num_parameters = whole("PReLU", "num_parameters", num_parameters)
        self.init = need_number("PReLU", "init", init)
        self.weight = empty("PReLU", (num_parameters,), device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets every slope to ``init``."""
        init.constant_(self.weight, self.init)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...), or any shape for one slope."""
        return F.prelu(x, self.weight)

    def extra_repr(self) -> str:
        """Number of slopes."""
        return f"num_parameters={self.num_parameters}"


class Sigmoid(Module):
    """1 / (1 + exp(-x)), element by element.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.Sigmoid()(gn.zeros(1)).tolist()
        [0.5]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent, element by element.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.Tanh()(gn.zeros(1)).tolist()
        [0.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.tanh(x)


class GELU(Module):
    """x times the probability that a standard normal number is below x.

    Args:
        approximate: "none" for the exact function, "tanh" for the approximation by a hyperbolic tangent.

    Raises:
        ArgumentError: approximate is another word.

    Source:
        Hendrycks and Gimpel 2016, "Gaussian error linear units", section 2.

    Example:
        >>> import gpunet as gn
        >>> round(gn.nn.GELU()(gn.ones(1)).item(), 4)
        0.8413
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = one_of("GELU", "approximate", approximate, ("none", "tanh"))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Which formula."""
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """log(1 + exp(beta * x)) / beta: a smooth ReLU.

    Args:
        beta: sharpness of the bend.
        threshold: where ``beta * x`` is above it, x itself.

    Raises:
        ArgumentError: beta or threshold is no number.

    Example:
        >>> import gpunet as gn
        >>> round(gn.nn.Softplus()(gn.zeros(1)).item(), 4)
        0.6931
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        self.beta = need_number("Softplus", "beta", beta)
        self.threshold = need_number("Softplus", "threshold", threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Arguments of the constructor."""
        return f"beta={self.beta}, threshold={self.threshold}"


class _AlongAxis(Module):
    def __init__(self, dim: int | None = None):
        super().__init__()
        if isinstance(dim, bool) or not isinstance(dim, int):
            op = type(self).__name__
            raise ArgumentError(f"{op}: dim must be an integer, got {dim!r}; for logits (N, C) pass dim=1")
        self.dim = dim

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


class Softmax(_AlongAxis):
    """exp(x) over its sum along an axis. Not in front of :class:`CrossEntropyLoss`, which takes logits.

    Args:
        dim: the axis. It must be named: a guess would be wrong for half of all shapes.

    Raises:
        ArgumentError: dim is None, or no axis of the input.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.Softmax(dim=1)(gn.zeros(1, 4)).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that has the axis."""
        return F.softmax(x, self.dim)


class LogSoftmax(_AlongAxis):
    """Logarithm of :class:`Softmax`, computed without its underflow. Goes in front of :class:`NLLLoss`.

    Args:
        dim: the axis. It must be named.

    Raises:
        ArgumentError: dim is None, or no axis of the input.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.LogSoftmax(dim=0)(gn.tensor([0.0, -1000.0])).tolist()
        [0.0, -1000.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that has the axis."""
        return F.log_softmax(x, self.dim)
