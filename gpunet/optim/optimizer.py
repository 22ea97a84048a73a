"""What all optimizers have in common: parameter groups, the step's frame, state that can be saved."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpunet.devices import Device
from gpunet.errors import ArgumentError, DTypeError, GraphError, ShapeError
from gpunet.modes import enable_grad
from gpunet.nn.module import Module
from gpunet.nn.parameter import clear_gradients
from gpunet.tensor import FLOATS, Tensor


class Optimizer:
    """Base class. A subclass names its options, checks them in ``_check`` and changes one parameter in ``_update``.

    Args:
        params: tensors to train, or groups of them: mappings with "params" and any options of their own.
        defaults: the options of a group that does not set them itself.

    Attributes:
        param_groups: one dictionary a group: "params" and the options. A change of an option counts from the next step.
        state: for each parameter that was stepped, its arrays and numbers by name.

    Raises:
        ArgumentError: no parameters, one twice, an unknown option, or an option out of range.
        DTypeError: something that is no floating tensor.
        GraphError: a tensor that an op made; only leaves can be trained.

    Example:
        >>> import gpunet as gn
        >>> model = gn.nn.Linear(2, 1)
        >>> optimizer = gn.optim.SGD([{"params": [model.weight]}, {"params": [model.bias], "lr": 0.5}], lr=0.1)
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.1, 0.5]
    """

    _kept: tuple[str, ...] = ()  # names in the state of a parameter that was stepped
    _kept_sometimes: tuple[str, ...] = ()  # further ones, that depend on options

    def __init__(self, params: Any, defaults: dict[str, Any]):
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        self._homes: dict[Tensor, tuple[Device, Any]] = {}  # device and dtype of a parameter's state
        self._scratches: dict[Any, Any] = {}
        op = type(self).__name__
        if isinstance(params, Tensor | Module | dict):
            remedy = "pass model.parameters()" if isinstance(params, Module) else "put it in a list"
            raise ArgumentError(f"{op}: params must be an iterable of tensors or groups, got {_kind(params)}; {remedy}")
        listed = list(params)
        if not listed:
            raise ArgumentError(f"{op}: params must hold at least one tensor, got none; an iterator may be used up")
        groups = listed if isinstance(listed[0], dict) else [{"params": listed}]
        for group in groups:
            self.add_param_group(group)

    # -- for subclasses ------------------------------------------------------------------------------------------

    def _check(self, op: str, group: dict[str, Any]) -> None:
        """Raises when an option of the group is out of range. To be overridden."""
        raise NotImplementedError

    def _update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Changes the array ``p`` in place, given its gradient ``g``, which must stay as it is. To be overridden."""
        raise NotImplementedError

    def _scratch(self, xp: Any, like: Any, number: int = 0) -> Any:
        """An array of the shape of ``like`` for values in between. One memory serves all parameters in turn."""
        key = (number, like.dtype, str(getattr(like, "device", "")))
        flat = self._scratches.get(key)
        if flat is None or flat.size < like.size:
            flat = self._scratches[key] = xp.empty(like.size, like.dtype)
        return flat[: like.size].reshape(like.shape)

    def _effective(self, xp: Any, p: Any, g: Any, group: dict[str, Any], decay: bool = True) -> Any:
        """The gradient turned round when maximising, plus weight_decay * p."""
        rate = float(group["weight_decay"]) if decay else 0.0
        if not (group["maximize"] or rate):
            return g
        out = self._scratch(xp, p, 1)
        if not rate:
            return xp.negative(g, out=out)
        xp.multiply(p, rate, out=out)
        return xp.subtract(out, g, out=out) if group["maximize"] else xp.add(out, g, out=out)

    # -- groups --------------------------------------------------------------------------------------------------

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Adds a group, for example layers that are trained from now on.

        Args:
            group: "params", a tensor or an iterable of them, and any options that differ from the defaults.
        """
        op = type(self).__name__
        if not isinstance(group, dict) or "params" not in group:
            raise ArgumentError(f"{op}: a group must be a dictionary with 'params', got {_kind(group)}")
        unknown = sorted(set(group) - set(self.defaults) - {"params", *_SCHEDULED})
        if unknown:
            names = ", ".join(self.defaults)
            raise ArgumentError(f"{op}: options of a group must be among {names}, got {', '.join(map(repr, unknown))}")
        given = group["params"]
        tensors = [given] if isinstance(given, Tensor) else list(given)
        if not tensors:
            raise ArgumentError(f"{op}: a group must hold at least one tensor, got none; an iterator may be used up")
        known = {id(each) for other in self.param_groups for each in other["params"]}
        for each in tensors:
            _need_trainable(op, each)
            if id(each) in known:
                raise ArgumentError(f"{op}: each tensor may be given once, got one of shape {each.shape} again")
            known.add(id(each))
        full = {**self.defaults, **group, "params": tensors}
        self._check(op, full)
        self.param_groups.append(full)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Takes the gradients of all parameters away, or with ``set_to_none=False`` fills them with zeros."""
        for group in self.param_groups:
            clear_gradients(group["params"], set_to_none)

    # -- step ----------------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Changes every parameter that has a gradient, in place.

        Args:
            closure: computes loss and gradients anew before the step; None when backward has run already.

        Returns:
            What the closure returned, or None.

        Raises:
            ShapeError: a gradient does not have its parameter's shape. No parameter was changed.
            DTypeError: a gradient of another dtype.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        op = f"{type(self).__name__}.step"
        todo = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for _, p in todo:
            _need_fitting(op, p)
        with np.errstate(all="ignore"):  # inf and NaN are values, as in the ops
            for group, p in todo:
                self._update(p.device.xp, p.data, p.grad.data, self._state_of(p), group)
                p._bump(op)
        return loss

    def _state_of(self, p: Tensor) -> dict[str, Any]:
        """The parameter's state, moved along when the parameter was moved or cast."""
        state = self.state.setdefault(p, {})
        home, now = self._homes.get(p), (p.device, p.dtype)
        if home != now:
            if home is not None:
                for name, value in state.items():
                    if hasattr(value, "shape"):
                        state[name] = p.device.asarray(home[0].to_host(value), p.dtype)
            self._homes[p] = now
        return state

    # -- saving --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """State and options as plain values and NumPy arrays (copies); parameters are numbered in order.

        Returns:
            ``{"state": {number: {name: value}}, "param_groups": [{"params": [numbers], option: value}]}``.
        """
        number = {id(p): k for k, p in enumerate(self._all())}
        kept = {number[id(p)]: (p.device, each) for p, each in self.state.items() if each}
        state = {k: {n: _copied(place, v) for n, v in each.items()} for k, (place, each) in sorted(kept.items())}
        groups = [{**group, "params": [number[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over state and options from :meth:`state_dict`; parameters are matched by their order.

        Arrays are copied, and cast to each parameter's dtype and device.

        Raises:
            ArgumentError: groups, numbers or shapes do not match. Nothing was changed.
        """
        op = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= set(state_dict):
            raise ArgumentError(f"{op}: state_dict must hold 'state' and 'param_groups', got {_kind(state_dict)}")
        groups = state_dict["param_groups"]
        sizes, own = [len(g["params"]) for g in groups], [len(g["params"]) for g in self.param_groups]
        if sizes != own:
            raise ArgumentError(f"{op}: groups must have the same sizes, got {sizes} in the state and {own} here")
        known = {*self.defaults, *_SCHEDULED}
        options = [{k: tuple(v) if isinstance(v, list) else v for k, v in g.items() if k in known} for g in groups]
        for mine, new in zip(self.param_groups, options):
            self._check(op, {**mine, **new})
        numbers = [number for group in groups for number in group["params"]]
        given = {p: state_dict["state"].get(k) for k, p in zip(numbers, self._all())}
        fresh = {p: self._restored(op, p, each) for p, each in given.items() if each}
        for mine, new in zip(self.param_groups, options):
            mine.update(new)
        self.state = fresh
        self._homes = {p: (p.device, p.dtype) for p in fresh}

    def _restored(self, op: str, p: Tensor, given: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in given.items() if value is not None}  # PyTorch's SGD keeps a None
        missing, strange = set(self._kept) - set(given), set(given) - {*self._kept, *self._kept_sometimes}
        if missing or strange:
            names = ", ".join((*self._kept, *self._kept_sometimes)) or "nothing"
            got = ", ".join(sorted(given))
            raise ArgumentError(f"{op}: the state of a parameter must hold {names}, got {got}; whose state is it?")
        return {name: _restored(op, p, name, value) for name, value in given.items()}

    def _all(self) -> Iterable[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scratches": {}}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}("]
        for k, group in enumerate(self.param_groups):
            options = ", ".join(f"{name}={value}" for name, value in group.items() if name != "params")
            lines.append(f"  group {k}: {len(group['params'])} tensors, {options}")
        return "\n".join([*lines, ")"])


#: What schedulers leave in a group, so that a saved optimizer takes it along.
_SCHEDULED = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")


def _kind(value: Any) -> str:
    """What came, for a message: the keys of a dictionary, the type of anything else."""
    return f"keys {sorted(map(str, value))}" if isinstance(value, dict) else type(value).__name__


def _copied(device: Device, value: Any) -> Any:
    return np.array(device.to_host(value)) if hasattr(value, "shape") else value


def _restored(op: str, p: Tensor, name: str, value: Any) -> Any:
    """A saved value as a fresh array of the parameter's device, or as a number."""
    if not hasattr(value, "shape"):
        return value
    host = np.array(value.get() if hasattr(value, "get") else value)
    if name == "step":  # PyTorch keeps the count of steps as a tensor
        return int(host)
    if host.shape != p.shape:
        raise ArgumentError(f"{op}: {name!r} must have its parameter's shape {p.shape}, got {host.shape}")
    return p.device.asarray(host, p.dtype)


def _need_trainable(op: str, p: Any) -> None:
    if not isinstance(p, Tensor):
        raise DTypeError(f"{op}: params must be tensors, got {_kind(p)}; pass model.parameters()")
    if p.dtype not in FLOATS:
        raise DTypeError(f"{op}: params must be float32 or float64, got {p.dtype}; integers cannot be trained")
    if not p.is_leaf:
        raise GraphError(f"{op}: params must be leaves, got a tensor made by {p._node.name}; .detach() it")


def _need_fitting(op: str, p: Tensor) -> None:
    """The gradient could have been set by hand, and NumPy would broadcast it without a word."""
    g = p.grad
    if g is None or (g.shape == p.shape and g.dtype == p.dtype and g.device is p.device):
        return
    if g.shape != p.shape:
        raise ShapeError(f"{op}: a gradient must have its parameter's shape {p.shape}, got {g.shape}")
    ours, theirs = f"{p.dtype} on {p.device}", f"{g.dtype} on {g.device}"
    raise DTypeError(f"{op}: a gradient must have its parameter's dtype and device, {ours}, got {theirs}; use .to()")
