"""How training went: loss and metrics over the epochs, and learning rates."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpunet.errors import ArgumentError
from gpunet.ops.checks import whole
from gpunet.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from gpunet.plot import canvas
from gpunet.plot.canvas import COLORS, MARKERS, AnyPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {"": "training", "val_": "validation"}  # prefix in a history -> what it is called in a picture
RATES = ("learning_rate", "lr")  # what a run's learning rate is called in a history


class Run(NamedTuple):
    """One training run: the numbers of its epochs, from 1, one value an epoch for each name, and its learning rates."""

    epochs: list[int]
    values: dict[str, np.ndarray]
    rates: Any


def curves(
    history: Any,
    path: AnyPath | None = None,
    *,
    metrics: Sequence[str] | None = None,
    side_by_side: bool = False,
    log: bool = False,
    title: str = "",
) -> "Figure":
    """Loss and every metric over the epochs, of one run or of several.

    One run has a panel for the loss and one for each metric, with training and validation in it. Several runs have a
    row of panels for training and one for validation, with a line for each run; or with ``side_by_side`` a panel for
    each run with both.

    Args:
        history: a ``History``, a trainer, a dictionary of lists such as ``history.history``, or what
            ``History.as_dict`` gives; or a dictionary of several of these by name.
        path: file to write (.png, .svg or .pdf), or None.
        metrics: what to show, such as ``("loss",)``; None for all.
        side_by_side: one panel a run instead of all runs in one.
        log: whether the loss has a logarithmic axis.
        title: a line above the panels.

    Returns:
        The figure. Values that are not finite leave a gap.

    Raises:
        ArgumentError: no epoch, another number of values than epochs, a metric that is not there, a file that cannot
            be written, or something that is no history.
        BackendUnavailableError: matplotlib is not installed.

    Example:
        >>> figure = curves({"loss": [2.0, 1.0], "val_loss": [2.1, 1.5]})
        >>> [(line.get_label(), line.get_ydata().tolist()) for line in figure.axes[0].lines]
        [('training', [2.0, 1.0]), ('validation', [2.1, 1.5])]
    """
    op = "curves"
    runs = _runs(op, history)
    shown = _shown(op, runs, metrics)
    several = len(runs) > 1 or next(iter(runs)) != ""
    if several and not side_by_side:
        figure = _together(op, path, runs, shown, bool(title))
    else:
        figure = _apart(op, path, runs, shown)
    for axes in figure.axes:
        canvas.whole_numbers(axes)
        if log and axes.get_label() == "loss":
            axes.set_yscale("log")
    if title:
        canvas.title(figure, title)
    return canvas.finish(op, figure, path)


def _apart(op: str, path: AnyPath | None, runs: dict[str, Run], shown: list[str]) -> "Figure":
    """A panel for each run and metric, training and validation in it."""
    panels = [(name, run, metric) for metric in shown for name, run in runs.items()]
    wide = len(shown) if len(runs) == 1 else len(runs)
    columns = wide if wide <= 4 else -(-wide // -(-wide // 4))  # rows as full as can be, of four at most
    rows = -(-wide // columns) * (len(panels) // wide)
    figure = canvas.start(op, path, max(5.0, 3.6 * columns), 2.9 * rows + 0.4)
    grid, first = figure.add_gridspec(rows, columns), {}
    for k, (name, run, metric) in enumerate(panels):
        block, place = divmod(k, wide)
        row, column = divmod(place, columns)
        spot = grid[block * -(-wide // columns) + row, column]
        axes = figure.add_subplot(spot, label=metric, sharey=first.get(metric))
        first.setdefault(metric, axes)
        canvas.plain(axes, name or metric, "epoch", metric if name else "")
        for number, (prefix, part) in enumerate(PARTS.items()):
            _line(axes, run, prefix + metric, part, number)
        if k == 0 or metric != panels[k - 1][2]:
            axes.legend(fontsize=canvas.SMALL, frameon=False)
    return figure


def _together(op: str, path: AnyPath | None, runs: dict[str, Run], shown: list[str], titled: bool) -> "Figure":
    """A column for each metric, a row for training and one for validation, and in each panel all runs."""
    parts = [
        prefix for prefix in PARTS if any(prefix + metric in run.values for run in runs.values() for metric in shown)
    ]
    figure = canvas.start(op, path, max(5.0, 3.8 * len(shown)) + 1.6, 2.9 * len(parts) + 0.4)
    grid = figure.add_gridspec(len(parts), len(shown))
    handles: dict[str, Any] = {}
    for column, metric in enumerate(shown):
        first = None
        for row, prefix in enumerate(parts):
            axes = first = figure.add_subplot(grid[row, column], label=metric, sharey=first)
            canvas.plain(axes, f"{PARTS[prefix]} {metric}", "epoch")
            for number, (name, run) in enumerate(runs.items()):
                for line in _line(axes, run, prefix + metric, name, number):
                    handles.setdefault(name, line)
    place: Any = f"outside right {'center' if titled else 'upper'}"  # not in the way of a title
    figure.legend(handles=list(handles.values()), loc=place, fontsize=canvas.MEDIUM, frameon=False)
    return figure


def _line(axes: Any, run: Run, name: str, label: str, number: int) -> list[Any]:
    """Draws one series if the run has it, in the colour and with the marker of that number."""
    if name not in run.values:
        return []
    many = len(run.epochs)
    return axes.plot(
        run.epochs, run.values[name], label=label, color=COLORS[number % len(COLORS)], linewidth=1.5,
        marker=MARKERS[(number + number // len(COLORS)) % len(MARKERS)], markersize=4, markevery=max(1, many // 12),
    )  # fmt: skip


def _shown(op: str, runs: dict[str, Run], metrics: Sequence[str] | None) -> list[str]:
    """Names of what to show, without prefix, the loss first and the learning rate last."""
    there = list(dict.fromkeys(name.removeprefix("val_") for run in runs.values() for name in run.values))
    there.sort(key=lambda name: (name != "loss", name in RATES))
    if metrics is None:
        return there
    if isinstance(metrics, str):
        raise ArgumentError(f"{op}: metrics must be a list of names, got the string {metrics!r}; pass ({metrics!r},)")
    for name in metrics:
        if name not in there:
            raise ArgumentError(f"{op}: a metric must be one of {', '.join(there)}, got {name!r}")
    if not metrics:
        raise ArgumentError(f"{op}: metrics must name at least one of {', '.join(there)}, got none")
    return list(metrics)


# -- histories ---------------------------------------------------------------------------------------------------


def _runs(op: str, given: Any) -> dict[str, Run]:
    """Runs by name; one that came without a name is called ""."""
    if isinstance(given, Mapping) and "history" not in given and any(map(_has_history, given.values())):
        return {str(name): _run(op, f"run {name!r}", each) for name, each in given.items()}
    return {"": _run(op, "history", given)}


def _has_history(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "history")


def _run(op: str, what: str, given: Any) -> Run:
    epochs, rates, values = None, None, given
    while hasattr(values, "history") or (isinstance(values, Mapping) and _has_history(values.get("history"))):
        inside = vars(values) if hasattr(values, "history") else values  # a trainer, a History, or one as a dictionary
        epochs, rates = inside.get("epochs", inside.get("epoch", epochs)), inside.get("learning_rates")
        values = inside["history"]
    if not isinstance(values, Mapping):
        raise ArgumentError(f"{op}: {what} must be a History or a dictionary of lists, got {type(given).__name__}")
    series = {str(name): _numbers(op, name, each) for name, each in values.items()}
    longest = max(map(len, series.values()), default=0)
    if not longest:
        raise ArgumentError(f"{op}: {what} must hold at least one epoch, got none; call fit first")
    numbers = range(longest) if epochs is None else epochs
    for name, each in series.items():
        if len(each) != len(numbers):
            raise ArgumentError(f"{op}: {name} must have a value for each of {len(numbers)} epochs, got {len(each)}")
    return Run([int(number) + 1 for number in numbers], series, rates)


def _numbers(op: str, name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        array = np.empty((0, 0))
    if array.ndim != 1:
        raise ArgumentError(f"{op}: {name} must be a list of numbers, one an epoch, got {values!r:.80}")
    return array


# -- learning rates ----------------------------------------------------------------------------------------------


def learning_rates(schedule: Any, path: AnyPath | None = None, *, steps: int = 100, log: bool = False) -> "Figure":
    """The learning rate over the steps to come of a scheduler, or over the epochs of a run.

    The scheduler and its optimizer stay as they are: the steps are made on a copy of the rates.

    Args:
        schedule: a scheduler of ``gpunet.optim.lr_scheduler``; a ``History`` or trainer, or a dictionary of lists with
            "learning_rate" or "lr"; or a dictionary of several of these by name.
        path: file to write (.png, .svg or .pdf), or None.
        steps: how many steps of a scheduler, the rate that is set now included.
        log: whether the rate has a logarithmic axis.

    Returns:
        The figure, with a line for each parameter group where their rates differ.

    Raises:
        ArgumentError: ReduceLROnPlateau, whose rates depend on what will be measured; a history without rates; more
            steps than a schedule has; or something else.
        BackendUnavailableError: matplotlib is not installed.

    Example:
        >>> import gpunet as gn
        >>> optimizer = gn.optim.SGD([gn.zeros(1, requires_grad=True)], lr=8.0)
        >>> schedule = gn.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        >>> learning_rates(schedule, steps=4).axes[0].lines[0].get_ydata().tolist()
        [8.0, 8.0, 4.0, 4.0]
    """
    op = "learning_rates"
    count = whole(op, "steps", steps)
    several = (
        isinstance(schedule, Mapping)
        and any(isinstance(each, LRScheduler) or _has_history(each) for each in schedule.values())
        and "history" not in schedule
    )
    lines: list[tuple[str, Any, Any]] = []
    for name, each in (schedule if several else {"": schedule}).items():
        lines += [(f"{name} {label}".strip(), x, y) for label, x, y in _rates(op, each, count)]
    figure = canvas.start(op, path, 6.4, 3.4)
    of_epochs = not any(isinstance(each, LRScheduler) for each in (schedule.values() if several else [schedule]))
    axes = canvas.plain(figure.add_subplot(), "learning rate", "epoch" if of_epochs else "step of the schedule")
    for number, (label, x, y) in enumerate(lines):
        axes.plot(x, y, color=COLORS[number % len(COLORS)], label=label, linewidth=1.8, drawstyle="steps-post")
    canvas.whole_numbers(axes)
    if log:
        axes.set_yscale("log")
    if len(lines) > 1:
        axes.legend(fontsize=canvas.SMALL, frameon=False)
    return canvas.finish(op, figure, path)


def _rates(op: str, schedule: Any, steps: int) -> list[tuple[str, Any, Any]]:
    """(label, x, y) of each line."""
    if isinstance(schedule, ReduceLROnPlateau):
        reason = "the schedule must not depend on measured values, got ReduceLROnPlateau"
        raise ArgumentError(f"{op}: {reason}; pass the history of a run that used it")
    if isinstance(schedule, LRScheduler):
        rates = np.asarray(_ahead(schedule, steps))  # (steps, groups)
        x = np.arange(schedule.last_epoch, schedule.last_epoch + steps)
        alike = (rates == rates[:, :1]).all()
        groups = range(1 if alike else rates.shape[1])
        return [("" if alike else f"group {k}", x, rates[:, k]) for k in groups]
    run = _run(op, "schedule", schedule)
    rates = next((run.values[name] for name in RATES if name in run.values), run.rates)
    if rates is None or len(rates) != len(run.epochs):
        need = "the history must hold a learning rate for each epoch"
        raise ArgumentError(f"{op}: {need}, got {', '.join(run.values)}; pass the scheduler itself")
    return [("", run.epochs, np.asarray(rates, np.float64))]  # None, of an optimizer without rates, becomes NaN


def _ahead(schedule: LRScheduler, steps: int) -> list[list[float]]:
    """The rates of the groups now and at each following step, made on copies."""
    twin, optimizer = copy.copy(schedule), copy.copy(schedule.optimizer)
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]  # the parameters are shared, and unused
    twin.optimizer = optimizer
    found = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(steps - 1):
        twin.step()
        found.append([group["lr"] for group in optimizer.param_groups])
    return found
