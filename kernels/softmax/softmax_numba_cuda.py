"""softmax on Numba-CUDA: the rungs of softmax.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/softmax.py
#
# The array is seen as (outer, D, inner), D the axis; a row is D elements, ``inner`` apart. Of a row of nothing but -inf
# the sum is 0, its reciprocal inf, and inf * 0 = NaN; inf or NaN in a row make the sum NaN. See rows_numba.py, which
# has the work on one row: its functions get from here what softmax alone has, an Op.

from gpunet.cuda import jit
from gpunet.cuda.jit import cuda
from gpunet.dispatch import kernel

from ..common import rows
from ..common import rows_numba as lines
from ..common.rows_numba import (
    COLUMN,
    LANES,
    LONG,
    RUN,
    Op,
    double,
    exponential,
    forward_kept,
    forward_write,
    gathered,
    grad_summed,
    grad_write,
    line,
    lowest,
    my_column,
    my_lanes,
    nought,
    segment,
    walked,
)


def op_of(real):
    """What softmax does with an element, for the functions of rows_numba.py."""
    one = real(1)
    return Op(
        kept=jit.device(lambda d, e: e),
        level=jit.device(lambda sum: one / sum),
        y=jit.device(lambda e, scale: e * scale),
        term=jit.device(lambda gy, y: gy * y),
        gx=jit.device(lambda gy, y, dot: y * (gy - dot)),
    )


# -- plain -------------------------------------------------------------------------------------------------------------


@jit.typed
def softmax_forward_plain_kernel(real):
    """One thread one row: its maximum, its sum in double and in runs of RUN terms, its D results."""
    low, one = lowest(real), real(1)

    def forward(y, x, rows, D, inner):
        row = cuda.grid(1)
        if row >= rows:
            return
        begin = row // inner * inner * D + row % inner
        m, total = low, nought
        for k in range(D):
            m = max(m, x[begin + k * inner])
        for first in range(0, D, RUN):
            part = nought
            for k in range(first, min(first + RUN, D)):
                part += exponential(x[begin + k * inner] - m)
            total += part
        scale = one / real(total)  # a row of nothing but -inf: inf, and inf * 0 = NaN
        for k in range(D):
            y[begin + k * inner] = exponential(x[begin + k * inner] - m) * scale

    return forward


@kernel("softmax.forward", backend="numba_cuda", variant="plain", when=rows.takes)
def softmax_forward_plain(x, *, axis):
    """One thread a row, three passes."""
    return lines.plain(softmax_forward_plain_kernel, axis, x)


@jit.typed
def softmax_grad_x_plain_kernel(real):
    """As softmax_forward_plain_kernel, with gy and y read twice."""

    def grad_x(gx, gy, y, rows, D, inner):
        row = cuda.grid(1)
        if row >= rows:
            return
        begin = row // inner * inner * D + row % inner
        total = nought
        for first in range(0, D, RUN):
            part = nought
            for k in range(first, min(first + RUN, D)):
                part += gy[begin + k * inner] * y[begin + k * inner]
            total += part
        dot = real(total)
        for k in range(D):
            gx[begin + k * inner] = y[begin + k * inner] * (gy[begin + k * inner] - dot)

    return grad_x


@kernel("softmax.grad_x", backend="numba_cuda", variant="plain", when=rows.takes)
def softmax_grad_x_plain(gy, y, *, axis):
    """One thread a row, two passes."""
    return lines.plain(softmax_grad_x_plain_kernel, axis, gy, y)


# -- coalesced ---------------------------------------------------------------------------------------------------------


@jit.typed
def softmax_forward_coalesced_kernel(real):
    """A column of a block one row: maximum and sum in one pass, then a second one that writes."""
    walk, gather, write = walked(real), gathered(COLUMN), forward_write(real, op_of(real))

    def forward(y, x, rows, D, inner):
        tops = cuda.shared.array(512, real)
        sums = cuda.shared.array(512, double)
        group = my_column(tops, sums)
        begin, units = line(cuda.grid(1), rows, D, inner)
        m, sum = walk(group, x, begin, units, inner)
        m, sum = gather(m, sum, group)
        write(group, m, sum, y, x, begin, units, inner)

    return forward


@kernel("softmax.forward", backend="numba_cuda", variant="coalesced", when=rows.takes, pays=rows.apart)
def softmax_forward_coalesced(x, *, axis):
    """Neighbouring threads on neighbouring rows; for an axis that is not the last."""
    return lines.coalesced(softmax_forward_coalesced_kernel, axis, x)


@jit.typed
def softmax_grad_x_coalesced_kernel(real):
    """As softmax_forward_coalesced_kernel: a pass for the sum, and one that writes."""
    share, write, total = grad_summed(real, op_of(real)), grad_write(real, op_of(real)), COLUMN.total

    def grad_x(gx, gy, y, rows, D, inner):
        scratch = cuda.shared.array(512, double)
        group = my_column(scratch, scratch)
        begin, units = line(cuda.grid(1), rows, D, inner)
        sum = real(total(share(group, gy, y, begin, units, inner), group, scratch))
        write(group, sum, gx, gy, y, begin, units, inner)

    return grad_x


@kernel("softmax.grad_x", backend="numba_cuda", variant="coalesced", when=rows.takes, pays=rows.apart)
def softmax_grad_x_coalesced(gy, y, *, axis):
    """Neighbouring threads on neighbouring rows; for an axis that is not the last."""
    return lines.coalesced(softmax_grad_x_coalesced_kernel, axis, gy, y)


# -- warp --------------------------------------------------------------------------------------------------------------


@jit.typed
def softmax_forward_warp_kernel(real):
    """Neighbouring lanes, ``width`` of them, one row; they read it again, which a cache still holds."""
    walk, gather, write = walked(real), gathered(LANES), forward_write(real, op_of(real))

    def forward(y, x, rows, D, width):
        group = my_lanes(width)
        begin, units = line(cuda.grid(1) // width, rows, D, 1)
        m, sum = walk(group, x, begin, units, 1)
        m, sum = gather(m, sum, group)
        write(group, m, sum, y, x, begin, units, 1)

    return forward


@jit.typed
def softmax_forward_warp_packs_kernel(real):
    """Likewise, a row that 16 bytes a load fit, whose elements stay in registers."""
    run = forward_kept(real, op_of(real), LANES)

    def forward(y, x, rows, packs, width):
        begin, mine = line(cuda.grid(1) // width, rows, packs, 1)
        run(my_lanes(width), y, x, begin, mine)

    return forward


@kernel("softmax.forward", backend="numba_cuda", variant="warp", when=rows.takes_short)
def softmax_forward_warp(x, *, axis):
    """Some lanes of a warp a row, which stays in their registers where 16 bytes a load fit."""
    return lines.warp(softmax_forward_warp_kernel, softmax_forward_warp_packs_kernel, axis, x)


@jit.typed
def softmax_grad_x_warp_kernel(real):
    """The same lanes; they read gy and y again."""
    share, write, total = grad_summed(real, op_of(real)), grad_write(real, op_of(real)), LANES.total

    def grad_x(gx, gy, y, rows, D, width):
        group = my_lanes(width)
        begin, units = line(cuda.grid(1) // width, rows, D, 1)
        sum = real(total(share(group, gy, y, begin, units, 1), group, 0))
        write(group, sum, gx, gy, y, begin, units, 1)

    return grad_x


@kernel("softmax.grad_x", backend="numba_cuda", variant="warp", when=rows.takes_short)
def softmax_grad_x_warp(gy, y, *, axis):
    """Some lanes of a warp a row."""
    return lines.warp(softmax_grad_x_warp_kernel, None, axis, gy, y)


# -- block -------------------------------------------------------------------------------------------------------------


@jit.typed
def softmax_forward_block_packs_kernel(real):
    """A block one row, whose elements stay in registers, loaded by 16 bytes."""
    run = forward_kept(real, op_of(real), COLUMN)

    def forward(y, x, packs):
        scratch = cuda.shared.array(512, real)
        run(my_column(scratch, scratch), y, x, cuda.blockIdx.x * packs, packs)

    return forward


@kernel("softmax.forward", backend="numba_cuda", variant="block", when=rows.takes_neighbours, pays=rows.long)
def softmax_forward_block(x, *, axis):
    """A block a row, in registers if it fits by 16 bytes a load, else in two passes."""
    return lines.block(softmax_forward_coalesced_kernel, softmax_forward_block_packs_kernel, axis, x)


@kernel("softmax.grad_x", backend="numba_cuda", variant="block", when=rows.takes_neighbours, pays=rows.long)
def softmax_grad_x_block(gy, y, *, axis):
    """A block a row, in two passes."""
    return lines.coalesced(softmax_grad_x_coalesced_kernel, axis, gy, y)


# -- split -------------------------------------------------------------------------------------------------------------


@jit.typed
def softmax_forward_split_kernel(real):
    """A block one of the ``parts`` segments of a row: it leaves the segment's maximum and sum."""
    walk, gather = walked(real), gathered(COLUMN)

    def forward(tops, sums, x, D, parts):
        top = cuda.shared.array(LONG, real)
        sum = cuda.shared.array(LONG, double)
        group = my_column(top, sum)
        begin, mine, _ = segment(D, parts)
        m, part = walk(group, x, begin, mine, 1)
        m, part = gather(m, part, group)
        if group.at == 0:
            tops[cuda.blockIdx.x], sums[cuda.blockIdx.x] = m, part

    return forward


@jit.typed
def softmax_forward_split_write_kernel(real):
    """The second kernel: every block puts the maxima and sums of its row together and writes its segment."""
    gather, write, low = gathered(COLUMN), forward_write(real, op_of(real)), lowest(real)

    def forward(y, x, tops, sums, D, parts):
        top = cuda.shared.array(LONG, real)
        sum = cuda.shared.array(LONG, double)
        group = my_column(top, sum)
        begin, mine, _ = segment(D, parts)
        m, total, at = low, nought, cuda.blockIdx.x // parts * parts + group.at
        if group.at < parts:
            m, total = tops[at], sums[at]
        m, total = gather(m, total, group)
        write(group, m, total, y, x, begin, mine, 1)

    return forward


@kernel("softmax.forward", backend="numba_cuda", variant="split", when=rows.takes_neighbours, pays=rows.few)
def softmax_forward_split(x, *, axis):
    """Several blocks a row, for few long rows."""
    return lines.split(softmax_forward_split_kernel, softmax_forward_split_write_kernel, axis, x)


@jit.typed
def softmax_grad_x_split_kernel(real):
    """As softmax_forward_split_kernel; a segment leaves its share of the sum."""
    share, total = grad_summed(real, op_of(real)), COLUMN.total

    def grad_x(sums, gy, y, D, parts):
        scratch = cuda.shared.array(LONG, double)
        group = my_column(scratch, scratch)
        begin, mine, _ = segment(D, parts)
        sum = total(share(group, gy, y, begin, mine, 1), group, scratch)
        if group.at == 0:
            sums[cuda.blockIdx.x] = sum

    return grad_x


@jit.typed
def softmax_grad_x_split_write_kernel(real):
    """The second kernel: every block puts the sums of its row together and writes its segment."""
    write, total = grad_write(real, op_of(real)), COLUMN.total

    def grad_x(gx, gy, y, sums, D, parts):
        scratch = cuda.shared.array(LONG, double)
        group = my_column(scratch, scratch)
        begin, mine, _ = segment(D, parts)
        at = cuda.blockIdx.x // parts * parts + group.at
        sum = real(total(sums[at] if group.at < parts else nought, group, scratch))
        write(group, sum, gx, gy, y, begin, mine, 1)

    return grad_x


@kernel("softmax.grad_x", backend="numba_cuda", variant="split", when=rows.takes_neighbours, pays=rows.few)
def softmax_grad_x_split(gy, y, *, axis):
    """Several blocks a row, for few long rows."""
    return lines.split(softmax_grad_x_split_kernel, softmax_grad_x_split_write_kernel, axis, gy, y)
