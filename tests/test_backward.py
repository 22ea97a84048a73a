"""Every gradient kernel gives what the definition gives; the definition's gradients are those of its forward."""

import pytest

import gpunet as gn
from tests.cases import CASES, Case
from tests.product import is_forward, proof_of, proofs, wanted_of
from tests.test_forward import check

FULL = 40  # elements up to which every one is stepped by itself; larger cases are checked along random directions


@pytest.mark.parametrize("parameter", proofs(lambda entry: not is_forward(entry)))
def test_backward(parameter):
    check(proof_of(parameter))


def function_of(case: Case):
    """The case as a function of the tensors that need a gradient, and those tensors, in float64."""
    tensors = case.draw("float64")

    def function(*wanted: gn.Tensor) -> gn.Tensor:
        given = iter(wanted)
        return case.run(*(next(given) if each is not None and each.requires_grad else each for each in tensors))

    return function, wanted_of(tensors)


def smooth(case: Case) -> bool:
    """Whether differences mean anything: there are elements, and none is at a kink."""
    return case.smooth and all(each.numel() for each in function_of(case)[1])


@pytest.mark.numpy
@pytest.mark.parametrize("case", [case for case in CASES if smooth(case)], ids=str)
def test_gradient_is_the_slope_of_forward(case):
    function, wanted = function_of(case)
    few = sum(each.numel() for each in wanted) <= FULL
    assert gn.gradcheck(function, wanted, mode="full" if few else "directions", seed=1)
