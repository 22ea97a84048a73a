"""What `gpunet info` shows and every report is stamped with: versions, machine, devices, and what can run.

A backend counts as running only after a small sum was really computed on it and came out right.
"""

import importlib.metadata
import platform
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet import config, cuda, devices, dispatch
from gpunet.devices import Backend, Device
from gpunet.errors import GpunetError
from gpunet.measure import machine

#: distributions whose versions a result may depend on
PACKAGES = (
    "gpunet", "numpy", "numba", "llvmlite", "rich", "matplotlib", "threadpoolctl", "safetensors",
    "cupy-cuda13x", "cupy-cuda12x", "cupy", "numba-cuda", "cuda-bindings", "torch", "onnx", "onnxruntime", "mpi4py",
)  # fmt: skip
COUNT = 1000  # the small sum is 0 + 1 + ... + 999
SUM = float(COUNT * (COUNT - 1) // 2)


def collect() -> dict[str, Any]:
    """Everything about this machine that a result may depend on, as plain values for JSON.

    No name of a host, a user or a folder is in it. Every backend that says it can run is tried with a small sum.

    Returns:
        Keys "python", "system", "packages", "processor", "memory", "blas", "settings", "gpus", "devices".
        Each of "devices" has "name", "runs", "reason" and "backends", which have the same three, "kernels" (how many
        this version holds) and "sum" ("right", or what went wrong).

    Example:
        >>> from gpunet.measure import info
        >>> cpu = info.collect()["devices"][0]
        >>> cpu["name"], cpu["backends"][0]["name"], cpu["backends"][0]["sum"]
        ('cpu', 'numpy', 'right')
    """
    places = [_device_record(kind) for kind in devices.KINDS]  # first: a sum loads the thread pools that blas() lists
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "processor": {
            "model": machine.cpu_model(),
            "cores": machine.cores(),
            "affinity": machine.affinity(),
            "caches": machine.caches(),
        },
        "memory": machine.memory(),
        "blas": machine.blas(),
        "settings": _settings(),
        "gpus": _gpus(),
        "devices": places,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _settings() -> dict[str, Any]:
    """What the environment asked of gpunet; folders are left out."""
    now = config.settings
    return {"device": now.device, "backend": now.backend, "variants": dict(now.variants), "seed": now.seed}


def _device_record(kind: str) -> dict[str, Any]:
    place = devices._named(kind)
    reason = place.why_not()
    backends = [_backend_record(place, record) for record in devices.BACKENDS.values() if kind in record.devices]
    runs = reason is None and any(each["runs"] for each in backends)
    return {"name": kind, "runs": runs, "reason": _clean(reason), "backends": backends}


def _backend_record(place: Device, backend: Backend) -> dict[str, Any]:
    reason = place.why_not() or backend.why_not(place.kind)
    outcome = ""
    if reason is None:
        outcome = _try_sum(SUMS[backend.name], place)
        reason = None if outcome == "right" else f"the trial sum failed: {outcome}"
    return {
        "name": backend.name,
        "runs": reason is None,
        "reason": _clean(reason),
        "kernels": _kernel_count(backend.name),
        "sum": _clean(outcome),
    }


def _kernel_count(backend: str) -> int:
    return sum(len(dispatch.variants(entry, backend)) for op in dispatch.ops() for entry in dispatch.entries(op))


def _try_sum(function: Callable[[Device], float], place: Device) -> str:
    try:
        result = function(place)
    except Exception as error:  # a broken installation raises anything, and what it raises is the answer
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return "right" if result == SUM else f"expected {SUM:.0f}, got {result}"


def _sum_numpy(place: Device) -> float:
    return float(np.arange(COUNT, dtype=np.float64).sum())


def _sum_numba_cpu(place: Device) -> float:
    import numba

    @numba.njit
    def total(x: np.ndarray) -> float:
        s = 0.0
        for each in x:
            s += each
        return s

    return float(total(np.arange(COUNT, dtype=np.float64)))


def _sum_cupy(place: Device) -> float:
    return float(place.to_host(place.asarray(np.arange(COUNT, dtype=np.float64)).sum()))


def _sum_numba_cuda(place: Device) -> float:
    from gpunet.cuda import jit

    x, y = place.asarray(np.arange(COUNT, dtype=np.float64)), place.asarray(np.zeros(1))
    jit.total_kernel(x)((1,), (32,), (y, x, COUNT))
    place.synchronize()
    return float(place.to_host(y)[0])


SUMS: dict[str, Callable[[Device], float]] = {
    "numpy": _sum_numpy,
    "numba_cpu": _sum_numba_cpu,
    "cupy": _sum_cupy,
    "numba_cuda": _sum_numba_cuda,
}


def _gpus() -> list[dict[str, Any]]:
    found = []
    for index in range(cuda.gpu_count()):
        try:
            runtime = cuda.cupy().cuda.runtime
            about = runtime.getDeviceProperties(index)
            found.append(
                {
                    "name": about["name"].decode(errors="replace"),
                    "capability": f"{about['major']}.{about['minor']}",
                    "multiprocessors": int(about["multiProcessorCount"]),
                    "memory": int(about["totalGlobalMem"]),
                    "l2_cache": int(about.get("l2CacheSize", 0)),
                    "driver": int(runtime.driverGetVersion()),
                    "runtime": int(runtime.runtimeGetVersion()),
                }
            )
        except (GpunetError, RuntimeError, KeyError) as error:
            found.append({"name": f"GPU {index}", "reason": _clean(str(error))})
    return found


def _clean(text: str | None) -> str:
    return machine.without_paths(text or "")


# ----------------------------------------------------------------------------------------------------------- render


def render(info: dict[str, Any]) -> Any:
    """What ``collect`` found, as something that ``rich.console.Console().print`` shows."""
    from rich.console import Group

    return Group(_facts(info), "", _backend_table(info))


def facts(info: dict[str, Any]) -> list[tuple[str, str]]:
    """The machine in lines of name and value, for people."""
    processor, packages = info.get("processor", {}), dict(info.get("packages", {}))
    caches = ", ".join(f"{name} {size_text(size)}" for name, size in processor.get("caches", {}).items())
    memory = info.get("memory", {})
    gpunet = packages.pop("gpunet", "unknown")
    rows = [
        ("gpunet", f"{gpunet}, {info.get('python', '')}, {info.get('system', '')}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages.items())),
        ("processor", f"{processor.get('model', '')}, {processor.get('cores', '?')} cores usable; {caches}"),
        ("memory", f"{size_text(memory.get('total', 0))}, {size_text(memory.get('available', 0))} available"),
    ]
    for pool in info.get("blas", []):
        name = " ".join(str(pool[key]) for key in ("internal_api", "version", "architecture") if pool.get(key))
        kind = "BLAS" if pool.get("user_api") == "blas" else pool.get("user_api", "threads")
        rows.append((kind, f"{name}, {pool.get('num_threads', '?')} threads"))
    for gpu in info.get("gpus", []):
        rows.append(("GPU", gpu_text(gpu)))
    return rows


def gpu_text(gpu: dict[str, Any]) -> str:
    """One GPU in a line."""
    if "reason" in gpu:
        return f"{gpu['name']}: {gpu['reason']}"
    driver = f"driver API {gpu['driver'] // 1000}.{gpu['driver'] % 1000 // 10}"
    size = size_text(gpu["memory"])
    return f"{gpu['name']}, capability {gpu['capability']}, {gpu['multiprocessors']} multiprocessors, {size}, {driver}"


def size_text(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def backend_lines(info: dict[str, Any]) -> list[tuple[str, str, bool, str]]:
    """(device, backend, whether it runs, kernels or reason) for every pair."""
    lines = []
    for place in info.get("devices", []):
        for each in place["backends"]:
            kernels = each.get("kernels", 0)
            told = f"{kernels} kernels" if kernels else "no kernels in this version"
            about = f"{told}; trial sum {each['sum']}" if each["runs"] else each["reason"]
            lines.append((place["name"], each["name"], bool(each["runs"]), about))
    return lines


def _facts(info: dict[str, Any]) -> Any:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for name, value in facts(info):
        grid.add_row(f"[bold]{name}", _escaped(value))
    return grid


def _backend_table(info: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("device", "backend", "runs", "kernels, or why not and what to do")
    for device, backend, runs, about in backend_lines(info):
        table.add_row(device, backend, "[green]yes" if runs else "[yellow]no", _escaped(about))
    return table


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
