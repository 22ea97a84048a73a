"""Comparing in pairs: the verdict's words, what noise does to it, and the clock behind it."""

import re
import time

import numpy as np
import pytest

import gpunet as gn
from gpunet.devices import Device
from gpunet.measure import calibrate, pairs, timer
from gpunet.measure.pairs import Lane, Limits


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch):
    """Hundreds of comparisons need no collection of garbage before each."""
    monkeypatch.setattr(timer.gc, "collect", lambda *_: 0)


class Noisy(Lane):
    """A lane whose samples come from a model of a shared machine instead of a clock."""

    def __init__(self, seconds: float, machine: "Machine"):
        self.true, self.machine = seconds, machine
        super().__init__([lambda: None])
        self.samples.clear()

    def _sample(self) -> float:
        return self.true * self.machine.now()


class Machine:
    """Noise that both lanes meet: jitter of 2 %, a clock that drifts by 30 %, and now and then somebody else."""

    def __init__(self, seed: int):
        self.rng, self.step = np.random.default_rng(seed), 0

    def now(self) -> float:
        self.step += 1
        drift = 1.15 + 0.15 * np.sin(self.step / 90)
        late = self.rng.exponential(0.5) if self.rng.random() < 0.08 else 0.0
        return float(drift * np.exp(0.02 * self.rng.standard_normal()) + late)


def verdicts(factor: float, count: int = 200) -> list[str]:
    limits = Limits(seconds=60, most=300)
    found = []
    for seed in range(count):
        machine = Machine(seed)
        found.append(pairs.compare(Noisy(1e-3, machine), Noisy(1e-3 * factor, machine), limits).verdict)
    return found


def test_the_same_is_called_the_same():
    found = verdicts(1.0)
    assert found.count("same") >= 0.95 * len(found)
    assert found.count("slower") + found.count("faster") <= 0.01 * len(found)


def test_a_tenth_more_is_called_slower():
    found = verdicts(1.10)
    assert found.count("slower") >= 0.90 * len(found)
    assert "same" not in found
    assert "faster" not in found


def test_a_tenth_less_is_called_faster():
    found = verdicts(1 / 1.10, 100)
    assert found.count("faster") >= 90
    assert "slower" not in found


def test_the_interval_holds_the_truth():
    inside = 0
    for seed in range(200):
        machine = Machine(seed)
        pair = pairs.compare(Noisy(1e-3, machine), Noisy(1.03e-3, machine), Limits(seconds=60, least=60, most=60))
        inside += pair.low <= 1.03 <= pair.high
    assert inside >= 0.93 * 200


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.99, 1.01, "same"), (1.06, 1.2, "slower"), (0.8, 0.95, "faster"), (0.9, 1.02, "unsure"), (1.04, 1.2, "unsure")],
)
def test_words(low: float, high: float, verdict: str):
    assert pairs.judge(low, high) == verdict
    turned = {"slower": "faster", "faster": "slower"}.get(verdict, verdict)
    assert pairs.judge(1 / high, 1 / low) == turned


def test_a_smaller_effect_asks_for_more():
    assert pairs.judge(1.02, 1.03) == "same"
    assert pairs.judge(1.02, 1.03, effect=0.01) == "slower"


def wait(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_known_durations():
    """Against calls that take what they say, by the clock itself."""
    first, second = Lane([lambda: wait(2e-4)]), Lane([lambda: wait(4e-4)])
    pair = pairs.compare(first, second, Limits(seconds=0.3))
    assert pair.ratio == pytest.approx(2, rel=0.1)
    assert pair.low <= pair.ratio <= pair.high
    assert pair.verdict == "slower"
    assert pair.first.median == pytest.approx(2e-4, rel=0.2)
    assert pair.first.n == pair.second.n == pair.n >= 12


def test_short_calls_are_timed_several_at_once():
    lane = Lane([lambda: None])
    assert lane.inner > 100
    assert lane.sample() < 1e-5


def test_each_side_comes_first_in_turn():
    order: list[str] = []
    pair = pairs.compare(
        Lane([lambda: order.append("a")], sample=0), Lane([lambda: order.append("b")], sample=0), Limits(60, most=12)
    )
    taken = "".join(order[-24:])
    assert pair.n == 12
    assert taken.count("abba") >= 5


def test_the_device_is_waited_for():
    waits: list[int] = []
    lane = Lane([lambda: None], synchronize=lambda: waits.append(1))
    before = len(waits)
    lane.sample()
    assert len(waits) == before + 1


def test_copies_take_turns():
    seen: list[int] = []
    lane = Lane([lambda k=k: seen.append(k) for k in range(3)], cold=True, sample=0)
    for _ in range(6):
        lane.sample()
    assert {tuple(seen[k : k + 3]) for k in range(0, len(seen) - 2, 3)} == {(0, 1, 2)}
    assert lane.timing("time").cache == "cold"
    assert lane.timing("time").buffers == 3


def test_a_call_that_replaces_the_clock_moves_no_sample(monkeypatch: pytest.MonkeyPatch):
    """The clock is kept from import on, so a call gains nothing by stopping it, or the ones beside it."""
    real = time.perf_counter
    for name in ("perf_counter", "monotonic", "time"):
        monkeypatch.setattr(time, name, getattr(time, name))

    def honest() -> None:
        end = real() + 2e-4
        while real() < end:
            pass

    def cheat() -> None:
        honest()
        honest()
        stopped = real()
        for name in ("perf_counter", "monotonic", "time"):
            setattr(time, name, lambda: stopped)

    pair = pairs.compare(Lane([honest]), Lane([cheat]), Limits(seconds=0.2))
    assert time.perf_counter() == time.perf_counter()  # it is stopped by now
    assert pair.verdict == "slower"
    assert pair.ratio == pytest.approx(2, rel=0.3)
    assert pair.second.first_call >= 4e-4


@pytest.mark.parametrize("more", [0, 1])
def test_calibration_on_the_real_clock(more: int):
    """Few comparisons on a machine that others use too: the wrong verdicts are what must not come."""
    found = calibrate.trial(more, 8, Limits(seconds=0.2), calibrate.fitting_size())
    assert sum(found.verdicts.values()) == len(found.ratios) == 8
    assert found.right == ("slower" if more else "same")
    assert found.verdicts["faster" if more else "slower"] <= 2
    assert 0.8 <= float(np.median(found.ratios)) <= 1.4


def test_calibration_says_what_it_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    machine = Machine(0)

    def model(repetitions: int, size: int) -> Lane:
        return Noisy(1e-4 * repetitions, machine)

    monkeypatch.setattr(calibrate, "fitting_size", lambda: 64)
    monkeypatch.setattr(calibrate, "work", model)
    monkeypatch.setattr(calibrate.pairs, "Lane", lambda calls: calls[0])
    assert calibrate.main(["--count", "20", "--seconds", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"A against A: same in (95|100)\.0 % \(target 95 %\); \d+ same", lines[0])
    assert re.match(r"A against 1\.10 A: slower in (9\d|100)\.\d % \(target 90 %\); .*ratio 1\.[01]", lines[1])
    monkeypatch.setattr(calibrate, "work", lambda repetitions, size: Noisy(1e-4, machine))
    assert calibrate.main(["--count", "5", "--seconds", "60"]) == 1


class Awake:
    """A stand-in for a kernel on several threads: some calls pass until it is as fast as it gets."""

    def __init__(self, log: list[str], name: str):
        self.log, self.name = log, name

    def __call__(self) -> None:
        self.log.append(self.name)
        time.sleep(1e-3)


def test_each_side_computes_alone_before_its_clock_starts():
    log: list[str] = []
    lanes = [Lane([Awake(log, name)], alone=pairs.ALONE) for name in "ab"]
    log.clear()
    for lane in lanes:
        lane.sample()
    told = "".join(log)
    assert re.fullmatch("a+b+", told)
    assert min(told.count("a"), told.count("b")) >= 3  # a sample has one, and sleeping may take longer than asked
    slow = Lane([lambda: time.sleep(0.05)], alone=pairs.ALONE)
    begin, before = slow.turn, len(slow.samples)
    slow.sample()
    assert (slow.turn - begin, len(slow.samples) - before) == (2, 1)  # one call is enough


@pytest.mark.parametrize(("count", "kind", "seconds"), [(1, "cpu", 0.0), (2, "cpu", pairs.ALONE), (2, "cuda", 0.0)])
def test_who_computes_alone_first(count: int, kind: str, seconds: float):
    before = gn.get_num_threads()
    gn.set_num_threads(count)
    try:
        assert pairs.alone(Device(kind, 0)) == seconds
    finally:
        gn.set_num_threads(before)
