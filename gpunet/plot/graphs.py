"""The graph behind a tensor as a picture, without Graphviz."""

from typing import TYPE_CHECKING, Any

from gpunet.errors import ArgumentError, DTypeError
from gpunet.nn import Module
from gpunet.picture import Spot, spots
from gpunet.plot import canvas
from gpunet.plot.canvas import AnyPath
from gpunet.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 400  # nodes; a picture of more would be metres long
WIDE, HIGH = 1.75, 0.72  # inches from one node to the next


def graph(tensor: Any, path: AnyPath | None = None, *, model: Module | None = None) -> "Figure":
    r"""The ops that made a tensor, from the first at the top to itself at the bottom.

    Boxes are ops with the shape of what they give; ovals are leaves, tensors that no op made. Inputs that need no
    gradient leave no trace in the graph. ``gn.graph_dot`` gives the same graph as text for Graphviz.

    Args:
        tensor: the result, such as a loss.
        path: file to write (.png, .svg or .pdf), or None.
        model: a module whose parameters are to stand in the picture by name; None for shapes alone.

    Returns:
        The figure, with a text for each node.

    Raises:
        DTypeError: no tensor, or a model that is no module.
        ArgumentError: a graph of more than 400 nodes, or a file that cannot be written.
        BackendUnavailableError: matplotlib is not installed.

    Example:
        >>> import gpunet as gn
        >>> figure = graph(gn.ones(2, requires_grad=True).exp().sum())
        >>> [each.get_text() for each in figure.axes[0].texts]
        ['Sum\n()', 'Exp\n2', 'leaf\n2']
    """
    op = "graph"
    if not isinstance(tensor, Tensor):
        raise DTypeError(f"{op}: tensor must be a gpunet tensor, got {type(tensor).__name__}")
    if model is not None and not isinstance(model, Module):
        raise DTypeError(f"{op}: model must be a gn.nn.Module or None, got {type(model).__name__}")
    found = spots(tensor)
    if len(found) > MOST:
        need = f"the graph must have at most {MOST} nodes to be drawn, got {len(found):,}"
        raise ArgumentError(f"{op}: {need}; gn.graph_dot gives it as text for Graphviz")
    names = {id(each): name for name, each in model.named_parameters()} if model is not None else {}
    places = _places(found)
    columns, rows = (max(each[axis] for each in places) + 1 for axis in (0, 1))
    figure = canvas.start(op, path, max(2.5, WIDE * columns + 0.3), HIGH * rows + 0.3)
    axes = figure.add_subplot()
    axes.set(xlim=(-0.6, columns - 0.4), ylim=(rows - 0.5, -0.5))  # the first row at the top
    axes.set_axis_off()
    boxes = [_box(axes, spot, names.get(id(spot.leaf), "leaf"), here) for spot, here in zip(found, places)]
    for k, spot in enumerate(found):
        for source in spot.sources:
            _arrow(axes, places[source], places[k], boxes[source], boxes[k])
    return canvas.finish(op, figure, path)


def _box(axes: Any, spot: Spot, leaf: str, here: tuple[float, int]) -> Any:
    """One node with its text; of several outputs the first is told."""
    text = f"{spot.name or leaf}\n{spot.shapes[0]}{', …' if len(spot.shapes) > 1 else ''}"
    style, face = ("round,pad=0.35", "#DCEBF5") if spot.leaf is None else ("round,pad=0.4,rounding_size=1.1", "#EEEEEE")
    box = {"boxstyle": style, "facecolor": face, "edgecolor": canvas.GREY, "linewidth": 0.8}
    return axes.text(*here, text, ha="center", va="center", fontsize=canvas.SMALL, bbox=box).get_bbox_patch()


def _arrow(axes: Any, source: tuple[float, int], target: tuple[float, int], *boxes: Any) -> None:
    """From the edge of one box to that of another; drawn after them, for only then is their size known."""
    from matplotlib.patches import FancyArrowPatch

    bent = 0.3 if target[1] - source[1] > 1 else 0.0  # around what stands between
    ends = {"patchA": boxes[0], "patchB": boxes[1], "shrinkA": 0, "shrinkB": 1, "connectionstyle": f"arc3,rad={bent}"}
    look = {"arrowstyle": "-|>", "mutation_scale": 9, "color": canvas.GREY, "linewidth": 0.9, "zorder": 4}
    axes.add_patch(FancyArrowPatch(source, target, **ends, **look))


def _places(found: list[Spot]) -> list[tuple[float, int]]:
    """(column, row) of each node: an op one row below the lowest op it needs, a leaf one above the first that needs it.

    Ops keep the column of the ops they come from, so a chain is straight; leaves stand to the right of them.
    """
    rows = [0] * len(found)
    for k in reversed(range(len(found))):  # sources come after what needs them
        below = [rows[source] + 1 for source in found[k].sources]
        rows[k] = max(below, default=0)
    for k, spot in enumerate(found):
        if spot.leaf is not None:
            rows[k] = min((rows[n] for n, user in enumerate(found) if k in user.sources), default=1) - 1
    columns = [0.0] * len(found)
    for row in range(max(rows) + 1):
        here = [k for k in range(len(found)) if rows[k] == row]
        free = 0.0
        for leaf in (False, True):
            group = [k for k in here if (found[k].leaf is not None) is leaf]
            wished = {k: _mean([columns[n] for n in found[k].sources if found[n].leaf is None]) for k in group}
            for k in sorted(group, key=lambda k: wished[k]):
                columns[k] = max(free, wished[k])
                free = columns[k] + 1
    return list(zip(columns, rows))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
