"""Second derivatives of every op are the slopes of its first derivatives."""

import pytest

import gpunet as gn
from tests.cases import CASES
from tests.test_backward import function_of, smooth

MANY = 3000  # elements; the largest cases add time, and no path that the others do not take


def _worth_it(case) -> bool:
    return smooth(case) and sum(each.numel() for each in function_of(case)[1]) <= MANY


@pytest.mark.numpy
@pytest.mark.parametrize("case", [case for case in CASES if _worth_it(case)], ids=str)
def test_second_derivative_is_the_slope_of_the_first(case):
    function, wanted = function_of(case)
    assert gn.gradgradcheck(function, wanted, seed=1)
