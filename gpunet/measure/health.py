"""What holds a device back while it is measured: clocks, temperature, power, and the reasons for a lower clock.

A GPU is read through NVIDIA's management library (nvidia-ml-py, optional), which numbers all GPUs of the machine,
hidden ones included, while CUDA numbers those that ``CUDA_VISIBLE_DEVICES`` names, in its order. So the GPU is found by
its place on the PCI bus, or by its UUID. A processor is read from ``/sys`` where the system shows it.

What cannot be read is None. :func:`look` before a run and after it, then :func:`changes` for the report's notes.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpunet import cuda
from gpunet.devices import Device
from gpunet.errors import BackendUnavailableError

CORES = Path("/sys/devices/system/cpu")
CLOCK = 0.05  # a clock that fell by this share is worth a note
LEAST = 0.05  # seconds of throttling that are worth one
HOT = 85.0  # degrees Celsius of a GPU from which a note says so

#: the end of NVML's names for a reason -> what a reader calls it; an idle GPU and chosen clocks are no throttling
REASONS = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "SyncBoost": "held to the clock of other GPUs",
    "SwThermalSlowdown": "temperature",
    "HwThermalSlowdown": "temperature, by hardware",
    "HwPowerBrakeSlowdown": "power brake",
}
#: the end of NVML's names for a counter of throttled time -> the same
POLICIES = {"POWER": "power cap", "THERMAL": "temperature", "BOARD_LIMIT": "board limit", "RELIABILITY": "voltage"}


def look(device: Device) -> dict[str, Any]:
    """The state of a device now, as plain values for JSON.

    Returns:
        Keys "device" and "reason" (why nothing could be read, or None). Of a GPU "clock" and "memory_clock" (MHz),
        "highest" (MHz, of the clock), "temperature" (degrees Celsius), "power" and "power_limit" (watts), "reasons"
        (for a lower clock, at this moment) and "throttled" (reason -> seconds since the driver was loaded). Of a
        processor "clock" (MHz, median of its cores), "lowest_clock", "governor" and "throttled" (how often its cores
        and packages grew too hot). Of sim what the processor has.

    Example:
        >>> from gpunet import devices
        >>> from gpunet.measure import health
        >>> sorted(health.look(devices.CPU))
        ['clock', 'device', 'governor', 'lowest_clock', 'reason', 'throttled']
    """
    if device.kind != "cuda":
        return {"device": str(device), "reason": None, **_processor(CORES)}
    try:
        return {"device": str(device), "reason": None, **_gpu(device)}
    except BackendUnavailableError as error:
        return {"device": str(device), "reason": str(error)}
    except Exception as error:  # NVML's errors are classes of a module that may be absent, and CuPy has its own
        return {"device": str(device), "reason": f"NVML says {type(error).__name__}: {error}"}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What a reader of the times must know of two looks at one device; empty when nothing held it back.

    Args:
        before: from :func:`look`, before the run.
        after: from :func:`look`, after it.
    """
    name = before["device"]
    reason = before["reason"] or after["reason"]
    if reason:
        return [f"clocks and temperature of {name} are not known: {reason}"]
    if "reasons" in before:
        return _gpu_changes(name, before, after)
    return _processor_changes(before, after)


# --------------------------------------------------------------------------------------------------------------- GPU


def _gpu(device: Device) -> dict[str, Any]:
    nvml = cuda.nvml()
    nvml.nvmlInit()
    try:
        handle = _handle(nvml, device.index or 0)

        def read(names: tuple[str, ...], *arguments: Any, scale: float = 1.0) -> float | None:
            value = _first(nvml, names, handle, *arguments)
            return None if value is None else round(value * scale, 3)

        bits = _first(
            nvml, ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"), handle
        )
        return {
            "clock": read(("nvmlDeviceGetClockInfo",), nvml.NVML_CLOCK_SM),
            "memory_clock": read(("nvmlDeviceGetClockInfo",), nvml.NVML_CLOCK_MEM),
            "highest": read(("nvmlDeviceGetMaxClockInfo",), nvml.NVML_CLOCK_SM),
            "temperature": read(("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), nvml.NVML_TEMPERATURE_GPU),
            "power": read(("nvmlDeviceGetPowerUsage",), scale=1e-3),
            "power_limit": read(("nvmlDeviceGetEnforcedPowerLimit",), scale=1e-3),
            "reasons": _reasons(nvml, bits or 0),
            "throttled": _throttled(nvml, handle),
        }
    finally:
        nvml.nvmlShutdown()


def _handle(nvml: Any, index: int) -> Any:
    """NVML's handle of the GPU that CUDA numbers ``index``."""
    cupy = cuda.cupy()
    try:
        return nvml.nvmlDeviceGetHandleByPciBusId(cupy.cuda.Device(index).pci_bus_id)
    except nvml.NVMLError:  # a virtual GPU may have another place on the bus inside and outside
        digits = bytes(cupy.cuda.runtime.getDeviceProperties(index)["uuid"])[:16].hex()
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{'-'.join(parts)}")


def _first(nvml: Any, names: tuple[str, ...], *arguments: Any) -> Any:
    """What the first of these functions says that exists and is supported, newest name first; None if none is."""
    for name in names:
        function: Callable[..., Any] | None = getattr(nvml, name, None)
        if function is not None:
            try:
                return function(*arguments)
            except nvml.NVMLError:  # this GPU, or its driver, does not tell
                continue
    return None


def _reasons(nvml: Any, bits: int) -> list[str]:
    found = []
    for end, told in REASONS.items():
        names = (f"nvmlClocksEventReason{end}", f"nvmlClocksThrottleReason{end}")
        bit = next((getattr(nvml, name) for name in names if hasattr(nvml, name)), 0)
        if bits & bit:
            found.append(told)
    return found


def _throttled(nvml: Any, handle: Any) -> dict[str, float]:
    """Seconds for which each reason has held the clock down; those that are not counted here are left out."""
    found = {}
    for end, told in POLICIES.items():
        policy = getattr(nvml, f"NVML_PERF_POLICY_{end}", None)
        status = None if policy is None else _first(nvml, ("nvmlDeviceGetViolationStatus",), handle, policy)
        if status is not None:
            found[told] = status.violationTime / 1e9
    return found


def _gpu_changes(name: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = []
    grown = {
        reason: seconds - before["throttled"].get(reason, 0.0)
        for reason, seconds in after["throttled"].items()
        if seconds - before["throttled"].get(reason, 0.0) >= LEAST
    }
    told = [f"{reason}, for {seconds:.1f} s during the run" for reason, seconds in grown.items()]
    told += [f"{each}, at the start" for each in before["reasons"] if each not in grown]
    told += [f"{each}, at the end" for each in after["reasons"] if each not in grown and each not in before["reasons"]]
    clocks = f"clock {_text(before['clock'])} -> {_text(after['clock'])} MHz"
    if told:
        found.append(f"{name} was throttled: {'; '.join(told)}; {clocks}")
    elif _fell(before["clock"], after["clock"]) and _fell(before["highest"], after["clock"]):
        found.append(f"{name} ran slower at the end and gives no reason; {clocks}")
    if (after["temperature"] or 0.0) >= HOT:
        found.append(f"{name} is hot: {_text(before['temperature'])} -> {_text(after['temperature'])} degrees Celsius")
    return found


# --------------------------------------------------------------------------------------------------------- processor


def _processor(cores: Path) -> dict[str, Any]:
    clocks = [float(text) / 1e3 for text in _texts(cores, "cpu[0-9]*/cpufreq/scaling_cur_freq") if text.isdigit()]
    governors = sorted(set(_texts(cores, "cpu[0-9]*/cpufreq/scaling_governor")))
    counts = [
        int(text)
        for kind in ("core", "package")
        for text in _texts(cores, f"cpu[0-9]*/thermal_throttle/{kind}_throttle_count")
        if text.isdigit()
    ]
    return {
        "clock": round(statistics.median(clocks), 1) if clocks else None,
        "lowest_clock": round(min(clocks), 1) if clocks else None,
        "governor": ", ".join(governors) or None,
        "throttled": sum(counts) if counts else None,
    }


def _texts(folder: Path, pattern: str) -> list[str]:
    found = []
    for path in sorted(folder.glob(pattern)):
        try:
            found.append(path.read_text(encoding="ascii").strip())
        except (OSError, ValueError):  # a core that was switched off, or a file for root alone
            continue
    return found


def _processor_changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = []
    if before["governor"] not in (None, "performance"):
        found.append(f"the processor's clock follows its load (governor {before['governor']}): short calls look slower")
    if before["throttled"] is not None and (after["throttled"] or 0) > before["throttled"]:
        grew = after["throttled"] - before["throttled"]
        clocks = f"clock {_text(before['clock'])} -> {_text(after['clock'])} MHz"
        found.append(f"the processor grew too hot {grew} times during the run and slowed down; {clocks}")
    return found


def _fell(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and after < (1 - CLOCK) * before


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f}"


__all__ = ["changes", "look"]
