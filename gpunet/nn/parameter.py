"""Parameter: a tensor to be trained, and what modules and optimizers do to one."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpunet.devices import Device
from gpunet.graph import Version, version_of
from gpunet.tensor import Tensor


class Parameter(Tensor):
    """A tensor that a module owns and an optimizer changes.

    Args:
        data: a tensor, whose memory is shared and whose history is left behind, or anything ``gn.tensor`` takes.
        requires_grad: whether backward shall fill ``.grad``.

    Raises:
        DTypeError: a gradient is asked of integers.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.Parameter(gn.zeros(2, 3)).requires_grad
        True
    """

    def __init__(self, data: Any, requires_grad: bool = True):
        if isinstance(data, Tensor):
            self.data, self.device, self._version = data.data, data.device, version_of(data)
        else:
            super().__init__(data)
        if requires_grad:
            self.requires_grad_()

    def __repr__(self) -> str:
        return f"Parameter:\n{super().__repr__()}"


def clear_gradients(parameters: Iterable[Tensor], set_to_none: bool) -> None:
    """Takes ``.grad`` away from each parameter, or fills it with zeros."""
    for parameter in parameters:
        if set_to_none or parameter.grad is None:
            parameter.grad = None
        else:
            parameter.grad = Tensor._wrap(parameter.device.xp.zeros_like(parameter.data), parameter.device)


def move(tensor: Tensor, place: Device, dtype: Any) -> None:
    """Gives the tensor an array of another device or dtype; a graph that saved the old values will say so."""
    wanted = tensor.dtype if dtype is None or tensor.dtype.kind != "f" else np.dtype(dtype)
    if wanted == tensor.dtype and place is tensor.device:
        return
    moved = tensor.detach().to(dtype=wanted, device=place)
    tensor._bump("Module.to")
    old, fresh = version_of(tensor), Version()  # the new memory is shared with nobody
    fresh.count, fresh.op = old.count, old.op  # for a graph that looks the version up at the tensor
    tensor.data, tensor.device, tensor._version = moved.data, moved.device, fresh
    if tensor.grad is not None:
        tensor.grad = tensor.grad.detach().to(dtype=wanted, device=place)
