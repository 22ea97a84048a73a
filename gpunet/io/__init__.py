"""Files: checkpoints as safetensors or npz, written atomically and never unpickled.

    save("model.safetensors", model, optimizer, epoch=5)
    metadata = load("model.safetensors", model, optimizer)

With an optimiser in both calls a run goes on exactly where it was: weights, optimiser and random state come back.

For other programs, and from theirs: ``export_onnx`` and ``import_onnx``, in :mod:`gpunet.io.onnx`.
"""

from gpunet.io.checkpoint import load, load_metadata, load_npz, save, save_npz
from gpunet.io.onnx import export_onnx, import_onnx

__all__ = ["export_onnx", "import_onnx", "load", "load_metadata", "load_npz", "save", "save_npz"]
