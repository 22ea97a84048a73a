"""What a thread has switched on: recording of the graph, and the search for anomalies."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Mode(threading.local):
    """Read often, take ``mode.__dict__``: this thread's own, found once instead of at each attribute."""

    def __init__(self) -> None:
        self.grad = True
        self.anomaly = False


mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether ops record a graph in this thread."""
    return mode.grad


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside the block no graph is recorded; works as a decorator too.

    Example:
        >>> import gpunet as gn
        >>> w = gn.ones(2, requires_grad=True)
        >>> with gn.no_grad():
        ...     (w * 2).requires_grad
        False
    """
    before, mode.grad = mode.grad, False
    try:
        yield
    finally:
        mode.grad = before


@contextmanager
def enable_grad() -> Iterator[None]:
    """Inside the block a graph is recorded again, for use within :func:`no_grad`."""
    before, mode.grad = mode.grad, True
    try:
        yield
    finally:
        mode.grad = before


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside the block every op remembers its line, and backward stops at the first NaN gradient naming that line.

    Raises:
        AnomalyError: in backward, when an op's gradient holds NaN, or its backward fails.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([0.0], requires_grad=True)
        >>> with gn.detect_anomaly():
        ...     try:
        ...         (gn.sqrt(x) * 0).sum().backward()
        ...     except gn.errors.AnomalyError as error:
        ...         print("NaN" in str(error))
        True
    """
    before, mode.anomaly = mode.anomaly, True
    try:
        yield
    finally:
        mode.anomaly = before
