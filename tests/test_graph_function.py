"""gn.Function as users write it: what works, and what each mistake says."""

from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import GraphError, ShapeError


def leaf(*values: Any) -> gn.Tensor:
    return gn.tensor(np.array(values, float), requires_grad=True)


class Scale(gn.Function):
    """x * factor, for a plain number; ``undo`` divides."""

    @staticmethod
    def forward(ctx: Any, x: gn.Tensor, factor: float, *, undo: bool = False) -> gn.Tensor:
        ctx.factor = 1 / factor if undo else factor
        return x * ctx.factor

    @staticmethod
    def backward(ctx: Any, gy: gn.Tensor) -> Any:
        return gy * ctx.factor, None


def returning(result: Any, backward: Any = None) -> type[gn.Function]:
    """A Function with one argument whose backward (or forward) returns ``result``."""

    class Made(gn.Function):
        @staticmethod
        def forward(ctx: Any, x: gn.Tensor) -> Any:
            return x * 2 if backward is None else result

        @staticmethod
        def backward(ctx: Any, gy: gn.Tensor) -> Any:
            return result(gy) if callable(result) else result

    return Made


def test_plain_arguments_and_keywords():
    x = leaf(1.0, 2.0)
    y = Scale.apply(x, 4.0, undo=True)
    assert y.tolist() == [0.25, 0.5]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.25, 0.25]


def test_no_graph_inside_forward_and_none_without_need():
    seen = []

    class Looks(gn.Function):
        @staticmethod
        def forward(ctx: Any, x: gn.Tensor) -> gn.Tensor:
            seen.append((gn.is_grad_enabled(), (x * 2).requires_grad, ctx.needs_input_grad))
            return x * 2

    assert Looks.apply(leaf(1.0)).requires_grad
    assert not Looks.apply(gn.ones(1)).requires_grad
    with gn.no_grad():
        assert not Looks.apply(leaf(1.0)).requires_grad
    assert seen == [(False, False, (True,)), (False, False, (False,)), (False, False, (False,))]


def test_several_outputs_some_without_gradient():
    class Split(gn.Function):
        @staticmethod
        def forward(ctx: Any, x: gn.Tensor) -> Any:
            ctx.mark_non_differentiable(mask := (x > 0).double())
            return x * 2, x * 3, mask

        @staticmethod
        def backward(ctx: Any, ga: gn.Tensor, gb: gn.Tensor, gmask: gn.Tensor) -> gn.Tensor:
            assert gmask.tolist() == [0.0, 0.0]
            return ga * 2 + gb * 3

    x = leaf(1.0, -1.0)
    a, b, mask = Split.apply(x)
    assert a.requires_grad
    assert not mask.requires_grad
    (a.sum() + 10 * b.sum()).backward(retain_graph=True)
    assert x.grad is not None
    assert x.grad.tolist() == [32.0, 32.0]
    assert gn.grad(b.sum(), x)[0].tolist() == [3.0, 3.0]


def test_saved_output_is_differentiable_again():
    class Exp(gn.Function):
        @staticmethod
        def forward(ctx: Any, x: gn.Tensor) -> gn.Tensor:
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, gy: gn.Tensor) -> gn.Tensor:
            (y,) = ctx.saved_tensors
            return gy * y

    x = leaf(0.3, -0.7)
    assert gn.gradcheck(Exp.apply, x)
    assert gn.gradgradcheck(Exp.apply, x)


def test_forward_may_return_its_input():
    class Same(gn.Function):
        @staticmethod
        def forward(ctx: Any, x: gn.Tensor) -> gn.Tensor:
            return x

        @staticmethod
        def backward(ctx: Any, gy: gn.Tensor) -> gn.Tensor:
            return gy * 5

    x = leaf(1.0)
    h = x * 1
    y = Same.apply(h)
    assert y is not h
    with pytest.raises(GraphError, match="shares memory"):
        h.add_(1)
    y.backward()
    assert x.grad is not None
    assert x.grad.item() == 5.0


def test_gradients_may_come_as_a_list_with_nones_to_spare():
    x = leaf(1.0)
    returning(lambda gy: [gy * 2, None]).apply(x).backward()
    assert x.grad is not None
    assert x.grad.item() == 2.0


def test_gradient_of_another_dtype_is_cast_to_the_argument_s():
    x = leaf(1.0)
    returning(lambda gy: gy.float()).apply(x).backward()
    assert x.grad is not None
    assert x.grad.dtype == np.float64


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (lambda gy: (gy, gy), GraphError, r"Made: backward must return one gradient .* that is 1, got 2"),
        (lambda gy: (), GraphError, r"that is 1, got 0"),
        (lambda gy: gy.sum(), ShapeError, r"Made: the gradient of argument 0 must have its shape \(2,\), got \(\)"),
        (lambda gy: gy.reshape(1, 2), ShapeError, r"must have its shape \(2,\), got \(1, 2\)"),
        (lambda gy: 3.0, GraphError, r"must return tensors or None, got float for argument 0"),
        (lambda gy: gy.data, GraphError, r"must return tensors or None, got ndarray for argument 0"),
    ],
)
def test_wrong_gradients_are_refused(result, error, words):
    x = leaf(1.0, 2.0)
    with pytest.raises(error, match=words):
        returning(result).apply(x).sum().backward()
    assert x.grad is None


def test_wrong_argument_is_numbered():
    class Second(gn.Function):
        @staticmethod
        def forward(ctx: Any, a: gn.Tensor, b: gn.Tensor) -> gn.Tensor:
            return a + b

        @staticmethod
        def backward(ctx: Any, gy: gn.Tensor) -> Any:
            return gy, gy.sum()

    x = leaf(1.0, 2.0) * 1
    with pytest.raises(ShapeError, match="gradient of argument 1"):
        Second.apply(x, x).sum().backward()


@pytest.mark.parametrize("result", [None, 3.0, [gn.ones(1)], "text"])
def test_forward_must_return_tensors(result):
    with pytest.raises(GraphError, match=r"Made: forward must return a tensor or a tuple, got \w+"):
        returning(result, backward=True).apply(leaf(1.0))


def test_missing_methods_say_so():
    class Empty(gn.Function):
        pass

    class OneWay(gn.Function):
        @staticmethod
        def forward(ctx: Any, x: gn.Tensor) -> gn.Tensor:
            return x * 2

    with pytest.raises(GraphError, match="Empty: it has no forward; define"):
        Empty.apply(leaf(1.0))
    y = OneWay.apply(leaf(1.0))
    with pytest.raises(GraphError, match=r"OneWay: it has no backward; define one, or call it under gn.no_grad\(\)"):
        y.backward()


def test_warnings_of_numpy_stay_off_inside_and_as_they_were_outside():
    x = leaf(0.0)
    assert np.isinf((1 / x).item())
    assert np.isnan(gn.log(-1.0 - x).item())
    with np.errstate(divide="raise"):
        assert np.isinf((1 / x).item())
        with pytest.raises(FloatingPointError):
            np.divide(1.0, 0.0)


def test_forward_that_raises_leaves_the_modes_as_they_were():
    with np.errstate(divide="raise"):
        with pytest.raises(ZeroDivisionError):
            Scale.apply(leaf(1.0), 0.0, undo=True)
        assert gn.is_grad_enabled()
        assert np.geterr()["divide"] == "raise"


def test_backward_inside_backward():
    """A Function that computes its piece again in backward, to save memory."""

    class Again(gn.Function):
        @staticmethod
        def forward(ctx: Any, x: gn.Tensor) -> gn.Tensor:
            ctx.save_for_backward(x)
            return (x * x).exp()

        @staticmethod
        def backward(ctx: Any, gy: gn.Tensor) -> gn.Tensor:
            (x,) = ctx.saved_tensors
            with gn.enable_grad():
                inner = x.detach().requires_grad_()
                (inner * inner).exp().backward(gy)
            assert inner.grad is not None
            return inner.grad

    x = leaf(0.5)
    Again.apply(x * 2).backward()
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(4 * np.exp(1.0))
