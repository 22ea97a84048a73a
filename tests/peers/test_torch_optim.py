"""Optimisers and schedules against PyTorch: the same gradients, the same steps."""

from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import optim

torch = pytest.importorskip("torch", reason='PyTorch is not installed; pip install "gpunet[peers]"')
pytestmark = pytest.mark.peers

STEPS = 20
SHAPES = [(5, 3), (4,), ()]

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, "nesterov": True}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.02, "weight_decay": 0.05, "initial_accumulator_value": 0.3, "eps": 1e-6}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.05}),
    ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.8}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.05}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.2, "amsgrad": True}),
    ("SGD", {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.05, "maximize": True}),
    ("Adagrad", {"lr": 0.1, "weight_decay": 0.05, "maximize": True}),
    ("RMSprop", {"lr": 0.01, "centered": True, "weight_decay": 0.05, "maximize": True}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.8}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.05, "amsgrad": True, "maximize": True}),
    ("AdamW", {"lr": 0.01, "maximize": True}),
]

SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 7}),
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [5, 11, 30], "gamma": 0.3}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 20}),
    ("CosineAnnealingLR", {"T_max": 13, "eta_min": 0.01}),
    ("LambdaLR", {"lr_lambda": lambda step: 1 / (1 + 0.1 * step)}),
    ("OneCycleLR", {"max_lr": [0.5, 0.2], "epochs": 6, "steps_per_epoch": 10, "cycle_momentum": False}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 55, "div_factor": 5.0, "final_div_factor": 10.0}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 60}),
    (
        "OneCycleLR",
        {"max_lr": 0.5, "total_steps": 60, "anneal_strategy": "linear", "pct_start": 0.2, "three_phase": True},
    ),
]


def twins(dtype: str) -> tuple[list[Any], list[Any]]:
    """The same parameters twice: gpunet's and PyTorch's."""
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    return [gn.nn.Parameter(gn.tensor(v)) for v in values], [torch.nn.Parameter(torch.tensor(v)) for v in values]


def pull(params: list[Any], target: Any) -> Any:
    """A loss with a different curvature for each parameter, and a gradient that changes its sign on the way."""
    return sum((((p - target) ** 2) * (k + 1) + 0.3 * (p * 3).sin()).sum() for k, p in enumerate(params))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=lambda each: str(each))
def test_optimizer_takes_the_same_steps(name: str, options: dict[str, Any], dtype: str):
    ours, theirs = twins(dtype)
    # Two groups, so that a group's own options are seen as well.
    mine = getattr(optim, name)([{"params": ours[:2]}, {"params": ours[2:], "lr": options["lr"] * 2}], **options)
    other = getattr(torch.optim, name)(
        [{"params": theirs[:2]}, {"params": theirs[2:], "lr": options["lr"] * 2}], **options
    )
    for step in range(STEPS):
        for opt, params in ((mine, ours), (other, theirs)):
            opt.zero_grad()
            pull(params, 0.5 + 0.1 * step).backward()
            opt.step()
        for p, t in zip(ours, theirs, strict=True):
            scale = max(1.0, float(np.abs(t.detach().numpy()).max()))
            bound = {"float64": 1e-12, "float32": 5e-6}[dtype] * scale
            np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=0, atol=bound, err_msg=f"step {step}")


@pytest.mark.parametrize("norm_type", [1.0, 2.0, float("inf")])
def test_clipped_gradients_are_the_same(norm_type: float):
    ours, theirs = twins("float64")
    pull(ours, 2.0).backward()
    pull(theirs, 2.0).backward()
    mine = optim.clip_grad_norm_(ours, 1.5, norm_type)
    other = torch.nn.utils.clip_grad_norm_(theirs, 1.5, norm_type)
    assert float(mine) == pytest.approx(float(other), rel=1e-12)
    for p, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad.data, t.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"), SCHEDULES, ids=lambda each: str(sorted(each)) if isinstance(each, dict) else each
)
def test_schedule_gives_the_same_rates(name: str, options: dict[str, Any]):
    ours, theirs = twins("float64")
    mine = optim.SGD([{"params": ours[:1]}, {"params": ours[1:], "lr": 0.3}], lr=0.1, momentum=0.9)
    other = torch.optim.SGD([{"params": theirs[:1]}, {"params": theirs[1:], "lr": 0.3}], lr=0.1, momentum=0.9)
    schedule = getattr(optim.lr_scheduler, name)(mine, **options)
    wanted = getattr(torch.optim.lr_scheduler, name)(other, **options)
    for step in range(50):
        for key in ("lr", "momentum"):
            rates = [group[key] for group in mine.param_groups]
            assert rates == pytest.approx([group[key] for group in other.param_groups], rel=1e-12), (
                f"{key}, step {step}"
            )
        assert schedule.get_last_lr() == pytest.approx(wanted.get_last_lr(), rel=1e-12)
        other.step()  # PyTorch warns of a schedule that moves before its optimiser
        mine.step()
        schedule.step()
        wanted.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau_gives_the_same_rates(mode: str, threshold_mode: str):
    options = {
        "mode": mode,
        "threshold_mode": threshold_mode,
        "patience": 2,
        "cooldown": 1,
        "factor": 0.5,
        "min_lr": 0.002,
    }
    ours, theirs = twins("float64")
    mine, other = optim.SGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    schedule = optim.lr_scheduler.ReduceLROnPlateau(mine, **options)
    wanted = torch.optim.lr_scheduler.ReduceLROnPlateau(other, **options)
    figures = np.random.default_rng(1).standard_normal(50).cumsum()
    for step, figure in enumerate(figures):
        schedule.step(figure)
        wanted.step(figure)
        assert mine.param_groups[0]["lr"] == pytest.approx(other.param_groups[0]["lr"], rel=1e-12), f"step {step}"
