"""avg_pool2d on CUDA C++: launchers of avg_pool2d.cu, for a GPU and for sim."""
# op: gpunet/ops/avg_pool2d.py

from gpunet.dispatch import kernel

from ..common.launching import THREADS, contiguous, empty, is_real, kernels
from ..common.shapes import cdiv
from ..max_pool2d.max_pool2d_cupy import ROWS, in_32_bits, in_boxes, plain, wide

BUILDS = {"avg_pool2d": [{}]}


def rows_forward(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """Whether 32-bit indices reach every pixel of a plane."""
    real = is_real(x)
    return in_32_bits(x.shape[2:], output_size, padding) if real is True else real


def rows_grad_x(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """Whether 32-bit indices reach every pixel of a plane."""
    real = is_real(gy)
    return in_32_bits(input_size, gy.shape[2:], padding) if real is True else real


def wide_forward(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """Whether windows are of a common kind and rows whole packs of 16 bytes."""
    return wide(x, x.shape[2:], output_size, kernel_size, stride, padding)


def wide_grad_x(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """Whether windows are of a common kind and rows whole packs of 16 bytes."""
    return wide(gy, input_size, gy.shape[2:], kernel_size, stride, padding)


@kernel("avg_pool2d.forward", backend="cupy", variant="plain", when=plain)
def avg_pool2d_forward_plain(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """One thread an output."""
    x, y = contiguous(x), empty((*x.shape[:2], *output_size), x)
    sizes = (y.size, *x.shape[2:], *output_size, *kernel_size, *stride, *padding)
    arguments = (y, x, *sizes, count_include_pad, float(divisor_override or 0))
    kernels("avg_pool2d", x).avg_pool2d_forward_plain((cdiv(y.size, THREADS),), (THREADS,), arguments)
    return y


@kernel("avg_pool2d.forward", backend="cupy", variant="rows", when=rows_forward)
def avg_pool2d_forward_rows(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """One thread a few outputs of one column."""
    x, y = contiguous(x), empty((*x.shape[:2], *output_size), x)
    planes, (OH, OW) = x.shape[0] * x.shape[1], output_size
    windows = (*kernel_size, *stride, *padding, count_include_pad, float(divisor_override or 0))
    run = kernels("avg_pool2d", x).avg_pool2d_forward_rows
    in_boxes(run, OW, cdiv(OH, ROWS), planes, (y, x), (*x.shape[2:], OH, OW, *windows))
    return y


@kernel("avg_pool2d.forward", backend="cupy", variant="wide", when=wide_forward)
def avg_pool2d_forward_wide(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """One thread two rows of the outputs that begin in the same 16 bytes."""
    x, y = contiguous(x), empty((*x.shape[:2], *output_size), x)
    planes, (OH, OW), S = x.shape[0] * x.shape[1], output_size, stride[0]
    windows = (kernel_size[0], S, count_include_pad, float(divisor_override or 0))
    run = kernels("avg_pool2d", x).avg_pool2d_forward_wide
    across = OW * S * x.dtype.itemsize // 16
    in_boxes(run, across, cdiv(OH, 2), planes, (y, x), (*x.shape[2:], OH, OW, *windows))
    return y


@kernel("avg_pool2d.grad_x", backend="cupy", variant="plain", when=plain)
def avg_pool2d_grad_x_plain(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """One thread a pixel."""
    gy, gx = contiguous(gy), empty((*gy.shape[:2], *input_size), gy)
    sizes = (gx.size, *input_size, *gy.shape[2:], *kernel_size, *stride, *padding)
    arguments = (gx, gy, *sizes, count_include_pad, float(divisor_override or 0))
    kernels("avg_pool2d", gy).avg_pool2d_grad_x_plain((cdiv(gx.size, THREADS),), (THREADS,), arguments)
    return gx


@kernel("avg_pool2d.grad_x", backend="cupy", variant="rows", when=rows_grad_x)
def avg_pool2d_grad_x_rows(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """One thread a few pixels of one column."""
    gy, gx = contiguous(gy), empty((*gy.shape[:2], *input_size), gy)
    planes, (H, W) = gy.shape[0] * gy.shape[1], input_size
    windows = (*kernel_size, *stride, *padding, count_include_pad, float(divisor_override or 0))
    run = kernels("avg_pool2d", gy).avg_pool2d_grad_x_rows
    in_boxes(run, W, cdiv(H + padding[0], ROWS), planes, (gx, gy), (H, W, *gy.shape[2:], *windows))
    return gx


@kernel("avg_pool2d.grad_x", backend="cupy", variant="wide", when=wide_grad_x)
def avg_pool2d_grad_x_wide(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """One thread a tile of pixels, 16 bytes across."""
    gy, gx = contiguous(gy), empty((*gy.shape[:2], *input_size), gy)
    planes, (H, W), S = gy.shape[0] * gy.shape[1], input_size, stride[0]
    windows = (kernel_size[0], S, count_include_pad, float(divisor_override or 0))
    run = kernels("avg_pool2d", gy).avg_pool2d_grad_x_wide
    across = W * gy.dtype.itemsize // 16
    in_boxes(run, across, cdiv(H, 2 * S), planes, (gx, gy), (H, W, *gy.shape[2:], *windows))
    return gx
