"""A folder of images with one sub-folder for each class."""

from pathlib import Path
from typing import Literal

import numpy as np

from gpunet.data.readers.bounded import MAX_BYTES, AnyPath
from gpunet.data.readers.image import FORMATS, MAX_PIXELS, Size, decode, fail, need_pillow, need_target
from gpunet.errors import DataError

OP = "read_image_folder"
Images = tuple[np.ndarray, np.ndarray, tuple[str, ...]]


def read_image_folder(
    path: AnyPath,
    size: Size = None,
    mode: Literal["L", "RGB"] = "L",
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Images:
    """Images from a folder that holds one sub-folder of images for each class.

    Needs Pillow (``pip install 'gpunet[data]'``). Classes are numbered in the sorted order of their folders' names,
    images follow in the sorted order of their files' names. Hidden files, and files whose suffix is not png, jpg,
    jpeg, bmp, gif, webp, ppm or pgm, are left out. Transparency is dropped, and of an animation the first picture is
    read.

    Args:
        path: the folder.
        size: (H, W) in pixels that every image is resized to (bilinear), or one number for both. None keeps the images
            as they are; then all must have one size.
        mode: "L" for grey, "RGB" for colour.
        max_bytes: largest array of all images, in bytes, that is accepted.
        max_pixels: largest single image before resizing, in pixels, that is decoded.

    Returns:
        ``(x, y, classes)``: x uint8 (N, H, W) for "L" or (N, 3, H, W) for "RGB"; y int64 (N,); classes, their names.

    Raises:
        DataError: no class folder, a class without images, a file that is no intact 8-bit image of its suffix's
            format, images of different sizes, a file over ``max_pixels``, all images over ``max_bytes``; the message
            has the file and the byte at which decoding stopped.
        ArgumentError: ``size`` or ``mode`` is none of the choices.
        BackendUnavailableError: Pillow is not installed.
        FileNotFoundError: there is no such folder.
    """
    target = need_target(OP, size, mode)
    pillow = need_pillow(OP)
    root = Path(path)
    classes, files = _list(root)
    x: np.ndarray | None = None
    y = np.empty(len(files), np.int64)
    for index, (label, file) in enumerate(files):
        image = decode(OP, pillow, file, target, mode, max_pixels)
        if x is None:
            _check_total(root, len(files), image.shape, max_bytes)
            x = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != x.shape[1:]:
            want, got = x.shape[-2:], image.shape[-2:]
            fail(OP, file, 0, f"all images must have one size, {want} like the first, got {got}; pass size=(H, W)")
        x[index], y[index] = image, label
    assert x is not None  # _list returned at least one file
    return x, y, classes


def _list(root: Path) -> tuple[tuple[str, ...], list[tuple[int, Path]]]:
    """Class names, and (label, file) for every image."""
    folders = sorted(item for item in root.iterdir() if item.is_dir() and not item.name.startswith("."))
    if not folders:
        raise DataError(f"{OP}: {str(root)!r} must hold one folder for each class, got none")
    files: list[tuple[int, Path]] = []
    for label, folder in enumerate(folders):
        found = sorted(
            file for file in folder.iterdir() if file.suffix.lower() in FORMATS and not file.name.startswith(".")
        )
        if not found:
            known = ", ".join(FORMATS)
            raise DataError(f"{OP}: {str(folder)!r} must hold images ({known}), got none")
        files += [(label, file) for file in found]
    return tuple(folder.name for folder in folders), files


def _check_total(root: Path, count: int, shape: tuple[int, ...], max_bytes: int) -> None:
    total = count * int(np.prod(shape))
    if total > max_bytes:
        what = f"{count} images of {shape} must need at most max_bytes={max_bytes}, got {total}"
        raise DataError(f"{OP}: {str(root)!r}: {what}; pass a smaller size= or max_bytes={total}")
