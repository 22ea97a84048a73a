"""dropout: random elements, or whole channels, set to 0. Kernels in kernels/dropout/."""

from typing import Any

from gpunet import random
from gpunet.dispatch import launch
from gpunet.graph import Function
from gpunet.ops.checks import need_float, need_ndim, need_number
from gpunet.tensor import Tensor


class Dropout(Function):
    """x * d with a mask d that is a pure function of (seed, op): linear in x, so it is its own derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, **key: Any) -> Any:
        ctx.key = key  # p, seed, op, span: all that backward needs; no mask is stored
        return launch(x.device, "dropout.forward", x.data, **key)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return Dropout.apply(gy, **ctx.key)


def _dropped(x: Tensor, p: float, training: bool, span: int) -> Tensor:
    if not training or p == 0:
        return x
    seed, op = random.next_dropout_key()
    return Dropout.apply(x, p=p, seed=seed, op=op, span=span)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """x with each element set to 0 with probability p, and the others multiplied by 1 / (1 - p).

    The scaling keeps the expected value, so that nothing need change when training ends. Each call draws a mask of
    its own; ``gn.manual_seed`` starts the sequence of masks anew.

    Args:
        x: any shape, float32 or float64.
        p: probability of being dropped, from 0 to 1.
        training: False returns x itself.

    Returns:
        Tensor of the shape of x.

    Raises:
        DTypeError: x is no tensor, or does not hold floats.
        ArgumentError: p is no number from 0 to 1.

    Precision:
        One rounding. The mask depends on the seed, on how many dropout calls came before, and on the element's place,
        but not on device, backend, dtype or strides. Backward computes the mask again. A dropped inf or NaN is NaN.

    Kernels:
        kernels/dropout/: dropout.forward, which also is the gradient.

    Source:
        Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout", 2014; masks as derived in
        kernels/dropout/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> gn.manual_seed(0)
        >>> sorted(set(F.dropout(gn.ones(100), p=0.75).tolist()))
        [0.0, 4.0]
        >>> F.dropout(gn.ones(2), p=0.75, training=False).tolist()
        [1.0, 1.0]
    """
    need_float("dropout", x=x)
    return _dropped(x, need_number("dropout", "p", p, 0, 1), training, 1)


def dropout2d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """x with each channel of each image set to 0 with probability p, and the others multiplied by 1 / (1 - p).

    For images, where neighbours are so alike that dropping single pixels takes little away.

    Args:
        x: (N, C, H, W), float32 or float64.
        p: probability of a channel being dropped, from 0 to 1.
        training: False returns x itself.

    Returns:
        Tensor of the shape of x.

    Raises:
        DTypeError: x is no tensor, or does not hold floats.
        ShapeError: x does not have four axes.
        ArgumentError: p is no number from 0 to 1.

    Precision:
        As :func:`dropout`.

    Kernels:
        kernels/dropout/: dropout.forward with span = H * W, which also is the gradient.

    Source:
        Tompson, Goroshin, Jain, LeCun and Bregler, "Efficient object localization using convolutional networks", 2015,
        section 3.2; masks as derived in kernels/dropout/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> gn.manual_seed(0)
        >>> y = F.dropout2d(gn.ones(8, 4, 2, 2))
        >>> sorted(set(y.sum((2, 3)).flatten().tolist()))
        [0.0, 8.0]
    """
    need_float("dropout2d", x=x)
    need_ndim("dropout2d", "x", x, (4,), "(N, C, H, W)")
    return _dropped(x, need_number("dropout2d", "p", p, 0, 1), training, max(x.shape[2] * x.shape[3], 1))
