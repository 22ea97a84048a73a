"""The same computation in gpunet and in PyTorch, compared: values, gradients, and gradients of the gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

import gpunet as gn
from gpunet.errors import GpunetError

torch = pytest.importorskip("torch", reason='PyTorch is not installed; pip install "gpunet[peers]"')
torch.set_num_threads(1)

TIGHT = {"float64": 1e-10, "float32": 2e-5}  # allowed difference, relative to an array's largest value, or to 1
PLANNED: dict[str, int] = {}  # test -> configurations it tries
TRIED: dict[str, int] = {}  # test -> configurations it has tried in this process


def configurations(count: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a hypothesis test: ``count`` configurations, the same in every run, counted."""

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        PLANNED[test.__name__] = count
        return settings(
            max_examples=count,
            derandomize=True,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            # Shapes are drawn freely, and one that does not fit is thrown away; a first call may import or warm up.
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example],
        )(test)

    return decorate


def tried(name: str) -> None:
    """Counts one compared configuration."""
    TRIED[name] = TRIED.get(name, 0) + 1


#: mostly float64, where any difference in meaning shows; a share in float32
dtypes = st.sampled_from(["float64", "float64", "float64", "float32"])
seeds = st.integers(0, 2**32 - 1)


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def filled(kind: str, seed: int, *shape: int) -> np.ndarray:
    """Numbers of a kind: "normal", "ties" (few whole numbers), or "special" (NaN, infinities and zeros among them)."""
    rng = np.random.default_rng([seed, len(kind), *shape])
    if kind == "ties":
        return rng.integers(-2, 3, shape).astype(np.float64)
    x = rng.standard_normal(shape)
    if kind == "special":
        odd = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
        x = np.where(rng.random(shape) < 0.2, odd, x)
    return x


kinds = st.sampled_from(["normal", "normal", "ties", "special"])


def assert_close(got: Any, wanted: Any, dtype: str, what: str, slack: float = 1.0) -> None:
    """Equal to rounding, with NaN and infinities at the same places. Inputs are near 1, so that is the least scale."""
    ours, theirs = np.asarray(got.data), wanted.numpy(force=True)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, PyTorch {theirs.shape}"
    assert str(ours.dtype) == str(theirs.dtype), f"{what}: dtype {ours.dtype}, PyTorch {theirs.dtype}"
    if ours.dtype.kind != "f":
        np.testing.assert_array_equal(ours, theirs, err_msg=what)
        return
    scale = float(np.abs(theirs[np.isfinite(theirs)]).max(initial=1))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TIGHT[dtype] * scale * slack, err_msg=what)


def outcome(function: Callable[[], Any], refusals: tuple[type[Exception], ...]) -> Any:
    """What the function returns, or the error with which it refuses."""
    try:
        return function()
    except refusals as error:
        return error


def both(ours: Callable[..., Any], theirs: Callable[..., Any], given: Sequence[Any], dtype: str) -> Any:
    """Runs both on tensors made of the same arrays. None if both refuse; if one refuses, that is the failure."""
    given = [np.asarray(each) if isinstance(each, np.generic) else each for each in given]
    xs = [_ours(each, dtype) for each in given]
    ts = [_theirs(each, dtype) for each in given]
    y = outcome(lambda: ours(*xs), (GpunetError,))
    t = outcome(lambda: theirs(*ts), (RuntimeError, ValueError, IndexError, TypeError))
    if isinstance(t, Exception):
        assert isinstance(y, Exception), f"PyTorch refuses ({t}), gpunet gives shape {getattr(y, 'shape', y)}"
        return None
    assert not isinstance(y, Exception), f"gpunet refuses ({y}), PyTorch gives shape {getattr(t, 'shape', t)}"
    return xs, ts, y, t


def _ours(value: Any, dtype: str) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return gn.tensor(value.astype(dtype), requires_grad=True) if value.dtype.kind == "f" else gn.tensor(value)


def _theirs(value: Any, dtype: str) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "f":
        return torch.tensor(value.astype(dtype), requires_grad=True)
    return torch.tensor(value)


def compare(
    name: str,
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    given: Sequence[Any],
    dtype: str,
    *,
    seed: int = 0,
    second: bool = True,
    slack: float = 1.0,
) -> None:
    """Value, gradient of every floating input under a random cotangent, and that gradient's own gradient.

    ``given`` holds arrays, passed as tensors (floating ones with a gradient), and plain values, passed as they are.
    """
    found = both(ours, theirs, given, dtype)
    tried(name)
    if found is None:
        return
    xs, ts, y, t = found
    ys, yt = (y, t) if isinstance(y, tuple) else ((y,), (t,))
    assert len(ys) == len(yt)
    for k, (a, b) in enumerate(zip(ys, yt, strict=True)):
        assert_close(a, b, dtype, f"output {k}", slack)
    ours_in = [x for x in xs if isinstance(x, gn.Tensor) and x.requires_grad]
    theirs_in = [t for t in ts if isinstance(t, torch.Tensor) and t.requires_grad]
    flowing = [(a, b) for a, b in zip(ys, yt, strict=True) if b.requires_grad]
    for a, b in zip(ys, yt, strict=True):
        assert a.requires_grad == b.requires_grad, "one carries a gradient, the other does not"
    if not ours_in or not flowing:
        return
    second = second and all(x.numel() for x in ours_in)  # of nothing, the gradient's own gradient says nothing
    gys = [normal(seed + k, *a.shape).astype(dtype) for k, (a, _) in enumerate(flowing)]
    our_gys = [gn.tensor(g, requires_grad=second) for g in gys]
    their_gys = [torch.tensor(g, requires_grad=second) for g in gys]
    our_first = gn.grad([a for a, _ in flowing], ours_in, our_gys, create_graph=second, allow_unused=True)
    their_first = torch.autograd.grad(
        [b for _, b in flowing], theirs_in, their_gys, create_graph=second, allow_unused=True
    )
    assert_grads(our_first, their_first, ours_in, dtype, "gradient", slack)
    if second:
        _second(our_first, their_first, [*ours_in, *our_gys], [*theirs_in, *their_gys], dtype, seed, slack)


def _second(
    our_first: Any, their_first: Any, our_in: list[Any], their_in: list[Any], dtype: str, seed: int, slack: float
) -> None:
    pairs = [
        (a, b, normal(seed + 7 + k, *b.shape).astype(dtype))
        for k, (a, b) in enumerate(zip(our_first, their_first, strict=True))
        if a is not None and b is not None and (a.requires_grad or b.requires_grad)
    ]
    ours = [(a, v) for a, _, v in pairs if a.requires_grad]
    theirs = [(b, v) for _, b, v in pairs if b.requires_grad]
    none = [None] * len(our_in)
    our_second: Any = none
    if ours:
        roots, starts = [a for a, _ in ours], [gn.tensor(v) for _, v in ours]
        our_second = gn.grad(roots, our_in, starts, allow_unused=True)
    their_second: Any = none
    if theirs:
        roots, starts = [b for b, _ in theirs], [torch.tensor(v) for _, v in theirs]
        their_second = torch.autograd.grad(roots, their_in, starts, allow_unused=True)
    assert_grads(our_second, their_second, our_in, dtype, "second gradient", slack)


def assert_grads(ours: Any, theirs: Any, inputs: list[Any], dtype: str, what: str, slack: float) -> None:
    """Gradient by gradient; one that is absent on one side may be zeros on the other."""
    for k, (a, b, x) in enumerate(zip(ours, theirs, inputs, strict=True)):
        if a is None and b is None:
            continue
        one = gn.zeros_like(x) if a is None else a
        other = torch.zeros(x.shape, dtype=getattr(torch, str(x.dtype))) if b is None else b
        assert_close(one, other, dtype, f"{what} of input {k}", slack)
