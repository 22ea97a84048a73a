"""adaptive_avg_pool2d on CUDA C++: launchers of adaptive_avg_pool2d.cu, for a GPU and for sim."""
# op: gpunet/ops/adaptive_avg_pool2d.py

from math import prod

from gpunet.dispatch import kernel

from ..common.launching import THREADS, contiguous, empty, is_real, kernels
from ..common.shapes import cdiv

BUILDS = {"adaptive_avg_pool2d": [{}]}


def plain(*arrays, **sizes):
    """Whether the arrays are all float32, or all float64."""
    return is_real(*arrays)


def in_32_bits(like, input_size, output_size):
    """Whether arrays have fewer than 2**31 elements, and the products that share an axis out fit as well."""
    real = is_real(like)
    if real is not True:
        return real
    planes = max(1, like.shape[0] * like.shape[1])
    most = planes * max(prod(input_size), prod(output_size)) + 8 * THREADS  # threads look that far beyond
    shared = max((size + 1) * (out + 1) for size, out in zip(input_size, output_size, strict=True))
    return max(most, shared) < 2**31 or "it takes arrays of fewer than 2**31 elements, and axes as small"


def lanes_for(input_size, output_size):
    """Threads for one window, by its size: 8 for 7 x 7 pixels, a warp or a block for more."""
    area = cdiv(input_size[0], output_size[0]) * cdiv(input_size[1], output_size[1])
    return 8 if area <= 64 else 32 if area <= 1024 else THREADS


def lanes_forward(x, *, output_size):
    """Whether 32-bit indices reach everything."""
    return in_32_bits(x, x.shape[2:], output_size)


def lanes_pay(x, *, output_size):
    """Whether the rows of a window, or all of it where it is as wide as the image, give its threads work."""
    (H, W), (OH, OW) = x.shape[2:], output_size
    run = H * W // OH if OW == 1 else W // OW
    return 2 * run >= lanes_for((H, W), output_size) or "it pays with windows at least half as wide as its threads"


def packs_grad_x(gy, *, input_size):
    """Whether 32-bit indices reach everything."""
    return in_32_bits(gy, input_size, gy.shape[2:])


@kernel("adaptive_avg_pool2d.forward", backend="cupy", variant="plain", when=plain)
def adaptive_avg_pool2d_forward_plain(x, *, output_size):
    """One thread an output."""
    x, y = contiguous(x), empty((*x.shape[:2], *output_size), x)
    run = kernels("adaptive_avg_pool2d", x).adaptive_avg_pool2d_forward_plain
    run((cdiv(y.size, THREADS),), (THREADS,), (y, x, y.size, *x.shape[2:], *output_size))
    return y


@kernel("adaptive_avg_pool2d.forward", backend="cupy", variant="lanes", when=lanes_forward, pays=lanes_pay)
def adaptive_avg_pool2d_forward_lanes(x, *, output_size):
    """A group of lanes, or a block, one output."""
    x, y = contiguous(x), empty((*x.shape[:2], *output_size), x)
    lanes = lanes_for(x.shape[2:], output_size)
    run = kernels("adaptive_avg_pool2d", x).adaptive_avg_pool2d_forward_lanes
    run((cdiv(y.size, THREADS // lanes),), (THREADS,), (y, x, y.size, *x.shape[2:], *output_size, lanes))
    return y


@kernel("adaptive_avg_pool2d.grad_x", backend="cupy", variant="plain", when=plain)
def adaptive_avg_pool2d_grad_x_plain(gy, *, input_size):
    """One thread a pixel."""
    gy, gx = contiguous(gy), empty((*gy.shape[:2], *input_size), gy)
    run = kernels("adaptive_avg_pool2d", gy).adaptive_avg_pool2d_grad_x_plain
    run((cdiv(gx.size, THREADS),), (THREADS,), (gx, gy, gx.size, *input_size, *gy.shape[2:]))
    return gx


@kernel("adaptive_avg_pool2d.grad_x", backend="cupy", variant="packs", when=packs_grad_x)
def adaptive_avg_pool2d_grad_x_packs(gy, *, input_size):
    """One thread 16 bytes of the gradient."""
    gy, gx = contiguous(gy), empty((*gy.shape[:2], *input_size), gy)
    run = kernels("adaptive_avg_pool2d", gy).adaptive_avg_pool2d_grad_x_packs
    run((cdiv(cdiv(gx.nbytes, 16), THREADS),), (THREADS,), (gx, gy, gx.size, *input_size, *gy.shape[2:]))
    return gx
