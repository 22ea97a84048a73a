"""Keeping weights small: penalties added to the loss, and a bound on their norms.

    Trainer(model, optimizer, "cross_entropy", regularizer=L2(1e-4), constraint=MaxNorm(3.0))

All of them act on weights that are trained and multiply (those with two axes or more: linear layers and convolutions),
not on biases nor on the factors of normalisations. ``layers`` narrows that down to some modules.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from gpunet import nn
from gpunet.errors import ArgumentError
from gpunet.ops.checks import need_number
from gpunet.tensor import Tensor


@dataclass(frozen=True)
class L1L2:
    """``l1 * sum(|w|) + l2 * sum(w * w)`` over the weights, for ``Trainer(regularizer=...)``.

    Args:
        l1: what the sum of the absolute values counts, at least 0; it drives weights to exactly 0, nearly.
        l2: what the sum of the squares counts, at least 0. In plain SGD it is weight decay: ``weight_decay=2 * l2``.
        layers: modules whose weights are meant, those inside them too; None for the whole model.

    Raises:
        ArgumentError: a number below 0, or layers that are no modules. When called: no weight to act on.

    Example:
        >>> import gpunet as gn
        >>> model = gn.nn.Linear(2, 1)
        >>> _ = model.load_state_dict({"weight": [[3.0, -4.0]], "bias": [9.0]})
        >>> L1L2(l1=1.0)(model).item(), L1L2(l2=0.5)(model).item()
        (7.0, 12.5)
    """

    l1: float = 0.0
    l2: float = 0.0
    layers: Any = None

    def __post_init__(self) -> None:
        for name in ("l1", "l2"):
            need_number(type(self).__name__, name, getattr(self, name), 0)
        _check_layers(type(self).__name__, self.layers)

    def __call__(self, model: Any) -> Tensor:
        """The penalty, a tensor of one number with its way back to the weights."""
        weights = [weight for _, weight in _weights(type(self).__name__, model, self.layers)]
        terms = [weight.abs().sum() * self.l1 for weight in weights if self.l1]
        terms += [(weight * weight).sum() * self.l2 for weight in weights if self.l2]
        return reduce(add, terms) if terms else Tensor(0.0, dtype=weights[0].dtype, device=weights[0].device)


class L1(L1L2):
    """``l1 * sum(|w|)``, see :class:`L1L2`.

    Example:
        >>> L1(1e-3)
        L1(l1=0.001, l2=0.0, layers=None)
    """

    def __init__(self, l1: float = 0.01, layers: Any = None) -> None:
        super().__init__(l1=l1, layers=layers)


class L2(L1L2):
    """``l2 * sum(w * w)``, see :class:`L1L2`.

    Example:
        >>> L2(1e-4)
        L2(l1=0.0, l2=0.0001, layers=None)
    """

    def __init__(self, l2: float = 0.01, layers: Any = None) -> None:
        super().__init__(l2=l2, layers=layers)


@dataclass(frozen=True)
class MaxNorm:
    """Scales each unit's incoming weights down to a norm of at most ``max_value``, for ``Trainer(constraint=...)``.

    A unit is a row of a linear layer's weight, or an output channel of a convolution. Weights below the bound are not
    touched. It acts in place and where the weights are: nothing leaves the device.

    Args:
        max_value: the largest Euclidean norm, above 0.
        layers: modules whose weights are meant, those inside them too; None for the whole model.

    Raises:
        ArgumentError: max_value not above 0, or layers that are no modules. When called: no weight to act on.

    Source:
        Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", section 5.1.

    Example:
        >>> import gpunet as gn
        >>> model = gn.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": [[3.0, -4.0], [0.6, 0.8]]})
        >>> MaxNorm(2.5)(model)
        >>> model.weight.tolist()
        [[1.5, -2.0], [0.6000000238418579, 0.800000011920929]]
    """

    max_value: float = 2.0
    layers: Any = None

    def __post_init__(self) -> None:
        if need_number("MaxNorm", "max_value", self.max_value, 0) == 0:
            raise ArgumentError("MaxNorm: max_value must be above 0, got 0")
        _check_layers("MaxNorm", self.layers)

    def __call__(self, model: Any) -> None:
        """Scales the weights."""
        with np.errstate(all="ignore"):  # a unit of zeros divides by 0, and inf and NaN are values, as in the ops
            for module, weight in _weights("MaxNorm", model, self.layers):
                xp = weight.device.xp
                norms = xp.sqrt(_squares(xp, module, weight.data))
                weight.data *= xp.minimum(self.max_value / norms, 1)
                weight._bump("MaxNorm")


def _squares(xp: Any, module: Any, w: Any) -> Any:
    """The sum of squares of each unit's incoming weights, in a shape that broadcasts with the weight."""
    squares = w * w
    if not isinstance(module, nn.ConvTranspose2d):
        return squares.sum(axis=tuple(range(1, w.ndim)), keepdims=True)
    # (C, OC / groups, KH, KW): the groups share out C, and a unit is one of OC / groups within its group.
    inputs, outputs = w.shape[:2]
    grouped = squares.reshape(module.groups, inputs // module.groups, outputs, -1)
    sums = xp.broadcast_to(grouped.sum(axis=(1, 3), keepdims=True), (*grouped.shape[:3], 1))
    return sums.reshape(inputs, outputs, 1, 1)


def _weights(op: str, model: Any, layers: Any) -> Iterator[tuple[Any, Any]]:
    """Each weight that is trained, with the module it belongs to; once, also when two modules share it."""
    seen: set[int] = set()
    for top in [model] if layers is None else [layers] if isinstance(layers, nn.Module) else layers:
        for module in top.modules():
            for weight in module.parameters(recurse=False):
                if weight.ndim >= 2 and weight.requires_grad and id(weight) not in seen:
                    seen.add(id(weight))
                    yield module, weight
    if not seen:
        where = "the model" if layers is None else "these layers"
        raise ArgumentError(f"{op}: {where} must have a weight of two axes or more that is trained, got none")


def _check_layers(op: str, layers: Any) -> None:
    listed = list(layers) if isinstance(layers, list | tuple) else [layers]
    wrong = [each for each in listed if not isinstance(each, nn.Module)]
    if layers is not None and (wrong or not listed):
        got = repr(wrong[0]) if wrong else "an empty list"
        raise ArgumentError(f"{op}: layers must be a module, a list of modules or None, got {got}")
