"""CuPy as a peer: the same expressions on a GPU, each operation a kernel of CuPy's."""

from gpunet.cuda import cupy as door

from .arrays import Peer, expressions

cupy = door()
PEER = Peer(f"cupy {cupy.__version__}", ("cuda",), expressions(cupy), to_host=cupy.asnumpy)
