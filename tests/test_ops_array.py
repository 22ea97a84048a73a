"""Ops that NumPy or CuPy computes (arithmetic, reductions, shapes): values against NumPy, gradients of both orders."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import ArgumentError, DTypeError, ShapeError
from gpunet.graph import Function
from gpunet.ops import elementwise, inplace, pointwise, reduce, shape


def near(*sizes: int, seed: int = 0) -> np.ndarray:
    """Positive numbers, no two alike, none near 1 (a bound below): away from every kink."""
    ramp = 0.3 + 0.11 * np.arange(np.prod(sizes, dtype=int))
    return np.random.default_rng(seed).permutation(ramp).reshape(sizes)


def signed(*sizes: int, seed: int = 0) -> np.ndarray:
    return near(*sizes, seed=seed) * np.random.default_rng(seed + 1).choice([-1.0, 1.0], sizes)


class Case(NamedTuple):
    run: Callable[..., Any]  # on tensors
    expected: Callable[..., Any]  # on arrays
    inputs: tuple[np.ndarray, ...]


def set_row(x: Any, value: Any) -> Any:
    """x with its row 1 replaced, as a new tensor or array."""
    y = x * 1
    y[1] = value
    return y


def update(name: str) -> Callable[..., gn.Tensor]:
    return lambda a, b: getattr(a * 1, name)(b)


def each_element(run: Callable[..., gn.Tensor]) -> Callable[..., gn.Tensor]:
    """``run`` on single numbers, whose results NumPy makes scalars, not arrays."""
    return lambda a, *more: gn.stack([run(a[k], *(each[k] for each in more)) for k in range(len(a))])


MASK = np.array([[True, False, True], [False, True, True]])
CASES = {
    "add": Case(lambda a, b: a + b, np.add, (signed(2, 3), signed(3))),
    "add number": Case(lambda a: 2 + a + 1.5, lambda a: a + 3.5, (signed(3),)),
    "sub": Case(lambda a, b: a - b, np.subtract, (signed(2, 1), signed(3, seed=1))),
    "sub from number": Case(lambda a: 2 - a, lambda a: 2 - a, (signed(3),)),
    "mul": Case(lambda a, b: a * b, np.multiply, (signed(2, 3), signed(1, 3, seed=1))),
    "div": Case(lambda a, b: a / b, np.divide, (signed(2, 3), near(3, seed=1))),
    "div a number": Case(lambda a: 2 / a, lambda a: 2 / a, (near(3),)),
    "pow": Case(lambda a, b: a**b, np.power, (near(2, 3), signed(3, seed=1))),
    "pow number": Case(lambda a: a**3 + a**0.5 + a**-1 + a**0, lambda a: a**3 + a**0.5 + 1 / a + 1, (near(4),)),
    "number to the power": Case(lambda a: 2**a, lambda a: 2**a, (signed(4),)),
    "neg": Case(lambda a: -a, np.negative, (signed(3),)),
    "exp": Case(gn.exp, np.exp, (signed(4),)),
    "log": Case(gn.log, np.log, (near(4),)),
    "sqrt": Case(gn.sqrt, np.sqrt, (near(4),)),
    "abs": Case(abs, np.abs, (signed(4),)),
    "sin": Case(gn.sin, np.sin, (signed(4),)),
    "cos": Case(gn.cos, np.cos, (signed(4),)),
    "clip": Case(lambda a: a.clip(-0.7, 0.72), lambda a: a.clip(-0.7, 0.72), (signed(2, 4),)),
    "clip below": Case(lambda a: gn.clip(a, min=0.5), lambda a: a.clip(0.5), (signed(2, 4),)),
    "maximum": Case(gn.maximum, np.maximum, (signed(2, 3), signed(3, seed=5) + 0.01)),
    "maximum number": Case(lambda a: gn.maximum(a, 0.5), lambda a: np.maximum(a, 0.5), (signed(4),)),
    "minimum": Case(gn.minimum, np.minimum, (signed(2, 3), signed(3, seed=5) + 0.01)),
    "where": Case(
        lambda a, b: gn.where(MASK, a, b), lambda a, b: np.where(MASK, a, b), (signed(2, 3), signed(3, seed=1))
    ),
    "where number": Case(lambda a: a.where(gn.tensor(MASK), 0.0), lambda a: np.where(MASK, a, 0), (signed(3),)),
    "numbers exp": Case(each_element(gn.exp), np.exp, (signed(2),)),
    "numbers sqrt": Case(each_element(lambda a: a.sqrt() * 2), lambda a: 2 * np.sqrt(a), (near(2),)),
    "numbers div": Case(each_element(lambda a, b: a / b + a**b), lambda a, b: a / b + a**b, (near(2), near(2, seed=1))),
    "numbers max": Case(each_element(lambda a: a.max() * a.sum()), np.square, (signed(2),)),
    "sum": Case(lambda a: a.sum(), np.sum, (signed(2, 3),)),
    "sum axis": Case(
        lambda a: a.sum(-1, keepdim=True) * a.sum(0), lambda a: a.sum(-1, keepdims=True) * a.sum(0), (near(2, 3),)
    ),
    "sum axes": Case(lambda a: a.sum((0, 2)), lambda a: a.sum((0, 2)), (signed(2, 3, 2),)),
    "mean": Case(lambda a: a.mean((0, 1)) * a.mean(), lambda a: a.mean((0, 1)) * a.mean(), (signed(2, 3, 2),)),
    "var": Case(lambda a: a.var(0), lambda a: a.var(0, ddof=1), (signed(3, 2),)),
    "var biased": Case(lambda a: a.var(correction=0), np.var, (signed(3, 2),)),
    "std": Case(lambda a: a.std(1, keepdim=True), lambda a: a.std(1, ddof=1, keepdims=True), (signed(2, 4),)),
    "max": Case(lambda a: a.max(), np.max, (signed(2, 3),)),
    "max axis": Case(lambda a: a.max(1)[0], lambda a: a.max(1), (signed(3, 4),)),
    "min": Case(lambda a: a.min(), np.min, (signed(2, 3),)),
    "min axis": Case(lambda a: a.min(0, keepdim=True)[0], lambda a: a.min(0, keepdims=True), (signed(3, 4),)),
    "logsumexp": Case(lambda a: reduce.logsumexp(a, 1), lambda a: np.log(np.exp(a).sum(1)), (signed(2, 3),)),
    "reshape": Case(lambda a: a.reshape(3, -1) * 2, lambda a: a.reshape(3, -1) * 2, (signed(2, 3),)),
    "view": Case(lambda a: a.view(6), np.ravel, (signed(2, 3),)),
    "flatten": Case(lambda a: a.flatten(1), lambda a: a.reshape(2, 6), (signed(2, 3, 2),)),
    "transpose": Case(lambda a: a.transpose(0, -1) * 1, lambda a: a.transpose(2, 1, 0), (signed(2, 3, 2),)),
    "T": Case(lambda a: a.T, np.transpose, (signed(2, 3),)),
    "permute": Case(lambda a: a.permute(2, 0, 1), lambda a: a.transpose(2, 0, 1), (signed(2, 3, 4),)),
    "squeeze": Case(lambda a: a.squeeze(1).unsqueeze(-1), lambda a: a.reshape(2, 3, 1), (signed(2, 1, 3),)),
    "expand": Case(lambda a: a.expand(4, 2, -1), lambda a: np.broadcast_to(a, (4, 2, 3)), (signed(2, 3),)),
    "cat": Case(
        lambda a, b: gn.cat([a, b, a], 1), lambda a, b: np.concatenate([a, b, a], 1), (signed(2, 3), signed(2, 1))
    ),
    "stack": Case(
        lambda a, b: gn.stack([a, b], -1), lambda a, b: np.stack([a, b], -1), (signed(2, 3), signed(2, 3, seed=1))
    ),
    "split": Case(lambda a: a.split(2, 1)[1] * a.split([1, 4], 1)[0], lambda a: a[:, 2:4] * a[:, :1], (signed(2, 5),)),
    "pad": Case(
        lambda a: a.pad((1, 2, 0, 1), 3.0), lambda a: np.pad(a, [(0, 1), (1, 2)], constant_values=3), (signed(2, 3),)
    ),
    "pad that cuts": Case(lambda a: gn.pad(a, (-1, 1)), lambda a: np.pad(a[:, 1:], [(0, 0), (0, 1)]), (signed(2, 3),)),
    "index": Case(lambda a: a[1, ::-2], lambda a: a[1, ::-2], (signed(2, 5),)),
    "index repeated": Case(lambda a: a[[2, 0, 2]], lambda a: a[[2, 0, 2]], (signed(3, 2),)),
    "index mask": Case(lambda a: a[gn.tensor(MASK)], lambda a: a[MASK], (signed(2, 3),)),
    "take_along": Case(
        lambda a: shape.take_along(a, gn.tensor([[0, 0, 2], [1, 1, 1]]), 1),
        lambda a: np.take_along_axis(a, np.array([[0, 0, 2], [1, 1, 1]]), 1),
        (signed(2, 3),),
    ),
    "clone": Case(lambda a: a.clone(), np.copy, (signed(2, 3),)),
    "to": Case(lambda a: a.to(np.float64).to("cpu") * 1, np.copy, (signed(2, 3),)),
    "setitem": Case(set_row, lambda a, b: np.stack([a[0], b]), (signed(2, 3), signed(3, seed=1))),
    "setitem row vector": Case(
        lambda a, b: set_row(a, b.reshape(1, 3)), lambda a, b: np.stack([a[0], b]), (signed(2, 3), signed(3))
    ),
    "add_": Case(update("add_"), np.add, (signed(2, 3), signed(3, seed=1))),
    "mul_": Case(update("mul_"), np.multiply, (signed(2, 3), signed(3, seed=1))),
    "div_": Case(update("div_"), np.divide, (signed(2, 3), near(3, seed=1))),
    "copy_": Case(update("copy_"), lambda a, b: np.broadcast_to(b, a.shape), (signed(2, 3), signed(3, seed=1))),
}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def tensors(case: Case) -> list[gn.Tensor]:
    return [gn.tensor(each, requires_grad=True) for each in case.inputs]


@each_case
def test_value(case):
    result = case.run(*tensors(case))
    expected = case.expected(*case.inputs)
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-12, atol=1e-12, strict=False)
    assert result.shape == np.shape(expected)
    single = case.run(*[gn.tensor(each, dtype="float32") for each in case.inputs])
    np.testing.assert_allclose(single.numpy(), expected, rtol=2e-5, atol=1e-6)


@each_case
def test_first_derivative(case):
    assert gn.gradcheck(case.run, tensors(case), mode="full")


@each_case
def test_second_derivative(case):
    assert gn.gradgradcheck(case.run, tensors(case), directions=2)


def test_every_function_is_in_some_case():
    seen = set()
    for case in CASES.values():
        stack = [case.run(*tensors(case))._node]
        while stack:
            node = stack.pop()
            if isinstance(node, Function):
                seen.add(type(node))
                stack += [edge[0] for edge in node.edges if edge is not None]
    found = {
        value
        for module in (elementwise, pointwise, reduce, shape, inplace)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Function) and value.__module__ == module.__name__
    }
    # These two are gradients of others (indexing, casting); the derivatives above run them.
    assert found - seen == {shape.IndexAdd, shape.Cast}


# ------------------------------------------------------------------------------------------------------ ties and edges


def gradients(run: Callable[..., Any], *values: Any) -> list[Any]:
    inputs = [gn.tensor(np.array(each, float), requires_grad=True) for each in values]
    return [g.tolist() for g in gn.grad(run(*inputs).sum(), inputs)]


def test_ties_follow_their_written_rule():
    assert gradients(gn.maximum, [1.0, 2.0], [1.0, 1.0]) == [[0.5, 1.0], [0.5, 0.0]]
    assert gradients(gn.minimum, [1.0, np.nan], [1.0, 1.0]) == [[0.5, 1.0], [0.5, 1.0]]
    assert gradients(lambda x: x.max(), [3.0, 1.0, 3.0]) == [[0.5, 0.0, 0.5]]
    assert gradients(lambda x: x.max(0)[0], [3.0, 1.0, 3.0]) == [[1.0, 0.0, 0.0]]  # along an axis the first wins
    assert gradients(gn.abs, [0.0]) == [[0.0]]
    assert gradients(lambda x: x.clip(0, 1), [0.0, 1.0, 2.0, np.nan]) == [[1.0, 1.0, 0.0, 0.0]]


def test_powers_of_zero():
    assert gradients(lambda x: x**0, [0.0, 2.0]) == [[0.0, 0.0]]
    assert gradients(lambda x: x**2, [0.0]) == [[0.0]]
    assert gradients(lambda x: x**1, [0.0]) == [[1.0]]
    assert gradients(lambda a, b: a**b, [0.0, 0.0], [0.0, 2.0]) == [[0.0, 0.0], [0.0, 0.0]]


def test_gradient_where_a_bound_cuts_off_stays_finite():
    assert gradients(lambda x: (1 / x).clip(max=5.0), [0.5]) == [[-4.0]]
    assert gradients(lambda x: gn.where(x > 0, gn.log(x.clip(1e-9)), 0.0), [-1.0, 2.0]) == [[0.0, 0.5]]
    assert gradients(lambda x: x.std(), [2.0, 2.0, 2.0]) == [[0.0, 0.0, 0.0]]


def test_nan_and_infinity_in_reductions():
    x = gn.tensor([1.0, np.nan, np.inf])
    assert np.isnan(x.max().item())
    assert x.argmax().item() == 1
    assert np.isnan(x.sum().item())
    assert reduce.logsumexp(gn.tensor([-np.inf, -np.inf]), 0).item() == -np.inf
    assert reduce.logsumexp(gn.tensor([1000.0, 1000.0]), 0).item() == pytest.approx(1000 + np.log(2))


def test_empty_reductions():
    empty = gn.zeros(0, 3)
    assert empty.sum().item() == 0.0
    assert np.isnan(empty.mean().item())
    assert np.isnan(gn.ones(1).var().item())
    assert empty.sum(1).shape == (0,)
    assert empty.max(1)[0].shape == (0,)
    assert empty.argmin(1).shape == (0,)


def test_single_number_along_its_missing_axis():
    values, position = gn.tensor(3.0).max(0)
    assert (values.item(), position.item(), values.shape) == (3.0, 0, ())


def test_mean_of_ones_is_one():
    assert all(gn.ones(n).mean().item() == 1.0 for n in range(1, 200))


@pytest.mark.parametrize(
    ("run", "error", "words"),
    [
        (lambda x: x + gn.ones(4), ShapeError, r"add: shapes must be equal or broadcast .*got \(2, 3\) and \(4,\)"),
        (lambda x: gn.where(gn.ones(4) > 0, x, x), ShapeError, r"where: .*got \(4,\), \(2, 3\), \(2, 3\)"),
        (lambda x: x.clip(), ArgumentError, "clip: min or max must be a number"),
        (lambda x: x.clip(gn.ones(3)), ArgumentError, r"clip: .*got a tensor of shape \(3,\); use gn.maximum"),
        (lambda x: x.sum(2), ArgumentError, "sum: dim must be from -2 to 1 for a tensor with 2 axes, got 2"),
        (lambda x: x.sum((0, -2)), ShapeError, "sum: each axis may be named once"),
        (lambda x: x.sum(0.5), ArgumentError, "sum: dim must be an integer, got 0.5"),
        (lambda x: x.long().mean(), DTypeError, r"mean: the tensor must be floating, got int64; use .float\(\)"),
        (lambda x: x[:0].max(), ShapeError, "max: the tensor must have an element"),
        (lambda x: x[:0].min(0), ShapeError, "min: axis 0 must have an element"),
        (lambda x: x.reshape(4, -1), ShapeError, r"reshape: the new shape must hold 6 elements like \(2, 3\), got"),
        (lambda x: x.reshape(-1, -1), ShapeError, "reshape"),
        (lambda x: x.T.view(6), ShapeError, "view: .* use reshape"),
        (lambda x: x.expand(2, 4), ShapeError, r"expand: only axes of size 1 .*, got \(2, 3\) to \(2, 4\)"),
        (lambda x: x.permute(0, 0), ShapeError, "permute: dims must name each of the 2 axes once"),
        (lambda x: x.split(0), ArgumentError, "split: the size of a piece must be at least 1"),
        (lambda x: x.split([1, 2]), ShapeError, r"split: sizes must add up to 2, axis 0 of \(2, 3\), got \[1, 2\]"),
        (lambda x: gn.cat([]), ArgumentError, "cat: tensors must hold at least one"),
        (lambda x: gn.cat([x, gn.ones(2, 2)]), ShapeError, r"cat: sizes must be equal but along axis 0"),
        (lambda x: gn.stack([x, gn.ones(2, 2)]), ShapeError, r"stack: shapes must be equal"),
        (lambda x: x.pad((1,)), ArgumentError, "pad: pad must hold two widths"),
        (lambda x: x.pad((-2, -2)), ShapeError, "pad: no axis may shrink below 0"),
        (lambda x: x.flatten(1, 0), ArgumentError, "flatten: start_dim must not come after end_dim"),
    ],
)
def test_misuse_is_refused(run, error, words):
    with pytest.raises(error, match=words):
        run(gn.ones(2, 3))
