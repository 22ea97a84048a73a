"""Weights that this project trained itself, to begin from: small files, each with the script that made it.

    model = gn.nn.ReferenceCNN(num_classes=10)
    gn.io.load(weights("reference_cnn_mnist5k"), model, include_top=False)  # all but the last layer, which is new
    model.freeze()
    model.classifier[-1].unfreeze()                                         # train the last layer alone, to begin with

``gpunet.examples.transfer`` shows what that is worth.
"""

from pathlib import Path

from gpunet.errors import ArgumentError

FOLDER = Path(__file__).parent


def weights(name: str) -> Path:
    """The file of the weights called ``name``, for ``gn.io.load``; ``gn.io.load_metadata`` tells how they were made.

    ======================= ============== ===================================================================
    name                    model          trained on
    ======================= ============== ===================================================================
    reference_cnn_mnist5k   ReferenceCNN   the 4,000 training digits of ``mnist5k``, by ``pretrained/build.py``
    ======================= ============== ===================================================================

    Args:
        name: one of the table.

    Raises:
        ArgumentError: there are no weights of that name.

    Example:
        >>> import gpunet as gn
        >>> gn.io.load_metadata(weights("reference_cnn_mnist5k"))["data"]
        'mnist5k'
    """
    files = {file.stem: file for file in sorted(FOLDER.glob("*.safetensors"))}
    if name not in files:
        raise ArgumentError(f"weights: name must be one of {', '.join(files)}, got {name!r}")
    return files[name]
