"""A model as a table: layers, output shapes, parameters and the work of one forward pass."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet import creation, devices, dispatch
from gpunet.errors import ArgumentError
from gpunet.modes import no_grad
from gpunet.nn.module import Module
from gpunet.tensor import Tensor


@dataclass(frozen=True)
class Row:
    """One call of a layer: dotted name, class, output shape, its own parameters and flops.

    Parameters that a row above has counted are not counted again; layers below have rows of their own.
    """

    name: str
    kind: str
    output_shape: Any
    parameters: int
    trainable: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """What :func:`summary` found; printing it gives the table.

    Attributes:
        model: class of the model.
        rows: a :class:`Row` for each call of a layer, in the order in which they ended.
        input_shape: shape of what went in, batch included.
        total: number of parameters; shared ones count once.
        trainable: of those, how many get gradients.
        buffers: number of elements in buffers.
        parameter_bytes: memory of parameters and buffers.
        flops: floating-point operations of all kernels in one forward pass; a multiplication and an addition are two.
    """

    model: str
    rows: tuple[Row, ...]
    input_shape: tuple[Any, ...]
    total: int
    trainable: int
    buffers: int
    parameter_bytes: int
    flops: int

    @property
    def non_trainable(self) -> int:
        """Number of parameters without gradients."""
        return self.total - self.trainable

    def __str__(self) -> str:
        head = ("layer", "kind", "output shape", "parameters", "flops")
        body = [(r.name, r.kind, _shown(r.output_shape), f"{r.parameters:,}", f"{r.flops:,}") for r in self.rows]
        widths = [max(len(line[k]) for line in [head, *body]) for k in range(5)]

        def line(cells: tuple[str, ...]) -> str:
            left = [cell.ljust(width) for cell, width in zip(cells[:3], widths)]
            return "  ".join([*left, *(cell.rjust(width) for cell, width in zip(cells[3:], widths[3:]))]).rstrip()

        rule = "-" * (sum(widths) + 8)
        foot = [
            f"parameters {self.total:,}: {self.trainable:,} trainable, {self.non_trainable:,} not trainable; "
            f"buffers {self.buffers:,}; {self.parameter_bytes / 2**20:.2f} MiB",
            f"one forward pass of {_shown(self.input_shape)}: {self.flops:,} flops",
        ]
        return "\n".join([self.model, line(head), rule, *map(line, body), rule, *foot])


def _shown(shape: Any) -> str:
    """(1, 2, 3) as "1 x 2 x 3"; several shapes with commas."""
    if shape and isinstance(shape[0], tuple):
        return ", ".join(map(_shown, shape))
    return " x ".join(map(str, shape)) or "number"


def summary(model: Module, input_size: Any, batch: int = 1) -> Summary:
    """The layers of ``model`` with output shapes, parameters and flops, from one real forward pass on zeros.

    The pass runs in evaluation mode without a graph, and leaves modes, buffers and random state as they were.

    Args:
        model: any Module.
        input_size: shape of one sample, as (C, H, W); a list of shapes for a model with several inputs.
        batch: N, how many samples go in.

    Returns:
        A :class:`Summary`. Rows are the modules without modules below them, and those with parameters or work of their
        own. Flops are those that the kernels' title pages state; arithmetic outside kernels is not counted.

    Raises:
        ArgumentError: input_size is no shape, batch is below 1, or model is no Module.
        ShapeError: the model does not take inputs of this size.

    Example:
        >>> import gpunet as gn
        >>> table = gn.nn.summary(gn.nn.Sequential(gn.nn.Flatten(), gn.nn.Linear(784, 10)), (1, 28, 28))
        >>> table.total, table.rows[1].output_shape
        (7850, (1, 10))
    """
    if not isinstance(model, Module):
        raise ArgumentError(f"summary: model must be a Module, got {type(model).__name__}")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ArgumentError(f"summary: batch must be an integer of at least 1, got {batch!r}")
    shapes = [(batch, *size) for size in _sizes(input_size)]
    first = next(model.parameters(), None)
    device, dtype = (devices.device(None), np.dtype(np.float32)) if first is None else (first.device, first.dtype)
    inputs = [creation.zeros(shape, dtype=dtype, device=device) for shape in shapes]
    with _evaluating(model), no_grad(), dispatch.capture() as calls, _watching(model, calls) as rows:
        model(*inputs)
    parameters = list(model.parameters())
    state = [*parameters, *model.buffers()]
    return Summary(
        model=type(model).__name__,
        rows=tuple(rows),
        input_shape=shapes[0] if len(shapes) == 1 else tuple(shapes),
        total=sum(each.numel() for each in parameters),
        trainable=sum(each.numel() for each in parameters if each.requires_grad),
        buffers=sum(each.numel() for each in model.buffers()),
        parameter_bytes=sum(each.numel() * each.dtype.itemsize for each in state),
        flops=_flops(calls),
    )


def _sizes(input_size: Any) -> list[tuple[int, ...]]:
    """``input_size`` as a list of shapes."""
    many = isinstance(input_size, list | tuple) and input_size and isinstance(input_size[0], list | tuple)
    sizes = list(input_size) if many else [(input_size,) if isinstance(input_size, int) else input_size]
    for size in sizes:
        if not isinstance(size, list | tuple) or any(not isinstance(n, int | np.integer) or n < 1 for n in size):
            raise ArgumentError(f"summary: input_size must be a sample's shape, as (1, 28, 28), got {input_size!r}")
    return [tuple(int(n) for n in size) for size in sizes]


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each module's own mode again."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


@contextmanager
def _watching(model: Module, calls: list[dispatch.Call]) -> Iterator[list[Row]]:
    """Collects a row for each call of a layer; ``calls`` grows as kernels are launched."""
    rows: list[Row] = []
    open_calls: list[list[int]] = []  # for each: launches before it, and flops of the layers below so far
    counted: set[int] = set()  # ids of parameters that a row above has counted

    def before(module: Module, args: tuple[Any, ...]) -> None:
        open_calls.append([len(calls), 0])

    def after(name: str, module: Module, output: Any) -> None:
        begin, below = open_calls.pop()
        flops = _flops(calls[begin:])
        if open_calls:
            open_calls[-1][1] += flops
        own = list(module.parameters(recurse=False))
        if module._modules and not own and flops == below:
            return
        new = [each for each in own if id(each) not in counted]
        counted.update(map(id, new))
        size = sum(each.numel() for each in new)
        trainable = sum(each.numel() for each in new if each.requires_grad)
        rows.append(Row(name, type(module).__name__, _shape_of(output), size, trainable, flops - below))

    handles = []
    try:
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(before))
            name = path or type(model).__name__
            handles.append(module.register_forward_hook(lambda m, _, out, name=name: after(name, m, out)))
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def _shape_of(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.shape
    return tuple(each.shape for each in output if isinstance(each, Tensor)) if isinstance(output, list | tuple) else ()


def _flops(calls: list[dispatch.Call]) -> int:
    def of(call: dispatch.Call) -> int:
        return dispatch.title(call.entry.partition(".")[0]).work(call.entry, *call.arrays, **call.params).flops

    return math.floor(sum(of(call) for call in calls))
