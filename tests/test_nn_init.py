"""Start values: ranges and moments against their formulas, exact matrices, gains, refusals."""

import math
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import ArgumentError, DTypeError, ShapeError
from gpunet.nn import init

SHAPE = (200, 30, 3, 3)  # fan_in 270, fan_out 1800
NORMAL_4TH = 3  # a normal distribution's fourth moment over its variance squared; a uniform one has 1.8


@pytest.mark.parametrize(
    ("fill", "mean", "std", "flatness"),
    [
        (lambda t: init.uniform_(t, -1.0, 3.0), 1.0, 4 / math.sqrt(12), 1.8),
        (lambda t: init.normal_(t, 2.0, 0.5), 2.0, 0.5, NORMAL_4TH),
        (lambda t: init.xavier_uniform_(t, gain=2.0), 0.0, 2 * math.sqrt(2 / 2070), 1.8),
        (lambda t: init.xavier_normal_(t), 0.0, math.sqrt(2 / 2070), NORMAL_4TH),
        (lambda t: init.kaiming_uniform_(t, a=1.0), 0.0, math.sqrt(1 / 270), 1.8),
        (lambda t: init.kaiming_uniform_(t, mode="fan_out", nonlinearity="relu"), 0.0, math.sqrt(2 / 1800), 1.8),
        (lambda t: init.kaiming_normal_(t, nonlinearity="tanh"), 0.0, 5 / 3 / math.sqrt(270), NORMAL_4TH),
    ],
)
def test_distribution_has_its_moments(fill: Any, mean: float, std: float, flatness: float):
    t = gn.zeros(SHAPE, dtype=np.float64)
    assert fill(t) is t
    values = t.data.ravel()
    assert values.mean() == pytest.approx(mean, abs=5 * std / math.sqrt(values.size))
    assert values.std() == pytest.approx(std, rel=0.01)
    assert ((values - mean) ** 4).mean() / std**4 == pytest.approx(flatness, rel=0.04)


def test_uniform_ends_at_its_bounds():
    values = init.uniform_(gn.zeros(100_000), -2.0, -1.0).data
    assert -2 <= values.min() < -1.999
    assert -1.001 < values.max() <= -1


def test_truncated_normal_is_the_normal_between_its_bounds():
    values = init.trunc_normal_(gn.zeros(100_000, dtype=np.float64), 1.0, 2.0, 0.0, 3.0).data
    assert 0 <= values.min() < 0.001
    assert 2.999 < values.max() <= 3
    # symmetric about the mean; the variance of a normal cut at -a, a is 1 - 2 a phi(a) / (2 Phi(a) - 1)
    assert values.mean() == pytest.approx(1.0 + _mean_of_cut(-0.5, 1.0) * 2, abs=0.01)
    even = init.trunc_normal_(gn.zeros(100_000, dtype=np.float64)).data
    phi, Phi = math.exp(-2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(math.sqrt(2)))
    assert even.var() == pytest.approx(1 - 4 * phi / (2 * Phi - 1), rel=0.01)


def _mean_of_cut(a: float, b: float) -> float:
    def phi(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def Phi(x: float) -> float:
        return 0.5 * (1 + math.erf(x / math.sqrt(2)))

    return (phi(a) - phi(b)) / (Phi(b) - Phi(a))


def test_truncated_normal_far_from_the_mean_stays_inside():
    values = init.trunc_normal_(gn.zeros(1000), a=30.0, b=40.0).data
    assert ((values >= 30) & (values <= 40)).all()
    values = init.trunc_normal_(gn.zeros(1000), a=-40.0, b=-30.0).data
    assert ((values >= -40) & (values <= -30)).all()


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 2, 3), (5, 5)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]):
    t = init.orthogonal_(gn.zeros(shape, dtype=np.float64), gain=2.0).data.reshape(shape[0], -1)
    product = t @ t.T if t.shape[0] <= t.shape[1] else t.T @ t
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


def test_orthogonal_matrices_turn_both_ways():
    signs = {init.orthogonal_(gn.zeros(1, 1)).item() for _ in range(40)}
    assert signs == {1.0, -1.0}


def test_constants():
    t = gn.full((2, 2), 7.0)
    assert init.constant_(t, 0.5).tolist() == [[0.5, 0.5]] * 2
    assert init.ones_(t).tolist() == [[1.0, 1.0]] * 2
    assert init.zeros_(t).tolist() == [[0.0, 0.0]] * 2


@pytest.mark.parametrize(
    ("name", "param", "gain"),
    [
        ("linear", None, 1.0),
        ("sigmoid", None, 1.0),
        ("conv2d", None, 1.0),
        ("tanh", None, 5 / 3),
        ("relu", None, math.sqrt(2)),
        ("leaky_relu", None, math.sqrt(2 / 1.0001)),
        ("leaky_relu", 1.0, 1.0),
        ("selu", None, 0.75),
    ],
)
def test_gains(name: str, param: float | None, gain: float):
    assert init.calculate_gain(name, param) == gain


def test_filling_works_on_parameters_and_is_seen_by_the_graph():
    w = gn.ones(2, requires_grad=True)
    y = (w * w).sum()
    init.zeros_(w)
    assert w.tolist() == [0.0, 0.0]
    with pytest.raises(gn.errors.GraphError, match=r"changed in place by zeros_"):
        y.backward()


def test_the_seed_decides():
    draws = []
    for _ in range(2):
        gn.manual_seed(3)
        draws.append([init.orthogonal_(gn.zeros(3, 3)).tolist(), init.trunc_normal_(gn.zeros(4)).tolist()])
    assert draws[0] == draws[1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: init.xavier_uniform_(t), ShapeError, r"xavier_uniform_: tensor must have at least 2 axes"),
        (lambda t: init.kaiming_normal_(t), ShapeError, r"kaiming_normal_: tensor must .* got shape \(3,\)"),
        (lambda t: init.orthogonal_(t), ShapeError, r"orthogonal_: tensor must have at least 2 axes"),
        (lambda t: init.normal_(t, std=-1.0), ArgumentError, r"normal_: std must be at least 0, got -1.0"),
        (lambda t: init.trunc_normal_(t, std=0.0), ArgumentError, r"trunc_normal_: std must be above 0, got 0"),
        (lambda t: init.trunc_normal_(t, a=1.0, b=1.0), ArgumentError, r"a must be below b, got a=1.0 and b=1.0"),
        (lambda t: init.zeros_(t.data), DTypeError, r"zeros_: tensor must be a gpunet tensor, got ndarray"),
        (lambda t: init.kaiming_uniform_(t.reshape(1, 3), mode="in"), ArgumentError, r"mode must be one of 'fan_in'"),
        (lambda t: init.calculate_gain("swish"), ArgumentError, r"calculate_gain: nonlinearity must be one of"),
    ],
)
def test_refusals(call: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call(gn.zeros(3))
