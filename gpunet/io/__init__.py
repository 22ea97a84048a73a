"""Files: checkpoints as safetensors or npz, written atomically and never unpickled.

    save("model.safetensors", model, optimizer, epoch=5)
    metadata = load("model.safetensors", model, optimizer)

With an optimiser in both calls a run goes on exactly where it was: weights, optimiser and random state come back.
"""

from gpunet.io.checkpoint import load, load_metadata, load_npz, save, save_npz

__all__ = ["load", "load_metadata", "load_npz", "save", "save_npz"]
