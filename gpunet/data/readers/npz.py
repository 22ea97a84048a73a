"""Keras' ``mnist.npz`` layout: four arrays in a zip file, each opened only after its claims were checked."""

import math
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from gpunet.data.readers.bounded import CHUNK, MAX_BYTES, MAX_INFLATION, AnyPath
from gpunet.errors import DataError

NAMES = ("x_train", "y_train", "x_test", "y_test")
#: The only npy version that a plain array is ever written in; later ones hold field names and longer headers.
MAGIC = b"\x93NUMPY\x01\x00"
#: What NumPy writes behind it. Matching the text leaves nothing to evaluate. (Python 2 wrote sizes such as 60000L.)
HEADER = re.compile(rb"\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9L, ]*)\),? *\} *\n")
NUMBERS = re.compile(rb"[<>|=]?([bui]1|[uif][248])")
MAX_AXES = 32
MAX_DIGITS = 12
#: Packing methods that NumPy writes; the bound on inflation holds for these.
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
DAMAGE = (
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def read_npz(path: AnyPath, *, max_bytes: int = MAX_BYTES) -> Arrays:
    """``(x_train, y_train, x_test, y_test)`` from a file in Keras' ``mnist.npz`` layout.

    Nothing is ever unpickled. For each array the size in the zip directory, the size in its npy header and the size of
    the file on disk must agree before memory is taken. Other arrays in the file are left unread.

    Args:
        path: the file; a zip of ``x_train.npy``, ``y_train.npy``, ``x_test.npy`` and ``y_test.npy``.
        max_bytes: most bytes that the four arrays together may need.

    Returns:
        Images in the dtype and shape they are stored in, (N, ...), C-contiguous, native byte order; labels int64 (N,).

    Raises:
        DataError: no zip file, an array is missing, holds Python objects, disagrees with its claimed size, is damaged,
            over ``max_bytes``, or labels and images differ in number; the message has the file, the array and the byte
            offset inside it.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "tiny.npz")
        ...     x, y = np.zeros((3, 2, 2), np.uint8), np.arange(3)
        ...     np.savez(file, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
        ...     [array.shape for array in read_npz(file)]
        [(3, 2, 2), (3,), (1, 2, 2), (1,)]
    """
    path = Path(path)
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise DataError(f"read_npz: {str(path)!r} must be a regular file, got a directory, pipe or device")
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise DataError(f"read_npz: {str(path)!r}, byte 0: the file must be a zip file, got: {error}") from error
    with archive:
        members = _members(path, archive, info.st_size)
        total = sum(member.file_size for member in members.values())
        if total > max_bytes:
            limit = f"the arrays must be at most max_bytes={max_bytes}, got {total}"
            raise DataError(f"read_npz: {str(path)!r}, byte 0: {limit}; pass max_bytes={total} to read it")
        arrays = {name: _Member(path, archive, members[name]).read() for name in NAMES}
    for part in ("train", "test"):
        arrays[f"y_{part}"] = _labels(path, arrays[f"x_{part}"], arrays[f"y_{part}"], part)
    return arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"]


def _members(path: Path, archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The four entries, each with a size that the file could really hold."""
    have = archive.namelist()
    members = {}
    for name in NAMES:
        where = f"read_npz: {str(path)!r}, {name}, byte 0"
        if have.count(f"{name}.npy") != 1:
            shown = repr(have[:8])[:200]  # names in a hostile file can be anything
            raise DataError(f"{where}: {name}.npy must be in the file once, got {shown}")
        member = archive.getinfo(f"{name}.npy")
        if member.flag_bits & 1 or member.compress_type not in METHODS:
            problem = "must be stored or deflated and not encrypted"
            raise DataError(f"{where}: the entry {problem}, got method {member.compress_type}")
        packed = min(member.compress_size, size)
        most = packed if member.compress_type == zipfile.ZIP_STORED else packed * MAX_INFLATION
        if member.file_size > most:
            claim = f"{member.file_size} bytes claimed where {packed} packed bytes hold at most {most}"
            raise DataError(f"{where}: the entry must fit the file, got {claim}; truncated or hostile")
        members[name] = member
    return members


class _Member:
    """One array of the zip file."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self.path, self.archive, self.info = path, archive, info
        self.name = info.filename.removesuffix(".npy")

    def fail(self, offset: int, problem: str, cause: BaseException | None = None) -> NoReturn:
        raise DataError(f"read_npz: {str(self.path)!r}, {self.name}, byte {offset}: {problem}") from cause

    def read(self) -> np.ndarray:
        offset = 0
        try:
            with self.archive.open(self.info) as stream:
                shape, fortran, dtype = self._header(stream)
                offset = stream.tell()
                needed = dtype.itemsize * math.prod(shape)
                # A size-0 axis makes the product 0 whatever the others are, so they are held to the entry as well.
                if needed != self.info.file_size - offset or math.prod(n for n in shape if n) > 2**58:
                    have = f"{self.info.file_size - offset} in the zip entry"
                    self.fail(offset, f"the header's shape {shape} of {dtype} needs {needed} bytes, got {have}")
                data = bytearray()
                while len(data) < needed and (piece := stream.read(min(CHUNK, needed - len(data)))):
                    data += piece
                    offset += len(piece)
                if len(data) < needed or stream.read(1):  # reading past the end compares the checksum
                    self.fail(offset, f"the data must be {needed} bytes, got {len(data)} or more follow; damaged")
        except DataError:
            raise
        except DAMAGE as error:
            self.fail(offset, f"the entry must be an intact npy array without Python objects, got: {error}", error)
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        return np.ascontiguousarray(array, dtype.newbyteorder("="))

    def _header(self, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        start = stream.read(len(MAGIC) + 2)
        if start[: len(MAGIC)] != MAGIC or len(start) != len(MAGIC) + 2:
            self.fail(0, f"the entry must be an npy array of version 1.0, got {start[: len(MAGIC)]!r}")
        (length,) = struct.unpack("<H", start[len(MAGIC) :])
        text = stream.read(length)
        match = HEADER.fullmatch(text)
        descr = match[1] if match else b""
        if b"O" in descr:
            self.fail(10, "the array must hold numbers, got Python objects, which only pickle could read; refused")
        if not match or not NUMBERS.fullmatch(descr):
            self.fail(10, f"the header must describe integers or floats, got {text[:80]!r}")
        sizes = [size.rstrip(b"L") for size in match[3].replace(b" ", b"").split(b",") if size]
        if len(sizes) > MAX_AXES or not all(size.isdigit() and len(size) <= MAX_DIGITS for size in sizes):
            self.fail(10, f"the shape must be at most {MAX_AXES} sizes, got {match[3][:80]!r}")
        return tuple(int(size) for size in sizes), match[2] == b"True", np.dtype(descr.decode("ascii"))


def _labels(path: Path, x: np.ndarray, y: np.ndarray, part: str) -> np.ndarray:
    """Labels as int64 (N,), as many as images."""
    where = f"read_npz: {str(path)!r}, y_{part}, byte 0"
    if y.dtype.kind not in "ui" or x.ndim < 2 or y.shape not in ((len(x),), (len(x), 1)):
        got = f"{y.dtype} {y.shape} for images of shape {x.shape}"
        raise DataError(f"{where}: y_{part} must be integers, one for each image, got {got}")
    return y.reshape(-1).astype(np.int64)
