"""Other libraries doing what an entry does, to be measured against. Nothing here is imported unless asked for.

A peer has ``NAME`` (the library, its version, its precision), ``KINDS`` (devices it can be measured on),
``LIMITS`` (whether :func:`threads` has an effect), ``entries()``,
``bind(entry, arrays, params)`` (the entry as a call without arguments, done when it returns or when the device is
waited for), ``results(entry, ours, theirs)`` (pairs of outputs that must agree), ``distance(ours, theirs)`` (of one
such pair), ``precise(tf32=False)`` and ``threads(count)``, two contexts.
"""

import importlib
import importlib.util
from typing import Any

from gpunet.errors import ArgumentError, BackendUnavailableError

#: what ``--against`` takes -> the module here, and how to get the library
PEERS = {
    "numpy": ("numpy_expressions", "it is a dependency of gpunet"),
    "torch": ("pytorch", "pip install torch==2.13.0"),
    "jax": ("jax_expressions", "pip install 'jax>=0.6,<0.11'"),
    "cupy": ("cupy_expressions", 'pip install "gpunet[cuda13]"'),
}
COMMIT = "commit:"  # and a name of git's: the same entries as they were in that commit


def why_not(name: str) -> str | None:
    """None when the library is installed, or the commit is there; else the reason and the remedy.

    Raises:
        ArgumentError: there is no such peer.
    """
    if name.startswith(COMMIT):
        return importlib.import_module("gpunet.bench.peers.commits").why_not(name.removeprefix(COMMIT))
    if name not in PEERS:
        raise ArgumentError(f"against: must be one of {', '.join(PEERS)} or commit:REF, got {name!r}")
    if importlib.util.find_spec(name) is None:
        return f"{name} is not installed; {PEERS[name][1]}"
    return None


def load(name: str) -> Any:
    """The peer called ``name``; its library, or the commit's gpunet, is imported now.

    Raises:
        ArgumentError: there is no such peer, or no such commit.
        BackendUnavailableError: the library is not installed, or there is no git checkout.
    """
    if name.startswith(COMMIT):
        return importlib.import_module("gpunet.bench.peers.commits").load(name.removeprefix(COMMIT))
    reason = why_not(name)
    if reason:
        raise BackendUnavailableError(f"against: {reason}")
    module = importlib.import_module(f"gpunet.bench.peers.{PEERS[name][0]}")
    return getattr(module, "PEER", module)
