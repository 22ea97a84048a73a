"""Compiled kernels on disk: named by what they were made from, written whole or not at all."""

import getpass
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from gpunet.config import settings


def folder(room: str) -> Path:
    """The folder of one kind of compiled things, made if it is missing.

    It lies in ``GPUNET_CACHE``, else in ``~/.cache/gpunet``, else (nowhere to write) in the system's temporary folder.
    """
    home = Path(settings.cache) if settings.cache else Path.home() / ".cache" / "gpunet"
    path = home / room
    try:
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK):
            return path
    except OSError:
        if settings.cache:
            raise
    path = Path(tempfile.gettempdir()) / f"gpunet-{getpass.getuser()}" / room
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def key(*parts: object) -> str:
    """A name that differs whenever any of ``parts`` does."""
    text = "\0".join(str(each) for each in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def keep(path: Path, make: Callable[[Path], object]) -> Path:
    """``path``, made by ``make(temporary)`` and moved into place if it is not there yet.

    Two processes may make the same file at once: each writes its own temporary file, and a rename is atomic.
    """
    if path.exists():
        return path
    handle, name = tempfile.mkstemp(prefix=".making-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        make(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
