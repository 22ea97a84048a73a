"""Schedules against closed formulas; chaining, saving, refusals."""

import math
import pickle
from typing import Any

import pytest

import gpunet as gn
from gpunet import optim
from gpunet.errors import ArgumentError
from gpunet.optim import lr_scheduler as schedules


def optimizer(*rates: float, kind: Any = optim.SGD, **options: Any) -> optim.Optimizer:
    return kind([{"params": [gn.zeros(1, requires_grad=True)], "lr": lr} for lr in rates], **options)


def rates(scheduler: schedules.LRScheduler, count: int) -> list[float]:
    """The first group's rate at the start and after each of ``count - 1`` steps."""
    found = []
    for _ in range(count):
        found.append(scheduler.get_last_lr()[0])
        assert found[-1] == scheduler.optimizer.param_groups[0]["lr"]
        scheduler.step()
    return found


FORMULAS = {
    "step": (lambda o: schedules.StepLR(o, 3, 0.5), lambda t: 0.5 ** (t // 3)),
    "multi_step": (
        lambda o: schedules.MultiStepLR(o, [7, 2, 4, 4], 0.5),
        lambda t: 0.5 ** ((t >= 2) + 2 * (t >= 4) + (t >= 7)),
    ),
    "exponential": (lambda o: schedules.ExponentialLR(o, 0.9), lambda t: 0.9**t),
    "lambda": (lambda o: schedules.LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: 1 / (1 + t)),
    "cosine": (lambda o: schedules.CosineAnnealingLR(o, 5), lambda t: (1 + math.cos(math.pi * t / 5)) / 2),
    "cosine_eta_min": (
        lambda o: schedules.CosineAnnealingLR(o, 4, 0.2),
        lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * t / 4)) / 2,  # eta_min is a tenth of the rate
    ),
    "cosine_of_one": (lambda o: schedules.CosineAnnealingLR(o, 1), lambda t: 1.0 - t % 2),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_rates_follow_the_closed_formula(name: str):
    make, formula = FORMULAS[name]
    expected = [2.0 * formula(t) for t in range(20)]
    assert rates(make(optimizer(2.0)), 20) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_each_group_has_its_own_rate():
    scheduler = schedules.ExponentialLR(optimizer(2.0, 8.0), 0.5)
    scheduler.step()
    assert scheduler.get_last_lr() == [1.0, 4.0]
    assert scheduler.base_lrs == [2.0, 8.0]
    assert scheduler.last_epoch == 1
    each = schedules.LambdaLR(optimizer(2.0, 8.0), [lambda t: 1.0, lambda t: 0.25])
    assert each.get_last_lr() == [2.0, 2.0]


def test_multiplying_schedules_chain():
    target = optimizer(8.0)
    first, second = schedules.ExponentialLR(target, 0.5), schedules.StepLR(target, 2, 0.1)
    found = []
    for _ in range(4):
        found.append(target.param_groups[0]["lr"])
        first.step()
        second.step()
    assert found == pytest.approx([8.0, 4.0, 0.2, 0.1])


# -- one cycle ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_goes_through_its_corners(strategy: str, three_phase: bool):
    target = optimizer(1.0, momentum=0.5)
    options = {"pct_start": 0.3, "div_factor": 10.0, "final_div_factor": 100.0, "three_phase": three_phase}
    scheduler = schedules.OneCycleLR(target, 5.0, epochs=3, steps_per_epoch=10, anneal_strategy=strategy, **options)
    found, momenta = [], []
    for _ in range(30):
        found.append(target.param_groups[0]["lr"])
        momenta.append(target.param_groups[0]["momentum"])
        scheduler.step()
    peak = 8  # 0.3 * 30 - 1
    assert found[0] == pytest.approx(0.5)
    assert found[peak] == pytest.approx(5.0)
    assert found[29] == pytest.approx(0.005)
    assert momenta[0] == pytest.approx(0.95)
    assert momenta[peak] == pytest.approx(0.85)
    assert momenta[29] == pytest.approx(0.95)
    assert found[:9] == sorted(found[:9])
    assert found[8:] == sorted(found[8:], reverse=True)
    half = {"cos": (5.0 + 0.5) / 2, "linear": (5.0 + 0.5) / 2}[strategy]
    assert found[4] == pytest.approx(half)
    quarter = {"cos": 0.5 + 4.5 * (1 - math.cos(math.pi / 4)) / 2, "linear": 0.5 + 4.5 / 4}[strategy]
    assert found[2] == pytest.approx(quarter)
    if three_phase:
        assert found[2 * peak] == pytest.approx(0.5)
        assert momenta[2 * peak] == pytest.approx(0.95)


def test_one_cycle_moves_the_first_beta():
    target = optimizer(1.0, kind=optim.Adam)
    scheduler = schedules.OneCycleLR(target, 1.0, total_steps=11, pct_start=0.5)
    assert target.param_groups[0]["betas"] == pytest.approx((0.95, 0.999))
    for _ in range(5):
        scheduler.step()
    assert target.param_groups[0]["betas"][0] < 0.9
    still = optimizer(1.0, kind=optim.Adam)
    schedules.OneCycleLR(still, 1.0, total_steps=11, cycle_momentum=False).step()
    assert still.param_groups[0]["betas"] == (0.9, 0.999)


def test_one_cycle_ends():
    scheduler = schedules.OneCycleLR(optimizer(1.0, momentum=0.9), [1.0], total_steps=2, pct_start=0.5)
    scheduler.step()
    scheduler.step()
    with pytest.raises(ArgumentError, match=r"OneCycleLR: total_steps is 2, got step 3; make it longer"):
        scheduler.step()


# -- plateau -----------------------------------------------------------------------------------------------------


def reductions(values: list[float], **options: Any) -> list[int]:
    """The steps, from 1, after which the rate fell."""
    target = optimizer(1.0)
    scheduler = schedules.ReduceLROnPlateau(target, factor=0.5, **options)
    fell = []
    for step, value in enumerate(values, start=1):
        before = target.param_groups[0]["lr"]
        scheduler.step(gn.tensor(value))
        if target.param_groups[0]["lr"] < before:
            fell.append(step)
    return fell


@pytest.mark.parametrize(
    ("values", "options", "fell"),
    [
        ([3, 2, 2, 2, 2], {"patience": 1}, [4]),
        ([3, 2, 2, 2, 2], {"patience": 0}, [3, 4, 5]),
        ([1, 2, 3, 3, 3], {"patience": 0, "mode": "max"}, [4, 5]),
        ([5, 5, 5, 5, 5, 5], {"patience": 0, "cooldown": 2}, [2, 5]),
        ([10, 9.5, 9.5, 8.9], {"patience": 0, "threshold": 0.1}, [2, 3]),  # better means below 9
        ([10, 9.5, 9.4, 8.9], {"patience": 0, "threshold": 0.3, "threshold_mode": "abs"}, [3]),
        ([-10, -9.5, -8.9, -7], {"patience": 0, "threshold": 0.1}, [4]),  # a tenth of -10 is up; so does PyTorch
        ([1, math.nan, math.nan], {"patience": 0}, [2, 3]),
        ([1, 1, 1, 1], {"patience": 0, "min_lr": 0.25}, [2, 3]),
        ([1, 1, 1, 1], {"patience": 0, "eps": 0.3}, [2]),
    ],
)
def test_plateau_reduces_when_it_should(values: list[float], options: dict[str, Any], fell: list[int]):
    assert reductions([float(v) for v in values], **options) == fell


def test_plateau_sets_every_group():
    target = optimizer(1.0, 4.0)
    scheduler = schedules.ReduceLROnPlateau(target, patience=0, min_lr=[0.05, 1.0])
    for _ in range(3):
        scheduler.step(1.0)
    assert scheduler.get_last_lr() == pytest.approx([0.05, 1.0])
    assert scheduler.last_epoch == 3
    assert scheduler.best == 1.0


# -- saving ------------------------------------------------------------------------------------------------------

SAVED = {
    "step": lambda o: schedules.StepLR(o, 3, 0.5),
    "multi_step": lambda o: schedules.MultiStepLR(o, [2, 5]),
    "exponential": lambda o: schedules.ExponentialLR(o, 0.9),
    "lambda": lambda o: schedules.LambdaLR(o, lambda t: 0.5**t),
    "cosine": lambda o: schedules.CosineAnnealingLR(o, 5),
    "one_cycle": lambda o: schedules.OneCycleLR(o, 2.0, total_steps=12),
}


@pytest.mark.parametrize("name", SAVED)
def test_resumed_continues_the_rates(name: str):
    def pair() -> tuple[optim.Optimizer, Any]:
        target = optimizer(1.0, 3.0, momentum=0.9)
        return target, SAVED[name](target)

    target, scheduler = pair()
    for _ in range(4):
        scheduler.step()
    saved = pickle.loads(pickle.dumps((target.state_dict(), scheduler.state_dict())))
    again, twin = pair()
    again.load_state_dict(saved[0])
    twin.load_state_dict(saved[1])
    assert twin.get_last_lr() == scheduler.get_last_lr()
    for _ in range(6):
        scheduler.step()
        twin.step()
        assert twin.get_last_lr() == scheduler.get_last_lr()
        assert again.param_groups[1]["momentum"] == target.param_groups[1]["momentum"]


def test_plateau_resumes_its_patience():
    scheduler = schedules.ReduceLROnPlateau(optimizer(1.0), patience=1)
    twin = schedules.ReduceLROnPlateau(optimizer(1.0), patience=1)
    scheduler.step(1.0)
    scheduler.step(1.0)
    twin.load_state_dict(scheduler.state_dict())
    twin.step(1.0)
    assert twin.get_last_lr() == [pytest.approx(0.1)]


@pytest.mark.parametrize("name", ["exponential", "cosine", "lambda"])
def test_last_epoch_resumes_without_a_state(name: str):
    makers: dict[str, Any] = {
        "exponential": lambda o, last: schedules.ExponentialLR(o, 0.9, last),
        "cosine": lambda o, last: schedules.CosineAnnealingLR(o, 5, 0.0, last),
        "lambda": lambda o, last: schedules.LambdaLR(o, lambda t: 0.5**t, last),
    }
    whole = optimizer(1.0)
    scheduler = makers[name](whole, -1)
    for _ in range(3):
        scheduler.step()
    resumed = makers[name](whole, 2)  # construction makes step 3
    assert resumed.last_epoch == 3
    assert resumed.get_last_lr() == scheduler.get_last_lr()


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: schedules.StepLR(3, 1), "StepLR: optimizer must be an Optimizer, got int"),  # type: ignore[arg-type]
        (lambda o: schedules.StepLR(o, 0), "StepLR: step_size must be an integer of at least 1, got 0"),
        (lambda o: schedules.StepLR(o, 1, -1.0), "StepLR: gamma must be at least 0, got -1.0"),
        (lambda o: schedules.StepLR(o, 1, 0.1, 5), "StepLR: with last_epoch=5 groups need 'initial_lr', got none in 0"),
        (lambda o: schedules.MultiStepLR(o, [1, -2]), "milestones must be an integer of at least 0, got -2"),
        (lambda o: schedules.ExponentialLR(o, math.nan), "ExponentialLR: gamma must be at least 0, got nan"),
        (lambda o: schedules.CosineAnnealingLR(o, 0), "CosineAnnealingLR: T_max must be an integer .* got 0"),
        (lambda o: schedules.LambdaLR(o, [abs, abs]), "lr_lambda must be one value or one for each of 1 groups, got 2"),
        (lambda o: schedules.OneCycleLR(o, 1.0), "OneCycleLR: total_steps must be given, or epochs and"),
        (lambda o: schedules.OneCycleLR(o, 1.0, 0), "OneCycleLR: total_steps must be an integer of at least 1, got 0"),
        (lambda o: schedules.OneCycleLR(o, 1.0, 5, pct_start=2.0), "OneCycleLR: pct_start must be from 0 to 1"),
        (lambda o: schedules.OneCycleLR(o, 1.0, 5, anneal_strategy="exp"), "anneal_strategy must be one of 'cos'"),
        (
            lambda o: schedules.OneCycleLR(optimizer(1.0, kind=optim.Adagrad), 1.0, 5),
            "OneCycleLR: the optimizer must have momentum or betas, got Adagrad; pass cycle_momentum=False",
        ),
        (lambda o: schedules.ReduceLROnPlateau(o, "low"), "ReduceLROnPlateau: mode must be one of 'min', 'max'"),
        (lambda o: schedules.ReduceLROnPlateau(o, factor=1.0), "ReduceLROnPlateau: factor must be below 1, got 1.0"),
        (lambda o: schedules.ReduceLROnPlateau(o, patience=-1), "patience must be an integer of at least 0, got -1"),
        (lambda o: schedules.ReduceLROnPlateau(o, min_lr=[0, 0]), "min_lr must be one value or one for each of"),
        (
            lambda o: schedules.ExponentialLR(o, 0.1).load_state_dict(schedules.StepLR(o, 1).state_dict()),
            "the state must have this scheduler's names, got a difference in step_size; is it another scheduler's",
        ),
    ],
)
def test_refusals(make: Any, message: str):
    with pytest.raises(ArgumentError, match=message):
        make(optimizer(1.0))
