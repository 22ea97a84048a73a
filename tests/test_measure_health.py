"""The state of devices before and after a run, with a management library and a /sys of the tests' own."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gpunet import cuda, devices
from gpunet.measure import health

GPU = devices._named("cuda:1")
UUID = bytes.fromhex("0123456789abcdef0123456789abcdef")
NAMES = {
    "GpuIdle": 1, "ApplicationsClocksSetting": 2, "SwPowerCap": 4, "HwSlowdown": 8, "SyncBoost": 16,
    "SwThermalSlowdown": 32, "HwThermalSlowdown": 64, "HwPowerBrakeSlowdown": 128,
}  # fmt: skip


class NVMLError(Exception):
    """What pynvml raises."""


class Nvml(ModuleType):
    """A pynvml as nvidia-ml-py 13 has it: functions, constants, one error class. Handles are PCI bus ids here."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1

    def __init__(self, old: bool = False):
        super().__init__("pynvml")
        self.asked: list[Any] = []
        self.open = 0
        self.bits, self.sm, self.celsius, self.violations = 0, 1980, 40, {0: 0, 1: 0}
        word, time = ("Throttle", "ThrottleReasons") if old else ("Event", "EventReasons")
        for name, bit in NAMES.items():
            setattr(self, f"nvmlClocks{word}Reason{name}", bit)
        setattr(self, f"nvmlDeviceGetCurrentClocks{time}", lambda handle: self.bits)
        setattr(
            self, "nvmlDeviceGetTemperature" if old else "nvmlDeviceGetTemperatureV", lambda handle, _: self.celsius
        )

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByPciBusId(self, bus: str) -> str:
        self.asked.append(bus)
        return bus

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return {1: self.sm, 2: 3201}[kind]

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:
        return 1980

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 612_345

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        return 700_000

    def nvmlDeviceGetViolationStatus(self, handle: str, policy: int) -> Any:
        return SimpleNamespace(referenceTime=0, violationTime=self.violations[policy])


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    return installed(monkeypatch, Nvml())


def installed(monkeypatch: pytest.MonkeyPatch, nvml: Nvml) -> Nvml:
    """Puts it where pynvml is imported from, and a CuPy that sees two GPUs of a machine with more."""
    buses = {0: "0000:5E:00.0", 1: "0000:19:00.0"}
    runtime = SimpleNamespace(getDeviceProperties=lambda index: {"uuid": UUID})
    cupy: Any = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(Device=lambda index: SimpleNamespace(pci_bus_id=buses[index]), runtime=runtime)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return nvml


def test_a_gpu_is_found_by_its_place_on_the_bus_whatever_cuda_numbers_it(nvml: Nvml):
    found = health.look(GPU)
    assert nvml.asked == ["0000:19:00.0"]
    assert found == {
        "device": "cuda:1", "reason": None, "clock": 1980, "memory_clock": 3201, "highest": 1980, "temperature": 40,
        "power": 612.345, "power_limit": 700, "reasons": [], "throttled": {"power cap": 0, "temperature": 0},
    }  # fmt: skip
    assert nvml.open == 0


def test_a_gpu_whose_place_is_unknown_is_found_by_its_uuid(nvml: Nvml, monkeypatch: pytest.MonkeyPatch):
    def unknown(bus: str) -> str:
        raise NVMLError("Not Found")

    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByPciBusId", unknown)
    assert health.look(GPU)["clock"] == 1980
    assert nvml.asked == ["GPU-01234567-89ab-cdef-0123-456789abcdef"]


@pytest.mark.parametrize("old", [False, True])
def test_reasons_are_read_by_their_new_and_their_old_name(monkeypatch: pytest.MonkeyPatch, old: bool):
    nvml = installed(monkeypatch, Nvml(old))
    nvml.bits = sum(NAMES.values())
    found = health.look(GPU)
    assert found["reasons"] == list(health.REASONS.values())
    assert found["temperature"] == 40
    nvml.bits = NAMES["GpuIdle"] | NAMES["ApplicationsClocksSetting"]
    assert health.look(GPU)["reasons"] == []


def test_what_a_gpu_does_not_tell_is_none(nvml: Nvml, monkeypatch: pytest.MonkeyPatch):
    def unsupported(*_: Any) -> Any:
        raise NVMLError("Not Supported")

    for name in {*vars(Nvml), *vars(nvml)}:
        if name.startswith("nvmlDeviceGet") and "HandleBy" not in name:
            monkeypatch.setattr(nvml, name, unsupported)
    found = health.look(GPU)
    assert {found[name] for name in ("clock", "memory_clock", "highest", "temperature", "power", "power_limit")} == {
        None
    }
    assert (found["reasons"], found["throttled"]) == ([], {})
    assert health.changes(found, found) == []


def test_the_library_is_closed_when_something_fails(nvml: Nvml, monkeypatch: pytest.MonkeyPatch):
    def lost(*_: Any) -> Any:
        raise NVMLError("GPU is lost")

    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByPciBusId", lost)
    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByUUID", lost)
    found = health.look(GPU)
    assert found == {"device": "cuda:1", "reason": "NVML says NVMLError: GPU is lost"}
    assert nvml.open == 0


def test_without_the_library_the_reason_is_said_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    before, after = health.look(GPU), health.look(GPU)
    (line,) = health.changes(before, after)
    assert line.startswith("clocks and temperature of cuda:1 are not known: pynvml cannot be imported")
    assert cuda.INSTALL in line


def test_throttling_during_the_run_is_told_with_its_reason_and_the_clocks(nvml: Nvml):
    before = health.look(GPU)
    nvml.bits, nvml.sm, nvml.violations = NAMES["SwPowerCap"], 1410, {0: 2_300_000_000, 1: 1000}
    (line,) = health.changes(before, health.look(GPU))
    assert line == "cuda:1 was throttled: power cap, for 2.3 s during the run; clock 1980 -> 1410 MHz"


def test_throttling_without_counters_is_told_by_when_it_was_seen(nvml: Nvml):
    nvml.bits = NAMES["HwThermalSlowdown"]
    before = health.look(GPU)
    nvml.bits |= NAMES["HwSlowdown"]
    (line,) = health.changes(before, health.look(GPU))
    told = "temperature, by hardware, at the start; hardware slowdown, at the end"
    assert line == f"cuda:1 was throttled: {told}; clock 1980 -> 1980 MHz"


def test_a_lower_clock_without_a_reason_and_heat_are_told(nvml: Nvml):
    before = health.look(GPU)
    nvml.sm, nvml.celsius = 1200, 91
    assert health.changes(before, health.look(GPU)) == [
        "cuda:1 ran slower at the end and gives no reason; clock 1980 -> 1200 MHz",
        "cuda:1 is hot: 40 -> 91 degrees Celsius",
    ]
    nvml.sm, nvml.celsius = 1900, 60
    assert health.changes(before, health.look(GPU)) == []


def cores(folder: Path, clocks: tuple[int, ...], governor: str, throttled: int) -> None:
    for number, clock in enumerate(clocks):
        for name, text in (
            ("cpufreq/scaling_cur_freq", clock), ("cpufreq/scaling_governor", governor),
            ("thermal_throttle/core_throttle_count", throttled), ("thermal_throttle/package_throttle_count", 0),
        ):  # fmt: skip
            path = folder / f"cpu{number}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")


def test_a_processor_is_read_from_sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "CORES", tmp_path)
    (tmp_path / "cpufreq").mkdir()
    cores(tmp_path, (3_400_000, 3_600_000, 800_000), "performance", 2)
    before = health.look(devices.CPU)
    assert before == {
        "device": "cpu", "reason": None, "clock": 3400, "lowest_clock": 800, "governor": "performance", "throttled": 6,
    }  # fmt: skip
    assert health.changes(before, before) == []
    cores(tmp_path, (2_000_000,) * 3, "powersave", 5)
    after = health.look(devices.CPU)
    assert health.changes(before, after) == [
        "the processor grew too hot 9 times during the run and slowed down; clock 3400 -> 2000 MHz"
    ]
    (line,) = health.changes(after, after)
    assert "governor powersave" in line


def test_a_processor_that_shows_nothing_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "CORES", tmp_path / "absent")
    found = health.look(devices.CPU)
    assert {found[name] for name in ("clock", "lowest_clock", "governor", "throttled")} == {None}
    assert health.changes(found, found) == []
    assert health.look(devices._named("sim"))["device"] == "sim"
