"""Every entry as a call of PyTorch, on the memory that gpunet's kernel reads.

:func:`bind` gives a function without arguments. What PyTorch would have kept from its own forward pass, such as pooling
indices of 64 bits, is made while binding, so that only the entry's own work is in the call. Where PyTorch has two ways
the faster one is taken: an activation in place, for instance. Products and convolutions in 32-bit arithmetic need
:func:`precise`, for PyTorch lets convolutions round their inputs to TF32 unless told otherwise.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

torch: Any = importlib.import_module("torch")
NAME = f"torch {torch.__version__}"
KINDS = ("cpu", "cuda")
LIMITS = True
aten = torch.ops.aten
F = torch.nn.functional

Call = Callable[[], Any]
_BINDERS: dict[str, Callable[..., Call]] = {}
#: entry -> pairs (which of gpunet's outputs, which of PyTorch's) that must agree; others: the first with the first
OUTPUTS: dict[str, tuple[tuple[int, int], ...]] = {
    "batch_norm.forward": ((0, 0), (1, 1), (3, 2)),
    "batch_norm.grad_wb": ((0, 1), (1, 2)),
    "layer_norm.forward": ((0, 0), (1, 1), (2, 2)),
    "layer_norm.grad_wb": ((0, 1), (1, 2)),
    "dropout.forward": (),  # another generator: other elements are dropped
}


@contextmanager
def precise(tf32: bool = False) -> Iterator[None]:
    """Inside, 32-bit products and convolutions run in 32-bit arithmetic; with ``tf32`` on 19-bit inputs."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [each.allow_tf32 for each in places]
    for each in places:
        each.allow_tf32 = tf32
    try:
        yield
    finally:
        for each, value in zip(places, before, strict=True):
            each.allow_tf32 = value


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, PyTorch computes on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def entries() -> tuple[str, ...]:
    """The entries that :func:`bind` knows."""
    return tuple(_BINDERS)


def tensor(array: Any, double: bool = False) -> Any:
    """A NumPy or CuPy array as a tensor on the same memory; ``double`` makes floats float64, in memory of their own."""
    if array is None:
        return None
    on_host = type(array).__module__.partition(".")[0] == "numpy"
    if array.dtype.name == "uint32":  # PyTorch has few operations on them
        array = array.view("int32")
    found = torch.from_numpy(array if array.flags.writeable else array.copy()) if on_host else torch.from_dlpack(array)
    return found.double() if double and found.is_floating_point() else found


def bind(
    entry: str, arrays: tuple[Any, ...], params: dict[str, Any], double: bool = False, channels_last: bool = False
) -> Call:
    """The entry on these arrays as a call of PyTorch without arguments.

    Args:
        entry: such as "conv2d.grad_w".
        arrays: what gpunet's launcher gets: all NumPy, or all CuPy.
        params: its keywords.
        double: whether to compute in float64, for a proof.
        channels_last: whether images lie pixel by pixel, the layout in which PyTorch is often faster; they are laid
            out so while binding, in memory of their own.

    Raises:
        KeyError: PyTorch has no such operation here.
    """
    found = (tensor(each, double) for each in arrays)
    if channels_last:
        found = (each.contiguous(memory_format=torch.channels_last) if _is_image(each) else each for each in found)
    return _BINDERS[entry](*found, **params)


def _is_image(found: Any) -> bool:
    return found is not None and found.ndim == 4


def has_layouts(arrays: tuple[Any, ...]) -> bool:
    """Whether the two layouts of these arrays differ: an image among them has several channels and several pixels."""
    return any(getattr(each, "ndim", 0) == 4 and each.shape[1] > 1 and each[0, 0].size > 1 for each in arrays)


def results(entry: str, ours: Any, theirs: Any) -> list[tuple[Any, Any]]:
    """Pairs of outputs that must agree: gpunet's arrays and PyTorch's tensors."""
    first = ours if isinstance(ours, tuple) else (ours,)
    second = theirs if isinstance(theirs, tuple | list) else (theirs,)
    return [(first[k], second[m]) for k, m in OUTPUTS.get(entry, ((0, 0),))]


def to_array(tensor: Any) -> Any:
    """A tensor's values as an array of the library that belongs to its device."""
    return tensor.numpy() if tensor.device.type == "cpu" else sys.modules["cupy"].from_dlpack(tensor)


def distance(ours: Any, theirs: Any) -> float:
    """Largest difference of gpunet's array from PyTorch's tensor, over the largest value of that; inf for NaN."""
    got, wanted = tensor(ours).double().reshape(theirs.shape), theirs.double()
    if got.numel() == 0:
        return 0.0
    largest = float(wanted.abs().max()) or 1.0
    found = float((got - wanted).abs().max()) / largest
    return found if found == found else float("inf")


def binds(entry: str) -> Callable[[Callable[..., Call]], Callable[..., Call]]:
    def register(binder: Callable[..., Call]) -> Callable[..., Call]:
        _BINDERS[entry] = binder
        return binder

    return register


# ------------------------------------------------------------------------------------------------------- products


@binds("matmul.forward")
def _matmul(a, b, *, transpose_a, transpose_b):
    a, b = a.mT if transpose_a else a, b.mT if transpose_b else b
    return lambda: torch.matmul(a, b)


@binds("matmul.forward_bias")
def _matmul_bias(a, b, bias, *, transpose_a, transpose_b):
    a, b = a.mT if transpose_a else a, b.mT if transpose_b else b
    return lambda: torch.addmm(bias, a, b) if a.ndim == 2 else torch.matmul(a, b).add_(bias)


@binds("matmul.forward_bias_relu")
def _matmul_bias_relu(a, b, bias, **flags):
    product = _matmul_bias(a, b, bias, **flags)
    return lambda: product().relu_()


# ---------------------------------------------------------------------------------------------------- activations


@binds("relu.forward")
@binds("relu.forward_mask")
def _relu(x):
    return lambda: torch.relu(x)


@binds("relu.grad_x")
def _relu_grad_x(gy, y):
    return lambda: aten.threshold_backward(gy, y, 0)


@binds("relu.grad_x_mask")
def _relu_grad_x_mask(gy, mask):
    """PyTorch keeps y: here some y with the same signs."""
    bits = mask.reshape(-1, 1) >> torch.arange(32, device=mask.device, dtype=torch.int32) & 1
    y = bits.reshape(-1)[: gy.numel()].reshape(gy.shape).to(gy.dtype)
    return _relu_grad_x(gy, y)


@binds("leaky_relu.forward")
def _leaky_relu(x, *, negative_slope):
    return lambda: F.leaky_relu(x, negative_slope)


@binds("leaky_relu.grad_x")
def _leaky_relu_grad_x(gy, x, *, negative_slope):
    return lambda: aten.leaky_relu_backward(gy, x, negative_slope, False)


def _slopes(x, w):
    return w if w.numel() == 1 and x.ndim == 0 else w.reshape(-1, *[1] * max(0, x.ndim - 2))


@binds("prelu.forward")
def _prelu(x, w):
    return lambda: F.prelu(x, w)


@binds("prelu.grad_x")
def _prelu_grad_x(gy, x, w):
    slopes = _slopes(x, w).expand(x.shape) if w.numel() == 1 else _slopes(x, w)
    return lambda: aten._prelu_kernel_backward(gy, x, slopes)[0]


@binds("prelu.grad_w")
def _prelu_grad_w(gy, x, w):
    x, w = x.detach(), w.detach().requires_grad_()
    y = F.prelu(x, w)
    return lambda: torch.autograd.grad(y, w, gy, retain_graph=True)[0]


@binds("sigmoid.forward")
def _sigmoid(x):
    return lambda: torch.sigmoid(x)


@binds("sigmoid.grad_x")
def _sigmoid_grad_x(gy, y):
    return lambda: aten.sigmoid_backward(gy, y)


@binds("tanh.forward")
def _tanh(x):
    return lambda: torch.tanh(x)


@binds("tanh.grad_x")
def _tanh_grad_x(gy, y):
    return lambda: aten.tanh_backward(gy, y)


@binds("gelu.forward")
def _gelu(x, *, approximate):
    return lambda: F.gelu(x, approximate=approximate)


@binds("gelu.grad_x")
def _gelu_grad_x(gy, x, *, approximate):
    return lambda: aten.gelu_backward(gy, x, approximate=approximate)


@binds("softplus.forward")
def _softplus(x, *, beta, threshold):
    return lambda: F.softplus(x, beta, threshold)


@binds("softplus.grad_x")
def _softplus_grad_x(gy, x, *, beta, threshold):
    return lambda: aten.softplus_backward(gy, x, beta, threshold)


@binds("dropout.forward")
def _dropout(x, *, p, seed, op, span=1):
    if span > 1:
        return lambda: F.dropout2d(x, p)
    return lambda: aten.native_dropout(x, p, True)


# ----------------------------------------------------------------------------------------------- rows and channels


@binds("softmax.forward")
def _softmax(x, *, axis):
    return lambda: torch.softmax(x, axis)


@binds("softmax.grad_x")
def _softmax_grad_x(gy, y, *, axis):
    return lambda: aten._softmax_backward_data(gy, y, axis, y.dtype)


@binds("log_softmax.forward")
def _log_softmax(x, *, axis):
    return lambda: torch.log_softmax(x, axis)


@binds("log_softmax.grad_x")
def _log_softmax_grad_x(gy, y, *, axis):
    return lambda: aten._log_softmax_backward_data(gy, y, axis, y.dtype)


@binds("cross_entropy.forward")
def _cross_entropy(x, target, w, **rules):
    return lambda: F.cross_entropy(x, target, w, reduction="none", **rules)


@binds("cross_entropy.grad_x")
def _cross_entropy_grad_x(gloss, x, lse, target, w, **rules):
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(x, target, w, reduction="none", **rules)
    return lambda: torch.autograd.grad(loss, x, gloss, retain_graph=True)[0]


@binds("batch_norm.forward")
def _batch_norm(x, w, b, *, eps):
    return lambda: aten.native_batch_norm(x, w, b, None, None, True, 0.0, eps)


@binds("batch_norm.forward_eval")
def _batch_norm_eval(x, mean, var, w, b, *, eps):
    return lambda: aten.native_batch_norm(x, w, b, mean, var, False, 0.0, eps)


def _batch_norm_backward(gy, x, w, mean, invstd, mask):
    return aten.native_batch_norm_backward(gy, x, w, None, None, mean, invstd, True, 1e-5, mask)


@binds("batch_norm.grad_wb")
def _batch_norm_grad_wb(gy, x, mean, invstd):
    w = torch.ones_like(mean)
    return lambda: _batch_norm_backward(gy, x, w, mean, invstd, [False, True, True])


@binds("batch_norm.grad_x")
def _batch_norm_grad_x(gy, x, w, mean, invstd, gw, gb):
    return lambda: _batch_norm_backward(gy, x, w, mean, invstd, [True, False, False])


@binds("batch_norm.grad_x_eval")
def _batch_norm_grad_x_eval(gy, w, invstd):
    factor = (invstd if w is None else w * invstd).reshape(-1, *[1] * (gy.ndim - 2))
    return lambda: gy * factor


@binds("layer_norm.forward")
def _layer_norm(x, w, b, *, eps):
    return lambda: aten.native_layer_norm(x, x.shape[1:], w, b, eps)


def _layer_norm_backward(gy, x, mean, invstd, w, mask):
    return aten.native_layer_norm_backward(gy, x, x.shape[1:], mean[:, None], invstd[:, None], w, w, mask)


@binds("layer_norm.grad_wb")
def _layer_norm_grad_wb(gy, x, mean, invstd):
    w = x.new_ones(x.shape[1:])
    return lambda: _layer_norm_backward(gy, x, mean, invstd, w, [False, True, True])


@binds("layer_norm.grad_x")
def _layer_norm_grad_x(gy, x, w, mean, invstd):
    return lambda: _layer_norm_backward(gy, x, mean, invstd, w, [True, False, False])


from gpunet.bench.peers import pytorch_images  # noqa: E402, F401 its binders register where those above do
