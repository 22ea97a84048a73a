"""Convolution and pooling as loops in plain Python, and derivatives by central differences.

For the tests of what the *ops* mean, with the options that users give them: "same", ceil_mode, output_padding. Written
from the definitions; shares no code with the kernels.
"""

import itertools
import math

import numpy as np

import gpunet as gn


def loop_conv(x, w, b, stride, sides, dilation, groups):
    """Convolution as a sum over taps that lie inside the image. ``sides`` is (top, bottom, left, right)."""
    (N, _, H, W), (K, CG, KH, KW) = x.shape, w.shape
    (top, bottom, left, right), (sh, sw), (dh, dw) = sides, stride, dilation
    OH, OW = (H + top + bottom - dh * (KH - 1) - 1) // sh + 1, (W + left + right - dw * (KW - 1) - 1) // sw + 1
    y = np.zeros((N, K, OH, OW))
    for n, f, i, j, c, k, l in itertools.product(*map(range, (N, K, OH, OW, CG, KH, KW))):  # noqa: E741
        iy, ix = i * sh + k * dh - top, j * sw + l * dw - left
        if 0 <= iy < H and 0 <= ix < W:
            y[n, f, i, j] += x[n, f // (K // groups) * CG + c, iy, ix] * w[f, c, k, l]
    return y if b is None else y + b[:, None, None]


def loop_conv_transpose(x, w, b, stride, padding, output_padding, groups, dilation):
    """The filter, times each pixel, laid down at its place in the result."""
    (N, C, H, W), (_, FG, KH, KW) = x.shape, w.shape
    OH, OW = (
        (size - 1) * s - 2 * p + d * (k - 1) + more + 1
        for size, s, p, d, k, more in zip((H, W), stride, padding, dilation, (KH, KW), output_padding)
    )
    y = np.zeros((N, FG * groups, OH, OW))
    for n, c, i, j, f, k, l in itertools.product(*map(range, (N, C, H, W, FG, KH, KW))):  # noqa: E741
        iy = i * stride[0] + k * dilation[0] - padding[0]
        ix = j * stride[1] + l * dilation[1] - padding[1]
        if 0 <= iy < OH and 0 <= ix < OW:
            y[n, c // (C // groups) * FG + f, iy, ix] += x[n, c, i, j] * w[c, f, k, l]
    return y if b is None else y + b[:, None, None]


def starts(size, kernel, stride, padding, dilation, ceil_mode):
    """Where the windows of one axis begin: all that fit and, in ceil mode, one more that begins before the end."""
    last = size + padding - dilation * (kernel - 1) - 1  # the last place where a window fits
    found = [s for s in range(-padding, size + padding, stride) if s <= last]
    if ceil_mode:
        more = found[-1] + stride if found else -padding
        if more - stride < last and more < size:
            found.append(more)
    return found


def windows_of(shape, kernel, stride, padding, dilation, ceil_mode):
    """For each output (i, j): the list of (iy, ix) inside the image, in row order, and the starts."""
    H, W = shape
    for i, top in enumerate(starts(H, kernel[0], stride[0], padding[0], dilation[0], ceil_mode)):
        for j, left in enumerate(starts(W, kernel[1], stride[1], padding[1], dilation[1], ceil_mode)):
            cells = [
                (top + k * dilation[0], left + m * dilation[1]) for k in range(kernel[0]) for m in range(kernel[1])
            ]
            yield (i, j), (top, left), [(iy, ix) for iy, ix in cells if 0 <= iy < H and 0 <= ix < W]


def winner(plane, cells):
    """The rule of maxima: the last NaN, else the first of the largest."""
    nans = [cell for cell in cells if math.isnan(plane[cell])]
    if nans:
        return nans[-1]
    best = cells[0]
    for cell in cells[1:]:
        if plane[cell] > plane[best]:
            best = cell
    return best


def loop_max_pool(x, kernel, stride, padding, dilation, ceil_mode):
    found = list(windows_of(x.shape[2:], kernel, stride, padding, dilation, ceil_mode))
    OH, OW = found[-1][0][0] + 1, found[-1][0][1] + 1
    y, place = np.zeros((*x.shape[:2], OH, OW)), np.zeros((*x.shape[:2], OH, OW), np.int64)
    for n, c in np.ndindex(*x.shape[:2]):
        for at, _, cells in found:
            cell = winner(x[n, c], cells)
            y[n, c][at], place[n, c][at] = x[n, c][cell], cell[0] * x.shape[3] + cell[1]
    return y, place


def loop_avg_pool(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
    H, W = x.shape[2:]
    found = list(windows_of((H, W), kernel, stride, padding, (1, 1), ceil_mode))
    y = np.zeros((*x.shape[:2], found[-1][0][0] + 1, found[-1][0][1] + 1))
    for n, c in np.ndindex(*x.shape[:2]):
        for at, (top, left), cells in found:
            in_padded = sum(iy < H + padding[0] for iy in range(top, top + kernel[0])) * sum(
                ix < W + padding[1] for ix in range(left, left + kernel[1])
            )
            divisor = divisor_override or (in_padded if count_include_pad else len(cells))
            y[n, c][at] = sum(x[n, c][cell] for cell in cells) / divisor
    return y


def shared_out(size, out):
    """The windows of adaptive pooling on one axis, with exact fractions rounded outwards."""
    return [range(math.floor(i * size / out + 1e-9), math.ceil((i + 1) * size / out - 1e-9)) for i in range(out)]


def loop_adaptive(x, size, pick):
    y = np.zeros((*x.shape[:2], *size))
    for n, c in np.ndindex(*x.shape[:2]):
        for (i, rows), (j, cols) in itertools.product(
            enumerate(shared_out(x.shape[2], size[0])), enumerate(shared_out(x.shape[3], size[1]))
        ):
            y[n, c, i, j] = pick(x[n, c], [(iy, ix) for iy in rows for ix in cols])
    return y


def check_derivatives(function, *arrays, step=1e-6):
    """First and second derivatives along random directions against central differences, with a random cotangent."""
    rng = np.random.default_rng(1)
    tensors = [gn.tensor(array, requires_grad=True) for array in arrays]
    y = function(*tensors)
    cotangent = gn.tensor(rng.standard_normal(y.shape), requires_grad=True)
    grads = gn.grad(y, tensors, cotangent, create_graph=True)
    seeds = [rng.standard_normal(grad.shape) for grad in grads]

    def first(*moved):
        return float((function(*map(gn.tensor, moved)) * cotangent.detach()).sum())

    def second(*moved):
        inputs = [gn.tensor(array, requires_grad=True) for array in moved[:-1]]
        found = gn.grad(function(*inputs), inputs, gn.tensor(moved[-1]))
        return sum(float((grad * gn.tensor(seed)).sum()) for grad, seed in zip(found, seeds))

    assert_directions_agree(first, arrays, [grad.detach().numpy() for grad in grads], rng, step)
    total = sum(((grad * gn.tensor(seed)).sum() for grad, seed in zip(grads, seeds)), gn.tensor(0.0, dtype="float64"))
    again = gn.grad(total, [*tensors, cotangent], allow_unused=True)
    points = [*arrays, cotangent.detach().numpy()]
    zeros = [np.zeros(point.shape) if grad is None else grad.numpy() for point, grad in zip(points, again)]
    assert_directions_agree(second, points, zeros, rng, step)


def assert_directions_agree(function, arrays, grads, rng, step):
    for which, grad in enumerate(grads):
        direction = rng.standard_normal(grad.shape)
        ahead, behind = ([*arrays[:which], arrays[which] + s * direction, *arrays[which + 1 :]] for s in (step, -step))
        difference = (function(*ahead) - function(*behind)) / (2 * step)
        np.testing.assert_allclose((grad * direction).sum(), difference, rtol=1e-6, atol=1e-6)
