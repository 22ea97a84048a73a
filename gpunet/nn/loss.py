"""Losses as modules: CrossEntropyLoss, NLLLoss, MSELoss, L1Loss, BCELoss, BCEWithLogitsLoss."""

from gpunet import functional as F
from gpunet.nn.module import Module
from gpunet.ops.checks import need_number, need_tensor, one_of, whole
from gpunet.tensor import Tensor


class _Loss(Module):
    """What all have in common: the reduction, checked, and weights as buffers."""

    def __init__(self, reduction: str, **weights: Tensor | None):
        super().__init__()
        op = type(self).__name__
        self.reduction = one_of(op, "reduction", reduction, ("none", "mean", "sum"))
        need_tensor(op, **weights)
        for name, value in weights.items():
            self.register_buffer(name, value)

    def extra_repr(self) -> str:
        """The reduction, where it is not the mean."""
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """Minus the log-probability of the right class, from logits: softmax and logarithm are inside.

    Args:
        weight: (C,), what a sample of each class counts; None for 1.
        ignore_index: a target that counts nothing.
        reduction: "mean" over what counts, "sum", or "none" for one loss a target.
        label_smoothing: share of each target that is spread over all classes, from 0 to 1.

    Returns:
        A number, or with "none" one for each target, for logits (N, C) or (N, C, ...) and integer targets (N,) or
        (N, ...). Targets may also be class probabilities of the logits' shape and dtype.

    Raises:
        ArgumentError: an unknown reduction, smoothing outside 0 to 1, or a target that is no class.
        ShapeError: logits and targets do not fit.

    Precision:
        Stable for logits of any size. With all targets ignored the mean is NaN, as 0 / 0 is.

    Kernels:
        kernels/cross_entropy/: cross_entropy.forward, cross_entropy.grad_x.

    Example:
        >>> import gpunet as gn
        >>> loss = gn.nn.CrossEntropyLoss()(gn.zeros(2, 4), gn.tensor([0, 3]))
        >>> round(loss.item(), 4)
        1.3863
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):
        super().__init__(reduction, weight=weight)
        self.ignore_index = whole("CrossEntropyLoss", "ignore_index", ignore_index, -(2**63))
        self.label_smoothing = need_number("CrossEntropyLoss", "label_smoothing", label_smoothing, 0, 1)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C, ...) and classes (N, ...)."""
        return F.cross_entropy(
            x,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Loss):
    """Minus the log-probability of the right class, from log-probabilities (:class:`LogSoftmax`).

    Args:
        weight: (C,), what a sample of each class counts; None for 1.
        ignore_index: a target that counts nothing.
        reduction: "mean" over what counts, "sum", or "none" for one loss a target.

    Returns:
        A number, or with "none" the targets' shape, for log-probabilities (N, C) or (N, C, ...) and targets (N, ...).

    Raises:
        ArgumentError: an unknown reduction, or a target that is no class.
        ShapeError: input and targets do not fit.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.NLLLoss()(gn.tensor([[-1.0, -3.0]]), gn.tensor([1])).item()
        3.0
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(reduction, weight=weight)
        self.ignore_index = whole("NLLLoss", "ignore_index", ignore_index, -(2**63))

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities (N, C, ...) and classes (N, ...)."""
        return F.nll_loss(x, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(_Loss):
    """Squared difference.

    Args:
        reduction: "mean" over all elements, "sum", or "none" for one loss an element.

    Raises:
        ArgumentError: an unknown reduction.
        ShapeError: input and target differ in shape.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.MSELoss()(gn.tensor([1.0, 2.0]), gn.tensor([1.0, 4.0])).item()
        2.0
    """

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape."""
        return F.mse_loss(x, target, reduction=self.reduction)


class L1Loss(_Loss):
    """Absolute difference.

    Args:
        reduction: "mean" over all elements, "sum", or "none" for one loss an element.

    Raises:
        ArgumentError: an unknown reduction.
        ShapeError: input and target differ in shape.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.L1Loss()(gn.tensor([1.0, 2.0]), gn.tensor([1.0, 4.0])).item()
        1.0
    """

    def __init__(self, *, reduction: str = "mean"):
        super().__init__(reduction)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape."""
        return F.l1_loss(x, target, reduction=self.reduction)


class BCELoss(_Loss):
    """Minus the log-probability of a yes or no, from probabilities; :class:`BCEWithLogitsLoss` is more exact.

    Args:
        weight: what each element counts, broadcast to the input; None for 1.
        reduction: "mean" over all elements, "sum", or "none" for one loss an element.

    Raises:
        ArgumentError: an unknown reduction, or an input outside 0 to 1.
        ShapeError: input and target differ in shape.

    Precision:
        Logarithms are cut at -100, so a sure and wrong probability costs 100 and not infinity.

    Example:
        >>> import gpunet as gn
        >>> round(gn.nn.BCELoss()(gn.tensor([0.5]), gn.tensor([1.0])).item(), 4)
        0.6931
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean"):
        super().__init__(reduction, weight=weight)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Probabilities and targets from 0 to 1, of one shape."""
        return F.binary_cross_entropy(x, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Minus the log-probability of a yes or no, from logits: the sigmoid is inside.

    Args:
        weight: what each element counts, broadcast to the input; None for 1.
        reduction: "mean" over all elements, "sum", or "none" for one loss an element.
        pos_weight: what a yes counts, broadcast to the input; None for 1.

    Raises:
        ArgumentError: an unknown reduction.
        ShapeError: input and target differ in shape.

    Precision:
        Stable for logits of any size.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.BCEWithLogitsLoss()(gn.tensor([-1000.0]), gn.tensor([1.0])).item()
        1000.0
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean", pos_weight: Tensor | None = None):
        super().__init__(reduction, weight=weight, pos_weight=pos_weight)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Logits of any size and targets from 0 to 1, of one shape."""
        return F.binary_cross_entropy_with_logits(
            x, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )
