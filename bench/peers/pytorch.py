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


def bind(entry: str, arrays: tuple[Any, ...], params: dict[str, Any], double: bool = False) -> Call:
    """The entry on these arrays as a call of PyTorch without arguments.

    Args:
        entry: such as "conv2d.grad_w".
        arrays: what gpunet's launcher gets: all NumPy, or all CuPy.
        params: its keywords.
        double: whether to compute in float64, for a proof.

    Raises:
        KeyError: PyTorch has no such operation here.
    """
    return _BINDERS[entry](*(tensor(each, double) for each in arrays), **params)


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


def _binds(entry: str) -> Callable[[Callable[..., Call]], Callable[..., Call]]:
    def register(binder: Callable[..., Call]) -> Callable[..., Call]:
        _BINDERS[entry] = binder
        return binder

    return register


# ------------------------------------------------------------------------------------------------------- products


@_binds("matmul.forward")
def _matmul(a, b, *, transpose_a, transpose_b):
    a, b = a.mT if transpose_a else a, b.mT if transpose_b else b
    return lambda: torch.matmul(a, b)


@_binds("matmul.forward_bias")
def _matmul_bias(a, b, bias, *, transpose_a, transpose_b):
    a, b = a.mT if transpose_a else a, b.mT if transpose_b else b
    return lambda: torch.addmm(bias, a, b) if a.ndim == 2 else torch.matmul(a, b).add_(bias)


@_binds("matmul.forward_bias_relu")
def _matmul_bias_relu(a, b, bias, **flags):
    product = _matmul_bias(a, b, bias, **flags)
    return lambda: product().relu_()


def _padded(x, padding):
    """x and the padding left for the convolution: PyTorch's own knows only equal sides."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom)), (0, 0)


@_binds("conv2d.forward")
def _conv2d(x, w, b, *, stride, padding, dilation, groups):
    x, sides = _padded(x, padding)
    return lambda: F.conv2d(x, w, b, stride, sides, dilation, groups)


@_binds("conv2d.forward_relu")
def _conv2d_relu(x, w, b, **geometry):
    sums = _conv2d(x, w, b, **geometry)
    return lambda: sums().relu_()


def _conv_backward(gy, x, w, wanted, *, stride, padding, dilation, groups):
    """Of aten's gradients the one that is wanted; x and w may be uninitialised where only their shapes count."""
    top, _, left, _ = padding
    mask = [each == wanted for each in ("x", "w", "b")]
    full, sides = _padded(x, padding)

    def call():
        return aten.convolution_backward(gy, full, w, None, stride, sides, dilation, False, (0, 0), groups, mask)

    if wanted == "w":
        return lambda: call()[1]
    if full is x:
        return lambda: call()[0]
    H, W = x.shape[2:]
    return lambda: call()[0][:, :, top : top + H, left : left + W]


@_binds("conv2d.grad_x")
def _conv2d_grad_x(gy, w, *, input_size, groups, **geometry):
    x = gy.new_empty((gy.shape[0], w.shape[1] * groups, *input_size))
    return _conv_backward(gy, x, w, "x", groups=groups, **geometry)


@_binds("conv2d.grad_w")
def _conv2d_grad_w(gy, x, *, kernel_size, groups, **geometry):
    w = x.new_empty((gy.shape[1], x.shape[1] // groups, *kernel_size))
    return _conv_backward(gy, x, w, "w", groups=groups, **geometry)


@_binds("conv2d.grad_b")
def _conv2d_grad_b(gy):
    return lambda: gy.sum((0, 2, 3))


# -------------------------------------------------------------------------------------------------------- pooling


def _is_ceil(size, output_size, kernel_size, stride, padding, dilation=(1, 1)):
    """Whether the outputs are more than the windows that fit entirely: PyTorch asks for the rule, not the size."""
    fit = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel_size, stride, padding, dilation, strict=True)
    ]
    return tuple(fit) != tuple(output_size)


def _places(index, size, kernel_size, stride, padding, dilation):
    """Positions in the window as places in the image, int64: what PyTorch's forward pass would have kept."""
    position = index.to(torch.int64)
    OH, OW = index.shape[2:]
    rows = torch.arange(OH, device=index.device).reshape(-1, 1) * stride[0] - padding[0]
    columns = torch.arange(OW, device=index.device) * stride[1] - padding[1]
    row = rows + position // kernel_size[1] * dilation[0]
    return row * size[1] + columns + position % kernel_size[1] * dilation[1]


@_binds("max_pool2d.forward")
def _max_pool2d(x, *, output_size, **windows):
    ceil = _is_ceil(x.shape[2:], output_size, **windows)
    return lambda: aten.max_pool2d_with_indices(x, *windows.values(), ceil)


@_binds("max_pool2d.grad_x")
def _max_pool2d_grad_x(gy, index, *, input_size, **windows):
    x = gy.new_empty((*gy.shape[:2], *input_size))
    places = _places(index, input_size, **windows)
    ceil = _is_ceil(input_size, gy.shape[2:], **windows)
    return lambda: aten.max_pool2d_with_indices_backward(gy, x, *windows.values(), ceil, places)


@_binds("max_pool2d.gather")
def _max_pool2d_gather(x, index, **windows):
    places = _places(index, x.shape[2:], **windows)
    return lambda: torch.gather(x.flatten(2), 2, places.flatten(2)).reshape(places.shape)


def _average(size, output_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    ceil = _is_ceil(size, output_size, kernel_size, stride, padding)
    return kernel_size, stride, padding, ceil, count_include_pad, divisor_override


@_binds("avg_pool2d.forward")
def _avg_pool2d(x, *, output_size, **windows):
    rules = _average(x.shape[2:], output_size, **windows)
    return lambda: aten.avg_pool2d(x, *rules)


@_binds("avg_pool2d.grad_x")
def _avg_pool2d_grad_x(gy, *, input_size, **windows):
    x = gy.new_empty((*gy.shape[:2], *input_size))
    rules = _average(input_size, gy.shape[2:], **windows)
    return lambda: aten.avg_pool2d_backward(gy, x, *rules)


@_binds("adaptive_avg_pool2d.forward")
def _adaptive_avg_pool2d(x, *, output_size):
    return lambda: aten._adaptive_avg_pool2d(x, output_size)


@_binds("adaptive_avg_pool2d.grad_x")
def _adaptive_avg_pool2d_grad_x(gy, *, input_size):
    x = gy.new_empty((*gy.shape[:2], *input_size))
    return lambda: aten._adaptive_avg_pool2d_backward(gy, x)


@_binds("adaptive_max_pool2d.forward")
def _adaptive_max_pool2d(x, *, output_size):
    return lambda: aten.adaptive_max_pool2d(x, output_size)


@_binds("adaptive_max_pool2d.grad_x")
def _adaptive_max_pool2d_grad_x(gy, index, *, input_size):
    x = gy.new_empty((*gy.shape[:2], *input_size))
    return lambda: aten.adaptive_max_pool2d_backward(gy, x, index)


@_binds("adaptive_max_pool2d.gather")
def _adaptive_max_pool2d_gather(x, index):
    return lambda: torch.gather(x.flatten(2), 2, index.flatten(2)).reshape(index.shape)


# ---------------------------------------------------------------------------------------------------- activations


@_binds("relu.forward")
@_binds("relu.forward_mask")
def _relu(x):
    return lambda: torch.relu(x)


@_binds("relu.grad_x")
def _relu_grad_x(gy, y):
    return lambda: aten.threshold_backward(gy, y, 0)


@_binds("relu.grad_x_mask")
def _relu_grad_x_mask(gy, mask):
    """PyTorch keeps y: here some y with the same signs."""
    bits = mask.reshape(-1, 1) >> torch.arange(32, device=mask.device, dtype=torch.int32) & 1
    y = bits.reshape(-1)[: gy.numel()].reshape(gy.shape).to(gy.dtype)
    return _relu_grad_x(gy, y)


@_binds("leaky_relu.forward")
def _leaky_relu(x, *, negative_slope):
    return lambda: F.leaky_relu(x, negative_slope)


@_binds("leaky_relu.grad_x")
def _leaky_relu_grad_x(gy, x, *, negative_slope):
    return lambda: aten.leaky_relu_backward(gy, x, negative_slope, False)


def _slopes(x, w):
    return w if w.numel() == 1 and x.ndim == 0 else w.reshape(-1, *[1] * max(0, x.ndim - 2))


@_binds("prelu.forward")
def _prelu(x, w):
    return lambda: F.prelu(x, w)


@_binds("prelu.grad_x")
def _prelu_grad_x(gy, x, w):
    slopes = _slopes(x, w).expand(x.shape) if w.numel() == 1 else _slopes(x, w)
    return lambda: aten._prelu_kernel_backward(gy, x, slopes)[0]


@_binds("prelu.grad_w")
def _prelu_grad_w(gy, x, w):
    x, w = x.detach(), w.detach().requires_grad_()
    y = F.prelu(x, w)
    return lambda: torch.autograd.grad(y, w, gy, retain_graph=True)[0]


@_binds("sigmoid.forward")
def _sigmoid(x):
    return lambda: torch.sigmoid(x)


@_binds("sigmoid.grad_x")
def _sigmoid_grad_x(gy, y):
    return lambda: aten.sigmoid_backward(gy, y)


@_binds("tanh.forward")
def _tanh(x):
    return lambda: torch.tanh(x)


@_binds("tanh.grad_x")
def _tanh_grad_x(gy, y):
    return lambda: aten.tanh_backward(gy, y)


@_binds("gelu.forward")
def _gelu(x, *, approximate):
    return lambda: F.gelu(x, approximate=approximate)


@_binds("gelu.grad_x")
def _gelu_grad_x(gy, x, *, approximate):
    return lambda: aten.gelu_backward(gy, x, approximate=approximate)


@_binds("softplus.forward")
def _softplus(x, *, beta, threshold):
    return lambda: F.softplus(x, beta, threshold)


@_binds("softplus.grad_x")
def _softplus_grad_x(gy, x, *, beta, threshold):
    return lambda: aten.softplus_backward(gy, x, beta, threshold)


@_binds("dropout.forward")
def _dropout(x, *, p, seed, op, span=1):
    if span > 1:
        return lambda: F.dropout2d(x, p)
    return lambda: aten.native_dropout(x, p, True)


# ----------------------------------------------------------------------------------------------- rows and channels


@_binds("softmax.forward")
def _softmax(x, *, axis):
    return lambda: torch.softmax(x, axis)


@_binds("softmax.grad_x")
def _softmax_grad_x(gy, y, *, axis):
    return lambda: aten._softmax_backward_data(gy, y, axis, y.dtype)


@_binds("log_softmax.forward")
def _log_softmax(x, *, axis):
    return lambda: torch.log_softmax(x, axis)


@_binds("log_softmax.grad_x")
def _log_softmax_grad_x(gy, y, *, axis):
    return lambda: aten._log_softmax_backward_data(gy, y, axis, y.dtype)


@_binds("cross_entropy.forward")
def _cross_entropy(x, target, w, **rules):
    return lambda: F.cross_entropy(x, target, w, reduction="none", **rules)


@_binds("cross_entropy.grad_x")
def _cross_entropy_grad_x(gloss, x, lse, target, w, **rules):
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(x, target, w, reduction="none", **rules)
    return lambda: torch.autograd.grad(loss, x, gloss, retain_graph=True)[0]


@_binds("batch_norm.forward")
def _batch_norm(x, w, b, *, eps):
    return lambda: aten.native_batch_norm(x, w, b, None, None, True, 0.0, eps)


@_binds("batch_norm.forward_eval")
def _batch_norm_eval(x, mean, var, w, b, *, eps):
    return lambda: aten.native_batch_norm(x, w, b, mean, var, False, 0.0, eps)


def _batch_norm_backward(gy, x, w, mean, invstd, mask):
    return aten.native_batch_norm_backward(gy, x, w, None, None, mean, invstd, True, 1e-5, mask)


@_binds("batch_norm.grad_wb")
def _batch_norm_grad_wb(gy, x, mean, invstd):
    w = torch.ones_like(mean)
    return lambda: _batch_norm_backward(gy, x, w, mean, invstd, [False, True, True])


@_binds("batch_norm.grad_x")
def _batch_norm_grad_x(gy, x, w, mean, invstd, gw, gb):
    return lambda: _batch_norm_backward(gy, x, w, mean, invstd, [True, False, False])


@_binds("batch_norm.grad_x_eval")
def _batch_norm_grad_x_eval(gy, w, invstd):
    factor = (invstd if w is None else w * invstd).reshape(-1, *[1] * (gy.ndim - 2))
    return lambda: gy * factor


@_binds("layer_norm.forward")
def _layer_norm(x, w, b, *, eps):
    return lambda: aten.native_layer_norm(x, x.shape[1:], w, b, eps)


def _layer_norm_backward(gy, x, mean, invstd, w, mask):
    return aten.native_layer_norm_backward(gy, x, x.shape[1:], mean[:, None], invstd[:, None], w, w, mask)


@_binds("layer_norm.grad_wb")
def _layer_norm_grad_wb(gy, x, mean, invstd):
    w = x.new_ones(x.shape[1:])
    return lambda: _layer_norm_backward(gy, x, mean, invstd, w, [False, True, True])


@_binds("layer_norm.grad_x")
def _layer_norm_grad_x(gy, x, w, mean, invstd):
    return lambda: _layer_norm_backward(gy, x, mean, invstd, w, [True, False, False])
