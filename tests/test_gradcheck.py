"""gradcheck and gradgradcheck: right gradients pass, wrong ones fail where they are wrong, kinks are named."""

from typing import Any

import numpy as np
import pytest

import gpunet as gn
import gpunet.functional as F
import gpunet.gradcheck
from gpunet.errors import ArgumentError, DTypeError, GpunetError, GradcheckError


def draw(*shape: int, seed: int = 0) -> gn.Tensor:
    return gn.tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


class WrongInOneElement(gn.Function):
    """x cubed, with a gradient that is a tenth too large at [1, 2]."""

    @staticmethod
    def forward(ctx: Any, x: gn.Tensor) -> gn.Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, gy: gn.Tensor) -> gn.Tensor:
        (x,) = ctx.saved_tensors
        factor = gn.full(x.shape, 3.0, dtype="float64")
        factor[1, 2] = 3.3
        return gy * x * x * factor


class WrongInSecondInput(gn.Function):
    """a * b, whose gradient for b has the wrong sign."""

    @staticmethod
    def forward(ctx: Any, a: gn.Tensor, b: gn.Tensor) -> gn.Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, gy: gn.Tensor) -> Any:
        a, b = ctx.saved_tensors
        return gy * b, -(gy * a)


def failure(fn: Any, inputs: Any, **options: Any) -> str:
    with pytest.raises(GradcheckError) as caught:
        gn.gradcheck(fn, inputs, **options)
    assert str(caught.value) == str(caught.value.report)
    assert not caught.value.report
    return str(caught.value)


@pytest.mark.parametrize("mode", ["directions", "full"])
@pytest.mark.parametrize(
    ("fn", "inputs"),
    [
        (lambda a, b: a @ b, [draw(3, 4), draw(4, 2)]),
        (lambda a, b: a * b.exp() - a / (b * b + 1), [draw(2, 3), draw(3)]),
        (lambda a: (a.sum(0), (a * a).mean()), [draw(3, 2)]),
        (lambda a: a.max(1), [draw(4, 3)]),
        (lambda x, w: F.conv2d(x, w, padding=1), [draw(1, 2, 4, 3), draw(2, 2, 3, 3)]),
        (lambda a: a[gn.tensor([0, 0, 2])], [draw(3, 2)]),
        (lambda a: a * 3, [draw()]),
        (lambda a: a.sum(), [draw(0, 3)]),
        (lambda a: (a * 1e8).sum(), [draw(3)]),
        (lambda a: gn.sin(a * 1e4), [draw(3)]),
    ],
)
def test_right_gradients_pass(fn, inputs, mode):
    report = gn.gradcheck(fn, inputs, mode=mode)
    assert report
    assert not report.problems
    assert all(row.verdict == "ok" and row.error <= row.allowed for row in report.rows)


def test_rows_name_each_input_and_all_together():
    report = gn.gradcheck(lambda a, b: a * b, [draw(2, 3), draw(3)], directions=2)
    assert {(row.input, row.where) for row in report.rows} == {
        (name, f"direction {k}") for name in ("all inputs", "0 (2, 3)", "1 (3,)") for k in (0, 1)
    }


def test_wrong_element_is_named_in_full_mode():
    text = failure(WrongInOneElement.apply, draw(2, 3), mode="full")
    lines = text.splitlines()
    assert lines[0] == "gradcheck of WrongInOneElement.apply: FAILED (5 ok, 1 wrong, 0 on a kink)"
    assert lines[1].split() == ["verdict", "input", "where", "output", "analytic", "numeric", "error", "allowed"]
    assert lines[2].split()[:7] == ["FAIL", "0", "(2,", "3)", "[1,", "2]", "0"]  # the worst row comes first
    assert text.count("FAIL ") == 1
    analytic, numeric = (float(cell) for cell in lines[2].split()[9:11])
    assert analytic == pytest.approx(1.1 * numeric, rel=1e-5)


def test_wrong_input_is_named_along_directions():
    text = failure(WrongInSecondInput.apply, [draw(2, 3), draw(2, 3, seed=1)])
    failing = {line.split("direction")[0].strip() for line in text.splitlines() if "FAIL  " in line}
    assert failing == {"FAIL     all inputs", "FAIL     1 (2, 3)"}
    assert "mode='full' names the elements" in text


def test_columns_are_aligned():
    report = gn.gradcheck(lambda a, b: a * b, [draw(2, 3), draw(3)])
    table = str(report).splitlines()[1:]
    assert len({line.index(cell) for line, cell in zip(table, ["where", *["direction"] * 9])}) == 1


def test_report_without_exception():
    report = gn.gradcheck(WrongInOneElement.apply, draw(2, 3), raise_exception=False)
    assert not report
    assert "FAILED (0 ok, 3 wrong" in str(report)


def test_long_reports_are_cut():
    text = str(gn.gradcheck(lambda a: a * 2, draw(25), mode="full"))
    assert "and 5 rows more" in text


@pytest.mark.parametrize("wrong", [1.01, 0.0, float("nan")])
def test_small_zero_and_nan_gradients_fail(wrong):
    class Scaled(gn.Function):
        @staticmethod
        def forward(ctx: Any, x: gn.Tensor) -> gn.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gy: gn.Tensor) -> gn.Tensor:
            return gy * 2 * wrong

    assert "FAIL" in failure(Scaled.apply, draw(3))
    assert "FAIL" in failure(Scaled.apply, draw(3), mode="full")


# ------------------------------------------------------------------------------------------------------------ kinks


def test_kink_is_named_and_neither_passes_nor_fails():
    x = gn.tensor([0.0, 1.0, -1.0], dtype="float64", requires_grad=True)
    report = gn.gradcheck(F.relu, x, mode="full")
    assert [(row.where, row.verdict) for row in report.rows] == [("[0]", "kink"), ("[1]", "ok"), ("[2]", "ok")]
    assert "no gradient is right or wrong" in str(report)


def test_ties_of_max_pooling_are_kinks():
    x = gn.tensor([[[[1.0, 1.0, 5.0, 4.0]]]], dtype="float64", requires_grad=True)
    report = gn.gradcheck(lambda x: F.max_pool2d(x, (1, 2)), x, mode="full")
    assert [row.verdict for row in report.rows] == ["kink", "kink", "ok", "ok"]


def test_all_on_a_kink_fails():
    x = gn.tensor([0.0, 0.0], dtype="float64", requires_grad=True)
    assert "nothing else was compared" in failure(gn.abs, x, mode="full")
    assert "0 ok, 0 wrong, 3 on a kink" in failure(gn.abs, x)


@pytest.mark.parametrize("distance", [2e-7, 5e-7, 9e-7])
def test_kink_within_the_step_is_stepped_around(distance):
    x = gn.tensor([distance, -distance], dtype="float64", requires_grad=True)
    report = gn.gradcheck(F.relu, x, mode="full")
    assert [row.verdict for row in report.rows] == ["ok", "ok"]


def test_wrong_gradient_beside_a_kink_fails():
    x = gn.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], dtype="float64", requires_grad=True)
    text = failure(lambda x: WrongInOneElement.apply(gn.abs(x)), x, mode="full")
    assert "1 wrong" in text.splitlines()[0]


# ---------------------------------------------------------------------------------------------------- other checks


def test_float32_inputs_are_refused_with_the_remedy():
    with pytest.raises(DTypeError, match=r"input 1 must be float64, got float32.*dtype='float64'.*analytic_dtype"):
        gn.gradcheck(lambda a, b: a * b, [draw(2), gn.ones(2, requires_grad=True)])


def test_float32_side_against_float64_differences():
    x, w = draw(2, 3, 8, 8), draw(4, 3, 3, 3, seed=1)
    with gn.trace() as launches:
        assert gn.gradcheck(lambda x, w: F.conv2d(x, w), [x, w], analytic_dtype="float32", directions=1)
    assert {each.dtype for each in launches if each.phase == "backward"} == {"float32"}
    assert "FAIL" in failure(WrongInOneElement.apply, draw(2, 3), analytic_dtype="float32", mode="full")


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        (gn.ones(2, dtype="float64"), {}, "must have requires_grad=True, got none among 1"),
        ([3, "a"], {}, "got none among 2"),
        (draw(2), {"mode": "fast"}, "mode must be 'directions' or 'full', got 'fast'"),
    ],
)
def test_wrong_arguments(inputs, options, words):
    with pytest.raises(ArgumentError, match=words):
        gn.gradcheck(lambda *args: args[0], inputs, **options)


def test_result_must_be_tensors():
    with pytest.raises(ArgumentError, match="must return a tensor or several, got float"):
        gn.gradcheck(lambda x: 3.0, draw(2))


def test_changed_input_is_a_problem():
    def change(x: gn.Tensor, y: gn.Tensor) -> gn.Tensor:
        y.data[0] += 1.0
        return x * 2

    assert "got input 1 changed by its forward or backward" in failure(change, [draw(2), gn.ones(2)])


def test_caller_s_inputs_are_never_changed():
    x = draw(3)
    before = x.data.copy()
    gn.gradcheck(lambda x: (x * x, x.exp()), x)
    np.testing.assert_array_equal(x.data, before)
    assert x.grad is None


def test_random_function_is_a_problem_until_its_key_is_fixed():
    def fixed(x: gn.Tensor) -> gn.Tensor:
        gn.manual_seed(3)
        return F.dropout(x, 0.5)

    text = failure(lambda x: F.dropout(x, 0.5), draw(4, 8))
    assert "same result twice" in text
    assert "gn.manual_seed(0) inside fn" in text
    assert gn.gradcheck(fixed, draw(4, 8))


def test_output_without_gradient_must_not_depend_on_the_inputs():
    assert gn.gradcheck(lambda x: (x * 2, gn.ones(3, dtype="float64"), gn.argmax(x)), draw(3))
    assert "FAIL" in failure(lambda x: (x * 2, x.detach() * 3), draw(3))


def test_input_that_is_not_used_has_gradient_zero():
    assert gn.gradcheck(lambda a, b: a * 2, [draw(2), draw(3)])


def test_gradient_that_differs_when_wanted_alone_is_a_problem():
    class Joint(gn.Function):
        @staticmethod
        def forward(ctx: Any, a: gn.Tensor, b: gn.Tensor) -> gn.Tensor:
            return a + b

        @staticmethod
        def backward(ctx: Any, gy: gn.Tensor) -> Any:
            return gy, gy * (1 if ctx.needs_input_grad[0] else 2)

    assert "the gradient of input 1 differs when it is the only one wanted" in failure(Joint.apply, [draw(2), draw(2)])


def test_arguments_that_are_no_tensors_pass_through():
    assert gn.gradcheck(lambda x, power, mask: (x**power) * mask, [draw(3), 2, gn.ones(3)])


def test_same_seed_same_report():
    one, two = (gn.gradcheck(lambda x: x.exp(), draw(4), seed=5) for _ in range(2))
    assert one == two
    assert one != gn.gradcheck(lambda x: x.exp(), draw(4), seed=6)


def test_error_is_both_kinds():
    assert issubclass(GradcheckError, AssertionError)
    assert issubclass(GradcheckError, GpunetError)


def test_function_wins_over_its_module_of_the_same_name():
    assert callable(gn.gradcheck)
    assert callable(gn.explain)


# ------------------------------------------------------------------------------------------------- second derivatives


@pytest.mark.parametrize(
    ("fn", "inputs"),
    [
        (lambda x: x**3, [draw(3)]),
        (lambda a, b: a * b / (a.exp() + 1), [draw(2, 3), draw(3)]),
        (lambda a, b: a @ b, [draw(2, 3), draw(3, 2)]),
        (lambda a: (a.sum(), (a * a).mean(0)), [draw(3, 2)]),
        (F.tanh, [draw(4)]),
    ],
)
def test_right_second_derivatives_pass(fn, inputs):
    assert gn.gradgradcheck(fn, inputs)
    assert gn.gradgradcheck(fn, inputs, mode="full")


class CutOff(gn.Function):
    """x cubed, whose gradient is right and forgets that it depends on x."""

    @staticmethod
    def forward(ctx: Any, x: gn.Tensor) -> gn.Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, gy: gn.Tensor) -> gn.Tensor:
        (x,) = ctx.saved_tensors
        return gy * 3 * (x * x).detach()


def test_gradient_that_is_not_differentiable_fails_at_second_order_alone():
    assert gn.gradcheck(CutOff.apply, draw(3))
    with pytest.raises(GradcheckError, match=r"gradient of CutOff.apply: FAILED"):
        gn.gradgradcheck(CutOff.apply, draw(3))


def test_given_cotangents_are_used():
    gy = gn.tensor([1.0, 0.0, 0.0], dtype="float64")
    report = gn.gradgradcheck(lambda x: x**3, draw(3), gy, mode="full")
    assert report
    values = {row.where: row.analytic for row in report.rows if row.input.startswith("0")}
    assert values["[1]"] == values["[2]"] == 0.0
    assert values["[0]"] == pytest.approx(6 * float(draw(3)[0]))


def test_gradgradcheck_refuses_float32():
    with pytest.raises(DTypeError, match="gradgradcheck: input 0 must be float64"):
        gn.gradgradcheck(lambda x: x * x, gn.ones(2, requires_grad=True))
