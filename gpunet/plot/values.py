"""Weights and gradients of a model: their distribution, and how large the gradients of each layer are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.errors import ArgumentError
from gpunet.nn import Module
from gpunet.ops.checks import whole
from gpunet.plot import canvas
from gpunet.plot.canvas import COLORS, MARKERS, AnyPath
from gpunet.train.inputs import host

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def histograms(model: Any, path: AnyPath | None = None, *, bins: int = 50) -> "Figure":
    """Distribution of the weights and of the gradients of every parameter.

    Gradients are those that the last ``backward`` left; before the first, only weights are shown.

    Args:
        model: a module with parameters.
        path: file to write (.png, .svg or .pdf), or None.
        bins: bars at most; fewer where there are few values.

    Returns:
        The figure: for each parameter an axis with its weights, and one with its gradient if any parameter has one.
        Titles give name, shape and standard deviation, and how many values are not finite, which are left out.

    Raises:
        ArgumentError: no module, one without parameters, or a file that cannot be written.
        BackendUnavailableError: matplotlib is not installed.

    Example:
        >>> import gpunet as gn
        >>> model = gn.nn.Linear(4, 2)
        >>> figure = histograms(model)
        >>> [axes.get_title(loc="left").split(",")[0] for axes in figure.axes]
        ['weight 2x4', 'bias 2']
    """
    op = "histograms"
    bins, parameters = whole(op, "bins", bins), _parameters(op, model)
    learned = any(each.grad is not None for _, each in parameters)
    per = 2 if learned else 1  # axes for each parameter
    columns = per if len(parameters) <= 3 else 4
    rows = -(-len(parameters) * per // columns)
    figure = canvas.start(op, path, 3.0 * columns + 0.2, 1.55 * rows + 0.2)
    grid = figure.add_gridspec(rows, columns)
    for k, (name, each) in enumerate(parameters):
        shape = "x".join(map(str, each.shape))
        axes = figure.add_subplot(grid[divmod(k * per, columns)])
        _histogram(axes, f"{name} {shape}", host(each), bins, canvas.FIRST)
        if learned:
            axes = figure.add_subplot(grid[divmod(k * per + 1, columns)])
            values = None if each.grad is None else host(each.grad)
            _histogram(axes, "its gradient", values, bins, canvas.SECOND)
    return canvas.finish(op, figure, path)


def _histogram(axes: Any, title: str, values: np.ndarray | None, bins: int, color: str) -> None:
    canvas.plain(axes)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if values is None:
        title = f"{title}: none"
        axes.set_xticks([])
    else:
        finite = values[np.isfinite(values)].astype(np.float64)
        lost = values.size - finite.size
        title += f", std {finite.std():.2g}" if finite.size else ""
        title += f", {lost:,} not finite" if lost else ""
        counts, edges = np.histogram(finite, min(bins, max(10, finite.size // 4)))  # few values, few bars
        axes.stairs(counts, edges, fill=True, color=color)
        axes.locator_params(axis="x", nbins=5)
    axes.set_title(title, loc="left", fontsize=canvas.SMALL)


def gradient_norms(
    models: Any, path: AnyPath | None = None, *, title: str = "gradient of each layer's weights"
) -> "Figure":
    """How large the gradients are, layer by layer, on a logarithmic axis: where they vanish or explode.

    To be called after ``backward``. Only weights count, parameters with at least two axes.

    Args:
        models: a module, or a dictionary of several by name.
        path: file to write (.png, .svg or .pdf), or None.
        title: what stands above.

    Returns:
        The figure: a line for each model, its layers from input to output on the x axis, on the y axis the Euclidean
        norm of each weight's gradient. A gradient of exactly 0 leaves a gap.

    Raises:
        ArgumentError: no module, one without weights, a weight without a gradient, or a file that cannot be written.
        BackendUnavailableError: matplotlib is not installed.

    Example:
        >>> import gpunet as gn
        >>> model = gn.nn.MLP([4, 3, 2])
        >>> model(gn.ones(1, 4)).sum().backward()
        >>> gradient_norms(model).axes[0].lines[0].get_xdata().tolist()
        [1, 2]
    """
    op = "gradient_norms"
    given = dict(models) if isinstance(models, Mapping) else {"": models}
    norms = {str(name): _norms(op, model) for name, model in given.items()}
    if not norms:
        raise ArgumentError(f"{op}: models must hold at least one model, got none")
    figure = canvas.start(op, path, 6.8, 4.0)
    axes = canvas.plain(figure.add_subplot(), title, "layer, from input to output", "norm of the gradient")
    for number, (name, values) in enumerate(norms.items()):
        axes.plot(
            range(1, len(values) + 1), values, label=name, color=COLORS[number % len(COLORS)], linewidth=1.5,
            marker=MARKERS[(number + number // len(COLORS)) % len(MARKERS)], markersize=5,
        )  # fmt: skip
    axes.set_yscale("log", nonpositive="mask")
    canvas.whole_numbers(axes)
    if len(norms) > 1:
        figure.legend(loc="outside right upper", fontsize=canvas.MEDIUM, frameon=False)
    return canvas.finish(op, figure, path)


def _norms(op: str, model: Any) -> list[float]:
    weights = [(name, each) for name, each in _parameters(op, model) if each.ndim >= 2]
    if not weights:
        raise ArgumentError(f"{op}: the model must have weights of at least two axes, got none")
    for name, each in weights:
        if each.grad is None:
            raise ArgumentError(f"{op}: every weight must have a gradient, got none for {name}; call backward() first")
    return [float(np.linalg.norm(host(each.grad).astype(np.float64))) for _, each in weights]


def _parameters(op: str, model: Any) -> list[tuple[str, Any]]:
    if not isinstance(model, Module):
        raise ArgumentError(f"{op}: model must be a gn.nn.Module, got {type(model).__name__}")
    found = list(model.named_parameters())
    if not found:
        raise ArgumentError(f"{op}: the model must have parameters, got none in {type(model).__name__}")
    return found
