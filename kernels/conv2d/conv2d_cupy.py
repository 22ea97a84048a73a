"""conv2d on CUDA C++: launchers of conv2d.cu, for a GPU and for sim; those of the higher rungs stand beside."""
# op: gpunet/ops/conv2d.py

from functools import lru_cache
from typing import Any, NamedTuple

from gpunet import cuda
from gpunet.dispatch import kernel

from ..common.launching import THREADS, contiguous, empty, is_real, kernels
from ..common.shapes import cdiv, conv_out_size
from ..matmul import matmul_cupy
from . import implicit_gemm_cupy
from .implicit_gemm_cupy import add_parts, lanes

MOST = 2**31 - 2**16  # elements that 32-bit indices reach, with room for the block in which they end
MOST_Y = 65535  # the grid's second axis ends there; the kernels walk on
LEAST = 16 * THREADS  # elements of gy in one part of grad_b's sum: 16 a thread
SCRATCH = 256 * 2**20  # bytes that columns may take, if one image's columns are not more

# The patch of `shared`: 8 filters a thread and as many pixels as 16 bytes have elements.
FILTERS = 8
STATIC = 48 * 2**10  # bytes of shared memory that every GPU has for a block
PATCH = 32 * 2**10  # as many are taken where less than all channels go into them


def small_planes(real, *planes):
    """Whether the arrays are float32 or float64, and 32 bits count the pixels of a plane."""
    if real is not True:
        return real
    return max(rows * cols for rows, cols in planes) < MOST or f"it takes planes of fewer than {MOST} pixels"


def fits_forward(x, w, b, *, stride, padding, dilation, groups):
    """``when`` of forward and forward_relu for the lowest rung."""
    return small_planes(is_real(x, w, b), x.shape[2:], output_size(x, w, stride, padding, dilation))


def fits_grad_x(gy, w, *, input_size, stride, padding, dilation, groups):
    """``when`` of grad_x for the lowest rung."""
    return small_planes(is_real(gy, w), gy.shape[2:], input_size)


def fits_grad_w(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """``when`` of grad_w for the lowest rung."""
    return small_planes(is_real(gy, x), gy.shape[2:], x.shape[2:])


def output_size(x, w, stride, padding, dilation):
    """(OH, OW) of forward."""
    return conv_out_size(x.shape[2:], w.shape[2:], stride, padding, dilation)


# -- direct ------------------------------------------------------------------------------------------------------------


@kernel("conv2d.forward", backend="cupy", variant="direct", when=fits_forward)
def conv2d_forward_direct(x, w, b, *, stride, padding, dilation, groups):
    """One thread an output."""
    return _forward_direct(x, w, b, stride, padding, dilation, groups, relu=0)


@kernel("conv2d.forward_relu", backend="cupy", variant="direct", when=fits_forward)
def conv2d_forward_relu_direct(x, w, b, *, stride, padding, dilation, groups):
    """As forward; the positive part is taken before y is written."""
    return _forward_direct(x, w, b, stride, padding, dilation, groups, relu=1)


def _forward_direct(x, w, b, stride, padding, dilation, groups, relu):
    x, w, b = contiguous(x), contiguous(w), None if b is None else contiguous(b)
    OH, OW = output_size(x, w, stride, padding, dilation)
    y = empty((x.shape[0], w.shape[0], OH, OW), x)
    sizes = groups, w.shape[1], w.shape[0] // groups, *x.shape[2:], OH, OW, *w.shape[2:]
    windows = *stride, *dilation, padding[0], padding[2]
    arguments = (y, x, w, b, y.size, *sizes, *windows, relu)
    kernels("conv2d", x).conv2d_forward_direct((cdiv(y.size, THREADS),), (THREADS,), arguments)
    return y


@kernel("conv2d.grad_x", backend="cupy", variant="direct", when=fits_grad_x)
def conv2d_grad_x_direct(gy, w, *, input_size, stride, padding, dilation, groups):
    """One thread a pixel, which gathers."""
    gy, w = contiguous(gy), contiguous(w)
    gx = empty((gy.shape[0], w.shape[1] * groups, *input_size), gy)
    sizes = groups, w.shape[1], w.shape[0] // groups, *input_size, *gy.shape[2:], *w.shape[2:]
    arguments = (gx, gy, w, gx.size, *sizes, *stride, *dilation, padding[0], padding[2])
    kernels("conv2d", gy).conv2d_grad_x_direct((cdiv(gx.size, THREADS),), (THREADS,), arguments)
    return gx


@kernel("conv2d.grad_w", backend="cupy", variant="direct", when=fits_grad_w)
def conv2d_grad_w_direct(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """One block a weight."""
    gy, x = contiguous(gy), contiguous(x)
    (N, F, OH, OW), CG = gy.shape, x.shape[1] // groups
    gw = empty((F, CG, *kernel_size), x)
    sizes = N, groups, CG, F // groups, *x.shape[2:], OH, OW, *kernel_size
    arguments = (gw, gy, x, *sizes, *stride, *dilation, padding[0], padding[2])
    kernels("conv2d", x).conv2d_grad_w_direct((gw.size,), (THREADS,), arguments)
    return gw


@kernel("conv2d.grad_b", backend="cupy", variant="direct", when=is_real)
def conv2d_grad_b_direct(gy):
    """Some blocks a filter, of which each sums over some of the images."""
    gy = contiguous(gy)
    N, F, OH, OW = gy.shape
    gb = empty((F,), gy)
    # With all filters no more parts than keep a device busy.
    parts = max(1, min(N, N * OH * OW // LEAST, cdiv(8 * cuda.multiprocessors(gy), max(F, 1)), MOST_Y))
    to = gb if parts == 1 else empty((parts, F), gy)
    packs = OH * OW % lanes(gy) == 0 and cuda.address(gy) % 16 == 0
    kernels("conv2d", gy).conv2d_grad_b_direct((F, parts), (THREADS,), (to, gy, N, F, OH * OW, packs))
    if parts > 1:
        add_parts(gb, to, parts)
    return gb


# -- shared ------------------------------------------------------------------------------------------------------------


class Patch(NamedTuple):
    """What a block of `shared` computes: down x across outputs of some filters."""

    down: int
    across: int
    threads: int
    """Along the pixels."""
    chunks: int
    """Of FILTERS filters."""
    depth: int
    """Channels at a time."""
    shared: int
    """Bytes of shared memory."""


@lru_cache(1024)
def patch_for(channels, filters, output, window, stride, dilation, itemsize):
    """The patch for a layer; None where not even one channel of the smallest one goes into shared memory."""
    (OH, OW), (KH, KW), (sh, sw), (dh, dw), pixels = output, window, stride, dilation, 16 // itemsize
    chunks = cdiv(filters, FILTERS)
    chunks = cdiv(chunks, cdiv(chunks, 8))
    while chunks:
        wanted = cdiv(OH * OW, pixels)  # threads that would take a whole plane
        threads = max(32, min(128, 256 // chunks, 1 << (wanted - 1).bit_length()) // 32 * 32)
        while threads >= 32:
            across = cdiv(OW, cdiv(OW, 32))
            down = min(OH, threads * pixels // across)
            down = cdiv(OH, cdiv(OH, down))
            cols = (across - 1) * sw + (KW - 1) * dw + 1
            patch = ((down - 1) * sh + (KH - 1) * dh + 1) * cdiv(cols, sw) * sw
            of_channel = (patch + KH * KW * (FILTERS * chunks + pixels)) * itemsize
            begins = 4 * KH * KW
            if of_channel + begins <= STATIC:
                depth = max(1, min(channels, (PATCH - begins) // of_channel))
                depth = cdiv(channels, cdiv(channels, depth))
                return Patch(down, across, threads, chunks, depth, depth * of_channel + begins)
            threads -= 32
        chunks //= 2
    return None


def patch_fits(real, groups, source, result, w_shape, stride, dilation, itemsize):
    """Whether a patch goes into shared memory, and all indices of an image into 32 bits."""
    if real is not True:
        return real
    small = max(source[0] * source[1] * source[2], result[0] * result[1] * result[2]) < MOST
    if not small or w_shape[0] * w_shape[1] * w_shape[2] * w_shape[3] >= MOST:
        return f"it takes images and weights of fewer than {MOST} elements"
    sizes = source[0] // groups, result[0] // groups, tuple(result[1:]), tuple(w_shape[2:])
    patch = patch_for(*sizes, tuple(stride), tuple(dilation), itemsize)
    return patch is not None or "it takes windows of which one channel goes into 48 KB of shared memory"


def shared_forward(x, w, b, *, stride, padding, dilation, groups):
    """``when`` of forward and forward_relu."""
    result = w.shape[0], *output_size(x, w, stride, padding, dilation)
    return patch_fits(is_real(x, w, b), groups, x.shape[1:], result, w.shape, stride, dilation, x.itemsize)


def shared_grad_x(gy, w, *, input_size, stride, padding, dilation, groups):
    """``when`` of grad_x: with stride 1 it is a convolution of gy."""
    if tuple(stride) != (1, 1):
        return f"it takes stride 1, got {tuple(stride)}"
    result = w.shape[1] * groups, *input_size
    return patch_fits(is_real(gy, w), groups, gy.shape[1:], result, w.shape, stride, dilation, gy.itemsize)


def shared_pays_forward(x, w, b, *, stride, padding, dilation, groups):
    """At least 4 filters a group, of the 8 that a thread takes."""
    return w.shape[0] // groups >= 4


def shared_pays_grad_x(gy, w, *, input_size, stride, padding, dilation, groups):
    """At least 4 channels a group, of the 8 that a thread takes."""
    return w.shape[1] >= 4


@kernel("conv2d.forward", backend="cupy", variant="shared", when=shared_forward, pays=shared_pays_forward)
def conv2d_forward_shared(x, w, b, *, stride, padding, dilation, groups):
    """A block keeps a patch of x and the weights for it in shared memory."""
    return _forward_shared(x, w, b, stride, padding, dilation, groups, relu=0)


@kernel("conv2d.forward_relu", backend="cupy", variant="shared", when=shared_forward, pays=shared_pays_forward)
def conv2d_forward_relu_shared(x, w, b, *, stride, padding, dilation, groups):
    """As forward; the positive part is taken before y is written."""
    return _forward_shared(x, w, b, stride, padding, dilation, groups, relu=1)


@kernel("conv2d.grad_x", backend="cupy", variant="shared", when=shared_grad_x, pays=shared_pays_grad_x)
def conv2d_grad_x_shared(gy, w, *, input_size, stride, padding, dilation, groups):
    """As forward: the convolution of gy with turned windows, filters and channels exchanged."""
    gx = empty((gy.shape[0], w.shape[1] * groups, *input_size), gy)
    _, CG, KH, KW = w.shape
    corner = dilation[0] * (KH - 1) - padding[0], dilation[1] * (KW - 1) - padding[2]
    steps = KH * KW - 1, KH * KW, CG * KH * KW, -1  # of w: the first place, then from channel to channel and so on
    return _slide(gx, gy, w, None, stride, corner, dilation, groups, steps, relu=0)


def _forward_shared(x, w, b, stride, padding, dilation, groups, relu):
    y = empty((x.shape[0], w.shape[0], *output_size(x, w, stride, padding, dilation)), x)
    _, CG, KH, KW = w.shape
    steps = 0, CG * KH * KW, KH * KW, 1
    return _slide(y, x, w, b, stride, (padding[0], padding[2]), dilation, groups, steps, relu)


def _slide(y, x, w, b, stride, corner, dilation, groups, steps, relu):
    """Fills y with the convolution of x."""
    if y.size == 0:
        return y
    x, w, b = contiguous(x), contiguous(w), None if b is None else contiguous(b)
    (N, C, H, W), (_, F, OH, OW), window = x.shape, y.shape, tuple(w.shape[2:])
    channels, filters = C // groups, F // groups
    sizes = channels, filters, (OH, OW), window, tuple(stride), tuple(dilation), x.itemsize
    patch: Any = patch_for(*sizes)  # there is one: `when` has asked
    tiles = cdiv(OH, patch.down) * cdiv(OW, patch.across) * cdiv(filters, FILTERS * patch.chunks)
    sizes = groups, channels, filters, patch.depth, H, W, OH, OW, *window, *stride, *dilation, *corner
    arguments = (y, x, w, b, *sizes, patch.down, patch.across, *steps, relu)
    block = patch.threads, patch.chunks
    kernels("conv2d", x).conv2d_forward_shared((tiles * groups * N,), block, arguments, patch.shared)
    return y


# -- im2col ------------------------------------------------------------------------------------------------------------


def columns_fit(real, rows, image, plane, w_shape):
    """Whether indices of one image, of its columns and of the weights go with 32 bits."""
    if real is not True:
        return real
    fine = max(rows * plane, image, w_shape[0] * w_shape[1] * w_shape[2] * w_shape[3]) < MOST and w_shape[0] <= MOST_Y
    return fine or f"it takes columns of fewer than {MOST} elements an image, and {MOST_Y} filters"


def im2col_forward(x, w, b, *, stride, padding, dilation, groups):
    """``when`` of forward and forward_relu."""
    OH, OW = output_size(x, w, stride, padding, dilation)
    rows = x.shape[1] * w.shape[2] * w.shape[3]
    image = max(x.shape[1] * x.shape[2] * x.shape[3], w.shape[0] * OH * OW)
    return columns_fit(is_real(x, w, b), rows, image, OH * OW, w.shape)


def im2col_grad_x(gy, w, *, input_size, stride, padding, dilation, groups):
    """``when`` of grad_x."""
    C, plane = w.shape[1] * groups, gy.shape[2] * gy.shape[3]
    image = max(C * input_size[0] * input_size[1], gy.shape[1] * plane)
    return columns_fit(is_real(gy, w), C * w.shape[2] * w.shape[3], image, plane, w.shape)


def im2col_grad_w(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """``when`` of grad_w."""
    C, plane = x.shape[1], gy.shape[2] * gy.shape[3]
    image = max(C * x.shape[2] * x.shape[3], gy.shape[1] * plane)
    shape = gy.shape[1], C // groups, *kernel_size
    return columns_fit(is_real(gy, x), C * kernel_size[0] * kernel_size[1], image, plane, shape)


def im2col_pays(*arrays, **params):
    """Whether it is worth its effort: by name alone."""
    return "columns in memory cost more than they save; implicit_gemm fetches them as it goes"


@kernel("conv2d.forward", backend="cupy", variant="im2col", when=im2col_forward, pays=im2col_pays)
def conv2d_forward_im2col(x, w, b, *, stride, padding, dilation, groups):
    """Columns in memory, a matrix product, and its result in the order of images."""
    return _forward_im2col(x, w, b, stride, padding, dilation, groups, relu=0)


@kernel("conv2d.forward_relu", backend="cupy", variant="im2col", when=im2col_forward, pays=im2col_pays)
def conv2d_forward_relu_im2col(x, w, b, *, stride, padding, dilation, groups):
    """As forward; the positive part is taken before y is written."""
    return _forward_im2col(x, w, b, stride, padding, dilation, groups, relu=1)


def _forward_im2col(x, w, b, stride, padding, dilation, groups, relu):
    x, w, b = contiguous(x), contiguous(w), None if b is None else contiguous(b)
    (N, C), (F, CG, KH, KW) = x.shape[:2], w.shape
    OH, OW = output_size(x, w, stride, padding, dilation)
    y, rows = empty((N, F, OH, OW), x), w.reshape(groups, F // groups, CG * KH * KW)
    for first, last in rounds(N, C * KH * KW, OH * OW, x.itemsize):
        columns = _columns(x[first:last], groups, (OH, OW), (KH, KW), stride, dilation, padding)
        product = _multiply(empty((groups, F // groups, columns.shape[2]), x), rows, columns)
        arguments = (y[first:last], product, b, columns.shape[2], F, OH * OW, relu)
        _over(kernels("conv2d", x).conv2d_forward_im2col, columns.shape[2], F, arguments)
    return y


@kernel("conv2d.grad_x", backend="cupy", variant="im2col", when=im2col_grad_x, pays=im2col_pays)
def conv2d_grad_x_im2col(gy, w, *, input_size, stride, padding, dilation, groups):
    """The gradient of the columns as a product, of which every pixel gathers its share."""
    gy, w = contiguous(gy), contiguous(w)
    (N, F, OH, OW), (_, CG, KH, KW), (H, W) = gy.shape, w.shape, input_size
    C = CG * groups
    gx, rows = empty((N, C, H, W), gy), w.reshape(groups, F // groups, CG * KH * KW)
    sizes = C, H, W, OH, OW, KH, KW, *stride, *dilation, padding[0], padding[2]
    for first, last in rounds(N, C * KH * KW, OH * OW, gy.itemsize):
        gradients = _gradient_rows(gy[first:last], groups)
        images, number = last - first, gradients.shape[2]
        columns = _multiply(empty((groups, CG * KH * KW, number), gy), rows, gradients, transpose_a=True)
        arguments = (gx[first:last], columns, images, number, *sizes)
        _over(kernels("conv2d", gy).conv2d_grad_x_im2col, images * H * W, C, arguments)
    return gx


@kernel("conv2d.grad_w", backend="cupy", variant="im2col", when=im2col_grad_w, pays=im2col_pays)
def conv2d_grad_w_im2col(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """Rows of gy against columns, some images at a time; the parts are added in order."""
    gy, x = contiguous(gy), contiguous(x)
    (N, F, OH, OW), C, (KH, KW) = gy.shape, x.shape[1], kernel_size
    all_rounds, shape = rounds(N, C * KH * KW, OH * OW, x.itemsize), (groups, F // groups, C // groups * KH * KW)
    gw, parts = empty((F, C // groups, KH, KW), x), empty((len(all_rounds), *shape), x)
    for part, (first, last) in zip(parts, all_rounds, strict=True):
        columns = _columns(x[first:last], groups, (OH, OW), (KH, KW), stride, dilation, padding)
        _multiply(part, _gradient_rows(gy[first:last], groups), columns, transpose_b=True)
    add_parts(gw, parts, len(all_rounds))
    return gw


def rounds(N, rows, plane, itemsize):
    """First and last image of each round: as many as the scratch memory takes the columns of, but at least one."""
    most = max(1, min(SCRATCH // itemsize, MOST) // (rows * plane))
    return [(first, min(first + most, N)) for first in range(0, N, most)]


def _columns(x, groups, output, window, stride, dilation, padding):
    """Columns (groups, CG * KH * KW, N * OH * OW) of the images x."""
    (N, C, H, W), (OH, OW), (KH, KW) = x.shape, output, window
    number = N * OH * OW
    columns = empty((groups, C // groups * KH * KW, number), x)
    sizes = number, C, H, W, OH, OW, KH, KW, *stride, *dilation, padding[0], padding[2]
    _over(kernels("conv2d", x).conv2d_im2col_columns, number, C * KH * KW, (columns, x, *sizes))
    return columns


def _gradient_rows(gy, groups):
    """The rows (groups, FG, N * OH * OW) of gy."""
    N, F, OH, OW = gy.shape
    rows = empty((groups, F // groups, N * OH * OW), gy)
    _over(kernels("conv2d", gy).conv2d_im2col_rows, rows.shape[2], F, (rows, gy, rows.shape[2], F, OH * OW))
    return rows


def _over(run, number, rows, arguments):
    """A launch with a thread for each of ``number`` columns, whose blocks walk down the rows."""
    run((cdiv(number, THREADS), min(rows, MOST_Y)), (THREADS,), arguments)


def _multiply(y, a, b, transpose_a=False, transpose_b=False):
    """Fills y (groups, M, N) with a product for each group; returns y."""
    (groups, M, N), K = y.shape, a.shape[1] if transpose_a else a.shape[2]
    how = {"transpose_a": transpose_a, "transpose_b": transpose_b, "a_batch": M * K, "b_batch": K * N}
    matmul_cupy.multiply(y, a, b, M, N, K, batch=groups, **how)
    return y


from . import winograd_cupy  # noqa: E402 the launchers of the highest rungs stand beside

BUILDS = {"conv2d": [{}], **implicit_gemm_cupy.BUILDS, **winograd_cupy.BUILDS}
