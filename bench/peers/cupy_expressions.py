"""CuPy as a peer: the same expressions on a GPU, each operation a kernel of CuPy's."""

import importlib
from typing import Any

from .arrays import Peer, expressions

cupy: Any = importlib.import_module("cupy")
PEER = Peer(f"cupy {cupy.__version__}", ("cuda",), expressions(cupy), to_host=cupy.asnumpy)
