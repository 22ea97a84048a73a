"""Backward: the walk over the graph, ``gn.grad``, and the graph's picture.

The walk visits each node once, after everything that flows into it has arrived, without recursion, and lets go of
what the node saved. Gradients that nobody asked for are neither computed nor kept.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunet import config
from gpunet.errors import AnomalyError, DeviceError, GraphError, ShapeError
from gpunet.graph import Alias, Edge, Function, _edge, enable_grad, mode
from gpunet.tensor import Tensor


def _reachable(roots: Sequence[Any]) -> list[Any]:
    """All nodes behind ``roots``, each once, every node before the nodes its edges lead to."""
    incoming: dict[Any, int] = dict.fromkeys(roots, 0)
    stack = list(incoming)
    while stack:
        node = stack.pop()
        for edge in node.edges if isinstance(node, Function) else ():
            if edge is not None:
                if edge.target not in incoming:
                    incoming[edge.target] = 0
                    stack.append(edge.target)
                incoming[edge.target] += 1
    order, ready = [], [node for node, count in incoming.items() if count == 0]
    while ready:
        node = ready.pop()
        order.append(node)
        for edge in node.edges if isinstance(node, Function) else ():
            if edge is not None:
                incoming[edge.target] -= 1
                if incoming[edge.target] == 0:
                    ready.append(edge.target)
    return order


def _needed(order: Sequence[Any], targets: set[Any]) -> set[Any]:
    """The nodes from which one of ``targets`` can be reached, and the targets themselves."""
    needed = set(targets)
    for node in reversed(order):
        if isinstance(node, Function) and any(edge is not None and edge.target in needed for edge in node.edges):
            needed.add(node)
    return needed


class _Walk:
    """One backward pass. ``wanted`` is None (every leaf gets .grad) or the tensors whose gradients are returned."""

    def __init__(self, retain_graph: bool, create_graph: bool, wanted: Sequence[Any] | None):
        self.retain_graph = retain_graph
        self.create_graph = create_graph
        self.arrived: dict[Any, list[Any]] = {}  # target -> one gradient or None per output
        self.owned: set[int] = set()  # ids of sums made here, which may be added to in place
        self.leaves: list[tuple[Any, Any]] = []
        self.captured: dict[tuple[Any, int], Any] = {}
        self.points: set[tuple[Any, int]] | None = None
        if wanted is not None:
            self.points = {(tensor if tensor._node is None else tensor._node, tensor._index) for tensor in wanted}

    def run(self, roots: Sequence[Any], grads: Sequence[Any]) -> None:
        for root, gy in zip(roots, grads):
            self.add(_edge(root), gy)
        order = _reachable([root if root._node is None else root._node for root in roots])
        # Only a walk with chosen targets leaves nodes out; the plain one reaches leaves alone.
        needed = None if self.points is None else _needed(order, {target for target, _ in self.points})
        before, mode.grad = mode.grad, self.create_graph
        phase, config.local.phase = config.local.phase, "backward"
        try:
            with np.errstate(all="ignore"):  # as in forward: inf and NaN are values, not warnings
                for target in order:
                    gradients = self.arrived.pop(target, None)
                    if gradients is not None and (needed is None or target in needed):
                        self.visit(target, gradients, needed)
        finally:
            mode.grad = before
            config.local.phase = phase

    def visit(self, target: Any, gradients: list[Any], needed: set[Any] | None) -> None:
        if not isinstance(target, Function):
            gradients[0] = _through_hooks(target._hooks, gradients[0])
            if self.points is None:
                self.leaves.append((target, gradients[0]))
            elif (target, 0) in self.points:
                self.captured[target, 0] = gradients[0]
            return
        self.observe(target, gradients)
        keep = [edge is not None and (needed is None or edge.target in needed) for edge in target.edges]
        if not any(keep):
            return
        target.needs_input_grad = tuple(keep)
        found = self.call(target, gradients)
        for position, (edge, gx) in enumerate(zip(target.edges, found)):
            if edge is not None and gx is not None and keep[position]:
                self.add(edge, _checked(target, position, edge, gx))
        if not self.retain_graph:
            target.release()

    def observe(self, node: Function, gradients: list[Any]) -> None:
        """Hooks, retained gradients and captures of a node's outputs."""
        for index, gy in enumerate(gradients):
            if gy is None:
                continue
            if node.hooks and index in node.hooks:
                gy = gradients[index] = _through_hooks(node.hooks[index], gy)
            if node.retained and index in node.retained:
                tensor = node.retained[index]()
                if tensor is not None:
                    self.leaves.append((tensor, gy))
            if self.points is not None and (node, index) in self.points:
                self.captured[node, index] = gy

    def call(self, node: Function, gradients: list[Any]) -> tuple[Any, ...]:
        full = [
            gy if gy is not None else Tensor._wrap(out.device.xp.zeros(out.shape, out.dtype), out.device)
            for gy, out in zip(gradients, node.outputs)
        ]
        try:
            result = type(node).backward(node, *full)
        except Exception as error:
            if (mode.anomaly or node.origin) and not isinstance(error, AnomalyError):
                raise AnomalyError(f"{node.name}: backward failed ({error}); {_forward_line(node)}") from error
            raise
        found = result if isinstance(result, tuple) else (result,)
        if len(found) != len(node.edges):
            if len(found) < len(node.edges) or any(each is not None for each in found[len(node.edges) :]):
                raise GraphError(
                    f"{node.name}: backward must return one gradient (or None) per argument of forward, "
                    f"that is {len(node.edges)}, got {len(found)}"
                )
            found = found[: len(node.edges)]
        if mode.anomaly or node.origin:
            _need_no_nan(node, full, found)
        return found

    def add(self, edge: Edge, gx: Any) -> None:
        """Adds one gradient to what has arrived at the edge's target."""
        slots = self.arrived.get(edge.target)
        if slots is None:
            count = len(edge.target.outputs) if isinstance(edge.target, Function) else 1
            slots = self.arrived[edge.target] = [None] * count
        present = slots[edge.slot]
        if present is None:
            slots[edge.slot] = gx
        elif self.create_graph:
            slots[edge.slot] = present + gx
        elif id(present) in self.owned:
            present.data += gx.data
        else:
            total = Tensor._wrap(present.data + gx.data, gx.device)
            self.owned.add(id(total))
            slots[edge.slot] = total


def _through_hooks(hooks: dict[int, Callable[[Any], Any]] | None, gy: Any) -> Any:
    for hook in list((hooks or {}).values()):
        changed = hook(gy)
        if changed is not None:
            gy = changed
    return gy


def _checked(node: Function, position: int, edge: Edge, gx: Any) -> Any:
    """``gx`` as the edge's dtype, after its shape was held against the argument's."""
    if not isinstance(gx, Tensor):
        raise GraphError(f"{node.name}: backward must return tensors or None, got {type(gx).__name__} for argument {position}")
    if gx.data.shape != edge.shape:
        raise ShapeError(
            f"{node.name}: the gradient of argument {position} must have its shape {edge.shape}, got {gx.data.shape}; "
            "reduce it over the axes that broadcasting added"
        )
    return gx if gx.data.dtype == edge.dtype else gx.to(edge.dtype)


def _forward_line(node: Function) -> str:
    if node.origin is None:
        return "its forward ran outside gn.detect_anomaly(), so its line is not known"
    return f"its forward ran at\n{node.origin}"


def _need_no_nan(node: Function, given: Sequence[Any], found: Sequence[Any]) -> None:
    def has_nan(tensor: Any) -> bool:
        return bool(np.isnan(tensor.device.to_host(tensor.data)).any())

    for position, gx in enumerate(found):
        if isinstance(gx, Tensor) and has_nan(gx) and not any(has_nan(gy) for gy in given):
            raise AnomalyError(
                f"{node.name}: the gradient of argument {position} holds NaN though what flowed in does not; "
                f"{_forward_line(node)}"
            )


def _start_gradients(op: str, outputs: Sequence[Any], grads: Sequence[Any]) -> list[Any]:
    """One start gradient per output: as given, or 1 for a single number."""
    started = []
    for out, gy in zip(outputs, grads):
        if not out.requires_grad:
            raise GraphError(f"{op}: the tensor must come from one with requires_grad=True, got one that needs no gradient")
        if gy is None:
            if out.data.size != 1:
                raise GraphError(
                    f"{op}: a start gradient is needed unless the tensor is a single number, got shape {out.shape}; "
                    "reduce it first, for example with .sum(), or pass gradient="
                )
            gy = Tensor._wrap(out.device.xp.ones(out.data.shape, out.data.dtype), out.device)
        elif not isinstance(gy, Tensor):
            gy = Tensor._wrap(out.device.asarray(gy, out.data.dtype), out.device)
        if gy.device != out.device:
            raise DeviceError(f"{op}: the start gradient must be on {out.device} like the tensor, got {gy.device}; use .to()")
        if gy.data.shape != out.data.shape:
            raise ShapeError(f"{op}: the start gradient must have the tensor's shape {out.shape}, got {gy.shape}")
        started.append(gy if gy.data.dtype == out.data.dtype else gy.to(out.data.dtype))
    return started


def backward(tensor: Any, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
    """Adds d(tensor)/d(leaf) to ``.grad`` of every leaf behind ``tensor``; see :meth:`gpunet.Tensor.backward`.

    All gradients are added at the end: a backward that raises leaves every ``.grad`` as it was.
    """
    (start,) = _start_gradients("backward", [tensor], [gradient])
    walk = _Walk(create_graph if retain_graph is None else retain_graph, create_graph, None)
    walk.run([tensor], [start])
    for leaf, gx in walk.leaves:
        _accumulate(leaf, gx, create_graph)


def _accumulate(leaf: Any, gx: Any, create_graph: bool) -> None:
    if create_graph:
        leaf.grad = gx if leaf.grad is None else leaf.grad + gx
    elif leaf.grad is None:
        # A copy: the same gradient array may have gone to several leaves.
        leaf.grad = Tensor._wrap(gx.data.copy(), gx.device)
    elif leaf.grad._node is not None:
        leaf.grad = Tensor._wrap(leaf.grad.data + gx.data, gx.device)
    else:
        leaf.grad.data += gx.data
        leaf.grad._bump("backward")


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``, returned; no ``.grad`` changes.

    Only ops on a path to an input are differentiated.

    Args:
        outputs: a tensor or a sequence of tensors.
        inputs: the tensor or tensors to differentiate by, leaves or not.
        grad_outputs: start gradient of each output, of its shape; None for single numbers.
        retain_graph: keep saved values for another backward; None means ``create_graph``.
        create_graph: record the gradients' own graph, for higher derivatives.
        allow_unused: return None for an input that the outputs do not depend on, rather than raise.

    Returns:
        A tuple with one tensor per input, of that input's shape.

    Raises:
        GraphError: an output needs no gradient, an input is unused, or the graph was freed.
        ShapeError: a start gradient differs from its output in shape.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([3.0], requires_grad=True)
        >>> (g,) = gn.grad(x ** 3, x, create_graph=True)
        >>> gn.grad(g, x)[0].tolist()
        [18.0]
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    grads = [None] * len(outputs) if grad_outputs is None else grad_outputs
    grads = [grads] if isinstance(grads, Tensor) else list(grads)
    if len(grads) != len(outputs):
        raise GraphError(f"grad: grad_outputs must have one entry per output, that is {len(outputs)}, got {len(grads)}")
    for position, each in enumerate(inputs):
        if not each.requires_grad:
            raise GraphError(f"grad: input {position} must have requires_grad=True, got one of shape {each.shape} without")
    walk = _Walk(create_graph if retain_graph is None else retain_graph, create_graph, inputs)
    walk.run(outputs, _start_gradients("grad", outputs, grads))
    found = [walk.captured.get((each if each._node is None else each._node, each._index)) for each in inputs]
    if not allow_unused and any(each is None for each in found):
        missing = found.index(None)
        raise GraphError(
            f"grad: every input must be used by the outputs, got input {missing} of shape {inputs[missing].shape} unused; "
            "pass allow_unused=True to get None for it"
        )
    for tensor, gx in walk.leaves:  # retained gradients of tensors on the way
        _accumulate(tensor, gx, create_graph)
    return tuple(found)


def differentiate(
    formula: Callable[..., Any], args: Sequence[Any], params: dict[str, Any], grads: Sequence[Any], needs: Sequence[bool]
) -> tuple[Any, ...]:
    """Vector-Jacobian product of ``formula`` at ``args``, for the arguments that are needed.

    Each argument gets an alias first: the arguments may depend on one another, and these are partial derivatives.
    """
    again = mode.grad
    with enable_grad():
        if again:  # a derivative of this derivative will be wanted: stay tied to the arguments
            inner = [Alias.apply(arg) if isinstance(arg, Tensor) else arg for arg in args]
        else:
            inner = [arg.detach().requires_grad_(need) if isinstance(arg, Tensor) else arg for arg, need in zip(args, needs)]
        values = formula(*inner, **params)
    values = values if isinstance(values, tuple) else (values,)
    wanted = [arg for arg, need in zip(inner, needs) if need]
    pairs = [(value, gy) for value, gy in zip(values, grads) if value.requires_grad]
    if not pairs:
        return tuple(None for _ in args)
    found = iter(grad([v for v, _ in pairs], wanted, [g for _, g in pairs], create_graph=again, allow_unused=True))
    return tuple(next(found) if need else None for need in needs)


def graph_dot(tensor: Any) -> str:
    """The graph behind ``tensor`` as DOT text: boxes are ops, ellipses are leaves. ``dot -Tsvg`` draws it.

    Example:
        >>> import gpunet as gn
        >>> x = gn.ones(2, requires_grad=True)
        >>> print(gn.graph_dot((x * 2).sum()).splitlines()[0])
        digraph gpunet {
    """
    root = tensor if tensor._node is None else tensor._node
    order = _reachable([root])
    number = {node: k for k, node in enumerate(order)}
    lines = ["digraph gpunet {", "  rankdir=BT;"]
    for node, k in number.items():
        if isinstance(node, Function):
            shapes = "\\n".join("x".join(map(str, out.shape)) or "()" for out in node.outputs)
            lines.append(f'  n{k} [shape=box, label="{node.name}\\n{shapes}"];')
        else:
            label = "x".join(map(str, node.shape)) or "()"
            lines.append(f'  n{k} [shape=ellipse, style=filled, fillcolor=lightgray, label="{label}"];')
    for node, k in number.items():
        for edge in node.edges if isinstance(node, Function) else ():
            if edge is not None:
                lines.append(f"  n{number[edge.target]} -> n{k};")
    return "\n".join([*lines, "}"])
