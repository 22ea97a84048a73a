"""What this machine is, as far as a measurement depends on it. No name of a host, a user or a folder."""

import os
import platform
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

from gpunet.cpu import threads

DEFAULT_CACHE = 32 * 2**20  # where the system does not tell: large enough that "cold" stays true on most machines
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def cores() -> int:
    """Cores this process may use: its affinity, or fewer under a quota of the container."""
    return threads.cores()


def affinity() -> list[int]:
    """Numbers of the processors this process may run on; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@cache
def caches() -> dict[str, int]:
    """Sizes in bytes of the first core's caches, by name: L1d, L1i, L2, L3; empty where the system does not tell."""
    found: dict[str, int] = {}
    kinds = {"Data": "d", "Instruction": "i"}
    for each in sorted(CACHES.glob("index*")):
        try:
            level, kind, size = (
                (each / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")
            )
            found[f"L{level}{kinds.get(kind, '')}"] = int(size.rstrip("KM")) * {"K": 2**10, "M": 2**20}.get(size[-1], 1)
        except (OSError, ValueError):
            continue
    return found


def last_level_cache() -> int:
    """Bytes of the largest cache, or a guess on the safe side."""
    return max(caches().values(), default=DEFAULT_CACHE)


def memory() -> dict[str, int]:
    """Bytes of main memory: "total", and "available" to a new program without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        table = {key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines) if rest}
        return {"total": table["MemTotal"], "available": table["MemAvailable"]}
    except (OSError, KeyError, ValueError, IndexError):
        pages, size = _sysconf("SC_PHYS_PAGES"), _sysconf("SC_PAGE_SIZE")
        total = pages * size if pages and size else 4 * 2**30
        return {"total": total, "available": total // 2}


def busy() -> float | None:
    """Seconds that the cores of this process have worked, for whomever; None where the system does not tell."""
    try:
        mine = {f"cpu{k}" for k in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines()]
        # user nice system idle iowait irq softirq steal
        ticks = [int(row[k]) for row in lines if row[0] in mine for k in (1, 2, 3, 6, 7, 8)]
        return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None
    except (OSError, AttributeError, ValueError, IndexError):
        return None


class Others:
    """How much of this process's cores other programs used since this object was made."""

    def __init__(self) -> None:
        self.begin = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float | None]:
        own = os.times()
        return time.monotonic(), own.user + own.system, busy()

    def share(self) -> float | None:
        """From 0 to 1; None where the system does not tell."""
        now = self._now()
        if now[2] is None or self.begin[2] is None:
            return None
        wall, own, all_work = (b - a for a, b in zip(self.begin, now, strict=True))  # type: ignore[operator]
        return round(min(1.0, max(0.0, (all_work - own) / max(wall * cores(), 1e-9))), 3)


def _sysconf(name: str) -> int:
    try:
        return max(0, os.sysconf(name))
    except (ValueError, OSError, AttributeError):
        return 0


def blas() -> list[dict[str, Any]]:
    """The thread pools loaded in this process (BLAS, OpenMP): name, version, threads. NumPy must be imported."""
    from threadpoolctl import threadpool_info

    keys = ("user_api", "internal_api", "version", "num_threads", "threading_layer", "architecture")
    return [{key: pool[key] for key in keys if pool.get(key) is not None} for pool in threadpool_info()]


def without_paths(text: str) -> str:
    """``text`` with every absolute path cut to its last part: reports travel, and folders name people."""
    return re.sub(r"(?<![\w:/.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:'\"()]+[/\\])+([^\s/\\:'\"()]*)", r"\1", text)
