"""CIFAR-10 and CIFAR-100 in their binary version."""

import os
from collections.abc import Iterable

import numpy as np

from gpunet.data.readers.bounded import MAX_BYTES, AnyPath, BoundedFile
from gpunet.errors import ArgumentError

PIXELS = 3 * 32 * 32
#: ``classes=`` -> the label bytes at the start of a record as (what, number of values), and which of them is wanted.
RECORDS = {
    10: ((("label", 10),), 0),
    20: ((("coarse label", 20), ("fine label", 100)), 0),
    100: ((("coarse label", 20), ("fine label", 100)), 1),
}
#: First byte of every pickle since protocol 2. As a label it would be 128, which no record has.
PICKLE = 0x80


def read_cifar_binary(
    paths: AnyPath | Iterable[AnyPath], *, classes: int = 10, max_bytes: int = MAX_BYTES
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from CIFAR's binary files, one after the other.

    Reads the files of ``cifar-10-binary.tar.gz`` and ``cifar-100-binary.tar.gz`` once unpacked, plain or gzip. The
    Python version of the data set holds pickles, which can run any code when opened; it is recognised and refused.

    Args:
        paths: one file such as ``test_batch.bin``, or several in the wanted order.
        classes: 10 for CIFAR-10 (3,073 bytes a record); 100 for CIFAR-100 with fine labels, 20 for CIFAR-100 with
            coarse labels (both 3,074 bytes a record).
        max_bytes: most bytes that the files together may hold.

    Returns:
        ``(x, y)``: x uint8 (N, 3, 32, 32); y int64 (N,).

    Raises:
        DataError: a file that is empty, no whole number of records, a pickle or a tar archive, has a label out of
            range, or exceeds ``max_bytes``; the message has the file and the byte offset.
        ArgumentError: no path, or another number of classes.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "one.bin")
        ...     _ = file.write_bytes(bytes([7]) + bytes(3072))
        ...     x, y = read_cifar_binary(file)
        >>> x.shape, y.tolist()
        ((1, 3, 32, 32), [7])
    """
    if classes not in RECORDS:
        raise ArgumentError(f"read_cifar_binary: classes must be 10, 20 or 100, got {classes!r}")
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise ArgumentError("read_cifar_binary: paths must name at least one file, got none")
    parts, used = [], 0
    for path in several:
        with BoundedFile("read_cifar_binary", path) as file:
            records = _records(file, classes, max_bytes - used)
        parts.append(records)
        used += records.size
    records = parts[0] if len(parts) == 1 else np.concatenate(parts)
    labels, wanted = RECORDS[classes]
    x = np.ascontiguousarray(records[:, len(labels) :]).reshape(-1, 3, 32, 32)
    return x, records[:, wanted].astype(np.int64)


def _records(file: BoundedFile, classes: int, room: int) -> np.ndarray:
    """All records of a file as uint8 (N, record), their labels checked."""
    labels, _ = RECORDS[classes]
    record = len(labels) + PIXELS
    data = file.read(record)
    _check_kind(file, data)
    if file.zipped or file.size <= room:
        data += file.read(room + 1 - len(data))
    if len(data) > room or (file.size > room and not file.zipped):
        file.fail(f"the files must stay under max_bytes, of which {room} bytes are left, got more; pass a larger one")
    if not data or len(data) % record:
        whole = len(data) // record
        problem = f"a file must hold whole records of {record} bytes, got {len(data)} bytes"
        file.fail(f"{problem}; empty, truncated, or not for classes={classes}", whole * record)
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    for place, (what, count) in enumerate(labels):
        wrong = np.flatnonzero(records[:, place] >= count)
        if len(wrong):
            row = int(wrong[0])
            problem = f"a {what} must be 0 to {count - 1}, got {records[row, place]}; is classes={classes} right?"
            file.fail(problem, row * record + place)
    return records


def _check_kind(file: BoundedFile, start: bytearray) -> None:
    """Refuse by name what people download by mistake."""
    if start[257:262] == b"ustar":
        file.fail("the file must be one .bin file, got a tar archive; unpack it first", 0)
    if start[:1] == bytes([PICKLE]):
        refused = "got CIFAR's Python version, a pickle, which can run any code when opened; refused"
        file.fail(f"the file must be CIFAR's binary version, {refused}; use cifar-10-binary or cifar-100-binary", 0)
