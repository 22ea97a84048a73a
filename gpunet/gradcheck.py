"""Gradients held against finite differences: ``gn.gradcheck`` and ``gn.gradgradcheck``.

For outputs f(x), random cotangents c and a direction v the directional derivative of F = <c, f> is known twice::

    analytic   <dF/dx, v>                                 from backward
    numeric    (F(x + eps v) - F(x - eps v)) / (2 eps)    from three values of the function

Where the slopes to the left and to the right of x differ and a smaller step does not bring them together, x sits on a
kink (relu at 0, a tie under max pooling). No gradient is right or wrong there, so the row says "kink".
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunet.backward import grad
from gpunet.creation import zeros_like
from gpunet.errors import ArgumentError, DTypeError, GradcheckError
from gpunet.gradreport import GradReport, GradRow
from gpunet.modes import enable_grad, no_grad
from gpunet.tensor import Tensor, as_dtype

FINER = 8  # by how much the second step is smaller


def gradcheck(
    fn: Callable[..., Any],
    inputs: Any,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    mode: str = "directions",
    directions: int = 3,
    seed: int = 0,
    raise_exception: bool = True,
    analytic_dtype: Any = np.float64,
) -> GradReport:
    """Backward through ``fn`` held against central differences.

    Also checked: fn gives the same bits twice, it leaves its inputs alone, and each gradient is the same when it is the
    only one wanted. An output that needs no gradient must not depend on the inputs.

    Args:
        fn: called with ``inputs``; returns a tensor or a sequence of them. Must be deterministic: dropout needs
            ``gn.manual_seed`` inside fn.
        inputs: one tensor or a sequence of arguments. Those with requires_grad=True are checked and must be float64.
            They are copied, never changed.
        eps: step of the differences.
        atol: error that is allowed anywhere.
        rtol: error that is allowed relative to the numeric derivative; the difference's own rounding comes on top.
        mode: "directions" compares along random directions, over all inputs together and over each alone, with random
            cotangents over all outputs; "full" compares each element of the Jacobian and names the worst.
        directions: how many directions.
        seed: of directions and cotangents.
        raise_exception: False returns a failed report rather than raise.
        analytic_dtype: float32 runs forward and backward in float32, against differences in float64; the rounding of
            float32 is then allowed too.

    Returns:
        A report: true when passed, with ``rows``, ``problems`` and a table as its text. A row on a kink neither passes
        nor fails; when all are, the check fails.

    Raises:
        GradcheckError: the check failed; the message is the table, the error's ``report`` the report.
        DTypeError: an input with requires_grad=True is not float64.
        ArgumentError: no input has requires_grad=True, or mode is unknown.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([0.5, -1.0, 2.0], dtype="float64", requires_grad=True)
        >>> bool(gn.gradcheck(lambda x: (x * x).sum(), x))
        True
    """
    if mode not in ("directions", "full"):
        raise ArgumentError(f"gradcheck: mode must be 'directions' or 'full', got {mode!r}")
    check = _Check(fn, inputs, eps, atol, rtol, as_dtype("gradcheck", analytic_dtype), seed)
    check.run(mode, directions)
    if raise_exception and not check.report:
        raise GradcheckError(check.report)
    return check.report


def gradgradcheck(
    fn: Callable[..., Any], inputs: Any, grad_outputs: Any = None, seed: int = 0, **kwargs: Any
) -> GradReport:
    """:func:`gradcheck` of the gradient of ``fn``: second derivatives held against differences of the first.

    Args:
        fn: as for gradcheck; its backward must be differentiable.
        inputs: as for gradcheck.
        grad_outputs: the cotangent of each floating output that needs a gradient; None draws them at random. They are
            differentiated by as well, beside the inputs.
        seed: of cotangents and directions.
        **kwargs: the other arguments of gradcheck.

    Returns:
        The report of gradcheck; the cotangents follow the inputs in its numbering.

    Raises:
        GradcheckError: the check failed.
        DTypeError: an input with requires_grad=True is not float64.
        ArgumentError: no input has requires_grad=True.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([0.5, -1.0, 2.0], dtype="float64", requires_grad=True)
        >>> bool(gn.gradgradcheck(lambda x: x ** 3, x))
        True
    """
    given = _as_list(inputs)
    wanted = _differentiable("gradgradcheck", given)
    with enable_grad():
        outputs = [out for out in _as_list(fn(*[_fresh(each) for each in given])) if _flows(out)]
    if grad_outputs is None:
        rng = np.random.default_rng(seed)
        cotangents = [Tensor(rng.standard_normal(out.shape), device=out.device, requires_grad=True) for out in outputs]
    else:
        cotangents = [_fresh(each, True) for each in _as_list(grad_outputs)]

    def gradient(*args: Any) -> tuple[Tensor, ...]:
        with enable_grad():
            point = list(args[: len(given)])
            for k in wanted:  # also where the check wants no gradient of this one
                point[k] = point[k] if point[k].requires_grad else point[k].detach().requires_grad_()
            outs = [out for out in _as_list(fn(*point)) if _flows(out)]
            asked = [point[k] for k in wanted]
            found = grad(outs, asked, args[len(given) :], create_graph=True, allow_unused=True)
            return tuple(zeros_like(x) if gx is None else gx for x, gx in zip(asked, found))

    gradient.__name__ = f"gradient of {_name(fn)}"
    return gradcheck(gradient, [*given, *cotangents], seed=seed, **kwargs)


class _Check:
    """One gradcheck: the function at one point, its gradients and its differences."""

    def __init__(self, fn: Any, inputs: Any, eps: float, atol: float, rtol: float, dtype: Any, seed: int):
        self.fn, self.eps, self.atol, self.rtol, self.dtype = fn, eps, atol, rtol, dtype
        self.rng = np.random.default_rng(seed)
        self.given = _as_list(inputs)
        self.wanted = _differentiable("gradcheck", self.given)
        # Rounded to the dtype of the analytic side first, so that both sides stand at the same point.
        self.point = [_host(self.given[k]).astype(dtype).astype(np.float64) for k in self.wanted]
        self.names = [f"{k} {self.given[k].shape}" for k in self.wanted]
        self.report = GradReport(f"gradcheck of {_name(fn)}")
        self.values: list[np.ndarray] = []

    # -- the function --------------------------------------------------------------------------------------------

    def arguments(self, arrays: Sequence[np.ndarray], needs: Sequence[int], dtype: Any = np.float64) -> list[Any]:
        """What fn is called with: the checked inputs as ``arrays``, the rest as given."""
        args = [_fresh(each, False) if isinstance(each, Tensor) else each for each in self.given]
        for k, array in zip(self.wanted, arrays):
            device = self.given[k].device  # astype keeps the order of the axes in memory
            args[k] = Tensor._wrap(device.asarray(array.astype(dtype)), device).requires_grad_(k in needs)
        return args

    def floats(self, outputs: Any) -> list[Tensor]:
        """The outputs that could have a gradient."""
        outputs = _as_list(outputs)
        for out in outputs:
            if not isinstance(out, Tensor):
                raise ArgumentError(f"gradcheck: fn must return a tensor or several, got {type(out).__name__}")
        return [out for out in outputs if out.dtype.kind == "f"]

    def at(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The values of fn, without a graph unless fn makes one."""
        with no_grad():
            return [_host(out).astype(np.float64) for out in self.floats(self.fn(*self.arguments(arrays, ())))]

    def moved(self, direction: Sequence[np.ndarray], step: float) -> list[np.ndarray]:
        return self.at([array + step * v for array, v in zip(self.point, direction)])

    # -- the check -----------------------------------------------------------------------------------------------

    def run(self, mode: str, directions: int) -> None:
        self.values = self.at(self.point)
        again = self.at(self.point)
        if len(again) != len(self.values) or any(a.tobytes() != b.tobytes() for a, b in zip(self.values, again)):
            self.report.problems.append(
                "fn must give the same result twice, got two that differ; fix its random numbers: for dropout call "
                "gn.manual_seed(0) inside fn"
            )
            return
        with np.errstate(all="ignore"):  # inf and NaN make a row fail; they need no warning
            if mode == "full":
                self.full()
            else:
                self.along(directions)

    def cotangents(self) -> list[np.ndarray]:
        return [self.rng.standard_normal(value.shape).astype(self.dtype).astype(np.float64) for value in self.values]

    def gradients(self, cotangents: Sequence[np.ndarray | None], needs: Sequence[int]) -> list[np.ndarray]:
        """d<cotangents, outputs>/d(input) for the inputs in ``needs``; also looks at what fn did to its inputs."""
        args = self.arguments(self.point, needs, self.dtype)
        before = [_host(each).tobytes() if isinstance(each, Tensor) else b"" for each in args]
        asked = [args[k] for k in needs]
        with enable_grad():
            outputs = self.floats(self.fn(*args))
            pairs = [
                (out, Tensor(c, out.dtype, out.device))
                for out, c in zip(outputs, cotangents)
                if c is not None and out.requires_grad
            ]
            found: Sequence[Any] = [None] * len(asked)
            if pairs:
                found = grad([out for out, _ in pairs], asked, [c for _, c in pairs], allow_unused=True)
        for k, (each, bits) in enumerate(zip(args, before)):
            if isinstance(each, Tensor) and _host(each).tobytes() != bits:
                self.problem(f"fn must leave its inputs alone, got input {k} changed by its forward or backward")
        for k, x, gx in zip(needs, asked, found):
            if gx is not None and (gx.shape != x.shape or gx.dtype != x.dtype):
                self.problem(f"the gradient of input {k} must be {x.dtype} {x.shape}, got {gx.dtype} {gx.shape}")
        return [np.zeros(x.shape) if gx is None else _host(gx).astype(np.float64) for x, gx in zip(asked, found)]

    def problem(self, text: str) -> None:
        if text not in self.report.problems:
            self.report.problems.append(text)

    def along(self, directions: int) -> None:
        """Directional derivatives over all inputs together and over each alone."""
        cotangents = self.cotangents()
        together = self.gradients(cotangents, self.wanted)
        if len(self.wanted) > 1:
            for k, gx in zip(self.wanted, together):
                (alone,) = self.gradients(cotangents, [k])
                bound = 1e-6 * float(np.abs(gx).max(initial=0.0)) + 1e-12
                if alone.shape == gx.shape and not np.allclose(alone, gx, rtol=0, atol=bound, equal_nan=True):
                    self.problem(f"the gradient of input {k} differs when it is the only one wanted")
        for number in range(directions):
            drawn = [self.rng.standard_normal(array.shape) for array in self.point]
            if len(drawn) > 1:
                self.direction("all inputs", number, drawn, together, cotangents)
            for k, name in enumerate(self.names):
                alone = [v if j == k else np.zeros_like(v) for j, v in enumerate(drawn)]
                self.direction(name, number, alone, together, cotangents)

    def direction(self, name: str, number: int, v: Any, gradients: Any, cotangents: Any) -> None:
        products = np.concatenate([(gx * each).ravel() for gx, each in zip(gradients, v)])
        noise = _dot([np.abs(c) for c in cotangents], [np.abs(value) for value in self.values])
        scale = np.abs(products).sum()
        numeric, allowed, kink = self.differences(
            v, np.array([products.sum()]), lambda values: _dot(cotangents, values), noise, scale
        )
        self.add(name, f"direction {number}", "all", products.sum(), numeric[0], allowed[0], kink[0])

    def full(self) -> None:
        """The whole Jacobian: one backward per output element, two or four values of fn per input element."""
        jacobians = [[np.zeros((x.size, value.size)) for value in self.values] for x in self.point]
        for number, value in enumerate(self.values):
            for element in range(value.size):
                one = np.zeros(value.size)
                one[element] = 1.0
                chosen = [one.reshape(value.shape) if k == number else None for k in range(len(self.values))]
                for k, gx in enumerate(self.gradients(chosen, self.wanted)):
                    jacobians[k][number][:, element] = gx.ravel()
        noise = np.abs(_flat(self.values))
        for k, x in enumerate(self.point):
            for element in range(x.size):
                v = [np.zeros(array.shape) for array in self.point]
                v[k].flat[element] = 1.0
                analytic = np.concatenate([jacobian[element] for jacobian in jacobians[k]])
                scale = np.abs(analytic).max(initial=0.0)
                numeric, allowed, kink = self.differences(v, analytic, _flat, noise, scale)
                self.column(k, element, analytic, numeric, allowed, kink)

    def column(self, k: int, element: int, analytic: Any, numeric: Any, allowed: Any, kink: Any) -> None:
        """One row for each output: its worst element."""
        start = 0
        for number, value in enumerate(self.values):
            if not value.size:
                continue
            part = slice(start, start + value.size)
            start += value.size
            excess = np.abs(analytic[part] - numeric[part]) / allowed[part]
            excess[~np.isfinite(excess)] = np.inf
            off = ~kink[part] & (excess > 1)
            rank = np.where(off, 2.0, np.where(kink[part], 1.0, 0.0))
            worst = int(np.lexsort((excess, rank))[-1])
            at = start - value.size + worst
            where = f"[{', '.join(map(str, np.unravel_index(element, self.point[k].shape)))}]"
            place = f"{number} [{', '.join(map(str, np.unravel_index(worst, value.shape)))}]"
            self.add(self.names[k], where, place, analytic[at], numeric[at], allowed[at], kink[at])

    def differences(self, v: Any, analytic: Any, reduce: Callable[[Any], Any], noise: Any, scale: Any) -> Any:
        """(numeric, allowed, kink) along ``v``; a second, finer step decides where the first leaves a doubt.

        ``noise`` is the size of what the differences are taken of, ``scale`` that of the terms of the analytic side.
        """
        numeric, gap, allowed = self.step(v, self.eps, reduce, noise, scale)
        # Written so that NaN counts as a doubt.
        doubt = ~((np.abs(analytic - numeric) <= allowed) & (gap <= allowed))
        kink = np.zeros(analytic.shape, bool)
        if doubt.any():
            finer, finer_gap, finer_allowed = self.step(v, self.eps / FINER, reduce, noise, scale)
            # Curvature closes the gap in proportion to the step; a kink leaves it as it is.
            kink = doubt & (gap > allowed) & (finer_gap > finer_allowed) & (finer_gap > gap / 2)
            numeric = np.where(doubt & ~kink, finer, numeric)
            allowed = np.where(doubt & ~kink, finer_allowed, allowed)
        return numeric, allowed, kink

    def step(self, v: Any, eps: float, reduce: Callable[[Any], Any], noise: Any, scale: Any) -> Any:
        """(central difference, gap between the one-sided ones, allowed error) for one step."""
        above, below = self.moved(v, eps), self.moved(v, -eps)
        right = reduce([(a - b) / eps for a, b in zip(above, self.values)])
        left = reduce([(a - b) / eps for a, b in zip(self.values, below)])
        numeric, gap = (right + left) / 2, np.abs(right - left)
        allowed = self.atol + self.rtol * np.abs(numeric) + 4 * float(np.finfo(np.float64).eps) / eps * noise
        if self.dtype != np.float64:
            allowed = allowed + 64 * float(np.finfo(self.dtype).eps) * scale
        return numeric, gap, allowed

    def add(self, name: str, where: str, output: str, analytic: Any, numeric: Any, allowed: Any, kink: Any) -> None:
        error = float(abs(analytic - numeric))
        verdict = "kink" if kink else "ok" if error <= allowed else "FAIL"
        row = GradRow(verdict, name, where, output, float(analytic), float(numeric), error, float(allowed))
        self.report.rows.append(row)


def _dot(cotangents: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([sum(float((c * value).sum()) for c, value in zip(cotangents, values))])


def _flat(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([value.ravel() for value in values])


def _name(fn: Any) -> str:
    owner = getattr(fn, "__self__", None)  # Cube.apply
    return f"{owner.__name__}.{fn.__name__}" if isinstance(owner, type) else getattr(fn, "__name__", type(fn).__name__)


def _as_list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, tuple | list) else [values]


def _host(tensor: Tensor) -> np.ndarray:
    return tensor.device.to_host(tensor.data)


def _flows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _fresh(value: Any, requires_grad: bool | None = None) -> Any:
    """A leaf with a copy of the values; what is no tensor stays as it is."""
    if not isinstance(value, Tensor):
        return value
    return Tensor(value, requires_grad=value.requires_grad if requires_grad is None else requires_grad)


def _differentiable(op: str, given: Sequence[Any]) -> list[int]:
    """Positions of the inputs to check; raises where there is none or one is not float64."""
    wanted = [k for k, each in enumerate(given) if _flows(each)]
    if not wanted:
        raise ArgumentError(f"{op}: one input at least must have requires_grad=True, got none among {len(given)}")
    for k in wanted:
        if given[k].dtype != np.float64:
            raise DTypeError(
                f"{op}: input {k} must be float64, got {given[k].dtype}, in whose rounding a difference drowns; "
                "make it with dtype='float64', and pass analytic_dtype='float32' to check float32 kernels"
            )
    return wanted
