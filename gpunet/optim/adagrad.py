"""Adagrad: a learning rate for each element, that shrinks with the gradients it has seen."""

from typing import Any

from gpunet.ops.checks import need_number
from gpunet.optim.optimizer import Optimizer


class Adagrad(Optimizer):
    """Each element's step is divided by the root of the sum of its squared gradients so far.

    With g the gradient plus weight_decay * p, in step t = 1, 2, ... ::

        s = s + g * g
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Args:
        params: tensors to train, or groups of them; see :class:`Optimizer`.
        lr: learning rate, at least 0.
        lr_decay: by how much the learning rate shrinks with the steps, at least 0.
        weight_decay: factor of the parameter that is added to its gradient, at least 0.
        initial_accumulator_value: s at the start, at least 0.
        eps: keeps the divisor above 0, at least 0.
        maximize: whether to climb rather than descend.

    Raises:
        ArgumentError: an option out of range, or no parameters.

    Precision:
        In the parameter's dtype; equal to PyTorch's to rounding. Deterministic.

    Source:
        Duchi, Hazan and Singer 2011, "Adaptive subgradient methods", figure 1, diagonal form.

    Example:
        >>> import gpunet as gn
        >>> w = gn.tensor([1.0, 100.0], requires_grad=True)
        >>> optimizer = gn.optim.Adagrad([w], lr=0.5)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w.tolist()
        [0.5, 99.5]
    """

    _kept = ("step", "sum")

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay}
        options["initial_accumulator_value"] = initial_accumulator_value
        super().__init__(params, {**options, "maximize": maximize})

    def _check(self, op: str, group: dict[str, Any]) -> None:
        for name in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            need_number(op, name, group[name], 0)

    def _update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        g = self._effective(xp, p, g, group)
        if not state:
            state["step"] = 0
            state["sum"] = xp.full(p.shape, float(group["initial_accumulator_value"]), p.dtype)
        state["step"] += 1
        s, step = state["sum"], self._scratch(xp, p)
        s += xp.multiply(g, g, out=step)
        xp.sqrt(s, out=step)
        step += float(group["eps"])
        xp.divide(g, step, out=step)
        step *= float(group["lr"]) / (1 + (state["step"] - 1) * float(group["lr_decay"]))
        p -= step
