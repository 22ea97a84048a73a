"""Tensor operators, reductions, shapes and indexing against PyTorch, with dtype promotion and second derivatives."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpunet as gn
from tests.peers.twins import both, compare, configurations, dtypes, filled, kinds, normal, seeds, torch, tried

pytestmark = pytest.mark.peers

shapes = st.lists(st.integers(0, 4), min_size=0, max_size=3).map(tuple)
full_shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
numbers = st.sampled_from([0, 1, 2, -1, 0.5, -2.0, 3])


@st.composite
def broadcast_pairs(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that broadcast: ones here and there, and leading axes left out."""
    shape = draw(st.lists(st.integers(1, 4), max_size=3))
    a, b = (tuple(1 if draw(st.booleans()) and draw(st.booleans()) else n for n in shape) for _ in range(2))
    return (a[draw(st.integers(0, len(a))) :], b) if draw(st.booleans()) else (a, b)


UNARY: dict[str, tuple[Any, Any]] = {
    "neg": (lambda x: -x, lambda x: -x),
    "exp": (gn.exp, torch.exp),
    "log": (gn.log, torch.log),
    "sqrt": (gn.sqrt, torch.sqrt),
    "abs": (gn.abs, torch.abs),
    "sin": (gn.sin, torch.sin),
    "cos": (gn.cos, torch.cos),
    "clip": (lambda x: x.clip(-0.5, 1), lambda x: x.clip(-0.5, 1)),
    "clip_low": (lambda x: x.clip(min=0), lambda x: x.clip(min=0)),
    "clip_high": (lambda x: gn.clip(x, max=0.25), lambda x: torch.clip(x, max=0.25)),
    "plus": (lambda x: 2 + x, lambda x: 2 + x),
    "minus": (lambda x: 1.5 - x, lambda x: 1.5 - x),
    "over": (lambda x: 1 / x, lambda x: 1 / x),
    "times": (lambda x: x * -3, lambda x: x * -3),
    "clone": (lambda x: x.clone(), lambda x: x.clone()),
}
SMOOTH = ("neg", "exp", "sin", "cos", "plus", "minus", "times", "clone")


@configurations(250)
@given(st.sampled_from(sorted(UNARY)), dtypes, seeds, shapes, kinds)
def test_unary(name, dtype, seed, shape, kind):
    x = filled(kind, seed, *shape)
    if name in ("log", "sqrt") and kind == "normal":
        x = np.abs(x) + 0.1
    second = kind == "normal" or (name in SMOOTH and kind == "ties")
    compare("test_unary", *UNARY[name], (x,), dtype, seed=seed, second=second)


@configurations(80)
@given(dtypes, seeds, shapes, numbers)
def test_power_of_a_number(dtype, seed, shape, exponent):
    x = np.abs(normal(seed, *shape)) + 0.2 if exponent == 0.5 else normal(seed, *shape)
    x = np.where(np.abs(x) < 0.2, 0.5, x)
    compare("test_power_of_a_number", lambda t: t**exponent, lambda t: t**exponent, (x,), dtype, seed=seed, slack=100)


@configurations(40)
@given(dtypes, seeds, shapes, st.sampled_from([0.5, 2.0, 3, 1.5]))
def test_number_to_a_power(dtype, seed, shape, base):
    x = normal(seed, *shape)
    compare("test_number_to_a_power", lambda t: base**t, lambda t: base**t, (x,), dtype, seed=seed)


BINARY: dict[str, tuple[Any, Any]] = {
    "add": (lambda a, b: a + b, lambda a, b: a + b),
    "sub": (lambda a, b: a - b, lambda a, b: a - b),
    "mul": (lambda a, b: a * b, lambda a, b: a * b),
    "div": (lambda a, b: a / b, lambda a, b: a / b),
    "maximum": (gn.maximum, torch.maximum),
    "minimum": (gn.minimum, torch.minimum),
    "where": (lambda a, b: gn.where(a > b, a * 2, b), lambda a, b: torch.where(a > b, a * 2, b)),
    "less": (lambda a, b: a < b, lambda a, b: a < b),
    "equal": (lambda a, b: a == b, lambda a, b: a == b),
    "not_equal": (lambda a, b: a != b, lambda a, b: a != b),
    "greater_equal": (lambda a, b: a >= b, lambda a, b: a >= b),
}


@configurations(250)
@given(st.sampled_from(sorted(BINARY)), dtypes, seeds, broadcast_pairs(), kinds)
def test_binary(name, dtype, seed, pair, kind):
    a, b = filled(kind, seed, *pair[0]), filled(kind, seed + 1, *pair[1])
    if name == "div" and kind == "normal":
        b = np.where(np.abs(b) < 0.3, 0.5, b)
    compare(
        "test_binary",
        *BINARY[name],
        (a, b),
        dtype,
        seed=seed,
        second=kind == "normal",
        slack=100 if name == "div" else 1,
    )


@configurations(60)
@given(dtypes, seeds, broadcast_pairs())
def test_power_of_two_tensors(dtype, seed, pair):
    a, b = np.abs(normal(seed, *pair[0])) + 0.3, normal(seed + 1, *pair[1])
    compare("test_power_of_two_tensors", lambda a, b: a**b, lambda a, b: a**b, (a, b), dtype, seed=seed, slack=100)


DTYPES = ("float32", "float64", "int64", "int32", "bool")
ARITHMETIC = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "sub": lambda a, b: a - b,
    "div": lambda a, b: a / b,
    "less": lambda a, b: a < b,
}


@configurations(150)
@given(
    st.sampled_from(DTYPES), st.sampled_from([*DTYPES, "number", "int"]), st.sampled_from(sorted(ARITHMETIC)),
    st.sampled_from([(3,), ()]), st.sampled_from([(3,), ()]), st.booleans(),
)  # fmt: skip
def test_promotion(one, other, name, shape, other_shape, turned):
    a = np.full(shape, 2).astype(one)
    b: Any = 1.5 if other == "number" else 2 if other == "int" else np.full(other_shape, 3).astype(other)
    # Subtracting bools: PyTorch refuses, and NumPy too.
    assume(name != "sub" or (one != "bool" and other != "bool"))
    function = ARITHMETIC[name]
    ours = (gn.tensor(a), gn.tensor(b) if isinstance(b, np.ndarray) else b)
    theirs = (torch.tensor(a), torch.tensor(b) if isinstance(b, np.ndarray) else b)
    y = function(*(ours[::-1] if turned else ours))
    t = function(*(theirs[::-1] if turned else theirs))
    tried("test_promotion")
    assert str(y.dtype) == str(t.dtype).removeprefix("torch."), f"{one} {name} {other}"
    np.testing.assert_allclose(y.data, t.numpy(), rtol=1e-6)


dims = st.one_of(
    st.none(), st.integers(-3, 2), st.lists(st.integers(-3, 2), min_size=1, max_size=2, unique=True).map(tuple)
)
REDUCTIONS = ("sum", "mean", "var", "std")


@configurations(200)
@given(st.sampled_from(REDUCTIONS), dtypes, seeds, full_shapes, dims, st.booleans(), st.sampled_from([1, 0]), kinds)
def test_reduction(name, dtype, seed, shape, dim, keepdim, correction, kind):
    axes = range(len(shape)) if dim is None else [dim] if isinstance(dim, int) else dim
    assume(all(-len(shape) <= axis < len(shape) for axis in axes) and len({a % len(shape) for a in axes}) == len(axes))
    spread = name in ("var", "std")
    x = filled("normal" if spread else kind, seed, *shape)
    count = int(np.prod([shape[axis] for axis in axes]))
    assume(not spread or count >= 2 + correction)  # of fewer, the spread is NaN or has no slope
    more = {"correction": correction} if spread else {}
    function = lambda t: getattr(t, name)(dim, keepdim=keepdim, **more)  # noqa: E731
    compare("test_reduction", function, function, (x,), dtype, seed=seed, second=kind != "special", slack=100)


@configurations(200)
@given(
    st.sampled_from(["max", "min"]),
    dtypes,
    seeds,
    full_shapes,
    st.one_of(st.none(), st.integers(-4, 3)),
    st.booleans(),
    kinds,
)
def test_extremes(name, dtype, seed, shape, dim, keepdim, kind):
    x = filled(kind, seed, *shape)
    if dim is None:
        functions = [lambda t: getattr(t, name)()] * 2
    else:
        functions = [lambda t: tuple(getattr(t, name)(dim, keepdim))] * 2
    compare("test_extremes", functions[0], functions[1], (x,), dtype, seed=seed)


@configurations(120)
@given(
    st.sampled_from(["argmax", "argmin"]),
    seeds,
    full_shapes,
    st.one_of(st.none(), st.integers(-4, 3)),
    st.booleans(),
    kinds,
)
def test_positions(name, seed, shape, dim, keepdim, kind):
    x = filled(kind, seed, *shape)
    keep = keepdim and dim is not None
    function = lambda t: getattr(t, name)(dim, keep)  # noqa: E731
    compare("test_positions", function, function, (x,), "float64")


@st.composite
def movements(draw: Any) -> tuple[tuple[int, ...], str, tuple[Any, ...]]:
    """A shape, a method that moves axes or elements, and its arguments."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    rank, total = len(shape), int(np.prod(shape))
    axis = st.integers(-rank, rank - 1)
    name = draw(st.sampled_from(["reshape", "permute", "transpose", "squeeze", "unsqueeze", "expand", "flatten"]))
    if name == "reshape":
        rows = draw(st.sampled_from([n for n in range(1, total + 1) if total % n == 0]))
        args: tuple[Any, ...] = draw(st.sampled_from([(rows, total // rows), (rows, -1), (-1,), (1, rows, -1)]))
    elif name == "permute":
        args = tuple(draw(st.permutations(range(rank))))
    elif name == "transpose":
        args = (draw(axis), draw(axis))
    elif name == "squeeze":
        args = draw(st.sampled_from([(), (draw(axis),)]))
    elif name == "unsqueeze":
        args = (draw(st.integers(-rank - 1, rank)),)
    elif name == "expand":
        args = (
            *draw(st.lists(st.integers(1, 3), max_size=2)),
            *(3 if n == 1 else draw(st.sampled_from([n, -1])) for n in shape),
        )
    else:
        first, last = sorted((draw(st.integers(0, rank - 1)), draw(st.integers(0, rank - 1))))
        args = (first, last)
    return tuple(shape), name, args


@configurations(200)
@given(movements(), dtypes, seeds)
def test_movement(movement, dtype, seed):
    shape, name, args = movement
    function = lambda t: getattr(t, name)(*args)  # noqa: E731
    compare("test_movement", function, function, (normal(seed, *shape),), dtype, seed=seed)


@configurations(100)
@given(st.sampled_from(["cat", "stack"]), dtypes, seeds, full_shapes, st.integers(-3, 2), st.integers(1, 3))
def test_joining(name, dtype, seed, shape, dim, count):
    rank = len(shape) + (name == "stack")
    assume(-rank <= dim < rank)
    parts = [normal(seed + k, *shape) for k in range(count)]
    compare(
        "test_joining",
        lambda *t: getattr(gn, name)(t, dim),
        lambda *t: getattr(torch, name)(t, dim),
        parts,
        dtype,
        seed=seed,
    )


@configurations(80)
@given(dtypes, seeds, st.integers(1, 7), st.integers(1, 4), st.integers(0, 1), st.booleans())
def test_splitting(dtype, seed, length, piece, dim, listed):
    x = normal(seed, *((length, 3) if dim == 0 else (3, length)))
    first = min(piece, length)
    sizes: Any = [first, length - first] if listed else piece
    function = lambda t: tuple(t.split(sizes, dim))  # noqa: E731
    compare("test_splitting", function, function, (x,), dtype, seed=seed)


@st.composite
def keys(draw: Any) -> tuple[tuple[int, int, int], Any]:
    """A shape, and an index of every kind: numbers, slices, None, Ellipsis, arrays, masks, and mixtures of them."""
    shape = tuple(draw(st.integers(1, 5)) for _ in range(3))

    def part(size: int) -> Any:
        kind = draw(st.sampled_from(["number", "slice", "slice", "all"]))
        if kind == "number":
            return draw(st.integers(-size, size - 1))
        if kind == "slice":
            return slice(
                draw(st.integers(-size, size)),
                draw(st.one_of(st.none(), st.integers(-size, size))),
                draw(st.integers(1, 2)),
            )
        return slice(None)

    form = draw(st.sampled_from(["basic", "basic", "none", "ellipsis", "array", "two_arrays", "mask"]))
    if form == "basic":
        return shape, tuple(part(size) for size in shape[: draw(st.integers(1, 3))])
    if form == "none":
        return shape, (part(shape[0]), None, part(shape[1]))
    if form == "ellipsis":
        return shape, (..., part(shape[2]))
    positions = np.array(draw(st.lists(st.integers(-shape[0], shape[0] - 1), min_size=1, max_size=4)))
    if form == "array":
        return shape, (positions,) if draw(st.booleans()) else (positions, part(shape[1]))
    if form == "two_arrays":
        return shape, (positions, positions % shape[1])
    return shape, (np.array(draw(st.lists(st.booleans(), min_size=shape[0], max_size=shape[0]))),)


def indexed(t: Any, key: Any) -> Any:
    wrap = gn.tensor if isinstance(t, gn.Tensor) else torch.tensor
    return t[tuple(wrap(part) if isinstance(part, np.ndarray) else part for part in key)]


@configurations(250)
@given(keys(), dtypes, seeds)
def test_indexing(chosen, dtype, seed):
    shape, key = chosen
    compare(
        "test_indexing", lambda t: indexed(t, key), lambda t: indexed(t, key), (normal(seed, *shape),), dtype, seed=seed
    )


@configurations(100)
@given(keys(), dtypes, seeds, st.booleans())
def test_assignment(chosen, dtype, seed, number):
    shape, key = chosen
    arrays = [part for part in key if isinstance(part, np.ndarray) and part.dtype != bool]
    assume(all(len(set((part % shape[0]).tolist())) == len(part) for part in arrays))  # the order of repeats is free
    held = normal(seed, *shape)
    value = normal(seed + 1, *held[key].shape)

    def assign(t: Any, v: Any) -> Any:
        wrap = gn.tensor if isinstance(t, gn.Tensor) else torch.tensor
        y = t * 1.0
        y[tuple(wrap(part) if isinstance(part, np.ndarray) else part for part in key)] = 2.5 if number else v
        return y * y

    compare("test_assignment", assign, assign, (held, value), dtype, seed=seed)


IN_PLACE = {
    "add_": lambda y, v: y.add_(v),
    "sub_": lambda y, v: y.sub_(v),
    "mul_": lambda y, v: y.mul_(v),
    "div_": lambda y, v: y.div_(v * v + 1),
    "clamp_": lambda y, v: y.clamp_(-0.5, 0.5),
    "copy_": lambda y, v: y.copy_(v),
    "fill_": lambda y, v: y.fill_(0.5),
    "zero_": lambda y, v: y.zero_(),
}


@configurations(80)
@given(st.sampled_from(sorted(IN_PLACE)), dtypes, seeds, full_shapes)
def test_in_place(name, dtype, seed, shape):
    def change(t: Any, v: Any) -> Any:
        y = t * 2
        IN_PLACE[name](y, v)
        return (y * t).sum()

    compare("test_in_place", change, change, (normal(seed, *shape), normal(seed + 1, *shape)), dtype, seed=seed)


def test_refusals_are_shared():
    # What PyTorch refuses, gpunet refuses: ``both`` fails where only one of the two raises.
    assert both(lambda a, b: a + b, lambda a, b: a + b, (normal(0, 2), normal(0, 3)), "float64") is None
    assert both(lambda a: a.reshape(5), lambda a: a.reshape(5), (normal(0, 2),), "float64") is None
    assert both(lambda a: a[5], lambda a: a[5], (normal(0, 2),), "float64") is None
