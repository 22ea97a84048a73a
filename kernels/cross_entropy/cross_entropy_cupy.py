"""cross_entropy on CUDA C++: launchers of cross_entropy.cu, for a GPU and for sim."""
# op: gpunet/ops/cross_entropy.py

from gpunet.dispatch import kernel

from ..common import rows
from ..common.launching import THREADS, contiguous, empty, is_real, kernels
from ..common.shapes import cdiv

BUILDS = {"cross_entropy": [{"SMOOTH": 0}, {"SMOOTH": 1}]}
MOST_THREADS = 512  # for one position's loss
SEGMENT = 4 * THREADS * rows.STEP  # bytes of a position's logits that a block of the gradient takes: four steps


# -- when a rung can, and when it pays; for both entries ---------------------------------------------------------------


def logits(arrays):
    """The x among an entry's arrays: the one with three axes."""
    return next(each for each in arrays if each is not None and each.ndim == 3)


def takes(*arrays, **_):
    """Whether the arrays are of one dtype, float32 or float64, and the classes can be counted in 32 bits."""
    real = is_real(*arrays)
    if real is not True:
        return real
    return logits(arrays).shape[1] < rows.MOST_D or f"it takes fewer than {rows.MOST_D} classes"


def takes_neighbours(*arrays, **_):
    """Whether, besides, the classes of a position are neighbours."""
    fine = takes(*arrays)
    return fine if fine is not True else logits(arrays).shape[2] == 1 or "it takes no axes behind the classes"


def takes_short(*arrays, **_):
    """Whether, besides, a warp can keep them in its registers."""
    fine = takes_neighbours(*arrays)
    if fine is not True:
        return fine
    x = logits(arrays)
    most = rows.WARP * rows.KEPT // x.itemsize
    return x.shape[1] <= most or f"it takes at most {most} classes"


def apart(*arrays, **_):
    """Pays where axes follow the classes."""
    return logits(arrays).shape[2] > 1 or "it pays where axes follow the classes"


def long(*arrays, **_):
    """Pays for more classes than a warp can keep."""
    return takes_short(*arrays) is not True or "it pays for more classes than a warp can keep in registers"


def few(*arrays, **_):
    """Pays for few positions of many classes."""
    x = logits(arrays)
    return rows.is_few(x.shape[0], x.shape[1], x) or "it pays for few positions of many classes"


# -- what the launchers share ------------------------------------------------------------------------------------------


class _Call:
    """One call of either entry: inputs in C order, and the numbers that every kernel takes."""

    def __init__(self, x, target, w, ignore_index, label_smoothing):
        self.x, self.target = contiguous(x), contiguous(target)
        self.w = None if w is None else contiguous(w)
        self.N, self.C, self.S = x.shape
        self.positions = self.N * self.S
        self.smooth = bool(label_smoothing)
        self.settings = (int(ignore_index), 1 - label_smoothing, label_smoothing / max(self.C, 1))
        self.kernels = kernels("cross_entropy", x, SMOOTH=int(self.smooth))

    def columns(self):
        """Blocks, and their threads (positions, threads a position)."""
        most = rows.LONG // 2 // self.x.itemsize
        block = rows.columns(self.positions, self.C, self.x, self.C, most)
        return (cdiv(self.positions, block[0]),), block

    def lanes(self, wide):
        """Lanes a position, and the blocks that take."""
        width = rows.lanes(self.C, self.x.itemsize, wide)
        return width, (cdiv(self.positions, rows.WARPS // width),)


class _Forward(_Call):
    def __init__(self, x, target, w, ignore_index, label_smoothing):
        super().__init__(x, target, w, ignore_index, label_smoothing)
        self.loss, self.lse = empty(target.shape, x), empty(target.shape, x)
        self.inputs = (self.x, self.target, self.w)
        self.wide = rows.is_wide(self.C, self.x)

    def launch(self, rung, grid, block, *sizes):
        """Launches a kernel and returns loss and lse."""
        arguments = (self.loss, self.lse, *self.inputs, *sizes)
        getattr(self.kernels, f"cross_entropy_forward_{rung}")(grid, block, arguments)
        return self.loss, self.lse


class _Grad(_Call):
    def __init__(self, gloss, x, lse, target, w, ignore_index, label_smoothing):
        super().__init__(x, target, w, ignore_index, label_smoothing)
        self.gx = empty(x.shape, x)
        self.wide = rows.is_wide(self.C, self.x)
        self.inputs = (contiguous(gloss), self.x, contiguous(lse), self.target, self.w, self.total())

    def total(self):
        """The sum of w, where smoothing needs it; None where it is C."""
        if self.w is None or not self.smooth:
            return None
        total = empty((1,), self.x, "float64")
        self.kernels.cross_entropy_grad_x_total((1,), (THREADS,), (total, self.w, self.C))
        return total

    def launch(self, rung, grid, block, *sizes):
        """Launches a kernel and returns gx."""
        if self.gx.size:
            arguments = (self.gx, *self.inputs, *sizes)
            getattr(self.kernels, f"cross_entropy_grad_x_{rung}")(grid, block, arguments)
        return self.gx


# -- the rungs ---------------------------------------------------------------------------------------------------------


@kernel("cross_entropy.forward", backend="cupy", variant="plain", when=takes)
def cross_entropy_forward_plain(x, target, w, *, ignore_index, label_smoothing):
    """One thread a position, two passes."""
    call = _Forward(x, target, w, ignore_index, label_smoothing)
    sizes = (call.positions, call.C, call.S, *call.settings)
    return call.launch("plain", (cdiv(call.positions, THREADS),), (THREADS,), *sizes)


@kernel("cross_entropy.grad_x", backend="cupy", variant="plain", when=takes)
def cross_entropy_grad_x_plain(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """One thread a position."""
    call = _Grad(gloss, x, lse, target, w, ignore_index, label_smoothing)
    sizes = (call.positions, call.C, call.S, *call.settings)
    return call.launch("plain", (cdiv(call.positions, THREADS),), (THREADS,), *sizes)


@kernel("cross_entropy.forward", backend="cupy", variant="coalesced", when=takes, pays=apart)
def cross_entropy_forward_coalesced(x, target, w, *, ignore_index, label_smoothing):
    """Neighbouring threads on neighbouring positions, one pass."""
    call = _Forward(x, target, w, ignore_index, label_smoothing)
    return call.launch("coalesced", *call.columns(), call.positions, call.C, call.S, *call.settings)


@kernel("cross_entropy.grad_x", backend="cupy", variant="coalesced", when=takes, pays=apart)
def cross_entropy_grad_x_coalesced(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """Neighbouring threads on neighbouring positions."""
    call = _Grad(gloss, x, lse, target, w, ignore_index, label_smoothing)
    return call.launch("coalesced", *call.columns(), call.positions, call.C, call.S, *call.settings)


@kernel("cross_entropy.forward", backend="cupy", variant="warp", when=takes_short)
def cross_entropy_forward_warp(x, target, w, *, ignore_index, label_smoothing):
    """Some lanes of a warp a position, whose classes stay in their registers."""
    call = _Forward(x, target, w, ignore_index, label_smoothing)
    width, grid = call.lanes(call.wide)
    sizes = (call.positions, call.C, width, *call.settings, call.wide)
    return call.launch("warp", grid, (rows.WARPS,), *sizes)


@kernel("cross_entropy.grad_x", backend="cupy", variant="warp", when=takes_short)
def cross_entropy_grad_x_warp(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """Some lanes of a warp a position."""
    call = _Grad(gloss, x, lse, target, w, ignore_index, label_smoothing)
    width, grid = call.lanes(call.wide)
    sizes = (call.positions, call.C, width, *call.settings, call.wide)
    return call.launch("warp", grid, (rows.WARPS,), *sizes)


@kernel("cross_entropy.forward", backend="cupy", variant="block", when=takes_neighbours, pays=long)
def cross_entropy_forward_block(x, target, w, *, ignore_index, label_smoothing):
    """A block a position, one pass."""
    call = _Forward(x, target, w, ignore_index, label_smoothing)
    threads = min(MOST_THREADS, max(64, rows.power(cdiv(call.C * call.x.itemsize, rows.STEP))))
    return call.launch("block", (call.N,), (threads,), call.C, *call.settings, call.wide)


@kernel("cross_entropy.grad_x", backend="cupy", variant="block", when=takes_neighbours, pays=long)
def cross_entropy_grad_x_block(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """One block or several a position: more for more classes, and for few positions."""
    call = _Grad(gloss, x, lse, target, w, ignore_index, label_smoothing)
    parts = max(cdiv(call.C * call.x.itemsize, SEGMENT), rows.parts_of(call.N, call.C, call.x))
    sizes = (call.C, parts, *call.settings, call.wide)
    return call.launch("block", (call.N * parts,), (THREADS,), *sizes)


@kernel("cross_entropy.forward", backend="cupy", variant="split", when=takes_neighbours, pays=few)
def cross_entropy_forward_split(x, target, w, *, ignore_index, label_smoothing):
    """Several blocks a position, and a kernel that puts together what they leave."""
    call = _Forward(x, target, w, ignore_index, label_smoothing)
    parts = rows.parts_of(call.N, call.C, call.x)
    tops, sums = empty((call.N * parts,), call.x), empty((call.N * parts, 3), call.x, "float64")
    segments = (tops, sums, call.x, call.w, call.C, parts, call.wide)
    call.kernels.cross_entropy_forward_split((call.N * parts,), (THREADS,), segments)
    return call.launch("split_write", (call.N,), (THREADS,), tops, sums, call.C, parts, *call.settings)
