"""The oracles of activations, dropout, softmax, normalisation and cross entropy; the rest of tests/oracles.py."""

import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from tests.oracles import exp, filled, mapped, oracle, total

# ----------------------------------------------------------------------------------------------------- activations


@oracle("relu.forward")
def relu_forward(x):
    return mapped(lambda v: v if v > 0 or math.isnan(v) else 0.0, x)


@oracle("relu.grad_x")
def relu_grad_x(gy, y):
    return mapped(lambda g, v: 0.0 if v <= 0 else g, gy, y)


@oracle("relu.forward_mask")
def relu_forward_mask(x):
    y = relu_forward(x)
    words = [0] * -(-x.size // 32)
    for place, value in enumerate(y.reshape(-1).tolist()):
        words[place // 32] |= (0 if value <= 0 else 1) << place % 32
    return y, np.array(words, np.uint32)


@oracle("relu.grad_x_mask")
def relu_grad_x_mask(gy, mask):
    words = mask.tolist()
    passed = [g if words[k // 32] >> k % 32 & 1 else 0.0 for k, g in enumerate(gy.reshape(-1).tolist())]
    return np.array(passed, np.float64).reshape(gy.shape)


@oracle("leaky_relu.forward")
def leaky_relu_forward(x, *, negative_slope):
    return mapped(lambda v: v if v > 0 else negative_slope * v, x)


@oracle("leaky_relu.grad_x")
def leaky_relu_grad_x(gy, x, *, negative_slope):
    return mapped(lambda g, v: g if v > 0 else negative_slope * g, gy, x)


def _slopes(w, x):
    """The slope of every element of x."""
    return np.broadcast_to(
        w.reshape([1] * x.ndim if w.size == 1 else [-1 if a == 1 else 1 for a in range(x.ndim)]), x.shape
    )


@oracle("prelu.forward")
def prelu_forward(x, w):
    return mapped(lambda v, s: v if v > 0 else s * v, x, _slopes(w, x))


@oracle("prelu.grad_x")
def prelu_grad_x(gy, x, w):
    return mapped(lambda g, v, s: g if v > 0 else s * g, gy, x, _slopes(w, x))


@oracle("prelu.grad_w")
def prelu_grad_w(gy, x, w):
    each = mapped(lambda g, v: 0.0 if v > 0 else g * v, gy, x)
    parts = [each] if w.size == 1 else [each[:, c] for c in range(w.size)]
    return np.array([total(part.ravel().tolist()) for part in parts]).reshape(w.shape)


def _sigmoid(v: float) -> float:
    return 1 / (1 + exp(-v)) if v >= 0 or math.isnan(v) else exp(v) / (1 + exp(v))


@oracle("sigmoid.forward")
def sigmoid_forward(x):
    return mapped(_sigmoid, x)


@oracle("sigmoid.grad_x")
def sigmoid_grad_x(gy, y):
    return mapped(lambda g, v: g * v * (1 - v), gy, y)


@oracle("tanh.forward")
def tanh_forward(x):
    return mapped(math.tanh, x)


@oracle("tanh.grad_x")
def tanh_grad_x(gy, y):
    return mapped(lambda g, v: g * (1 - v * v), gy, y)


def _cdf(v: float) -> float:
    return math.erfc(-v / math.sqrt(2)) / 2


def _inner(v: float) -> float:
    return math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)


@oracle("gelu.forward")
def gelu_forward(x, *, approximate):
    return mapped(lambda v: v * (_cdf(v) if approximate == "none" else _sigmoid(2 * _inner(v))), x)


@oracle("gelu.grad_x")
def gelu_grad_x(gy, x, *, approximate):
    def slope(v: float) -> float:
        if approximate == "none":
            return _cdf(v) + v * exp(-v * v / 2) / math.sqrt(2 * math.pi)
        s = _sigmoid(2 * _inner(v))
        return s + v * s * (1 - s) * 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * v * v)

    return mapped(lambda g, v: g * slope(v), gy, x)


@oracle("softplus.forward")
def softplus_forward(x, *, beta, threshold):
    def one(v: float) -> float:
        z = beta * v
        if z > threshold:
            return v
        return (z + math.log1p(exp(-z)) if z > 0 else math.log1p(exp(z))) / beta

    return mapped(one, x)


@oracle("softplus.grad_x")
def softplus_grad_x(gy, x, *, beta, threshold):
    return mapped(lambda g, v: g if beta * v > threshold else g * _sigmoid(beta * v), gy, x)


# --------------------------------------------------------------------------------------------------------- dropout


@cache
def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    """Philox4x32-10 in integers of any length."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(c[0] * 0xD2511F53, 2**32)
        high1, low1 = divmod(c[2] * 0xCD9E8D57, 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@oracle("dropout.forward")
def dropout_forward(x, *, p, seed, op, span=1):
    y = {}
    for element, index in enumerate(np.ndindex(x.shape)):
        block, lane = divmod(element // span, 4)
        counter = (block % 2**32, block >> 32, seed >> 32, op >> 32)
        word = philox(counter, (seed % 2**32, op % 2**32))[lane]
        kept = word >= p * 2**32
        y[index] = x[index].item() * (1 / (1 - p) if kept else 0.0)
    return filled(x.shape, y)


# ------------------------------------------------------------------------------------------- softmax, cross entropy


def _per_row(function: Callable[..., list[float]], axis: int, *arrays: np.ndarray) -> np.ndarray:
    """``function`` of each row along the axis, which it maps to a row."""
    moved = [np.moveaxis(a, axis, -1) for a in arrays]
    out = np.zeros(moved[0].shape)
    for k in np.ndindex(out.shape[:-1]):
        out[k] = function(*(m[k].tolist() for m in moved))
    return np.moveaxis(out, -1, axis)


def log_sum(row: list[float]) -> tuple[float, float]:
    """The largest number of a row, and log(sum(exp(row - largest)))."""
    if any(math.isnan(v) for v in row):
        return math.nan, math.nan
    top = max(row)
    if math.isinf(top):
        return top, math.nan
    return top, math.log(total(exp(v - top) for v in row))


def _log_softmax(row: list[float]) -> list[float]:
    top, rest = log_sum(row)
    return [v - top - rest for v in row]


@oracle("softmax.forward")
def softmax_forward(x, *, axis):
    return _per_row(lambda row: [exp(v) for v in _log_softmax(row)], axis, x)


@oracle("softmax.grad_x")
def softmax_grad_x(gy, y, *, axis):
    def row(g: list[float], p: list[float]) -> list[float]:
        level = total(a * b for a, b in zip(g, p, strict=True))
        return [b * (a - level) for a, b in zip(g, p, strict=True)]

    return _per_row(row, axis, gy, y)


@oracle("log_softmax.forward")
def log_softmax_forward(x, *, axis):
    return _per_row(_log_softmax, axis, x)


@oracle("log_softmax.grad_x")
def log_softmax_grad_x(gy, y, *, axis):
    return _per_row(lambda g, v: [a - exp(b) * total(g) for a, b in zip(g, v, strict=True)], axis, gy, y)


def _positions(x, target, w) -> Iterator[tuple[tuple[int, int], list[float], int, list[float]]]:
    for n, s in np.ndindex(*target.shape):
        yield (n, s), x[n, :, s].tolist(), target[n, s].item(), [1.0] * x.shape[1] if w is None else w.tolist()


@oracle("cross_entropy.forward")
def cross_entropy_forward(x, target, w, *, ignore_index, label_smoothing):
    loss, lse = {}, {}
    for at, row, t, weights in _positions(x, target, w):
        top, rest = log_sum(row)
        lse[at] = top + rest
        if t != ignore_index:
            costs = [rest + (top - v) for v in row]  # so that a common offset costs no digits
            loss[at] = (1 - label_smoothing) * weights[t] * costs[t]
            if label_smoothing:
                loss[at] += label_smoothing / len(row) * total(a * b for a, b in zip(weights, costs, strict=True))
    return filled(target.shape, loss), filled(target.shape, lse)


@oracle("cross_entropy.grad_x")
def cross_entropy_grad_x(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    gx = {}
    for (n, s), row, t, weights in _positions(x, target, w):
        for c, v in enumerate(row):
            if t != ignore_index:
                p = exp(v - lse[n, s].item())
                hit = (1 - label_smoothing) * weights[t] * (p - (c == t))
                spread = label_smoothing / len(row) * (total(weights) * p - weights[c])
                gx[n, c, s] = gloss[n, s].item() * (hit + spread if label_smoothing else hit)
    return filled(x.shape, gx)


# ---------------------------------------------------------------------------------------------------- normalisation


def _ones(v, size: int) -> list[float]:
    return [1.0] * size if v is None else v.tolist()


def _zeros(v, size: int) -> list[float]:
    return [0.0] * size if v is None else v.tolist()


def _statistics(values: list[float], eps: float) -> tuple[float, float, float]:
    if not values:
        return math.nan, math.nan, math.nan
    mean = total(values) / len(values)
    var = total((v - mean) ** 2 for v in values) / len(values)
    return mean, var, 1 / math.sqrt(var + eps)


@oracle("batch_norm.forward")
def batch_norm_forward(x, w, b, *, eps):
    C = x.shape[1]
    found = [_statistics(x[:, c].ravel().tolist(), eps) for c in range(C)]
    y = np.zeros(x.shape)
    for c, (mean, _, invstd) in enumerate(found):
        y[:, c] = mapped(lambda v, m=mean, i=invstd, c=c: (v - m) * i * _ones(w, C)[c] + _zeros(b, C)[c], x[:, c])
    return (y, *(np.array(each) for each in zip(*found, strict=True)))


@oracle("batch_norm.forward_eval")
def batch_norm_forward_eval(x, mean, var, w, b, *, eps):
    C = x.shape[1]
    y = np.zeros(x.shape)
    for c in range(C):
        scale = _ones(w, C)[c] / math.sqrt(var[c].item() + eps)
        y[:, c] = mapped(lambda v, c=c, s=scale: (v - mean[c].item()) * s + _zeros(b, C)[c], x[:, c])
    return y


@oracle("batch_norm.grad_wb")
def batch_norm_grad_wb(gy, x, mean, invstd):
    gw, gb = [], []
    for c in range(x.shape[1]):
        g, v = gy[:, c].ravel().tolist(), x[:, c].ravel().tolist()
        gw.append(total(a * (b - mean[c].item()) * invstd[c].item() for a, b in zip(g, v, strict=True)))
        gb.append(total(g))
    return np.array(gw), np.array(gb)


@oracle("batch_norm.grad_x")
def batch_norm_grad_x(gy, x, w, mean, invstd, gw, gb):
    C = x.shape[1]
    M = x.size // C
    gx = np.zeros(x.shape)
    for c in range(C):
        m, i, p, q, scale = (v[c].item() for v in (mean, invstd, gw, gb, np.array(_ones(w, C))))
        gx[:, c] = mapped(
            lambda g, v, m=m, i=i, p=p, q=q, s=scale: s * i * (g - q / M - (v - m) * i * p / M), gy[:, c], x[:, c]
        )
    return gx


@oracle("batch_norm.grad_x_eval")
def batch_norm_grad_x_eval(gy, w, invstd):
    scale = np.array(_ones(w, gy.shape[1])) * invstd
    return gy * scale.reshape(-1, *[1] * (gy.ndim - 2))


@oracle("layer_norm.forward")
def layer_norm_forward(x, w, b, *, eps):
    R, D = x.shape
    found = [_statistics(row, eps) for row in x.tolist()]
    scale, shift = _ones(w, D), _zeros(b, D)
    y = {(r, d): (x[r, d].item() - m) * i * scale[d] + shift[d] for r, (m, _, i) in enumerate(found) for d in range(D)}
    return filled((R, D), y), np.array([f[0] for f in found]), np.array([f[2] for f in found])


@oracle("layer_norm.grad_wb")
def layer_norm_grad_wb(gy, x, mean, invstd):
    xhat = mapped(lambda v, m, i: (v - m) * i, x, *(np.broadcast_to(v[:, None], x.shape) for v in (mean, invstd)))
    columns = range(x.shape[1])
    gw = [total(a * b for a, b in zip(gy[:, d].tolist(), xhat[:, d].tolist(), strict=True)) for d in columns]
    return np.array(gw), np.array([total(gy[:, d].tolist()) for d in columns])


@oracle("layer_norm.grad_x")
def layer_norm_grad_x(gy, x, w, mean, invstd):
    R, D = x.shape
    scale, gx = _ones(w, D), {}
    for r in range(R):
        m, i = mean[r].item(), invstd[r].item()
        xhat = [(v - m) * i for v in x[r].tolist()]
        g = [a * b for a, b in zip(gy[r].tolist(), scale, strict=True)]
        level, slope = total(g) / D, total(a * b for a, b in zip(g, xhat, strict=True)) / D
        for d in range(D):
            gx[r, d] = i * (g[d] - level - xhat[d] * slope)
    return filled((R, D), gx)
