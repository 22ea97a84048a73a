"""NumPy as a peer: what somebody writes without a framework."""

import numpy as np

from .arrays import Peer, expressions

PEER = Peer(f"numpy {np.__version__}", ("cpu",), expressions(np))
