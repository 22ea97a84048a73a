"""case x entry x backend x variant x dtype, made from tests/cases.py and the registry; never written by hand.

A new kernel, variant, backend or case shows up here by itself. What cannot run on this machine is listed all the
same, as a skip with its reason.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import config, devices, dispatch
from gpunet.devices import Device
from gpunet.dispatch import REFERENCE, Call, Kernel
from tests.cases import CASES, Case

DTYPES = ("float32", "float64")
GPU_BACKENDS = ("cupy", "numba_cuda")
NO_GPU = "no GPU"  # how the reason of a skip begins that --require-gpu turns into a failure
require_gpu = False  # --require-gpu was given: `sim` does not stand in for a GPU; set before tests are collected


def wanted_of(tensors: list[gn.Tensor | None]) -> list[gn.Tensor]:
    """The tensors that need a gradient."""
    return [each for each in tensors if each is not None and each.requires_grad]


def random_like(tensor: gn.Tensor, rng: np.random.Generator) -> gn.Tensor:
    """A random cotangent."""
    return gn.tensor(rng.standard_normal(tensor.shape), dtype=tensor.dtype)


@cache
def calls(case: Case, dtype: str) -> tuple[Call, ...]:
    """Every launch of the case: forward, backward under a random cotangent, and backward through that backward.

    Ops that can run fused do so a second time, and of that run the entries count that the first did not reach.
    """
    with gn.use_fused(False):
        plain = _launches(case, dtype)
    with gn.use_fused(True):
        fused = _launches(case, dtype)
    known = {call.entry for call in plain}
    found = plain + [call for call in fused if call.entry not in known]
    for call in found:  # kernels get what they got here again and again
        for array in call.arrays:
            if array is not None:
                array.flags.writeable = False
    return tuple(found)


def _launches(case: Case, dtype: str) -> list[Call]:
    rng = np.random.default_rng(5)
    tensors = case.draw(dtype)
    wanted = wanted_of(tensors)
    before = config.local.backend
    config.local.backend = "numpy"
    try:
        with dispatch.capture() as found:
            y = case.run(*tensors)
            gy = random_like(y, rng).requires_grad_()
            first = gn.grad(y, wanted, gy, create_graph=True, allow_unused=True)
            deep = [each for each in first if each is not None and each.requires_grad]
            if deep:
                gn.grad(deep, [*wanted, gy], [random_like(each, rng) for each in deep], allow_unused=True)
    finally:
        config.local.backend = before
    return list(found)


@dataclass(frozen=True)
class Proof:
    """One kernel to be held against the definition on the calls that one case makes of its entry."""

    case: Case
    entry: str
    kernel: Kernel
    dtype: str

    @property
    def calls(self) -> list[Call]:
        """The calls of this entry that the case makes and this kernel takes."""
        return [c for c in calls(self.case, self.dtype) if c.entry == self.entry and takes(self.kernel, c)]

    @property
    def is_definition(self) -> bool:
        """Whether this is the NumPy definition in float64, which needs an oracle from outside."""
        return self.kernel.backend == "numpy" and self.kernel.variant == REFERENCE and self.dtype == "float64"

    def __str__(self) -> str:
        op = self.entry.partition(".")[0]
        name = self.case.name if self.case.op == op else f"{self.case.op}_{self.case.name}"
        return f"{self.entry}-{name}-{self.kernel.backend}-{self.kernel.variant}-{self.dtype}"


def takes(kernel: Kernel, call: Call) -> bool:
    """Whether the kernel accepts these arguments; a call by name would raise where it does not."""
    return kernel.refusal(call.arrays, call.params) is None


def run(kernel: Kernel, call: Call) -> Any:
    """The kernel's result as NumPy arrays, computed on the first device of its backend that can run."""
    device = device_of(kernel.backend)
    arrays = tuple(None if each is None else device.asarray(each) for each in call.arrays)
    with np.errstate(all="ignore"):  # as in Function.apply: inf and NaN are values, not warnings
        result = kernel.function(*arrays, **call.params)
    device.synchronize()
    host = tuple(device.to_host(each) for each in (result if isinstance(result, tuple) else (result,)))
    return host if isinstance(result, tuple) else host[0]


def definition(call: Call) -> Any:
    """The NumPy definition on the same arrays cast to float64; integers stay what they are."""
    kernel = dispatch.variants(call.entry, "numpy")[0]
    arrays = tuple(a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in call.arrays)
    with np.errstate(all="ignore"):
        return kernel.function(*arrays, **call.params)


def kinds_of(backend: str) -> tuple[str, ...]:
    """The kinds of device that count for the backend, first choice first."""
    return ("cuda",) if require_gpu and backend in GPU_BACKENDS else devices.BACKENDS[backend].devices


@cache
def why_not(backend: str) -> str | None:
    """None when the backend can run on one of the devices that count, else the reasons."""
    record = devices.BACKENDS[backend]
    reasons = {kind: record.why_not(kind) for kind in kinds_of(backend)}
    if not all(reasons.values()):
        return None
    told = "; ".join(f"{kind}: {reason}" for kind, reason in reasons.items())
    return f"{NO_GPU} ({told})" if backend in GPU_BACKENDS else told


@cache
def device_of(backend: str) -> Device:
    """The first device that counts for the backend and can run here."""
    record = devices.BACKENDS[backend]
    return devices.device(next(kind for kind in kinds_of(backend) if record.why_not(kind) is None))


def _kernels(entry: str, backend: str) -> tuple[list[Kernel], str | None]:
    """The backend's kernels of an entry, and why they cannot run here (or do not exist)."""
    found = dispatch.variants(entry, backend)
    reason = why_not(backend)
    if not found and reason is None:
        op = entry.partition(".")[0]
        reason = dispatch._load(op, backend) or f"{backend} has no kernel of this entry"
    return found, reason


def proofs(chosen: Callable[[str], bool], only_running: bool = False, dtypes: tuple[str, ...] = DTYPES) -> list[Any]:
    """Parameters for every proof of the entries that ``chosen`` accepts, marked by backend, skipped with a reason."""
    return list(_proofs(chosen, only_running, dtypes))


def _proofs(chosen: Callable[[str], bool], only_running: bool, dtypes: tuple[str, ...]) -> Iterator[Any]:
    broken = [(case, dtype, error) for case in CASES for dtype in dtypes if (error := _error_of(case, dtype))]
    for case, dtype, error in broken:
        yield pytest.param(error, id=f"{case}-{dtype}-cannot_run")
    fine = [case for case in CASES if not any(case is each for each, _, _ in broken)]
    for op in dispatch.ops():
        for entry in filter(chosen, dispatch.entries(op)):
            callers = [case for case in fine if any(call.entry == entry for call in calls(case, dtypes[0]))]
            for backend in devices.BACKENDS:
                yield from _of_backend(entry, callers, backend, only_running, dtypes)


def _of_backend(
    entry: str, callers: list[Case], backend: str, only_running: bool, dtypes: tuple[str, ...]
) -> Iterator[Any]:
    found, reason = _kernels(entry, backend)
    marks = [getattr(pytest.mark, backend)] + ([pytest.mark.skip(reason=reason)] if reason else [])
    only_running = only_running and not (require_gpu and backend in GPU_BACKENDS)
    if reason and (only_running or not found):
        if not only_running:
            yield pytest.param(None, id=f"{entry}-all-{backend}", marks=marks)
        return
    for kernel in found:
        for case in callers:
            for dtype in dtypes:
                proof = Proof(case, entry, kernel, dtype)
                if proof.calls:
                    yield pytest.param(proof, id=str(proof), marks=marks)


@cache
def _error_of(case: Case, dtype: str) -> Exception | None:
    try:
        calls(case, dtype)
    except Exception as error:  # shown by the test that gets it as its parameter
        return error
    return None


def proof_of(parameter: Any) -> Proof:
    """The parameter as a proof; raises what stopped its case from running."""
    if isinstance(parameter, Exception):
        raise parameter
    return parameter


def is_forward(entry: str) -> bool:
    """Forward entries are named so; everything else is some gradient."""
    return entry.partition(".")[2].startswith("forward")
