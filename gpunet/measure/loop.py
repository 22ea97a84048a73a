"""What goes into the timed loop, and what is asked of it: work that is left out while the clock runs must show.

The inputs are none that a proof has used. Before every sample two numbers exchange their places in each copy that is
about to be used, so no call finds inputs that an earlier one had, and an answer kept from an earlier call is wrong.
Before the last few samples the first and the last copy exchange certain pairs, for which the definition is known: what
their calls return is held against it. A kernel cannot tell these samples from the others.
"""

import random
from collections.abc import Callable
from typing import Any

from gpunet.devices import Device
from gpunet.dispatch import Kernel
from gpunet.measure import answers, events, guard, proof, timer, variation
from gpunet.measure.calls import Case, outputs
from gpunet.measure.rows import Timing

LEAST_GROWTH = 64 * 2**20  # bytes of the process below which nothing is said of growth
SLOWER, SLEEP = 50, 0.02  # times the upper quartile, and seconds, that no call of a proof may take


class Loop:
    """The copies of one case's inputs, and the judge between the samples.

    Args:
        case: the inputs, which no proof has used.
        kernel: what is timed; it must have passed a proof.
        device: where the copies are put.
        copies: how many.
    """

    def __init__(self, case: Case, kernel: Kernel, device: Device, copies: int = 1):
        self.case, self.kernel, self.device = case, kernel, device
        self.arrays = [case.arrays_on(device) for _ in range(copies)]
        self.pairs: list[list[variation.Exchange]] = [[] for _ in range(copies)]
        self.numbers = random.Random(copies)
        self.varied = variation.floats(self.arrays[0])
        self.last: list[answers.Answer] = []
        self.reason = ""
        self.resident: int | None = None  # bytes of the process before the judge keeps results of its own

    @property
    def calls(self) -> list[Callable[[], Any]]:
        """One call for each copy."""
        function, params = self.kernel.function, self.case.call.params
        return [lambda given=given: function(*given, **params) for given in self.arrays]

    def time(self, limits: timer.Limits, cold: bool) -> Timing | None:
        """Times the calls; None, and ``reason``, if something is wrong with them."""
        guard.need_originals()
        self.case.exchanged.expected  # noqa: B018 the definition runs now, while nothing is watched
        threads, memory, timing = guard.threads(), guard.resident(), None
        try:
            with proof.poisoned(False), guard.untouched(proof.device_modules(self.device)):
                watch = events.Stopwatch(self.device) if self.device.kind == "cuda" else None
                timing = timer.measure(self.calls, self.device.synchronize, limits, cold, self, watch)
        except (guard.TamperedError, timer.ClockError) as error:
            self.reason = self.reason or str(error)
        except Exception as error:  # as in a proof, it is the kernel's fault and must not end the run
            self.reason = self.reason or f"it raises {type(error).__name__} in the timed loop: {error}"
        if not self.reason and timing is not None:
            self.reason = self._finish(threads) or self._growth(memory, timing)
        return None if self.reason else timing

    def before(self, turns: range, closing: bool) -> None:
        """Gives the copies of the next sample numbers that they did not hold before."""
        if closing and self.resident is None:
            self.resident = guard.resident()
        judged = {turns[0] % len(self.arrays), turns[-1] % len(self.arrays)}
        for copy in {turn % len(self.arrays) for turn in turns}:
            arrays = self.arrays[copy]
            variation.apply(self.pairs[copy][::-1], arrays)
            if closing and copy in judged:
                self.pairs[copy] = self.case.exchanges
            elif self.varied:
                self.pairs[copy] = [variation.exchange(arrays, self.numbers.choice(self.varied), self.numbers)]
            variation.apply(self.pairs[copy], arrays)
        if closing:
            proof.dirty_memory(self.case.exchanged, self.device, proof.STALE)

    def after(self, turn: int, result: Any) -> None:
        """Judges one of the last results."""
        if self.reason:
            return
        case = self.case.exchanged
        answer = answers.Answer(case, outputs(result))
        self.reason = answers.not_arrays(answer.result, self.device)
        if self.reason:
            return
        answer.early = tuple(self.device.to_host(each.copy()) for each in answer.result)
        arrays = self.arrays[turn % len(self.arrays)]
        others = [*arrays, *(each for one in self.last for each in one.result)]
        reason = answers.inputs_changed(case, arrays, self.device) or answers.not_own(
            answer.result, others, self.device
        )
        wrong = answers.wrong_form(case, answer.early) or answers.wrong_values(case, answer.early, proof.Verdict())
        self.last.append(answer)
        if wrong and not reason:
            reason = f"a result of the timed loop is wrong, though a proof has passed: {wrong}"
        self.reason = reason

    def _finish(self, threads: frozenset[int]) -> str:
        """What is wrong once the loop is over."""
        left = bool(guard.threads() - threads) and guard.wait_for(threads)
        reason = answers.changed_since(self.last, self.device)
        for pairs, arrays in zip(self.pairs, self.arrays, strict=True):
            variation.apply(pairs[::-1], arrays)
            reason = reason or answers.inputs_changed(self.case, arrays, self.device)
        if left and not reason:
            reason = "it leaves a thread running after the timed loop; a call must end what it began"
        return reason

    def _growth(self, memory: int | None, timing: Timing) -> str:
        """Whether the process grew as if every output had been kept."""
        now, calls = self.resident, timing.n * timing.inner
        if memory is None or now is None or now - memory < LEAST_GROWTH:
            return ""
        outputs_of_all = calls * sum(each.nbytes for each in self.last[-1].result)
        if now - memory < outputs_of_all / 2:
            return ""
        return f"{calls} calls let the process grow by {(now - memory) / 2**20:.0f} MiB; a call must keep nothing"


def slower_in_proof(seconds: float, timing: Timing) -> str:
    """Whether a proof's calls took so much longer than the timed ones that other work must have been done there."""
    if seconds > SLEEP and seconds > SLOWER * timing.p75:
        return (
            f"a call of the proof took {seconds:.2g} seconds, most of the timed loop {timing.p75:.2g} or less; "
            "it must do the same work in both"
        )
    return ""
