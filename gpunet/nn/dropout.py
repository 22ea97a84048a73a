"""Layers that drop values in training: Dropout, Dropout2d."""

from gpunet import functional as F
from gpunet.nn.module import Module
from gpunet.ops.checks import need_number
from gpunet.tensor import Tensor


class _Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        self.p = need_number(type(self).__name__, "p", p, 0, 1)
        self.inplace = inplace

    def extra_repr(self) -> str:
        """Probability of dropping."""
        return f"p={self.p}"


class Dropout(_Dropout):
    """In training each value is set to 0 with probability p, and the rest multiplied by 1 / (1 - p); else nothing.

    Args:
        p: probability, from 0 to 1.
        inplace: accepted so that PyTorch code runs; the input is never overwritten.

    Returns:
        The shape of the input.

    Raises:
        ArgumentError: p is outside 0 to 1.

    Precision:
        The mask is a function of the seed, the number of the call and the position: the same on every device.

    Source:
        Srivastava et al. 2014, "Dropout", section 4; scaled in training instead of in evaluation.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.Dropout(0.2).eval()(gn.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.dropout(x, self.p, self.training)


class Dropout2d(_Dropout):
    """:class:`Dropout` of whole channels: neighbouring pixels are too alike for single ones to matter.

    Args:
        p: probability, from 0 to 1.
        inplace: accepted so that PyTorch code runs; the input is never overwritten.

    Returns:
        The shape of the input, (N, C, H, W).

    Raises:
        ArgumentError: p is outside 0 to 1.

    Source:
        Tompson et al. 2015, "Efficient object localization using convolutional networks", section 3.2.

    Example:
        >>> import gpunet as gn
        >>> y = gn.nn.Dropout2d(0.5)(gn.ones(1, 8, 2, 2))
        >>> bool((y.data == y.data[:, :, :1, :1]).all())
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W)."""
        return F.dropout2d(x, self.p, self.training)
