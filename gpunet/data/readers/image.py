"""One image file, decoded by the one decoder of its suffix."""

import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from gpunet.data.readers.bounded import AnyPath
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

Size = int | tuple[int, int] | None


def read_image(
    path: AnyPath, size: Size = None, mode: Literal["L", "RGB"] = "L", *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """The image in a file, grey or in colour.

    Needs Pillow (``pip install 'gpunet[data]'``). Transparency is dropped, and of an animation the first picture is
    read.

    Args:
        path: a file whose suffix is png, jpg, jpeg, bmp, gif, webp, ppm or pgm.
        size: (H, W) in pixels that it is resized to (bilinear), or one number for both. None keeps it as it is.
        mode: "L" for grey, "RGB" for colour.
        max_pixels: largest image before resizing, in pixels, that is decoded.

    Returns:
        uint8 (H, W) for "L" or (3, H, W) for "RGB".

    Raises:
        DataError: another suffix, a file that is no intact 8-bit image of its suffix's format, or one over
            ``max_pixels``; the message has the file and the byte at which decoding stopped.
        ArgumentError: ``size`` or ``mode`` is none of the choices.
        BackendUnavailableError: Pillow is not installed.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "tiny.pgm")
        ...     _ = file.write_bytes(b"P5 2 1 255 " + bytes([0, 255]))
        ...     read_image(file).tolist()
        [[0, 255]]
    """
    op, file = "read_image", Path(path)
    target = need_target(op, size, mode)
    if file.suffix.lower() not in FORMATS:
        raise DataError(f"{op}: {str(file)!r}: the suffix must be one of {', '.join(FORMATS)}, got {file.suffix!r}")
    return decode(op, need_pillow(op), file, target, mode, max_pixels)


def need_target(op: str, size: Size, mode: str) -> tuple[int, int] | None:
    """``size`` as a pair, when it and ``mode`` are among the choices."""
    if mode not in ("L", "RGB"):
        raise ArgumentError(f"{op}: mode must be 'L' or 'RGB', got {mode!r}")
    target = (size, size) if isinstance(size, int) else size
    if target is not None and (len(target) != 2 or min(target) < 1):
        raise ArgumentError(f"{op}: size must be positive, one number or (H, W), got {size!r}")
    return target


def need_pillow(op: str) -> Any:
    """Pillow's module Image."""
    try:
        from PIL import Image
    except ImportError as error:
        remedy = "pip install 'gpunet[data]'"
        raise BackendUnavailableError(f"{op}: Pillow must be installed, got: {error}; {remedy}") from error
    return Image


def fail(op: str, file: Path, offset: int, problem: str, cause: BaseException | None = None) -> NoReturn:
    """Raises DataError with the file and the byte."""
    raise DataError(f"{op}: {str(file)!r}, byte {offset}: {problem}") from cause


def decode(op: str, pillow: Any, file: Path, target: tuple[int, int] | None, mode: str, max_pixels: int) -> np.ndarray:
    """One image as uint8 (H, W) or (3, H, W). The header's size is checked before a pixel is decoded."""
    if not stat.S_ISREG(file.stat().st_mode):
        fail(op, file, 0, "an image must be a regular file, got a directory, pipe or device")
    with file.open("rb") as stream, warnings.catch_warnings():
        # Pillow warns of large images, which max_pixels decides, and of transparency, which is dropped anyway.
        warnings.simplefilter("ignore")
        try:
            with pillow.open(stream, formats=(FORMATS[file.suffix.lower()],)) as image:
                return _convert(op, image, file, target, mode, max_pixels)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # each decoder has its own ways to fail: OSError, SyntaxError, struct.error, ...
            problem = f"the file must be an intact {FORMATS[file.suffix.lower()]} image, got {type(error).__name__}"
            fail(op, file, stream.tell(), f"{problem}: {error}; truncated, damaged or a decompression bomb?", error)


def _convert(
    op: str, image: "Image.Image", file: Path, target: tuple[int, int] | None, mode: str, max_pixels: int
) -> np.ndarray:
    width, height = image.size
    if width * height > max_pixels:
        remedy = f"a decompression bomb? pass max_pixels={width * height} to read it"
        fail(op, file, 0, f"an image must be at most max_pixels={max_pixels}, got {width} x {height}; {remedy}")
    if image.mode not in MODES:
        fail(op, file, 0, f"an image must have 8 bits a channel, got Pillow mode {image.mode!r}; convert it first")
    picture = image.convert(mode)
    if target is not None and picture.size != (target[1], target[0]):
        picture = picture.resize((target[1], target[0]), resample=2)  # 2 is bilinear
    pixels = np.asarray(picture, np.uint8)
    return pixels if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
