"""RMSprop: steps divided by a running root mean square of the gradients."""

from typing import Any

from gpunet.ops.checks import need_number
from gpunet.optim.optimizer import Optimizer


class RMSprop(Optimizer):
    """Each element's step is divided by the root of a running mean of its squared gradients.

    With g the gradient plus weight_decay * p::

        s = alpha * s + (1 - alpha) * g * g
        d = sqrt(s) + eps                   or, centered, sqrt(s - m * m) + eps with m = alpha * m + (1 - alpha) * g
        v = momentum * v + g / d            (without momentum v = g / d)
        p = p - lr * v

    Args:
        params: tensors to train, or groups of them; see :class:`Optimizer`.
        lr: learning rate, at least 0.
        alpha: share of the old mean that is kept, from 0 to 1.
        eps: keeps the divisor above 0, at least 0; added after the root.
        weight_decay: factor of the parameter that is added to its gradient, at least 0.
        momentum: share of the old step that is kept, at least 0.
        centered: whether to divide by the deviation, the mean gradient taken off, rather than the mean square.
        maximize: whether to climb rather than descend.

    Raises:
        ArgumentError: an option out of range, or no parameters.

    Precision:
        In the parameter's dtype; equal to PyTorch's to rounding. Deterministic.

    Source:
        Tieleman and Hinton 2012, "Neural networks for machine learning", lecture 6.5; centered: Graves 2013,
        "Generating sequences with recurrent neural networks", equations 38 to 41.

    Example:
        >>> import gpunet as gn
        >>> w = gn.tensor([1.0], requires_grad=True)
        >>> optimizer = gn.optim.RMSprop([w], lr=0.05, alpha=0.75)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.9
    """

    _kept = ("step", "square_avg")
    _kept_sometimes = ("grad_avg", "momentum_buffer")

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**options, "centered": centered, "maximize": maximize})

    def _check(self, op: str, group: dict[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay", "momentum"):
            need_number(op, name, group[name], 0)
        need_number(op, "alpha", group["alpha"], 0, 1)

    def _update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        g = self._effective(xp, p, g, group)
        alpha, step = float(group["alpha"]), self._scratch(xp, p)
        state["step"] = state.get("step", 0) + 1
        s = _average(xp, state, "square_avg", p)
        s *= alpha
        xp.multiply(g, 1 - alpha, out=step)
        s += xp.multiply(step, g, out=step)
        if group["centered"]:
            m = _average(xp, state, "grad_avg", p)
            xp.subtract(g, m, out=step)
            step *= 1 - alpha
            m += step
            xp.multiply(m, m, out=step)
            xp.subtract(s, step, out=step)
            xp.sqrt(step, out=step)
        else:
            xp.sqrt(s, out=step)
        step += float(group["eps"])
        xp.divide(g, step, out=step)
        if group["momentum"]:
            v = _average(xp, state, "momentum_buffer", p)
            v *= float(group["momentum"])
            v += step
            xp.copyto(step, v)
        step *= float(group["lr"])
        p -= step


def _average(xp: Any, state: dict[str, Any], name: str, p: Any) -> Any:
    if name not in state:
        state[name] = xp.zeros(p.shape, p.dtype)
    return state[name]
