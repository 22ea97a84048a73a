"""The size at which two lanes break even, and what other machines recorded beside this one's."""

import math
from pathlib import Path
from typing import Any

import pytest

from gpunet.measure import break_even, recorded, rows, session, tables
from gpunet.measure.curves import BreakEven, Point, Sweep
from gpunet.measure.rows import Report, Row, Timing

NS = (16, 32, 64, 128, 256)


def curve(times: dict[int, float] | list[float], device: str = "cpu", backend: str = "numpy", **more: Any) -> Sweep:
    """A sweep with intervals of 1 % around these times."""
    table = times if isinstance(times, dict) else dict(zip(NS, times, strict=True))
    points = [Point(n, [[n, n]], t, 0.99 * t, 1.01 * t) for n, t in table.items()]
    axis = more.pop("axis", "N")
    return Sweep("matmul", "matmul.forward", device, backend, more.pop("threads", 0), "float32", axis, points, **more)


def gpu(times: list[float], copied: list[float] | None = None, **more: Any) -> Sweep:
    found = curve(times, "cuda:0", "cupy", **more)
    for point, value in zip(found.points, copied or (), strict=False):
        point.copied, point.copied_low, point.copied_high = value, 0.99 * value, 1.01 * value
    return found


def found(one: Sweep, other: Sweep, copies: bool = False) -> BreakEven:
    answer = break_even.find(one, other, copies)
    assert answer is not None
    return answer


# -------------------------------------------------------------------------------------------------------- break-even


def test_one_crossing_is_interpolated_between_the_sure_sizes():
    """Near grows with n, far stands still: they meet at n = 90 exactly, and logarithms of both are straight lines."""
    answer = found(curve([float(n) for n in NS]), gpu([90.0] * 5))
    assert answer.n == pytest.approx(90)
    assert (answer.low, answer.high) == (64, 128)
    assert (answer.near, answer.far, answer.copies) == ("cpu numpy", "cuda:0 cupy", False)
    wanted = "matmul.forward: below N = 90 (between 64 and 128) stay on cpu numpy; from there cuda:0 cupy is faster"
    assert answer.words == wanted


def test_an_unsure_size_widens_the_interval_alone():
    near = curve([float(n) for n in NS])
    near.points[2].low, near.points[2].high = 50.0, 200.0  # at 64
    answer = found(near, gpu([90.0] * 5))
    assert (answer.low, answer.high) == (32, 128)
    assert answer.n == pytest.approx(90)


def test_a_surely_smaller_difference_than_matters_is_unsure():
    near, far = curve([1.0, 1.0, 1.0, 1.0, 1.0]), gpu([1.03] * 5)
    for point in (*near.points, *far.points):
        point.low, point.high = 0.999 * point.median, 1.001 * point.median
    assert (found(near, far).low, found(near, far).high) == (None, None)
    assert "not surely apart at any size tried (16 to 256)" in found(near, far).words


@pytest.mark.parametrize(
    ("near", "far", "bounds", "words"),
    [
        ([9.0] * 5, [1.0] * 5, (None, 16), "cuda:0 cupy is faster at every size tried (16 to 256)"),
        ([1.0] * 5, [9.0] * 5, (256, None), "cpu numpy is faster at every size tried (16 to 256)"),
        ([1.0] * 5, [1.0] * 5, (None, None),
         "cpu numpy and cuda:0 cupy are not surely apart at any size tried (16 to 256)"),
        ([1, 1, 9, 9, 9], [1, 1, 1, 1, 1], (None, 64),
         "cuda:0 cupy is faster from N = 64 on; below (16 to 256 tried) neither surely"),
        ([1, 1, 1, 1, 1], [9, 9, 1, 1, 1], (32, None),
         "cpu numpy is faster at N = 16 and 32; at the others tried (16 to 256) neither surely"),
        ([1, 9, 9, 9, 1], [9, 1, 1, 1, 1], (16, None),
         "cpu numpy is faster at N = 16, cuda:0 cupy is faster at N = 32, 64, 128; at the largest tried (16 to 256) "
         "neither surely"),
    ],
)  # fmt: skip
def test_without_a_crossing_there_is_no_size(near: Any, far: Any, bounds: Any, words: str):
    answer = found(curve(near), gpu(far))
    assert answer.n is None
    assert (answer.low, answer.high) == bounds
    assert answer.words == f"matmul.forward: {words}"


def test_of_several_crossings_the_last_counts_and_the_words_say_so():
    answer = found(curve([1, 9, 1, 1, 9]), gpu([3] * 5))
    assert (answer.low, answer.high) == (128, 256)
    assert answer.n == pytest.approx(128 * 2 ** (math.log(3) / math.log(9)))
    assert "they cross 3 times, this is the last" in answer.words


def test_lanes_change_places_where_the_first_is_faster_at_large_sizes():
    answer = found(gpu([90.0] * 5), curve([float(n) for n in NS]))
    assert (answer.near, answer.far) == ("cpu numpy", "cuda:0 cupy")
    assert answer.n == pytest.approx(90)


def test_copies_move_the_size_and_are_named():
    answer = found(curve([float(n) for n in NS]), gpu([20.0] * 5, [180.0] * 5), copies=True)
    assert answer.copies
    assert answer.n == pytest.approx(180)
    assert answer.words.startswith("matmul.forward, with copies of inputs and results: below N = 180 (between 128 and")


def test_a_call_on_a_gpu_takes_no_less_than_handing_it_over():
    far = gpu([1.0] * 5)
    for point in far.points:
        point.launch = 90.0
    assert found(curve([float(n) for n in NS]), far).n == pytest.approx(90)


def test_only_common_sizes_count():
    assert break_even.find(curve({16: 1.0}), curve({32: 1.0})) is None
    answer = found(curve({16: 1.0, 64: 9.0}), curve({64: 1.0, 128: 1.0}, "cuda:0", "cupy"))
    assert answer.words == "matmul.forward: cuda:0 cupy is faster at the only size tried (64)"


def test_sizes_in_words():
    assert [break_even.size_text(n) for n in (16, 1048576, 180.4, 1834.2, 1.37)] == [
        "16", "1,048,576", "180", "1,800", "1.4",
    ]  # fmt: skip


def test_which_lanes_are_held_against_each_other():
    sweeps = [
        curve([1.0] * 5), curve([1.0] * 5, threads=1), curve([1.0] * 5, backend="numba_cpu"),
        curve([1.0] * 5, backend="numba_cpu", threads=1), gpu([1.0] * 5, [1.0] * 5),
    ]  # fmt: skip
    told = {(each.near, each.far, each.copies) for each in break_even.all_of(sweeps)}
    assert told == {
        ("cpu numpy", "cuda:0 cupy", False), ("cpu numpy", "cuda:0 cupy", True),
        ("cpu numba_cpu", "cuda:0 cupy", False), ("cpu numba_cpu", "cuda:0 cupy", True),
        ("cpu numpy", "cpu numba_cpu", False),
        ("cpu numpy on 1 thread", "cpu numpy on all threads", False),
        ("cpu numba_cpu on 1 thread", "cpu numba_cpu on all threads", False),
    }  # fmt: skip
    assert break_even.all_of([curve([1.0] * 5), gpu([1.0] * 5, axis="rows")]) == []


def test_lines_join_the_entries_that_say_nothing():
    report = Report(sweeps=[curve([1.0] * 5), curve([1.0] * 5, backend="numba_cpu"), gpu([9.0] * 5)])
    report.break_even = break_even.all_of(report.sweeps)
    lines = tables.break_even_lines(report)
    assert lines[0] == "matmul.forward: cpu numpy is faster at every size tried (16 to 256)"
    assert "cpu numpy and cpu numba_cpu are not surely apart at any size tried: matmul.forward" in lines
    assert lines[-1] == "N is, for matmul: N"
    assert tables.break_even_lines(Report()) == []


# ---------------------------------------------------------------------------------------------------------- recorded


def row(device: str, median: float, **more: Any) -> Row:
    given: dict[str, Any] = {"op": "matmul", "entry": "matmul.forward", "shapes": [[8, 8], [8, 8]], "params": {}} | more
    timing = Timing(median, median, median, median, median, median, median, 9, 1, median, 0.0, 1, "hot", "noise")
    return Row(
        given["op"], given["entry"], "forward", device, "numpy" if device == "cpu" else "cupy",
        given.get("variant", "v"), "f:1", given.get("dtype", "float32"), "square", "own", "quick", given["shapes"],
        given["params"], "passed", 0.0, 1e-6, timing, 6, 24, 24, 1.0, 2.0, 50.0, "memory", False,
    )  # fmt: skip


def kept(path: Path, rows_kept: list[Row], sweeps: list[Sweep] | None = None) -> Path:
    """A folder with one recorded run."""
    path.mkdir(exist_ok=True)
    about = {"time": "2026-01-31T10:00:00Z", "gpus": [{"name": "Big GPU"}]}
    Report(environment=about, rows=rows_kept, sweeps=sweeps or [], complete=True).write(path / "big.json")
    return path


@pytest.fixture
def now() -> Any:
    made = session.start(session.Options(ops=("relu",), out=None, quiet=True, device="cpu"))
    made.report.rows = [row("cpu", 5.0), row("cpu", 5.0, params={"transpose_b": True})]
    made.report.sweeps = [curve([float(n) for n in NS])]
    return made


def test_recorded_rows_of_the_same_work_are_shown_beside(now: Any, tmp_path: Path):
    theirs = [
        row("cuda:0", 2.0, variant="slow"), row("cuda:0", 1.0, variant="fast"),
        row("cuda:0", 1.0, shapes=[[9, 9], [9, 9]]), row("cuda:0", 1.0, dtype="float64"), row("cpu", 0.1),
        row("cuda:0", 3.0, params={"transpose_b": True}), row("cuda:0", 1.0, params={"transpose_a": True}),
    ]  # fmt: skip
    recorded.beside(now, [kept(tmp_path, theirs)])
    shown = [(each["machine"], each["time"], each["row"]["time"]["median"]) for each in now.report.recorded]
    assert shown == [("Big GPU", "2026-01-31T10:00:00Z", 1.0), ("Big GPU", "2026-01-31T10:00:00Z", 3.0)]
    now.report.write(tmp_path / "out.json")
    assert rows.read(tmp_path / "out.json").recorded[0]["row"]["variant"] == "fast"


def test_recorded_sweeps_are_marked_and_two_machines_named(now: Any, tmp_path: Path):
    theirs = [gpu([90.0] * 5, [180.0] * 5), gpu([90.0] * 5, axis="another"), curve([1.0] * 5)]
    recorded.beside(now, [kept(tmp_path, [], theirs)])
    marked = [each for each in now.report.sweeps if each.machine]
    assert [(each.device, each.machine, each.time) for each in marked] == [
        ("cuda:0", "Big GPU", "2026-01-31T10:00:00Z")
    ]
    told = [each.words for each in now.report.break_even]
    assert told[0] == (
        "matmul.forward: below N = 90 (between 64 and 128) stay on cpu numpy; from there cuda:0 cupy (recorded) is "
        "faster; two machines are compared, this one and another: cuda:0 cupy is Big GPU, recorded 2026-01-31"
    )
    assert [each.copies for each in now.report.break_even] == [False, True]
    recorded.beside(now, [kept(tmp_path, [], now.report.sweeps)])
    assert len([each for each in now.report.sweeps if each.machine]) == 1, "what was shown beside is recorded again"


def test_a_folder_without_runs_and_a_broken_file_are_no_end(now: Any, tmp_path: Path):
    recorded.beside(now, [tmp_path / "absent"])
    assert now.report.recorded == []
    (tmp_path / "broken.json").write_text("{")
    recorded.beside(now, [tmp_path])
    assert [note for note in now.report.notes if "broken.json" in note]
    assert str(tmp_path) not in " ".join(now.report.notes)
    assert all(each.name == "results" for each in recorded.folders())
