"""Why a kernel was chosen: ``gn.explain``."""

from collections.abc import Callable
from typing import Any, NamedTuple

from gpunet import config, devices, dispatch, random
from gpunet.devices import Device
from gpunet.dispatch import Call, Candidate
from gpunet.errors import ArgumentError, GraphError, NoKernelError
from gpunet.modes import enable_grad
from gpunet.tensor import Tensor


class Explanation(NamedTuple):
    """Every kernel that was looked at for one launch. Printing it gives one line a kernel."""

    entry: str
    device: Device
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    rows: list[Candidate]

    @property
    def taken(self) -> str | None:
        """Name of the kernel that runs, or None when none does."""
        return next((row.name for row in self.rows if row.taken), None)

    def __str__(self) -> str:
        shapes = " ".join("x".join(map(str, shape)) or "()" for shape in self.shapes)
        lines = [f"{self.entry} on {self.device}, {shapes} {self.dtype}"]
        cells = [("runs" if row.taken else "", row.name.removeprefix(f"{self.entry}/"), row.place) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*cells)]
        for row, line in zip(self.rows, cells):
            lines.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)) + f"  {row.reason}")
        return "\n".join(lines)


def explain(entry: str, *args: Any, **kwargs: Any) -> Explanation:
    """Every kernel of ``entry`` for these arguments: whether it would run, and why or why not.

    Nothing changes: tensors are copied, random numbers are put back. A backend or variant that was asked for and cannot
    run is explained, not raised.

    Args:
        entry: such as "conv2d.forward" or "conv2d.grad_w".
        *args: of the public op (``gpunet.functional.conv2d``), tensors among them; or the raw arrays that the entry's
            launcher takes. Where no tensor needs a gradient, all floating ones are given one for the run (the first
            alone where the op refuses that), so that the entries of gradients are launched.
        **kwargs: the keywords that go with them.

    Returns:
        An explanation with ``taken`` and ``rows``; printing it gives one line a kernel.

    Raises:
        NoKernelError: there is no such entry.
        ArgumentError: there is no array among the arguments, or the op never launches the entry with them.

    Example:
        >>> import gpunet as gn
        >>> with gn.use_backend("numpy"):
        ...     gn.explain("relu.grad_x", gn.ones(2, 3)).taken
        'relu.grad_x/numpy/reference'
    """
    op = entry.partition(".")[0]
    if entry not in dispatch.entries(op):
        raise NoKernelError(f"explain: no entry {entry!r}; {op} has: {', '.join(dispatch.entries(op))}")
    if any(isinstance(each, Tensor) for each in (*args, *kwargs.values())):
        call = _launched(op, entry, args, kwargs)
    else:
        call = Call(entry, _device_of(args), args, kwargs)
    given = [each for each in call.arrays if hasattr(each, "shape")]
    rows = dispatch.candidates(call.device, entry, call.arrays, call.params)
    dtype = str(given[0].dtype) if given else ""
    return Explanation(entry, call.device, tuple(tuple(each.shape) for each in given), dtype, rows)


def _device_of(arrays: tuple[Any, ...]) -> Device:
    array = next((each for each in arrays if hasattr(each, "shape")), None)
    if array is None:
        raise ArgumentError("explain: the arguments must hold a tensor or an array, got none")
    on_gpu = type(array).__module__.partition(".")[0] == "cupy"
    return devices.device(f"cuda:{array.device.id}" if on_gpu else None)


def _launched(op: str, entry: str, args: tuple[Any, ...], params: dict[str, Any]) -> Call:
    """The first launch of the entry when the op runs forward and backward on copies of the arguments.

    The run itself is free of requests: one that cannot be met would end it before the entry's turn. An op that takes
    its fused entries here is run without them too.
    """
    ran: dict[str, None] = {}
    for fused in (None, False):
        calls = _calls(op, args, params, fused)
        found = next((call for call in calls if call.entry == entry), None)
        if found is not None:
            return found
        ran |= dict.fromkeys(call.entry for call in calls)
    told = ", ".join(ran) or "nothing"
    raise ArgumentError(f"explain: {op} with these arguments never launches {entry}, it launches {told}")


def _calls(op: str, args: tuple[Any, ...], params: dict[str, Any], fused: bool | None) -> list[Call]:
    """Every launch of the op, forward and backward."""
    state = random.get_state()
    try:
        with config.no_requests(), enable_grad(), dispatch.capture() as calls:
            config.local.fused = fused
            if any(isinstance(each, Tensor) and each.requires_grad for each in (*args, *params.values())):
                _run(op, args, params, lambda x: x.requires_grad)
            else:
                try:
                    _run(op, args, params, lambda x: x.dtype.kind == "f")
                except GraphError:  # some arguments must not need a gradient, such as running statistics
                    first = next(each for each in (*args, *params.values()) if isinstance(each, Tensor))
                    _run(op, args, params, lambda x: x is first)
    finally:
        random.set_state(state)
    return calls


def _run(op: str, args: tuple[Any, ...], params: dict[str, Any], wants_gradient: Callable[[Tensor], bool]) -> None:
    """The op forward and backward on copies of its arguments."""
    from gpunet import functional  # its modules need this package loaded first

    def copy(value: Any) -> Any:
        return Tensor(value, requires_grad=wants_gradient(value)) if isinstance(value, Tensor) else value

    result = getattr(functional, op)(*map(copy, args), **{name: copy(each) for name, each in params.items()})
    for out in result if isinstance(result, tuple) else (result,):
        if out.requires_grad:
            out.backward(out.device.xp.ones(out.shape, out.dtype), retain_graph=True)
