"""The graph as a picture."""

from typing import Any, NamedTuple

from gpunet.backward import reachable
from gpunet.graph import Function


class Spot(NamedTuple):
    """A node of the picture."""

    name: str
    """Of the op; "" for a leaf."""
    shapes: tuple[str, ...]
    """One for each output, such as "2x3"; "()" for a single number."""
    sources: tuple[int, ...]
    """Positions of the nodes that it takes its arguments from, as far as they have gradients."""
    leaf: Any
    """The tensor, if it is a leaf; else None."""


def spots(tensor: Any) -> list[Spot]:
    """The ops and leaves behind ``tensor``, itself first, each before what it is made of."""
    order = reachable([tensor if tensor._node is None else tensor._node])
    number = {node: k for k, node in enumerate(order)}
    found = []
    for node in order:
        if isinstance(node, Function):
            sources = tuple(number[edge[0]] for edge in node.edges if edge is not None)
            found.append(Spot(node.name, tuple(_shown(shape) for shape, _, _ in node.outputs), sources, None))
        else:
            found.append(Spot("", (_shown(node.shape),), (), node))
    return found


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"


def graph_dot(tensor: Any) -> str:
    """The graph behind ``tensor`` as DOT text: boxes are ops, ellipses are leaves. ``dot -Tsvg`` draws it.

    :func:`gpunet.plot.graph` draws it without Graphviz.

    Example:
        >>> import gpunet as gn
        >>> x = gn.ones(2, requires_grad=True)
        >>> print(gn.graph_dot((x * 2).sum()).splitlines()[0])
        digraph gpunet {
    """
    found = spots(tensor)
    lines = ["digraph gpunet {", "  rankdir=BT;"]
    for k, spot in enumerate(found):
        if spot.leaf is None:
            label = "\\n".join((spot.name, *spot.shapes))
            lines.append(f'  n{k} [shape=box, label="{label}"];')
        else:
            lines.append(f'  n{k} [shape=ellipse, style=filled, fillcolor=lightgray, label="{spot.shapes[0]}"];')
    for k, spot in enumerate(found):
        lines += [f"  n{source} -> n{k};" for source in spot.sources]
    return "\n".join([*lines, "}"])
