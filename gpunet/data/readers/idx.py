"""IDX, the format of MNIST and its relatives."""

import numpy as np

from gpunet.data.readers.bounded import MAX_BYTES, AnyPath, BoundedFile

#: The third byte of the file -> what one element is. Everything in an IDX file is big-endian.
DTYPES = {
    8: np.dtype(">u1"),
    9: np.dtype(">i1"),
    11: np.dtype(">i2"),
    12: np.dtype(">i4"),
    13: np.dtype(">f4"),
    14: np.dtype(">f8"),
}
MAX_AXES = 32


def read_idx(path: AnyPath, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array in an IDX file, plain or gzip.

    The layout is four bytes (0, 0, dtype code, number of axes), then one big-endian 32-bit size an axis, then the
    elements in C order. The sizes are held against the real size of the file before memory is taken for them.

    Args:
        path: the file, such as ``train-images-idx3-ubyte.gz``; gzip is recognised by its content.
        max_bytes: largest array, in bytes, that is accepted.

    Returns:
        Array of the shape in the header, native byte order, C-contiguous and writable. Codes 8, 9, 11, 12, 13, 14 give
        uint8, int8, int16, int32, float32, float64.

    Raises:
        DataError: the file is no IDX file, truncated, followed by other bytes, damaged, or larger than ``max_bytes``;
            the message has the file and the byte offset.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "labels-idx1-ubyte")
        ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     read_idx(file).tolist()
        [7, 2, 1]
    """
    with BoundedFile("read_idx", path) as file:
        dtype, shape = _read_header(file)
        needed = dtype.itemsize
        for size in shape:
            needed *= size
        # NumPy refuses an array with a size-0 axis if its other axes overflow, so those are held to the limit too.
        extent = dtype.itemsize
        for size in shape:
            extent *= max(size, 1)
        what = f"data of shape {shape}, {dtype.itemsize} bytes each,"
        file.need(needed, what, max_bytes, offset=4)
        if extent > max_bytes:
            file.fail(f"sizes must stay under max_bytes={max_bytes}, got shape {shape}", offset=4)
        data = file.take(needed, what)
        file.finish(f"the data of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_header(file: BoundedFile) -> tuple[np.dtype, tuple[int, ...]]:
    magic = file.take(4, "the IDX magic number")
    if magic[0] or magic[1]:
        file.fail(f"an IDX file must start with two zero bytes, got 0x{magic[:2].hex()}; not an IDX file", offset=0)
    code, axes = magic[2], magic[3]
    if code not in DTYPES:
        file.fail(f"the IDX dtype code must be one of {', '.join(map(str, DTYPES))}, got {code}", offset=2)
    if not 1 <= axes <= MAX_AXES:
        file.fail(f"the number of IDX axes must be 1 to {MAX_AXES}, got {axes}", offset=3)
    sizes = file.take(4 * axes, f"the sizes of {axes} axes")
    return DTYPES[code], tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
