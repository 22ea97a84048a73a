"""The clock and the roof: what they report of calls whose length is known. Nothing here depends on a fast machine."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from gpunet import devices
from gpunet.dispatch import Work
from gpunet.measure import machine, roof, timer
from gpunet.measure.rows import Roof, Timing


def nothing() -> None:
    pass


def timing(median: float, high: float | None = None, cache: str = "cold") -> Timing:
    high = median if high is None else high
    return Timing(median, median, median, median, high, median, high, 10, 1, median, 0.0, 1, cache, "noise")


def test_known_duration_is_found():
    limits = timer.Limits(warmup=0.01, min_time=0.05, max_time=0.3)
    found = timer.measure([lambda: time.sleep(0.005)], nothing, limits)
    assert 0.005 <= found.minimum <= found.low <= found.median <= found.high <= found.maximum
    assert found.p25 <= found.median <= found.p75
    assert found.median < 0.05  # a busy machine wakes late, but not ten times
    assert found.first_call >= 0.005
    assert found.inner == 1
    assert found.n >= 3
    assert found.stopped in ("noise", "time")


def test_first_call_is_no_sample():
    calls = 0

    def slow_at_first() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.1 if calls == 1 else 0.001)

    found = timer.measure([slow_at_first], nothing, timer.Limits(warmup=0, min_time=0, max_time=0.2))
    assert found.first_call >= 0.1
    assert found.median < 0.1


def test_calls_take_turns_and_none_is_dropped():
    turns: list[int] = []
    calls = [lambda k=k: turns.append(k) for k in range(3)]
    limits = timer.Limits(warmup=0, min_time=0, max_time=0.05, min_samples=5, sample=0)
    found = timer.measure(calls, nothing, limits)
    assert turns == [k % 3 for k in range(len(turns))]
    assert found.buffers == 3
    assert len(turns) >= found.n * found.inner + 1


def test_short_calls_are_timed_several_at_once():
    found = timer.measure([nothing], nothing, timer.Limits(warmup=0.01, min_time=0.01, max_time=0.1))
    assert found.inner > 10
    assert 0 < found.median < 1e-4


def test_long_calls_end_soon_after_the_limit():
    begin = time.perf_counter()
    found = timer.measure([lambda: time.sleep(0.05)], nothing, timer.Limits(warmup=10, min_time=0, max_time=0.04))
    assert time.perf_counter() - begin < 5  # neither ten seconds of warm-up nor ten samples
    assert found.stopped == "time"
    assert 1 <= found.n <= 3


def test_device_is_waited_for_before_the_clock_is_read():
    waits = 0

    def synchronize() -> None:
        nonlocal waits
        waits += 1
        time.sleep(0.002)

    found = timer.measure([nothing], synchronize, timer.Limits(warmup=0, min_time=0, max_time=0.05))
    assert waits >= found.n
    assert found.median * found.inner >= 0.002


def test_collector_is_on_again_also_after_an_error():
    import gc

    with pytest.raises(ZeroDivisionError):
        timer.measure([lambda: 1 / 0], nothing, timer.Limits())
    assert gc.isenabled()


def test_interval_of_the_median():
    low, high = timer.median_interval(np.arange(100.0))
    assert (low, high) == (40.0, 60.0)
    assert timer.median_interval(np.arange(3.0)) == (0.0, 2.0)
    assert timer.median_interval(np.array([7.0])) == (7.0, 7.0)
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        low, high = timer.median_interval(np.sort(random.exponential(size=31)))
        inside += low <= np.log(2) <= high
    assert inside >= 0.94 * 400


def test_copies_are_enough_to_be_cold_or_it_says_hot():
    copies, cold = timer.copies_for(2**20, cache=8 * 2**20)
    assert cold
    assert copies * 2**20 > 2 * 8 * 2**20
    assert timer.copies_for(64, cache=8 * 2**20) == (1, False)
    assert timer.copies_for(100 * 2**20, cache=8 * 2**20)[1]
    assert timer.copies_for(2**62, cache=8 * 2**20) == (1, True)  # no cache holds this anyway


ROOF = Roof("cpu", "float32", flops=1e11, memory=1e10, cache=1e11, probes=1)


def test_standing_under_the_roof():
    compute = roof.standing(Work(10**9, 10**6, 10**6), timing(0.02), ROOF)
    assert compute.bound == "compute"
    assert compute.percent == pytest.approx(50)
    assert compute.gflops == pytest.approx(50)
    memory = roof.standing(Work(0, 10**8, 10**8), timing(0.04), ROOF)
    assert (memory.bound, memory.impossible) == ("memory", False)
    assert memory.percent == pytest.approx(50)
    assert memory.gbytes == pytest.approx(5)
    assert roof.standing(Work(0, 10**8, 10**8), timing(0.04, cache="hot"), ROOF).percent == pytest.approx(5)


def test_faster_than_the_roof_by_more_than_noise_is_impossible():
    work = Work(10**9, 0, 0)  # ten milliseconds at least
    assert roof.standing(work, timing(0.005), ROOF).impossible
    assert not roof.standing(work, timing(0.0095), ROOF).impossible  # within what a probe may be off
    assert not roof.standing(work, timing(0.005, high=0.02), ROOF).impossible  # within the row's own noise
    assert roof.standing(Work(0, 10**9, 0), timing(0.005), ROOF).impossible  # not even a cache is so fast
    assert not roof.standing(work, timing(0.005), ROOF, saving=4).impossible  # an algorithm that needs fewer operations


def test_probe_measures_and_the_best_counts():
    found = roof.probe(devices.CPU, "float32", seconds=0.1)
    assert found.device == "cpu"
    assert 0 < found.memory <= found.cache
    assert found.flops > 1e8
    best = roof.better(ROOF, Roof("cpu", "float32", 2e11, 1e9, 5e11, 2))
    assert (best.flops, best.memory, best.cache, best.probes) == (2e11, 1e10, 5e11, 3)
    assert roof.savings("matmul", "reference") == 1.0


def test_machine_tells_what_a_result_depends_on():
    assert machine.cores() >= 1
    assert machine.last_level_cache() >= 2**15
    assert machine.memory()["total"] >= machine.memory()["available"] > 0
    assert machine.cpu_model()
    share = machine.Others().share()
    assert share is None or 0 <= share <= 1


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("cannot open /usr/lib/x86_64/libcuda.so.1: no such file", "cannot open libcuda.so.1: no such file"),
        ("see https://a.example/b/c and 3/4", "see https://a.example/b/c and 3/4"),
        ('"/home/somebody/kernels.py", line 3', '"kernels.py", line 3'),
        (r"C:\Users\somebody\nvrtc.dll is missing", "nvrtc.dll is missing"),
        ('pip install "gpunet[cuda13]"', 'pip install "gpunet[cuda13]"'),
    ],
)
def test_folders_are_cut_out_of_messages(text: str, clean: str):
    assert machine.without_paths(text) == clean


def test_the_median_is_that_of_a_plain_loop():
    def busy() -> None:
        sum(range(20000))

    plain = []
    for _ in range(60):
        begin = time.perf_counter()
        busy()
        plain.append(time.perf_counter() - begin)
    found = timer.measure([busy], nothing, timer.Limits(warmup=0.01, min_time=0.02, max_time=0.2))
    assert min(plain) / 3 < found.minimum < 3 * min(plain)
    assert min(plain) / 3 < found.median < 3 * max(plain)


def scripted(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> timer._Loop:
    """A loop whose samples are given instead of timed, by a clock that moves by what they take."""
    now = [0.0]
    times = iter(seconds)
    loop = timer._Loop([nothing], nothing, None, None)

    def sample(count: int, closing: bool = False) -> float:
        took = next(times)
        now[0] += took
        loop.again.append(took)
        return took

    monkeypatch.setattr(loop, "sample", sample)
    monkeypatch.setattr(timer, "_second_clock", lambda: now[0])
    return loop


def test_steady_samples_end_for_small_noise_but_not_before_their_time(monkeypatch: pytest.MonkeyPatch):
    limits = timer.Limits(min_time=0.05, max_time=100, min_samples=10)
    samples, stopped = timer._collect(scripted(monkeypatch, [1e-3] * 1000), 1, limits)
    assert stopped == "noise"
    assert 50 <= len(samples) <= 65
    assert timer.summary(samples, stopped, 1, 0.0, 1, True).outliers == 0


def test_samples_around_two_times_end_once_their_entropy_has_settled(monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(0)
    two = [1e-3 if random.random() < 0.5 else 2e-3 for _ in range(100_000)]
    samples, stopped = timer._collect(scripted(monkeypatch, two), 1, timer.Limits(max_time=1e9))
    assert stopped == "entropy"
    assert len(samples) < 10_000
    assert not timer.settled([1e-3 * 1.05**k for k in range(300)])  # a drift: each sample is new
    assert timer.settled([1e-3, 2e-3] * 300)


def test_samples_that_never_settle_end_for_time(monkeypatch: pytest.MonkeyPatch):
    drift = [1e-3 * 1.03**k for k in range(1000)]
    samples, stopped = timer._collect(scripted(monkeypatch, drift), 1, timer.Limits(max_time=1.0))
    assert stopped == "time"
    assert sum(samples) >= 1.0
    assert sum(samples[:-1]) < 1.0


def test_outliers_are_counted_and_kept():
    found = timer.summary([1.0, 1.1, 1.2, 1.1, 1.0, 1.2, 50.0, 0.01], "noise", 1, 0.0, 1, True)
    assert (found.outliers, found.n, found.maximum, found.minimum) == (2, 8, 50.0, 0.01)


def test_calls_that_are_slow_at_first_do_not_shorten_the_samples():
    state = {"calls": 0}

    def slow_at_first() -> None:
        state["calls"] += 1
        if state["calls"] <= 5:
            time.sleep(0.01)

    found = timer.measure([slow_at_first], nothing, timer.Limits(warmup=0.02, min_time=0, max_time=0.05))
    assert found.inner > 10
    assert found.median < 1e-4
    assert found.first_call >= 0.01


def test_two_clocks_that_disagree_are_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timer, "_clock", lambda: time.monotonic() / 2)
    with pytest.raises(timer.ClockError, match="by one clock as by another"):
        timer.measure([lambda: time.sleep(0.002)], nothing, timer.Limits(0, 0, 0.02))


def test_what_stands_between_the_samples_is_told_of_each_and_given_the_last():
    class Between:
        def __init__(self):
            self.told: list[range] = []
            self.last: list[tuple[int, int]] = []

        def before(self, turns: range, closing: bool) -> None:
            self.told.append(turns)
            time.sleep(0.002)  # in no sample

        def after(self, turn: int, result: int) -> None:
            self.last.append((turn, result))

    between, turns = Between(), iter(range(10**9))
    found = timer.measure([lambda: next(turns)], nothing, timer.Limits(0, 0, 0.05, sample=0), between=between)
    assert [k for each in between.told for k in each] == list(range(next(turns)))
    assert len(between.last) == timer.CLOSING
    assert all(turn == result for turn, result in between.last)
    assert found.median < 0.002


# -------------------------------------------------------------------------------------------------- a device's clock


class Device:
    """A device that does what it is given later, and knows how long it took: calls are queued, then waited for."""

    waited = 0.0

    def __init__(self, each: float):
        self.each, self.queue, self.marks, self.now = each, 0, [], 0.0
        self.started: list[int] = []

    def call(self) -> None:
        self.queue += 1

    def start(self, count: int) -> None:
        assert self.queue == 0
        self.started.append(count)

    def stop(self) -> None:
        self.marks.append(self.queue)

    def synchronize(self) -> None:
        self.now += self.queue * self.each
        self.queue = 0

    def seconds(self) -> float:
        assert self.queue == 0, "asked before the device was waited for"
        return self.marks[-1] * self.each


def test_a_devices_own_clock_gives_the_samples():
    device = Device(2.5)  # "seconds" that the host never sees pass
    limits = timer.Limits(warmup=0.001, min_time=0.005, max_time=0.1)
    found = timer.measure([device.call], device.synchronize, limits, stopwatch=device)
    assert (found.median, found.low, found.high, found.first_call) == (2.5, 2.5, 2.5, 2.5)
    assert found.stopped == "noise"
    assert device.started[-1] == found.inner
    assert len(device.started) == len(device.marks)


def test_work_that_the_devices_clock_does_not_see_is_refused():
    device = Device(1e-6)

    def slow() -> None:  # another stream: the host waits for it, the current stream does not know of it
        device.synchronize()
        time.sleep(0.005)

    limits = timer.Limits(warmup=0, min_time=0, max_time=0.1)
    with pytest.raises(timer.ClockError, match="must be done on the current stream"):
        timer.measure([device.call], lambda: slow() if device.queue else None, limits, stopwatch=device)


class _Event:
    """An event of a stream: its time is that of the work handed over before it."""

    def __init__(self, stream: "_Stream"):
        self.stream, self.at = stream, -1.0

    def record(self) -> None:
        self.at = self.stream.now

    def synchronize(self) -> None:
        self.stream.waited = True


class _Stream:
    def __init__(self) -> None:
        self.now, self.waited, self.waits = 0.0, False, []


def test_the_gpus_stopwatch_marks_both_ends_and_covers_the_launches(monkeypatch: pytest.MonkeyPatch):
    from gpunet.measure import events

    stream = _Stream()
    probes = SimpleNamespace(wait=lambda grid, block, arguments: stream.waits.append(arguments[1]))
    monkeypatch.setattr(events, "_probes", lambda: probes)
    cuda = SimpleNamespace(Event=lambda: _Event(stream), get_elapsed_time=lambda begin, end: (end.at - begin.at) * 1e3)
    device = SimpleNamespace(xp=SimpleNamespace(zeros=np.zeros, cuda=cuda))
    watch = events.Stopwatch(device)  # type: ignore[arg-type]
    ticks = iter([10.0, 10.5, 20.0, 20.25])
    monkeypatch.setattr(events.timer, "clock", lambda: next(ticks))
    watch.start(5)
    stream.now += 0.75  # five calls on the device
    watch.stop()
    assert watch.seconds() == pytest.approx(0.75)
    assert stream.waited
    assert watch.handed == pytest.approx(0.1)  # half a second for five
    watch.start(10)
    assert stream.waits[-1] == pytest.approx(1e9 * (1e-4 + 1.5 * 0.1 * 10))
