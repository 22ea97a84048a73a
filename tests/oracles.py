"""What every entry must give, in plain Python: one number at a time, with ``math`` and exact sums.

These are written from the formulas, not from the kernels, and share no code with them: the NumPy definitions in
float64 are held against them (and their gradients against central differences too). Slow, and meant to be read.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

ORACLES: dict[str, Callable[..., Any]] = {}
Index = tuple[int, ...]


def oracle(entry: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the oracle of ``entry``."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        ORACLES[entry] = function
        return function

    return register


def total(values: Iterable[float]) -> float:
    """The sum, rounded once; with inf and NaN as IEEE adds them."""
    values = list(values)
    try:
        return math.fsum(values)
    except (ValueError, OverflowError):  # inf - inf
        return float(sum(values))


def exp(x: float) -> float:
    """e**x, infinite where it overflows."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def numbers(array: np.ndarray) -> dict[Index, float]:
    """An array as a dictionary from index to number."""
    return {index: array[index].item() for index in np.ndindex(array.shape)}


def filled(shape: Iterable[int], values: dict[Index, Any], dtype: Any = np.float64) -> np.ndarray:
    """The array with ``values`` at their indices and 0 elsewhere."""
    out = np.zeros(tuple(shape), dtype)
    for index, value in values.items():
        out[index] = value
    return out


def gathered(shape: Iterable[int], terms: Iterable[tuple[Index, float]]) -> np.ndarray:
    """The array whose elements are the sums of the terms that name them."""
    lists: dict[Index, list[float]] = defaultdict(list)
    for index, value in terms:
        lists[index].append(value)
    return filled(shape, {index: total(values) for index, values in lists.items()})


def mapped(function: Callable[..., float], *arrays: np.ndarray) -> np.ndarray:
    """``function`` of each element of arrays of one shape."""
    return filled(arrays[0].shape, {k: function(*(a[k].item() for a in arrays)) for k in np.ndindex(arrays[0].shape)})


# ------------------------------------------------------------------------------------------------------ products


@oracle("matmul.forward")
def matmul_forward(a, b, *, transpose_a, transpose_b):
    a = np.moveaxis(a, -1, -2) if transpose_a else a
    b = np.moveaxis(b, -1, -2) if transpose_b else b
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows, columns = a.shape[-2], b.shape[-1]
    a, b = np.broadcast_to(a, (*batch, *a.shape[-2:])), np.broadcast_to(b, (*batch, *b.shape[-2:]))
    y = np.zeros((*batch, rows, columns))
    for k in np.ndindex(*batch):
        left, right = a[k].tolist(), b[k].T.tolist()
        for i, j in itertools.product(range(rows), range(columns)):
            y[(*k, i, j)] = total(p * q for p, q in zip(left[i], right[j], strict=True))
    return y


def _positive(y):
    return filled(y.shape, {k: 0.0 if value <= 0 else value for k, value in numbers(y).items()})


@oracle("matmul.forward_bias")
def matmul_forward_bias(a, b, bias, **flags):
    y = matmul_forward(a, b, **flags)
    return filled(y.shape, {k: value + bias[k[-1]].item() for k, value in numbers(y).items()})


@oracle("matmul.forward_bias_relu")
def matmul_forward_bias_relu(a, b, bias, **flags):
    return _positive(matmul_forward_bias(a, b, bias, **flags))


def conv_products(gy_shape, w_shape, image, geometry):
    """Every product of a convolution, as the indices of its output, its pixel and its weight."""
    stride, padding, dilation, groups = (geometry[k] for k in ("stride", "padding", "dilation", "groups"))
    N, F, OH, OW = gy_shape
    _, CG, KH, KW = w_shape
    for n, f, i, j, c, k, m in itertools.product(*map(range, (N, F, OH, OW, CG, KH, KW))):
        row = i * stride[0] + k * dilation[0] - padding[0]
        column = j * stride[1] + m * dilation[1] - padding[2]
        if 0 <= row < image[0] and 0 <= column < image[1]:
            channel = f // (F // groups) * CG + c
            yield (n, f, i, j), (n, channel, row, column), (f, c, k, m)


@oracle("conv2d.forward")
def conv2d_forward(x, w, b, **geometry):
    top, bottom, left, right = geometry["padding"]
    size = [
        (length + more - d * (k - 1) - 1) // s + 1
        for length, more, k, s, d in zip(
            x.shape[2:],
            (top + bottom, left + right),
            w.shape[2:],
            geometry["stride"],
            geometry["dilation"],
            strict=True,
        )
    ]
    shape = (x.shape[0], w.shape[0], *size)
    xs, ws = numbers(x), numbers(w)
    y = gathered(shape, ((o, xs[p] * ws[q]) for o, p, q in conv_products(shape, w.shape, x.shape[2:], geometry)))
    return y if b is None else y + b[:, None, None]


@oracle("conv2d.forward_relu")
def conv2d_forward_relu(x, w, b, **geometry):
    return _positive(conv2d_forward(x, w, b, **geometry))


@oracle("conv2d.grad_x")
def conv2d_grad_x(gy, w, *, input_size, **geometry):
    gys, ws = numbers(gy), numbers(w)
    shape = (gy.shape[0], w.shape[1] * geometry["groups"], *input_size)
    return gathered(shape, ((p, gys[o] * ws[q]) for o, p, q in conv_products(gy.shape, w.shape, input_size, geometry)))


@oracle("conv2d.grad_w")
def conv2d_grad_w(gy, x, *, kernel_size, **geometry):
    gys, xs = numbers(gy), numbers(x)
    shape = (gy.shape[1], x.shape[1] // geometry["groups"], *kernel_size)
    return gathered(shape, ((q, gys[o] * xs[p]) for o, p, q in conv_products(gy.shape, shape, x.shape[2:], geometry)))


@oracle("conv2d.grad_b")
def conv2d_grad_b(gy):
    return gathered(gy.shape[1:2], (((index[1],), value) for index, value in numbers(gy).items()))


# -------------------------------------------------------------------------------------------------------- pooling


def pool_windows(input_size, output_size, kernel_size, stride, padding, dilation=(1, 1)):
    """For each output (i, j) the list of (position in the window, row, column) inside the image."""
    (H, W), (KH, KW) = input_size, kernel_size
    for i, j in itertools.product(*map(range, output_size)):
        seen = []
        for k, m in itertools.product(range(KH), range(KW)):
            row, column = i * stride[0] + k * dilation[0] - padding[0], j * stride[1] + m * dilation[1] - padding[1]
            if 0 <= row < H and 0 <= column < W:
                seen.append((k * KW + m, row, column))
        yield (i, j), seen


def adaptive_windows(input_size, output_size):
    """For each output the list of (place in the image, row, column)."""
    edges = [
        [(math.floor(i * size / out), math.ceil((i + 1) * size / out)) for i in range(out)]
        for size, out in zip(input_size, output_size, strict=True)
    ]
    for (i, rows), (j, columns) in itertools.product(*map(enumerate, edges)):
        yield (i, j), [(r * input_size[1] + c, r, c) for r in range(*rows) for c in range(*columns)]


def winner(values: list[float]) -> int:
    """Which of the values is the maximum: the first of a tie, or the last NaN."""
    best = 0
    for k, value in enumerate(values):
        if math.isnan(value) or value > values[best]:
            best = k
    return best


def _max_forward(x, output_size, windows, index_dtype):
    shape = (*x.shape[:2], *output_size)
    y, index = {}, {}
    for (i, j), seen in windows:
        for n, c in np.ndindex(*shape[:2]):
            best = seen[winner([x[n, c, row, column].item() for _, row, column in seen])]
            y[n, c, i, j], index[n, c, i, j] = x[n, c, best[1], best[2]], best[0]
    return filled(shape, y), filled(shape, index, index_dtype)


def _max_scatter(gy, index, input_size, windows):
    places = {(i, j): {p: (row, column) for p, row, column in seen} for (i, j), seen in windows}
    terms = (
        ((n, c, *places[i, j][index[n, c, i, j].item()]), gy[n, c, i, j].item()) for n, c, i, j in np.ndindex(gy.shape)
    )
    return gathered((*gy.shape[:2], *input_size), terms)


def _max_gather(x, index, windows):
    places = {(i, j): {p: (row, column) for p, row, column in seen} for (i, j), seen in windows}
    values = {
        (n, c, i, j): x[(n, c, *places[i, j][index[n, c, i, j].item()])] for n, c, i, j in np.ndindex(index.shape)
    }
    return filled(index.shape, values)


@oracle("max_pool2d.forward")
def max_pool2d_forward(x, *, output_size, **windows):
    dtype = np.uint8 if math.prod(windows["kernel_size"]) <= 256 else np.int32
    return _max_forward(x, output_size, pool_windows(x.shape[2:], output_size, **windows), dtype)


@oracle("max_pool2d.grad_x")
def max_pool2d_grad_x(gy, index, *, input_size, **windows):
    return _max_scatter(gy, index, input_size, pool_windows(input_size, gy.shape[2:], **windows))


@oracle("max_pool2d.gather")
def max_pool2d_gather(x, index, **windows):
    return _max_gather(x, index, pool_windows(x.shape[2:], index.shape[2:], **windows))


@oracle("adaptive_max_pool2d.forward")
def adaptive_max_pool2d_forward(x, *, output_size):
    return _max_forward(x, output_size, adaptive_windows(x.shape[2:], output_size), np.int64)


@oracle("adaptive_max_pool2d.grad_x")
def adaptive_max_pool2d_grad_x(gy, index, *, input_size):
    return _max_scatter(gy, index, input_size, adaptive_windows(input_size, gy.shape[2:]))


@oracle("adaptive_max_pool2d.gather")
def adaptive_max_pool2d_gather(x, index):
    return _max_gather(x, index, adaptive_windows(x.shape[2:], index.shape[2:]))


def _divisor(i, j, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """How many elements count in window (i, j): those of the image, and of the padding if that counts too."""
    if divisor_override is not None:
        return divisor_override
    count = 1
    for at, size, k, s, p in zip((i, j), input_size, kernel_size, stride, padding, strict=True):
        low, high = (-p, size + p) if count_include_pad else (0, size)
        count *= sum(low <= at * s - p + step < high for step in range(k))
    return count


@oracle("avg_pool2d.forward")
def avg_pool2d_forward(x, *, output_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    counting = (kernel_size, stride, padding, count_include_pad, divisor_override)
    y = {}
    for (i, j), seen in pool_windows(x.shape[2:], output_size, kernel_size, stride, padding):
        count = _divisor(i, j, x.shape[2:], *counting)
        for n, c in np.ndindex(*x.shape[:2]):
            y[n, c, i, j] = total(x[n, c, row, column].item() for _, row, column in seen) / count
    return filled((*x.shape[:2], *output_size), y)


@oracle("avg_pool2d.grad_x")
def avg_pool2d_grad_x(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    counting = (kernel_size, stride, padding, count_include_pad, divisor_override)
    terms = []
    for (i, j), seen in pool_windows(input_size, gy.shape[2:], kernel_size, stride, padding):
        count = _divisor(i, j, input_size, *counting)
        for n, c in np.ndindex(*gy.shape[:2]):
            terms += [((n, c, row, column), gy[n, c, i, j].item() / count) for _, row, column in seen]
    return gathered((*gy.shape[:2], *input_size), terms)


@oracle("adaptive_avg_pool2d.forward")
def adaptive_avg_pool2d_forward(x, *, output_size):
    y = {}
    for (i, j), seen in adaptive_windows(x.shape[2:], output_size):
        for n, c in np.ndindex(*x.shape[:2]):
            y[n, c, i, j] = total(x[n, c, row, column].item() for _, row, column in seen) / len(seen)
    return filled((*x.shape[:2], *output_size), y)


@oracle("adaptive_avg_pool2d.grad_x")
def adaptive_avg_pool2d_grad_x(gy, *, input_size):
    terms = []
    for (i, j), seen in adaptive_windows(input_size, gy.shape[2:]):
        for n, c in np.ndindex(*gy.shape[:2]):
            terms += [((n, c, row, column), gy[n, c, i, j].item() / len(seen)) for _, row, column in seen]
    return gathered((*gy.shape[:2], *input_size), terms)
