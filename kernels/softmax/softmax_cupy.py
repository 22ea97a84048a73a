"""softmax on CUDA C++: launchers of softmax.cu, for a GPU and for sim."""
# op: gpunet/ops/softmax.py

from gpunet.dispatch import kernel

from ..common import rows

BUILDS = {"softmax": [{}]}


@kernel("softmax.forward", backend="cupy", variant="plain", when=rows.takes)
def softmax_forward_plain(x, *, axis):
    """One thread a row, three passes."""
    return rows.plain("softmax", "forward", axis, x)


@kernel("softmax.grad_x", backend="cupy", variant="plain", when=rows.takes)
def softmax_grad_x_plain(gy, y, *, axis):
    """One thread a row, two passes."""
    return rows.plain("softmax", "grad_x", axis, gy, y)


@kernel("softmax.forward", backend="cupy", variant="coalesced", when=rows.takes, pays=rows.apart)
def softmax_forward_coalesced(x, *, axis):
    """Neighbouring threads on neighbouring rows; for an axis that is not the last."""
    return rows.coalesced("softmax", "forward", axis, x)


@kernel("softmax.grad_x", backend="cupy", variant="coalesced", when=rows.takes, pays=rows.apart)
def softmax_grad_x_coalesced(gy, y, *, axis):
    """Neighbouring threads on neighbouring rows; for an axis that is not the last."""
    return rows.coalesced("softmax", "grad_x", axis, gy, y)


@kernel("softmax.forward", backend="cupy", variant="warp", when=rows.takes_short)
def softmax_forward_warp(x, *, axis):
    """Some lanes of a warp a row, which stays in their registers."""
    return rows.warp("softmax", "forward", axis, x)


@kernel("softmax.grad_x", backend="cupy", variant="warp", when=rows.takes_short)
def softmax_grad_x_warp(gy, y, *, axis):
    """Some lanes of a warp a row; gy and y stay in their registers."""
    return rows.warp("softmax", "grad_x", axis, gy, y)


@kernel("softmax.forward", backend="cupy", variant="block", when=rows.takes_neighbours, pays=rows.long)
def softmax_forward_block(x, *, axis):
    """A block a row, in registers if it fits, else in two passes."""
    return rows.block("softmax", "forward", axis, x)


@kernel("softmax.grad_x", backend="cupy", variant="block", when=rows.takes_neighbours, pays=rows.long)
def softmax_grad_x_block(gy, y, *, axis):
    """A block a row, in registers if it fits, else in two passes."""
    return rows.block("softmax", "grad_x", axis, gy, y)


@kernel("softmax.forward", backend="cupy", variant="split", when=rows.takes_neighbours, pays=rows.few)
def softmax_forward_split(x, *, axis):
    """Several blocks a row, for few long rows."""
    return rows.split("softmax", "forward", axis, x)


@kernel("softmax.grad_x", backend="cupy", variant="split", when=rows.takes_neighbours, pays=rows.few)
def softmax_grad_x_split(gy, y, *, axis):
    """Several blocks a row, for few long rows."""
    return rows.split("softmax", "grad_x", axis, gy, y)
