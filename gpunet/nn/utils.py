"""What is done to gradients between backward and step: clip_grad_norm_, clip_grad_value_."""

import math
from collections.abc import Iterable

import numpy as np

from gpunet.devices import Device
from gpunet.errors import ArgumentError, DeviceError, GraphError
from gpunet.ops.checks import need_number, need_tensor
from gpunet.tensor import Tensor


def _gradients(op: str, parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for each in listed:
        need_tensor(op, parameters=each)
    return [each.grad for each in listed if each.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scales all gradients by one factor, in place, so that their norm taken together is at most ``max_norm``.

    Against steps that are too large; called between ``backward`` and ``step``.

    Args:
        parameters: tensors whose ``.grad`` is scaled; those without one are passed over.
        max_norm: the largest norm.
        norm_type: p of the p-norm, above 0; ``math.inf`` for the largest absolute value.
        error_if_nonfinite: whether to raise, before anything is scaled, when the norm is inf or NaN.

    Returns:
        The norm before scaling, a tensor of shape (). The factor is ``min(1, max_norm / (norm + 1e-6))``.

    Raises:
        ArgumentError: max_norm below 0, or norm_type not above 0.
        GraphError: the norm is not finite, and error_if_nonfinite.
        DeviceError: gradients on two devices.

    Source:
        Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks", section 3.2.

    Example:
        >>> import gpunet as gn
        >>> w = gn.zeros(2, requires_grad=True)
        >>> (w * gn.tensor([3.0, 4.0])).sum().backward()
        >>> gn.nn.utils.clip_grad_norm_(w, 1.0).item(), [round(g, 3) for g in w.grad.tolist()]
        (5.0, [0.6, 0.8])
    """
    op = "clip_grad_norm_"
    need_number(op, "max_norm", max_norm, 0)
    if need_number(op, "norm_type", norm_type, 0) == 0:
        raise ArgumentError("clip_grad_norm_: norm_type must be above 0, got 0")
    grads = _gradients(op, parameters)
    if not grads:
        return Tensor(0.0)
    device = grads[0].device
    if any(each.device is not device for each in grads):
        places = ", ".join(sorted({str(each.device) for each in grads}))
        raise DeviceError(f"{op}: all gradients must be on one device, got {places}")
    with np.errstate(all="ignore"):  # inf and NaN are values, as in the ops
        return _clip_norm(op, device, grads, max_norm, norm_type, error_if_nonfinite)


def _clip_norm(
    op: str, device: Device, grads: list[Tensor], max_norm: float, norm_type: float, error_if_nonfinite: bool
) -> Tensor:
    xp = device.xp
    # A norm for each gradient, then the norm of these: the same number, without joining the gradients.
    norms = [xp.linalg.norm(each.data.ravel(), norm_type) for each in grads if each.data.size]
    total = xp.linalg.norm(xp.stack(norms or [xp.zeros(())]), norm_type).astype(grads[0].dtype)
    if error_if_nonfinite and not math.isfinite(float(total)):
        raise GraphError(f"{op}: the norm of the gradients must be finite, got {float(total)}; nothing was scaled")
    factor = xp.minimum(max_norm / (total + 1e-6), 1.0)
    for each in {id(each): each for each in grads}.values():
        each.data = each.data * factor.astype(each.dtype)  # a new array: two gradients may share one
        each._bump(op)
    return Tensor._wrap(xp.asarray(total), device)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Cuts every element of the gradients to between ``-clip_value`` and ``clip_value``, in place.

    Args:
        parameters: tensors whose ``.grad`` is cut; those without one are passed over.
        clip_value: the largest absolute value, at least 0.

    Raises:
        ArgumentError: clip_value below 0.

    Example:
        >>> import gpunet as gn
        >>> w = gn.zeros(2, requires_grad=True)
        >>> (w * gn.tensor([3.0, -0.5])).sum().backward()
        >>> gn.nn.utils.clip_grad_value_([w], 1.0)
        >>> w.grad.tolist()
        [1.0, -0.5]
    """
    need_number("clip_grad_value_", "clip_value", clip_value, 0)
    for each in _gradients("clip_grad_value_", parameters):
        each.data = each.data.clip(-clip_value, clip_value)
        each._bump("clip_grad_value_")
