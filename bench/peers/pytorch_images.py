"""Convolution and pooling as calls of PyTorch: the entries that look at images, for which it knows two layouts."""

from gpunet.bench.peers.pytorch import F, aten, binds, torch


def _blank(like, shape):
    """Numbers that are never read, where only shape and layout count: the layout is that of ``like``."""
    last = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


# ---------------------------------------------------------------------------------------------------- convolution


def _padded(x, padding):
    """x and the padding left for the convolution: PyTorch's own knows only equal sides."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom)), (0, 0)


@binds("conv2d.forward")
def _conv2d(x, w, b, *, stride, padding, dilation, groups):
    x, sides = _padded(x, padding)
    return lambda: F.conv2d(x, w, b, stride, sides, dilation, groups)


@binds("conv2d.forward_relu")
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


@binds("conv2d.grad_x")
def _conv2d_grad_x(gy, w, *, input_size, groups, **geometry):
    x = _blank(gy, (gy.shape[0], w.shape[1] * groups, *input_size))
    return _conv_backward(gy, x, w, "x", groups=groups, **geometry)


@binds("conv2d.grad_w")
def _conv2d_grad_w(gy, x, *, kernel_size, groups, **geometry):
    w = _blank(x, (gy.shape[1], x.shape[1] // groups, *kernel_size))
    return _conv_backward(gy, x, w, "w", groups=groups, **geometry)


@binds("conv2d.grad_b")
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


@binds("max_pool2d.forward")
def _max_pool2d(x, *, output_size, **windows):
    ceil = _is_ceil(x.shape[2:], output_size, **windows)
    return lambda: aten.max_pool2d_with_indices(x, *windows.values(), ceil)


@binds("max_pool2d.grad_x")
def _max_pool2d_grad_x(gy, index, *, input_size, **windows):
    x = _blank(gy, (*gy.shape[:2], *input_size))
    places = _places(index, input_size, **windows)
    ceil = _is_ceil(input_size, gy.shape[2:], **windows)
    return lambda: aten.max_pool2d_with_indices_backward(gy, x, *windows.values(), ceil, places)


@binds("max_pool2d.gather")
def _max_pool2d_gather(x, index, **windows):
    places = _places(index, x.shape[2:], **windows)
    return lambda: torch.gather(x.flatten(2), 2, places.flatten(2)).reshape(places.shape)


def _average(size, output_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    ceil = _is_ceil(size, output_size, kernel_size, stride, padding)
    return kernel_size, stride, padding, ceil, count_include_pad, divisor_override


@binds("avg_pool2d.forward")
def _avg_pool2d(x, *, output_size, **windows):
    rules = _average(x.shape[2:], output_size, **windows)
    return lambda: aten.avg_pool2d(x, *rules)


@binds("avg_pool2d.grad_x")
def _avg_pool2d_grad_x(gy, *, input_size, **windows):
    x = _blank(gy, (*gy.shape[:2], *input_size))
    rules = _average(input_size, gy.shape[2:], **windows)
    return lambda: aten.avg_pool2d_backward(gy, x, *rules)


@binds("adaptive_avg_pool2d.forward")
def _adaptive_avg_pool2d(x, *, output_size):
    return lambda: aten._adaptive_avg_pool2d(x, output_size)


@binds("adaptive_avg_pool2d.grad_x")
def _adaptive_avg_pool2d_grad_x(gy, *, input_size):
    x = _blank(gy, (*gy.shape[:2], *input_size))
    return lambda: aten._adaptive_avg_pool2d_backward(gy, x)


@binds("adaptive_max_pool2d.forward")
def _adaptive_max_pool2d(x, *, output_size):
    return lambda: aten.adaptive_max_pool2d(x, output_size)


@binds("adaptive_max_pool2d.grad_x")
def _adaptive_max_pool2d_grad_x(gy, index, *, input_size):
    x = _blank(gy, (*gy.shape[:2], *input_size))
    return lambda: aten.adaptive_max_pool2d_backward(gy, x, index)


@binds("adaptive_max_pool2d.gather")
def _adaptive_max_pool2d_gather(x, index):
    return lambda: torch.gather(x.flatten(2), 2, index.flatten(2)).reshape(index.shape)
