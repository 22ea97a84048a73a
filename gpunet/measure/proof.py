"""Whether a kernel does what its definition does. Without a proof no time is written.

One proof calls a kernel three times: on random inputs; on other numbers in arrays of their own; and on the first
numbers again, written into the arrays of the second call. Outputs are poisoned, through ``devices.empty`` and by
filling the memory that the next allocation will get. It asks:

* does it return as many arrays as the definition, of the same shapes, in the dtype of the inputs, in memory of its own;
* is every element as close to the definition in float64 as its dtype and the number of terms allow
  (``measure/tolerances.py``), which also finds what was not written and float32 hidden in a float64 kernel;
* is it so in each call, or are answers kept from an earlier one;
* is the output not constant where the definition is not, and is the definition not constant itself, which would prove
  nothing;
* is the output finished when the call is, or does a thread or another stream still write it;
* are the inputs untouched, bit for bit, and all else that :mod:`gpunet.measure.guard` looks at;
* do the calls on the same numbers agree, bit for bit.

On sizes of tier "proof", which are small, a user's kernel is also tried on inputs that are not contiguous and not
aligned (it may refuse them; for the kernels that ship the tests do that, since compiling them anew takes long). Every
kernel is called until it would show that it keeps memory at each call.

The definition is proved as well: in float32 like any kernel, and its gradients against central differences.
"""

import gc
import importlib
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gpunet import config, devices
from gpunet.devices import Device
from gpunet.dispatch import Kernel
from gpunet.measure import guard, variation
from gpunet.measure.answers import (
    Answer,
    changed_since,
    inputs_changed,
    not_arrays,
    not_own,
    same_bits,
    wrong_form,
    wrong_values,
)
from gpunet.measure.calls import DEFINITION, Case, definitions, outputs, seeded
from gpunet.measure.rows import Proof

REPEATS = 3
LARGE = 2**28  # bytes of inputs from which no second set of numbers is made
DIRTY = 4  # blocks of each output's size that are filled before a call
STALE = 3.0  # what they are filled with where NaN would give the proof away
LEAK = 512  # bytes a call: less is bookkeeping of Python's and of libraries
_clock = time.perf_counter


@dataclass
class Verdict:
    """What a proof found; ``reason`` is empty when it passed."""

    reason: str = ""
    refused: bool = False
    reached: float | None = None
    allowed: float | None = None
    deterministic: bool | None = None
    first_call: float = 0.0
    later_call: float = 0.0
    """The shortest poisoned call but the first; 0 if there was none."""

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
        repeats: calls; from two on, kept answers are looked for, from three on, determinism.

    Returns:
        A verdict; a kernel that raises has failed.
    """
    verdict = Verdict()
    try:
        refusal = kernel.refusal(case.arrays_on(device), case.call.params)
        if refusal is not None:
            return Verdict(reason=refusal, refused=True)
        guard.need_originals()
        case.expected  # noqa: B018 the definition runs now, while nothing is watched and nothing was replaced
        _judge(case, kernel, device, repeats, verdict)
        if not verdict.reason and case.size.tier == "proof" and repeats > 1:
            verdict.reason = "" if _ships(kernel) else _wrong_layout(case, kernel, device)
            verdict.reason = verdict.reason or _leak(case, kernel, device)
    except guard.TamperedError as error:
        verdict.reason = str(error)
    except Exception as error:  # whatever a kernel raises, it is this kernel's fault and must not end the run
        verdict.reason = f"it raises {type(error).__name__}: {error}"
    return verdict


def _judge(case: Case, kernel: Kernel, device: Device, repeats: int, verdict: Verdict) -> None:
    other = case.permuted if repeats > 1 and case.nbytes < LARGE else case
    other.expected  # noqa: B018 as in prove
    answers: list[Answer] = []
    with guard.untouched(device_modules(device)):
        arrays = case.arrays_on(device)
        for k in range(repeats):
            asked = other if k % 2 else case
            if k == 1:
                arrays = asked.arrays_on(device)
            elif k > 1:
                write(asked.call.arrays, arrays, device)
            # The second call sees no sign of a proof: nothing is poisoned, its memory holds ordinary numbers.
            answers.append(_ask(asked, kernel, device, arrays, answers, poison=k != 1))
            if answers[-1].reason:
                break
    first = answers[0]
    verdict.first_call = first.seconds
    verdict.later_call = min((each.seconds for k, each in enumerate(answers) if k > 1), default=0.0)
    reason = answers[-1].reason
    if reason:
        verdict.reason = reason if len(answers) == 1 else f"{reason} (run {len(answers)})"
        return
    verdict.reason = changed_since(answers, device) or _wrong_answers(answers, verdict)
    same = [each for each in answers if each.case is case]
    if not verdict.reason and len(same) > 1:
        verdict.deterministic = all(same_bits(first.early, each.early) for each in same)
        if not verdict.deterministic:
            verdict.reason = f"{len(same)} runs on the same inputs differ in their bits; sums must have a fixed order"


def _ask(
    case: Case, kernel: Kernel, device: Device, arrays: tuple[Any, ...], earlier: list[Answer], poison: bool
) -> Answer:
    """One call, looked at from outside: what it returns, when it is done, what it did to its inputs."""
    dirty_memory(case, device, np.nan if poison else STALE)
    threads = guard.threads()
    with poisoned(poison):
        begin = _clock()
        answer = Answer(case, outputs(kernel.function(*arrays, **case.call.params)))
        wait_for_stream(device)
    answer.seconds = _clock() - begin
    others = [*arrays, *(each for one in earlier for each in one.result)]
    answer.reason = not_arrays(answer.result, device)
    if answer.reason:
        return answer
    early = tuple(each.copy() for each in answer.result)
    device.synchronize()
    answer.early = tuple(device.to_host(each) for each in early)
    left = bool(guard.threads() - threads) and guard.wait_for(threads)
    answer.reason = changed_since([answer], device) or inputs_changed(case, arrays, device)
    answer.reason = answer.reason or not_own(answer.result, others, device)
    if left and not answer.reason:
        answer.reason = "it leaves a thread running after it has returned; a call must end what it began"
    return answer


def wait_for_stream(device: Device) -> None:
    """Waits for the stream on which the result would be used next, and for no other."""
    if device.kind == "cuda":
        device.xp.cuda.get_current_stream().synchronize()


def device_modules(device: Device) -> tuple[Any, ...]:
    """The array library of a device, where it is not NumPy."""
    return () if device.xp is np else (device.xp,)


def dirty_memory(case: Case, device: Device, value: float) -> None:
    """Fills memory that the next outputs may get, so that what a kernel leaves out shows instead of an old answer."""
    blocks = []
    for wanted in case.expected:
        dtype = np.dtype(case.dtype) if wanted.dtype.kind == "f" else wanted.dtype
        fill = value if dtype.kind == "f" else 119 if dtype.kind in "iu" else 1
        count = DIRTY if wanted.nbytes < LARGE else 1
        blocks += [device.xp.full(wanted.shape, fill, dtype) for _ in range(count)]
        blocks += [_filled(wanted.shape, dtype, device, fill) for _ in range(count)]  # what launchers get theirs from
    blocks.clear()


def _filled(shape: tuple[int, ...], dtype: Any, device: Device, fill: float) -> Any:
    block = devices.empty(shape, dtype, device.xp)
    block[...] = fill
    return block


def write(values: tuple[Any, ...], arrays: tuple[Any, ...], device: Device) -> None:
    """Writes host values into arrays of the device, which stay where they are."""
    for value, array in zip(values, arrays, strict=True):
        if isinstance(value, np.ndarray):
            array[...] = device.asarray(value)


def _wrong_answers(answers: list[Answer], verdict: Verdict) -> str:
    """Values of every call against the definition; where only some are wrong, which."""
    reasons = [wrong_form(each.case, each.early) or wrong_values(each.case, each.early, verdict) for each in answers]
    wrong = [k for k, reason in enumerate(reasons) if reason]
    if not wrong:
        return ""
    k = wrong[0]
    for j in range(k):
        if same_bits(answers[j].early, answers[k].early) and answers[j].case is not answers[k].case:
            place = "arrays of their own" if k == 1 else "the same arrays"
            return f"run {k + 1} returns run {j + 1}'s answer to other numbers, in {place}; it must keep no answers"
    if k == 0 and len(wrong) < len(answers):
        return f"only its first run is wrong: {reasons[0]}" if len(answers) > 1 else reasons[0]
    return reasons[k] if k == 0 else f"its first run is right and run {k + 1} is wrong: {reasons[k]}"


def _ships(kernel: Kernel) -> bool:
    """Whether the kernel's file is one of the project's own."""
    folders = importlib.import_module("gpunet.kernels").__path__
    return any(Path(kernel.file).resolve().is_relative_to(Path(each).resolve()) for each in folders)


def _wrong_layout(case: Case, kernel: Kernel, device: Device) -> str:
    """What is wrong with inputs that lie otherwise in memory; a kernel may refuse such, not get them wrong."""
    for told, make in variation.LAYOUTS.items():
        arrays = tuple(make(each, device) if hasattr(each, "dtype") else each for each in case.arrays_on(device))
        if kernel.refusal(arrays, case.call.params) is not None:
            continue
        try:
            with guard.untouched(device_modules(device)):
                answer = _ask(case, kernel, device, arrays, [], poison=True)
        except guard.TamperedError:
            raise
        except Exception as error:
            return f"on inputs that are {told} it raises {type(error).__name__}: {error}"
        reason = answer.reason or wrong_form(case, answer.early) or wrong_values(case, answer.early, Verdict())
        if reason:
            return f"on inputs that are {told} it is wrong, or must refuse them: {reason}"
    return ""


def _leak(case: Case, kernel: Kernel, device: Device) -> str:
    """Whether each call keeps memory: Python's count of it grows in three rounds of calls one after the other.

    What grows by chance, as when a thread of the pool is late to let go, does not grow with the number of calls: a
    suspicion is looked into with more of them.
    """
    if device.kind == "sim":  # it would take long, and the launchers are those of the GPU
        return ""
    arrays = case.arrays_on(device)
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()
    try:
        with poisoned(False), guard.untouched(device_modules(device)):
            kept = 0.0
            for collect, calls in ((False, 8), (True, 8), (True, 64)):  # what takes long, only where it decides
                kept = _kept(lambda: kernel.function(*arrays, **case.call.params), calls, device, collect)
                if kept < LEAK:
                    return ""
    finally:
        if ours:
            tracemalloc.stop()
    return f"every call keeps {kept:.0f} bytes or more; a call must let go of what it allocates"


def _kept(call: Callable[[], Any], calls: int, device: Device, collect: bool) -> float:
    """Bytes that each call keeps, in the round of calls that keeps least."""
    levels = []
    for _ in range(4):
        for _ in range(calls):
            call()
        device.synchronize()
        if collect:
            gc.collect()
        pool = device.xp.get_default_memory_pool().used_bytes() if device.kind == "cuda" else 0
        levels.append(tracemalloc.get_traced_memory()[0] + pool)
    return min((after - before) / calls for before, after in pairwise(levels))


@contextmanager
def poisoned(on: bool = True) -> Iterator[None]:
    """Inside, every output that a launcher allocates through ``devices.empty`` is filled with NaN first."""
    before, config.settings.poison = config.settings.poison, on
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
