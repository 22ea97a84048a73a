"""Adam and AdamW: running means of gradients and of their squares, both corrected for their start at 0."""

import math
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.ops.checks import need_number
from gpunet.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Steps of about lr in each element, along a running mean of its gradients.

    With g the gradient plus weight_decay * p, betas = (b1, b2), in step t = 1, 2, ... ::

        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        p = p - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

    Args:
        params: tensors to train, or groups of them; see :class:`Optimizer`.
        lr: learning rate, at least 0.
        betas: shares of the old means that are kept, each at least 0 and below 1.
        eps: keeps the divisor above 0, at least 0.
        weight_decay: factor of the parameter that is added to its gradient, at least 0; mind :class:`AdamW`.
        amsgrad: whether the divisor uses the largest v so far.
        maximize: whether to climb rather than descend.

    Raises:
        ArgumentError: an option out of range, or no parameters.

    Precision:
        In the parameter's dtype; equal to PyTorch's to rounding. Deterministic.

    Source:
        Kingma and Ba 2015, "Adam", algorithm 1; amsgrad: Reddi, Kale and Kumar 2018, "On the convergence of Adam and
        beyond", algorithm 2.

    Example:
        >>> import gpunet as gn
        >>> w = gn.tensor([1.0, 100.0], requires_grad=True)
        >>> optimizer = gn.optim.Adam([w], lr=0.5)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> [round(value, 6) for value in w.tolist()]
        [0.5, 99.5]
    """

    _kept = ("step", "exp_avg", "exp_avg_sq")
    _kept_sometimes = ("max_exp_avg_sq",)
    _decoupled = False  # AdamW: weight decay shrinks the parameter and leaves the gradient alone

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "amsgrad": amsgrad, "maximize": maximize})

    def _check(self, op: str, group: dict[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            need_number(op, name, group[name], 0)
        betas = group["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ArgumentError(f"{op}: betas must be two numbers, got {betas!r}")
        for k, beta in enumerate(betas):
            if need_number(op, f"betas[{k}]", beta, 0) >= 1:
                raise ArgumentError(f"{op}: betas[{k}] must be below 1, got {beta}")

    def _update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, (b1, b2) = float(group["lr"]), map(float, group["betas"])
        if self._decoupled and group["weight_decay"]:
            p *= 1 - lr * float(group["weight_decay"])
        g = self._effective(xp, p, g, group, decay=not self._decoupled)
        if not state:
            state.update(step=0, exp_avg=xp.zeros(p.shape, p.dtype), exp_avg_sq=xp.zeros(p.shape, p.dtype))
        t = state["step"] = state["step"] + 1
        m, v, step = state["exp_avg"], state["exp_avg_sq"], self._scratch(xp, p)
        xp.subtract(g, m, out=step)
        step *= 1 - b1
        m += step
        v *= b2
        xp.multiply(g, 1 - b2, out=step)
        v += xp.multiply(step, g, out=step)
        if group["amsgrad"]:
            most = state.get("max_exp_avg_sq")
            v = state["max_exp_avg_sq"] = v.copy() if most is None else xp.maximum(most, v, out=most)
        xp.sqrt(v, out=step)
        step /= math.sqrt(1 - b2**t)
        step += float(group["eps"])
        xp.divide(m, step, out=step)
        step *= lr / (1 - b1**t)
        p -= step


class AdamW(Adam):
    """:class:`Adam` whose weight decay shrinks the parameter itself: first p becomes p * (1 - lr * weight_decay).

    In Adam the decay passes through the divisor, so that elements with large gradients hardly decay; here all do alike.

    Args:
        params: tensors to train, or groups of them; see :class:`Optimizer`.
        lr: learning rate, at least 0.
        betas: shares of the old means that are kept, each at least 0 and below 1.
        eps: keeps the divisor above 0, at least 0.
        weight_decay: share of the parameter, times lr, that each step takes off; at least 0.
        amsgrad: whether the divisor uses the largest v so far.
        maximize: whether to climb rather than descend.

    Raises:
        ArgumentError: an option out of range, or no parameters.

    Precision:
        In the parameter's dtype; equal to PyTorch's to rounding. Deterministic.

    Source:
        Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2.

    Example:
        >>> import gpunet as gn
        >>> w = gn.tensor([1.0], requires_grad=True)
        >>> optimizer = gn.optim.AdamW([w], lr=0.5, weight_decay=0.5)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> round(w.item(), 6)
        0.25
    """

    _decoupled = True

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
