"""Stochastic gradient descent."""

from typing import Any

from gpunet.errors import ArgumentError
from gpunet.ops.checks import need_number
from gpunet.optim.optimizer import Optimizer


class SGD(Optimizer):
    """p becomes p - lr * g; with momentum the step goes along a running sum of gradients.

    With g the gradient plus weight_decay * p, and the buffer v (g itself at the first step)::

        v = momentum * v + (1 - dampening) * g
        p = p - lr * v                      or, with nesterov, p - lr * (g + momentum * v)

    Args:
        params: tensors to train, or groups of them; see :class:`Optimizer`.
        lr: learning rate, at least 0.
        momentum: share of the old sum that is kept, at least 0.
        dampening: share of the gradient that is left out of the sum.
        weight_decay: factor of the parameter that is added to its gradient, at least 0.
        nesterov: whether to look one step of momentum ahead; needs momentum and no dampening.
        maximize: whether to climb rather than descend.

    Raises:
        ArgumentError: an option out of range, or no parameters.

    Precision:
        In the parameter's dtype; equal to PyTorch's to rounding. Deterministic.

    Source:
        Polyak 1964 for momentum; Sutskever et al. 2013, "On the importance of initialization and momentum in deep
        learning", section 2 for Nesterov's.

    Example:
        >>> import gpunet as gn
        >>> w = gn.tensor([1.0], requires_grad=True)
        >>> optimizer = gn.optim.SGD([w], lr=0.25)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w.tolist()
        [0.5]
    """

    _kept_sometimes = ("momentum_buffer",)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**options, "nesterov": nesterov, "maximize": maximize})

    def _check(self, op: str, group: dict[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            need_number(op, name, group[name], 0)
        need_number(op, "dampening", group["dampening"])
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            had = f"momentum={group['momentum']} and dampening={group['dampening']}"
            raise ArgumentError(f"{op}: nesterov needs momentum above 0 and dampening 0, got {had}; set momentum=0.9")

    def _update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        g = self._effective(xp, p, g, group)
        step, momentum = self._scratch(xp, p), float(group["momentum"])
        if momentum:
            v = state.get("momentum_buffer")
            if v is None:
                v = state["momentum_buffer"] = g.copy()
            else:
                v *= momentum
                v += xp.multiply(g, 1 - float(group["dampening"]), out=step)
            if group["nesterov"]:
                xp.multiply(v, momentum, out=step)
                g = xp.add(step, g, out=step)
            else:
                g = v
        p -= xp.multiply(g, float(group["lr"]), out=step)
