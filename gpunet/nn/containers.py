"""Modules that hold modules: Sequential, ModuleList, ModuleDict."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from gpunet.errors import ArgumentError, DTypeError
from gpunet.nn.module import Module


class _Listed(Module):
    """Modules under the names "0", "1", ... or, in a Sequential, names given."""

    def _place(self, index: int) -> str:
        """Name of the module at ``index``; negative numbers count from the end."""
        names, op = list(self._modules), type(self).__name__
        if not isinstance(index, int):
            raise DTypeError(f"{op}: index must be an integer or a slice, got {type(index).__name__}")
        if not -len(names) <= index < len(names):
            raise _OutOfRange(f"{op}: index must be from {-len(names)} to {len(names) - 1}, got {index}")
        return names[index]

    def _add(self, module: Any) -> None:
        """Under the next number; a name given by hand may hold that, so it looks for a free one."""
        number = len(self)
        while str(number) in self._modules:
            number += 1
        self.register_module(str(number), _module(type(self).__name__, module))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __setitem__(self, index: int, module: Module) -> None:
        self._modules[self._place(index)] = _module(type(self).__name__, module)

    def __delitem__(self, index: int | slice) -> None:
        gone = list(self._modules)[index] if isinstance(index, slice) else [self._place(index)]
        kept = [(name, module) for name, module in self._modules.items() if name not in gone]
        numbered = all(name.isdigit() for name in self._modules)
        self._modules.clear()
        for number, (name, module) in enumerate(kept):
            self._modules[str(number) if numbered else name] = module

    def append(self, module: Module) -> Self:
        """Adds a module at the end; returns self."""
        self._add(module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Adds modules at the end; returns self."""
        for module in list(modules):
            self._add(module)
        return self


class _OutOfRange(ArgumentError, IndexError):
    """An index past the end: an IndexError too, so that Python's own loops stop there."""


def _module(op: str, value: Any) -> Module:
    if not isinstance(value, Module):
        hint = f"; write {value.__name__}()" if isinstance(value, type) and issubclass(value, Module) else ""
        what = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise DTypeError(f"{op}: each entry must be a Module, got {what}{hint}")
    return value


class Sequential(_Listed):
    """Modules called one after the other, each with the result of the one before.

    Indexing gives a module, slicing a Sequential that shares the modules.

    Args:
        modules: the modules in order, named "0", "1", ...; or one mapping of names to modules.

    Returns:
        What the last module returns; the input itself when there is none.

    Raises:
        DTypeError: an entry is no Module.

    Example:
        >>> import gpunet as gn
        >>> model = gn.nn.Sequential(gn.nn.Linear(4, 8), gn.nn.ReLU(), gn.nn.Linear(8, 2))
        >>> model(gn.zeros(3, 4)).shape, len(model[:2])
        ((3, 2), 2)
    """

    def __init__(self, *modules: Any):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.register_module(name, _module("Sequential", module))
        else:
            self.extend(modules)

    def forward(self, x: Any) -> Any:
        """Through all modules in order."""
        for module in self:
            x = module(x)
        return x

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Sequential(dict(list(self._modules.items())[index]))
        return self._modules[self._place(index)]


class ModuleList(_Listed):
    """A list of modules, so that their parameters are found; it has no forward.

    Args:
        modules: any iterable of modules; None for an empty list.

    Raises:
        DTypeError: an entry is no Module.

    Example:
        >>> import gpunet as gn
        >>> layers = gn.nn.ModuleList(gn.nn.Linear(2, 2) for _ in range(3))
        >>> len(layers), len(list(layers.parameters()))
        (3, 6)
    """

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        self.extend(modules or ())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return ModuleList(list(self)[index])
        return self._modules[self._place(index)]

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def insert(self, index: int, module: Module) -> None:
        """Puts a module before the one at ``index``."""
        modules = list(self)
        modules.insert(index, _module("ModuleList", module))
        self._modules.clear()
        self.extend(modules)


class ModuleDict(Module):
    """A dictionary of modules, so that their parameters are found; it has no forward.

    Args:
        modules: a mapping, or pairs, of names to modules; None for an empty one.

    Raises:
        DTypeError: an entry is no Module.
        ArgumentError: a name holds a point, or is an attribute already.

    Example:
        >>> import gpunet as gn
        >>> heads = gn.nn.ModuleDict({"digit": gn.nn.Linear(8, 10), "style": gn.nn.Linear(8, 3)})
        >>> heads["style"].out_features, "digit" in heads
        (3, True)
    """

    def __init__(self, modules: Any = None):
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Any) -> None:
        """Adds or replaces modules from a mapping or pairs."""
        for name, module in modules.items() if hasattr(modules, "items") else modules:
            self[name] = module

    def __getitem__(self, name: str) -> Any:
        if name not in self._modules:
            raise _NoSuchName(f"ModuleDict: there is no module {name!r}; it has: {', '.join(self._modules) or 'none'}")
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.register_module(name, _module("ModuleDict", module))

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, module) pairs."""
        return self._modules.items()

    def pop(self, name: str) -> Any:
        """Takes a module out and returns it."""
        module = self[name]
        del self._modules[name]
        return module


class _NoSuchName(ArgumentError, KeyError):
    """A name that is not there: a KeyError too."""

    __str__ = Exception.__str__  # KeyError's puts the message in quotes
