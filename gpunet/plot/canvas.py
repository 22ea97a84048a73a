"""What all pictures share: matplotlib on first use, colours, the look of an axis, files that are whole or absent."""

import io
import math
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.errors import ArgumentError, BackendUnavailableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AnyPath = str | os.PathLike[str]

#: Colours that people who see no red or no green tell apart: Okabe and Ito's, with grey in place of yellow.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
FIRST, SECOND = COLORS[:2]
MARKERS = "osD^vPX*"  # a second sign for each colour, for print without any
GREY, LIGHT = "#555555", "#DDDDDD"
SMALL, MEDIUM, LARGE = 8, 9, 11  # sizes of letters in points
SUFFIXES = (".png", ".svg", ".pdf")
DPI = 120


def start(op: str, path: AnyPath | None, width: float, height: float) -> "Figure":
    """An empty figure of that size in inches. Raises when it could not be written to ``path`` later.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        ArgumentError: another suffix than .png, .svg or .pdf, or a folder that is not there.
    """
    need_path(op, path)
    return _picture(op)(figsize=(width, height), dpi=DPI, layout="constrained")


def finish(op: str, figure: "Figure", path: AnyPath | None) -> "Figure":
    """Writes the figure when there is a path; whatever interrupts that, no half a picture is left. Returns it."""
    if path is not None:
        from gpunet.io.container import atomically

        content = rendered(figure, Path(path).suffix[1:].lower())
        atomically(path, lambda file: file.write(content))
    return figure


def need_path(op: str, path: AnyPath | None) -> None:
    """Raises when a picture cannot go there; called before anything is drawn."""
    if path is None:
        return
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError(f"{op}: path must be a file name or None, got {path!r}")
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ArgumentError(f"{op}: path must end in {', '.join(SUFFIXES)}, got {str(path)!r}")
    if not Path(path).parent.is_dir():
        raise ArgumentError(f"{op}: the folder of path must exist, got {str(path)!r}; make the folder first")


def rendered(figure: "Figure", kind: str) -> bytes:
    """The picture as bytes: "png", "svg" or "pdf"."""
    content = io.BytesIO()
    figure.savefig(content, format=kind)
    return content.getvalue()


def _picture(op: str) -> Any:
    try:
        import matplotlib.figure  # noqa: F401 whether it is there
    except ImportError:
        need = "the package matplotlib must be installed, got none"
        raise BackendUnavailableError(f'{op}: {need}; pip install "gpunet[plot]"') from None
    return _picture_class()


@cache
def _picture_class() -> Any:
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            return rendered(self, "png")

    return Picture


def colormap(name: str) -> Any:
    """A colour map in which what is no number, such as the gaps between tiles, is white."""
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad="white")


# -- axes --------------------------------------------------------------------------------------------------------


def plain(axes: Any, title: str = "", x: str = "", y: str = "") -> Any:
    """Gives an axis the common look: no frame but left and bottom, a light grid, titles on the left. Returns it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.grid(True, color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL, color=GREY)
    axes.set_title(title, loc="left", fontsize=LARGE)
    axes.set_xlabel(x, fontsize=MEDIUM)
    axes.set_ylabel(y, fontsize=MEDIUM)
    return axes


def whole_numbers(axes: Any) -> None:
    """Only whole numbers on the x axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))


def title(figure: "Figure", text: str) -> None:
    """The line above everything."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=LARGE)


def color_bar(figure: "Figure", drawn: Any, axes: Any, label: str) -> None:
    """What the colours of an image mean."""
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label(label, fontsize=MEDIUM)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)


def columns_for(count: int) -> int:
    """How many columns make a grid of ``count`` things a little wider than high, its last row as full as can be."""
    if count <= 5:
        return count
    side = count**0.5
    return min(range(math.ceil(side), math.ceil(1.6 * side) + 1), key=lambda columns: -count % columns)


def mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles (N, H, W) side by side, ``columns`` a row, with a gap of one NaN between them; NaN where none is left."""
    count, H, W = tiles.shape
    rows = -(-count // columns)
    out = np.full((rows * (H + 1) - 1, columns * (W + 1) - 1), np.nan)
    for k, tile in enumerate(tiles):
        top, left = k // columns * (H + 1), k % columns * (W + 1)
        out[top : top + H, left : left + W] = tile
    return out


def names_for(op: str, classes: Sequence[str] | None, count: int) -> list[str]:
    """A name for each of ``count`` classes: those given, or their numbers."""
    if classes is None:
        return [str(k) for k in range(count)]
    if isinstance(classes, str):
        raise ArgumentError(f"{op}: classes must be a list of names, got the string {classes!r}")
    if len(classes) < count:
        raise ArgumentError(f"{op}: classes must hold a name for each of {count} classes, got {len(classes)}")
    return [str(name) for name in classes]
