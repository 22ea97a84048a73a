"""Bilinear resampling of a batch of images, each by its own affine map, in one pass."""

import numpy as np

#: What an image is taken to be outside its edges, for the row a b c d
FILLS = {"nearest": "a a | a b c d | d d", "constant": "v v | a b c d | v v", "reflect": "b a | a b c d | d c"}

#: Pixels resampled at a time: the temporary arrays then fit the cache of one core.
BLOCK = 1 << 13


def resample(x: np.ndarray, inverse: np.ndarray, fill: str = "nearest", value: float = 0.0) -> np.ndarray:
    """Every output pixel is read, between its four neighbours, where ``inverse`` says that it came from.

    Positions are (column, row) in pixels, measured from the middle of the image, which is the middle of a pixel only
    where the size is odd. So a turn by 180 degrees maps the pixels onto each other, whatever the size.

    Args:
        x: images (N, C, H, W), floating.
        inverse: maps (N, 3, 3) that send an output position (column, row, 1) to the position it is read from.
        fill: one of ``FILLS``.
        value: the pixel outside for "constant".

    Returns:
        Images (N, C, H, W) in x's dtype. Positions and weights have that precision, float32 at least.
    """
    work = np.result_type(x.dtype, np.float32)
    count, _, height, width = x.shape
    out = np.empty(x.shape, work)
    images = max(1, BLOCK // max(1, height * width))
    for start in range(0, count if x.size else 0, images):
        part = slice(start, start + images)
        _resample_block(x[part].astype(work, copy=False), inverse[part].astype(work), fill, value, out[part])
    return out.astype(x.dtype, copy=False)


def _resample_block(x: np.ndarray, inverse: np.ndarray, fill: str, value: float, out: np.ndarray) -> None:
    count, channels, height, width = x.shape
    columns, rows = _positions(inverse, height, width)
    left, right, across = _neighbours(columns, width, fill)
    top, bottom, down = _neighbours(rows, height, fill)
    if fill == "constant":  # a frame of one pixel stands for everything outside
        framed = np.full((count, channels, height + 2, width + 2), value, x.dtype)
        framed[:, :, 1:-1, 1:-1] = x
        x = framed
    stride = x.shape[3]
    flat = np.ascontiguousarray(x).reshape(-1)
    size = x.shape[2] * stride
    images = np.arange(count).reshape(-1, 1, 1) * (channels * size)
    top, bottom = top * stride + images, bottom * stride + images
    corners = top + left, top + right, bottom + left, bottom + right
    for channel in range(channels):
        plane = flat[channel * size :]
        a, b, c, d = (plane.take(corner) for corner in corners)
        upper, lower = _between(a, b, across), _between(c, d, across)
        out[:, channel] = _between(upper, lower, down)


def _positions(inverse: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and row, counted from 0, that each output pixel is read from: two arrays (N, H, W)."""
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x = (np.arange(width) - middle_x).astype(inverse.dtype)
    y = (np.arange(height) - middle_y).astype(inverse.dtype)[:, None]
    m = inverse[:, :, :, None, None]  # each entry as (N, 1, 1), to stand beside rows and columns
    columns = m[:, 0, 0] * x + (m[:, 0, 1] * y + (m[:, 0, 2] + inverse.dtype.type(middle_x)))
    rows = m[:, 1, 0] * x + (m[:, 1, 1] * y + (m[:, 1, 2] + inverse.dtype.type(middle_y)))
    return columns, rows


def _neighbours(position: np.ndarray, size: int, fill: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels before and after each position along one axis, and how far it is from the first to the second.

    With "constant" pixels are numbered in the framed image. ``position`` is overwritten.
    """
    last = size - 1
    if fill == "constant":
        position += 1
        last = size + 1
    elif fill == "reflect":  # mirrors stand on the outer edges of the first and the last pixel
        position += 0.5
        np.mod(position, 2 * size, out=position)
        np.minimum(position, 2 * size - position, out=position)
        position -= 0.5
    np.clip(position, 0, last, out=position)
    before = position.astype(np.intp)  # rounds down, for nothing is negative here
    position -= before
    return before, np.minimum(before + 1, last), position


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """From ``first`` (share 0, then exactly) to ``second`` (share 1). Overwrites ``second``."""
    second -= first
    second *= share
    second += first
    return second
