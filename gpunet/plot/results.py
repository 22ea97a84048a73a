"""What a classifier gets right and wrong: confusion matrix, wrong predictions, and images as they are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.errors import ArgumentError, DTypeError, ShapeError
from gpunet.ops.checks import whole
from gpunet.plot import canvas
from gpunet.plot.canvas import AnyPath
from gpunet.train.inputs import host

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERED = 25  # classes; beyond, the numbers in a confusion matrix would not be legible


def confusion_matrix(
    truth: Any, guesses: Any, classes: Sequence[str] | None = None, path: AnyPath | None = None
) -> "Figure":
    """How often each class was taken for each other: rows are the truth, columns the guess.

    The numbers are counts; the colour is their share of the row, so that rare classes show as well as common ones.

    Args:
        truth: labels (N,), integers from 0.
        guesses: labels (N,), or scores (N, K) of which the largest is the guess, such as ``trainer.predict`` gives.
        classes: the K names; None for numbers.
        path: file to write (.png, .svg or .pdf), or None.

    Returns:
        The figure; the array of its image holds the shares, NaN in the row of a class that never occurs.

    Raises:
        ShapeError: the two differ in length.
        DTypeError: labels that are no integers.
        ArgumentError: no label at all, one outside the classes, or a file that cannot be written.
        BackendUnavailableError: matplotlib is not installed.

    Example:
        >>> figure = confusion_matrix([0, 0, 1], [0, 1, 1], ["cat", "dog"])
        >>> figure.axes[0].images[0].get_array().tolist()
        [[0.5, 0.5], [0.0, 1.0]]
    """
    op = "confusion_matrix"
    truth, guesses = host(truth), host(guesses)
    seen = guesses.shape[1] if guesses.ndim == 2 else 0
    guesses = guesses.argmax(1) if guesses.ndim == 2 else guesses
    if truth.ndim != 1 or guesses.shape != truth.shape:
        need = "truth must be labels (N,) and guesses labels (N,) or scores (N, K)"
        raise ShapeError(f"{op}: {need}, got {truth.shape} and {guesses.shape}")
    for name, labels in (("truth", truth), ("guesses", guesses)):
        _need_labels(op, name, labels)
    seen = max(seen, int(truth.max()) + 1, int(guesses.max()) + 1)
    count = max(seen, 0 if classes is None else len(classes))
    names = canvas.names_for(op, classes, count)
    counts = np.zeros((count, count), np.int64)
    np.add.at(counts, (truth, guesses), 1)
    figure = canvas.start(op, path, 0.5 * count + 2.6, 0.44 * count + 1.9)
    right = np.trace(counts) / len(truth)
    _draw_matrix(figure, counts, names, f"{100 * right:.1f} % of {len(truth):,} right")
    return canvas.finish(op, figure, path)


def _need_labels(op: str, name: str, labels: np.ndarray) -> None:
    if labels.dtype.kind not in "iu":
        remedy = "; guesses from logits are logits.argmax(1)" if labels.dtype.kind == "f" else ""
        raise DTypeError(f"{op}: {name} must be integers, got {labels.dtype}{remedy}")
    if not labels.size:
        raise ArgumentError(f"{op}: {name} must hold at least one label, got none")
    if labels.min() < 0:
        raise ArgumentError(f"{op}: {name} must be labels from 0, got {labels.min()}")


def _draw_matrix(figure: "Figure", counts: np.ndarray, names: list[str], title: str) -> None:
    count = len(names)
    rows = counts.sum(1, keepdims=True)
    shares = np.where(rows > 0, counts / np.maximum(rows, 1), np.nan)
    axes = canvas.plain(figure.add_subplot(), title, "guess", "truth")
    drawn = axes.imshow(shares, cmap=canvas.colormap("Blues"), vmin=0, vmax=1)
    tilted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
    axes.set_xticks(range(count), names, fontsize=canvas.SMALL, **tilted)
    axes.set_yticks(range(count), names, fontsize=canvas.SMALL)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    canvas.color_bar(figure, drawn, axes, "share of the true class")
    for row, column in zip(*np.nonzero(counts)) if count <= MOST_NUMBERED else ():
        ink = "white" if shares[row, column] > 0.55 else "black"
        text = f"{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=canvas.SMALL)


def images(
    x: Any,
    titles: Any = None,
    path: AnyPath | None = None,
    *,
    classes: Sequence[str] | None = None,
    columns: int | None = None,
    title: str = "",
) -> "Figure":
    """Images in a grid.

    Args:
        x: (N, C, H, W) with 1 channel or 3 (red, green, blue), or (N, H, W). Bytes reach from 0 to 255; floats from
            0 to 1, or, where any lies outside, from the smallest to the largest of all.
        titles: N texts, or N labels; None for none.
        path: file to write (.png, .svg or .pdf), or None.
        classes: what labels mean; None for their numbers.
        columns: images in a row; None chooses.
        title: a line above the grid.

    Returns:
        The figure, with an axis for each image.

    Raises:
        ShapeError: x has other axes, or another number of titles.
        DTypeError: x holds no numbers.
        ArgumentError: no image at all, a label outside the classes, or a file that cannot be written.
        BackendUnavailableError: matplotlib is not installed.

    Example:
        >>> import gpunet as gn
        >>> digits = gn.data.load("digits8")
        >>> figure = images(digits.x_test[:6], digits.y_test[:6])
        >>> [axes.get_title() for axes in figure.axes]
        ['5', '3', '4', '6', '6', '7']
    """
    op = "images"
    pictures = as_pictures(op, x)
    named = _titles(op, titles, classes, len(pictures))
    wide = canvas.columns_for(len(pictures)) if columns is None else min(whole(op, "columns", columns), len(pictures))
    figure = canvas.start(op, path, *_size(len(pictures), wide, bool(named), bool(title)))
    draw_images(figure, pictures, named, wide)
    if title:
        canvas.title(figure, title)
    return canvas.finish(op, figure, path)


def _size(count: int, columns: int, titled: bool, headed: bool) -> tuple[float, float]:
    """Inches for a grid."""
    rows = -(-count // columns)
    return max(2.4, 1.25 * columns + 0.1), (1.5 if titled else 1.25) * rows + (0.45 if headed else 0.1)


def _titles(op: str, titles: Any, classes: Sequence[str] | None, count: int) -> list[str]:
    if titles is None:
        return []
    given = host(titles)
    if given.shape != (count,):
        raise ShapeError(f"{op}: titles must be one for each of {count} images, got shape {given.shape}")
    if given.dtype.kind not in "iu":
        return [str(each) for each in given]
    _need_labels(op, "titles", given)
    names = canvas.names_for(op, classes, int(given.max()) + 1)
    return [names[label] for label in given]


def draw_images(figure: "Figure", pictures: np.ndarray, titles: Sequence[str], columns: int) -> None:
    """A grid of axes with an image each."""
    low, high = _range(pictures)
    if pictures.ndim == 4:  # matplotlib takes colours from 0 to 1 alone
        pictures, low, high = ((pictures - low) / (high - low)).clip(0, 1), 0.0, 1.0
    grid = figure.add_gridspec(-(-len(pictures) // columns), columns)
    for k, each in enumerate(pictures):
        axes = figure.add_subplot(grid[divmod(k, columns)])
        axes.imshow(each, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axes.set_axis_off()
        if len(titles):
            axes.set_title(titles[k], fontsize=canvas.SMALL, pad=3)


def as_pictures(op: str, x: Any) -> np.ndarray:
    """Images as (N, H, W), or (N, H, W, 3) in colour, for drawing."""
    x = host(x)
    if x.dtype.kind not in "fiub":
        raise DTypeError(f"{op}: images must be numbers, got {x.dtype}")
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        last = x.ndim == 4 and x.shape[3] in (1, 3)
        remedy = "; the channels stand last: x.transpose(0, 3, 1, 2)" if last else "; one image: x[None]"
        need = "images must be (N, C, H, W) with 1 or 3 channels, or (N, H, W)"
        raise ShapeError(f"{op}: {need}, got shape {x.shape}{remedy}")
    if not x.size:
        raise ArgumentError(f"{op}: there must be at least one image, got shape {x.shape}")
    return x[:, 0] if x.shape[1] == 1 else x.transpose(0, 2, 3, 1)


def _range(pictures: np.ndarray) -> tuple[float, float]:
    """The values that are black and white."""
    if pictures.dtype == np.uint8:
        return 0.0, 255.0
    finite = pictures[np.isfinite(pictures)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, max(high, low + 1e-12)


def wrong_predictions(
    images: Any,
    truth: Any,
    probabilities: Any,
    classes: Sequence[str] | None = None,
    path: AnyPath | None = None,
    *,
    most: int = 16,
) -> "Figure":
    r"""The images that a classifier took for something else, those it was surest of first.

    Args:
        images: (N, C, H, W) or (N, H, W), as :func:`images` takes them.
        truth: labels (N,), integers from 0.
        probabilities: (N, K); or logits, known by rows that are no probabilities that add up to 1, of which the
            softmax is taken.
        classes: the K names; None for numbers.
        path: file to write (.png, .svg or .pdf), or None.
        most: how many to show.

    Returns:
        The figure: over each image the guess, its probability and the truth.

    Raises:
        ShapeError: shapes that do not belong together.
        DTypeError: labels that are no integers.
        ArgumentError: NaN among the probabilities, a label outside the classes, or a file that cannot be written.
        BackendUnavailableError: matplotlib is not installed.

    Example:
        >>> import numpy as np
        >>> figure = wrong_predictions(np.zeros((2, 8, 8)), [0, 1], [[0.9, 0.1], [0.75, 0.25]], ["cat", "dog"])
        >>> [axes.get_title() for axes in figure.axes]
        ['cat: 75 %\nin truth dog']
    """
    op = "wrong_predictions"
    pictures, truth = as_pictures(op, images), host(truth)
    shares = _probabilities(op, host(probabilities))
    if not len(pictures) == len(truth) == len(shares) or truth.ndim != 1:
        need = "images, truth and probabilities must have one length"
        raise ShapeError(f"{op}: {need}, got {len(pictures)}, {truth.shape} and {shares.shape}")
    _need_labels(op, "truth", truth)
    if truth.max() >= shares.shape[1]:
        raise ArgumentError(f"{op}: truth must be labels below {shares.shape[1]}, got {truth.max()}")
    names = canvas.names_for(op, classes, shares.shape[1])
    guesses, sureness = shares.argmax(1), shares.max(1)
    wrong = np.flatnonzero(guesses != truth)
    chosen = wrong[np.argsort(-sureness[wrong], kind="stable")][: whole(op, "most", most)]
    titles = [f"{names[guesses[k]]}: {100 * sureness[k]:.0f} %\nin truth {names[truth[k]]}" for k in chosen]
    told = f"{len(wrong):,} of {len(truth):,} wrong" + (
        f", the surest {len(chosen)}" if len(chosen) < len(wrong) else ""
    )
    columns = max(1, canvas.columns_for(len(chosen)))
    figure = canvas.start(op, path, max(3.0, 1.45 * columns), 1.75 * max(1, -(-len(chosen) // columns)) + 0.4)
    if len(chosen):
        draw_images(figure, pictures[chosen], titles, columns)
    canvas.title(figure, told)
    return canvas.finish(op, figure, path)


def _probabilities(op: str, given: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) out of that, or out of logits."""
    if given.ndim != 2 or given.dtype.kind not in "fiu" or given.shape[1] < 2:
        got = f"{given.dtype} {given.shape}"
        raise ShapeError(f"{op}: probabilities must be numbers (N, K) for at least 2 classes, got {got}")
    if np.isnan(given).any():
        row = int(np.flatnonzero(np.isnan(given).any(1))[0])
        raise ArgumentError(f"{op}: probabilities must be numbers, got NaN for image {row}")
    given = given.astype(np.float64)
    if (given >= 0).all() and np.allclose(given.sum(1), 1, atol=1e-3):
        return given
    grown = np.exp(given - given.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)
