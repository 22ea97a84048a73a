"""Backward: the walk over the graph, and ``gn.grad``.

The walk visits each node once, after everything that flows into it has arrived, without recursion, and lets go of
what the node saved. Gradients that nobody asked for are neither computed nor kept.
"""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from gpunet import config
from gpunet.anomaly import forward_line, need_no_nan
from gpunet.errors import AnomalyError, DeviceError, GraphError, ShapeError
from gpunet.floats import IGNORE, float_errors
from gpunet.graph import Alias, Function, edge_of
from gpunet.modes import enable_grad, mode
from gpunet.ops.reduce import sum_to
from gpunet.tensor import Tensor


def reachable(roots: Sequence[Any], stop: frozenset[Any] | set[Any] = frozenset()) -> list[Any]:
    """All nodes and leaves behind ``roots``, each after everything that leads to it; nothing behind ``stop``.

    Nodes are numbered as they are made, so later before earlier is such an order; a leaf comes straight after the
    last node that leads to it.
    """
    place: dict[Any, float] = {}
    stack = []
    for root in roots:
        node = isinstance(root, Function)
        place[root] = root.number if node else math.inf
        if node and root not in stop:
            stack.append(root)
    while stack:
        node = stack.pop()
        for edge in node.edges:
            if edge is None:
                continue
            target = edge[0]
            if not isinstance(target, Function):
                if node.number < place.get(target, math.inf):
                    place[target] = node.number - 0.5
            elif target not in place:
                place[target] = target.number
                if target not in stop:
                    stack.append(target)
    return sorted(place, key=place.__getitem__, reverse=True)


def _needed(order: Sequence[Any], targets: set[Any]) -> set[Any]:
    """The nodes from which one of ``targets`` can be reached, and the targets themselves."""
    needed = set(targets)
    for node in reversed(order):
        if isinstance(node, Function) and any(edge is not None and edge[0] in needed for edge in node.edges):
            needed.add(node)
    return needed


class _Walk:
    """One backward pass. ``wanted`` is None (every leaf gets .grad) or the tensors whose gradients are returned."""

    def __init__(self, retain_graph: bool, create_graph: bool, wanted: Sequence[Any] | None):
        self.retain_graph = retain_graph
        self.create_graph = create_graph
        self.anomaly = mode.anomaly
        self.arrived: dict[Any, list[Any]] = {}  # target -> one gradient or None per output, as far as any has arrived
        self.owned: set[tuple[Any, int]] = set()  # where a sum made here waits, which may be added to in place
        self.leaves: list[tuple[Any, Any]] = []
        self.captured: dict[tuple[Any, int], Any] = {}
        self.points: set[tuple[Any, int]] | None = None
        if wanted is not None:
            self.points = {_point(tensor) for tensor in wanted}

    def run(self, roots: Sequence[Any], grads: Sequence[Any], stop: frozenset[Any] | set[Any] = frozenset()) -> None:
        for root, gy in zip(roots, grads):
            target, slot, _ = edge_of(root)
            self.add(target, slot, gy)
        order = reachable([_point(root)[0] for root in roots], stop)
        # Only a walk with chosen targets leaves nodes out; the plain one reaches leaves alone.
        needed = None if self.points is None else _needed(order, {target for target, _ in self.points})
        before, mode.grad = mode.grad, self.create_graph
        phase, config.local.phase = config.local.phase, "backward"
        token = float_errors.set(IGNORE)
        try:
            for target in order:
                gradients = self.arrived.pop(target, None)
                if gradients is not None and (needed is None or target in needed):
                    if isinstance(target, Function):
                        self.visit(target, gradients, needed)
                    else:
                        self.arrive(target, gradients[0])
        finally:
            float_errors.reset(token)
            mode.grad = before
            config.local.phase = phase

    def arrive(self, leaf: Any, gradient: Any) -> None:
        """A leaf's gradient is complete."""
        gradient = _through_hooks(leaf._hooks, gradient)
        if self.points is None:
            self.leaves.append((leaf, gradient))
        elif (leaf, 0) in self.points:
            self.captured[leaf, 0] = gradient

    def visit(self, node: Function, gradients: list[Any], needed: set[Any] | None) -> None:
        """A node's gradients are complete: calls its backward and hands the results on."""
        if node.hooks or node.retained or self.points is not None:
            self.observe(node, gradients)
        edges = node.edges
        if needed is None:
            found = self.call(node, gradients)
        else:
            wanted = [edge if edge is not None and edge[0] in needed else None for edge in edges]
            if wanted.count(None) == len(wanted):
                return
            node.edges = wanted  # what backward asks for its needs
            try:
                found = self.call(node, gradients)
            finally:
                node.edges = edges
            edges = wanted
        arrived = self.arrived
        for position, edge in enumerate(edges):
            gx = found[position]
            if edge is not None and gx is not None:
                target, slot, (shape, dtype, _) = edge
                if not isinstance(gx, Tensor) or gx.data.shape != shape or gx.data.dtype != dtype:
                    gx = _fitted(node, position, gx)
                if slot or target in arrived:
                    self.add(target, slot, gx)
                else:
                    arrived[target] = [gx]
        if not self.retain_graph:
            node.release()

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

    def call(self, node: Function, gradients: list[Any]) -> Sequence[Any]:
        """What the node's backward returns, one gradient or None for each edge."""
        if len(node.outputs) == 1 and not node.origin and not self.anomaly:  # as it is nearly always
            found = type(node).backward(node, gradients[0])
            return found if type(found) is tuple and len(found) == len(node.edges) else _each_edge(node, found)
        if several := len(node.outputs) > 1:
            gradients += [None] * (len(node.outputs) - len(gradients))
            for index, (gy, (shape, dtype, device)) in enumerate(zip(gradients, node.outputs)):
                if gy is None:
                    gradients[index] = Tensor._wrap(device.xp.zeros(shape, dtype), device)
        try:  # Python calls faster where it need not unpack
            found = type(node).backward(node, *gradients) if several else type(node).backward(node, gradients[0])
        except Exception as error:
            if (node.origin or self.anomaly) and not isinstance(error, AnomalyError):
                raise AnomalyError(f"{node.name}: backward failed ({error}); {forward_line(node)}") from error
            raise
        found = _each_edge(node, found)
        if node.origin or self.anomaly:
            need_no_nan(node, gradients, found)
        return found

    def add(self, target: Any, slot: int, gx: Any) -> None:
        """Adds one gradient to what has arrived at output ``slot`` of ``target``."""
        slots = self.arrived.get(target)
        if slots is None:
            self.arrived[target] = [None] * slot + [gx] if slot else [gx]
            return
        if slot >= len(slots):
            slots += [None] * (slot + 1 - len(slots))
        present = slots[slot]
        if present is None:
            slots[slot] = gx
        elif self.create_graph:
            slots[slot] = present + gx
        elif (target, slot) in self.owned:
            present.data += gx.data
        else:
            slots[slot] = Tensor._wrap(present.data + gx.data, gx.device)
            self.owned.add((target, slot))

    def found(self, tensor: Any) -> Any:
        """The gradient captured for one of the wanted tensors, or None."""
        return self.captured.get(_point(tensor))


def _each_edge(node: Function, found: Any) -> tuple[Any, ...]:
    """What a backward returned as one gradient or None for each edge."""
    if type(found) is not tuple:
        found = tuple(found) if isinstance(found, list) else (found,)
    count = len(node.edges)
    if len(found) < count or any(each is not None for each in found[count:]):
        raise GraphError(
            f"{node.name}: backward must return one gradient (or None) per argument of forward, "
            f"that is {count}, got {len(found)}"
        )
    return found[:count]


def _point(tensor: Any) -> tuple[Any, int]:
    """Where the gradient of ``tensor`` arrives: a node and which of its outputs, or the leaf itself."""
    return (tensor, 0) if tensor._edge is None else tensor._edge[:2]


def _through_hooks(hooks: dict[int, Callable[[Any], Any]] | None, gy: Any) -> Any:
    for hook in list((hooks or {}).values()):
        changed = hook(gy)
        if changed is None:
            continue
        if not isinstance(changed, Tensor) or changed.shape != gy.shape:
            got = f"shape {changed.shape}" if isinstance(changed, Tensor) else type(changed).__name__
            raise GraphError(f"hook: must return None or a gradient tensor of shape {gy.shape}, got {got}")
        gy = changed if changed.dtype == gy.dtype else changed.to(gy.dtype)
    return gy


def _fitted(node: Function, position: int, gx: Any) -> Any:
    """``gx`` as the dtype of argument ``position``, after its shape was held against the argument's."""
    edge = node.edges[position]
    assert edge is not None  # nobody asks for the gradient of an argument without one
    shape, dtype, _ = edge[2]
    if not isinstance(gx, Tensor):
        got = type(gx).__name__
        raise GraphError(f"{node.name}: backward must return tensors or None, got {got} for argument {position}")
    if node.broadcasts:
        gx = sum_to(gx, shape)
    if gx.shape != shape:
        raise ShapeError(
            f"{node.name}: the gradient of argument {position} must have its shape {shape}, got {gx.shape}; "
            "reduce it over the axes that broadcasting added"
        )
    return gx.to(dtype)


def _start_gradients(op: str, outputs: Sequence[Any], grads: Sequence[Any]) -> list[Any]:
    """One start gradient per output: as given, or 1 for a single number."""
    started = []
    for out, gy in zip(outputs, grads):
        if not out.requires_grad:
            raise GraphError(f"{op}: the tensor must come from one with requires_grad=True, got one without")
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
            raise DeviceError(
                f"{op}: the start gradient must be on {out.device}, got {gy.device}; use .to('{out.device}')"
            )
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
    _accumulate(walk.leaves, create_graph)


_accumulating = threading.Lock()  # two backward passes in two threads may reach one leaf


def _accumulate(gradients: Sequence[tuple[Any, Any]], create_graph: bool) -> None:
    with _accumulating:
        for leaf, gx in gradients:
            _accumulate_one(leaf, gx, create_graph)


def _accumulate_one(leaf: Any, gx: Any, create_graph: bool) -> None:
    if create_graph:
        with enable_grad():
            leaf.grad = gx.clone() if leaf.grad is None else leaf.grad + gx
    elif leaf.grad is None:
        # A copy, here and above: the same gradient array may have gone to several leaves.
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
    grads = list(grads) if isinstance(grads, tuple | list) else [grads]
    if len(grads) != len(outputs):
        raise GraphError(f"grad: grad_outputs must have one entry per output, that is {len(outputs)}, got {len(grads)}")
    for position, each in enumerate(inputs):
        if not each.requires_grad:
            raise GraphError(f"grad: input {position} {each.shape} must have requires_grad=True, got one without")
    walk = _Walk(create_graph if retain_graph is None else retain_graph, create_graph, inputs)
    walk.run(outputs, _start_gradients("grad", outputs, grads))
    found = [walk.found(each) for each in inputs]
    if not allow_unused and any(each is None for each in found):
        missing = next(k for k, each in enumerate(found) if each is None)
        raise GraphError(
            f"grad: the outputs must depend on every input, got input {missing} {inputs[missing].shape} unused; "
            "pass allow_unused=True to get None for it"
        )
    _accumulate(walk.leaves, create_graph)  # retained gradients of tensors on the way
    return tuple(found)


def differentiate(
    formula: Callable[..., Any],
    args: Sequence[Any],
    params: dict[str, Any],
    grads: Sequence[Any],
    needs: Sequence[bool],
) -> tuple[Any, ...]:
    """Vector-Jacobian product of ``formula`` at ``args``, for the arguments that are needed.

    Each argument gets an alias first: the arguments may depend on one another, and these are partial derivatives.
    """
    again = mode.grad
    with enable_grad():
        if again:  # a derivative of this derivative will be wanted: stay tied to the arguments
            inner = [Alias.apply(arg) if isinstance(arg, Tensor) else arg for arg in args]
        else:
            inner = list(args)
            for k, (arg, need) in enumerate(zip(args, needs)):
                if isinstance(arg, Tensor):
                    inner[k] = arg.detach().requires_grad_(need)
        values = formula(*inner, **params)
    values = values if isinstance(values, tuple) else (values,)
    wanted = [arg for arg, need in zip(inner, needs) if need]
    pairs = [(value, gy) for value, gy in zip(values, grads) if value.requires_grad]
    if not pairs:
        return tuple(None for _ in args)
    walk = _Walk(again, again, wanted)
    # The walk ends at the aliases: what lies behind them is the caller's, and may be the whole network.
    ends = {arg._node for arg in inner if isinstance(arg, Tensor) and arg._node is not None}
    walk.run([value for value, _ in pairs], [gy for _, gy in pairs], ends)
    return tuple(walk.found(arg) if need else None for arg, need in zip(inner, needs))
