"""What is wrong with the answer of one call: with its form, its memory, its numbers; and whether it is finished."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.devices import Device
from gpunet.measure import tolerances
from gpunet.measure.calls import Case, definition, outputs


@dataclass
class Answer:
    """One call: what it was asked, and what it returned, on the device and on the host right after it."""

    case: Case
    result: tuple[Any, ...]
    early: tuple[np.ndarray, ...] = ()
    reason: str = ""
    """What was seen to be wrong at once; empty if nothing was."""
    seconds: float = 0.0


def changed_since(answers: list[Answer], device: Device) -> str:
    """Whether an output is no longer what it was when its call had returned."""
    device.synchronize()
    for each in answers:
        for position, (early, late) in enumerate(zip(each.early, each.result, strict=True)):
            if not same_bits((early,), (device.to_host(late),)):
                return (
                    f"output {position} still changes after the call has returned: a thread or another stream does; "
                    "it must be finished, or stand on the current stream"
                )
    return ""


def inputs_changed(case: Case, arrays: tuple[Any, ...], device: Device) -> str:
    """Whether an input on the device differs from the host's by a bit."""
    for position, (before, after) in enumerate(zip(case.call.arrays, arrays, strict=True)):
        if isinstance(before, np.ndarray) and not same_bits((before,), (device.to_host(after),)):
            return f"it changes input {position}, of shape {before.shape}; inputs must stay as they are"
    return ""


def not_arrays(result: tuple[Any, ...], device: Device) -> str:
    """Outputs must be the device's arrays and nothing that looks like them: that may compute when it is asked."""
    plain = (device.xp.ndarray, np.generic) if device.xp is np else (device.xp.ndarray,)
    for position, output in enumerate(result):
        if type(output) is not device.xp.ndarray and not isinstance(output, plain[1:]):
            return f"output {position} must be an array of the device, got {type(output).__name__}"
    return ""


def not_own(result: tuple[Any, ...], others: list[Any], device: Device) -> str:
    """Outputs must lie in memory of their own: not the inputs', not each other's, not those of an earlier call."""
    for position, output in enumerate(result):
        near = [*others, *result[:position]]
        if output.size and any(hasattr(each, "dtype") and device.xp.may_share_memory(output, each) for each in near):
            return f"output {position} shares memory with an input or with an earlier call's output; it must be its own"
    return ""


def same_bits(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> bool:
    """Whether arrays agree in number, shape, dtype and every bit."""
    return len(first) == len(second) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(first, second, strict=True)
    )


def wrong_form(case: Case, result: tuple[np.ndarray, ...]) -> str:
    """What is wrong with the number, shapes and dtypes of the outputs."""
    expected = case.expected
    if len(result) != len(expected):
        return f"it must return {len(expected)} arrays, got {len(result)}"
    for position, (output, wanted) in enumerate(zip(result, expected, strict=True)):
        dtype = np.dtype(case.dtype) if wanted.dtype.kind == "f" else wanted.dtype
        if output.shape != wanted.shape or output.dtype != dtype:
            return f"output {position} must be {dtype} {wanted.shape}, got {output.dtype} {output.shape}"
    return ""


def wrong_values(case: Case, result: tuple[np.ndarray, ...], verdict: Any) -> str:
    """What is wrong with the numbers; the error that is nearest its bound goes into the verdict."""
    flops = case.work.flops
    worst = -1.0 if verdict.reached is None else _share(verdict.reached, verdict.allowed or 0.0)
    for position, (output, wanted) in enumerate(zip(result, case.expected, strict=True)):
        error = tolerances.compare(output, wanted, max(1.0, flops / max(wanted.size, 1)))
        if not error.ok and output.dtype.kind == "f" and np.isfinite(error.reached):
            error = error._replace(allowed=max(error.allowed, _explained(case, position, error.allowed)))
        share = _share(error.reached, error.allowed)
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


def _explained(case: Case, position: int, allowed: float) -> float:
    """What the rounding of the inputs alone explains: sums that nearly cancel are known no better than their terms.

    The definition is asked again on inputs that are half a last digit off, up or down; 16 times what that moves may
    be kernels' own roundings, but never more than a thousand times the usual bound.
    """
    signs = np.random.Generator(np.random.Philox(3))
    half = float(np.finfo(case.dtype).eps) / 2

    def moved(array: Any) -> Any:
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            return array
        return array.astype(np.float64) * (1 + half * (2 * signs.integers(0, 2, array.shape) - 1))

    arrays = tuple(moved(each) for each in case.call.arrays)
    near = outputs(definition(case.entry).function(*arrays, **case.call.params))[position]
    distance = tolerances.compare(near, case.expected[position], 1.0).reached
    return min(16 * distance, 1000 * allowed) if np.isfinite(distance) else allowed


def _share(reached: float, allowed: float) -> float:
    return reached / allowed if allowed else float(reached > 0)


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
