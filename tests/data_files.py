"""What the tests of gpunet.data share: writing files, and watching them be refused."""

import gzip
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from gpunet.errors import DataError

FUZZ = settings(
    derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(folder: Path, name: str, data: bytes) -> Path:
    file = folder / name
    file.write_bytes(data)
    return file


def refuse(call, *parts: str) -> str:
    """The message of the DataError that `call` must raise; every part must be in it."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert part in message, f"{part!r} is not in: {message}"
    return message


def peak_bytes(call) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def zeros_gz(megabytes: int, head: bytes = b"") -> bytes:
    """A gzip bomb, made piece by piece."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as stream:
        stream.write(head)
        for _ in range(megabytes):
            stream.write(bytes(1 << 20))
    return packed.getvalue()


def outcome(call: Callable[[], Any]) -> tuple[Any, str]:
    """``(result, "")``, or ``(None, message)`` if the call raised DataError."""
    try:
        return call(), ""
    except DataError as error:
        return None, str(error)
