"""What ``gn.detect_anomaly`` adds to the graph: the lines of the user's that led to an op, and a look for NaN."""

import os
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunet.errors import AnomalyError

_OWN = tuple(os.path.join(os.path.dirname(__file__), name) for name in ("anomaly.py", "graph.py", "tensor.py", "ops"))


def users_stack() -> str:
    """The lines that led to the op, outermost first, without gpunet's own at the end."""
    frames = traceback.extract_stack()
    while frames and frames[-1].filename.startswith(_OWN):
        frames.pop()
    return "".join(traceback.format_list(frames[-8:]))


def forward_line(node: Any) -> str:
    """Where the forward of a node ran, for a message."""
    if node.origin is None:
        return "its forward ran outside gn.detect_anomaly(), so its line is not known"
    return f"its forward ran at\n{node.origin}"


def need_no_nan(node: Any, given: Sequence[Any], found: Sequence[Any]) -> None:
    """Raises :class:`AnomalyError` when a node's backward made NaN of gradients without any."""
    from gpunet.tensor import Tensor  # its module stands above the graph, which asks for the lines

    def has_nan(tensor: Any) -> bool:
        return bool(np.isnan(tensor.device.to_host(tensor.data)).any())

    for position, gx in enumerate(found):
        if isinstance(gx, Tensor) and has_nan(gx) and not any(has_nan(gy) for gy in given):
            raise AnomalyError(
                f"{node.name}: the gradient of argument {position} holds NaN though what flowed in does not; "
                f"{forward_line(node)}"
            )
