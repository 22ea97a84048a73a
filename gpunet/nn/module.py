"""Module: parameters, buffers and modules under dotted names, and a forward that uses them.

Assigning a :class:`Parameter` or a Module to an attribute registers it. Moves and casts change the tensors in place:
a parameter stays the same object, so an optimizer made before still holds it.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np

from gpunet import devices
from gpunet.devices import Device
from gpunet.errors import ArgumentError, DTypeError, GpunetError
from gpunet.nn.parameter import Parameter, clear_gradients, move
from gpunet.tensor import FLOATS, Hook, Tensor

_TABLES = ("_parameters", "_buffers", "_modules")
_OWN = (*_TABLES, "_fleeting", "_hooks", "_pre_hooks", "training")


class KeyReport(NamedTuple):
    """What ``load_state_dict`` left out: names the state lacks, and names the module lacks."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base class of layers and models: call ``super().__init__()``, assign parameters and modules, define ``forward``.

    Calling the module runs ``forward`` and its hooks. An error raised inside carries a note for every module on the
    way, so that a wrong shape in a deep model names its layer.

    Attributes:
        training: True makes dropout drop and batch normalisation use the batch; set by :meth:`train` and :meth:`eval`.

    Raises:
        ArgumentError: ``super().__init__()`` did not run first, or a name is empty, taken or holds a point.
        DTypeError: the name of a parameter, buffer or module is given to something else.

    Example:
        >>> import gpunet as gn
        >>> class Scale(gn.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.factor = gn.nn.Parameter(gn.ones(1))
        ...
        ...     def forward(self, x):
        ...         return x * self.factor
        >>> model = gn.nn.Sequential(Scale(), Scale())
        >>> [name for name, _ in model.named_parameters()]
        ['0.factor', '1.factor']
        >>> model(gn.tensor([2.0])).tolist()
        [2.0]
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, "Module | None"]
    _fleeting: set[str]  # buffers that a state dict leaves out
    _hooks: dict[int, Callable[..., Any]]
    _pre_hooks: dict[int, Callable[..., Any]]

    def __init__(self) -> None:
        own = self.__dict__
        own.update(training=True, _parameters={}, _buffers={}, _modules={}, _fleeting=set(), _hooks={}, _pre_hooks={})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the output. To be overridden; called by calling the module."""
        raise NotImplementedError(f"{type(self).__name__}: the class must define forward(self, ...), got none")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs forward and the hooks around it."""
        try:
            for hook in list(self._pre_hooks.values()):
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
            result = self.forward(*args, **kwargs)
            for hook in list(self._hooks.values()):
                changed = hook(self, args, result)
                result = result if changed is None else changed
            return result
        except GpunetError as error:
            error.add_note(f"in {type(self).__name__}({self.extra_repr()})")
            raise

    # -- names ---------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if "_modules" not in own and isinstance(value, Parameter | Module):
            raise self._no_init(name)
        kinds = (("_parameters", Parameter), ("_modules", Module), ("_buffers", Tensor))
        for table, kind in kinds[:2]:
            if isinstance(value, kind):
                if name not in own[table]:  # where it is there, it keeps its place in the order
                    self._forget(name)
                    own.pop(name, None)
                own[table][name] = value
                return
        for table, kind in kinds:
            if name in own.get(table, ()):
                if value is not None and not isinstance(value, kind):
                    what = f"{name!r} must be a {kind.__name__} or None, got {type(value).__name__}"
                    remedy = "delete the attribute first to give the name another meaning"
                    raise DTypeError(f"{type(self).__name__}: {what}; {remedy}")
                own[table][name] = value
                return
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:  # reached when the ordinary look-up found nothing
        own = self.__dict__
        for table in _TABLES:
            if name in own.get(table, ()):
                return own[table][name]
        if name in _OWN:
            raise self._no_init(name)
        raise AttributeError(f"{type(self).__name__}: there is no attribute {name!r}", name=name, obj=self)

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            super().__delattr__(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for table in _TABLES for name in self.__dict__.get(table, ()))]

    def _no_init(self, name: str) -> ArgumentError:
        return ArgumentError(
            f"{type(self).__name__}: super().__init__() must run before parameters and modules are assigned or used, "
            f"got {name!r} first; call it at the start of __init__"
        )

    def _forget(self, name: str) -> bool:
        """Takes the name out of the tables; whether it was there."""
        self._fleeting.discard(name)
        found = [table for table in _TABLES if name in self.__dict__[table]]
        for table in found:
            del self.__dict__[table][name]
        return bool(found)

    def _register(self, table: str, name: str, value: Any, kind: type) -> None:
        op = f"{type(self).__name__}.register{table[:-1]}"
        if "_modules" not in self.__dict__:
            raise self._no_init(name)
        if not isinstance(name, str) or not name or "." in name:
            raise ArgumentError(f"{op}: name must be a non-empty word without a point, got {name!r}")
        if name not in self.__dict__[table] and hasattr(self, name):
            raise ArgumentError(f"{op}: name must be free, got {name!r}, which is an attribute already")
        if value is not None and not isinstance(value, kind):
            raise DTypeError(f"{op}: {name!r} must be a {kind.__name__} or None, got {type(value).__name__}")
        self.__dict__[table][name] = value

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """Adds a parameter under ``name``; None keeps the name for one that is absent (as with ``bias=False``)."""
        self._register("_parameters", name, value, Parameter)

    def register_buffer(self, name: str, value: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but not trained; ``persistent=False`` leaves it out of the state dict."""
        self._register("_buffers", name, value, Tensor)
        (self._fleeting.discard if persistent else self._fleeting.add)(name)

    def register_module(self, name: str, value: "Module | None") -> None:
        """Adds a module under ``name``."""
        self._register("_modules", name, value, Module)

    add_module = register_module

    # -- what it holds -------------------------------------------------------------------------------------------

    def _walk(self, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, "Module"]]:
        """Itself, then all below, with dotted names; each once if ``seen`` is given."""
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module._walk(f"{prefix}.{name}" if prefix else name, seen)

    def _members(self, table: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self._walk(prefix, set()) if recurse else [(prefix, self)]:
            for name, value in getattr(module, table).items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) of each parameter, a shared one once; ``recurse=False`` for its own alone."""
        return self._members("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Each parameter once; ``recurse=False`` for its own alone."""
        return (value for _, value in self._members("_parameters", "", recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, buffer) of each buffer once; ``recurse=False`` for its own alone."""
        return self._members("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Each buffer once; ``recurse=False`` for its own alone."""
        return (value for _, value in self._members("_buffers", "", recurse))

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of each module directly below."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator["Module"]:
        """Each module directly below."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(dotted name, module) of itself, named ``prefix``, and of each module below, each once."""
        return self._walk(prefix, set())

    def modules(self) -> Iterator["Module"]:
        """Itself and each module below, each once."""
        return (module for _, module in self._walk("", set()))

    # -- modes ---------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Sets training mode here and in every module below; returns self."""
        if not isinstance(mode, bool):
            raise ArgumentError(f"{type(self).__name__}.train: mode must be True or False, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Sets evaluation mode here and in every module below; returns self."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switches the gradients of all parameters on or off; returns self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def freeze(self) -> Self:
        """No parameter gets a gradient any more; running statistics still move unless in evaluation mode."""
        return self.requires_grad_(False)

    def unfreeze(self) -> Self:
        """Every parameter gets gradients again."""
        return self.requires_grad_(True)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Takes the gradients of all parameters away, or with ``set_to_none=False`` fills them with zeros."""
        clear_gradients(self.parameters(), set_to_none)

    # -- places and dtypes ---------------------------------------------------------------------------------------

    def to(self, *targets: Any, dtype: Any = None, device: Any = None) -> Self:
        """Moves all parameters and buffers to a device, and casts the floating ones, in place; returns self.

        Args:
            targets: a device or its name, and/or a floating dtype or its name.
            dtype: the same by keyword.
            device: the same by keyword.

        Raises:
            DTypeError: dtype is not float32 or float64.
            DeviceError: the device cannot be used here.
        """
        for target in targets:
            word = target.partition(":")[0] if isinstance(target, str) else None
            if isinstance(target, Device) or word in (*devices.KINDS, "auto"):
                device = target
            else:
                dtype = target
        if dtype is not None and np.dtype(dtype) not in FLOATS:
            raise DTypeError(f"{type(self).__name__}.to: dtype must be float32 or float64, got {np.dtype(dtype)}")
        place = None if device is None else devices.device(device)
        for tensor in [*self.parameters(), *self.buffers()]:
            move(tensor, place or tensor.device, dtype)
        return self

    def cpu(self) -> Self:
        """Moves everything to the CPU, in place."""
        return self.to("cpu")

    def cuda(self, index: int = 0) -> Self:
        """Moves everything to GPU ``index``, in place."""
        return self.to(f"cuda:{index}")

    def float(self) -> Self:
        """Casts everything that is floating to float32, in place."""
        return self.to(np.float32)

    def double(self) -> Self:
        """Casts everything that is floating to float64, in place."""
        return self.to(np.float64)

    # -- state ---------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Tensor]:
        found: dict[str, Any] = {}
        for path, module in self._walk("", None):
            kept = {name: value for name, value in module._buffers.items() if name not in module._fleeting}
            for name, value in {**module._parameters, **kept}.items():
                if value is not None:
                    found[f"{path}.{name}" if path else name] = value
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Dotted names to detached tensors that share memory with the parameters and persistent buffers.

        A later step changes them too; ``copy.deepcopy`` it to keep a moment. Shared tensors are listed by every name.
        """
        return {name: value.detach() for name, value in self._state().items()}

    def load_state_dict(self, state: Any, strict: bool = True) -> KeyReport:
        """Copies values into parameters and buffers, in place, cast to their dtypes and devices.

        Args:
            state: dotted names to tensors or arrays, as :meth:`state_dict` gives them.
            strict: True raises on names that are missing or unexpected, False passes over them.

        Returns:
            (missing_keys, unexpected_keys).

        Raises:
            ArgumentError: names or shapes do not match. The message lists all of them, and nothing was changed.
        """
        report, values = self._matched(state, strict)
        own = self._state()
        for name, value in values.items():
            own[name].data[...] = own[name].device.asarray(value, own[name].dtype)
            own[name]._bump("load_state_dict")
        return report

    def _matched(self, state: Any, strict: bool = True) -> tuple[KeyReport, dict[str, Any]]:
        """What ``load_state_dict`` would leave out and what it would copy, once all of it fits; nothing is changed."""
        op = f"{type(self).__name__}.load_state_dict"
        if not hasattr(state, "items"):
            raise ArgumentError(f"{op}: state must be a mapping of names to tensors, got {type(state).__name__}")
        own = self._state()
        values = {name: value.data if isinstance(value, Tensor) else value for name, value in state.items()}
        report = KeyReport([k for k in own if k not in values], [k for k in values if k not in own])
        known = {k: v for k, v in values.items() if k in own}
        values = {k: v if isinstance(getattr(v, "dtype", None), np.dtype) else np.asarray(v) for k, v in known.items()}
        problems = [f"missing {k!r} {own[k].shape}" for k in report.missing_keys] if strict else []
        problems += [f"unexpected {k!r}" for k in report.unexpected_keys] if strict else []
        for k, v in values.items():
            if tuple(v.shape) != own[k].shape:
                problems.append(f"{k!r} has shape {tuple(v.shape)} but the module's is {own[k].shape}")
            elif v.dtype.kind not in "fiub":
                problems.append(f"{k!r} has dtype {v.dtype}, which is no number")
        if problems:
            listed = "\n  ".join(problems)
            remedy = "; strict=False passes over missing and unexpected names" if report != ([], []) and strict else ""
            found = f"got {len(problems)} difference{'s'[: len(problems) > 1]}; nothing was changed{remedy}"
            raise ArgumentError(f"{op}: the state must match the module, {found}:\n  {listed}")
        return report, values

    # -- the rest ------------------------------------------------------------------------------------------------

    def apply(self, function: Callable[["Module"], Any]) -> Self:
        """Calls ``function`` on every module below, then on itself; for initialisation. Returns self."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    def register_forward_hook(self, hook: Callable[..., Any]) -> Hook:
        """Calls ``hook(module, args, output)`` after forward; what it returns, if not None, replaces the output."""
        return Hook(self._hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> Hook:
        """Calls ``hook(module, args)`` before forward; what it returns, if not None, replaces the arguments."""
        return Hook(self._pre_hooks, hook)

    def extra_repr(self) -> str:
        """What stands between the brackets of this module's line when printed. To be overridden."""
        return ""

    def __repr__(self) -> str:
        if not self._modules:
            return f"{type(self).__name__}({self.extra_repr()})"
        below = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        return "\n  ".join([f"{type(self).__name__}({self.extra_repr()}", *below]) + "\n)"
