"""Bytes of a file that nobody vouches for: position known, size known before it is believed, memory bounded."""

import gzip
import os
import stat
import zlib
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from gpunet.errors import DataError

#: The most bytes, after decompression, that a reader takes from a file unless its ``max_bytes=`` says otherwise.
MAX_BYTES = 1 << 30
#: Bytes asked for at a time, so that memory grows with what really arrives and never with what a header claims.
CHUNK = 1 << 18
#: Deflate spends at least one bit on 129 bytes (258 bytes from a length code and a distance code of one bit each), so
#: no gzip or zip member of S bytes holds more than this many times S.
MAX_INFLATION = 1032

GZIP_MAGIC = b"\x1f\x8b"

AnyPath = str | os.PathLike[str]


class BoundedFile:
    """A regular file, plain or gzip, read front to back, that knows where it is.

    gzip is recognised by its first two bytes, not by the file's name. Use it in a ``with`` statement.

    Args:
        op: name of the public reader, the first word of every error.
        path: the file.

    Attributes:
        size: bytes on disk.
        zipped: True for gzip.
        offset: bytes handed out so far; for gzip they are counted after decompression.
    """

    def __init__(self, op: str, path: AnyPath) -> None:
        self.op = op
        self.path = Path(path)
        info = self.path.stat()
        if not stat.S_ISREG(info.st_mode):
            # A pipe would block and a device such as /dev/zero never ends.
            raise DataError(f"{op}: {str(self.path)!r} must be a regular file, got a directory, pipe or device")
        self.size = info.st_size
        self.offset = 0
        self._raw = self.path.open("rb")
        self.zipped = self._raw.read(2) == GZIP_MAGIC
        self._raw.seek(0)
        self._stream = gzip.GzipFile(fileobj=self._raw, mode="rb") if self.zipped else self._raw

    def __enter__(self) -> "BoundedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._raw.close()

    @property
    def most(self) -> int:
        """No more bytes than this can come out of the file, whatever its header says."""
        return self.size * MAX_INFLATION if self.zipped else self.size

    def fail(self, problem: str, offset: int | None = None, cause: BaseException | None = None) -> NoReturn:
        """Raise DataError with the reader, the file, the byte offset (here if None) and the problem."""
        where = f"byte {self.offset if offset is None else offset}"
        if self.zipped:
            where += " of the decompressed data"
        raise DataError(f"{self.op}: {str(self.path)!r}, {where}: {problem}") from cause

    def read(self, count: int) -> bytearray:
        """The next `count` bytes, fewer only at the end of the file."""
        data = bytearray()
        while len(data) < count:
            try:
                piece = self._stream.read(min(CHUNK, count - len(data)))
            except EOFError as error:
                self.fail("the gzip stream must end with its checksum, got the end of the file; truncated", None, error)
            except (gzip.BadGzipFile, zlib.error) as error:
                self.fail(f"the gzip stream must be intact, got: {error}; damaged?", None, error)
            if not piece:
                break
            data += piece
            self.offset += len(piece)
        return data

    def take(self, count: int, what: str) -> bytearray:
        """Exactly the next `count` bytes, or DataError that names `what` is missing."""
        start = self.offset
        data = self.read(count)
        if len(data) < count:
            self.fail(f"{what} must be {count} bytes from byte {start} on, got {len(data)}; the file is truncated")
        return data

    def finish(self, what: str) -> None:
        """DataError if anything follows; for gzip this also makes the checksum be compared."""
        end = self.offset
        if self.read(1):
            self.fail(f"the file must end after {what}, got trailing bytes; not the format it claims, or damaged", end)

    def need(self, count: int, what: str, max_bytes: int, offset: int) -> None:
        """Refuse a claimed size that the file cannot hold or that is over the caller's limit, before any allocation."""
        if count > self.most - self.offset:
            have = f"{self.size - self.offset} bytes"
            if self.zipped:
                have = f"a gzip file of {self.size} bytes, which cannot hold more than {self.most}"
            self.fail(f"{what} must be {count} bytes, got {have}; the file is truncated or hostile", offset)
        if count > max_bytes:
            limit = f"must be at most max_bytes={max_bytes} bytes, got {count}"
            self.fail(f"{what} {limit}; pass max_bytes={count} to read it", offset)
