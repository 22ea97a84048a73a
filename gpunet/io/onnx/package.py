"""The package onnx, imported on first use, and what both directions must agree on."""

from typing import Any

import numpy as np

from gpunet.errors import BackendUnavailableError

OPSET = 17
OLDEST_OPSET = 13  # from here on the ops that are read mean what they mean in opset 17
IR_VERSION = 8  # the format that came with opset 17
MAX_BYTES = (1 << 31) - 1  # a protobuf message cannot be larger
PARAMETERS = "gpunet:parameters"  # metadata: the names of the initializers that were parameters, as a JSON list

#: numbers of ONNX's element types that are read and written
DTYPES: dict[int, Any] = {
    1: np.dtype(np.float32), 11: np.dtype(np.float64), 7: np.dtype(np.int64), 6: np.dtype(np.int32),
    9: np.dtype(np.bool_), 2: np.dtype(np.uint8), 3: np.dtype(np.int8),
}  # fmt: skip
NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


def need_onnx(op: str) -> Any:
    """The package onnx.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise BackendUnavailableError(
            f"{op}: the package onnx must be installed, got none; pip install 'gpunet[onnx]'"
        ) from None
    return onnx
