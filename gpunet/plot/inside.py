"""What a convolutional network has learned: its filters, and what they make of an image."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.errors import ArgumentError, ShapeError
from gpunet.modes import no_grad
from gpunet.nn import ConvTranspose2d, Module
from gpunet.ops.checks import whole
from gpunet.plot import canvas
from gpunet.plot.canvas import AnyPath
from gpunet.plot.results import as_pictures
from gpunet.train import inputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def filters(layer: Any, path: AnyPath | None = None, *, most: int = 16, title: str = "") -> "Figure":
    """The filters of a convolutional layer as small images: 0 is white, negative weights red, positive ones blue.

    With one input channel each tile is a filter. With more, a row is a filter and a column one of its input channels.

    Args:
        layer: a Conv2d, a ConvTranspose2d, or weights (F, C, KH, KW).
        path: file to write (.png, .svg or .pdf), or None.
        most: rows and columns of tiles at most.
        title: what stands above; otherwise how many filters there are.

    Returns:
        The figure; the array of its image holds the weights, with NaN between the tiles.

    Raises:
        ArgumentError: a model, or a layer without such weights (the message names those that have them), or a file that
            cannot be written.
        BackendUnavailableError: matplotlib is not installed.

    Example:
        >>> import gpunet as gn
        >>> figure = filters(gn.nn.Conv2d(1, 8, 3))
        >>> figure.axes[0].images[0].get_array().shape  # two rows of four tiles of 3 x 3, and the gaps
        (7, 15)
    """
    op = "filters"
    most = whole(op, "most", most)
    weights = _filter_weights(op, layer)
    F, C = weights.shape[:2]
    if C == 1:
        shown = weights[: most * most, 0]
        columns = min(most, canvas.columns_for(len(shown)))
        told = _of(len(shown), F, "filters")
    else:
        shown = weights[:most, :most]
        columns = shown.shape[1]
        told = f"{_of(len(shown), F, 'filters')} (rows), {_of(columns, C, 'channels')} (columns)"
        shown = shown.reshape(-1, *weights.shape[2:])
    tiles = canvas.mosaic(shown, columns)
    bound = float(np.nanmax(np.abs(tiles))) or 1.0
    figure = _tiled(op, path, tiles, (canvas.colormap("RdBu"), -bound, bound), title or told, "weight")
    return canvas.finish(op, figure, path)


def _of(shown: int, there: int, what: str) -> str:
    return f"{there} {what[:-1] if there == 1 else what}" if shown == there else f"the first {shown} of {there} {what}"


def _filter_weights(op: str, layer: Any) -> np.ndarray:
    """Weights (F, C, KH, KW)."""
    weight = getattr(layer, "weight", None) if isinstance(layer, Module) else layer
    found = None if weight is None else inputs.host(weight)
    if found is None or found.ndim != 4 or not found.size or found.dtype.kind != "f":
        need = "layer must be a convolution or weights (F, C, KH, KW)"
        if isinstance(layer, Module):
            names = [
                name for name, each in layer.named_modules() if getattr(getattr(each, "weight", 0), "ndim", 0) == 4
            ]
            has = f"; it has these: {', '.join(names)}" if names else ""
            raise ArgumentError(f"{op}: {need}, got {type(layer).__name__}{has}")
        got = type(layer).__name__ if found is None or found.ndim == 0 else f"{found.dtype} {found.shape}"
        raise ArgumentError(f"{op}: {need}, got {got}")
    if isinstance(layer, ConvTranspose2d):  # its weight is (C, F/groups, KH, KW)
        found = found.swapaxes(0, 1)
    return found


def _tiled(
    op: str, path: AnyPath | None, tiles: np.ndarray, colors: tuple[Any, float, float], title: str, meaning: str
) -> "Figure":
    """A figure of one mosaic, its proportions kept."""
    H, W = tiles.shape
    width = min(9.0, max(3.5, 0.09 * W))
    figure = canvas.start(op, path, width + 1.0, max(2.0, width * H / W) + 0.5)
    axes = figure.add_subplot()
    cmap, low, high = colors
    drawn = axes.imshow(tiles, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=canvas.LARGE)
    canvas.color_bar(figure, drawn, axes, meaning)
    return figure


def feature_maps(model: Any, image: Any, layer: Any, path: AnyPath | None = None, *, most: int = 64) -> "Figure":
    """What the channels of a layer make of one image, which stands on the left.

    The model runs in evaluation mode without a graph; modes are as they were afterwards.

    Args:
        model: the model.
        image: (C, H, W), (H, W) for one channel, or a batch of one; floats, as the model was trained on.
        layer: name of a module in the model, such as "features.1", or the module itself.
        path: file to write (.png, .svg or .pdf), or None.
        most: channels at most; the title says how many there are.

    Returns:
        The figure: on axis 0 the image, on axis 1 the maps with NaN between them, all on one scale.

    Raises:
        ArgumentError: no such layer, one that the model does not call, or a file that cannot be written.
        ShapeError: an image that the model does not take, or a layer whose output is no maps (1, C, H, W).
        BackendUnavailableError: matplotlib is not installed.

    Example:
        >>> import gpunet as gn
        >>> model, digits = gn.nn.Sequential(gn.nn.Conv2d(1, 4, 3), gn.nn.ReLU()), gn.data.load("digits8")
        >>> feature_maps(model, digits.x_test[0], "1").axes[1].images[0].get_array().shape
        (6, 27)
    """
    op = "feature_maps"
    most = whole(op, "most", most)
    name, module = _layer(op, model, layer)
    x = inputs.host(image)
    x = inputs.samples(op, model, x.reshape(1, *(1,) * (3 - x.ndim), *x.shape) if x.ndim < 4 else x)
    if len(x) != 1 or x.ndim != 4:
        raise ShapeError(f"{op}: image must be one image (C, H, W), got shape {x.shape}; take one: x[0]")
    maps = _maps(op, model, module, name, x)
    tiles = canvas.mosaic(maps[:most], canvas.columns_for(len(maps[:most])))
    H, W = tiles.shape
    height = min(8.0, max(2.6, 5.0 * H / W))
    figure = canvas.start(op, path, 8.6, height + 0.5)
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 3.2))
    left, right = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    picture = as_pictures(op, x if x.shape[1] in (1, 3) else x[:, :1])[0]
    left.imshow(picture if picture.ndim == 2 else picture.clip(0, 1), cmap="gray", interpolation="nearest")
    drawn = right.imshow(tiles, cmap=canvas.colormap("viridis"), interpolation="nearest")
    for axes, text in ((left, "image"), (right, f"{name}: {_of(len(maps[:most]), len(maps), 'maps')}")):
        axes.set_axis_off()
        axes.set_anchor("NW")
        axes.set_title(text, loc="left", fontsize=canvas.LARGE)
    canvas.color_bar(figure, drawn, right, "output")
    return canvas.finish(op, figure, path)


def _layer(op: str, model: Any, layer: Any) -> tuple[str, Module]:
    """Name and module."""
    if not isinstance(model, Module):
        raise ArgumentError(f"{op}: model must be a gn.nn.Module, got {type(model).__name__}")
    there = dict(model.named_modules())
    for name, module in there.items():
        if module is layer or (isinstance(layer, str) and name == layer):
            return name or type(model).__name__, module
    got = repr(layer) if isinstance(layer, str) else type(layer).__name__
    raise ArgumentError(
        f"{op}: layer must be a module of the model, got {got}; it has {', '.join(filter(None, there))}"
    )


def _maps(op: str, model: Module, module: Module, name: str, x: np.ndarray) -> np.ndarray:
    """The output (C, H, W) of a module while the model looks at one image."""
    seen: list[Any] = []
    modes = [(each, each.training) for each in model.modules()]
    hook = module.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        with no_grad():
            model.eval()(inputs.to_tensor(x, *inputs.place(model)))
    finally:
        hook.remove()
        for each, mode in modes:
            each.training = mode
    if not seen:
        raise ArgumentError(f"{op}: layer must be one that the model calls, got {name}, which it does not")
    output = inputs.host(seen[-1])
    if output.ndim != 4 or not output.size:
        raise ShapeError(f"{op}: layer must give maps (1, C, H, W), got {output.shape} from {name}; take one before it")
    return output[0]
