"""A folder of images with one sub-folder for each class."""

import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from gpunet.data.readers.bounded import MAX_BYTES, AnyPath
from gpunet.errors import ArgumentError, BackendUnavailableError, DataError

if TYPE_CHECKING:
    from PIL import Image

#: Suffix -> the one decoder that may open such a file. Pillow knows more formats; some of them start other programs.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
#: Pixels in one image file before it counts as a decompression bomb. Over about 179 million Pillow itself refuses.
MAX_PIXELS = 1 << 26
#: Pillow modes of eight bits a channel. The others (16 bits, floats) would be clipped by the conversion without a word.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

Images = tuple[np.ndarray, np.ndarray, tuple[str, ...]]


def read_image_folder(
    path: AnyPath,
    size: int | tuple[int, int] | None = None,
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
    if mode not in ("L", "RGB"):
        raise ArgumentError(f"read_image_folder: mode must be 'L' or 'RGB', got {mode!r}")
    target = (size, size) if isinstance(size, int) else size
    if target is not None and (len(target) != 2 or min(target) < 1):
        raise ArgumentError(f"read_image_folder: size must be positive, one number or (H, W), got {size!r}")
    pillow = _pillow()
    root = Path(path)
    classes, files = _list(root)
    x: np.ndarray | None = None
    y = np.empty(len(files), np.int64)
    for index, (label, file) in enumerate(files):
        image = _decode(pillow, file, target, mode, max_pixels)
        if x is None:
            _check_total(root, len(files), image.shape, max_bytes)
            x = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != x.shape[1:]:
            want, got = x.shape[-2:], image.shape[-2:]
            _fail(file, 0, f"all images must have one size, {want} like the first, got {got}; pass size=(H, W)")
        x[index], y[index] = image, label
    assert x is not None  # _list returned at least one file
    return x, y, classes


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        remedy = "pip install 'gpunet[data]'"
        raise BackendUnavailableError(f"read_image_folder: Pillow must be installed, got: {error}; {remedy}") from error
    return Image


def _fail(file: Path, offset: int, problem: str, cause: BaseException | None = None) -> NoReturn:
    raise DataError(f"read_image_folder: {str(file)!r}, byte {offset}: {problem}") from cause


def _list(root: Path) -> tuple[tuple[str, ...], list[tuple[int, Path]]]:
    """Class names, and (label, file) for every image."""
    folders = sorted(item for item in root.iterdir() if item.is_dir() and not item.name.startswith("."))
    if not folders:
        raise DataError(f"read_image_folder: {str(root)!r} must hold one folder for each class, got none")
    files: list[tuple[int, Path]] = []
    for label, folder in enumerate(folders):
        found = sorted(
            file for file in folder.iterdir() if file.suffix.lower() in FORMATS and not file.name.startswith(".")
        )
        if not found:
            known = ", ".join(FORMATS)
            raise DataError(f"read_image_folder: {str(folder)!r} must hold images ({known}), got none")
        files += [(label, file) for file in found]
    return tuple(folder.name for folder in folders), files


def _check_total(root: Path, count: int, shape: tuple[int, ...], max_bytes: int) -> None:
    total = count * int(np.prod(shape))
    if total > max_bytes:
        what = f"{count} images of {shape} must need at most max_bytes={max_bytes}, got {total}"
        raise DataError(f"read_image_folder: {str(root)!r}: {what}; pass a smaller size= or max_bytes={total}")


def _decode(pillow: Any, file: Path, target: tuple[int, int] | None, mode: str, max_pixels: int) -> np.ndarray:
    """One image as uint8 (H, W) or (3, H, W). The header's size is checked before a pixel is decoded."""
    if not stat.S_ISREG(file.stat().st_mode):
        _fail(file, 0, "an image must be a regular file, got a directory, pipe or device")
    with file.open("rb") as stream, warnings.catch_warnings():
        # Pillow warns of large images, which max_pixels decides, and of transparency, which is dropped anyway.
        warnings.simplefilter("ignore")
        try:
            with pillow.open(stream, formats=(FORMATS[file.suffix.lower()],)) as image:
                return _convert(image, file, target, mode, max_pixels)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # each decoder has its own ways to fail: OSError, SyntaxError, struct.error, ...
            problem = f"the file must be an intact {FORMATS[file.suffix.lower()]} image, got {type(error).__name__}"
            _fail(file, stream.tell(), f"{problem}: {error}; truncated, damaged or a decompression bomb?", error)


def _convert(
    image: "Image.Image", file: Path, target: tuple[int, int] | None, mode: str, max_pixels: int
) -> np.ndarray:
    width, height = image.size
    if width * height > max_pixels:
        remedy = f"a decompression bomb? pass max_pixels={width * height} to read it"
        _fail(file, 0, f"an image must be at most max_pixels={max_pixels}, got {width} x {height}; {remedy}")
    if image.mode not in MODES:
        _fail(file, 0, f"an image must have 8 bits a channel, got Pillow mode {image.mode!r}; convert it first")
    picture = image.convert(mode)
    if target is not None and picture.size != (target[1], target[0]):
        picture = picture.resize((target[1], target[0]), resample=2)  # 2 is bilinear
    pixels = np.asarray(picture, np.uint8)
    return pixels if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
