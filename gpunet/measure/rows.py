"""What a run writes down: plain records, the report that holds them, and its file.

Every record becomes a dictionary of numbers, strings and lists. A number that is not finite is written as null, since
JSON has no word for it. Fields may join within a version; a field that changes its meaning raises VERSION.
"""

import glob
import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from gpunet.errors import DataError
from gpunet.measure.curves import Agreement, BreakEven, Curve, Point, Step, Sweep

FORMAT = "gpunet-report"
VERSION = 1

T = TypeVar("T")


@dataclass
class Proof:
    """Whether one kernel does what the definition does, on one case."""

    op: str
    """The op whose suite the case comes from."""
    entry: str
    """The entry, with the flags that tell two calls of one case apart."""
    phase: str
    """"forward", "backward", "second" (of a second derivative), or "gradient" for the definition's own check."""
    device: str
    backend: str
    variant: str
    place: str
    """``file.py:line`` of the launcher."""
    dtype: str
    size: str
    """The size's name in the suite."""
    status: str
    """"passed"; "failed"; "refused" when the kernel says that it does not take the arguments; "untested"."""
    reason: str = ""
    """Why it failed or refused; empty when it passed."""
    reached: float | None = None
    """Largest error relative to the largest value of the definition, of the output that is worst for its bound."""
    allowed: float | None = None
    """The bound of that output."""
    deterministic: bool | None = None
    """Whether repeats gave the same bits; None where it was not looked at."""


@dataclass
class Timing:
    """What the clock said about repeated calls; seconds a call."""

    median: float
    p25: float
    p75: float
    low: float
    """Lower end of the 95 % interval of the median."""
    high: float
    """Upper end of it."""
    minimum: float
    maximum: float
    n: int
    """Samples; none is ever left out."""
    inner: int
    """Calls in a sample; above 1 where one call is too short for the clock."""
    first_call: float
    """The very first call, compilation included; no sample."""
    noise: float
    """Distance of the quartiles over the median."""
    buffers: int
    """Copies of the inputs that the calls took in turn."""
    cache: str
    """"cold": the copies exceed twice the last-level cache; "hot": they do not."""
    stopped: str
    """What ended the measuring: "noise" small enough, "entropy" that grows no more, or "time" spent."""
    outliers: int = 0
    """Samples beyond 1.5 times the quartiles' distance from the nearer quartile; they count like all others."""


@dataclass
class Row:
    """One kernel, proved and timed on one size."""

    op: str
    entry: str
    phase: str
    device: str
    backend: str
    variant: str
    place: str
    dtype: str
    size: str
    origin: str
    tier: str
    shapes: list[list[int]]
    params: dict[str, Any]
    proof: str
    """"passed", before and after the timing; a row without it is not written."""
    reached: float | None
    allowed: float | None
    time: Timing
    flops: int
    bytes_read: int
    bytes_written: int
    gflops: float
    """Billions of operations a second: the definition's count over the median."""
    gbytes: float
    """Billions of bytes a second that must be moved, over the median."""
    roof_percent: float
    """Least possible time over the median, in percent."""
    bound: str
    """"compute" or "memory": which roof is nearer."""
    impossible: bool
    """Faster than any roof measured in this run by more than noise."""
    threads: int = 0
    """Threads of the thread pools during the timing; 0 for as many as there are."""
    launch: float | None = None
    """Seconds in which the host hands one call over to a device; None where the host does the work."""
    copy_in: float | None = None
    """Seconds to bring the inputs to the device; None where they are there."""
    copy_out: float | None = None
    """Seconds to bring the outputs back."""
    peak: int | None = None
    """Bytes that the call allocates at most at one time, outputs included; None where nobody counts."""
    deterministic: bool | None = None
    """Whether repeats gave the same bits in the proof; None where it was not looked at."""


@dataclass
class Ratio:
    """One kernel against another library doing the same, timed in turns."""

    entry: str
    size: str
    dtype: str
    device: str
    backend: str
    variant: str
    chosen: bool
    """Whether this is the rung that runs when nobody asks for one by name."""
    peer: str
    """The library, its version, and its precision."""
    ours: float
    """Median seconds a call."""
    theirs: float
    ratio: float
    """Median of theirs / ours over the pairs: above 1 the kernel is faster."""
    low: float
    """Lower end of the 95 % interval of the median."""
    high: float
    n: int
    """Pairs."""
    verdict: str = ""
    """What the kernel is beside the other: "same", "faster", "slower" or "unsure", at the effect below."""
    effect: float = 0.05
    """The smallest part of the time that counts."""
    threads: int = 0
    """As in a row."""
    phase: str = ""
    """As in a row."""


@dataclass
class Roof:
    """What a device can do at best, measured in this run."""

    device: str
    dtype: str
    flops: float
    """Multiplications and additions a second, from a matrix product of the vendor's library."""
    memory: float
    """Bytes a second, read and written, of arrays beyond every cache."""
    cache: float
    """Bytes a second of arrays within a cache, on all cores."""
    probes: int
    """How often it was measured; the best counts."""


@dataclass
class Report:
    """Everything a run found. ``write`` and ``read`` are its file; ``failed`` is its verdict."""

    environment: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    """False while the run is under way, and for one that was interrupted."""
    roofs: list[Roof] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)
    break_even: list[BreakEven] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    training: list[Curve] = field(default_factory=list)
    agreement: list[Agreement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out or stopped early, and why."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each part took."""
    recorded: list[dict[str, Any]] = field(default_factory=list)
    """Rows of other runs shown beside: "machine", "time" and "row"."""

    @property
    def failed(self) -> list[str]:
        """One line for each proof that failed and each impossible row; empty when all is well."""
        wrong = [f"{_who(each)}: {each.reason}" for each in self.proofs if each.status in ("failed", "untested")]
        fast = [
            f"{_who(each)}: impossible, {each.roof_percent:.0f} % of the roof" for each in self.rows if each.impossible
        ]
        return wrong + fast

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON knows it."""
        return {"format": FORMAT, "version": VERSION, "failed": self.failed, **_plain(asdict(self))}

    def write(self, path: Path) -> None:
        """Writes the report in one move: whoever reads the file finds a whole one, whenever the run ends."""
        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")


def _who(row: Proof | Row) -> str:
    case = " ".join(part for part in (row.op, row.size, row.dtype) if part)
    return f"{row.entry}/{row.backend}/{row.variant} on {row.device}, {case}"


def read(path: str | Path) -> Report:
    """The report in a file that :meth:`Report.write` wrote.

    Raises:
        DataError: not such a file, or one of a later version.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"report: {str(path)!r} must be JSON, got {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"report: {str(path)!r} must be a file of `gpunet compare`, got one without format {FORMAT!r}")
    version = content.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise DataError(
            f"report: {str(path)!r} must have a version from 1 to {VERSION}, got {version!r}; update gpunet"
        )
    try:
        return _report(content)
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"report: {str(path)!r} lacks what version {version} has: {error}") from error


def _report(content: dict[str, Any]) -> Report:
    rows = [Row(**{**_known(Row, each), "time": _make(Timing, each["time"])}) for each in content["rows"]]
    lists: dict[str, type] = {"roofs": Roof, "proofs": Proof, "training": Curve, "agreement": Agreement}
    made = {name: [_make(kind, each) for each in content[name]] for name, kind in lists.items()}
    later: dict[str, type] = {"ratios": Ratio, "break_even": BreakEven, "steps": Step}  # joined within the version
    made |= {name: [_make(kind, each) for each in content.get(name, ())] for name, kind in later.items()}
    made["sweeps"] = [
        _make(Sweep, {**each, "points": [_make(Point, point) for point in each["points"]]})
        for each in content.get("sweeps", ())
    ]
    return Report(**{**_known(Report, content), "rows": rows, **made})


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _make(kind: type[T], values: dict[str, Any]) -> T:
    return kind(**_known(kind, values))


def write_text(path: Path, text: str) -> None:
    """Writes a file by way of a temporary one beside it and a rename, which is one step for any reader.

    A process that is killed in between leaves its temporary file; whoever writes the same file next removes it. A
    device or a pipe is written to directly.
    """
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
        return
    path = path.resolve()  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_over(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:  # also when Ctrl-C came in between
        temporary.unlink(missing_ok=True)


def _remove_left_over(path: Path) -> None:
    """Removes temporary files of ``path`` whose process is no more, and one of this process's own number."""
    for each in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = each.name.removesuffix(".tmp").rpartition(".")[2]
        if number.isdigit() and not _is_running(int(number)):
            each.unlink(missing_ok=True)


def _is_running(number: int) -> bool:
    """Whether another process has this number; True where the system cannot be asked without harm."""
    if number == os.getpid():
        return False
    if os.name != "posix":
        return True
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _plain(value: Any) -> Any:
    """The same with what JSON lacks replaced: numbers that are not finite, tuples, NumPy scalars."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
