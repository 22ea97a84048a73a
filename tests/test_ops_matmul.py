"""What matmul and linear mean: every rank, broadcasting, empty axes, and derivatives of first and second order.

All runs on the NumPy definition; that other backends agree with it is the product tests' matter.
"""

import itertools

import numpy as np
import pytest

import gpunet as gn
import gpunet.functional as F
from tests.loops import check_derivatives


@pytest.fixture(autouse=True)
def _definition():
    with gn.use_backend("numpy"):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)),
        ((5, 2, 3), (3,)), ((2, 3), (5, 3, 4)), ((3,), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((1, 3), (3, 1)),
        ((2, 0), (0, 3)), ((0, 3), (3, 2)), ((0, 2, 3), (3, 2)), ((4, 0, 2, 3), (0, 3, 2)),
    ],
)  # fmt: skip
def test_matmul_is_rows_times_columns(rng, a, b):
    a, b = rng.standard_normal(a), rng.standard_normal(b)
    y = F.matmul(gn.tensor(a), gn.tensor(b))
    rows, columns = np.atleast_2d(a), b if b.ndim > 1 else b[:, None]
    expected = (rows[..., :, :, None] * columns[..., None, :, :]).sum(-2)
    expected = expected[..., 0, :] if a.ndim == 1 else expected
    expected = expected[..., 0] if b.ndim == 1 else expected
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (3, 4)), ((3,), (2, 3, 2)), ((2, 1, 2, 3), (2, 3, 2)), ((2, 2, 3), (3,))]
)
def test_matmul_derivatives(rng, a, b):
    check_derivatives(F.matmul, rng.standard_normal(a), rng.standard_normal(b))


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=2)))
def test_matmul_reads_transposed_inputs_as_they_lie(rng, flags):
    from gpunet.ops.matmul import MatMul

    a, b = rng.standard_normal((3, 2) if flags[0] else (2, 3)), rng.standard_normal((4, 3) if flags[1] else (3, 4))
    y = MatMul.apply(gn.tensor(a), gn.tensor(b), transpose_a=flags[0], transpose_b=flags[1])
    np.testing.assert_allclose(y.numpy(), np.einsum("ik,kj->ij", a.T if flags[0] else a, b.T if flags[1] else b))
    check_derivatives(lambda a, b: MatMul.apply(a, b, transpose_a=flags[0], transpose_b=flags[1]), a, b)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)])
def test_linear_takes_any_leading_axes(rng, lead):
    x, w, b = rng.standard_normal((*lead, 3)), rng.standard_normal((2, 3)), rng.standard_normal(2)
    y = F.linear(gn.tensor(x), gn.tensor(w), gn.tensor(b))
    assert y.shape == (*lead, 2)
    np.testing.assert_allclose(y.numpy(), np.einsum("...k,jk->...j", x, w) + b, rtol=1e-12)
    np.testing.assert_allclose(F.linear(gn.tensor(x), gn.tensor(w)).numpy(), y.numpy() - b, rtol=1e-12, atol=1e-12)


def test_linear_derivatives(rng):
    check_derivatives(F.linear, rng.standard_normal((2, 2, 3)), rng.standard_normal((4, 3)), rng.standard_normal(4))
