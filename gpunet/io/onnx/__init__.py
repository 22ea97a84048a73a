"""ONNX files, opset 17: a model written for other programs, and their models read as modules.

Writing: :mod:`record` runs the model twice and notes its ops, :mod:`emit` and :mod:`emit_images` turn each into nodes
of ONNX, :mod:`builder` collects them, :mod:`export` proves the result and writes it. Reading: :mod:`reader` believes
nothing that a file claims, :mod:`operators` and :mod:`operators_images` have each op of ONNX as a function on tensors,
:mod:`module` is the Module that calls them in order.
"""

from gpunet.io.onnx.export import export_onnx
from gpunet.io.onnx.module import OnnxModule, import_onnx

__all__ = ["OnnxModule", "export_onnx", "import_onnx"]
