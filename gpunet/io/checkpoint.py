"""Saving and loading a model with what its training needs to go on: optimiser, random state, and own values."""

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpunet import random
from gpunet.errors import ArgumentError, DataError, GpunetError
from gpunet.io import container, tree
from gpunet.io.container import AnyPath

OPTIMIZER = "optimizer:"  # before the names of an optimiser's arrays; no parameter's name can hold a colon
METADATA = "metadata:"  # and before those of arrays in the metadata
RECORD = "gpunet"  # name of the record: metadata key in safetensors
RECORD_NPZ = "gpunet:record"  # and array of UTF-8 bytes in npz
WHOLE = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
DTYPES = ["float16", "float32", "float64", "bool", *WHOLE]
MAX_BYTES, MAX_INFLATION = 1 << 30, 4  # an npz file may unpack to the larger of these bytes and times its size
DAMAGE = (EOFError, OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, MemoryError)


def save(path: AnyPath, model: Any, optimizer: Any = None, **metadata: Any) -> None:
    """Writes the model to a safetensors file, with the optimiser's state, the random state and ``metadata``.

    The file appears whole or not at all: it is written beside ``path``, brought to the disk, then moved over it. The
    arrays go by the names of ``model.state_dict()``, so other readers of safetensors find the weights.

    Args:
        path: the file; its folder must exist.
        model: a ``gn.nn.Module``, or a mapping of names to arrays or tensors.
        optimizer: one of ``gn.optim``, whose ``state_dict()`` is kept; None keeps none.
        metadata: numbers, text, lists, tuples, dictionaries or arrays, such as ``epoch=5``.

    Raises:
        ArgumentError: a value that cannot be kept (a function, an object), or an array of another kind than numbers.
        OSError: the disk is full or the folder is not there; what ``path`` held is then as it was.

    Example:
        >>> import tempfile, gpunet as gn
        >>> model = gn.nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/model.safetensors", model, epoch=3)
        ...     load(f"{folder}/model.safetensors", gn.nn.Linear(2, 1))
        {'epoch': 3}
    """
    import safetensors.numpy

    arrays, text = _pack("save", model, optimizer, metadata)
    data = safetensors.numpy.save(arrays, {"format": "np", RECORD: text})
    container.atomically(path, lambda file: file.write(data))


def load(path: AnyPath, model: Any, optimizer: Any = None, include_top: bool = True) -> dict[str, Any]:
    """Reads a file of :func:`save` into ``model``, and into ``optimizer`` if given; returns the metadata.

    With an optimiser the run goes on where it was: the random state is put back too. Without one the weights alone are
    taken. A safetensors file of another program is read as weights, if names and shapes are those of the model.

    Args:
        path: the file.
        model: a ``gn.nn.Module`` whose names and shapes are those of the file.
        optimizer: one of ``gn.optim`` over that model's parameters, or None.
        include_top: False leaves the model's top as it is, for a new task: the last layer that has parameters, which
            gives the logits. It may then have another shape than the file's, for another number of classes.

    Returns:
        The keywords that ``save`` was given; empty for a file of another program.

    Raises:
        DataError: the file is pickled or otherwise no safetensors file, is truncated or damaged, holds no optimiser
            though one is asked for, or is of another model. Model, optimiser and random state are then unchanged.
        ArgumentError: include_top=False with an optimiser, whose state is that of the old top, or for a model that has
            nothing below its top.
        FileNotFoundError: there is no such file.
    """
    top = None if include_top else _top(model, optimizer)
    file, arrays, text = _read("load", path, prefix="")
    if top is not None:
        own = {name: value for name, value in model.state_dict().items() if name.startswith(top)}
        arrays = {name: array for name, array in arrays.items() if not name.startswith(top)} | own
    return _unpack("load", file, arrays, text, model, optimizer)


def need_same(op: str, path: AnyPath, model: Any, optimizer: Any) -> None:
    """Refuses the file that :func:`load` would refuse for this model and optimiser; all is then as it was before."""
    file, arrays, text = _read(op, path, prefix="")
    _unpack(op, file, arrays, text, model, optimizer, keep=False)


def _top(model: Any, optimizer: Any) -> str:
    """What the names of the parameters begin with that ``include_top=False`` leaves alone."""
    if optimizer is not None:
        raise ArgumentError("load: include_top=False must come without an optimizer, got both; make it after loading")
    layers = [name.rpartition(".")[0] for name, _ in model.named_parameters()]
    if len(set(layers)) < 2:
        kind = type(model).__name__
        raise ArgumentError(f"load: include_top=False must leave something to load, got a {kind} that is all top")
    return f"{layers[-1]}."


def load_metadata(path: AnyPath) -> dict[str, Any]:
    """What :func:`save` was given as ``metadata``, without reading the weights; empty for a file of another program.

    Args:
        path: the file.

    Raises:
        DataError, FileNotFoundError: as in :func:`load`.
    """
    file, arrays, text = _read("load_metadata", path, prefix=METADATA)
    found = {} if text is None else tree.decode(container.parse("load_metadata", file, text)["metadata"], arrays)
    if not isinstance(found, dict):
        got = type(found).__name__
        raise DataError(f"load_metadata: {str(file)!r}: the metadata must be values by name, got a {got}; damaged?")
    return found


def _read(op: str, path: AnyPath, prefix: str) -> tuple[Path, dict[str, np.ndarray], str | None]:
    """The file, its arrays whose names begin so, and its record."""
    import safetensors

    file = container.need_file(op, path)
    container.need_safetensors(op, file)
    try:
        with safetensors.safe_open(file, framework="numpy") as content:
            names = [name for name in list(content.keys()) if name.startswith(prefix)]
            return file, {name: content.get_tensor(name) for name in names}, (content.metadata() or {}).get(RECORD)
    except (safetensors.SafetensorError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{op}: {str(file)!r} must be an intact safetensors file, got: {error}; truncated?") from None


def save_npz(path: AnyPath, model: Any, optimizer: Any = None, **metadata: Any) -> None:
    """:func:`save` in NumPy's npz format: ``np.load(path)`` shows the arrays. Nothing is pickled.

    Args:
        path: the file; nothing is added to its name.
        model: as in :func:`save`.
        optimizer: as in :func:`save`.
        metadata: as in :func:`save`.

    Raises:
        ArgumentError, OSError: as in :func:`save`.
    """
    arrays, text = _pack("save_npz", model, optimizer, metadata)
    content: dict[str, Any] = {**arrays, RECORD_NPZ: np.frombuffer(text.encode(), np.uint8)}
    container.atomically(path, lambda file: _write_npz(file, content))


def _write_npz(file: Any, content: dict[str, np.ndarray]) -> None:
    """What np.savez writes; it has keywords of its own, "file" for one, that no parameter could be called."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in content.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_npz(path: AnyPath, model: Any, optimizer: Any = None) -> dict[str, Any]:
    """:func:`load` for a file of :func:`save_npz`, or for any npz file whose arrays have the model's names and shapes.

    Args:
        path: the file.
        model: as in :func:`load`.
        optimizer: as in :func:`load`.

    Returns:
        The keywords that ``save_npz`` was given; empty for a file of another program.

    Raises:
        DataError: as in :func:`load`; an array that holds Python objects is refused, never unpickled.
        FileNotFoundError: there is no such file.
    """
    file = container.need_file("load_npz", path)
    try:
        archive = zipfile.ZipFile(file)
    except DAMAGE as error:
        with file.open("rb") as stream:
            start = stream.read(8)
        what = (None if start.startswith(b"PK") else container.foreign(start)) or f"a file that is none: {error}"
        raise DataError(f"load_npz: {str(file)!r} must be an npz file, got {what}; truncated?") from None
    with archive:
        claimed, size = sum(member.file_size for member in archive.infolist()), file.stat().st_size
        if claimed > max(MAX_BYTES, size * MAX_INFLATION):
            raise DataError(f"load_npz: {str(file)!r}: {claimed} bytes claimed in a file of {size}; hostile")
        arrays = {member.filename.removesuffix(".npy"): _member(file, archive, member) for member in archive.infolist()}
    record = arrays.pop(RECORD_NPZ, None)
    if record is not None and (record.dtype != np.uint8 or record.ndim != 1):
        raise DataError(f"load_npz: {str(file)!r}: gpunet's record must be bytes, got {record.dtype} {record.shape}")
    text = None if record is None else record.tobytes().decode("utf-8", "replace")
    return _unpack("load_npz", file, arrays, text, model, optimizer)


def _pack(op: str, model: Any, optimizer: Any, metadata: dict[str, Any]) -> tuple[dict[str, np.ndarray], str]:
    """Everything as arrays by name, and the record that says what they are and holds the rest."""
    named: dict[str, Any] = {}
    state = model if isinstance(model, Mapping) else model.state_dict()
    for name, value in state.items():
        if not isinstance(name, str) or ":" in name:
            raise ArgumentError(f"{op}: a name must be text without a colon, got {name!r}")
        tree.encode(value if hasattr(value, "shape") else np.asarray(value), name, named)
    record = {
        "version": 1,
        "metadata": tree.encode(metadata, METADATA, named),
        "random": tree.encode(random.get_state(), "random"),
        "optimizer": None if optimizer is None else tree.encode(optimizer.state_dict(), OPTIMIZER, named),
    }
    for name, array in named.items():
        if str(array.dtype.newbyteorder("=")) not in DTYPES:
            raise ArgumentError(f"{op}: {name} must be numbers, got {array.dtype}; choices: {', '.join(DTYPES)}")
    return {name: _plain(array) for name, array in named.items()}, json.dumps(record)


def _plain(array: np.ndarray) -> np.ndarray:
    # safetensors writes the memory of an array as it lies: a transposed or strided one would come back scrambled,
    # without an error. (ascontiguousarray alone would turn a single number into an array of one.)
    return np.ascontiguousarray(array, np.dtype(array.dtype.type)).reshape(array.shape)


def _unpack(
    op: str, file: Path, arrays: dict[str, np.ndarray], text: str | None, model: Any, optimizer: Any, keep: bool = True
) -> dict[str, Any]:
    """Puts the file's content where it belongs, or with ``keep=False`` only looks whether it fits; the metadata."""
    record = container.parse(op, file, text) if text is not None else {}
    weights = {name: array for name, array in arrays.items() if not name.startswith((OPTIMIZER, METADATA))}
    saved = record.get("optimizer")
    if optimizer is not None and saved is None:
        raise DataError(f"{op}: {str(file)!r} must hold an optimiser's state, got weights alone; pass no optimizer")
    before = random.get_state()
    old = None if optimizer is None else optimizer.state_dict()
    fits = False
    try:
        metadata = tree.decode(record.get("metadata", {}), arrays)
        if optimizer is not None:
            random.set_state(tree.decode(record.get("random"), {}))
            optimizer.load_state_dict(tree.decode(saved, arrays))
        if keep:
            model.load_state_dict(weights)
        else:
            model._matched(weights)
        fits = True
    except (GpunetError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{op}: {str(file)!r} must be of this model and optimiser, got: {error}") from error
    finally:
        if not (fits and keep):
            random.set_state(before)
            if optimizer is not None:
                optimizer.load_state_dict(old)
    return metadata


def _member(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array of an npz file, its header held against the size of its entry."""
    where = f"load_npz: {str(file)!r}, {info.filename[:80]!r}"
    try:
        with archive.open(info) as stream:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("it is not of npy version 1.0")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            if dtype.hasobject or str(dtype.newbyteorder("=")) not in DTYPES:
                raise ValueError(f"dtype {dtype}, where only numbers are read and nothing is unpickled")
            size = math.prod(shape) * dtype.itemsize
            if size != info.file_size - stream.tell():
                raise ValueError(f"shape {shape} of {dtype} in {info.file_size - stream.tell()} bytes")
            data = stream.read()  # never more than file_size; reading to the end compares the checksum
            if len(data) != size:
                raise ValueError(f"{len(data)} bytes of {size}")
            return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if fortran else "C")
    except DAMAGE as error:
        raise DataError(f"{where}: must be an intact array of numbers, got: {error}") from None
