"""Activations, products, normalisation and losses against PyTorch, with their second derivatives."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpunet as gn
import gpunet.functional as F
from tests.peers.twins import assert_close, compare, configurations, dtypes, filled, kinds, normal, seeds, torch

TF = torch.nn.functional
pytestmark = pytest.mark.peers

shapes = st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple)
full_shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
slopes = st.sampled_from([0.0, 0.01, 0.5, 1.0, -0.3])
reductions = st.sampled_from(["mean", "sum", "none"])

ACTIVATIONS: dict[str, tuple[Any, Any]] = {
    "relu": (F.relu, TF.relu),
    "sigmoid": (F.sigmoid, torch.sigmoid),
    "tanh": (F.tanh, torch.tanh),
    "gelu": (F.gelu, TF.gelu),
    "gelu_tanh": (lambda x: F.gelu(x, "tanh"), lambda x: TF.gelu(x, approximate="tanh")),
}


@configurations(300)
@given(st.sampled_from(sorted(ACTIVATIONS)), dtypes, seeds, shapes, kinds, st.sampled_from([1.0, 1.0, 8.0, 100.0]))
def test_activations(name, dtype, seed, shape, kind, scale):
    x = filled(kind, seed, *shape) * scale
    if name == "gelu":  # gelu(inf) is inf; PyTorch's vector form makes it NaN, its scalar form does not
        x = np.where(np.isinf(x), np.nan, x)
    compare("test_activations", *ACTIVATIONS[name], (x,), dtype, seed=seed, second=kind != "special")


@configurations(150)
@given(dtypes, seeds, shapes, kinds, slopes)
def test_leaky_relu(dtype, seed, shape, kind, slope):
    x = filled(kind, seed, *shape)
    ours, theirs = (lambda t: F.leaky_relu(t, slope)), (lambda t: TF.leaky_relu(t, slope))
    compare("test_leaky_relu", ours, theirs, (x,), dtype, seed=seed)


@configurations(120)
@given(dtypes, seeds, shapes, kinds, st.booleans())
def test_prelu(dtype, seed, shape, kind, one):
    count = 1 if one or len(shape) < 2 else shape[1]
    given_ = (filled(kind, seed, *shape), normal(seed + 1, count))
    # At exactly 0 PyTorch's second derivative contradicts its first: the slope is weight there, and then it is 1.
    compare("test_prelu", F.prelu, TF.prelu, given_, dtype, seed=seed, second=kind == "normal")


@configurations(150)
@given(
    dtypes, seeds, shapes, st.sampled_from(["normal", "special"]), st.sampled_from([1.0, 0.3, 4.0]),
    st.sampled_from([20.0, 1.0, 0.0]), st.sampled_from([1.0, 30.0]),
)  # fmt: skip
def test_softplus(dtype, seed, shape, kind, beta, threshold, scale):
    x = filled(kind, seed, *shape) * scale
    ours, theirs = (lambda t: F.softplus(t, beta, threshold)), (lambda t: TF.softplus(t, beta, threshold))
    compare("test_softplus", ours, theirs, (x,), dtype, seed=seed, second=kind != "special")


@configurations(200)
@given(dtypes, seeds, full_shapes, st.integers(-4, 3), kinds, st.booleans(), st.sampled_from([1.0, 50.0, 1000.0]))
def test_softmax(dtype, seed, shape, dim, kind, log, scale):
    x = filled(kind, seed, *shape) * scale
    ours, theirs = (F.log_softmax, TF.log_softmax) if log else (F.softmax, TF.softmax)
    compare(
        "test_softmax", lambda t: ours(t, dim), lambda t: theirs(t, dim), (x,), dtype, seed=seed,
        second=kind != "special",
    )  # fmt: skip


@configurations(200)
@given(
    dtypes, seeds, st.lists(st.integers(0, 3), max_size=2), st.lists(st.booleans(), min_size=4, max_size=4),
    st.tuples(*[st.integers(0, 5)] * 3), st.sampled_from([(2, 2), (2, 2), (2, 2), (1, 2), (2, 1), (1, 1)]),
    st.sampled_from(["normal", "special"]),
)  # fmt: skip
def test_matmul(dtype, seed, batch, ones, sizes, ranks, kind):
    M, K, N = sizes
    left = [1 if one else n for one, n in zip(ones, batch, strict=False)]
    right = [1 if one else n for one, n in zip(ones[2:], batch, strict=False)][-1 if ones[0] else 0 :]
    a = filled(kind, seed, *((*left, M, K) if ranks[0] == 2 else (K,)))
    b = normal(seed + 1, *((*right, K, N) if ranks[1] == 2 else (K,)))
    compare("test_matmul", F.matmul, torch.matmul, (a, b), dtype, seed=seed, second=kind == "normal")


@configurations(100)
@given(dtypes, seeds, st.lists(st.integers(0, 4), max_size=3), st.integers(0, 5), st.integers(1, 5), st.booleans())
def test_linear(dtype, seed, lead, features, out, bias):
    b = normal(seed + 2, out) if bias else None
    given_ = (normal(seed, *lead, features), normal(seed + 1, out, features), b)
    compare("test_linear", F.linear, TF.linear, given_, dtype, seed=seed)


@configurations(200)
@given(
    dtypes, seeds, st.integers(0, 5), st.integers(1, 4), st.lists(st.integers(1, 4), max_size=2), st.booleans(),
    st.booleans(), st.booleans(), st.booleans(), st.sampled_from([0.1, 0.5, 0.0, 1.0]), st.sampled_from([1e-5, 0.1]),
    st.sampled_from([0.0, 0.0, 3.0]),
)  # fmt: skip
def test_batch_norm(dtype, seed, N, C, rest, training, running, scale, shift, momentum, eps, offset):
    if N * math.prod(rest) < 3 and training and N:
        eps = 0.5  # of two values the variance may be tiny, and 1 / sqrt(var) anything
    x = normal(seed, N, C, *rest) + offset
    w, b = (normal(seed + k, C) if use else None for k, use in ((1, scale), (2, shift)))
    statistics = [normal(seed + 3, C), np.abs(normal(seed + 4, C)) + 0.2] if running or not training else [None, None]
    kept: list[tuple[Any, Any]] = []

    def ours(*t: Any) -> Any:
        r = [None if v is None else gn.tensor(v.astype(dtype)) for v in statistics]
        kept[:] = [(r, None)]
        return F.batch_norm(t[0], r[0], r[1], t[1], t[2], training, momentum, eps)

    def theirs(*t: Any) -> Any:
        r = [None if v is None else torch.tensor(v.astype(dtype)) for v in statistics]
        y = TF.batch_norm(t[0], *r, t[1], t[2], training, momentum, eps)
        kept[:] = [(kept[0][0], r)]
        return y

    broken = shift and not scale  # PyTorch's second derivative fails on a bias without a weight
    compare("test_batch_norm", ours, theirs, (x, w, b), dtype, seed=seed, second=not broken, slack=20)
    if statistics[0] is not None and kept[0][1] is not None and N:
        for one, other in zip(*kept[0], strict=True):
            assert_close(one, other, dtype, "a running statistic", 5)


@configurations(120)
@given(
    dtypes, seeds, st.lists(st.integers(0, 4), max_size=2), st.lists(st.integers(2, 5), min_size=1, max_size=2),
    st.booleans(), st.booleans(), st.sampled_from([1e-5, 0.1]),
)  # fmt: skip
def test_layer_norm(dtype, seed, lead, shape, scale, shift, eps):
    w, b = (normal(seed + k, *shape) if use else None for k, use in ((1, scale), (2, shift)))
    if math.prod(shape) < 4:
        eps = 0.5
    given_ = (normal(seed, *lead, *shape), w, b)
    compare(
        "test_layer_norm", lambda x, w, b: F.layer_norm(x, shape, w, b, eps),
        lambda x, w, b: TF.layer_norm(x, shape, w, b, eps), given_, dtype, seed=seed, slack=20,
        second=scale or not shift,  # PyTorch's second derivative fails on a bias without a weight
    )  # fmt: skip


@configurations(120)
@given(dtypes, seeds, st.integers(0, 3), st.integers(1, 4), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]), st.booleans())
def test_dropout(dtype, seed, N, C, p, channels):
    # The masks of the two libraries differ on purpose. With gpunet's mask PyTorch must give the same.
    x = normal(seed, N, C, 3, 2)
    function = F.dropout2d if channels else F.dropout
    gn.manual_seed(seed)
    mask = torch.tensor(function(gn.ones(*x.shape, dtype=dtype), p).numpy())

    def ours(t: Any) -> Any:
        gn.manual_seed(seed)
        return function(t, p)

    compare("test_dropout", ours, lambda t: t * mask, (x,), dtype, seed=seed)
    if channels and mask.numel():
        assert (mask == mask[:, :, :1, :1]).all()


positions = st.lists(st.integers(1, 3), max_size=2)


@configurations(300)
@given(
    dtypes, seeds, st.integers(0, 5), st.integers(1, 5), positions, st.booleans(), reductions,
    st.sampled_from([-100, -100, 0, 2]), st.sampled_from([0.0, 0.0, 0.1, 0.7, 1.0]), st.booleans(),
    st.sampled_from(["normal", "normal", "large", "special"]),
)  # fmt: skip
def test_cross_entropy_of_labels(dtype, seed, N, C, rest, weighted, reduction, ignore, smoothing, single, kind):
    rng = np.random.default_rng(seed)
    shape = (C,) if single else (N, C, *rest)
    x = normal(seed, *shape) * 300 if kind == "large" else filled(kind, seed, *shape)
    target = rng.integers(0, C, () if single else (N, *rest))
    # At ignored positions gpunet's gradient is 0 whatever the logits are; PyTorch's is NaN beside NaN.
    ignored = 0.0 if kind == "special" else 0.2
    target = np.where(rng.random(target.shape) < ignored, ignore, target).astype(np.int64)
    if kind == "special":
        target = np.where(target == ignore, (target + 1) % C, target)
        ignore = -100
    w = (np.abs(normal(seed + 1, C)) + 0.1).astype(dtype) if weighted else None
    args = {"ignore_index": ignore, "reduction": reduction, "label_smoothing": smoothing}

    def ours(x: Any, t: Any) -> Any:
        return F.cross_entropy(x, t, None if w is None else gn.tensor(w), **args)

    def theirs(x: Any, t: Any) -> Any:
        return TF.cross_entropy(x, t, None if w is None else torch.tensor(w), **args)

    compare("test_cross_entropy_of_labels", ours, theirs, (x, target), dtype, seed=seed, second=kind != "special")


@configurations(120)
@given(dtypes, seeds, st.integers(0, 4), st.integers(1, 5), positions, st.booleans(), reductions, st.booleans())
def test_cross_entropy_of_probabilities(dtype, seed, N, C, rest, weighted, reduction, smooth):
    x = normal(seed, N, C, *rest)
    p = np.abs(normal(seed + 1, N, C, *rest))
    w = (np.abs(normal(seed + 2, C)) + 0.1).astype(dtype) if weighted else None
    args = {"reduction": reduction, "label_smoothing": 0.2 if smooth else 0.0}
    compare(
        "test_cross_entropy_of_probabilities",
        lambda x, t: F.cross_entropy(x, t, None if w is None else gn.tensor(w), **args),
        lambda x, t: TF.cross_entropy(x, t, None if w is None else torch.tensor(w), **args),
        (x, p), dtype, seed=seed,
    )  # fmt: skip


@configurations(120)
@given(
    dtypes, seeds, st.integers(0, 5), st.integers(1, 5), positions, st.booleans(), reductions,
    st.sampled_from([-100, 0, 2]), st.sampled_from(["normal", "special"]),
)  # fmt: skip
def test_nll_loss(dtype, seed, N, C, rest, weighted, reduction, ignore, kind):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, C, (N, *rest))
    target = np.where(rng.random(target.shape) < 0.2, ignore, target).astype(np.int64)
    w = (np.abs(normal(seed + 1, C)) + 0.1).astype(dtype) if weighted else None
    args = {"ignore_index": ignore, "reduction": reduction}
    compare(
        "test_nll_loss", lambda x, t: F.nll_loss(x, t, None if w is None else gn.tensor(w), **args),
        lambda x, t: TF.nll_loss(x, t, None if w is None else torch.tensor(w), **args),
        (filled(kind, seed, N, C, *rest), target), dtype, seed=seed,
    )  # fmt: skip


@configurations(120)
@given(st.sampled_from(["mse_loss", "l1_loss"]), dtypes, seeds, shapes, reductions, st.sampled_from(["normal", "ties"]))
def test_distances(name, dtype, seed, shape, reduction, kind):
    given_ = (filled(kind, seed, *shape), filled(kind, seed + 1, *shape))
    ours, theirs = getattr(F, name), getattr(TF, name)
    compare(
        "test_distances", lambda *t: ours(*t, reduction=reduction), lambda *t: theirs(*t, reduction=reduction), given_,
        dtype, seed=seed,
    )  # fmt: skip


@configurations(150)
@given(dtypes, seeds, shapes, reductions, st.booleans(), st.booleans())
def test_binary_cross_entropy(dtype, seed, shape, reduction, weighted, extreme):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.02, 0.98, shape)
    if extreme:
        x = np.where(rng.random(shape) < 0.3, rng.integers(0, 2, shape), x)
    w = np.abs(normal(seed, *shape)).astype(dtype) if weighted else None
    target = rng.random(shape).astype(dtype)
    compare(
        "test_binary_cross_entropy",
        lambda x: F.binary_cross_entropy(
            x, gn.tensor(target), None if w is None else gn.tensor(w), reduction=reduction
        ),
        lambda x: TF.binary_cross_entropy(
            x, torch.tensor(target), None if w is None else torch.tensor(w), reduction=reduction
        ),
        (x,), dtype, seed=seed, second=not extreme,
        slack=100 if extreme else 20,  # PyTorch's bound of 1e-12 on x * (1 - x) is rounded to float32: off by 4e-9
    )  # fmt: skip


@configurations(150)
@given(
    dtypes, seeds, st.lists(st.integers(1, 4), min_size=1, max_size=3), reductions, st.booleans(), st.booleans(),
    st.sampled_from([1.0, 200.0]),
)  # fmt: skip
def test_binary_cross_entropy_with_logits(dtype, seed, shape, reduction, weighted, positive, scale):
    target = np.random.default_rng(seed).random(tuple(shape)).astype(dtype)
    w = np.abs(normal(seed, *shape)).astype(dtype) if weighted else None
    pos = np.abs(normal(seed, shape[-1])).astype(dtype) if positive else None
    compare(
        "test_binary_cross_entropy_with_logits",
        lambda x: F.binary_cross_entropy_with_logits(
            x, gn.tensor(target), None if w is None else gn.tensor(w), reduction=reduction,
            pos_weight=None if pos is None else gn.tensor(pos),
        ),
        lambda x: TF.binary_cross_entropy_with_logits(
            x, torch.tensor(target), None if w is None else torch.tensor(w), reduction=reduction,
            pos_weight=None if pos is None else torch.tensor(pos),
        ),
        (normal(seed + 1, *shape) * scale,), dtype, seed=seed,
    )  # fmt: skip


widths = st.integers(-2, 3)


@configurations(100)
@given(dtypes, seeds, st.lists(st.tuples(st.integers(1, 5), widths, widths), min_size=1, max_size=4), st.integers(0, 3))
def test_pad(dtype, seed, axes, more):
    x = normal(seed, *[1] * more, *(size for size, _, _ in axes[::-1]))
    flat = [width for _, before, after in axes for width in (before, after)]
    # PyTorch cuts first and adds then, and must not run out of elements in between.
    assume(all(size + min(a, 0) + min(b, 0) >= 0 for size, a, b in axes))
    ours, theirs = (lambda t: F.pad(t, flat, value=0.5)), (lambda t: TF.pad(t, flat, value=0.5))
    compare("test_pad", ours, theirs, (x,), dtype, seed=seed)
