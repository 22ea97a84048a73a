"""The graph as a picture."""

from typing import Any

from gpunet.backward import reachable
from gpunet.graph import Function


def graph_dot(tensor: Any) -> str:
    """The graph behind ``tensor`` as DOT text: boxes are ops, ellipses are leaves. ``dot -Tsvg`` draws it.

    Example:
        >>> import gpunet as gn
        >>> x = gn.ones(2, requires_grad=True)
        >>> print(gn.graph_dot((x * 2).sum()).splitlines()[0])
        digraph gpunet {
    """
    root = tensor if tensor._node is None else tensor._node
    order = reachable([root])
    number = {node: k for k, node in enumerate(order)}
    lines = ["digraph gpunet {", "  rankdir=BT;"]
    for node, k in number.items():
        if isinstance(node, Function):
            shapes = "\\n".join("x".join(map(str, shape)) or "()" for shape, _, _ in node.outputs)
            lines.append(f'  n{k} [shape=box, label="{node.name}\\n{shapes}"];')
        else:
            label = "x".join(map(str, node.shape)) or "()"
            lines.append(f'  n{k} [shape=ellipse, style=filled, fillcolor=lightgray, label="{label}"];')
    for node, k in number.items():
        for edge in node.edges if isinstance(node, Function) else ():
            if edge is not None:
                lines.append(f"  n{number[edge[0]]} -> n{k};")
    return "\n".join([*lines, "}"])
