"""cross_entropy on Numba-CUDA: the rungs of cross_entropy.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/cross_entropy.py
#
# A row is the C classes of one position, S apart. In all kernels ``hit`` is 1 - label_smoothing, ``spread`` is
# label_smoothing / C, and an empty w stands for ones.

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.dispatch import kernel

from ..common import rows
from ..common import rows_numba as lines
from ..common.launching import contiguous, empty
from ..common.rows_numba import LONG, double, gathered, line, my_column, my_lanes, nought, segment, walked
from ..common.shapes import cdiv
from .cross_entropy_cupy import apart, few, long, takes, takes_neighbours, takes_short

# -- the loss ----------------------------------------------------------------------------------------------------------


def added(real, kind):
    """What a row, or a segment that begins at class ``offset``, adds up, for all threads of its group.

    Its maximum m and sum of exponentials; for smoothing also, in a second pass, the ``distance`` w * (x - m), and w.
    """
    walk, gather, total, one = walked(real), gathered(kind), kind.total, real(1)

    @jit.device
    def add(group, x, begin, w, offset, C, S, smooth):
        m, sum = walk(group, x, begin, C, S)
        m, sum = gather(m, sum, group)
        distance = weight = nought
        if smooth:
            for c in range(group.at, C, group.size):
                each = w[np.uint64(offset + c)] if w.size > 0 else one
                distance += each * (x[np.uint64(begin + c * S)] - m)
                weight += each
            distance, weight = total(distance, group, group.sums), total(weight, group, group.sums)
        return m, sum, distance, weight

    return add


def written(real):
    """What is written for one position, whose x begin at ``begin``: loss and lse."""
    zero, one, never = real(0), real(1), real(-1)

    @jit.device
    def write(loss, lse, position, m, sum, distance, weight, x, begin, S, target, w, ignore, hit, spread):
        # A row of nothing but -inf has the sum 0 and must give NaN, which log(-1) is.
        t, log_sum = target[position], lines.logarithm(never if sum == nought else real(sum))
        lse[position] = m + log_sum
        cost = zero
        if t != ignore:
            cost = (log_sum - (x[begin + t * S] - m)) * (hit * (w[t] if w.size > 0 else one))
            if spread != zero:
                cost += spread * real(weight * double(log_sum) - distance)
        loss[position] = cost

    return write


# -- the gradient: gx[c] = share * p[c] - taken * [c = t] - level * w[c] -----------------------------------------------


def factors(real):
    """The factors of one position, and its target: -1 where it is ignored."""
    zero, one = real(0), real(1)

    @jit.device
    def of(position, gloss, lse, target, w, total, C, ignore, hit, spread):
        t, g = target[position], gloss[position]
        taken = zero
        if t != ignore:
            taken = g * (hit * (w[t] if w.size > 0 else one))
        level = g * spread
        share = taken + level * (real(total[0]) if total.size > 0 else real(C))
        return lse[position], share, taken, level, np.int32(-1 if t == ignore else t)

    return of


def grad_written(real):
    """gx of the classes that a thread of the group has."""
    N, zero, one = lines.elements(real, lines.STEP), real(0), real(1)
    load, store = lines.loads(N), lines.stores(N)

    @jit.device
    def write(group, gx, x, begin, C, S, row, w, smooth):
        lse, share, taken, level, t = row
        for first in range(group.at, C, N * group.size):
            v = cuda.local.array(N, real)
            load(v, x, begin, first, group.size, C, S, zero)
            for k in range(N):
                c = np.int32(first + k * group.size)
                v[k] = lines.exponential(v[k] - lse) * share
                if c == t:
                    v[k] -= taken
                if smooth and c < C:
                    v[k] -= level * (w[np.uint64(c)] if w.size > 0 else one)
                if t < 0:
                    v[k] = zero
            store(gx, v, begin, first, group.size, C, S)

    return write


# -- what the launchers share ------------------------------------------------------------------------------------------


class _Call:
    """One call of either entry: outputs, inputs in C order, and the numbers that every kernel takes."""

    def __init__(self, x, target, w, ignore_index, label_smoothing, gloss=None, lse=None):
        x, target, real = contiguous(x), contiguous(target), x.dtype.type
        w = empty((0,), x) if w is None else contiguous(w)
        self.x, self.w, (self.N, self.C, self.S) = x, w, x.shape
        self.positions = self.N * self.S
        self.settings = (int(ignore_index), real(1 - label_smoothing), real(label_smoothing / max(self.C, 1)))
        if gloss is None:
            self.outputs, self.inputs = (empty(target.shape, x), empty(target.shape, x)), (x, target, w)
        else:
            total = empty((1 if w.size and label_smoothing else 0,), x, "float64")  # the sum of w; empty where it is C
            if total.size:
                cross_entropy_grad_x_total_kernel(x)((1,), (THREADS,), (total, w))
            self.outputs = (empty(x.shape, x),)
            self.inputs = (contiguous(gloss), x, contiguous(lse), target, w, total)

    def launch(self, kernel, grid, block, *sizes):
        """Launches a kernel; returns loss and lse, or gx."""
        kernel(self.x)((grid,), block, (*self.outputs, *self.inputs, *sizes, *self.settings))
        return self.outputs if len(self.outputs) > 1 else self.outputs[0]

    def plain(self, kernel):
        """Launches a kernel of which a thread takes a position."""
        return self.launch(kernel, cdiv(self.positions, THREADS), (THREADS,), self.positions, self.C, self.S)

    def columns(self, kernel):
        """Launches a kernel of columns: of neighbouring positions, or each alone in its block."""
        block = lines.columns(self.positions, self.C, self.x) if self.S > 1 else (1, LONG)
        return self.launch(kernel, cdiv(self.positions, block[0]), block, self.positions, np.int32(self.C), self.S)

    def lanes(self, kernel):
        """Launches a kernel of which some lanes of a warp take a position."""
        width, C = rows.lanes(self.C, self.x.itemsize, rows.is_wide(self.C, self.x)), np.int32(self.C)
        return self.launch(
            kernel, cdiv(self.positions, lines.WARPS // width), (lines.WARPS,), self.positions, C, np.int32(width)
        )


# -- plain -------------------------------------------------------------------------------------------------------------


@jit.typed
def cross_entropy_forward_plain_kernel(real):
    """One thread one position: a pass for the maximum, one for the sums, in double."""
    low, one, write = lines.lowest(real), real(1), written(real)

    def forward(loss, lse, x, target, w, positions, C, S, ignore, hit, spread):
        position = cuda.grid(1)
        if position >= positions:
            return
        begin = position // S * S * C + position % S
        m, sum, distance, weight = low, nought, nought, nought
        for c in range(C):
            m = max(m, x[begin + c * S])
        for c in range(C):
            d = x[begin + c * S] - m
            each = w[c] if w.size > 0 else one
            sum += lines.exponential(d)
            distance += each * d
            weight += each
        write(loss, lse, position, m, sum, distance, weight, x, begin, S, target, w, ignore, hit, spread)

    return forward


@kernel("cross_entropy.forward", backend="numba_cuda", variant="plain", when=takes)
def cross_entropy_forward_plain(x, target, w, *, ignore_index, label_smoothing):
    """One thread a position, two passes."""
    return _Call(x, target, w, ignore_index, label_smoothing).plain(cross_entropy_forward_plain_kernel)


@jit.typed
def cross_entropy_grad_x_total_kernel(real):
    """One block: the sum of w, which label smoothing needs once for all positions, in a fixed order."""

    def grad_x(total, w):
        scratch = cuda.shared.array(32, double)
        sum = nought
        for c in range(cuda.threadIdx.x, w.size, cuda.blockDim.x):
            sum += w[c]
        sum = lines.block_sum(sum, scratch)
        if cuda.threadIdx.x == 0:
            total[0] = sum

    return grad_x


@jit.typed
def cross_entropy_grad_x_plain_kernel(real):
    """One thread one position, in one pass."""
    of, zero, one = factors(real), real(0), real(1)

    def grad_x(gx, gloss, x, lse, target, w, total, positions, C, S, ignore, hit, spread):
        position = cuda.grid(1)
        if position >= positions:
            return
        begin = position // S * S * C + position % S
        row_lse, share, taken, level, t = of(position, gloss, lse, target, w, total, C, ignore, hit, spread)
        for c in range(C):
            g = zero
            if t >= 0:
                g = lines.exponential(x[begin + c * S] - row_lse) * share
                if c == t:
                    g -= taken
                if spread != zero:
                    g -= level * (w[c] if w.size > 0 else one)
            gx[begin + c * S] = g

    return grad_x


@kernel("cross_entropy.grad_x", backend="numba_cuda", variant="plain", when=takes)
def cross_entropy_grad_x_plain(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """One thread a position."""
    return _Call(x, target, w, ignore_index, label_smoothing, gloss, lse).plain(cross_entropy_grad_x_plain_kernel)


# -- coalesced ---------------------------------------------------------------------------------------------------------


@jit.typed
def cross_entropy_forward_coalesced_kernel(real):
    """A column of a block one position, in one pass; neighbouring columns have neighbouring positions."""
    add, write, zero = added(real, lines.COLUMN), written(real), real(0)

    def forward(loss, lse, x, target, w, positions, C, S, ignore, hit, spread):
        tops = cuda.shared.array(512, real)
        sums = cuda.shared.array(512, double)
        group, position = my_column(tops, sums), cuda.grid(1)
        begin, units = line(position, positions, C, S)
        m, sum, distance, weight = add(group, x, begin, w, 0, units, S, spread != zero)
        if units > 0 and group.at == 0:
            write(loss, lse, position, m, sum, distance, weight, x, begin, S, target, w, ignore, hit, spread)

    return forward


@kernel("cross_entropy.forward", backend="numba_cuda", variant="coalesced", when=takes, pays=apart)
def cross_entropy_forward_coalesced(x, target, w, *, ignore_index, label_smoothing):
    """Neighbouring threads on neighbouring positions, one pass."""
    return _Call(x, target, w, ignore_index, label_smoothing).columns(cross_entropy_forward_coalesced_kernel)


@jit.typed
def cross_entropy_grad_x_coalesced_kernel(real):
    """The same threads for the same classes; nothing has to meet."""
    of, write, zero = factors(real), grad_written(real), real(0)

    def grad_x(gx, gloss, x, lse, target, w, total, positions, C, S, ignore, hit, spread):
        position = cuda.grid(1)
        if position >= positions:
            return
        begin, units = line(position, positions, C, S)
        row = of(position, gloss, lse, target, w, total, C, ignore, hit, spread)
        write(my_column(0, 0), gx, x, begin, units, S, row, w, spread != zero)

    return grad_x


@kernel("cross_entropy.grad_x", backend="numba_cuda", variant="coalesced", when=takes, pays=apart)
def cross_entropy_grad_x_coalesced(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """Neighbouring threads on neighbouring positions."""
    return _Call(x, target, w, ignore_index, label_smoothing, gloss, lse).columns(cross_entropy_grad_x_coalesced_kernel)


# -- warp --------------------------------------------------------------------------------------------------------------


@jit.typed
def cross_entropy_forward_warp_kernel(real):
    """Neighbouring lanes, ``width`` of them, one position."""
    add, write, zero = added(real, lines.LANES), written(real), real(0)

    def forward(loss, lse, x, target, w, positions, C, width, ignore, hit, spread):
        group, position = my_lanes(width), cuda.grid(1) // width
        begin, units = line(position, positions, C, 1)
        m, sum, distance, weight = add(group, x, begin, w, 0, units, 1, spread != zero)
        if units > 0 and group.at == 0:
            write(loss, lse, position, m, sum, distance, weight, x, begin, 1, target, w, ignore, hit, spread)

    return forward


@kernel("cross_entropy.forward", backend="numba_cuda", variant="warp", when=takes_short)
def cross_entropy_forward_warp(x, target, w, *, ignore_index, label_smoothing):
    """Some lanes of a warp a position."""
    return _Call(x, target, w, ignore_index, label_smoothing).lanes(cross_entropy_forward_warp_kernel)


@jit.typed
def cross_entropy_grad_x_warp_kernel(real):
    """The same lanes for the same classes."""
    of, write, zero = factors(real), grad_written(real), real(0)

    def grad_x(gx, gloss, x, lse, target, w, total, positions, C, width, ignore, hit, spread):
        position = cuda.grid(1) // width
        if position >= positions:
            return
        begin, units = line(position, positions, C, 1)
        row = of(position, gloss, lse, target, w, total, C, ignore, hit, spread)
        write(my_lanes(width), gx, x, begin, units, 1, row, w, spread != zero)

    return grad_x


@kernel("cross_entropy.grad_x", backend="numba_cuda", variant="warp", when=takes_short)
def cross_entropy_grad_x_warp(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """Some lanes of a warp a position."""
    return _Call(x, target, w, ignore_index, label_smoothing, gloss, lse).lanes(cross_entropy_grad_x_warp_kernel)


# -- block -------------------------------------------------------------------------------------------------------------


@kernel("cross_entropy.forward", backend="numba_cuda", variant="block", when=takes_neighbours, pays=long)
def cross_entropy_forward_block(x, target, w, *, ignore_index, label_smoothing):
    """A block a position, which is the only column of its block."""
    return _Call(x, target, w, ignore_index, label_smoothing).columns(cross_entropy_forward_coalesced_kernel)


@kernel("cross_entropy.grad_x", backend="numba_cuda", variant="block", when=takes_neighbours, pays=long)
def cross_entropy_grad_x_block(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """Likewise."""
    return _Call(x, target, w, ignore_index, label_smoothing, gloss, lse).columns(cross_entropy_grad_x_coalesced_kernel)


# -- split -------------------------------------------------------------------------------------------------------------


@jit.typed
def cross_entropy_forward_split_kernel(real):
    """A block one of the ``parts`` segments of a position: it leaves what the segment adds up."""
    add = added(real, lines.COLUMN)

    def forward(tops, sums, x, w, C, parts, smooth):
        top = cuda.shared.array(LONG, real)
        scratch = cuda.shared.array(LONG, double)
        group, at = my_column(top, scratch), cuda.blockIdx.x
        begin, mine, offset = segment(C, parts)
        m, sum, distance, weight = add(group, x, begin, w, offset, mine, 1, smooth)
        if group.at == 0:
            tops[at], sums[3 * at], sums[3 * at + 1], sums[3 * at + 2] = m, sum, distance, weight

    return forward


@jit.typed
def cross_entropy_forward_split_write_kernel(real):
    """The second kernel: a block puts together what the segments of a position left, one a thread."""
    gather, total, write, low = gathered(lines.COLUMN), lines.COLUMN.total, written(real), lines.lowest(real)

    def forward(loss, lse, x, target, w, tops, sums, C, parts, ignore, hit, spread):
        scratch_tops = cuda.shared.array(LONG, real)
        scratch = cuda.shared.array(LONG, double)
        group, position = my_column(scratch_tops, scratch), cuda.blockIdx.x
        top, sum, distance, weight = low, nought, nought, nought
        at = position * parts + group.at
        if group.at < parts:
            top, sum, distance, weight = tops[at], sums[3 * at], sums[3 * at + 1], sums[3 * at + 2]
        m, sum = gather(top, sum, group)
        if weight != nought:  # else there is nothing to move, and the difference may be -inf
            distance += weight * (double(top) - double(m))
        distance, weight = total(distance, group, scratch), total(weight, group, scratch)
        if group.at == 0:
            write(loss, lse, position, m, sum, distance, weight, x, position * C, 1, target, w, ignore, hit, spread)

    return forward


@kernel("cross_entropy.forward", backend="numba_cuda", variant="split", when=takes_neighbours, pays=few)
def cross_entropy_forward_split(x, target, w, *, ignore_index, label_smoothing):
    """Several blocks a position, and a kernel that puts together what they leave."""
    call = _Call(x, target, w, ignore_index, label_smoothing)
    parts = lines.parts_of(call.N, call.C, x)
    tops, sums = empty((call.N * parts,), x), empty((call.N * parts, 3), x, "float64")
    segments = (tops, sums, call.x, call.w, np.int32(call.C), np.int32(parts), bool(label_smoothing))
    cross_entropy_forward_split_kernel(x)((call.N * parts,), (1, LONG), segments)
    return call.launch(cross_entropy_forward_split_write_kernel, call.N, (1, LONG), tops, sums, call.C, parts)
