"""What the parts of a run share: what was asked for, where kernels can run, the report, the clock and the screen."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpunet import devices, dispatch
from gpunet.devices import Device
from gpunet.dispatch import Kernel
from gpunet.errors import ArgumentError, DeviceError
from gpunet.measure import info, machine, progress
from gpunet.measure.calls import suites
from gpunet.measure.rows import Report, Roof

PARTS = ("proof", "time", "against", "sweep", "steps", "training")
BUDGET = 160.0
DTYPES = ("float32", "float64")
BUSY = 0.1  # share of the cores at work for others from which the report says so
SAVE_EVERY = 2.0  # seconds between two writes of the report while it grows


@dataclass
class Options:
    """What ``gpunet compare`` may be asked for.

    Raises:
        ArgumentError: an unknown part, op or tier, or a budget that is not above 0.
    """

    full: bool = False
    """Every size that suits the devices here, both dtypes, every variant, all images, five epochs."""
    budget: float | None = None
    """Seconds for everything; None for 160 in the quick pass and no limit with ``full``."""
    device: str | None = None
    """"cpu", "cuda", "cuda:N" or "sim" alone; None or "auto" for all that can run."""
    seed: int = 0
    out: Path | None = Path("gpunet-report")
    """Folder of report.json and report.html; None writes no file."""
    parts: tuple[str, ...] = PARTS
    """Which to do: proof, time, against (pairs with rivals), sweep, steps, training."""
    against: tuple[str, ...] = ("numpy",)
    """What the chosen kernels are timed in turns with: see :func:`gpunet.measure.against.rivals`."""
    ops: tuple[str, ...] | None = None
    """Ops to look at; None for all."""
    tiers: tuple[str, ...] | None = None
    """Tiers of sizes to time; None for "quick", and with ``full`` every tier that suits the devices."""
    dtypes: tuple[str, ...] | None = None
    """Dtypes to time; None for float32, and with ``full`` for both. Proofs are always in both."""
    threads: tuple[int, ...] = (0,)
    """Numbers of threads to time the processor's kernels with; 0 is all."""
    quiet: bool = False
    """Show nothing."""

    def __post_init__(self) -> None:
        allowed = {"parts": PARTS, "ops": suites.names(), "tiers": suites.TIERS, "dtypes": DTYPES}
        for name, choices in allowed.items():
            wrong = [each for each in getattr(self, name) or () if each not in choices]
            if wrong:
                raise ArgumentError(f"compare: {name} must be among {', '.join(choices)}, got {wrong[0]!r}")
        if any(count < 0 for count in self.threads):
            raise ArgumentError(f"compare: threads must be 0 for all, or more, got {min(self.threads)}")
        if self.budget is not None and not self.budget > 0:
            raise ArgumentError(f"compare: budget must be above 0 seconds, got {self.budget}; None is no limit")

    @property
    def seconds(self) -> float | None:
        """The budget that holds."""
        return BUDGET if self.budget is None and not self.full else self.budget

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values; the folder is left out."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in ("out", "quiet")} | {
            "seconds": self.seconds
        }


@dataclass(frozen=True)
class Lane:
    """A backend on a device, where both run and this version has kernels."""

    device: Device
    backend: str

    def __str__(self) -> str:
        return f"{self.device} {self.backend}"


@dataclass
class Session:
    """One run."""

    options: Options
    screen: Any
    report: Report
    budget: progress.Budget
    lanes: list[Lane] = field(default_factory=list)
    first_calls: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """(kernel, device, dtype) -> seconds of its first call in this run."""
    wrong: set[tuple[str, str]] = field(default_factory=set)
    """(kernel, device) that failed a proof: they are not timed."""
    small: set[tuple[str, str, str]] = field(default_factory=set)
    """(kernel, device, dtype) that were tried on the sizes of tier "proof"."""
    others: machine.Others = field(default_factory=machine.Others)
    _saved: float = 0.0

    @property
    def ops(self) -> tuple[str, ...]:
        """The ops of this run."""
        return self.options.ops or suites.names()

    def note(self, text: str) -> None:
        """Puts a line into the report, once: what was left out, and why."""
        if text not in self.report.notes:
            self.report.notes.append(text)

    def note_others(self) -> None:
        """Writes down how busy other programs kept the cores; a note says it where times suffered."""
        share = self.report.environment["others"] = self.others.share()
        if share is not None and share > BUSY:
            self.note(f"other programs used {100 * share:.0f} % of the cores during the run: times are too long")

    def save(self, now: bool = False) -> None:
        """Writes report.json, if it is due or must be."""
        if self.options.out is not None and (now or time.monotonic() - self._saved >= SAVE_EVERY):
            self.report.write(self.options.out / "report.json")
            self._saved = time.monotonic()

    def first_call(self, kernel: Kernel, device: Device, dtype: str, seconds: float) -> float:
        """Remembers the first call of a kernel, and returns what it took."""
        return self.first_calls.setdefault((kernel.name, str(device), dtype), seconds)

    def roof(self, device: Device, dtype: str) -> Roof:
        """The roof of a device, probed when it is first asked for."""
        from gpunet.measure import roof

        for each in self.report.roofs:
            if (each.device, each.dtype) == (str(device), dtype):
                return each
        self.report.roofs.append(roof.probe(device, dtype))
        return self.report.roofs[-1]

    def raise_roof(self, device: Device, dtype: str) -> Roof:
        """Probes the roof again and keeps the best of both."""
        from gpunet.measure import roof

        old = self.roof(device, dtype)
        best = roof.better(old, roof.probe(device, dtype))
        self.report.roofs[self.report.roofs.index(old)] = best
        return best


def start(options: Options) -> Session:
    """Looks at the machine and at what can run on it.

    Raises:
        DeviceError: a device was asked for by name that cannot run, or that has no kernels.
    """
    session = Session(options, progress.console(options.quiet), Report(), progress.Budget(options.seconds))
    asked = None if options.device in (None, "auto") else devices.device(options.device)
    session.report.options = options.to_dict()
    session.report.environment = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **info.collect()}
    session.lanes = _lanes(session, asked)
    if not session.lanes:
        raise DeviceError(f"compare: the device must have kernels in this version, got {options.device!r}; try 'auto'")
    return session


def _lanes(session: Session, asked: Device | None) -> list[Lane]:
    lanes: list[Lane] = []
    for record in session.report.environment["devices"]:
        if asked is not None and record["name"] != asked.kind:
            continue
        place = asked or devices._named(record["name"])
        for each in record["backends"]:
            if each["runs"] and each["kernels"]:
                lanes.append(Lane(place, each["name"]))
    return lanes


def kernels_of(lane: Lane, entry: str) -> list[Kernel]:
    """The kernels of an entry on a lane's backend, lowest rung first."""
    return dispatch.variants(entry, lane.backend)
