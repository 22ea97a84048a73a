"""conv2d on CUDA C++: launchers of winograd.cu, for a GPU and for sim."""
# op: gpunet/ops/conv2d.py
#
# Four steps, of which the third has all the multiplications: transform the filters, then for as many tiles as the
# scratch memory takes at a time transform the input, multiply, and transform back. The gradient of x is a convolution
# too: of gy, with every filter turned by 180 degrees and filters and channels exchanged. An output's gradient goes back
# to where its window came from, so what was padded by p is now padded by 2 - p, and cropped where that is negative.

from gpunet.dispatch import kernel

from ..common.launching import contiguous, empty, is_real, kernels
from ..common.shapes import cdiv, conv_out_size
from ..matmul import matmul_cupy

BUILDS = {"conv2d/winograd": [{}]}

THREADS = 128  # of a block: with 6x6 values in registers a thread takes about 100 of them
MOST_Y = 65535  # the grid's second axis ends there; the kernels walk on

# Tiles are taken in rounds, so that V and Z pass from kernel to kernel in the second-level cache, in little memory.
LINE = 128  # tiles of a round are a multiple of it while there are enough: what a block of the product is wide
CACHED = 64 * 2**20  # bytes of V and Z of a round: about a large second-level cache,
FEWEST = 1024  # but not so few tiles that the product has too few blocks for a device,
SCRATCH = 256 * 2**20  # unless they take more bytes than this; LINE tiles are taken in any case

# When the detour is worth it, on an H200: 60 TF in float32 for 4.3 TB/s, half of it in float64 on elements twice as
# wide. That is 56 flop in the time of moving one element, for both. And three more launches of some 5 microseconds.
FLOPS_PER_ELEMENT = 56
FLOPS_OF_LAUNCHES = 10**9


def fits(M, real, images, channels, filters, image, output, w, stride, dilation, groups):
    """Whether the window is 3x3 and moves by single pixels, and all sizes go with 32-bit indices."""
    if real is not True:
        return real
    if tuple(w.shape[2:]) != (3, 3):
        return f"it takes windows of 3x3, got {w.shape[2]}x{w.shape[3]}"
    if tuple(stride) != (1, 1) or tuple(dilation) != (1, 1) or groups != 1:
        return f"it takes stride 1, dilation 1 and one group, got {tuple(stride)}, {tuple(dilation)} and {groups}"
    planes = (M + 2) ** 2
    widest = max(channels * filters, LINE * max(channels, filters)) * planes
    tiles = images * cdiv(output[0], M) * cdiv(output[1], M)
    pixels = max(image[0] * image[1], output[0] * output[1])
    fine = max(widest, pixels, tiles + LINE) < 2**31
    return fine or "it takes fewer than 2**31 tiles, elements of an image and elements of the transformed filters"


def worth(M, images, channels, filters, output):
    """Whether the multiplications that are saved take longer than moving what the transforms write and read."""
    planes = (M + 2) ** 2
    tiles = images * cdiv(output[0], M) * cdiv(output[1], M)
    saved = 2 * channels * filters * (9 * images * output[0] * output[1] - planes * tiles)
    moved = 2 * planes * (channels * filters + tiles * (channels + filters))  # U, V and Z: each written, then read
    cost = FLOPS_PER_ELEMENT * moved + FLOPS_OF_LAUNCHES
    return saved >= cost or f"it saves {max(saved, 0):.2g} flop and loses the time of {cost:.2g}"


def forward_fits(M):
    """``when`` of forward and forward_relu."""

    def fits_forward(x, w, b, *, stride, padding, dilation, groups):
        """A 3x3 window that moves by single pixels."""
        output = conv_out_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
        sizes = x.shape[0], x.shape[1], w.shape[0], x.shape[2:], output
        return fits(M, is_real(x, w, b), *sizes, w, stride, dilation, groups)

    return fits_forward


def forward_pays(M):
    """``pays`` of forward and forward_relu."""

    def pays_forward(x, w, b, *, stride, padding, dilation, groups):
        """Enough channels, filters and tiles."""
        output = conv_out_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
        return worth(M, x.shape[0], x.shape[1], w.shape[0], output)

    return pays_forward


def grad_x_fits(M):
    """``when`` of grad_x: the convolution goes from the filters to the channels."""

    def fits_grad_x(gy, w, *, input_size, stride, padding, dilation, groups):
        """A 3x3 window that moves by single pixels."""
        sizes = gy.shape[0], gy.shape[1], w.shape[1], gy.shape[2:], input_size
        return fits(M, is_real(gy, w), *sizes, w, stride, dilation, groups)

    return fits_grad_x


def grad_x_pays(M):
    """``pays`` of grad_x."""

    def pays_grad_x(gy, w, *, input_size, stride, padding, dilation, groups):
        """Enough channels, filters and tiles."""
        return worth(M, gy.shape[0], gy.shape[1], w.shape[1], input_size)

    return pays_grad_x


@kernel("conv2d.forward", backend="cupy", variant="winograd_2x2", when=forward_fits(2), pays=forward_pays(2))
def conv2d_forward_winograd_2x2(x, w, b, *, stride, padding, dilation, groups):
    """Tiles of 2x2 outputs at once, by 16 products a channel instead of 36."""
    return _forward(2, x, w, b, padding, relu=False)


@kernel("conv2d.forward_relu", backend="cupy", variant="winograd_2x2", when=forward_fits(2), pays=forward_pays(2))
def conv2d_forward_relu_winograd_2x2(x, w, b, *, stride, padding, dilation, groups):
    """As forward; the positive part is taken before y is written."""
    return _forward(2, x, w, b, padding, relu=True)


@kernel("conv2d.grad_x", backend="cupy", variant="winograd_2x2", when=grad_x_fits(2), pays=grad_x_pays(2))
def conv2d_grad_x_winograd_2x2(gy, w, *, input_size, stride, padding, dilation, groups):
    """The convolution of gy with turned filters, by tiles of 2x2."""
    return _grad_x(2, gy, w, input_size, padding)


@kernel("conv2d.forward", backend="cupy", variant="winograd_4x4", when=forward_fits(4), pays=forward_pays(4))
def conv2d_forward_winograd_4x4(x, w, b, *, stride, padding, dilation, groups):
    """Tiles of 4x4 outputs at once, by 36 products a channel instead of 144."""
    return _forward(4, x, w, b, padding, relu=False)


@kernel("conv2d.forward_relu", backend="cupy", variant="winograd_4x4", when=forward_fits(4), pays=forward_pays(4))
def conv2d_forward_relu_winograd_4x4(x, w, b, *, stride, padding, dilation, groups):
    """As forward; the positive part is taken before y is written."""
    return _forward(4, x, w, b, padding, relu=True)


@kernel("conv2d.grad_x", backend="cupy", variant="winograd_4x4", when=grad_x_fits(4), pays=grad_x_pays(4))
def conv2d_grad_x_winograd_4x4(gy, w, *, input_size, stride, padding, dilation, groups):
    """The convolution of gy with turned filters, by tiles of 4x4."""
    return _grad_x(4, gy, w, input_size, padding)


def _forward(M, x, w, b, padding, relu):
    y = empty((x.shape[0], w.shape[0], *conv_out_size(x.shape[2:], (3, 3), (1, 1), padding, (1, 1))), x)
    _convolve(M, y, x, w, b, padding[0], padding[2], relu, back=False)
    return y


def _grad_x(M, gy, w, input_size, padding):
    gx = empty((gy.shape[0], w.shape[1], *input_size), gy)
    _convolve(M, gx, gy, w, None, 2 - padding[0], 2 - padding[2], relu=False, back=True)
    return gx


def _convolve(M, y, x, w, b, top, left, relu, back):
    """Fills y (N, F, OH, OW) from x (N, C, H, W); ``back`` says that w is (C, F, 3, 3) and its windows are turned."""
    if y.size == 0:
        return
    x, w, b = contiguous(x), contiguous(w), None if b is None else contiguous(b)
    (N, C, H, W), (_, F, OH, OW) = x.shape, y.shape
    TH, TW, planes, module = cdiv(OH, M), cdiv(OW, M), (M + 2) ** 2, kernels("conv2d/winograd", x)
    filters, into, out = (getattr(module, f"conv2d_winograd_{M}x{M}_{step}") for step in ("filters", "input", "output"))

    u = empty((planes, *w.shape[:2]), w)
    filters((cdiv(F * C, THREADS),), (THREADS,), (u, w, F * C, back))
    count = N * TH * TW
    step = _tiles_at_once(count, planes * max(C, F), planes * (C + F) * x.itemsize)
    scratch = empty((planes * (C + F) * _even(min(step, count)),), x)
    for first in range(0, count, step):
        tiles = min(step, count - first)
        columns = _even(tiles)
        v, z = _two_parts(scratch, (planes, C, columns), (planes, F, columns))
        blocks = cdiv(columns, THREADS)
        sizes = TH, TW, top, left, first, tiles, columns
        into((blocks, min(C, MOST_Y)), (THREADS,), (v, x, C, H, W, *sizes))
        _multiply(z, u, v, back)
        out((blocks, min(F, MOST_Y)), (THREADS,), (y, z, b, x, w, C, H, W, F, OH, OW, *sizes, back, relu))


def _tiles_at_once(count, most_elements, bytes_of_one):
    """Tiles of one round, with 32-bit indices into V and Z; of several rounds, all take about the same."""
    wanted = min(max(CACHED // bytes_of_one, FEWEST), SCRATCH // bytes_of_one, (2**31 - 1) // most_elements)
    most = max(LINE, wanted // LINE * LINE)
    return cdiv(cdiv(count, cdiv(count, most)), LINE) * LINE


def _even(tiles):
    """Columns for so many tiles: rows of a multiple of 32 bytes."""
    return cdiv(tiles, 8) * 8


def _two_parts(scratch, one, other):
    """Two arrays side by side at the start of the scratch memory."""
    sizes = [shape[0] * shape[1] * shape[2] for shape in (one, other)]
    return scratch[: sizes[0]].reshape(one), scratch[sizes[0] : sizes[0] + sizes[1]].reshape(other)


def _multiply(z, u, v, back):
    """The matrices z[k] = u[k] v[k], or u[k]^T v[k]."""
    (planes, F, P), C = z.shape, v.shape[1]
    matmul_cupy.multiply(z, u, v, F, P, C, transpose_a=back, batch=planes, a_batch=F * C, b_batch=C * P)
