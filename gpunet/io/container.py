"""Files that are whole or absent: written beside the target and moved over it, and never believed when read."""

import json
import os
import secrets
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpunet.errors import DataError

AnyPath = str | os.PathLike[str]

#: First bytes of files that people hand over by mistake, and what they are.
FOREIGN = {
    b"\x80": "a Python pickle (.pkl, or .pt of old PyTorch)",
    b"PK\x03\x04": "a zip file (.npz of NumPy, .pt of PyTorch or .keras)",
    b"\x89HDF": "an HDF5 file (.h5 of Keras)",
    b"\x93NUMPY": "a single NumPy array (.npy)",
    b"\x1f\x8b": "a gzip file",
    b"GGUF": "a GGUF file",
}
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself


def atomically(path: AnyPath, write: Callable[[Any], None]) -> None:
    """Calls ``write(file)`` on a new file in the folder of ``path``, brings it to the disk, then moves it there.

    Whatever interrupts it, ``path`` holds either what it held or all of the new content. A link is followed. After a
    kill the unfinished file stays as ``.<name>.<random>.tmp`` and may be deleted.

    Raises:
        OSError: the disk is full, or the folder is not there or cannot be written; the error names ``path``.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            got = f"{error.strerror or error}; what was there before is unchanged"
            raise OSError(
                error.errno, f"atomic write: the file must be written whole, got: {got}", str(path)
            ) from error
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened; the move itself is still atomic
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def need_file(op: str, path: AnyPath) -> Path:
    """``path`` when it is a regular file; a pipe would block and a device such as /dev/zero never ends."""
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{op}: {str(path)!r} must be a regular file, got a directory, pipe or device")
    return path


def foreign(start: bytes) -> str | None:
    """What a file that begins so is, when it is one of the usual others."""
    return next((what for magic, what in FOREIGN.items() if start.startswith(magic)), None)


def need_safetensors(op: str, path: Path) -> None:
    """Refuses, before anything is allocated, what cannot be a safetensors file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        first = file.read(1)
    where = f"{op}: {str(path)!r} must be a safetensors file"
    if first != b"{" or len(start) < 8 or length > MAX_HEADER:
        what = foreign(start) or f"{size} bytes that begin with {start!r}"
        raise DataError(f"{where}, got {what}; pickled files are never read")
    if length > size - 8:
        raise DataError(f"{where}, got one that ends in its header, at byte {size} of {8 + length}; it is truncated")


def parse(op: str, path: Path, text: str) -> dict[str, Any]:
    """gpunet's own record out of a file, as a dictionary with the keys it must have."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{op}: {str(path)!r}: gpunet's record must be JSON, got: {error}") from None
    if not isinstance(record, dict) or record.get("version") != 1 or not isinstance(record.get("metadata"), dict):
        version = record.get("version") if isinstance(record, dict) else None
        raise DataError(f"{op}: {str(path)!r}: gpunet's record must be of version 1, got {version!r}")
    return record
