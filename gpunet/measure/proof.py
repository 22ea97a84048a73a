"""Whether a kernel does what its definition does. Without a proof no time is written.

One proof runs a kernel three times on fresh copies of random inputs, with its outputs poisoned, and asks:

* does it return as many arrays as the definition, of the same shapes, in the dtype of the inputs, in memory of its own;
* is every element as close to the definition in float64 as its dtype and the number of terms allow
  (``measure/tolerances.py``), which also finds what was not written and float32 hidden in a float64 kernel;
* is the output not constant where the definition is not, and is the definition not constant itself, which would prove
  nothing;
* are the inputs untouched, bit for bit;
* do the three runs agree, bit for bit.

The definition is proved as well: in float32 like any kernel, and its gradients against central differences.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from gpunet import config, devices
from gpunet.devices import Device
from gpunet.dispatch import Kernel
from gpunet.measure import tolerances
from gpunet.measure.calls import DEFINITION, Case, definitions, outputs, seeded
from gpunet.measure.rows import Proof

REPEATS = 3


@dataclass
class Verdict:
    """What a proof found; ``reason`` is empty when it passed."""

    reason: str = ""
    refused: bool = False
    reached: float | None = None
    allowed: float | None = None
    deterministic: bool | None = None
    first_call: float = 0.0

    @property
    def status(self) -> str:
        """The word for it in a row."""
        return "refused" if self.refused else "failed" if self.reason else "passed"


def prove(case: Case, kernel: Kernel, device: Device, repeats: int = REPEATS) -> Verdict:
    """Proves ``kernel`` on ``case``, on ``device``.

    Args:
        case: what to compute, from ``calls.capture``.
        kernel: any kernel of the case's entry.
        device: where the arrays are put; the kernel's backend must run there.
        repeats: runs, each on its own copy of the inputs; from two on, determinism is looked at.

    Returns:
        A verdict; a kernel that raises has failed.
    """
    verdict = Verdict()
    try:
        refusal = kernel.refusal(case.arrays_on(device), case.call.params)
        if refusal is not None:
            return Verdict(reason=refusal, refused=True)
        _judge(case, kernel, device, repeats, verdict)
    except Exception as error:  # whatever a kernel raises, it is this kernel's fault and must not end the run
        verdict.reason = f"it raises {type(error).__name__}: {error}"
    return verdict


def _judge(case: Case, kernel: Kernel, device: Device, repeats: int, verdict: Verdict) -> None:
    runs: list[tuple[Any, ...]] = []
    with poisoned():
        for k in range(repeats):
            arrays = case.arrays_on(device)
            begin = time.perf_counter()
            result = outputs(kernel.function(*arrays, **case.call.params))
            device.synchronize()
            verdict.first_call = verdict.first_call or time.perf_counter() - begin
            reason = _inputs_changed(case, arrays, device) or _not_own(result, [*arrays, *_flat(runs)], device)
            if reason:
                verdict.reason = reason if k == 0 else f"{reason} (run {k + 1})"
                return
            runs.append(result)
    results = [tuple(device.to_host(each) for each in run) for run in runs]
    verdict.reason = _wrong_form(case, results[0])
    if not verdict.reason:
        verdict.reason = _wrong_values(case, results[0], verdict)
    if not verdict.reason and repeats > 1:
        verdict.deterministic = all(_same_bits(results[0], other) for other in results[1:])
        if not verdict.deterministic:
            verdict.reason = f"{repeats} runs on the same inputs differ in their bits; sums must have a fixed order"


def _flat(runs: list[tuple[Any, ...]]) -> list[Any]:
    return [each for run in runs for each in run]


def _inputs_changed(case: Case, arrays: tuple[Any, ...], device: Device) -> str:
    for position, (before, after) in enumerate(zip(case.call.arrays, arrays, strict=True)):
        if isinstance(before, np.ndarray) and not _same_bits((before,), (device.to_host(after),)):
            return f"it changes input {position}, of shape {before.shape}; inputs must stay as they are"
    return ""


def _not_own(result: tuple[Any, ...], others: list[Any], device: Device) -> str:
    """Outputs must be arrays in memory of their own: not the inputs', not those of an earlier call."""
    for position, output in enumerate(result):
        if not hasattr(output, "dtype"):
            return f"output {position} must be an array of the device, got {type(output).__name__}"
        if output.size and any(hasattr(each, "dtype") and device.xp.may_share_memory(output, each) for each in others):
            return f"output {position} shares memory with an input or with an earlier call's output; it must be its own"
    return ""


def _same_bits(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> bool:
    return len(first) == len(second) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(first, second, strict=True)
    )


def _wrong_form(case: Case, result: tuple[np.ndarray, ...]) -> str:
    expected = case.expected
    if len(result) != len(expected):
        return f"it must return {len(expected)} arrays, got {len(result)}"
    for position, (output, wanted) in enumerate(zip(result, expected, strict=True)):
        dtype = np.dtype(case.dtype) if wanted.dtype.kind == "f" else wanted.dtype
        if output.shape != wanted.shape or output.dtype != dtype:
            return f"output {position} must be {dtype} {wanted.shape}, got {output.dtype} {output.shape}"
    return ""


def _wrong_values(case: Case, result: tuple[np.ndarray, ...], verdict: Verdict) -> str:
    flops = case.work.flops
    worst = -1.0
    for position, (output, wanted) in enumerate(zip(result, case.expected, strict=True)):
        error = tolerances.compare(output, wanted, max(1.0, flops / max(wanted.size, 1)))
        share = error.reached / error.allowed if error.allowed else float(error.reached > 0)
        if share > worst:
            worst, verdict.reached, verdict.allowed = share, error.reached, error.allowed
        reason = _constant(output, wanted)
        if not reason and not error.ok:
            reason = f"is off by {error.reached:.2e} at {error.where}, allowed is {error.allowed:.2e}"
            if output.dtype.kind == "f" and np.isnan(output).any() and not np.isnan(wanted).any():
                reason = f"holds NaN, first at {_first_nan(output)}: an element that was not written, or a wrong one"
        if reason:
            return f"output {position} {reason}"
    return ""


def _first_nan(output: np.ndarray) -> tuple[int, ...]:
    return tuple(int(k) for k in np.argwhere(np.isnan(output))[0])


def _constant(output: np.ndarray, wanted: np.ndarray) -> str:
    """Why outputs that are all alike prove nothing, or are wrong; empty when they are not alike."""
    if wanted.size < 2:
        return ""
    if (wanted == wanted.flat[0]).all():
        return "" if wanted.dtype.kind != "f" else "is constant by its definition here, which proves nothing"
    if (output == output.flat[0]).all():
        return f"is {output.flat[0]} everywhere, the definition is not"
    return ""


@contextmanager
def poisoned() -> Iterator[None]:
    """Inside, every output that a launcher allocates through ``devices.empty`` is filled with NaN first."""
    before, config.settings.poison = config.settings.poison, True
    try:
        yield
    finally:
        config.settings.poison = before


def row(case: Case, kernel: Kernel, device: Device, verdict: Verdict) -> Proof:
    """The verdict as it is written down."""
    return Proof(
        case.op, case.label, case.phase, str(device), kernel.backend, kernel.variant, kernel.place, case.dtype,
        case.size.name, verdict.status, verdict.reason, verdict.reached, verdict.allowed, verdict.deterministic,
    )  # fmt: skip


def untested(kernel: Kernel, device: Device) -> Proof:
    """The row of a kernel that no case reached: as bad as one that failed."""
    reason = "no size of a suite reaches it; add one to bench/suites"
    return Proof(
        kernel.op,
        kernel.entry,
        "",
        str(device),
        kernel.backend,
        kernel.variant,
        kernel.place,
        "",
        "",
        "untested",
        reason,
    )


def prove_gradient(suite: ModuleType, size: Any, seed: int) -> Proof:
    """Proves the definition's gradients against central differences of the public function, in float64."""
    from gpunet.gradcheck import gradcheck

    op = suite.__name__.rpartition(".")[2]
    names = [name for name, each in suite.tensors(size, np.float64, devices.CPU, seed).items() if each.requires_grad]

    def function(*inputs: Any) -> Any:
        with seeded(seed):  # the same dropout mask at each of the points compared
            tensors = suite.tensors(size, np.float64, devices.CPU, seed)
            return suite.run(size, {**tensors, **dict(zip(names, inputs, strict=True))})

    proof = Proof(op, f"{op} gradients", "gradient", "cpu", DEFINITION, "reference", "", "float64", size.name, "passed")
    try:
        tensors = suite.tensors(size, np.float64, devices.CPU, seed)
        with definitions():
            result = gradcheck(function, [tensors[name] for name in names], raise_exception=False)
        worst = max(result.rows, key=lambda each: each.ratio, default=None)
        if worst is not None:
            proof.reached, proof.allowed = worst.error, worst.allowed
        if not result:
            proof.status, proof.reason = "failed", "; ".join(line.strip() for line in str(result).splitlines()[:3])
    except Exception as error:  # as in prove
        proof.status, proof.reason = "failed", f"it raises {type(error).__name__}: {error}"
    return proof


__all__ = ["Verdict", "poisoned", "prove", "prove_gradient", "row", "untested"]
